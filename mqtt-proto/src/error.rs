//! Errors of decoding and encoding: what is wrong, at which byte, and by which statement of the standard.

use core::fmt;

use crate::num::to_u32;
use crate::version::Version;
use crate::wire::{Fault, Frame, PacketType, PropertyId, Reader, ReasonCode, layout, varint};

/// The error of bytes that are not a packet of the version in use. Its text has the packet, the byte, the rule and the
/// statement.
///
/// ```
/// use mqtt_proto::{Packet, Version, MAX_PACKET};
/// let error = Packet::decode(&[0x80, 0x10], Version::V311, MAX_PACKET).unwrap_err();
/// assert_eq!(error.to_string(), "SUBSCRIBE, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.8.1-1]");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DecodeError {
    /// The packet type; `None` if the first byte does not have a valid one.
    pub packet: Option<PacketType>,
    /// Offset of the byte that breaks the rule, counted from the first byte of the packet.
    pub at: u32,
    /// The broken rule, with the values found.
    pub rule: Rule,
    /// The version of the protocol that has the rule.
    pub version: Version,
}

impl DecodeError {
    /// Returns the number of the broken statement, such as `MQTT-3.8.1-1`. It belongs to [`Self::version`], because the two
    /// standards have different numbers. `None` if the standard has the rule without a number.
    #[must_use]
    pub fn statement(&self) -> Option<&'static str> {
        self.rule.statement(self.packet, self.version)
    }

    /// Returns the reason code with which MQTT 5 answers this error.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        self.rule.reason_code()
    }
}

/// A fault, with the place and the received part of the packet that its text needs.
struct FaultContext<'a> {
    frame: Frame,
    packet: &'a [u8],
    at: usize,
    missing: usize,
    limit: u32,
    version: Version,
}

impl DecodeError {
    /// Makes the error of a fixed header.
    #[cold]
    #[inline(never)]
    pub(crate) fn of_frame(frame: Frame, version: Version, limit: u32) -> Self {
        Self::of_packet(frame, &Reader::default(), &[frame.first], (version, limit))
    }

    /// Makes the error of a body.
    #[cold]
    #[inline(never)]
    pub(crate) fn of_body(frame: Frame, body: &Reader<'_>, input: &[u8], version: Version) -> Self {
        Self::of_packet(frame, body, input, (version, 0))
    }

    /// Makes the error of a packet: of its fixed header if `frame` has a fault, otherwise of its body. `input` starts with the
    /// packet, or the part of it that has arrived. The packet was read in this version and with this limit.
    #[must_use]
    pub fn of_packet(
        frame: Frame,
        body: &Reader<'_>,
        input: &[u8],
        (version, limit): (Version, u32),
    ) -> Self {
        let packet = input.get(..frame.needs()).unwrap_or(input);
        let absent = frame.needs().saturating_sub(packet.len());
        let in_first_byte = matches!(
            frame.fault,
            Fault::RESERVED_TYPE | Fault::FLAGS | Fault::QOS_3 | Fault::DUP_ON_QOS_0
        );
        let (fault, at, missing) = if frame.fault.is_some() {
            (frame.fault, usize::from(!in_first_byte), 0)
        } else if body.fault == Fault::TRUNCATED {
            // The field reaches beyond the end of the packet, not only beyond the part that has arrived.
            let missing = body.missing().saturating_sub(absent);
            (body.fault, frame.needs(), missing)
        } else {
            let at = packet.len().saturating_sub(body.left());
            (body.fault, at, body.missing())
        };
        let context = FaultContext {
            frame,
            packet,
            at,
            missing,
            limit,
            version,
        };
        Self::of(fault, &context)
    }

