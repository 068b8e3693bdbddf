//! The errors of a received packet, in one byte.

/// The error of a received packet, or none. The typed decoder reports it as [`crate::Rule`], with values and a text.
///
/// The number determines the reason code with which MQTT 5 answers: up to 31 it is 0x81 (malformed packet), from 32 to 63 it is
/// 0x82 (protocol error), and from 64 on it is 0x80 plus the lower six bits. Bit 7 distinguishes two faults with the same
/// reason code.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fault(u8);

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $number:expr;)*) => {
        impl Fault {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
        }
    };
}

faults! {
    /// There is no fault.
    NONE = 0;

    /// Packet type 0, or 15 before MQTT 5.
    RESERVED_TYPE = 1;
    /// Flags of the fixed header that the packet type does not have.
    FLAGS = 2;
    /// QoS 3.
    QOS_3 = 3;
    /// DUP at QoS 0.
    DUP_ON_QOS_0 = 4;
    /// A variable byte integer that does not end with its fourth byte.
    VARINT_LONG = 5;
    /// A variable byte integer that takes more bytes than its value needs.
    VARINT_NOT_MINIMAL = 6;
    /// A remaining length other than the only one that the packet type has.
    LENGTH = 7;
    /// A field reaches beyond the end of the packet.
    TRUNCATED = 8;
    /// A property reaches beyond the end of the properties.
    PROPERTY_TRUNCATED = 9;
    /// Bytes after the last field.
    TRAILING = 10;
    /// Packet identifier 0.
    ID_ZERO = 11;
    /// A string that is not well-formed UTF-8.
    UTF_8 = 12;
    /// U+0000 in a string.
    NULL_CHARACTER = 13;
    /// Reserved bits of CONNECT, CONNACK or the options of a subscription.
    RESERVED_BITS = 14;
    /// Will QoS or will retain without a will.
    WILL_FLAGS = 15;
    /// A password without a user name, before MQTT 5.
    PASSWORD = 16;
    /// A property identifier that does not exist.
    UNKNOWN_PROPERTY = 17;
    /// A reason code that the packet does not have.
    REASON = 18;

    /// A property that the packet does not have.
    MISPLACED_PROPERTY = 32;
    /// A second occurrence of a property that a packet may have only once.
    DUPLICATE_PROPERTY = 33;
    /// The value of a property is out of its range.
    PROPERTY_VALUE = 34;
    /// Authentication data without an authentication method.
    AUTH_DATA = 35;
    /// A list without filters or codes.
    EMPTY_LIST = 36;
    /// A retain handling of 3.
    RETAIN_HANDLING = 37;
    /// No Local on a shared subscription.
    NO_LOCAL_SHARED = 38;
    /// An empty topic name or topic filter.
    TOPIC_EMPTY = 39;
    /// A CONNACK that refuses the connection and has session present set.
    SESSION_PRESENT = 40;
    /// A packet that is not valid now, or not for this side.
    UNEXPECTED = 41;
    /// An acknowledgement that belongs to the other quality of service.
    WRONG_ACK = 42;
    /// A CONNACK with session present, where the client has no session.
    UNKNOWN_SESSION = 43;

    /// A protocol name other than `MQTT` and `MQIsdp`.
    PROTOCOL_NAME = 0x44;
    /// A protocol level that is not supported.
    PROTOCOL_LEVEL = 0xC4;
    /// No packet arrived for one and a half times the keep-alive.
    KEEP_ALIVE = 0x4D;
    /// A misplaced wildcard in a topic filter.
    FILTER = 0x4F;
    /// `$share/` without a valid share name and filter.
    SHARE_NAME = 0xCF;
    /// A wildcard in a topic name.
    TOPIC_WILDCARD = 0x50;
    /// More messages without an acknowledgement than the receive maximum allows.
    RECEIVE_MAXIMUM = 0x53;
    /// A topic alias that is 0, above the maximum, or not assigned to a topic.
    ALIAS = 0x54;
    /// A packet longer than the limit.
    TOO_LARGE = 0x55;
}

impl Fault {
    /// Returns whether there is no fault.
    #[must_use]
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns whether there is a fault.
    #[must_use]
    #[inline]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Returns the number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the fault with this number, the reverse of [`Self::get`].
    #[must_use]
    #[inline]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Returns the reason code with which MQTT 5 answers (5, section 4.13).
    #[must_use]
    pub const fn reason(self) -> u8 {
        match self.0 {
            0..=31 => 0x81,
            32..=63 => 0x82,
            own => (own & 0x3F) | 0x80,
        }
    }
}
