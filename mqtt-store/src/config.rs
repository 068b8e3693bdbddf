//! The configuration of a store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The events that a record survives after it was reported as stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Durability {
    /// The end of the process and a power failure: each commit flushes to the device.
    #[default]
    Stored,
    /// The end of the process. The system writes to the device later: after a power failure records are missing, and the
    /// store may be damaged.
    Written,
    /// None: there is no store.
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

/// The word does not name a [`Durability`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("durability is stored, written or off")]
pub struct UnknownDurability;

/// How to open a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The directory of the store. It is created if it does not exist.
    pub dir: PathBuf,
    /// The durability of a record that is reported as stored. Default: [`Durability::Stored`].
    pub durability: Durability,
    /// From so many bytes of keys and values on, the store reports [`crate::Condition::Full`]; `None` (default): no limit but the
    /// disk. What the machine writes until it refuses more, and to end what it has accepted, is stored all the same. The file is
    /// larger than that.
    pub limit: Option<u64>,
    /// The size in bytes of a reserve file, which is deleted when the disk is full, so that deletions can be stored. Default:
    /// 1 MiB.
    pub reserve: u64,
    /// How long to wait on a full disk before each new try. Default: 1 s.
    pub retry: Duration,
    /// The memory in bytes for pages of the file. Default: 8 MiB.
    pub cache: usize,
}

impl Config {
    /// The configuration of a store in this directory, with all other fields at their defaults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::Stored,
            limit: None,
            reserve: 1 << 20,
            retry: Duration::from_secs(1),
            cache: 8 << 20,
        }
    }
}
