//! Decides when to try a message again for which there was no room. A try may decode and measure a megabyte of properties, so it
//! waits for a corresponding amount of progress: bytes that the transport takes, or messages that the client acknowledges.

use mqtt_session::proto::{ReasonCode, TopicName};

use crate::broker::Broker;
use crate::connection::Connection;
use crate::hooks::Hooks;
use crate::keys::ConnectionKey;
use crate::work::steps_of_new_memory;

/// Trying a smaller message costs no more than handling the packet that caused the try.
const CHEAP: usize = 4 << 10;

/// The state of a connection when there was no room for the first message of its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    /// The length of the message's packet.
    pub(crate) len: usize,
    /// The length of the packet without its payload.
    pub(crate) head: usize,
    /// How many bytes waited for the transport, or for a record and then for the transport.
    pub(crate) unsent: usize,
    /// How many accepted messages had not ended.
    pub(crate) pending: usize,
    /// The limit of these messages.
    pub(crate) window: usize,
}

/// The progress for which the first message of a queue waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    bytes: usize,
    acknowledged: usize,
}

impl Stall {
    pub(crate) fn new(tried: &Tried) -> Self {
        let acknowledged = if tried.head <= CHEAP || tried.pending >= tried.window {
            1
        } else {
            // The reason is not known: too many QoS 2 messages, or too many bytes. Each try waits for a part of the remaining
            // ones.
            tried.pending.div_ceil(4).max(1)
        };
        Self {
            bytes: match (tried.unsent, tried.pending) {
                // There is no progress to wait for: each later event tries again.
                (0, 0) => 0,
                // If no bytes waited for the transport, they were not the reason.
                (0, _) => usize::MAX,
                (unsent, _) => tried.len.min(unsent),
            },
            acknowledged,
        }
    }

    /// Notes that the transport took `n` bytes.
    pub(crate) fn sent(&mut self, n: usize) {
        if self.bytes != usize::MAX {
            self.bytes = self.bytes.saturating_sub(n);
        }
    }

    /// Notes that a message ended.
    pub(crate) fn acknowledged(&mut self) {
        self.acknowledged = self.acknowledged.saturating_sub(1);
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.bytes == 0 || self.acknowledged == 0
    }
}

impl Connection {
    /// Returns whether the machine holds more than this, and the amount will decrease without new messages: the client has a
    /// message to acknowledge, or its transport has bytes to take.
    pub(crate) fn holds_more_than(&self, share: usize) -> bool {
        self.heap_bytes > share && (self.server.pending() > 0 || self.server.unsent() > 0)
    }

    /// Counts the present bytes of its machine on the heap; `all` is the sum of all machines. Returns the steps of its growth: the
    /// system clears new memory, and what was there may be copied.
    pub(crate) fn recount(&mut self, all: &mut usize) -> usize {
        let size = self.server.heap_size();
        let grown = size.saturating_sub(self.heap_bytes);
        *all = all.saturating_sub(self.heap_bytes).saturating_add(size);
        self.heap_bytes = size;
        steps_of_new_memory(grown)
    }
}

impl<H: Hooks> Broker<H> {
    /// Returns why a topic may not get an alias, if it may not: the topic is too long, or its client takes more than its share of
    /// the limit for all connections.
    pub(crate) fn refuses_alias(
        &self,
        index: ConnectionKey,
        topic: TopicName<'_>,
    ) -> Option<ReasonCode> {
        if topic.as_bytes().len() > self.config.topic_length {
            return Some(ReasonCode::TopicNameInvalid);
        }
        let total = self.config.connection_bytes_total;
        let connection = self.connections.get(index)?;
        let takes_more = connection.heap_bytes > self.connection_share();
        (self.heap_bytes > total && takes_more).then_some(ReasonCode::QuotaExceeded)
    }

    /// Returns the share of each connection in the limit for all connections.
    pub(crate) fn connection_share(&self) -> usize {
        let total = self.config.connection_bytes_total;
        if self.heap_bytes > total.saturating_add(total / 2) {
            // However many connections follow, all of them have at most twice the limit.
            return (total / 2)
                .checked_div(self.config.connections)
                .unwrap_or(0);
        }
        total.checked_div(self.connections.len()).unwrap_or(total)
    }

