//! Checks the chain of blocks and makes the entries of them.

use std::collections::BTreeMap;
use std::mem;

use mqtt_store::Failure;
use mqtt_store::journal::Record;

use crate::block::{Block, BlockType, Fault};

/// The entries by the byte of their kind and their key.
pub(crate) type Entries = BTreeMap<(u8, Box<[u8]>), Box<[u8]>>;

/// The place of a block in the stream and in the chain.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Position {
    pub(crate) sequence: u64,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) checksum: u32,
}

/// Returns the failure for a stream whose block at `sequence` has a fault.
pub(crate) fn damaged(sequence: u64, fault: Fault) -> Failure {
    Failure::Damaged(format!("sequence {sequence} of the stream: {fault}"))
}

/// Reads a stream from its beginning.
#[derive(Debug)]
pub(crate) struct Replay {
    shard: Box<str>,
    at: Option<Position>,
    /// Whether the entries are known: the stream was read from its first block or from a whole snapshot.
    is_based: bool,
    pub(crate) entries: Entries,
    group: Option<Group>,
    /// The sequence of the first message that was read.
    pub(crate) first: u64,
    /// The sequence at which the last whole snapshot begins.
    pub(crate) snapshot: Option<u64>,
    /// The bytes of all blocks from there on.
    pub(crate) logged: u64,
}

/// A group of blocks whose end is not read yet.
#[derive(Debug)]
struct Group {
    block_type: BlockType,
    /// The sequence of its first block.
    first: u64,
    /// The bytes of its blocks.
    bytes: u64,
    /// The records so far; `None` deletes.
    records: Vec<Change>,
    /// The begin of a record whose end is not read yet.
    rest: Vec<u8>,
}

/// A record of a group: `None` deletes the entry.
type Change = ((u8, Box<[u8]>), Option<Box<[u8]>>);

impl Replay {
    pub(crate) fn new(shard: &str) -> Self {
        Self {
            shard: shard.into(),
            at: None,
            is_based: false,
            entries: Entries::new(),
            group: None,
            first: 0,
            snapshot: None,
            logged: 0,
        }
    }

    /// Reads the message at `sequence`, which is the next one.
    pub(crate) fn add(&mut self, sequence: u64, bytes: &[u8]) -> Result<(), Fault> {
        let (block, checksum) = Block::read(bytes)?;
        if block.shard != &*self.shard {
            return Err(Fault::Shard);
        }
        match self.at {
            Some(before) => follows(&block, sequence, before)?,
            None => {
                self.begins(&block)?;
                self.first = sequence;
            }
        }
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.logged = self.logged.saturating_add(size);
        match block.block_type {
            BlockType::Owner if !self.is_based => return Err(Fault::Start),
            // The owner before did not complete its group: no one was told that its records are stored.
            BlockType::Owner => self.group = None,
            _ => self.add_to_group(&block, sequence, size)?,
        }
        self.at = Some(Position {
            sequence,
            epoch: block.epoch,
            number: block.number,
            checksum,
        });
        Ok(())
    }

    /// Checks the first block that is read: the first one of all, or the begin of a snapshot.
    fn begins(&mut self, block: &Block<'_>) -> Result<(), Fault> {
        let is_first_of_all =
            block.block_type == BlockType::Owner && (block.number, block.epoch) == (1, 1);
        self.is_based = is_first_of_all;
        match (is_first_of_all, block.before) {
            (true, 0) => Ok(()),
            (true, _) => Err(Fault::Chain),
            (false, _) if block.block_type == BlockType::Snapshot && block.is_first => Ok(()),
            (false, _) => Err(Fault::Start),
        }
    }

    fn add_to_group(&mut self, block: &Block<'_>, sequence: u64, size: u64) -> Result<(), Fault> {
        let mut group = match (self.group.take(), block.is_first) {
            (None, true) => Group {
                block_type: block.block_type,
                first: sequence,
                bytes: 0,
                records: Vec::new(),
                rest: Vec::new(),
            },
            (Some(_), true) => return Err(Fault::Incomplete),
            (Some(group), false) if group.block_type == block.block_type => group,
            (_, false) => return Err(Fault::NotBegun),
        };
        group.bytes = group.bytes.saturating_add(size);
        group.add(block.body)?;
        if block.continues {
            self.group = Some(group);
            return Ok(());
        }
        self.complete(group)
    }

    /// Applies a group whose last block is read.
    fn complete(&mut self, group: Group) -> Result<(), Fault> {
        if !group.rest.is_empty() {
            return Err(Fault::Record);
        }
        if group.block_type == BlockType::Snapshot {
            self.entries = Entries::new();
            self.snapshot = Some(group.first);
            self.logged = group.bytes;
            self.is_based = true;
        }
        for (key, value) in group.records {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        Ok(())
    }

    /// Checks that the stream was read up to `end` and that no group is incomplete there.
    pub(crate) fn finish(&self, end: Position) -> Result<(), Fault> {
        match self.at {
            Some(at) if at == end && self.group.is_none() && self.is_based => Ok(()),
            Some(at) if at == end => Err(Fault::Incomplete),
            Some(at) if at.sequence < end.sequence => Err(Fault::Sequence { after: at.sequence }),
            Some(_) => Err(Fault::Chain),
            None => Err(Fault::Start),
        }
    }
}

impl Group {
    /// Adds a part of the records.
    fn add(&mut self, part: &[u8]) -> Result<(), Fault> {
        let mut bytes = mem::take(&mut self.rest);
        bytes.extend_from_slice(part);
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some((record, len)) = Record::read(rest).map_err(|_| Fault::Record)? else {
                break;
            };
            if self.block_type == BlockType::Snapshot && record.value.is_none() {
                return Err(Fault::Record);
            }
            let value = record.value.map(Box::from);
            self.records.push((key_of(&record), value));
            at += len;
        }
        bytes.drain(..at);
        self.rest = bytes;
        Ok(())
    }
}

/// Returns the key of an entry.
pub(crate) fn key_of(record: &Record<'_>) -> (u8, Box<[u8]>) {
    (record.kind.byte(), record.key.into())
}

/// Checks that a block is the next one.
fn follows(block: &Block<'_>, sequence: u64, before: Position) -> Result<(), Fault> {
    let next = |n: u64| n.checked_add(1);
    if Some(sequence) != next(before.sequence) {
        return Err(Fault::Sequence {
            after: before.sequence,
        });
    }
    if Some(block.number) != next(before.number) {
        return Err(Fault::Number {
            found: block.number,
            next: before.number.saturating_add(1),
        });
    }
    if block.before != before.checksum {
        return Err(Fault::Chain);
    }
    let is_epoch = match block.block_type {
        BlockType::Owner => Some(block.epoch) == next(before.epoch),
        _ => block.epoch == before.epoch,
    };
    if is_epoch { Ok(()) } else { Err(Fault::Epoch) }
}
