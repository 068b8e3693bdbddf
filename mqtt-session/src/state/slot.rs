//! The slot of a message or request on its way to the peer.

use mqtt_proto::PacketId;
use mqtt_proto::num::{low_half, to_usize};
use mqtt_proto::wire::kind;

use crate::bytes::part;
use crate::event::{Ended, Nth, Token};
use crate::tune::not_inlined_on_devices;

/// A message or request on its way. Its fields are private; firmware lends an array of slots.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub(crate) number: u32,
    /// Where its packet lies in `kept`. For a request: the QoS that each filter asks for, one byte each.
    pub(crate) start: u32,
    pub(crate) len: u32,
    /// For a QoS 0 message, which has no packet identifier: how many such messages there were up to this one, so that its token
    /// is unique. Otherwise 0.
    pub(crate) nth: Nth,
    pub(crate) awaits: Awaits,
    pub(crate) flags: u8,
}

/// The state of a slot: the packet type of the answer that it waits for, or one of the states below.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Awaits(u8);

impl Awaits {
    /// A QoS 0 message waits for a connection.
    pub(crate) const CONNECTION: Self = Self(0);
    pub(crate) const PUBACK: Self = Self(kind::PUBACK);
    pub(crate) const PUBREC: Self = Self(kind::PUBREC);
    pub(crate) const PUBCOMP: Self = Self(kind::PUBCOMP);
    /// From this value on the message or request has ended, and its end has to be reported. The lower bits say how it ended.
    const ENDED: Self = Self(0x10);
    /// The end was reported. The message can be read until the next `receive`.
    pub(crate) const REPORTED: Self = Self(0x20);
    /// The slot is free. It is removed when that is cheap.
    pub(crate) const FREE: Self = Self(0x40);

    /// Waits for the answer of this packet type.
    pub(crate) const fn answer(kind: u8) -> Self {
        Self(kind)
    }

    not_inlined_on_devices! {
        /// Returns whether this is a message whose bytes may be needed.
        pub(crate) const fn is_message(self) -> bool {
            matches!(self, Self::CONNECTION | Self::PUBACK | Self::PUBREC)
        }
    }

    /// Returns whether SUBACK or UNSUBACK is awaited.
    pub(crate) const fn is_request(self) -> bool {
        self.0 == kind::SUBACK || self.0 == kind::UNSUBACK
    }

    pub(crate) const fn ended(how: Ended) -> Self {
        Self(
            Self::ENDED.0
                | match how {
                    Ended::InDoubt => 0,
                    Ended::Dropped => 1,
                    Ended::TooLarge => 2,
                    Ended::Sent => 3,
                    Ended::Lost => 4,
                    Ended::NotSupported => 5,
                },
        )
    }

    /// Returns how it ended, if that has to be reported.
    pub(crate) const fn how(self) -> Option<Ended> {
        Some(match self.0 ^ Self::ENDED.0 {
            0 => Ended::InDoubt,
            1 => Ended::Dropped,
            2 => Ended::TooLarge,
            3 => Ended::Sent,
            4 => Ended::Lost,
            5 => Ended::NotSupported,
            _ => return None,
        })
    }
}

/// The packet was sent on this connection.
const ON_WIRE: u8 = 1;
/// The packet was sent before. It has the DUP flag the next time.
const DUP: u8 = 2;
/// The message counts in the window of this connection.
const COUNTED: u8 = 4;
/// The record of the message names an earlier session.
#[cfg(feature = "journal")]
const RECORD_DUE: u8 = 8;
/// The age of a message whose record is put off; 0 if the message has a record.
#[cfg(feature = "journal")]
const AGE: u8 = 0b11 << 4;
#[cfg(feature = "journal")]
pub(crate) const YOUNG: u8 = 1 << 4;
#[cfg(feature = "journal")]
pub(crate) const OLD: u8 = 2 << 4;
/// The record is to be written as soon as it has room.
#[cfg(feature = "journal")]
pub(crate) const DUE: u8 = 3 << 4;

