//! Scenarios of the encoding of packets: sections 1.5, 2 and 4.7.3, and the reserved bits of each packet.

use mqtt_proto::{
    Ack, Auth, Disconnect, List, Packet, Properties, Property, QoS, ReasonCode, Subscribe,
    Subscription, TopicAlias, Unsubscribe, Version,
};
use mqtt_testing::packets::encode;

use crate::net::{Broker, Client, comes, filter, flagged, id, publish, replaced, topic};

/// Checks that the broker closes the connection after these bytes.
#[track_caller]
pub(crate) fn closes(version: Version, bytes: &[u8]) -> Option<ReasonCode> {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.bytes(bytes);
    client.closed()
}

fn one_filter<'a>(text: &'a [Subscription<'a>]) -> Packet<'a> {
    Packet::Subscribe(Subscribe {
        packet_id: id(7),
        properties: Properties::EMPTY,
        filters: List::from(text),
    })
}

fn message(name: &'static str) -> Packet<'static> {
    Packet::Publish(publish(name, "x", QoS::AtLeastOnce, 7))
}

pub(crate) fn ill_formed_text_closes(version: Version) {
    // A surrogate, an overlong form, and a byte that no text has.
    for wrong in [b"\xED\xA0\x80", b"\xC0\x80a", b"\xFF\xFFa"] {
        closes(version, &replaced(&message("abc"), version, b"abc", wrong));
        let list = [Subscription::new(filter("abc"), QoS::AtMostOnce)];
        closes(
            version,
            &replaced(&one_filter(&list), version, b"abc", wrong),
        );
    }
}

pub(crate) fn a_null_character_closes(version: Version) {
    closes(
        version,
        &replaced(&message("abc"), version, b"abc", b"a\0c"),
    );
    let list = [Subscription::new(filter("abc"), QoS::AtMostOnce)];
    closes(
        version,
        &replaced(&one_filter(&list), version, b"abc", b"a\0c"),
    );
    let list = [filter("abc")];
    let unsubscribe = Packet::Unsubscribe(Unsubscribe::new(id(7), &list[..]));
    closes(version, &replaced(&unsubscribe, version, b"abc", b"a\0c"));
}

pub(crate) fn a_byte_order_mark_stays(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("\u{FEFF}a", QoS::AtMostOnce);
    client.publish("a", "without", QoS::AtMostOnce);
    client.say("\u{FEFF}a", "with", QoS::AtMostOnce);
    assert_eq!(client.hears("with").topic, "\u{FEFF}a");
    client.nothing();
}

pub(crate) fn lengths_take_as_few_bytes_as_they_can(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::AtMostOnce);
    for (length, header) in [(127, 2), (128, 3), (16_383, 3), (16_384, 4)] {
        // The topic with its length, and the length of no properties.
        let payload = "x".repeat(length - 4);
        client.say("a", &payload, QoS::AtMostOnce);
        assert_eq!(client.raw().unwrap().len(), length + header);
    }
    // A length with unnecessary bytes is malformed.
    let mut bytes = encode(&Packet::PingReq, version);
    bytes[1] = 0x80;
    bytes.push(0);
    assert_eq!(closes(version, &bytes), Some(ReasonCode::MalformedPacket));
}

pub(crate) fn both_strings_of_a_pair_are_text(version: Version) {
    let properties = [Property::UserProperty("name", "value")];
    let message = Packet::Publish(mqtt_proto::Publish {
        properties: Properties::from(&properties),
        ..publish("abc", "x", QoS::AtMostOnce, 1)
    });
    closes(version, &replaced(&message, version, b"name", b"na\xFFe"));
    closes(version, &replaced(&message, version, b"value", b"valu\0"));
}

pub(crate) fn reserved_flags_close(version: Version) {
    for bits in 1..16 {
        closes(version, &flagged(&Packet::PingReq, version, 0xC0 | bits));
        let ack = Ack::new(id(1));
        closes(
            version,
            &flagged(&Packet::PubAck(ack), version, 0x40 | bits),
        );
        closes(
            version,
            &flagged(&Packet::PubRec(ack), version, 0x50 | bits),
        );
        closes(
            version,
            &flagged(&Packet::PubComp(ack), version, 0x70 | bits),
        );
    }
}

/// Checks that all flags except 0010 are malformed.
fn only_flags_2(packet: &Packet<'_>, version: Version) {
    let first = encode(packet, version)[0];
    assert_eq!(first & 0x0F, 2);
    for bits in (0..16).filter(|bits| *bits != 2) {
        let reason = closes(version, &flagged(packet, version, first & 0xF0 | bits));
        assert_eq!(
            reason,
            version.is_v5().then_some(ReasonCode::MalformedPacket)
        );
    }
}

pub(crate) fn pubrel_flags(version: Version) {
    only_flags_2(&Packet::PubRel(Ack::new(id(1))), version);
}

pub(crate) fn subscribe_flags(version: Version) {
    let list = [Subscription::new(filter("a"), QoS::AtMostOnce)];
    only_flags_2(&one_filter(&list), version);
}

pub(crate) fn unsubscribe_flags(version: Version) {
    let list = [filter("a")];
    only_flags_2(
        &Packet::Unsubscribe(Unsubscribe::new(id(1), &list[..])),
        version,
    );
}

pub(crate) fn disconnect_flags(version: Version) {
    for bits in 1..16 {
        let packet = Packet::Disconnect(Disconnect::default());
        let reason = closes(version, &flagged(&packet, version, 0xE0 | bits));
        assert_eq!(
            reason,
            version.is_v5().then_some(ReasonCode::MalformedPacket)
        );
    }
}

pub(crate) fn auth_flags(version: Version) {
    let properties = [Property::AuthenticationMethod("question")];
    let auth = Packet::Auth(Auth {
        reason: ReasonCode::ReAuthenticate,
        properties: Properties::from(&properties),
    });
    for bits in 1..16 {
        let reason = closes(version, &flagged(&auth, version, 0xF0 | bits));
        assert_eq!(reason, Some(ReasonCode::MalformedPacket));
    }
}

pub(crate) fn packet_identifier_0_closes(version: Version) {
    let list = [Subscription::new(filter("abc"), QoS::AtMostOnce)];
    closes(
        version,
        &replaced(&one_filter(&list), version, &[0, 7], &[0, 0]),
    );
    let list = [filter("abc")];
    let unsubscribe = Packet::Unsubscribe(Unsubscribe::new(id(7), &list[..]));
    closes(version, &replaced(&unsubscribe, version, &[0, 7], &[0, 0]));
    closes(
        version,
        &replaced(&message("abc"), version, &[0, 7], &[0, 0]),
    );
}

pub(crate) fn packet_identifiers_are_unused(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    let mut used = Vec::new();
    for n in 0..20 {
        let qos = if n % 2 == 0 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        other.publish("a", "x", qos);
        // The message is not acknowledged.
        let message = client.message();
        assert!(
            message.id != 0 && !used.contains(&message.id),
            "{message:?} {used:?}"
        );
        assert_eq!((message.qos, message.dup), (qos, false));
        used.push(message.id);
    }
}

pub(crate) fn qos_0_has_no_packet_identifier(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::ExactlyOnce);
    client.say("a", "x", QoS::AtMostOnce);
    let expected: &[u8] = match version {
        // There are no properties, and their length is 0.
        Version::V5 => &[0x30, 5, 0, 1, b'a', 0, b'x'],
        _ => &[0x30, 4, 0, 1, b'a', b'x'],
    };
    assert_eq!(client.raw().unwrap(), expected);
}

