//! Scenarios of the properties of PUBLISH: section 3.3.2 of MQTT 5.

use mqtt_proto::{
    Connect, Packet, Properties, Property, Publish, QoS, ReasonCode, TopicAlias, Version, Will,
};

use crate::format::closes;
use crate::net::{Broker, Client, publish, replaced, topic};

pub(crate) fn properties_are_forwarded_unaltered(version: Version) {
    let properties = [
        Property::PayloadFormatIndicator(true),
        Property::ContentType("text/plain; charset=utf-8"),
        Property::ResponseTopic(topic("answers/\u{e9}")),
        Property::CorrelationData(b"\0\x01\xFF"),
        Property::UserProperty("b", "1"),
        Property::UserProperty("a", ""),
        Property::UserProperty("b", "1"),
        Property::UserProperty("", "\u{10FFFF}"),
    ];
    let broker = Broker::start();
    let mut other = Client::new(&broker, version, "other");
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.subscribe("a", QoS::AtLeastOnce);
    let check = |client: &mut Client| {
        let same = client.next(|packet| match packet {
            Packet::Publish(publish) => {
                let came: Vec<_> = publish.properties.iter().collect();
                assert_eq!(came, properties);
                publish.payload.to_vec()
            }
            other => panic!("came {other:?}"),
        });
        assert_eq!(same, "\u{e9}".as_bytes());
    };
    let message = Publish {
        properties: Properties::from(&properties),
        ..publish("a", "\u{e9}", QoS::AtLeastOnce, 5)
    };
    // The message is sent at once, from a queue, and as a retained message.
    other.publish_packet(&message);
    check(&mut client);
    client.goodbye();
    other.publish_packet(&message);
    let (mut client, _) = Client::staying(&broker, version, "pump");
    // The first message was not acknowledged.
    check(&mut client);
    check(&mut client);
    other.publish_packet(&Publish {
        retain: true,
        topic: topic("b"),
        ..message
    });
    client.subscribe("b", QoS::AtMostOnce);
    check(&mut client);
}

/// Lets more than a second pass, until a will with a delay of a second arrives.
pub(crate) fn a_second_passes(broker: &Broker) {
    let mut watcher = Client::new(broker, Version::V5, "clock-watcher");
    watcher.subscribe("clock", QoS::AtMostOnce);
    let delay = [Property::WillDelayInterval(1)];
    let stays = [Property::SessionExpiryInterval(9)];
    let (client, _) = Client::with(
        broker,
        &Connect {
            will: Some(Will {
                properties: Properties::from(&delay),
                ..Will::new(topic("clock"), b"")
            }),
            properties: Properties::from(&stays),
            ..Connect::new(Version::V5, "clock")
        },
    );
    client.vanish();
    watcher.hears("");
}

pub(crate) fn what_expired_is_not_delivered(version: Version) {
    let broker = Broker::start();
    let mut other = Client::beside_a_session(&broker, version);
    let mut say = |payload, seconds, retain, name| {
        let expiry = [Property::MessageExpiryInterval(seconds)];
        other.publish_packet(&Publish {
            properties: Properties::from(&expiry),
            retain,
            ..publish(name, payload, QoS::AtLeastOnce, 5)
        });
    };
    say("short", 1, false, "a");
    say("long", 100, false, "a");
    say("retained", 1, true, "b");
    a_second_passes(&broker);
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.hears("long");
    client.subscribe("b", QoS::AtLeastOnce);
    client.nothing();
}

pub(crate) fn the_remaining_expiry_is_forwarded(version: Version) {
    let broker = Broker::start();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.subscribe("a", QoS::AtLeastOnce);
    let mut other = Client::new(&broker, version, "other");
    let expiry = [Property::MessageExpiryInterval(100)];
    let message = Publish {
        properties: Properties::from(&expiry),
        ..publish("a", "x", QoS::AtLeastOnce, 5)
    };
    let remaining = |client: &mut Client| {
        client.next(|packet| match packet {
            Packet::Publish(publish) => publish.properties.message_expiry_interval(),
            other => panic!("came {other:?}"),
        })
    };
    other.publish_packet(&message);
    assert_eq!(remaining(&mut client), Some(100));
    client.goodbye();
    other.publish_packet(&message);
    a_second_passes(&broker);
    let (mut client, _) = Client::staying(&broker, version, "pump");
    // The first message is sent again unchanged.
    assert_eq!(remaining(&mut client), Some(100));
    let left = remaining(&mut client).unwrap();
    assert!((1..=99).contains(&left), "{left}");
}

fn with_alias<'a>(name: &'a str, alias: u16) -> Publish<'a> {
    Publish {
        topic_alias: TopicAlias::new(alias),
        topic: if name.is_empty() {
            mqtt_proto::TopicName::default()
        } else {
            topic(name)
        },
        ..publish("x", "x", QoS::AtLeastOnce, 5)
    }
}

