//! Checks that an acknowledged message is not dropped when a connected receiver is slower than its publisher.

use std::time::Duration;

use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Next, Observation};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Ack, Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Publish, QoS, Subscribe,
    Subscription, TopicFilter, TopicName, Version,
};
use mqtt_testing::packets::encode;

const START: Instant = Instant::from_millis(0);
/// How many messages may be queued for one client.
const QUEUE: usize = 64;
const WINDOW: u16 = 4;

/// Hooks that note slow receivers, and those for which publishers wait long, with the number of queued messages.
#[derive(Default)]
struct Open {
    slow: Vec<(String, usize)>,
    waited_for: Vec<(String, usize)>,
}

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        1
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::SlowConsumer {
                client_id,
                messages,
                connection: Some(_),
            } => self.slow.push(((*client_id).to_owned(), *messages)),
            Observation::PublishersWait {
                client_id,
                messages,
                connection: Some(_),
            } => self.waited_for.push(((*client_id).to_owned(), *messages)),
            _ => {}
        }
    }
}

struct Clients {
    broker: Broker<Open>,
    now: Instant,
}

/// A client with a window of packet identifiers, and the messages that it received.
struct Client {
    id: ConnectionId,
    version: Version,
    next: u16,
    /// Bytes that the broker has not taken.
    unsent: Vec<u8>,
    /// How many of its messages were acknowledged.
    acknowledged: usize,
    got: Vec<String>,
    /// Acknowledgements that it has not sent.
    owed: Vec<Vec<u8>>,
}

impl Client {
    /// Returns how many of its published messages are not acknowledged.
    fn pending(&self) -> usize {
        usize::from(self.next) - 1 - self.acknowledged
    }
}

impl Clients {
    fn new(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.statistics_interval = 0;
        config.queued_messages = QUEUE;
        config.window = WINDOW;
        config.receive_maximum = 16;
        set(&mut config);
        Self {
            broker: Broker::new(config, Open::default(), START),
            now: START,
        }
    }

    fn join(&mut self, name: &str, version: Version, filter: Option<&str>) -> Client {
        let id = self.broker.open(self.now).unwrap();
        let connect = Connect {
            clean_start: version == Version::V5,
            ..Connect::new(version, name)
        };
        let mut client = Client {
            id,
            version,
            next: 1,
            unsent: encode(&Packet::Connect(connect), version),
            acknowledged: 0,
            got: Vec::new(),
            owed: Vec::new(),
        };
        if let Some(filter) = filter {
            let filter = TopicFilter::new(filter).unwrap();
            let list = [Subscription::new(filter, QoS::ExactlyOnce)];
            let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
            client
                .unsent
                .extend(encode(&Packet::Subscribe(subscribe), version));
        }
        self.run(&mut client);
        self.read(&mut client, usize::MAX);
        client
    }

