//! Checks the records that an agent writes, and the state that the next process restores from them. The test plays the server and
//! the transport.

use bytes::BytesMut;
use mqtt_agent::proto::{
    ConnAck, Connect, Packet, Properties, QoS, Subscription, TopicFilter, TopicName, Version,
};
use mqtt_agent::session::records::{Fault, Format, Kind, Machine, Record, Records};
use mqtt_agent::session::{Instant, Outgoing, Refused};
use mqtt_agent::{
    Agent, AgentEvent, ConnectionEvent, Error, NextDial, Options, OwnedWill, Publication,
    RestoreError, RouteId, Unclaimed,
};
use mqtt_testing::laws::restarts::{restores_or_refuses, sample};
use mqtt_testing::packets::{encode, packets_in, publish};
use proptest::collection::vec;
use proptest::prelude::*;

/// A client process and its successors, with the log of their records.
struct Story {
    options: Options,
    agent: Agent,
    log: Vec<u8>,
    now: Instant,
}

fn options(version: Version) -> Options {
    let mut options = Options::new("broker", 1883);
    options.version = version;
    options.client_id = "story".to_owned();
    options.clean_start = false;
    options.session_expiry = 1_000;
    options
}

fn restore(options: &Options, log: &[u8]) -> Result<Agent, RestoreError> {
    let mut agent = Agent::with_journal(options.clone());
    for record in Records::new(log) {
        agent.restore(&record.expect("a whole record"))?;
    }
    agent.restored()?;
    Ok(agent)
}

impl Story {
    fn new(options: Options) -> Self {
        Self {
            agent: restore(&options, &[]).expect("nothing to restore"),
            options,
            log: Vec::new(),
            now: Instant::from_millis(1_000),
        }
    }

    fn store(&mut self) {
        self.log.extend_from_slice(self.agent.journal());
        let n = self.agent.journal().len();
        self.agent.stored(n);
    }

    /// Ends the process and starts the next one. Records that are not stored are lost.
    fn restart(&mut self) {
        self.agent = restore(&self.options, &self.log).expect("its own records");
    }

    /// Opens a connection when it is due, and returns what the client sends.
    fn open(&mut self) -> Vec<u8> {
        if let NextDial::At(at) = self.agent.next_dial(self.now) {
            self.now = at;
        }
        assert_eq!(self.agent.next_dial(self.now), NextDial::Now);
        self.agent.opened(self.now).expect("it can connect");
        self.store();
        self.sent()
    }

    /// Connects, and returns the clean start of CONNECT.
    fn connect(&mut self, session_present: bool) -> bool {
        let sent = self.open();
        let packets: Vec<_> = packets_in(&sent, self.options.version).collect();
        let [Packet::Connect(Connect { clean_start, .. })] = packets[..] else {
            panic!("{packets:?}");
        };
        let connack = ConnAck {
            session_present: session_present && !clean_start,
            ..ConnAck::default()
        };
        self.feed(&Packet::ConnAck(connack));
        self.store();
        clean_start
    }

    /// Opens a connection that the server accepts, with or without a session. Returns whether CONNECT asks for a clean session and
    /// whether it has a will, and whether the client accepts the connection.
    fn try_to_connect(&mut self, session_present: bool) -> ((bool, bool), bool) {
        let sent = self.open();
        let packets: Vec<_> = packets_in(&sent, self.options.version).collect();
        let [Packet::Connect(connect)] = packets[..] else {
            panic!("{packets:?}");
        };
        let clean = connect.clean_start;
        let connack = Packet::ConnAck(ConnAck {
            session_present: session_present && !clean,
            ..ConnAck::default()
        });
        let mut input = BytesMut::from(&encode(&connack, self.options.version)[..]);
        let received = self.agent.receive(&mut input, self.now);
        self.store();
        let accepted = received.is_ok();
        if let Err(why) = received {
            assert!(self.says().is_empty());
            self.agent.lost(why, self.now, 0);
        }
        ((clean, connect.will.is_some()), accepted)
    }

    /// Returns the reason of the next lost connection that is reported.
    fn next_loss(&mut self) -> Option<String> {
        std::iter::from_fn(|| self.agent.next_event()).find_map(|event| match event {
            AgentEvent::Connection(ConnectionEvent::Lost(why)) => Some(why.to_string()),
            _ => None,
        })
    }

    fn sent(&mut self) -> Vec<u8> {
        let sent = self.agent.outgoing().to_vec();
        self.agent.sent(sent.len());
        sent
    }

