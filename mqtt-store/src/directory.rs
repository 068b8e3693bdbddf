//! Manages the directory of a store: the file, the lock, and the reserve for a full disk.

use std::env;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::error::OpenError;

/// The files of a store. Tests implement it in memory.
pub(crate) trait Place: Debug + Send {
    /// Opens the file of the store; `None` if there is none.
    fn open(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Opens an empty file under a temporary name, so that a crash during the creation of a store leaves no incomplete store.
    fn create(&mut self) -> io::Result<Box<dyn StorageBackend>>;

    /// Renames the temporary file to the file of the store.
    fn created(&mut self) -> io::Result<()>;

    /// Opens the file of the log; `None` if there is none.
    fn open_log(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Creates the file of the log, or overwrites it, with `len` bytes that take space on the disk and are no block.
    fn create_log(&mut self, len: u64) -> io::Result<Box<dyn StorageBackend>>;

    /// Writes the reserve if the disk then still has free space of the same size.
    fn keep_reserve(&mut self) -> io::Result<()>;

    /// Deletes the reserve.
    fn release_reserve(&mut self) -> io::Result<()>;
}

/// A directory on disk, locked for this process.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    reserve: u64,
    _lock: File,
}

pub(crate) const FILE: &str = "journal.redb";
const NEW_FILE: &str = "journal.new";
pub(crate) const LOG: &str = "journal.log";
pub(crate) const LOCK: &str = "lock";
const RESERVE: &str = "reserve";
/// How many entries one transaction deletes while the disk is full. With pages of 4 KiB and a tree of four levels, this many fit
/// into the reserve of 1 MiB.
pub(crate) const DELETES_AT_ONCE: usize = 64;

impl Directory {
    pub(crate) fn open(path: &Path, reserve: u64) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io {
            dir: path.to_owned(),
            source,
        };
        create(path).map_err(io_error)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(io_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Readers share the lock, and do not write their names.
                let by = match lock.try_lock_shared() {
                    Ok(()) => "a program that reads it".to_owned(),
                    Err(_) => owner(path),
                };
                return Err(OpenError::InUse {
                    dir: path.to_owned(),
                    by,
                });
            }
            Err(TryLockError::Error(error)) => return Err(io_error(error)),
        }
        // The text is only for the message above, so a failure is ignored.
        let _ = lock.set_len(0).and_then(|()| (&lock).write_all(&name()));
        Ok(Self {
            path: path.to_owned(),
            reserve,
            _lock: lock,
        })
    }

    /// Renames the files of the store to the first free name.
    pub(crate) fn move_aside(&self) -> Result<PathBuf, OpenError> {
        let io_error = |source| OpenError::Io {
            dir: self.path.clone(),
            source,
        };
        let mut number = 1_u32;
        let mut target = self.path.join("damaged-1.redb");
        while target.try_exists().map_err(io_error)? {
            number = number.wrapping_add(1);
            target = self.path.join(format!("damaged-{number}.redb"));
        }
        // The log first: without it, the table that names it is damaged as well.
        rename_if_there(&self.path.join(LOG), &target.with_extension("log"))
            .and_then(|()| rename_if_there(&self.path.join(FILE), &target))
            .and_then(|()| flush_directory(&self.path))
            .map_err(io_error)?;
        Ok(target)
    }
}

/// Renames a file. One of the two may have been deleted by hand.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl Place for Directory {
    fn open(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        open(&self.path.join(FILE))
    }

    fn create(&mut self) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        backend(options.open(self.path.join(NEW_FILE))?)
    }

    fn created(&mut self) -> io::Result<()> {
        fs::rename(self.path.join(NEW_FILE), self.path.join(FILE))?;
        flush_directory(&self.path)
    }

    fn open_log(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        open(&self.path.join(LOG))
    }

    fn create_log(&mut self, len: u64) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.path.join(LOG);
        let created = fill(&path, len, len).and_then(|()| flush_directory(&self.path));
        if let Err(error) = created {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        open(&path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn keep_reserve(&mut self) -> io::Result<()> {
        let path = self.path.join(RESERVE);
        if fs::metadata(&path).is_ok_and(|file| file.len() == self.reserve) {
            return Ok(());
        }
        // Twice the size of the reserve must be free, so that waiting records do not need the reserve again at once.
        let written = fill(&path, self.reserve.saturating_mul(2), self.reserve);
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    fn release_reserve(&mut self) -> io::Result<()> {
        match fs::remove_file(self.path.join(RESERVE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// Opens a file; `None` if there is none.
fn open(path: &Path) -> io::Result<Option<Box<dyn StorageBackend>>> {
    let mut options = OpenOptions::new();
    match options.read(true).write(true).open(path) {
        Ok(file) => backend(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    let backend = FileBackend::new(file).map_err(io::Error::other)?;
    Ok(Box::new(backend))
}

/// Creates the directory, and the missing ones above it, and flushes their names to the device.
fn create(path: &Path) -> io::Result<()> {
    if path.join(FILE).exists() {
        return Ok(());
    }
    let (new, oldest) = parents(path, Path::is_dir);
    fs::create_dir_all(path)?;
    for parent in new {
        flush_directory(parent)?;
    }
    // An earlier process may have created it and ended before it flushed its name. Otherwise it need not be readable.
    let _ = flush_directory(oldest);
    Ok(())
}

/// Returns the directories in which those directories have their names that are missing above a store, and the directory in which
/// the first one that exists has its name.
pub(crate) fn parents(path: &Path, exists: impl Fn(&Path) -> bool) -> (Vec<&Path>, &Path) {
    let here = Path::new(".");
    let mut new = Vec::new();
    for level in path.ancestors() {
        let parent = level.parent().unwrap_or(level);
        let is_relative = parent.as_os_str().is_empty();
        let parent = if is_relative { here } else { parent };
        if level.as_os_str().is_empty() || exists(level) {
            return (new, parent);
        }
        new.push(parent);
    }
    (new, here)
}

/// Flushes the names in a directory to the device. Only Unix has a call for that.
fn flush_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// Writes `len` bytes that a file system cannot compress or skip as zeros, and keeps `keep` of them.
fn fill(path: &Path, len: u64, keep: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let (mut left, mut state) = (len, 0x9E37_79B9_7F4A_7C15_u64);
    while left > 0 {
        let mut block = [0; 4096];
        for bytes in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.copy_from_slice(&state.to_le_bytes());
        }
        let some = left.min(4096);
        let block = block.get(..usize::try_from(some).unwrap_or(4096));
        file.write_all(block.unwrap_or_default())?;
        left -= some;
    }
    file.sync_all()?;
    file.set_len(keep)?;
    file.sync_all()
}

/// Returns the name of the program and the number of this process.
fn name() -> Vec<u8> {
    let program = env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name);
    let program = program.map_or_else(|| "a program".into(), |name| name.to_string_lossy());
    format!("{program} (process {})", process::id()).into_bytes()
}

/// Returns the owner of the lock.
pub(crate) fn owner(path: &Path) -> String {
    match fs::read_to_string(path.join(LOCK)) {
        Ok(name) if !name.is_empty() => name,
        _ => "another process".to_owned(),
    }
}
