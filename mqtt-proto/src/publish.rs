//! PUBLISH: section 3.3.
//!
//! | bytes | what |
//! | --- | --- |
//! | flags | DUP (bit 3), QoS (2, 1), RETAIN (0) |
//! | string | topic name; in 5 empty if a topic alias replaces it |
//! | 2 | packet identifier, if QoS is 1 or 2 |
//! | block | properties (5) |
//! | rest | payload |

use core::mem::take;

use crate::encode::Body;
use crate::error::{DecodeError, Field, Unencodable};
use crate::id::{Delivery, PacketId, QoS, TopicAlias};
use crate::num::{low_byte, to_u16, to_u32};
use crate::out::Out;
use crate::properties::Properties;
use crate::topic::TopicName;
use crate::version::Version;
use crate::wire::writer::copy;
use crate::wire::{Fault, Reader, View, frame, kind};

/// An application message.
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
    /// The DUP flag: whether the message may have been sent before.
    pub dup: bool,
    /// The RETAIN flag: whether the server is to retain the message, or, from the server, whether it had retained it.
    pub retain: bool,
    /// The quality of service, with the packet identifier.
    pub delivery: Delivery,
    /// The topic. It is [`TopicName::NONE`] if [`Self::topic_alias`] alone names the topic.
    pub topic: TopicName<'a>,
    /// The topic alias (MQTT 5). With a topic it is assigned to that topic; without one it stands for the topic assigned
    /// before.
    pub topic_alias: Option<TopicAlias>,
    /// The properties (MQTT 5) other than the topic alias.
    pub properties: Properties<'a>,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Makes a message at QoS 0 that is not retained.
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

    /// Returns the quality of service.
    #[must_use]
    #[inline]
    pub const fn qos(&self) -> QoS {
        self.delivery.qos()
    }

    #[inline]
    const fn packet_id(&self) -> Option<PacketId> {
        self.delivery.packet_id()
    }
}

impl Body for Publish<'_> {
    /// Writes a message without a topic alias and properties whose remaining length takes two bytes at most.
    #[inline]
    fn write_plain(&self, version: Version, out: &mut [u8]) -> Option<usize> {
        let (topic, id, first) = (self.topic.as_bytes(), self.packet_id(), self.first_byte());
        if topic.is_empty() || self.topic_alias.is_some() || !self.properties.is_empty() {
            return None;
        }
        let id_len = if id.is_some() { 4 } else { 2 };
        let head = topic.len().wrapping_add(id_len);
        let head = head.wrapping_add(usize::from(version.is_v5()));
        let len = head.wrapping_add(self.payload.len());
        let rest = match len {
            _ if self.dup && id.is_none() => return None,
            0..=0x7F => {
                let (fixed, rest) = out.split_first_chunk_mut()?;
                *fixed = [first, low_byte(to_u32(len))];
                rest
            }
            0x80..=0x3FFF => {
                let (fixed, rest) = out.split_first_chunk_mut()?;
                let len = to_u32(len);
                *fixed = [first, low_byte(len) | 0x80, low_byte(len >> 7)];
                rest
            }
            _ => return None,
        };
        let (topic_len, rest) = rest.split_first_chunk_mut()?;
        *topic_len = to_u16(topic.len()).to_be_bytes();
        let (name, mut rest) = rest.split_at_mut_checked(topic.len())?;
        copy(name, topic);
        if let Some(id) = id {
            let (place, behind) = rest.split_first_chunk_mut()?;
            *place = id.get().to_be_bytes();
            rest = behind;
        }
        if version.is_v5() {
            let (none, behind) = rest.split_first_mut()?;
            *none = 0;
            rest = behind;
        }
        copy(rest.get_mut(..self.payload.len())?, self.payload);
        Some(len.wrapping_add(if len < 0x80 { 2 } else { 3 }))
    }

    #[inline]
    fn least(&self) -> usize {
        let least = self.topic.as_bytes().len().wrapping_add(2);
        let least = least.wrapping_add(self.payload.len());
        least.wrapping_add(self.properties.least())
    }

    #[inline]
    fn first_byte(&self) -> u8 {
        let flags = u8::from(self.dup) << 3 | self.qos().get() << 1 | u8::from(self.retain);
        kind::PUBLISH << 4 | flags
    }

    /// Writes the fields in the order in which [`View::read`] reads them. Without a walk through the layout this costs a fifth
    /// less.
    #[inline]
    fn write(&self, version: Version, out: &mut Out<'_>) {
        let is_new = !self.dup || self.qos() > QoS::AtMostOnce;
        out.refuse_if(!is_new, Unencodable::DupOnQoS0);
        let named = !self.topic.is_none() || self.topic_alias.is_some();
        out.refuse_if(!named, Unencodable::NoTopic);
        out.binary(Field::TopicName, self.topic.as_bytes());
        if let Some(id) = self.packet_id() {
            out.writer.u16(id.get());
        }
        if version.is_v5() {
            self.properties.write(kind::PUBLISH, self.topic_alias, out);
        } else {
            let needs_v5 = Unencodable::NeedsV5;
            out.refuse_if(self.topic_alias.is_some(), needs_v5(Field::TopicAlias));
            out.refuse_if(!self.properties.is_empty(), needs_v5(Field::Properties));
        }
        out.writer.bytes(self.payload);
    }
}

