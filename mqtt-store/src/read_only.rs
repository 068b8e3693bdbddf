//! Opens the files of a store without a change of any of them. redb repairs its file when it opens it after a crash; these writes stay
//! in memory.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mqtt_journal::proto::num::to_u64;
use redb::StorageBackend;

use crate::directory::{FILE, LOCK, LOG, Place, owner};
use crate::error::OpenError;

/// A directory whose files are read, locked against processes that write.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    path: PathBuf,
    _lock: Option<File>,
}

impl ReadOnly {
    /// Opens a directory with a store. Other processes may read it at the same time.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io {
            dir: path.to_owned(),
            source,
        };
        let lock = open(&path.join(LOCK)).map_err(io_error)?;
        match lock.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
                dir: path.to_owned(),
                by: owner(path),
            }),
            Err(TryLockError::Error(error)) => Err(io_error(error)),
        }
    }

    fn backend(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let Some(file) = open(&self.path.join(name))? else {
            return Ok(None);
        };
        Ok(Some(Box::new(Overlay::new(file)?)))
    }
}

impl Place for ReadOnly {
    fn open(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        self.backend(FILE)
    }

    fn create(&mut self) -> io::Result<Box<dyn StorageBackend>> {
        Err(ErrorKind::NotFound.into())
    }

    fn created(&mut self) -> io::Result<()> {
        Err(ErrorKind::NotFound.into())
    }

    fn open_log(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        self.backend(LOG)
    }

    fn create_log(&mut self, _: u64) -> io::Result<Box<dyn StorageBackend>> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn keep_reserve(&mut self) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn release_reserve(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a file for reading; `None` if there is none.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file whose written pages are in memory.
#[derive(Debug)]
pub(crate) struct Overlay(Mutex<Pages>);

#[derive(Debug)]
struct Pages {
    file: File,
    /// The bytes of the file that are still part of the content.
    in_file: u64,
    len: u64,
    written: BTreeMap<u64, Box<[u8]>>,
}

/// Bytes of a page in memory, as a part of a file and as a length.
const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

impl Overlay {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self(Mutex::new(Pages {
            file,
            in_file: len,
            len,
            written: BTreeMap::new(),
        })))
    }

    fn with<T>(&self, call: impl FnOnce(&mut Pages) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pages {
    /// Returns a page as it is now; behind the file it is zero.
    fn page(&mut self, number: u64) -> io::Result<Box<[u8]>> {
        if let Some(page) = self.written.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE_LEN].into_boxed_slice();
        let start = number.saturating_mul(PAGE);
        let rest = self.in_file.saturating_sub(start).min(PAGE);
        if let Some(part) = page.get_mut(..usize::try_from(rest).unwrap_or(0)) {
            self.file.seek(SeekFrom::Start(start))?;
            self.file.read_exact(part)?;
        }
        Ok(page)
    }

    /// Calls `each` for the parts of pages that lie in this range, with the number of the page, the place there, and the place in the
    /// range.
    fn each_part(
        offset: u64,
        len: usize,
        mut each: impl FnMut(u64, usize, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset.saturating_add(to_u64(done));
            let place = usize::try_from(at % PAGE).unwrap_or(0);
            let some = PAGE_LEN.saturating_sub(place);
            let end = done.saturating_add(some).min(len);
            each(at / PAGE, place, done..end)?;
            done = end;
        }
        Ok(())
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(to_u64(len));
        match end {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|pages| pages.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|pages| {
            pages.check(offset, out.len())?;
            Pages::each_part(offset, out.len(), |number, place, range| {
                let page = pages.page(number)?;
                let part = page.get(place..place.saturating_add(range.len()));
                if let (Some(out), Some(part)) = (out.get_mut(range), part) {
                    out.copy_from_slice(part);
                }
                Ok(())
            })
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|pages| {
            let end = len / PAGE;
            if len < pages.len {
                // Bytes that are cut off are zero if the file grows again.
                let mut page = pages.page(end)?;
                let place = usize::try_from(len % PAGE).unwrap_or(0);
                page.iter_mut().skip(place).for_each(|byte| *byte = 0);
                pages.written.split_off(&end);
                pages.written.insert(end, page);
                pages.in_file = pages.in_file.min(len);
            }
            pages.len = len;
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|pages| {
            pages.check(offset, data.len())?;
            Pages::each_part(offset, data.len(), |number, place, range| {
                let mut page = pages.page(number)?;
                let part = page.get_mut(place..place.saturating_add(range.len()));
                if let (Some(part), Some(data)) = (part, data.get(range)) {
                    part.copy_from_slice(data);
                }
                pages.written.insert(number, page);
                Ok(())
            })
        })
    }
}
