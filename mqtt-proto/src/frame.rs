//! A packet between its two halves: its fixed header was judged, its body waits to be read as what the header says.

use crate::ack::Ack;
use crate::auth::Auth;
use crate::connack::ConnAck;
use crate::connect::Connect;
use crate::disconnect::Disconnect;
use crate::error::{DecodeError, Rule};
use crate::header::{FixedHeader, PacketType, to_usize};
use crate::packet::Packet;
use crate::publish::Publish;
use crate::reader::{Broken, Latch, Read, Reader};
use crate::subscribe::{SubAck, Subscribe};
use crate::unsubscribe::{UnsubAck, Unsubscribe};
use crate::version::Version;

/// A packet whose fixed header was read, with as much of its body as is there.
///
/// [`crate::Packet`] holds any packet. Where each type goes its own way and memory is scarce, read each where it is needed by
/// the method named after it: what is never asked for is not in the program, and no packet is moved about. Which method fits
/// says [`Self::packet_type`]; another one reads the bytes as what they are not.
///
/// ```
/// use mqtt_proto::{Frame, MAX_PACKET, PacketId, PacketType, Version};
/// let frame = Frame::decode(&[0x40, 0x02, 0x00, 0x01], Version::V311, MAX_PACKET).unwrap().unwrap();
/// assert_eq!((frame.packet_type(), frame.missing()), (PacketType::PubAck, 0));
/// assert_eq!(frame.ack().unwrap().packet_id, PacketId::FIRST);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    header: FixedHeader,
    version: Version,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the fixed header at the front of `input`; `None` while it is not whole. See [`FixedHeader::decode`] for `limit`.
    ///
    /// # Errors
    /// As [`FixedHeader::decode`].
    #[inline]
    pub fn decode(
        input: &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(header) = FixedHeader::decode(input, version, limit)? else {
            return Ok(None);
        };
        let end = header.packet_len().min(input.len());
        let body = input.get(usize::from(header.header_len)..end);
        Ok(Some(Self {
            header,
            version,
            body: body.unwrap_or_default(),
        }))
    }

    /// What packet it is.
    #[must_use]
    #[inline]
    pub const fn packet_type(&self) -> PacketType {
        self.header.packet_type
    }

    /// Length of the whole packet, fixed header included.
    #[must_use]
    #[inline]
    pub fn packet_len(&self) -> usize {
        self.header.packet_len()
    }

    /// How many bytes of the packet are not there. While there are any, only [`Self::publish`] has something to read.
    #[must_use]
    #[inline]
    pub fn missing(&self) -> usize {
        to_usize(self.header.remaining_length).saturating_sub(self.body.len())
    }

    /// PUBLISH, with as much of its payload as is there; `None` while its head is not whole.
    ///
    /// # Errors
    /// A [`DecodeError`] for bytes that no such packet of this version can be.
    #[inline]
    pub fn publish(&self) -> Result<Option<Publish<'a>>, DecodeError> {
        self.head().map(Result::ok)
    }

    /// The same; `Err` inside tells how many more bytes it takes to go on.
    #[inline]
    pub(crate) fn head(&self) -> Result<Result<Publish<'a>, usize>, DecodeError> {
        let (latch, missing) = (Latch::default(), self.missing());
        let mut body = Reader::with_after(self.body, missing, &latch);
        match Publish::read(&mut body, &self.header, self.version) {
            Ok(publish) => Ok(Ok(publish)),
            Err(Broken) => {
                let mut error = latch.in_packet(&self.header, self.version);
                if let Rule::Truncated { missing: more } = &mut error.rule {
                    if to_usize(*more) <= missing {
                        return Ok(Err(to_usize(*more)));
                    }
                    // The field ends beyond the packet, not only beyond what is there of it.
                    let missing = u32::try_from(missing).unwrap_or(u32::MAX);
                    *more = more.saturating_sub(missing);
                    error.at = error.at.saturating_add(missing);
                }
                Err(error)
            }
        }
    }

    #[inline]
    fn read<T>(&self, read: impl FnOnce(&mut Reader<'a, '_>) -> Read<T>) -> Result<T, DecodeError> {
        let latch = Latch::default();
        let mut body = Reader::new(self.body, &latch);
        match read(&mut body) {
            Ok(it) if body.finish().is_ok() => Ok(it),
            _ => Err(latch.in_packet(&self.header, self.version)),
        }
    }

    /// Any of them.
    ///
    /// # Errors
    /// As [`Self::publish`].
    #[inline]
    pub fn packet(&self) -> Result<Packet<'a>, DecodeError> {
        self.read(|body| Packet::read(body, &self.header, self.version))
    }
}

macro_rules! bodies {
    ($($name:ident $packet:ident $text:literal $read:expr;)*) => {
        impl<'a> Frame<'a> {
            $(#[doc = $text]
            ///
            /// # Errors
            /// As [`Self::publish`].
            #[inline]
            pub fn $name(&self) -> Result<$packet<'a>, DecodeError> {
                let read: fn(&mut Reader<'a, '_>, &Self) -> Read<$packet<'a>> = $read;
                self.read(|body| read(body, self))
            })*
        }
    };
}

bodies! {
    connect Connect "CONNECT." |body, _| Connect::read(body);
    connack ConnAck "CONNACK." |body, frame| ConnAck::read(body, frame.version);
    ack Ack "PUBACK, PUBREC, PUBREL or PUBCOMP." |body, frame| Ack::read(body, frame.packet_type(), frame.version);
    subscribe Subscribe "SUBSCRIBE." |body, frame| Subscribe::read(body, frame.version);
    suback SubAck "SUBACK." |body, frame| SubAck::read(body, PacketType::SubAck, frame.version);
    unsubscribe Unsubscribe "UNSUBSCRIBE." |body, frame| Unsubscribe::read(body, frame.version);
    unsuback UnsubAck "UNSUBACK." |body, frame| UnsubAck::read(body, frame.version);
    disconnect Disconnect "DISCONNECT." |body, frame| Disconnect::read(body, frame.version);
    auth Auth "AUTH." |body, frame| Auth::read(body, frame.version);
}
