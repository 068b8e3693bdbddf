//! Shards whose links move all bytes at once.

use std::time::Duration;

use mqtt_broker::records::Records;
use mqtt_broker::{
    Broker, ClientInfo, Config, ConnectionId, Handled, Hooks, Next, Observation, Statistics,
};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Delivery, Packet, PacketId, Publish, QoS, Subscribe, Subscription, TopicFilter,
    TopicName, Version,
};
use mqtt_testing::packets::{encode, packets_in};

pub(crate) const NOW: Instant = Instant::from_millis(0);

/// A client whose identifier begins so may subscribe, and receives nothing.
pub(crate) const BLIND: &str = "blind";

/// How often all links are looked at until nothing is left on them. No test needs as many.
const ROUNDS: usize = 5_000;

#[derive(Default)]
pub(crate) struct Open {
    assigned: u128,
    /// The observations about other shards, as text.
    pub(crate) of_shards: Vec<String>,
}

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.assigned += 1;
        self.assigned
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        if let Observation::PublishersWaitForShard { shard, .. } = observation {
            self.of_shards.push(format!("publishers wait for {shard}"));
        }
        if let Observation::ShardGivenUp { shard, .. } = observation {
            self.of_shards.push(format!("{shard} is given up"));
        }
    }

    fn may_receive_all(&mut self, client: &ClientInfo<'_>, _: TopicFilter<'_>) -> bool {
        !client.client_id.starts_with(BLIND)
    }

    fn may_receive(&mut self, client: &ClientInfo<'_>, _: TopicName<'_>) -> bool {
        !client.client_id.starts_with(BLIND)
    }
}

/// Returns a shard, restored from a log if there is one.
fn shard(own: u8, count: u8, queue: usize, log: Option<&[u8]>) -> Broker<Open> {
    let mut config = Config::default();
    config.queued_messages = queue;
    config.statistics_interval = 0;
    config.packet_size = 10_000;
    config.outgoing_bytes = 10_000;
    let mut broker = Broker::new(config, Open::default(), NOW);
    if log.is_some() {
        broker.start_journal();
    }
    broker.start_links(own, count);
    if let Some(log) = log {
        for record in Records::new(log) {
            broker.restore(&record.unwrap()).unwrap();
        }
        broker.restored(NOW).unwrap();
    }
    assert!(!broker.links_are_ready());
    broker
}

/// Shards whose links move all bytes at once.
pub(crate) struct Whole {
    pub(crate) now: Instant,
    pub(crate) shards: Vec<Broker<Open>>,
    /// How many messages may be queued in the next process of a shard.
    pub(crate) queue: usize,
    links: Vec<Vec<Option<ConnectionId>>>,
    /// The stored records, if the shards have journals.
    logs: Option<Vec<Vec<u8>>>,
}

/// A client of a shard.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) shard: usize,
    pub(crate) id: ConnectionId,
}

impl Whole {
    pub(crate) fn new(count: u8) -> Self {
        Self::start(count, None)
    }

    pub(crate) fn with_journals(count: u8) -> Self {
        Self::start(count, Some(vec![Vec::new(); usize::from(count)]))
    }

    fn start(count: u8, logs: Option<Vec<Vec<u8>>>) -> Self {
        let mut whole = Self::apart(count, logs);
        for own in 0..usize::from(count) {
            for to in 0..own {
                whole.link(own, to);
            }
        }
        whole.run();
        assert!(whole.shards.iter().all(Broker::links_are_ready));
        whole
    }

    /// Makes shards without links.
    pub(crate) fn apart(count: u8, logs: Option<Vec<Vec<u8>>>) -> Self {
        let queue = Config::default().queued_messages;
        let log = logs.as_ref().map(|_| &[][..]);
        let shards = (0..count).map(|own| shard(own, count, queue, log));
        let shards = shards.collect();
        let count = usize::from(count);
        Self {
            now: NOW,
            shards,
            queue,
            links: vec![vec![None; count]; count],
            logs,
        }
    }

