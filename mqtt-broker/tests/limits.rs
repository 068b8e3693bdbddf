//! Checks that the resources of one client are limited, and that other clients are not affected.

use std::time::Duration;

use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Outgoing, Verdict};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Ack, Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Properties, Property, Publish,
    QoS, ReasonCode, Subscribe, Subscription, TopicFilter, TopicName, Unsubscribe, Version, Will,
};
use mqtt_testing::packets::{encode, take_packets};

const NOW: Instant = Instant::from_millis(0);

/// Accepts clients; the decision on client identifiers that begin with "wait" comes later.
struct Open(u128);

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }

    fn connect(&mut self, _: ConnectionId, connect: &Connect<'_>) -> Verdict {
        if connect.client_id.starts_with("wait") {
            Verdict::Later
        } else {
            Verdict::Accept
        }
    }
}

fn broker(set: impl FnOnce(&mut Config)) -> Broker<Open> {
    let mut config = Config::default();
    config.statistics_interval = 0;
    set(&mut config);
    Broker::new(config, Open(0), NOW)
}

fn after(seconds: u64) -> Instant {
    NOW.after(Duration::from_secs(seconds))
}

fn say(broker: &mut Broker<Open>, id: ConnectionId, packet: &Packet<'_>, version: Version) {
    let bytes = encode(packet, version);
    broker.receive(id, &bytes, NOW);
}

/// Returns all outgoing packets.
fn hear(broker: &mut Broker<Open>, id: ConnectionId) -> Vec<Vec<u8>> {
    take_packets(broker, id, Version::V5, NOW)
}

fn connect(broker: &mut Broker<Open>, connect: &Connect<'_>) -> ConnectionId {
    let id = broker.open(NOW).unwrap();
    say(broker, id, &Packet::Connect(*connect), connect.version);
    id
}

/// Connects a client, and takes its CONNACK.
fn connected(broker: &mut Broker<Open>, client_id: &str) -> ConnectionId {
    let id = connect(broker, &Connect::new(Version::V5, client_id));
    let connack = &hear(broker, id)[0];
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
    id
}

fn subscribe(broker: &mut Broker<Open>, id: ConnectionId, filter: &str, qos: QoS) -> u8 {
    let list = [Subscription::new(TopicFilter::new(filter).unwrap(), qos)];
    let own = PacketId::new(1).unwrap();
    let subscribe = Packet::Subscribe(Subscribe::new(own, &list[..]));
    say(broker, id, &subscribe, Version::V5);
    let suback = &hear(broker, id)[0];
    assert_eq!(suback[0], 0x90);
    *suback.last().unwrap()
}

fn publish<'a>(topic: &'a str, payload: &'a [u8], qos: QoS) -> Publish<'a> {
    let id = PacketId::new(5).unwrap();
    Publish {
        delivery: match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
        },
        ..Publish::new(TopicName::new(topic).unwrap(), payload)
    }
}

/// Publishes a message, and returns the reason code of its PUBACK.
fn puback(broker: &mut Broker<Open>, id: ConnectionId, message: &Publish<'_>) -> u8 {
    say(broker, id, &Packet::Publish(*message), Version::V5);
    while broker.deadline() == Some(NOW) {
        broker.tick(NOW);
    }
    let answers = hear(broker, id);
    let puback = answers.iter().find(|bytes| bytes[0] == 0x40).unwrap();
    puback.get(4).copied().unwrap_or(0)
}

#[test]
fn connections_are_limited() {
    let mut broker = broker(|config| config.connections = 2);
    let first = connected(&mut broker, "first");
    connected(&mut broker, "second");
    assert_eq!(broker.open(NOW).unwrap_err().limit, 2);
    broker.closed(first, NOW);
    let third = broker.open(NOW).unwrap();
    // The index is used again, the name is not.
    assert_eq!(third.index(), first.index());
    assert_ne!(third, first);
}

