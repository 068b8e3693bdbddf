//! Holds the broker: one shard, or several with links that delay bytes and are cut. A client is always in the same shard.

use bytes::{Buf, BytesMut};
use mqtt_broker::{Broker, Config, ConnectionId, Handled, Next, shard_of};
use mqtt_session::Instant;

use super::disk::Disk;
use super::engine::Engine;
use super::world::{AllowAll, World};
use super::{Random, class};

/// A process of a shard.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Process {
    pub(super) shard: usize,
    /// The order in which the processes of all shards began.
    pub(super) number: u32,
}

/// A connection of a process.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Place {
    pub(super) process: Process,
    pub(super) id: ConnectionId,
}

/// A shard, with its disk if it has one.
pub(super) struct Shard {
    pub(super) broker: Broker<AllowAll>,
    pub(super) disk: Option<Disk>,
    /// Whether its process has ended and the next one has not begun.
    pub(super) is_away: bool,
    pub(super) process: Process,
    /// The sides of this shard of the links to the other shards.
    pub(super) links: Vec<Option<Side>>,
}

/// One side of a link.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) id: ConnectionId,
    /// Bytes on their way to this side.
    flying: BytesMut,
    /// Bytes that have arrived and that the shard has not accepted.
    arrived: BytesMut,
}

/// How many bytes a link holds in each direction before the sender must wait.
const LINK: usize = 16 << 10;

/// How many rounds it may take until all shards know the filters of the others.
const ROUNDS: usize = 10_000;

pub(super) struct Shards {
    pub(super) all: Vec<Shard>,
    /// Processes that another one has replaced, and that have not noticed it.
    pub(super) earlier: Vec<Shard>,
    /// The engine of each shard, if the journals are on engines.
    pub(super) engines: Vec<Box<dyn Engine>>,
    begun: u32,
    hash_key: u64,
}

impl Shard {
    /// Makes a shard without a disk.
    pub(super) fn new(own: usize, count: usize, config: &Config, now: Instant) -> Self {
        let mut broker = Broker::new(config.clone(), AllowAll::default(), now);
        broker.start_links(small(own), small(count));
        let (shard, number) = (own, 0);
        Self {
            broker,
            disk: None,
            is_away: false,
            process: Process { shard, number },
            links: (0..count).map(|_| None).collect(),
        }
    }
}

impl Shards {
    pub(super) fn new(count: usize, config: &Config, now: Instant) -> Self {
        let new = |own| Shard::new(own, count, config, now);
        Self {
            all: (0..count).map(new).collect(),
            earlier: Vec::new(),
            engines: Vec::new(),
            begun: 0,
            hash_key: config.hash_key,
        }
    }

    /// Returns the next process of a shard.
    pub(super) const fn begin(&mut self, shard: usize) -> Process {
        self.begun += 1;
        let number = self.begun;
        Process { shard, number }
    }

    /// Returns the shard of a client.
    pub(super) fn of(&self, client_id: &str) -> usize {
        usize::from(shard_of(client_id, small(self.all.len()), self.hash_key))
    }

    fn broker(&mut self, process: Process) -> &mut Broker<AllowAll> {
        let mut all = self.all.iter_mut().chain(&mut self.earlier);
        let shard = all.find(|shard| shard.process == process);
        &mut shard.expect("a process with connections").broker
    }

    fn of_connection(&self, place: Place) -> &Broker<AllowAll> {
        let shard = self
            .processes()
            .find(|shard| shard.process == place.process);
        &shard.expect("a process with connections").broker
    }

