//! A cursor over the whole body of one packet. Only a rule can fail here: "not enough bytes" was settled by the header.
//!
//! Lengths inside one packet are added by `wrapping_add`: no packet is long enough for them to wrap.

use core::cell::Cell;

use crate::error::Rule;
use crate::header::to_usize;
use crate::id::PacketId;
use crate::text;
use crate::varint::VarInt;

/// A broken rule and how far from the packet's end the byte lies that proves it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) left: usize,
    pub(crate) rule: Rule,
}

/// Where a fault is noted. An error that says only that there is one is no larger than a branch, on every way up.
#[derive(Debug, Default)]
pub(crate) struct Latch(Cell<Option<Fault>>);

impl Latch {
    pub(crate) fn get(&self) -> Option<Fault> {
        self.0.get()
    }
}

/// A rule was broken; the latch says which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken;

pub(crate) type Read<T> = Result<T, Broken>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a, 'l> {
    rest: &'a [u8],
    /// Bytes of the packet behind `rest`, so that a block read on its own still knows its place.
    after: usize,
    latch: Option<&'l Latch>,
}

impl<'a, 'l> Reader<'a, 'l> {
    #[inline]
    pub(crate) const fn new(body: &'a [u8], latch: &'l Latch) -> Self {
        Self::with_after(body, 0, latch)
    }

    /// Over the front part of a packet whose last `after` bytes are elsewhere.
    #[inline]
    pub(crate) const fn with_after(body: &'a [u8], after: usize, latch: &'l Latch) -> Self {
        Self {
            rest: body,
            after,
            latch: Some(latch),
        }
    }

    /// Over bytes that were read before without a fault.
    #[inline]
    pub(crate) const fn checked(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            after: 0,
            latch: None,
        }
    }

    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left: the place of the next one, for [`Self::fault_at`].
    #[inline]
    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    /// The fault at the next byte.
    #[cold]
    pub(crate) fn fault(&self, rule: Rule) -> Broken {
        self.fault_at(self.left(), rule)
    }

    /// The fault at the byte that was read `len` bytes ago.
    #[cold]
    pub(crate) fn fault_before(&self, len: usize, rule: Rule) -> Broken {
        self.fault_at(self.rest.len().wrapping_add(len), rule)
    }

    /// The fault at the byte that came when so many were left.
    #[cold]
    pub(crate) fn fault_at(&self, left: usize, rule: Rule) -> Broken {
        if let Some(Latch(latch)) = self.latch {
            let left = left.wrapping_add(self.after);
            latch.set(Some(Fault { left, rule }));
        }
        Broken
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Read<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(self.too_short(len)),
        }
    }

    #[cold]
    fn too_short(&self, len: usize) -> Broken {
        let missing = len.saturating_sub(self.rest.len());
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        self.fault_at(0, Rule::Truncated { missing })
    }

    /// A fault inside a block: where that ends too soon, the packet does not.
    #[cold]
    pub(crate) fn inside(&self, broken: Broken) -> Broken {
        if let Some(Latch(latch)) = self.latch
            && let Some(Fault {
                left,
                rule: Rule::Truncated { missing },
            }) = latch.get()
        {
            let rule = Rule::PropertyTruncated { missing };
            latch.set(Some(Fault { left, rule }));
        }
        broken
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(self.too_short(N)),
        }
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Read<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Read<PacketId> {
        let id = self.u16()?;
        // 3.1.1 [MQTT-2.3.1-1], 5 [MQTT-2.2.1-3]
        PacketId::new(id).ok_or_else(|| self.fault_before(2, Rule::PacketIdZero))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Read<u32> {
        match VarInt::decode(self.rest) {
            Ok(Some((value, len))) => {
                self.bytes(len)?;
                Ok(value.get())
            }
            Ok(None) => Err(self.too_short(self.rest.len().wrapping_add(1))),
            Err(rule) => Err(self.fault(rule)),
        }
    }

    /// Two bytes of length, then as many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Read<&'a [u8]> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// A UTF-8 encoded string, checked but left as bytes.
    #[inline]
    pub(crate) fn text_bytes(&mut self) -> Read<&'a [u8]> {
        let bytes = self.binary()?;
        text::check(bytes)
            .map_err(|(at, rule)| self.fault_before(bytes.len().saturating_sub(at), rule))?;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Read<&'a str> {
        self.text_bytes().map(checked_str)
    }

    /// A block of `len` bytes, to be read on its own.
    #[inline]
    pub(crate) fn block(&mut self, len: u32) -> Read<Self> {
        let rest = self.bytes(to_usize(len))?;
        Ok(Reader {
            rest,
            after: self.rest.len().wrapping_add(self.after),
            latch: self.latch,
        })
    }

    /// Everything that is left.
    #[inline]
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// The packet must end here.
    #[inline]
    pub(crate) fn finish(&self) -> Read<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.fault(Rule::TrailingBytes {
            count: u32::try_from(self.rest.len()).unwrap_or(u32::MAX),
        }))
    }
}

/// Bytes known to be UTF-8 as text. The walk over them is the price of having no `unsafe` in this crate; it cannot fail.
#[inline]
pub(crate) fn checked_str(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}
