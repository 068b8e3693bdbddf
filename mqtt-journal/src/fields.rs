//! Reads and writes keys and values: numbers of fixed length, most significant byte first, then one field with the remaining
//! bytes.

use crate::error::Fault;

/// Reads fields from the front of a key or a value.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    fault: Fault,
}

impl<'a> Fields<'a> {
    pub(crate) const fn key(rest: &'a [u8]) -> Self {
        let fault = Fault::Key;
        Self { rest, fault }
    }

    pub(crate) const fn value(rest: &'a [u8]) -> Self {
        let fault = Fault::Value;
        Self { rest, fault }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(self.fault)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_be_bytes)
    }

    /// Takes a byte that is 0 or 1.
    pub(crate) fn flag(&mut self) -> Result<bool, Fault> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.fault),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes the next `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(self.fault)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Takes a byte string with a length of two bytes in front.
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// Returns the remaining bytes without taking them.
    pub(crate) const fn left(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the remaining bytes.
    pub(crate) const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Checks that no bytes remain.
    pub(crate) const fn end(self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.fault)
        }
    }
}

/// Collects the numbers of a key or a value, at most 16 bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Head {
    bytes: [u8; 16],
    len: usize,
}

impl Head {
    pub(crate) fn with(mut self, number: &[u8]) -> Self {
        let end = self.len.saturating_add(number.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(number);
            self.len = end;
        }
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
