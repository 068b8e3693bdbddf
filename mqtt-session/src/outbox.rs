//! Outgoing bytes, until the transport took them. Messages leave a reserve free, so that acknowledgements and pings always
//! find room: control must not wait behind data.

use mqtt_proto::{AckKind, ReasonCode};

use crate::bytes::{copy, move_down};
use crate::large::Large;
use crate::packet_id::Generation;
use crate::storage::Memory;

/// Bytes that messages leave free. An acknowledgement takes at most 5; a peer that respects the receive maximum cannot
/// use up what [`Outbox::control`] may take beyond it on a heap.
pub(crate) const RESERVE: usize = 64;

/// The longest acknowledgement we make: fixed header, identifier, reason code.
pub(crate) const ACK_LEN: usize = 5;

pub(crate) struct Outbox<M> {
    memory: M,
    start: u32,
    end: u32,
    /// A packet that goes out from elsewhere, in turn with these bytes.
    pub(crate) large: Large,
}

impl<M: Memory<u8>> Outbox<M> {
    pub(crate) const fn new(memory: M) -> Self {
        Self {
            memory,
            start: 0,
            end: 0,
            large: Large::NONE,
        }
    }

    /// Forgets all that waits, the large packet as well.
    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        self.large = Large::NONE;
    }

    /// The bytes that go before the large packet.
    pub(crate) fn before_large(&self) -> &[u8] {
        let at = self.large.get().map_or(0, |large| to_usize(large.at));
        let items = self.memory.items();
        items.get(to_usize(self.start)..at).unwrap_or_default()
    }

    /// The packet of a slot goes out after what is here now.
    pub(crate) fn begin_large(&mut self, generation: Generation) {
        self.large.begin(generation, to_usize(self.end));
    }

    /// What begins at `start` now begins at the front.
    fn moved(&mut self, start: usize) {
        let end = to_usize(self.end);
        (self.start, self.end) = (0, to_u32(end.saturating_sub(start)));
        if let Some(large) = self.large.get_mut() {
            large.at = to_u32(to_usize(large.at).saturating_sub(start));
        }
    }

    #[inline]
    fn marks(&self) -> (usize, usize) {
        (to_usize(self.start), to_usize(self.end))
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        let (start, end) = self.marks();
        self.memory.items().get(start..end).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn sent(&mut self, n: usize) {
        let (start, end) = self.marks();
        let start = start.saturating_add(n).min(end);
        self.start = to_u32(start);
        if start == end {
            self.moved(start);
        }
    }

    /// The most that one message can take: what a buffer of `limit` bytes leaves beside the reserve.
    pub(crate) fn largest_message(&self, limit: usize) -> usize {
        self.memory.limit().min(limit).saturating_sub(RESERVE)
    }

    /// Room for a message of `len` bytes, beside the reserve. Take it by [`Self::advance`].
    #[cfg_attr(target_pointer_width = "64", inline)]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub(crate) fn message(&mut self, len: usize, limit: usize) -> Option<&mut [u8]> {
        let unsent = self.bytes().len();
        let total = unsent.checked_add(len)?.checked_add(RESERVE)?;
        // An empty outbox takes any message that fits the buffer at all.
        if total > limit && unsent > 0 || !self.make_room(len, RESERVE) {
            return None;
        }
        let (_, end) = self.marks();
        self.memory.items_mut().get_mut(end..end.wrapping_add(len))
    }

    /// Room for a control packet of `len` bytes.
    #[inline]
    pub(crate) fn control(&mut self, len: usize) -> Option<&mut [u8]> {
        if !self.make_room(len, 0) {
            return None;
        }
        let (_, end) = self.marks();
        self.memory.items_mut().get_mut(end..end.wrapping_add(len))
    }

    /// Sends an acknowledgement, with a reason code only where one says more than success, which only MQTT 5 can, and never
    /// with properties. `false` without room for [`ACK_LEN`] bytes.
    pub(crate) fn acknowledge(&mut self, kind: AckKind, id: u16, reason: ReasonCode) -> bool {
        let Some(room) = self.control(ACK_LEN) else {
            return false;
        };
        let first = (kind.packet_type().get() << 4) | if kind == AckKind::PubRel { 2 } else { 0 };
        let [high, low] = id.to_be_bytes();
        let reasons = u8::from(reason != ReasonCode::Success);
        copy(
            room,
            &[first, 2_u8.wrapping_add(reasons), high, low, reason.get()],
        );
        self.advance(usize::from(reasons).wrapping_add(4));
        true
    }

    /// Whether `len` bytes of control packets have room. On a heap the acknowledgements that wait are bounded as well.
    #[inline]
    pub(crate) fn control_fits(&mut self, len: usize, limit: usize) -> bool {
        self.bytes().len().wrapping_add(len) <= limit.saturating_add(CONTROL_BEYOND_LIMIT)
            && self.make_room(len, 0)
    }

    /// `len` bytes were written to the room given.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) {
        self.end = self.end.wrapping_add(to_u32(len));
    }

    #[inline]
    fn make_room(&mut self, len: usize, reserve: usize) -> bool {
        let (start, end) = self.marks();
        let wanted = end.wrapping_add(len).wrapping_add(reserve);
        if wanted <= self.memory.items().len() {
            return true;
        }
        self.make_room_by_moving(start, end, wanted)
    }

    #[cold]
    fn make_room_by_moving(&mut self, start: usize, end: usize, wanted: usize) -> bool {
        // Grow while most of the buffer is unsent; otherwise moving the rest to the front costs less than it frees.
        let mostly_sent = start >= end.saturating_sub(start);
        if !mostly_sent && self.memory.grow(wanted) {
            return true;
        }
        if wanted.saturating_sub(start) > self.memory.items().len()
            && !self.memory.grow(wanted.saturating_sub(start))
        {
            return false;
        }
        move_down(self.memory.items_mut(), start, end.saturating_sub(start), 0);
        self.moved(start);
        true
    }
}

/// On a heap, how far acknowledgements may go beyond the limit for messages: more than 65,535 of them, the largest
/// window there is, at 5 bytes each.
const CONTROL_BEYOND_LIMIT: usize = 512 << 10;

#[inline]
pub(crate) fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[inline]
pub(crate) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
