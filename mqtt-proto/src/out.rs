//! What packets are written to: a [`Writer`] and the first reason why a packet cannot be.

use crate::error::{EncodeError, Field, Unsayable};
use crate::num::to_u32;
use crate::tune::FAST;
use crate::varint::VarInt;
use crate::wire::{Writer, text_fits, varint_len};

/// A writer that keeps the first reason why a packet cannot be written.
#[derive(Debug)]
pub struct Out<'b> {
    /// Where its bytes go.
    pub writer: Writer<'b>,
    error: Option<Unsayable>,
}

impl<'b> Out<'b> {
    /// Over this memory, from its front; over none it measures.
    #[must_use]
    #[inline]
    pub const fn new(room: &'b mut [u8]) -> Self {
        Self {
            writer: Writer::new(room),
            error: None,
        }
    }

    /// How long the packet is, or why it cannot be written.
    ///
    /// # Errors
    /// The first reason that was noted.
    #[inline]
    pub fn finish(&self) -> Result<usize, EncodeError> {
        match self.error {
            None => Ok(self.writer.len()),
            Some(error) => Err(error.into()),
        }
    }

    /// Notes a reason why the packet cannot be written.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&mut self, error: Unsayable) {
        self.error.get_or_insert(error);
    }

    /// Notes a reason, if it applies.
    #[inline]
    pub(crate) fn refuse_if(&mut self, condition: bool, error: Unsayable) {
        if condition {
            self.refuse(error);
        }
    }

    /// Two bytes of length, then the bytes.
    #[cfg_attr(target_pointer_width = "64", inline)]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub fn binary(&mut self, field: Field, bytes: &[u8]) {
        self.refuse_if(bytes.len() > 0xFFFF, Unsayable::TooLong(field));
        self.writer.binary(bytes);
    }

    /// A string that its type does not vouch for.
    #[inline]
    pub(crate) fn text(&mut self, field: Field, text: &[u8]) {
        // 3.1.1 [MQTT-1.5.3-2], 5 [MQTT-1.5.4-2]
        self.refuse_if(!text_fits(text, false), Unsayable::NullCharacter(field));
        self.binary(field, text);
    }

    /// What `write` writes, behind its length as a variable byte integer. It has at least `least` bytes.
    #[inline]
    pub(crate) fn sized(&mut self, least: usize, write: impl Fn(&mut Out<'_>)) {
        if !FAST {
            return self.measured(&write);
        }
        let start = self.writer.len();
        let guess = varint_len(to_u32(least));
        self.writer.skip(guess);
        write(self);
        let len = self.writer.len().wrapping_sub(start).wrapping_sub(guess);
        let len = to_u32(len);
        self.refuse_if(len > VarInt::MAX.get(), Unsayable::PacketTooLong);
        self.writer.set_varint(start, guess, len);
    }

    /// The same by writing twice: nothing has to be moved, and it is there once.
    #[inline(never)]
    fn measured(&mut self, write: &dyn Fn(&mut Out<'_>)) {
        let mut measure = Out::new(&mut []);
        write(&mut measure);
        let len = to_u32(measure.writer.len());
        self.refuse_if(len > VarInt::MAX.get(), Unsayable::PacketTooLong);
        self.writer.varint(len);
        write(self);
    }

    /// The fixed header, and the body that `write` writes.
    #[inline]
    pub(crate) fn packet(&mut self, first: u8, least: usize, write: impl Fn(&mut Out<'_>)) {
        self.writer.u8(first);
        self.sized(least, write);
    }
}
