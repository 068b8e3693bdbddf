//! Checks that no client delays the others: the work for a packet is done in portions. The tests count the steps of each call.

mod watched;

use std::time::Duration;

use mqtt_broker::{Next, Outgoing};
use mqtt_session::proto::{
    Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Properties, Property, Publish, QoS,
    Subscribe, Subscription, TopicFilter, TopicName, Unsubscribe, Version, Will,
};
use mqtt_testing::packets::{encode, packets_in};

use watched::{NOW, Watched, publish, subscribe};

/// SUBSCRIBE has 5,000 times `#`, and there are 1,000 retained messages: each message comes twice, as fast as the client reads.
#[test]
fn retained_messages_come_in_portions() {
    let mut watched = Watched::new(|_| {});
    for n in 0..1_000 {
        watched.retain(&format!("plant/{n}"));
    }
    let id = watched.join("greedy");
    watched.subscribe(id, (0..5_000).map(|_| "#"));
    let queued = watched.broker.statistics(NOW).queued;
    let heard = watched.hear(id).len();
    assert_eq!(heard, 2_000);
    assert!(queued <= 1_000, "{queued} queued");
    watched.check();
}

/// Returns a broker with 10,000 retained messages, which are more than fit the buffer of a connection.
fn with_ten_thousand_retained() -> Watched {
    let mut watched = Watched::new(|config| {
        config.packet_size = 1_000;
        config.outgoing_bytes = 10_000;
    });
    for n in 0..10_000 {
        watched.retain(&format!("plant/{n:05}"));
    }
    watched
}

/// A client that does not read gets no more messages and causes no work.
#[test]
fn retained_messages_wait_for_who_does_not_read() {
    let mut watched = with_ten_thousand_retained();
    let id = watched.join("slow");
    watched.subscribe(id, ["#"].into_iter());
    assert!(watched.broker.statistics(NOW).queued <= 1);
    let before = watched.broker.steps();
    assert_eq!(watched.finish(NOW), 0);
    assert_eq!(watched.broker.steps(), before);
    // A message that is stored meanwhile at a later topic is found, and a removed one is not.
    watched.retain("plant/99999");
    assert_eq!(
        watched.hear(id).len(),
        10_001 + 1,
        "once as it is published"
    );
    watched.check();
}

/// The retained messages of an ended subscription do not come.
#[test]
fn unsubscribe_ends_what_is_under_way() {
    let mut watched = with_ten_thousand_retained();
    let id = watched.join("fickle");
    watched.subscribe(id, ["#"].into_iter());
    let filters = [TopicFilter::new("#").unwrap()];
    let unsubscribe = Unsubscribe {
        packet_id: PacketId::FIRST,
        properties: Properties::EMPTY,
        filters: (&filters).into(),
    };
    watched.say(id, &Packet::Unsubscribe(unsubscribe));
    let heard = watched.hear(id).len();
    assert!(heard < 2_000, "{heard} messages");
}

/// A subscription is replaced while its retained messages are being sent: the remaining ones have the new options.
#[test]
fn a_new_subscription_takes_over_what_is_under_way() {
    let mut watched = Watched::new(|config| {
        config.packet_size = 1_000;
        config.outgoing_bytes = 10_000;
        config.window = 1_000;
    });
    for n in 0..1_000 {
        let topic = format!("plant/{n:05}");
        let message = Outgoing {
            retain: true,
            ..Outgoing::new(TopicName::new(&topic).unwrap(), QoS::AtLeastOnce, b"x")
        };
        watched.broker.publish(&message, NOW);
    }
    let id = watched.join("changed");
    let all = TopicFilter::new("#").unwrap();
    watched.say(id, &subscribe(&[Subscription::new(all, QoS::AtLeastOnce)]));
    watched.say(id, &subscribe(&[Subscription::new(all, QoS::AtMostOnce)]));
    let (mut sent, mut at_qos_0) = (0, 0);
    loop {
        watched.finish(NOW);
        let bytes = watched.broker.outgoing(id).to_vec();
        if bytes.is_empty() {
            break;
        }
        for packet in packets_in(&bytes, Version::V5) {
            if let Packet::Publish(publish) = packet {
                sent += 1;
                at_qos_0 += usize::from(publish.qos() == QoS::AtMostOnce);
            }
        }
        watched.drop_all(id);
    }
    assert_eq!(at_qos_0, 1_000);
    assert!((1..900).contains(&(sent - at_qos_0)), "{sent} messages");
}

