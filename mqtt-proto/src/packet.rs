//! Packets of any type: one `match` decodes them, one encodes them.

use crate::ack::{Ack, AckKind};
use crate::auth::Auth;
use crate::connack::ConnAck;
use crate::connect::Connect;
use crate::disconnect::Disconnect;
use crate::encode::{Body, first_byte};
use crate::error::DecodeError;
use crate::id::PacketId;
use crate::out::Out;
use crate::ping::{PingReq, PingResp};
use crate::publish::Publish;
use crate::subscribe::{SubAck, Subscribe};
use crate::tune::FAST;
use crate::unsubscribe::{UnsubAck, Unsubscribe};
use crate::version::Version;
use crate::wire::{PacketType, Reader, View, frame, kind};

/// A packet of any type. Its strings and payloads borrow from the bytes from which it was decoded.
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

/// The result of [`Packet::decode`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decoded<'a> {
    /// The packet is incomplete. The next try needs at least this many bytes, counted from the first byte of the packet.
    Needs(usize),
    /// A whole packet.
    Packet {
        /// The packet.
        packet: Packet<'a>,
        /// Length of the packet in bytes. The next packet starts behind it.
        consumed: usize,
    },
}

impl<'a> Packet<'a> {
    /// Decodes the packet at the front of `input`, without copying or allocating.
    ///
    /// `limit` is the length in bytes of the longest packet accepted, fixed header included; it is checked before the body has
    /// arrived. `version` is the version of the connection. CONNECT is decoded by the version that it contains.
    ///
    /// # Errors
    /// A [`DecodeError`] if no packet of this version starts with these bytes. Too few bytes are not an error.
    ///
    /// ```
    /// use mqtt_proto::{Decoded, Packet, Version};
    /// assert_eq!(Packet::decode(&[0xC0], Version::V5, 1024), Ok(Decoded::Needs(2)));
    /// assert_eq!(
    ///     Packet::decode(&[0xC0, 0x00], Version::V5, 1024),
    ///     Ok(Decoded::Packet { packet: Packet::PingReq, consumed: 2 })
    /// );
    /// ```
    #[inline(always)]
    pub fn decode(
        input: &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Decoded<'a>, DecodeError> {
        // The fast paths of the packets that arrive often.
        if FAST && let Some(packet) = Self::short_ack(input, limit) {
            let consumed = 4;
            return Ok(Decoded::Packet { packet, consumed });
        }
        if FAST
            && input
                .first()
                .is_some_and(|first| first >> 4 == kind::PUBLISH)
        {
            let mut view = View::default();
            if let Some((_, consumed)) = view.read_publish(input, version.is_v5(), limit) {
                let packet = Self::Publish(view.publish());
                return Ok(Decoded::Packet { packet, consumed });
            }
        }
        Self::decode_any(input, version, limit)
    }

    #[inline(never)]
    fn decode_any(
        input: &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Decoded<'a>, DecodeError> {
        let v5 = version.is_v5();
        let frame = frame(input, v5, limit);
        if frame.fault.is_some() {
            return Err(DecodeError::of_frame(frame, version, limit));
        }
        let consumed = frame.needs();
        let Some(body) = frame.body(input) else {
            return Ok(Decoded::Needs(consumed));
        };
        if FAST
            && frame.kind() == kind::CONNECT
            && let Some(connect) = Connect::plain(body)
        {
            let packet = Self::Connect(connect);
            return Ok(Decoded::Packet { packet, consumed });
        }
        let (mut view, mut body) = (View::default(), Reader::new(body));
        view.read(frame.first, &mut body, version.is_v5());
        if body.fault.is_some() {
            return Err(DecodeError::of_body(frame, &body, input, version));
        }
        Ok(Decoded::Packet {
            packet: Self::of(&view, version),
            consumed,
        })
    }

    /// Decodes an acknowledgement of success, which has the same four bytes in all versions: half of all packets at QoS 1 and
    /// more at QoS 2. If it returns `None`, [`Self::decode_any`] decides.
    #[inline]
    fn short_ack(input: &'a [u8], limit: u32) -> Option<Self> {
        let ([first, 2, high, low], _) = input.split_first_chunk::<4>()? else {
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

    /// Makes the packet of a view.
    #[inline]
    pub(crate) fn of(view: &View<'a>, version: Version) -> Self {
        match view.kind {
            kind::CONNECT => Self::Connect(Connect::of(view)),
            kind::CONNACK => Self::ConnAck(ConnAck::of(view, version)),
            kind::PUBLISH => Self::Publish(view.publish()),
            kind::PUBACK => Self::PubAck(Ack::of(view)),
            kind::PUBREC => Self::PubRec(Ack::of(view)),
            kind::PUBREL => Self::PubRel(Ack::of(view)),
            kind::PUBCOMP => Self::PubComp(Ack::of(view)),
            kind::SUBSCRIBE => Self::Subscribe(Subscribe::of(view)),
            kind::SUBACK => Self::SubAck(SubAck::of(view)),
            kind::UNSUBSCRIBE => Self::Unsubscribe(Unsubscribe::of(view)),
            kind::UNSUBACK => Self::UnsubAck(SubAck::of(view).into()),
            kind::PINGREQ => Self::PingReq,
            kind::PINGRESP => Self::PingResp,
            kind::DISCONNECT => Self::Disconnect(Disconnect::of(view)),
            _ => Self::Auth(Auth::of(view)),
        }
    }

    /// Returns the acknowledgement and its kind if the packet is PUBACK, PUBREC, PUBREL or PUBCOMP.
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

    /// Returns the packet type.
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
    fn least(&self) -> usize {
        match self {
            Self::Publish(packet) => packet.least(),
            _ => 0,
        }
    }

    fn first_byte(&self) -> u8 {
        match self {
            Self::Publish(packet) => packet.first_byte(),
            _ => first_byte(self.packet_type()),
        }
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        match self {
            Self::Connect(packet) => packet.write(version, out),
            Self::ConnAck(packet) => packet.write(version, out),
            Self::Publish(packet) => packet.write(version, out),
            Self::PubAck(ack) => (AckKind::PubAck, ack).write(version, out),
            Self::PubRec(ack) => (AckKind::PubRec, ack).write(version, out),
            Self::PubRel(ack) => (AckKind::PubRel, ack).write(version, out),
            Self::PubComp(ack) => (AckKind::PubComp, ack).write(version, out),
            Self::Subscribe(packet) => packet.write(version, out),
            Self::SubAck(packet) => packet.write(version, out),
            Self::Unsubscribe(packet) => packet.write(version, out),
            Self::UnsubAck(packet) => packet.write(version, out),
            Self::PingReq => PingReq.write(version, out),
            Self::PingResp => PingResp.write(version, out),
            Self::Disconnect(packet) => packet.write(version, out),
            Self::Auth(packet) => packet.write(version, out),
        }
    }
}
