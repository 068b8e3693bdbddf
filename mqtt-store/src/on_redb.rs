//! Implements the engine with redb: one file with one table.

use std::io;

use mqtt_journal::{Kind, Record};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    StorageError, TableDefinition, TableHandle,
};

use crate::changes::Changes;
use crate::config::{Config, Durability};
use crate::directory::{FILE, Place};
use crate::engine::{Engine, entry_size};
use crate::error::Failure;
use crate::guarded::{Call, FirstFailure, Guarded};

/// Maps the kind and key of a record to its value.
const TABLE: TableDefinition<'_, (u8, &[u8]), &[u8]> = TableDefinition::new("journal");

/// A redb file. It is closed after a failure, and opens again only if the disk was full.
#[derive(Debug)]
pub(crate) struct OnRedb {
    place: Box<dyn Place>,
    flushes: bool,
    cache: usize,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    database: Database,
    first_failure: FirstFailure,
}

impl OnRedb {
    /// Opens or creates the file. If the disk has no room for that, deletes the reserve first.
    pub(crate) fn open(place: Box<dyn Place>, config: &Config) -> Result<Self, Failure> {
        let mut engine = Self {
            place,
            flushes: config.durability == Durability::Stored,
            cache: config.cache,
            open: None,
        };
        match engine.reopen(false) {
            Err(Failure::DiskFull) => engine.reopen(true)?,
            result => result?,
        }
        engine.check_tables()?;
        Ok(engine)
    }

    /// Checks that the file has no tables of another program.
    fn check_tables(&self) -> Result<(), Failure> {
        let open = self.open_now()?;
        let names = open.tables().map_err(|error| open.failure(&error))?;
        if names.iter().any(|name| name != TABLE.name()) {
            return Err(foreign_tables(&names));
        }
        Ok(())
    }

    /// Returns the value of an entry.
    pub(crate) fn get(&self, kind: Kind, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let open = self.open_now()?;
        open.get(kind, key).map_err(|error| open.failure(&error))
    }

    /// Opens the file of the log; `None` if there is none.
    pub(crate) fn open_log(&mut self) -> Result<Option<Box<dyn StorageBackend>>, Failure> {
        let opening = |error| failure_of(&error, "opening the log");
        self.place.open_log().map_err(opening)
    }

    /// Creates the file of the log, with `len` bytes.
    pub(crate) fn create_log(&mut self, len: u64) -> Result<Box<dyn StorageBackend>, Failure> {
        let creating = |error| failure_of(&error, "creating the log");
        self.place.create_log(len).map_err(creating)
    }

    /// Opens the file of the store, or creates one.
    fn open_file(&mut self) -> Result<Open, Failure> {
        let opening = |error| failure_of(&error, "opening the file");
        if let Some(file) = self.place.open().map_err(opening)? {
            let has_log = self.place.open_log().map_err(opening)?.is_some();
            check_front(file.as_ref(), has_log)?;
            return self.open_database(file);
        }
        let file = self.place.create().map_err(opening)?;
        self.open_database(file)?.close()?;
        self.place.created().map_err(opening)?;
        match self.place.open().map_err(opening)? {
            Some(file) => self.open_database(file),
            None => Err(Failure::Broken("the new file is gone".to_owned())),
        }
    }

    fn open_database(&self, file: Box<dyn StorageBackend>) -> Result<Open, Failure> {
        let first_failure = FirstFailure::default();
        let file = Guarded {
            file,
            flushes: self.flushes,
            first_failure: first_failure.clone(),
        };
        let database = Builder::new()
            .set_cache_size(self.cache)
            // This finds a changed byte when the store is opened, not when the entry is read.
            .set_check_integrity_on_open(true)
            .create_with_backend(file)
            .map_err(|error| first_failure.get().unwrap_or_else(|| not_opened(&error)))?;
        Ok(Open {
            database,
            first_failure,
        })
    }

    fn open_now(&self) -> Result<&Open, Failure> {
        self.open
            .as_ref()
            .ok_or_else(|| Failure::Broken("it is closed".to_owned()))
    }
}

impl Engine for OnRedb {
    fn read(&mut self, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), Failure> {
        let open = self.open_now()?;
        open.read(each).map_err(|error| open.failure(&error))?
    }

    fn commit(&mut self, changes: &Changes<'_>, room: u64) -> Result<i64, Failure> {
        let open = self.open_now()?;
        let result = open
            .commit(changes, room)
            .map_err(|error| open.failure(&error))
            .flatten();
        if !matches!(result, Ok(_) | Err(Failure::Limit)) {
            // After this error redb returns only errors. Closing it frees its memory.
            self.open = None;
        }
        result
    }