/// The retained messages of each filter have its quality of service, also if a filter has already had its messages.
#[test]
fn each_filter_gets_retained_messages_at_its_own_qos() {
    let mut watched = Watched::new(|_| {});
    let message = Outgoing {
        retain: true,
        ..Outgoing::new(TopicName::new("a/1").unwrap(), QoS::AtLeastOnce, b"x")
    };
    watched.broker.publish(&message, NOW);
    let id = watched.join("both");
    let [a, b] = ["a/+", "b/+"].map(|filter| TopicFilter::new(filter).unwrap());
    watched.say(id, &subscribe(&[Subscription::new(b, QoS::AtMostOnce)]));
    watched.finish(NOW);
    watched.drop_all(id);
    let list = [
        Subscription::new(a, QoS::AtMostOnce),
        Subscription::new(b, QoS::AtLeastOnce),
    ];
    watched.say(id, &subscribe(&list));
    watched.finish(NOW);
    let bytes = watched.broker.outgoing(id).to_vec();
    let suback = 2 + usize::from(bytes[1]);
    let decoded = Packet::decode(&bytes[suback..], Version::V5, MAX_PACKET);
    let Ok(Decoded::Packet {
        packet: Packet::Publish(publish),
        ..
    }) = decoded
    else {
        panic!("{decoded:?}");
    };
    assert_eq!(publish.qos(), QoS::AtMostOnce);
}

/// One packet has 50,000 filters; UNSUBSCRIBE has the same ones.
#[test]
fn many_filters_are_done_in_portions() {
    let mut watched = Watched::new(|config| {
        config.subscriptions = 100_000;
        config.subscription_bytes = usize::MAX;
    });
    let texts: Vec<_> = (0..50_000).map(|n| format!("a/{n}/+")).collect();
    let id = watched.join("many");
    let turns = watched.subscribe(id, texts.iter().map(String::as_str));
    assert!(turns > 10, "{turns} turns");
    assert_eq!(watched.broker.statistics(NOW).subscriptions, 50_000);
    watched.drop_all(id);
    // The memory of a new filter is work as well.
    let again = watched.subscribe(id, texts.iter().map(String::as_str));
    assert!(4 * turns > 5 * again, "{turns} turns, then {again}");
    watched.drop_all(id);
    let list: Vec<_> = texts
        .iter()
        .map(|text| TopicFilter::new(text).unwrap())
        .collect();
    let unsubscribe = Unsubscribe {
        packet_id: PacketId::FIRST,
        properties: Properties::EMPTY,
        filters: list[..].into(),
    };
    let turns = watched.say(id, &Packet::Unsubscribe(unsubscribe));
    assert!(turns > 10, "{turns} turns");
    assert_eq!(watched.broker.statistics(NOW).subscriptions, 0);
    let Ok(Decoded::Packet {
        packet: Packet::UnsubAck(answer),
        ..
    }) = Packet::decode(watched.broker.outgoing(id), Version::V5, MAX_PACKET)
    else {
        panic!("no UNSUBACK")
    };
    assert_eq!(answer.codes.len(), 50_000);
    watched.check();
}

