//! Scenarios of CONNECT and CONNACK, sessions and keep-alive: sections 3.1, 3.2 and 4.1.

use std::time::{Duration, Instant};

use mqtt_proto::{Connect, Disconnect, Packet, Properties, Property, QoS, ReasonCode, Version};
use mqtt_testing::packets::encode;

use crate::net::{Broker, Client, comes, publish, replaced};
use crate::publish::a_second_passes;
use crate::will::with_will;

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Encodes a CONNECT from its flags and the fields of its payload.
pub(crate) fn by_hand(version: Version, flags: u8, fields: &[&[u8]]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.extend([if version.is_v5() { 5 } else { 4 }, flags, 0, 60]);
    if version.is_v5() {
        body.push(0);
    }
    for field in fields {
        body.extend([0, u8::try_from(field.len()).unwrap()]);
        body.extend(*field);
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

/// Checks that the broker closes a connection with these first bytes, without CONNACK.
#[track_caller]
pub(crate) fn is_not_connected(version: Version, bytes: &[u8]) {
    let broker = Broker::start();
    let mut client = Client::open(&broker, version);
    client.bytes(bytes);
    client.closed_silently();
}

/// Checks that the broker accepts a connection with these first bytes.
#[track_caller]
pub(crate) fn is_connected(version: Version, bytes: &[u8]) {
    let broker = Broker::start();
    let mut client = Client::open(&broker, version);
    client.bytes(bytes);
    comes!(client, Packet::ConnAck(connack) if connack.reason == ReasonCode::Success);
}

pub(crate) fn connect_is_first(version: Version) {
    for packet in [
        Packet::PingReq,
        Packet::Publish(publish("a", "x", QoS::AtMostOnce, 1)),
        Packet::Disconnect(Disconnect::default()),
    ] {
        is_not_connected(version, &encode(&packet, version));
    }
}

pub(crate) fn connect_comes_once(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.send(&Packet::Connect(Connect::new(version, "pump")));
    let reason = client.closed();
    assert_eq!(reason, version.is_v5().then_some(ReasonCode::ProtocolError));
}

pub(crate) fn another_protocol_is_not_served(version: Version) {
    let connect = Packet::Connect(Connect::new(version, "pump"));
    is_not_connected(version, &replaced(&connect, version, b"MQTT", b"MQTX"));
    is_not_connected(version, &replaced(&connect, version, b"MQTT", b"mqtt"));
}

pub(crate) fn another_level_is_refused(version: Version) {
    let answer = |level, expected: &[u8]| {
        let broker = Broker::start();
        let mut client = Client::open(&broker, version);
        let mut bytes = by_hand(version, 2, &[b"pump"]);
        bytes[8] = level;
        client.bytes(&bytes);
        assert_eq!(client.raw().as_deref(), Some(expected));
        client.closed_silently();
    };
    match version {
        // The answer has the format of the client's version: before 5, or from 5 on.
        Version::V5 => {
            answer(6, &[0x20, 3, 0, 0x84, 0]);
            answer(0x7F, &[0x20, 3, 0, 0x84, 0]);
        }
        _ => {
            answer(3, &[0x20, 2, 0, 1]);
            // Of the levels with bit 7 only those of bridges are known.
            answer(0x80, &[0x20, 2, 0, 1]);
            answer(0x83, &[0x20, 2, 0, 1]);
            answer(0x85, &[0x20, 2, 0, 1]);
            answer(0xFF, &[0x20, 2, 0, 1]);
            // No level of the name of 3.1 is one of version 5.
            let broker = Broker::start();
            let mut client = Client::open(&broker, version);
            client.bytes(b"\x10\x0F\0\x06MQIsdp\x06\x02\0\0\0\x01a");
            assert_eq!(client.raw().as_deref(), Some(&[0x20, 2, 0, 1][..]));
        }
    }
}

pub(crate) fn reserved_connect_flag(version: Version) {
    is_not_connected(version, &by_hand(version, 3, &[b"pump"]));
}

pub(crate) fn a_session_is_resumed(version: Version) {
    let broker = Broker::start();
    let (mut client, present) = Client::staying(&broker, version, "pump");
    assert!(!present);
    client.subscribe("a/#", QoS::ExactlyOnce);
    client.goodbye();
    let mut other = Client::new(&broker, version, "other");
    for qos in QOS {
        other.publish("a/b", &format!("{qos:?}"), qos);
    }
    let (mut client, present) = Client::staying(&broker, version, "pump");
    assert!(present);
    client.hears("AtLeastOnce");
    client.hears("ExactlyOnce");
    client.nothing();
    other.publish("a/c", "now", QoS::AtMostOnce);
    client.hears("now");
    client.goodbye();
    let (_client, present) = Client::staying(&broker, version, "pump");
    assert!(present);
}

pub(crate) fn a_clean_start_forgets(version: Version) {
    let broker = Broker::start();
    let mut other = Client::beside_a_session(&broker, version);
    other.publish("a", "kept", QoS::AtLeastOnce);
    // `new` checks that there is no session.
    let mut client = Client::new(&broker, version, "pump");
    other.publish("a", "more", QoS::AtLeastOnce);
    client.nothing();
    client.goodbye();
    // The session ended with its connection.
    let (_, present) = Client::staying(&broker, version, "pump");
    assert!(!present);
}

pub(crate) fn the_client_identifier_names_the_session(version: Version) {
    let broker = Broker::start();
    for (name, known) in [
        ("pump", false),
        ("Pump", false),
        ("pump", true),
        ("pump ", false),
    ] {
        let (client, present) = Client::staying(&broker, version, name);
        assert_eq!(present, known, "{name:?}");
        client.goodbye();
    }
}

pub(crate) fn a_session_outlives_time_while_connected(version: Version) {
    // A session that ends with its connection exists as long as the connection, which is longer than its expiry.
    let broker = Broker::start();
    let expiry = [Property::SessionExpiryInterval(1)];
    let (mut client, _) = Client::with(
        &broker,
        &Connect {
            properties: if version.is_v5() {
                Properties::from(&expiry)
            } else {
                Properties::EMPTY
            },
            ..Connect::new(version, "pump")
        },
    );
    client.subscribe("a", QoS::AtLeastOnce);
    let mut other = Client::new(&broker, version, "other");
    a_second_passes(&broker);
    other.publish("a", "still", QoS::AtLeastOnce);
    client.hears("still");
}

pub(crate) fn a_session_expires(version: Version) {
    let broker = Broker::start();
    let connect = |expiry| {
        let expiry = [Property::SessionExpiryInterval(expiry)];
        let (client, present) = Client::with(
            &broker,
            &Connect {
                clean_start: false,
                properties: Properties::from(&expiry),
                ..Connect::new(version, "pump")
            },
        );
        client.vanish();
        present
    };
    assert!(!connect(1));
    a_second_passes(&broker);
    assert!(!connect(100));
    a_second_passes(&broker);
    assert!(connect(0));
    a_second_passes(&broker);
    assert!(!connect(0));
}

pub(crate) fn user_name_is_there_with_its_flag_only(version: Version) {
    is_connected(version, &by_hand(version, 0x82, &[b"pump", b"user"]));
    is_not_connected(version, &by_hand(version, 0x82, &[b"pump"]));
    is_not_connected(version, &by_hand(version, 0x02, &[b"pump", b"user"]));
}

pub(crate) fn password_is_there_with_its_flag_only(version: Version) {
    is_connected(
        version,
        &by_hand(version, 0xC2, &[b"pump", b"user", b"secret"]),
    );
    is_not_connected(version, &by_hand(version, 0xC2, &[b"pump", b"user"]));
    is_not_connected(
        version,
        &by_hand(version, 0x82, &[b"pump", b"user", b"secret"]),
    );
}

pub(crate) fn no_password_without_user_name(version: Version) {
    is_not_connected(version, &by_hand(version, 0x42, &[b"pump", b"secret"]));
}

pub(crate) fn silence_ends_the_connection(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let begun = Instant::now();
    let (client, _) = Client::with(
        &broker,
        &Connect {
            keep_alive: 1,
            ..with_will(version, "pump", QoS::AtMostOnce, false)
        },
    );
    let reason = client.closed();
    assert_eq!(
        reason,
        version.is_v5().then_some(ReasonCode::KeepAliveTimeout)
    );
    // The will is not published before its time. The test does not limit how much later it is.
    assert!(begun.elapsed() >= Duration::from_millis(1_500));
    watcher.hears("gone");
}

pub(crate) fn payload_fields_stand_in_their_order(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let connect = Connect {
        user_name: Some("user"),
        password: Some(b"secret"),
        ..with_will(version, "pump", QoS::AtMostOnce, false)
    };
    let (client, _) = Client::with(&broker, &connect);
    client.vanish();
    let will = watcher.hears("gone");
    assert_eq!(will.topic, "wills/pump");
    // Another order has another meaning: here the topic of the will is the name of a refused user.
    let mut client = Client::open(&broker, version);
    client.send(&Packet::Connect(Connect {
        user_name: Some("nobody"),
        ..connect
    }));
    let refused =
        |packet: &Packet<'_>| matches!(packet, Packet::ConnAck(ack) if ack.reason.is_error());
    assert!(client.next(refused));
}

pub(crate) fn client_identifier_is_there(version: Version) {
    is_not_connected(version, &by_hand(version, 2, &[]));
}

pub(crate) fn client_identifier_is_text(version: Version) {
    is_not_connected(version, &by_hand(version, 2, &[b"\xFFpump"]));
    is_not_connected(version, &by_hand(version, 2, &[b"pump\xED\xA0\x80"]));
}

pub(crate) fn usual_client_identifiers_are_allowed(version: Version) {
    let broker = Broker::start();
    for id in [
        "0",
        "0123456789abcdefghijklm",
        "nopqrstuvwxyzABCDEFGHIJ",
        "KLMNOPQRSTUVWXYZ",
    ] {
        Client::new(&broker, version, id).nothing();
    }
}

pub(crate) fn an_empty_client_identifier_becomes_a_unique_one(version: Version) {
    let broker = Broker::start();
    let connect = || {
        let mut client = Client::open(&broker, version);
        client.send(&Packet::Connect(Connect::new(version, "")));
        let assigned = client.next(|packet| match packet {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::Success => connack
                .properties
                .assigned_client_identifier()
                .map(str::to_owned),
            other => panic!("came {other:?}"),
        });
        (client, assigned)
    };
    let (mut first, one) = connect();
    let (mut second, two) = connect();
    // Neither client took over the other's session.
    first.nothing();
    second.nothing();
    if version.is_v5() {
        assert!(
            one.is_some() && two.is_some() && one != two,
            "{one:?} {two:?}"
        );
        // From now on the identifier belongs to the client.
        let _again = Client::new(&broker, version, &one.unwrap());
        assert_eq!(first.closed(), Some(ReasonCode::SessionTakenOver));
    } else {
        assert_eq!((one, two), (None, None));
    }
}

pub(crate) fn an_empty_client_identifier_has_no_session(version: Version) {
    let broker = Broker::start();
    let mut client = Client::open(&broker, version);
    client.bytes(&by_hand(version, 0, &[b""]));
    assert_eq!(client.raw().unwrap(), [0x20, 2, 0, 2]);
    client.closed_silently();
}

pub(crate) fn user_name_is_text(version: Version) {
    is_not_connected(version, &by_hand(version, 0x82, &[b"pump", b"us\xFFer"]));
}

pub(crate) fn a_wrong_connect_gets_no_connack(version: Version) {
    // CONNECT is truncated, too long, or has a property that it must not have.
    let whole = encode(&Packet::Connect(Connect::new(version, "pump")), version);
    let mut short = whole.clone();
    short[1] -= 1;
    short.pop();
    is_not_connected(version, &short);
    let mut long = whole;
    long[1] += 1;
    long.push(0);
    is_not_connected(version, &long);
}

pub(crate) fn the_second_takes_over(version: Version) {
    let broker = Broker::start();
    let (mut first, _) = Client::staying(&broker, version, "pump");
    first.subscribe("a", QoS::AtLeastOnce);
    let (mut second, present) = Client::staying(&broker, version, "pump");
    assert!(present);
    let reason = first.closed();
    assert_eq!(
        reason,
        version.is_v5().then_some(ReasonCode::SessionTakenOver)
    );
    second.say("a", "mine", QoS::AtMostOnce);
    second.hears("mine");
}

pub(crate) fn who_may_not_is_refused(version: Version) {
    let broker = Broker::start();
    // There is a session, but a refusal has no session present flag.
    let (client, _) = Client::staying(&broker, version, "pump");
    client.goodbye();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("#", QoS::AtMostOnce);
    let mut client = Client::open(&broker, version);
    let mut bytes = encode(
        &Packet::Connect(Connect {
            clean_start: false,
            user_name: Some("nobody"),
            ..Connect::new(version, "pump")
        }),
        version,
    );
    // The broker ignores bytes after CONNECT.
    bytes.extend(encode(
        &Packet::Publish(publish("a", "x", QoS::AtMostOnce, 1)),
        version,
    ));
    client.bytes(&bytes);
    let expected: &[u8] = match version {
        Version::V5 => &[0x20, 3, 0, 0x86, 0],
        _ => &[0x20, 2, 0, 4],
    };
    assert_eq!(client.raw().as_deref(), Some(expected));
    client.closed_silently();
    watcher.nothing();
}

pub(crate) fn connack_is_success_and_first(version: Version) {
    let broker = Broker::start();
    let mut other = Client::beside_a_session(&broker, version);
    other.publish("a", "kept", QoS::AtLeastOnce);
    let mut client = Client::open(&broker, version);
    client.bytes(&by_hand(version, 0, &[b"pump"]));
    let first = client.raw().unwrap();
    assert_eq!(first[0], 0x20, "CONNACK before all else");
    // The flags have no reserved bits set and report a session; the code is success.
    assert_eq!(first[2..4], [1, 0]);
    client.hears("kept");
    // There is only one CONNACK.
    client.send(&Packet::Connect(Connect::new(version, "pump")));
    client.closed();
}

pub(crate) fn nothing_is_unsupported(version: Version) {
    let broker = Broker::start();
    let mut client = Client::open(&broker, version);
    let connect = with_will(version, "pump", QoS::ExactlyOnce, true);
    client.send(&Packet::Connect(connect));
    client.next(|packet| match packet {
        Packet::ConnAck(connack) => {
            assert_eq!(connack.reason, ReasonCode::Success);
            assert_eq!(connack.properties.maximum_qos(), None);
            assert_eq!(connack.properties.retain_available(), None);
        }
        other => panic!("came {other:?}"),
    });
    for qos in QOS {
        client.subscribe(&format!("{qos:?}/+"), qos);
        let mut other = Client::new(&broker, version, "other");
        other.retain(&format!("{qos:?}/a"), "x", qos);
        assert_eq!(client.hears("x").qos, qos);
    }
}
