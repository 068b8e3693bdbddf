//! PUBACK, PUBREC, PUBREL, PUBCOMP: sections 3.4 to 3.7. One layout; the packet type is the variant of [`crate::Packet`].
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | packet identifier |
//! | 1 | reason code (5); left out with what follows if it is success without properties |
//! | block | properties (5); left out if there are none |

use crate::encode::{Body, Draft};
use crate::id::PacketId;
use crate::out::Out;
use crate::properties::Properties;
use crate::version::Version;
use crate::wire::{PacketType, ReasonCode, View, layout};

/// A step in the delivery of a QoS 1 or QoS 2 message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ack<'a> {
    /// The packet identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// How it went (5); success in 3.1.1.
    pub reason: ReasonCode,
    /// Properties (5).
    pub properties: Properties<'a>,
}

/// Which of the four packets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AckKind {
    /// Ends QoS 1.
    PubAck,
    /// QoS 2, first answer.
    PubRec,
    /// QoS 2, the sender releases the message.
    PubRel,
    /// Ends QoS 2.
    PubComp,
}

impl AckKind {
    /// The one of this packet type, if it is one of the four.
    #[must_use]
    pub const fn of(packet: PacketType) -> Option<Self> {
        Some(match packet {
            PacketType::PubAck => Self::PubAck,
            PacketType::PubRec => Self::PubRec,
            PacketType::PubRel => Self::PubRel,
            PacketType::PubComp => Self::PubComp,
            _ => return None,
        })
    }

    /// Its packet type.
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        match self {
            Self::PubAck => PacketType::PubAck,
            Self::PubRec => PacketType::PubRec,
            Self::PubRel => PacketType::PubRel,
            Self::PubComp => PacketType::PubComp,
        }
    }
}

impl<'a> Ack<'a> {
    /// Success, without properties.
    #[must_use]
    pub const fn new(packet_id: PacketId) -> Self {
        Self {
            packet_id,
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }
    }

    /// The same with a reason code, which only MQTT 5 can send.
    #[must_use]
    pub const fn with_reason(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: Properties::EMPTY,
        }
    }

    #[inline]
    pub(crate) fn of(view: &View<'a>) -> Self {
        Self {
            packet_id: view.packet_id(),
            reason: view.reason_code(),
            properties: view.properties(),
        }
    }
}

impl Body for (AckKind, &Ack<'_>) {
    /// Success without properties, which all versions write alike.
    #[inline]
    fn write_plain(&self, _: Version, out: &mut [u8]) -> Option<usize> {
        let (kind, ack) = self;
        let kind = kind.packet_type().get();
        let out = out.first_chunk_mut()?;
        if ack.reason != ReasonCode::Success || !ack.properties.is_empty() {
            return None;
        }
        let [high, low] = ack.packet_id.get().to_be_bytes();
        *out = [kind << 4 | layout(kind, false).flags(), 2, high, low];
        Some(out.len())
    }

    #[inline]
    fn write(&self, version: Version, out: &mut Out<'_>) {
        let (kind, ack) = self;
        let draft = Draft {
            id: Some(ack.packet_id),
            reason: ack.reason,
            ..Draft::new(kind.packet_type(), ack.properties)
        };
        draft.write(version, out, &|_| {});
    }
}
