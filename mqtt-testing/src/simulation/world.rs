//! Holds the clients, the broker and the time.

use std::collections::{HashMap, HashSet};

use mqtt_agent::{Error, NextDial};
use mqtt_broker::{Config, Ending, Hooks, Observation};
use mqtt_proto::{QoS, ReasonCode};
use mqtt_session::Instant;

use super::disk::Aimed;
use super::expectations::{Expectations, Life, Moment, WILLS};
use super::program::Node;
use super::shards::{Place, Shards, count_of};
use super::{Plan, Random, Report, Violation, class};

/// Hooks that allow everything.
#[derive(Debug, Default)]
pub(super) struct AllowAll {
    assigned: u128,
    pub(super) taken_over: u64,
    /// Clients for which publishers do not wait any more.
    given_up: HashSet<String>,
}

impl Hooks for AllowAll {
    fn unguessable(&mut self) -> u128 {
        self.assigned += 1;
        self.assigned
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Ended {
                ending: Ending::ByBroker(ReasonCode::SessionTakenOver),
                ..
            } => self.taken_over += 1,
            Observation::SlowConsumer { client_id, .. } => {
                self.given_up.insert((*client_id).to_owned());
            }
            _ => {}
        }
    }
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) plan: Plan,
    pub(super) shards: Shards,
    pub(super) config: Config,
    pub(super) nodes: Vec<Node>,
    /// The client of each connection.
    pub(super) owners: HashMap<Place, usize>,
    /// Shards that have not noticed yet that another one is away, with that one.
    pub(super) to_miss: Vec<(usize, usize)>,
    /// Connections whose end the broker has not noticed.
    pub(super) unnoticed: Vec<Place>,
    pub(super) active: Vec<usize>,
    pub(super) now: u64,
    /// Whether some connections have stages below MQTT.
    pub(super) layered: bool,
    pub(super) moment: Moment,
    pub(super) number: u32,
    pub(super) aimed: Aimed,
    pub(super) expectations: Expectations,
    pub(super) report: Report,
    /// The first failure.
    failed: Option<Violation>,
    /// The client whose operations and packets are recorded, and the record.
    recorded: Option<usize>,
    log: Vec<String>,
}

/// Longer than any run, in milliseconds.
const HOUR_MS: u32 = 3_600_000;

/// The limit of rounds at the end.
const ROUNDS: usize = 3_000;

impl World {
    pub(super) fn new(seed: u64, mut plan: Plan, recorded: Option<usize>) -> Self {
        let mut random = Random::new(seed.wrapping_add(1));
        let mut config = Config::default();
        config.window = u16::try_from(1 + random.below(40)).expect("small");
        config.window_qos2 = u16::try_from(1 + random.below(20)).expect("small");
        config.outgoing_bytes = u32::try_from(2_000 + random.below(30_000)).expect("small");
        config.packet_size = 20_000;
        config.statistics_interval = 0;
        config.turn_steps = [1, 30, 300, 4_096][random.below(4)];
        let pressure = plan.classes & class::PRESSURE != 0 && random.once_in(3);
        if pressure {
            plan.classes &= !(class::CUTS | class::KILLS | class::CLOSES | class::CRASHES);
            config.queued_messages = 1 + random.below(40);
            config.slow_consumer_ms = HOUR_MS;
        }
        let count = count_of(&mut random, plan.shards);
        let shards = Shards::new(count, &config, Instant::default());
        let mut world = Self {
            random,
            plan,
            shards,
            config,
            nodes: Vec::new(),
            owners: HashMap::new(),
            to_miss: Vec::new(),
            unnoticed: Vec::new(),
            active: Vec::new(),
            now: 0,
            layered: false,
            moment: 1,
            number: 0,
            aimed: Aimed::default(),
            expectations: Expectations {
                short_queues: pressure,
                shards: count,
                is_on_engine: plan.engine.is_some(),
                ..Expectations::default()
            },
            report: Report::default(),
            failed: None,
            recorded,
            log: Vec::new(),
        };
        world.layered = world.chance(class::LAYERS, 2);
        world.start_disks();
        world.keep_one_away();
        world.open_links();
        for n in 0..plan.clients.max(2) {
            world.add(format!("c{n}"));
        }
        // The first client receives the wills, and has no faults.
        world.dial(0);
        world.flush();
        world.subscribe_to(0, vec![(format!("{WILLS}#"), QoS::ExactlyOnce, false)]);
        world.flush();
        world
    }

