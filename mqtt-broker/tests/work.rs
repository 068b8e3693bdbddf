//! Counts what one client can make the broker do: steps of each call, and bytes that it allocates.

mod watched;

use mqtt_broker::ConnectionId;
use mqtt_session::proto::{
    Connect, Delivery, Packet, PacketId, Properties, Property, Publish, QoS, Subscribe,
    Subscription, TopicFilter, TopicName, Version,
};
use mqtt_testing::packets::encode;

use watched::{MOST, NOW, Watched, subscribe};

/// A session that outlives its connection, and has one message at a time in flight.
const STAYS: [Property<'static>; 2] = [
    Property::SessionExpiryInterval(1_000),
    Property::ReceiveMaximum(1),
];

fn returning(client_id: &str) -> Connect<'_> {
    Connect {
        clean_start: false,
        properties: Properties::from(&STAYS),
        ..Connect::new(Version::V5, client_id)
    }
}

fn message(topic: &str, payload: &[u8]) -> Vec<u8> {
    let publish = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::new(topic).unwrap(), payload)
    };
    encode(&Packet::Publish(publish), Version::V5)
}

fn publish(retain: bool, topic: &str, payload: &[u8]) -> Vec<u8> {
    let publish = Publish {
        retain,
        ..Publish::new(TopicName::new(topic).unwrap(), payload)
    };
    encode(&Packet::Publish(publish), Version::V5)
}

/// A client sets and clears retained messages as fast as it can: each of them is more work than a message that is not retained, and
/// no call does more than its share.
#[test]
fn retained_messages_are_set_and_cleared_in_portions() {
    let [plain, retained] = [false, true].map(|retain| {
        let mut watched = Watched::new(|_| {});
        let id = watched.join("flood");
        let pair = |n| {
            let topic = format!("plant/{n}");
            [publish(retain, &topic, b"x"), publish(retain, &topic, b"")].concat()
        };
        let bytes: Vec<u8> = (0..10_000).flat_map(pair).collect();
        let turns = watched.give(id, &bytes);
        assert_eq!(watched.broker.statistics(NOW).retained, 0);
        assert!(watched.worst <= MOST / 4, "{} steps", watched.worst);
        turns
    });
    assert!(retained >= 2 * plain, "{plain} and {retained} turns");
    assert!(retained >= 20_000 * 24 / 4_096, "{retained} turns");
}

/// Subscribes a client to 2,048 filters that all match one topic, each with an identifier, and returns that topic.
fn subscribe_with_identifiers(watched: &mut Watched, id: ConnectionId) -> String {
    for n in 0..2_048_u32 {
        let level = |bit: u32| if n >> bit & 1 == 0 { "+/" } else { "a/" };
        let filter: String = (0..11).map(level).collect();
        let filter = TopicFilter::new(&filter).unwrap();
        let list = [Subscription::new(filter, QoS::AtLeastOnce)];
        let properties = [Property::SubscriptionIdentifier(n + 1)];
        let subscribe = Subscribe {
            properties: Properties::from(&properties),
            ..Subscribe::new(PacketId::FIRST, &list[..])
        };
        watched.say(id, &Packet::Subscribe(subscribe));
        watched.drop_all(id);
    }
    "a/".repeat(11)
}

/// A client with 2,048 subscription identifiers for one topic is away: the messages that wait for it share one list of them.
#[test]
fn identifiers_of_waiting_messages_are_stored_once() {
    const MESSAGES: u64 = 200;
    let mut watched = Watched::new(|config| config.turn_steps = 100_000);
    let id = watched.connect(&returning("many"));
    let topic = subscribe_with_identifiers(&mut watched, id);
    watched.broker.closed(id, NOW);
    let from = watched.join("from");
    let bytes = message(&topic, b"x");
    let grown = allocation_counter::measure(|| {
        for _ in 0..MESSAGES {
            watched.give(from, &bytes);
            watched.drop_all(from);
        }
    });
    assert_eq!(watched.broker.statistics(NOW).queued, MESSAGES);
    let each = grown.bytes_current / i64::try_from(MESSAGES).unwrap();
    assert!(each < 1_000, "{each} bytes for each message");
}

/// A client takes over its own session again and again: neither the work nor the allocated memory depends on what waits in its queue.
#[test]
fn a_session_that_is_taken_over_is_moved() {
    let [few, many] = [100, 10_000].map(|queued| {
        let mut watched = Watched::new(|_| {});
        let first = watched.connect(&returning("same"));
        let filter = TopicFilter::from_static("a");
        watched.say(
            first,
            &subscribe(&[Subscription::new(filter, QoS::AtLeastOnce)]),
        );
        watched.broker.closed(first, NOW);
        let from = watched.join("from");
        let bytes = message("a", b"x");
        for _ in 0..queued {
            watched.give(from, &bytes);
            watched.drop_all(from);
        }
        let mut last = watched.connect(&returning("same"));
        let connect = encode(&Packet::Connect(returning("same")), Version::V5);
        let before = watched.broker.steps();
        let allocated = allocation_counter::measure(|| {
            for _ in 0..10 {
                let next = watched.broker.open(NOW).unwrap();
                watched.give(next, &connect);
                assert!(watched.broker.is_closing(last));
                watched.broker.closed(last, NOW);
                last = next;
            }
        });
        let waits = watched.broker.statistics(NOW).queued;
        assert_eq!(waits, queued - 1, "one is in flight");
        (watched.broker.steps() - before, allocated.bytes_total)
    });
    assert_eq!(few.0, many.0, "steps");
    assert_eq!(few.1, many.1, "bytes");
}
