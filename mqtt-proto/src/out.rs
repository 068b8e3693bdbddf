//! The target of encoding: a [`Writer`], and the first reason why the packet cannot be encoded.

use crate::error::{Field, Unencodable};
use crate::num::to_u32;
use crate::tune::FAST;
use crate::varint::VarInt;
use crate::wire::{Writer, text_fits, varint_len};

/// A writer that keeps the first reason why a packet cannot be encoded.
#[derive(Debug)]
pub struct Out<'b> {
    /// Takes the bytes of the packet.
    pub writer: Writer<'b>,
    error: Option<Unencodable>,
}

impl<'b> Out<'b> {
    /// Makes an `Out` that writes to `room` from its front. With an empty slice it only measures the length.
    #[must_use]
    #[inline]
    pub const fn new(room: &'b mut [u8]) -> Self {
        Self {
            writer: Writer::new(room),
            error: None,
        }
    }

    /// Returns the length of the packet in bytes.
    ///
    /// # Errors
    /// The first reason why the packet cannot be encoded.
    #[inline]
    pub fn finish(&self) -> Result<usize, Unencodable> {
        match self.error {
            None => Ok(self.writer.len()),
            Some(error) => Err(error),
        }
    }

    /// Stores a reason why the packet cannot be encoded, unless there is an earlier one.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&mut self, error: Unencodable) {
        self.error.get_or_insert(error);
    }

    /// Stores the reason if the condition is true.
    #[inline]
    pub(crate) fn refuse_if(&mut self, condition: bool, error: Unencodable) {
        if condition {
            self.refuse(error);
        }
    }

    /// Writes a length of two bytes, then the bytes. More than 65,535 bytes are an error.
    pub fn binary(&mut self, field: Field, bytes: &[u8]) {
        self.refuse_if(bytes.len() > 0xFFFF, Unencodable::TooLong(field));
        self.writer.binary(bytes);
    }

    /// Writes a string whose type does not exclude U+0000.
    #[inline]
    pub(crate) fn text(&mut self, field: Field, text: &[u8]) {
        // 3.1.1 [MQTT-1.5.3-2], 5 [MQTT-1.5.4-2]
        self.refuse_if(!text_fits(text, false), Unencodable::NullCharacter(field));
        self.binary(field, text);
    }

    /// Writes a length as a variable byte integer, and behind it what `write` writes. That has at least `least` bytes: if its
    /// length takes more bytes than that of `least`, what was written is moved.
    #[inline]
    pub(crate) fn sized(&mut self, least: usize, write: impl Fn(&mut Out<'_>)) {
        if !FAST {
            // This is smaller code: nothing is moved.
            let mut measure = Out::new(&mut []);
            write(&mut measure);
            self.length(measure.writer.len());
            return write(self);
        }
        let start = self.writer.len();
        let guess = varint_len(to_u32(least));
        self.writer.skip(guess);
        write(self);
        let len = self.writer.len().wrapping_sub(start).wrapping_sub(guess);
        let len = to_u32(len);
        self.refuse_if(len > VarInt::MAX.get(), Unencodable::PacketTooLong);
        self.writer.set_varint(start, guess, len);
    }

    /// Writes a length as a variable byte integer.
    pub(crate) fn length(&mut self, len: usize) {
        let len = to_u32(len);
        self.refuse_if(len > VarInt::MAX.get(), Unencodable::PacketTooLong);
        self.writer.varint(len);
    }
}