    fn publish(&mut self, client: &mut Client, topic: &str, payload: &str, qos: QoS) {
        let own = PacketId::new(client.next).unwrap();
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(own),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(own),
        };
        client.next += u16::from(qos > QoS::AtMostOnce);
        let topic = TopicName::new(topic).unwrap();
        let publish = Publish {
            delivery,
            ..Publish::new(topic, payload.as_bytes())
        };
        let bytes = encode(&Packet::Publish(publish), client.version);
        client.unsent.extend(bytes);
        self.run(client);
    }

    /// Passes bytes to the broker, and lets it work.
    fn run(&mut self, client: &mut Client) {
        loop {
            let received = self.broker.receive(client.id, &client.unsent, self.now);
            client.unsent.drain(..received.consumed);
            let works = self.broker.deadline().is_some_and(|at| at <= self.now);
            if works {
                self.broker.tick(self.now);
            } else if received.next != Next::Yields {
                return;
            }
        }
    }

    /// The client reads up to `most` packets, and keeps its acknowledgements.
    fn read(&mut self, client: &mut Client, most: usize) {
        for _ in 0..most {
            let bytes = self.broker.outgoing(client.id);
            let Ok(Decoded::Packet { packet, consumed }) =
                Packet::decode(bytes, client.version, MAX_PACKET)
            else {
                return;
            };
            match packet {
                Packet::PubAck(_) | Packet::PubComp(_) => client.acknowledged += 1,
                Packet::PubRec(ack) => {
                    let answer = Packet::PubRel(Ack::new(ack.packet_id));
                    client.unsent.extend(encode(&answer, client.version));
                }
                Packet::PubRel(ack) => {
                    let answer = Packet::PubComp(Ack::new(ack.packet_id));
                    client.unsent.extend(encode(&answer, client.version));
                }
                Packet::Publish(publish) => {
                    client
                        .got
                        .push(String::from_utf8(publish.payload.to_vec()).unwrap());
                    let answer = match publish.delivery {
                        Delivery::AtMostOnce => None,
                        Delivery::AtLeastOnce(own) => Some(Packet::PubAck(Ack::new(own))),
                        Delivery::ExactlyOnce(own) => Some(Packet::PubRec(Ack::new(own))),
                    };
                    let answer = answer.map(|answer| encode(&answer, client.version));
                    client.owed.extend(answer);
                }
                _ => {}
            }
            self.broker.sent(client.id, consumed, self.now);
            self.run(client);
        }
    }

    /// The client acknowledges up to `most` messages.
    fn acknowledge(&mut self, client: &mut Client, most: usize) {
        let most = most.min(client.owed.len());
        client.unsent.extend(client.owed.drain(..most).flatten());
        self.run(client);
    }

    /// The client reads and acknowledges until no more packets come.
    fn take_all(&mut self, client: &mut Client) {
        loop {
            let before = (client.got.len(), client.acknowledged);
            self.read(client, usize::MAX);
            self.acknowledge(client, usize::MAX);
            if (client.got.len(), client.acknowledged) == before && client.owed.is_empty() {
                return;
            }
        }
    }

    /// Runs until no message of the clients is in flight or queued.
    fn finish(&mut self, reader: &mut Client, writer: &mut Client) {
        loop {
            self.take_all(reader);
            self.take_all(writer);
            if writer.unsent.is_empty() && self.broker.outgoing(reader.id).is_empty() {
                return;
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.broker.tick(self.now);
    }

    fn dropped(&self) -> u64 {
        self.broker.statistics(self.now).publish_dropped
    }

    #[track_caller]
    fn check_all_came(&self, client: &Client, count: usize) {
        let in_order = (0..count)
            .map(|n| n.to_string())
            .eq(client.got.iter().cloned());
        assert!(in_order, "{} of {count} came", client.got.len());
        assert_eq!(self.dropped(), 0);
    }
}

const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// The publisher has a window of 8, and the reader takes one message at a time.
#[test]
fn a_publisher_with_a_window_goes_as_fast_as_its_reader() {
    for (version, qos) in BOTH
        .into_iter()
        .flat_map(|version| [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| (version, qos)))
    {
        let mut all = Clients::new(|_| {});
        let mut reader = all.join("reader", version, Some("a"));
        let mut writer = all.join("writer", version, None);
        let (mut sent, mut rounds) = (0, 0);
        while sent < 1_000 {
            while writer.pending() < 8 && sent < 1_000 {
                all.publish(&mut writer, "a", &sent.to_string(), qos);
                sent += 1;
            }
            all.read(&mut reader, 1);
            all.acknowledge(&mut reader, 1);
            all.read(&mut writer, usize::MAX);
            let queued = all.broker.statistics(all.now).queued;
            assert!(queued <= 8 + QUEUE as u64 / 2, "{queued} queued");
            rounds += 1;
        }
        assert!(rounds > 500, "the writer was not slowed: {rounds}");
        all.finish(&mut reader, &mut writer);
        all.check_all_came(&reader, 1_000);
        assert_eq!(writer.acknowledged, 1_000);
    }
}

/// A publisher that does not wait for acknowledgements is not read, but the answers and pings of other clients are.
#[test]
fn a_publisher_without_a_window_is_read_as_fast_as_its_reader_takes() {
    let mut all = Clients::new(|_| {});
    let mut reader = all.join("reader", Version::V311, Some("a"));
    let mut writer = all.join("writer", Version::V311, None);
    for n in 0..500 {
        all.publish(&mut writer, "a", &n.to_string(), QoS::AtLeastOnce);
    }
    assert!(!writer.unsent.is_empty(), "all was read");
    let queued = all.broker.statistics(all.now).queued;
    assert!(queued <= 2 + QUEUE as u64 / 2, "{queued} queued");
    while !writer.unsent.is_empty() || all.broker.statistics(all.now).queued > 0 {
        all.read(&mut reader, 3);
        all.acknowledge(&mut reader, 3);
        all.run(&mut writer);
    }
    all.finish(&mut reader, &mut writer);
    all.check_all_came(&reader, 500);
    assert_eq!(writer.acknowledged, 500);
}

/// A publisher that is not read does not exceed its keep-alive, because its packets wait.
#[test]
fn a_publisher_that_is_not_read_does_not_lose_its_connection() {
    let mut all = Clients::new(|_| {});
    let mut reader = all.join("reader", Version::V311, Some("a"));
    let mut writer = all.join("writer", Version::V311, None);
    for n in 0..200 {
        all.publish(&mut writer, "a", &n.to_string(), QoS::AtLeastOnce);
    }
    for _ in 0..20 {
        all.pass(20);
        all.read(&mut reader, 1);
        all.acknowledge(&mut reader, 1);
        all.run(&mut writer);
    }
    assert!(!all.broker.is_closing(writer.id));
    assert!(!writer.unsent.is_empty());
    assert_eq!(all.broker.hooks().slow, []);
}

/// Each client reads and acknowledges as much as it can, but publishes until its window is full.
#[test]
fn clients_that_publish_to_each_other_and_to_themselves_do_not_stop() {
    for version in BOTH {
        for (to_first, to_second) in [("b", "a"), ("a", "b")] {
            let mut all = Clients::new(|_| {});
            let mut clients = [
                all.join("first", version, Some("a")),
                all.join("second", version, Some("b")),
            ];
            let mut sent = 0;
            for _ in 0..20_000 {
                for (client, topic) in clients.iter_mut().zip([to_first, to_second]) {
                    while client.pending() < 12 && sent < 1_000 {
                        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][sent / 2 % 2];
                        all.publish(client, topic, &(sent / 2).to_string(), qos);
                        sent += 1;
                    }
                    all.read(client, 3);
                    all.acknowledge(client, 1);
                }
            }
            for client in &mut clients {
                all.take_all(client);
            }
            for client in &mut clients {
                all.take_all(client);
            }
            let got: usize = clients.iter().map(|client| client.got.len()).sum();
            let acknowledged: usize = clients.iter().map(|client| client.acknowledged).sum();
            assert_eq!((sent, got, acknowledged), (1_000, 1_000, 1_000));
            assert_eq!(all.dropped(), 0);
            assert_eq!(all.broker.hooks().slow, []);
        }
    }
}

