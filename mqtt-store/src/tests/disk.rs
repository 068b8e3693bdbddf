//! Implements a disk in memory.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::Numbers;
use crate::directory::Place;

const BLOCK: u64 = 4096;
const SECTOR: usize = 512;

/// A disk in memory. All clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// The file of the table, and that of the log.
    files: [State; 2],
    calls: u64,
    fault: Option<Fault>,
    flushes: u64,
    /// Whether the next flush reports a full disk.
    flush_fails: bool,
    /// How many blocks the file and the reserve may have together.
    capacity: Option<u64>,
    reserve: u64,
}

/// A file of the disk.
#[derive(Clone, Debug, Default)]
struct State {
    /// Whether the file has its final name.
    exists: bool,
    /// The content after a power cut.
    durable: Vec<u8>,
    /// The content that reads return.
    current: Vec<u8>,
    unflushed: Vec<Change>,
    /// The blocks that the file has.
    taken: BTreeSet<u64>,
}

/// A file by its index.
#[derive(Clone, Debug)]
pub(super) struct File {
    disk: Disk,
    index: usize,
}

pub(super) const TABLE: usize = 0;
pub(super) const LOG: usize = 1;

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

/// A fault of the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// The number of the failing call, counted from 0.
    pub(super) at: u64,
    /// Whether all later calls fail as well.
    pub(super) for_good: bool,
    pub(super) kind: ErrorKind,
}

/// The blocks of the reserve.
pub(super) const RESERVE: u64 = 64;

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Sets the fault, or none.
    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        let mut inner = self.lock();
        (inner.fault, inner.calls) = (fault, 0);
    }

    /// Returns how many calls were made since the fault was set.
    pub(super) fn calls(&self) -> u64 {
        self.lock().calls
    }

    pub(super) fn flushes(&self) -> u64 {
        self.lock().flushes
    }

    pub(super) fn fail_next_flush(&self) {
        self.lock().flush_fails = true;
    }

    pub(super) fn set_capacity(&self, blocks: Option<u64>) {
        self.lock().capacity = blocks;
    }

    /// Returns the blocks in use.
    pub(super) fn used(&self) -> u64 {
        self.lock().used()
    }

    pub(super) fn has_reserve(&self) -> bool {
        self.lock().reserve > 0
    }

    /// Changes one byte of a file.
    pub(super) fn flip(&self, file: usize, at: usize) {
        let mut inner = self.lock();
        if let Some(byte) = inner.files[file].current.get_mut(at) {
            *byte ^= 0x10;
        }
    }

    pub(super) fn len(&self, file: usize) -> usize {
        self.lock().files[file].current.len()
    }

    /// Returns the content of a file.
    pub(super) fn content(&self, file: usize) -> Vec<u8> {
        self.lock().files[file].current.clone()
    }

    /// Replaces the content of a file.
    pub(super) fn replace(&self, file: usize, content: Vec<u8>) {
        self.lock().files[file].current = content;
    }

    /// Deletes a file.
    pub(super) fn delete(&self, file: usize) {
        self.lock().files[file] = State::default();
    }

    /// Returns an independent disk with the same content.
    pub(super) fn copy(&self) -> Self {
        let mut files = self.lock().files.clone();
        for file in &mut files {
            file.durable.clone_from(&file.current);
            file.unflushed.clear();
        }
        Self(Arc::new(Mutex::new(Inner {
            files,
            ..Inner::default()
        })))
    }

    fn file(&self, index: usize) -> Option<Box<dyn StorageBackend>> {
        let disk = self.clone();
        let exists = self.lock().files[index].exists;
        exists.then(|| Box::new(File { disk, index }) as Box<dyn StorageBackend>)
    }

    /// Cuts the power: some sectors that were not flushed are written, others are not.
    pub(super) fn cut_power(&self, numbers: &mut Numbers) {
        for file in &mut self.lock().files {
            file.cut_power(numbers);
        }
    }
}

