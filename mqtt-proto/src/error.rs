//! What can be wrong with a packet, where, and by which statement of the standard.

use core::fmt;

use crate::header::{FixedHeader, PacketType};
use crate::property::PropertyId;
use crate::reader::{Fault, Latch};
use crate::version::Version;
use crate::wire::reason::ReasonCode;

/// Bytes that no packet of the version in use can be. Copy and small: it says what a person with a dump needs.
///
/// ```
/// use mqtt_proto::{Packet, Version, MAX_PACKET};
/// let error = Packet::decode(&[0x80, 0x10], Version::V311, MAX_PACKET).unwrap_err();
/// assert_eq!(error.to_string(), "SUBSCRIBE, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.8.1-1]");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DecodeError {
    /// The packet, once its first byte told.
    pub packet: Option<PacketType>,
    /// Offset of the byte that proves it, counted from the packet's first byte.
    pub at: u32,
    /// The rule that was broken, with what was found.
    pub rule: Rule,
    /// The version whose rule it is.
    pub version: Version,
}

impl DecodeError {
    /// The statement of the standard, such as `MQTT-3.8.1-1`. It belongs to [`Self::version`]: the two standards number
    /// differently. `None` where the standard says so without a number.
    #[must_use]
    pub fn statement(&self) -> Option<&'static str> {
        self.rule.statement(self.packet, self.version)
    }

    /// The reason code with which MQTT 5 answers.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        self.rule.reason_code()
    }
}

