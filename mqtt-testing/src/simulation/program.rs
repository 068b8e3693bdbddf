//! Runs the programs. Each has an agent and takes messages from its streams at its own speed; some publish the received messages.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::BytesMut;
use mqtt_agent::{
    Accepted, AcknowledgeWhen, Agent, AgentEvent, ConnectionEvent, MessageId, QoS0Overflow,
    ReceivedMessage, RouteId,
};
use mqtt_proto::{PacketId, QoS, ReasonCode, TopicName, Version};
use mqtt_session::{Outgoing, Refused, Token};

use super::clients::Durable;
use super::expectations::{Heard, Moment};
use super::wire::{Wire, number_of};
use super::world::World;

/// A topic filter with its options.
pub(super) type Filter = (String, QoS, bool);

/// Whether a program publishes what it receives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bridge {
    No,
    /// The program takes the next message when the agent has accepted the publish.
    Accepted,
    /// The program takes the next message when the broker has acknowledged the publish.
    Acknowledged,
}

/// The work on the message in hand.
#[derive(Debug)]
enum Task {
    /// The work is done.
    Done,
    /// The message is to be published to this topic.
    Publish(String),
    /// The publish is to be acknowledged.
    Await(Token),
}

/// The result of work on a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Work {
    Finished,
    Goes,
    Waits,
}

#[derive(Debug)]
struct Hand {
    received: ReceivedMessage,
    number: Option<u32>,
    /// For how many turns the program works on the message.
    patience: usize,
    task: Task,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: Option<RouteId>,
    /// The route of the stream of unclaimed messages, if the options have subscriptions.
    learned: Option<RouteId>,
    /// The index of the stream among the noted streams.
    pub(super) fact: usize,
    pub(super) filters: Vec<Filter>,
    /// The indexes of the stream's subscriptions among the noted ones.
    pub(super) records: Vec<usize>,
    /// Whether there may be a message: the agent reported one, or the program has not asked yet.
    ready: bool,
    hand: Option<Hand>,
    pub(super) leaving: bool,
    /// Whether UNSUBACK has come.
    left: bool,
}

impl Stream {
    pub(super) fn new(id: Option<RouteId>, fact: usize, filters: Vec<Filter>) -> Self {
        Self {
            id,
            learned: None,
            fact,
            filters,
            records: Vec::new(),
            ready: true,
            hand: None,
            leaving: false,
            left: false,
        }
    }

    /// Returns whether the stream has no work.
    pub(super) const fn is_idle(&self) -> bool {
        self.hand.is_none() && !self.ready
    }

    /// Returns the number of the message in hand.
    pub(super) fn in_hand(&self) -> Option<u32> {
        self.hand.as_ref().and_then(|hand| hand.number)
    }
}

pub(super) struct Node {
    pub(super) name: String,
    pub(super) version: Version,
    /// Whether its session is kept.
    pub(super) persistent: bool,
    pub(super) agent: Agent,
    /// The disk of the client, if it has one.
    pub(super) durable: Option<Box<Durable>>,
    pub(super) wire: Option<Wire>,
    pub(super) input: BytesMut,
    pub(super) connected: bool,
    /// How many connections this process had.
    pub(super) connections: u32,
    /// The number of this process.
    pub(super) process: u32,
    /// Published messages that have not ended.
    pub(super) asked: HashMap<Token, u32>,
    /// Filters that are unsubscribed without a stream.
    pub(super) giving_up: HashMap<RouteId, (String, Moment)>,
    pub(super) will: Option<u32>,
    /// How many bytes it reads at once.
    pub(super) reads: usize,
    pub(super) active: bool,
    pub(super) slow: bool,
    pub(super) bridge: Bridge,
    /// Whether the program reads unclaimed messages only after it has made all its subscriptions.
    pub(super) late: bool,
    /// Subscriptions that are still to be made.
    pub(super) to_subscribe: VecDeque<Vec<Filter>>,
    pub(super) streams: Vec<Stream>,
    /// Messages that are to be acknowledged by hand.
    pub(super) in_hands: Vec<(MessageId, u32)>,
    /// Messages that were acknowledged by hand; another stream may give them out as well.
    pub(super) by_hand: HashSet<MessageId>,
    /// The last message under each identifier.
    pub(super) arrived: HashMap<(QoS, PacketId), u32>,
    /// Received messages whose acknowledgement has not reached the broker, and whether each has QoS 1 and the program is done
    /// with it.
    pub(super) unsettled: HashMap<u32, bool>,
    /// Messages that the program received at QoS 2.
    pub(super) exactly_once: HashSet<u32>,
    /// Messages that this process received.
    pub(super) heard: HashSet<u32>,
    /// Messages that arrived, were acknowledged on arrival, and wait.
    pub(super) died: HashSet<u32>,
    /// Identifiers of QoS 2 messages that earlier processes did not finish. The broker may take the next message with such an
    /// identifier for a repetition.
    pub(super) half_sent: HashSet<PacketId>,
    /// Messages of this process that the broker may take for a repetition.
    pub(super) doubtful: HashSet<u32>,
    /// The time limit of closing.
    pub(super) closing: Option<u64>,
}