/// No message is retained: a search for each of 50,000 filters still takes its part of a turn.
#[test]
fn searches_that_find_no_retained_message_are_done_in_portions() {
    let mut watched = Watched::new(|config| {
        config.subscriptions = 100_000;
        config.subscription_bytes = usize::MAX;
    });
    let texts: Vec<_> = (0..50_000).map(|n| format!("a/{n}")).collect();
    let list: Vec<_> = texts
        .iter()
        .map(|text| Subscription::new(TopicFilter::new(text).unwrap(), QoS::AtMostOnce))
        .collect();
    let id = watched.join("many");
    let packet = encode(&subscribe(&list), Version::V5);
    let mut left = &packet[..];
    while watched.broker.outgoing(id).is_empty() {
        left = &left[watched.broker.receive(id, left, NOW).consumed..];
        watched.tick(NOW);
    }
    let turns = watched.finish(NOW);
    assert!(turns > 10, "{turns} turns after the SUBACK");
}

/// 10,000 clients, or 10,000 shared subscriptions, get one small message: it is delivered in portions, in order for each
/// receiver.
#[test]
fn a_message_for_many_goes_in_portions() {
    for shared in [false, true] {
        let mut watched = Watched::new(|config| config.connections = 20_000);
        let texts: Vec<_> = (0..5_000).map(|n| format!("$share/{n}/a")).collect();
        let readers: Vec<_> = (0..5_000)
            .map(|n| {
                let id = watched.join(&format!("reader{n}"));
                let filter = if shared { &texts[n] } else { "a" };
                watched.subscribe(id, [filter].into_iter());
                watched.drop_all(id);
                id
            })
            .collect();
        let sender = watched.join("sender");
        let other = watched.join("other");
        let bytes: Vec<u8> = (0..3)
            .flat_map(|n| encode(&publish("a", &n.to_string()), Version::V5))
            .collect();
        let first = watched.broker.receive(sender, &bytes, NOW);
        assert_eq!(first.next, Next::Blocked, "the next message waits");
        assert!(first.consumed < bytes.len());
        // Other messages pass, except those to the same topic.
        let quick = encode(&publish("b", "quick"), Version::V5);
        let received = watched.broker.receive(other, &quick, NOW);
        assert_eq!(received.next, Next::Needs(2));
        let last = encode(&publish("a", "last"), Version::V5);
        let received = watched.broker.receive(other, &last, NOW);
        assert_eq!(received.consumed, last.len());
        watched.give(sender, &bytes[first.consumed..]);
        watched.give(other, &[]);
        for id in readers {
            assert_eq!(watched.hear(id), ["0", "last", "1", "2"]);
        }
        watched.check();
    }
}

/// A message arrives even if its publisher disconnects.
#[test]
fn a_message_for_many_outlives_its_connection() {
    let mut watched = Watched::new(|config| config.turn_steps = 100);
    let readers: Vec<_> = (0..200)
        .map(|n| {
            let id = watched.join(&format!("reader{n}"));
            watched.subscribe(id, ["a"].into_iter());
            watched.drop_all(id);
            id
        })
        .collect();
    let sender = watched.join("sender");
    watched
        .broker
        .receive(sender, &encode(&publish("a", "x"), Version::V5), NOW);
    watched.broker.closed(sender, NOW);
    for id in readers {
        assert_eq!(watched.hear(id), ["x"]);
    }
}

