//! Shards whose journals are on an engine, from which another process can take a shard while the one before still serves its clients. The
//! engine refuses the earlier process when it commits; until then it may send what needs no record.

use mqtt_agent::Error;
use mqtt_broker::records::Records;
use mqtt_session::Instant;

use super::Random;
use super::disk::Disk;
use super::expectations::Moment;
use super::shards::{Process, Shard};
use super::world::World;

/// The journal of a shard, on an engine with several processes. The engine may lose answers and commit late.
pub trait Engine {
    /// Makes a new process the owner, and returns the entries as records. `calls` limits how many calls to the servers the process makes
    /// before it ends.
    ///
    /// # Errors
    /// The process has ended, or the journal is damaged.
    fn take_over(&mut self, process: u32, calls: Option<usize>) -> Result<Vec<u8>, CommitError>;

    /// Commits records of a process, all or none.
    ///
    /// # Errors
    /// Nothing of these records may be acknowledged.
    fn commit(
        &mut self,
        process: u32,
        records: &[u8],
        calls: Option<usize>,
    ) -> Result<(), CommitError>;

    /// From now on every call succeeds at once.
    fn be_calm(&mut self);
}

/// Why records are not committed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommitError {
    /// Another process has taken over.
    Superseded,
    /// The process has ended during the call: the records may be committed.
    Ended,
    /// The engine broke a rule; the text describes it.
    Failed(String),
}

/// Makes the engine of a shard from a random number.
pub type NewEngine = fn(u64) -> Box<dyn Engine>;

/// How many calls to the servers a process makes at most before it crashes.
const CALLS: usize = 8;

/// One in this many connections is made to the earlier process of a shard, if there is one.
const TO_EARLIER: usize = 2;

/// One in this many operations ends an earlier process that has nothing to commit.
const NOTICES: usize = 60;

impl Shard {
    /// Stores some of the records of this process, or all of them.
    fn store(
        &mut self,
        engine: Option<&mut Box<dyn Engine>>,
        all: bool,
        random: &mut Random,
    ) -> Result<(), CommitError> {
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        disk.give(self.broker.journal());
        let before = disk.stored();
        let mut n = disk.store(all, random);
        if let Some(engine) = engine {
            n = disk.keep_whole(before);
            if n > 0 {
                let records = &disk.log()[before..before + n];
                engine.commit(self.process.number, records, None)?;
            }
        }
        self.broker.stored(n);
        Ok(())
    }
}

impl Disk {
    /// Reduces what was stored since `before` to whole records. Returns how many bytes these have.
    fn keep_whole(&mut self, before: usize) -> usize {
        let mut records = Records::new(&self.log()[before..self.stored()]);
        while matches!(records.next(), Some(Ok(_))) {}
        let whole = records.consumed();
        self.set_stored(before + whole);
        whole
    }
}

impl World {
    /// Moves the records of all processes to their disks or engines, and stores some or all of them. Ends the processes that are refused.
    pub(super) fn store_some(&mut self, all: bool) {
        let mut refused = Vec::new();
        let mut wrong = None;
        let shards = &mut self.shards;
        let current = shards.all.iter_mut().filter(|shard| !shard.is_away);
        let earlier = shards.earlier.iter_mut().map(|shard| (shard, true));
        for (shard, is_earlier) in current.map(|shard| (shard, false)).chain(earlier) {
            let engine = shards.engines.get_mut(shard.process.shard);
            match shard.store(engine, all, &mut self.random) {
                Ok(()) => {}
                Err(CommitError::Superseded) if is_earlier => refused.push(shard.process),
                Err(error) => wrong = Some(format!("{:?}: {error:?}", shard.process)),
            }
        }
        if let Some(wrong) = wrong {
            self.fail(0, wrong);
        }
        for process in refused {
            self.report.refused += 1;
            self.end_earlier(process);
        }
    }

    /// Reads the journal of a shard for its next process, which may crash while it takes over. Returns the records.
    pub(super) fn take_over(&mut self, own: usize) -> Vec<u8> {
        let process = self.shards.begin(own);
        let mut calls = self.random.once_in(4).then(|| self.random.below(CALLS));
        self.shards.all[own].process = process;
        loop {
            match self.shards.engines[own].take_over(process.number, calls.take()) {
                Ok(records) => return records,
                Err(CommitError::Ended) => {}
                Err(error) => {
                    self.fail(0, format!("shard {own} cannot be taken: {error:?}"));
                    return Vec::new();
                }
            }
        }
    }