    /// Returns all processes, those of shards that are away as well.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Shard> {
        self.all.iter().chain(&self.earlier)
    }

    fn present(&mut self) -> impl Iterator<Item = &mut Shard> {
        let all = self.all.iter_mut().chain(&mut self.earlier);
        all.filter(|shard| !shard.is_away)
    }

    /// Opens a connection; `None` if the process refuses it.
    pub(super) fn open(&mut self, process: Process, now: Instant) -> Option<Place> {
        let id = self.broker(process).open(now).ok()?;
        Some(Place { process, id })
    }

    pub(super) fn closed(&mut self, place: Place, now: Instant) {
        self.broker(place.process).closed(place.id, now);
    }

    pub(super) fn receive(&mut self, place: Place, input: &[u8], now: Instant) -> Handled {
        self.broker(place.process).receive(place.id, input, now)
    }

    pub(super) fn outgoing(&self, place: Place) -> &[u8] {
        self.of_connection(place).outgoing(place.id)
    }

    pub(super) fn sent(&mut self, place: Place, n: usize, now: Instant) {
        self.broker(place.process).sent(place.id, n, now);
    }

    pub(super) fn is_closing(&self, place: Place) -> bool {
        self.of_connection(place).is_closing(place.id)
    }

    pub(super) fn has_disks(&self) -> bool {
        self.all[0].disk.is_some()
    }

    /// Returns the messages in all queues.
    pub(super) fn queued(&self, now: Instant) -> u64 {
        let queued = |shard: &Shard| {
            let statistics = shard.broker.statistics(now);
            statistics.queued.max(statistics.queued_bytes)
        };
        self.all.iter().map(queued).sum()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        for shard in self.present() {
            shard.broker.tick(now);
        }
    }

    /// Returns whether a shard has more work than one turn allowed.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        let is_due = |shard: &Shard| shard.broker.deadline().is_some_and(|at| at <= now);
        let has_work = |shard: &Shard| !shard.is_away && is_due(shard);
        self.processes().any(has_work)
    }

    /// Does a turn of the shards that have work.
    pub(super) fn work(&mut self, now: Instant) {
        for shard in self.present() {
            if shard.broker.deadline().is_some_and(|at| at <= now) {
                shard.broker.tick(now);
            }
        }
    }

    pub(super) fn next_ready(&mut self) -> Option<Place> {
        let mut shards = self.all.iter_mut().chain(&mut self.earlier);
        shards.find_map(|own| {
            let id = own.broker.next_ready().filter(|_| !own.is_away)?;
            let process = own.process;
            Some(Place { process, id })
        })
    }

    /// Opens the link between two shards, or cuts it and opens it again.
    pub(super) fn open_link(&mut self, one: usize, other: usize, now: Instant) {
        self.close_link(one, other, now);
        self.close_link(other, one, now);
        for (own, to) in [(one, other), (other, one)] {
            let shard = &mut self.all[own];
            let id = shard.broker.open_link(small(to), now);
            shard.links[to] = id.map(|id| Side {
                id,
                flying: BytesMut::new(),
                arrived: BytesMut::new(),
            });
            assert!(
                id.is_some(),
                "the link of shard {own} to {to} does not open"
            );
        }
    }

    /// Closes the side of one shard of the link to another one, if it is open.
    pub(super) fn close_link(&mut self, own: usize, to: usize, now: Instant) {
        let shard = &mut self.all[own];
        if let Some(side) = shard.links[to].take() {
            shard.broker.closed(side.id, now);
        }
    }

    /// Tells a shard that another one is away.
    pub(super) fn miss(&mut self, own: usize, to: usize, now: Instant) {
        if !self.all[own].is_away {
            self.all[own].broker.shard_is_away(small(to), now);
        }
    }

    /// Puts a new process in the place of a shard that has crashed.
    pub(super) fn replace(&mut self, own: usize, broker: Broker<AllowAll>) {
        let shard = &mut self.all[own];
        shard.broker = broker;
        shard.links.fill_with(|| None);
    }

    /// Moves up to `most` bytes from one shard towards another one, and as many into it. Returns whether anything moved.
    fn move_link(&mut self, from: usize, to: usize, most: usize, now: Instant) -> bool {
        let Some(mut side) = self.all[to].links[from].take() else {
            return false;
        };
        let mut moved = false;
        let sender = &mut self.all[from];
        if let Some(own) = &sender.links[to] {
            let outgoing = sender.broker.outgoing(own.id);
            let room = LINK.saturating_sub(side.flying.len());
            let n = outgoing.len().min(most).min(room);
            side.flying.extend_from_slice(&outgoing[..n]);
            sender.broker.sent(own.id, n, now);
            moved |= n > 0;
        }
        let room = LINK.saturating_sub(side.arrived.len());
        let n = side.flying.len().min(most).min(room);
        side.arrived.extend_from_slice(&side.flying.split_to(n));
        let receiver = &mut self.all[to];
        let received = receiver.broker.receive(side.id, &side.arrived, now);
        side.arrived.advance(received.consumed);
        moved |= n > 0 || received.consumed > 0 || received.next == Next::Yields;
        assert!(received.next != Next::Closing, "a link has ended");
        receiver.links[from] = Some(side);
        moved
    }

    /// Moves up to `most` bytes on each link. Returns whether anything moved.
    pub(super) fn move_links(&mut self, most: usize, now: Instant) -> bool {
        let mut moved = false;
        for from in 0..self.all.len() {
            for to in 0..self.all.len() {
                if from != to {
                    moved |= self.move_link(from, to, most, now);
                }
            }
        }
        moved
    }
}

fn small(number: usize) -> u8 {
    u8::try_from(number).expect("few shards")
}

impl World {
    /// Opens the links, and waits until the shards know each other.
    pub(super) fn open_links(&mut self) {
        let count = self.shards.all.len();
        let now = self.instant();
        for one in 0..count {
            for other in 0..one {
                if !self.shards.all[one].is_away && !self.shards.all[other].is_away {
                    self.shards.open_link(one, other, now);
                }
            }
        }
        self.wait_for_links();
    }

    /// Moves what is on the links until all shards know the filters of the others.
    pub(super) fn wait_for_links(&mut self) {
        let now = self.instant();
        for _ in 0..ROUNDS {
            let mut all = self.shards.all.iter();
            if all.all(|shard| shard.is_away || shard.broker.links_are_ready()) {
                return;
            }
            let most = 1 + self.random.below(2_000);
            self.shards.move_links(most, now);
            self.shards.work(now);
            self.store_some(false);
        }
        self.fail(0, "the links are never ready".to_owned());
    }

    /// Moves something on a link, or cuts it.
    pub(super) fn use_links(&mut self) {
        let count = self.shards.all.len();
        if count < 2 {
            return;
        }
        let now = self.instant();
        let from = self.random.below(count);
        let to = (from + 1 + self.random.below(count - 1)) % count;
        if self.random.once_in(500) && self.plan.classes & class::CUTS != 0 {
            let moment = self.tick_moment();
            self.expectations.link_cuts.push(moment);
            self.report.links_cut += 1;
            if !self.shards.all[from].is_away && !self.shards.all[to].is_away {
                self.shards.open_link(from, to, now);
            }
        }
        let most = 1 + self.random.below(2_000);
        self.shards.move_link(from, to, most, now);
    }
}

/// Keeps the numbers of a seed the same for one shard.
pub(super) fn count_of(random: &mut Random, shards: usize) -> usize {
    if shards > 2 {
        2 + random.below(shards - 1)
    } else {
        shards
    }
}
