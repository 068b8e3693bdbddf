//! Compares by the allocator what topics and filters take with the limits of the settings.

use std::fmt::Write;

use mqtt_broker::{Broker, Config, ConnectionId, Hooks};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Packet, PacketId, Publish, QoS, Subscribe, Subscription, TopicFilter, TopicName,
    Version,
};
use mqtt_testing::packets::encode;

const NOW: Instant = Instant::from_millis(0);
const LEVELS: usize = 64;
/// The limit of the settings.
const LIMIT: usize = 1 << 20;
/// How many bytes a level of a topic or filter may take, beside the first one.
const LEVEL_BYTES: usize = 200;

/// How the topics share levels.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// A topic has one level.
    Words,
    /// A topic has many levels, and shares none.
    Chains,
    /// A topic ends at each level of a long one, with a last level of its own.
    Combs,
}

const SHAPES: [Shape; 3] = [Shape::Words, Shape::Chains, Shape::Combs];

struct Open;

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        0
    }
}

/// Returns more topics than the limit allows.
fn topics(shape: Shape) -> Vec<String> {
    let mut topics = Vec::new();
    for number in 0..5_000 {
        let mut topic = number.to_string();
        let levels = if shape == Shape::Words { 1 } else { LEVELS };
        for level in 1..levels {
            if shape == Shape::Combs && number < 100 {
                topics.push(format!("{topic}/x"));
            }
            write!(topic, "/{level}").unwrap();
        }
        topics.push(topic);
    }
    topics
}

fn broker(limit: usize) -> (Broker<Open>, ConnectionId) {
    let mut config = Config::default();
    config.statistics_interval = 0;
    config.retained_bytes = limit;
    config.subscription_bytes = limit;
    let mut broker = Broker::new(config, Open, NOW);
    let client = broker.open(NOW).unwrap();
    let connect = Packet::Connect(Connect::new(Version::V5, "plant"));
    receive(&mut broker, client, &encode(&connect, Version::V5));
    // The memory for recent topics has a fixed size.
    let message = Publish::new(TopicName::new("first").unwrap(), b"x");
    receive(
        &mut broker,
        client,
        &encode(&Packet::Publish(message), Version::V5),
    );
    (broker, client)
}

fn receive(broker: &mut Broker<Open>, client: ConnectionId, mut packet: &[u8]) {
    while !packet.is_empty() {
        let consumed = broker.receive(client, packet, NOW).consumed;
        packet = &packet[consumed..];
        broker.tick(NOW);
        let sent = broker.outgoing(client).len();
        broker.sent(client, sent, NOW);
    }
}

/// Checks that the topics that the broker keeps take no more of the heap than the limit; `say` makes the packet that brings a topic.
fn keeps_to_the_limit(shape: Shape, say: impl Fn(&str) -> Vec<u8>) {
    let topics = topics(shape);
    let (kept, bytes) = grown(LIMIT, &topics, say);
    assert!(
        (1_000..topics.len() as u64).contains(&kept),
        "{shape:?}: {kept}"
    );
    assert!(bytes <= LIMIT, "{shape:?}: {bytes} bytes for {kept}");
}

/// Returns how many of the topics a broker with this limit keeps, and the bytes of the heap that they take.
fn grown(limit: usize, topics: &[String], say: impl Fn(&str) -> Vec<u8>) -> (u64, usize) {
    let (mut broker, client) = broker(limit);
    let packets: Vec<_> = topics.iter().map(|topic| say(topic)).collect();
    let grown = allocation_counter::measure(|| {
        for packet in &packets {
            receive(&mut broker, client, packet);
        }
    });
    let statistics = broker.statistics(NOW);
    let kept = statistics.retained.max(statistics.subscriptions);
    (kept, usize::try_from(grown.bytes_current).unwrap())
}

/// Returns the packet that stores a retained message.
fn retained(topic: &str) -> Vec<u8> {
    let message = Publish {
        retain: true,
        ..Publish::new(TopicName::new(topic).unwrap(), b"x")
    };
    encode(&Packet::Publish(message), Version::V5)
}

/// Returns the packet that subscribes to a filter.
fn subscribed(filter: &str) -> Vec<u8> {
    let filter = TopicFilter::new(filter).unwrap();
    let list = [Subscription::new(filter, QoS::AtMostOnce)];
    let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
    encode(&Packet::Subscribe(subscribe), Version::V5)
}

#[test]
fn retained_messages_take_what_the_setting_allows() {
    for shape in SHAPES {
        keeps_to_the_limit(shape, retained);
    }
}

#[test]
fn filters_take_what_the_setting_allows() {
    for shape in SHAPES {
        keeps_to_the_limit(shape, subscribed);
    }
}

/// Returns how many bytes of the heap these topics take.
fn bytes_of(topics: &[String], say: fn(&str) -> Vec<u8>) -> usize {
    let (kept, bytes) = grown(usize::MAX, topics, say);
    assert_eq!(kept, topics.len() as u64);
    bytes
}

/// Returns a level of a topic that differs in one bit of its number.
fn branch(number: usize, level: usize, levels: [&str; 2]) -> &str {
    levels[number >> (level % 10) & 1]
}

/// A level of a topic takes little, whether the topic shares it or not, and whether others branch off there or not.
#[test]
fn a_level_takes_at_most_200_bytes() {
    const COUNT: usize = 1_000;
    let short: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
    for levels in [2, 4, 16, LEVELS - 2] {
        let chain = |n| format!("{n}{}", "/a".repeat(levels - 1));
        let comb = |n| format!("{}{}/x", n / levels, "/a".repeat(n % levels));
        let tree = |n: usize| {
            let level = |at| branch(n, at, ["a/", "b/"]);
            (0..levels).map(level).collect::<String>() + &n.to_string()
        };
        let wildcards = |n: usize| {
            let level = |at| branch(n, at, ["a/", "+/"]);
            (0..levels).map(level).collect::<String>() + &n.to_string()
        };
        type Named<'a> = (&'a dyn Fn(usize) -> String, fn(&str) -> Vec<u8>, &'a str);
        let all: [Named<'_>; 7] = [
            (&chain, retained, "retained, each with levels of its own"),
            (&comb, retained, "retained, one at each level"),
            (&tree, retained, "retained, with branches at each level"),
            (&chain, subscribed, "filters, each with levels of its own"),
            (&comb, subscribed, "filters, one at each level"),
            (&tree, subscribed, "filters, with branches at each level"),
            (&wildcards, subscribed, "filters with wildcards"),
        ];
        for (topic, say, which) in all {
            let topics: Vec<_> = (0..COUNT).map(topic).collect();
            let more: usize = topics.iter().map(|topic| topic.matches('/').count()).sum();
            let bytes = bytes_of(&topics, say).saturating_sub(bytes_of(&short, say));
            assert!(
                bytes <= LEVEL_BYTES * more,
                "{levels} levels, {which}: {} bytes for each",
                bytes / more
            );
        }
    }
}
