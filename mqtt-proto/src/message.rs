//! An owned message that shares the buffer it was received in.

use bytes::Bytes;

use crate::id::{PacketId, QoS};
use crate::list::Backing;
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
    alias_inside: bool,
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
        let (properties, alias_inside) = publish.properties.wire();
        Self {
            topic: slice(buffer, topic.as_bytes()),
            properties: slice(buffer, properties),
            alias_inside,
            payload: slice(buffer, publish.payload),
            qos: publish.qos(),
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.delivery.packet_id(),
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
        Properties::from_wire(&self.properties, self.alias_inside)
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

fn slice(buffer: &Bytes, part: &[u8]) -> Bytes {
    let range = buffer.as_ptr_range();
    let inside = range.contains(&part.as_ptr()) && part.as_ptr_range().end <= range.end;
    match part {
        [] => Bytes::new(),
        _ if inside => buffer.slice_ref(part),
        _ => Bytes::copy_from_slice(part),
    }
}

impl<'a> Properties<'a> {
    fn wire(&self) -> (&'a [u8], bool) {
        match self.backing() {
            (Backing::Wire(bytes), alias_inside) => (bytes, alias_inside),
            (Backing::Slice(_), _) => (&[], false),
        }
    }

    const fn from_wire(bytes: &'a [u8], alias_inside: bool) -> Self {
        Self::new(crate::list::List::validated(bytes), alias_inside)
    }
}
