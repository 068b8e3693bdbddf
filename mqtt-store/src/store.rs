//! Opens a store, reads its entries, and starts the thread that writes.

use std::fmt::{self, Display, Write};
use std::io;
use std::path::PathBuf;

use mqtt_journal::{Format, Record};

use crate::config::{Config, Durability};
use crate::directory::{Directory, FILE, Place};
use crate::engine::{Engine, entry_size};
use crate::error::{Failure, OpenError};
use crate::logged::Logged;
use crate::read_only::ReadOnly;
use crate::writer::Writer;

/// An open store. The program reads its entries before it writes.
pub struct Store {
    config: Config,
    engine: Box<dyn Engine>,
    /// The name of what the engine reads, for an error that names no record.
    place: &'static str,
    /// Bytes of keys and values, if they were counted.
    used: Option<u64>,
    is_read_only: bool,
    interrupted: u64,
}

impl Store {
    /// Opens or creates the store. Returns `None` if the durability is [`Durability::Off`].
    ///
    /// # Errors
    /// Another process has it open, it is damaged, the disk is full, or a call of the system fails.
    pub fn open(config: Config) -> Result<Option<Self>, OpenError> {
        if config.durability == Durability::Off {
            return Ok(None);
        }
        let place = Directory::open(&config.dir, config.reserve)?;
        Self::open_in(Box::new(place), config).map(Some)
    }

    /// Opens an existing store to read its entries, and changes none of its files: what redb repairs after a crash stays in memory.
    /// Several processes may read a store at the same time. [`Self::start`] fails.
    ///
    /// # Errors
    /// Another process has it open for writing, there is no store, it is damaged, or a call of the system fails.
    pub fn open_to_read(config: Config) -> Result<Self, OpenError> {
        let place = ReadOnly::open(&config.dir)?;
        Ok(Self {
            is_read_only: true,
            ..Self::open_in(Box::new(place), config)?
        })
    }

    fn open_in(place: Box<dyn Place>, config: Config) -> Result<Self, OpenError> {
        match Logged::open(place, &config) {
            Ok(engine) => Ok(Self {
                place: FILE,
                interrupted: engine.dropped,
                ..Self::with_engine(Box::new(engine), config)
            }),
            Err(failure) => Err(open_error(failure, config.dir, FILE)),
        }
    }

    /// Returns the bytes of a transaction that was being written when the earlier process ended. It was not reported as stored, and
    /// is not in the store.
    #[must_use]
    pub const fn interrupted(&self) -> u64 {
        self.interrupted
    }

    /// Makes a store on another engine that is already open. Ignores the durability, reserve and cache of the configuration; its
    /// directory is the name of the store in errors.
    #[must_use]
    pub fn with_engine(engine: Box<dyn Engine>, config: Config) -> Self {
        Self {
            config,
            engine,
            place: "its journal",
            used: None,
            is_read_only: false,
            interrupted: 0,
        }
    }

    /// Renames the file of a damaged store, so that the next one is empty, and returns the new name. A server that starts with
    /// the empty store has no sessions, and tells clients so in CONNACK.
    ///
    /// # Errors
    /// Another process has the store open, or a call of the system fails.
    pub fn move_aside(config: &Config) -> Result<PathBuf, OpenError> {
        Directory::open(&config.dir, config.reserve)?.move_aside()
    }

    /// Calls `each` with every entry as a record that puts it, in ascending order of kind and key.
    ///
    /// # Errors
    /// The entries cannot be read, or `each` rejected one: the error names that record as damaged.
    pub fn restore<E: Display>(
        &mut self,
        mut each: impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), OpenError> {
        let (mut used, mut damaged, mut foreign) = (0_u64, None, false);
        let read = self.engine.read(&mut |record| {
            let size = entry_size(record.key, record.value.unwrap_or_default());
            used = used.saturating_add(size.unsigned_abs());
            if damaged.is_none()
                && let Err(error) = each(record)
            {
                damaged = Some((name(record), error.to_string()));
                foreign = record.kind == Format::KIND;
            }
        });
        if let Err(failure) = read {
            return Err(open_error(failure, self.config.dir.clone(), self.place));
        }
        self.used = Some(used);
        match damaged {
            None => Ok(()),
            // The record tells the machine and the version of the others.
            Some((_, what)) if foreign => Err(OpenError::Foreign {
                dir: self.config.dir.clone(),
                what,
            }),
            Some((place, why)) => Err(OpenError::Damaged {
                dir: self.config.dir.clone(),
                place,
                why,
            }),
        }
    }

    /// Calls `all` after [`Self::restore`] has passed all entries, to check them together. A failure counts as damage.
    /// # Errors
    /// `all` rejected the entries.
    pub fn finish<E: Display>(&self, all: impl FnOnce() -> Result<(), E>) -> Result<(), OpenError> {
        all().map_err(|error| OpenError::Damaged {
            dir: self.config.dir.clone(),
            place: "the records together".to_owned(),
            why: error.to_string(),
        })
    }

    /// Closes a store that is not used: with an engine, another process can take over at once.
    ///
    /// # Errors
    /// The engine was not closed in order. All entries are stored.
    pub fn close(mut self) -> Result<(), Failure> {
        self.engine.close()
    }

    /// Starts the thread that stores. It calls `notify` whenever [`Writer::progress`] has changed.
    ///
    /// # Errors
    /// The entries cannot be counted, the system starts no thread, or the store was opened by [`Self::open_to_read`].
    pub fn start(mut self, notify: impl Fn() + Send + 'static) -> Result<Writer, OpenError> {
        if self.is_read_only {
            return Err(OpenError::Io {
                dir: self.config.dir,
                source: io::ErrorKind::ReadOnlyFilesystem.into(),
            });
        }
        if self.used.is_none() {
            self.restore(|_| Ok::<_, fmt::Error>(()))?;
        }
        let dir = self.config.dir.clone();
        let used = self.used.unwrap_or(0);
        Writer::start(self.engine, self.config, used, Box::new(notify))
            .map_err(|source| OpenError::Io { dir, source })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Returns the name of a record for a message.
fn name(record: &Record<'_>) -> String {
    let mut name = format!("the record of kind {}", record.kind.byte());
    if !record.key.is_empty() {
        name.push_str(" with the key ");
    }
    for byte in record.key {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn open_error(failure: Failure, dir: PathBuf, place: &str) -> OpenError {
    match failure {
        Failure::Limit | Failure::DiskFull => OpenError::Full { dir },
        Failure::Damaged(why) => OpenError::Damaged {
            dir,
            place: place.to_owned(),
            why,
        },
        Failure::DamagedAt { place, why } => OpenError::Damaged { dir, place, why },
        Failure::Foreign(what) => OpenError::Foreign { dir, what },
        Failure::Superseded(by) => OpenError::InUse { dir, by },
        Failure::Broken(why) => OpenError::Io {
            dir,
            source: io::Error::other(why),
        },
    }
}
