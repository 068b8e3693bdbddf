//! Gathers the changes that the log has and the table has not.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::OnceLock;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use mqtt_journal::proto::num::{to_u32, to_usize};
use mqtt_journal::{Kind, Record, Records};

use crate::changes::Changes;
use crate::engine::entry_size;
use crate::error::Failure;
use crate::log::HEAD;
use crate::tabled::Tabled;

/// The last change of each key. The records are in the blocks of the current generation, which stay in memory: a change takes no
/// memory of its own, and a block is written from here.
#[derive(Debug)]
pub(crate) struct Net {
    /// The blocks of the current generation, one behind the other.
    blocks: Vec<u8>,
    entries: HashTable<Entry>,
    hashes: SeedableRandomState,
    /// Bytes of all changes as records.
    len: usize,
    /// By how many bytes of keys and values the table will grow, as far as it is known.
    pub(crate) growth: i64,
    pub(crate) tabled: Tabled,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Hashed,
    /// Where its record begins in `blocks`, and its length.
    at: u32,
    len: u32,
    /// The size that the table will have of it.
    size: u32,
    /// Whether the table has no entry with this key, so that a deletion leaves nothing behind. It may have one after a
    /// transaction has failed.
    is_new: bool,
    /// The size of the entry in the table.
    before: i64,
}

/// The name of an entry as a hash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Hashed {
    hash: u64,
    kind: u8,
    /// Whether no other name of the kind has this hash, so that the keys need not be compared.
    is_exact: bool,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            entries: HashTable::new(),
            hashes: new_hashes(),
            len: 0,
            growth: 0,
            tabled: Tabled::default(),
        }
    }
}

/// Makes hashes with a key from the system, so that nobody can choose names with equal hashes.
fn new_hashes() -> SeedableRandomState {
    static SHARED: OnceLock<SharedSeed> = OnceLock::new();
    let random = || std::hash::RandomState::new().build_hasher().finish();
    let shared = SHARED.get_or_init(|| SharedSeed::from_u64(random()));
    SeedableRandomState::with_seed(random(), shared)
}

impl Net {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many bytes the changes take as records.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Adds the changes of complete records as a block, and returns its place for [`Self::block`]. `begins`: it is the first
    /// block of a generation, and has all changes. `before` returns the size of an entry in the table.
    ///
    /// # Errors
    /// The bytes are not records.
    pub(crate) fn add_block(
        &mut self,
        records: &[u8],
        begins: bool,
        mut before: impl FnMut(&Record<'_>) -> i64,
    ) -> Result<usize, Failure> {
        if begins {
            self.begin_generation();
        }
        let start = if begins { 0 } else { self.blocks.len() };
        if !begins {
            self.blocks.resize(start + HEAD, 0);
        }
        let first = self.blocks.len();
        self.blocks.extend_from_slice(records);
        let blocks = std::mem::take(&mut self.blocks);
        let mut found = Records::new(blocks.get(first..).unwrap_or_default());
        let mut at = first;
        let result = loop {
            match found.next() {
                None => break Ok(start),
                Some(Ok(record)) => {
                    let end = first + found.consumed();
                    self.add(&blocks, at..end, &record, &mut before);
                    at = end;
                }
                Some(Err(damaged)) => {
                    let why = format!("the machine wrote no records: {damaged}");
                    break Err(Failure::Broken(why));
                }
            }
        };
        self.blocks = blocks;
        result
    }

    /// Returns a block, with room for its head.
    pub(crate) fn block(&mut self, start: usize) -> &mut [u8] {
        self.blocks.get_mut(start..).unwrap_or_default()
    }

    /// Makes a block of all changes, which is the only one.
    pub(crate) fn begin_generation(&mut self) {
        let mut kept = Vec::with_capacity(HEAD + self.len);
        kept.resize(HEAD, 0);
        for entry in &mut self.entries {
            let at = to_usize(entry.at);
            let record = self.blocks.get(at..at + to_usize(entry.len));
            entry.at = to_u32(kept.len());
            kept.extend_from_slice(record.unwrap_or_default());
        }
        self.blocks.clear();
        self.blocks.extend_from_slice(&kept);
    }

    /// Adds the change of the record that has these bytes of the blocks, which have less than 4 GiB.
    fn add(
        &mut self,
        blocks: &[u8],
        bytes: Range<usize>,
        record: &Record<'_>,
        before: &mut impl FnMut(&Record<'_>) -> i64,
    ) {
        let name = self.hashed(record);
        let is_deletion = record.value.is_none();
        let size = size(record.key, record.value);
        let table_size = u32::try_from(size).unwrap_or(u32::MAX);
        match find(&mut self.entries, blocks, name, record) {
            Slot::Occupied(slot) if is_deletion && slot.get().is_new => {
                let (old, _) = slot.remove();
                self.len -= to_usize(old.len);
                self.growth -= i64::from(old.size);
            }
            Slot::Occupied(mut slot) => {
                let old = slot.get_mut();
                self.len = self.len - to_usize(old.len) + bytes.len();
                self.growth += size - i64::from(old.size);
                (old.at, old.len) = (to_u32(bytes.start), to_u32(bytes.len()));
                old.size = table_size;
            }
            Slot::Vacant(slot) => {
                let is_new = !is_deletion && record.kind.is_put_once() || self.tabled.lacks(record);
                if is_deletion && is_new {
                    return;
                }
                let before = if is_new { 0 } else { before(record) };
                self.len += bytes.len();
                self.growth += size - before;
                slot.insert(Entry {
                    name,
                    at: to_u32(bytes.start),
                    len: to_u32(bytes.len()),
                    size: table_size,
                    is_new,
                    before,
                });
            }
        }
    }

    fn hashed(&self, record: &Record<'_>) -> Hashed {
        let kind = record.kind.byte();
        if record.kind.is_put_once()
            && let Ok(number) = <[u8; 8]>::try_from(record.key)
        {
            // The machine counts these numbers. The low bits of a hash choose the place in the table, so that the numbers that live
            // at the same time are neighbours in memory; the high bits tell neighbours apart.
            let number = u64::from_be_bytes(number);
            let tag = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) & !PLACE;
            return Hashed {
                hash: number & PLACE | tag,
                kind,
                is_exact: number <= PLACE,
            };
        }
        let mut hasher = self.hashes.build_hasher();
        hasher.write_u8(kind);
        hasher.write(record.key);
        Hashed {
            hash: hasher.finish(),
            kind,
            is_exact: false,
        }
    }

    /// Returns by how many bytes of keys and values the content grows with more changes, as far as it is known.
    pub(crate) fn growth_of(&self, changes: &Changes<'_>) -> i64 {
        let growth = changes.records().map(|record| {
            let name = self.hashed(&record);
            let same = |entry: &Entry| is_same(&self.blocks, entry, name, &record);
            let old = self.entries.find(name.hash, same);
            size(record.key, record.value) - old.map_or(0, |entry| i64::from(entry.size))
        });
        growth.sum()
    }

    /// Returns the changes in the order of kinds and keys.
    pub(crate) fn sorted(&self) -> Vec<Record<'_>> {
        let entries = self.entries.iter();
        let mut records: Vec<_> = entries
            .filter_map(|entry| read_at(&self.blocks, entry.at))
            .collect();
        records.sort_unstable_by_key(|record| (record.kind, record.key));
        records
    }

