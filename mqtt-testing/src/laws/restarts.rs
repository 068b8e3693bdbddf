//! The law of a client that crashes: an agent and its program are killed at any instant, and a new process restores the stored
//! records and any number of the written ones. A program that stores its state as notes handles a QoS 2 message exactly once and
//! a QoS 1 message at least once; the same holds for the server, and in order. A program without notes does not get a message
//! again that it had finished, if that was stored.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use mqtt_agent::{Agent, Error, MessageId, NextDial, Options, RouteId};
use mqtt_proto::{AckKind, Packet, Properties, QoS, Subscription, TopicFilter, TopicName, Version};
use mqtt_session::records::{Format, Kind, MAX_NOTE, Machine, Record, Records};
use mqtt_session::{Closed, Config, Instant, Outgoing, Refused, Violation};

use crate::choices::Choices;
use crate::machines::{CLIENT_ID, Endpoint, Opening, OwnedEvent, Role, answer};
use crate::packets::packets_in;

/// A message that the agent accepted.
struct Accepted {
    number: u32,
    qos: QoS,
    /// The length of the log including its record.
    end: usize,
    /// Whether it was reported as stored, so that it must arrive.
    told: bool,
}

/// A message that a stream gave out and the program has not finished.
struct InHand {
    route: RouteId,
    id: MessageId,
    number: u32,
    qos: QoS,
}

/// A message at QoS 2 that the program finished.
struct Finished {
    number: u32,
    end: usize,
}

struct World {
    options: Options,
    agent: Agent,
    server: Endpoint,
    opening: Opening,
    now: Instant,
    /// Bytes from the agent to the server.
    up: Vec<u8>,
    down: BytesMut,
    is_up: bool,
    /// All stored records since the first process.
    log: Vec<u8>,
    /// Whether the program stores its state as a note with each acknowledgement.
    has_notes: bool,
    routes: Vec<RouteId>,
    hand: Vec<InHand>,
    /// The messages that the program has handled. With notes, the note is their number.
    effects: Vec<(u32, QoS)>,
    finished: Vec<Finished>,
    accepted: Vec<Accepted>,
    published: Vec<(u32, QoS)>,
    /// The messages that the server received.
    served: Vec<(u32, QoS)>,
    count: u32,
    /// Identifiers on this connection: of QoS 2 messages that the agent received, and of PUBREC packets that the server received.
    arrived: Vec<u16>,
    received: Vec<u16>,
}

const TOPICS: [&str; 2] = ["a", "b"];

/// Runs one client and its server with the decisions in `choices`.
///
/// # Panics
/// The law is broken.
pub fn survives(choices: &[u8], version: Version) {
    let mut choices = Choices::new(choices);
    let mut options = Options::new("broker", 1883);
    options.version = version;
    options.client_id = CLIENT_ID.to_owned();
    options.clean_start = false;
    options.session_expiry = u32::MAX;
    options.keep_alive = 0;
    options.config.window = 1 + u16::try_from(choices.below(6)).expect("small");
    options.config.outgoing_limit = choices.pick(&[200, 256 << 10]);
    let mut world = World::new(options, choices.flag());
    while !choices.is_empty() {
        world.operate(&mut choices);
        world.look();
    }
    world.end();
}

/// Restores bytes as the records after that of the format: they are restored or refused, within the limits, and the agent
/// continues from them.
///
/// # Panics
/// The law is broken.
pub fn restores_or_refuses(journal: &[u8]) {
    let mut options = Options::new("broker", 1883);
    options.client_id = CLIENT_ID.to_owned();
    options.clean_start = false;
    let mut agent = Agent::with_journal(options);
    let format = Format::new(Machine::Agent).value();
    let first = Record {
        kind: Format::KIND,
        key: &[],
        value: Some(&format),
    };
    agent.restore(&first).expect("a record of the format");
    for record in Records::new(journal).map_while(Result::ok) {
        if agent.restore(&record).is_err() {
            return;
        }
    }
    if agent.restored().is_err() {
        return;
    }
    // The limit is the window or the longer queue, and the requests.
    assert!(agent.pending() <= 1_100, "{} are pending", agent.pending());
    assert!(agent.note().is_none_or(|note| note.len() <= MAX_NOTE));
    let now = Instant::from_millis(1_000);
    assert_eq!(agent.next_dial(now), NextDial::Now);
    agent.opened(now).expect("room for CONNECT");
    let n = agent.journal().len();
    agent.stored(n);
    assert!(!agent.outgoing().is_empty(), "CONNECT waits for ever");
    agent.sent(usize::MAX);
    let mut input = BytesMut::from(&b"\x20\x02\x01\0"[..]);
    match agent.receive(&mut input, now) {
        // Records without a session, or of a clean one that was asked for.
        Ok(_) | Err(Error::Closed(Closed::Violation(Violation::SessionPresentWithoutState))) => {}
        Err(error) => panic!("{error}"),
    }
    agent.lost(Error::EndOfStream, now, 0);
}

