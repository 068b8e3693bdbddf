//! A PUBLISH that is not copied into the outgoing buffer: the transport takes its packet from where it is kept. What was in the
//! buffer before goes first, and what is written there meanwhile goes after it.

use mqtt_proto::Publish;
use mqtt_proto::num::{to_u32, to_usize};

use crate::engine::Engine;
use crate::error::Refused;
use crate::event::{Ended, Token};
use crate::memory::Memory;
use crate::outbound::DUP;
use crate::state::large::{KEPT_IS_LARGE, Underway};
use crate::state::link::Phase;
use crate::state::slot::{Awaits, Slot};
use crate::tune::{JOURNAL, LARGE};

impl Engine {
    /// Returns bytes for the transport: those that lie together in memory.
    #[inline]
    pub(crate) fn outgoing<'m>(&self, m: &'m Memory<'_>) -> &'m [u8] {
        let bytes = match self.large.get() {
            None => self.written(m),
            Some(large) => self.outgoing_with(m, large),
        };
        if JOURNAL {
            bytes.get(..self.may_go()).unwrap_or(bytes)
        } else {
            bytes
        }
    }

    /// Returns how many bytes wait for the transport in all.
    pub(crate) fn unsent(&self, m: &Memory<'_>) -> usize {
        let large = self.large.get().map_or(0, |large| {
            let packet = self.large_packet(m, large.token);
            packet.len().saturating_sub(to_usize(large.sent))
        });
        self.waiting().saturating_add(large)
    }

    fn large_packet<'m>(&self, m: &'m Memory<'_>, token: Token) -> &'m [u8] {
        let slot = self.find_token(m, token);
        slot.map_or(&[], |slot| slot.bytes(m.kept()))
    }

    fn before_large<'m>(&self, m: &'m Memory<'_>, large: &Underway) -> &'m [u8] {
        let (start, end) = (to_usize(self.link.start), to_usize(large.at));
        m.outgoing().get(start..end).unwrap_or_default()
    }

    fn outgoing_with<'m>(&self, m: &'m Memory<'_>, large: &Underway) -> &'m [u8] {
        let before = self.before_large(m, large);
        if before.is_empty() {
            let packet = self.large_packet(m, large.token);
            packet.get(to_usize(large.sent)..).unwrap_or_default()
        } else {
            before
        }
    }

    /// Returns whether the packet with this identifier is on its way, and the host has not told that the transport took all of it.
    pub(crate) fn is_under_way(&self, id: u16) -> bool {
        let token = self.large.token();
        LARGE
            && token
                .and_then(Token::packet_id)
                .is_some_and(|own| own.get() == id)
    }

    /// Removes `n` bytes that the transport took from those before the large packet, or from the packet.
    #[cold]
    pub(crate) fn sent_with_large(&mut self, m: &mut Memory<'_>, n: usize) {
        let Some(large) = self.large.get().copied() else {
            return;
        };
        let before = self.before_large(m, &large).len();
        if before > 0 {
            return self.written_sent(n.min(before));
        }
        let len = self.large_packet(m, large.token).len();
        let sent = to_usize(large.sent).saturating_add(n).min(len);
        if let Some(large) = self.large.get_mut() {
            large.sent = to_u32(sent);
        }
        if sent == len {
            self.end_large(m, large.token, Ended::Sent);
            self.large.clear();
        }
    }

    /// Returns whether the kept packet of a slot is sent from there. One that waits for a record is copied if the outgoing buffer
    /// takes it: sent from there, each message would wait for a flush of its own.
    pub(crate) fn is_large(&self, m: &Memory<'_>, len: usize, awaits: Awaits) -> bool {
        len > self.largest_in_buffer(m) || len > KEPT_IS_LARGE && !self.message_waits(awaits)
    }

    /// Returns whether the packet of a new message is sent from where it is kept. A QoS 0 message is kept only for this.
    #[inline]
    pub(crate) fn becomes_large(&self, m: &Memory<'_>, len: usize, awaits: Awaits) -> bool {
        len > self.largest_in_buffer(m)
            || awaits != Awaits::CONNECTION && self.is_large(m, len, awaits)
    }

    /// Accepts a message whose packet is sent from `kept`.
    #[cold]
    pub(crate) fn publish_large(
        &mut self,
        m: &mut Memory<'_>,
        slot: &mut Slot,
        publish: &Publish<'_>,
        len: usize,
    ) -> Result<(), Refused> {
        if self.large.get().is_some() {
            return Err(Refused::Full);
        }
        self.keep(m, slot, publish, (len, self.config.slots()))?;
        self.add(m, *slot);
        self.record_message(m, slot);
        let index = usize::from(self.session.len).wrapping_sub(1);
        self.send_large(m, index);
        self.link.cursor = self.session.len;
        Ok(())
    }

    /// Starts to send the packet of a slot from where it is kept. Returns `false` while another one is on its way.
    pub(crate) fn send_large(&mut self, m: &mut Memory<'_>, index: usize) -> bool {
        if self.large.get().is_some() {
            return false;
        }
        let Some(slot) = self.slot_mut(m, index) else {
            return true;
        };
        let counted = slot.awaits != Awaits::CONNECTION;
        slot.goes(counted);
        let slot = *slot;
        // 3.1.1 [MQTT-3.3.1-1], 5 [MQTT-3.3.1-1]; after a lost session the flag is cleared.
        if let Some(first) = m.kept_mut().get_mut(to_usize(slot.start)) {
            *first = *first & !DUP | if slot.is_dup() { DUP } else { 0 };
        }
        self.publish_waits(m, slot.awaits);
        if counted {
            self.enter(slot.awaits);
        }
        let end = self.link.end;
        self.large.begin(slot.token(), end);
        true
    }

    /// Ends a large message at QoS 0, which has no acknowledgement.
    fn end_large(&mut self, m: &mut Memory<'_>, token: Token, how: Ended) {
        if let Some(index) = self.index_of(m, token)
            && self
                .slots(m)
                .get(index)
                .is_some_and(|slot| slot.awaits == Awaits::CONNECTION)
        {
            match how {
                // The event does not need a message that was sent completely, and the next message needs its room.
                Ended::Sent => self.end_empty(m, index, how),
                _ => self.end(m, index, how),
            }
        }
    }

    fn index_of(&self, m: &Memory<'_>, token: Token) -> Option<usize> {
        self.slots(m).iter().position(|slot| slot.token() == token)
    }

    /// Stops the large packet before its end, because its session or its connection goes away. If a part of it was sent,
    /// nothing can follow on its connection.
    #[inline]
    pub(crate) fn stop_large(&mut self, m: &mut Memory<'_>) {
        if LARGE && let Some(large) = self.large.get().copied() {
            self.large.clear();
            self.hold_all();
            self.stop(m, &large);
        }
    }

    #[cold]
    fn stop(&mut self, m: &mut Memory<'_>, large: &Underway) {
        if large.sent > 0 {
            self.end_large(m, large.token, Ended::Lost);
            self.clear_outgoing();
            if self.link.phase != Phase::Offline {
                self.link.phase = Phase::Closing;
            }
        } else if let Some(index) = self.index_of(m, large.token)
            && let Some(slot) = self.slot_mut(m, index)
        {
            // Nothing of it was sent, so it waits for its turn again.
            slot.comes_back();
        }
    }
}
