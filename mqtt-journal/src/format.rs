//! Reads and writes the first record of a journal: the version of the format, and the machine that wrote the journal.

use crate::error::Fault;
use crate::record::{Kind, Record};

/// The version of the format that this crate writes.
pub const VERSION: u8 = 1;

/// The oldest version that this crate reads. The two releases after the last one that writes a version still read it.
const OLDEST: u8 = 1;

/// The machine that wrote a journal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Machine {
    /// The session machine of a client.
    Client,
    /// An agent, including its session machine.
    Agent,
    /// A broker.
    Broker,
}

impl Machine {
    const fn byte(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Agent => 2,
            Self::Broker => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Client),
            2 => Some(Self::Agent),
            3 => Some(Self::Broker),
            _ => None,
        }
    }
}

/// The content of the first record of each journal. Its record has the lowest kind and an empty key, so it is the first one in
/// the order of keys as well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Format {
    /// The version of all records.
    pub version: u8,
    /// The machine that wrote the records.
    pub machine: Machine,
}

impl Format {
    /// The kind of this record.
    pub const KIND: Kind = Kind::new(0);

    /// Returns the format that this version of the crate writes for a machine.
    #[must_use]
    pub const fn new(machine: Machine) -> Self {
        Self {
            version: VERSION,
            machine,
        }
    }

    /// Returns the value of the record; its key is empty.
    #[must_use]
    pub const fn value(self) -> [u8; 2] {
        [self.version, self.machine.byte()]
    }

    /// Reads the first record.
    ///
    /// # Errors
    /// The record is not a format record ([`Fault::NoFormat`]), has a version that cannot be read ([`Fault::Version`]), or names
    /// an unknown machine ([`Fault::Machine`]).
    pub fn read(record: &Record<'_>) -> Result<Self, Fault> {
        // A later version may have more bytes. The first byte decides whether this crate can read them.
        let (Self::KIND, [], Some([version, rest @ ..])) = (record.kind, record.key, record.value)
        else {
            return Err(Fault::NoFormat);
        };
        if !(OLDEST..=VERSION).contains(version) {
            return Err(Fault::Version {
                found: *version,
                oldest: OLDEST,
                newest: VERSION,
            });
        }
        let [machine] = rest else {
            return Err(Fault::Value);
        };
        Ok(Self {
            version: *version,
            machine: Machine::from_byte(*machine).ok_or(Fault::Machine)?,
        })
    }

    /// Reads the first record of a journal that must belong to this machine.
    ///
    /// # Errors
    /// As for [`Self::read`], and [`Fault::Machine`] if another machine wrote it.
    pub fn read_of(machine: Machine, record: &Record<'_>) -> Result<Self, Fault> {
        let format = Self::read(record)?;
        if format.machine == machine {
            Ok(format)
        } else {
            Err(Fault::Machine)
        }
    }
}
