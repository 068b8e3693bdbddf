//! Holds the names of messages and targets in records.

/// The name of a recorded message and one of its copies: copy 0 goes to the subscriptions of a session, each of the others to one
/// shared subscription, in their order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct RecordName(u64);

impl RecordName {
    /// The name of a message without a record.
    pub(crate) const NONE: Self = Self(0);

    pub(super) const fn new(message: u64, copy: u16) -> Self {
        let [_, _, a, b, c, d, e, f] = message.to_be_bytes();
        let [g, h] = copy.to_be_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    pub(crate) fn is_some(self) -> bool {
        self != Self::NONE
    }

    pub(super) const fn message(self) -> u64 {
        self.0 >> 16
    }

    pub(super) const fn copy(self) -> u16 {
        let [.., g, h] = self.0.to_be_bytes();
        u16::from_be_bytes([g, h])
    }

    /// Returns the name of the session with this number as the target of this copy.
    pub(super) const fn target(self, session: u64) -> u64 {
        Self::new(session, self.copy()).0
    }

    /// Returns the name of the copy of this message that a target has, by the target's name.
    pub(crate) const fn of_copy(self, target: u64) -> Self {
        Self::new(self.message(), Self(target).copy())
    }

    /// Returns the session and the copy of a target's name.
    pub(crate) const fn of_target(target: u64) -> (u64, u16) {
        (Self(target).message(), Self(target).copy())
    }
}

/// How many shared subscriptions may get a copy of one message that is recorded. With more, two targets would have the same name if one
/// session is a member of both, and the record of one would count for the other.
pub(crate) const MOST_COPIES: usize = 0xFFFF;

/// The limit of the numbers of sessions and messages.
pub(super) const NUMBERS: u64 = 1 << 48;
