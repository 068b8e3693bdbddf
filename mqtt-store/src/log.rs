//! Reads and writes the log in front of the table. `docs/JOURNAL.md` has the byte table.
//!
//! The file has two halves. A generation of blocks is in one of them, the next generation in the other one, and the first block
//! of each generation has all changes that the table lacks. So the older generation is needed only until the first block of the
//! next one is complete, and no byte that is needed is overwritten.

use std::io;

use mqtt_journal::proto::num::to_u64;
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
    /// The last generation that the table has.
    done: u64,
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

/// A block whose head was written.
struct Block<'a> {
    generation: u64,
    /// The bytes of its records.
    len: usize,
    before: u32,
    checksum: u32,
    /// `None` if the checksum is wrong: the write was interrupted, or bytes have changed.
    records: Option<&'a [u8]>,
}

impl<'a> Block<'a> {
    /// Reads the block at a place of a half; `None` if there is no head of this log.
    fn read(half: &'a [u8], at: usize, id: u64) -> Option<Self> {
        let block = half.get(at..)?;
        let (head, rest) = block.split_first_chunk::<HEAD>()?;
        let place = u32::try_from(at).ok()?;
        if head[..4] != MAGIC || number(&head[8..16]) != id || number(&head[16..20]) != place.into()
        {
            return None;
        }
        let len = usize::try_from(number(&head[4..8])).unwrap_or(usize::MAX);
        let wanted = u32::try_from(number(&head[32..36])).unwrap_or(0);
        let records = rest.get(..len);
        Some(Self {
            generation: number(&head[20..28]),
            len,
            before: u32::try_from(number(&head[28..32])).unwrap_or(0),
            checksum: wanted,
            records: records.filter(|records| checksum(&head[..32], records) == wanted),
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

/// Where a block is written, and what its head says.
#[derive(Clone, Copy)]
struct Place {
    second_half: bool,
    generation: u64,
    at: usize,
    before: u32,
}

/// The blocks of a half.
#[derive(Default)]
struct Found {
    chain: Option<Chain>,
    /// The place behind the chain.
    end: usize,
    /// The incomplete block there, if its head was written.
    torn: Option<Torn>,
    /// The latest generation of a block behind that place, with its place.
    stray: Option<(u64, usize)>,
}

/// Complete blocks that follow one another from the beginning of a half on.
struct Chain {
    generation: u64,
    /// [`Block::before`] of the first block.
    before: u32,
    records: Vec<u8>,
}

/// A block that is not complete.
struct Torn {
    generation: u64,
    bytes: usize,
}

impl Found {
    fn read(half: &[u8], id: u64) -> Self {
        let mut found = Self::default();
        let (mut at, mut last, mut ended) = (0, 0, false);
        while at < half.len() {
            let block = Block::read(half, at, id);
            let mut len = 0;
            match block {
                Some(block) if !ended && found.takes(&block, at, last) => {
                    (last, len) = (block.checksum, block.len);
                }
                Some(Block {
                    generation,
                    len,
                    records: None,
                    ..
                }) if !ended => {
                    let bytes = HEAD.saturating_add(len).min(half.len() - at);
                    (ended, found.torn) = (true, Some(Torn { generation, bytes }));
                }
                Some(block) => {
                    ended = true;
                    found.stray = found.stray.max(Some((block.generation, at)));
                }
                None => ended = true,
            }
            at += (HEAD + len).next_multiple_of(ALIGNMENT);
            if !ended {
                found.end = at;
            }
        }
        found
    }

    /// Adds a block to the chain, if it is complete and the next one; `last` is the checksum of the block before it.
    fn takes(&mut self, block: &Block<'_>, at: usize, last: u32) -> bool {
        match (block.records, &mut self.chain) {
            (Some(records), None) if at == 0 => {
                self.chain = Some(Chain {
                    generation: block.generation,
                    before: block.before,
                    records: records.to_vec(),
                });
                true
            }
            (Some(records), Some(chain))
                if block.generation == chain.generation && block.before == last =>
            {
                chain.records.extend_from_slice(records);
                true
            }
            _ => false,
        }
    }

    fn generation(&self) -> u64 {
        self.chain.as_ref().map_or(0, |chain| chain.generation)
    }
}

/// The changes that the table lacks.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// The records of the changes, in order.
    pub(crate) records: Vec<u8>,
    /// The bytes of a block whose write was interrupted.
    pub(crate) dropped: u64,
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
            done: 0,
            second_half: true,
            next: None,
            last: 0,
        }
    }

    /// Reads the blocks of the latest generation, if the table lacks them: `done` is the last generation that it has.
    pub(crate) fn read(&mut self, done: u64) -> Result<Missing, Failure> {
        let len = self.file.len().map_err(|error| Call::Read.failed(&error))?;
        if len != to_u64(self.half.saturating_mul(2)) {
            return Err(damaged(None, format!("the file has {len} bytes")));
        }
        let mut halves = [Found::default(), Found::default()];
        let mut bytes = vec![0; self.half];
        for (half, index) in halves.iter_mut().zip(0_u64..) {
            let start = index * to_u64(self.half);
            self.file
                .read(start, &mut bytes)
                .map_err(|error| Call::Read.failed(&error))?;
            *half = Found::read(&bytes, self.id);
        }
        self.second_half = halves[1].generation() > halves[0].generation();
        let newest = halves[usize::from(self.second_half)].generation();
        self.check(&halves, newest, done)?;
        let torn = halves.iter().filter_map(|half| half.torn.as_ref());
        let dropped = torn
            .filter(|torn| torn.generation >= newest && torn.generation > done)
            .map(|torn| to_u64(torn.bytes))
            .sum();
        (self.generation, self.done) = (newest, done);
        let [first, second] = halves;
        let chain = if self.second_half { second } else { first }.chain;
        let chain = chain.filter(|chain| chain.generation > done);
        Ok(Missing {
            records: chain.map(|chain| chain.records).unwrap_or_default(),
            dropped,
        })
    }

    /// Finds damage by what the halves have, and by what the table has.
    fn check(&self, halves: &[Found; 2], newest: u64, done: u64) -> Result<(), Failure> {
        // A block is written when all before it are flushed. So all are complete before one whose head was written, except of
        // generations that are not needed any more.
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
        // The table returns to an earlier transaction if the last one is damaged.
        let chain = halves[usize::from(self.second_half)].chain.as_ref();
        let lacks = chain.map_or(0, |chain| u64::from(chain.before));
        if lacks > 0 && newest.saturating_sub(lacks) > done {
            let wanted = newest.saturating_sub(lacks);
            return Err(Failure::Damaged(format!(
                "it has the changes up to generation {done} of the log, but had those up to {wanted}"
            )));
        }
        Ok(())
    }

    /// Returns whether the file has a block of any log.
    pub(crate) fn has_blocks(file: &dyn StorageBackend) -> Result<bool, Failure> {
        let failed = |error| Call::Read.failed(&error);
        let half = file.len().map_err(failed)? / 2;
        for start in [0, half] {
            let mut front = MAGIC;
            if half >= to_u64(front.len()) {
                front = [0; MAGIC.len()];
                file.read(start, &mut front).map_err(failed)?;
            }
            if half > 0 && front == MAGIC {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the bytes of a half.
    pub(crate) const fn half(&self) -> usize {
        self.half
    }

    /// Returns the bytes of a half that blocks with records may use: the last one is followed by an empty block.
    const fn usable(&self) -> usize {
        match self.half.saturating_sub(ALIGNMENT) {
            0 => self.half,
            usable => usable,
        }
    }

    /// Returns whether records of `len` bytes fit into one block that begins a generation.
    pub(crate) fn fits_alone(&self, len: usize) -> bool {
        HEAD.saturating_add(len) <= self.usable()
    }

    /// Returns whether records of `len` bytes fit behind the last block.
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.next.is_some_and(|next| {
            let end = HEAD.saturating_add(len).saturating_add(next);
            end <= self.usable()
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

    /// Ends the generation, all of which the table has.
    pub(crate) const fn end_tabled_generation(&mut self) {
        self.done = self.generation;
        self.next = None;
    }

    /// Completes the head of a block whose records are behind it, writes the block, and flushes it. Without room the log is
    /// unchanged.
    pub(crate) fn write(&mut self, block: &mut [u8]) -> Result<(), Failure> {
        let place = match self.next {
            Some(at) => Place {
                second_half: self.second_half,
                generation: self.generation,
                at,
                before: self.last,
            },
            None => Place {
                second_half: !self.second_half,
                generation: self.generation + 1,
                at: 0,
                before: u32::try_from(self.generation + 1 - self.done).unwrap_or(0),
            },
        };
        let end = place.at.saturating_add(block.len());
        if end > self.usable() {
            return Err(Failure::DiskFull);
        }
        let checksum = self.write_at(place, block)?;
        self.flush()?;
        (self.second_half, self.generation) = (place.second_half, place.generation);
        let next = end.next_multiple_of(ALIGNMENT);
        (self.next, self.last) = (Some(next), checksum);
        // The empty block shows that the one before it was flushed. It costs no flush: the next block takes its place.
        if next < self.half {
            let (at, before) = (next, checksum);
            let end = Place {
                at,
                before,
                ..place
            };
            self.write_at(end, &mut [0; HEAD])?;
        }
        Ok(())
    }

    /// Completes the head of a block, and writes it. Returns its checksum.
    fn write_at(&self, place: Place, block: &mut [u8]) -> Result<u32, Failure> {
        let Some((head, records)) = block.split_first_chunk_mut::<HEAD>() else {
            return Ok(0);
        };
        let (Ok(len), Ok(at)) = (u32::try_from(records.len()), u32::try_from(place.at)) else {
            return Err(Failure::DiskFull);
        };
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&len.to_be_bytes());
        head[8..16].copy_from_slice(&self.id.to_be_bytes());
        head[16..20].copy_from_slice(&at.to_be_bytes());
        head[20..28].copy_from_slice(&place.generation.to_be_bytes());
        head[28..32].copy_from_slice(&place.before.to_be_bytes());
        let checksum = checksum(&head[..32], records);
        head[32..].copy_from_slice(&checksum.to_be_bytes());
        let start = place.at + if place.second_half { self.half } else { 0 };
        self.file
            .write(to_u64(start), block)
            .map_err(|error| Call::Write.failed(&error))?;
        Ok(checksum)
    }

    /// Flushes the file to the device, if the log flushes.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        let flushed = if self.flushes {
            self.file.sync_data()
        } else {
            io::Result::Ok(())
        };
        flushed.map_err(|error| Call::Flush.failed(&error))
    }
}
