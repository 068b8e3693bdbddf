//! A PUBLISH larger than the input buffer: its head arrives first, then its payload in pieces. The message is received with its
//! last piece, and not acknowledged before. If the connection ends in between, nothing of it is stored.

use mqtt_proto::num::{to_u32, to_usize};
use mqtt_proto::wire::kind;

use crate::engine::Engine;
use crate::inbound::Arrival;
use crate::memory::Memory;
use crate::problem::Problem;
use crate::progress::{Found, Progress};
use crate::state::link::Pieces;
use crate::tune::PIECES;

#[cfg(not(feature = "pieces"))]
impl Engine {
    #[allow(clippy::unused_self, reason = "as where there are some")]
    pub(crate) fn head(
        &mut self,
        _: &mut Memory<'_>,
        _: u32,
        _: &mut Progress<'_>,
    ) -> Result<(), Problem> {
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "as where there are some")]
    pub(crate) fn piece(
        &mut self,
        _: &mut Memory<'_>,
        _: &mut Progress<'_>,
    ) -> Result<(), Problem> {
        Ok(())
    }
}

#[cfg(feature = "pieces")]
impl Engine {
    /// Handles the head of a message of `total` bytes, which may be followed by a part of the payload.
    #[cold]
    pub(crate) fn head(
        &mut self,
        m: &mut Memory<'_>,
        total: u32,
        progress: &mut Progress<'_>,
    ) -> Result<(), Problem> {
        self.learn_alias(m, &progress.view)?;
        let view = &mut progress.view;
        // The part of the payload that has arrived is not consumed yet.
        progress.consumed = progress.consumed.wrapping_sub(view.body.len());
        view.body = &[];
        let left = total.wrapping_sub(to_u32(progress.consumed));
        let repeated = view.flags & 6 == 4 && self.holds(m, view.id);
        self.link.pieces = Pieces {
            left,
            id: view.id,
            flags: view.flags,
            repeated,
        };
        progress.left = left;
        progress.found = if repeated {
            Found::Nothing
        } else {
            Found::Head
        };
        Ok(())
    }

    /// Handles the next piece of a payload, as much as has arrived.
    #[cold]
    pub(crate) fn piece(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Problem> {
        let (input, now) = (progress.input, progress.now);
        if input.is_empty() {
            self.drained(now);
            (progress.found, progress.consumed) = (Found::Needs, 1);
            return Ok(());
        }
        self.heard(m, now);
        let pieces = self.link.pieces;
        let consumed = input.len().min(to_usize(pieces.left));
        let left = pieces.left.wrapping_sub(to_u32(consumed));
        let view = &mut progress.view;
        (view.kind, view.flags, view.id) = (kind::PUBLISH, pieces.flags, pieces.id);
        view.body = input.get(..consumed).unwrap_or_default();
        if left == 0 && pieces.flags & 6 != 0 {
            if !self.answer_fits(m) {
                progress.found = Found::Blocked;
                return Ok(());
            }
            if let Arrival::New(serial) = self.arrived(m, &progress.view)? {
                progress.serial = serial;
            }
        }
        self.link.pieces.left = left;
        (progress.left, progress.consumed) = (left, consumed);
        progress.found = if pieces.repeated {
            Found::Nothing
        } else {
            Found::Piece
        };
        Ok(())
    }
}

/// Returns whether the packet can be handled when only its head has arrived.
pub(crate) const fn may_be_in_pieces(packet: u8) -> bool {
    PIECES && packet == kind::PUBLISH
}

#[cfg(all(test, not(feature = "pieces")))]
mod tests {
    use mqtt_proto::{Connect, Rule, Version};

    use crate::{Client, Config, Instant, Lent, Violation};

    #[test]
    fn without_the_feature_a_message_larger_than_the_buffer_is_refused() {
        let mut outgoing = [0; 128];
        let lent = Lent {
            outgoing: &mut outgoing,
            ..Lent::default()
        };
        let (mut client, now) = (Client::new(Config::default(), lent), Instant::default());
        client
            .connect(&Connect::new(Version::V311, "x"), now)
            .unwrap();
        client.receive(&[0x20, 2, 0, 0], now).unwrap();
        let Err(Violation::Malformed(error)) =
            client.receive_full(b"\x30\x88\x27\0\x03a/bhello", now)
        else {
            panic!("it was received");
        };
        let (len, max) = (5_003, 13);
        assert_eq!(error.rule, Rule::TooLarge { len, max });
    }
}
