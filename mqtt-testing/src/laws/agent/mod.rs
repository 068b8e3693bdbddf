//! The law of the agent: for any calls in any order, from the program, from the transport and from a server that may send
//! anything, the agent never panics, writes only valid packets, ends each token once, reports each answer to a SUBSCRIBE once on
//! each connection, gives a message to each inbox once, stays within its limits, and stops after it is closed and its time limit
//! is over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::BytesMut;
use mqtt_agent::{
    Accepted, AcknowledgeWhen, Agent, AgentEvent, ConnectionEvent, Error, Flow, MessageId,
    NextDial, Options, Position, QoS0Overflow, RequestId, RouteId, Unclaimed,
};
use mqtt_proto::{Properties, QoS, ReasonCode, Subscription, TopicFilter, TopicName, Version};
use mqtt_session::{Instant, Offline, Outgoing, Refused, SessionLost, Token};

mod server;

use self::server::Server;
use crate::choices::Choices;
use crate::packets::encode;
use crate::packets::generated::{types, with_packet};

/// The messages that one inbox gave out.
#[derive(Default)]
struct Stream {
    in_hand: Vec<MessageId>,
    got: HashSet<MessageId>,
}

/// A message that a stream gave out.
struct Given {
    id: Option<MessageId>,
    /// How many connections had ended before.
    losses: u32,
    /// Whether the program is done with it.
    finished: bool,
    /// Whether the program acknowledged it with a reason code that is an error.
    refused: bool,
}

struct Trial<'a> {
    agent: Agent,
    version: Version,
    choices: Choices<'a>,
    now: Instant,
    input: BytesMut,
    /// Whether the transport is open.
    up: bool,
    /// How many connections have ended.
    losses: u32,
    server: Server,
    streams: BTreeMap<Option<RouteId>, Stream>,
    /// Subscriptions that were answered on this connection.
    answered: HashSet<RouteId>,
    leaving: HashSet<RouteId>,
    over: HashSet<RouteId>,
    tokens: HashSet<Token>,
    ended: HashSet<Token>,
    /// How many tokens belong to requests.
    hidden: usize,
    positions: Vec<Position>,
    requests: BTreeSet<RequestId>,
    /// Messages of an honest server, by stream and number.
    given: HashMap<(Option<RouteId>, u32), Given>,
    closing: bool,
    stopped: bool,
}

const TOPICS: [&str; 4] = ["a/b", "a/c", "b", "response/law"];
const FILTERS: [&str; 5] = ["a/b", "a/+", "#", "b", "$share/g/a/c"];
/// No message counts more bytes than this.
const LARGEST: usize = 1_000;

/// Runs one agent with the decisions in `choices`.
///
/// # Panics
/// The law is broken.
pub fn withstands(choices: &[u8], version: Version) {
    let mut choices = Choices::new(choices);
    let mut options = Options::new("broker", 1883);
    options.version = version;
    options.client_id = "law".to_owned();
    options.clean_start = choices.flag();
    options.session_expiry = choices.pick(&[0, 100]);
    options.receive_maximum = choices.pick(&[1, 3, 256]);
    options.acknowledge = choices.pick(&[
        AcknowledgeWhen::Taken,
        AcknowledgeWhen::ByHand,
        AcknowledgeWhen::Arrived,
    ]);
    options.unclaimed = choices.pick(&[Unclaimed::Hold, Unclaimed::Discard]);
    options.receive_limit = choices.pick(&[64 << 20, 500, 1]);
    options.qos0_queue = choices.pick(&[16_384, 1, 2]);
    options.qos0_overflow = choices.pick(&[
        QoS0Overflow::DropOldest,
        QoS0Overflow::DropNewest,
        QoS0Overflow::PauseReading,
    ]);
    options.config.offline = choices.pick(&[Offline::Keep, Offline::Reject, Offline::DropOldest]);
    options.config.session_lost = choices.pick(&[SessionLost::SendAgain, SessionLost::HandBack]);
    options.config.window = 1 + u16::from(choices.byte() % 4);
    options.config.queue = 1 + u16::from(choices.byte() % 8);
    options.config.requests = 1 + choices.byte() % 4;
    options.config.outgoing_limit = choices.pick(&[256 << 10, 256]);
    options.back_off.attempts = choices.pick(&[None, None, None, Some(3)]);
    options.back_off.longest = Duration::from_secs(4);
    if choices.flag() {
        options.subscribe("b", QoS::AtLeastOnce).expect("valid");
    }
    let mut trial = Trial::new(Agent::new(options), version, choices);
    while !trial.choices.is_empty() {
        trial.operate();
        trial.look();
        trial.check();
    }
    trial.end();
}

