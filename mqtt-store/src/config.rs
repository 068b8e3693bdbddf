//! Holds the configuration of a store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The events that a record survives once it is reported as stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Durability {
    /// The end of the process and a power failure: each commit flushes the device.
    #[default]
    Stored,
    /// The end of the process. The system writes to the device later: after a power failure records may be missing, and the store
    /// may be damaged.
    Written,
    /// No event: there is no store.
    Off,
}

impl Durability {
    const WORDS: [(&'static str, Self); 3] = [
        ("stored", Self::Stored),
        ("written", Self::Written),
        ("off", Self::Off),
    ];
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::Written => "written",
            Self::Off => "off",
        })
    }
}

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(word: &str) -> Result<Self, UnknownDurability> {
        Self::WORDS
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, durability)| *durability)
            .ok_or(UnknownDurability)
    }
}

/// The error for a word that does not name a [`Durability`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("durability is stored, written or off")]
pub struct UnknownDurability;

/// The settings of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The directory of the store. It is created if it does not exist.
    pub dir: PathBuf,
    /// The durability of a record that is reported as stored. Default: [`Durability::Stored`].
    pub durability: Durability,
    /// From this many bytes of keys and values on, the store reports [`crate::Condition::Full`]; `None` (default): the disk is
    /// the only limit. Records beyond the limit are stored nevertheless: those that the machine writes before it refuses new
    /// messages, and those that end accepted messages. The file is larger than the limit.
    pub limit: Option<u64>,
    /// The size in bytes of a reserve file. It is deleted when the disk is full, so that the table can store deletions. Default: 1 MiB.
    pub reserve: u64,
    /// The size in bytes of the log in front of the table, rounded down to an even number of pages of 4 KiB. It is reserved when
    /// the log is created; an existing log keeps its size. Without room for it, or with 0, there is no log: then each transaction
    /// changes the table. Default: 16 MiB.
    pub log: u64,
    /// The time between two tries on a full disk. Default: 1 s.
    pub retry: Duration,
    /// The memory in bytes for pages of the file. Default: 8 MiB.
    pub cache: usize,
}

impl Config {
    /// Returns a configuration for this directory, with all other fields at their defaults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::Stored,
            limit: None,
            reserve: 1 << 20,
            log: 16 << 20,
            retry: Duration::from_secs(1),
            cache: 8 << 20,
        }
    }
}
