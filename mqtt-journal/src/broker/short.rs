//! Encodes the records that a broker writes for each message. They have numbers only, so each is one short piece.

use super::values::Flow;
use super::{Entry, FLOW, RECEIVED};

/// A record with numbers only.
pub(super) struct Short {
    /// The length of what follows in one byte, and what follows.
    bytes: [u8; 1 + Self::ROOM],
    len: usize,
}

impl Short {
    /// The longest one is the number of a sent message: kind, length of the key, key, flow, number.
    const ROOM: usize = 2 + 16 + 1 + 4;

    fn new(first_byte: u8, key_len: u8) -> Self {
        let mut bytes = [0; 1 + Self::ROOM];
        bytes[1] = first_byte;
        bytes[2] = key_len;
        Self { bytes, len: 3 }
    }

    fn with<const N: usize>(mut self, number: [u8; N]) -> Self {
        let rest = self.bytes.get_mut(self.len..).unwrap_or_default();
        if let Some(room) = rest.first_chunk_mut() {
            *room = number;
            self.len = self.len.saturating_add(N);
        }
        self
    }

    fn done(mut self) -> Self {
        // The length of the bytes that follow is below 128, so that one byte is enough.
        self.bytes[0] = u8::try_from(self.len.saturating_sub(1)).unwrap_or(0);
        self
    }

    /// Returns the record.
    pub(super) fn record(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Entry<'_> {
    /// Returns the record, if it is one of a message's flow and has numbers only.
    pub(super) fn short(&self) -> Option<Short> {
        let short = match *self {
            Self::Received {
                session,
                id,
                message,
            } => {
                let short = Short::new(RECEIVED.first_byte(message.is_none()), 10)
                    .with(session.to_be_bytes())
                    .with(id.get().to_be_bytes());
                match message {
                    Some(message) => short.with(message.to_be_bytes()),
                    None => short,
                }
            }
            Self::Flow {
                message,
                session,
                flow,
            } => {
                let short = Short::new(FLOW.first_byte(flow.is_none()), 16)
                    .with(message.to_be_bytes())
                    .with(session.to_be_bytes());
                match flow {
                    Some(Flow::Target(_)) => return None,
                    Some(Flow::Sent(number)) => short.with([1]).with(number.to_be_bytes()),
                    Some(Flow::Released(number)) => short.with([2]).with(number.to_be_bytes()),
                    Some(Flow::Done) => short.with([3]),
                    None => short,
                }
            }
            _ => return None,
        };
        Some(short.done())
    }
}
