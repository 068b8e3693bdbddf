//! What a peer can do wrong, in one byte.

/// A fault, or none. The typed decoder says it with its values as [`crate::Rule`].
///
/// The number tells the reason code with which MQTT 5 answers: up to 31 it is 0x81 (malformed packet), up to 63 it is 0x82
/// (protocol error), and from 64 on the lower six bits are added to 0x80. Bit 7 sets apart two faults with one reason code.
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
    /// Reserved flags of the fixed header.
    FLAGS = 2;
    /// QoS 3.
    QOS_3 = 3;
    /// DUP at QoS 0.
    DUP_ON_QOS_0 = 4;
    /// A variable byte integer that does not end with its fourth byte.
    VARINT_LONG = 5;
    /// A variable byte integer that fewer bytes could say.
    VARINT_NOT_MINIMAL = 6;
    /// A packet whose length is fixed has another one.
    LENGTH = 7;
    /// A field reaches beyond the end of the packet.
    TRUNCATED = 8;
    /// A property reaches beyond the end of the properties.
    PROPERTY_TRUNCATED = 9;
    /// Bytes behind the last field.
    TRAILING = 10;
    /// Packet identifier 0.
    ID_ZERO = 11;
    /// Not UTF-8.
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
    /// A property that may come once comes again.
    DUPLICATE_PROPERTY = 33;
    /// The value of a property is out of its range.
    PROPERTY_VALUE = 34;
    /// Authentication data without an authentication method.
    AUTH_DATA = 35;
    /// No filter, or no code.
    EMPTY_LIST = 36;
    /// Retain handling 3.
    RETAIN_HANDLING = 37;
    /// No Local on a shared subscription.
    NO_LOCAL_SHARED = 38;
    /// A topic without a character.
    TOPIC_EMPTY = 39;
    /// Session present on a refusal.
    SESSION_PRESENT = 40;
    /// A packet that must not come now, or not to this side.
    UNEXPECTED = 41;
    /// An acknowledgement of the other quality of service.
    WRONG_ACK = 42;
    /// A session is present that this side does not have.
    UNKNOWN_SESSION = 43;

    /// A protocol name other than `MQTT` and `MQIsdp`.
    PROTOCOL_NAME = 0x44;
    /// A protocol level that nobody here speaks.
    PROTOCOL_LEVEL = 0xC4;
    /// Silence for one and a half keep-alives.
    KEEP_ALIVE = 0x4D;
    /// A misplaced wildcard in a topic filter.
    FILTER = 0x4F;
    /// `$share/` without a proper name and filter.
    SHARE_NAME = 0xCF;
    /// A wildcard in a topic name.
    TOPIC_WILDCARD = 0x50;
    /// More messages at once than the receive maximum allows.
    RECEIVE_MAXIMUM = 0x53;
    /// A topic alias of 0 or beyond the maximum, or one that stands for nothing.
    ALIAS = 0x54;
    /// A packet beyond the limit.
    TOO_LARGE = 0x55;
}

impl Fault {
    /// Whether there is no fault.
    #[must_use]
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether there is a fault.
    #[must_use]
    #[inline]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// The number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The fault with this number, as [`Self::get`] gave it.
    #[must_use]
    #[inline]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The reason code with which MQTT 5 answers (5, section 4.13).
    #[must_use]
    pub const fn reason(self) -> u8 {
        match self.0 {
            0..=31 => 0x81,
            32..=63 => 0x82,
            own => (own & 0x3F) | 0x80,
        }
    }
}
