//! Encodes packets. Each type of packet gives its fields, and the layout of its packet type puts them in order.

use crate::error::{EncodeError, Field, Unencodable};
use crate::id::PacketId;
use crate::list::List;
use crate::out::Out;
use crate::properties::Properties;
use crate::subscribe::Subscription;
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

/// Writes the bytes of a packet. Each type with this trait has [`Encode`].
pub trait Body {
    /// The fast path for packets that are sent often. Returns `None` for all but their most common form; [`Self::write`] then
    /// writes or refuses the packet.
    #[inline]
    fn write_plain(&self, _: Version, _: &mut [u8]) -> Option<usize> {
        None
    }

    /// Writes the packet, or stores in `out` why it cannot be encoded.
    fn write(&self, version: Version, out: &mut Out<'_>);
}

impl<T: Body> Encode for T {
    #[inline]
    fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let mut out = Out::new(&mut []);
        self.write(version, &mut out);
        out.finish()
    }

    #[inline]
    fn encode(&self, version: Version, out: &mut [u8]) -> Result<usize, EncodeError> {
        if FAST && let Some(len) = self.write_plain(version, out) {
            return Ok(len);
        }
        let available = out.len();
        let mut out = Out::new(out);
        self.write(version, &mut out);
        let needed = out.finish()?;
        if out.writer.fits() {
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

/// A function that passes each filter of a request to its argument. It is called more than once and must pass the same filters
/// each time.
pub type EachFilter<'f> = &'f dyn Fn(&mut dyn FnMut(Subscription<'_>));

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

    /// Writes the packet. `rest` writes the field that reaches to the end of the packet.
    pub fn write(&self, version: Version, out: &mut Out<'_>, rest: &dyn Fn(&mut Out<'_>)) {
        let layout = layout(self.kind.get(), version.is_v5());
        out.refuse_if(
            !layout.has(Layout::EXISTS),
            Unencodable::NeedsV5(Field::Auth),
        );
        let first = self.kind.get() << 4 | layout.flags();
        out.packet(first, 0, |out| {
            if let Some(id) = self.id {
                out.writer.u16(id.get());
            }
            self.write_reason(layout, version, out);
            rest(out);
        });
    }

    /// Writes the reason code and the properties in their shortest form.
    #[inline]
    fn write_reason(&self, layout: Layout, version: Version, out: &mut Out<'_>) {
        let plain = self.properties.is_empty();
        let short = layout.has(Layout::SHORT) && plain;
        let is_failure = self.reason != ReasonCode::Success;
        if version.is_v5() && layout.has(Layout::REASON) {
            if is_failure || !short {
                self.write_code(self.reason, version, out);
            }
        } else {
            let needs_v5 = Unencodable::NeedsV5(Field::ReasonCode);
            out.refuse_if(is_failure, needs_v5);
        }
        if version.is_v5() && layout.has(Layout::PROPERTIES) {
            if !short {
                self.properties.write(self.kind.get(), None, out);
            }
        } else {
            let needs_v5 = Unencodable::NeedsV5(Field::Properties);
            out.refuse_if(!plain, needs_v5);
        }
    }

    fn write_code(&self, reason: ReasonCode, version: Version, out: &mut Out<'_>) {
        let fits = reason_fits(self.kind.get(), version.is_v5(), reason.get());
        out.refuse_if(!fits, Unencodable::ReasonCode(reason));
        out.writer.u8(reason.get());
    }

    /// Writes SUBSCRIBE or UNSUBSCRIBE with the filters that `each` passes on. Only SUBSCRIBE has their options.
    pub fn write_filters(&self, version: Version, out: &mut Out<'_>, each: EachFilter<'_>) {
        self.write(version, out, &|out| {
            let before = out.writer.len();
            each(&mut |subscription| {
                out.binary(Field::Filters, subscription.filter.as_bytes());
                if matches!(self.kind, PacketType::Subscribe) {
                    subscription.write_options(version, out);
                }
            });
            let nothing = out.writer.len() == before;
            out.refuse_if(nothing, Unencodable::EmptyList(Field::Filters));
        });
    }

    /// Writes SUBACK or UNSUBACK with these codes.
    pub(crate) fn write_codes(
        &self,
        codes: &List<'_, ReasonCode>,
        version: Version,
        out: &mut Out<'_>,
    ) {
        let has_codes = layout(self.kind.get(), version.is_v5()).has(Layout::CODES);
        self.write(version, out, &|out| {
            let needs_v5 = Unencodable::NeedsV5(Field::ReasonCodes);
            out.refuse_if(!has_codes && !codes.is_empty(), needs_v5);
            let nothing = Unencodable::EmptyList(Field::ReasonCodes);
            out.refuse_if(has_codes && codes.is_empty(), nothing);
            for reason in codes {
                self.write_code(reason, version, out);
            }
        });
    }
}