pub(crate) fn answers_carry_the_packet_identifier(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    for own in [1, 258, u16::MAX] {
        client.publish_packet(&publish("a", "x", QoS::AtLeastOnce, own));
        client.publish_packet(&publish("a", "x", QoS::ExactlyOnce, own));
    }
    // The broker's PUBREL has the identifier as well.
    client.subscribe("b", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    other.publish("b", "x", QoS::ExactlyOnce);
    client.hears("x");
}

pub(crate) fn suback_and_unsuback_carry_the_packet_identifier(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    for own in [1, 258, u16::MAX] {
        let list = [Subscription::new(filter("a"), QoS::AtMostOnce)];
        client.send(&Packet::Subscribe(Subscribe::new(id(own), &list[..])));
        comes!(client, Packet::SubAck(ack) if ack.packet_id == id(own));
        // The answer comes even if there is no subscription to remove.
        for _ in 0..2 {
            let list = [filter("a")];
            client.send(&Packet::Unsubscribe(Unsubscribe::new(id(own), &list[..])));
            comes!(client, Packet::UnsubAck(ack) if ack.packet_id == id(own));
        }
    }
}

pub(crate) fn a_topic_name_is_there_and_text(version: Version) {
    // The topic is missing, or longer than the packet.
    closes(version, &[0x30, 0]);
    closes(version, &[0x30, 3, 0, 9, b'a']);
    closes(
        version,
        &replaced(&message("abc"), version, b"abc", b"\xFFbc"),
    );
}

pub(crate) fn no_wildcard_in_a_topic_name(version: Version) {
    for wrong in [b"a/+", b"a/#", b"#/a", b"a+c"] {
        closes(version, &replaced(&message("abc"), version, b"abc", wrong));
    }
}

pub(crate) fn multi_level_wildcard_is_last(version: Version) {
    for wrong in ["a/#/b", "a#", "#a", "##"] {
        subscribing_closes(version, wrong);
    }
    for right in ["#", "a/#", "+/#"] {
        subscribing_works(version, right);
    }
}

pub(crate) fn single_level_wildcard_is_a_level(version: Version) {
    for wrong in ["a+", "+a", "a/b+/c", "++"] {
        subscribing_closes(version, wrong);
    }
    for right in ["+", "+/a", "a/+/b", "/+", "+/+"] {
        subscribing_works(version, right);
    }
}

pub(crate) fn wildcards_work_in_filters(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    for (filter, name) in [
        ("a/+", "a/b"),
        ("b/#", "b"),
        ("+/+", "/"),
        ("c/+/#", "c/d/e/f"),
    ] {
        assert!(!client.subscribe(filter, QoS::AtMostOnce).is_error());
        client.say(name, filter, QoS::AtMostOnce);
        client.hears(filter);
        client.nothing();
        client.unsubscribe(&[filter]);
    }
}

fn by_hand(version: Version, text: &str) -> Vec<u8> {
    let mut body = vec![0, 9];
    if version.is_v5() {
        body.push(0);
    }
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text.as_bytes());
    body.push(0);
    let mut packet = vec![0x82];
    let mut length = body.len();
    while length > 127 {
        packet.push(u8::try_from(length % 128).unwrap() | 0x80);
        length /= 128;
    }
    packet.push(u8::try_from(length).unwrap());
    packet.extend(body);
    packet
}

