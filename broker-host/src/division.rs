//! Records how many threads a store has: each has a part of its own, with the clients that a secret key gives to it.
//!
//! A damaged part is moved aside together with all others. They belong together: a shard knows the packet identifiers of the messages
//! that another shard sent, so that it would take new messages of an empty part for repeated ones, and the retained messages of all
//! shards are the same. The file `moving-aside` is there while the parts are renamed, so that the next start continues after a crash;
//! the file `parts-made` is there once all parts are, so that a missing part is damage.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use mqtt_broker::shard_of;
use mqtt_store::{Config, OpenError, Store};
use tracing::warn;

use crate::random::random;
use crate::{Error, Settings};

/// The file with the number of threads and the key. A store of one thread has none.
const NAME: &str = "threads";
const NEW_NAME: &str = "threads.new";
/// A file that is there while all parts are moved aside, so that the next start goes on after a crash.
const MOVING: &str = "moving-aside";
/// A file that is there once all parts are made, so that a part that is missing later is noticed.
const MADE: &str = "parts-made";
/// A file of every store of one thread.
const OF_ONE: &str = "journal.redb";

impl Settings {
    /// Returns the key by which clients belong to threads, and checks that the store has as many parts as there are threads.
    ///
    /// # Errors
    /// [`Error::OtherThreads`], [`Error::File`], [`Error::Random`].
    pub(crate) fn division(&self) -> Result<u64, Error> {
        let new = u64::from_le_bytes(random()?);
        let (Some(config), threads) = (self.store_config(), self.shards()) else {
            return Ok(new);
        };
        finish_moving(&config)?;
        let known = read(&config.dir)?;
        let (stored, key) = known.unwrap_or((1, new));
        let is_empty = known.is_none() && !config.dir.join(OF_ONE).exists();
        if stored != threads && !is_empty {
            let dir = config.dir;
            return Err(Error::OtherThreads { dir, stored });
        }
        if threads > 1 && known.is_none() {
            write(&config.dir, threads, key).map_err(|source| Error::File {
                path: config.dir.join(NAME),
                source,
            })?;
        }
        Ok(key)
    }
}

/// The parts of the store of a broker: the store itself, or a store for each of several threads.
#[derive(Clone, Debug)]
pub struct StoreParts {
    directories: Vec<PathBuf>,
    key: u64,
}

impl StoreParts {
    /// Reads the file that names the parts of the store in a directory. A directory without a store has one part.
    ///
    /// # Errors
    /// [`Error::File`]: the file that names the parts cannot be read, or is damaged.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let (directories, key) = match read(dir)? {
            Some((threads, key)) => ((0..threads).map(|own| directory(dir, own)).collect(), key),
            None => (vec![dir.to_owned()], 0),
        };
        Ok(Self { directories, key })
    }

    /// Returns the directory of each part, in the order of the threads.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Returns the number of the part with the session of a client identifier. Each part has all retained messages; that of the
    /// part of this number for a topic is valid for all.
    #[must_use]
    pub fn part_of(&self, name: &str) -> usize {
        let parts = u8::try_from(self.directories.len()).unwrap_or(u8::MAX);
        shard_of(name, parts, self.key).into()
    }
}

/// Returns how many threads the store has; `None` if there is no store.
pub(crate) fn stored_threads(config: &Config) -> Result<Option<u8>, Error> {
    let of_one = config.dir.join(OF_ONE).exists().then_some(1);
    Ok(read(&config.dir)?.map(|(threads, _)| threads).or(of_one))
}

/// Checks that no part of a store of several threads is missing: an empty one does not fit the others.
///
/// # Errors
/// [`OpenError::Damaged`].
pub(crate) fn check_parts(config: &Config, threads: u8) -> Result<(), Error> {
    if !config.dir.join(MADE).exists() {
        return Ok(());
    }
    let is_missing = |own: &u8| !directory(&config.dir, *own).join(OF_ONE).exists();
    let Some(missing) = (0..threads).find(is_missing) else {
        return Ok(());
    };
    Err(Error::Store(OpenError::Damaged {
        dir: config.dir.clone(),
        place: format!("thread-{missing}"),
        why: "the part is missing".to_owned(),
    }))
}

