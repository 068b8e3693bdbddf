//! Simulates disks, and the crashes of the broker: it loses its memory at any instant, and is restored from a prefix of its
//! records, which includes the stored ones and may end at any byte. `clients.rs` does the same to clients.

use std::collections::BTreeMap;

use mqtt_broker::Broker;
use mqtt_broker::records::{Kind, Record, Records};
use mqtt_proto::QoS;

use super::expectations::{Expectations, Heard, Life, Moment, Published};
use super::shards::{Process, Shard};
use super::world::{AllowAll, World};
use super::{Random, class};

/// The records of a machine since its first process.
#[derive(Debug, Default)]
pub(super) struct Disk {
    log: Vec<u8>,
    /// How many bytes of the log the machine knows as stored.
    stored: usize,
    /// The disk stores once in this many turns.
    pace: usize,
}

/// Crashes that wait for a moment at which much depends on the records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Aimed {
    at_shard: bool,
    pub(super) at_client: bool,
}

/// The bytes of a transfer on the wire of a client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    /// The client has sent some.
    pub(super) up: bool,
    /// The client has read some.
    pub(super) read: bool,
}

/// The speed of a disk whose process does not reach it most of the time.
const CUT_OFF: usize = 2_000;

/// The possible speeds of the broker's disk.
const PACES: [usize; 3] = [1, 6, 60];

impl Disk {
    pub(super) const fn log(&self) -> &[u8] {
        self.log.as_slice()
    }

    pub(super) const fn stored(&self) -> usize {
        self.stored
    }

    pub(super) const fn set_stored(&mut self, stored: usize) {
        self.stored = stored;
    }

    /// Stores rarely from now on.
    pub(super) const fn cut_off(&mut self) {
        self.pace = CUT_OFF;
    }

    /// Starts the disk of the next process with the records of an engine.
    pub(super) fn start_with(&mut self, records: Vec<u8>, random: &mut Random) {
        self.log = records;
        self.stored = self.log.len();
        self.pace = PACES[random.below(PACES.len())];
    }

    /// Takes records of a process, which a crash may lose. `journal` has the records that are not stored.
    pub(super) fn give(&mut self, journal: &[u8]) {
        let given = self.log.len() - self.stored;
        self.log
            .extend_from_slice(journal.get(given..).unwrap_or_default());
    }

    /// Stores some of the given records, or all of them. Returns how many bytes.
    pub(super) fn store(&mut self, all: bool, random: &mut Random) -> usize {
        let waits = self.log.len() - self.stored;
        if waits == 0 || !all && !random.once_in(self.pace) {
            return 0;
        }
        let n = match random.below(4) {
            _ if all => waits,
            0 => random.below(waits + 1),
            1 => waits,
            _ => return 0,
        };
        self.stored += n;
        n
    }

    /// Loses a random part of the records that are not stored, or `all` of them. What is left of a record that is cut is lost as well.
    pub(super) fn crash(&mut self, all: bool, random: &mut Random) {
        let lost = self.log.len() - self.stored;
        let kept = if all { 0 } else { random.below(lost + 1) };
        self.log.truncate(self.stored + kept);
        let mut records = Records::new(&self.log);
        while matches!(records.next(), Some(Ok(_))) {}
        let whole = records.consumed();
        self.log.truncate(whole);
    }

    /// Starts the disk of the next process. Some disks are stores, which have the last record of each key.
    pub(super) fn restart(&mut self, paces: &[usize], random: &mut Random) {
        if random.once_in(2) {
            self.log = as_entries(&self.log);
        }
        self.stored = self.log.len();
        self.pace = paces[random.below(paces.len())];
    }
}