/// A client of 3.1.1 publishes to itself, and reads its own messages only afterwards. The broker reads it, so its messages are
/// acknowledged.
#[test]
fn a_client_without_a_window_floods_itself() {
    let mut all = Clients::new(|_| {});
    let mut own = all.join("own", Version::V311, Some("a"));
    for n in 0..QUEUE * 2 {
        all.publish(&mut own, "a", &n.to_string(), QoS::AtLeastOnce);
    }
    assert!(own.unsent.is_empty(), "it is read");
    all.take_all(&mut own);
    all.check_all_came(&own, QUEUE * 2);
    assert_eq!(own.acknowledged, QUEUE * 2);
    // More than twice the limit of its queue is too much, and is observed.
    for n in 0..QUEUE * 3 {
        all.publish(&mut own, "a", &n.to_string(), QoS::AtLeastOnce);
    }
    assert!(all.dropped() > 0);
    assert_eq!(all.broker.hooks().slow.len(), 1);
}

/// The reader takes nothing. Its publisher waits for 30 seconds, once; other clients do not wait.
#[test]
fn a_reader_that_takes_nothing_is_waited_for_only_so_long() {
    let mut all = Clients::new(|_| {});
    let mut reader = all.join("reader", Version::V5, Some("a"));
    let mut writer = all.join("writer", Version::V5, None);
    let mut other = all.join("other", Version::V5, Some("b"));
    let mut sent = 0;
    while writer.pending() < 16 {
        all.publish(&mut writer, "a", &sent.to_string(), QoS::AtLeastOnce);
        all.read(&mut writer, usize::MAX);
        sent += 1;
        assert!(sent < QUEUE, "nothing is withheld");
    }
    for n in 0..100 {
        all.publish(&mut other, "b", &n.to_string(), QoS::AtLeastOnce);
        all.take_all(&mut other);
    }
    assert_eq!((other.got.len(), other.acknowledged), (100, 100));
    all.pass(29);
    all.read(&mut writer, usize::MAX);
    assert_eq!(
        (writer.pending(), &all.broker.hooks().slow[..]),
        (16, &[][..])
    );
    all.pass(1);
    all.read(&mut writer, usize::MAX);
    assert_eq!(writer.pending(), 0);
    let slow = all.broker.hooks().slow.clone();
    let [(name, queued)] = &slow[..] else {
        panic!("{slow:?}")
    };
    assert_eq!(name, "reader");
    assert!((QUEUE / 2..QUEUE).contains(queued), "{queued}");
    // From now on the queue drops messages, and no publisher waits.
    while sent < 500 {
        all.publish(&mut writer, "a", &sent.to_string(), QoS::AtLeastOnce);
        all.read(&mut writer, usize::MAX);
        assert_eq!(writer.pending(), 0);
        sent += 1;
    }
    assert!(all.dropped() > 0);
    assert_eq!(all.broker.hooks().slow.len(), 1, "told once");
    // The reader has taken all messages, so publishers wait for it again.
    all.take_all(&mut reader);
    let before = all.dropped();
    while writer.pending() < 16 {
        all.publish(&mut writer, "a", &sent.to_string(), QoS::AtLeastOnce);
        all.read(&mut writer, usize::MAX);
        sent += 1;
        assert!(sent < 1_000, "nothing is withheld");
    }
    all.take_all(&mut reader);
    all.read(&mut writer, usize::MAX);
    assert_eq!((writer.pending(), all.dropped()), (0, before));
}

