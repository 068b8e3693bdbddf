//! Checks limits while a broker reads its records: what an earlier process accepted stays, and the memory is proportional to the
//! bytes of the records.

use mqtt_broker::proto::{Packet, PacketId, Publish, QoS, TopicName, Version};
use mqtt_broker::records::broker::{
    Away, Delivery, Entry, Identifiers, Message, NEVER, Retained, Session, Subscription, Target,
    Targets,
};
use mqtt_broker::records::{Format, Machine, Records};
use mqtt_broker::{Broker, Config, Hooks, Instant, RestoreError, Restored};
use mqtt_testing::packets::{encode, packets_in};

#[derive(Default)]
struct Open;

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        0
    }
}

const NOW: Instant = Instant::from_millis(0);

/// Records as the journal of a broker.
struct Journal(Vec<u8>);

impl Journal {
    fn new() -> Self {
        let mut journal = Self(Vec::new());
        journal.add(&Entry::Format(Format::new(Machine::Broker)));
        journal
    }

    fn add(&mut self, entry: &Entry<'_>) {
        let start = self.0.len();
        self.0.resize(start + entry.encoded_len().unwrap(), 0);
        entry.write(&mut self.0[start..]).unwrap();
    }

    fn session(&mut self, number: u64) {
        let away = Away {
            ends: NEVER,
            will: NEVER,
        };
        self.add(&Entry::Session(
            number,
            Some(Session {
                version: Version::V5,
                expiry: u32::MAX,
                away: Some(away),
                client_id: &number.to_string(),
                user_name: None,
                will: None,
            }),
        ));
    }

    fn subscription(&mut self, session: u64, filter: &str) {
        let options = Subscription {
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            identifier: None,
        };
        self.add(&Entry::Subscription {
            session,
            filter,
            options: Some(options),
        });
    }

    fn retained(&mut self, topic: &str) {
        let message = Publish {
            retain: true,
            ..Publish::new(TopicName::new(topic).unwrap(), b"x")
        };
        let packet = encode(&Packet::Publish(message), Version::V5);
        self.add(&Entry::Retained(
            topic,
            Some(Retained {
                expires: NEVER,
                qos: QoS::AtLeastOnce,
                publisher: "",
                user_name: None,
                version: None,
                packet: &packet,
            }),
        ));
    }

    /// Adds a message for these sessions; `sent` says whether it is in flight to them.
    fn message(&mut self, number: u64, payload: &[u8], sessions: &[u64], sent: bool) {
        let mut targets = Vec::new();
        for session in sessions {
            let target = Target {
                session: session << 16,
                delivery: Delivery {
                    qos: QoS::ExactlyOnce,
                    retain: false,
                    identifiers: Identifiers::Numbers(&[]),
                    share: None,
                    sent: sent.then(|| u32::try_from(number).unwrap()),
                },
            };
            target.write(&mut |bytes| targets.extend_from_slice(bytes));
        }
        let message = Publish::new(TopicName::new("t").unwrap(), payload);
        let packet = encode(&Packet::Publish(message), Version::V5);
        self.add(&Entry::Message(
            number,
            Some(Message {
                expires: NEVER,
                qos: QoS::ExactlyOnce,
                targets: Targets::new(u32::try_from(sessions.len()).unwrap(), &targets),
                packet: &packet,
            }),
        ));
    }

    fn received(&mut self, session: u64, id: u16) {
        self.add(&Entry::Received {
            session,
            id: PacketId::new(id).unwrap(),
            message: Some(0),
        });
    }

    fn restore(&self, config: &Config) -> Result<(Broker<Open>, Restored), RestoreError> {
        let mut broker = Broker::new(config.clone(), Open, NOW);
        broker.start_journal();
        for record in Records::new(&self.0) {
            broker.restore(&record.unwrap())?;
        }
        let restored = broker.restored(NOW)?;
        let n = broker.journal().len();
        broker.stored(n);
        Ok((broker, restored))
    }
}

