//! Simulates the broker's disk and the broker's crashes: the broker loses its memory at any instant, and is restored from a
//! prefix of its records, which includes the stored ones and may end at any byte.

use std::collections::BTreeMap;

use mqtt_agent::Error;
use mqtt_broker::Broker;
use mqtt_broker::records::{Kind, Record, Records};
use mqtt_proto::QoS;

use super::class;
use super::expectations::{Expectations, Heard, Life, Moment, Published};
use super::world::World;

/// The records of the broker since the first process.
#[derive(Debug, Default)]
pub(super) struct Disk {
    log: Vec<u8>,
    /// How many bytes of the log the broker knows as stored.
    stored: usize,
    /// The disk stores once in this many turns.
    pace: usize,
}

/// The possible speeds of a disk.
const PACES: [usize; 3] = [1, 6, 60];

impl Disk {
    /// Returns the complete records after a crash that keeps `len` bytes.
    fn survivors(&self, len: usize) -> &[u8] {
        let mut records = Records::new(self.log.get(..len).unwrap_or_default());
        while matches!(records.next(), Some(Ok(_))) {}
        self.log.get(..records.consumed()).unwrap_or_default()
    }
}

impl World {
    /// Starts the journal of the broker, if this world has crashes.
    pub(super) fn start_disk(&mut self) {
        if self.chance(class::CRASHES, 2) {
            let pace = PACES[self.random.below(PACES.len())];
            self.disk = Some(Disk {
                pace,
                ..Disk::default()
            });
            self.broker.start_journal();
            let now = self.instant();
            self.broker.restored(now).expect("nothing to restore");
        }
    }

    /// Moves the records of the broker to the disk, and stores some or all of them.
    pub(super) fn store_some(&mut self, all: bool) {
        self.give();
        let Some(disk) = &self.disk else { return };
        let (waits, pace) = (self.broker.journal().len(), disk.pace);
        if waits == 0 || !all && !self.random.once_in(pace) {
            return;
        }
        let n = match self.random.below(4) {
            _ if all => waits,
            0 => self.random.below(waits + 1),
            1 => waits,
            _ => return,
        };
        if let Some(disk) = &mut self.disk {
            disk.stored += n;
        }
        self.broker.stored(n);
    }

    /// Moves the records of the broker to the disk, which may lose them in a crash.
    fn give(&mut self) {
        if let Some(disk) = &mut self.disk {
            let journal = self.broker.journal();
            let given = disk.log.len() - disk.stored;
            disk.log
                .extend_from_slice(journal.get(given..).unwrap_or_default());
        }
    }

    /// Returns whether records wait for the disk.
    pub(super) fn disk_has_work(&self) -> bool {
        self.disk.is_some() && !self.broker.journal().is_empty()
    }

    /// Crashes the broker: it loses its memory, all connections, and a random part of the records that are not stored.
    pub(super) fn crash(&mut self) {
        let now = self.instant();
        self.give();
        let Some(disk) = self.disk.take() else { return };
        let lost = disk.log.len() - disk.stored;
        let kept = disk.stored + self.random.below(lost + 1);
        self.report.crashes += 1;
        let journal = disk.survivors(kept).to_vec();
        let mut broker = Broker::new(
            self.config.clone(),
            std::mem::take(self.broker.hooks()),
            now,
        );
        broker.start_journal();
        let as_store = self.random.once_in(2);
        let records = if as_store {
            as_entries(&journal)
        } else {
            journal
        };
        for record in Records::new(&records) {
            let record = record.expect("whole records");
            if let Err(error) = broker.restore(&record) {
                self.fail(0, format!("a record is refused: {error}, {record:?}"));
            }
        }
        if let Err(error) = broker.restored(now) {
            self.fail(0, format!("the records are refused: {error}"));
        }
        self.broker = broker;
        self.disk = Some(Disk {
            stored: records.len(),
            log: records,
            pace: PACES[self.random.below(PACES.len())],
        });
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
