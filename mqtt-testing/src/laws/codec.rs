//! Laws of the codec. Each takes bytes of proptest, of the fuzzer or of a vector, and panics if the law does not hold.

use mqtt_proto::{
    DecodeError, Decoded, Encode, EncodeError, Head, MAX_PACKET, Packet, PublishHead, Version,
};

use crate::choices::Choices;

/// Decoding an encoded packet returns the packet, and its length is exact.
///
/// # Panics
/// The law does not hold.
pub fn round_trips(packet: &Packet<'_>, version: Version) {
    let len = packet
        .encoded_len(version)
        .expect("a packet that can be sent");
    let mut buffer = vec![0xAA; len + 3];
    assert_eq!(packet.encode(version, &mut buffer), Ok(len), "{packet:?}");
    // A buffer of the exact length gets the same bytes.
    let mut exact = vec![0x55; len];
    assert_eq!(packet.encode(version, &mut exact), Ok(len), "{packet:?}");
    assert_eq!(exact, buffer[..len], "{packet:?}");
    let decoded = Packet::decode(&buffer[..len], version, MAX_PACKET);
    assert_eq!(
        decoded,
        Ok(Decoded::Packet {
            packet: *packet,
            consumed: len
        }),
        "{:02X?}",
        &buffer[..len]
    );
    for short in 0..len {
        let error = EncodeError::BufferTooSmall {
            needed: len,
            available: short,
        };
        assert_eq!(packet.encode(version, &mut vec![0; short]), Err(error));
        match Packet::decode(&buffer[..short], version, MAX_PACKET) {
            Ok(Decoded::Needs(needed)) => assert!(
                needed > short && needed <= len,
                "{needed} of {len} at {short}"
            ),
            other => panic!("{short} of {len} bytes are incomplete, not {other:?}"),
        }
    }
}

/// A packet that decodes can be encoded, and then decodes to the same packet. An error has a position in the packet.
///
/// # Panics
/// The law does not hold.
pub fn reencodes(bytes: &[u8], version: Version) {
    match Packet::decode(bytes, version, MAX_PACKET) {
        Ok(Decoded::Needs(needed)) => assert!(needed > bytes.len()),
        Ok(Decoded::Packet { packet, consumed }) => {
            assert!(consumed <= bytes.len());
            let version = if let Packet::Connect(connect) = &packet {
                connect.version
            } else {
                version
            };
            let mut again = vec![
                0;
                packet
                    .encoded_len(version)
                    .expect("accepted, so it can be sent")
            ];
            let len = packet
                .encode(version, &mut again)
                .expect("as long as it said");
            let decoded = Packet::decode(&again, version, MAX_PACKET).expect("our own bytes");
            assert_eq!(
                decoded,
                Decoded::Packet {
                    packet,
                    consumed: len
                }
            );
            let _ = format!("{packet:?}");
        }
        Err(error) => check_error(&error, bytes),
    }
    head_agrees(bytes, version);
    heads_of_prefixes_agree(bytes, version);
}

fn check_error(error: &DecodeError, bytes: &[u8]) {
    assert!(
        usize::try_from(error.at).expect("32 bits") <= bytes.len(),
        "{error} is beyond {bytes:02X?}"
    );
    assert!(!error.to_string().is_empty());
    assert!(error.reason_code().is_error());
}

/// A PUBLISH whose head is read first equals the PUBLISH that is read completely.
///
/// # Panics
/// The law does not hold.
pub fn head_agrees(bytes: &[u8], version: Version) {
    let whole = Packet::decode(bytes, version, MAX_PACKET);
    match (PublishHead::decode(bytes, version, MAX_PACKET), whole) {
        (
            Ok(Head::Publish { head, consumed }),
            Ok(Decoded::Packet {
                packet: Packet::Publish(publish),
                consumed: len,
            }),
        ) => {
            assert_eq!(
                mqtt_proto::Publish {
                    payload: &bytes[consumed..len],
                    ..head.publish
                },
                publish
            );
            assert_eq!(
                usize::try_from(head.payload_len).expect("32 bits"),
                len - consumed
            );
        }
        (Ok(Head::Publish { .. }), Ok(Decoded::Needs(_)))
        | (Ok(Head::Needs(_)), Ok(Decoded::Needs(_))) => {}
        (Ok(Head::Other), Ok(Decoded::Packet { packet, .. })) => {
            assert!(!matches!(packet, Packet::Publish(_)))
        }
        (Ok(Head::Other), _) => {}
        (Err(head), Err(whole)) => assert_eq!(head, whole),
        // An error in the head is found before the packet is complete.
        (Err(_), Ok(Decoded::Needs(_))) => {}
        (head, whole) => panic!("head {head:?}, whole {whole:?}, {bytes:02X?}"),
    }
}

