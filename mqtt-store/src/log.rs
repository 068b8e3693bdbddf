//! Reads and writes the log in front of the table. `docs/JOURNAL.md` has the byte table.
//!
//! The file has two halves. A generation of blocks is in one of them, the next generation in the other one, and the first block
//! of each generation has all changes that the table lacks. So the older generation is needed only until the first block of the
//! next one is complete, and no byte that is needed is overwritten.

use std::io;

use redb::StorageBackend;

use crate::directory::LOG;
use crate::error::Failure;
use crate::guarded::Call;

/// The file of a log, and the place of its next block.
#[derive(Debug)]
pub(crate) struct Log {
    file: Box<dyn StorageBackend>,
    flushes: bool,
    pub(crate) id: u64,
    /// Bytes of a half.
    half: usize,
    /// The generation of the last block.
    pub(crate) generation: u64,
    second_half: bool,
    /// The place of the next block in the half; `None` if the next block begins a generation.
    next: Option<usize>,
    /// The checksum of the last block.
    last: u32,
}

/// Blocks begin at multiples of this, so that an interrupted write damages no earlier block.
pub(crate) const ALIGNMENT: usize = 4096;

/// Bytes of the head of a block.
pub(crate) const HEAD: usize = 36;
const MAGIC: [u8; 4] = *b"MQL1";

/// A block whose checksum is right.
struct Block<'a> {
    generation: u64,
    before: u32,
    checksum: u32,
    records: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads the block at a place of a half; `None` if there is no complete block of this log.
    fn read(half: &'a [u8], at: usize, id: u64) -> Option<Self> {
        let block = half.get(at..)?;
        let (head, rest) = block.split_first_chunk::<HEAD>()?;
        let place = u32::try_from(at).ok()?;
        if head[..4] != MAGIC || number(&head[8..16]) != id || number(&head[16..20]) != place.into()
        {
            return None;
        }
        let records = rest.get(..usize::try_from(number(&head[4..8])).ok()?)?;
        let checksum = checksum(&head[..32], records);
        (number(&head[32..36]) == checksum.into()).then(|| Self {
            generation: number(&head[20..28]),
            before: u32::try_from(number(&head[28..32])).unwrap_or(0),
            checksum,
            records,
        })
    }
}

/// Reads a number, most significant byte first.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn checksum(head: &[u8], records: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(records);
    hasher.finalize()
}

/// Returns the failure for damage in the file of the log, at a byte if it is known.
pub(crate) fn damaged(at: Option<usize>, why: String) -> Failure {
    let place = match at {
        Some(at) => format!("{LOG}, byte {at}"),
        None => LOG.to_owned(),
    };
    Failure::DamagedAt { place, why }
}

/// The blocks of a half.
#[derive(Default)]
struct Found {
    /// The generation of the first block, and the records of the blocks that follow one another.
    chain: Option<(u64, Vec<u8>)>,
    /// The place behind them.
    end: usize,
    /// The latest generation of a block behind them, with its place.
    stray: Option<(u64, usize)>,
}

impl Found {
    fn read(half: &[u8], id: u64) -> Self {
        let mut found = Self::default();
        let (mut at, mut last, mut ended) = (0, 0, false);
        while at < half.len() {
            let block = Block::read(half, at, id);
            let next = match (block, &mut found.chain) {
                (Some(block), None) if at == 0 => {
                    last = block.checksum;
                    found.chain = Some((block.generation, block.records.to_vec()));
                    block.records.len()
                }
                (Some(block), Some((generation, records)))
                    if !ended && block.generation == *generation && block.before == last =>
                {
                    last = block.checksum;
                    records.extend_from_slice(block.records);
                    block.records.len()
                }
                (Some(block), _) => {
                    ended = true;
                    found.stray = found.stray.max(Some((block.generation, at)));
                    0
                }
                (None, _) => {
                    ended = true;
                    0
                }
            };
            at += (HEAD + next).next_multiple_of(ALIGNMENT);
            if !ended {
                found.end = at;
            }
        }
        found
    }
}

impl Log {
    /// Makes a log in a file without blocks.
    pub(crate) fn new(file: Box<dyn StorageBackend>, flushes: bool, id: u64, half: usize) -> Self {
        Self {
            file,
            flushes,
            id,
            half,
            generation: 0,
            second_half: true,
            next: None,
            last: 0,
        }
    }