impl World {
    /// Starts the journals of the shards, if this world has crashes.
    pub(super) fn start_disks(&mut self) {
        if self.plan.engine.is_none() && !self.chance(class::CRASHES, 2) {
            return;
        }
        let now = self.instant();
        for own in 0..self.shards.all.len() {
            let mut disk = Disk::default();
            if let Some(new_engine) = self.plan.engine {
                let engine = new_engine(self.random.next());
                self.shards.engines.push(engine);
                disk.start_with(self.take_over(own), &mut self.random);
            } else {
                disk.restart(&PACES, &mut self.random);
            }
            let shard = &mut self.shards.all[own];
            shard.disk = Some(disk);
            shard.broker.start_journal();
            shard.broker.restored(now).expect("nothing to restore");
        }
    }

    /// Returns whether records wait for a disk.
    pub(super) fn disk_has_work(&self) -> bool {
        let waits = |shard: &Shard| {
            shard.disk.is_some() && !shard.is_away && !shard.broker.journal().is_empty()
        };
        self.shards.processes().any(waits)
    }

    /// Crashes a shard now, or when a client has read something while records of its shard wait.
    pub(super) fn crash(&mut self) {
        if self.random.once_in(2) {
            self.aimed.at_shard = true;
            return;
        }
        let count = self.shards.all.len();
        let crashed = if count > 1 {
            self.random.below(count)
        } else {
            0
        };
        self.crash_shard(crashed, false);
    }

    /// Crashes a shard or a client if that was to happen after such a transfer: what was just read may depend on a record that is lost.
    pub(super) fn crash_as_aimed(&mut self, n: usize, process: Process, moved: Moved) {
        let shard = &self.shards.all[process.shard];
        let waits = shard.process == process && !shard.broker.journal().is_empty();
        if self.aimed.at_shard && moved.read && waits {
            self.aimed.at_shard = false;
            self.crash_shard(process.shard, true);
        }
        if self.aimed.at_client && n > 0 && moved.up && self.has_records(n) {
            self.aimed.at_client = false;
            self.restart(n, true, true);
        }
    }

    /// Crashes a shard: it loses its memory, all connections, and a random part of the records that are not stored, or `all` of them.
    fn crash_shard(&mut self, crashed: usize, all: bool) {
        let count = self.shards.all.len();
        let shard = &mut self.shards.all[crashed];
        let Some(disk) = shard.disk.as_mut().filter(|_| !shard.is_away) else {
            return;
        };
        let process = shard.process;
        disk.give(shard.broker.journal());
        self.report.crashes += 1;
        let goes_on = !self.shards.engines.is_empty() && self.random.once_in(2);
        if goes_on {
            self.leave_behind(crashed);
        } else {
            self.trace_shard(crashed, "crashes");
            self.lose_records(crashed, all);
        }
        let stays_away = count > 1 && self.random.once_in(2);
        if !stays_away {
            self.start_again(crashed);
        }
        let moment = self.tick_moment();
        self.expectations.crashes.push(moment);
        if !goes_on {
            self.lose_connections(process);
        }
        if stays_away {
            return self.stays_away(crashed);
        }
        self.join_others(crashed);
    }

    /// Loses a random part of the records that are not stored, or `all` of them.
    fn lose_records(&mut self, crashed: usize, all: bool) {
        if !self.shards.engines.is_empty() {
            if !all {
                self.send_before_crash(crashed);
            }
        } else if let Some(disk) = &mut self.shards.all[crashed].disk {
            disk.crash(all, &mut self.random);
        }
    }

    /// Starts the next process of a shard from its disk, if it has one.
    pub(super) fn start_again(&mut self, own: usize) {
        let shard = &mut self.shards.all[own];
        shard.is_away = false;
        let Some(mut disk) = shard.disk.take() else {
            return;
        };
        if self.shards.engines.is_empty() {
            disk.restart(&PACES, &mut self.random);
        } else {
            disk.start_with(self.take_over(own), &mut self.random);
        }
        let hooks = std::mem::take(self.shards.all[own].broker.hooks());
        if let Some(wrong) = self.restart_shard(own, &disk, hooks) {
            self.fail(0, wrong);
        }
        self.shards.all[own].disk = Some(disk);
    }

