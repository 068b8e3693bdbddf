//! Properties of MQTT 5 (section 2.2.2). Table 2-4 of the standard is written here once. The identifiers, the enum, the
//! getters, the checks and the layouts of the values are generated from it.

use core::fmt;

use super::fault::Fault;
use super::packet_type::PacketType;
use super::packet_type::kind::PUBLISH;
use super::reader::{Block, Reader};
use crate::num::{low_half, to_usize};

/// Passes rows of the table to a macro: `all` of them, those `listed` in [`crate::Properties`] (all but the topic alias, which
/// is a field of PUBLISH), or the `single` ones, which a packet has at most once.
///
/// The columns of a row: documentation, number, variant with its values, getter, name, kind, packets, and whether a will may
/// have it.
macro_rules! property_table {
    ($which:ident $then:ident) => {
        property_table! { @ $which $then {
            /// Whether the payload is UTF-8 text.
            0x01 PayloadFormatIndicator(is_text: bool) payload_format_indicator "payload format indicator" Bool [Publish] + WILL;
            /// Lifetime of the message in seconds.
            0x02 MessageExpiryInterval(seconds: u32) message_expiry_interval "message expiry interval" U32 [Publish] + WILL;
            /// The content type of the payload, defined by the application.
            0x03 ContentType(text: &'a str) content_type "content type" Text [Publish] + WILL;
            /// The topic for a response to this message.
            0x08 ResponseTopic(topic: TopicName<'a>) response_topic "response topic" Topic [Publish] + WILL;
            /// Data that lets the requester assign a response to its request.
            0x09 CorrelationData(bytes: &'a [u8]) correlation_data "correlation data" Binary [Publish] + WILL;
            /// How long the session outlives its connection, in seconds; 0xFFFF_FFFF means that it does not expire.
            0x11 SessionExpiryInterval(seconds: u32) session_expiry_interval "session expiry interval" U32 [Connect ConnAck Disconnect];
            /// The client identifier that the server chose.
            0x12 AssignedClientIdentifier(text: &'a str) assigned_client_identifier "assigned client identifier" Text [ConnAck];
            /// The keep-alive that the server demands, in seconds.
            0x13 ServerKeepAlive(seconds: u16) server_keep_alive "server keep alive" U16 [ConnAck];
            /// Name of the authentication method.
            0x15 AuthenticationMethod(text: &'a str) authentication_method "authentication method" Text [Connect ConnAck Auth];
            /// Data of the authentication method.
            0x16 AuthenticationData(bytes: &'a [u8]) authentication_data "authentication data" Binary [Connect ConnAck Auth];
            /// Whether reason strings and user properties are wanted on failures.
            0x17 RequestProblemInformation(wanted: bool) request_problem_information "request problem information" Bool [Connect];
            /// Seconds between the end of the connection and the will.
            0x18 WillDelayInterval(seconds: u32) will_delay_interval "will delay interval" U32 [] + WILL;
            /// Whether response information is wanted in CONNACK.
            0x19 RequestResponseInformation(wanted: bool) request_response_information "request response information" Bool [Connect];
            /// The basis of response topics.
            0x1A ResponseInformation(text: &'a str) response_information "response information" Text [ConnAck];
            /// Another server to use.
            0x1C ServerReference(text: &'a str) server_reference "server reference" Text [ConnAck Disconnect];
            /// A text for people that explains the reason code.
            0x1F ReasonString(text: &'a str) reason_string "reason string" Text
                [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth];
            /// How many QoS 1 and 2 messages without an acknowledgement the sender of this accepts, 1 to 65,535.
            0x21 ReceiveMaximum(messages: u16) receive_maximum "receive maximum" U16NonZero [Connect ConnAck];
            /// The highest topic alias that the sender of this accepts; 0 if it accepts none.
            0x22 TopicAliasMaximum(aliases: u16) topic_alias_maximum "topic alias maximum" U16 [Connect ConnAck];
            /// The highest QoS at which the server accepts messages: `false` is 0, `true` is 1.
            0x24 MaximumQoS(is_one: bool) maximum_qos "maximum QoS" Bool [ConnAck];
            /// Whether the server supports retained messages.
            0x25 RetainAvailable(available: bool) retain_available "retain available" Bool [ConnAck];
            /// The largest packet that the sender of this accepts, in bytes, at least 1.
            0x27 MaximumPacketSize(bytes: u32) maximum_packet_size "maximum packet size" U32NonZero [Connect ConnAck];
            /// Whether the server supports wildcards in topic filters.
            0x28 WildcardSubscriptionAvailable(available: bool) wildcard_subscription_available "wildcard subscription available" Bool
                [ConnAck];
            /// Whether the server supports subscription identifiers.
            0x29 SubscriptionIdentifierAvailable(available: bool) subscription_identifier_available "subscription identifier available" Bool
                [ConnAck];
            /// Whether the server supports shared subscriptions.
            0x2A SharedSubscriptionAvailable(available: bool) shared_subscription_available "shared subscription available" Bool [ConnAck];
        } {
            /// The number that the client gave a subscription, 1 to 268,435,455.
            0x0B SubscriptionIdentifier(number: u32) subscription_identifiers "subscription identifier" VarInt [Publish Subscribe];
            /// A name and a value, defined by the application.
            0x26 UserProperty(name: &'a str, value: &'a str) user_properties "user property" Pair
                [Connect ConnAck Publish PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck Disconnect Auth] + WILL;
        } {
            /// The number that stands for a topic, 1 to 65,535.
            0x23 TopicAlias(alias: u16) topic_alias "topic alias" U16NonZero [Publish];
        } }
    };
    (@ all $then:ident { $($single:tt)* } { $($many:tt)* } { $($alias:tt)* }) => { $then! { $($single)* $($many)* $($alias)* } };
    (@ listed $then:ident { $($single:tt)* } { $($many:tt)* } $alias:tt) => { $then! { $($single)* $($many)* } };
    (@ single $then:ident { $($single:tt)* } $many:tt $alias:tt) => { $then! { $($single)* } };
}

pub(crate) use property_table;

/// The layout and the range of a property's value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PropertyKind {
    /// A byte, 0 or 1.
    Bool,
    /// Two bytes.
    U16,
    /// Two bytes, not 0.
    U16NonZero,
    /// Four bytes.
    U32,
    /// Four bytes, not 0.
    U32NonZero,
    /// A variable byte integer, not 0.
    VarInt,
    /// A string.
    Text,
    /// A topic name.
    Topic,
    /// Bytes after a length of two bytes.
    Binary,
    /// Two strings.
    Pair,
}

// The layouts of values. For the first three, the length in bytes is two to the power of the number.
pub(super) const BYTE: u8 = 0;
pub(super) const TWO: u8 = 1;
pub(super) const FOUR: u8 = 2;
pub(super) const NUMBER: u8 = 3;
const BINARY: u8 = 4;
const TEXT: u8 = 5;
const NAME: u8 = 6;
const PAIR: u8 = 7;

impl PropertyKind {
    const fn form(self) -> u8 {
        match self {
            Self::Bool => BYTE,
            Self::U16 | Self::U16NonZero => TWO,
            Self::U32 | Self::U32NonZero => FOUR,
            Self::VarInt => NUMBER,
            Self::Binary => BINARY,
            Self::Text => TEXT,
            Self::Topic => NAME,
            Self::Pair => PAIR,
        }
    }

    /// Returns whether the value is a number. Flags are numbers, too.
    #[must_use]
    pub const fn is_number(self) -> bool {
        self.form() <= NUMBER
    }

    /// Returns whether the value is a number and `number` is in its range.
    #[inline]
    pub(crate) const fn holds(self, number: u32) -> bool {
        let largest = match self {
            Self::Bool => 1,
            Self::U16 | Self::U16NonZero => 0xFFFF,
            Self::VarInt => 0x0FFF_FFFF,
            _ => u32::MAX,
        };
        self.is_number() && number <= largest && (number > 0 || !self.is_non_zero())
    }

    const fn is_non_zero(self) -> bool {
        matches!(self, Self::U16NonZero | Self::U32NonZero | Self::VarInt)
    }
}

/// The bit of the will properties in a set of packets. The bit of any other packet is its packet type.
const WILL: u16 = 1;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $id:literal $name:ident($($value:tt)*)
        $getter:ident $text:literal $kind:ident [$($packet:ident)*] $(+ $will:ident)?;)*) => {
        /// The 27 property identifiers.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub enum PropertyId {
            $($(#[$doc])* $name = $id,)*
        }

        /// How many properties there are.
        const COUNT: usize = [$($id),*].len();

        impl PropertyId {
            /// Returns the identifier with this number. `None` if there is no such property.
            #[must_use]
            #[inline]
            pub const fn new(value: u8) -> Option<Self> {
                Some(match value { $($id => Self::$name,)* _ => return None })
            }

            /// Returns the layout and the range of its value.
            #[must_use]
            pub const fn kind(self) -> PropertyKind {
                match self { $(Self::$name => PropertyKind::$kind,)* }
            }

            const fn packets(self) -> u16 {
                match self { $(Self::$name => 0 $(| 1 << PacketType::$packet.get())* $(| $will)?,)* }
            }
        }

        impl fmt::Display for PropertyId {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

property_table!(all identifiers);

impl PropertyId {
    /// Every identifier, in the order of the numbers.
    pub const ALL: &'static [Self] = &Self::IN_ORDER;

    #[allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "evaluated by the compiler"
    )]
    const IN_ORDER: [Self; COUNT] = {
        let mut all = [Self::PayloadFormatIndicator; COUNT];
        let (mut number, mut count) = (0, 0);
        while count < COUNT {
            if let Some(id) = Self::new(number) {
                all[count] = id;
                count += 1;
            }
            number += 1;
        }
        all
    };

    /// Returns the number.
    #[must_use]
    #[inline]
    #[allow(clippy::as_conversions, reason = "the variants have the numbers")]
    pub const fn get(self) -> u8 {
        self as u8
    }

    /// Returns the bit of the property in the sets of this module. This is a look-up in [`ENTRIES`].
    #[inline]
    pub(crate) fn bit(self) -> u32 {
        bit_of(entry_of(u32::from(self.get())))
    }

    /// Returns the same bit for constants, where it counts the identifiers.
    const fn const_bit(self) -> u32 {
        let (mut bit, mut rest) = (1, Self::ALL);
        while let Some((first, tail)) = rest.split_first() {
            if first.get() == self.get() {
                break;
            }
            bit <<= 1;
            rest = tail;
        }
        bit
    }
}

use tables::{ALLOWED, ENTRIES, NON_ZERO};

#[allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
mod tables {
    use super::{COUNT, PropertyId};

    /// One more than the highest number.
    const END: usize = PropertyId::ALL[COUNT - 1].get() as usize + 1;

    /// By number: the layout of the value in the upper three bits, and the number of its bit in the lower five. A number without a
    /// property has bit 31, which no packet allows.
    pub(super) static ENTRIES: [u8; END] = {
        let mut table = [0xFF; END];
        let mut index = 0;
        while index < COUNT {
            let id = PropertyId::ALL[index];
            table[id.get() as usize] = id.kind().form() << 5 | index as u8;
            index += 1;
        }
        table
    };

    /// By packet type: the set of properties that the packet may have. Index 0 is for the will.
    pub(super) static ALLOWED: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < COUNT {
            let mut packet = 0;
            while packet < 16 {
                if PropertyId::ALL[index].packets() & 1 << packet != 0 {
                    table[packet] |= 1 << index;
                }
                packet += 1;
            }
            index += 1;
        }
        table
    };

    /// The properties whose value must not be 0.
    pub(super) const NON_ZERO: u32 = {
        let (mut set, mut index) = (0, 0);
        while index < COUNT {
            if PropertyId::ALL[index].kind().is_non_zero() {
                set |= 1 << index;
            }
            index += 1;
        }
        set
    };
}

const USER: u32 = PropertyId::UserProperty.const_bit();
const SUBSCRIPTION: u32 = PropertyId::SubscriptionIdentifier.const_bit();
const AUTH_METHOD: u32 = PropertyId::AuthenticationMethod.const_bit();
const AUTH_DATA: u32 = PropertyId::AuthenticationData.const_bit();
const TOPIC_ALIAS: u32 = PropertyId::TopicAlias.const_bit();

/// Returns the properties that a packet may have. `packet` is a packet type, or 0 for a will.
pub(crate) fn allowed(packet: u8) -> u32 {
    ALLOWED.get(usize::from(packet)).copied().unwrap_or(0)
}

/// Returns the properties that a packet may have only once. PUBLISH alone may have several subscription identifiers (5, section
/// 3.3.2.3.8).
pub(crate) const fn once(packet: u8) -> u32 {
    if packet == PUBLISH {
        !(USER | SUBSCRIPTION)
    } else {
        !USER
    }
}

/// Returns whether a set of properties has authentication data but no method (5, section 3.1.2.11.10).
pub(crate) const fn lacks_method(seen: u32) -> bool {
    seen & (AUTH_DATA | AUTH_METHOD) == AUTH_DATA
}

#[inline]
fn entry_of(id: u32) -> u8 {
    let entry = usize::try_from(id).ok().and_then(|id| ENTRIES.get(id));
    entry.copied().unwrap_or(0xFF)
}

#[inline]
const fn bit_of(entry: u8) -> u32 {
    1 << (entry & 31)
}

/// Returns the layout of a property's value. For an identifier that does not exist it is that of a pair.
#[inline]
pub(super) fn form_of(id: u8) -> u8 {
    entry_of(u32::from(id)) >> 5
}

/// A property of a block that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The identifier.
    pub id: PropertyId,
    /// The value, if it is a number.
    pub number: u32,
    /// The value, if it is text or bytes; the value of a user property.
    pub bytes: &'a [u8],
    /// The name of a user property.
    pub name: &'a [u8],
}

impl Block<'_> {
    /// Returns whether the block has this property.
    #[must_use]
    #[inline]
    pub fn has(&self, id: PropertyId) -> bool {
        self.seen & id.bit() != 0
    }
}

impl<'a> Reader<'a> {
    /// Reads the next property of a block that was checked.
    pub fn next_property(&mut self) -> Option<Entry<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let byte = self.u8();
        let (mut number, mut bytes, mut name) = (0, &[][..], &[][..]);
        match form_of(byte) {
            NUMBER => number = self.varint(),
            form @ ..=FOUR => number = self.number(1 << form),
            form => {
                // 5 [MQTT-1.5.7-1]: both are text.
                if form == PAIR {
                    name = self.binary();
                }
                bytes = self.binary();
            }
        }
        Some(Entry {
            id: PropertyId::new(byte)?,
            number,
            bytes,
            name,
        })
    }

    /// Returns the first property with this identifier and leaves the reader behind it.
    pub fn property(&mut self, id: PropertyId) -> Option<Entry<'a>> {
        while let Some(entry) = self.next_property() {
            if entry.id == id {
                return Some(entry);
            }
        }
        None
    }

    /// Reads the length and the block of a packet's properties, and checks them: every identifier exists, is allowed in this
    /// packet and occurs as often as allowed, and every value is complete and in its range.
    #[inline]
    pub fn properties(&mut self, packet: u8) -> Block<'a> {
        let len = self.varint();
        let bytes = self.take(to_usize(len));
        if bytes.is_empty() {
            return Block::default();
        }
        let mut inside = Reader::new(bytes);
        let (seen, alias) = inside.each_property(packet);
        if inside.fault.is_some() {
            self.fail_inside(inside);
        }
        Block { bytes, alias, seen }
    }

    /// Checks the rest as properties. Returns the set of those found, and the topic alias.
    #[inline(never)]
    fn each_property(&mut self, packet: u8) -> (u32, u16) {
        let mut body = *self;
        let allowed = allowed(packet);
        let once = once(packet);
        let (mut seen, mut alias) = (0, 0);
        while !body.rest.is_empty() {
            let start = body.rest.len();
            let entry = entry_of(body.varint());
            let bit = bit_of(entry);
            if allowed & bit == 0 {
                body.fail_at(start, unknown_or_misplaced(entry));
                break;
            }
            if seen & bit & once != 0 {
                body.fail_at(start, Fault::DUPLICATE_PROPERTY);
                break;
            }
            seen |= bit;
            let start = body.rest.len();
            let form = entry >> 5;
            let number = match form {
                NUMBER => body.varint(),
                ..=FOUR => body.number(1 << form),
                BINARY => {
                    body.binary();
                    continue;
                }
                // 5 [MQTT-3.3.2-13] and [MQTT-3.3.2-14]: the response topic.
                NAME => {
                    body.name();
                    continue;
                }
                // 5 [MQTT-3.3.2-19]: the content type is among these.
                _ => {
                    if form == PAIR {
                        body.text();
                    }
                    body.text();
                    continue;
                }
            };
            if (form == BYTE && number > 1) || (bit & NON_ZERO != 0 && number == 0) {
                body.fail_at(start, Fault::PROPERTY_VALUE);
            }
            if bit == TOPIC_ALIAS {
                alias = low_half(number);
            }
        }
        if lacks_method(seen) {
            body.fail(Fault::AUTH_DATA);
        }
        *self = body;
        (seen, alias)
    }
}

#[cold]
const fn unknown_or_misplaced(entry: u8) -> Fault {
    if entry == 0xFF {
        Fault::UNKNOWN_PROPERTY
    } else {
        Fault::MISPLACED_PROPERTY
    }
}