    /// Adds a client.
    fn add(&mut self, name: String) {
        let home = self.shards.of(&name);
        let node = self.new_node(name);
        self.expectations.lives.push(Life {
            home,
            name: format!("{} {:?}", node.name, node.version),
            ..Life::default()
        });
        self.nodes.push(node);
        self.begin(self.nodes.len() - 1);
    }

    pub(super) fn trace(&mut self, n: usize, what: std::fmt::Arguments<'_>) {
        if self.plan.trace || self.logs(n) {
            let line = format!(
                "{} ms, {}: {} {what}",
                self.now, self.moment, self.nodes[n].name
            );
            if self.plan.trace {
                eprintln!("{line}");
            }
            if self.logs(n) {
                self.log.push(line);
            }
        }
    }

    /// Returns whether this client is recorded.
    pub(super) fn logs(&self, n: usize) -> bool {
        self.recorded == Some(n)
    }

    pub(super) fn record(&mut self, line: String) {
        self.log.push(line);
    }

    pub(super) fn into_log(self) -> Vec<String> {
        self.log
    }

    /// Notes a failure, if it is the first one.
    pub(super) fn fail(&mut self, n: usize, what: String) {
        let name = &self.nodes[n].name;
        self.failed
            .get_or_insert_with(|| (Some(n), format!("{name}: {what}")));
    }