#[test]
fn connect_and_its_decision_take_no_longer_than_allowed() {
    let mut broker = broker(|config| config.connect_timeout_ms = 3_000);
    let silent = broker.open(NOW).unwrap();
    let undecided = connect(&mut broker, &Connect::new(Version::V5, "wait"));
    let slow = broker.open(NOW).unwrap();
    broker.receive(slow, &[0x10, 0x20, 0, 4], NOW);
    assert_eq!(broker.deadline(), Some(after(3)));
    broker.tick(NOW.after(Duration::from_millis(2_999)));
    for id in [silent, undecided, slow] {
        assert!(!broker.is_closing(id));
    }
    broker.tick(after(3));
    for id in [silent, slow] {
        assert!(broker.is_closing(id) && broker.outgoing(id).is_empty());
    }
    assert!(broker.is_closing(undecided));
    // The client may be right, so the answer is "server busy".
    assert_eq!(hear(&mut broker, undecided)[0][3], 0x89);
    // A decision that comes too late has no effect.
    broker.decide(undecided, Verdict::Accept, after(3));
    assert!(broker.outgoing(undecided).is_empty());
}

#[test]
fn sessions_are_limited_to_those_who_have_none() {
    let mut broker = broker(|config| config.sessions = 2);
    let stays = [Property::SessionExpiryInterval(100)];
    let staying = |client_id| Connect {
        clean_start: false,
        properties: Properties::from(&stays),
        ..Connect::new(Version::V5, client_id)
    };
    for client_id in ["a", "b"] {
        let id = connect(&mut broker, &staying(client_id));
        assert_eq!(hear(&mut broker, id)[0][3], 0);
        subscribe(&mut broker, id, "a", QoS::AtMostOnce);
        broker.closed(id, NOW);
    }
    let third = connect(&mut broker, &staying("c"));
    assert_eq!(hear(&mut broker, third)[0][3], 0x97);
    assert!(broker.is_closing(third));
    let first = connect(&mut broker, &staying("a"));
    assert_eq!(hear(&mut broker, first)[0][2..4], [1, 0]);
    // 3.1.1 uses its return code.
    let old = connect(&mut broker, &Connect::new(Version::V311, "d"));
    assert_eq!(broker.outgoing(old), [0x20, 2, 0, 3]);
}

/// Sessions without subscriptions and messages are ended when their clients are not connected, the oldest first. Those with a
/// subscription stay.
#[test]
fn sessions_without_use_give_way() {
    let mut broker = broker(|config| config.sessions = 3);
    let stays = [Property::SessionExpiryInterval(u32::MAX)];
    let staying = |client_id| Connect {
        clean_start: false,
        properties: Properties::from(&stays),
        ..Connect::new(Version::V5, client_id)
    };
    let used = connect(&mut broker, &staying("used"));
    hear(&mut broker, used);
    subscribe(&mut broker, used, "a", QoS::AtLeastOnce);
    broker.closed(used, NOW);
    for client_id in ["first", "second", "back"] {
        let id = connect(&mut broker, &staying(client_id));
        assert_eq!(hear(&mut broker, id)[0][3], 0, "{client_id}");
        broker.closed(id, NOW);
    }
    let present = |broker: &mut Broker<Open>, client_id| {
        let id = connect(broker, &staying(client_id));
        hear(broker, id)[0][2..4].to_vec()
    };
    // These clients stay connected from now on.
    assert_eq!(present(&mut broker, "back"), [1, 0]);
    assert_eq!(present(&mut broker, "used"), [1, 0]);
    assert_eq!(present(&mut broker, "first"), [0, 0], "it gave way");
    assert_eq!(present(&mut broker, "second"), [0, 0x97], "nobody is left");
}

#[test]
fn bytes_of_subscriptions_are_limited() {
    let mut broker = broker(|config| config.subscription_bytes = 10_000);
    let id = connected(&mut broker, "a");
    let long = "x".repeat(4_000);
    assert_eq!(subscribe(&mut broker, id, &long, QoS::AtMostOnce), 0);
    let other = "y".repeat(4_000);
    assert_eq!(subscribe(&mut broker, id, &other, QoS::AtMostOnce), 0x97);
    assert_eq!(subscribe(&mut broker, id, &long, QoS::AtMostOnce), 0);
    let filters = [TopicFilter::new(&long).unwrap()];
    let unsubscribe = Unsubscribe {
        packet_id: PacketId::FIRST,
        properties: Properties::EMPTY,
        filters: (&filters).into(),
    };
    say(
        &mut broker,
        id,
        &Packet::Unsubscribe(unsubscribe),
        Version::V5,
    );
    hear(&mut broker, id);
    assert_eq!(subscribe(&mut broker, id, &other, QoS::AtMostOnce), 0);
}