/// The reader takes one message each 20 seconds.
#[test]
fn a_reader_that_takes_little_is_not_given_up() {
    let mut all = Clients::new(|_| {});
    let mut reader = all.join("reader", Version::V5, Some("a"));
    let mut writer = all.join("writer", Version::V5, None);
    for n in 0..100 {
        all.pass(20);
        while writer.pending() < 8 {
            all.publish(&mut writer, "a", &n.to_string(), QoS::AtLeastOnce);
            all.read(&mut writer, usize::MAX);
        }
        all.read(&mut reader, 1);
        all.acknowledge(&mut reader, 1);
    }
    assert_eq!(all.broker.hooks().slow, []);
    assert_eq!(all.dropped(), 0);
}

impl Clients {
    /// Makes a reader whose queue is more than half full, and a publisher that waits for it.
    fn join_waiting(&mut self) -> (Client, Client) {
        let reader = self.join("reader", Version::V5, Some("a"));
        let mut writer = self.join("writer", Version::V5, None);
        while writer.pending() < 16 {
            self.publish(&mut writer, "a", "x", QoS::AtLeastOnce);
            self.read(&mut writer, usize::MAX);
        }
        (reader, writer)
    }

    /// Lets `seconds` pass, in each of which the reader takes one message and its publisher sends one.
    fn trickle(&mut self, reader: &mut Client, writer: &mut Client, seconds: u64) {
        for _ in 0..seconds {
            self.pass(1);
            self.read(reader, 1);
            self.acknowledge(reader, 1);
            self.read(writer, usize::MAX);
            while writer.pending() < 16 {
                self.publish(writer, "a", "x", QoS::AtLeastOnce);
                self.read(writer, usize::MAX);
            }
        }
    }
}

