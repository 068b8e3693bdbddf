//! A PUBLISH that is not copied into the outgoing buffer: its packet goes to the transport from where it is kept. What was in
//! the buffer goes before it, what comes there meanwhile goes after it.

#[cfg(feature = "alloc")]
use alloc::boxed::Box;

use mqtt_proto::Publish;
use mqtt_proto::num::{to_u32, to_usize};

use crate::engine::Engine;
use crate::error::Refused;
use crate::event::{Ended, Token};
use crate::link::Phase;
use crate::memory::Memory;
use crate::outbound::DUP;
use crate::slots::Awaits;
use crate::tune::{JOURNAL, LARGE};

/// A packet that is kept anyway is large from this length on: a copy of it costs more than that one such packet at a time
/// can be under way.
pub(crate) const KEPT_IS_LARGE: usize = 16 << 10;

/// Whether the packet of a slot, which is kept, goes out from there; the outgoing buffer takes packets of up to `room` bytes.
pub(crate) const fn is_large(len: usize, room: usize) -> bool {
    len > room || len > KEPT_IS_LARGE
}

/// How far the large packet is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Underway {
    /// Of its slot.
    token: Token,
    /// How many of its bytes the transport took.
    sent: u32,
    /// Where in the outgoing buffer its turn is.
    pub(crate) at: u32,
    /// What `sent` was when it was last asked whether the packet moves.
    seen: u32,
}

/// The large packet under way, if there is one. As small as can be: every connection has the room for it.
#[derive(Debug)]
pub(crate) struct Large(#[cfg(feature = "alloc")] Option<Box<Underway>>);

impl Large {
    pub(crate) const NONE: Self = Self(
        #[cfg(feature = "alloc")]
        None,
    );

    #[inline]
    pub(crate) fn get(&self) -> Option<&Underway> {
        #[cfg(feature = "alloc")]
        return self.0.as_deref();
        #[cfg(not(feature = "alloc"))]
        None
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut Underway> {
        #[cfg(feature = "alloc")]
        return self.0.as_deref_mut();
        #[cfg(not(feature = "alloc"))]
        None
    }

    /// The token of the message whose packet is under way.
    #[inline]
    pub(crate) fn token(&self) -> Option<Token> {
        self.get().map(|large| large.token)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::NONE;
    }

    /// The packet of a slot goes out when the outgoing buffer was sent up to `at`.
    fn begin(&mut self, token: Token, at: u32) {
        let underway = Underway {
            token,
            sent: 0,
            at,
            seen: u32::MAX,
        };
        *self = Self(
            #[cfg(feature = "alloc")]
            Some(Box::new(underway)),
        );
        let _ = underway;
    }

    /// Whether there is one, and the transport took some of it since this was last asked. The first answer is that it did.
    pub(crate) fn moves(&mut self) -> bool {
        self.get_mut().is_some_and(|large| {
            let before = core::mem::replace(&mut large.seen, large.sent);
            before != large.sent
        })
    }
}

impl Engine {
    /// The bytes for the transport, as many as lie together.
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

    /// How many bytes wait for the transport in all.
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

    /// The transport took `n` bytes of what goes before the large packet, or of the packet.
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

    /// Whether the packet of a new message goes out from where it is kept. At QoS 0 it would not be kept otherwise.
    #[inline]
    pub(crate) fn becomes_large(&self, m: &Memory<'_>, len: usize, awaits: Awaits) -> bool {
        let kept = awaits != Awaits::CONNECTION;
        len > KEPT_IS_LARGE && kept || len > self.largest_in_buffer(m)
    }

    /// Accepts a message whose packet goes out from `kept`.
    #[cold]
    pub(crate) fn publish_large(
        &mut self,
        m: &mut Memory<'_>,
        mut publish: Publish<'_>,
        len: usize,
        awaits: Awaits,
    ) -> Result<Token, Refused> {
        if self.large.get().is_some() {
            return Err(Refused::Full);
        }
        let slot = self.keep(m, &mut publish, len, (awaits, self.config.slots()))?;
        self.add(m, slot);
        self.record_message(m, &slot);
        let index = usize::from(self.session.len).wrapping_sub(1);
        self.send_large(m, index);
        self.link.cursor = self.session.len;
        Ok(slot.token())
    }

    /// The packet of a slot goes out from where it is kept; `false` while another one does.
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
        // 3.1.1 [MQTT-3.3.1-1], 5 [MQTT-3.3.1-1]; a session that was lost takes it back.
        if let Some(first) = m.kept_mut().get_mut(to_usize(slot.start)) {
            *first = *first & !DUP | if slot.is_dup() { DUP } else { 0 };
        }
        if slot.awaits == Awaits::PUBREC {
            self.wait_for_records(m);
        }
        if counted {
            self.enter(slot.awaits);
        }
        let end = self.link.end;
        self.large.begin(slot.token(), end);
        true
    }

    /// Nothing more is awaited of a large message at QoS 0.
    fn end_large(&mut self, m: &mut Memory<'_>, token: Token, how: Ended) {
        if let Some(index) = self.index_of(m, token)
            && self
                .slots(m)
                .get(index)
                .is_some_and(|slot| slot.awaits == Awaits::CONNECTION)
        {
            self.end(m, index, how);
        }
    }

    fn index_of(&self, m: &Memory<'_>, token: Token) -> Option<usize> {
        self.slots(m).iter().position(|slot| slot.token() == token)
    }

    /// Ends the way of the large packet before its end, because its session goes elsewhere or its connection ends. After a
    /// part of a packet nothing can follow on its connection.
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
            // As if it had never been its turn.
            slot.comes_back();
        }
    }
}
