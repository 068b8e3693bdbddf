//! What the journal of a server has: the changes that its host records.

use alloc::collections::VecDeque;

use mqtt_proto::PacketId;

use crate::event::Token;

/// A change that the host of a server must record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// PUBREC came for a message: from now on PUBREL is sent, and the message never again.
    Released(Token),
    /// PUBREL came: the identifier of a message from the client is free.
    Freed(PacketId),
}

/// The changes that a server reports to its host, and whether its packets wait for records.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    pub(crate) changes: VecDeque<Change>,
    /// Whether the machine holds the packets of flows. If not, only those that the host holds by a call wait for records.
    pub(crate) waits: bool,
}

impl Flows {
    pub(crate) fn released(&mut self, token: Token) {
        if self.waits {
            self.changes.push_back(Change::Released(token));
        }
    }

    pub(crate) fn freed(&mut self, id: PacketId) {
        if self.waits {
            self.changes.push_back(Change::Freed(id));
        }
    }
}

/// The records that a barrier waits for, while the host has not yet said which they are.
pub(crate) const UNKNOWN: u64 = u64::MAX;
