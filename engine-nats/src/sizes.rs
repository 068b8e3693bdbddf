//! Knows the sizes of the entries, without their values.

use std::collections::HashMap;

use mqtt_store::journal::{Kind, Record};
use mqtt_store::{Changes, entry_size};

/// The size of each entry.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// The sizes by the byte of the kind and the key.
    of: HashMap<Box<[u8]>, i64>,
    live: i64,
}

impl Sizes {
    /// Returns the bytes of all keys and values.
    pub(crate) fn live(&self) -> u64 {
        u64::try_from(self.live).unwrap_or(0)
    }

    /// Adds an entry.
    pub(crate) fn put(&mut self, record: &Record<'_>) {
        self.set(record.kind, record.key, record.value);
    }

    /// Returns by how many bytes the entries would grow, and whether they would change.
    pub(crate) fn growth(&self, changes: &Changes<'_>) -> (i64, bool) {
        let (mut growth, mut changed) = (0, false);
        for (kind, key, value) in changes.iter() {
            let before = self.of.get(&*joined(kind, key)).copied();
            let after = value.map(|value| entry_size(key, value));
            growth += after.unwrap_or(0) - before.unwrap_or(0);
            changed |= before.is_some() || after.is_some();
        }
        (growth, changed)
    }

    /// Applies changes.
    pub(crate) fn change(&mut self, changes: &Changes<'_>) {
        for (kind, key, value) in changes.iter() {
            self.set(kind, key, value);
        }
    }

    fn set(&mut self, kind: Kind, key: &[u8], value: Option<&[u8]>) {
        let joined = joined(kind, key);
        let after = value.map(|value| entry_size(key, value));
        let before = match after {
            Some(size) => self.of.insert(joined, size),
            None => self.of.remove(&joined),
        };
        self.live += after.unwrap_or(0) - before.unwrap_or(0);
    }
}

fn joined(kind: Kind, key: &[u8]) -> Box<[u8]> {
    [&[kind.byte()], key].concat().into()
}
