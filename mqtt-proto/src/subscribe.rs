//! SUBSCRIBE and SUBACK: sections 3.8 and 3.9.
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | packet identifier |
//! | block | properties (5) |
//! | list | SUBSCRIBE: topic filter and options byte; SUBACK: a code for each |

use crate::connect::{read_properties, write_properties};
use crate::error::{EncodeError, Field, Rule};
use crate::header::PacketType;
use crate::id::{PacketId, QoS};
use crate::list::{List, sealed::Take};
use crate::properties::Properties;
use crate::property::Place;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
use crate::topic::{self, TopicFilter};
use crate::version::Version;
use crate::wire::reason::ReasonCode;

/// A client subscribes.
///
/// ```
/// use mqtt_proto::{Encode, PacketId, QoS, Subscribe, Subscription, TopicFilter, Version};
/// let filters = [Subscription::new(TopicFilter::new("a/b").unwrap(), QoS::AtLeastOnce)];
/// let subscribe = Subscribe::new(PacketId::FIRST, &filters);
/// let mut buffer = [0; 16];
/// let len = subscribe.encode(Version::V311, &mut buffer).unwrap();
/// assert_eq!(buffer[..len], *b"\x82\x08\0\x01\0\x03a/b\x01");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscribe<'a> {
    /// Its packet identifier.
    pub packet_id: PacketId,
    /// Properties (5).
    pub properties: Properties<'a>,
    /// At least one filter with its options.
    pub filters: List<'a, Subscription<'a>>,
}

/// One filter of a SUBSCRIBE and how it is to be served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription<'a> {
    /// What is asked for.
    pub filter: TopicFilter<'a>,
    /// The highest quality of service wanted.
    pub qos: QoS,
    /// Not to get what the same client publishes (5).
    pub no_local: bool,
    /// Keep the RETAIN flag as it was published (5).
    pub retain_as_published: bool,
    /// When retained messages are sent (5).
    pub retain_handling: RetainHandling,
}

/// When a subscription gets the retained messages (5, section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    Send,
    /// 1: only if the subscription is new.
    SendIfNew,
    /// 2: never.
    DoNotSend,
}

const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RESERVED_V5: u8 = 0b1100_0000;
const RESERVED_V311: u8 = 0b1111_1100;

impl<'a> Subscription<'a> {
    /// A subscription without the options of MQTT 5.
    #[must_use]
    pub const fn new(filter: TopicFilter<'a>, qos: QoS) -> Self {
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    fn from_options(filter: TopicFilter<'a>, options: u8) -> Result<Self, Rule> {
        let qos = QoS::new(options & 0b11).ok_or(Rule::QoS3)?;
        let retain_handling = match (options >> 4) & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Rule::RetainHandling),
        };
        Ok(Self {
            filter,
            qos,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    const fn options(&self) -> u8 {
        let handling = match self.retain_handling {
            RetainHandling::Send => 0,
            RetainHandling::SendIfNew => 1 << 4,
            RetainHandling::DoNotSend => 2 << 4,
        };
        self.qos.get()
            | handling
            | if self.no_local { NO_LOCAL } else { 0 }
            | if self.retain_as_published {
                RETAIN_AS_PUBLISHED
            } else {
                0
            }
    }

    fn read(body: &mut Reader<'a, '_>, version: Version) -> Read<Self> {
        let filter = topic::read_filter(body, version)?;
        let at = body.left();
        let found = body.u8()?;
        let reserved = if version.is_v5() {
            RESERVED_V5
        } else {
            RESERVED_V311
        };
        // 5 [MQTT-3.8.3-5]; 3.1.1 says so without a number (section 3.8.3).
        if found & reserved != 0 {
            return Err(body.fault_at(at, Rule::ReservedBits { found }));
        }
        let subscription =
            Self::from_options(filter, found).map_err(|rule| body.fault_at(at, rule))?;
        // 5 [MQTT-3.8.3-4]
        if subscription.no_local && filter.is_shared() {
            return Err(body.fault_at(at, Rule::NoLocalShared));
        }
        Ok(subscription)
    }
}

impl<'a> Take<'a> for Subscription<'a> {
    #[allow(
        private_interfaces,
        reason = "sealed: only this crate can name the trait"
    )]
    fn take(bytes: &mut Reader<'a, '_>) -> Option<Self> {
        let filter = TopicFilter::take(bytes)?;
        Self::from_options(filter, bytes.u8().ok()?).ok()
    }
}

const PLACE: Place = Place::packet(PacketType::Subscribe);
const ACK_PLACE: Place = Place::packet(PacketType::SubAck);

