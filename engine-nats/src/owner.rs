//! The owner of a journal: becomes it, reads the entries, commits changes and compacts the stream. It calls the stream and
//! nothing else, so that a model of the stream tests every decision.

use std::{iter, mem};

use mqtt_store::journal::{Kind, Record};
use mqtt_store::{Changes, Failure};

use crate::block::{Block, BlockType, Process};
use crate::replay::{Position, Replay, damaged};
use crate::sizes::Sizes;
use crate::stream::{Answer, Stream};

/// The name of a journal, and of the process that wants to own it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name {
    /// The name of the shard, of at most 255 bytes.
    pub shard: String,
    /// The name of the node, which other nodes report.
    pub node: String,
    /// A random number that no other process has.
    pub instance: u128,
}

/// The limits of an owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The most bytes of a message.
    pub message: usize,
    /// The stream is not compacted while it has fewer bytes than this.
    pub compact_from: u64,
    /// The stream is compacted when it has this many times the bytes of the entries.
    pub compact_at: u64,
}

/// The process that owns a journal, until another process begins an epoch.
#[derive(Debug)]
pub struct Owner {
    name: Name,
    limits: Limits,
    /// The last block of the stream.
    at: Position,
    state: State,
    /// The sizes of the entries, once they are read.
    sizes: Option<Sizes>,
    /// The bytes of the blocks since the begin of the last snapshot.
    logged: u64,
    /// Below this many bytes the stream is not compacted, because the last try found no room.
    full_at: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    /// The last group is complete.
    Complete,
    /// There was no room for the rest of a group. A block of this owner must end the group before others follow.
    Incomplete,
    /// Nothing can be appended any more.
    Ended(Failure),
}

/// How often a request is repeated whose answer contradicts what is known: the server of NATS that answers may be behind the others.
const TRIES_BEHIND: u32 = 10;

impl Owner {
    /// Appends a block that begins an epoch. From then on the stream refuses the blocks of each earlier owner.
    ///
    /// # Errors
    /// The last block is damaged or missing, or the stream cannot be used.
    pub fn take_over<S: Stream + ?Sized>(
        stream: &mut S,
        name: Name,
        limits: Limits,
    ) -> Result<Self, Failure> {
        let mut owner = Self {
            name,
            limits,
            at: Position::default(),
            state: State::Complete,
            sizes: None,
            logged: 0,
            full_at: 0,
        };
        let mut behind = 0;
        for tries in 0.. {
            if let Some(at) = owner.last(stream, &mut behind)? {
                owner.at = at;
                match owner.begin_epoch(stream) {
                    // The owner before appended a block in the meantime.
                    Err(Failure::Superseded(_)) => {}
                    result => {
                        result?;
                        break;
                    }
                }
            }
            stream.pause(tries)?;
        }
        Ok(owner)
    }

