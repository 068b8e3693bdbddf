//! The clients, the broker and the wires between them.

use std::collections::{HashMap, VecDeque};

use mqtt_broker::{Broker, Config, ConnectionId, Ending, Hooks, Next, Observation};
use mqtt_proto::{QoS, ReasonCode, Version};
use mqtt_session::{Client, Event, Heap, Instant, SessionLost, Step, Token};

use super::promise::{Heard, Life, Moment, Promises, WILLS, WillFact};
use super::{Plan, Random, Report};

mod whims;

/// Everyone may do everything.
#[derive(Debug, Default)]
struct Open {
    assigned: u128,
    taken_over: u64,
}

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.assigned += 1;
        self.assigned
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        if let Observation::Ended {
            ending: Ending::ByBroker(ReasonCode::SessionTakenOver),
            ..
        } = observation
        {
            self.taken_over += 1;
        }
    }
}

/// A connection: what is on its way in both directions.
#[derive(Debug)]
struct Wire {
    id: ConnectionId,
    up: Vec<u8>,
    down: VecDeque<u8>,
    /// The broker wants to be asked again with what it did not take.
    blocked: bool,
    /// It is cut when this many more bytes went up or down.
    cut_after: Option<usize>,
    /// The client said goodbye and waits for the end.
    leaving: bool,
}

impl Wire {
    const fn new(id: ConnectionId) -> Self {
        Self {
            id,
            up: Vec::new(),
            down: VecDeque::new(),
            blocked: false,
            cut_after: None,
            leaving: false,
        }
    }
}

#[derive(Debug)]
enum Question {
    Publish(u32),
    Subscribe(Vec<usize>),
    Unsubscribe(Vec<usize>),
}

#[derive(Debug)]
struct Node {
    name: String,
    version: Version,
    persistent: bool,
    client: Client<Heap>,
    wire: Option<Wire>,
    input: Vec<u8>,
    connected: bool,
    asked: HashMap<Token, Question>,
    will: Option<u32>,
    /// How many bytes it reads at a time.
    reads: usize,
    active: bool,
}

pub(super) struct World {
    random: Random,
    plan: Plan,
    broker: Broker<Open>,
    nodes: Vec<Node>,
    /// Which client a connection belongs to.
    owners: HashMap<ConnectionId, usize>,
    /// Connections that died without the broker knowing.
    ghosts: Vec<ConnectionId>,
    active: Vec<usize>,
    now: u64,
    moment: Moment,
    number: u32,
    promises: Promises,
    report: Report,
}

