//! Runs the processes of a client: a process begins, dials, is closed or killed, and the next one begins.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::BytesMut;
use mqtt_agent::session::{Instant, SessionLost};
use mqtt_agent::{
    AcknowledgeWhen, Agent, Error, NextDial, Options, OwnedWill, Publication, QoS0Overflow,
};
use mqtt_proto::{QoS, Subscription, TopicFilter, Version};

use super::class;
use super::expectations::{Moment, WILLS};
use super::layers::Layers;
use super::program::{Bridge, Filter, Node};
use super::wire::{WIRE_CAPACITY, Wire};
use super::world::World;

/// How many transfers bring the outgoing bytes of the stages to the broker.
const CLOSING: usize = 16;

impl World {
    /// Makes a client without a process.
    pub(super) fn new_node(&mut self, name: String) -> Node {
        let version = if self.random.once_in(2) && !self.nodes.is_empty() {
            Version::V5
        } else {
            Version::V311
        };
        let faultless = self.nodes.is_empty() || name.starts_with("late");
        let durable = if faultless { None } else { self.new_disk() };
        Node {
            agent: Agent::new(Options::new("broker", 1883)),
            durable,
            persistent: false,
            name,
            version,
            wire: None,
            input: BytesMut::new(),
            connected: false,
            connections: 0,
            process: 0,
            asked: HashMap::new(),
            giving_up: HashMap::new(),
            will: None,
            reads: WIRE_CAPACITY,
            active: false,
            slow: false,
            bridge: Bridge::No,
            late: false,
            to_subscribe: VecDeque::new(),
            streams: Vec::new(),
            in_hands: Vec::new(),
            by_hand: HashSet::new(),
            arrived: HashMap::new(),
            unsettled: HashMap::new(),
            exactly_once: HashSet::new(),
            heard: HashSet::new(),
            died: HashSet::new(),
            half_sent: HashSet::new(),
            doubtful: HashSet::new(),
            closing: None,
        }
    }

    /// Begins a process.
    pub(super) fn begin(&mut self, n: usize) {
        let watcher = n == 0 || self.nodes[n].name.starts_with("late");
        let durable = self.nodes[n].durable.is_some();
        let persistent = n == 0 || durable || (!watcher && !self.random.once_in(3));
        let mut options = self.options(n, persistent);
        let (mut bridge, mut slow) = (Bridge::No, false);
        let mut reads = WIRE_CAPACITY;
        let mut will = None;
        if !watcher {
            if self.chance(class::BRIDGES, 12) {
                bridge = [Bridge::Accepted, Bridge::Acknowledged][self.random.below(2)];
            } else if self.chance(class::LIMITS, 8) {
                options.receive_limit = 1 + self.random.below(4_000);
            } else if self.chance(class::LIMITS, 8) {
                options.qos0_queue = 1 + self.random.below(4);
                options.qos0_overflow = [
                    QoS0Overflow::DropOldest,
                    QoS0Overflow::DropNewest,
                    QoS0Overflow::PauseReading,
                ][self.random.below(3)];
            }
            options.acknowledge = self.acknowledge_when(n);
            slow = self.chance(class::SLOW, 3);
            if self.chance(class::SLOW, 5) {
                reads = 50;
            }
            if self.chance(class::WILLS, 3) {
                will = Some(self.next_number());
                options.will = will.map(|number| self.will(n, number));
            }
        }
        let from_start = !watcher && !durable && self.random.once_in(6);
        let mut filters: Vec<Filter> = Vec::new();
        if from_start {
            filters.push(self.filter());
        }
        for filter in &mut filters {
            filter.2 &= self.nodes[n].version == Version::V5;
        }
        for (filter, qos, no_local) in &filters {
            let topic_filter = TopicFilter::new(filter).expect("valid");
            let mut subscription = Subscription::new(topic_filter, *qos);
            subscription.no_local = *no_local;
            options.subscribe_with(&subscription);
        }
        let late = self.random.once_in(2);
        self.expectations.lives[n].drops |= options.qos0_queue < 100;
        let agent = self.new_agent(n, options);
        let node = &mut self.nodes[n];
        node.agent = agent;
        (node.persistent, node.will, node.reads) = (persistent, will, reads);
        (node.slow, node.bridge, node.late) = (slow, bridge, late);
        (node.connected, node.connections, node.closing) = (false, 0, None);
        node.process += 1;
        self.add_stream(n, None, filters);
    }

