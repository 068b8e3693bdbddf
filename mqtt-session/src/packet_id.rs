//! One space of packet identifiers for PUBLISH, SUBSCRIBE and UNSUBSCRIBE (3.1.1 \[MQTT-2.3.1-2\], 5 \[MQTT-2.2.1-3\]).

use mqtt_proto::PacketId;

use crate::outbound::Slot;
use crate::session::FAST;

/// How many commands there were before one, which tells it apart from all others under its identifier. Where memory is scarce
/// it comes round after four thousand million of them.
#[cfg(target_pointer_width = "64")]
pub(crate) type Generation = u64;
#[cfg(not(target_pointer_width = "64"))]
pub(crate) type Generation = u32;

/// The next free identifier, in a circle, and how many were issued: the generation of a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketIds {
    next: PacketId,
    pub(crate) issued: Generation,
}

impl PacketIds {
    pub(crate) const fn new() -> Self {
        Self {
            next: PacketId::FIRST,
            issued: 0,
        }
    }

    /// A number for a command that takes no identifier.
    pub(crate) fn generation(&mut self) -> Generation {
        self.issued = self.issued.wrapping_add(1);
        self.issued
    }

    /// An identifier that none of `slots`, which are in the order of their issue, has. There always is one: there are
    /// fewer slots than identifiers.
    #[inline]
    pub(crate) fn issue(&mut self, slots: &[Slot]) -> (PacketId, Generation) {
        let mut generation = self.generation();
        // While fewer were issued since the oldest slot than there are identifiers, the next one is free: where there may be
        // many slots, that saves looking.
        let oldest = slots
            .first()
            .map_or(0, |slot| generation.wrapping_sub(slot.generation()));
        if !FAST || oldest >= Generation::from(u16::MAX) {
            while slots.iter().any(|slot| slot.packet_id() == Some(self.next)) {
                self.next = self.next.next();
                // An identifier passed over counts as issued, or the distance above would be too short.
                generation = self.generation();
            }
        }
        let id = self.next;
        self.next = id.next();
        (id, generation)
    }
}