impl Node {
    pub(super) fn acknowledges_on_receipt(&self) -> bool {
        self.agent.options().acknowledge == AcknowledgeWhen::Arrived
    }

    /// Returns all unfinished work, for the report of a failure.
    pub(super) fn unfinished(&self) -> Option<String> {
        let streams: Vec<_> = self
            .streams
            .iter()
            .filter(|stream| !stream.is_idle() || self.agent.waiting(stream.id) > 0)
            .collect();
        let ungranted = !self.to_subscribe.is_empty() || !self.giving_up.is_empty();
        let finished = self.connected
            && self.agent.pending() == 0
            && self.asked.is_empty()
            && streams.is_empty()
            && self.in_hands.is_empty()
            && !self.agent.is_paused()
            && self.agent.held_bytes() == 0
            && !ungranted;
        (!finished).then(|| {
            format!(
                "connected {}, {} pending, {} to write, asked {:?}, giving up {:?}, streams {streams:?}, in hands {:?}, {:?}",
                self.connected,
                self.agent.pending(),
                self.agent.outgoing().len(),
                self.asked,
                self.giving_up,
                self.in_hands,
                self.agent
            )
        })
    }
}

impl World {
    /// Handles all events of the agent of a client.
    pub(super) fn look(&mut self, n: usize) {
        while let Some(event) = self.nodes[n].agent.next_event() {
            self.trace(n, format_args!("is told {event:?}"));
            self.happened(n, event);
        }
    }

    fn happened(&mut self, n: usize, event: AgentEvent) {
        let moment = self.tick_moment();
        let node = &mut self.nodes[n];
        match event {
            AgentEvent::Connection(ConnectionEvent::Connected(connected)) => {
                node.connected = true;
                node.connections += 1;
                self.expectations.lives[n].whole_since = moment;
                if !connected.session_present {
                    self.session_lost(n, moment);
                }
            }
            AgentEvent::Published(token, outcome) => {
                let Some(number) = node.asked.remove(&token) else {
                    self.fail(n, format!("the end of what nobody published: {token:?}"));
                    return;
                };
                let published = self.expectations.published.get_mut(&number);
                // The end of a message at QoS 1 does not free an identifier for QoS 2.
                if published.as_ref().is_none_or(|p| p.qos == QoS::ExactlyOnce) {
                    token.packet_id().map(|id| node.half_sent.remove(&id));
                }
                if let Some(published) = published
                    && outcome.is_success()
                    && !node.doubtful.remove(&number)
                    && published.qos > QoS::AtMostOnce
                {
                    published.acknowledged = Some(moment);
                }
                self.permit_in_doubt(n, number, outcome);
            }
            AgentEvent::Messages(from) => {
                if let Some(stream) = node.streams.iter_mut().find(|s| s.id == from) {
                    stream.ready = true;
                }
            }
            AgentEvent::Subscribed(id, codes) => self.subscribed(n, id, &codes, moment),
            AgentEvent::SubscribeFailed(id, error) => {
                self.fail(n, format!("subscription {id:?} failed: {error}"));
            }
            AgentEvent::Unsubscribed(id, _) => self.unsubscribed(n, id, moment),
            _ => {}
        }
    }