impl<'a> Trial<'a> {
    fn new(agent: Agent, version: Version, choices: Choices<'a>) -> Self {
        Self {
            agent,
            version,
            choices,
            now: Instant::from_millis(0),
            input: BytesMut::new(),
            up: false,
            server: Server::default(),
            losses: 0,
            streams: BTreeMap::from([(None, Stream::default())]),
            answered: HashSet::new(),
            leaving: HashSet::new(),
            over: HashSet::new(),
            tokens: HashSet::new(),
            ended: HashSet::new(),
            hidden: 0,
            positions: Vec::new(),
            requests: BTreeSet::new(),
            given: HashMap::new(),
            closing: false,
            stopped: false,
        }
    }

    fn operate(&mut self) {
        match self.choices.below(26) {
            0..=2 => self.dial(),
            3 => self.lose(),
            4..=8 => self.server_answers(),
            9..=12 => self.server_publishes(),
            13 => self.server_sends_anything(),
            14 => self.transport_takes(),
            15..=16 => self.time(),
            17 => self.subscribe(),
            18 => self.give_up(),
            19..=20 => self.publish(),
            21..=22 => self.take_next(),
            23 => self.done(),
            24 => self.request(),
            _ => self.rarely(),
        }
    }

    /// Asks the agent when to dial, and dials or not.
    fn dial(&mut self) {
        let next = self.agent.next_dial(self.now);
        if let NextDial::At(until) = next {
            assert!(until > self.now, "it waits until a moment that is past");
        }
        if next == NextDial::Now && self.choices.below(8) > 0 && self.agent.opened(self.now).is_ok()
        {
            self.hang_up();
            self.up = true;
        }
    }

    /// Ends the connection. All bytes in flight, in both directions, are lost.
    fn hang_up(&mut self) {
        self.input.clear();
        self.up = false;
        let server = &mut self.server;
        server.accepted = false;
        server.heard.clear();
        server.answers.clear();
        self.answered.clear();
        self.losses += 1;
    }

    fn lose(&mut self) {
        let why = self.choices.pick(&["the server", "a test"]);
        let random = self.choices.u32();
        self.lost(Error::TimedOut(why), random);
    }

    fn lost(&mut self, why: Error, random: u32) {
        self.agent.lost(why, self.now, random);
        self.hang_up();
    }

    /// The transport takes some of the outgoing bytes, and the server reads them.
    fn transport_takes(&mut self) {
        let n = usize::from(self.choices.byte()) * 2;
        let outgoing = self.agent.outgoing();
        let all = n >= outgoing.len();
        let taken = &outgoing[..n.min(outgoing.len())];
        let n = taken.len();
        if self.up {
            self.server.heard.extend_from_slice(taken);
        }
        // A number beyond the outgoing bytes must have no effect.
        self.agent.sent(if all { n + 5 } else { n });
        self.server.read(self.version);
    }

    /// Usually writes the outgoing bytes; then one answer of the server arrives.
    fn server_answers(&mut self) {
        if self.up && self.choices.below(4) > 0 {
            let outgoing = self.agent.outgoing();
            let n = outgoing.len();
            self.server.heard.extend_from_slice(outgoing);
            self.agent.sent(n);
            self.server.read(self.version);
        }
        if let Some(answer) = self.server.answers.pop_front() {
            self.server.accepted = true;
            self.feed(&answer);
        }
    }

    /// The server sends a message, or the same one again, as a broken server does.
    fn server_publishes(&mut self) {
        let (qos, topic) = (
            self.choices
                .pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
            self.choices.pick(&TOPICS),
        );
        if !self.up || !self.server.accepted {
            return;
        }
        let bytes = self.server.publish(qos, topic, self.version);
        self.feed(&bytes);
    }

    /// The server sends bytes that no server sends, or a packet at the wrong time.
    fn server_sends_anything(&mut self) {
        let version = self.version;
        let bytes = if self.choices.flag() {
            self.choices.slice(20).to_vec()
        } else {
            let types: Vec<_> = types(version).collect();
            let packet_type = self.choices.pick(&types);
            with_packet(packet_type, version, &mut self.choices, |packet| {
                encode(packet, version)
            })
        };
        self.server.dishonest = true;
        self.feed(&bytes);
    }

    fn feed(&mut self, bytes: &[u8]) {
        let at = bytes.len().min(usize::from(self.choices.byte()));
        for part in [&bytes[..at], &bytes[at..]] {
            self.input.extend_from_slice(part);
            match self.agent.receive(&mut self.input, self.now) {
                Ok(flow) => assert_eq!(
                    flow == Flow::Paused,
                    self.agent.is_paused() && self.agent.is_connected(),
                    "{flow:?}, {:?}",
                    self.agent
                ),
                Err(error) => {
                    // A program that does not report the lost connection must cause no failure.
                    if self.choices.below(4) > 0 {
                        self.lost(error, 7);
                    }
                    return;
                }
            }
        }
        let held = self.agent.held_bytes();
        let most = self.agent.options().receive_limit + LARGEST * (self.streams.len() + 1);
        assert!(held <= most, "{held} bytes are held, {most} may be");
    }

