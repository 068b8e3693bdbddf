//! The fixed header: section 2.2 of 3.1.1, 2.1 of 5.
//!
//! | byte | what |
//! | --- | --- |
//! | 0 | packet type (bits 7 to 4), flags (bits 3 to 0) |
//! | 1 to 4 | remaining length, a variable byte integer |
//!
//! The only place that knows "not enough bytes": type, flags and length are judged from the first bytes that show them,
//! so a bad or over-long packet is refused before anything waits for its body.

use core::fmt;

use crate::error::{DecodeError, Rule};
use crate::id::QoS;
use crate::varint::VarInt;
use crate::version::Version;

/// The 15 packet types.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PacketType {
    /// A client asks for a connection.
    Connect,
    /// The server's answer to CONNECT.
    ConnAck,
    /// A message.
    Publish,
    /// Ends a QoS 1 delivery.
    PubAck,
    /// A QoS 2 message is received.
    PubRec,
    /// A QoS 2 message is released.
    PubRel,
    /// Ends a QoS 2 delivery.
    PubComp,
    /// A client subscribes.
    Subscribe,
    /// The server's answer to SUBSCRIBE.
    SubAck,
    /// A client unsubscribes.
    Unsubscribe,
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck,
    /// A client asks for a sign of life.
    PingReq,
    /// The server's answer to PINGREQ.
    PingResp,
    /// Says that the connection ends.
    Disconnect,
    /// Authentication exchange, MQTT 5 only.
    Auth,
}

impl PacketType {
    /// The type that the upper four bits of a first byte say. `None` for 0.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The number, 1 to 15.
    #[must_use]
    pub const fn get(self) -> u8 {
        match self {
            Self::Connect => 1,
            Self::ConnAck => 2,
            Self::Publish => 3,
            Self::PubAck => 4,
            Self::PubRec => 5,
            Self::PubRel => 6,
            Self::PubComp => 7,
            Self::Subscribe => 8,
            Self::SubAck => 9,
            Self::Unsubscribe => 10,
            Self::UnsubAck => 11,
            Self::PingReq => 12,
            Self::PingResp => 13,
            Self::Disconnect => 14,
            Self::Auth => 15,
        }
    }

    /// The flags that every packet of this type has; PUBLISH has its own.
    pub(crate) const fn required_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The first byte of every packet of this type but PUBLISH.
    pub(crate) const fn first_byte(self) -> u8 {
        (self.get() << 4) | self.required_flags()
    }

