//! Holds the errors of opening a store and of storing.

use std::io;
use std::path::PathBuf;

/// Why the store did not open. Its content is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the store open.
    #[error("the store {} is in use by {by}", dir.display())]
    InUse {
        /// The directory of the store.
        dir: PathBuf,
        /// The other process by program and number, as far as they are known.
        by: String,
    },
    /// The content differs from what was stored. [`crate::Store::move_aside`] renames the file, so that an empty store can be
    /// made.
    #[error("the store {} is damaged at {place}: {why}", dir.display())]
    Damaged {
        /// The directory of the store.
        dir: PathBuf,
        /// The file, or the record in it.
        place: String,
        /// The kind of damage.
        why: String,
    },
    /// The store belongs to another program, to another kind of machine, or to another version of the records. It is not damaged,
    /// so [`crate::Store::move_aside`] should not be called.
    #[error("the store {} belongs to another program: {what}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// How it differs.
        what: String,
    },
    /// The content does not fit into the limits of the settings. It is not damaged, so [`crate::Store::move_aside`] should not be
    /// called.
    #[error("the store {} has more than the settings allow: {what}", dir.display())]
    TooLarge {
        /// The directory of the store.
        dir: PathBuf,
        /// A sentence that names the content and the limit that it exceeds.
        what: String,
    },
    /// The disk has not enough room for opening the store.
    #[error("there is no room on the disk to open the store {}", dir.display())]
    Full {
        /// The directory of the store.
        dir: PathBuf,
    },
    /// A call of the system failed.
    #[error("the store {} cannot be opened", dir.display())]
    Io {
        /// The directory of the store.
        dir: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Why records are not stored, or why the machine should write no more.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The content has reached [`crate::Config::limit`].
    #[error("the limit of the store is reached")]
    Limit,
    /// The disk is full. [`Engine::reopen`](crate::Engine::reopen) is needed before the next transaction.
    #[error("the disk is full")]
    DiskFull,
    /// The bytes that were read differ from those that were written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The bytes that were read differ from those that were written, in this file at this place.
    #[error("the store is damaged at {place}: {why}")]
    DamagedAt {
        /// The file, and the byte in it if that is known.
        place: String,
        /// The kind of damage.
        why: String,
    },
    /// The file of the store belongs to another program.
    #[error("{0}")]
    Foreign(String),
    /// Another process owns the store now, and has its content. The machine must end its connections and forget its state.
    #[error("another process owns the store now: {0}")]
    Superseded(String),
    /// Any other failure. Another process must read the stored data again. A failed flush is such a failure: the system may have
    /// dropped the data that it could not write, and a second flush would succeed without them.
    #[error("the store does not work any more: {0}")]
    Broken(String),
}

impl Failure {
    /// Returns whether the same transaction may succeed later, when there is more room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Limit | Self::DiskFull)
    }
}
