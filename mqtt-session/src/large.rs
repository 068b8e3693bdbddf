//! A PUBLISH that is not copied into the outgoing buffer: its packet goes to the transport from where it is kept. What was in
//! the buffer goes before it, what comes there meanwhile goes after it.

#[cfg(feature = "alloc")]
use alloc::boxed::Box;

use crate::connection::Phase;
use crate::outbound::{Await, Slot};
use crate::outbox::{to_u32, to_usize};
use crate::packet_id::Generation;
use crate::session::Side;
use crate::storage::Storage;

/// Whether there are large packets. Firmware without a heap lends buffers for the packets it sends.
pub(crate) const LARGE: bool = cfg!(feature = "alloc");

/// A packet that is kept anyway is large from this length on: a copy of it costs more than that one such packet at a time
/// can be under way.
const KEPT_IS_LARGE: usize = 16 << 10;

/// Whether the packet of a slot, which is kept, goes out from there; the outgoing buffer takes packets of up to `room` bytes.
pub(crate) const fn is_large(len: usize, room: usize) -> bool {
    LARGE && (len > room || len > KEPT_IS_LARGE)
}

/// Whether the packet of a new message goes out from where it is kept. At QoS 0 it would not be kept otherwise.
pub(crate) const fn becomes_large(len: usize, awaits: Await, room: usize) -> bool {
    LARGE && (len > room || len > KEPT_IS_LARGE && !matches!(awaits, Await::Connection))
}

/// How far the large packet is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Of its slot.
    pub(crate) generation: Generation,
    /// How many of its bytes the transport took.
    pub(crate) sent: u32,
    /// Where in the outgoing buffer its turn is.
    pub(crate) at: u32,
    /// What `sent` was when it was last asked whether the packet moves.
    seen: u32,
}

/// The large packet under way, if there is one. As small as can be: every session has the room for it.
#[derive(Debug, Default)]
pub(crate) struct Large(#[cfg(feature = "alloc")] Option<Box<Progress>>);

impl Large {
    pub(crate) const NONE: Self = Self(
        #[cfg(feature = "alloc")]
        None,
    );

    #[inline]
    pub(crate) fn get(&self) -> Option<&Progress> {
        #[cfg(feature = "alloc")]
        {
            self.0.as_deref()
        }
        #[cfg(not(feature = "alloc"))]
        {
            None
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut Progress> {
        #[cfg(feature = "alloc")]
        {
            self.0.as_deref_mut()
        }
        #[cfg(not(feature = "alloc"))]
        {
            None
        }
    }

    /// Whether this slot's packet is the one under way.
    #[inline]
    pub(crate) fn is(&self, slot: &Slot) -> bool {
        self.get()
            .is_some_and(|large| large.generation == slot.generation())
    }

    /// The packet of a slot goes out when the outgoing buffer was sent up to `at`.
    pub(crate) fn begin(&mut self, generation: Generation, at: usize) {
        let progress = Progress {
            generation,
            sent: 0,
            at: to_u32(at),
            seen: u32::MAX,
        };
        *self = Self(
            #[cfg(feature = "alloc")]
            Some(Box::new(progress)),
        );
        let _ = progress;
    }

    /// Whether there is one, and the transport took some of it since this was last asked. The first answer is that it did.
    pub(crate) fn moves(&mut self) -> bool {
        self.get_mut().is_some_and(|large| {
            let before = core::mem::replace(&mut large.seen, large.sent);
            before != large.sent
        })
    }
}

impl<S: Storage> Side<S> {
    /// The bytes for the transport, as many as lie together.
    #[inline]
    pub(crate) fn outgoing(&self) -> &[u8] {
        match self.outbox.large.get() {
            None => self.outbox.bytes(),
            Some(large) => self.outgoing_with(large),
        }
    }

    /// How many bytes wait for the transport in all.
    pub(crate) fn unsent(&self) -> usize {
        let large = self.outbox.large.get().map_or(0, |large| {
            let packet = self.session.outbound.packet(large.generation);
            packet.len().saturating_sub(to_usize(large.sent))
        });
        self.outbox.bytes().len().saturating_add(large)
    }

    fn outgoing_with(&self, large: &Progress) -> &[u8] {
        let before = self.outbox.before_large();
        if before.is_empty() {
            let packet = self.session.outbound.packet(large.generation);
            packet.get(to_usize(large.sent)..).unwrap_or_default()
        } else {
            before
        }
    }

    /// The transport took `n` bytes of what goes before the large packet, or of the packet.
    #[cold]
    pub(crate) fn sent_with_large(&mut self, n: usize) {
        let before = self.outbox.before_large().len();
        if before > 0 {
            return self.outbox.sent(n.min(before));
        }
        let Some(large) = self.outbox.large.get_mut() else {
            return;
        };
        let outbound = &mut self.session.outbound;
        let len = outbound.packet(large.generation).len();
        let sent = to_usize(large.sent).saturating_add(n).min(len);
        large.sent = to_u32(sent);
        if sent == len {
            outbound.large_sent(large.generation);
            self.outbox.large = Large::NONE;
        }
    }

    /// Ends the way of the large packet before its end, because its session goes elsewhere or its connection ends. After a
    /// part of a packet nothing can follow on its connection.
    #[inline]
    pub(crate) fn stop_large(&mut self) {
        if self.outbox.large.get().is_some() {
            self.stop();
        }
    }

    #[cold]
    fn stop(&mut self) {
        let large = core::mem::take(&mut self.outbox.large);
        let Some(large) = large.get() else {
            return;
        };
        let outbound = &mut self.session.outbound;
        outbound.large_stopped(large.generation, large.sent > 0);
        if large.sent > 0 {
            self.outbox.clear();
            if self.connection.phase != Phase::Offline {
                self.connection.phase = Phase::Closing;
            }
        }
    }
}
