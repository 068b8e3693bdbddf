//! Topic aliases of MQTT 5.

use super::*;

/// 5 [MQTT-3.3.2-9] to [MQTT-3.3.2-12]: an alias up to the announced maximum is assigned once, and then stands for its topic.
#[test]
fn incoming_topic_aliases_stand_for_their_topic() {
    for role in [Role::Client, Role::Server] {
        let mut solo = with(role, Version::V5, |_, opening| {
            announces(role, opening, Property::TopicAliasMaximum(2))
        });
        let named = Publish {
            topic_alias: TopicAlias::new(2),
            ..publish(QoS::AtMostOnce, 0, false, "x")
        };
        let unnamed = Publish {
            topic: TopicName::NONE,
            ..named
        };
        solo.feed_packet(&Packet::Publish(named));
        solo.feed_packet(&Packet::Publish(unnamed));
        let topics: Vec<_> = solo
            .learned()
            .into_iter()
            .map(|h| {
                if let OwnedEvent::Message { topic, .. } = h {
                    topic
                } else {
                    panic!("{h:?}")
                }
            })
            .collect();
        assert_eq!(topics, ["a/b", "a/b"]);
        // 5 [MQTT-3.3.2-7]: the next connection knows nothing of it.
        solo.connect(true);
        solo.learned();
        solo.feed_packet(&Packet::Publish(unnamed));
        assert_eq!(closed(&mut solo), Some(Violation::TopicAlias(2)));
        solo.connect(true);
        solo.learned();
        solo.feed_packet(&Packet::Publish(Publish {
            topic_alias: TopicAlias::new(3),
            ..named
        }));
        assert_eq!(closed(&mut solo), Some(Violation::TopicAlias(3)));
        assert!(solo.sent().ends_with(&hex("E0 01 94")));
    }
}

/// 5 [MQTT-3.2.2-17], [MQTT-3.1.2-26]: the session assigns aliases up to the peer's maximum, but none in a packet that is sent
/// again.
#[test]
fn topic_aliases_are_assigned_to_outgoing_messages() {
    for role in [Role::Client, Role::Server] {
        let mut solo = with(role, Version::V5, |config, opening| {
            config.auto_alias = 10;
            peer_announces(role, opening, Property::TopicAliasMaximum(1));
        });
        let now = solo.now;
        let mut send = |topic: &str, qos| {
            solo.machine.publish(qos, topic, b"x", now).unwrap();
            let sent = solo.sent();
            match Packet::decode(&sent, Version::V5, MAX_PACKET) {
                Ok(Decoded::Packet {
                    packet: Packet::Publish(p),
                    ..
                }) => (
                    p.topic.as_str().to_owned(),
                    p.topic_alias.map(TopicAlias::get),
                ),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            send("long/topic", QoS::AtMostOnce),
            ("long/topic".into(), Some(1))
        );
        assert_eq!(
            send("long/topic", QoS::AtLeastOnce),
            (String::new(), Some(1))
        );
        assert_eq!(send("other", QoS::AtMostOnce), ("other".into(), None));
        solo.connect(true);
        let sent = solo.sent();
        let Ok(Decoded::Packet {
            packet: Packet::Publish(resent),
            ..
        }) = Packet::decode(&sent, Version::V5, MAX_PACKET)
        else {
            panic!("{sent:?}")
        };
        assert_eq!(
            (resent.topic.as_str(), resent.topic_alias, resent.dup),
            ("long/topic", None, true)
        );
    }
}

/// An alias is assigned only with a packet that is sent. If a refused message assigned one, the next message on its topic would
/// have an alias that the server does not know, which ends the connection (5 [MQTT-3.3.2-9]).
#[test]
fn a_refused_message_assigns_no_topic_alias() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut opening = Opening::persistent(Version::V5);
        opening.connack.push(Property::TopicAliasMaximum(2));
        opening.connack.push(Property::MaximumPacketSize(120));
        let mut config = Config::default();
        (config.auto_alias, config.outgoing_limit) = (2, 300);
        let mut solo = TestedMachine::connected(Role::Client, opening, config);
        let publish = |solo: &mut TestedMachine, topic: &str, len: usize| {
            let payload = vec![b'x'; len];
            solo.machine.publish(qos, topic, &payload, solo.now)
        };
        while publish(&mut solo, "a", 60).is_ok() {}
        assert_eq!(publish(&mut solo, "b", 60), Err(Refused::Full));
        solo.sent();
        // Too large for the server: no alias either.
        let refused = publish(&mut solo, "b", 200);
        assert!(
            matches!(refused, Err(Refused::TooLarge { .. })),
            "{refused:?}"
        );
        publish(&mut solo, "b", 60).unwrap();
        let (first, consumed) = published(&solo.sent());
        assert_eq!(first, ("b".to_owned(), Some(2)), "{consumed}");
        // With its alias it would be larger than the server takes: it goes without.
        let head = if qos == QoS::AtMostOnce { 6 } else { 8 };
        publish(&mut solo, "b", 120 - head).unwrap();
        let (whole, len) = published(&solo.sent());
        assert_eq!((whole, len), (("b".to_owned(), None), 120));
    }
}

/// Topic and alias of the first PUBLISH, and its length.
fn published(bytes: &[u8]) -> ((String, Option<u16>), usize) {
    match Packet::decode(bytes, Version::V5, MAX_PACKET) {
        Ok(Decoded::Packet {
            packet: Packet::Publish(publish),
            consumed,
        }) => {
            let alias = publish.topic_alias.map(|alias| alias.get());
            ((publish.topic.to_string(), alias), consumed)
        }
        other => panic!("{other:?}"),
    }
}
