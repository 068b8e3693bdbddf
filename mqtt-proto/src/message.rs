//! An owned message that can share the buffer in which it was received.

use bytes::Bytes;

use crate::id::{PacketId, QoS};
use crate::properties::Properties;
use crate::publish::Publish;
use crate::topic::TopicName;
use crate::version::Version;

/// An owned message. [`Message::share`] makes topic, properties and payload slices of the receive buffer and copies nothing.
///
/// ```
/// use bytes::Bytes;
/// use mqtt_proto::{Decoded, Message, Packet, Version};
/// let buffer = Bytes::from_static(b"\x30\x0A\0\x03a/bhello");
/// let Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) = Packet::decode(&buffer, Version::V311, 99) else {
///     unreachable!()
/// };
/// let message = Message::share(&publish, publish.topic, &buffer);
/// assert_eq!((message.topic().as_str(), &message.payload[..]), ("a/b", &b"hello"[..]));
/// ```
#[derive(Clone, Debug)]
pub struct Message {
    topic: Bytes,
    properties: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// The quality of service with which the message arrived.
    pub qos: QoS,
    /// Whether the server had retained the message (or, in a subscription with retain as published, whether it is to be
    /// retained).
    pub retain: bool,
    /// The DUP flag: whether the message may have arrived before.
    pub dup: bool,
    /// The packet identifier with which the message arrived, for logs. `None` at QoS 0.
    pub packet_id: Option<PacketId>,
}

impl Message {
    /// Makes a message of `publish`, which was decoded from `buffer`. `topic` is the topic of `publish`, or the one that its
    /// topic alias stands for.
    ///
    /// A part that does not lie in `buffer`, such as the topic of an alias, is copied.
    #[must_use]
    pub fn share(publish: &Publish<'_>, topic: TopicName<'_>, buffer: &Bytes) -> Self {
        let properties = publish.properties.block();
        Self {
            topic: slice(buffer, topic.as_bytes()),
            properties: slice(buffer, properties),
            payload: slice(buffer, publish.payload),
            qos: publish.qos(),
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.delivery.packet_id(),
        }
    }

    /// Copies the parts of `publish` into one allocation. `topic` is the topic of `publish`, or the one that its topic alias
    /// stands for.
    ///
    /// A small message that shares a large receive buffer prevents that all of it is freed; a copy does not.
    #[must_use]
    pub fn copied(publish: &Publish<'_>, topic: TopicName<'_>) -> Self {
        let properties = publish.properties.block();
        let mut all = concatenated(topic.as_bytes(), properties, publish.payload);
        let topic = all.split_to(topic.as_bytes().len());
        let properties = all.split_to(properties.len());
        Self {
            topic,
            properties,
            payload: all,
            qos: publish.qos(),
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.delivery.packet_id(),
        }
    }

    /// Copies the message into an allocation of its own, which no other message shares.
    #[must_use]
    pub fn into_owned(self) -> Self {
        let mut all = concatenated(&self.topic, &self.properties, &self.payload);
        let topic = all.split_to(self.topic.len());
        let properties = all.split_to(self.properties.len());
        Self {
            topic,
            properties,
            payload: all,
            ..self
        }
    }

    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> TopicName<'_> {
        TopicName::validated(&self.topic)
    }

    /// Returns the properties (MQTT 5).
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        Properties::validated(&self.properties)
    }

    /// Returns the message as a PUBLISH at QoS 0, to store or forward it. Before MQTT 5 it has no properties.
    #[must_use]
    pub fn as_publish(&self, version: Version) -> Publish<'_> {
        let properties = if version.is_v5() {
            self.properties()
        } else {
            Properties::EMPTY
        };
        Publish {
            retain: self.retain,
            properties,
            ..Publish::new(self.topic(), &self.payload)
        }
    }
}

/// Copies the three parts into one allocation. Small ones are copied into an array that [`Bytes`] stores beside its reference
/// count, so that there is no second allocation.
fn concatenated(topic: &[u8], properties: &[u8], payload: &[u8]) -> Bytes {
    let parts = [topic, properties, payload];
    match parts.iter().map(|part| part.len()).sum() {
        0..=64_usize => inline::<64>(parts),
        65..=128 => inline::<128>(parts),
        129..=256 => inline::<256>(parts),
        257..=512 => inline::<512>(parts),
        513..=1024 => inline::<1024>(parts),
        _ => Bytes::from_owner(parts.concat()),
    }
}

fn inline<const N: usize>(parts: [&[u8]; 3]) -> Bytes {
    let mut room = [0; N];
    let mut rest = &mut room[..];
    for part in parts {
        let Some((place, behind)) = rest.split_at_mut_checked(part.len()) else {
            return Bytes::from_owner(parts.concat());
        };
        place.copy_from_slice(part);
        rest = behind;
    }
    let len = N.saturating_sub(rest.len());
    Bytes::from_owner(room).slice(..len)
}

fn slice(buffer: &Bytes, part: &[u8]) -> Bytes {
    let range = buffer.as_ptr_range();
    let inside = range.contains(&part.as_ptr()) && part.as_ptr_range().end <= range.end;
    match part {
        [] => Bytes::new(),
        _ if inside => buffer.slice_ref(part),
        _ => Bytes::copy_from_slice(part),
    }
}