/// Returns a format record and records of a session with a subscription, messages at QoS 1 and 2 in flight to the server, and a
/// message from the server that was finished with a note.
///
/// # Panics
/// If the agent does not take its packets.
#[must_use]
pub fn sample() -> Vec<u8> {
    let mut options = Options::new("broker", 1883);
    options.client_id = CLIENT_ID.to_owned();
    options.clean_start = false;
    let mut world = World::new(options, true);
    world.server_publishes(&mut Choices::new(&[1]));
    world.exchange();
    world.take(0);
    world.finish(0);
    for choices in [&[0, 0][..], &[1, 0], &[1, 0]] {
        world.publish(&mut Choices::new(choices));
    }
    world.exchange();
    world.store(usize::MAX);
    let mut records = Records::new(&world.log);
    records.next();
    world.log.split_off(records.consumed())
}

/// Restores a new agent from a log, or from the entries that a key-value store has of it.
fn restored(options: &Options, log: &[u8], as_store: bool) -> Agent {
    let mut agent = Agent::with_journal(options.clone());
    let records = Records::new(log).map(|record| record.expect("a whole record"));
    if as_store {
        let mut store: BTreeMap<(Kind, &[u8]), Option<&[u8]>> = BTreeMap::new();
        store.extend(records.map(|record| ((record.kind, record.key), record.value)));
        for ((kind, key), value) in store {
            if value.is_some() {
                let record = Record { kind, key, value };
                agent.restore(&record).expect("its own records");
            }
        }
    } else {
        for record in records {
            agent.restore(&record).expect("its own records");
        }
    }
    agent.restored().expect("the same options");
    agent
}

impl World {
    fn new(options: Options, has_notes: bool) -> Self {
        let mut config = Config::default();
        config.version = options.version;
        let mut world = Self {
            agent: restored(&options, &[], true),
            server: Endpoint::new(Role::Server, config),
            opening: Opening::persistent(options.version),
            options,
            now: Instant::from_millis(1_000),
            up: Vec::new(),
            down: BytesMut::new(),
            is_up: false,
            log: Vec::new(),
            has_notes,
            routes: Vec::new(),
            hand: Vec::new(),
            effects: Vec::new(),
            finished: Vec::new(),
            accepted: Vec::new(),
            published: Vec::new(),
            served: Vec::new(),
            count: 0,
            arrived: Vec::new(),
            received: Vec::new(),
        };
        world.start();
        world.settle();
        world
    }

    fn operate(&mut self, choices: &mut Choices<'_>) {
        match choices.below(24) {
            0..=3 => self.publish(choices),
            4..=7 => self.server_publishes(choices),
            8..=10 => self.agent_to_server(1 + choices.below(200)),
            11..=13 => self.server_to_agent(1 + choices.below(200)),
            14..=15 => self.store(choices.below(4)),
            16..=17 => self.take(choices.below(2)),
            18..=19 => self.finish(choices.below(8)),
            20 => self.exchange(),
            21 => self.cut(),
            22 => self.connect(),
            _ => self.crash(choices.below(200), choices.flag()),
        }
    }

    /// Starts the program, which subscribes and reads its note.
    fn start(&mut self) {
        for topic in TOPICS {
            let filter = TopicFilter::from_static(topic);
            let filters = [Subscription::new(filter, QoS::ExactlyOnce)];
            let route = self.agent.subscribe(&filters, &Properties::EMPTY, self.now);
            self.routes.push(route);
        }
        if self.has_notes {
            let note = self.agent.note().map_or(0, |note| {
                u32::from_be_bytes(note.try_into().expect("its own note"))
            });
            let len = usize::try_from(note).expect("small");
            assert!(len <= self.effects.len(), "a note of the future");
            self.effects.truncate(len);
        }
    }

    fn connect(&mut self) {
        if self.is_up {
            return;
        }
        if let NextDial::At(at) = self.agent.next_dial(self.now) {
            self.now = at;
        }
        assert_eq!(self.agent.next_dial(self.now), NextDial::Now);
        self.agent.opened(self.now).expect("room for CONNECT");
        self.server.server().opened(self.now);
        self.is_up = true;
    }

