//! PUBACK, PUBREC, PUBREL, PUBCOMP: sections 3.4 to 3.7. All four have the same layout and share one struct; the variant of
//! [`crate::Packet`] tells which it is.
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | packet identifier |
//! | 1 | reason code (5); left out with what follows if it is success without properties |
//! | block | properties (5); left out if there are none |

use crate::encode::{Body, Draft, first_byte};
use crate::id::PacketId;
use crate::out::Out;
use crate::properties::Properties;
use crate::version::Version;
use crate::wire::{PacketType, ReasonCode, View};

/// An acknowledgement: a step in the delivery of a QoS 1 or QoS 2 message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ack<'a> {
    /// The packet identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// The result of the step (MQTT 5); [`ReasonCode::Success`] in 3.1.1.
    pub reason: ReasonCode,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
}

/// The packet type of an acknowledgement.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AckKind {
    /// Ends the delivery of a message at QoS 1.
    PubAck,
    /// At QoS 2: the receiver has stored the message.
    PubRec,
    /// At QoS 2: the sender has got PUBREC and will not send the message again.
    PubRel,
    /// Ends the delivery of a message at QoS 2.
    PubComp,
}

impl AckKind {
    /// Returns the kind with this packet type. `None` if it is not one of the four.
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

    /// Returns the packet type.
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
    /// Makes an acknowledgement of success without properties.
    #[must_use]
    pub const fn new(packet_id: PacketId) -> Self {
        Self {
            packet_id,
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }
    }

    /// Makes an acknowledgement with a reason code and without properties. A code other than success needs MQTT 5.
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
    /// Writes success without properties, which has the same four bytes in all versions.
    #[inline]
    fn write_plain(&self, _: Version, out: &mut [u8]) -> Option<usize> {
        let (kind, ack) = self;
        let first = first_byte(kind.packet_type());
        let out = out.first_chunk_mut()?;
        if ack.reason != ReasonCode::Success || !ack.properties.is_empty() {
            return None;
        }
        let [high, low] = ack.packet_id.get().to_be_bytes();
        *out = [first, 2, high, low];
        Some(out.len())
    }

    #[inline]
    fn first_byte(&self) -> u8 {
        first_byte(self.0.packet_type())
    }

    #[inline]
    fn write(&self, version: Version, out: &mut Out<'_>) {
        let (kind, ack) = self;
        let draft = Draft {
            reason: ack.reason,
            ..Draft::with_id(kind.packet_type(), ack.packet_id, ack.properties)
        };
        draft.write(version, out);
    }
}
