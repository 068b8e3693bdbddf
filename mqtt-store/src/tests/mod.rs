//! Tests the engine and the writer on a disk in memory that fails, fills up, and loses bytes that were not flushed.

mod changes;
mod crashes;
mod directory;
mod disk;
mod full;
mod log;
mod read_only;
mod writer;

use std::collections::BTreeMap;

use mqtt_journal::{Kind, Record};

use crate::changes::Changes;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::Failure;
use crate::logged::Logged;
use disk::Disk;

/// The expected content of a store.
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A change: `None` deletes.
type Change = (Vec<u8>, Option<Vec<u8>>);

const KIND: Kind = Kind::new(9);

/// A kind whose keys in the table are known.
const BRIEF: Kind = Kind::new(22);

fn kind(key: &[u8]) -> Kind {
    match key.last() {
        Some(last) if last % 2 == 1 => BRIEF,
        _ => KIND,
    }
}

fn record(change: &Change) -> Record<'_> {
    Record {
        kind: kind(&change.0),
        key: &change.0,
        value: change.1.as_deref(),
    }
}

fn journal(changes: &[Change]) -> Vec<u8> {
    let mut journal = Vec::new();
    for change in changes {
        let record = record(change);
        let start = journal.len();
        journal.resize(start + record.encoded_len().unwrap(), 0);
        record.write(&mut journal[start..]).unwrap();
    }
    journal
}

fn apply(model: &mut Model, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

/// The size of logs in tests: a few transactions fill it.
const LOG: u64 = 2 * 8 * 4096;

fn config() -> Config {
    let mut config = Config::new("");
    (config.log, config.reserve) = (LOG, disk::RESERVE * 4096);
    config
}

fn open_with(disk: &Disk, config: &Config) -> Result<Logged, Failure> {
    let mut engine = Logged::open(Box::new(disk.clone()), config)?;
    engine.start()?;
    Ok(engine)
}

fn open(disk: &Disk) -> Result<Logged, Failure> {
    open_with(disk, &config())
}

fn commit(engine: &mut Logged, changes: &[Change]) -> Result<i64, Failure> {
    let records: Vec<_> = changes.iter().map(record).collect();
    engine.commit(&Changes::of(&records), u64::MAX)
}

fn read(engine: &mut Logged) -> Result<Model, Failure> {
    let mut model = Model::new();
    engine.read(&mut |record| {
        assert_eq!(record.kind, kind(record.key));
        model.insert(record.key.to_vec(), record.value.unwrap().to_vec());
    })?;
    Ok(model)
}

/// Pseudo-random numbers with a fixed start.
#[derive(Debug)]
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((x ^ (x >> 31)) % u64::try_from(limit).unwrap()).unwrap()
    }

    fn changes(&mut self) -> Vec<Change> {
        let one = |numbers: &mut Self| {
            let key = vec![0, u8::try_from(numbers.below(24)).unwrap()];
            let len = [5, 200, 6000][numbers.below(3)];
            let byte = u8::try_from(numbers.below(256)).unwrap();
            let value = (numbers.below(3) > 0).then(|| vec![byte; len]);
            (key, value)
        };
        (0..=self.below(6)).map(|_| one(self)).collect()
    }
}
