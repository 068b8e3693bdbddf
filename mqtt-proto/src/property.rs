//! Properties of MQTT 5 (section 2.2.2): a length, then pairs of identifier and value. The table below is the standard's
//! table 2-4; everything else follows from it.

use core::fmt;

use crate::error::{EncodeError, Field, Rule};
use crate::header::PacketType;
use crate::id::TopicAlias;
use crate::list::sealed::Take;
use crate::reader::{Read, Reader, checked_str};
use crate::sink::Sink;
use crate::topic::{self, TopicName};
use crate::varint::VarInt;

/// How a value is laid out, and what range it has.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    /// A byte, 0 or 1.
    Bool,
    U16,
    U16NonZero,
    U32,
    U32NonZero,
    /// A variable byte integer, not 0.
    VarInt,
    Text,
    Topic,
    Binary,
    /// Two strings; the only kind that may repeat everywhere.
    Pair,
}

/// What a property says, without a look at which it is.
pub(crate) enum Value<'a> {
    Number(u32),
    Bytes(&'a [u8]),
    Pair,
}

/// The identifier of a property and the length of its value, where that is text or bytes.
const BEFORE_BYTES: usize = 3;

/// A property as it stands in a block that was checked.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub(crate) id: PropertyId,
    kind: Kind,
    /// Its value; 0 if that is not a number.
    pub(crate) number: u32,
    /// All of it, identifier included.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Raw<'a> {
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    fn take(rest: &mut Reader<'a, '_>) -> Option<Self> {
        let before = rest.rest();
        let (id, kind, _) = TABLE.get(usize::from(rest.u8().ok()?)).copied().flatten()?;
        let number = kind.number(rest).ok()?;
        let len = before.len().saturating_sub(rest.rest().len());
        let bytes = before.get(..len)?;
        Some(Self {
            id,
            kind,
            number,
            bytes,
        })
    }

    pub(crate) fn value(&self) -> Value<'a> {
        match self.kind {
            Kind::Text | Kind::Topic | Kind::Binary => {
                Value::Bytes(self.bytes.get(BEFORE_BYTES..).unwrap_or_default())
            }
            Kind::Pair => Value::Pair,
            _ => Value::Number(self.number),
        }
    }

    /// Topic aliases belong to PUBLISH itself.
    pub(crate) fn is_listed(&self) -> bool {
        self.id != PropertyId::TopicAlias
    }
}

/// The properties of a block that was checked, not looked at closer than it takes to tell them apart.
pub(crate) fn raw<'a>(block: &'a [u8]) -> impl Iterator<Item = Raw<'a>> {
    let mut rest = Reader::checked(block);
    core::iter::from_fn(move || Raw::take(&mut rest))
}

impl Kind {
    /// Reads a value that was checked. What is not a number is passed over and says 0.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    fn number(self, bytes: &mut Reader<'_, '_>) -> Read<u32> {
        match self {
            Self::Bool => bytes.u8().map(u32::from),
            Self::U16 | Self::U16NonZero => bytes.u16().map(u32::from),
            Self::U32 | Self::U32NonZero => bytes.u32(),
            Self::VarInt => bytes.varint(),
            Self::Text | Self::Topic | Self::Binary => bytes.binary().map(|_| 0),
            Self::Pair => {
                bytes.binary()?;
                bytes.binary().map(|_| 0)
            }
        }
    }
}

/// Places a property can stand in: the bit of a packet type is its number, bit 0 is the will.
const fn places(list: &[PacketType]) -> u16 {
    let mut set = 0;
    let mut rest = list;
    while let Some((first, tail)) = rest.split_first() {
        set |= 1 << first.get();
        rest = tail;
    }
    set
}

const WILL: u16 = 1;