pub(crate) fn every_alias_up_to_the_maximum_is_taken(version: Version) {
    let broker = Broker::with(|config| config.topic_alias_maximum = 5);
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("#", QoS::AtMostOnce);
    let mut client = Client::new(&broker, version, "pump");
    for round in 0..2 {
        for alias in 1..=5 {
            let name = format!("a/{round}/{alias}");
            client.publish_packet(&with_alias(&name, alias));
            assert_eq!(watcher.take().topic, name);
            client.publish_packet(&with_alias("", alias));
            // Other clients get the topic name, not the alias.
            assert_eq!(watcher.take().topic, name);
        }
    }
    client.send(&Packet::Publish(with_alias("a", 6)));
    assert_eq!(client.closed(), Some(ReasonCode::TopicAliasInvalid));
}

pub(crate) fn aliases_end_with_their_connection(version: Version) {
    let broker = Broker::start();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.publish_packet(&with_alias("a", 1));
    client.goodbye();
    let (mut client, _) = Client::staying(&broker, version, "pump");
    client.send(&Packet::Publish(with_alias("", 1)));
    assert!(client.closed().is_some());
    // For aliases of the broker as well, the first message of a connection has its topic.
    let properties = [
        Property::TopicAliasMaximum(5),
        Property::SessionExpiryInterval(100),
    ];
    for _ in 0..2 {
        let mut client = Client::v5(&broker, "alias", &properties);
        client.subscribe("a", QoS::AtMostOnce);
        client.say("a", "x", QoS::AtMostOnce);
        assert_eq!(client.hears("x").topic, "a");
        client.say("a", "x", QoS::AtMostOnce);
        assert!(["a", ""].contains(&client.hears("x").topic.as_str()));
    }
}

pub(crate) fn aliases_stay_below_the_clients_maximum(_: Version) {
    let broker = Broker::start();
    for maximum in [None, Some(0), Some(1), Some(3)] {
        let properties: Vec<_> = maximum
            .map(Property::TopicAliasMaximum)
            .into_iter()
            .collect();
        let mut client = Client::v5(&broker, "pump", &properties);
        client.subscribe("a/#", QoS::AtMostOnce);
        let mut used = 0;
        for n in 0..20 {
            client.say(&format!("a/{}", n % 5), "x", QoS::AtMostOnce);
            used = used.max(client.message().alias);
        }
        // The broker uses all aliases that it may use.
        assert_eq!(used, maximum.unwrap_or(0));
    }
}

pub(crate) fn a_response_topic_is_a_topic_name(version: Version) {
    let properties = [Property::ResponseTopic(topic("ans"))];
    let message = Packet::Publish(Publish {
        properties: Properties::from(&properties),
        ..publish("a", "x", QoS::AtMostOnce, 1)
    });
    for wrong in [b"a/#", b"a/+", b"+/a"] {
        closes(version, &replaced(&message, version, b"ans", wrong));
    }
    closes(version, &replaced(&message, version, b"ans", b"a\xFFs"));
}

pub(crate) fn a_content_type_is_text(version: Version) {
    let properties = [Property::ContentType("abc")];
    let message = Packet::Publish(Publish {
        properties: Properties::from(&properties),
        ..publish("a", "x", QoS::AtMostOnce, 1)
    });
    closes(version, &replaced(&message, version, b"abc", b"a\xFFc"));
    closes(version, &replaced(&message, version, b"abc", b"a\0c"));
}

pub(crate) fn a_client_sends_no_subscription_identifier(version: Version) {
    let bytes = {
        // Replaces the topic alias by a subscription identifier, which is a byte shorter.
        let alias = Packet::Publish(Publish {
            topic_alias: TopicAlias::new(9),
            ..publish("a", "x", QoS::AtMostOnce, 1)
        });
        let mut bytes = replaced(&alias, version, &[3, 0x23, 0, 9], &[2, 0x0B, 9, b'x']);
        bytes[1] -= 1;
        bytes.pop();
        bytes
    };
    assert_eq!(closes(version, &bytes), Some(ReasonCode::ProtocolError));
}

pub(crate) fn no_response_information_unasked(version: Version) {
    let broker = Broker::start();
    for asked in [false, true] {
        let mut client = Client::open(&broker, version);
        let wish = [Property::RequestResponseInformation(asked)];
        client.send(&Packet::Connect(Connect {
            properties: Properties::from(&wish),
            ..Connect::new(version, "pump")
        }));
        client.next(|packet| match packet {
            Packet::ConnAck(connack) => assert_eq!(connack.properties.response_information(), None),
            other => panic!("came {other:?}"),
        });
    }
}