    /// Returns the outgoing packets as text.
    fn says(&mut self) -> Vec<String> {
        let sent = self.sent();
        let word = |packet: Packet<'_>| match packet {
            Packet::Subscribe(subscribe) => {
                let filters = subscribe.filters.iter();
                filters.map(|f| format!("subscribe {}", f.filter)).collect()
            }
            Packet::Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.filters.iter();
                filters
                    .map(|filter| format!("unsubscribe {filter}"))
                    .collect()
            }
            other => vec![format!("{:?}", other.packet_type())],
        };
        packets_in(&sent, self.options.version)
            .flat_map(word)
            .collect()
    }

    fn feed(&mut self, packet: &Packet<'_>) {
        let mut input = BytesMut::from(&encode(packet, self.options.version)[..]);
        let flow = self.agent.receive(&mut input, self.now);
        flow.expect("the server keeps the rules");
    }

    fn subscribe(&mut self, filter: &str) -> RouteId {
        let filter = TopicFilter::new(filter).expect("valid");
        let list = [Subscription::new(filter, QoS::ExactlyOnce)];
        self.agent.subscribe(&list, &Properties::EMPTY, self.now)
    }

    /// Subscribes, and answers as a server that grants it.
    fn granted(&mut self, id: u8, filter: &str) -> RouteId {
        let route = self.subscribe(filter);
        assert_eq!(self.says(), [format!("subscribe {filter}")]);
        let suback = match self.options.version {
            Version::V5 => vec![0x90, 4, 0, id, 0, 2],
            _ => vec![0x90, 3, 0, id, 2],
        };
        let mut input = BytesMut::from(&suback[..]);
        self.agent.receive(&mut input, self.now).expect("SUBACK");
        self.store();
        route
    }

    fn publish(&mut self, qos: QoS) -> Result<(), Refused> {
        let message = Outgoing::new(TopicName::from_static("up"), qos, b"x");
        self.agent.publish(&message, self.now).map(drop)
    }
}

/// Messages that were accepted without a connection are sent after a crash, in their order.
#[test]
fn the_outbox_outlives_the_process() {
    let mut story = Story::new(options(Version::V311));
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtMostOnce] {
        story.publish(qos).expect("it is kept");
    }
    story.store();
    let (written, stored) = story.agent.recorded();
    assert_eq!(written, stored);
    story.restart();
    let qos: Vec<_> = story.agent.unsent().iter().map(|kept| kept.qos).collect();
    assert_eq!(qos, [QoS::AtLeastOnce, QoS::ExactlyOnce]);
    story.connect(false);
    assert_eq!(story.says(), ["Publish", "Publish"]);
}

/// The server lost the session while the process was down: the next process subscribes again before its program does.
#[test]
fn subscriptions_outlive_the_process() {
    let mut story = Story::new(options(Version::V311));
    story.connect(false);
    story.granted(1, "a/#");
    story.granted(2, "b");
    story.restart();
    // A server that continues the session has the subscriptions.
    story.connect(true);
    assert!(story.says().is_empty());
    story.restart();
    // The program subscribes to one of the filters itself.
    story.subscribe("b");
    story.connect(false);
    assert_eq!(story.says(), ["subscribe a/#", "subscribe b"]);
}

/// A subscription that the program gave up before the crash is given up after it.
#[test]
fn an_unsubscribe_outlives_the_process() {
    let mut story = Story::new(options(Version::V5));
    story.connect(false);
    let route = story.granted(1, "a");
    story.agent.unsubscribe(route, story.now);
    story.store();
    story.restart();
    story.connect(true);
    assert_eq!(story.says(), ["unsubscribe a"]);
    let mut input = BytesMut::from(&b"\xb0\x04\0\x01\0\0"[..]);
    story
        .agent
        .receive(&mut input, story.now)
        .expect("UNSUBACK");
    story.store();
    story.restart();
    story.connect(false);
    assert!(story.says().is_empty());
}

/// A message for a subscription of the earlier process waits until the program subscribes, and is not acknowledged before.
#[test]
fn messages_before_the_program_subscribes_are_unclaimed() {
    let mut story = Story::new(options(Version::V311));
    assert_eq!(story.options.unclaimed, Unclaimed::Hold);
    story.connect(false);
    story.granted(1, "a/b");
    story.restart();
    story.connect(true);
    story.feed(&Packet::Publish(publish(
        QoS::ExactlyOnce,
        7,
        true,
        "early",
    )));
    assert!(story.says().is_empty());
    let route = story.subscribe("a/b");
    let message = story.agent.next_message(Some(route)).expect("it waited");
    assert_eq!(&message.payload[..], b"early");
}

/// 5 [MQTT-3.2.2-4]: a session without records cannot be continued.
#[test]
fn without_records_the_first_connect_of_mqtt_5_is_clean() {
    let mut options = options(Version::V5);
    options.assume_session = false;
    let mut story = Story::new(options);
    assert!(story.connect(true));
    story.restart();
    assert!(!story.connect(true));
}

