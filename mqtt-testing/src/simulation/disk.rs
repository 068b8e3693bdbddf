//! The broker's disk, and the crashes of the broker: it loses its memory at any instant, and comes back from a prefix of what it
//! recorded, which has at least what it was told as stored and may end at any byte.

use std::collections::BTreeMap;

use mqtt_agent::Error;
use mqtt_broker::Broker;
use mqtt_broker::records::{Kind, Record, Records};
use mqtt_proto::QoS;

use super::class;
use super::world::World;

/// What the broker recorded since it was new.
#[derive(Debug, Default)]
pub(super) struct Disk {
    log: Vec<u8>,
    /// Of the log, how many bytes the broker was told as stored.
    stored: usize,
    /// It stores once in so many turns.
    pace: usize,
}

/// How slow a disk may be.
const PACES: [usize; 3] = [1, 6, 60];

impl Disk {
    /// The whole records that a crash leaves, if it keeps `len` bytes.
    fn survivors(&self, len: usize) -> &[u8] {
        let mut records = Records::new(self.log.get(..len).unwrap_or_default());
        while matches!(records.next(), Some(Ok(_))) {}
        self.log.get(..records.consumed()).unwrap_or_default()
    }
}

impl World {
    /// A broker that records, if this world has crashes.
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

    /// What the broker recorded goes to the disk, and some of it, or all, is stored.
    pub(super) fn store_some(&mut self, all: bool) {
        let now = self.instant();
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
        self.broker.stored(n, now);
    }

    /// What the broker recorded goes to the disk, which may keep it or not.
    fn give(&mut self) {
        if let Some(disk) = &mut self.disk {
            let journal = self.broker.journal();
            let given = disk.log.len() - disk.stored;
            disk.log
                .extend_from_slice(journal.get(given..).unwrap_or_default());
        }
    }

    /// Whether records wait for the disk.
    pub(super) fn disk_has_work(&self) -> bool {
        self.disk.is_some() && !self.broker.journal().is_empty()
    }

    /// The broker loses its memory, all connections, and what was not stored, as far as chance will have it.
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
        self.expectations.crashed = true;
        self.unnoticed.clear();
        self.owners.clear();
        let moment = self.tick_moment();
        for life in &mut self.expectations.lives {
            // That a QoS 1 message was acknowledged need not be stored.
            let again: Vec<u32> = life
                .heard
                .iter()
                .filter(|heard| heard.qos == QoS::AtLeastOnce)
                .map(|heard| heard.number)
                .collect();
            for number in again {
                life.permit(number, moment);
            }
        }
        for n in 0..self.nodes.len() {
            if self.unplug(n).is_some() {
                self.trace(n, format_args!("loses the broker, which crashes"));
                self.lost(n, Error::EndOfStream);
            }
        }
        self.wake();
    }
}

/// The records that a store gives which was told all of these: the last of each key, in the order of keys.
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