impl<'a> Subscribe<'a> {
    /// A SUBSCRIBE without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, filters: impl Into<List<'a, Subscription<'a>>>) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            filters: filters.into(),
        }
    }

    pub(crate) fn read(body: &mut Reader<'a, '_>, version: Version) -> Read<Self> {
        let packet_id = body.packet_id()?;
        let properties = read_properties(body, version, PLACE)?;
        let filters = List::validated(body.rest());
        read_list(body, |body| Subscription::read(body, version))?;
        Ok(Self {
            packet_id,
            properties,
            filters,
        })
    }
}

/// A list that reaches to the end of the packet and has at least one entry.
pub(crate) fn read_list<'a, T>(
    body: &mut Reader<'a, '_>,
    mut read: impl FnMut(&mut Reader<'a, '_>) -> Read<T>,
) -> Read<()> {
    // 3.1.1 [MQTT-3.8.3-3] and [MQTT-3.10.3-2], 5 [MQTT-3.8.3-2] and [MQTT-3.10.3-2]
    if body.is_empty() {
        return Err(body.fault(Rule::EmptyList));
    }
    while !body.is_empty() {
        read(body)?;
    }
    Ok(())
}

impl Body for Subscribe<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Subscribe.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.refuse_if(
            self.filters.is_empty(),
            EncodeError::EmptyList(Field::Filters),
        );
        out.u16(self.packet_id.get());
        write_properties(&self.properties, version, PLACE, out);
        self.filters.each(|subscription| {
            let options = subscription.options();
            let needs_v5 = !version.is_v5() && options & RESERVED_V311 != 0;
            out.refuse_if(needs_v5, EncodeError::NeedsV5(Field::SubscriptionOptions));
            if subscription.no_local {
                // 5 [MQTT-3.8.3-4]
                let shared = subscription.filter.is_shared();
                out.refuse_if(shared, EncodeError::NoLocalShared);
            }
            out.binary(Field::Filters, subscription.filter.as_bytes());
            out.u8(options);
        });
    }
}

/// The server's answer to SUBSCRIBE: a code for each filter, in the order of the filters (3.1.1 \[MQTT-3.9.3-1\]).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SubAck<'a> {
    /// The packet identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties (5).
    pub properties: Properties<'a>,
    /// What was granted or why not; in 3.1.1 only the three granted codes and 0x80.
    pub codes: List<'a, ReasonCode>,
}

impl<'a> SubAck<'a> {
    /// A SUBACK without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, codes: impl Into<List<'a, ReasonCode>>) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            codes: codes.into(),
        }
    }

    /// UNSUBACK is the same, but for its place, its codes and that it has none in 3.1.1.
    #[inline(always)]
    pub(crate) fn read(
        body: &mut Reader<'a, '_>,
        packet: PacketType,
        version: Version,
    ) -> Read<Self> {
        let packet_id = body.packet_id()?;
        let properties = read_properties(body, version, Place::packet(packet))?;
        let codes = List::validated(body.rest());
        if packet == PacketType::SubAck || version.is_v5() {
            read_list(body, |body| read_code(body, packet, version))?;
        }
        Ok(Self {
            packet_id,
            properties,
            codes,
        })
    }
}

/// A code of SUBACK or UNSUBACK.
fn read_code(body: &mut Reader<'_, '_>, packet: PacketType, version: Version) -> Read<ReasonCode> {
    let at = body.left();
    let found = body.u8()?;
    // 3.1.1 [MQTT-3.9.3-2], 5 [MQTT-3.9.3-2] and [MQTT-3.11.3-2]
    ReasonCode::new(found)
        .filter(|code| code_belongs(*code, packet, version))
        .ok_or_else(|| body.fault_at(at, Rule::ReasonCode { found }))
}

fn code_belongs(code: ReasonCode, packet: PacketType, version: Version) -> bool {
    if version.is_v5() {
        code.belongs_in(packet)
    } else {
        code.get() <= 2 || code == ReasonCode::UnspecifiedError
    }
}

pub(crate) fn write_codes<S: Sink>(
    codes: List<'_, ReasonCode>,
    packet: PacketType,
    version: Version,
    out: &mut S,
) {
    out.refuse_if(codes.is_empty(), EncodeError::EmptyList(Field::ReasonCodes));
    codes.each(|code| {
        let belongs = code_belongs(*code, packet, version);
        out.refuse_if(!belongs, EncodeError::ReasonCode(*code));
        out.u8(code.get());
    });
}

impl Body for SubAck<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::SubAck.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.u16(self.packet_id.get());
        write_properties(&self.properties, version, ACK_PLACE, out);
        write_codes(self.codes, PacketType::SubAck, version, out);
    }
}