/// In 3.1.1, section 3.2.2.2, a client ends a session that only the server has by a connection with a clean session. It is not
/// the one that the client uses, because a clean session ends with its connection. A crash after each connection changes nothing.
#[test]
fn without_records_a_client_of_3_1_1_ends_the_session_of_the_server() {
    // Each: whether the session is clean, and whether there is a will.
    let (kept, clean) = ((false, true), (true, false));
    for (crash, expected) in [
        (0, &[kept, clean, kept][..]),
        (1, &[kept, kept, clean, kept]),
        (2, &[kept, clean, kept]),
    ] {
        let mut options = options(Version::V311);
        options.assume_session = false;
        let will = Publication::new("will", QoS::AtMostOnce, "");
        options.will = Some(OwnedWill::new(will));
        let mut story = Story::new(options);
        story.publish(QoS::ExactlyOnce).expect("it is kept");
        let (mut session_present, mut connections) = (true, Vec::new());
        loop {
            assert!(connections.len() < 9, "{connections:?}");
            let (connect, accepted) = story.try_to_connect(session_present);
            connections.push(connect);
            if accepted {
                break;
            }
            session_present = session_present && !connect.0;
            assert_eq!(story.next_loss(), None, "the program is not told");
            if connections.len() == crash {
                story.restart();
            }
        }
        assert_eq!(connections, expected, "{crash}");
        assert_eq!(story.says(), ["Publish"]);
        // Now the client has the session.
        story.agent.lost(Error::EndOfStream, story.now, 0);
        assert_eq!(story.try_to_connect(true), (kept, true));
    }
}

/// MQTT 3.1 has no session present, so the client ends the session in any case.
#[test]
fn without_records_a_client_of_3_1_ends_any_session_first() {
    let mut options = options(Version::V31);
    options.assume_session = false;
    let mut story = Story::new(options);
    assert_eq!(story.try_to_connect(false), ((true, false), false));
    assert_eq!(story.try_to_connect(false), ((false, false), true));
}

/// A program can say that it has the session, although there are no records. It gets the messages in it once, and ends the flow
/// whose identifier only the server knows.
#[test]
fn without_records_a_client_of_3_1_1_can_assume_the_kept_session() {
    let mut options = options(Version::V311);
    options.assume_session = true;
    let mut story = Story::new(options);
    assert!(!story.connect(true));
    let kept = |dup| Packet::Publish(publish(QoS::ExactlyOnce, 7, dup, "kept"));
    story.feed(&kept(true));
    let mut pubrel = BytesMut::from(&[0x62, 2, 0, 9][..]);
    story.agent.receive(&mut pubrel, story.now).expect("PUBREL");
    story.store();
    // 3.1.1 [MQTT-4.3.3-2]
    assert_eq!(story.says(), ["PubComp"]);
    let route = story.subscribe("a/b");
    assert_eq!(story.says(), ["subscribe a/b"]);
    let message = story.agent.next_message(Some(route)).expect("it waited");
    assert_eq!(&message.payload[..], b"kept");
    let id = message.id().expect("QoS 2");
    story.agent.taken(Some(route), id, story.now);
    story.store();
    assert_eq!(story.says(), ["PubRec"]);
    // PUBREC was lost.
    story.restart();
    assert!(!story.connect(true));
    story.feed(&kept(true));
    assert_eq!(story.says(), ["subscribe a/b", "PubRec"]);
    let route = story.subscribe("a/b");
    assert!(story.agent.next_message(Some(route)).is_none());
}

/// 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.1.2-4]: the server may have ended its session even if its CONNACK did not arrive.
#[test]
fn a_clean_start_goes_on_after_a_crash_until_connack() {
    let mut story = Story::new(options(Version::V5));
    story.connect(false);
    story.options.clean_start = true;
    story.restart();
    assert_eq!(story.agent.next_dial(story.now), NextDial::Now);
    story.agent.opened(story.now).expect("room");
    assert!(
        story.agent.outgoing().is_empty(),
        "CONNECT waits for its record"
    );
    story.store();
    assert!(!story.agent.outgoing().is_empty());
    story.options.clean_start = false;
    story.restart();
    assert!(story.connect(true));
    story.restart();
    assert!(!story.connect(true));
}

