//! Puts the log in front of the table: a transaction is one block of the log, and many of them together become one transaction of
//! the table. Entries that were put and deleted in between never reach the table.
//!
//! When the disk is full, the table refuses its transaction. The space of the log is reserved, so the log goes on: it
//! stores the records that the machine wrote before it learned this, and the records that end accepted messages.

use std::hash::{BuildHasher, Hasher, RandomState};

use mqtt_journal::proto::num::{to_u32, to_u64, to_usize};
use mqtt_journal::{Kind, Record};

use crate::changes::{Changes, parse};
use crate::config::{Config, Durability};
use crate::directory::{DELETES_AT_ONCE, FILE, LOG as LOG_FILE, Place};
use crate::engine::{Engine, entry_size};
use crate::error::Failure;
use crate::log::{ALIGNMENT, Log, damaged};
use crate::net::{Name, Net};
use crate::on_redb::OnRedb;
use crate::tabled::Tabled;

/// The entry of the table that names its log. A program that does not know the log refuses the unknown kind, and does not start
/// without the changes that only the log has.
pub(crate) const LOG: Kind = Kind::new(63);

const VERSION: u8 = 1;

/// A table with a log.
#[derive(Debug)]
pub(crate) struct Logged {
    table: OnRedb,
    /// `None` if there was no room for it when the store was opened.
    log: Option<Log>,
    /// The changes of the log that the table has not.
    net: Net,
    /// Bytes of a new log.
    len: u64,
    flushes: bool,
    /// Whether the sizes of replaced entries are looked up at once. Otherwise they are known with the transaction of the table.
    counts: bool,
    reserve: i64,
    /// How many entries one transaction deletes while the disk is full.
    deletes_at_once: usize,
    disk: TableDisk,
    /// Bytes in the table compared with those at the start.
    grown: i64,
    /// The growth that was reported.
    reported: i64,
    /// The failure that was final.
    failed: Option<Failure>,
    /// The bytes of a block whose write was interrupted when the earlier process ended.
    pub(crate) dropped: u64,
}

/// The state of the disk under the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TableDisk {
    Good,
    /// The table was full at this growth. It is open, and the reserve is missing.
    Full {
        at: i64,
    },
    /// The table was full at this growth. It is closed, and the reserve is missing.
    Closed {
        at: i64,
    },
}

/// From this part of a half on, the changes go into the table. On a full disk the rest of the half has room for what the machine
/// wrote before it was told: up to twice as many bytes as it lets wait.
const PART: (usize, usize) = (5, 16);

/// The content of the entry that names the log.
#[derive(Clone, Copy)]
struct Mark {
    id: u64,
    /// The last generation that the table has.
    done: u64,
    half: u32,
}

impl Mark {
    fn read(value: &[u8]) -> Result<Self, Failure> {
        let wrong = || Failure::Damaged("the entry that names the log is wrong".to_owned());
        let (version, rest) = value.split_first().ok_or_else(wrong)?;
        if *version != VERSION {
            let why = format!("the log has version {version}, which this program does not know");
            return Err(Failure::Damaged(why));
        }
        let (id, rest) = rest.split_first_chunk().ok_or_else(wrong)?;
        let (done, rest) = rest.split_first_chunk().ok_or_else(wrong)?;
        let half = rest.try_into().map_err(|_| wrong())?;
        Ok(Self {
            id: u64::from_be_bytes(*id),
            done: u64::from_be_bytes(*done),
            half: u32::from_be_bytes(half),
        })
    }

    /// Returns the mark after the table has all changes of a log.
    fn of(log: &Log) -> Self {
        Self {
            id: log.id,
            done: log.generation,
            half: to_u32(log.half()),
        }
    }

    fn value(self) -> Vec<u8> {
        let mut value = vec![VERSION];
        value.extend(self.id.to_be_bytes());
        value.extend(self.done.to_be_bytes());
        value.extend(self.half.to_be_bytes());
        value
    }
}

