//! Encodes packets. A [`Draft`] or a [`Request`] has the fields of a packet, and the layout of its packet type decides their order.
//! CONNECT, CONNACK and PUBLISH write their fields in their own files.

use crate::error::{EncodeError, Field, Unencodable};
use crate::id::PacketId;
use crate::list::List;
use crate::num::to_u32;
use crate::out::Out;
use crate::properties::Properties;
use crate::tune::FAST;
use crate::version::Version;
use crate::wire::{Layout, PacketType, ReasonCode, layout, reason_fits};

/// Packets that can be encoded: every packet struct, and [`crate::Packet`].
pub trait Encode: sealed::Sealed {
    /// Returns the exact length of the whole packet in bytes.
    ///
    /// # Errors
    /// Any [`EncodeError`] but `BufferTooSmall`: the packet has content that `version`, or any version, cannot encode.
    fn encoded_len(&self, version: Version) -> Result<usize, EncodeError>;

    /// Writes the whole packet to the front of `out` and returns its length in bytes. Bytes of `out` behind the packet may be
    /// overwritten as well.
    ///
    /// # Errors
    /// As [`Self::encoded_len`], and `BufferTooSmall`. After an error, `out` does not contain a packet.
    fn encode(&self, version: Version, out: &mut [u8]) -> Result<usize, EncodeError>;
}

pub(crate) mod sealed {
    #[allow(unnameable_types, reason = "sealed")]
    pub trait Sealed {}
    impl<T: super::Body> Sealed for T {}
}

/// The content of a packet. Each type with this trait has [`Encode`].
pub trait Body {
    /// The fast path for packets that are sent often. Returns `None` for all but their most common form; [`Self::write`] then
    /// writes or refuses the packet.
    #[inline]
    fn write_plain(&self, _: Version, _: &mut [u8]) -> Option<usize>
    where
        Self: Sized,
    {
        None
    }

    /// Returns a lower limit of the length of what [`Self::write`] writes.
    #[inline]
    fn least(&self) -> usize
    where
        Self: Sized,
    {
        0
    }

    /// Returns the first byte of the packet: its type and its flags.
    fn first_byte(&self) -> u8;

    /// Writes what follows the fixed header, or stores in `out` why it cannot be encoded.
    fn write(&self, version: Version, out: &mut Out<'_>);
}

/// Returns the length of a packet in bytes.
///
/// # Errors
/// The first reason why the packet cannot be encoded.
pub fn packet_len(packet: &dyn Body, version: Version) -> Result<usize, Unencodable> {
    let mut out = Out::new(&mut []);
    packet.write(version, &mut out);
    // The fixed header has a first byte and this length.
    out.length(out.writer.len());
    out.writer.skip(1);
    out.finish()
}

/// Writes a packet whose length was measured to the front of `room`.
pub fn write_packet(packet: &dyn Body, version: Version, len: usize, room: &mut [u8]) {
    let mut out = Out::new(room);
    out.writer.u8(packet.first_byte());
    out.writer.varint(to_u32(rest_of(len)));
    packet.write(version, &mut out);
}

/// Returns the remaining length of a packet that is `len` bytes long.
const fn rest_of(len: usize) -> usize {
    // As if the remaining length took one byte, and one less for each byte that it takes more.
    let (mut rest, mut most) = (len.wrapping_sub(2), 0x7F);
    while rest > most {
        rest = rest.wrapping_sub(1);
        most = most << 7 | 0x7F;
    }
    rest
}

impl<T: Body> Encode for T {
    #[inline]
    fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        Ok(packet_len(self, version)?)
    }

    #[inline]
    fn encode(&self, version: Version, out: &mut [u8]) -> Result<usize, EncodeError> {
        let available = out.len();
        let needed = if FAST {
            if let Some(len) = self.write_plain(version, out) {
                return Ok(len);
            }
            let mut out = Out::new(out);
            out.writer.u8(self.first_byte());
            out.sized(self.least(), |out| self.write(version, out));
            out.finish()?
        } else {
            let len = packet_len(self, version)?;
            write_packet(self, version, len, out);
            len
        };
        if needed <= available {
            Ok(needed)
        } else {
            Err(EncodeError::BufferTooSmall { needed, available })
        }
    }
}

/// The fields of any packet but CONNECT, CONNACK and PUBLISH. The layout of its type decides how they are written.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'p> {
    /// The packet type.
    pub kind: PacketType,
    /// The packet identifier; `None` if the packet type has none.
    pub id: Option<PacketId>,
    /// The reason code; [`ReasonCode::Success`] if the packet type has none.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: Properties<'p>,
}