    /// Reads the blocks of the latest generation, if the table lacks them: `done` is the last generation that it has. Returns
    /// their records, in order.
    pub(crate) fn read(&mut self, done: u64) -> Result<Vec<u8>, Failure> {
        let len = self.file.len().map_err(|error| Call::Read.failed(&error))?;
        if len != u64::try_from(self.half.saturating_mul(2)).unwrap_or(u64::MAX) {
            return Err(damaged(None, format!("the file has {len} bytes")));
        }
        let mut halves = [Found::default(), Found::default()];
        let mut bytes = vec![0; self.half];
        for (half, index) in halves.iter_mut().zip(0_u64..) {
            let start = index * u64::try_from(self.half).unwrap_or(0);
            self.file
                .read(start, &mut bytes)
                .map_err(|error| Call::Read.failed(&error))?;
            *half = Found::read(&bytes, self.id);
        }
        let latest = |half: &Found| half.chain.as_ref().map_or(0, |(generation, _)| *generation);
        self.second_half = latest(&halves[1]) > latest(&halves[0]);
        let newest = latest(&halves[usize::from(self.second_half)]);
        // A block is written when all before it are flushed. So none is complete behind one that is not, except of generations
        // that are not needed any more.
        for (half, index) in halves.iter().zip(0_usize..) {
            if let Some((generation, at)) = half.stray
                && generation > done
                && generation >= newest
            {
                let (end, at) = (index * self.half + half.end, index * self.half + at);
                let why = format!("here is no complete block, but a later one is at byte {at}");
                return Err(damaged(Some(end), why));
            }
        }
        if newest < done {
            let why = format!("it does not have generation {done} of this store");
            return Err(damaged(None, why));
        }
        self.generation = newest;
        let [first, second] = halves;
        let chain = if self.second_half { second } else { first }.chain;
        let chain = chain.filter(|(generation, _)| *generation > done);
        Ok(chain.map(|(_, records)| records).unwrap_or_default())
    }

    /// Returns the bytes of a half.
    pub(crate) const fn half(&self) -> usize {
        self.half
    }

    /// Returns whether records of `len` bytes fit into one block that begins a generation.
    pub(crate) fn fits_alone(&self, len: usize) -> bool {
        HEAD.saturating_add(len) <= self.half
    }

    /// Returns whether records of `len` bytes fit behind the last block.
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.next.is_some_and(|next| {
            let end = HEAD.saturating_add(len).saturating_add(next);
            end <= self.half
        })
    }

    /// Returns whether a block was written in this generation since the log was opened.
    pub(crate) const fn has_begun(&self) -> bool {
        self.next.is_some()
    }

    /// Ends the generation: the next block begins a new one.
    pub(crate) const fn end_generation(&mut self) {
        self.next = None;
    }

    /// Completes the head of a block whose records are behind it, writes the block, and flushes it. Without room the log is
    /// unchanged.
    pub(crate) fn write(&mut self, block: &mut [u8]) -> Result<(), Failure> {
        let (second_half, generation, at, before) = match self.next {
            Some(at) => (self.second_half, self.generation, at, self.last),
            None => (!self.second_half, self.generation + 1, 0, 0),
        };
        let end = at.saturating_add(block.len());
        let Some((head, records)) = block.split_first_chunk_mut::<HEAD>() else {
            return Ok(());
        };
        let (Ok(len), Ok(place), true) = (
            u32::try_from(records.len()),
            u32::try_from(at),
            end <= self.half,
        ) else {
            return Err(Failure::DiskFull);
        };
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&len.to_be_bytes());
        head[8..16].copy_from_slice(&self.id.to_be_bytes());
        head[16..20].copy_from_slice(&place.to_be_bytes());
        head[20..28].copy_from_slice(&generation.to_be_bytes());
        head[28..32].copy_from_slice(&before.to_be_bytes());
        let checksum = checksum(&head[..32], records);
        head[32..].copy_from_slice(&checksum.to_be_bytes());
        let start = at + if second_half { self.half } else { 0 };
        self.file
            .write(u64::try_from(start).unwrap_or(u64::MAX), block)
            .map_err(|error| Call::Write.failed(&error))?;
        self.flush()?;
        (self.second_half, self.generation) = (second_half, generation);
        (self.next, self.last) = (Some(end.next_multiple_of(ALIGNMENT)), checksum);
        Ok(())
    }

    fn flush(&self) -> Result<(), Failure> {
        let flushed = if self.flushes {
            self.file.sync_data()
        } else {
            io::Result::Ok(())
        };
        flushed.map_err(|error| Call::Flush.failed(&error))
    }
}
