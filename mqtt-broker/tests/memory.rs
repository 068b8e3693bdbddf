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

fn broker() -> (Broker<Open>, ConnectionId) {
    let mut config = Config::default();
    config.statistics_interval = 0;
    config.retained_bytes = LIMIT;
    config.subscription_bytes = LIMIT;
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
    let (mut broker, client) = broker();
    let topics = topics(shape);
    let packets: Vec<_> = topics.iter().map(|topic| say(topic)).collect();
    let grown = allocation_counter::measure(|| {
        for packet in &packets {
            receive(&mut broker, client, packet);
        }
    });
    let statistics = broker.statistics(NOW);
    let kept = statistics.retained.max(statistics.subscriptions);
    assert!(
        (1_000..topics.len() as u64).contains(&kept),
        "{shape:?}: {kept}"
    );
    assert!(
        usize::try_from(grown.bytes_current).unwrap() <= LIMIT,
        "{shape:?}: {} bytes for {kept}",
        grown.bytes_current
    );
}

#[test]
fn retained_messages_take_what_the_setting_allows() {
    for shape in SHAPES {
        keeps_to_the_limit(shape, |topic| {
            let message = Publish {
                retain: true,
                ..Publish::new(TopicName::new(topic).unwrap(), b"x")
            };
            encode(&Packet::Publish(message), Version::V5)
        });
    }
}

#[test]
fn filters_take_what_the_setting_allows() {
    for shape in SHAPES {
        keeps_to_the_limit(shape, |topic| {
            let filter = TopicFilter::new(topic).unwrap();
            let list = [Subscription::new(filter, QoS::AtMostOnce)];
            let own = PacketId::new(1).unwrap();
            encode(
                &Packet::Subscribe(Subscribe::new(own, &list[..])),
                Version::V5,
            )
        });
    }
}
