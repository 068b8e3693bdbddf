//! Writes packets to memory that the caller lends.

use super::property::{BYTE, FOUR, NUMBER, PropertyId, TWO, form_of};
use crate::num::{low_byte, low_half, to_u16, to_u32};
use crate::tune::FAST;

/// A writer over lent memory.
///
/// If the memory is too short, the writer goes on counting: [`Self::len`] is the length that is needed. With an empty slice the
/// writer only measures.
#[derive(Debug, Default)]
pub struct Writer<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Makes a writer to this memory, from its front.
    #[must_use]
    #[inline]
    pub const fn new(room: &'a mut [u8]) -> Self {
        Self { room, at: 0 }
    }

    /// Returns how many bytes were written, with those that had no room.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.at
    }

    /// Returns whether nothing was written.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Returns whether all bytes had room.
    #[must_use]
    #[inline]
    pub const fn fits(&self) -> bool {
        self.at <= self.room.len()
    }

    /// Skips bytes that are written later.
    #[inline]
    pub(crate) const fn skip(&mut self, bytes: usize) {
        self.at = self.at.wrapping_add(bytes);
    }

    /// Writes a variable byte integer at `start`, where `room` bytes were skipped for it. The bytes after it are moved if it
    /// takes more.
    #[inline]
    pub(crate) fn set_varint(&mut self, start: usize, room: usize, number: u32) {
        let len = varint_len(number);
        if len != room {
            self.move_back(start.wrapping_add(room), len.saturating_sub(room));
        }
        let end = core::mem::replace(&mut self.at, start);
        self.varint(number);
        self.at = end;
    }

    #[inline(never)]
    fn move_back(&mut self, from: usize, by: usize) {
        let end = self.at.wrapping_add(by);
        if let Some(moved) = self.room.get_mut(from..end) {
            if FAST {
                moved.copy_within(..moved.len().saturating_sub(by), by);
            } else {
                for at in (by..moved.len()).rev() {
                    let byte = moved.get(at.wrapping_sub(by)).copied();
                    if let (Some(byte), Some(place)) = (byte, moved.get_mut(at)) {
                        *place = byte;
                    }
                }
            }
        }
        self.at = end;
    }

    /// Writes one byte.
    pub fn u8(&mut self, byte: u8) {
        self.array([byte]);
    }

    /// Writes two bytes.
    pub fn u16(&mut self, number: u16) {
        self.array(number.to_be_bytes());
    }

    /// Writes an array.
    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        if !FAST {
            return self.bytes(&bytes);
        }
        let rest = self.room.get_mut(self.at..);
        if let Some(place) = rest.and_then(|rest| rest.first_chunk_mut()) {
            *place = bytes;
        }
        self.at = self.at.wrapping_add(N);
    }

    /// Writes four bytes.
    #[inline]
    pub fn u32(&mut self, number: u32) {
        self.array(number.to_be_bytes());
    }

    /// Writes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at.wrapping_add(bytes.len());
        if let Some(place) = self.room.get_mut(self.at..end) {
            copy(place, bytes);
        }
        self.at = end;
    }

    /// Writes a variable byte integer.
    pub fn varint(&mut self, mut number: u32) {
        while number > 0x7F {
            self.u8(low_byte(number) | 0x80);
            number >>= 7;
        }
        self.u8(low_byte(number));
    }

    /// Writes a length of two bytes, then the bytes.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.u16(to_u16(bytes.len()));
        self.bytes(bytes);
    }

    /// Writes a property that is a number, in the layout that the table says.
    pub fn number(&mut self, id: PropertyId, number: u32) {
        self.u8(id.get());
        match form_of(id.get()) {
            NUMBER => self.varint(number),
            BYTE if FAST => self.u8(low_byte(number)),
            TWO if FAST => self.u16(low_half(number)),
            FOUR if FAST => self.u32(number),
            form => {
                let bytes = number.to_be_bytes();
                let skip = 4_usize.saturating_sub(1 << form);
                self.bytes(bytes.get(skip..).unwrap_or_default());
            }
        }
    }

    /// Writes a property that is text or bytes.
    pub fn text(&mut self, id: PropertyId, text: &[u8]) {
        self.u8(id.get());
        self.binary(text);
    }

    /// Writes a user property.
    pub fn pair(&mut self, name: &[u8], value: &[u8]) {
        self.text(PropertyId::UserProperty, name);
        self.binary(value);
    }

    /// Writes the length of a block of properties, then the block. Before MQTT 5 it writes nothing.
    #[inline]
    pub fn block(&mut self, bytes: &[u8], v5: bool) {
        if cfg!(feature = "v5") && v5 {
            self.varint(to_u32(bytes.len()));
            self.bytes(bytes);
        }
    }
}

/// Returns how many bytes a variable byte integer takes.
#[must_use]
#[inline]
pub const fn varint_len(number: u32) -> usize {
    match number {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Copies between slices of the same length. Most of them are so short that a call of `memcpy` costs more than the copy. On
/// small targets the library's copy would also link its panic for different lengths.
#[inline]
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    if FAST && from.len() > 64 && to.len() == from.len() {
        return to.copy_from_slice(from);
    }
    // The first and the last part may overlap.
    let done = FAST
        && (halves::<32>(to, from)
            || halves::<16>(to, from)
            || halves::<8>(to, from)
            || halves::<4>(to, from));
    if !done {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// Copies the first `N` and the last `N` bytes. Returns `false` if there are fewer than `N`.
#[inline]
fn halves<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else {
        return false;
    };
    if let Some(to) = to.first_chunk_mut() {
        *to = *first;
    }
    if let Some(to) = to.last_chunk_mut() {
        *to = *last;
    }
    true
}
