//! Where a packet is written to. Every packet has one `write`, run on a [`Counter`] for its length and its checks and on a
//! [`Filler`] for its bytes, or on a [`Writer`] for all at once: a length cannot disagree with the bytes.

mod frugal;

use crate::error::{EncodeError, Field};
use crate::header::to_usize;
use crate::text;
use crate::varint::VarInt;
use crate::version::Version;

/// Whether speed goes before size.
pub(crate) const FAST: bool = cfg!(target_pointer_width = "64");

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
    #[cfg_attr(target_pointer_width = "64", inline)]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    fn binary(&mut self, field: Field, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(len) => {
                self.u16(len);
                self.bytes(bytes);
            }
            Err(_) => self.refuse(EncodeError::TooLong(field)),
        }
    }

    /// A block of properties behind its length.
    fn block(&mut self, write: impl FnOnce(&mut Self));

    /// A string that the type does not already vouch for.
    #[inline]
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

/// The lengths of a packet's property blocks, in their order: no packet has more than CONNECT, with its will's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blocks([VarInt; 2]);

impl Blocks {
    #[inline]
    fn push(&mut self, len: VarInt) {
        let Self([first, second]) = *self;
        // An empty block is written as such and needs no memory here.
        self.0 = if first.get() == 0 {
            [len, second]
        } else {
            [first, len]
        };
    }

    #[inline]
    fn pop(&mut self) -> VarInt {
        let Self([first, second]) = *self;
        self.0 = [second, VarInt::default()];
        first
    }
}

/// Counts bytes and keeps the first reason why they cannot be written.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    len: usize,
    blocks: Blocks,
    error: Option<EncodeError>,
}

impl Counter {
    /// What was counted since is a block, and goes behind its length.
    #[inline]
    fn end_block(&mut self, before: usize) {
        match varint(self.len.saturating_sub(before)) {
            Ok(len) => {
                self.blocks.push(len);
                self.len = self.len.saturating_add(len.encoded_len());
            }
            Err(error) => self.refuse(error),
        }
    }

    #[inline]
    pub(crate) fn finish(self) -> Result<(VarInt, Blocks), EncodeError> {
        match self.error {
            None => Ok((varint(self.len)?, self.blocks)),
            Some(error) => Err(error),
        }
    }
}

#[inline]
fn varint(len: usize) -> Result<VarInt, EncodeError> {
    u32::try_from(len)
        .ok()
        .and_then(VarInt::new)
        .ok_or(EncodeError::PacketTooLong)
}

impl Sink for Counter {
    const CHECKS: bool = true;

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len());
    }

    #[inline]
    fn block(&mut self, write: impl FnOnce(&mut Self)) {
        let before = self.len;
        write(self);
        self.end_block(before);
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
    blocks: Blocks,
}

impl Filler<'_> {
    /// A piece whose length is known to the compiler.
    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some((head, rest)) = core::mem::take(&mut self.rest).split_first_chunk_mut() {
            *head = bytes;
            self.rest = rest;
        }
    }
}

/// Copies between slices of one length. Most pieces are shorter than what a call of `memcpy` costs.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    if FAST && from.len() <= 64 {
        // The second half may overlap the first.
        let done = halves::<32>(to, from)
            || halves::<16>(to, from)
            || halves::<8>(to, from)
            || halves::<4>(to, from);
        if !done {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    } else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// Copies the first `N` and the last `N` bytes, if there are as many.
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

impl Sink for Filler<'_> {
    const CHECKS: bool = false;

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some((head, rest)) =
            core::mem::take(&mut self.rest).split_at_mut_checked(bytes.len())
        {
            copy(head, bytes);
            self.rest = rest;
        }
    }

    #[inline]
    fn u8(&mut self, value: u8) {
        self.array([value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.array(value.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.array(value.to_be_bytes());
    }

    #[inline]
    fn varint(&mut self, value: VarInt) {
        match value.encode() {
            ([b0, ..], 1) => self.array([b0]),
            ([b0, b1, ..], 2) => self.array([b0, b1]),
            ([b0, b1, b2, _], 3) => self.array([b0, b1, b2]),
            (bytes, _) => self.array(bytes),
        }
    }

    #[inline]
    fn block(&mut self, write: impl FnOnce(&mut Self)) {
        let len = self.blocks.pop();
        self.varint(len);
        write(self);
    }

    #[inline]
    fn refuse(&mut self, _: EncodeError) {}
}

/// Writes checks, lengths and bytes in one pass, where a guess of the lengths turns out right. Whatever goes wrong is told by
/// writing once more on a [`Counter`] and a [`Filler`].
#[derive(Debug)]
struct Writer<'b> {
    rest: &'b mut [u8],
    right: bool,
}

impl Sink for Writer<'_> {
    const CHECKS: bool = true;

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        match core::mem::take(&mut self.rest).split_at_mut_checked(bytes.len()) {
            Some((head, rest)) => {
                copy(head, bytes);
                self.rest = rest;
            }
            None => self.right = false,
        }
    }

    /// Nearly every block is shorter than 128 bytes: its length takes one.
    #[inline]
    fn block(&mut self, write: impl FnOnce(&mut Self)) {
        let Some((len, rest)) = core::mem::take(&mut self.rest).split_first_mut() else {
            self.right = false;
            return;
        };
        let before = rest.len();
        self.rest = rest;
        write(self);
        match u8::try_from(before.saturating_sub(self.rest.len())) {
            Ok(found @ ..=0x7F) => *len = found,
            _ => self.right = false,
        }
    }

    #[cold]
    fn refuse(&mut self, _: EncodeError) {
        self.right = false;
    }
}

