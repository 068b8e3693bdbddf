//! Knows which keys of some kinds the table has.

use std::collections::{HashMap, HashSet};

use mqtt_journal::{Kind, Record};

/// The keys in the table of kinds with [`Kind::is_brief`]. Few of them last until the table gets them, so that they are a small part
/// of the table. An entry that the table does not have leaves nothing behind when it is deleted.
#[derive(Debug, Default)]
pub(crate) struct Tabled {
    keys: HashMap<Kind, HashSet<Box<[u8]>>>,
    count: usize,
    /// Whether the keys are known: the table was read, and they are not too many.
    is_known: bool,
}

impl Tabled {
    /// Notes that all entries of the table follow.
    pub(crate) fn begin(&mut self) {
        *self = Self {
            is_known: true,
            ..Self::default()
        };
    }

    /// Returns whether the table certainly has no entry with the key of this record.
    pub(crate) fn lacks(&self, record: &Record<'_>) -> bool {
        self.is_known
            && record.kind.is_brief()
            && (self.count == 0
                || !self
                    .keys
                    .get(&record.kind)
                    .is_some_and(|keys| keys.contains(record.key)))
    }

    /// Notes that the table has the change of this record now.
    pub(crate) fn note(&mut self, record: &Record<'_>) {
        if !self.is_known || !record.kind.is_brief() {
            return;
        }
        let keys = self.keys.entry(record.kind).or_default();
        match record.value {
            Some(_) => self.count += usize::from(keys.insert(record.key.into())),
            None => self.count -= usize::from(keys.remove(record.key)),
        }
        if self.count > MOST {
            *self = Self::default();
        }
    }
}

/// For how many keys there is memory.
const MOST: usize = 1 << 16;