    /// Lets a process that crashes send a part of its records to the engine.
    pub(super) fn send_before_crash(&mut self, crashed: usize) {
        let shard = &mut self.shards.all[crashed];
        let Some(disk) = &mut shard.disk else { return };
        let before = disk.stored();
        disk.store(true, &mut self.random);
        let whole = disk.keep_whole(before);
        let calls = Some(self.random.below(CALLS));
        let records = &disk.log()[before..before + whole];
        let ended = self.shards.engines[crashed].commit(shard.process.number, records, calls);
        if let Err(CommitError::Failed(wrong)) = ended {
            self.fail(0, wrong);
        }
    }

    /// Puts a process among the earlier ones: another one is about to take its shard. It keeps its clients, loses its links, and knows that
    /// its time as the owner is over.
    pub(super) fn leave_behind(&mut self, own: usize) {
        let now = self.instant();
        let count = self.shards.all.len();
        let mut successor = Shard::new(own, count, &self.config, now);
        // The next process begins with an empty disk: its records come from the engine.
        successor.disk = Some(Disk::default());
        let mut left = std::mem::replace(&mut self.shards.all[own], successor);
        left.close_links(now);
        let is_cut_off = self.random.once_in(2);
        if let Some(disk) = left.disk.as_mut().filter(|_| is_cut_off) {
            disk.cut_off();
        }
        left.broker.owns_journal_until(now);
        let begin = self.moment;
        let facts = (left.process, begin, Moment::MAX);
        self.expectations.left_behind.push(facts);
        self.shards.earlier.push(left);
        self.report.left_behind += 1;
        self.trace_shard(own, "is taken over while it serves");
    }

    /// Ends an earlier process: its clients lose their connections.
    fn end_earlier(&mut self, process: Process) {
        let is_it = |shard: &Shard| shard.process == process;
        let Some(at) = self.shards.earlier.iter().position(is_it) else {
            return;
        };
        let mut ended = self.shards.earlier.swap_remove(at);
        self.report.taken_over += ended.broker.hooks().taken_over;
        self.trace_shard(
            process.shard,
            "notices that another process has its journal",
        );
        let moment = self.tick_moment();
        for (left, _, end) in &mut self.expectations.left_behind {
            if *left == process {
                *end = moment;
            }
        }
        self.lose_connections(process);
    }

    /// Cuts all connections of a process that has ended.
    pub(super) fn lose_connections(&mut self, process: Process) {
        self.unnoticed.retain(|place| place.process != process);
        self.owners.retain(|place, _| place.process != process);
        for n in 0..self.nodes.len() {
            let wire = self.nodes[n].wire.as_ref();
            if wire.is_some_and(|wire| wire.id.process == process) && self.unplug(n).is_some() {
                self.trace(n, format_args!("loses the broker, which ends"));
                self.lost(n, Error::EndOfStream);
            }
        }
    }

    /// Lets an earlier process notice that its time is over, some time.
    pub(super) fn notice_earlier(&mut self, all: bool) {
        while let Some(shard) = self.shards.earlier.last()
            && (all || self.random.once_in(NOTICES))
        {
            let process = shard.process;
            self.end_earlier(process);
            self.wake();
        }
    }

    /// Chooses the process of a shard for a new connection.
    pub(super) fn process_for(&mut self, home: usize) -> Option<Process> {
        let mut earlier = self.shards.earlier.iter();
        let earlier = earlier
            .find(|shard| shard.process.shard == home)
            .map(|shard| shard.process);
        if let Some(earlier) = earlier
            && self.random.once_in(TO_EARLIER)
        {
            return Some(earlier);
        }
        let own = self.shards.all.get(home).filter(|own| !own.is_away)?;
        Some(own.process)
    }

    pub(super) fn calm_engines(&mut self) {
        for engine in &mut self.shards.engines {
            engine.be_calm();
        }
    }
}

impl Shard {
    fn close_links(&mut self, now: Instant) {
        for side in std::mem::take(&mut self.links).into_iter().flatten() {
            self.broker.closed(side.id, now);
        }
    }
}