/// A search takes many steps and finds nothing, while its filters are added and removed.
#[test]
fn a_long_search_goes_on_in_portions_while_the_tree_changes() {
    let mut watched = Watched::new(|config| {
        config.subscriptions = 100_000;
        config.turn_steps = 100;
    });
    let id = watched.join("many");
    // Each level may be `+`: a search for the topic visits all these nodes.
    let texts: Vec<_> = (0..1_024)
        .map(|n: u32| {
            let level = |bit: u32| if n >> bit & 1 == 0 { "+/" } else { "a/" };
            let levels: String = (0..10).map(level).collect();
            levels + "b"
        })
        .collect();
    watched.subscribe(id, texts.iter().map(String::as_str));
    watched.drop_all(id);
    let sender = watched.join("sender");
    let nothing = "a/".repeat(10) + "c";
    let turns = watched.say(sender, &publish(&nothing, "x"));
    assert!(turns > 10, "{turns} turns");
    assert_eq!(watched.hear(id), [""; 0]);
    // All filters but one are removed during the search, which finds that one.
    let all = "a/".repeat(10) + "b";
    let received = watched
        .broker
        .receive(sender, &encode(&publish(&all, "x"), Version::V5), NOW);
    assert_eq!(received.next, Next::Blocked);
    watched.broker.tick(NOW);
    for text in &texts[1..] {
        let filters = [TopicFilter::new(text).unwrap()];
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::FIRST,
            properties: Properties::EMPTY,
            filters: (&filters).into(),
        };
        let bytes = encode(&Packet::Unsubscribe(unsubscribe), Version::V5);
        watched.broker.receive(id, &bytes, NOW);
    }
    assert_eq!(watched.broker.statistics(NOW).subscriptions, 1);
    assert_eq!(watched.hear(id), ["x"]);
}

/// A connection sends many small packets: after its share it waits for its next turn.
#[test]
fn a_flood_yields() {
    let mut watched = Watched::new(|_| {});
    let id = watched.join("flood");
    let ping = encode(&Packet::PingReq, Version::V5).repeat(32 << 10);
    let turns = watched.give(id, &ping);
    assert!(turns >= 8, "{turns} turns");
    let deep = "a/".repeat(63) + "a";
    let deep = encode(&publish(&deep, "x"), Version::V5).repeat(20_000);
    watched.give(id, &deep);
    watched.check();
}

