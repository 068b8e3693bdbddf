//! A client of a shard that publishes within a window, and receives.

use mqtt_session::proto::{Ack, Connect, Delivery, Packet, PacketId, Publish, TopicName, Version};

use mqtt_testing::packets::{encode, packets_in};

use super::whole::{Client, Whole};

/// How many messages may be queued for one client.
pub(super) const QUEUE: usize = 64;
/// How many messages a publisher sends before one is acknowledged.
pub(super) const WINDOW: usize = 16;

/// Starts shards with short queues.
pub(super) fn start(shards: u8) -> Whole {
    let mut whole = Whole::new(shards);
    limit(&mut whole);
    whole
}

/// Makes the queues of shards short.
pub(super) fn limit(whole: &mut Whole) {
    whole.queue = QUEUE;
    for shard in &mut whole.shards {
        let mut config = shard.config().clone();
        config.queued_messages = QUEUE;
        config.window = 4;
        config.receive_maximum = 16;
        shard.configure(config, whole.now);
    }
}

/// A client with the messages that it has sent and received.
pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) sent: usize,
    pub(super) acknowledged: usize,
    /// How many of the acknowledgements are refusals.
    pub(super) refused: usize,
    pub(super) got: Vec<String>,
    /// The acknowledgements that it has not sent.
    pub(super) owed: Vec<PacketId>,
    /// The bytes that its shard has not read.
    pub(super) unsent: Vec<u8>,
}

impl Peer {
    pub(super) fn join(whole: &mut Whole, shard: usize, name: &str, filter: Option<&str>) -> Self {
        let mut connect = Connect::new(Version::V5, name);
        connect.keep_alive = 0;
        let client = whole.join_with(shard, &connect);
        if let Some(filter) = filter {
            whole.subscribe(client, filter);
        }
        Self {
            client,
            sent: 0,
            acknowledged: 0,
            refused: 0,
            got: Vec::new(),
            owed: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// Publishes at QoS 1 until its window is used up, or it has sent `most` messages.
    pub(super) fn publish(&mut self, whole: &mut Whole, topic: &str, most: usize) {
        self.publish_long(whole, topic, most, 0);
    }

    /// Publishes as [`Self::publish`] does, with payloads of at least `len` bytes.
    pub(super) fn publish_long(&mut self, whole: &mut Whole, topic: &str, most: usize, len: usize) {
        while self.sent - self.acknowledged < WINDOW && self.sent < most {
            self.publish_one(whole, topic, len, false);
        }
        self.send(whole);
    }

    /// Publishes a message that is retained.
    pub(super) fn publish_retained(&mut self, whole: &mut Whole, topic: &str) {
        self.publish_one(whole, topic, 0, true);
    }

    fn publish_one(&mut self, whole: &mut Whole, topic: &str, len: usize, retain: bool) {
        let id = u16::try_from(self.sent % 60_000 + 1).unwrap();
        let payload = format!("{:len$}", self.sent);
        let publish = Publish {
            retain,
            delivery: Delivery::AtLeastOnce(PacketId::new(id).unwrap()),
            ..Publish::new(TopicName::new(topic).unwrap(), payload.as_bytes())
        };
        let packet = encode(&Packet::Publish(publish), Version::V5);
        self.unsent.extend(packet);
        self.sent += 1;
        self.send(whole);
    }

    /// Sends as much as its shard reads, and reads the answers.
    pub(super) fn send(&mut self, whole: &mut Whole) {
        loop {
            let (shard, now) = (self.client.shard, whole.now);
            let received = whole.shards[shard].receive(self.client.id, &self.unsent, now);
            self.unsent.drain(..received.consumed);
            whole.run();
            self.read(whole);
            if received.consumed == 0 || self.unsent.is_empty() {
                return;
            }
        }
    }

    /// Reads what there is.
    pub(super) fn read(&mut self, whole: &mut Whole) {
        let bytes = whole.outgoing(self.client);
        for packet in packets_in(&bytes, Version::V5) {
            match packet {
                Packet::Publish(publish) => {
                    let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                    self.got.push(text);
                    self.owed.extend(publish.delivery.packet_id());
                }
                Packet::PubAck(ack) => {
                    self.acknowledged += 1;
                    self.refused += usize::from(ack.reason.is_error());
                }
                _ => {}
            }
        }
    }

    /// Acknowledges at most `most` messages.
    pub(super) fn acknowledge(&mut self, whole: &mut Whole, most: usize) {
        let most = most.min(self.owed.len());
        for id in self.owed.drain(..most) {
            whole.say(self.client, &Packet::PubAck(Ack::new(id)));
        }
        whole.run();
    }

    /// Reads and acknowledges until nothing more comes.
    pub(super) fn take_all(&mut self, whole: &mut Whole) {
        self.read(whole);
        while !self.owed.is_empty() {
            self.acknowledge(whole, usize::MAX);
            self.read(whole);
        }
    }
}

pub(super) fn dropped(whole: &Whole) -> u64 {
    whole.statistics().publish_dropped
}

/// Closes the links of a shard, which the others notice.
pub(super) fn leaves(whole: &mut Whole, away: usize) {
    for other in (0..whole.shards.len()).filter(|other| *other != away) {
        whole.cut(other, away);
        whole.miss(other, away);
        whole.miss(away, other);
    }
}

pub(super) fn comes_back(whole: &mut Whole, away: usize) {
    for other in (0..whole.shards.len()).filter(|other| *other != away) {
        whole.link(other, away);
    }
    whole.run();
}