    pub(super) fn instant(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    pub(super) fn tick_moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    fn so_far(&mut self) -> Result<(), Violation> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Runs random operations and faults.
    pub(super) fn live(&mut self) -> Result<(), Violation> {
        for _ in 0..self.plan.operations {
            self.operate();
            for _ in 0..self.random.below(6) {
                self.transfer_some();
            }
            if self.random.once_in(10) {
                let millis = u64::try_from(self.random.below(700)).expect("small");
                self.pass(millis);
            }
            self.so_far()?;
        }
        Ok(())
    }

    /// Runs without faults until all clients are connected and everything has arrived.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        self.calm_engines();
        self.notice_earlier(true);
        self.bring_all_back();
        for ghost in std::mem::take(&mut self.unnoticed) {
            let now = self.instant();
            self.shards.closed(ghost, now);
        }
        for n in 0..self.nodes.len() {
            if let Some(wire) = &mut self.nodes[n].wire {
                wire.cut_after = None;
            }
        }
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            self.flush();
            let mut moved = self.step_all();
            for n in 0..self.nodes.len() {
                moved |= self.come_back(n);
            }
            self.so_far()?;
            if moved {
                quiet = 0;
                continue;
            }
            // Time for delayed wills, waits before attempts, and pings.
            self.pass(2_000);
            quiet += 1;
            if quiet > 3 {
                break;
            }
        }
        for n in 0..self.nodes.len() {
            if let Some(unfinished) = self.unfinished(n) {
                return Err((Some(n), unfinished));
            }
        }
        let queued = self.shards.queued(self.instant());
        if queued > 0 {
            let suspect = self
                .nodes
                .iter()
                .position(|node| !node.unsettled.is_empty());
            let unsettled = suspect.map(|n| &self.nodes[n].unsettled);
            let what = format!(
                "{queued} messages or bytes are left in the queues; {unsettled:?} of client {suspect:?} were not acknowledged"
            );
            return Err((suspect, what));
        }
        self.check_retained()?;
        self.so_far()
    }

    /// Learns the retained messages, and checks that all shards have the same.
    fn check_retained(&mut self) -> Result<(), Violation> {
        let clients = self.nodes.len();
        for shard in 0..self.shards.all.len() {
            let retained = self.learn_retained(shard).map_err(|what| (None, what))?;
            if shard == 0 {
                self.expectations.retained = retained;
                continue;
            }
            let first = &self.expectations.retained;
            let mut topics = first.keys().chain(retained.keys());
            let differs = |topic: &&String| first.get(*topic) != retained.get(*topic);
            if let Some(topic) = topics.find(differs) {
                let (one, other) = (first.get(topic), retained.get(topic));
                let what = format!("{topic}: shard 0 retains {one:?}, shard {shard} {other:?}");
                return Err((None, what));
            }
        }
        self.expectations.lives.truncate(clients);
        Ok(())
    }

    /// Restores a client to a state in which its facts can be checked. Returns whether there was anything to do.
    fn come_back(&mut self, n: usize) -> bool {
        let node = &self.nodes[n];
        if node.agent.is_stopped() {
            self.restart(n, false, false);
            return true;
        }
        let mut did = false;
        if node.wire.is_none() {
            did = self.dial(n);
        }
        did | self.subscribe_again(n)
    }

    /// A new client receives the retained messages of a shard: number by topic.
    fn learn_retained(&mut self, shard: usize) -> Result<HashMap<String, u32>, String> {
        let n = self.nodes.len();
        // This client does no random operations, like the first one.
        let mut name = "late".to_owned();
        while self.shards.of(&name) != shard {
            name.push('r');
        }
        self.add(name);
        self.dial(n);
        self.flush();
        self.subscribe_to(n, vec![("#".to_owned(), QoS::AtMostOnce, false)]);
        self.flush();
        while self.step(n, true) {
            self.flush();
        }
        let heard = std::mem::take(&mut self.expectations.lives[n].heard);
        let mut retained = HashMap::new();
        for heard in heard {
            if !heard.retain {
                return Err(format!("a retained message without RETAIN: {heard:?}"));
            }
            if let Some(before) = retained.insert(heard.topic.clone(), heard.number) {
                return Err(format!("retained twice: {before} and {heard:?}"));
            }
        }
        Ok(retained)
    }

    pub(super) fn check(&mut self) -> Result<Report, Violation> {
        let now = self.instant();
        let mut given_up = HashSet::new();
        for shard in &mut self.shards.all {
            self.report.between_shards += shard.broker.statistics(now).shard_messages;
            let hooks = shard.broker.hooks();
            self.report.taken_over += hooks.taken_over;
            given_up.extend(hooks.given_up.drain());
        }
        if self.expectations.short_queues {
            for (node, life) in self.nodes.iter().zip(&mut self.expectations.lives) {
                life.given_up = given_up.contains(&node.name);
                let counted = if life.given_up {
                    &mut self.report.given_up
                } else {
                    &mut self.report.short_queues
                };
                *counted += 1;
            }
        }
        match self.expectations.first_violation() {
            Some(broken) => Err(broken),
            None => Ok(self.report),
        }
    }

    /// Describes everything that is not finished with a client.
    fn unfinished(&self, n: usize) -> Option<String> {
        let node = &self.nodes[n];
        let unfinished = node.unfinished()?;
        let wire = node.wire.as_ref().map(|wire| {
            let outgoing = self.shards.outgoing(wire.id).len();
            format!(
                "{outgoing} bytes in the broker, {} up, {} down, blocked {}",
                wire.up.len(),
                wire.down.len(),
                wire.blocked
            )
        });
        Some(format!(
            "{} is stuck: {unfinished}, wire: {wire:?}",
            node.name
        ))
    }

    pub(super) fn activate(&mut self, n: usize) {
        if !self.nodes[n].active {
            self.nodes[n].active = true;
            self.active.push(n);
        }
    }

    /// Advances the time for all.
    pub(super) fn pass(&mut self, millis: u64) {
        self.now += millis;
        let now = self.instant();
        self.shards.tick(now);
        for n in 0..self.nodes.len() {
            let node = &mut self.nodes[n];
            if let Err(error) = node.agent.tick(now) {
                self.activate(n);
                self.cut(n, false, error);
            } else if !node.agent.outgoing().is_empty() || !node.agent.journal().is_empty() {
                self.activate(n);
            }
            self.look(n);
            self.check_close(n);
        }
        self.wake();
    }

    /// Checks that a closed agent ends in time.
    fn check_close(&mut self, n: usize) {
        let now = self.instant();
        let node = &mut self.nodes[n];
        let Some(by) = node.closing else { return };
        if node.wire.as_ref().is_some_and(|wire| !wire.is_open())
            && node.agent.next_dial(now) == NextDial::Never
        {
            // The driver of the client gives up the handshake.
            self.cut(n, false, Error::Stopped);
            return;
        }
        let node = &mut self.nodes[n];
        if node.agent.is_finished() && node.wire.is_some() {
            // The driver of the client closes the transport when the last byte is written.
            self.flush_one(n);
            self.hang_up(n);
        }
        let late = self.now > by + 1_000;
        if late && self.nodes[n].wire.is_none() && !self.nodes[n].agent.is_stopped() {
            self.fail(n, format!("it is to be closed by {by} ms"));
        }
    }

    /// Returns whether the broker has more work than one turn allowed.
    pub(super) fn broker_has_work(&self) -> bool {
        let now = self.instant();
        self.shards.has_work(now)
    }

    pub(super) fn wake(&mut self) {
        if self.broker_has_work() {
            let now = self.instant();
            self.shards.work(now);
        }
        self.store_some(false);
        self.use_links();
        while let Some(id) = self.shards.next_ready() {
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
}
