//! What a key-value store must do to be used here.

use mqtt_journal::Record;

use crate::changes::Changes;
use crate::error::Failure;

/// A key-value store with transactions, one after the other. [`crate::Store`] uses redb; another engine implements this trait.
pub trait Engine: Send {
    /// Calls `each` with every entry as a record that puts it, in ascending order of kind and key.
    ///
    /// # Errors
    /// The entries cannot be read.
    fn read(&mut self, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), Failure>;

    /// Makes all changes, or none. When it returns, they are as durable as configured. Returns by how many bytes of keys and
    /// values the store grew; if that is more than `room` and more than 0, it makes no change and fails with [`Failure::Limit`].
    ///
    /// # Errors
    /// Nothing changed.
    fn commit(&mut self, changes: &Changes<'_>, room: u64) -> Result<i64, Failure>;

    /// Opens the store anew after [`Failure::DiskFull`]. With `use_reserve` it gives up what it kept free for this moment.
    ///
    /// # Errors
    /// It stays closed. After [`Failure::DiskFull`] this may be called again.
    fn reopen(&mut self, use_reserve: bool) -> Result<(), Failure>;

    /// Keeps room free for [`Self::reopen`], if it does not already. Returns whether it does now.
    fn renew_reserve(&mut self) -> bool;

    /// Closes the store.
    ///
    /// # Errors
    /// What was committed is stored all the same.
    fn close(&mut self) -> Result<(), Failure>;
}