    fn subscribed(&mut self, n: usize, id: RouteId, codes: &[ReasonCode], moment: Moment) {
        let node = &mut self.nodes[n];
        let stream = node.streams.iter_mut().find(|stream| {
            stream.id == Some(id)
                || (stream.id.is_none() && stream.learned.is_none_or(|known| known == id))
                    && !stream.filters.is_empty()
        });
        let Some(stream) = stream else { return };
        if stream.id.is_none() {
            stream.learned = Some(id);
        }
        let life = &mut self.expectations.lives[n];
        life.streams[stream.fact].granted = Some(moment);
        for at in &stream.records {
            let (before, rest) = life.subscribed.split_at_mut(*at);
            rest[0].granted = Some(moment);
            // This replaces an earlier subscription.
            for old in before.iter_mut().filter(|old| old.filter == rest[0].filter) {
                old.leaving.get_or_insert(moment);
                old.gone.get_or_insert(moment);
            }
        }
        if codes.len() != stream.records.len() || codes.iter().any(|code| code.is_error()) {
            self.fail(n, format!("subscribed with {codes:?}"));
        }
    }

    fn unsubscribed(&mut self, n: usize, id: RouteId, moment: Moment) {
        let node = &mut self.nodes[n];
        let life = &mut self.expectations.lives[n];
        let (filters, at) = match node.giving_up.remove(&id) {
            Some((filter, at)) => (vec![filter], Some(at)),
            None => match node.streams.iter_mut().find(|s| s.id == Some(id)) {
                Some(stream) => {
                    stream.left = true;
                    let filters = stream.filters.iter().map(|f| f.0.clone()).collect();
                    (filters, life.streams[stream.fact].leaving)
                }
                None => return,
            },
        };
        // A filter that another stream has stays at the broker until the UNSUBACK of that stream.
        let kept = |filter: &String| {
            let mut others = node.streams.iter().filter(|other| !other.left);
            others.any(|other| other.filters.iter().any(|known| known.0 == *filter))
        };
        for old in &mut life.subscribed {
            // A later SUBSCRIBE goes out later.
            if at.is_some_and(|at| at < old.asked) {
                continue;
            }
            let ends = old.leaving.is_some() && !old.may_stay;
            if ends && filters.contains(&old.filter) && !kept(&old.filter) {
                old.gone.get_or_insert(moment);
            }
        }
    }

    /// When the broker has no session, the agent subscribes again by itself.
    fn session_lost(&mut self, n: usize, moment: Moment) {
        let node = &mut self.nodes[n];
        let life = &mut self.expectations.lives[n];
        // The agent may also subscribe to the filters of earlier processes that it finds in its records.
        let mut restored = Vec::new();
        if node.durable.is_some() {
            let filters = life.subscribed.iter();
            restored.extend(filters.map(|old| (old.filter.clone(), old.qos, old.no_local)));
            restored.sort();
            restored.dedup();
        }
        life.heard.clear();
        life.permits.clear();
        life.came_again.clear();
        life.died.clear();
        life.new_sessions.push(moment);
        node.unsettled.clear();
        node.exactly_once.clear();
        node.arrived.clear();
        node.died.clear();
        node.half_sent.clear();
        node.doubtful.clear();
        if node.connections == 1 {
            // No earlier message waits in this process.
            life.cut = false;
            life.subscribed.clear();
        }
        for old in &mut life.subscribed {
            old.lost = true;
            old.leaving.get_or_insert(moment);
            old.gone.get_or_insert(moment);
        }
        for (filter, qos, no_local) in restored {
            life.ask(&filter, qos, no_local, moment);
        }
        for fact in &mut life.streams {
            fact.granted = None;
        }
        for stream in &mut node.streams {
            stream.records.clear();
            if stream.leaving {
                continue;
            }
            for (filter, qos, no_local) in &stream.filters {
                stream
                    .records
                    .push(life.ask(filter, *qos, *no_local, moment));
            }
        }
    }

