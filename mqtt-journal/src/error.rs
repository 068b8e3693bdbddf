//! Holds the errors of a journal and their positions.

/// Why bytes are not a valid record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The journal ends within a record.
    #[error("the last record is cut off")]
    CutOff,
    /// The length is not a variable byte integer, or leaves no room for a kind and a key.
    #[error("the length of the record is wrong")]
    Length,
    /// The length of the key is not a variable byte integer, or exceeds the record.
    #[error("the length of the key is wrong")]
    KeyLength,
    /// Bytes follow the key of a record that deletes its entry.
    #[error("a record that deletes has a value")]
    ValueOfDelete,
    /// The kind is unknown, and must not be skipped.
    #[error("records of kind {0} are not known to this version")]
    UnknownKind(u8),
    /// The key is not valid for this kind.
    #[error("the key does not fit the kind of the record")]
    Key,
    /// The value is not valid for this kind.
    #[error("the value does not fit the kind of the record")]
    Value,
    /// The first record is not the format record.
    #[error("the first record does not contain the format")]
    NoFormat,
    /// The journal has a version that this crate cannot read.
    #[error("the format has version {found}; this program reads {oldest} to {newest}")]
    Version {
        /// The version of the journal.
        found: u8,
        /// The oldest version that this crate reads.
        oldest: u8,
        /// The newest version that this crate reads.
        newest: u8,
    },
    /// Another kind of machine has written the journal.
    #[error("it was written by another kind of machine")]
    Machine,
}

/// A fault, and the position of its record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("byte {at}: {fault}")]
#[non_exhaustive]
pub struct Damaged {
    /// The position of the record, counted from the first byte of the journal.
    pub at: usize,
    /// The fault.
    pub fault: Fault,
}
