//! Any packet: one `match` to read, one to write.

use crate::ack::{Ack, AckKind};
use crate::auth::Auth;
use crate::connack::ConnAck;
use crate::connect::Connect;
use crate::disconnect::Disconnect;
use crate::error::DecodeError;
use crate::header::{FixedHeader, PacketType};
use crate::publish::Publish;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
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
    #[inline]
    pub fn decode(
        input: &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Decoded<'a>, DecodeError> {
        let Some(header) = FixedHeader::decode(input, version, limit)? else {
            return Ok(Decoded::Needs(input.len().saturating_add(1).max(2)));
        };
        let len = header.packet_len();
        let Some(body) = input.get(usize::from(header.header_len)..len) else {
            return Ok(Decoded::Needs(len));
        };
        match Self::read(body, &header, version) {
            Ok(packet) => Ok(Decoded::Packet {
                packet,
                consumed: len,
            }),
            Err(fault) => Err(DecodeError::from_fault(
                fault,
                header.packet_type,
                len,
                version,
            )),
        }
    }

    #[inline]
    fn read(body: &'a [u8], header: &FixedHeader, version: Version) -> Read<Self> {
        let mut body = Reader::new(body);
        let packet = match header.packet_type {
            // First and without the check behind the match: its payload takes what is left.
            PacketType::Publish => {
                return Publish::read(&mut body, header, version).map(Self::Publish);
            }
            PacketType::PubAck => Self::PubAck(Ack::read(&mut body, AckKind::PubAck, version)?),
            PacketType::PubRec => Self::PubRec(Ack::read(&mut body, AckKind::PubRec, version)?),
            PacketType::PubRel => Self::PubRel(Ack::read(&mut body, AckKind::PubRel, version)?),
            PacketType::PubComp => Self::PubComp(Ack::read(&mut body, AckKind::PubComp, version)?),
            PacketType::Connect => Self::Connect(Connect::read(&mut body)?),
            PacketType::ConnAck => Self::ConnAck(ConnAck::read(&mut body, version)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::read(&mut body, version)?),
            PacketType::SubAck => Self::SubAck(SubAck::read(&mut body, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::read(&mut body, version)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::read(&mut body, version)?),
            PacketType::PingReq => Self::PingReq,
            PacketType::PingResp => Self::PingResp,
            PacketType::Disconnect => Self::Disconnect(Disconnect::read(&mut body, version)?),
            PacketType::Auth => Self::Auth(Auth::read(&mut body)?),
        };
        body.finish()?;
        Ok(packet)
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

impl Body for Packet<'_> {
    #[inline]
    fn first_byte(&self) -> u8 {
        match self {
            Self::Publish(publish) => publish.first_byte(),
            _ => self.packet_type().first_byte(),
        }
    }

    #[inline]
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        match self {
            Self::Publish(packet) => packet.write(version, out),
            Self::PubAck(ack) => (AckKind::PubAck, ack).write(version, out),
            Self::PubRec(ack) => (AckKind::PubRec, ack).write(version, out),
            Self::PubRel(ack) => (AckKind::PubRel, ack).write(version, out),
            Self::PubComp(ack) => (AckKind::PubComp, ack).write(version, out),
            Self::Connect(packet) => packet.write(version, out),
            Self::ConnAck(packet) => packet.write(version, out),
            Self::Subscribe(packet) => packet.write(version, out),
            Self::SubAck(packet) => packet.write(version, out),
            Self::Unsubscribe(packet) => packet.write(version, out),
            Self::UnsubAck(packet) => packet.write(version, out),
            Self::PingReq | Self::PingResp => {}
            Self::Disconnect(packet) => packet.write(version, out),
            Self::Auth(packet) => packet.write(version, out),
        }
    }
}