impl Latch {
    /// What it holds, as the error of the packet that it is in.
    #[cold]
    pub(crate) fn in_packet(&self, header: &FixedHeader, version: Version) -> DecodeError {
        // There is one: this is asked when reading failed.
        let Fault { left, rule } = self.get().unwrap_or(Fault {
            left: 0,
            rule: Rule::Truncated { missing: 0 },
        });
        let at = header.packet_len().saturating_sub(left);
        DecodeError {
            packet: Some(header.packet_type),
            at: u32::try_from(at).unwrap_or(u32::MAX),
            rule,
            version,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packet {
            Some(packet) => write!(f, "{packet}, byte {}: {}", self.at, self.rule)?,
            None => write!(f, "byte {}: {}", self.at, self.rule)?,
        }
        match self.statement() {
            Some(statement) => write!(f, " [{statement}]"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Everything a peer can get wrong in the bytes of one packet, with the values found.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Rule {
    /// Packet type 0, or 15 before MQTT 5.
    #[error("packet type {found} is reserved")]
    ReservedPacketType {
        /// The four bits found.
        found: u8,
    },
    /// Reserved flags of the fixed header.
    #[error("flags are {found:#06b}, must be {must:#06b}")]
    Flags {
        /// The four bits found.
        found: u8,
        /// The four bits required.
        must: u8,
    },
    /// A quality of service of 3.
    #[error("QoS is 3, must be 0, 1 or 2")]
    QoS3,
    /// The DUP flag on a message that is never sent again.
    #[error("DUP is set on a QoS 0 message")]
    DupOnQoS0,
    /// A variable byte integer that does not end with its fourth byte.
    #[error("variable byte integer does not end within four bytes")]
    VarIntTooLong,
    /// A variable byte integer that fewer bytes could say.
    #[error("variable byte integer uses more bytes than it needs")]
    VarIntNotMinimal,
    /// The packet is larger than the receiver allows.
    #[error("packet of {len} bytes, the limit is {max}")]
    TooLarge {
        /// Length of the whole packet, fixed header included.
        len: u32,
        /// The limit given.
        max: u32,
    },
    /// A packet type whose length is fixed has another one.
    #[error("remaining length is {found}, must be {must}")]
    RemainingLength {
        /// The remaining length found.
        found: u32,
        /// The only one allowed.
        must: u32,
    },
    /// A field reaches beyond the end of the packet.
    #[error("the packet ends {missing} bytes before the field does")]
    Truncated {
        /// How many bytes the field lacks.
        missing: u32,
    },
    /// A property reaches beyond the end of the properties.
    #[error("the properties end {missing} bytes before the value does")]
    PropertyTruncated {
        /// How many bytes the value lacks.
        missing: u32,
    },
    /// Bytes behind the last field.
    #[error("{count} bytes follow the last field")]
    TrailingBytes {
        /// How many.
        count: u32,
    },
    /// Packet identifier 0.
    #[error("packet identifier is 0")]
    PacketIdZero,
    /// Not UTF-8.
    #[error("string is not well-formed UTF-8")]
    IllFormedUtf8,
    /// U+0000 in a string.
    #[error("string contains U+0000")]
    NullCharacter,
    /// A topic name or filter of no characters.
    #[error("topic is empty")]
    TopicEmpty,
    /// `+` or `#` in a topic name.
    #[error("topic name contains a wildcard")]
    TopicHasWildcard,
    /// A wildcard in a filter that does not stand alone between separators, or `#` before the end.
    #[error("wildcard in a topic filter is misplaced")]
    MisplacedWildcard,
    /// `$share/` without a proper share name and filter.
    #[error("shared subscription needs $share/name/filter, the name without wildcards")]
    ShareName,
    /// No Local together with a shared subscription.
    #[error("no local is set on a shared subscription")]
    NoLocalShared,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter, SUBACK or UNSUBACK without a code.
    #[error("the list is empty, it needs at least one entry")]
    EmptyList,
    /// Reserved bits inside the packet.
    #[error("reserved bits are set, byte is {found:#010b}")]
    ReservedBits {
        /// The byte found.
        found: u8,
    },
    /// Retain handling 3.
    #[error("retain handling is 3, must be 0, 1 or 2")]
    RetainHandling,
    /// CONNECT starts with something else than `MQTT` or `MQIsdp`.
    #[error("protocol name is neither MQTT nor MQIsdp")]
    ProtocolName,
    /// A protocol level nobody here speaks.
    #[error("protocol level {found} is not supported")]
    ProtocolLevel {
        /// The level found.
        found: u8,
    },
    /// Will QoS or will retain without a will.
    #[error("will QoS or will retain is set without a will")]
    WillFlagsWithoutWill,
    /// A password without a user name, before MQTT 5.
    #[error("password without user name")]
    PasswordWithoutUserName,
    /// CONNACK refuses and yet says session present.
    #[error("session present is set on a refusal")]
    SessionPresentOnRefusal,
    /// A property identifier that does not exist.
    #[error("property identifier {found:#04x} does not exist")]
    UnknownProperty {
        /// The identifier found.
        found: u32,
    },
    /// A property that this packet does not have.
    #[error("{0} does not belong here")]
    MisplacedProperty(PropertyId),
    /// A property that may come once only.
    #[error("{0} comes twice")]
    DuplicateProperty(PropertyId),
    /// A property value out of its range.
    #[error("{0} is out of its range")]
    PropertyValue(PropertyId),
    /// Authentication data without an authentication method.
    #[error("authentication data without authentication method")]
    AuthDataWithoutMethod,
    /// A reason code or return code that this packet does not have.
    #[error("reason code {found:#04x} does not belong here")]
    ReasonCode {
        /// The code found.
        found: u8,
    },
}

impl Rule {
    /// The reason code with which MQTT 5 answers (5, section 4.13).
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::TooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::ProtocolName | Self::ProtocolLevel { .. } => {
                ReasonCode::UnsupportedProtocolVersion
            }
            Self::DuplicateProperty(_)
            | Self::PropertyValue(_)
            | Self::MisplacedProperty(_)
            | Self::AuthDataWithoutMethod
            | Self::EmptyList
            | Self::RetainHandling
            | Self::NoLocalShared
            | Self::TopicEmpty
            | Self::SessionPresentOnRefusal => ReasonCode::ProtocolError,
            Self::TopicHasWildcard => ReasonCode::TopicNameInvalid,
            Self::MisplacedWildcard | Self::ShareName => ReasonCode::TopicFilterInvalid,
            _ => ReasonCode::MalformedPacket,
        }
    }

    /// The numbered statement in `version`, if there is one.
    #[must_use]
    pub fn statement(self, packet: Option<PacketType>, version: Version) -> Option<&'static str> {
        use PacketType as P;
        let v5 = version.is_v5();
        let pick = |v311: &'static str, v5_id: &'static str| {
            let id = if v5 { v5_id } else { v311 };
            (!id.is_empty()).then_some(id)
        };
        match (self, packet) {
            (Self::Flags { .. }, Some(P::Subscribe)) => Some("MQTT-3.8.1-1"),
            (Self::Flags { .. }, Some(P::Unsubscribe)) => Some("MQTT-3.10.1-1"),
            (Self::Flags { .. }, Some(P::PubRel)) => Some("MQTT-3.6.1-1"),
            (Self::Flags { .. }, Some(P::Auth)) => pick("", "MQTT-3.15.1-1"),
            (Self::Flags { .. }, Some(P::Disconnect)) => Some("MQTT-3.14.1-1"),
            (Self::Flags { .. }, _) => pick("MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            (Self::QoS3, Some(P::Connect)) => pick("MQTT-3.1.2-14", "MQTT-3.1.2-12"),
            (Self::QoS3, Some(P::Subscribe)) => None,
            (Self::QoS3, _) => Some("MQTT-3.3.1-4"),
            (Self::DupOnQoS0, _) => Some("MQTT-3.3.1-2"),
            (Self::VarIntNotMinimal, _) => pick("", "MQTT-1.5.5-1"),
            (Self::PacketIdZero, _) => pick("MQTT-2.3.1-1", "MQTT-2.2.1-3"),
            (Self::IllFormedUtf8, _) => pick("MQTT-1.5.3-1", "MQTT-1.5.4-1"),
            (Self::NullCharacter, _) => pick("MQTT-1.5.3-2", "MQTT-1.5.4-2"),
            (Self::TopicEmpty, _) => Some("MQTT-4.7.3-1"),
            (Self::TopicHasWildcard, Some(P::Publish)) => Some("MQTT-3.3.2-2"),
            (Self::TopicHasWildcard, _) => pick("MQTT-4.7.1-1", "MQTT-4.7.0-1"),
            (Self::MisplacedWildcard, _) => pick("MQTT-4.7.1-2", "MQTT-4.7.1-1"),
            (Self::ShareName, _) => pick("", "MQTT-4.8.2-1"),
            (Self::NoLocalShared, _) => pick("", "MQTT-3.8.3-4"),
            (Self::EmptyList, Some(P::Subscribe)) => pick("MQTT-3.8.3-3", "MQTT-3.8.3-2"),
            (Self::EmptyList, Some(P::Unsubscribe)) => Some("MQTT-3.10.3-2"),
            (Self::ReservedBits { .. }, Some(P::Connect)) => Some("MQTT-3.1.2-3"),
            (Self::ReservedBits { .. }, Some(P::ConnAck)) => pick("MQTT-2.2.2-1", "MQTT-3.2.2-1"),
            (Self::ReservedBits { .. }, Some(P::Subscribe)) => pick("", "MQTT-3.8.3-5"),
            (Self::ProtocolName, _) => Some("MQTT-3.1.2-1"),
            (Self::ProtocolLevel { .. }, _) => Some("MQTT-3.1.2-2"),
            (Self::WillFlagsWithoutWill, _) => pick("MQTT-3.1.2-11", "MQTT-3.1.2-11"),
            (Self::PasswordWithoutUserName, _) => pick("MQTT-3.1.2-22", ""),
            (Self::SessionPresentOnRefusal, _) => pick("MQTT-3.2.2-4", "MQTT-3.2.2-6"),
            (Self::ReasonCode { .. }, Some(P::SubAck)) => Some("MQTT-3.9.3-2"),
            (Self::ReasonCode { .. }, Some(P::PubAck)) => pick("", "MQTT-3.4.2-1"),
            (Self::ReasonCode { .. }, Some(P::PubRec)) => pick("", "MQTT-3.5.2-1"),
            (Self::ReasonCode { .. }, Some(P::PubRel)) => pick("", "MQTT-3.6.2-1"),
            (Self::ReasonCode { .. }, Some(P::PubComp)) => pick("", "MQTT-3.7.2-1"),
            (Self::ReasonCode { .. }, Some(P::UnsubAck)) => pick("", "MQTT-3.11.3-2"),
            (Self::ReasonCode { .. }, Some(P::Disconnect)) => pick("", "MQTT-3.14.2-1"),
            (Self::ReasonCode { .. }, Some(P::Auth)) => pick("", "MQTT-3.15.2-1"),
            (Self::ReasonCode { .. }, Some(P::ConnAck)) => pick("MQTT-3.2.2-6", "MQTT-3.2.2-8"),
            (Self::PropertyValue(PropertyId::TopicAlias), _) => pick("", "MQTT-3.3.2-8"),
            _ => None,
        }
    }
}

/// A packet that cannot be written as asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum EncodeError {
    /// The buffer is shorter than the packet.
    #[error("the packet takes {needed} bytes, the buffer has {available}")]
    BufferTooSmall {
        /// Length of the packet.
        needed: usize,
        /// Length of the buffer given.
        available: usize,
    },
    /// Something only MQTT 5 can say.
    #[error("{0} needs MQTT 5")]
    NeedsV5(Field),
    /// A string or binary field longer than 65,535 bytes.
    #[error("{0} is longer than 65,535 bytes")]
    TooLong(Field),
    /// U+0000 in a string (3.1.1 \[MQTT-1.5.3-2\], 5 \[MQTT-1.5.4-2\]).
    #[error("{0} contains U+0000")]
    NullCharacter(Field),
    /// The packet is longer than the protocol can say (a remaining length over 268,435,455).
    #[error("the packet is longer than the protocol allows")]
    PacketTooLong,
    /// An empty list of filters or codes.
    #[error("{0} must have at least one entry")]
    EmptyList(Field),
    /// No Local together with a shared subscription (5 \[MQTT-3.8.3-4\]).
    #[error("no local is set on a shared subscription")]
    NoLocalShared,
    /// A topic name is empty and there is no topic alias.
    #[error("topic name is empty and there is no topic alias")]
    NoTopic,
    /// DUP on QoS 0.
    #[error("DUP is set on a QoS 0 message")]
    DupOnQoS0,
    /// A password without a user name, before MQTT 5 (3.1.1 \[MQTT-3.1.2-22\]).
    #[error("password without user name needs MQTT 5")]
    PasswordWithoutUserName,
    /// Session present on a refusal.
    #[error("session present is set on a refusal")]
    SessionPresentOnRefusal,
    /// A property that this packet does not have.
    #[error("{0} does not belong here")]
    MisplacedProperty(PropertyId),
    /// A property that may come once only.
    #[error("{0} comes twice")]
    DuplicateProperty(PropertyId),
    /// A property value out of its range.
    #[error("{0} is out of its range")]
    PropertyValue(PropertyId),
    /// Authentication data without an authentication method.
    #[error("authentication data without authentication method")]
    AuthDataWithoutMethod,
    /// A reason code this packet does not have in this version.
    #[error("{0} does not belong here")]
    ReasonCode(ReasonCode),
}

/// A part of a packet, for errors.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Field {
    /// The client identifier of CONNECT.
    #[error("client identifier")]
    ClientId,
    /// The user name of CONNECT.
    #[error("user name")]
    UserName,
    /// The password of CONNECT.
    #[error("password")]
    Password,
    /// The will's payload.
    #[error("will payload")]
    WillPayload,
    /// A topic name.
    #[error("topic name")]
    TopicName,
    /// The topic alias of PUBLISH.
    #[error("topic alias")]
    TopicAlias,
    /// The list of topic filters.
    #[error("list of topic filters")]
    Filters,
    /// The options of a subscription other than its QoS.
    #[error("subscription option")]
    SubscriptionOptions,
    /// The list of reason codes.
    #[error("list of reason codes")]
    ReasonCodes,
    /// A reason code.
    #[error("reason code")]
    ReasonCode,
    /// The properties.
    #[error("property")]
    Properties,
    /// The value of a property.
    #[error("{0}")]
    Property(PropertyId),
    /// The AUTH packet.
    #[error("AUTH")]
    Auth,
}
