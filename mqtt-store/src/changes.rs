//! Combines records into the changes of one transaction.

use std::cmp::Ordering;

use mqtt_journal::{Kind, Record, Records};

use crate::error::Failure;

/// The new value of each key; `None` deletes the key. Only the last record for a key counts, so a message that was stored and
/// deleted between two transactions is never written to disk.
#[derive(Clone, Debug, Default)]
pub struct Changes<'a> {
    /// One record for each key, in ascending order of kind and key.
    last: Vec<Record<'a>>,
}

impl<'a> Changes<'a> {
    /// Combines the changes of these records. They were in no earlier transaction: a key of [`Kind::is_put_once`] that they put
    /// and delete is not in the store, and needs no change.
    #[must_use]
    pub fn of(records: &[Record<'a>]) -> Self {
        Self::combined(records, true)
    }

    /// Combines the changes of records that may have been in an earlier transaction, which failed.
    pub(crate) fn of_repeated(records: &[Record<'a>]) -> Self {
        Self::combined(records, false)
    }

    fn combined(records: &[Record<'a>], new: bool) -> Self {
        // Short entries are sorted in less time than records, and most are compared by their numbers alone.
        let mut order: Vec<_> = records.iter().zip(0_usize..).map(Place::new).collect();
        order.sort_unstable_by(|a, b| a.number.cmp(&b.number).then_with(|| a.compare(b, records)));
        let mut last: Vec<Record<'a>> = Vec::new();
        let same = |a: &Place, b: &Place| a.number == b.number && a.key(records) == b.key(records);
        for places in order.chunk_by(same) {
            let record = |place: Option<&Place>| place.and_then(|place| records.get(place.index));
            let (Some(oldest), Some(newest)) = (record(places.first()), record(places.last()))
            else {
                continue;
            };
            let cancels = oldest.value.is_some() && newest.value.is_none();
            if !(new && cancels && newest.kind.is_put_once()) {
                last.push(*newest);
            }
        }
        Self { last }
    }

    /// Makes the changes of records with different keys, which are in ascending order.
    pub(crate) const fn of_sorted(records: Vec<Record<'a>>) -> Self {
        Self { last: records }
    }

    /// Returns the changes as records, in ascending order.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'a>> + '_ {
        self.last.iter().copied()
    }

    /// Returns the bytes of the changes as records.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in &self.last {
            let start = bytes.len();
            bytes.resize(start + record.encoded_len().unwrap_or(0), 0);
            record.write(bytes.get_mut(start..).unwrap_or_default());
        }
        bytes
    }

    /// Returns the deletions.
    #[must_use]
    pub(crate) fn deletes(mut self) -> Self {
        self.last.retain(|record| record.value.is_none());
        self
    }

    /// Splits the changes into parts of `len`, which is not 0.
    pub(crate) fn chunks(&self, len: usize) -> impl Iterator<Item = Self> + '_ {
        self.last.chunks(len).map(|part| Self {
            last: part.to_vec(),
        })
    }

    /// Returns whether there is no change.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Returns kind, key and value of each change, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &'a [u8], Option<&'a [u8]>)> + '_ {
        self.last
            .iter()
            .map(|record| (record.kind, record.key, record.value))
    }
}

/// A record by its index, with the front of its key as a number that is compared first.
struct Place {
    /// The kind and the first 15 bytes of the key.
    number: u128,
    index: usize,
}

impl Place {
    fn new((record, index): (&Record<'_>, usize)) -> Self {
        let mut front = [record.kind.byte(); 16];
        let len = record.key.len().min(15);
        let (_, rest) = front.split_at_mut(1);
        rest.fill(0);
        if let (Some(room), Some(key)) = (rest.get_mut(..len), record.key.get(..len)) {
            room.copy_from_slice(key);
        }
        Self {
            number: u128::from_be_bytes(front),
            index,
        }
    }

    fn key<'a>(&self, records: &[Record<'a>]) -> &'a [u8] {
        records
            .get(self.index)
            .map_or(&[], |record: &Record<'a>| record.key)
    }

    /// Compares two records with the same number.
    fn compare(&self, other: &Self, records: &[Record<'_>]) -> Ordering {
        let keys = self.key(records).cmp(other.key(records));
        keys.then(self.index.cmp(&other.index))
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
pub(crate) fn parse(journal: &[u8]) -> Result<Batch<'_>, Failure> {
    let mut batch = Batch::default();
    let mut records = Records::new(journal);
    while let Some(record) = records.next() {
        let wrong = |damaged| Failure::Broken(format!("the machine wrote no records: {damaged}"));
        batch.records.push(record.map_err(wrong)?);
        batch.ends.push(records.consumed());
    }
    Ok(batch)
}