    /// Opens the link between two shards, on both sides.
    pub(crate) fn link(&mut self, one: usize, other: usize) {
        for (own, to) in [(one, other), (other, one)] {
            let id = self.shards[own].open_link(u8::try_from(to).unwrap(), self.now);
            assert!(id.is_some(), "{own} to {to}");
            self.links[own][to] = id;
        }
    }

    /// Moves the next packets of a link, of at most `most` bytes. Returns whether there were any.
    pub(crate) fn move_some(&mut self, from: usize, to: usize, most: usize) -> bool {
        let (own, other) = (self.links[from][to].unwrap(), self.links[to][from].unwrap());
        let bytes = self.shards[from].outgoing(own);
        let bytes = bytes[..bytes.len().min(most)].to_vec();
        let received = self.shards[to].receive(other, &bytes, self.now);
        self.shards[from].sent(own, received.consumed, self.now);
        received.consumed > 0
    }

    /// Takes the bytes of a link, which never arrive.
    pub(crate) fn lose_bytes(&mut self, from: usize, to: usize) {
        let (now, id) = (self.now, self.links[from][to].unwrap());
        let bytes = self.shards[from].outgoing(id).len();
        self.shards[from].sent(id, bytes, now);
    }

    /// Returns what was sent to a client, which acknowledges it, until nothing comes any more.
    pub(crate) fn heard_all(&mut self, client: Client) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            self.receive(client, &[]);
            let (bytes, mut answers) = (self.outgoing(client), Vec::new());
            for packet in packets_in(&bytes, Version::V5) {
                if let Packet::Publish(publish) = packet {
                    all.push(format!(
                        "{} {}",
                        publish.topic,
                        String::from_utf8_lossy(publish.payload)
                    ));
                    if let Some(id) = publish.delivery.packet_id() {
                        answers.extend_from_slice(&[0x40, 2]);
                        answers.extend_from_slice(&id.get().to_be_bytes());
                    }
                }
            }
            if answers.is_empty() {
                return all;
            }
            self.receive(client, &answers);
            self.run();
        }
    }

    /// Closes the link between two shards, on both sides.
    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        for (own, to) in [(one, other), (other, one)] {
            if let Some(id) = self.links[own][to].take() {
                self.shards[own].closed(id, self.now);
            }
        }
    }

    /// Tells a shard that another one is away.
    pub(crate) fn miss(&mut self, own: usize, to: usize) {
        self.shards[own].shard_is_away(u8::try_from(to).unwrap(), self.now);
    }

    /// Stores the records of all shards.
    pub(crate) fn store(&mut self) {
        for (shard, log) in self.shards.iter_mut().zip(self.logs.iter_mut().flatten()) {
            let len = shard.journal().len();
            log.extend_from_slice(shard.journal());
            shard.stored(len);
        }
    }

    /// Crashes a shard after all its records were stored. Its next process has no links.
    pub(crate) fn crash(&mut self, own: usize) {
        self.store();
        let count = u8::try_from(self.shards.len()).unwrap();
        let log = self.logs.as_ref().map(|logs| &logs[own][..]);
        self.shards[own] = shard(u8::try_from(own).unwrap(), count, self.queue, log);
        for to in 0..self.shards.len() {
            self.links[own][to] = None;
            if let Some(id) = self.links[to][own].take() {
                self.shards[to].closed(id, self.now);
            }
        }
    }

    /// Moves what is on the links, until nothing is left.
    pub(crate) fn run(&mut self) {
        let mut moved = true;
        let mut rounds = 0;
        while moved {
            moved = false;
            rounds += 1;
            assert!(rounds < ROUNDS, "messages circle between the shards");
            self.store();
            for from in 0..self.shards.len() {
                let due = self.shards[from].deadline();
                if due.is_some_and(|due| due <= self.now) {
                    self.shards[from].tick(self.now);
                    moved = true;
                }
                for to in 0..self.shards.len() {
                    moved |= self.move_link(from, to);
                }
            }
        }
    }

    fn move_link(&mut self, from: usize, to: usize) -> bool {
        let (Some(own), Some(other)) = (self.links[from][to], self.links[to][from]) else {
            return false;
        };
        let bytes = self.shards[from].outgoing(own).to_vec();
        if bytes.is_empty() {
            return false;
        }
        let mut rest = &bytes[..];
        for _ in 0..100 {
            let received = self.shards[to].receive(other, rest, self.now);
            rest = &rest[received.consumed..];
            if rest.is_empty() {
                break;
            }
            assert!(matches!(received.next, Next::Yields | Next::Blocked));
            self.shards[to].tick(self.now);
        }
        assert!(rest.is_empty(), "the shard does not take everything");
        self.shards[from].sent(own, bytes.len(), self.now);
        true
    }

    /// Lets seconds pass, one by one.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.after(Duration::from_secs(1));
            for shard in &mut self.shards {
                shard.tick(self.now);
            }
            self.run();
        }
    }

    pub(crate) fn say(&mut self, client: Client, packet: &Packet<'_>) {
        let bytes = encode(packet, Version::V5);
        let received = self.receive(client, &bytes);
        assert_eq!(received.consumed, bytes.len());
    }

    fn receive(&mut self, client: Client, bytes: &[u8]) -> Handled {
        self.shards[client.shard].receive(client.id, bytes, self.now)
    }

    /// Takes the bytes for a client.
    pub(crate) fn outgoing(&mut self, client: Client) -> Vec<u8> {
        let shard = &mut self.shards[client.shard];
        let bytes = shard.outgoing(client.id).to_vec();
        shard.sent(client.id, bytes.len(), self.now);
        bytes
    }

    /// Returns what was sent to a client.
    pub(crate) fn heard(&mut self, client: Client) -> Vec<String> {
        // A SUBACK that waited is written when the host passes the input again.
        self.receive(client, &[]);
        let bytes = self.outgoing(client);
        let heard = packets_in(&bytes, Version::V5).map(|packet| match packet {
            Packet::Publish(publish) => {
                let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                let retain = if publish.retain { " retained" } else { "" };
                format!("{} {payload}{retain}", publish.topic)
            }
            other => format!("{:?}", other.packet_type()),
        });
        heard.collect()
    }

    pub(crate) fn join(&mut self, shard: usize, name: &str) -> Client {
        self.join_with(shard, &Connect::new(Version::V5, name))
    }

    pub(crate) fn join_with(&mut self, shard: usize, connect: &Connect<'_>) -> Client {
        let id = self.shards[shard].open(self.now).unwrap();
        let client = Client { shard, id };
        self.say(client, &Packet::Connect(*connect));
        self.store();
        assert_eq!(self.heard(client), ["ConnAck"]);
        client
    }

    pub(crate) fn ask(&mut self, client: Client, filter: &str) {
        let filter = TopicFilter::new(filter).unwrap();
        let list = [Subscription::new(filter, QoS::ExactlyOnce)];
        let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
        self.say(client, &Packet::Subscribe(subscribe));
    }

    pub(crate) fn subscribe(&mut self, client: Client, filter: &str) {
        self.ask(client, filter);
        self.run();
        let heard = self.heard(client);
        assert_eq!(heard.first().map(String::as_str), Some("SubAck"));
    }

    pub(crate) fn publish(&mut self, client: Client, topic: &str, payload: &str, retain: bool) {
        let topic = TopicName::new(topic).unwrap();
        let publish = Publish {
            retain,
            delivery: Delivery::AtMostOnce,
            ..Publish::new(topic, payload.as_bytes())
        };
        self.say(client, &Packet::Publish(publish));
        self.run();
    }

    /// Publishes at QoS 1, and moves nothing on the links.
    pub(crate) fn publish_firmly(&mut self, client: Client, topic: &str, payload: &str) {
        let topic = TopicName::new(topic).unwrap();
        let publish = Publish {
            delivery: Delivery::AtLeastOnce(PacketId::FIRST),
            ..Publish::new(topic, payload.as_bytes())
        };
        self.say(client, &Packet::Publish(publish));
        self.store();
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let all: Vec<_> = self
            .shards
            .iter()
            .map(|own| own.statistics(self.now))
            .collect();
        Statistics::of_all(&all)
    }
}
