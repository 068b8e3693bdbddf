//! Scenarios of PUBLISH and its acknowledgements in both directions: sections 3.3 to 3.7, 4.3 to 4.6, 4.8 and 4.9.

use mqtt_proto::{Ack, Packet, Property, Publish, QoS, ReasonCode, Subscription, Version};
use mqtt_testing::packets::encode;

use crate::format::closes;
use crate::net::{Broker, Client, Message, comes, filter, flagged, id, publish};

fn texts(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|message| String::from_utf8_lossy(&message.payload).into_owned())
        .collect()
}

pub(crate) fn qos_3_closes(version: Version) {
    let message = Packet::Publish(publish("a", "x", QoS::AtLeastOnce, 1));
    let reason = closes(version, &flagged(&message, version, 0x36));
    assert_eq!(
        reason,
        version.is_v5().then_some(ReasonCode::MalformedPacket)
    );
}

pub(crate) fn qos_0_has_no_dup(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::AtMostOnce);
    let mut other = Client::new(&broker, version, "other");
    // The DUP flag of the publisher is not forwarded.
    other.publish_packet(&Publish {
        dup: true,
        ..publish("a", "x", QoS::AtLeastOnce, 9)
    });
    assert_eq!(client.raw().unwrap()[0], 0x30);
    // DUP in a QoS 0 message from a client is malformed.
    let message = Packet::Publish(publish("a", "x", QoS::AtMostOnce, 1));
    closes(version, &flagged(&message, version, 0x38));
}

pub(crate) fn dup_is_the_senders_own(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        other.publish_packet(&Publish {
            dup: true,
            ..publish("a", "x", qos, 9)
        });
        assert!(!client.hears("x").dup);
    }
}

/// Makes a session with messages in flight at both QoS whose connection was lost, and another client.
fn interrupted(broker: &Broker, version: Version) -> (Vec<Message>, Client) {
    let (mut client, _) = Client::staying(broker, version, "pump");
    client.subscribe("a", QoS::ExactlyOnce);
    let mut other = Client::new(broker, version, "other");
    let messages = ["1", "2", "3", "4"].map(|payload| {
        let qos = if payload < "3" {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        other.publish("a", payload, qos);
        let message = client.message();
        assert!(!message.dup && message.qos == qos, "{message:?}");
        message
    });
    // PUBREL of the fourth message is in flight.
    let last = id(messages[3].id);
    client.send(&Packet::PubRec(Ack::new(last)));
    comes!(client, Packet::PubRel(ack) if ack.packet_id == last);
    client.vanish();
    (messages.to_vec(), other)
}

pub(crate) fn what_is_unacknowledged_is_sent_again(version: Version) {
    let broker = Broker::start();
    let (messages, _other) = interrupted(&broker, version);
    for _ in 0..2 {
        let (mut client, present) = Client::staying(&broker, version, "pump");
        assert!(present);
        // The messages come in their order, with their identifiers and DUP; for the fourth only PUBREL comes.
        for message in &messages[..3] {
            let again = client.message();
            assert!(again.dup);
            let expected = Message {
                dup: true,
                ..message.clone()
            };
            assert_eq!(again, expected);
        }
        comes!(client, Packet::PubRel(ack) if ack.packet_id == id(messages[3].id));
        client.nothing();
    }
    // Messages that are acknowledged now are not sent a third time.
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.hears("1");
    client.hears("2");
    let third = client.message();
    comes!(client, Packet::PubRel(_));
    client.send(&Packet::PubComp(Ack::new(id(messages[3].id))));
    client.send(&Packet::PubRec(Ack::new(id(third.id))));
    comes!(client, Packet::PubRel(ack) if ack.packet_id == id(third.id));
    client.send(&Packet::PubComp(Ack::new(id(third.id))));
    client.nothing();
    client.goodbye();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.nothing();
}

pub(crate) fn a_refused_message_is_not_sent_again(version: Version) {
    let broker = Broker::start();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.subscribe("a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        other.publish("a", "x", qos);
        let message = client.message();
        let no = Ack {
            reason: ReasonCode::NotAuthorized,
            ..Ack::new(id(message.id))
        };
        client.send(&if qos == QoS::AtLeastOnce {
            Packet::PubAck(no)
        } else {
            Packet::PubRec(no)
        });
        client.nothing();
    }
    client.goodbye();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.nothing();
}

pub(crate) fn each_qos_is_answered_its_way(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.publish_packet(&publish("a", "x", QoS::AtMostOnce, 1));
    client.publish_packet(&publish("a", "x", QoS::AtLeastOnce, 2));
    client.publish_packet(&publish("a", "x", QoS::ExactlyOnce, 3));
    client.nothing();
}

pub(crate) fn puback_makes_the_identifier_new(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::AtMostOnce);
    let mut other = Client::new(&broker, version, "other");
    for dup in [false, true, false] {
        other.publish_packet(&Publish {
            dup,
            ..publish("a", "x", QoS::AtLeastOnce, 9)
        });
        client.hears("x");
    }
}