/// A client has thousands of matching subscriptions: its one copy has all their identifiers.
#[test]
fn many_identifiers_are_gathered_once() {
    let mut watched = Watched::new(|config| config.turn_steps = 100_000);
    let id = watched.join("many");
    let mut expected = Vec::new();
    for n in 0..2_048_u32 {
        let level = |bit: u32| if n >> bit & 1 == 0 { "+/" } else { "a/" };
        let filter: String = (0..11).map(level).collect();
        let list = [Subscription::new(
            TopicFilter::new(&filter).unwrap(),
            QoS::AtMostOnce,
        )];
        let properties = [Property::SubscriptionIdentifier(n + 1)];
        watched.say(
            id,
            &Packet::Subscribe(Subscribe {
                properties: Properties::from(&properties),
                ..Subscribe::new(PacketId::FIRST, &list[..])
            }),
        );
        watched.drop_all(id);
        expected.push(n + 1);
    }
    let sender = watched.join("sender");
    let topic = "a/".repeat(11);
    watched.worst = 0;
    watched.say(sender, &publish(&topic, "x"));
    assert!(watched.worst < 10_000, "{} steps", watched.worst);
    let bytes = watched.broker.outgoing(id).to_vec();
    let Ok(Decoded::Packet {
        packet: Packet::Publish(publish),
        ..
    }) = Packet::decode(&bytes, Version::V5, MAX_PACKET)
    else {
        panic!("{} bytes", bytes.len())
    };
    let mut found: Vec<_> = publish.properties.subscription_identifiers().collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

/// Sessions and wills of thousands of clients end at the same time.
#[test]
fn what_is_due_together_is_done_in_portions() {
    let mut watched = Watched::new(|_| {});
    let reader = watched.join("reader");
    watched.subscribe(reader, ["will/#"].into_iter());
    watched.drop_all(reader);
    let stays = [Property::SessionExpiryInterval(10)];
    let delay = [Property::WillDelayInterval(5)];
    for n in 0..3_000 {
        let topic = format!("will/{n}");
        let connect = Connect {
            properties: Properties::from(&stays),
            will: Some(Will {
                properties: Properties::from(&delay),
                ..Will::new(TopicName::new(&topic).unwrap(), b"x")
            }),
            ..Connect::new(Version::V5, &topic)
        };
        let id = watched.connect(&connect);
        watched.subscribe(id, ["a", "b", "c"].into_iter());
        watched.broker.closed(id, NOW);
    }
    watched.worst = 0;
    let turns = watched.finish(NOW.after(Duration::from_secs(5)));
    assert!(turns > 1, "{turns} turns");
    assert_eq!(watched.hear(reader).len(), 3_000);
    let turns = watched.finish(NOW.after(Duration::from_secs(10)));
    assert!(turns > 10, "{turns} turns");
    assert_eq!(watched.broker.statistics(NOW).sessions, 1);
    assert_eq!(watched.broker.statistics(NOW).subscriptions, 1);
    watched.check();
}

/// The client identifier of a session that is being ended is free, and the new session gets nothing of the old one.
#[test]
fn a_name_is_free_at_once() {
    let mut watched = Watched::new(|config| config.turn_steps = 50);
    let texts: Vec<_> = (0..500).map(|n| format!("a/{n}")).collect();
    let id = watched.join("name");
    watched.subscribe(id, texts.iter().map(String::as_str));
    let again = watched.broker.open(NOW).unwrap();
    let connect = Packet::Connect(Connect::new(Version::V5, "name"));
    watched
        .broker
        .receive(again, &encode(&connect, Version::V5), NOW);
    assert!(watched.broker.is_closing(id));
    assert!(watched.broker.statistics(NOW).subscriptions > 400);
    let sender = watched.broker.open(NOW).unwrap();
    let connect = Packet::Connect(Connect::new(Version::V5, "sender"));
    watched
        .broker
        .receive(sender, &encode(&connect, Version::V5), NOW);
    let late = encode(&publish("a/499", "x"), Version::V5);
    watched.broker.receive(sender, &late, NOW);
    assert_eq!(watched.hear(again), [""; 0]);
    assert_eq!(watched.broker.statistics(NOW).subscriptions, 0);
}

/// A member with a long queue disconnects: other members get its messages in portions.
#[test]
fn a_long_queue_is_handed_over_in_portions() {
    let mut watched = Watched::new(|_| {});
    let stays = [Property::SessionExpiryInterval(100)];
    let ids = ["one", "two"].map(|name| {
        let id = watched.connect(&Connect {
            properties: Properties::from(&stays),
            ..Connect::new(Version::V5, name)
        });
        let list = [Subscription::new(
            TopicFilter::new("$share/g/a").unwrap(),
            QoS::AtLeastOnce,
        )];
        watched.say(id, &subscribe(&list));
        watched.drop_all(id);
        id
    });
    watched.broker.closed(ids[1], NOW);
    let sender = watched.join("sender");
    let message = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::new("a").unwrap(), b"x")
    };
    let bytes = encode(&Packet::Publish(message), Version::V5);
    for _ in 0..20_000 {
        watched.give(sender, &bytes);
        watched.drop_all(sender);
    }
    let queued = watched.broker.statistics(NOW).queued;
    assert!(queued > 19_000, "{queued}");
    watched.worst = 0;
    watched.watched(|broker| broker.closed(ids[0], NOW));
    let turns = watched.finish(NOW);
    assert!(turns > 10, "{turns} turns");
    assert_eq!(watched.broker.statistics(NOW).queued, queued);
    watched.check();
}

/// A host that gathers bytes for a connection hears of it again when there are enough.
#[test]
fn a_host_that_writes_later_is_not_told_of_each_message() {
    let mut watched = Watched::new(|_| {});
    let (from, to) = (watched.join("from"), watched.join("to"));
    watched.subscribe(to, ["a"].into_iter());
    watched.hear(to);
    while watched.broker.next_ready().is_some() {}
    let message = encode(&publish("a", "x"), Version::V5);
    let times_ready = |watched: &mut Watched| {
        watched.broker.receive(from, &message, NOW);
        let ready = std::iter::from_fn(|| watched.broker.next_ready());
        ready.filter(|id| *id == to).count()
    };
    assert_eq!(times_ready(&mut watched), 1);
    assert_eq!(times_ready(&mut watched), 1, "the host may have written");
    let len = watched.broker.outgoing(to).len() / 2;
    watched.broker.writes_later(to, 5 * len);
    let times = [0; 4].map(|_| times_ready(&mut watched));
    assert_eq!(times, [0, 0, 1, 1]);
    watched.broker.sent(to, 1, NOW);
    assert_eq!(times_ready(&mut watched), 1, "after a write");
}