/// What a wire holds before the broker must wait.
const WIRE: usize = 16 << 10;

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut random = Random::new(seed.wrapping_add(1));
        let mut config = Config::default();
        config.window = u16::try_from(1 + random.below(40)).expect("small");
        config.window_qos2 = u16::try_from(1 + random.below(20)).expect("small");
        config.outgoing_bytes = u32::try_from(2_000 + random.below(30_000)).expect("small");
        config.packet_size = 20_000;
        config.statistics_interval = 0;
        let broker = Broker::new(config, Open::default(), Instant::default());
        let mut promises = Promises::default();
        let nodes = (0..plan.clients.max(2))
            .map(|n| {
                let node = Node::new(n, &mut random);
                promises.lives.push(Life {
                    name: format!(
                        "{} {:?} persistent {}",
                        node.name, node.version, node.persistent
                    ),
                    ..Life::default()
                });
                node
            })
            .collect();
        let mut world = Self {
            random,
            plan,
            broker,
            nodes,
            owners: HashMap::new(),
            ghosts: Vec::new(),
            active: Vec::new(),
            now: 0,
            moment: 1,
            number: 0,
            promises,
            report: Report::default(),
        };
        // The first client watches the wills, and nothing ever happens to it.
        world.connect(0);
        world.flush();
        world.subscribe_to(0, vec![(format!("{WILLS}#"), QoS::ExactlyOnce, false)]);
        world.flush();
        world
    }

    fn trace(&self, n: usize, what: std::fmt::Arguments<'_>) {
        if self.plan.trace {
            eprintln!(
                "{} ms, {}: {} {what}",
                self.now, self.moment, self.nodes[n].name
            );
        }
    }

    fn instant(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    fn tick_moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// Random life.
    pub(super) fn live(&mut self) {
        for _ in 0..self.plan.operations {
            self.operate();
            for _ in 0..self.random.below(6) {
                self.transfer_some();
            }
            if self.random.once_in(10) {
                let millis = u64::try_from(self.random.below(700)).expect("small");
                self.pass(millis);
            }
        }
    }

    /// No more cuts: everyone comes back and everything arrives.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for ghost in std::mem::take(&mut self.ghosts) {
            let now = self.instant();
            self.broker.closed(ghost, now);
        }
        for n in 0..self.nodes.len() {
            if let Some(wire) = &mut self.nodes[n].wire {
                wire.cut_after = None;
            }
        }
        self.flush();
        for _ in 0..3 {
            for n in 0..self.nodes.len() {
                if self.nodes[n].wire.is_none() {
                    self.connect(n);
                }
            }
            self.flush();
            // Delayed wills.
            self.pass(4_000);
            self.flush();
        }
        for node in &self.nodes {
            if !node.connected || node.client.pending() > 0 {
                let wire = node.wire.as_ref().map(|wire| {
                    let outgoing = self.broker.outgoing(wire.id).len();
                    (outgoing, wire.up.clone(), wire.down.len(), wire.blocked)
                });
                return Err(format!(
                    "{} is stuck: connected {}, {} pending, {} to write, wire {wire:?}, asked {:?}, {:?}",
                    node.name,
                    node.connected,
                    node.client.pending(),
                    node.client.outgoing().len(),
                    node.asked,
                    node.client,
                ));
            }
        }
        let statistics = self.broker.statistics(self.instant());
        if statistics.queued > 0 || statistics.queued_bytes > 0 {
            return Err(format!("something is left in the queues: {statistics:?}"));
        }
        // Somebody new learns what is retained.
        let n = self.nodes.len();
        let mut node = Node::new(0, &mut self.random);
        (node.name, node.persistent) = ("late".to_owned(), false);
        self.nodes.push(node);
        self.promises.lives.push(Life::default());
        self.connect(n);
        self.flush();
        self.subscribe_to(n, vec![("#".to_owned(), QoS::AtMostOnce, false)]);
        self.flush();
        let heard = std::mem::take(&mut self.promises.lives[n].heard);
        self.promises.lives.pop();
        for heard in heard {
            if !heard.retain {
                return Err(format!("a retained message without RETAIN: {heard:?}"));
            }
            if let Some(before) = self
                .promises
                .retained
                .insert(heard.topic.clone(), heard.number)
            {
                return Err(format!("retained twice: {before} and {heard:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn check(&mut self) -> Result<Report, String> {
        self.report.taken_over = self.broker.hooks().taken_over;
        match self.promises.broken() {
            Some(broken) => Err(broken),
            None => Ok(self.report),
        }
    }

    fn activate(&mut self, n: usize) {
        if !self.nodes[n].active {
            self.nodes[n].active = true;
            self.active.push(n);
        }
    }

    /// Time passes for everyone.
    fn pass(&mut self, millis: u64) {
        self.now += millis;
        let now = self.instant();
        self.broker.tick(now);
        for n in 0..self.nodes.len() {
            if self.nodes[n].client.tick(now).is_err() {
                self.cut(n, false);
            } else if !self.nodes[n].client.outgoing().is_empty() {
                self.activate(n);
            }
        }
        self.wake();
    }

    fn wake(&mut self) {
        while let Some(id) = self.broker.next_ready() {
            if let Some(n) = self.owners.get(&id).copied()
                && self.nodes[n]
                    .wire
                    .as_ref()
                    .is_some_and(|wire| wire.id == id)
            {
                self.activate(n);
            }
        }
    }

    fn transfer_some(&mut self) {
        if self.active.is_empty() {
            return;
        }
        let at = self.random.below(self.active.len());
        let n = self.active.swap_remove(at);
        self.nodes[n].active = false;
        let most = 1 + self.random.below(2_000);
        self.transfer(n, most);
    }

    /// Until nothing is under way.
    fn flush(&mut self) {
        while let Some(n) = self.active.pop() {
            self.nodes[n].active = false;
            self.transfer(n, WIRE);
        }
    }

    /// Moves up to `most` bytes each way on the wire of a client.
    fn transfer(&mut self, n: usize, most: usize) {
        let now = self.instant();
        let Some(mut wire) = self.nodes[n].wire.take() else {
            return;
        };
        let before = self.busy(n, &wire);
        let mut allowed = wire.cut_after.unwrap_or(usize::MAX);
        // Up.
        let node = &mut self.nodes[n];
        let outgoing = node.client.outgoing();
        let moved = outgoing.len().min(most).min(allowed);
        wire.up.extend_from_slice(&outgoing[..moved]);
        node.client.sent(moved);
        allowed -= moved;
        if moved > 0 || wire.blocked {
            let received = self.broker.receive(wire.id, &wire.up, now);
            wire.up.drain(..received.consumed);
            wire.blocked = received.next == Next::Blocked;
        }
        // Down.
        let outgoing = self.broker.outgoing(wire.id);
        let room = WIRE.saturating_sub(wire.down.len());
        let moved = outgoing.len().min(most).min(room).min(allowed);
        wire.down.extend(&outgoing[..moved]);
        self.broker.sent(wire.id, moved, now);
        allowed -= moved;
        if wire.cut_after.is_some() {
            wire.cut_after = Some(allowed);
        }
        let node = &mut self.nodes[n];
        let reads = wire.down.len().min(node.reads.min(most));
        node.input.extend(wire.down.drain(..reads));
        let done = self.broker.is_closing(wire.id)
            && self.broker.outgoing(wire.id).is_empty()
            && wire.down.is_empty();
        let cut = wire.cut_after == Some(0);
        let id = wire.id;
        let leaving = wire.leaving;
        self.nodes[n].wire = Some(wire);
        let ok = self.read(n);
        if done {
            self.ended(n, id, leaving);
        } else if cut || !ok {
            let unnoticed = self.random.once_in(2);
            self.cut(n, unnoticed);
        } else if let Some(wire) = self.nodes[n].wire.take() {
            let after = self.busy(n, &wire);
            self.nodes[n].wire = Some(wire);
            if after.0 && after != before || after.1 > 0 {
                self.activate(n);
            }
        }
        self.wake();
    }

    /// Whether something is under way, and a measure that changes when something moved.
    fn busy(&self, n: usize, wire: &Wire) -> (bool, usize, usize) {
        let node = &self.nodes[n];
        let waiting = node.client.outgoing().len() + wire.down.len();
        let below = self.broker.outgoing(wire.id).len();
        (wire.blocked, waiting + below, wire.up.len())
    }

    /// The client takes what it has read. `false` if its session says that the connection is over.
    fn read(&mut self, n: usize) -> bool {
        let now = self.instant();
        let mut input = std::mem::take(&mut self.nodes[n].input);
        let mut at = 0;
        let mut ok = true;
        loop {
            let node = &mut self.nodes[n];
            match node.client.receive(&input[at..], now) {
                Ok(Step::Needs(_)) | Ok(Step::Blocked) => break,
                Ok(Step::Packet { consumed, event }) => {
                    at += consumed;
                    if let Some(event) = event {
                        self.happened(n, &event);
                    }
                }
                Err(_) => {
                    ok = false;
                    break;
                }
            }
        }
        if ok {
            input.drain(..at);
            self.nodes[n].input = input;
        }
        ok
    }

    fn happened(&mut self, n: usize, event: &Event<'_>) {
        let moment = self.tick_moment();
        self.trace(n, format_args!("gets {event:?}"));
        let node = &mut self.nodes[n];
        let life = &mut self.promises.lives[n];
        match event {
            Event::Connected { resumed, .. } => {
                node.connected = true;
                if !resumed {
                    life.subscribed.clear();
                    life.heard.clear();
                    life.cut = false;
                }
            }
            Event::Message(message) => {
                let topic = node.client.topic(&message.publish).to_string();
                let text = std::str::from_utf8(message.publish.payload).expect("text");
                self.report.received += 1;
                // What clears is not a message of its own.
                let Ok(number) = text.trim_end().parse() else {
                    return;
                };
                self.promises.ever_heard.insert(number);
                life.heard.push(Heard {
                    number,
                    topic,
                    qos: message.publish.qos(),
                    dup: message.publish.dup,
                    retain: message.publish.retain,
                    at: moment,
                });
            }
            Event::Acknowledged { token, reason, .. } => {
                if let Some(Question::Publish(number)) = node.asked.remove(token)
                    && let Some(published) = self.promises.published.get_mut(&number)
                    && !reason.is_error()
                {
                    published.acknowledged = Some(moment);
                }
            }
            Event::Subscribed { token, .. } => {
                if let Some(Question::Subscribe(numbers)) = node.asked.remove(token) {
                    for at in numbers {
                        if let Some(subscribed) = life.subscribed.get_mut(at) {
                            subscribed.granted = Some(moment);
                            let filter = subscribed.filter.clone();
                            // What was there before is replaced now.
                            for old in &mut life.subscribed[..at] {
                                if old.filter == filter {
                                    old.gone.get_or_insert(moment);
                                }
                            }
                        }
                    }
                }
            }
            Event::Unsubscribed { token, .. } => {
                if let Some(Question::Unsubscribe(numbers)) = node.asked.remove(token) {
                    for at in numbers {
                        if let Some(subscribed) = life.subscribed.get_mut(at) {
                            subscribed.gone.get_or_insert(moment);
                        }
                    }
                }
            }
            Event::Ended { token, .. } => {
                node.asked.remove(token);
            }
            _ => {}
        }
    }

    /// The wire of a client is gone; the broker may not know it.
    fn cut(&mut self, n: usize, unnoticed: bool) {
        let now = self.instant();
        let node = &mut self.nodes[n];
        let Some(wire) = node.wire.take() else {
            return;
        };
        self.report.cuts += 1;
        if self.plan.trace {
            eprintln!(
                "{} ms, {}: {} is cut, unnoticed {unnoticed}",
                self.now, self.moment, node.name
            );
        }
        let life = &mut self.promises.lives[n];
        (life.cut, life.ever_cut) = (true, true);
        node.client.disconnected();
        node.input.clear();
        let connected = std::mem::take(&mut node.connected);
        if let Some(number) = node.will.take() {
            // A delayed will may not go out if the client is back in time; a goodbye may have arrived or not.
            let certain = connected && !wire.leaving && node.version == Version::V311;
            if certain {
                self.promises.wills.insert(number, WillFact::Must);
            }
        }
        if unnoticed {
            self.ghosts.push(wire.id);
        } else {
            self.broker.closed(wire.id, now);
        }
        self.read(n);
        self.wake();
    }

    /// The broker closed it.
    fn ended(&mut self, n: usize, id: ConnectionId, leaving: bool) {
        let now = self.instant();
        self.broker.closed(id, now);
        let node = &mut self.nodes[n];
        node.wire = None;
        node.connected = false;
        node.client.disconnected();
        node.input.clear();
        let life = &mut self.promises.lives[n];
        (life.cut, life.ever_cut) = (true, true);
        if let (Some(number), true) = (node.will.take(), leaving) {
            self.promises.wills.insert(number, WillFact::Never);
        }
        self.read(n);
        self.wake();
    }
}

impl Node {
    fn new(n: usize, random: &mut Random) -> Self {
        let watcher = n == 0;
        let version = if random.once_in(2) && !watcher {
            Version::V5
        } else {
            Version::V311
        };
        let mut config = mqtt_session::Config::default();
        config.session_lost = SessionLost::HandBack;
        config.version = version;
        config.auto_alias = 4;
        config.queue = 20;
        config.requests = 16;
        Self {
            name: format!("c{n}"),
            version,
            persistent: watcher || !random.once_in(3),
            client: Client::new(config, Heap),
            wire: None,
            input: Vec::new(),
            connected: false,
            asked: HashMap::new(),
            will: None,
            reads: if random.once_in(5) && !watcher {
                50
            } else {
                WIRE
            },
            active: false,
        }
    }
}
