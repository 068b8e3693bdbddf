//! An owned message that shares the buffer it was received in.

use bytes::Bytes;

use crate::id::{PacketId, QoS};
use crate::properties::Properties;
use crate::publish::Publish;
use crate::topic::TopicName;
use crate::version::Version;

/// A message on its own: topic, properties and payload are slices of one receive buffer, nothing is copied.
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
    /// The application's bytes.
    pub payload: Bytes,
    /// Quality of service with which it came.
    pub qos: QoS,
    /// Whether it was kept by the server before (or, with retain as published, is to be kept).
    pub retain: bool,
    /// Whether it may have come before.
    pub dup: bool,
    /// The packet identifier under which it came, for logs; none at QoS 0.
    pub packet_id: Option<PacketId>,
}

impl Message {
    /// Takes what `publish`, read from `buffer`, borrows. `topic` is its own, or what its alias stands for.
    ///
    /// Whatever does not lie in `buffer`, such as the topic behind an alias, is copied.
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

    /// Copies what `publish` borrows into one allocation of its own. `topic` is its own, or what its alias stands for.
    ///
    /// A small message that shares a large receive buffer keeps all of it from being freed; a copy does not.
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

    /// The same message in memory of its own, shared with nothing.
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

    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> TopicName<'_> {
        TopicName::validated(&self.topic)
    }

    /// Its properties (5).
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        Properties::validated(&self.properties)
    }

    /// The bytes that `version` would send as PUBLISH of QoS 0: the way to keep or forward it.
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

/// The three in one allocation. Small ones lie in the allocation that counts who shares them, so that there is no second.
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
