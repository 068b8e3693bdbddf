//! Reads and writes the frame that all records share. `docs/JOURNAL.md` has its byte table.

use mqtt_proto::VarInt;

use crate::broker::{DUE_WILL, FLOW, MESSAGE, RECEIVED};
use crate::client::{OUTGOING, RECEIVED as HELD};
use crate::error::{Damaged, Fault};

/// Length in bytes of the longest record, with its length field.
pub const MAX_RECORD: usize = 268_435_459;

/// The type of a record's entry. Two of its bits tell a reader how to handle a record of an unknown kind.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Kind(u8);

/// The record deletes the entry of its key.
const DELETES: u8 = 0x40;
/// A reader that does not know the kind may skip the record.
const OPTIONAL: u8 = 0x80;

impl Kind {
    /// Makes a kind from its number, 0 to 63. A reader must know the kind.
    ///
    /// # Panics
    /// At compile time if the number is above 63.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        assert!(number < DELETES, "a kind has six bits");
        Self(number)
    }

    /// Returns the same kind for records that a reader may skip if it does not know the kind.
    #[must_use]
    pub const fn optional(self) -> Self {
        Self(self.0 | OPTIONAL)
    }

    /// Returns whether a reader that does not know this kind may skip the record.
    #[must_use]
    pub const fn is_optional(self) -> bool {
        self.0 & OPTIONAL != 0
    }

    /// Returns whether each key of this kind is put only once, because it is a new number: before its first record no store has
    /// an entry with it.
    #[must_use]
    pub const fn is_put_once(self) -> bool {
        self.0 == MESSAGE.0 || self.0 == DUE_WILL.0
    }

    /// Returns whether most entries of this kind last only as long as the delivery of a message.
    #[must_use]
    pub const fn is_brief(self) -> bool {
        self.0 == OUTGOING.0 || self.0 == HELD.0 || self.0 == RECEIVED.0 || self.0 == FLOW.0
    }

    /// Returns the first byte of a record of this kind.
    pub(crate) const fn first_byte(self, deletes: bool) -> u8 {
        if deletes { self.0 | DELETES } else { self.0 }
    }

    /// Returns the kind as the first byte of a key in a store: the number, and whether it is optional.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// Returns the kind of a byte of [`Self::byte`]; `None` for other bytes.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        if byte & DELETES == 0 {
            Some(Self(byte))
        } else {
            None
        }
    }
}

/// One change: puts a value under a kind and a key, or deletes the entry.
/// ```
/// use mqtt_journal::{Kind, Record};
/// let record = Record { kind: Kind::new(3), key: &[0, 7], value: Some(b"held") };
/// let mut bytes = [0; 16];
/// let len = record.write(&mut bytes).unwrap();
/// assert_eq!(bytes[..len], *b"\x08\x03\x02\x00\x07held");
/// assert_eq!(Record::read(&bytes[..len]), Ok(Some((record, len))));
/// assert_eq!(Record::read(&bytes[..len - 1]), Ok(None)); // not whole yet
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record<'a> {
    /// The type of the entry.
    pub kind: Kind,
    /// The key of the entry within its kind.
    pub key: &'a [u8],
    /// The new value; `None` deletes the entry.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Reads the record at the front, and returns it with its length; `None` while its last byte is missing.
    ///
    /// # Errors
    /// The bytes are not a record.
    pub fn read(input: &'a [u8]) -> Result<Option<(Self, usize)>, Fault> {
        let Some((len, head)) = VarInt::decode(input).map_err(|_| Fault::Length)? else {
            return Ok(None);
        };
        let len = usize::try_from(len.get()).map_err(|_| Fault::Length)?;
        let rest = input.get(head..).unwrap_or_default();
        let Some((body, _)) = rest.split_at_checked(len) else {
            return Ok(None);
        };
        let record = Self::read_body(body)?;
        Ok(Some((record, head.wrapping_add(len))))
    }

    fn read_body(body: &'a [u8]) -> Result<Self, Fault> {
        let (&first, rest) = body.split_first().ok_or(Fault::Length)?;
        let (len, head) = VarInt::decode(rest)
            .ok()
            .flatten()
            .ok_or(Fault::KeyLength)?;
        let len = usize::try_from(len.get()).map_err(|_| Fault::KeyLength)?;
        let (key, value) = rest
            .get(head..)
            .and_then(|rest| rest.split_at_checked(len))
            .ok_or(Fault::KeyLength)?;
        let value = match (first & DELETES != 0, value.is_empty()) {
            (false, _) => Some(value),
            (true, true) => None,
            (true, false) => return Err(Fault::ValueOfDelete),
        };
        Ok(Self {
            kind: Kind(first & !DELETES),
            key,
            value,
        })
    }

    /// Returns the length of the record in bytes; `None` if it would be longer than [`MAX_RECORD`].
    #[must_use]
    pub fn encoded_len(&self) -> Option<usize> {
        self.parts().encoded_len()
    }

    /// Writes the record to the front of `out` and returns its length. Returns `None` if there is no room, or if the record would
    /// be longer than [`MAX_RECORD`]; the content of `out` is undefined then.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        self.parts().write(out)
    }

    fn parts(&self) -> Parts<'a> {
        Parts {
            kind: self.kind,
            key: self.key,
            value: self.value.map(|value| [value, &[]]),
        }
    }
}

/// A record to be written, with its value in two parts.
pub(crate) struct Parts<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<[&'a [u8]; 2]>,
}

impl Parts<'_> {
    pub(crate) fn encoded_len(&self) -> Option<usize> {
        let (_, body) = self.lengths()?;
        body.encoded_len()
            .checked_add(usize::try_from(body.get()).ok()?)
    }

    pub(crate) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let (key_len, len) = self.lengths()?;
        let deletes = if self.value.is_none() { DELETES } else { 0 };
        let (len, len_bytes) = len.encode();
        let (key_len, key_len_bytes) = key_len.encode();
        let [first, second] = self.value.unwrap_or_default();
        let parts = [
            len.get(..len_bytes)?,
            &[self.kind.0 | deletes],
            key_len.get(..key_len_bytes)?,
            self.key,
            first,
            second,
        ];
        let mut end = 0_usize;
        for part in parts {
            let start = end;
            end = end.checked_add(part.len())?;
            out.get_mut(start..end)?.copy_from_slice(part);
        }
        Some(end)
    }

    /// Returns the length of the key, and the length of the record after its length field.
    fn lengths(&self) -> Option<(VarInt, VarInt)> {
        let varint = |len: usize| VarInt::new(u32::try_from(len).ok()?);
        let [first, second] = self.value.unwrap_or_default();
        let key = varint(self.key.len())?;
        let len = 1_usize
            .checked_add(key.encoded_len())?
            .checked_add(self.key.len())?
            .checked_add(first.len())?
            .checked_add(second.len())?;
        Some((key, varint(len)?))
    }
}

/// An iterator over the records of a journal, in order. It ends after the first fault.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    journal: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Iterates over the records of `journal`.
    #[must_use]
    pub const fn new(journal: &'a [u8]) -> Self {
        Self { journal, at: 0 }
    }

    /// Returns how many bytes the returned records take.
    #[must_use]
    pub const fn consumed(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.journal.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return None;
        }
        let fault = match Record::read(rest) {
            Ok(Some((record, len))) => {
                self.at = self.at.wrapping_add(len);
                return Some(Ok(record));
            }
            Ok(None) => Fault::CutOff,
            Err(fault) => fault,
        };
        self.journal = &[];
        Some(Err(Damaged { at: self.at, fault }))
    }
}