impl State {
    fn cut_power(&mut self, numbers: &mut Numbers) {
        let mut image = std::mem::take(&mut self.durable);
        for change in std::mem::take(&mut self.unflushed) {
            match change {
                Change::Len(len) if numbers.below(2) > 0 => image.resize(len, 0),
                Change::Len(_) => {}
                Change::Write(at, bytes) => {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        let at = at + index * SECTOR;
                        if numbers.below(2) > 0 && at + sector.len() <= image.len() {
                            image[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        self.durable.clone_from(&image);
        self.current = image;
    }
}

impl Inner {
    fn used(&self) -> u64 {
        let taken: usize = self.files.iter().map(|file| file.taken.len()).sum();
        self.reserve + u64::try_from(taken).unwrap()
    }

    fn call(&mut self) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        match self.fault {
            Some(fault) if number == fault.at || fault.for_good && number > fault.at => {
                Err(fault.kind.into())
            }
            _ => Ok(()),
        }
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        let mut inner = self.disk.lock();
        inner.call()?;
        Ok(u64::try_from(inner.files[self.index].current.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.call()?;
        let offset = usize::try_from(offset).unwrap();
        let bytes = inner.files[self.index]
            .current
            .get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.call()?;
        let file = &mut inner.files[self.index];
        file.taken.retain(|block| block * BLOCK < len);
        let len = usize::try_from(len).unwrap();
        file.current.resize(len, 0);
        file.unflushed.push(Change::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.flushes += 1;
        let called = match std::mem::take(&mut inner.flush_fails) {
            true => Err(ErrorKind::StorageFull.into()),
            false => inner.call(),
        };
        if called.is_err() && inner.fault.is_some_and(|fault| fault.for_good) {
            // The process has ended before, and what it wrote may still reach the disk.
            return called;
        }
        let file = &mut inner.files[self.index];
        let unflushed = std::mem::take(&mut file.unflushed);
        // As on Linux: after a failed flush, reads return bytes that are not on the disk, and the next flush succeeds.
        called?;
        for change in unflushed {
            match change {
                Change::Len(len) => file.durable.resize(len, 0),
                Change::Write(at, bytes) => {
                    let end = at + bytes.len();
                    if file.durable.len() < end {
                        file.durable.resize(end, 0);
                    }
                    file.durable[at..end].copy_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.call()?;
        let end = offset + u64::try_from(data.len()).unwrap();
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            if !inner.files[self.index].taken.contains(&block)
                && inner
                    .capacity
                    .is_some_and(|capacity| inner.used() >= capacity)
            {
                return Err(ErrorKind::StorageFull.into());
            }
            inner.files[self.index].taken.insert(block);
        }
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        let file = &mut inner.files[self.index];
        if file.current.len() < end {
            file.current.resize(end, 0);
        }
        file.current[start..end].copy_from_slice(data);
        file.unflushed.push(Change::Write(start, data.to_vec()));
        Ok(())
    }
}

impl Place for Disk {
    fn open(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        Ok(self.file(TABLE))
    }

    fn create(&mut self) -> io::Result<Box<dyn StorageBackend>> {
        let mut inner = self.lock();
        let file = &mut inner.files[TABLE];
        assert!(!file.exists, "the file of the store is not overwritten");
        *file = State::default();
        drop(inner);
        let (disk, index) = (self.clone(), TABLE);
        Ok(Box::new(File { disk, index }))
    }

    fn created(&mut self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.call()?;
        inner.files[TABLE].exists = true;
        Ok(())
    }

    fn open_log(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        self.lock().call()?;
        Ok(self.file(LOG))
    }

    fn create_log(&mut self, len: u64) -> io::Result<Box<dyn StorageBackend>> {
        self.lock().files[LOG] = State {
            exists: true,
            ..State::default()
        };
        let (disk, index) = (self.clone(), LOG);
        let file = Box::new(File { disk, index });
        let len = usize::try_from(len).unwrap();
        file.write(0, &vec![0xA5; len])?;
        file.sync_data()?;
        Ok(file)
    }

    fn keep_reserve(&mut self) -> io::Result<()> {
        let mut inner = self.lock();
        let free = inner
            .capacity
            .map(|capacity| capacity.saturating_sub(inner.used()));
        if inner.reserve == 0 && free.is_some_and(|free| free < 2 * RESERVE) {
            return Err(ErrorKind::StorageFull.into());
        }
        inner.reserve = RESERVE;
        Ok(())
    }

    fn release_reserve(&mut self) -> io::Result<()> {
        self.lock().reserve = 0;
        Ok(())
    }
}