pub(crate) fn a_qos_2_message_is_routed_once(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("a", QoS::ExactlyOnce);
    let (mut client, _) = Client::staying(&broker, version, "pump");
    let message = publish("a", "x", QoS::ExactlyOnce, 9);
    let again = Publish {
        dup: true,
        ..message
    };
    for packet in [message, again, again] {
        client.send(&Packet::Publish(packet));
        comes!(client, Packet::PubRec(ack) if ack.packet_id == id(9) && !ack.reason.is_error());
    }
    client.vanish();
    // The same holds for the next connection.
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.send(&Packet::Publish(again));
    comes!(client, Packet::PubRec(ack) if ack.packet_id == id(9));
    for _ in 0..2 {
        client.send(&Packet::PubRel(Ack::new(id(9))));
        comes!(client, Packet::PubComp(ack) if ack.packet_id == id(9));
    }
    watcher.hears("x");
    watcher.nothing();
    // After PUBCOMP, a new message may have the identifier.
    client.publish_packet(&publish("a", "y", QoS::ExactlyOnce, 9));
    watcher.hears("y");
    watcher.nothing();
}

pub(crate) fn a_refused_qos_2_identifier_is_new(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("#", QoS::AtMostOnce);
    let mut client = Client::new(&broker, version, "pump");
    client.send(&Packet::Publish(publish(
        "forbidden/a",
        "x",
        QoS::ExactlyOnce,
        9,
    )));
    comes!(client, Packet::PubRec(ack) if ack.reason == ReasonCode::NotAuthorized);
    client.publish_packet(&publish("a", "y", QoS::ExactlyOnce, 9));
    watcher.hears("y");
    watcher.nothing();
}

pub(crate) fn qos_2_ends_also_for_what_expired(version: Version) {
    let broker = Broker::start();
    // A client's expired message is dropped, and its acknowledgements continue.
    let mut client = Client::new(&broker, version, "pump");
    let expiry = [Property::MessageExpiryInterval(0)];
    client.publish_packet(&Publish {
        properties: mqtt_proto::Properties::from(&expiry),
        ..publish("a", "x", QoS::ExactlyOnce, 9)
    });
}