    /// The only remaining length this type has in `version`, if there is one.
    const fn fixed_length(self, version: Version) -> Option<u32> {
        match self {
            Self::PingReq | Self::PingResp => Some(0),
            Self::Disconnect if !version.is_v5() => Some(0),
            Self::ConnAck
            | Self::PubAck
            | Self::PubRec
            | Self::PubRel
            | Self::PubComp
            | Self::UnsubAck
                if !version.is_v5() =>
            {
                Some(2)
            }
            _ => None,
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// The flags that PUBLISH may have, a bit for each: not QoS 3, and DUP only with QoS 1 or 2.
const PUBLISH_FLAGS: u16 = 0b0011_1100_0011_1111;

/// A checked fixed header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FixedHeader {
    /// The packet type.
    pub packet_type: PacketType,
    /// The four flag bits; only PUBLISH has any that say something.
    pub flags: u8,
    /// Length of this header, 2 to 5 bytes.
    pub header_len: u8,
    /// Length of what follows the header.
    pub remaining_length: u32,
}

impl FixedHeader {
    /// Reads the header from the first bytes of a packet; `None` while they do not show it whole.
    ///
    /// `limit` is the largest packet accepted, header included; it is checked here, before anything waits for the body.
    ///
    /// # Errors
    /// A reserved type, wrong flags, an over-long or non-minimal length, a length beyond the limit or other than the
    /// only one the type has.
    ///
    /// ```
    /// use mqtt_proto::{FixedHeader, PacketType, Version};
    /// let header = FixedHeader::decode(&[0x30, 0x0E], Version::V311, 1024).unwrap().unwrap();
    /// assert_eq!((header.packet_type, header.packet_len()), (PacketType::Publish, 16));
    /// // A megabyte is announced where a kilobyte is allowed: refused at once.
    /// assert!(FixedHeader::decode(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F], Version::V311, 1024).is_err());
    /// ```
    #[inline]
    pub fn decode(input: &[u8], version: Version, limit: u32) -> Result<Option<Self>, DecodeError> {
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        let packet_type = Self::check_type(first >> 4, version)?;
        Self::decode_as(packet_type, input, version, limit)
    }

    /// The same, where the type in the first byte is known.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn decode_as(
        packet_type: PacketType,
        input: &[u8],
        version: Version,
        limit: u32,
    ) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = input.split_first() else {
            return Ok(None);
        };
        let flags = first & 0x0F;
        Self::check_flags(packet_type, flags, version)?;
        let (remaining_length, header_len) = match rest.first() {
            Some(&len) if len < 0x80 => (u32::from(len), 2),
            _ => match VarInt::decode(rest) {
                Ok(Some((value, 2))) => (value.get(), 3),
                Ok(Some((value, 3))) => (value.get(), 4),
                Ok(Some((value, _))) => (value.get(), 5),
                Ok(None) => return Ok(None),
                Err(rule) => {
                    return Err(DecodeError {
                        packet: Some(packet_type),
                        at: 1,
                        rule,
                        version,
                    });
                }
            },
        };
        let header = Self {
            packet_type,
            flags,
            header_len,
            remaining_length,
        };
        let len = remaining_length.saturating_add(u32::from(header_len));
        if len > limit {
            return Err(header.refuse(Rule::TooLarge { len, max: limit }, version));
        }
        if packet_type != PacketType::Publish
            && let Some(must) = packet_type.fixed_length(version)
            && must != remaining_length
        {
            return Err(header.refuse(
                Rule::RemainingLength {
                    found: remaining_length,
                    must,
                },
                version,
            ));
        }
        Ok(Some(header))
    }

    #[cold]
    const fn refuse(self, rule: Rule, version: Version) -> DecodeError {
        DecodeError {
            packet: Some(self.packet_type),
            at: 1,
            rule,
            version,
        }
    }

    #[inline]
    fn check_type(kind: u8, version: Version) -> Result<PacketType, DecodeError> {
        match PacketType::new(kind) {
            Some(PacketType::Auth) if !version.is_v5() => {}
            Some(packet_type) => return Ok(packet_type),
            None => {}
        }
        Err(DecodeError {
            packet: None,
            at: 0,
            rule: Rule::ReservedPacketType { found: kind },
            version,
        })
    }

    #[inline]
    fn check_flags(
        packet_type: PacketType,
        found: u8,
        version: Version,
    ) -> Result<(), DecodeError> {
        let rule = if packet_type == PacketType::Publish {
            if PUBLISH_FLAGS.wrapping_shr(u32::from(found)) & 1 == 1 {
                return Ok(());
            }
            // 3.1.1 [MQTT-3.3.1-4], 5 [MQTT-3.3.1-4]; 3.1.1 [MQTT-3.3.1-2], 5 [MQTT-3.3.1-2]
            if found & 0b0110 == 0b0110 {
                Rule::QoS3
            } else {
                Rule::DupOnQoS0
            }
        } else {
            // 3.1.1 [MQTT-2.2.2-2], 5 [MQTT-2.1.3-1]
            let must = packet_type.required_flags();
            if found == must {
                return Ok(());
            }
            Rule::Flags { found, must }
        };
        Err(DecodeError {
            packet: Some(packet_type),
            at: 0,
            rule,
            version,
        })
    }

    /// Length of the whole packet.
    #[must_use]
    #[inline]
    pub fn packet_len(&self) -> usize {
        let remaining = usize::try_from(self.remaining_length).unwrap_or(usize::MAX);
        remaining.saturating_add(usize::from(self.header_len))
    }

    pub(crate) const fn qos_bits(&self) -> Option<QoS> {
        QoS::new((self.flags >> 1) & 0b11)
    }
}
