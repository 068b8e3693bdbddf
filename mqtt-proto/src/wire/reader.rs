//! A cursor over the body of one packet that keeps its first fault.

use super::fault::Fault;
use super::frame::varint;
use super::text::{self, Wrong};
use crate::num::{low_byte, low_half};
use crate::tune::FAST;

/// A cursor over the body of a packet.
///
/// The reader keeps the first fault. After it, every read returns zero or an empty slice, so callers need no branch for each
/// field, and loops over the rest end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader<'a> {
    /// The bytes that are not read yet.
    pub rest: &'a [u8],
    /// The first fault of the bytes that were read.
    pub fault: Fault,
    left: usize,
    missing: usize,
}

/// The properties of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Block<'a> {
    /// The bytes of the block, without its length.
    pub bytes: &'a [u8],
    /// The topic alias in the block; 0 if it has none.
    pub alias: u16,
    /// The set of properties in the block, one bit for each.
    pub(super) seen: u32,
}

impl<'a> Reader<'a> {
    /// Makes a reader of these bytes.
    #[must_use]
    #[inline]
    pub const fn new(rest: &'a [u8]) -> Self {
        Self {
            rest,
            fault: Fault::NONE,
            left: 0,
            missing: 0,
        }
    }

    /// Makes a reader at its end, with a fault. `left` and `missing` are what the methods of these names return.
    #[must_use]
    pub const fn failed(fault: Fault, left: usize, missing: usize) -> Self {
        Self {
            rest: &[],
            fault,
            left,
            missing,
        }
    }

    /// Returns the place of the fault: how many bytes there are from the wrong byte to the end.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Returns how many bytes the field lacks, if the fault is that it reaches beyond the end.
    #[must_use]
    pub const fn missing(&self) -> usize {
        self.missing
    }

    /// Stores a fault at the next byte.
    #[inline]
    pub fn fail(&mut self, fault: Fault) {
        self.note(self.rest.len(), 0, fault);
    }

    /// Stores a fault at the byte that was read this many bytes ago.
    #[inline]
    pub fn fail_back(&mut self, bytes: usize, fault: Fault) {
        self.note(self.rest.len().wrapping_add(bytes), 0, fault);
    }

    /// Stores a fault at the byte that had this many bytes from it to the end.
    #[inline]
    pub fn fail_at(&mut self, left: usize, fault: Fault) {
        self.note(left, 0, fault);
    }

    /// Stores that the next field, of `len` bytes, is longer than the rest.
    #[inline]
    fn fail_short(&mut self, len: usize) {
        let missing = len.wrapping_sub(self.rest.len());
        self.note(0, missing, Fault::TRUNCATED);
    }

    /// Stores the fault of a block that lies right before the rest. A field that reaches beyond the block is a fault of the
    /// properties, because the packet goes on.
    #[cold]
    pub(super) fn fail_inside(&mut self, block: Self) {
        let fault = if block.fault == Fault::TRUNCATED {
            Fault::PROPERTY_TRUNCATED
        } else {
            block.fault
        };
        let left = self.rest.len().wrapping_add(block.left);
        self.note(left, block.missing, fault);
    }

    /// Stores a fault. On hosts the reader is passed by value, because the compiler keeps a reader without an address in
    /// registers.
    #[inline]
    fn note(&mut self, left: usize, missing: usize, fault: Fault) {
        if FAST {
            *self = self.noted(left, missing, fault);
        } else {
            self.note_here(left, missing, fault);
        }
    }

    #[cold]
    #[inline(never)]
    fn noted(mut self, left: usize, missing: usize, fault: Fault) -> Self {
        self.note_here(left, missing, fault);
        self
    }

    #[cold]
    #[inline(never)]
    fn note_here(&mut self, left: usize, missing: usize, fault: Fault) {
        if self.fault.is_none() {
            (self.left, self.missing, self.fault) = (left, missing, fault);
        }
        self.rest = &[];
    }