    /// Notes that a transaction with all changes has failed: the table may have them nevertheless.
    pub(crate) fn were_tried(&mut self) {
        for entry in &mut self.entries {
            entry.is_new = false;
        }
    }

    /// Returns the names of all deletions.
    pub(crate) fn deletions(&self) -> Vec<Name> {
        let records = self.entries.iter().filter_map(|entry| {
            let record = read_at(&self.blocks, entry.at)?;
            record.value.is_none().then(|| Name {
                kind: record.kind,
                key: record.key.into(),
            })
        });
        records.collect()
    }

    /// Removes deletions that the table has.
    pub(crate) fn remove(&mut self, deletions: &[Name]) {
        for name in deletions {
            let record = name.deletion();
            let hashed = self.hashed(&record);
            let found = find(&mut self.entries, &self.blocks, hashed, &record);
            if let Slot::Occupied(entry) = found {
                self.len -= to_usize(entry.get().len);
                self.growth += entry.get().before;
                entry.remove();
                self.tabled.note(&record);
            }
        }
    }

    /// Removes all changes, because the table has them.
    pub(crate) fn clear(&mut self) {
        for entry in &self.entries {
            if let Some(record) = read_at(&self.blocks, entry.at) {
                self.tabled.note(&record);
            }
        }
        self.entries.clear();
        self.entries.shrink_to(KEPT, |entry| entry.name.hash);
        self.blocks.clear();
        (self.len, self.growth) = (0, 0);
    }
}

/// The name of an entry.
#[derive(Debug)]
pub(crate) struct Name {
    kind: Kind,
    key: Box<[u8]>,
}

impl Name {
    /// Returns the record that deletes the entry.
    pub(crate) fn deletion(&self) -> Record<'_> {
        Record {
            kind: self.kind,
            key: &self.key,
            value: None,
        }
    }
}

fn find<'e>(
    entries: &'e mut HashTable<Entry>,
    blocks: &[u8],
    name: Hashed,
    record: &Record<'_>,
) -> Slot<'e, Entry> {
    let same = |entry: &Entry| is_same(blocks, entry, name, record);
    entries.entry(name.hash, same, |entry| entry.name.hash)
}

/// Returns whether an entry has the name of a record.
fn is_same(blocks: &[u8], entry: &Entry, name: Hashed, record: &Record<'_>) -> bool {
    let has_key = || read_at(blocks, entry.at).is_some_and(|known| known.key == record.key);
    entry.name == name && (name.is_exact || has_key())
}

fn read_at(blocks: &[u8], at: u32) -> Option<Record<'_>> {
    let (record, _) = Record::read(blocks.get(to_usize(at)..)?).ok().flatten()?;
    Some(record)
}

fn size(key: &[u8], value: Option<&[u8]>) -> i64 {
    value.map_or(0, |value| entry_size(key, value))
}

/// The bits of a hash that choose a place in the table.
const PLACE: u64 = u64::MAX >> 7;
/// For how many changes memory stays allocated.
const KEPT: usize = 16 << 10;
