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

use crate::encode::{Body, Draft, Rest};
use crate::error::{DecodeError, EncodeError};
use crate::id::{Delivery, QoS, TopicAlias};
use crate::num::{to_u32, to_usize};
use crate::out::Out;
use crate::properties::Properties;
use crate::topic::TopicName;
use crate::varint::VarInt;
use crate::version::Version;
use crate::wire::frame::publish_fault;
use crate::wire::writer::copy;
use crate::wire::{Block, Fault, PacketType, Reader, View, frame, kind, varint};

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

    #[inline]
    fn flags(&self) -> u8 {
        u8::from(self.dup) << 3 | self.qos().get() << 1 | u8::from(self.retain)
    }

    /// The short way for a whole PUBLISH in which nothing is odd: neither a topic alias nor anything wrong. It reads what
    /// [`frame`] and [`View::read`] do, without a walk through the layout.
    #[inline(always)]
    pub(crate) fn plain(input: &'a [u8], v5: bool, limit: u32) -> Option<(Self, usize)> {
        let (first, rest) = input.split_first()?;
        let flags = first & 15;
        let (value, len) = varint(rest);
        let total = to_usize(value).wrapping_add(len).wrapping_add(1);
        if len == 0 || publish_fault(flags).is_some() || total > to_usize(limit) {
            return None;
        }
        let mut body = Reader::new(input.get(len.wrapping_add(1)..total)?);
        let topic = body.name_or_none();
        let id = if flags & 6 == 0 { 0 } else { body.id() };
        let block = if v5 {
            body.properties(kind::PUBLISH)
        } else {
            Block::default()
        };
        if body.fault.is_some() || topic.is_empty() || block.alias != 0 {
            return None;
        }
        let view = View {
            kind: kind::PUBLISH,
            flags,
            id,
            topic,
            body: body.rest,
            properties: block.bytes,
            ..View::default()
        };
        Some((view.publish(), total))
    }
}

impl Body for Publish<'_> {
    #[inline]
    fn write_plain(&self, version: Version, out: &mut [u8]) -> Option<usize> {
        let (topic, id) = (self.topic.as_bytes(), self.delivery.packet_id());
        let odd = topic.is_empty()
            || self.topic_alias.is_some()
            || !self.properties.is_empty()
            || (self.dup && id.is_none());
        let topic_len = u16::try_from(topic.len()).ok()?;
        let id_len = if id.is_some() { 4 } else { 2 };
        let head = topic
            .len()
            .wrapping_add(id_len)
            .wrapping_add(usize::from(version.is_v5()));
        let (bytes, len) = VarInt::new(to_u32(head.wrapping_add(self.payload.len())))?.encode();
        if odd {
            return None;
        }
        let (fixed, rest) = out.split_at_mut_checked(len.wrapping_add(1))?;
        let (first, fixed) = fixed.split_first_mut()?;
        let (topic_place, rest) = rest.split_first_chunk_mut()?;
        let (name, rest) = rest.split_at_mut_checked(topic.len())?;
        let rest = match id {
            Some(id) => {
                let (place, rest) = rest.split_first_chunk_mut()?;
                *place = id.get().to_be_bytes();
                rest
            }
            None => rest,
        };
        let rest = if version.is_v5() {
            let (place, rest) = rest.split_first_mut()?;
            *place = 0;
            rest
        } else {
            rest
        };
        copy(rest.get_mut(..self.payload.len())?, self.payload);
        copy(name, topic);
        *topic_place = topic_len.to_be_bytes();
        match (fixed, bytes) {
            ([a], [b0, ..]) => *a = b0,
            ([a, b], [b0, b1, ..]) => (*a, *b) = (b0, b1),
            (fixed, bytes) => copy(fixed, bytes.get(..len)?),
        }
        *first = kind::PUBLISH << 4 | self.flags();
        Some(
            head.wrapping_add(self.payload.len())
                .wrapping_add(len)
                .wrapping_add(1),
        )
    }

    #[inline]
    fn write(&self, version: Version, out: &mut Out<'_>) {
        out.refuse_if(
            self.dup && self.qos() == QoS::AtMostOnce,
            EncodeError::DupOnQoS0,
        );
        out.refuse_if(
            self.topic.is_none() && self.topic_alias.is_none(),
            EncodeError::NoTopic,
        );
        let draft = Draft {
            flags: self.flags(),
            topic: self.topic.as_bytes(),
            id: self.delivery.packet_id(),
            alias: self.topic_alias,
            rest: Rest::Payload(self.payload),
            ..Draft::new(PacketType::Publish, self.properties)
        };
        draft.write(version, out);
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