#[track_caller]
pub(crate) fn subscribing_closes(version: Version, text: &str) {
    closes(version, &by_hand(version, text));
}

#[track_caller]
pub(crate) fn subscribing_works(version: Version, text: &str) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.bytes(&by_hand(version, text));
    comes!(client, Packet::SubAck(ack) if ack.codes.iter().all(|code| !code.is_error()));
}

pub(crate) fn an_empty_topic_closes(version: Version) {
    subscribing_closes(version, "");
    let empty: &[u8] = if version.is_v5() {
        &[0x30, 4, 0, 0, 0, b'x']
    } else {
        &[0x30, 3, 0, 0, b'x']
    };
    closes(version, empty);
}

pub(crate) fn a_topic_has_65535_bytes_at_most(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    let longest = "x".repeat(65_535);
    client.bytes(&by_hand(version, &longest));
    comes!(client, Packet::SubAck(ack) if ack.codes.iter().all(|code| !code.is_error()));
    client.say(&longest, "long", QoS::AtMostOnce);
    assert_eq!(client.hears("long").topic, longest);
}

pub(crate) fn packets_come_in_any_pieces(version: Version) {
    let broker = Broker::start();
    let mut client = Client::open(&broker, version);
    let list = [Subscription::new(filter("a"), QoS::AtLeastOnce)];
    let packets = [
        Packet::Connect(mqtt_proto::Connect::new(version, "pump")),
        one_filter(&list),
        Packet::Publish(publish("a", "whole", QoS::AtLeastOnce, 5)),
    ];
    let bytes: Vec<u8> = packets
        .iter()
        .flat_map(|packet| encode(packet, version))
        .collect();
    for byte in bytes {
        client.bytes(&[byte]);
    }
    comes!(client, Packet::ConnAck(_));
    comes!(client, Packet::SubAck(_));
    // These two may come in any order.
    let first = client.raw().unwrap()[0] & 0xF0;
    let second = client.raw().unwrap()[0] & 0xF0;
    assert!([(0x30, 0x40), (0x40, 0x30)].contains(&(first, second)));
}

pub(crate) fn a_protocol_violation_closes_its_connection_only(version: Version) {
    let broker = Broker::start();
    let mut other = Client::new(&broker, version, "other");
    let mut client = Client::new(&broker, version, "pump");
    // Only the broker may send CONNACK.
    client.bytes(&[0x20, 2, 0, 0]);
    let reason = client.closed();
    assert_eq!(reason.is_some(), version.is_v5());
    // The packet is malformed from its first byte.
    let mut client = Client::new(&broker, version, "pump");
    client.bytes(&[0x00, 0]);
    let reason = client.closed();
    assert_eq!(
        reason,
        version.is_v5().then_some(ReasonCode::MalformedPacket)
    );
    other.nothing();
}

pub(crate) fn a_topic_alias_is_not_0(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    let alias = TopicAlias::new(7).unwrap();
    let message = Packet::Publish(mqtt_proto::Publish {
        topic_alias: Some(alias),
        ..mqtt_proto::Publish::new(topic("abc"), b"x")
    });
    client.bytes(&replaced(&message, version, &[0x23, 0, 7], &[0x23, 0, 0]));
    assert_eq!(client.closed(), Some(ReasonCode::ProtocolError));
    // The broker's own topic aliases are not zero either.
    let maximum = [Property::TopicAliasMaximum(3)];
    let mut client = Client::v5(&broker, "pump", &maximum);
    client.subscribe("a/+", QoS::AtMostOnce);
    for name in ["a/1", "a/2", "a/3", "a/4", "a/1", "a/4"] {
        client.say(name, "x", QoS::AtMostOnce);
        let bytes = client.raw().unwrap();
        assert!(
            !bytes.windows(3).any(|window| window == [0x23, 0, 0]),
            "{bytes:x?}"
        );
    }
}