    fn acknowledge_when(&mut self, n: usize) -> AcknowledgeWhen {
        let by_hand = self.plan.classes & class::BY_HAND != 0;
        match self.random.below(6) {
            _ if self.has_notes(n) => AcknowledgeWhen::ByHand,
            0 if by_hand => AcknowledgeWhen::ByHand,
            // A message that was acknowledged on arrival is lost with its process, with or without a disk.
            1 if by_hand && self.nodes[n].durable.is_none() => AcknowledgeWhen::Arrived,
            _ => AcknowledgeWhen::Taken,
        }
    }

    fn options(&mut self, n: usize, persistent: bool) -> Options {
        let clean = persistent && n > 0 && self.chance(class::CLEAN, 15);
        let node = &self.nodes[n];
        let mut options = Options::new("broker", 1883);
        options.client_id.clone_from(&node.name);
        options.version = node.version;
        // In 3.1.1 a clean session ends with its connection.
        options.clean_start = !persistent || (clean && node.version == Version::V5);
        options.assume_session = node.durable.is_none();
        options.keep_alive = 60;
        options.session_expiry = if persistent { u32::MAX } else { 0 };
        options.receive_maximum = 5;
        options.topic_alias_maximum = 3;
        options.config.session_lost = SessionLost::HandBack;
        options.config.auto_alias = 4;
        options.config.queue = 20;
        options.config.requests = 16;
        options.back_off.first = Duration::from_millis(50);
        options.back_off.longest = Duration::from_millis(400);
        options.back_off.stable_after = Duration::from_millis(100);
        options
    }

    fn will(&mut self, n: usize, number: u32) -> OwnedWill {
        let (delayed, retain) = (self.random.once_in(2), self.random.once_in(4));
        let topic = format!("{WILLS}{}", self.nodes[n].name);
        let number = number.to_string();
        let mut will = OwnedWill::new(Publication::new(topic, QoS::AtLeastOnce, number));
        will.message.retain = retain;
        will.delay = if delayed { 2 } else { 0 };
        will
    }

    /// Ends the process by a kill or after a close, and begins the next one. All memory of the process is lost.
    pub(super) fn restart(&mut self, n: usize, killed: bool, all: bool) {
        let why = if killed { "is killed" } else { "starts again" };
        self.trace(n, format_args!("{why}"));
        if let Some(wire) = self.unplug(n) {
            self.report.kills += 1;
            if self.random.once_in(2) {
                self.unnoticed.push(wire.id);
            } else {
                let now = self.instant();
                self.shards.closed(wire.id, now);
            }
        }
        let moment = self.tick_moment();
        if !self.crash_client(n, all, moment) {
            self.forget_client(n, moment);
        } else if self.expectations.shards > 1 || self.expectations.is_on_engine {
            self.expectations.lives[n].may_subscribe_again(moment);
        }
        let node = &mut self.nodes[n];
        let life = &mut self.expectations.lives[n];
        (life.cut, life.ever_cut) = (true, true);
        life.died.extend(node.died.drain());
        for stream in node.streams.drain(..) {
            let fact = &mut life.streams[stream.fact];
            fact.closed = Some(moment);
            // By hand, one acknowledgement is valid for all streams. A broker that crashes keeps no messages of a session that ends
            // with its connection, although the next process may take it over before.
            fact.killed = node.agent.options().acknowledge == AcknowledgeWhen::Taken
                && (node.persistent || !self.shards.has_disks());
            // Messages that come before the subscriptions are made again are held.
            if stream.id.is_some() && !stream.leaving {
                node.to_subscribe.push_back(stream.filters);
            }
        }
        node.heard.clear();
        node.exactly_once.clear();
        node.in_hands.clear();
        node.by_hand.clear();
        node.giving_up.clear();
        node.doubtful.clear();
        node.arrived.clear();
        // A session that is not kept ends with its connection, unless the next connection takes it over. A clean start may have ended
        // the session of an earlier process, although no CONNACK told it.
        let may_have_ended = node.agent.options().clean_start && node.connections == 0;
        for old in &mut life.subscribed {
            old.lost |= !node.persistent || may_have_ended;
            // The next process of a client with a disk gives up what this one was giving up, with the messages for it.
            old.lost |= node.durable.is_some() && old.leaving.is_some();
        }
        self.begin(n);
        self.wake();
    }

