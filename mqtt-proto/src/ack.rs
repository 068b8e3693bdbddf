//! PUBACK, PUBREC, PUBREL, PUBCOMP: sections 3.4 to 3.7. One layout; the packet type is the variant of [`crate::Packet`].
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | packet identifier |
//! | 1 | reason code (5); left out with what follows if it is success without properties |
//! | block | properties (5); left out if there are none |

use crate::error::{EncodeError, Field, Rule};
use crate::header::PacketType;
use crate::id::PacketId;
use crate::properties::Properties;
use crate::property::Place;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
use crate::version::Version;
use crate::wire::reason::ReasonCode;

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
    pub(crate) fn read(
        body: &mut Reader<'a, '_>,
        packet: PacketType,
        version: Version,
    ) -> Read<Self> {
        let packet_id = body.packet_id()?;
        let (reason, properties) = read_reason(body, packet, version)?;
        Ok(Self {
            packet_id,
            reason,
            properties,
        })
    }
}

/// Reason code and properties at the end of a packet of MQTT 5, either of which may be left out.
pub(crate) fn read_reason<'a>(
    body: &mut Reader<'a, '_>,
    packet: PacketType,
    version: Version,
) -> Read<(ReasonCode, Properties<'a>)> {
    if !version.is_v5() || body.is_empty() {
        return Ok((ReasonCode::Success, Properties::EMPTY));
    }
    let at = body.left();
    let found = body.u8()?;
    let reason = ReasonCode::new(found)
        .filter(|reason| reason.belongs_in(packet))
        .ok_or_else(|| body.fault_at(at, Rule::ReasonCode { found }))?;
    if body.is_empty() {
        return Ok((reason, Properties::EMPTY));
    }
    let (properties, _) = Properties::read(body, Place::packet(packet))?;
    Ok((reason, properties))
}

/// The shortest form that says it. What 3.1.1 cannot say is refused, but for [`ReasonCode::Success`].
#[inline]
pub(crate) fn write_reason<S: Sink>(
    reason: ReasonCode,
    properties: &Properties<'_>,
    packet: PacketType,
    version: Version,
    out: &mut S,
) {
    let (plain, bare) = (properties.is_empty(), reason == ReasonCode::Success);
    if plain && bare {
        return;
    }
    if !version.is_v5() {
        let field = if plain {
            Field::ReasonCode
        } else {
            Field::Properties
        };
        return out.refuse(EncodeError::NeedsV5(field));
    }
    out.refuse_if(!reason.belongs_in(packet), EncodeError::ReasonCode(reason));
    out.u8(reason.get());
    if !plain {
        properties.write(Place::packet(packet), None, out);
    }
}

impl Body for (AckKind, &Ack<'_>) {
    #[inline]
    fn first_byte(&self) -> u8 {
        self.0.packet_type().first_byte()
    }

    /// Success without properties, which all versions write alike.
    #[inline]
    fn short(&self) -> Option<[u8; 4]> {
        let (_, ack) = self;
        let [high, low] = ack.packet_id.get().to_be_bytes();
        let bare = ack.reason == ReasonCode::Success && ack.properties.is_empty();
        bare.then_some([self.first_byte(), 2, high, low])
    }

    #[inline]
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        let (kind, ack) = self;
        out.u16(ack.packet_id.get());
        write_reason(
            ack.reason,
            &ack.properties,
            kind.packet_type(),
            version,
            out,
        );
    }
}