/// DISCONNECT goes out after PUBREC, which waits for its record.
#[test]
fn a_client_that_closes_waits_for_its_records() {
    let mut story = Story::new(options(Version::V5));
    story.connect(false);
    let route = story.granted(1, "a/b");
    story.feed(&Packet::Publish(publish(
        QoS::ExactlyOnce,
        7,
        false,
        "last",
    )));
    let message = story.agent.next_message(Some(route)).expect("it came");
    let id = message.id().expect("QoS 2");
    story.agent.taken(Some(route), id, story.now);
    let later = Instant::from_millis(story.now.as_millis() + 1_000);
    story.agent.close(later, story.now);
    story.agent.tick(story.now).expect("it closes");
    assert!(story.says().is_empty() && !story.agent.is_finished());
    story.store();
    assert_eq!(story.says(), ["PubRec", "Disconnect"]);
    assert!(story.agent.is_finished());
    // The subscription is recorded for the next process.
    story.restart();
    story.connect(false);
    assert_eq!(story.says(), ["subscribe a/b"]);
}

#[test]
fn a_note_is_at_most_64_bytes_and_needs_a_message() {
    let mut story = Story::new(options(Version::V311));
    story.connect(false);
    let route = story.granted(1, "a/b");
    story.feed(&Packet::Publish(publish(QoS::AtLeastOnce, 7, false, "one")));
    let message = story.agent.next_message(Some(route)).expect("it came");
    let id = message.id().expect("QoS 1");
    let long = story.agent.acknowledge_with(id, &[0; 65], story.now);
    assert_eq!(long, Err(Refused::TooLarge { len: 65, max: 64 }));
    let noted = story.agent.acknowledge_with(id, &[7; 64], story.now);
    noted.expect("it is in hand");
    assert!(story.says().is_empty(), "PUBACK waits for the note");
    story.store();
    assert_eq!(story.says(), ["PubAck"]);
    let again = story.agent.acknowledge_with(id, b"", story.now);
    assert_eq!(again, Err(Refused::NothingToAcknowledge));
    story.restart();
    assert_eq!(story.agent.note(), Some(&[7; 64][..]));
}

#[test]
fn a_store_of_another_client_or_version_is_refused() {
    let mut story = Story::new(options(Version::V311));
    story.connect(false);
    story.publish(QoS::AtLeastOnce).expect("it is kept");
    story.store();
    let mut other = options(Version::V311);
    other.client_id = "other".to_owned();
    let refused = restore(&other, &story.log).expect_err("it is of another client");
    assert_eq!(refused, RestoreError::ClientIdentifier("story".to_owned()));
    let refused = restore(&options(Version::V5), &story.log);
    assert_eq!(refused.err(), Some(RestoreError::Version(Version::V311)));
    let mut nameless = options(Version::V311);
    nameless.client_id = String::new();
    restore(&nameless, &story.log).expect("it takes the identifier of the store");
    let client = Format::new(Machine::Client).value();
    let record = Record {
        kind: Format::KIND,
        key: &[],
        value: Some(&client),
    };
    let mut agent = Agent::with_journal(options(Version::V311));
    let refused = agent.restore(&record);
    assert_eq!(refused, Err(RestoreError::Record(Fault::Machine)));
}

#[test]
fn a_failed_store_stops_the_agent_and_a_full_one_is_reported() {
    let mut story = Story::new(options(Version::V5));
    story.connect(false);
    story.publish(QoS::ExactlyOnce).expect("there is room");
    while story.agent.next_event().is_some() {}
    for full in [true, true, false, false] {
        story.agent.storage_is_full(full);
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            assert_eq!(story.publish(qos).is_err(), full);
        }
        story.publish(QoS::AtMostOnce).expect("it needs no record");
    }
    let events: Vec<_> = std::iter::from_fn(|| story.agent.next_event()).collect();
    let [
        AgentEvent::Connection(ConnectionEvent::StoreFull),
        AgentEvent::Connection(ConnectionEvent::StoreHasRoom),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    story.agent.storage_failed(Error::Stopped);
    assert!(story.agent.is_stopped() && story.agent.outgoing().is_empty());
    assert!(story.publish(QoS::AtLeastOnce).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_are_restored_or_refused(
        bytes in vec(any::<u8>(), 0..200),
        records in vec((1_u8..6, vec(0_u8..6, 0..9), vec(0_u8..64, 0..30)), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        restores_or_refuses(&bytes);
        let mut journal = sample();
        for (kind, key, value) in &records {
            let record = Record { kind: Kind::new(*kind), key, value: Some(value) };
            let mut bytes = vec![0; record.encoded_len().unwrap()];
            record.write(&mut bytes).unwrap();
            restores_or_refuses(&bytes);
            journal.append(&mut bytes);
        }
        restores_or_refuses(&journal);
        let at = cut.index(journal.len());
        journal[at] = journal[at].wrapping_add(1);
        restores_or_refuses(&journal);
    }
}
