//! Any packet: one `match` to read, one to write.

use crate::ack::{Ack, AckKind};
use crate::auth::Auth;
use crate::connack::ConnAck;
use crate::connect::Connect;
use crate::disconnect::Disconnect;
use crate::error::{DecodeError, EncodeError};
use crate::frame::Frame;
use crate::header::{FixedHeader, PacketType};
use crate::id::PacketId;
use crate::ping::{PingReq, PingResp};
use crate::publish::Publish;
use crate::reader::{Broken, Latch, Read, Reader};
use crate::sink::sealed::Sealed;
use crate::sink::{Encode, FAST};
use crate::subscribe::{SubAck, Subscribe};
use crate::unsubscribe::{UnsubAck, Unsubscribe};
use crate::version::Version;

/// A packet whose strings and payloads point into the bytes it was read from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "each variant is its packet")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// Length of an acknowledgement of success without properties.
const SHORT_ACK: usize = 4;

/// What [`Packet::decode`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decoded<'a> {
    /// At least this many bytes, counted from the packet's first, are needed to go on.
    Needs(usize),
    /// A whole packet.
    Packet {
        /// The packet.
        packet: Packet<'a>,
        /// How many bytes it took.
        consumed: usize,
    },
}

impl<'a> Packet<'a> {
    /// Reads the packet at the front of `input`. Neither copies nor allocates.
    ///
    /// `limit` is the largest packet accepted, in bytes with the fixed header; it is judged before the body is there.
    /// CONNECT says its version itself, for all others `version` is what the connection agreed on.
    ///
    /// # Errors
    /// A [`DecodeError`] for bytes that no packet of this version can be. Too few bytes are not an error.
    ///
    /// ```
    /// use mqtt_proto::{Decoded, Packet, Version};
    /// assert_eq!(Packet::decode(&[0xC0], Version::V5, 1024), Ok(Decoded::Needs(2)));
    /// assert_eq!(
    ///     Packet::decode(&[0xC0, 0x00], Version::V5, 1024),
    ///     Ok(Decoded::Packet { packet: Packet::PingReq, consumed: 2 })
    /// );
    /// ```
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub fn decode(
        input: &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Decoded<'a>, DecodeError> {
        if !FAST {
            return Self::decode_other(input, version, limit);
        }
        // The two that most packets are, apart from all others.
        if input.first().is_some_and(|first| first >> 4 == 3) {
            Self::decode_publish(input, version, limit)
        } else if let Some(packet) = Self::short_ack(input, limit) {
            let consumed = SHORT_ACK;
            Ok(Decoded::Packet { packet, consumed })
        } else {
            Self::decode_other(input, version, limit)
        }
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    fn decode_publish(
        input: &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Decoded<'a>, DecodeError> {
        let header = FixedHeader::decode_as(PacketType::Publish, input, version, limit)?;
        let Some(header) = header else {
            return Ok(Decoded::Needs(Self::more(input)));
        };
        let consumed = header.packet_len();
        let Some(body) = input.get(usize::from(header.header_len)..consumed) else {
            return Ok(Decoded::Needs(consumed));
        };
        let latch = Latch::default();
        match Publish::read(&mut Reader::new(body, &latch), &header, version) {
            Ok(publish) => Ok(Decoded::Packet {
                packet: Self::Publish(publish),
                consumed,
            }),
            Err(Broken) => Err(latch.in_packet(&header, version)),
        }
    }

    #[inline(never)]
    fn decode_other(
        input: &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Decoded<'a>, DecodeError> {
        let Some(frame) = Frame::decode(input, version, limit)? else {
            return Ok(Decoded::Needs(Self::more(input)));
        };
        let consumed = frame.packet_len();
        if frame.missing() > 0 {
            return Ok(Decoded::Needs(consumed));
        }
        let packet = frame.packet()?;
        Ok(Decoded::Packet { packet, consumed })
    }

    /// How many bytes it takes to go on where the fixed header is not whole.
    #[inline]
    pub(crate) fn more(input: &[u8]) -> usize {
        input.len().wrapping_add(1).max(2)
    }

    /// The acknowledgement of success that all versions write in the same four bytes: half of all packets at QoS 1 and
    /// more at QoS 2. `None` is for the long way to judge.
    #[inline]
    fn short_ack(input: &'a [u8], limit: u32) -> Option<Self> {
        let ([first, 2, high, low], _) = input.split_first_chunk::<SHORT_ACK>()? else {
            return None;
        };
        let ack = Ack::new(PacketId::new(u16::from_be_bytes([*high, *low]))?);
        if limit < 4 {
            return None;
        }
        Some(match *first {
            0x40 => Self::PubAck(ack),
            0x50 => Self::PubRec(ack),
            0x62 => Self::PubRel(ack),
            0x70 => Self::PubComp(ack),
            _ => return None,
        })
    }

    pub(crate) fn read(
        body: &mut Reader<'a, '_>,
        header: &FixedHeader,
        version: Version,
    ) -> Read<Self> {
        let packet_type = header.packet_type;
        Ok(match packet_type {
            PacketType::PubAck => Self::PubAck(Ack::read(body, packet_type, version)?),
            PacketType::PubRec => Self::PubRec(Ack::read(body, packet_type, version)?),
            PacketType::PubRel => Self::PubRel(Ack::read(body, packet_type, version)?),
            PacketType::PubComp => Self::PubComp(Ack::read(body, packet_type, version)?),
            PacketType::Connect => Self::Connect(Connect::read(body)?),
            PacketType::ConnAck => Self::ConnAck(ConnAck::read(body, version)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::read(body, version)?),
            PacketType::SubAck => Self::SubAck(SubAck::read(body, packet_type, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::read(body, version)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::read(body, version)?),
            PacketType::PingReq => Self::PingReq,
            PacketType::PingResp => Self::PingResp,
            PacketType::Disconnect => Self::Disconnect(Disconnect::read(body, version)?),
            PacketType::Auth => Self::Auth(Auth::read(body, version)?),
            PacketType::Publish => Self::Publish(Publish::read(body, header, version)?),
        })
    }

    /// The acknowledgement that it is, if it is PUBACK, PUBREC, PUBREL or PUBCOMP.
    ///
    /// ```
    /// use mqtt_proto::{Ack, AckKind, Packet, PacketId};
    /// let ack = Ack::new(PacketId::FIRST);
    /// assert_eq!(Packet::PubRec(ack).as_ack(), Some((AckKind::PubRec, &ack)));
    /// assert_eq!(Packet::PingReq.as_ack(), None);
    /// ```
    #[must_use]
    #[inline]
    pub const fn as_ack(&self) -> Option<(AckKind, &Ack<'a>)> {
        Some(match self {
            Self::PubAck(ack) => (AckKind::PubAck, ack),
            Self::PubRec(ack) => (AckKind::PubRec, ack),
            Self::PubRel(ack) => (AckKind::PubRel, ack),
            Self::PubComp(ack) => (AckKind::PubComp, ack),
            _ => return None,
        })
    }

    /// Its type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

macro_rules! each {
    ($packet:expr, $it:ident => $then:expr) => {
        match $packet {
            Packet::Publish($it) => $then,
            Packet::PubAck(ack) => {
                let $it = &(AckKind::PubAck, ack);
                $then
            }
            Packet::PubRec(ack) => {
                let $it = &(AckKind::PubRec, ack);
                $then
            }
            Packet::PubRel(ack) => {
                let $it = &(AckKind::PubRel, ack);
                $then
            }
            Packet::PubComp(ack) => {
                let $it = &(AckKind::PubComp, ack);
                $then
            }
            Packet::Connect($it) => $then,
            Packet::ConnAck($it) => $then,
            Packet::Subscribe($it) => $then,
            Packet::SubAck($it) => $then,
            Packet::Unsubscribe($it) => $then,
            Packet::UnsubAck($it) => $then,
            Packet::PingReq => {
                let $it = &PingReq;
                $then
            }
            Packet::PingResp => {
                let $it = &PingResp;
                $then
            }
            Packet::Disconnect($it) => $then,
            Packet::Auth($it) => $then,
        }
    };
}

impl Sealed for Packet<'_> {}

impl Encode for Packet<'_> {
    #[inline]
    fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        each!(self, packet => packet.encoded_len(version))
    }

    #[inline]
    fn encode(&self, version: Version, out: &mut [u8]) -> Result<usize, EncodeError> {
        each!(self, packet => packet.encode(version, out))
    }
}