macro_rules! properties {
    ($($(#[$doc:meta])* $id:literal $name:ident $text:literal $kind:ident [$($packet:ident)*] $(+ $will:ident)?;)*) => {
        /// The 27 property identifiers.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub enum PropertyId {
            $($(#[$doc])* $name = $id,)*
        }

        impl PropertyId {
            /// Every identifier, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The identifier with this number.
            #[must_use]
            pub const fn new(value: u8) -> Option<Self> {
                Some(match value { $($id => Self::$name,)* _ => return None })
            }

            const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            const fn places(self) -> u16 {
                match self { $(Self::$name => places(&[$(PacketType::$packet),*]) $(| $will)?,)* }
            }
        }

        impl fmt::Display for PropertyId {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

properties! {
    /// 0x01
    0x01 PayloadFormatIndicator "payload format indicator" Bool [Publish] + WILL;
    /// 0x02
    0x02 MessageExpiryInterval "message expiry interval" U32 [Publish] + WILL;
    /// 0x03
    0x03 ContentType "content type" Text [Publish] + WILL;
    /// 0x08
    0x08 ResponseTopic "response topic" Topic [Publish] + WILL;
    /// 0x09
    0x09 CorrelationData "correlation data" Binary [Publish] + WILL;
    /// 0x0B
    0x0B SubscriptionIdentifier "subscription identifier" VarInt [Publish Subscribe];
    /// 0x11
    0x11 SessionExpiryInterval "session expiry interval" U32 [Connect ConnAck Disconnect];
    /// 0x12
    0x12 AssignedClientIdentifier "assigned client identifier" Text [ConnAck];
    /// 0x13
    0x13 ServerKeepAlive "server keep alive" U16 [ConnAck];
    /// 0x15
    0x15 AuthenticationMethod "authentication method" Text [Connect ConnAck Auth];
    /// 0x16
    0x16 AuthenticationData "authentication data" Binary [Connect ConnAck Auth];
    /// 0x17
    0x17 RequestProblemInformation "request problem information" Bool [Connect];
    /// 0x18
    0x18 WillDelayInterval "will delay interval" U32 [] + WILL;
    /// 0x19
    0x19 RequestResponseInformation "request response information" Bool [Connect];
    /// 0x1A
    0x1A ResponseInformation "response information" Text [ConnAck];
    /// 0x1C
    0x1C ServerReference "server reference" Text [ConnAck Disconnect];
    /// 0x1F
    0x1F ReasonString "reason string" Text [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth];
    /// 0x21
    0x21 ReceiveMaximum "receive maximum" U16NonZero [Connect ConnAck];
    /// 0x22
    0x22 TopicAliasMaximum "topic alias maximum" U16 [Connect ConnAck];
    /// 0x23
    0x23 TopicAlias "topic alias" U16NonZero [Publish];
    /// 0x24
    0x24 MaximumQoS "maximum QoS" Bool [ConnAck];
    /// 0x25
    0x25 RetainAvailable "retain available" Bool [ConnAck];
    /// 0x26
    0x26 UserProperty "user property" Pair [Connect ConnAck Publish PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck Disconnect Auth] + WILL;
    /// 0x27
    0x27 MaximumPacketSize "maximum packet size" U32NonZero [Connect ConnAck];
    /// 0x28
    0x28 WildcardSubscriptionAvailable "wildcard subscription available" Bool [ConnAck];
    /// 0x29
    0x29 SubscriptionIdentifierAvailable "subscription identifier available" Bool [ConnAck];
    /// 0x2A
    0x2A SharedSubscriptionAvailable "shared subscription available" Bool [ConnAck];
}

impl PropertyId {
    /// The number.
    #[must_use]
    #[inline]
    #[allow(clippy::as_conversions, reason = "the variants have the numbers")]
    pub const fn get(self) -> u8 {
        self as u8
    }

    /// One bit for each.
    const fn bit(self) -> u64 {
        #[allow(clippy::as_conversions, reason = "a widening; `From` is not const")]
        1_u64.wrapping_shl(self as u32)
    }
}

/// The table by number, so that one look-up serves each property read.
static TABLE: [Option<(PropertyId, Kind, u16)>; 0x2B] = {
    let mut table = [None; 0x2B];
    let mut rest = PropertyId::ALL;
    while let Some((id, tail)) = rest.split_first() {
        #[allow(
            clippy::as_conversions,
            clippy::indexing_slicing,
            reason = "evaluated by the compiler; all are below 0x2B"
        )]
        {
            table[id.get() as usize] = Some((*id, id.kind(), id.places()));
        }
        rest = tail;
    }
    table
};

/// Which properties can stand here.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    bit: u16,
    /// 5, section 3.3.2.3.8: PUBLISH alone may name several subscriptions.
    many_subscriptions: bool,
}

impl Place {
    pub(crate) const WILL: Self = Self {
        bit: WILL,
        many_subscriptions: false,
    };

    pub(crate) const fn packet(packet: PacketType) -> Self {
        Self {
            bit: 1 << packet.get(),
            many_subscriptions: matches!(packet, PacketType::Publish),
        }
    }

    const fn may_repeat(self, id: PropertyId) -> bool {
        match id {
            PropertyId::UserProperty => true,
            PropertyId::SubscriptionIdentifier => self.many_subscriptions,
            _ => false,
        }
    }
}

/// One property with its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Property<'a> {
    /// Whether the payload is UTF-8 text.
    PayloadFormatIndicator(bool),
    /// Lifetime of the message in seconds.
    MessageExpiryInterval(u32),
    /// What the payload is, in the application's terms.
    ContentType(&'a str),
    /// Where a response to this message goes.
    ResponseTopic(TopicName<'a>),
    /// Ties a response to its request.
    CorrelationData(&'a [u8]),
    /// The number a subscription was given, 1 to 268,435,455.
    SubscriptionIdentifier(u32),
    /// How long the session outlives its connection, in seconds; 0xFFFF_FFFF is for ever.
    SessionExpiryInterval(u32),
    /// The client identifier that the server chose.
    AssignedClientIdentifier(&'a str),
    /// The keep-alive that the server demands, in seconds.
    ServerKeepAlive(u16),
    /// Name of the authentication method.
    AuthenticationMethod(&'a str),
    /// What the authentication method exchanges.
    AuthenticationData(&'a [u8]),
    /// Whether reason strings and user properties are wanted on failures.
    RequestProblemInformation(bool),
    /// Seconds between the end of the connection and the will.
    WillDelayInterval(u32),
    /// Whether response information is wanted in CONNACK.
    RequestResponseInformation(bool),
    /// Basis for response topics.
    ResponseInformation(&'a str),
    /// Another server to use.
    ServerReference(&'a str),
    /// For people.
    ReasonString(&'a str),
    /// How many QoS 1 and 2 messages may be on their way to the sender of this, 1 to 65,535.
    ReceiveMaximum(u16),
    /// The highest topic alias that the sender of this accepts; 0 is none.
    TopicAliasMaximum(u16),
    /// The highest QoS of PUBLISH that the server takes; `false` is 0, `true` is 1.
    MaximumQoS(bool),
    /// Whether the server keeps retained messages.
    RetainAvailable(bool),
    /// A name and a value in the application's terms.
    UserProperty(&'a str, &'a str),
    /// The largest packet that the sender of this accepts, in bytes, not 0.
    MaximumPacketSize(u32),
    /// Whether the server takes wildcards.
    WildcardSubscriptionAvailable(bool),
    /// Whether the server takes subscription identifiers.
    SubscriptionIdentifierAvailable(bool),
    /// Whether the server takes shared subscriptions.
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> PropertyId {
        match self {
            Self::PayloadFormatIndicator(_) => PropertyId::PayloadFormatIndicator,
            Self::MessageExpiryInterval(_) => PropertyId::MessageExpiryInterval,
            Self::ContentType(_) => PropertyId::ContentType,
            Self::ResponseTopic(_) => PropertyId::ResponseTopic,
            Self::CorrelationData(_) => PropertyId::CorrelationData,
            Self::SubscriptionIdentifier(_) => PropertyId::SubscriptionIdentifier,
            Self::SessionExpiryInterval(_) => PropertyId::SessionExpiryInterval,
            Self::AssignedClientIdentifier(_) => PropertyId::AssignedClientIdentifier,
            Self::ServerKeepAlive(_) => PropertyId::ServerKeepAlive,
            Self::AuthenticationMethod(_) => PropertyId::AuthenticationMethod,
            Self::AuthenticationData(_) => PropertyId::AuthenticationData,
            Self::RequestProblemInformation(_) => PropertyId::RequestProblemInformation,
            Self::WillDelayInterval(_) => PropertyId::WillDelayInterval,
            Self::RequestResponseInformation(_) => PropertyId::RequestResponseInformation,
            Self::ResponseInformation(_) => PropertyId::ResponseInformation,
            Self::ServerReference(_) => PropertyId::ServerReference,
            Self::ReasonString(_) => PropertyId::ReasonString,
            Self::ReceiveMaximum(_) => PropertyId::ReceiveMaximum,
            Self::TopicAliasMaximum(_) => PropertyId::TopicAliasMaximum,
            Self::MaximumQoS(_) => PropertyId::MaximumQoS,
            Self::RetainAvailable(_) => PropertyId::RetainAvailable,
            Self::UserProperty(..) => PropertyId::UserProperty,
            Self::MaximumPacketSize(_) => PropertyId::MaximumPacketSize,
            Self::WildcardSubscriptionAvailable(_) => PropertyId::WildcardSubscriptionAvailable,
            Self::SubscriptionIdentifierAvailable(_) => PropertyId::SubscriptionIdentifierAvailable,
            Self::SharedSubscriptionAvailable(_) => PropertyId::SharedSubscriptionAvailable,
        }
    }

    pub(crate) fn value(&self) -> Value<'a> {
        match *self {
            Self::PayloadFormatIndicator(v)
            | Self::RequestProblemInformation(v)
            | Self::RequestResponseInformation(v)
            | Self::MaximumQoS(v)
            | Self::RetainAvailable(v)
            | Self::WildcardSubscriptionAvailable(v)
            | Self::SubscriptionIdentifierAvailable(v)
            | Self::SharedSubscriptionAvailable(v) => Value::Number(u32::from(v)),
            Self::ServerKeepAlive(v) | Self::TopicAliasMaximum(v) | Self::ReceiveMaximum(v) => {
                Value::Number(u32::from(v))
            }
            Self::MessageExpiryInterval(v)
            | Self::SessionExpiryInterval(v)
            | Self::WillDelayInterval(v)
            | Self::MaximumPacketSize(v)
            | Self::SubscriptionIdentifier(v) => Value::Number(v),
            Self::ContentType(v)
            | Self::AssignedClientIdentifier(v)
            | Self::AuthenticationMethod(v)
            | Self::ResponseInformation(v)
            | Self::ServerReference(v)
            | Self::ReasonString(v) => Value::Bytes(v.as_bytes()),
            Self::ResponseTopic(v) => Value::Bytes(v.as_bytes()),
            Self::CorrelationData(v) | Self::AuthenticationData(v) => Value::Bytes(v),
            Self::UserProperty(..) => Value::Pair,
        }
    }

    pub(crate) fn write<S: Sink>(&self, out: &mut S) {
        let id = self.id();
        out.u8(id.get());
        let field = Field::Property(id);
        match *self {
            Self::PayloadFormatIndicator(v)
            | Self::RequestProblemInformation(v)
            | Self::RequestResponseInformation(v)
            | Self::MaximumQoS(v)
            | Self::RetainAvailable(v)
            | Self::WildcardSubscriptionAvailable(v)
            | Self::SubscriptionIdentifierAvailable(v)
            | Self::SharedSubscriptionAvailable(v) => out.u8(u8::from(v)),
            Self::ServerKeepAlive(v) | Self::TopicAliasMaximum(v) => out.u16(v),
            Self::ReceiveMaximum(v) => {
                out.refuse_if(v == 0, EncodeError::PropertyValue(id));
                out.u16(v);
            }
            Self::MessageExpiryInterval(v)
            | Self::SessionExpiryInterval(v)
            | Self::WillDelayInterval(v) => out.u32(v),
            Self::MaximumPacketSize(v) => {
                out.refuse_if(v == 0, EncodeError::PropertyValue(id));
                out.u32(v);
            }
            Self::SubscriptionIdentifier(v) => {
                out.refuse_if(v == 0, EncodeError::PropertyValue(id));
                match VarInt::new(v) {
                    Some(v) => out.varint(v),
                    None => out.refuse(EncodeError::PropertyValue(id)),
                }
            }
            Self::ContentType(v)
            | Self::AssignedClientIdentifier(v)
            | Self::AuthenticationMethod(v)
            | Self::ResponseInformation(v)
            | Self::ServerReference(v)
            | Self::ReasonString(v) => out.text(field, v),
            Self::ResponseTopic(v) => out.binary(field, v.as_bytes()),
            Self::CorrelationData(v) | Self::AuthenticationData(v) => out.binary(field, v),
            Self::UserProperty(name, value) => {
                out.text(field, name);
                out.text(field, value);
            }
        }
    }
}

impl<'a> Take<'a> for Property<'a> {
    /// The next property. Topic aliases are passed over: they belong to PUBLISH itself.
    #[allow(
        private_interfaces,
        reason = "sealed: only this crate can name the trait"
    )]
    fn take(bytes: &mut Reader<'a, '_>) -> Option<Self> {
        loop {
            let id = PropertyId::new(bytes.u8().ok()?)?;
            return Some(match id {
                PropertyId::PayloadFormatIndicator => {
                    Self::PayloadFormatIndicator(bytes.u8().ok()? != 0)
                }
                PropertyId::MessageExpiryInterval => Self::MessageExpiryInterval(bytes.u32().ok()?),
                PropertyId::ContentType => Self::ContentType(take_str(bytes)?),
                PropertyId::ResponseTopic => {
                    Self::ResponseTopic(TopicName::validated(bytes.binary().ok()?))
                }
                PropertyId::CorrelationData => Self::CorrelationData(bytes.binary().ok()?),
                PropertyId::SubscriptionIdentifier => {
                    Self::SubscriptionIdentifier(bytes.varint().ok()?)
                }
                PropertyId::SessionExpiryInterval => Self::SessionExpiryInterval(bytes.u32().ok()?),
                PropertyId::AssignedClientIdentifier => {
                    Self::AssignedClientIdentifier(take_str(bytes)?)
                }
                PropertyId::ServerKeepAlive => Self::ServerKeepAlive(bytes.u16().ok()?),
                PropertyId::AuthenticationMethod => Self::AuthenticationMethod(take_str(bytes)?),
                PropertyId::AuthenticationData => Self::AuthenticationData(bytes.binary().ok()?),
                PropertyId::RequestProblemInformation => {
                    Self::RequestProblemInformation(bytes.u8().ok()? != 0)
                }
                PropertyId::WillDelayInterval => Self::WillDelayInterval(bytes.u32().ok()?),
                PropertyId::RequestResponseInformation => {
                    Self::RequestResponseInformation(bytes.u8().ok()? != 0)
                }
                PropertyId::ResponseInformation => Self::ResponseInformation(take_str(bytes)?),
                PropertyId::ServerReference => Self::ServerReference(take_str(bytes)?),
                PropertyId::ReasonString => Self::ReasonString(take_str(bytes)?),
                PropertyId::ReceiveMaximum => Self::ReceiveMaximum(bytes.u16().ok()?),
                PropertyId::TopicAliasMaximum => Self::TopicAliasMaximum(bytes.u16().ok()?),
                PropertyId::TopicAlias => {
                    bytes.u16().ok()?;
                    continue;
                }
                PropertyId::MaximumQoS => Self::MaximumQoS(bytes.u8().ok()? != 0),
                PropertyId::RetainAvailable => Self::RetainAvailable(bytes.u8().ok()? != 0),
                PropertyId::UserProperty => Self::UserProperty(take_str(bytes)?, take_str(bytes)?),
                PropertyId::MaximumPacketSize => Self::MaximumPacketSize(bytes.u32().ok()?),
                PropertyId::WildcardSubscriptionAvailable => {
                    Self::WildcardSubscriptionAvailable(bytes.u8().ok()? != 0)
                }
                PropertyId::SubscriptionIdentifierAvailable => {
                    Self::SubscriptionIdentifierAvailable(bytes.u8().ok()? != 0)
                }
                PropertyId::SharedSubscriptionAvailable => {
                    Self::SharedSubscriptionAvailable(bytes.u8().ok()? != 0)
                }
            });
        }
    }
}

fn take_str<'a>(bytes: &mut Reader<'a, '_>) -> Option<&'a str> {
    bytes.binary().ok().map(checked_str)
}

/// The properties that a block has, a bit for each identifier.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen(u64);

impl Seen {
    #[inline]
    pub(crate) fn check<S: Sink>(&mut self, id: PropertyId, place: Place, out: &mut S) {
        let bit = id.bit();
        let entry = TABLE.get(usize::from(id.get())).copied().flatten();
        if entry.is_none_or(|(_, _, places)| places & place.bit == 0) {
            out.refuse(EncodeError::MisplacedProperty(id));
        }
        if self.0 & bit != 0 && !place.may_repeat(id) {
            out.refuse(EncodeError::DuplicateProperty(id));
        }
        self.0 |= bit;
    }

    pub(crate) const fn data_without_method(self) -> bool {
        self.0 & AUTH_DATA != 0 && self.0 & AUTH_METHOD == 0
    }
}

const AUTH_DATA: u64 = PropertyId::AuthenticationData.bit();
const AUTH_METHOD: u64 = PropertyId::AuthenticationMethod.bit();

/// One pass over a received block: every identifier known, in its place, once, its value whole and in range.
pub(crate) fn validate(block: &mut Reader<'_, '_>, place: Place) -> Read<Option<TopicAlias>> {
    let mut seen = 0_u64;
    let mut alias = None;
    while !block.is_empty() {
        let start = block.left();
        let found = block.varint()?;
        let entry = usize::try_from(found)
            .ok()
            .and_then(|found| TABLE.get(found).copied().flatten());
        let Some((id, kind, places)) = entry else {
            return Err(block.fault_at(start, Rule::UnknownProperty { found }));
        };
        if places & place.bit == 0 {
            return Err(block.fault_at(start, Rule::MisplacedProperty(id)));
        }
        let bit = id.bit();
        if seen & bit != 0 && !place.may_repeat(id) {
            return Err(block.fault_at(start, Rule::DuplicateProperty(id)));
        }
        seen |= bit;
        let value = block.left();
        let number = match kind {
            Kind::Text => block.text_bytes().map(|_| 0)?,
            // 5 [MQTT-3.3.2-14]
            Kind::Topic => topic::read_name(block).map(|_| 0)?,
            Kind::Pair => {
                block.text_bytes()?;
                block.text_bytes().map(|_| 0)?
            }
            _ => kind.number(block)?,
        };
        let in_range = match kind {
            Kind::Bool => number <= 1,
            Kind::U16NonZero | Kind::U32NonZero | Kind::VarInt => number != 0,
            _ => true,
        };
        if !in_range {
            return Err(block.fault_at(value, Rule::PropertyValue(id)));
        }
        if id == PropertyId::TopicAlias {
            alias = u16::try_from(number).ok().and_then(TopicAlias::new);
        }
    }
    if seen & AUTH_DATA != 0 && seen & AUTH_METHOD == 0 {
        return Err(block.fault(Rule::AuthDataWithoutMethod));
    }
    Ok(alias)
}
