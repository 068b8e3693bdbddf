//! Wraps the file under redb. It stores its first failure, because the errors of redb do not always contain it.

use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{BackendError, StorageBackend};

use crate::error::Failure;

/// The first failure of a file since it was opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstFailure(Arc<Mutex<Option<Failure>>>);

impl FirstFailure {
    pub(crate) fn get(&self) -> Option<Failure> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note<T>(&self, what: Call, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| what.failed(error));
        }
        result
    }
}

/// A call of the system.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Read,
    Write,
    Flush,
}

impl Call {
    pub(crate) fn failed(self, error: &io::Error) -> Failure {
        use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, UnexpectedEof};
        match (self, error.kind()) {
            (Self::Write, FileTooLarge | QuotaExceeded | StorageFull) => Failure::DiskFull,
            (Self::Read, UnexpectedEof) => Failure::Damaged("the file ends early".to_owned()),
            (Self::Read, _) => Failure::Broken(format!("a read failed: {error}")),
            (Self::Write, _) => Failure::Broken(format!("a write failed: {error}")),
            // This includes a full disk: the system may have dropped the data that it could not write.
            (Self::Flush, _) => Failure::Broken(format!("a flush failed: {error}")),
        }
    }
}

/// A file that stores its first failure, and flushes only if the configuration says so.
#[derive(Debug)]
pub(crate) struct Guarded {
    pub(crate) file: Box<dyn StorageBackend>,
    pub(crate) flushes: bool,
    pub(crate) first_failure: FirstFailure,
}

impl StorageBackend for Guarded {
    fn len(&self) -> io::Result<u64> {
        self.first_failure.note(Call::Read, self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.first_failure
            .note(Call::Read, self.file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.first_failure.note(Call::Write, self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        if !self.flushes {
            return Ok(());
        }
        self.first_failure.note(Call::Flush, self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.first_failure
            .note(Call::Write, self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