    /// Reads this many bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        match self.rest.split_at_checked(len) {
            Some((head, rest)) => {
                self.rest = rest;
                head
            }
            None => {
                self.fail_short(len);
                &[]
            }
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk() {
            Some((head, rest)) => {
                self.rest = rest;
                *head
            }
            None => {
                self.fail_short(N);
                [0; N]
            }
        }
    }

    /// Reads a number of one, two or four bytes.
    pub fn number(&mut self, len: usize) -> u32 {
        if FAST {
            return match len {
                1 => u32::from(self.u8()),
                2 => u32::from(self.u16()),
                _ => u32::from_be_bytes(self.array()),
            };
        }
        self.take(len)
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    /// Reads one byte.
    #[inline]
    pub fn u8(&mut self) -> u8 {
        if FAST {
            let [byte] = self.array();
            return byte;
        }
        low_byte(self.number(1))
    }

    /// Reads two bytes.
    #[inline]
    pub fn u16(&mut self) -> u16 {
        if FAST {
            return u16::from_be_bytes(self.array());
        }
        low_half(self.number(2))
    }

    /// Reads a packet identifier.
    #[inline]
    pub fn id(&mut self) -> u16 {
        let id = self.u16();
        // 3.1.1 [MQTT-2.3.1-1], 5 [MQTT-2.2.1-3]
        if id == 0 {
            self.fail_back(2, Fault::ID_ZERO);
        }
        id
    }

    /// Reads a variable byte integer.
    #[inline]
    pub fn varint(&mut self) -> u32 {
        if FAST && let Some((first @ ..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            return u32::from(*first);
        }
        self.long_varint()
    }

    #[inline]
    fn long_varint(&mut self) -> u32 {
        if FAST {
            let (value, reader) = self.split_varint();
            *self = reader;
            return value;
        }
        self.any_varint()
    }

    #[inline(never)]
    fn split_varint(mut self) -> (u32, Self) {
        (self.any_varint(), self)
    }

    fn any_varint(&mut self) -> u32 {
        let (value, len) = varint(self.rest);
        if len > 0 {
            self.take(len);
            return value;
        }
        match Fault::new(low_byte(value)) {
            Fault::NONE => self.fail_short(self.rest.len().wrapping_add(1)),
            fault => self.fail(fault),
        }
        0
    }

    /// Reads a length of two bytes, then as many bytes.
    #[inline]
    pub fn binary(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.take(usize::from(len))
    }

    /// Reads a string.
    pub fn text(&mut self) -> &'a [u8] {
        let bytes = self.binary();
        self.check(bytes, text::text(bytes));
        bytes
    }

    /// Reads a topic name of at least one character.
    #[inline]
    pub fn name(&mut self) -> &'a [u8] {
        let name = self.name_or_none();
        // 3.1.1 [MQTT-4.7.3-1], 5 [MQTT-4.7.3-1]
        if name.is_empty() {
            self.fail_back(2, Fault::TOPIC_EMPTY);
        }
        name
    }

    /// Reads a topic name that may be empty, as in a PUBLISH of MQTT 5.
    pub fn name_or_none(&mut self) -> &'a [u8] {
        let bytes = self.binary();
        self.check(bytes, text::name(bytes));
        bytes
    }

    /// Reads a topic filter.
    #[inline]
    pub fn filter(&mut self, v5: bool) -> &'a [u8] {
        let filter = self.binary();
        if filter.is_empty() {
            self.fail_back(2, Fault::TOPIC_EMPTY);
        }
        self.check(filter, text::filter(filter, v5));
        filter
    }

    /// Stores the fault of the bytes that were read last, if there is one.
    #[inline]
    fn check(&mut self, bytes: &[u8], wrong: Wrong) {
        if wrong.fault.is_some() {
            let at = usize::from(wrong.at);
            self.fail_back(bytes.len().wrapping_sub(at), wrong.fault);
        }
    }

    /// Reads all bytes that are left.
    #[inline]
    pub fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Ends the packet. Bytes that are left are a fault.
    #[inline]
    pub fn finish(&mut self) {
        if !self.rest.is_empty() {
            self.fail(Fault::TRAILING);
        }
    }
}
