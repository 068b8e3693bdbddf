//! Gathers the changes that the log has and the table has not.

use std::collections::HashMap;

use mqtt_journal::{Kind, Record};

use crate::changes::Changes;
use crate::engine::entry_size;

/// The last change of each key.
#[derive(Debug, Default)]
pub(crate) struct Net {
    /// By the byte of the kind and the key.
    entries: HashMap<Box<[u8]>, Entry>,
    /// Bytes of all changes as records.
    len: usize,
    /// By how many bytes of keys and values the table will grow, as far as it is known.
    pub(crate) growth: i64,
    /// Memory for a name.
    name: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    /// `None` deletes.
    value: Option<Box<[u8]>>,
    /// The size of the entry in the table.
    before: i64,
    /// Whether the table may have the value, because a transaction with it has failed.
    tried: bool,
}

impl Net {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many bytes the changes take as records.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Adds a change. `before` returns the size of an entry in the table.
    pub(crate) fn add(&mut self, record: &Record<'_>, before: impl FnOnce() -> i64) {
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        write_name(record, &mut name);
        let len = |value| Record { value, ..*record }.encoded_len().unwrap_or(0);
        let put_once = record.kind.is_put_once();
        self.growth += size(record.key, record.value);
        self.len += len(record.value);
        if let Some(old) = self.entries.get_mut(name.as_slice()) {
            self.growth -= size(record.key, old.value.as_deref());
            self.len -= len(old.value.as_deref());
            if put_once && record.value.is_none() && old.value.is_some() && !old.tried {
                // The table never had this entry.
                self.len -= len(None);
                self.entries.remove(name.as_slice());
            } else {
                old.value = record.value.map(Into::into);
            }
        } else {
            let is_new = put_once && record.value.is_some();
            let before = if is_new { 0 } else { before() };
            self.growth -= before;
            let entry = Entry {
                value: record.value.map(Into::into),
                before,
                tried: false,
            };
            self.entries.insert(name.as_slice().into(), entry);
        }
        self.name = name;
    }

    /// Returns by how many bytes of keys and values the content grows with more changes, as far as it is known.
    pub(crate) fn growth_of(&self, changes: &Changes<'_>) -> i64 {
        let growth = changes.records().map(|record| {
            let mut name = Vec::with_capacity(1 + record.key.len());
            write_name(&record, &mut name);
            let old = self.entries.get(name.as_slice());
            let old = old.and_then(|entry| entry.value.as_deref());
            size(record.key, record.value) - size(record.key, old)
        });
        growth.sum()
    }

    /// Returns the changes in the order of kinds and keys.
    pub(crate) fn sorted(&self) -> Vec<Record<'_>> {
        let mut records: Vec<_> = self.records().collect();
        records.sort_unstable_by_key(|record| (record.kind, record.key));
        records
    }

    /// Returns the changes without an order.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.entries
            .iter()
            .filter_map(|(name, entry)| record(name, entry.value.as_deref()))
    }

    /// Notes that a transaction with all changes has failed: the table may have them nevertheless.
    pub(crate) fn were_tried(&mut self) {
        for entry in self.entries.values_mut() {
            entry.tried = true;
        }
    }

    /// Returns the names of all deletions.
    pub(crate) fn deletions(&self) -> Vec<Box<[u8]>> {
        let deletions = self.entries.iter().filter(|(_, e)| e.value.is_none());
        deletions.map(|(name, _)| name.clone()).collect()
    }

    /// Removes deletions that the table has.
    pub(crate) fn remove(&mut self, deletions: &[Box<[u8]>]) {
        for name in deletions {
            if let Some(entry) = self.entries.remove(name) {
                let record = record(name, None);
                self.len -= record.and_then(|r| r.encoded_len()).unwrap_or(0);
                self.growth += entry.before;
            }
        }
    }

    /// Removes all changes.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEPT);
        (self.len, self.growth) = (0, 0);
    }
}

/// Appends the name of a record's entry.
fn write_name(record: &Record<'_>, name: &mut Vec<u8>) {
    name.push(record.kind.byte());
    name.extend_from_slice(record.key);
}

fn size(key: &[u8], value: Option<&[u8]>) -> i64 {
    value.map_or(0, |value| entry_size(key, value))
}

/// Returns the record of an entry.
pub(crate) fn record<'a>(name: &'a [u8], value: Option<&'a [u8]>) -> Option<Record<'a>> {
    let (kind, key) = name.split_first()?;
    let kind = Kind::from_byte(*kind)?;
    Some(Record { kind, key, value })
}

/// For how many changes memory stays allocated.
const KEPT: usize = 16 << 10;