pub(crate) fn what_was_sent_does_not_expire(version: Version) {
    let broker = Broker::start();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.subscribe("a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    let expiry = [Property::MessageExpiryInterval(1)];
    other.publish_packet(&Publish {
        properties: mqtt_proto::Properties::from(&expiry),
        ..publish("a", "x", QoS::ExactlyOnce, 9)
    });
    let sent = client.message();
    client.vanish();
    crate::publish::a_second_passes(&broker);
    let (mut client, _) = Client::staying(&broker, version, "pump");
    let again = client.message();
    assert!(again.dup);
    assert_eq!(again.id, sent.id);
}

pub(crate) fn messages_come_in_their_order(version: Version) {
    // The messages pass through a window smaller than their number, and through a queue while the client is not connected.
    let broker = Broker::with(|config| config.window = 4);
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.subscribe("a/#", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce];
    let expected: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    for qos in qos {
        for payload in &expected {
            other.publish("a/b", payload, qos);
        }
        let came = client.take_many(expected.len());
        assert_eq!(texts(&came), expected);
    }
    client.goodbye();
    for payload in &expected {
        other.publish("a/b", payload, QoS::AtLeastOnce);
    }
    let (mut client, _) = Client::staying(&broker, version, "pump");
    let came = client.take_many(expected.len());
    assert_eq!(texts(&came), expected);
}

pub(crate) fn a_message_goes_to_all_sessions_that_match(version: Version) {
    let broker = Broker::start();
    let mut here = Client::new(&broker, version, "here");
    here.subscribe("a", QoS::AtLeastOnce);
    let (mut away, _) = Client::staying(&broker, version, "away");
    away.subscribe("+", QoS::AtLeastOnce);
    away.goodbye();
    let mut other = Client::new(&broker, version, "other");
    other.publish("a", "x", QoS::AtLeastOnce);
    here.hears("x");
    let (mut away, _) = Client::staying(&broker, version, "away");
    away.hears("x");
}

pub(crate) fn who_may_not_publish_is_told_as_the_version_can(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("#", QoS::AtMostOnce);
    let mut client = Client::new(&broker, version, "pump");
    client.say("forbidden/a", "x", QoS::AtLeastOnce);
    let reason = if version.is_v5() {
        ReasonCode::NotAuthorized
    } else {
        ReasonCode::Success
    };
    comes!(client, Packet::PubAck(ack) if ack.reason == reason);
    client.say("forbidden/a", "x", QoS::ExactlyOnce);
    comes!(client, Packet::PubRec(ack) if ack.reason == reason);
    if !version.is_v5() {
        client.send(&Packet::PubRel(Ack::new(id(5))));
        comes!(client, Packet::PubComp(_));
    }
    client.publish("forbidden/a", "x", QoS::AtMostOnce);
    watcher.nothing();
}

/// Checks all reason codes in use; the decoder of these tests accepts only the codes of the packet.
pub(crate) fn acknowledgements_say_how_it_went(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    let nobody = ReasonCode::NoMatchingSubscribers;
    client.say("a", "x", QoS::AtLeastOnce);
    comes!(client, Packet::PubAck(ack) if ack.reason == nobody);
    client.say("a", "x", QoS::ExactlyOnce);
    comes!(client, Packet::PubRec(ack) if ack.reason == nobody);
    client.send(&Packet::PubRel(Ack::new(id(5))));
    comes!(client, Packet::PubComp(ack) if ack.reason == ReasonCode::Success);
    client.send(&Packet::PubRel(Ack::new(id(6))));
    comes!(client, Packet::PubComp(ack) if ack.reason == ReasonCode::PacketIdentifierNotFound);
    let mut other = Client::new(&broker, version, "other");
    other.subscribe("a", QoS::ExactlyOnce);
    client.say("a", "x", QoS::AtLeastOnce);
    comes!(client, Packet::PubAck(ack) if ack.reason == ReasonCode::Success);
    other.hears("x");
    client.say("a", "x", QoS::ExactlyOnce);
    comes!(client, Packet::PubRec(ack) if ack.reason == ReasonCode::Success);
    let message = other.message();
    other.send(&Packet::PubRec(Ack::new(id(message.id))));
    comes!(other, Packet::PubRel(ack) if ack.reason == ReasonCode::Success);
    // This PUBREC has no PUBLISH.
    other.send(&Packet::PubRec(Ack::new(id(999))));
    comes!(other, Packet::PubRel(ack) if ack.packet_id == id(999));
}

pub(crate) fn no_more_under_way_than_the_client_takes(version: Version) {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "pump", &[Property::ReceiveMaximum(3)]);
    client.subscribe("a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    for n in 0..8 {
        let qos = if n % 2 == 0 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        other.publish("a", &n.to_string(), qos);
    }
    let under_way: Vec<Message> = (0..3).map(|_| client.message()).collect();
    assert_eq!(texts(&under_way), ["0", "1", "2"]);
    // Other packets are not delayed in either direction.
    client.nothing();
    client.subscribe("b", QoS::AtMostOnce);
    client.publish("c", "x", QoS::AtLeastOnce);
    // PUBREC alone makes no room; PUBCOMP and PUBACK do.
    client.send(&Packet::PubRec(Ack::new(id(under_way[1].id))));
    comes!(client, Packet::PubRel(_));
    client.nothing();
    client.send(&Packet::PubComp(Ack::new(id(under_way[1].id))));
    assert_eq!(texts(&[client.message()]), ["3"]);
    client.nothing();
    client.send(&Packet::PubAck(Ack::new(id(under_way[0].id))));
    assert_eq!(texts(&[client.message()]), ["4"]);
    client.nothing();
}