impl<'p> Draft<'p> {
    /// Makes the draft of a packet with these properties, without a packet identifier and with success as its reason.
    #[must_use]
    #[inline]
    pub const fn new(kind: PacketType, properties: Properties<'p>) -> Self {
        Self {
            kind,
            id: None,
            reason: ReasonCode::Success,
            properties,
        }
    }

    /// Makes the draft of a packet with this packet identifier and these properties, and with success as its reason.
    #[must_use]
    pub const fn with_id(kind: PacketType, id: PacketId, properties: Properties<'p>) -> Self {
        Self {
            id: Some(id),
            ..Self::new(kind, properties)
        }
    }

    /// Writes the fields that the layout of the packet type has.
    pub fn write(&self, version: Version, out: &mut Out<'_>) {
        let layout = layout(self.kind.get(), version.is_v5());
        out.refuse_if(
            !layout.has(Layout::EXISTS),
            Unencodable::NeedsV5(Field::Auth),
        );
        if let Some(id) = self.id {
            out.writer.u16(id.get());
        }
        self.write_reason(layout, version, out);
    }

    /// Writes the reason code and the properties in their shortest form.
    #[inline]
    fn write_reason(&self, layout: Layout, version: Version, out: &mut Out<'_>) {
        let short = layout.has(Layout::SHORT) && self.properties.is_empty();
        let is_failure = self.reason != ReasonCode::Success;
        if !(version.is_v5() && layout.has(Layout::REASON)) {
            let needs_v5 = Unencodable::NeedsV5(Field::ReasonCode);
            out.refuse_if(is_failure, needs_v5);
        } else if is_failure || !short {
            self.write_code(self.reason, version, out);
        }
        if !(short && version.is_v5()) {
            self.properties.write_if(version, self.kind.get(), out);
        }
    }

    fn write_code(&self, reason: ReasonCode, version: Version, out: &mut Out<'_>) {
        let fits = reason_fits(self.kind.get(), version.is_v5(), reason.get());
        out.refuse_if(!fits, Unencodable::ReasonCode(reason));
        out.writer.u8(reason.get());
    }

    /// Writes SUBACK or UNSUBACK with these codes.
    pub(crate) fn write_codes(
        &self,
        codes: &List<'_, ReasonCode>,
        version: Version,
        out: &mut Out<'_>,
    ) {
        let has_codes = layout(self.kind.get(), version.is_v5()).has(Layout::CODES);
        self.write(version, out);
        let needs_v5 = Unencodable::NeedsV5(Field::ReasonCodes);
        out.refuse_if(!has_codes && !codes.is_empty(), needs_v5);
        let nothing = Unencodable::EmptyList(Field::ReasonCodes);
        out.refuse_if(has_codes && codes.is_empty(), nothing);
        for reason in codes {
            self.write_code(reason, version, out);
        }
    }
}

/// A filter of SUBSCRIBE or UNSUBSCRIBE.
pub trait Filter: Copy {
    /// The packet type.
    const PACKET: PacketType;

    /// Writes the filter, and its options if it has some.
    fn write(&self, version: Version, out: &mut Out<'_>);
}

/// A SUBSCRIBE or UNSUBSCRIBE to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a, L> {
    /// The packet identifier.
    pub id: PacketId,
    /// The properties.
    pub properties: Properties<'a>,
    /// The filters: a slice or a list.
    pub filters: L,
}

impl<F: Filter, L: Copy + IntoIterator<Item = F>> Body for Request<'_, L> {
    fn first_byte(&self) -> u8 {
        first_byte(F::PACKET)
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        Draft::with_id(F::PACKET, self.id, self.properties).write(version, out);
        let before = out.writer.len();
        for filter in self.filters {
            filter.write(version, out);
        }
        let nothing = out.writer.len() == before;
        out.refuse_if(nothing, Unencodable::EmptyList(Field::Filters));
    }
}

impl<F: Filter> Filter for &F {
    const PACKET: PacketType = F::PACKET;

    fn write(&self, version: Version, out: &mut Out<'_>) {
        F::write(self, version, out);
    }
}

/// Returns the first byte of a packet whose type has fixed flags.
pub(crate) fn first_byte(packet: PacketType) -> u8 {
    packet.get() << 4 | layout(packet.get(), false).flags()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::to_usize;

    #[test]
    fn the_remaining_length_follows_from_the_length() {
        for rest in [
            0_u32,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            268_435_455,
        ] {
            let len = to_usize(rest) + crate::wire::varint_len(rest) + 1;
            assert_eq!(rest_of(len), to_usize(rest));
        }
    }
}
