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
use crate::sink::FAST;
use crate::varint::VarInt;
use crate::version::Version;

/// The 15 packet types.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PacketType {
    /// A client asks for a connection.
    Connect = 1,
    /// The server's answer to CONNECT.
    ConnAck = 2,
    /// A message.
    Publish = 3,
    /// Ends a QoS 1 delivery.
    PubAck = 4,
    /// A QoS 2 message is received.
    PubRec = 5,
    /// A QoS 2 message is released.
    PubRel = 6,
    /// Ends a QoS 2 delivery.
    PubComp = 7,
    /// A client subscribes.
    Subscribe = 8,
    /// The server's answer to SUBSCRIBE.
    SubAck = 9,
    /// A client unsubscribes.
    Unsubscribe = 10,
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck = 11,
    /// A client asks for a sign of life.
    PingReq = 12,
    /// The server's answer to PINGREQ.
    PingResp = 13,
    /// Says that the connection ends.
    Disconnect = 14,
    /// Authentication exchange, MQTT 5 only.
    Auth = 15,
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
    #[inline]
    #[allow(clippy::as_conversions, reason = "the variants have the numbers")]
    pub const fn get(self) -> u8 {
        self as u8
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
    #[cfg_attr(target_pointer_width = "64", inline)]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub fn decode(input: &[u8], version: Version, limit: u32) -> Result<Option<Self>, DecodeError> {
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        let found = first >> 4;
        match PacketType::new(found) {
            Some(packet_type) if packet_type != PacketType::Auth || version.is_v5() => {
                Self::decode_as(packet_type, input, version, limit)
            }
            _ => Err(DecodeError {
                packet: None,
                at: 0,
                rule: Rule::ReservedPacketType { found },
                version,
            }),
        }
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
        Self::read(packet_type, input, version, limit).map_err(|(at, rule)| DecodeError {
            packet: Some(packet_type),
            at,
            rule,
            version,
        })
    }

    /// An error says which byte breaks which rule.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    fn read(
        packet_type: PacketType,
        input: &[u8],
        version: Version,
        limit: u32,
    ) -> Result<Option<Self>, (u32, Rule)> {
        let Some((&first, rest)) = input.split_first() else {
            return Ok(None);
        };
        let flags = first & 0x0F;
        check_flags(packet_type, flags).map_err(|rule| (0, rule))?;
        let (remaining_length, header_len) = match rest.first() {
            Some(&len) if FAST && len < 0x80 => (u32::from(len), 2),
            _ => match VarInt::decode(rest).map_err(|rule| (1, rule))? {
                Some((value, 1)) => (value.get(), 2),
                Some((value, 2)) => (value.get(), 3),
                Some((value, 3)) => (value.get(), 4),
                Some((value, _)) => (value.get(), 5),
                None => return Ok(None),
            },
        };
        let len = remaining_length.wrapping_add(u32::from(header_len));
        if len > limit {
            return Err((1, Rule::TooLarge { len, max: limit }));
        }
        if packet_type != PacketType::Publish
            && let Some(must) = packet_type.fixed_length(version)
            && must != remaining_length
        {
            let found = remaining_length;
            return Err((1, Rule::RemainingLength { found, must }));
        }
        Ok(Some(Self {
            packet_type,
            flags,
            header_len,
            remaining_length,
        }))
    }

    /// Length of the whole packet.
    #[must_use]
    #[inline]
    pub fn packet_len(&self) -> usize {
        to_usize(self.remaining_length).wrapping_add(usize::from(self.header_len))
    }

    pub(crate) const fn qos_bits(&self) -> Option<QoS> {
        QoS::new((self.flags >> 1) & 0b11)
    }
}

/// A length as the memory counts it.
#[inline]
pub(crate) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[inline]
fn check_flags(packet_type: PacketType, found: u8) -> Result<(), Rule> {
    if packet_type == PacketType::Publish {
        if PUBLISH_FLAGS.wrapping_shr(u32::from(found)) & 1 == 1 {
            return Ok(());
        }
        // 3.1.1 [MQTT-3.3.1-4], 5 [MQTT-3.3.1-4]; 3.1.1 [MQTT-3.3.1-2], 5 [MQTT-3.3.1-2]
        return Err(if found & 0b0110 == 0b0110 {
            Rule::QoS3
        } else {
            Rule::DupOnQoS0
        });
    }
    // 3.1.1 [MQTT-2.2.2-2], 5 [MQTT-2.1.3-1]
    let must = packet_type.required_flags();
    if found == must {
        Ok(())
    } else {
        Err(Rule::Flags { found, must })
    }
}
