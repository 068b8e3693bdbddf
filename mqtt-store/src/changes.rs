//! Combines records into the changes of one transaction.

use std::collections::BTreeMap;

use mqtt_journal::{Damaged, Kind, Record, Records};

/// The new value of each key; `None` deletes the key. Only the last record for a key counts, so a message that was stored and
/// deleted between two transactions is never written to disk.
#[derive(Clone, Debug, Default)]
pub struct Changes<'a> {
    last: BTreeMap<(Kind, &'a [u8]), Option<&'a [u8]>>,
}

impl<'a> Changes<'a> {
    /// Combines the changes of these records.
    #[must_use]
    pub fn of(records: &[Record<'a>]) -> Self {
        let entry = |record: &Record<'a>| ((record.kind, record.key), record.value);
        Self {
            last: records.iter().map(entry).collect(),
        }
    }

    /// Returns the deletions.
    #[must_use]
    pub(crate) fn deletes(mut self) -> Self {
        self.last.retain(|_, value| value.is_none());
        self
    }

    /// Splits the changes into parts of `len`.
    pub(crate) fn chunks(&self, len: usize) -> impl Iterator<Item = Self> + '_ {
        let mut rest = self.last.iter();
        std::iter::from_fn(move || {
            let last: BTreeMap<_, _> = rest.by_ref().take(len).map(|(k, v)| (*k, *v)).collect();
            (!last.is_empty()).then_some(Self { last })
        })
    }

    /// Returns whether there is no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Returns kind, key and value of each change, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &'a [u8], Option<&'a [u8]>)> + '_ {
        self.last
            .iter()
            .map(|((kind, key), value)| (*kind, *key, *value))
    }
}

/// The records of a journal, and the position of the end of each.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    records: Vec<Record<'a>>,
    ends: Vec<usize>,
}

impl<'a> Batch<'a> {
    /// Returns all but the first `done` records.
    pub(crate) fn from(&self, done: usize) -> &[Record<'a>] {
        self.records.get(done..).unwrap_or_default()
    }

    /// Returns the position of the end of the first `done` records.
    pub(crate) fn end(&self, done: usize) -> usize {
        let last = done.checked_sub(1);
        last.and_then(|last| self.ends.get(last).copied())
            .unwrap_or(0)
    }
}

/// Parses the records of a journal.
pub(crate) fn parse(journal: &[u8]) -> Result<Batch<'_>, Damaged> {
    let mut batch = Batch::default();
    let mut records = Records::new(journal);
    while let Some(record) = records.next() {
        batch.records.push(record?);
        batch.ends.push(records.consumed());
    }
    Ok(batch)
}