/// The bytes of a will are free when its client sets another one or none, or when it is published. Its properties count like its payload.
#[test]
fn bytes_of_wills_are_limited() {
    let (payload, word) = ([b'x'; 600], "x".repeat(600));
    let word = [Property::ContentType(&word)];
    for (payload, properties) in [(&payload[..], &[][..]), (b"", &word)] {
        let mut broker = broker(|config| config.will_bytes = 1_000);
        let with_will = |client_id| Connect {
            will: Some(Will {
                properties: Properties::from(properties),
                ..Will::new(TopicName::from_static("w"), payload)
            }),
            ..Connect::new(Version::V5, client_id)
        };
        for _ in 0..3 {
            let first = connect(&mut broker, &with_will("a"));
            assert_eq!(hear(&mut broker, first)[0][3], 0);
            let second = connect(&mut broker, &with_will("b"));
            assert_eq!(hear(&mut broker, second)[0][3], 0x97);
            let without = connected(&mut broker, "c");
            broker.closed(without, NOW);
            broker.closed(second, NOW);
            broker.closed(first, NOW);
        }
    }
}

/// No level of a topic takes a stack frame.
#[test]
fn deep_topics_take_no_stack() {
    let deep = "a/".repeat(32_000);
    let run = move || {
        let mut broker = broker(|config| {
            config.topic_levels = 100_000;
            config.topic_length = 65_535;
        });
        let id = connected(&mut broker, "a");
        assert_eq!(subscribe(&mut broker, id, &deep, QoS::AtMostOnce), 0);
        for payload in [&b"x"[..], b""] {
            let message = Publish {
                retain: true,
                ..publish(&deep, payload, QoS::AtLeastOnce)
            };
            assert_eq!(puback(&mut broker, id, &message), 0);
            assert_eq!(subscribe(&mut broker, id, "#", QoS::AtMostOnce), 0);
        }
        assert_eq!(broker.statistics(NOW).retained_bytes, 0);
    };
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(run).unwrap().join().unwrap();
}

#[test]
fn packets_are_limited_before_they_are_there() {
    let mut broker = broker(|config| config.packet_size = 100);
    let id = connected(&mut broker, "a");
    broker.receive(id, &[0x30, 101], NOW);
    assert!(broker.is_closing(id));
    assert_eq!(hear(&mut broker, id)[0][2], 0x95);
    // The limit applies to CONNECT as well.
    let id = broker.open(NOW).unwrap();
    broker.receive(id, b"\x10\xFF\xFF\x7F\0\x04MQTT\x04", NOW);
    assert!(broker.is_closing(id));
}

#[test]
fn what_is_limited_is_announced_and_kept() {
    let mut broker = broker(|config| {
        config.keep_alive_maximum = 20;
        config.session_expiry_maximum = 30;
        config.keep_alive_percent = 250;
    });
    let wish = [Property::SessionExpiryInterval(1_000)];
    let wishes = Connect {
        clean_start: false,
        keep_alive: 600,
        properties: Properties::from(&wish),
        ..Connect::new(Version::V5, "a")
    };
    let id = connect(&mut broker, &wishes);
    let connack = hear(&mut broker, id).remove(0);
    let Ok(Decoded::Packet {
        packet: Packet::ConnAck(connack),
        ..
    }) = Packet::decode(&connack, Version::V5, MAX_PACKET)
    else {
        panic!("{connack:x?}")
    };
    assert_eq!(connack.properties.server_keep_alive(), Some(20));
    assert_eq!(connack.properties.session_expiry_interval(), Some(30));
    // 2.5 times 20 seconds.
    broker.tick(NOW.after(Duration::from_millis(49_999)));
    assert!(!broker.is_closing(id));
    broker.tick(after(50));
    assert!(broker.is_closing(id));
    assert_eq!(broker.statistics(after(79)).sessions, 1);
    broker.tick(after(80));
    assert_eq!(broker.statistics(after(80)).sessions, 0);
}