    /// Lets every program work. Returns whether one did anything.
    pub(super) fn step_all(&mut self) -> bool {
        let mut any = false;
        for n in 0..self.nodes.len() {
            any |= self.step(n, true);
        }
        any
    }

    /// Lets a program work on each of its streams. With `eager` it does not wait.
    pub(super) fn step(&mut self, n: usize, eager: bool) -> bool {
        let mut any = false;
        let mut at = 0;
        while at < self.nodes[n].streams.len() {
            let node = &self.nodes[n];
            let waits = at == 0 && node.late && !node.to_subscribe.is_empty();
            if node.streams[at].is_idle() || waits {
                at += 1;
                continue;
            }
            let mut turns = if eager || !node.slow { 50 } else { 1 };
            while turns > 0 && self.turn(n, at, eager) {
                any = true;
                turns -= 1;
            }
            if !self.end_of_stream(n, at) {
                at += 1;
            }
        }
        while let Some((id, number)) = self.by_hand(n, eager) {
            any = true;
            match self.acknowledge(n, id, number) {
                Ok(()) => self.done_with(n, number),
                // The connection of the message is lost, so the message comes again.
                Err(Refused::NothingToAcknowledge) if self.expectations.lives[n].cut => {}
                Err(refused) => {
                    self.fail(n, format!("{number} is not acknowledged: {refused}"));
                }
            }
        }
        if any {
            self.look(n);
            if let Err(error) = self.read(n) {
                self.cut(n, false, error);
            }
            self.activate(n);
        }
        any
    }

    /// Returns a message to be acknowledged by hand now, in any order.
    fn by_hand(&mut self, n: usize, eager: bool) -> Option<(MessageId, u32)> {
        let hands = self.nodes[n].in_hands.len();
        if hands == 0 || (!eager && self.random.once_in(3)) {
            return None;
        }
        let at = self.random.below(hands);
        Some(self.nodes[n].in_hands.swap_remove(at))
    }

    /// Takes one step with one stream. Returns whether anything was done.
    fn turn(&mut self, n: usize, at: usize, eager: bool) -> bool {
        let Some(mut hand) = self.nodes[n].streams[at].hand.take() else {
            return self.next(n, at);
        };
        match self.work(n, &mut hand, eager) {
            Work::Finished => {
                let now = self.instant();
                if let Some(number) = hand.number {
                    self.done_with(n, number);
                }
                let from = self.nodes[n].streams[at].id;
                if let Some(id) = hand.received.id() {
                    let number = hand.number.unwrap_or(0);
                    self.finish(n, number, |agent| agent.taken(from, id, now));
                }
                true
            }
            work => {
                self.nodes[n].streams[at].hand = Some(hand);
                work == Work::Goes
            }
        }
    }

    /// Works on the message in hand.
    fn work(&mut self, n: usize, hand: &mut Hand, eager: bool) -> Work {
        if hand.patience > 0 && !eager {
            hand.patience -= 1;
            return Work::Goes;
        }
        match &hand.task {
            Task::Done => Work::Finished,
            Task::Await(token) if self.nodes[n].asked.contains_key(token) => Work::Waits,
            Task::Await(_) => Work::Finished,
            Task::Publish(topic) => {
                let number = self.next_number();
                let payload = number.to_string();
                let qos = hand.received.qos;
                let name = TopicName::new(topic).expect("valid");
                let message = Outgoing::new(name, qos, payload.as_bytes());
                let facts = super::expectations::Published::new(n, topic.clone(), qos);
                let Some(published) = self.publish_message(n, number, &message, facts) else {
                    // A program that closes does not continue.
                    let closing = self.nodes[n].closing.is_some();
                    return if closing { Work::Finished } else { Work::Waits };
                };
                hand.task = match published {
                    Accepted::Token(token) if self.nodes[n].bridge == Bridge::Acknowledged => {
                        Task::Await(token)
                    }
                    _ => Task::Done,
                };
                Work::Goes
            }
        }
    }