/// Notes that all parts are made.
pub(crate) fn parts_are_made(config: &Config) -> Result<(), Error> {
    let path = config.dir.join(MADE);
    if path.exists() {
        return Ok(());
    }
    create(&config.dir, MADE).map_err(|source| Error::File { path, source })
}

fn create(dir: &Path, name: &str) -> io::Result<()> {
    File::create(dir.join(name))?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Renames the files of all parts of a store of several threads, so that all are empty.
pub(crate) fn move_aside(config: &Config) -> Result<(), Error> {
    create(&config.dir, MOVING).map_err(|source| Error::File {
        path: config.dir.join(MOVING),
        source,
    })?;
    finish_moving(config)
}

/// Renames the files of the remaining parts if [`move_aside`] has begun.
fn finish_moving(config: &Config) -> Result<(), Error> {
    let mark = config.dir.join(MOVING);
    if !mark.exists() {
        return Ok(());
    }
    let (threads, _) = read(&config.dir)?.unwrap_or_default();
    for own in 0..threads {
        let mut part = config.clone();
        part.dir = directory(&config.dir, own);
        if part.dir.join(OF_ONE).exists() {
            // `move_aside` takes the lock of the part, so that no part of a broker that runs is moved.
            let moved = Store::move_aside(&part).map_err(Error::Store)?;
            warn!(moved = %moved.display(), "all sessions and retained messages of a part of the store are lost");
        }
    }
    let finish = || {
        let made = config.dir.join(MADE);
        if made.exists() {
            fs::remove_file(made)?;
        }
        fs::remove_file(&mark)?;
        File::open(&config.dir)?.sync_all()
    };
    finish().map_err(|source| Error::File {
        path: mark.clone(),
        source,
    })
}

/// Returns the directory of the store of one of several threads.
pub(crate) fn directory(dir: &Path, own: u8) -> PathBuf {
    dir.join(format!("thread-{own}"))
}

fn read(dir: &Path) -> Result<Option<(u8, u64)>, Error> {
    let path = dir.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Before the first start there is no directory.
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(None);
        }
        Err(source) => return Err(Error::File { path, source }),
    };
    let parsed = text.trim().split_once(' ').and_then(|(number, key)| {
        let number = number.parse().ok().filter(|number| *number > 1)?;
        Some((number, u64::from_str_radix(key, 16).ok()?))
    });
    match parsed {
        Some(known) => Ok(Some(known)),
        None => {
            let source = io::Error::new(ErrorKind::InvalidData, "it is no number and key");
            Err(Error::File { path, source })
        }
    }
}

/// Writes the file before there is any store of a thread, so that after a failure of power either both are there or none.
fn write(dir: &Path, threads: u8, key: u64) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let new = dir.join(NEW_NAME);
    let mut file = File::create(&new)?;
    writeln!(file, "{threads} {key:016x}")?;
    file.sync_all()?;
    fs::rename(new, dir.join(NAME))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn division(dir: &Path, threads: usize) -> Result<u64, Error> {
        let mut settings = Settings::default();
        (settings.store, settings.threads) = (Some(dir.into()), Some(threads));
        settings.division()
    }

    #[test]
    fn a_store_keeps_its_number_of_threads_and_its_key() {
        let dir = std::env::temp_dir().join(format!("mqtt-division-{}", std::process::id()));
        let key = division(&dir, 3).unwrap();
        assert_eq!(division(&dir, 3).unwrap(), key);
        for other in [1, 2, 4] {
            let error = division(&dir, other).unwrap_err();
            assert!(
                matches!(error, Error::OtherThreads { stored: 3, .. }),
                "{error}"
            );
        }
        for text in ["", "3", "1 0", "300 0", "3 x", "three 0"] {
            fs::write(dir.join(NAME), text).unwrap();
            let error = division(&dir, 3).unwrap_err();
            assert!(matches!(error, Error::File { .. }), "{text}: {error}");
        }
        // A store that was made with one thread.
        fs::remove_file(dir.join(NAME)).unwrap();
        fs::write(dir.join(OF_ONE), "").unwrap();
        division(&dir, 1).unwrap();
        let error = division(&dir, 2).unwrap_err().to_string();
        assert!(
            error.ends_with("is of 1 thread: start with --threads 1"),
            "{error}"
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