/// An operator sees who slows the publishers, though it is not given up.
#[test]
fn a_reader_for_which_publishers_wait_long_is_told_once() {
    let mut all = Clients::new(|_| {});
    let (mut reader, mut writer) = all.join_waiting();
    all.trickle(&mut reader, &mut writer, 29);
    assert_eq!(all.broker.hooks().waited_for, []);
    all.trickle(&mut reader, &mut writer, 100);
    let told = all.broker.hooks().waited_for.clone();
    let [(name, queued)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(name, "reader");
    assert!((QUEUE / 4..QUEUE).contains(queued), "{queued}");
    assert_eq!(all.broker.hooks().slow, []);
    assert_eq!(all.dropped(), 0);
    // It takes all, and is told again when it is slow again.
    all.finish(&mut reader, &mut writer);
    all.pass(3);
    all.trickle(&mut reader, &mut writer, 60);
    assert_eq!(all.broker.hooks().waited_for.len(), 2);
}

/// With `publisher_wait_ms`, a client that takes one message each second cannot slow all publishers for ever.
#[test]
fn publishers_wait_for_a_slow_reader_as_long_as_is_set() {
    let mut all = Clients::new(|config| config.publisher_wait_ms = 60_000);
    let (mut reader, mut writer) = all.join_waiting();
    all.trickle(&mut reader, &mut writer, 59);
    assert_eq!(all.broker.hooks().slow, []);
    all.pass(2);
    all.read(&mut writer, usize::MAX);
    assert_eq!(all.broker.hooks().slow.len(), 1);
    assert_eq!(writer.pending(), 0, "nobody waits");
}

/// 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-8]: a QoS 2 message whose PUBREC was withheld is sent again after a reconnect, and gets an
/// answer.
#[test]
fn what_was_withheld_from_a_connection_that_is_gone_is_answered_when_it_comes_again() {
    let mut all = Clients::new(|_| {});
    let _reader = all.join("reader", Version::V311, Some("a"));
    let mut writer = all.join("writer", Version::V311, None);
    while writer.pending() < 1 {
        all.publish(&mut writer, "a", "x", QoS::ExactlyOnce);
        all.read(&mut writer, usize::MAX);
    }
    assert_eq!(writer.unsent, b"", "it came");
    let last = writer.next - 1;
    all.broker.closed(writer.id, all.now);
    let mut again = all.join("writer", Version::V311, None);
    again.next = last;
    all.publish(&mut again, "a", "x", QoS::ExactlyOnce);
    let answer = Packet::PubRec(Ack::new(PacketId::new(last).unwrap()));
    let outgoing = all.broker.outgoing(again.id);
    assert_eq!(outgoing, encode(&answer, Version::V311));
    let queued = all.broker.statistics(all.now).queued;
    assert_eq!(queued, u64::from(last) - u64::from(WINDOW), "not twice");
}

/// The reader disconnects: its publishers do not wait any more.
#[test]
fn nobody_waits_for_one_who_is_gone() {
    let mut all = Clients::new(|_| {});
    let reader = all.join("reader", Version::V311, Some("a"));
    let mut writer = all.join("writer", Version::V5, None);
    while writer.pending() < 16 {
        all.publish(&mut writer, "a", "x", QoS::AtLeastOnce);
        all.read(&mut writer, usize::MAX);
    }
    all.broker.closed(reader.id, all.now);
    all.run(&mut writer);
    all.read(&mut writer, usize::MAX);
    assert_eq!(writer.pending(), 0);
}

/// A member with a full queue does not stop the publisher while another member has room.
#[test]
fn shared_subscriptions_go_to_who_has_room() {
    let mut all = Clients::new(|_| {});
    let mut idle = all.join("idle", Version::V5, Some("$share/g/a"));
    let mut busy = all.join("busy", Version::V5, Some("$share/g/a"));
    let mut writer = all.join("writer", Version::V5, None);
    for n in 0..500 {
        all.publish(&mut writer, "a", &n.to_string(), QoS::AtLeastOnce);
        all.read(&mut writer, usize::MAX);
        assert_eq!(writer.pending(), 0, "at {n}");
        all.take_all(&mut busy);
    }
    all.take_all(&mut idle);
    assert_eq!(idle.got.len() + busy.got.len(), 500);
    assert_eq!(all.dropped(), 0);
}

/// For a message with many receivers, the publisher waits for the slowest of them.
#[test]
fn a_message_on_its_way_to_many_waits_for_the_slowest() {
    let mut all = Clients::new(|config| config.turn_steps = 8);
    let mut slow = all.join("slow", Version::V5, Some("a"));
    let mut others: Vec<_> = (0..20)
        .map(|n| all.join(&format!("fast-{n}"), Version::V5, Some("a")))
        .collect();
    let mut writer = all.join("writer", Version::V5, None);
    let mut sent = 0;
    while sent < 300 {
        while writer.pending() < 8 && sent < 300 {
            all.publish(&mut writer, "a", &sent.to_string(), QoS::AtLeastOnce);
            sent += 1;
        }
        for other in &mut others {
            all.take_all(other);
        }
        all.read(&mut slow, 1);
        all.acknowledge(&mut slow, 1);
        all.read(&mut writer, usize::MAX);
    }
    all.finish(&mut slow, &mut writer);
    for other in &mut others {
        all.take_all(other);
        all.check_all_came(other, 300);
    }
    all.check_all_came(&slow, 300);
}