/// Each limit allows less than a session with two of everything has.
fn low_limits() -> Config {
    let mut config = Config::default();
    config.statistics_interval = 0;
    config.sessions = 1;
    config.queued_messages = 1;
    config.queued_bytes = 1;
    config.queued_bytes_total = 1;
    config.subscriptions = 1;
    config.subscription_bytes = 1;
    config.subscription_bytes_total = 1;
    config.retained_messages = 1;
    config.retained_bytes = 1;
    config.receive_maximum = 1;
    config.window = 1;
    config.window_qos2 = 1;
    config.in_flight_bytes = 1;
    config.outgoing_bytes = 64;
    config.packet_size = 64;
    config.topic_levels = 1;
    config
}

/// Connects a client as the first session, which acknowledges all that it gets and tries to subscribe. Returns how many messages it
/// got, and whether the subscription was refused.
fn hears_all(broker: &mut Broker<Open>) -> (u32, bool) {
    let id = broker.open(NOW).unwrap();
    let connect = b"\x10\x13\0\x04MQTT\x05\0\0\0\x05\x11\xff\xff\xff\xff\0\x011";
    broker.receive(id, connect, NOW);
    let (mut messages, mut refused) = (0, false);
    for _ in 0..100 {
        broker.tick(NOW);
        let n = broker.journal().len();
        broker.stored(n);
        let heard = broker.outgoing(id).to_vec();
        broker.sent(id, heard.len(), NOW);
        for packet in packets_in(&heard, Version::V5) {
            let answer = match packet {
                Packet::ConnAck(_) => b"\x82\x0a\0\x01\0\0\x04more\x00".to_vec(),
                Packet::Publish(publish) => {
                    messages += 1;
                    let id = publish.delivery.packet_id().unwrap();
                    [&[0x50, 2][..], &id.get().to_be_bytes()].concat()
                }
                Packet::PubRel(ack) => {
                    [&[0x70, 2][..], &ack.packet_id.get().to_be_bytes()].concat()
                }
                Packet::SubAck(ack) => {
                    refused = ack.codes.iter().all(|code| code.is_error());
                    continue;
                }
                other => panic!("{other:?}"),
            };
            broker.receive(id, &answer, NOW);
        }
    }
    (messages, refused)
}

