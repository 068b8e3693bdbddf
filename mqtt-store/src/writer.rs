//! Runs the thread that stores records. One transaction contains all records that arrived during the one before it.

use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use mqtt_journal::Record;
use mqtt_journal::proto::num::to_u64;

use crate::changes::{Batch, Changes, parse};
use crate::config::Config;
use crate::directory::DELETES_AT_ONCE;
use crate::engine::Engine;
use crate::error::Failure;

/// Takes journals and stores them in a separate thread.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The progress of a [`Writer`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Progress {
    /// How many bytes of the journal are stored, counted from the first appended one.
    pub stored: u64,
    /// Whether the writer still stores records.
    pub condition: Condition,
}

/// Whether a [`Writer`] still stores records.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Condition {
    /// The writer stores all records.
    Good,
    /// There is no room: the machine should write only the necessary records. [`Failure::Limit`]: all records are stored
    /// nevertheless. [`Failure::DiskFull`]: they are stored while the log has room for them, and deletions after that.
    Full(Failure),
    /// The writer stores nothing any more. Another process must read the stored records again.
    Ended(Failure),
}

impl Writer {
    pub(crate) fn start(
        engine: Box<dyn Engine>,
        config: Config,
        used: u64,
        notify: Box<dyn Fn() + Send>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            shared: Arc::clone(&shared),
            engine,
            journal: Vec::new(),
            used,
            config,
            disk: Disk::WithReserve,
            full_at: 0,
            over_limit: false,
            deletes_at_once: DELETES_AT_ONCE,
            try_again: false,
            repeats: false,
            notify,
        };
        let thread = thread::Builder::new()
            .name("mqtt-store".to_owned())
            .spawn(|| worker.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Appends complete records to the journal. They are stored in their order.
    pub fn append(&self, records: &[u8]) {
        let mut state = self.shared.lock();
        if matches!(state.progress.condition, Condition::Ended(_)) {
            return;
        }
        state.appended.extend_from_slice(records);
        let added = to_u64(records.len());
        state.total = state.total.saturating_add(added);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Returns the progress.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.lock().progress.clone()
    }

    /// Blocks until `stored` bytes are stored, there is no room, or the thread has ended.
    ///
    /// # Errors
    /// The bytes are not stored. If [`Failure::is_full`] returns `true`, they may be stored later.
    pub fn wait(&self, stored: u64) -> Result<(), Failure> {
        let mut state = self.shared.lock();
        loop {
            if state.progress.stored >= stored {
                return Ok(());
            }
            match &state.progress.condition {
                Condition::Ended(failure) => return Err(failure.clone()),
                Condition::Full(failure) if state.tried >= stored => return Err(failure.clone()),
                Condition::Full(_) | Condition::Good => {}
            }
            state = wait(&self.shared.changed, state);
        }
    }

    /// Makes the thread try again at once if there was no room.
    pub fn retry(&self) {
        self.shared.lock().retry = true;
        self.shared.work.notify_one();
    }

    /// Stores all appended records and closes the store.
    ///
    /// # Errors
    /// Some records are not stored; [`Writer::progress`] has their number of bytes.
    pub fn close(mut self) -> Result<(), Failure> {
        self.end();
        let state = self.shared.lock();
        match &state.progress.condition {
            Condition::Full(failure) if state.progress.stored < state.total => Err(failure.clone()),
            Condition::Ended(failure) => Err(failure.clone()),
            Condition::Full(_) | Condition::Good => Ok(()),
        }
    }

    fn end(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The state that the thread and its users share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread.
    work: Condvar,
    /// Wakes the users.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Bytes that the thread has not taken yet.
    appended: Vec<u8>,
    /// How many bytes were appended since the start.
    total: u64,
    /// How many of them the thread has tried to store.
    tried: u64,
    progress: Progress,
    retry: bool,
    closing: bool,
}

impl Default for State {
    fn default() -> Self {
        let progress = Progress {
            stored: 0,
            condition: Condition::Good,
        };
        Self {
            appended: Vec::new(),
            total: 0,
            tried: 0,
            progress,
            retry: false,
            closing: false,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition
        .wait(state)
        .unwrap_or_else(PoisonError::into_inner)
}

/// The state of the thread.
struct Worker {
    shared: Arc<Shared>,
    engine: Box<dyn Engine>,
    /// Bytes that were taken and are not stored.
    journal: Vec<u8>,
    /// Bytes of keys and values in the store now.
    used: u64,
    config: Config,
    disk: Disk,
    /// Bytes of keys and values in the store when the disk became full.
    full_at: u64,
    /// Whether the limit was reached.
    over_limit: bool,
    /// How many entries one transaction deletes while the disk is full.
    deletes_at_once: usize,
    /// Whether to try again on a full disk.
    try_again: bool,
    /// Whether the first of the next records may have been in a transaction that failed.
    repeats: bool,
    notify: Box<dyn Fn() + Send>,
}

/// Ends the progress if the engine panics, so that nothing waits for the ended thread.
impl Drop for Worker {
    fn drop(&mut self) {
        if thread::panicking() {
            let failure = Failure::Broken("the engine panicked".to_owned());
            self.publish_progress(0, Condition::Ended(failure));
        }
    }
}

impl Worker {
    fn run(mut self) {
        if let Err(failure) = self.engine.start() {
            self.publish_progress(0, Condition::Ended(failure));
            return;
        }
        if !self.engine.renew_reserve() {
            (self.disk, self.full_at) = (Disk::WithoutReserve, self.used);
        }
        let mut full = false;
        if self.is_over_limit() {
            self.publish_progress(0, Condition::Full(Failure::Limit));
        }
        while let Some(last) = self.take(full) {
            let (stored, result) = self.store();
            let result = result.and_then(|()| self.engine.has_room(self.try_again));
            let waits = result == Ok(false);
            let condition = match result {
                Ok(false) => Condition::Full(Failure::DiskFull),
                Ok(true) if self.is_over_limit() => Condition::Full(Failure::Limit),
                Ok(true) => Condition::Good,
                Err(failure) if failure.is_full() => Condition::Full(failure),
                Err(failure) => Condition::Ended(failure),
            };
            full = waits || matches!(condition, Condition::Full(_)) && !self.journal.is_empty();
            let ended = matches!(condition, Condition::Ended(_));
            self.publish_progress(stored, condition);
            if ended || last {
                break;
            }
        }
        if let Err(failure) = self.engine.close() {
            self.publish_progress(0, Condition::Ended(failure));
        }
    }

    /// Waits for bytes and takes them; returns `None` at the end, and `Some(true)` with the last bytes.
    fn take(&mut self, full: bool) -> Option<bool> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let full = full || self.disk != Disk::WithReserve;
        self.try_again = false;
        loop {
            let new = !state.appended.is_empty();
            self.try_again |= mem::take(&mut state.retry) && full || state.closing;
            if state.closing && !new && self.journal.is_empty() {
                return None;
            }
            if new || self.try_again {
                if self.journal.is_empty() {
                    mem::swap(&mut self.journal, &mut state.appended);
                } else {
                    self.journal.append(&mut state.appended);
                }
                return Some(state.closing);
            }
            if full {
                let (next, timeout) = shared
                    .work
                    .wait_timeout(state, self.config.retry)
                    .unwrap_or_else(PoisonError::into_inner);
                state = next;
                self.try_again = timeout.timed_out();
            } else {
                state = wait(&shared.work, state);
            }
        }
    }

    fn publish_progress(&mut self, stored: u64, condition: Condition) {
        let mut state = self.shared.lock();
        if matches!(condition, Condition::Ended(_)) {
            state.appended = Vec::new();
        }
        state.progress.stored = state.progress.stored.saturating_add(stored);
        state.progress.condition = condition;
        let left = to_u64(self.journal.len());
        state.tried = state.progress.stored.saturating_add(left);
        drop(state);
        self.shared.changed.notify_all();
        (self.notify)();
    }

    /// Stores the taken bytes as far as there is room. Returns how many were stored.
    fn store(&mut self) -> (u64, Result<(), Failure>) {
        let journal = mem::take(&mut self.journal);
        let was_closed = self.disk == Disk::Closed;
        let (stored, result) = match self.append(&journal) {
            Ok(()) => {
                self.renew_reserve();
                (journal.len(), Ok(()))
            }
            Err(failure) if failure.is_full() => match parse(&journal) {
                Ok(batch) => self.store_batch(&batch, failure, was_closed),
                Err(failure) => (0, Err(failure)),
            },
            Err(failure) => (0, Err(failure)),
        };
        self.journal = journal;
        self.journal.drain(..stored);
        self.journal.shrink_to(KEPT_MEMORY);
        (to_u64(stored), result)
    }

    /// Stores all bytes in one transaction.
    fn append(&mut self, journal: &[u8]) -> Result<(), Failure> {
        if self.disk == Disk::Closed {
            return Err(Failure::DiskFull);
        }
        if journal.is_empty() {
            return Ok(());
        }
        if self.repeats {
            let batch = parse(journal)?;
            let changes = Changes::of_repeated(batch.from(0));
            self.commit(&changes)?;
            self.repeats = false;
            return Ok(());
        }
        let room = self.limit().saturating_sub(self.used);
        let appended = self.engine.append(journal, room);
        self.committed(appended)
    }

    /// Stores as many records as possible after a transaction with all of them had no room.
    fn store_batch(
        &mut self,
        batch: &Batch<'_>,
        full: Failure,
        was_closed: bool,
    ) -> (usize, Result<(), Failure>) {
        let mut done = 0;
        let mut result = Err(full);
        if result == Err(Failure::Limit) {
            result = self.store_in_order(batch, &mut done);
        }
        if result == Err(Failure::DiskFull) && (self.try_again || !was_closed) {
            result = self.store_on_full_disk(batch, &mut done);
        }
        if self.renew_reserve() {
            if result == Err(Failure::Limit) {
                result = self.store_in_order(batch, &mut done);
            }
            if result == Err(Failure::DiskFull) {
                result = self.store_on_full_disk(batch, &mut done);
            }
        }
        if result == Err(Failure::Limit) && self.disk == Disk::WithoutReserve {
            result = Err(Failure::DiskFull);
        }
        (batch.end(done), result)
    }

    /// Writes the reserve again after the disk was full, if there is room for it now.
    fn renew_reserve(&mut self) -> bool {
        let may = self.try_again && self.disk == Disk::WithoutReserve;
        let renewed = may && self.engine.renew_reserve();
        if renewed {
            self.disk = Disk::WithReserve;
        }
        renewed
    }

    /// Stores the deletions first, because they may make room for the other records.
    fn store_on_full_disk(&mut self, batch: &Batch<'_>, done: &mut usize) -> Result<(), Failure> {
        if self.disk == Disk::WithReserve {
            self.full_at = self.used;
        }
        self.disk = Disk::Closed;
        self.repeats = true;
        self.engine.reopen(true)?;
        self.disk = Disk::WithoutReserve;
        let rest = self.changes(batch.from(*done)).deletes();
        // Each change copies pages, and few are free: a small transaction needs few pages.
        for deletes in rest.chunks(self.deletes_at_once) {
            if let Err(failure) = self.commit(&deletes) {
                self.deletes_at_once = self.deletes_at_once.div_ceil(2);
                return Err(failure);
            }
        }
        self.deletes_at_once = DELETES_AT_ONCE;
        self.store_in_order(batch, done)
    }

    /// Stores the records after the first `done`, in as few transactions as a full disk allows.
    fn store_in_order(&mut self, batch: &Batch<'_>, done: &mut usize) -> Result<(), Failure> {
        let mut count = batch.from(*done).len();
        while count > 0 {
            let rest = batch.from(*done);
            match self.commit(&self.changes(rest.get(..count).unwrap_or_default())) {
                Ok(()) => {
                    *done += count;
                    count = rest.len() - count;
                }
                // Fewer records may fit.
                Err(Failure::Limit) if count > 1 => count /= 2,
                Err(Failure::Limit) => {
                    let used = self.used;
                    self.commit(&self.changes(rest).deletes())?;
                    if self.used >= used {
                        return Err(Failure::Limit);
                    }
                    count = rest.len();
                }
                Err(failure) => return Err(failure),
            }
        }
        self.repeats = false;
        Ok(())
    }

    fn changes<'a>(&self, records: &[Record<'a>]) -> Changes<'a> {
        if self.repeats {
            Changes::of_repeated(records)
        } else {
            Changes::of(records)
        }
    }

