//! Measures the time of one publish with one match in the broker core with 10, 1,000 and 100,000 subscriptions: to the same topic
//! repeatedly, and to all topics in turn. Topics have four levels, of which the last two differ; one subscription in ten has a
//! wildcard.

use std::time::Instant as Clock;

use mqtt_broker::{Broker, Config, ConnectionId, Hooks};
use mqtt_proto::{
    Connect, Packet, PacketId, Publish, QoS, Subscribe, Subscription, TopicFilter, TopicName,
    Version,
};
use mqtt_session::Instant;
use mqtt_testing::packets::encode;

const NOW: Instant = Instant::from_millis(0);
const COUNTS: [usize; 3] = [10, 1_000, 100_000];
const ROUNDS: usize = 15;
const PUBLISHES: usize = 100_000;

struct Open;

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        1
    }
}

struct Bench {
    broker: Broker<Open>,
    publisher: ConnectionId,
    subscriber: ConnectionId,
    subscriptions: usize,
    /// The PUBLISH, whose topic is changed in place, so that only the broker's memory is measured.
    packet: Vec<u8>,
}

fn connect(broker: &mut Broker<Open>, client_id: &str) -> ConnectionId {
    let id = broker.open(NOW).expect("there is room");
    let connect = Packet::Connect(Connect::new(Version::V311, client_id));
    broker.receive(id, &encode(&connect, Version::V311), NOW);
    let n = broker.outgoing(id).len();
    assert_eq!(n, 4, "CONNACK");
    broker.sent(id, n, NOW);
    id
}

fn name(n: usize) -> String {
    format!("plant/line/{:02}/sensor{n:06}", n % 100)
}

impl Bench {
    fn new(subscriptions: usize) -> Self {
        let mut config = Config::default();
        config.statistics_interval = 0;
        config.subscriptions = subscriptions;
        config.subscription_bytes = usize::MAX;
        let mut broker = Broker::new(config, Open, NOW);
        let publisher = connect(&mut broker, "publisher");
        let subscriber = connect(&mut broker, "subscriber");
        for n in 0..subscriptions {
            let text = if n % 10 == 0 {
                format!("plant/+/{:02}/sensor{n:06}", n % 100)
            } else {
                name(n)
            };
            let list = [Subscription::new(
                TopicFilter::new(&text).expect("valid"),
                QoS::AtMostOnce,
            )];
            let subscribe = Subscribe::new(PacketId::new(1).expect("not zero"), &list[..]);
            let bytes = encode(&Packet::Subscribe(subscribe), Version::V311);
            broker.receive(subscriber, &bytes, NOW);
            let n = broker.outgoing(subscriber).len();
            broker.sent(subscriber, n, NOW);
        }
        let topic = name(0);
        let publish = Publish::new(TopicName::new(&topic).expect("valid"), &[b'.'; 64]);
        Self {
            broker,
            publisher,
            subscriber,
            subscriptions,
            packet: encode(&Packet::Publish(publish), Version::V311),
        }
    }

    /// Returns the nanoseconds for one publish and its delivery into the subscriber's outgoing bytes.
    fn measure(&mut self, all: bool) -> f64 {
        let begun = Clock::now();
        let mut n = 0;
        for _ in 0..PUBLISHES {
            if all {
                // The order defeats caches.
                n = (n + 7_919) % self.subscriptions;
            }
            self.set_topic(n);
            self.broker.receive(self.publisher, &self.packet, NOW);
            let n = self.broker.outgoing(self.subscriber).len();
            assert!(n > 64, "it is delivered");
            self.broker.sent(self.subscriber, n, NOW);
        }
        while self.broker.next_ready().is_some() {}
        begun.elapsed().as_nanos() as f64 / PUBLISHES as f64
    }

    fn set_topic(&mut self, n: usize) {
        let digit = |n: usize| b'0' + u8::try_from(n % 10).expect("a digit");
        // Header and length, two each, and `plant/line/`.
        let line = 4 + 11;
        self.packet[line] = digit(n / 10);
        self.packet[line + 1] = digit(n);
        let sensor = line + 3 + 6;
        for (at, power) in [100_000, 10_000, 1_000, 100, 10, 1].into_iter().enumerate() {
            self.packet[sensor + at] = digit(n / power);
        }
    }
}

fn main() {
    let mut benches = COUNTS.map(Bench::new);
    println!("| subscriptions | the same topic | all topics in turn |");
    println!("| ---: | ---: | ---: |");
    let mut times = vec![[const { Vec::new() }; 2]; COUNTS.len()];
    for _ in 0..ROUNDS {
        for (bench, times) in benches.iter_mut().zip(&mut times) {
            for (all, times) in [false, true].into_iter().zip(times) {
                times.push(bench.measure(all));
            }
        }
    }
    let middle = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let mut first = None;
    for (count, mut times) in COUNTS.into_iter().zip(times) {
        let [same, all] = &mut times;
        let (same, all) = (middle(same), middle(all));
        let (same_first, all_first) = *first.get_or_insert((same, all));
        println!(
            "| {count} | {same:.0} ns ({:.2}) | {all:.0} ns ({:.2}) |",
            same / same_first,
            all / all_first
        );
    }
}