/// The broker takes as many messages as it announced; one more is an error.
pub(crate) fn the_brokers_own_receive_maximum_is_kept(version: Version) {
    let broker = Broker::with(|config| config.receive_maximum = 3);
    let mut client = Client::new(&broker, version, "pump");
    for own in 1..=3 {
        client.send(&Packet::Publish(publish("a", "x", QoS::ExactlyOnce, own)));
        comes!(client, Packet::PubRec(ack) if ack.packet_id == id(own));
    }
    client.nothing();
    client.subscribe("b", QoS::AtMostOnce);
    client.send(&Packet::Publish(publish("a", "x", QoS::ExactlyOnce, 4)));
    assert_eq!(client.closed(), Some(ReasonCode::ReceiveMaximumExceeded));
}

pub(crate) fn a_shared_qos_2_message_waits_for_its_client(version: Version) {
    let broker = Broker::start();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.subscribe("$share/g/a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    other.publish("a", "x", QoS::ExactlyOnce);
    let first = client.message();
    let mut second = Client::new(&broker, version, "second");
    second.subscribe("$share/g/a", QoS::ExactlyOnce);
    client.vanish();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    let again = client.hears("x");
    assert_eq!((again.id, again.dup), (first.id, true));
    second.nothing();
}

pub(crate) fn a_shared_qos_2_message_ends_with_its_session(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("$share/g/a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    other.publish("a", "x", QoS::ExactlyOnce);
    client.message();
    let mut second = Client::new(&broker, version, "second");
    second.subscribe("$share/g/a", QoS::ExactlyOnce);
    client.goodbye();
    second.nothing();
}

pub(crate) fn a_refused_shared_message_goes_to_nobody_else(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("$share/g/a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        other.publish("a", "x", qos);
    }
    let (one, two) = (client.message(), client.message());
    let mut second = Client::new(&broker, version, "second");
    second.subscribe("$share/g/a", QoS::ExactlyOnce);
    let no = |message: &Message| Ack {
        reason: ReasonCode::UnspecifiedError,
        ..Ack::new(id(message.id))
    };
    client.send(&Packet::PubAck(no(&one)));
    client.send(&Packet::PubRec(no(&two)));
    client.nothing();
    client.goodbye();
    second.nothing();
}

pub(crate) fn answers_fit_the_client(version: Version) {
    // Checks each type of answer, CONNACK first, with a client that accepts 26 bytes and checks the length of each.
    const MOST: u32 = 26;
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "pump", &[Property::MaximumPacketSize(MOST)]);
    let list = [
        Subscription::new(filter("a"), QoS::ExactlyOnce),
        Subscription::new(filter("forbidden/b"), QoS::ExactlyOnce),
    ];
    client.subscribe_with(&list, &[]);
    client.unsubscribe(&["x", "y"]);
    client.say("forbidden/b", "x", QoS::AtLeastOnce);
    comes!(client, Packet::PubAck(ack) if ack.reason.is_error() && ack.properties.is_empty());
    client.say("forbidden/b", "x", QoS::ExactlyOnce);
    comes!(client, Packet::PubRec(ack) if ack.reason.is_error() && ack.properties.is_empty());
    client.send(&Packet::PubRel(Ack::new(id(6))));
    comes!(client, Packet::PubComp(ack) if ack.reason.is_error() && ack.properties.is_empty());
    client.send(&Packet::PubRec(Ack::new(id(6))));
    comes!(client, Packet::PubRel(ack) if ack.properties.is_empty());
    // A message that does not fit is dropped as if it was delivered; the others come.
    let mut other = Client::new(&broker, version, "other");
    other.publish("a", &"x".repeat(40), QoS::AtLeastOnce);
    other.publish("a", "short", QoS::AtLeastOnce);
    client.hears("short");
    client.nothing();
    // DISCONNECT is the last answer.
    let second = Client::new(&broker, version, "pump");
    let bytes = client.raw().unwrap();
    assert!(bytes[0] == 0xE0 && bytes.len() <= 4, "{bytes:x?}");
    drop(second);
}

pub(crate) fn auth_fits_the_client(version: Version) {
    let broker = Broker::start();
    let mut client = Client::open(&broker, version);
    let properties = [
        Property::AuthenticationMethod("question"),
        Property::MaximumPacketSize(30),
    ];
    client.send(&Packet::Connect(mqtt_proto::Connect {
        properties: mqtt_proto::Properties::from(&properties),
        ..mqtt_proto::Connect::new(version, "pump")
    }));
    let bytes = client.raw().unwrap();
    assert!(bytes[0] == 0xF0 && bytes.len() <= 30, "{bytes:x?}");
}

pub(crate) fn problems_are_told_to_who_wants_to_know(version: Version) {
    let broker = Broker::start();
    let mut client = Client::v5(
        &broker,
        "pump",
        &[Property::RequestProblemInformation(false)],
    );
    let says_nothing = |bytes: Vec<u8>| {
        // A reason string is 0x1F, a user property is 0x26; these answers have no other such byte.
        assert!(
            !bytes.contains(&0x1F) && !bytes.contains(&0x26),
            "{bytes:x?}"
        );
    };
    let list = [Subscription::new(filter("forbidden/b"), QoS::ExactlyOnce)];
    client.send(&Packet::Subscribe(mqtt_proto::Subscribe::new(
        id(1),
        &list[..],
    )));
    says_nothing(client.raw().unwrap());
    let list = [filter("x")];
    client.send(&Packet::Unsubscribe(mqtt_proto::Unsubscribe::new(
        id(1),
        &list[..],
    )));
    says_nothing(client.raw().unwrap());
    for packet in [
        Packet::Publish(publish("forbidden/b", "x", QoS::AtLeastOnce, 5)),
        Packet::Publish(publish("forbidden/b", "x", QoS::ExactlyOnce, 5)),
        Packet::PubRel(Ack::new(id(6))),
        Packet::PubRec(Ack::new(id(6))),
    ] {
        client.bytes(&encode(&packet, version));
        says_nothing(client.raw().unwrap());
    }
    client.nothing();
}

pub(crate) fn disconnect_follows_connack_only(version: Version) {
    // AUTH must come neither before CONNECT nor after a refusal.
    crate::connect::connect_is_first(version);
    crate::connect::who_may_not_is_refused(version);
    crate::connect::a_wrong_connect_gets_no_connack(version);
}

pub(crate) fn disconnect_is_last_and_has_no_session_expiry(version: Version) {
    let broker = Broker::start();
    let mut client = Client::v5(&broker, "pump", &[Property::SessionExpiryInterval(100)]);
    let _second = Client::new(&broker, version, "pump");
    client.next(|packet| match packet {
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, ReasonCode::SessionTakenOver);
            assert_eq!(disconnect.properties.session_expiry_interval(), None);
        }
        other => panic!("came {other:?}"),
    });
    // The broker closes even if the client sends more.
    client.send(&Packet::PingReq);
    client.closed_silently();
}