    /// Restores a shard from its disk. Returns what is wrong with the records.
    fn restart_shard(&mut self, own: usize, disk: &Disk, hooks: AllowAll) -> Option<String> {
        let now = self.instant();
        let mut broker = Broker::new(self.config.clone(), hooks, now);
        let small = |number: usize| u8::try_from(number).expect("few shards");
        broker.start_journal();
        broker.start_links(small(own), small(self.shards.all.len()));
        let mut wrong = None;
        for record in Records::new(&disk.log) {
            let record = record.expect("whole records");
            if let Err(error) = broker.restore(&record) {
                wrong.get_or_insert_with(|| format!("a record is refused: {error}, {record:?}"));
            }
        }
        if let Err(error) = broker.restored(now) {
            wrong.get_or_insert_with(|| format!("the records are refused: {error}"));
        }
        self.shards.replace(own, broker);
        wrong
    }
}

impl Expectations {
    /// Returns whether a message may come again because of a crash of the broker. A crash may lose the acknowledgement of a QoS 1
    /// message, and the arrival of a QoS 2 message: its record need not be stored before it is sent to a subscriber at QoS 0 or
    /// 1, or to one whose session ends with its connection. An engine may be out of reach for long: the record of PUBREC may be missing
    /// when a client that has lost its memory comes back.
    pub(super) fn a_crash_may_repeat(
        &self,
        life: &Life,
        heard: &Heard,
        published: &Published,
    ) -> bool {
        let since = published.sent..=heard.at;
        let reaches = match heard.qos {
            QoS::AtMostOnce => published.qos == QoS::ExactlyOnce,
            QoS::AtLeastOnce => true,
            QoS::ExactlyOnce => {
                let forgets = life.forgets.iter().filter(|_| self.is_on_engine);
                let mut ends = life.new_sessions.iter().chain(forgets);
                ends.any(|at| since.contains(at))
            }
        };
        self.doubted.contains(&heard.number)
            || reaches && self.crashed_since(published.sent, heard.at)
            || self.a_link_may_repeat(heard, published)
    }

    fn crashed_since(&self, from: Moment, to: Moment) -> bool {
        let mut left_behind = self.left_behind.iter();
        let overlaps = |begin: Moment, end: Moment| begin <= to && end >= from;
        left_behind.any(|(_, begin, end)| overlaps(*begin, *end))
            || self.crashes.iter().any(|at| (from..=to).contains(at))
    }

    /// Handles the end of a client's process. The record of PUBREC need not be stored before PUBREL is sent, so the broker may
    /// send a message again that the client acknowledged before a crash; a client that has lost its memory treats it as new.
    pub(super) fn permit_after_crashes(&mut self, n: usize, moment: Moment) {
        let again: Vec<u32> = self.lives[n]
            .heard
            .iter()
            .filter(|heard| heard.qos == QoS::ExactlyOnce)
            .filter_map(|heard| Some((heard.number, self.published.get(&heard.number)?)))
            .filter(|(_, published)| self.crashed_since(published.sent, moment))
            .map(|(number, _)| number)
            .collect();
        for number in again {
            self.lives[n].permit(number, moment);
        }
    }
}

/// Returns the records of a store that has stored these: the last one of each key, in the order of keys.
fn as_entries(journal: &[u8]) -> Vec<u8> {
    let mut entries: BTreeMap<(Kind, &[u8]), &[u8]> = BTreeMap::new();
    for record in Records::new(journal).map_while(Result::ok) {
        match record.value {
            Some(value) => entries.insert((record.kind, record.key), value),
            None => entries.remove(&(record.kind, record.key)),
        };
    }
    let mut bytes = Vec::new();
    for ((kind, key), value) in entries {
        let value = Some(value);
        let record = Record { kind, key, value };
        let start = bytes.len();
        bytes.resize(start + record.encoded_len().expect("it was one"), 0);
        record.write(&mut bytes[start..]).expect("room");
    }
    bytes
}
