//! Gathers the changes that the log has and the table has not.

use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
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
    hash: u64,
    /// Where its record begins in `blocks`.
    at: u32,
    /// Whether the table has no entry with this key, so that a deletion leaves nothing behind. It may have one after a
    /// transaction has failed.
    is_new: bool,
    /// The size of the entry in the table.
    before: i64,
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
                Some(Ok(record)) => self.add(&blocks, at, &record, &mut before),
                Some(Err(damaged)) => {
                    let why = format!("the machine wrote no records: {damaged}");
                    break Err(Failure::Broken(why));
                }
            }
            at = first + found.consumed();
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
            let at = index(entry.at);
            let bytes = self.blocks.get(at..).unwrap_or_default();
            let len = read(bytes).map_or(0, |(_, len)| len);
            entry.at = place(kept.len());
            kept.extend_from_slice(bytes.get(..len).unwrap_or_default());
        }
        self.blocks.clear();
        self.blocks.extend_from_slice(&kept);
    }

    /// Adds the change of the record at a place of the blocks.
    fn add(
        &mut self,
        blocks: &[u8],
        at: usize,
        record: &Record<'_>,
        before: &mut impl FnMut(&Record<'_>) -> i64,
    ) {
        let hash = self.hash(record);
        self.growth += size(record.key, record.value);
        self.len += len(record);
        match find(&mut self.entries, blocks, hash, record) {
            Place::Occupied(mut place_of) => {
                let old = place_of.get_mut();
                let is_new = old.is_new;
                let last = read_at(blocks, old.at);
                old.at = place(at);
                if let Some(last) = last {
                    self.growth -= size(last.key, last.value);
                    self.len -= len(&last);
                }
                if is_new && record.value.is_none() {
                    self.len -= len(record);
                    place_of.remove();
                }
            }
            Place::Vacant(place_of) => {
                let is_put = record.value.is_some();
                let is_new = is_put && record.kind.is_put_once() || self.tabled.lacks(record);
                if is_new && !is_put {
                    self.len -= len(record);
                    return;
                }
                let before = if is_new { 0 } else { before(record) };
                self.growth -= before;
                place_of.insert(Entry {
                    hash,
                    at: place(at),
                    is_new,
                    before,
                });
            }
        }
    }

    fn hash(&self, record: &Record<'_>) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        hasher.write_u8(record.kind.byte());
        hasher.write(record.key);
        hasher.finish()
    }

    /// Returns by how many bytes of keys and values the content grows with more changes, as far as it is known.
    pub(crate) fn growth_of(&self, changes: &Changes<'_>) -> i64 {
        let growth = changes.records().map(|record| {
            let same = |entry: &Entry| is_same(&self.blocks, entry, &record);
            let old = self.entries.find(self.hash(&record), same);
            let old = old.and_then(|entry| read_at(&self.blocks, entry.at));
            size(record.key, record.value) - size(record.key, old.and_then(|old| old.value))
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
            let hash = self.hash(&record);
            if let Place::Occupied(entry) = find(&mut self.entries, &self.blocks, hash, &record) {
                self.len -= len(&record);
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
        self.entries.shrink_to(KEPT, |entry| entry.hash);
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
    hash: u64,
    record: &Record<'_>,
) -> Place<'e, Entry> {
    let same = |entry: &Entry| entry.hash == hash && is_same(blocks, entry, record);
    entries.entry(hash, same, |entry| entry.hash)
}

/// Returns whether an entry has the name of a record.
fn is_same(blocks: &[u8], entry: &Entry, record: &Record<'_>) -> bool {
    read_at(blocks, entry.at).is_some_and(|known| {
        // The comparison of kinds first would be a second branch for nothing: the hash includes the kind.
        known.key == record.key && known.kind == record.kind
    })
}

fn read_at(blocks: &[u8], at: u32) -> Option<Record<'_>> {
    let (record, _) = read(blocks.get(index(at)..)?)?;
    Some(record)
}

fn read(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    Record::read(bytes).ok().flatten()
}

/// Returns a place in the blocks of a generation, which have less than 4 GiB.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn len(record: &Record<'_>) -> usize {
    record.encoded_len().unwrap_or(0)
}

fn size(key: &[u8], value: Option<&[u8]>) -> i64 {
    value.map_or(0, |value| entry_size(key, value))
}

/// For how many changes memory stays allocated.
const KEPT: usize = 16 << 10;