    /// Notes that the program is done with a message.
    fn done_with(&mut self, n: usize, number: u32) {
        let node = &mut self.nodes[n];
        if let Some(taken) = node.unsettled.get_mut(&number) {
            *taken = !node.exactly_once.contains(&number);
        }
    }

    /// Asks for the next message.
    fn next(&mut self, n: usize, at: usize) -> bool {
        let patience = self.random.below(4);
        let node = &mut self.nodes[n];
        let stream = &mut node.streams[at];
        let Some(received) = node.agent.next_message(stream.id) else {
            stream.ready = false;
            return false;
        };
        self.report.received += 1;
        let number = number_of(&received.payload);
        let topic = received.topic().to_string();
        let fact = stream.fact;
        let by_hand = node.agent.options().acknowledge == AcknowledgeWhen::ByHand;
        let bridges = node.bridge != Bridge::No && node.closing.is_none();
        let task = match topic.strip_prefix("t/") {
            Some(rest) if bridges && !received.retain && number.is_some() => {
                Task::Publish(format!("b/{rest}"))
            }
            _ => Task::Done,
        };
        if let (true, Some(id)) = (by_hand, received.id())
            && node.by_hand.insert(id)
        {
            node.in_hands.push((id, number.unwrap_or(0)));
        }
        let patience = if node.slow { patience } else { 0 };
        let hand = Hand {
            received,
            number,
            patience,
            task,
        };
        if let Some(number) = number {
            let heard = Heard {
                number,
                topic,
                qos: hand.received.qos,
                dup: hand.received.dup,
                retain: hand.received.retain,
                at: 0,
                stream: fact,
            };
            self.hear(n, heard);
        }
        self.trace(
            n,
            format_args!(
                "gets {number:?} in stream {fact}, {:?}, dup {}",
                hand.received.qos, hand.received.dup
            ),
        );
        self.nodes[n].streams[at].hand = Some(hand);
        true
    }

    /// Notes a received message.
    fn hear(&mut self, n: usize, mut heard: Heard) {
        heard.at = self.tick_moment();
        let number = heard.number;
        self.expectations.ever_heard.insert(number);
        let node = &mut self.nodes[n];
        // The acknowledgement on arrival may have reached the broker before.
        if !node.died.remove(&number) && heard.qos > QoS::AtMostOnce {
            node.unsettled.entry(number).or_insert(false);
        }
        if heard.qos == QoS::ExactlyOnce {
            node.exactly_once.insert(number);
        }
        if !node.heard.insert(number) {
            self.report.repeated += 1;
        }
        self.expectations.lives[n].heard.push(heard);
    }

    /// Drops a stream that has ended. Returns whether it has.
    fn end_of_stream(&mut self, n: usize, at: usize) -> bool {
        let (now, moment) = (self.instant(), self.moment);
        let node = &mut self.nodes[n];
        let stream = &node.streams[at];
        let (Some(id), true, true) = (stream.id, stream.leaving, stream.is_idle()) else {
            return false;
        };
        if !node.agent.is_over(Some(id)) || node.agent.is_stopped() {
            return false;
        }
        let stream = node.streams.remove(at);
        node.agent.forget(id, now);
        self.expectations.lives[n].streams[stream.fact].closed = Some(moment);
        true
    }

    /// Checks that the agent is within its limits.
    pub(super) fn check_limits(&mut self, n: usize) {
        let node = &self.nodes[n];
        let options = node.agent.options();
        let held = node.agent.held_bytes();
        // A message that was acknowledged on arrival counts once for each stream.
        let times = match node.acknowledges_on_receipt() {
            true => node.streams.len(),
            false => 1,
        };
        if held > options.receive_limit + LARGEST * times {
            let most = options.receive_limit;
            return self.fail(n, format!("{held} bytes are held, {most} may be"));
        }
        let most = options.qos0_queue + usize::from(u16::MAX);
        if options.qos0_overflow != QoS0Overflow::PauseReading
            && node.streams.iter().any(|s| node.agent.waiting(s.id) > most)
        {
            self.fail(n, "too many messages wait".to_owned());
        }
    }
}

/// No message counts more bytes.
const LARGEST: usize = 6_000;