    /// Ends the process of a client without a disk.
    fn forget_client(&mut self, n: usize, moment: Moment) {
        self.expectations.permit_after_crashes(n, moment);
        self.expectations.lives[n].forgets.push(moment);
        let node = &mut self.nodes[n];
        let life = &mut self.expectations.lives[n];
        for (number, _) in node.unsettled.drain() {
            life.permit(number, moment);
        }
        for (token, number) in node.asked.drain() {
            let qos = self.expectations.published.get(&number).map(|p| p.qos);
            if qos == Some(QoS::ExactlyOnce) {
                node.half_sent.extend(token.packet_id());
            }
        }
    }

    /// Asks the agent when to dial. Returns whether a connection was opened.
    pub(super) fn dial(&mut self, n: usize) -> bool {
        let now = self.instant();
        match self.nodes[n].agent.next_dial(now) {
            NextDial::Now => {}
            NextDial::At(until) if until > now => return false,
            NextDial::At(_) => {
                self.fail(n, "it waits until a time that is past".to_owned());
                return false;
            }
            NextDial::Never => return false,
        }
        let home = self.expectations.lives[n].home;
        let process = self.process_for(home);
        let Some(id) = process.and_then(|process| self.shards.open(process, now)) else {
            self.nodes[n].agent.lost(Error::EndOfStream, now, 0);
            return false;
        };
        let layers = self.layered && self.random.once_in(2);
        let layers = layers.then(|| Layers::new(&mut self.random));
        self.trace(n, format_args!("connects by {id:?} with {layers:?}"));
        let is_open = layers.as_ref().is_none_or(|layers| layers.is_open);
        let node = &mut self.nodes[n];
        node.input.clear();
        node.wire = Some(Wire::new(id, layers));
        if let Some(number) = node.will {
            self.expectations.wills.entry(number).or_default().most += 1;
        }
        self.owners.insert(id, n);
        if is_open {
            self.opened(n);
        }
        self.look(n);
        self.activate(n);
        true
    }

    /// Tells the agent that the handshakes below MQTT are over.
    pub(super) fn opened(&mut self, n: usize) {
        let now = self.instant();
        if let Err(error) = self.nodes[n].agent.opened(now) {
            self.fail(n, format!("it cannot connect: {error}"));
        }
    }

    pub(super) fn close(&mut self, n: usize) {
        if self.nodes[n].closing.is_some() {
            return;
        }
        let by = self.now + u64::try_from(self.random.below(3_000)).expect("small");
        let now = self.instant();
        let node = &mut self.nodes[n];
        node.closing = Some(by);
        node.agent.close(Instant::from_millis(by), now);
        self.trace(n, format_args!("is to be closed by {by} ms"));
        self.pass(0);
    }

    /// Writes all outgoing bytes of a closed agent.
    pub(super) fn flush_one(&mut self, n: usize) {
        for _ in 0..8 {
            self.transfer(n, WIRE_CAPACITY);
        }
    }

    /// Closes the transport of a closed agent.
    pub(super) fn hang_up(&mut self, n: usize) {
        let now = self.instant();
        if !self.nodes[n].agent.is_finished() {
            return;
        }
        self.close_layers(n);
        if let Some(wire) = self.unplug(n) {
            self.shards.closed(wire.id, now);
            self.nodes[n].agent.lost(Error::Stopped, now, 0);
            self.look(n);
            self.wake();
        }
    }

    /// Sends the end of each protocol below MQTT. The broker's stages must see it, unless the wire is cut before.
    fn close_layers(&mut self, n: usize) {
        for _ in 0..CLOSING {
            let wire = self.nodes[n].wire.as_mut();
            let Some(layers) = wire.and_then(|wire| wire.layers.as_mut()) else {
                return;
            };
            layers.client.close();
            if layers.client.outgoing().is_empty() {
                let server = &mut layers.server;
                if server.is_open() && server.end_of_file().is_err() {
                    let broken = format!("the server does not see the end of {server:?}");
                    self.fail(n, broken);
                }
                self.report.ended += 1;
                return;
            }
            self.transfer(n, WIRE_CAPACITY);
        }
        self.fail(n, "its stages never send the end".to_owned());
    }
}
