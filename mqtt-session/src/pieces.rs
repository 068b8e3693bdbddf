//! A PUBLISH larger than the input buffer: its head first, then its payload in pieces. It is received when its last piece
//! is, and acknowledged no sooner; a connection that ends in between leaves no trace of it.

use core::num::NonZeroU32;

use mqtt_proto::{DecodeError, Delivery, PacketId, PacketType, Publish, QoS, Rule};

use crate::error::Violation;
use crate::event::Receipt;
use crate::inbound::Arrival;
use crate::outbox::{to_u32, to_usize};
use crate::session::Side;
use crate::storage::Storage;

/// Whether a message may come in pieces.
pub(crate) const PIECES: bool = cfg!(feature = "pieces");

/// The message whose payload is coming. As small as can be: every session has the room for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    /// Bytes of its payload that did not come yet.
    left: NonZeroU32,
    /// Its packet identifier; 0 at QoS 0.
    id: u16,
    qos: QoS,
    /// The application has it already.
    repeated: bool,
}

/// The message that comes in pieces, if one does. Without the feature it takes no room, and none ever does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Underway(#[cfg(feature = "pieces")] Option<Pieces>);

impl Underway {
    #[inline]
    pub(crate) const fn get(self) -> Option<Pieces> {
        #[cfg(feature = "pieces")]
        {
            self.0
        }
        #[cfg(not(feature = "pieces"))]
        {
            None
        }
    }

    fn set(&mut self, pieces: Option<Pieces>) {
        *self = Self(
            #[cfg(feature = "pieces")]
            pieces,
        );
        let _ = pieces;
    }
}

impl Pieces {
    fn delivery(self) -> Delivery {
        match (PacketId::new(self.id), self.qos) {
            (Some(id), QoS::AtLeastOnce) => Delivery::AtLeastOnce(id),
            (Some(id), QoS::ExactlyOnce) => Delivery::ExactlyOnce(id),
            _ => Delivery::AtMostOnce,
        }
    }
}

/// What a piece is.
pub(crate) enum Piece<'i> {
    Blocked,
    Payload {
        bytes: &'i [u8],
        left: u32,
        receipt: Option<Receipt>,
    },
    /// Of a message that the application has: passed over.
    Repeated {
        consumed: usize,
    },
}

impl<S: Storage> Side<S> {
    /// The head of a message came, whose payload follows: whether that is for the application.
    #[cold]
    pub(crate) fn head(
        &mut self,
        publish: &Publish<'_>,
        payload_len: u32,
    ) -> Result<bool, Violation> {
        self.learn_alias(publish)?;
        let repeated =
            matches!(publish.delivery, Delivery::ExactlyOnce(id) if self.session.inbound.holds(id));
        let pieces = NonZeroU32::new(payload_len).map(|left| Pieces {
            left,
            id: publish.delivery.packet_id().map_or(0, PacketId::get),
            qos: publish.qos(),
            repeated,
        });
        self.connection.pieces.set(pieces);
        Ok(!repeated)
    }

    /// What must be there whole is larger than the buffer, which takes `max` bytes.
    #[cold]
    pub(crate) fn no_room(&self, packet: Option<PacketType>, len: usize, max: usize) -> Violation {
        let (len, max) = (to_u32(len), to_u32(max));
        Violation::Malformed(DecodeError {
            packet,
            at: 1,
            rule: Rule::TooLarge { len, max },
            version: self.connection.version,
        })
    }

    /// The next piece of a payload, as much of it as is there.
    #[cold]
    pub(crate) fn piece<'i>(
        &mut self,
        pieces: Pieces,
        input: &'i [u8],
    ) -> Result<Piece<'i>, Violation> {
        let consumed = input.len().min(to_usize(pieces.left.get()));
        let bytes = input.get(..consumed).unwrap_or_default();
        let left = pieces.left.get().saturating_sub(to_u32(consumed));
        let mut receipt = None;
        if left == 0 {
            if pieces.qos > QoS::AtMostOnce && !self.answer_fits() {
                return Ok(Piece::Blocked);
            }
            if let Arrival::New(new) = self.arrived(pieces.delivery())? {
                receipt = new;
            }
        }
        let rest = NonZeroU32::new(left).map(|left| Pieces { left, ..pieces });
        self.connection.pieces.set(rest);
        Ok(if pieces.repeated {
            Piece::Repeated { consumed }
        } else {
            Piece::Payload {
                bytes,
                left,
                receipt,
            }
        })
    }
}

#[cfg(all(test, not(feature = "pieces")))]
mod tests {
    use mqtt_proto::{Connect, Version};

    use crate::{Client, Config, Instant, Lent};

    use super::*;

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
