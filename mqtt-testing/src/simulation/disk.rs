//! Simulates disks, and the crashes of the broker: it loses its memory at any instant, and is restored from a prefix of its
//! records, which includes the stored ones and may end at any byte. `clients.rs` does the same to clients.

use std::collections::BTreeMap;

use mqtt_agent::Error;
use mqtt_broker::Broker;
use mqtt_broker::records::{Kind, Record, Records};
use mqtt_proto::QoS;

use super::expectations::{Expectations, Heard, Life, Moment, Published};
use super::world::World;
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

/// The possible speeds of the broker's disk.
const PACES: [usize; 3] = [1, 6, 60];

impl Disk {
    pub(super) const fn log(&self) -> &[u8] {
        self.log.as_slice()
    }

    pub(super) const fn stored(&self) -> usize {
        self.stored
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

    /// Loses a random part of the records that are not stored. What is left of a record that is cut is lost as well.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let lost = self.log.len() - self.stored;
        self.log.truncate(self.stored + random.below(lost + 1));
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
    /// Starts the journal of the broker, if this world has crashes.
    pub(super) fn start_disk(&mut self) {
        if self.chance(class::CRASHES, 2) {
            let mut disk = Disk::default();
            disk.restart(&PACES, &mut self.random);
            self.disk = Some(disk);
            self.broker.start_journal();
            let now = self.instant();
            self.broker.restored(now).expect("nothing to restore");
        }
    }

    /// Moves the records of the broker to the disk, and stores some or all of them.
    pub(super) fn store_some(&mut self, all: bool) {
        let Some(disk) = &mut self.disk else { return };
        disk.give(self.broker.journal());
        let n = disk.store(all, &mut self.random);
        self.broker.stored(n);
    }

    /// Returns whether records wait for the disk.
    pub(super) fn disk_has_work(&self) -> bool {
        self.disk.is_some() && !self.broker.journal().is_empty()
    }

    /// Crashes the broker: it loses its memory, all connections, and a random part of the records that are not stored.
    pub(super) fn crash(&mut self) {
        let now = self.instant();
        let Some(mut disk) = self.disk.take() else {
            return;
        };
        disk.give(self.broker.journal());
        disk.crash(&mut self.random);
        disk.restart(&PACES, &mut self.random);
        self.report.crashes += 1;
        let mut broker = Broker::new(
            self.config.clone(),
            std::mem::take(self.broker.hooks()),
            now,
        );
        broker.start_journal();
        for record in Records::new(&disk.log) {
            let record = record.expect("whole records");
            if let Err(error) = broker.restore(&record) {
                self.fail(0, format!("a record is refused: {error}, {record:?}"));
            }
        }
        if let Err(error) = broker.restored(now) {
            self.fail(0, format!("the records are refused: {error}"));
        }
        self.broker = broker;
        self.disk = Some(disk);
        let moment = self.tick_moment();
        self.expectations.crashes.push(moment);
        self.unnoticed.clear();
        self.owners.clear();
        for n in 0..self.nodes.len() {
            if self.unplug(n).is_some() {
                self.trace(n, format_args!("loses the broker, which crashes"));
                self.lost(n, Error::EndOfStream);
            }
        }
        self.wake();
    }
}

impl Expectations {
    /// Returns whether a message may come again because of a crash of the broker. A crash may lose the acknowledgement of a QoS 1
    /// message, and the arrival of a QoS 2 message: its record need not be stored before it is sent to a subscriber at QoS 0 or
    /// 1, or to one whose session ends with its connection.
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
            QoS::ExactlyOnce => life.new_sessions.iter().any(|at| since.contains(at)),
        };
        reaches && self.crashed_since(published.sent, heard.at)
    }

    fn crashed_since(&self, from: Moment, to: Moment) -> bool {
        self.crashes.iter().any(|at| (from..=to).contains(at))
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