    fn of(fault: Fault, context: &FaultContext<'_>) -> Self {
        let packet = PacketType::new(context.frame.kind());
        Self {
            packet: packet.filter(|_| fault != Fault::RESERVED_TYPE),
            at: to_u32(context.at),
            rule: Rule::of(fault, context),
            version: context.version,
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

macro_rules! rules {
    ($($(#[$doc:meta])* $fault:ident $name:ident $text:literal $({ $($(#[$about:meta])* $field:ident: $type:ty,)* })? $(($id:ident))?;)*) => {
        /// The rules that the bytes of one packet can break, with the values found.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[$doc])* #[error($text)] $name $({ $($(#[$about])* $field: $type,)* })? $(($id))?,)*
        }

        impl Rule {
            /// Returns the rule as one byte.
            const fn fault(self) -> Fault {
                match self { $(Self::$name { .. } => Fault::$fault,)* }
            }

            /// Returns the rule that a fault breaks, if that rule has no values.
            pub(crate) fn plain(fault: Fault) -> Option<Self> {
                $(rules!(@ fault $fault $name $({ $($field)* })? $(($id))?);)*
                None
            }
        }
    };
    (@ $found:ident $fault:ident $name:ident) => {
        if $found == Fault::$fault {
            return Some(Self::$name);
        }
    };
    (@ $found:ident $fault:ident $name:ident $values:tt) => {};
}

rules! {
    /// Packet type 0, or 15 before MQTT 5.
    RESERVED_TYPE ReservedPacketType "packet type {found} is reserved" {
        /// The four bits found.
        found: u8,
    };
    /// Reserved flags of the fixed header.
    FLAGS Flags "flags are {found:#06b}, must be {must:#06b}" {
        /// The four bits found.
        found: u8,
        /// The four bits required.
        must: u8,
    };
    /// A quality of service of 3.
    QOS_3 QoS3 "QoS is 3, must be 0, 1 or 2";
    /// The DUP flag at QoS 0, where no message is sent again.
    DUP_ON_QOS_0 DupOnQoS0 "DUP is set on a QoS 0 message";
    /// A variable byte integer that does not end with its fourth byte.
    VARINT_LONG VarIntTooLong "variable byte integer does not end within four bytes";
    /// A variable byte integer that takes more bytes than its value needs.
    VARINT_NOT_MINIMAL VarIntNotMinimal "variable byte integer uses more bytes than it needs";
    /// The packet is larger than the receiver allows.
    TOO_LARGE TooLarge "packet of {len} bytes, the limit is {max}" {
        /// Length of the whole packet, fixed header included.
        len: u32,
        /// The limit given.
        max: u32,
    };
    /// A remaining length other than the only one that the packet type has.
    LENGTH RemainingLength "remaining length is {found}, must be {must}" {
        /// The remaining length found.
        found: u32,
        /// The only remaining length allowed.
        must: u32,
    };
    /// A field reaches beyond the end of the packet.
    TRUNCATED Truncated "the packet ends {missing} bytes before the field does" {
        /// How many bytes the field lacks.
        missing: u32,
    };
    /// A property reaches beyond the end of the properties.
    PROPERTY_TRUNCATED PropertyTruncated "the properties end {missing} bytes before the value does" {
        /// How many bytes the value lacks.
        missing: u32,
    };
    /// Bytes after the last field.
    TRAILING TrailingBytes "{count} bytes follow the last field" {
        /// How many bytes follow.
        count: u32,
    };
    /// Packet identifier 0.
    ID_ZERO PacketIdZero "packet identifier is 0";
    /// A string that is not well-formed UTF-8.
    UTF_8 IllFormedUtf8 "string is not well-formed UTF-8";
    /// U+0000 in a string.
    NULL_CHARACTER NullCharacter "string contains U+0000";
    /// An empty topic name or topic filter.
    TOPIC_EMPTY TopicEmpty "topic is empty";
    /// `+` or `#` in a topic name.
    TOPIC_WILDCARD TopicHasWildcard "topic name contains a wildcard";
    /// A wildcard in a filter that does not stand alone between separators, or `#` before the end.
    FILTER MisplacedWildcard "wildcard in a topic filter is misplaced";
    /// `$share/` without a valid share name and filter.
    SHARE_NAME ShareName "shared subscription needs $share/name/filter, the name without wildcards";
    /// No Local together with a shared subscription.
    NO_LOCAL_SHARED NoLocalShared "no local is set on a shared subscription";
    /// SUBSCRIBE or UNSUBSCRIBE without a filter, SUBACK or UNSUBACK without a code.
    EMPTY_LIST EmptyList "the list is empty, it needs at least one entry";
    /// Reserved bits inside the packet.
    RESERVED_BITS ReservedBits "reserved bits are set, byte is {found:#010b}" {
        /// The byte found.
        found: u8,
    };
    /// A retain handling of 3.
    RETAIN_HANDLING RetainHandling "retain handling is 3, must be 0, 1 or 2";
    /// A protocol name of CONNECT other than `MQTT` and `MQIsdp`.
    PROTOCOL_NAME ProtocolName "protocol name is neither MQTT nor MQIsdp";
    /// A protocol level of CONNECT that is not supported.
    PROTOCOL_LEVEL ProtocolLevel "protocol level {found} is not supported" {
        /// The level found.
        found: u8,
    };
    /// Will QoS or will retain without a will.
    WILL_FLAGS WillFlagsWithoutWill "will QoS or will retain is set without a will";
    /// A password without a user name, before MQTT 5.
    PASSWORD PasswordWithoutUserName "password without user name";
    /// A CONNACK that refuses the connection and has session present set.
    SESSION_PRESENT SessionPresentOnRefusal "session present is set on a refusal";
    /// A property identifier that does not exist.
    UNKNOWN_PROPERTY UnknownProperty "property identifier {found:#04x} does not exist" {
        /// The identifier found.
        found: u32,
    };
    /// A property that this packet does not have.
    MISPLACED_PROPERTY MisplacedProperty "{0} does not belong here"(PropertyId);
    /// A second occurrence of a property that a packet may have only once.
    DUPLICATE_PROPERTY DuplicateProperty "{0} comes twice"(PropertyId);
    /// A property value out of its range.
    PROPERTY_VALUE PropertyValue "{0} is out of its range"(PropertyId);
    /// Authentication data without an authentication method.
    AUTH_DATA AuthDataWithoutMethod "authentication data without authentication method";
    /// A reason code or return code that this packet does not have.
    REASON ReasonCode "reason code {found:#04x} does not belong here" {
        /// The code found.
        found: u8,
    };
}

impl Rule {
    /// Makes the rule that a fault breaks, with the values found in the packet.
    fn of(fault: Fault, context: &FaultContext<'_>) -> Self {
        let &FaultContext {
            frame, packet, at, ..
        } = context;
        let byte = |at: usize| packet.get(at).copied().unwrap_or_default();
        let found = byte(at);
        let property = |at| PropertyId::new(byte(at)).unwrap_or(PropertyId::UserProperty);
        let layout = layout(frame.kind(), context.version.is_v5());
        match fault {
            Fault::RESERVED_TYPE => Self::ReservedPacketType { found: found >> 4 },
            Fault::FLAGS => Self::Flags {
                found: found & 15,
                must: layout.flags(),
            },
            Fault::TOO_LARGE => Self::TooLarge {
                len: frame.total,
                max: context.limit,
            },
            Fault::LENGTH => Self::RemainingLength {
                found: frame.total.wrapping_sub(u32::from(frame.head)),
                must: layout.fixed_length().unwrap_or_default(),
            },
            Fault::PROPERTY_TRUNCATED => Self::PropertyTruncated {
                missing: to_u32(context.missing),
            },
            Fault::TRAILING => Self::TrailingBytes {
                count: to_u32(packet.len().saturating_sub(at)),
            },
            Fault::RESERVED_BITS => Self::ReservedBits { found },
            Fault::PROTOCOL_LEVEL => Self::ProtocolLevel { found },
            Fault::REASON => Self::ReasonCode { found },
            Fault::UNKNOWN_PROPERTY => {
                let (found, _) = varint(packet.get(at..).unwrap_or_default());
                Self::UnknownProperty { found }
            }
            Fault::MISPLACED_PROPERTY => Self::MisplacedProperty(property(at)),
            Fault::DUPLICATE_PROPERTY => Self::DuplicateProperty(property(at)),
            // The identifier is the byte before the value.
            Fault::PROPERTY_VALUE => Self::PropertyValue(property(at.wrapping_sub(1))),
            plain => Self::plain(plain).unwrap_or_else(|| Self::Truncated {
                missing: to_u32(context.missing),
            }),
        }
    }

    /// Returns the reason code with which MQTT 5 answers (5, section 4.13).
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match ReasonCode::new(self.fault().reason()) {
            Some(reason) => reason,
            None => ReasonCode::MalformedPacket,
        }
    }

    /// Returns the number of the statement that `packet` breaks in `version`. `None` if the standard has the rule without a
    /// number.
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

macro_rules! encode_errors {
    ($($(#[$doc:meta])* $name:ident $(($value:ident))? $text:literal;)*) => {
        /// The error of a packet that cannot be encoded.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        pub enum EncodeError {
            $($(#[$doc])* #[error($text)] $name $(($value))?,)*
            /// The buffer is shorter than the packet.
            #[error("the packet takes {needed} bytes, the buffer has {available}")]
            BufferTooSmall {
                /// Length of the packet.
                needed: usize,
                /// Length of the buffer given.
                available: usize,
            },
        }

        /// An [`EncodeError`] in two bytes, which are passed in a register while the packet is written.
        #[derive(Clone, Copy, Debug)]
        #[non_exhaustive]
        pub enum Unencodable {
            $($(#[$doc])* $name $(($value))?,)*
        }

        impl From<Unencodable> for EncodeError {
            fn from(error: Unencodable) -> Self {
                match error {
                    $(encode_errors!(@ Unencodable value $name $($value)?) => {
                        encode_errors!(@ Self value $name $($value)?)
                    })*
                }
            }
        }
    };
    (@ $enum:ident $value:ident $name:ident) => { $enum::$name };
    (@ $enum:ident $value:ident $name:ident $type:ident) => { $enum::$name($value) };
}

encode_errors! {
    /// Content that only MQTT 5 can encode.
    NeedsV5(Field) "{0} needs MQTT 5";
    /// A string or binary field longer than 65,535 bytes.
    TooLong(Field) "{0} is longer than 65,535 bytes";
    /// U+0000 in a string.
    NullCharacter(Field) "{0} contains U+0000";
    /// The packet is longer than the protocol allows (a remaining length over 268,435,455).
    PacketTooLong "the packet is longer than the protocol allows";
    /// An empty list of filters or codes.
    EmptyList(Field) "{0} must have at least one entry";
    /// No Local together with a shared subscription.
    NoLocalShared "no local is set on a shared subscription";
    /// A topic name is empty and there is no topic alias.
    NoTopic "topic name is empty and there is no topic alias";
    /// DUP on QoS 0.
    DupOnQoS0 "DUP is set on a QoS 0 message";
    /// A password without a user name, before MQTT 5.
    PasswordWithoutUserName "password without user name needs MQTT 5";
    /// Session present on a refusal.
    SessionPresentOnRefusal "session present is set on a refusal";
    /// A property that this packet does not have.
    MisplacedProperty(PropertyId) "{0} does not belong here";
    /// A second occurrence of a property that a packet may have only once.
    DuplicateProperty(PropertyId) "{0} comes twice";
    /// A property value out of its range.
    PropertyValue(PropertyId) "{0} is out of its range";
    /// Authentication data without an authentication method.
    AuthDataWithoutMethod "authentication data without authentication method";
    /// A reason code that this packet does not have in this version.
    ReasonCode(ReasonCode) "{0} does not belong here";
}

/// A part of a packet, named in errors.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
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
    /// The payload of a will.
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
