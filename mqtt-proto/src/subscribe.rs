//! SUBSCRIBE and SUBACK: sections 3.8 and 3.9.
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | packet identifier |
//! | block | properties (5) |
//! | list | SUBSCRIBE: topic filters, each with a byte of options; SUBACK: a code for each filter |

use crate::encode::{Body, Draft, Filter, Request, first_byte};
use crate::error::{Field, Unencodable};
use crate::id::{PacketId, QoS};
use crate::list::{List, sealed::ReadElement};
use crate::out::Out;
use crate::properties::Properties;
use crate::topic::TopicFilter;
use crate::version::Version;
use crate::wire::view::options::{NO_LOCAL, RETAIN_AS_PUBLISHED};
use crate::wire::view::options_fault;
use crate::wire::{Fault, PacketType, Reader, ReasonCode, View};

/// A client's request for subscriptions.
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
    /// The packet identifier.
    pub packet_id: PacketId,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
    /// The filters with their options, at least one.
    pub filters: List<'a, Subscription<'a>>,
}

/// One filter of a SUBSCRIBE with its options.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription<'a> {
    /// The topic filter.
    pub filter: TopicFilter<'a>,
    /// The highest quality of service at which the client wants the messages.
    pub qos: QoS,
    /// Whether messages that the same client publishes are left out (MQTT 5).
    pub no_local: bool,
    /// Whether the RETAIN flag stays as the publisher set it (MQTT 5).
    pub retain_as_published: bool,
    /// When the server sends the retained messages (MQTT 5).
    pub retain_handling: RetainHandling,
}

/// When the server sends the retained messages of a subscription (5, section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    Send,
    /// 1: only if the subscription did not exist.
    SendIfNew,
    /// 2: never.
    DoNotSend,
}

impl<'a> Subscription<'a> {
    /// Makes a subscription without the options of MQTT 5.
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

    /// Returns the options byte of SUBSCRIBE (5, section 3.8.3.1). Before MQTT 5 only the quality of service is allowed in it.
    #[must_use]
    pub fn options(&self) -> u8 {
        let handling = match self.retain_handling {
            RetainHandling::Send => 0,
            RetainHandling::SendIfNew => 1 << 4,
            RetainHandling::DoNotSend => 2 << 4,
        };
        let flag = |set, bit| if set { bit } else { 0 };
        self.qos.get()
            | handling
            | flag(self.no_local, NO_LOCAL)
            | flag(self.retain_as_published, RETAIN_AS_PUBLISHED)
    }

    /// Makes a subscription with the options byte of SUBSCRIBE. Returns `None` if the quality of service is 3. A handling of
    /// retained messages that does not exist counts as 2; reserved bits are ignored.
    ///
    /// ```
    /// use mqtt_proto::{QoS, RetainHandling, Subscription, TopicFilter};
    /// let filter = TopicFilter::from_static("pumps/#");
    /// let subscription = Subscription::with_options(filter, 0x15).unwrap();
    /// assert_eq!((subscription.qos, subscription.no_local), (QoS::AtLeastOnce, true));
    /// assert_eq!(subscription.retain_handling, RetainHandling::SendIfNew);
    /// assert_eq!(subscription.options(), 0x15);
    /// assert!(Subscription::with_options(filter, 3).is_none());
    /// ```
    #[must_use]
    pub fn with_options(filter: TopicFilter<'a>, options: u8) -> Option<Self> {
        Some(Self {
            filter,
            qos: QoS::new(options & 3)?,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
            retain_handling: match options >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            },
        })
    }
}

impl Filter for Subscription<'_> {
    const PACKET: PacketType = PacketType::Subscribe;

    fn write(&self, version: Version, out: &mut Out<'_>) {
        self.filter.write(version, out);
        let options = self.options();
        match options_fault(options, self.filter.as_bytes(), version.is_v5()) {
            Fault::NONE => {}
            // 5 [MQTT-3.8.3-4]
            Fault::NO_LOCAL_SHARED => out.refuse(Unencodable::NoLocalShared),
            _ => out.refuse(Unencodable::NeedsV5(Field::SubscriptionOptions)),
        }
        out.writer.u8(options);
    }
}

impl<'a> ReadElement<'a> for Subscription<'a> {
    fn read(bytes: &mut Reader<'a>) -> Option<Self> {
        let filter = TopicFilter::read(bytes)?;
        Self::with_options(filter, bytes.u8())
    }
}

impl<'a> Subscribe<'a> {
    /// Makes a SUBSCRIBE without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, filters: impl Into<List<'a, Subscription<'a>>>) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            filters: filters.into(),
        }
    }

    pub(crate) fn of(view: &View<'a>) -> Self {
        Self {
            packet_id: view.packet_id(),
            properties: view.properties(),
            filters: view.subscriptions(),
        }
    }
}

impl Body for Subscribe<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::Subscribe)
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        let request = Request {
            id: self.packet_id,
            properties: self.properties,
            filters: self.filters,
        };
        request.write(version, out);
    }
}

/// The server's answer to SUBSCRIBE, with a code for each filter in the order of the filters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SubAck<'a> {
    /// The packet identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
    /// For each filter, the quality of service granted or the reason of the refusal. In 3.1.1 a code is 0x00, 0x01, 0x02 or
    /// 0x80.
    pub codes: List<'a, ReasonCode>,
}

impl<'a> SubAck<'a> {
    /// Makes a SUBACK without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, codes: impl Into<List<'a, ReasonCode>>) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            codes: codes.into(),
        }
    }

    /// Makes a SUBACK of a view. Also used for UNSUBACK, which has the same fields.
    pub(crate) fn of(view: &View<'a>) -> Self {
        Self {
            packet_id: view.packet_id(),
            properties: view.properties(),
            codes: view.codes(),
        }
    }
}

impl Body for SubAck<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::SubAck)
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        let draft = Draft::with_id(PacketType::SubAck, self.packet_id, self.properties);
        draft.write_codes(&self.codes, version, out);
    }
}