/// For a part of a PUBLISH, the result is the head or the error of the whole packet, or how many more bytes are needed.
///
/// # Panics
/// The law does not hold.
pub fn heads_of_prefixes_agree(bytes: &[u8], version: Version) {
    let whole = PublishHead::decode(bytes, version, MAX_PACKET);
    // Longer heads differ only in length.
    for len in 0..bytes.len().min(64) {
        let front = bytes.get(..len).unwrap_or_default();
        match PublishHead::decode(front, version, MAX_PACKET) {
            Ok(Head::Needs(more)) => assert!(more > len, "{more} of {len}, {bytes:02X?}"),
            found => assert_eq!(found, whole, "the first {len} of {bytes:02X?}"),
        }
    }
}

/// The packets, and the place of an error, do not depend on how a stream is split into reads.
///
/// # Panics
/// The law does not hold.
pub fn split_invariant(stream: &[u8], splits: &mut Choices<'_>, version: Version, limit: u32) {
    let whole = collect(stream, version, limit, stream.len());
    let mut end = 0;
    let mut start = 0;
    let mut found: Vec<Result<String, DecodeError>> = Vec::new();
    while end < stream.len() {
        end = (end + 1 + splits.below(7)).min(stream.len());
        loop {
            match Packet::decode(&stream[start..end], version, limit) {
                Ok(Decoded::Needs(needed)) => {
                    assert!(needed > end - start, "asks for bytes that are there");
                    break;
                }
                Ok(Decoded::Packet { packet, consumed }) => {
                    found.push(Ok(format!("{packet:?}")));
                    start += consumed;
                }
                Err(error) => {
                    found.push(Err(error));
                    assert_eq!(found, whole);
                    return;
                }
            }
        }
    }
    assert_eq!(found, whole);
}

fn collect(
    stream: &[u8],
    version: Version,
    limit: u32,
    end: usize,
) -> Vec<Result<String, DecodeError>> {
    let mut found = Vec::new();
    let mut start = 0;
    loop {
        match Packet::decode(&stream[start..end], version, limit) {
            Ok(Decoded::Needs(_)) => return found,
            Ok(Decoded::Packet { packet, consumed }) => {
                found.push(Ok(format!("{packet:?}")));
                start += consumed;
            }
            Err(error) => {
                found.push(Err(error));
                return found;
            }
        }
    }
}

/// Decoding any bytes as a stream under any limit ends, and accepts nothing beyond the limit.
///
/// # Panics
/// The law does not hold.
pub fn decodes_anything(bytes: &[u8], version: Version) {
    for limit in [0, 2, 64, MAX_PACKET] {
        let mut rest = bytes;
        loop {
            match Packet::decode(rest, version, limit) {
                Ok(Decoded::Needs(needed)) => {
                    let most = usize::try_from(limit).expect("32 bits").max(5);
                    assert!(
                        needed > rest.len() && needed <= most,
                        "it waits for {needed} bytes, the limit is {limit}"
                    );
                    break;
                }
                Ok(Decoded::Packet { consumed, .. }) => {
                    assert!(consumed >= 2 && consumed <= usize::try_from(limit).expect("32 bits"));
                    rest = &rest[consumed..];
                }
                Err(error) => {
                    check_error(&error, rest);
                    break;
                }
            }
        }
    }
}

/// A topic filter and a topic name of any text match exactly if they match in the plain model.
///
/// # Panics
/// The law does not hold.
pub fn matches_as_the_model(text: &str) {
    let (filter, name) = text.split_once('\n').unwrap_or((text, text));
    if let (Ok(filter), Ok(name)) = (
        mqtt_proto::TopicFilter::new(filter),
        mqtt_proto::TopicName::new(name),
    ) {
        let plain = core::str::from_utf8(filter.topic_levels()).expect("it was text");
        assert_eq!(
            filter.matches(name),
            super::model::matches(plain, name.as_str()),
            "{text:?}"
        );
    }
}