    fn hang_up(&mut self) {
        self.server.disconnected();
        self.is_up = false;
        self.up.clear();
        self.down.clear();
        self.arrived.clear();
        self.received.clear();
        self.server_steps();
    }

    fn cut(&mut self) {
        self.agent.lost(Error::EndOfStream, self.now, 0);
        self.hang_up();
    }

    fn publish(&mut self, choices: &mut Choices<'_>) {
        let qos = choices.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let payload = format!(
            "{:06}{}",
            self.count,
            ".".repeat(choices.pick(&[0, 0, 300]))
        );
        let topic = TopicName::from_static("up");
        let message = Outgoing::new(topic, qos, payload.as_bytes());
        match self.agent.publish(&message, self.now) {
            Ok(_) => self.accepted.push(Accepted {
                number: self.count,
                qos,
                end: self.log.len() + self.agent.journal().len(),
                told: false,
            }),
            Err(Refused::Full | Refused::Offline) => {}
            Err(other) => panic!("{other}"),
        }
        self.count += 1;
    }

    fn server_publishes(&mut self, choices: &mut Choices<'_>) {
        let qos = choices.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce]);
        let payload = format!("{:06}", self.count);
        let topic = choices.pick(&TOPICS);
        match self
            .server
            .publish(qos, topic, payload.as_bytes(), self.now)
        {
            Ok(_) => self.published.push((self.count, qos)),
            Err(Refused::Full | Refused::Offline) => {}
            Err(other) => panic!("{other}"),
        }
        self.count += 1;
    }

    fn agent_to_server(&mut self, n: usize) {
        if !self.is_up {
            return;
        }
        let n = n.min(self.agent.outgoing().len());
        self.up.extend_from_slice(&self.agent.outgoing()[..n]);
        self.agent.sent(n);
        let version = self.options.version;
        for id in ids(&self.up, version, AckKind::PubRec) {
            if self.received.last() != Some(&id) && !self.received.contains(&id) {
                self.received.push(id);
            }
        }
        self.server_steps();
    }

    fn server_steps(&mut self) {
        let (opening, now) = (&self.opening, self.now);
        let events = crate::machines::step(&mut self.server, &mut self.up, now, |server, event| {
            answer(server.server(), event, opening, now);
        });
        for event in events {
            match event {
                OwnedEvent::Message { payload, qos, .. } => {
                    self.served.push((number_of(payload.as_bytes()), qos));
                }
                OwnedEvent::Closed(violation) => panic!("the agent broke a rule: {violation}"),
                _ => {}
            }
        }
    }

    fn server_to_agent(&mut self, n: usize) {
        if !self.is_up {
            return;
        }
        let n = n.min(self.server.outgoing().len());
        self.down.extend_from_slice(&self.server.outgoing()[..n]);
        self.server.sent(n);
        for id in published(&self.down, self.options.version) {
            if !self.arrived.contains(&id) {
                self.arrived.push(id);
            }
        }
        let received = self.agent.receive(&mut self.down, self.now);
        received.expect("the server breaks no rule");
    }

    /// 3.1.1 [MQTT-4.6.0-3], 5 [MQTT-4.6.0-3]: PUBREC goes out in the order of the messages.
    fn check_order(&self) {
        let place = |id: &u16| self.arrived.iter().position(|known| known == id);
        let places: Vec<_> = self.received.iter().filter_map(place).collect();
        assert!(places.is_sorted(), "PUBREC in the order {places:?}");
    }

    /// Stores this many of the written records.
    fn store(&mut self, count: usize) {
        let mut records = Records::new(self.agent.journal());
        for record in records.by_ref().take(count) {
            record.expect("a whole record");
        }
        let len = records.consumed();
        self.log.extend_from_slice(&self.agent.journal()[..len]);
        self.agent.stored(len);
        for message in &mut self.accepted {
            message.told |= message.end <= self.log.len();
        }
    }

    fn take(&mut self, stream: usize) {
        let route = self.routes[stream];
        let Some(message) = self.agent.next_message(Some(route)) else {
            return;
        };
        let (number, qos) = (number_of(&message.payload), message.qos);
        let id = message.id().expect("it awaits its acknowledgement");
        let known = self.finished.iter().any(|known| known.number == number);
        assert!(
            !known,
            "message {number} comes again, though it was finished"
        );
        let again = self.hand.iter().any(|held| held.number == number);
        assert!(
            qos != QoS::ExactlyOnce || !again,
            "message {number} is given twice"
        );
        self.hand.push(InHand {
            route,
            id,
            number,
            qos,
        });
    }

    /// The program finishes one of the messages in hand.
    fn finish(&mut self, which: usize) {
        if self.hand.is_empty() {
            return;
        }
        let InHand {
            route,
            id,
            number,
            qos,
        } = self.hand.remove(which % self.hand.len());
        self.effects.push((number, qos));
        if self.has_notes {
            let count = u32::try_from(self.effects.len()).expect("few");
            let noted = self
                .agent
                .acknowledge_with(id, &count.to_be_bytes(), self.now);
            noted.expect("it is in hand");
        } else {
            self.agent.taken(Some(route), id, self.now);
        }
        if qos == QoS::ExactlyOnce {
            let end = self.log.len() + self.agent.journal().len();
            self.finished.push(Finished { number, end });
        }
    }

    /// Kills the process. Of the written records, this many bytes survive.
    fn crash(&mut self, bytes: usize, as_store: bool) {
        let journal = self.agent.journal();
        let kept = &journal[..bytes.min(journal.len())];
        self.log.extend_from_slice(kept);
        let mut records = Records::new(&self.log);
        while records.next().is_some_and(|record| record.is_ok()) {}
        let whole = records.consumed();
        self.log.truncate(whole);
        for message in &mut self.accepted {
            if message.end > whole {
                // The message was not reported as stored, and will not be.
                message.end = usize::MAX;
            }
        }
        self.finished.retain(|finished| finished.end <= whole);
        self.hand.clear();
        self.routes.clear();
        self.hang_up();
        self.agent = restored(&self.options, &self.log, as_store);
        self.start();
    }

    fn look(&mut self) {
        self.check_order();
        while self.agent.next_event().is_some() {}
    }

    /// Delivers all bytes that may be sent.
    fn exchange(&mut self) {
        for _ in 0..20 {
            self.agent_to_server(usize::MAX);
            self.server_to_agent(usize::MAX);
        }
    }

    /// Stores, sends and takes everything until nothing changes.
    fn settle(&mut self) {
        self.connect();
        for _ in 0..10_000 {
            self.exchange();
            self.store(usize::MAX);
            for stream in 0..TOPICS.len() {
                self.take(stream);
            }
            self.finish(0);
            self.look();
            let quiet = self.agent.outgoing().is_empty() && self.server.outgoing().is_empty();
            if quiet && self.hand.is_empty() && self.agent.journal().is_empty() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn end(&mut self) {
        self.settle();
        // Packets of the lost connection are sent again on the next one.
        self.cut();
        self.settle();
        assert_eq!((self.agent.pending(), self.server.pending()), (0, 0));
        for message in &self.accepted {
            let n = times(&self.served, message.number);
            let what = format!("{:?} {} came {n} times", message.qos, message.number);
            match message.qos {
                QoS::ExactlyOnce => assert!(n <= 1 && (n == 1 || !message.told), "{what}"),
                _ => assert!(n >= 1 || !message.told, "{what}"),
            }
        }
        for &(number, qos) in &self.published {
            let n = times(&self.effects, number);
            let what = format!("{qos:?} {number} had effect {n} times");
            let once = qos == QoS::ExactlyOnce && self.has_notes;
            assert!(if once { n == 1 } else { n >= 1 }, "{what}");
        }
        let twos = self
            .served
            .iter()
            .filter(|(_, qos)| *qos == QoS::ExactlyOnce);
        assert!(twos.is_sorted(), "QoS 2 out of order at the server");
    }
}

fn times(list: &[(u32, QoS)], number: u32) -> usize {
    list.iter().filter(|(known, _)| *known == number).count()
}

fn number_of(payload: &[u8]) -> u32 {
    let digits = std::str::from_utf8(&payload[..6]).expect("digits");
    digits.parse().expect("a number")
}

/// Returns the identifiers of one kind of acknowledgement.
fn ids(bytes: &[u8], version: Version, kind: AckKind) -> BTreeSet<u16> {
    let id = |packet| match (packet, kind) {
        (Packet::PubRec(ack), AckKind::PubRec) => Some(ack.packet_id.get()),
        _ => None,
    };
    packets_in(bytes, version).filter_map(id).collect()
}

/// Returns the identifiers of messages at QoS 2.
fn published(bytes: &[u8], version: Version) -> Vec<u16> {
    let id = |packet| match packet {
        Packet::Publish(publish) if publish.qos() == QoS::ExactlyOnce => {
            publish.delivery.packet_id()
        }
        _ => None,
    };
    let ids = packets_in(bytes, version).filter_map(id);
    ids.map(|id| id.get()).collect()
}