    fn commit(&mut self, changes: &Changes<'_>) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        let room = self.limit().saturating_sub(self.used);
        let committed = self.engine.commit(changes, room);
        self.committed(committed)
    }

    fn committed(&mut self, growth: Result<i64, Failure>) -> Result<(), Failure> {
        match growth {
            Ok(growth) => {
                self.used = self.used.saturating_add_signed(growth);
                Ok(())
            }
            Err(failure) => {
                if failure == Failure::DiskFull && self.disk == Disk::WithoutReserve {
                    self.disk = Disk::Closed;
                }
                Err(failure)
            }
        }
    }

    /// Returns how many bytes the store may use. Without the reserve file, as much space stays free in the file of the store.
    fn limit(&self) -> u64 {
        match self.disk {
            Disk::WithReserve => u64::MAX,
            _ => self.full_at.saturating_sub(self.config.reserve),
        }
    }

    /// Returns whether the machine should write only the necessary records. Written records are stored nevertheless: the records
    /// of a flow precede the deletion of its message, which makes room. After the limit was reached, the condition stays until an
    /// eighth of the limit is free, so that it does not change with each message.
    fn is_over_limit(&mut self) -> bool {
        self.over_limit = self.config.limit.is_some_and(|limit| {
            let free = if self.over_limit { limit / 8 } else { 0 };
            self.used >= limit - free
        });
        self.over_limit
    }
}

/// The state of a full disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Disk {
    /// There is room, and the reserve exists.
    WithReserve,
    /// There is no reserve, but the free space in the file is enough for deletions.
    WithoutReserve,
    /// The engine is closed because there is no room at all.
    Closed,
}

/// How many bytes of memory for records stay allocated after the records are stored.
const KEPT_MEMORY: usize = 1 << 20;