/// A lower limit drops nothing that an earlier process accepted, and refuses what is new.
#[test]
fn lower_limits_keep_what_was_stored_and_refuse_what_is_new() {
    let mut journal = Journal::new();
    for session in [1, 2] {
        journal.session(session);
        journal.subscription(session, "a/b/c");
        journal.subscription(session, "t");
        journal.retained(&format!("kept/{session}"));
        journal.received(session, 7);
        journal.received(session, 8);
    }
    for number in 1..=8 {
        let sent = number <= 4;
        journal.message(number, b"a message", &[1, 2], sent);
    }
    let (mut broker, restored) = journal.restore(&low_limits()).unwrap();
    assert_eq!((restored.sessions, restored.subscriptions), (2, 4));
    assert_eq!((restored.messages, restored.retained), (16, 2));
    assert_eq!(broker.statistics(NOW).queued, 8);
    // A third session has no place.
    let id = broker.open(NOW).unwrap();
    broker.receive(id, b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x013", NOW);
    assert_eq!(broker.outgoing(id)[..4], [0x20, 2, 0, 3]);
    broker.closed(id, NOW);
    assert_eq!(hears_all(&mut broker), (8, true));
}

/// How many bytes of memory a byte of records may take.
const FACTOR: usize = 60;

/// Checks the peak of the heap while these records are restored.
fn takes_little(name: &str, journal: &Journal) {
    let config = low_limits();
    let grown = allocation_counter::measure(|| {
        let (broker, _) = journal.restore(&config).unwrap();
        drop(broker);
    });
    let (peak, len) = (usize::try_from(grown.bytes_max).unwrap(), journal.0.len());
    let most = FACTOR * len + (1 << 20);
    assert!(
        peak <= most,
        "{name}: {peak} bytes for records of {len} bytes"
    );
}

#[test]
fn the_memory_is_proportional_to_the_bytes_of_the_records() {
    const MANY: u64 = 5_000;
    let mut sessions = Journal::new();
    (1..=MANY).for_each(|number| sessions.session(number));
    takes_little("sessions", &sessions);

    let mut filters = Journal::new();
    filters.session(1);
    (1..=MANY).for_each(|number| filters.subscription(1, &number.to_string()));
    // Many levels, and none of them shared.
    for number in 0..10 {
        let levels = format!("{number}/").repeat(20_000);
        filters.subscription(1, &levels);
        filters.subscription(1, &format!("{levels}x"));
    }
    takes_little("filters", &filters);

    let mut shared = Journal::new();
    shared.session(1);
    (1..=MANY).for_each(|number| shared.subscription(1, &format!("$share/{number}/{number}")));
    takes_little("shared subscriptions", &shared);

    let mut retained = Journal::new();
    (1..=MANY).for_each(|number| retained.retained(&number.to_string()));
    takes_little("retained messages", &retained);

    let mut received = Journal::new();
    received.session(1);
    (1..=u16::MAX).for_each(|id| received.received(1, id));
    takes_little("identifiers", &received);

    let mut queued = Journal::new();
    let all: Vec<_> = (1..=MANY).collect();
    all.iter().for_each(|number| queued.session(*number));
    // The numbers of the messages have gaps.
    for number in 1..=100 {
        queued.message(number << 40, &[0; 1_000], &all, false);
    }
    takes_little("messages of many sessions", &queued);

    let mut sparse = Journal::new();
    sparse.session(1);
    for number in 1..=MANY {
        sparse.message(number * 64, b"", &[1], false);
    }
    takes_little("messages with gaps between their numbers", &sparse);
}

/// A broker in reserve that takes over must not need much more memory than the one before: most messages have one target.
#[test]
fn a_message_with_one_target_takes_little_while_it_is_restored() {
    const MANY: u64 = 10_000;
    const MOST: u64 = 650;
    let mut journal = Journal::new();
    journal.session(1);
    (1..=MANY).for_each(|number| journal.message(number, &[0; 64], &[1], false));
    let config = low_limits();
    let grown = allocation_counter::measure(|| drop(journal.restore(&config).unwrap()));
    let each = grown.bytes_max / MANY;
    assert!(each <= MOST, "{each} bytes for each message");
}

/// A message in flight is copied for each client: such bytes have a limit, and it is not taken for damage.
#[test]
fn messages_in_flight_take_at_most_twice_the_limit_of_all_connections() {
    let mut journal = Journal::new();
    let all: Vec<_> = (1..=200).collect();
    all.iter().for_each(|number| journal.session(*number));
    for number in 1..=20 {
        journal.message(number, &[0; 100_000], &all, true);
    }
    let mut config = low_limits();
    config.connection_bytes_total = 4 << 20;
    let mut refused = None;
    let grown = allocation_counter::measure(|| {
        refused = journal.restore(&config).err();
    });
    assert_eq!(refused, Some(RestoreError::InFlight));
    let peak = usize::try_from(grown.bytes_max).unwrap();
    let most = 2 * config.connection_bytes_total + FACTOR * journal.0.len();
    // The copies of all messages are 400 MB.
    assert!(peak <= most && most < 300 << 20, "{peak} of {most} bytes");
    // Up to twice the limit is restored, and one more message for each client.
    let mut few = Journal::new();
    few.session(1);
    few.message(1, &[0; 100_000], &[1], true);
    few.message(2, &[0; 99_000], &[1], true);
    few.message(3, &[0; 100_000], &[1], true);
    config.connection_bytes_total = 100_000;
    few.restore(&config).unwrap();
    few.message(4, &[0; 2_000], &[1], true);
    let refused = few.restore(&config).err();
    assert_eq!(refused, Some(RestoreError::InFlight));
}

/// A client that has nothing in flight gets one message of any size, even beyond the limit of all connections.
#[test]
fn one_message_in_flight_to_each_client_is_restored() {
    let mut journal = Journal::new();
    let all: Vec<_> = (1..=50).collect();
    all.iter().for_each(|number| journal.session(*number));
    journal.message(1, &[0; 100_000], &all, true);
    let mut config = low_limits();
    config.connection_bytes_total = 100_000;
    journal.restore(&config).unwrap();
}
