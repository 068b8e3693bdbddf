//! The first record of a journal: which version, and whose.

use crate::error::Fault;
use crate::record::{Kind, Record};

/// The version of the format that is written here.
pub const VERSION: u8 = 1;

/// The oldest version that is read. A version is read by the two releases after the last one that wrote it.
const OLDEST: u8 = 1;

/// What wrote a journal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Machine {
    /// The session machine of a client.
    Client,
    /// An agent, with the session machine in it.
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

/// What the first record of each journal says. It has the lowest kind and an empty key, so it is first in the order of keys, too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Format {
    /// The version of all records.
    pub version: u8,
    /// What wrote them.
    pub machine: Machine,
}

impl Format {
    /// The kind of this record.
    pub const KIND: Kind = Kind::new(0);

    /// What this version of the crate writes for a machine.
    #[must_use]
    pub const fn new(machine: Machine) -> Self {
        Self {
            version: VERSION,
            machine,
        }
    }

    /// The value of its record; the key is empty.
    #[must_use]
    pub const fn value(self) -> [u8; 2] {
        [self.version, self.machine.byte()]
    }

    /// Reads what the first record says.
    ///
    /// # Errors
    /// The record does not tell a format ([`Fault::NoFormat`]), or one that is not read here ([`Fault::Version`]), or names no machine
    /// that is known ([`Fault::Machine`]).
    pub fn read(record: &Record<'_>) -> Result<Self, Fault> {
        // A later version may have more bytes: the first one alone decides whether they are read.
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

    /// The same, of a journal that must belong to this machine.
    ///
    /// # Errors
    /// As [`Self::read`], and [`Fault::Machine`] if another one wrote it.
    pub fn read_of(machine: Machine, record: &Record<'_>) -> Result<Self, Fault> {
        let format = Self::read(record)?;
        if format.machine == machine {
            Ok(format)
        } else {
            Err(Fault::Machine)
        }
    }
}