#[test]
fn subscriptions_and_levels_are_limited() {
    let mut broker = broker(|config| {
        config.subscriptions = 2;
        config.topic_levels = 3;
    });
    let id = connected(&mut broker, "a");
    assert_eq!(subscribe(&mut broker, id, "a/b/c", QoS::AtMostOnce), 0);
    assert_eq!(subscribe(&mut broker, id, "a/b/c/d", QoS::AtMostOnce), 0x8F);
    assert_eq!(subscribe(&mut broker, id, "#", QoS::AtMostOnce), 0);
    assert_eq!(subscribe(&mut broker, id, "b", QoS::AtMostOnce), 0x97);
    // An existing subscription may be changed.
    assert_eq!(subscribe(&mut broker, id, "#", QoS::ExactlyOnce), 2);
    let deep = publish("a/b/c/d", b"x", QoS::AtLeastOnce);
    assert_eq!(puback(&mut broker, id, &deep), 0x90);
    // Each client has the limit for itself.
    let other = connected(&mut broker, "b");
    assert_eq!(subscribe(&mut broker, other, "b", QoS::AtMostOnce), 0);
}

#[test]
fn retained_messages_are_limited_and_delivered_all_the_same() {
    let mut broker = broker(|config| config.retained_messages = 2);
    let id = connected(&mut broker, "a");
    let other = connected(&mut broker, "b");
    subscribe(&mut broker, other, "#", QoS::AtMostOnce);
    let mut retain = |topic, payload| {
        let message = Publish {
            retain: true,
            ..publish(topic, payload, QoS::AtLeastOnce)
        };
        let reason = puback(&mut broker, id, &message);
        (reason, hear(&mut broker, other).len())
    };
    assert_eq!(retain("1", b"x"), (0, 1));
    assert_eq!(retain("2", b"x"), (0, 1));
    assert_eq!(retain("3", b"x"), (0x97, 1));
    assert_eq!(retain("2", b"y"), (0, 1));
    assert_eq!(retain("1", b""), (0, 1));
    assert_eq!(retain("3", b"x"), (0, 1));
    assert_eq!(broker.statistics(NOW).retained, 2);
}

#[test]
fn retained_messages_expire_when_the_operator_says_so() {
    let mut broker = broker(|config| config.retained_expiry = Some(10));
    let topic = TopicName::new("a").unwrap();
    let message = Outgoing {
        retain: true,
        ..Outgoing::new(topic, QoS::AtMostOnce, b"x")
    };
    broker.publish(&message, NOW);
    let mut retained_at = |seconds: u64, client_id| {
        let id = connected(&mut broker, client_id);
        let list = [Subscription::new(
            TopicFilter::new("a").unwrap(),
            QoS::AtMostOnce,
        )];
        let own = PacketId::new(1).unwrap();
        let bytes = encode(
            &Packet::Subscribe(Subscribe::new(own, &list[..])),
            Version::V5,
        );
        broker.receive(id, &bytes, after(seconds));
        hear(&mut broker, id).len() - 1
    };
    assert_eq!(retained_at(9, "b"), 1);
    assert_eq!(retained_at(10, "c"), 0);
}