impl Slot {
    /// A free slot, to fill an array with.
    pub const EMPTY: Self = Self {
        number: 0,
        start: 0,
        len: 0,
        nth: Nth::NONE,
        awaits: Awaits::CONNECTION,
        flags: 0,
    };

    /// Returns the packet identifier; 0 for a QoS 0 message.
    pub(crate) const fn id(&self) -> u16 {
        if self.nth.is_none() {
            low_half(self.number)
        } else {
            0
        }
    }

    /// Returns the packet identifier of a message or request that has one.
    pub(crate) fn packet_id(&self) -> PacketId {
        PacketId::new(self.id()).unwrap_or(PacketId::FIRST)
    }

    pub(crate) const fn token(&self) -> Token {
        Token {
            number: self.number,
            nth: self.nth,
        }
    }

    not_inlined_on_devices! {
        /// Returns its packet.
        pub(crate) fn bytes<'k>(&self, kept: &'k [u8]) -> &'k [u8] {
            part(kept, to_usize(self.start), to_usize(self.len))
        }
    }

    pub(crate) const fn has_ended(&self) -> bool {
        self.awaits.0 >= Awaits::ENDED.0
    }

    /// Returns whether the packet may be sent: it was not sent on this connection, and has not ended.
    pub(crate) const fn may_go(&self) -> bool {
        self.flags & ON_WIRE == 0 && !self.has_ended()
    }

    pub(crate) const fn is_dup(&self) -> bool {
        self.flags & DUP != 0
    }

    pub(crate) const fn is_counted(&self) -> bool {
        self.flags & COUNTED != 0
    }

    /// Returns whether the message was never sent.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.flags & (ON_WIRE | DUP) == 0 && self.awaits.is_message()
    }

    /// Marks the packet as sent on this connection and, if `counted`, as part of its window.
    pub(crate) const fn goes(&mut self, counted: bool) {
        self.flags |= ON_WIRE | if counted { COUNTED } else { 0 };
    }

    /// Marks the packet as not sent on this connection.
    pub(crate) const fn comes_back(&mut self) {
        self.flags &= !ON_WIRE;
    }

    /// Marks a message that was sent as one to be sent again, after the connection has ended.
    pub(crate) fn disconnected(&mut self) {
        if self.flags & ON_WIRE != 0
            && (self.awaits == Awaits::PUBACK || self.awaits == Awaits::PUBREC)
        {
            self.flags |= DUP;
        }
        self.flags &= !(ON_WIRE | COUNTED);
    }

    /// Makes the message a new one, because the peer does not know it any more.
    pub(crate) const fn is_new_again(&mut self) {
        self.flags &= !DUP;
    }

    /// Notes that PUBREC arrived: the peer has the message, and its bytes are not needed any more.
    pub(crate) const fn received(&mut self) {
        (self.awaits, self.len) = (Awaits::PUBCOMP, 0);
        self.flags |= ON_WIRE;
    }
}

#[cfg(feature = "journal")]
impl Slot {
    /// Notes that the record of the message has to be written again.
    pub(crate) const fn record_becomes_due(&mut self) {
        self.flags |= RECORD_DUE;
    }

    pub(crate) const fn recorded(&mut self) {
        self.flags &= !RECORD_DUE;
        self.set_age(0);
    }

    /// Returns whether the record of the message names an earlier session, so that it has to be written again.
    pub(crate) const fn record_is_due(&self) -> bool {
        self.flags & RECORD_DUE != 0
    }

    /// Returns whether the message has no record because it was put off.
    pub(crate) const fn is_deferred(&self) -> bool {
        self.flags & AGE != 0
    }

    pub(crate) const fn has_age(&self, age: u8) -> bool {
        self.flags & AGE == age
    }

    pub(crate) const fn set_age(&mut self, age: u8) {
        self.flags = self.flags & !AGE | age;
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::EMPTY
    }
}