/// The body of a packet: everything behind the fixed header.
pub(crate) trait Body {
    fn first_byte(&self) -> u8;

    /// The whole packet, if it is one that needs no look at its length.
    #[inline]
    fn short(&self) -> Option<[u8; 4]> {
        None
    }

    /// How long the body is, more or less: a wrong guess costs writing twice.
    #[inline]
    fn about(&self) -> usize {
        0
    }

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

    /// Writes the whole packet to the front of `out` and says how many bytes it took. The rest of `out` may be written to as
    /// well.
    ///
    /// # Errors
    /// As [`Self::encoded_len`], and `BufferTooSmall`. What `out` holds then is not a packet.
    fn encode(&self, version: Version, out: &mut [u8]) -> Result<usize, EncodeError>;
}

impl<T: Body> Encode for T {
    #[inline]
    fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let (remaining, _) = if FAST {
            measure(self, version)?
        } else {
            frugal::measure(&|out| self.write(version, out))?
        };
        Ok(packet_len(remaining))
    }

    #[inline]
    fn encode(&self, version: Version, out: &mut [u8]) -> Result<usize, EncodeError> {
        if !FAST {
            return frugal::encode(self.first_byte(), &|out| self.write(version, out), out);
        }
        if let Some(bytes) = self.short()
            && let Some(out) = out.first_chunk_mut()
        {
            *out = bytes;
            return Ok(bytes.len());
        }
        match write_at_once(self, version, out) {
            Some(len) => Ok(len),
            None => write_measured(self, version, out),
        }
    }
}

#[inline]
fn write_at_once(body: &impl Body, version: Version, out: &mut [u8]) -> Option<usize> {
    let len_len = varint(body.about()).ok()?.encoded_len();
    let (header, rest) = out.split_at_mut_checked(len_len.wrapping_add(1))?;
    let available = rest.len();
    let mut writer = Writer { rest, right: true };
    body.write(version, &mut writer);
    let len = available.saturating_sub(writer.rest.len());
    let remaining = varint(len).ok()?;
    if !writer.right || remaining.encoded_len() != len_len {
        return None;
    }
    let blocks = Blocks::default();
    let mut header = Filler {
        rest: header,
        blocks,
    };
    header.u8(body.first_byte());
    header.varint(remaining);
    Some(packet_len(remaining))
}

#[inline(never)]
fn write_measured<B: Body>(
    body: &B,
    version: Version,
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    let (remaining, blocks) = measure(body, version)?;
    let (rest, len) = room(out, remaining)?;
    let mut filler = Filler { rest, blocks };
    filler.u8(body.first_byte());
    filler.varint(remaining);
    body.write(version, &mut filler);
    Ok(len)
}

#[inline]
fn measure<B: Body>(body: &B, version: Version) -> Result<(VarInt, Blocks), EncodeError> {
    let mut counter = Counter::default();
    body.write(version, &mut counter);
    counter.finish()
}

/// Where the whole packet goes, and its length.
#[inline]
fn room(out: &mut [u8], remaining: VarInt) -> Result<(&mut [u8], usize), EncodeError> {
    let (needed, available) = (packet_len(remaining), out.len());
    match out.get_mut(..needed) {
        Some(room) => Ok((room, needed)),
        None => Err(EncodeError::BufferTooSmall { needed, available }),
    }
}

#[inline]
fn packet_len(remaining: VarInt) -> usize {
    to_usize(remaining.get())
        .wrapping_add(remaining.encoded_len())
        .wrapping_add(1)
}