    /// Returns the epoch of this owner.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.at.epoch
    }

    /// Reads the whole stream and calls `each` with every entry as a record that puts it, in ascending order of kind and key.
    ///
    /// # Errors
    /// [`Failure::Damaged`] if a block is missing or differs from what its owner wrote: the failure names its sequence.
    pub fn read<S: Stream + ?Sized>(
        &mut self,
        stream: &mut S,
        each: &mut dyn FnMut(&Record<'_>),
    ) -> Result<(), Failure> {
        let mut replay = self.replay(stream)?;
        let mut sizes = Sizes::default();
        // Each entry is freed when it is read: `each` makes as much of it.
        for ((kind, key), value) in mem::take(&mut replay.entries) {
            let record = record(kind, &key, &value)?;
            sizes.put(&record);
            each(&record);
        }
        self.sizes = Some(sizes);
        self.logged = replay.logged;
        // An owner may have ended between its snapshot and the purge.
        if let Some(snapshot) = replay.snapshot.filter(|at| *at > replay.first) {
            let _ = stream.purge(snapshot);
        }
        Ok(())
    }

    /// Makes all changes or none, and returns by how many bytes the entries grew. If that would be more than `room` and more than
    /// 0, changes nothing and fails with [`Failure::Limit`].
    ///
    /// # Errors
    /// [`Failure::DiskFull`] if the stream has no room, and [`Failure::Limit`]: a later commit may succeed. All other failures
    /// are final. After [`Failure::Superseded`] the program must forget its state, because another process has it.
    pub fn commit<S: Stream + ?Sized>(
        &mut self,
        stream: &mut S,
        changes: &Changes<'_>,
        room: u64,
    ) -> Result<i64, Failure> {
        if let State::Ended(failure) = &self.state {
            return Err(failure.clone());
        }
        let result = self.try_commit(stream, changes, room);
        if let Err(failure) = &result
            && !failure.is_full()
        {
            self.state = State::Ended(failure.clone());
        }
        result
    }

    fn try_commit<S: Stream + ?Sized>(
        &mut self,
        stream: &mut S,
        changes: &Changes<'_>,
        room: u64,
    ) -> Result<i64, Failure> {
        let sizes = match self.sizes.take() {
            Some(sizes) => sizes,
            None => {
                self.read(stream, &mut |_| ())?;
                self.sizes.take().unwrap_or_default()
            }
        };
        let (growth, changed) = sizes.growth(changes);
        let live = sizes.live();
        self.sizes = Some(sizes);
        if growth > 0 && u64::try_from(growth).is_ok_and(|growth| growth > room) {
            return Err(Failure::Limit);
        }
        if !changed {
            return Ok(0);
        }
        self.end_incomplete_group(stream)?;
        if self.is_compaction_due(live) {
            self.compact(stream)?;
        }
        let records = changes.iter().map(|(kind, key, value)| {
            let record = Record { kind, key, value };
            Ok(record)
        });
        self.append_group(stream, BlockType::Changes, records)?;
        if let Some(sizes) = &mut self.sizes {
            sizes.change(changes);
        }
        Ok(growth)
    }

    const fn is_compaction_due(&self, live: u64) -> bool {
        let Limits {
            compact_from,
            compact_at,
            ..
        } = self.limits;
        self.logged > compact_from
            && self.logged > live.saturating_mul(compact_at)
            && self.logged > self.full_at
    }

    /// Writes a snapshot, and deletes the blocks before it when it is complete. If the process ends in between, the next owner
    /// ignores an incomplete snapshot, and deletes the blocks before a complete one.
    fn compact<S: Stream + ?Sized>(&mut self, stream: &mut S) -> Result<(), Failure> {
        let replay = self.replay(stream)?;
        let (first, before) = (self.at.sequence.saturating_add(1), self.logged);
        match self.append_group(stream, BlockType::Snapshot, records(&replay)) {
            Ok(()) => {
                self.logged = self.logged.saturating_sub(before);
                // If this fails, the next snapshot makes up for it.
                let _ = stream.purge(first);
                Ok(())
            }
            Err(Failure::DiskFull) => {
                self.full_at = self.logged.saturating_add(self.limits.compact_from);
                self.end_incomplete_group(stream)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Reads the stream up to the last block of this owner.
    fn replay<S: Stream + ?Sized>(&self, stream: &mut S) -> Result<Replay, Failure> {
        let result = self.try_replay(stream);
        if matches!(result, Err(Failure::Damaged(_))) {
            // Another owner may have deleted blocks in the meantime, which is no damage.
            let next = self.at.sequence.saturating_add(1);
            for tries in 0..TRIES_BEHIND {
                self.found(stream, next, &[], tries)?;
                stream.pause(tries)?;
            }
        }
        result
    }

    fn try_replay<S: Stream + ?Sized>(&self, stream: &mut S) -> Result<Replay, Failure> {
        let mut replay = Replay::new(&self.name.shard);
        stream.read(self.at.sequence, &mut |sequence, bytes| {
            let added = replay.add(sequence, bytes);
            added.map_err(|fault| damaged(sequence, fault))
        })?;
        let finished = replay.finish(self.at);
        finished.map_err(|fault| damaged(self.at.sequence, fault))?;
        Ok(replay)
    }

    /// Returns the position of the last block, or `None` if it must be asked for again. Counts in `behind` how often it was missing.
    fn last<S: Stream + ?Sized>(
        &self,
        stream: &mut S,
        behind: &mut u32,
    ) -> Result<Option<Position>, Failure> {
        let sequence = stream.ends()?.last;
        if sequence == 0 {
            return Ok(Some(Position::default()));
        }
        let Some(bytes) = stream.get(sequence)? else {
            // If there is a later one, an owner has deleted this one in the meantime.
            *behind += u32::from(stream.ends()?.last == sequence);
            return if *behind < TRIES_BEHIND {
                Ok(None)
            } else {
                Err(missing(sequence))
            };
        };
        *behind = 0;
        let (block, checksum) = Block::read(&bytes).map_err(|fault| damaged(sequence, fault))?;
        Ok(Some(Position {
            sequence,
            epoch: block.epoch,
            number: block.number,
            checksum,
        }))
    }

    fn begin_epoch<S: Stream + ?Sized>(&mut self, stream: &mut S) -> Result<(), Failure> {
        let Name { node, instance, .. } = &self.name;
        let instance = *instance;
        let body = Process { instance, node }.write();
        let block = Block {
            block_type: BlockType::Owner,
            epoch: self.at.epoch.saturating_add(1),
            ..self.next_block(&body)
        };
        let bytes = written(&block)?;
        self.append(stream, &bytes, block.epoch)
    }

    /// Begins a new epoch if the last group is not complete: this ends the group without its last block.
    fn end_incomplete_group<S: Stream + ?Sized>(&mut self, stream: &mut S) -> Result<(), Failure> {
        if self.state == State::Incomplete {
            self.begin_epoch(stream)?;
            self.state = State::Complete;
        }
        Ok(())
    }

    /// Appends records as one group.
    fn append_group<'r, S: Stream + ?Sized>(
        &mut self,
        stream: &mut S,
        block_type: BlockType,
        records: impl Iterator<Item = Result<Record<'r>, Failure>>,
    ) -> Result<(), Failure> {
        let overhead = Block::overhead(&self.name.shard);
        let most = self.limits.message.saturating_sub(overhead).max(1);
        let (mut bytes, mut is_first) = (Vec::new(), true);
        // The last step has no record, and ends the group.
        for record in records.map(Some).chain(iter::once(None)) {
            let is_last = record.is_none();
            if let Some(record) = record {
                write(&record?, &mut bytes)?;
            }
            let mut parts = bytes.chunks(most).peekable();
            let mut done = 0;
            while let Some(part) = parts.next_if(|part| is_last || part.len() == most) {
                done += part.len();
                let continues = !(is_last && parts.peek().is_none());
                self.append_part(stream, (block_type, is_first, continues), part)?;
                is_first = false;
            }
            if is_last && done == 0 {
                self.append_part(stream, (block_type, is_first, false), &[])?;
            }
            bytes.drain(..done);
        }
        Ok(())
    }

    fn append_part<S: Stream + ?Sized>(
        &mut self,
        stream: &mut S,
        (block_type, is_first, continues): (BlockType, bool, bool),
        body: &[u8],
    ) -> Result<(), Failure> {
        let bytes = written(&Block {
            block_type,
            is_first,
            continues,
            ..self.next_block(body)
        })?;
        self.append(stream, &bytes, self.at.epoch)?;
        self.state = if continues {
            State::Incomplete
        } else {
            State::Complete
        };
        Ok(())
    }

    /// Returns the next block, as one that is alone in its group.
    fn next_block<'b>(&'b self, body: &'b [u8]) -> Block<'b> {
        Block {
            block_type: BlockType::Changes,
            is_first: true,
            continues: false,
            epoch: self.at.epoch,
            number: self.at.number.saturating_add(1),
            before: self.at.checksum,
            shard: &self.name.shard,
            body,
        }
    }

    /// Appends a block. Whenever the answer is not that it is stored, asks which block has its sequence before deciding.
    fn append<S: Stream + ?Sized>(
        &mut self,
        stream: &mut S,
        bytes: &[u8],
        epoch: u64,
    ) -> Result<(), Failure> {
        let sequence = self.at.sequence.saturating_add(1);
        let mut is_uncertain = false;
        for tries in 0.. {
            let answer = stream.append(self.at.sequence, bytes)?;
            if let Answer::Stored(at) = answer {
                if at != sequence {
                    let why = format!("sequence {sequence} was stored as {at}");
                    return Err(Failure::Damaged(why));
                }
                break;
            }
            is_uncertain |= answer == Answer::Unknown;
            match self.found(stream, sequence, bytes, tries)? {
                Found::Same => break,
                // While the block of an earlier try may still be on its way, this try must not be the last.
                Found::Nothing if answer == Answer::Full && !is_uncertain => {
                    return Err(Failure::DiskFull);
                }
                Found::Nothing => stream.pause(tries)?,
            }
        }
        let (_, checksum) = Block::read(bytes).map_err(|fault| damaged(sequence, fault))?;
        self.at = Position {
            sequence,
            epoch,
            number: self.at.number.saturating_add(1),
            checksum,
        };
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.logged = self.logged.saturating_add(size);
        Ok(())
    }

    /// Returns whether the stream has this very block at `sequence`, or nothing yet.
    fn found<S: Stream + ?Sized>(
        &self,
        stream: &mut S,
        sequence: u64,
        bytes: &[u8],
        tries: u32,
    ) -> Result<Found, Failure> {
        if let Some(found) = stream.get(sequence)? {
            if found == bytes {
                return Ok(Found::Same);
            }
            let (block, _) = Block::read(&found).map_err(|fault| damaged(sequence, fault))?;
            let by = match Process::read(&block) {
                Ok(Process { node, .. }) => format!("{node}, since sequence {sequence}"),
                Err(_) => format!("epoch {}", block.epoch),
            };
            return Err(Failure::Superseded(by));
        }
        let ends = stream.ends()?;
        if ends.first > sequence {
            // Only an owner deletes blocks.
            let by = format!("its owner has deleted sequence {sequence}");
            return Err(Failure::Superseded(by));
        }
        if ends.last < self.at.sequence && tries >= TRIES_BEHIND {
            return Err(missing(self.at.sequence));
        }
        Ok(Found::Nothing)
    }
}

enum Found {
    Same,
    Nothing,
}

fn missing(sequence: u64) -> Failure {
    Failure::Damaged(format!("sequence {sequence} of the stream is missing"))
}

fn written(block: &Block<'_>) -> Result<Vec<u8>, Failure> {
    let too_long = || Failure::Broken("the name of the shard is too long".to_owned());
    block.write().ok_or_else(too_long)
}

/// Appends a record to `bytes`.
fn write(record: &Record<'_>, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    let start = bytes.len();
    let written = record.encoded_len().and_then(|len| {
        bytes.resize(start + len, 0);
        record.write(bytes.get_mut(start..)?)
    });
    let too_long = || Failure::Broken("a record is too long".to_owned());
    written.map(drop).ok_or_else(too_long)
}

/// Returns a record for each entry.
fn records(replay: &Replay) -> impl Iterator<Item = Result<Record<'_>, Failure>> {
    let entries = replay.entries.iter();
    entries.map(|((kind, key), value)| record(*kind, key, value))
}

fn record<'e>(kind: u8, key: &'e [u8], value: &'e [u8]) -> Result<Record<'e>, Failure> {
    let unknown = || Failure::Damaged(format!("{kind} is not a kind of record"));
    Ok(Record {
        kind: Kind::from_byte(kind).ok_or_else(unknown)?,
        key,
        value: Some(value),
    })
}
