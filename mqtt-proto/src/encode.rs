//! Packets to bytes: every packet says its fields, and they are written by the layout of its type, in one pass.

use crate::error::{EncodeError, Field, Unsayable};
use crate::id::PacketId;
use crate::list::List;
use crate::out::Out;
use crate::properties::Properties;
use crate::subscribe::Subscription;
use crate::tune::FAST;
use crate::version::Version;
use crate::wire::{Layout, PacketType, ReasonCode, layout, reason_fits};

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

pub(crate) mod sealed {
    #[allow(unnameable_types, reason = "sealed")]
    pub trait Sealed {}
    impl<T: super::Body> Sealed for T {}
}

/// How a packet is written.
pub trait Body {
    /// The short way of packets that speed matters for: `None` where anything is odd, so that [`Self::write`] judges it.
    #[inline]
    fn write_plain(&self, _: Version, _: &mut [u8]) -> Option<usize> {
        None
    }

    /// Writes it, or notes why it cannot be.
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

/// The fields of any packet but CONNECT, CONNACK and PUBLISH, to be written by its layout.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'p> {
    /// The packet type.
    pub kind: PacketType,
    /// The packet identifier, where it has one.
    pub id: Option<PacketId>,
    /// The reason code, where it has one.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: Properties<'p>,
}

/// Gives the filters of a request away, each time it is called.
pub type EachFilter<'f> = &'f dyn Fn(&mut dyn FnMut(Subscription<'_>));

impl<'p> Draft<'p> {
    /// A packet of this type with these properties and nothing else.
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

    /// Writes it, and behind it what reaches to the end of the packet.
    pub fn write(&self, version: Version, out: &mut Out<'_>, rest: &dyn Fn(&mut Out<'_>)) {
        let layout = layout(self.kind.get(), version.is_v5());
        out.refuse_if(!layout.has(Layout::EXISTS), Unsayable::NeedsV5(Field::Auth));
        let first = self.kind.get() << 4 | layout.flags();
        out.packet(first, 0, |out| {
            if let Some(id) = self.id {
                out.writer.u16(id.get());
            }
            self.write_reason(layout, version, out);
            rest(out);
        });
    }

    /// The reason code and the properties, in the shortest form that says them.
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
            let needs_v5 = Unsayable::NeedsV5(Field::ReasonCode);
            out.refuse_if(is_failure, needs_v5);
        }
        if version.is_v5() && layout.has(Layout::PROPERTIES) {
            if !short {
                self.properties.write(self.kind.get(), None, out);
            }
        } else {
            let needs_v5 = Unsayable::NeedsV5(Field::Properties);
            out.refuse_if(!plain, needs_v5);
        }
    }

    fn write_code(&self, reason: ReasonCode, version: Version, out: &mut Out<'_>) {
        let fits = reason_fits(self.kind.get(), version.is_v5(), reason.get());
        out.refuse_if(!fits, Unsayable::ReasonCode(reason));
        out.writer.u8(reason.get());
    }

    /// Writes SUBSCRIBE or UNSUBSCRIBE with the filters that `each` gives away; of UNSUBSCRIBE they have no options.
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
            out.refuse_if(nothing, Unsayable::EmptyList(Field::Filters));
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
            let needs_v5 = Unsayable::NeedsV5(Field::ReasonCodes);
            out.refuse_if(!has_codes && !codes.is_empty(), needs_v5);
            let nothing = Unsayable::EmptyList(Field::ReasonCodes);
            out.refuse_if(has_codes && codes.is_empty(), nothing);
            for reason in codes {
                self.write_code(reason, version, out);
            }
        });
    }
}