/// A client with a long queue does not delay other clients or make them lose messages.
#[test]
fn a_hog_costs_nobody_a_message() {
    let mut broker = broker(|config| {
        config.queued_messages = 1_000;
        config.queued_bytes_total = 20_000;
        config.outgoing_bytes = 1_000;
        config.packet_size = 1_000;
        config.slow_consumer_ms = 0;
    });
    let publisher = connected(&mut broker, "publisher");
    // This client neither reads nor acknowledges.
    let hog = connected(&mut broker, "hog");
    subscribe(&mut broker, hog, "#", QoS::ExactlyOnce);
    let reader = connected(&mut broker, "reader");
    subscribe(&mut broker, reader, "a", QoS::AtLeastOnce);
    let stays = [Property::SessionExpiryInterval(100)];
    let away = Connect {
        properties: Properties::from(&stays),
        ..Connect::new(Version::V5, "away")
    };
    let id = connect(&mut broker, &away);
    hear(&mut broker, id);
    subscribe(&mut broker, id, "b", QoS::AtLeastOnce);
    broker.closed(id, NOW);
    let payload = [b'x'; 400];
    for n in 0..500 {
        let message = publish("a", &payload, QoS::AtLeastOnce);
        assert_eq!(puback(&mut broker, publisher, &message), 0);
        let heard = hear(&mut broker, reader);
        assert_eq!(heard.len(), 1, "message {n}");
        let Ok(Decoded::Packet {
            packet: Packet::Publish(heard),
            ..
        }) = Packet::decode(&heard[0], Version::V5, MAX_PACKET)
        else {
            panic!("{heard:x?}")
        };
        let own = heard.delivery.packet_id().unwrap();
        let ack = Packet::PubAck(Ack::new(own));
        say(&mut broker, reader, &ack, Version::V5);
        if n % 50 == 0 {
            let message = publish("b", b"kept", QoS::AtLeastOnce);
            assert_eq!(puback(&mut broker, publisher, &message), 0);
        }
    }
    let statistics = broker.statistics(NOW);
    assert!(statistics.queued_bytes <= 2 * 20_000, "{statistics:?}");
    assert!(statistics.publish_dropped > 400, "{statistics:?}");
    // No message is lost that was queued for a client that was not connected.
    let back = Connect {
        clean_start: false,
        ..away
    };
    let id = connect(&mut broker, &back);
    let kept = hear(&mut broker, id)
        .iter()
        .filter(|bytes| bytes[0] >> 4 == 3)
        .count();
    assert_eq!(kept, 10);
    assert!(!broker.is_closing(hog));
}

#[test]
fn a_client_can_be_disconnected_and_everyone_too() {
    let mut broker = broker(|_| {});
    let new = connected(&mut broker, "new");
    let old = connect(&mut broker, &Connect::new(Version::V311, "old"));
    assert_eq!(broker.outgoing(old), [0x20, 2, 0, 0]);
    broker.sent(old, 4, NOW);
    assert!(!broker.disconnect("nobody", ReasonCode::AdministrativeAction, NOW));
    assert!(broker.disconnect("new", ReasonCode::AdministrativeAction, NOW));
    assert_eq!(hear(&mut broker, new), [[0xE0, 1, 0x98]]);
    assert!(broker.is_closing(new));
    let newer = connected(&mut broker, "newer");
    broker.shut_down(NOW);
    assert_eq!(hear(&mut broker, newer), [[0xE0, 1, 0x8B]]);
    assert!(broker.is_closing(old) && broker.outgoing(old).is_empty());
}