    fn reopen(&mut self, use_reserve: bool) -> Result<(), Failure> {
        self.open = None;
        if use_reserve {
            self.place
                .release_reserve()
                .map_err(|error| failure_of(&error, "releasing the reserve"))?;
        }
        self.open = Some(self.open_file()?);
        Ok(())
    }

    fn renew_reserve(&mut self) -> bool {
        self.place.keep_reserve().is_ok()
    }

    fn close(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            None => Ok(()),
            Some(open) => open.close(),
        }
    }
}

impl Open {
    fn close(self) -> Result<(), Failure> {
        self.database.close().map_err(|error| {
            let first = self.first_failure.get();
            first.unwrap_or_else(|| not_opened(&error))
        })
    }

    fn failure(&self, error: &redb::Error) -> Failure {
        if let Some(first) = self.first_failure.get() {
            return first;
        }
        match error {
            redb::Error::Corrupted(why) => Failure::Damaged(why.clone()),
            redb::Error::TableTypeMismatch { .. } => foreign_tables(&[error.to_string()]),
            error => Failure::Broken(error.to_string()),
        }
    }

    fn tables(&self) -> Result<Vec<String>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let tables = transaction.list_tables()?;
        Ok(tables.map(|table| table.name().to_owned()).collect())
    }

    fn get(&self, kind: Kind, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(TABLE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let value = table.get((kind.byte(), key))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn read(&self, each: &mut dyn FnMut(&Record<'_>)) -> Result<Result<(), Failure>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(TABLE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Ok(())),
            Err(error) => return Err(error.into()),
        };
        for entry in table.iter()? {
            let (key, value) = entry?;
            let (kind, key) = key.value();
            let Some(kind) = Kind::from_byte(kind) else {
                let why = format!("{kind} is not a kind of record");
                return Ok(Err(Failure::Damaged(why)));
            };
            let value = Some(value.value());
            each(&Record { kind, key, value });
        }
        Ok(Ok(()))
    }

    fn commit(
        &self,
        changes: &Changes<'_>,
        room: u64,
    ) -> Result<Result<i64, Failure>, redb::Error> {
        let transaction = self.database.begin_write()?;
        let (mut growth, mut changed) = (0_i64, false);
        {
            let mut table = transaction.open_table(TABLE)?;
            for (kind, key, value) in changes.iter() {
                let size = |value: &[u8]| entry_size(key, value);
                let key = (kind.byte(), key);
                let before = match value {
                    Some(value) => {
                        growth += size(value);
                        table.insert(key, value)?
                    }
                    None => table.remove(key)?,
                };
                changed |= value.is_some() || before.is_some();
                growth -= before.map_or(0, |before| size(before.value()));
            }
        }
        if growth > 0 && u64::try_from(growth).is_ok_and(|growth| growth > room) {
            transaction.abort()?;
            return Ok(Err(Failure::Limit));
        }
        if changed {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(Ok(growth))
    }
}

/// The first bytes of each file of redb.
const FRONT: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// Checks that an existing file is one of redb, which would not tell an empty file from a new one. A file with a log beside it, or
/// with a few changed bytes, is a damaged store.
fn check_front(file: &dyn StorageBackend, has_log: bool) -> Result<(), Failure> {
    let failed = |error| Call::Read.failed(&error);
    let len = file.len().map_err(failed)?;
    if len == 0 {
        return Err(Failure::Damaged("the file is empty".to_owned()));
    }
    let mut front = [0; FRONT.len()];
    if usize::try_from(len).is_ok_and(|len| len >= front.len()) {
        file.read(0, &mut front).map_err(failed)?;
    }
    let same = front.iter().zip(FRONT).filter(|(a, b)| **a == *b).count();
    if !has_log && same < FRONT.len() / 2 && front != [0; FRONT.len()] {
        return Err(Failure::Foreign(format!("{FILE} is not a file of redb")));
    }
    Ok(())
}

fn foreign_tables(names: &[String]) -> Failure {
    let names = names.join(", ");
    Failure::Foreign(format!("{FILE} has other tables ({names})"))
}

fn not_opened(error: &DatabaseError) -> Failure {
    match error {
        DatabaseError::Storage(StorageError::Corrupted(why)) => Failure::Damaged(why.clone()),
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == io::ErrorKind::InvalidData =>
        {
            Failure::Damaged(error.to_string())
        }
        DatabaseError::UpgradeRequired(_) => Failure::Damaged(error.to_string()),
        error => Failure::Broken(error.to_string()),
    }
}

fn failure_of(error: &io::Error, what: &str) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::DiskFull,
        _ => Failure::Broken(format!("{what} failed: {error}")),
    }
}