/// A PUBLISH without its payload, which follows in pieces. A device with a buffer of 512 bytes can receive a message of a
/// megabyte.
///
/// ```
/// use mqtt_proto::{Head, MAX_PACKET, PublishHead, Version};
/// // The packet announces 5,000 bytes; two bytes of the payload have arrived.
/// let bytes = b"\x30\x88\x27\0\x03a/bhe";
/// let Head::Publish { head, consumed } = PublishHead::decode(bytes, Version::V311, MAX_PACKET).unwrap() else {
///     unreachable!()
/// };
/// assert_eq!((head.publish.topic.as_str(), head.payload_len, consumed), ("a/b", 4995, 8));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PublishHead<'a> {
    /// The packet, with an empty payload.
    pub publish: Publish<'a>,
    /// Length in bytes of the payload, which follows the head.
    pub payload_len: u32,
}

/// The result of [`PublishHead::decode`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Head<'a> {
    /// The head is incomplete. The next try needs at least this many bytes, counted from the first byte of the packet.
    Needs(usize),
    /// The packet is not a PUBLISH; [`crate::Packet::decode`] decodes it.
    Other,
    /// The head. The payload starts after `consumed` bytes.
    Publish {
        /// The head.
        head: PublishHead<'a>,
        /// Length of the head in bytes.
        consumed: usize,
    },
}

impl<'a> PublishHead<'a> {
    /// Decodes the head of a PUBLISH as soon as it has arrived.
    ///
    /// # Errors
    /// As [`crate::Packet::decode`].
    pub fn decode(input: &'a [u8], version: Version, limit: u32) -> Result<Head<'a>, DecodeError> {
        let frame = frame(input, version.is_v5(), limit);
        if frame.fault.is_some() {
            return Err(DecodeError::of_frame(frame, version, limit));
        }
        if frame.head == 0 {
            return Ok(Head::Needs(frame.needs()));
        }
        if frame.kind() != kind::PUBLISH {
            return Ok(Head::Other);
        }
        let absent = frame.needs().saturating_sub(input.len());
        let (mut view, mut body) = (View::default(), Reader::new(frame.front(input)));
        view.read(frame.first, &mut body, version.is_v5());
        if body.fault == Fault::TRUNCATED && body.missing() <= absent {
            return Ok(Head::Needs(input.len().wrapping_add(body.missing())));
        }
        if body.fault.is_some() {
            return Err(DecodeError::of_body(frame, &body, input, version));
        }
        let payload_len = take(&mut view.body).len().wrapping_add(absent);
        let publish = view.publish();
        Ok(Head::Publish {
            consumed: frame.needs().saturating_sub(payload_len),
            head: Self {
                publish,
                payload_len: to_u32(payload_len),
            },
        })
    }
}
