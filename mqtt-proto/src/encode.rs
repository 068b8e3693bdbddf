//! Packets to bytes: every packet says its fields, and they are written by the layout of its type, in one pass.

use crate::error::{EncodeError, Field};
use crate::id::PacketId;
use crate::list::List;
use crate::out::Out;
use crate::properties::Properties;
use crate::subscribe::Subscription;
use crate::topic::TopicFilter;
use crate::tune::FAST;
use crate::version::Version;
use crate::wire::{Layout, PacketType, ReasonCode, layout};

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

/// A packet that can be written.
pub(crate) trait Body {
    /// The short way of packets that speed matters for: `None` where anything is odd, so that [`Self::write`] judges it.
    #[inline]
    fn write_plain(&self, _: Version, _: &mut [u8]) -> Option<usize> {
        None
    }

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

/// What reaches to the end of a packet.
pub(crate) enum Rest<'p> {
    Nothing,
    Filters(List<'p, TopicFilter<'p>>),
    Subscriptions(List<'p, Subscription<'p>>),
    Codes(List<'p, ReasonCode>),
}

/// The fields of any packet but CONNECT and PUBLISH, to be written by its layout.
pub(crate) struct Draft<'p> {
    pub(crate) kind: PacketType,
    pub(crate) id: Option<PacketId>,
    pub(crate) session_present: bool,
    pub(crate) reason: ReasonCode,
    pub(crate) properties: Properties<'p>,
    pub(crate) rest: Rest<'p>,
}

impl<'p> Draft<'p> {
    #[inline]
    pub(crate) const fn new(kind: PacketType, properties: Properties<'p>) -> Self {
        Self {
            kind,
            id: None,
            session_present: false,
            reason: ReasonCode::Success,
            properties,
            rest: Rest::Nothing,
        }
    }

    #[inline]
    pub(crate) fn write(&self, version: Version, out: &mut Out<'_>) {
        let layout = layout(self.kind.get(), version.is_v5());
        out.refuse_if(
            !layout.has(Layout::EXISTS),
            EncodeError::NeedsV5(Field::Auth),
        );
        let first = self.kind.get() << 4 | layout.flags();
        out.packet(first, 0, |out| {
            if let Some(id) = self.id {
                out.writer.u16(id.get());
            }
            self.write_reason(layout, version, out);
            self.write_rest(layout, version, out);
        });
    }

    /// The reason code and the properties, in the shortest form that says them.
    #[inline]
    fn write_reason(&self, layout: Layout, version: Version, out: &mut Out<'_>) {
        let plain = self.properties.is_empty();
        let short = layout.has(Layout::SHORT) && plain;
        let is_failure = self.reason != ReasonCode::Success;
        if layout.has(Layout::SESSION) {
            out.refuse_if(
                self.session_present && is_failure,
                EncodeError::SessionPresentOnRefusal,
            );
            out.writer.u8(u8::from(self.session_present));
        }
        if layout.has(Layout::REASON) && (is_failure || !short) {
            let code = self.reason.code(self.kind, version.is_v5());
            out.refuse_if(code.is_none(), EncodeError::ReasonCode(self.reason));
            out.writer.u8(code.unwrap_or_default());
        }
        if !layout.has(Layout::PROPERTIES) {
            let needs_v5 = EncodeError::NeedsV5(Field::Properties);
            out.refuse_if(!plain, needs_v5);
        } else if !short {
            self.properties.write(self.kind.get(), None, out);
        }
        let needs_v5 = is_failure && !layout.has(Layout::REASON);
        out.refuse_if(needs_v5, EncodeError::NeedsV5(Field::ReasonCode));
    }

    #[inline]
    fn write_rest(&self, layout: Layout, version: Version, out: &mut Out<'_>) {
        match &self.rest {
            Rest::Nothing => {}
            Rest::Filters(filters) => {
                out.refuse_if(filters.is_empty(), EncodeError::EmptyList(Field::Filters));
                for filter in filters {
                    out.binary(Field::Filters, filter.as_bytes());
                }
            }
            Rest::Subscriptions(list) => {
                out.refuse_if(list.is_empty(), EncodeError::EmptyList(Field::Filters));
                for subscription in list {
                    subscription.write(version, out);
                }
            }
            Rest::Codes(codes) if layout.has(Layout::CODES) => {
                out.refuse_if(codes.is_empty(), EncodeError::EmptyList(Field::ReasonCodes));
                for reason in codes {
                    let code = reason.code(self.kind, version.is_v5());
                    out.refuse_if(code.is_none(), EncodeError::ReasonCode(reason));
                    out.writer.u8(code.unwrap_or_default());
                }
            }
            Rest::Codes(codes) => {
                let needs_v5 = EncodeError::NeedsV5(Field::ReasonCodes);
                out.refuse_if(!codes.is_empty(), needs_v5);
            }
        }
    }
}
