//! Stores a message that is retained, queued, or a will. It is one allocation that all uses share: the packet in MQTT 5, which
//! can represent the content of every version.

use std::sync::Arc;
use std::time::Duration;

use mqtt_session::proto::num::{to_u32, to_usize};
use mqtt_session::proto::{
    Decoded, Delivery, Encode, EncodeError, MAX_PACKET, Packet, Properties, Property, Publish, QoS,
    TopicName, Version,
};
use mqtt_session::{Instant, Outgoing};
use smallvec::SmallVec;

use crate::journal::RecordName;
use crate::work::{Work, step};

/// The bytes of a message in addition to its packet; counted in the limits for bytes.
const OVERHEAD: usize = 96;

/// A message that is stored beyond the packet of its arrival.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    packet: Arc<[u8]>,
    /// The length of its packet without the payload.
    head: u32,
    /// The quality of service of its PUBLISH.
    qos: QoS,
    /// The time at which the message expires.
    expires: Option<Instant>,
    /// The number of its publisher's client identifier, if it is needed later.
    from: Option<u64>,
    /// The name of the message in records.
    record: RecordName,
}

impl Message {
    /// Stores a message that arrived at `now`.
    pub(crate) fn new(message: &Outgoing<'_>, now: Instant) -> Result<Self, EncodeError> {
        let mut packet = Vec::new();
        let len = encode(message, &mut packet)?;
        packet.truncate(len);
        let head = packet.len().saturating_sub(message.payload.len());
        Ok(Self {
            head: to_u32(head),
            packet: packet.into(),
            qos: message.qos,
            expires: expiry(&message.properties, now),
            from: None,
            record: RecordName::NONE,
        })
    }

    /// Restores a message of an earlier process; `None` if [`Self::new`] does not make such a packet.
    pub(crate) fn restored(packet: &[u8], qos: QoS, expires: Option<Instant>) -> Option<Self> {
        let Ok(Decoded::Packet {
            packet: Packet::Publish(publish),
            consumed,
        }) = Packet::decode(packet, Version::V5, MAX_PACKET)
        else {
            return None;
        };
        let is_whole = consumed == packet.len();
        if !is_whole || publish.qos() != QoS::AtMostOnce || publish.topic.is_none() {
            return None;
        }
        let head = packet.len().saturating_sub(publish.payload.len());
        Some(Self {
            head: to_u32(head),
            packet: packet.into(),
            qos,
            expires,
            from: None,
            record: RecordName::NONE,
        })
    }

    /// Returns its packet in MQTT 5 at QoS 0.
    pub(crate) fn packet(&self) -> &[u8] {
        &self.packet
    }

    /// Returns whether its PUBLISH had the RETAIN flag.
    pub(crate) fn is_retained(&self) -> bool {
        self.packet.first().is_some_and(|first| first & 1 != 0)
    }

    pub(crate) const fn record(&self) -> RecordName {
        self.record
    }

    pub(crate) const fn set_record(&mut self, record: RecordName) {
        self.record = record;
    }

    pub(crate) const fn published_by(mut self, client: Option<u64>) -> Self {
        self.from = client;
        self
    }

    pub(crate) const fn publisher(&self) -> Option<u64> {
        self.from
    }

    pub(crate) const fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// Returns the bytes that it counts in the limits.
    pub(crate) fn size(&self) -> usize {
        self.packet.len().saturating_add(OVERHEAD)
    }

    /// Returns the length of its packet.
    pub(crate) fn len(&self) -> usize {
        self.packet.len()
    }

    /// Returns the length of its packet without the payload, which determines the time to decode it.
    pub(crate) fn head(&self) -> usize {
        to_usize(self.head)
    }

    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    pub(crate) const fn qos(&self) -> QoS {
        self.qos
    }

    /// Makes it expire at `at`, if it does not expire earlier.
    pub(crate) fn expire_by(&mut self, at: Instant) {
        self.expires = Some(self.expires.map_or(at, |expires| expires.min(at)));
    }

    /// Returns after how many seconds it expires, rounded up: the expiry that is forwarded (5 \[MQTT-3.3.2-6\]).
    pub(crate) fn remaining(&self, now: Instant) -> Option<u32> {
        self.expires.map(|expires| {
            let left = expires.since(now).as_millis().div_ceil(1_000);
            u32::try_from(left).unwrap_or(u32::MAX)
        })
    }

    /// Returns the message as it was published; `publish` is its packet.
    pub(crate) const fn outgoing<'a>(&self, publish: &Publish<'a>) -> Outgoing<'a> {
        Outgoing {
            topic: publish.topic,
            qos: self.qos,
            retain: publish.retain,
            properties: publish.properties,
            payload: publish.payload,
        }
    }

    /// Returns the packet at QoS 0.
    pub(crate) fn publish(&self) -> Publish<'_> {
        step(Work::Decode);
        match Packet::decode(&self.packet, Version::V5, MAX_PACKET) {
            Ok(Decoded::Packet {
                packet: Packet::Publish(publish),
                ..
            }) => publish,
            // `new` encoded the packet, so it decodes.
            _ => Publish {
                delivery: Delivery::AtMostOnce,
                ..Publish::new(TopicName::NONE, &[])
            },
        }
    }
}

/// Writes the packet of a message in MQTT 5 at QoS 0 to the front of `packet`, and returns its length. What is behind the packet has
/// no meaning.
pub(crate) fn encode(message: &Outgoing<'_>, packet: &mut Vec<u8>) -> Result<usize, EncodeError> {
    let publish = Publish {
        retain: message.retain,
        properties: message.properties,
        ..Publish::new(message.topic, message.payload)
    };
    let room = if publish.properties.is_empty() {
        // The exact length takes longer to compute than most packets to write.
        let fields = publish.topic.as_bytes().len();
        fields
            .saturating_add(publish.payload.len())
            .saturating_add(MOST_BESIDE)
    } else {
        publish.encoded_len(Version::V5)?
    };
    if packet.len() < room {
        packet.resize(room, 0);
    }
    publish.encode(Version::V5, packet)
}

/// How many bytes a packet without properties and identifier has beside its topic and payload, at most: its type, its length, the
/// length of the topic, and that of the properties.
const MOST_BESIDE: usize = 1 + 4 + 2 + 1;

/// Returns when a message with these properties expires.
pub(crate) fn expiry(properties: &Properties<'_>, now: Instant) -> Option<Instant> {
    if properties.is_empty() {
        return None;
    }
    let seconds = properties.message_expiry_interval()?;
    Some(now.after(Duration::from_secs(u64::from(seconds))))
}

/// Returns the properties for one subscriber: the remaining expiry, and the identifiers of its subscriptions
/// (5 \[MQTT-3.3.4-3\]). All other properties are unchanged and in their order.
pub(crate) fn forwarded<'a>(
    // 5 [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17] and [MQTT-3.3.2-20]: all other properties are forwarded
    // unchanged and in their order.
    properties: &Properties<'a>,
    remaining: Option<u32>,
    identifiers: impl Iterator<Item = u32>,
) -> SmallVec<[Property<'a>; 8]> {
    properties
        .iter()
        .map(|property| match (property, remaining) {
            (Property::MessageExpiryInterval(_), Some(left)) => {
                Property::MessageExpiryInterval(left)
            }
            _ => property,
        })
        .chain(identifiers.map(Property::SubscriptionIdentifier))
        .collect()
}
