//! Where a packet is written to. Every packet has one `write`, run on a [`Counter`] for its length and its checks and on a
//! [`Filler`] for its bytes, so a length cannot disagree with the bytes.

use crate::error::{EncodeError, Field};
use crate::text;
use crate::varint::VarInt;
use crate::version::Version;

pub(crate) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    #[inline]
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    #[inline]
    fn varint(&mut self, value: VarInt) {
        let (bytes, len) = value.encode();
        self.bytes(bytes.get(..len).unwrap_or_default());
    }

    /// Two bytes of length, then the bytes.
    #[inline]
    fn binary(&mut self, field: Field, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(len) => {
                self.u16(len);
                self.bytes(bytes);
            }
            Err(_) => self.refuse(EncodeError::TooLong(field)),
        }
    }

    /// A string that the type does not already vouch for.
    fn text(&mut self, field: Field, value: &str) {
        if Self::CHECKS && text::check(value.as_bytes()).is_err() {
            self.refuse(EncodeError::NullCharacter(field));
        }
        self.binary(field, value.as_bytes());
    }

    /// Whether [`Self::refuse`] does anything, so that a check whose answer nobody reads is not made.
    const CHECKS: bool;

    fn refuse(&mut self, error: EncodeError);

    #[inline]
    fn refuse_if(&mut self, condition: bool, error: EncodeError) {
        if Self::CHECKS && condition {
            self.refuse(error);
        }
    }
}

/// Counts bytes and keeps the first reason why they cannot be written.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    len: usize,
    error: Option<EncodeError>,
}

impl Counter {
    #[inline]
    pub(crate) fn finish(self) -> Result<VarInt, EncodeError> {
        match self.error {
            None => u32::try_from(self.len)
                .ok()
                .and_then(VarInt::new)
                .ok_or(EncodeError::PacketTooLong),
            Some(error) => Err(error),
        }
    }
}

impl Sink for Counter {
    const CHECKS: bool = true;

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len());
    }

    #[cold]
    fn refuse(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }
}

/// Fills a buffer that the counter found long enough.
#[derive(Debug)]
pub(crate) struct Filler<'b> {
    rest: &'b mut [u8],
}

impl Sink for Filler<'_> {
    const CHECKS: bool = false;

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some((head, rest)) =
            core::mem::take(&mut self.rest).split_at_mut_checked(bytes.len())
        {
            head.copy_from_slice(bytes);
            self.rest = rest;
        }
    }

    #[inline]
    fn u8(&mut self, value: u8) {
        if let Some((head, rest)) = core::mem::take(&mut self.rest).split_first_mut() {
            *head = value;
            self.rest = rest;
        }
    }

    fn refuse(&mut self, _: EncodeError) {}
}

/// The body of a packet: everything behind the fixed header.
pub(crate) trait Body {
    fn first_byte(&self) -> u8;
    fn write<S: Sink>(&self, version: Version, out: &mut S);
}

pub(crate) mod sealed {
    #[allow(unnameable_types, reason = "sealed")]
    pub trait Sealed {}
    impl<T: super::Body> Sealed for T {}
}

/// Packets that can be written: every packet struct and [`crate::Packet`].
pub trait Encode: sealed::Sealed {
    /// Exact length of the whole packet in bytes.
    ///
    /// # Errors
    /// Any [`EncodeError`] but `BufferTooSmall`: what the packet says cannot be said in `version`, or not at all.
    fn encoded_len(&self, version: Version) -> Result<usize, EncodeError>;

    /// Writes the whole packet to the front of `out` and says how many bytes it took.
    ///
    /// # Errors
    /// As [`Self::encoded_len`], and `BufferTooSmall`. Then `out` is untouched.
    fn encode(&self, version: Version, out: &mut [u8]) -> Result<usize, EncodeError>;
}

impl<T: Body> Encode for T {
    #[inline]
    fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        remaining_length(self, version).map(packet_len)
    }

    #[inline]
    fn encode(&self, version: Version, out: &mut [u8]) -> Result<usize, EncodeError> {
        let remaining = remaining_length(self, version)?;
        let len = packet_len(remaining);
        let available = out.len();
        let Some(rest) = out.get_mut(..len) else {
            return Err(EncodeError::BufferTooSmall {
                needed: len,
                available,
            });
        };
        let mut filler = Filler { rest };
        filler.u8(self.first_byte());
        filler.varint(remaining);
        self.write(version, &mut filler);
        Ok(len)
    }
}

#[inline]
fn remaining_length(body: &impl Body, version: Version) -> Result<VarInt, EncodeError> {
    let mut counter = Counter::default();
    body.write(version, &mut counter);
    counter.finish()
}

#[inline]
fn packet_len(remaining: VarInt) -> usize {
    let body = usize::try_from(remaining.get()).unwrap_or(usize::MAX);
    body.saturating_add(remaining.encoded_len())
        .saturating_add(1)
}
