//! Defines the interface of a key-value store.

use mqtt_journal::Record;

use crate::changes::{Changes, parse};
use crate::error::Failure;

/// A key-value store with one transaction at a time. [`crate::Store`] uses redb; another engine implements this trait.
pub trait Engine: Send {
    /// Calls `each` with every entry as a record that puts it, in ascending order of kind and key.
    ///
    /// # Errors
    /// The entries cannot be read.
    fn read(&mut self, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), Failure>;

    /// Makes all changes or none. When it returns, the changes have the configured durability. Returns by how many bytes of keys
    /// and values the store grew. If that would be more than `room` and more than 0, changes nothing and fails with
    /// [`Failure::Limit`].
    ///
    /// # Errors
    /// Nothing changed.
    fn commit(&mut self, changes: &Changes<'_>, room: u64) -> Result<i64, Failure>;

    /// Makes the changes of these records, which are complete and in the order of the journal, or none; otherwise like
    /// [`Self::commit`]. An engine that appends them to a log does not need to combine them first.
    ///
    /// # Errors
    /// Nothing changed. [`Failure::Broken`]: the bytes are not records.
    fn append(&mut self, records: &[u8], room: u64) -> Result<i64, Failure> {
        let batch = parse(records)?;
        let changes = Changes::of(batch.from(0));
        if changes.is_empty() {
            return Ok(0);
        }
        self.commit(&changes, room)
    }

    /// Opens the store again after [`Failure::DiskFull`]. With `use_reserve`, deletes the reserve first.
    ///
    /// # Errors
    /// The store stays closed. After [`Failure::DiskFull`] this may be called again.
    fn reopen(&mut self, use_reserve: bool) -> Result<(), Failure>;

    /// Writes the reserve for [`Self::reopen`] again if it does not exist. Returns whether it exists now.
    fn renew_reserve(&mut self) -> bool;

    /// Prepares the store for the first transaction, after [`Self::read`].
    ///
    /// # Errors
    /// The store is not usable.
    fn start(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Returns whether the machine may write more than the necessary records, all of which were stored so far. `try_again`: a
    /// moment has passed since the last call, and there may be room on the disk now.
    ///
    /// # Errors
    /// The store does not work any more.
    fn has_room(&mut self, try_again: bool) -> Result<bool, Failure> {
        let _ = try_again;
        Ok(true)
    }

    /// Closes the store.
    ///
    /// # Errors
    /// Transactions that were committed before are stored nevertheless.
    fn close(&mut self) -> Result<(), Failure>;
}

/// Returns the bytes that an entry counts against [`crate::Config::limit`].
#[must_use]
pub fn entry_size(key: &[u8], value: &[u8]) -> i64 {
    let size = 1_usize
        .saturating_add(key.len())
        .saturating_add(value.len());
    i64::try_from(size).unwrap_or(i64::MAX)
}