impl Logged {
    /// Opens or creates the table, and reads the log if there is one.
    pub(crate) fn open(place: Box<dyn Place>, config: &Config) -> Result<Self, Failure> {
        let mut engine = Self {
            table: OnRedb::open(place, config)?,
            log: None,
            net: Net::default(),
            len: config.log,
            flushes: config.durability == Durability::Stored,
            counts: config.limit.is_some(),
            reserve: i64::try_from(config.reserve).unwrap_or(i64::MAX),
            deletes_at_once: DELETES_AT_ONCE,
            disk: TableDisk::Good,
            grown: 0,
            reported: 0,
            failed: None,
            dropped: 0,
        };
        match engine.table.get(LOG, &[])? {
            Some(value) => engine.open_log(Mark::read(&value)?)?,
            None => engine.check_no_log()?,
        }
        Ok(engine)
    }

    fn open_log(&mut self, mark: Mark) -> Result<(), Failure> {
        let Some(file) = self.table.open_log()? else {
            return Err(damaged(None, "the file is missing".to_owned()));
        };
        let half = to_usize(mark.half);
        let mut log = Log::new(file, self.flushes, mark.id, half);
        let Self { net, table, .. } = self;
        let missing = log.read(mark.done)?;
        self.dropped = missing.dropped;
        net.add_block(&missing.records, true, |record| size_in(table, record))
            .map_err(|_| damaged(None, "a block has no records".to_owned()))?;
        self.log = Some(log);
        // The reader of the entries counts these changes.
        self.reported = self.net.growth;
        Ok(())
    }

    /// Checks that there is no log with changes which the table does not name.
    fn check_no_log(&mut self) -> Result<(), Failure> {
        match self.table.open_log()? {
            Some(file) if Log::has_blocks(file.as_ref())? => {
                let why = format!(
                    "it has changes, but {FILE} does not name it; put back the {FILE} that belongs to it, or move {LOG_FILE} away, \
                     which gives up the changes"
                );
                Err(damaged(None, why))
            }
            _ => Ok(()),
        }
    }