    fn time(&mut self) {
        let millis = u64::from(self.choices.u16());
        self.now = later(self.now, millis);
        match self.agent.tick(self.now) {
            Err(error) => self.lost(error, 9),
            Ok(()) => {
                let stopped = self.agent.is_stopped();
                let deadline = self.agent.deadline();
                assert!(
                    stopped || deadline.is_none_or(|at| at > self.now),
                    "after a tick at {:?} the next is due at {deadline:?}",
                    self.now
                );
                self.look();
                assert!(
                    self.tokens.len() <= self.agent.pending(),
                    "{:?} can never end: {:?}",
                    self.tokens,
                    self.agent
                );
            }
        }
    }

    fn subscribe(&mut self) {
        let count = 1 + self.choices.below(2);
        let mut filters: Vec<_> = (0..count).map(|_| self.choices.pick(&FILTERS)).collect();
        filters.sort_unstable();
        filters.dedup();
        let qos = self
            .choices
            .pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let list: Vec<_> = filters
            .iter()
            .map(|filter| Subscription::new(TopicFilter::new(filter).expect("valid"), qos))
            .collect();
        if self.choices.below(8) == 0 {
            let list: Vec<_> = list
                .iter()
                .map(|subscription| subscription.filter)
                .collect();
            let id = self.agent.unsubscribe_filters(&list, self.now);
            self.leaving.insert(id);
            return;
        }
        let id = self.agent.subscribe(&list, &Properties::EMPTY, self.now);
        self.streams.insert(Some(id), Stream::default());
    }

    fn give_up(&mut self) {
        let from = self.any_stream();
        let forget = self.choices.flag();
        let Some(id) = from else {
            let others = self.streams.entry(None).or_default();
            for id in &others.in_hand {
                self.agent.give_back(*id);
            }
            self.agent.leave_others();
            others.got.clear();
            others.in_hand.clear();
            return;
        };
        self.leaving.insert(id);
        if forget {
            self.agent.forget(id, self.now);
            self.streams.remove(&from);
            // The unfinished messages of the stream go to the others, even if that stream had them before.
            self.streams.entry(None).or_default().got.clear();
        } else {
            self.agent.unsubscribe(id, self.now);
        }
    }

    /// Returns any of the streams; the same one for the same choices.
    fn any_stream(&mut self) -> Option<RouteId> {
        let streams: Vec<_> = self.streams.keys().copied().collect();
        self.choices.pick(&streams)
    }

    fn publish(&mut self) {
        let qos = self
            .choices
            .pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let topic = TopicName::new(self.choices.pick(&TOPICS)).expect("valid");
        let payload = self.choices.slice(40);
        let message = Outgoing::new(topic, qos, payload);
        match self.agent.publish(&message, self.now) {
            Ok(Accepted::Token(token)) => assert!(self.tokens.insert(token), "{token:?} is used"),
            Ok(Accepted::Position(at)) => self.positions.push(at),
            Err(refused) => assert!(
                refused != Refused::WrongPhase || self.closing || self.agent.is_stopped(),
                "publish is refused"
            ),
        }
        assert!(!self.closing || self.agent.publish(&message, self.now).is_err());
    }

    fn take_next(&mut self) {
        let from = self.any_stream();
        let Some(received) = self.agent.next_message(from) else {
            return;
        };
        let stream = self.streams.entry(from).or_default();
        if let Some(id) = received.id() {
            // Each message has a unique number in the agent, even if the server sends it again.
            assert!(stream.got.insert(id), "{from:?} gives {id:?} twice");
            stream.in_hand.push(id);
        }
        let number = Server::number_of(&received.payload);
        let (Some(number), false) = (number, self.server.dishonest) else {
            return;
        };
        let key = (from, number);
        let given = Given {
            id: received.id(),
            losses: self.losses,
            finished: false,
            refused: false,
        };
        let Some(before) = self.given.insert(key, given) else {
            return;
        };
        let fine = match received.qos {
            // The stream of the others may get messages that another stream did not finish.
            _ if from.is_none() => true,
            QoS::AtMostOnce => false,
            // The message was refused, and the refusal may be lost with the connection.
            QoS::ExactlyOnce => before.refused && before.losses < self.losses,
            QoS::AtLeastOnce => match self.agent.options().acknowledge {
                AcknowledgeWhen::Arrived => true,
                // A message that was not acknowledged before a reconnect comes again.
                AcknowledgeWhen::ByHand => before.losses < self.losses,
                // The message was acknowledged, and the acknowledgement may be lost with the connection.
                _ => before.finished && before.losses < self.losses,
            },
        };
        assert!(fine, "{from:?} gives message {number} twice: {received:?}");
    }