/// A host may write DISCONNECT itself between two packets for a connected client of MQTT 5, and not within one.
#[test]
fn a_host_may_say_goodbye_between_packets() {
    let mut watched = Watched::new(|_| {});
    let new = watched.broker.open(NOW).unwrap();
    assert!(!watched.broker.takes_disconnect(new));
    let old = watched.broker.open(NOW).unwrap();
    let connect = Packet::Connect(Connect::new(Version::V311, "old"));
    watched.give(old, &encode(&connect, Version::V311));
    watched.drop_all(old);
    assert!(!watched.broker.takes_disconnect(old));
    let (from, to) = (watched.join("from"), watched.join("to"));
    watched.subscribe(to, ["a"].into_iter());
    watched.hear(to);
    assert!(watched.broker.takes_disconnect(to));
    watched.say(from, &publish("a", "message"));
    let len = watched.broker.outgoing(to).len();
    for left in (0..len).rev() {
        watched.broker.sent(to, 1, NOW);
        assert_eq!(watched.broker.takes_disconnect(to), left == 0, "{left}");
    }
    watched.broker.closed(to, NOW);
    assert!(!watched.broker.takes_disconnect(to));
}

/// The buffers of 100 clients that do not read grow at the same message, but not in the same call.
#[test]
fn buffers_grow_in_portions() {
    let mut watched = Watched::new(|config| config.outgoing_bytes = 2 << 20);
    for n in 0..100 {
        let id = watched.join(&n.to_string());
        watched.subscribe(id, ["a"].into_iter());
    }
    let from = watched.join("from");
    let payload = "x".repeat(60_000);
    let message = encode(&publish("a", &payload), Version::V5);
    let bytes = |watched: &Watched| watched.broker.statistics(NOW).connection_bytes;
    let (mut most, mut last) = (0, bytes(&watched));
    for _ in 0..40 {
        let mut rest = &message[..];
        while !rest.is_empty() || watched.broker.deadline() == Some(NOW) {
            let received = watched.broker.receive(from, rest, NOW);
            rest = &rest[received.consumed..];
            most = most.max(bytes(&watched).saturating_sub(last));
            last = bytes(&watched);
            watched.tick(NOW);
            most = most.max(bytes(&watched).saturating_sub(last));
            last = bytes(&watched);
        }
    }
    assert!(last > 100 << 20, "{last} bytes");
    // A share of a turn, and what the last of its steps added.
    assert!(most <= 3 << 20, "{most} bytes at once");
}

/// A session that gave way to a new one of its client does not count while its subscriptions are being removed.
#[test]
fn a_session_that_ends_in_portions_does_not_count() {
    let mut watched = Watched::new(|config| (config.sessions, config.turn_steps) = (1, 1));
    let first = watched.join("same");
    let filters: Vec<_> = (0..100).map(|n| format!("filter/{n}")).collect();
    watched.subscribe(first, filters.iter().map(String::as_str));
    let second = watched.broker.open(NOW).unwrap();
    let connect = Packet::Connect(Connect::new(Version::V5, "same"));
    let bytes = encode(&connect, Version::V5);
    watched.broker.receive(second, &bytes, NOW);
    assert!(watched.broker.is_accepted(second));
    let statistics = watched.broker.statistics(NOW);
    assert!(statistics.subscriptions > 0, "they are still being removed");
    assert_eq!(statistics.sessions, 1);
}
