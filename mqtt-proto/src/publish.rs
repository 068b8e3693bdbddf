//! PUBLISH: section 3.3.
//!
//! | bytes | what |
//! | --- | --- |
//! | flags | DUP (bit 3), QoS (2, 1), RETAIN (0) |
//! | string | topic name; in 5 empty if a topic alias says it |
//! | 2 | packet identifier, if QoS is 1 or 2 |
//! | block | properties (5) |
//! | rest | payload |

use core::mem::take;

use crate::error::{DecodeError, EncodeError, Field, Rule};
use crate::frame::Frame;
use crate::header::{FixedHeader, PacketType};
use crate::id::{Delivery, QoS, TopicAlias};
use crate::packet::Packet;
use crate::properties::Properties;
use crate::property::Place;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
use crate::topic::{self, TopicName};
use crate::version::Version;

/// A message on its way.
///
/// ```
/// use mqtt_proto::{Delivery, Encode, PacketId, Publish, TopicName, Version};
/// let topic = TopicName::new("a/b").unwrap();
/// let publish = Publish { delivery: Delivery::AtLeastOnce(PacketId::FIRST), ..Publish::new(topic, b"hello") };
/// let mut buffer = [0; 32];
/// let len = publish.encode(Version::V311, &mut buffer).unwrap();
/// assert_eq!(buffer[..len], *b"\x32\x0C\0\x03a/b\0\x01hello");
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Publish<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// Whether the server keeps it, or kept it, for later subscribers.
    pub retain: bool,
    /// Quality of service and packet identifier.
    pub delivery: Delivery,
    /// Its topic; [`TopicName::NONE`] where [`Self::topic_alias`] says it.
    pub topic: TopicName<'a>,
    /// The number that stands for the topic, or will from now on (5).
    pub topic_alias: Option<TopicAlias>,
    /// Properties (5); never a topic alias.
    pub properties: Properties<'a>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

const PLACE: Place = Place::packet(PacketType::Publish);

impl<'a> Publish<'a> {
    /// A message at QoS 0, not retained.
    #[must_use]
    pub const fn new(topic: TopicName<'a>, payload: &'a [u8]) -> Self {
        Self {
            dup: false,
            retain: false,
            delivery: Delivery::AtMostOnce,
            topic,
            topic_alias: None,
            properties: Properties::EMPTY,
            payload,
        }
    }

    /// Its quality of service.
    #[must_use]
    #[inline]
    pub const fn qos(&self) -> QoS {
        self.delivery.qos()
    }

    /// The whole packet, or its head only: the payload is what `body` has left.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn read(
        body: &mut Reader<'a, '_>,
        header: &FixedHeader,
        version: Version,
    ) -> Read<Self> {
        let start = body.left();
        let topic = topic::read_name_or_none(body)?;
        let delivery = match header.qos_bits() {
            Some(QoS::AtLeastOnce) => Delivery::AtLeastOnce(body.packet_id()?),
            Some(QoS::ExactlyOnce) => Delivery::ExactlyOnce(body.packet_id()?),
            _ => Delivery::AtMostOnce,
        };
        let (properties, topic_alias) = if version.is_v5() {
            Properties::read(body, PLACE)?
        } else {
            (Properties::EMPTY, None)
        };
        // 3.1.1 [MQTT-4.7.3-1], 5 [MQTT-4.7.3-1]: in 5 a topic alias may stand for the name.
        if topic.is_none() && topic_alias.is_none() {
            return Err(body.fault_at(start, Rule::TopicEmpty));
        }
        Ok(Self {
            dup: header.flags & 0b1000 != 0,
            retain: header.flags & 1 != 0,
            delivery,
            topic,
            topic_alias,
            properties,
            payload: body.take_rest(),
        })
    }
}

impl Body for Publish<'_> {
    #[inline]
    fn first_byte(&self) -> u8 {
        let flags = (u8::from(self.dup) << 3) | (self.qos().get() << 1) | u8::from(self.retain);
        PacketType::Publish.first_byte() | flags
    }

    #[inline]
    fn about(&self) -> usize {
        let head = self.topic.as_bytes().len().wrapping_add(5);
        let properties = self.properties.about();
        head.wrapping_add(properties)
            .wrapping_add(self.payload.len())
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.refuse_if(
            self.dup && self.qos() == QoS::AtMostOnce,
            EncodeError::DupOnQoS0,
        );
        out.refuse_if(
            self.topic.is_none() && self.topic_alias.is_none(),
            EncodeError::NoTopic,
        );
        out.binary(Field::TopicName, self.topic.as_bytes());
        if let Some(id) = self.delivery.packet_id() {
            out.u16(id.get());
        }
        if version.is_v5() {
            self.properties.write(PLACE, self.topic_alias, out);
        } else {
            out.refuse_if(
                self.topic_alias.is_some(),
                EncodeError::NeedsV5(Field::TopicAlias),
            );
            out.refuse_if(
                !self.properties.is_empty(),
                EncodeError::NeedsV5(Field::Properties),
            );
        }
        out.bytes(self.payload);
    }
}

/// A PUBLISH without its payload, which follows in pieces: a device with 512 bytes of buffer can receive a megabyte.
///
/// ```
/// use mqtt_proto::{Head, MAX_PACKET, PublishHead, Version};
/// // 5,000 bytes are announced, the first two of the payload are there.
/// let bytes = b"\x30\x88\x27\0\x03a/bhe";
/// let Head::Publish { head, consumed } = PublishHead::decode(bytes, Version::V311, MAX_PACKET).unwrap() else {
///     unreachable!()
/// };
/// assert_eq!((head.publish.topic.as_str(), head.payload_len, consumed), ("a/b", 4995, 8));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PublishHead<'a> {
    /// Everything but the payload, which is empty here.
    pub publish: Publish<'a>,
    /// How many bytes of payload follow the head.
    pub payload_len: u32,
}

/// What [`PublishHead::decode`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Head<'a> {
    /// At least this many bytes, counted from the packet's first, are needed to go on.
    Needs(usize),
    /// Another packet: decode it whole.
    Other,
    /// The head; the payload follows `consumed`.
    Publish {
        /// The head.
        head: PublishHead<'a>,
        /// Length of the head in bytes.
        consumed: usize,
    },
}

impl<'a> PublishHead<'a> {
    /// Reads the head as soon as it is there.
    ///
    /// # Errors
    /// As [`crate::Packet::decode`].
    pub fn decode(input: &'a [u8], version: Version, limit: u32) -> Result<Head<'a>, DecodeError> {
        let Some(frame) = Frame::decode(input, version, limit)? else {
            return Ok(Head::Needs(Packet::more(input)));
        };
        if frame.packet_type() != PacketType::Publish {
            return Ok(Head::Other);
        }
        let mut publish = match frame.head()? {
            Ok(publish) => publish,
            Err(more) => return Ok(Head::Needs(input.len().wrapping_add(more))),
        };
        let payload_len = take(&mut publish.payload)
            .len()
            .wrapping_add(frame.missing());
        Ok(Head::Publish {
            consumed: frame.packet_len().saturating_sub(payload_len),
            head: Self {
                publish,
                payload_len: u32::try_from(payload_len).unwrap_or(u32::MAX),
            },
        })
    }
}
