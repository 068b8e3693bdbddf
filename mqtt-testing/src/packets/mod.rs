//! Packets for tests: written as literals, generated from random bytes, and listed in a table of vectors.

pub mod generated;
pub mod vectors;

use mqtt_broker::{Broker, ConnectionId, Hooks, Instant};
use mqtt_proto::{
    Ack, AckKind, Decoded, Delivery, Encode, MAX_PACKET, Packet, PacketId, PacketType, Properties,
    Property, Publish, QoS, ReasonCode, TopicName, Version,
};

/// Returns a PUBLISH to `a/b`.
///
/// # Panics
/// When the identifier is 0 and the quality of service is not.
#[must_use]
pub fn publish(qos: QoS, id: u16, dup: bool, payload: &str) -> Publish<'_> {
    let id = || PacketId::new(id).expect("not zero");
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(id()),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(id()),
    };
    Publish {
        dup,
        delivery,
        ..Publish::new(TopicName::from_static("a/b"), payload.as_bytes())
    }
}

/// Encodes an acknowledgement with the reason Success.
#[must_use]
pub fn ack(kind: AckKind, id: u16) -> Vec<u8> {
    ack_with(kind, id, ReasonCode::Success)
}

/// Encodes an acknowledgement of MQTT 5 with a reason.
///
/// # Panics
/// When the identifier is 0.
#[must_use]
pub fn ack_with(kind: AckKind, id: u16, reason: ReasonCode) -> Vec<u8> {
    let ack = Ack::with_reason(PacketId::new(id).expect("not zero"), reason);
    let packet = match kind {
        AckKind::PubAck => Packet::PubAck(ack),
        AckKind::PubRec => Packet::PubRec(ack),
        AckKind::PubRel => Packet::PubRel(ack),
        AckKind::PubComp => Packet::PubComp(ack),
    };
    encode(&packet, Version::V5)
}

/// Encodes a packet.
///
/// # Panics
/// When it cannot be sent.
#[must_use]
pub fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = vec![
        0;
        packet
            .encoded_len(version)
            .expect("a packet that can be sent")
    ];
    packet
        .encode(version, &mut bytes)
        .expect("a buffer of its length");
    bytes
}

/// Returns the properties of a list, for literals in tests.
#[must_use]
pub fn properties<'a>(list: &'a [Property<'a>]) -> Properties<'a> {
    list.into()
}

/// Returns the whole packets at the front of `bytes`.
pub fn packets_in(bytes: &[u8], version: Version) -> impl Iterator<Item = Packet<'_>> {
    packets_with_lengths(bytes, version).map(|(packet, _)| packet)
}

/// Returns the whole packets at the front of `bytes`, each with its length.
pub fn packets_with_lengths(
    bytes: &[u8],
    version: Version,
) -> impl Iterator<Item = (Packet<'_>, usize)> {
    let mut rest = bytes;
    std::iter::from_fn(move || match Packet::decode(rest, version, MAX_PACKET) {
        Ok(Decoded::Packet { packet, consumed }) => {
            rest = rest.get(consumed..)?;
            Some((packet, consumed))
        }
        _ => None,
    })
}

/// Takes all that a broker has for a connection, and returns it packet by packet. What it writes meanwhile follows.
///
/// # Panics
/// When it is not made of whole packets.
pub fn take_packets<H: Hooks>(
    broker: &mut Broker<H>,
    connection: ConnectionId,
    version: Version,
    now: Instant,
) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while !broker.outgoing(connection).is_empty() {
        let bytes = broker.outgoing(connection).to_vec();
        broker.sent(connection, bytes.len(), now);
        let mut rest = &bytes[..];
        for (_, len) in packets_with_lengths(&bytes, version) {
            let (packet, behind) = rest.split_at(len);
            packets.push(packet.to_vec());
            rest = behind;
        }
        assert!(rest.is_empty(), "{rest:x?}");
    }
    packets
}

/// Returns the types of the whole packets at the front of `bytes`.
#[must_use]
pub fn packet_types(bytes: &[u8], version: Version) -> Vec<PacketType> {
    packets_in(bytes, version)
        .map(|packet| packet.packet_type())
        .collect()
}
