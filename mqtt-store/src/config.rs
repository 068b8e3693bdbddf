//! What a store is asked to do.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What a record survives once it is told as stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// The end of the process and of the power: the device is told to flush.
    #[default]
    Stored,
    /// The end of the process. The system writes to the device when it likes: after a power cut records are missing, and the
    /// store may be damaged.
    Written,
    /// Nothing: there is no store.
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

/// The word is none of those for [`Durability`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("durability is stored, written or off")]
pub struct UnknownDurability;

/// How to open a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The directory of the store. It is created if it does not exist.
    pub dir: PathBuf,
    /// What a stored record survives. Default: [`Durability::Stored`].
    pub durability: Durability,
    /// Bytes of keys and values that the store holds at most; `None` (default): as much as the disk does. The file takes more.
    pub limit: Option<u64>,
    /// Bytes of a file that is deleted when the disk is full, so that flows can end. Default: 1 MiB.
    pub reserve: u64,
    /// While the disk is full, the store looks for room each time this has passed. Default: 1 s.
    pub retry: Duration,
    /// Bytes of memory for pages of the file. Default: 8 MiB.
    pub cache: usize,
}

impl Config {
    /// A store in this directory, with the defaults.
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