    /// The program takes a message, or one that it does not have.
    fn done(&mut self) {
        let from = self.any_stream();
        let Some(stream) = self.streams.get_mut(&from) else {
            return;
        };
        if stream.in_hand.is_empty() {
            return;
        }
        let id = stream.in_hand[self.choices.below(stream.in_hand.len())];
        let reason = self
            .choices
            .pick(&[ReasonCode::Success, ReasonCode::QuotaExceeded]);
        let mut refused = false;
        if self.choices.flag() {
            self.agent.taken(from, id, self.now);
        } else {
            let accepted = self.agent.acknowledge(id, reason, self.now).is_ok();
            refused = accepted && reason.is_error() && self.version.is_v5();
        }
        for given in self.given.values_mut() {
            given.finished |= given.id == Some(id);
            given.refused |= given.id == Some(id) && refused;
        }
        if self.choices.below(4) > 0 {
            stream.in_hand.retain(|known| *known != id);
        }
    }

    fn request(&mut self) {
        let topic = TopicName::new("b").expect("valid");
        let qos = self
            .choices
            .pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let message = Outgoing::new(topic, qos, b"?");
        let pending = self.agent.pending();
        match self.agent.request(&message, self.now) {
            Ok(id) => {
                assert!(self.requests.insert(id));
                // The token belongs to the agent, but its end is reported.
                self.hidden += self.agent.pending().saturating_sub(pending);
            }
            Err(_) => return,
        }
        if self.choices.below(4) == 0
            && let Some(id) = self.requests.iter().next().copied()
        {
            self.agent.forget_request(id);
            self.requests.remove(&id);
        }
    }

    fn rarely(&mut self) {
        match self.choices.below(8) {
            0 => {
                let by = later(self.now, u64::from(self.choices.u16()));
                self.agent.close(by, self.now);
                self.closing = true;
            }
            1 => {
                // A second call without a dial.
                if self.agent.opened(self.now).is_ok() {
                    self.hang_up();
                    self.up = true;
                }
            }
            2 => drop(self.agent.unsent()),
            3 => {
                let _ = self
                    .agent
                    .receive(&mut BytesMut::from(&b"\xD0\0"[..]), self.now);
            }
            _ => self.server_answers(),
        }
    }

    /// Takes the events of the agent.
    fn look(&mut self) {
        while let Some(event) = self.agent.next_event() {
            match event {
                AgentEvent::Published(token, _) => {
                    assert!(self.ended.insert(token), "{token:?} ends twice");
                    if !self.tokens.remove(&token) {
                        assert!(self.hidden > 0, "{token:?} ends and was never given");
                        self.hidden -= 1;
                    }
                }
                AgentEvent::Subscribed(id, _) | AgentEvent::SubscribeFailed(id, _) => {
                    assert!(!self.over.contains(&id), "{id:?} is over and answered");
                    assert!(
                        self.answered.insert(id),
                        "{id:?} is answered twice on one connection"
                    );
                }
                AgentEvent::Unsubscribed(id, _) => {
                    assert!(self.leaving.contains(&id), "nobody gave up {id:?}");
                    assert!(self.over.insert(id), "{id:?} is given up twice");
                }
                AgentEvent::Response(id, _) => {
                    assert!(self.requests.remove(&id), "{id:?} has two responses");
                }
                AgentEvent::Connection(ConnectionEvent::Stopped(_)) => {
                    assert!(
                        !core::mem::replace(&mut self.stopped, true),
                        "it stops twice"
                    );
                }
                _ => {}
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.agent.is_stopped(), self.stopped);
        if self.agent.is_connected() {
            assert!(self.agent.is_up(), "connected without a transport");
        }
    }

    /// Closes the agent, and runs its driver to the end.
    fn end(&mut self) {
        let by = later(self.now, 10);
        self.agent.close(by, self.now);
        for _ in 0..3 {
            self.now = later(self.now, 1_000);
            if let Err(error) = self.agent.tick(self.now) {
                self.lost(error, 1);
            }
            self.look();
        }
        assert_eq!(
            self.agent.next_dial(self.now),
            NextDial::Never,
            "{:?}",
            self.agent
        );
        self.look();
        assert!(self.stopped);
        for at in &self.positions {
            assert!(self.agent.outcome(*at).is_some(), "{at:?} has no end");
        }
        assert!(self.requests.is_empty(), "{:?} have no end", self.requests);
    }
}

fn later(now: Instant, millis: u64) -> Instant {
    Instant::from_millis(now.as_millis() + millis)
}
