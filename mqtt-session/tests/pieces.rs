//! A message is the same whether it arrives whole or in pieces.

use mqtt_proto::{Connect, Delivery, Encode, PacketId, Publish, ReasonCode, TopicName, Version};
use mqtt_session::{Acknowledge, Client, Config, Event, Heap, Instant, Receipt, Step};
use proptest::collection::vec;
use proptest::prelude::*;

const NOW: Instant = Instant::from_millis(0);

/// What the application hears, and what the server does.
#[derive(Debug, Default, PartialEq)]
struct Told {
    /// Payload, and whether there is a receipt for it.
    messages: Vec<(Vec<u8>, bool)>,
    /// Whether the connection ended.
    ended: bool,
    sent: Vec<u8>,
}

impl Told {
    /// Notes an event. Returns the receipt of a message that is complete; `piece` is what came of one that is not.
    fn note(&mut self, event: &Event<'_>, piece: &mut Vec<u8>) -> Option<Receipt> {
        let (payload, receipt) = match event {
            Event::Message(message) => (message.publish.payload.to_vec(), message.receipt),
            Event::MessageHead { publish, .. } => {
                assert!(publish.payload.is_empty());
                piece.clear();
                return None;
            }
            Event::Payload {
                bytes,
                left,
                receipt,
            } => {
                piece.extend_from_slice(bytes);
                if *left > 0 {
                    return None;
                }
                (piece.clone(), *receipt)
            }
            _ => return None,
        };
        self.messages.push((payload, receipt.is_some()));
        receipt
    }
}

fn client(version: Version, by_hand: bool) -> Client<'static> {
    let mut config = Config::default();
    if by_hand {
        config.acknowledge = Acknowledge::ByHand;
    }
    let mut client = Client::new(config, Heap);
    client.connect(&Connect::new(version, "c"), NOW).unwrap();
    client.sent(client.outgoing().len());
    let connack: &[u8] = if version == Version::V5 {
        &[0x20, 3, 0, 0, 0]
    } else {
        &[0x20, 2, 0, 0]
    };
    client.receive(connack, NOW).unwrap();
    client
}

/// Feeds `bytes` through an input buffer of this size, and acknowledges messages that are to be acknowledged by hand.
fn hear(mut client: Client<'static>, bytes: &[u8], buffer: usize) -> Told {
    let (mut told, mut at, mut filled) = (Told::default(), 0, 0);
    let mut piece = Vec::new();
    loop {
        let input = &bytes[at..at + filled];
        if client.needs(input).is_some() && filled < buffer {
            if at + filled == bytes.len() {
                return told;
            }
            filled += 1;
            continue;
        }
        let step = if filled == buffer {
            client.receive_full(input, NOW)
        } else {
            client.receive(input, NOW)
        };
        let Ok(step) = step else {
            told.ended = true;
            told.sent.extend(client.outgoing());
            return told;
        };
        if let Step::Packet { consumed, event } = step {
            let receipt = event.and_then(|event| told.note(&event, &mut piece));
            at += consumed;
            filled -= consumed;
            if let Some(receipt) = receipt {
                let done = ReasonCode::Success;
                client.acknowledge(receipt, done, NOW).unwrap();
            }
        }
        told.sent.extend(client.outgoing());
        client.sent(client.outgoing().len());
    }
}

proptest! {
    /// For every size of the buffer, and with or without repeated identifiers.
    #[test]
    fn messages_in_pieces_are_the_messages(
        v5 in any::<bool>(),
        by_hand in any::<bool>(),
        buffer in 16_usize..200,
        messages in vec((0_u8..3, 1_u16..4, 0_usize..400), 1..12),
    ) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        let mut bytes = Vec::new();
        for (qos, id, len) in messages {
            let id = PacketId::new(id).unwrap();
            let payload: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0]).collect();
            let mut publish = Publish::new(TopicName::from_static("a/b"), &payload);
            publish.delivery = match qos {
                0 => Delivery::AtMostOnce,
                1 => Delivery::AtLeastOnce(id),
                _ => Delivery::ExactlyOnce(id),
            };
            let mut room = vec![0; publish.encoded_len(version).unwrap()];
            publish.encode(version, &mut room).unwrap();
            bytes.extend(room);
        }
        let whole = hear(client(version, by_hand), &bytes, usize::MAX);
        let pieces = hear(client(version, by_hand), &bytes, buffer);
        prop_assert_eq!(whole, pieces);
    }

    /// Random bytes cause neither a panic nor an endless loop, and no more than the buffer is read.
    #[test]
    fn noise_in_a_small_buffer_ends(
        v5 in any::<bool>(),
        buffer in 2_usize..40,
        begins_well in any::<bool>(),
        noise in vec(any::<u8>(), 0..300),
    ) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        // The head of a message of 500 bytes at QoS 2, or nothing.
        let head: &[u8] = if begins_well { b"\x34\xFA\x03\0\x03a/b\0\x01\0" } else { b"" };
        hear(client(version, false), &[head, &noise].concat(), buffer);
    }
}
