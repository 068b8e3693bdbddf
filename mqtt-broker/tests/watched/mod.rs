//! A broker whose steps are counted for each call, and the packets of its clients.

#![allow(dead_code, reason = "each program of tests uses a part")]

use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Next, Outgoing};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Packet, PacketId, Publish, QoS, Subscribe, Subscription, TopicFilter, TopicName,
    Version,
};
use mqtt_testing::packets::{encode, packets_with_lengths};

pub(crate) const NOW: Instant = Instant::from_millis(0);

pub(crate) struct Open(u128);

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

/// A broker whose steps are counted for each call.
pub(crate) struct Watched {
    pub(crate) broker: Broker<Open>,
    /// The most steps that one call took.
    pub(crate) worst: u64,
}

/// The limit of each call: a few shares of a turn, because the last packet of a share has a share for itself, and each kind of
/// remaining work has one.
pub(crate) const MOST: u64 = 6 * 4_096;

impl Watched {
    pub(crate) fn new(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.statistics_interval = 0;
        set(&mut config);
        let broker = Broker::new(config, Open(0), NOW);
        Self { broker, worst: 0 }
    }

    pub(crate) fn watched<R>(&mut self, act: impl FnOnce(&mut Broker<Open>) -> R) -> R {
        let before = self.broker.steps();
        let result = act(&mut self.broker);
        self.worst = self.worst.max(self.broker.steps() - before);
        result
    }

    /// Passes all bytes, turn by turn, until no work remains. Returns the number of turns.
    pub(crate) fn give(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        let mut left = bytes;
        for turn in 1..1_000_000 {
            let received = self.watched(|broker| broker.receive(id, left, NOW));
            left = &left[received.consumed..];
            let waits = matches!(received.next, Next::Blocked | Next::Yields);
            if !self.tick(NOW) && !waits && left.is_empty() {
                return turn;
            }
        }
        panic!("it never ends");
    }

    /// Returns whether there was work.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        let due = self.broker.deadline().is_some_and(|at| at <= now);
        if due {
            self.watched(|broker| broker.tick(now));
        }
        due
    }

    /// Works until no work remains. Returns the number of turns.
    pub(crate) fn finish(&mut self, now: Instant) -> usize {
        (0..1_000_000)
            .find(|_| !self.tick(now))
            .expect("it never ends")
    }

    pub(crate) fn say(&mut self, id: ConnectionId, packet: &Packet<'_>) -> usize {
        self.give(id, &encode(packet, Version::V5))
    }

    pub(crate) fn connect(&mut self, connect: &Connect<'_>) -> ConnectionId {
        let id = self.broker.open(NOW).unwrap();
        self.say(id, &Packet::Connect(*connect));
        self.drop_all(id);
        id
    }

    pub(crate) fn join(&mut self, client_id: &str) -> ConnectionId {
        self.connect(&Connect::new(Version::V5, client_id))
    }

    /// Takes all bytes that wait for the transport.
    pub(crate) fn drop_all(&mut self, id: ConnectionId) {
        let n = self.broker.outgoing(id).len();
        self.watched(|broker| broker.sent(id, n, NOW));
    }

    /// Takes packets while there are any, and returns the payloads of PUBLISH packets.
    pub(crate) fn hear(&mut self, id: ConnectionId) -> Vec<String> {
        let mut payloads = Vec::new();
        loop {
            self.finish(NOW);
            let bytes = self.broker.outgoing(id).to_vec();
            if bytes.is_empty() {
                return payloads;
            }
            let mut n = 0;
            for (packet, len) in packets_with_lengths(&bytes, Version::V5) {
                if let Packet::Publish(publish) = packet {
                    payloads.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                }
                n += len;
            }
            self.watched(|broker| broker.sent(id, n, NOW));
        }
    }

    pub(crate) fn subscribe<'a>(
        &mut self,
        id: ConnectionId,
        filters: impl Iterator<Item = &'a str>,
    ) -> usize {
        let list: Vec<_> = filters
            .map(|filter| Subscription::new(TopicFilter::new(filter).unwrap(), QoS::AtMostOnce))
            .collect();
        let turns = self.say(id, &subscribe(&list));
        assert!(self.broker.outgoing(id).starts_with(&[0x90]), "SUBACK");
        turns
    }

    pub(crate) fn retain(&mut self, topic: &str) {
        let message = Outgoing {
            retain: true,
            ..Outgoing::new(TopicName::new(topic).unwrap(), QoS::AtMostOnce, b"x")
        };
        self.broker.publish(&message, NOW);
    }

    #[track_caller]
    pub(crate) fn check(&self) {
        assert!(self.worst <= MOST, "{} steps in one call", self.worst);
    }
}

pub(crate) fn subscribe<'a>(list: &'a [Subscription<'a>]) -> Packet<'a> {
    Packet::Subscribe(Subscribe::new(PacketId::FIRST, list))
}

pub(crate) fn publish<'a>(topic: &'a str, payload: &'a str) -> Packet<'a> {
    let topic = TopicName::new(topic).unwrap();
    Packet::Publish(Publish::new(topic, payload.as_bytes()))
}