    /// Counts the present bytes of a connection's machine on the heap.
    pub(crate) fn recount(&mut self, index: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(index) {
            let steps = connection.recount(&mut self.heap_bytes);
            self.meter.spend(steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt_session::Instant;
    use mqtt_session::proto::{
        Ack, AckKind, Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Properties,
        Property, Publish, QoS, Subscribe, Subscription, TopicFilter, TopicName, Version,
    };
    use mqtt_testing::packets::{ack, encode};

    use crate::work::{Work, steps};
    use crate::{Broker, Config, ConnectionId, Hooks};

    const NOW: Instant = Instant::from_millis(0);

    struct Open;

    impl Hooks for Open {
        fn unguessable(&mut self) -> u128 {
            1
        }
    }

    /// Makes a broker with a publisher, and a client that subscribes to all topics.
    fn setup(config: Config) -> (Broker<Open>, ConnectionId, ConnectionId) {
        let mut broker = Broker::new(config, Open, NOW);
        let mut join = |name| {
            let id = broker.open(NOW).unwrap();
            let connect = Packet::Connect(Connect::new(Version::V5, name));
            broker.receive(id, &encode(&connect, Version::V5), NOW);
            let all = TopicFilter::from_static("#");
            let list = [Subscription::new(all, QoS::ExactlyOnce)];
            let subscribe = Packet::Subscribe(Subscribe::new(PacketId::FIRST, &list[..]));
            if name == "reader" {
                broker.receive(id, &encode(&subscribe, Version::V5), NOW);
            }
            broker.sent(id, usize::MAX, NOW);
            id
        };
        let (publisher, reader) = (join("publisher"), join("reader"));
        (broker, publisher, reader)
    }

    fn config() -> Config {
        Config {
            statistics_interval: 0,
            ..Config::default()
        }
    }

    fn message(qos: QoS, properties: usize, payload: &[u8]) -> Vec<u8> {
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(PacketId::FIRST),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(PacketId::FIRST),
        };
        let properties = vec![Property::UserProperty("", ""); properties];
        let publish = Publish {
            delivery,
            properties: Properties::from(&properties[..]),
            ..Publish::new(TopicName::from_static("a"), payload)
        };
        encode(&Packet::Publish(publish), Version::V5)
    }

    /// Publishes, and takes the broker's answers.
    fn publish(broker: &mut Broker<Open>, from: ConnectionId, bytes: &[u8]) {
        broker.receive(from, bytes, NOW);
        broker.receive(from, &ack(AckKind::PubRel, 1), NOW);
        broker.sent(from, usize::MAX, NOW);
    }

    /// Takes the outgoing bytes of a connection, and returns the payloads of their PUBLISH packets.
    fn read(broker: &mut Broker<Open>, id: ConnectionId) -> Vec<(Delivery, Vec<u8>)> {
        let mut found = Vec::new();
        while !broker.outgoing(id).is_empty() {
            let decoded = Packet::decode(broker.outgoing(id), Version::V5, MAX_PACKET);
            let Ok(Decoded::Packet { consumed, packet }) = decoded else {
                panic!("{decoded:?}")
            };
            if let Packet::Publish(publish) = packet {
                found.push((publish.delivery, publish.payload.to_vec()));
            }
            broker.sent(id, consumed, NOW);
        }
        found
    }

    /// A message with 199,000 properties waits for a client that does not read.
    #[test]
    fn a_message_that_waits_for_the_transport_is_not_decoded_again_and_again() {
        let (mut broker, publisher, reader) = setup(config());
        let first = message(QoS::AtMostOnce, 0, &[b'x'; 200_000]);
        publish(&mut broker, publisher, &first);
        publish(
            &mut broker,
            publisher,
            &message(QoS::AtMostOnce, 199_000, b"long"),
        );
        let small = message(QoS::AtLeastOnce, 0, b"small");
        let (decoded, ()) = steps(Work::Decode, || {
            for _ in 0..100 {
                publish(&mut broker, publisher, &small);
            }
        });
        // The first try was left to the next turn.
        assert!(decoded <= 1, "{decoded} times by messages behind it");
        let ping = encode(&Packet::PingReq, Version::V5);
        let (decoded, ()) = steps(Work::Decode, || {
            for _ in 0..100 {
                broker.receive(reader, &ping, NOW);
                broker.sent(reader, 1, NOW);
            }
        });
        assert_eq!(decoded, 0, "by one byte at a time");
        // The client reads 200 kB in 200 pieces, and then the packets after them.
        let (decoded, ()) = steps(Work::Decode, || {
            for _ in 0..199 {
                broker.sent(reader, 1_000, NOW);
            }
        });
        assert_eq!(decoded, 0, "by pieces");
        broker.sent(reader, first.len() - 199_100, NOW);
        let (decoded, found) = steps(Work::Decode, || read(&mut broker, reader));
        assert!(decoded <= 110, "decoded {decoded} times for 101 messages");
        let texts: Vec<_> = found.iter().map(|(_, payload)| &payload[..]).collect();
        assert_eq!(texts[..2], [&b"long"[..], b"small"]);
        assert_eq!(texts.len(), 101);
    }

    /// The message waits for a QoS 2 message, and the client acknowledges QoS 1 messages.
    #[test]
    fn a_message_that_waits_for_the_window_is_not_decoded_at_each_acknowledgement() {
        let mut config = config();
        config.window_qos2 = 1;
        let (mut broker, publisher, reader) = setup(config);
        let first = message(QoS::ExactlyOnce, 0, b"first");
        publish(&mut broker, publisher, &first);
        for _ in 0..100 {
            publish(&mut broker, publisher, &message(QoS::AtLeastOnce, 0, b"x"));
        }
        let long = message(QoS::ExactlyOnce, 2_000, b"long");
        publish(&mut broker, publisher, &long);
        let found = read(&mut broker, reader);
        assert_eq!(found.len(), 101);
        let (decoded, ()) = steps(Work::Decode, || {
            for (delivery, _) in &found[1..] {
                let own = delivery.packet_id().unwrap();
                let ack = Packet::PubAck(Ack::new(own));
                broker.receive(reader, &encode(&ack, Version::V5), NOW);
            }
        });
        assert!(decoded <= 13, "decoded {decoded} times");
        let first = found[0].0.packet_id().unwrap().get();
        for kind in [AckKind::PubRec, AckKind::PubComp] {
            assert_eq!(read(&mut broker, reader), []);
            broker.receive(reader, &ack(kind, first), NOW);
        }
        assert_eq!(read(&mut broker, reader)[0].1, b"long");
    }

    /// With a full window, the first acknowledgement makes room for the next message, however many properties it has.
    #[test]
    fn one_acknowledgement_is_enough_where_the_window_is_full() {
        let mut config = config();
        config.window = 20;
        let (mut broker, publisher, reader) = setup(config);
        for _ in 0..20 {
            publish(&mut broker, publisher, &message(QoS::AtLeastOnce, 0, b"x"));
        }
        let long = message(QoS::AtLeastOnce, 2_000, b"long");
        publish(&mut broker, publisher, &long);
        let found = read(&mut broker, reader);
        let one = found[7].0.packet_id().unwrap().get();
        broker.receive(reader, &ack(AckKind::PubAck, one), NOW);
        assert_eq!(read(&mut broker, reader)[0].1, b"long");
    }

    /// The waiting message is dropped for a later one, which has room.
    #[test]
    fn what_waits_behind_a_dropped_message_goes() {
        let config = Config {
            queued_messages: 2,
            outgoing_bytes: 1 << 20,
            ..config()
        };
        let (mut broker, publisher, reader) = setup(config);
        let small = message(QoS::AtLeastOnce, 0, b"small");
        for bytes in [
            message(QoS::AtMostOnce, 0, &[b'x'; 200_000]),
            message(QoS::AtMostOnce, 0, &[b'y'; 1_000_000]),
            small.clone(),
        ] {
            publish(&mut broker, publisher, &bytes);
        }
        let waits = broker.outgoing(reader).len();
        publish(&mut broker, publisher, &small);
        // The growth of the reader's buffer has used the share of a turn.
        broker.tick(NOW);
        assert_eq!(broker.outgoing(reader).len(), waits + 2 * small.len());
    }

    /// Messages that are longer than the outgoing buffer are sent from where they are kept, until the transport has taken them.
    #[test]
    fn large_messages_at_qos_0_need_no_packet_of_their_receiver() {
        let (mut broker, publisher, reader) = setup(config());
        let large = message(QoS::AtMostOnce, 0, &[b'x'; 300_000]);
        for n in 0..10 {
            publish(&mut broker, publisher, &large);
            publish(&mut broker, publisher, &large);
            assert_eq!(read(&mut broker, reader).len(), 2, "in round {n}");
        }
    }

    /// The queue is full, and messages for which it has no room are dropped. The others are sent.
    #[test]
    fn large_messages_at_qos_0_leave_a_full_queue() {
        let (mut broker, publisher, reader) = setup(config());
        let large = message(QoS::AtMostOnce, 0, &[b'x'; 1_000_000]);
        for round in 0..3 {
            for _ in 0..60 {
                publish(&mut broker, publisher, &large);
            }
            let queued = broker.statistics(NOW).queued;
            assert!(queued > 20, "{queued} are queued");
            let mut found = 0;
            while broker.deadline().is_some_and(|at| at <= NOW)
                || !broker.outgoing(reader).is_empty()
            {
                found += read(&mut broker, reader).len();
                broker.tick(NOW);
            }
            assert!(found > 20, "{found} were sent in round {round}");
            assert_eq!(broker.statistics(NOW).queued, 0);
        }
    }
}
