//! The packet of the most common messages, which is written without a walk through the codec.

use mqtt_proto::num::{to_u32, to_usize};
use mqtt_proto::wire::{Writer, varint_len};
use mqtt_proto::{MAX_PACKET, PacketType, QoS};

use crate::event::Outgoing;

/// The packet of a message without properties and without a topic alias.
pub(crate) struct Plain<'a> {
    message: &'a Outgoing<'a>,
    /// The remaining length.
    rest: u32,
    v5: bool,
}

impl<'a> Plain<'a> {
    #[inline]
    pub(crate) fn new(message: &'a Outgoing<'a>, v5: bool) -> Self {
        let id = if message.qos == QoS::AtMostOnce { 2 } else { 4 };
        let topic = message.topic.as_bytes().len().wrapping_add(id);
        let properties = usize::from(v5);
        let rest = topic
            .wrapping_add(properties)
            .saturating_add(message.payload.len());
        Self {
            message,
            rest: to_u32(rest),
            v5,
        }
    }

    /// Returns the length of the packet. Beyond the maximum of MQTT, it returns a length that no limit allows.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        if self.rest > MAX_PACKET {
            return usize::MAX;
        }
        to_usize(self.rest)
            .wrapping_add(varint_len(self.rest))
            .wrapping_add(1)
    }

    /// Writes the packet; `id` is 0 at QoS 0.
    #[inline]
    pub(crate) fn write(&self, room: &mut [u8], id: u16) {
        let message = self.message;
        let mut out = Writer::new(room);
        let flags = message.qos.get() << 1 | u8::from(message.retain);
        out.u8(PacketType::Publish.get() << 4 | flags);
        out.varint(self.rest);
        out.binary(message.topic.as_bytes());
        if id != 0 {
            out.u16(id);
        }
        if self.v5 {
            out.u8(0);
        }
        out.bytes(message.payload);
    }
}
