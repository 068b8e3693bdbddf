//! Why a store does not open, and why it does not store.

use std::io;
use std::path::PathBuf;

/// The store did not open. Nothing in it changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store {} is in use by {by}", dir.display())]
    InUse {
        /// The directory of the store.
        dir: PathBuf,
        /// The other process, by program and number as far as that is known.
        by: String,
    },
    /// What it holds is not what was stored. [`crate::Store::move_aside`] makes room for an empty one.
    #[error("the store {} is damaged at {place}: {why}", dir.display())]
    Damaged {
        /// The directory of the store.
        dir: PathBuf,
        /// The file, or the record in it.
        place: String,
        /// What is wrong there.
        why: String,
    },
    /// The disk has no room, not even for opening it.
    #[error("there is no room on the disk to open the store {}", dir.display())]
    Full {
        /// The directory of the store.
        dir: PathBuf,
    },
    /// The system refused something.
    #[error("the store {} cannot be opened: {error}", dir.display())]
    Io {
        /// The directory of the store.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A transaction did not come about: what it would have changed is as before.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It would exceed [`crate::Config::limit`].
    #[error("the limit of the store is reached")]
    Limit,
    /// The disk has no room. [`Engine::reopen`](crate::Engine::reopen) is needed before the next transaction.
    #[error("the disk is full")]
    DiskFull,
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Whatever the reason: what was stored before must be read anew, by another process. A failed flush is of this kind, for the
    /// system may have dropped what it could not write, and a second flush would succeed without it.
    #[error("the store does not work any more: {0}")]
    Broken(String),
}

impl Failure {
    /// Whether room may come, so that the same transaction succeeds later.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Limit | Self::DiskFull)
    }
}