/// After a warm-up, routing a message at any QoS allocates no memory.
#[test]
fn the_steady_state_allocates_nothing() {
    let mut broker = broker(|_| {});
    let publisher = connected(&mut broker, "publisher");
    let subscriber = connected(&mut broker, "subscriber");
    let list = [Subscription::new(
        TopicFilter::new("a/+").unwrap(),
        QoS::ExactlyOnce,
    )];
    // The subscription identifier is sent with each message, which must not allocate either.
    let identifier = [Property::SubscriptionIdentifier(7)];
    let wanted = Packet::Subscribe(Subscribe {
        properties: Properties::from(&identifier),
        ..Subscribe::new(PacketId::new(1).unwrap(), &list[..])
    });
    say(&mut broker, subscriber, &wanted, Version::V5);
    assert_eq!(hear(&mut broker, subscriber)[0][0], 0x90);
    let bytes: Vec<Vec<u8>> = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .map(|qos| encode(&Packet::Publish(publish("a/b", b"x", qos)), Version::V5))
        .to_vec();
    let release = mqtt_testing::packets::ack(mqtt_session::proto::AckKind::PubRel, 5);
    let mut round = |times| {
        let mut answer = [0_u8; 4];
        for _ in 0..times {
            for bytes in &bytes {
                broker.receive(publisher, bytes, NOW);
                broker.receive(publisher, &release, NOW);
                broker.sent(publisher, usize::MAX, NOW);
                // The subscriber answers with PUBACK or PUBREC, then with PUBCOMP to PUBREL.
                for _ in 0..2 {
                    let outgoing = broker.outgoing(subscriber);
                    let kind = match outgoing.first().map(|first| (first >> 4, first >> 1 & 3)) {
                        Some((3, 1)) => 0x40,
                        Some((3, 2)) => 0x50,
                        Some((6, _)) => 0x70,
                        _ => 0,
                    };
                    let id = if kind == 0x70 { 2 } else { 7 };
                    answer[0] = kind;
                    answer[1] = 2;
                    if let Some(own) = outgoing.get(id..id + 2) {
                        answer[2..].copy_from_slice(own);
                    }
                    broker.sent(subscriber, usize::MAX, NOW);
                    if kind != 0 {
                        broker.receive(subscriber, &answer, NOW);
                    }
                }
                while broker.next_ready().is_some() {}
            }
        }
    };
    round(50);
    let made = allocation_counter::measure(|| round(1_000));
    assert_eq!(made.count_total, 0);
    let statistics = broker.statistics(NOW);
    assert_eq!(statistics.publish_sent, 3 * 1_050);
}

/// 5 [MQTT-3.2.2-9], [MQTT-3.2.2-12] and [MQTT-3.2.2-13]
#[test]
fn what_is_not_served_is_announced_and_refused() {
    let mut broker = broker(|config| {
        config.maximum_qos = 1;
        config.retain_available = false;
    });
    let client = connect(&mut broker, &Connect::new(Version::V5, "pump"));
    let connack = hear(&mut broker, client).remove(0);
    let announced = |property: [u8; 2]| connack.windows(2).any(|window| window == property);
    assert!(announced([0x24, 1]) && announced([0x25, 0]), "{connack:x?}");
    // The broker sends DISCONNECT with the reason.
    let topic = TopicName::new("a").unwrap();
    let retained = Publish {
        retain: true,
        ..Publish::new(topic, b"x")
    };
    let exactly_once = Publish {
        delivery: Delivery::ExactlyOnce(PacketId::new(7).unwrap()),
        ..Publish::new(topic, b"x")
    };
    for (publish, reason) in [(retained, 0x9A), (exactly_once, 0x9B)] {
        let client = connected(&mut broker, "valve");
        say(&mut broker, client, &Packet::Publish(publish), Version::V5);
        assert_eq!(hear(&mut broker, client), [vec![0xE0, 1, reason]]);
    }
    for (qos, retain, reason) in [
        (QoS::ExactlyOnce, false, 0x9B),
        (QoS::AtLeastOnce, true, 0x9A),
        (QoS::AtLeastOnce, false, 0),
    ] {
        let mut will = Will::new(topic, b"gone");
        (will.qos, will.retain) = (qos, retain);
        let willing = Connect {
            will: Some(will),
            ..Connect::new(Version::V5, "tank")
        };
        let client = connect(&mut broker, &willing);
        assert_eq!(hear(&mut broker, client)[0][3], reason);
    }
}

/// 3.1.1 [MQTT-3.1.2-2], 5 [MQTT-3.1.2-2]; 5 [MQTT-3.1.3-8]
#[test]
fn versions_and_empty_client_identifiers_can_be_refused() {
    let mut broker = broker(|config| {
        config.versions = vec![Version::V5];
        config.empty_client_ids = false;
    });
    let mut answer = |version, client_id| {
        let client = connect(&mut broker, &Connect::new(version, client_id));
        broker.outgoing(client).to_vec()
    };
    assert_eq!(answer(Version::V311, "pump"), [0x20, 2, 0, 1]);
    assert_eq!(answer(Version::V31, "pump"), [0x20, 2, 0, 1]);
    assert_eq!(answer(Version::V5, "")[..4], [0x20, 3, 0, 0x85]);
    assert_eq!(answer(Version::V5, "pump")[3], 0);
}