    /// Creates the log, if there is room for it.
    fn create_log(&mut self) -> Result<(), Failure> {
        let half = usize::try_from(self.len / 2).unwrap_or(0);
        let half = half.min(1 << 30) / ALIGNMENT * ALIGNMENT;
        if half == 0 {
            return Ok(());
        }
        let len = to_u64(half * 2);
        let file = match self.table.create_log(len) {
            Ok(file) => file,
            Err(Failure::DiskFull) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let id = RandomState::new().build_hasher().finish();
        let log = Log::new(file, self.flushes, id, half);
        let mark = Mark::of(&log).value();
        match self.table.commit(&marked(Vec::new(), &mark), u64::MAX) {
            Ok(_) => self.log = Some(log),
            // The table does not name the log, so it is not used.
            Err(Failure::DiskFull) => self.is_full()?,
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Makes all changes of the log in the table, if there is room.
    fn transfer(&mut self) -> Result<(), Failure> {
        let (Some(log), Some(room)) = (&mut self.log, room(self.disk, self.grown, self.reserve))
        else {
            return Ok(());
        };
        let mark = Mark::of(log).value();
        let changes = marked(self.net.sorted(), &mark);
        match self.table.commit(&changes, room) {
            Ok(growth) => {
                self.grown += growth;
                self.net.clear();
                log.end_tabled_generation();
                Ok(())
            }
            Err(Failure::Limit) => Ok(()),
            Err(Failure::DiskFull) => {
                self.net.were_tried();
                self.is_full()
            }
            Err(failure) => Err(failure),
        }
    }

    /// Opens the table again after it had no room, with the space of the reserve.
    fn is_full(&mut self) -> Result<(), Failure> {
        let at = match self.disk {
            TableDisk::Good => self.grown,
            TableDisk::Full { at } | TableDisk::Closed { at } => at,
        };
        self.disk = TableDisk::Closed { at };
        match self.table.reopen(true) {
            Ok(()) => self.disk = TableDisk::Full { at },
            Err(Failure::DiskFull) => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Makes the deletions of the log in the table, because they make room.
    fn delete(&mut self) -> Result<(), Failure> {
        if matches!(self.disk, TableDisk::Closed { .. }) {
            return Ok(());
        }
        let deletions = self.net.deletions();
        // Each change copies pages, and few are free: a small transaction needs few pages.
        for names in deletions.chunks(self.deletes_at_once) {
            let records = names.iter().map(Name::deletion).collect();
            match self.table.commit(&Changes::of_sorted(records), u64::MAX) {
                Ok(growth) => {
                    self.grown += growth;
                    self.net.remove(names);
                }
                Err(Failure::DiskFull) => {
                    self.deletes_at_once = self.deletes_at_once.div_ceil(2);
                    return self.is_full();
                }
                Err(failure) => return Err(failure),
            }
        }
        self.deletes_at_once = DELETES_AT_ONCE;
        Ok(())
    }

    /// Makes room in the log for a block of `len` bytes. Returns whether there is room.
    fn make_room(&mut self, len: usize) -> Result<bool, Failure> {
        let Some(log) = &self.log else {
            return Ok(false);
        };
        let (part, of) = PART;
        // Most changes of a generation are undone by later ones, so the rest moves into the next generation before it goes into
        // the table.
        let is_small = self.net.len() <= log.half() / of * part;
        if is_small && (log.fits(len) || log.fits_alone(self.net.len() + len)) {
            return Ok(true);
        }
        self.transfer()?;
        Ok(self
            .log
            .as_ref()
            .is_some_and(|log| log.fits(len) || log.fits_alone(self.net.len() + len)))
    }

    /// Stores records in the log as they are. If there is no room for that, stores the changes that they make together.
    fn store(&mut self, records: &[u8], room: u64) -> Result<i64, Failure> {
        let is_limited = room < u64::MAX / 2;
        let log = self.log.as_ref();
        if !is_limited
            && log.is_some_and(|log| log.fits_alone(records.len()))
            && self.make_room(records.len())?
        {
            self.write(records)?;
            return Ok(self.growth());
        }
        let batch = parse(records)?;
        self.store_changes(&Changes::of(batch.from(0)), room)
    }

    /// Stores changes: in the log, or in the table if there is no log.
    fn store_changes(&mut self, changes: &Changes<'_>, room: u64) -> Result<i64, Failure> {
        if changes.is_empty() {
            return Ok(0);
        }
        if self.log.is_none() {
            return self.table.commit(changes, room);
        }
        if room < u64::MAX / 2
            && self.net.growth_of(changes) > i64::try_from(room).unwrap_or(i64::MAX)
        {
            return Err(Failure::Limit);
        }
        let records = changes.encoded();
        if self.make_room(records.len())? {
            self.write(&records)?;
            return Ok(self.growth());
        }
        if self.disk == TableDisk::Good && self.net.is_empty() {
            // These changes are too long for the log.
            let mut result = self.table.commit(changes, room);
            if let Ok(growth) = result {
                // The table has the changes even if there is no room to confirm them: a retry finds equal entries.
                self.grown += growth;
                result = self.confirm().map(|()| growth);
            }
            if result.is_err() {
                // The table may have the changes nevertheless.
                self.net.tabled = Tabled::default();
            }
            if result == Err(Failure::DiskFull) {
                self.is_full()?;
            }
            result?;
            for record in changes.records() {
                self.net.tabled.note(&record);
            }
            return Ok(self.growth());
        }
        Err(Failure::DiskFull)
    }

    /// Makes the last transaction of the table the last but one: the table returns to that one if its last one is damaged.
    fn confirm(&mut self) -> Result<(), Failure> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let mark = Mark::of(log).value();
        self.table.commit(&marked(Vec::new(), &mark), u64::MAX)?;
        log.end_tabled_generation();
        Ok(())
    }

    /// Writes a block with these records, for which the log has room.
    fn write(&mut self, records: &[u8]) -> Result<(), Failure> {
        let is_full = self.disk != TableDisk::Good;
        let counts = self.counts || is_full;
        let Self {
            log: Some(log),
            net,
            table,
            ..
        } = self
        else {
            return Err(Failure::DiskFull);
        };
        let begins = !log.fits(records.len());
        if begins {
            log.end_generation();
        }
        let before = |record: &Record<'_>| if counts { size_in(table, record) } else { 0 };
        let block = net.add_block(records, begins, before)?;
        log.write(net.block(block))?;
        if is_full {
            self.delete()?;
        }
        Ok(())
    }

    /// Stores something, unless there was a final failure before.
    fn until_failure(
        &mut self,
        store: impl FnOnce(&mut Self) -> Result<i64, Failure>,
    ) -> Result<i64, Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let result = store(self);
        self.failed = result.clone().err().filter(|failure| !failure.is_full());
        result
    }

    /// Returns by how much the content has grown since it was last asked.
    fn growth(&mut self) -> i64 {
        let now = self.grown + self.net.growth;
        let growth = now - self.reported;
        self.reported = now;
        growth
    }
}

/// Returns by how much the table may grow; `None` if it is closed.
fn room(disk: TableDisk, grown: i64, reserve: i64) -> Option<u64> {
    match disk {
        TableDisk::Good => Some(u64::MAX),
        // Without the reserve file, as much space stays free in the file of the table.
        TableDisk::Full { at } => Some(u64::try_from(at - reserve - grown).unwrap_or(0)),
        TableDisk::Closed { .. } => None,
    }
}

/// Returns the changes with the entry that names the log.
fn marked<'a>(mut records: Vec<Record<'a>>, mark: &'a [u8]) -> Changes<'a> {
    records.push(Record {
        kind: LOG,
        key: &[],
        value: Some(mark),
    });
    Changes::of_sorted(records)
}

/// Returns the size of a record's entry in the table, 0 if the table is closed.
fn size_in(table: &OnRedb, record: &Record<'_>) -> i64 {
    let value = table.get(record.kind, record.key).ok().flatten();
    value.map_or(0, |value| entry_size(record.key, &value))
}

impl Engine for Logged {
    fn read(&mut self, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), Failure> {
        let mut tabled = std::mem::take(&mut self.net.tabled);
        tabled.begin();
        let changes = self.net.sorted();
        let mut changes = changes.iter().peekable();
        let order = |record: &Record<'_>| (record.kind, record.key.to_vec());
        self.table.read(&mut |entry| {
            if entry.kind == LOG {
                return;
            }
            tabled.note(entry);
            let at = order(entry);
            while let Some(change) = changes.next_if(|change| order(change) < at) {
                if change.value.is_some() {
                    each(change);
                }
            }
            match changes.next_if(|change| order(change) == at) {
                None => each(entry),
                Some(change) if change.value.is_some() => each(change),
                Some(_) => {}
            }
        })?;
        for change in changes.filter(|change| change.value.is_some()) {
            each(change);
        }
        self.net.tabled = tabled;
        Ok(())
    }

    fn commit(&mut self, changes: &Changes<'_>, room: u64) -> Result<i64, Failure> {
        self.until_failure(|engine| engine.store_changes(changes, room))
    }

    fn append(&mut self, records: &[u8], room: u64) -> Result<i64, Failure> {
        self.until_failure(|engine| engine.store(records, room))
    }

    fn reopen(&mut self, use_reserve: bool) -> Result<(), Failure> {
        if self.log.is_some() {
            return self.has_room(true).map(drop);
        }
        self.table.reopen(use_reserve)
    }

    fn renew_reserve(&mut self) -> bool {
        let has_reserve = self.table.renew_reserve();
        if self.log.is_none() {
            return has_reserve;
        }
        if !has_reserve && self.disk == TableDisk::Good {
            self.disk = TableDisk::Full { at: self.grown };
        }
        true
    }

    fn start(&mut self) -> Result<(), Failure> {
        match &mut self.log {
            None => self.create_log(),
            // A process that was killed may have written the blocks without flushing them, so they are written again, over the generation
            // before them. Until that is done they are needed.
            Some(log) if !log.has_begun() && !self.net.is_empty() => {
                log.flush()?;
                self.net.begin_generation();
                log.write(self.net.block(0))
            }
            Some(_) => Ok(()),
        }
    }

    fn has_room(&mut self, try_again: bool) -> Result<bool, Failure> {
        if self.log.is_none() || self.disk == TableDisk::Good {
            return Ok(true);
        }
        if try_again && matches!(self.disk, TableDisk::Closed { .. }) {
            self.is_full()?;
            self.delete()?;
        }
        if try_again && matches!(self.disk, TableDisk::Full { .. }) && self.table.renew_reserve() {
            self.disk = TableDisk::Good;
            self.transfer()?;
        }
        let room = room(self.disk, self.grown + self.net.growth, self.reserve);
        Ok(room.is_some_and(|room| room > 0))
    }

    fn close(&mut self) -> Result<(), Failure> {
        // The table alone is the whole store then. On a full disk the log has the rest.
        if self.failed.is_none() && !self.net.is_empty() {
            self.transfer()?;
        }
        self.table.close()
    }
}
