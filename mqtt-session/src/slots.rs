//! The table of what is on its way to the peer. A slot exists from the acceptance of a message or request to its end.
//!
//! Slots are in the order of their acceptance, and so are their packets in `kept`. So packets that are sent again go out in
//! their first order (3.1.1 \[MQTT-4.6.0-1\], 5 \[MQTT-4.6.0-1\]). The slots before `Link::cursor` were sent on this
//! connection. The others wait to be sent or to be sent again.
//!
//! Messages with a packet identifier, and requests, have ascending numbers; the lower half of a number is the packet
//! identifier. So the table is in the order of its numbers, and an old token does not fit a new message.

use mqtt_proto::num::{low_half, to_u32, to_usize};

use crate::bytes::{move_down, part, part_mut};
use crate::engine::Engine;
use crate::error::Refused;
use crate::event::{Ended, Nth, Token};
use crate::memory::Memory;
use crate::outgoing::check_size;
use crate::search::{SCAN_LIMIT, find_among_many, search};
use crate::state::slot::{Awaits, Slot};
use crate::tune::{FAST, GROWS, KEEPS_QOS_0, LARGE, POLICIES, not_inlined_on_devices};
use crate::work::looked;

/// How many bytes of memory stay allocated for kept packets when there are none: as many as outgoing packets have by default,
/// so that windows of usual size do not allocate again and again.
const KEPT_WHEN_EMPTY: usize = 256 << 10;

/// Whether the settings limit the slots. In lent memory the table does; then messages are limited by the window, and requests by their
/// own number.
const LIMITED: bool = GROWS || POLICIES;

/// For restored messages: an earlier process accepted them within its limits, which may have been higher.
pub(crate) const NO_LIMIT: usize = usize::MAX;

impl Engine {
    #[inline]
    fn slots_start(&self) -> usize {
        // On small targets, the slots always start at the front.
        if FAST {
            usize::from(self.session.start)
        } else {
            0
        }
    }

    #[inline]
    pub(crate) fn slots<'m>(&self, m: &'m Memory<'_>) -> &'m [Slot] {
        part(m.slots(), self.slots_start(), usize::from(self.session.len))
    }

    #[inline]
    pub(crate) fn slots_mut<'m>(&self, m: &'m mut Memory<'_>) -> &'m mut [Slot] {
        let len = usize::from(self.session.len);
        part_mut(m.slots_mut(), self.slots_start(), len)
    }

    #[inline]
    pub(crate) fn slot_mut<'m>(&self, m: &'m mut Memory<'_>, index: usize) -> Option<&'m mut Slot> {
        self.slots_mut(m).get_mut(index)
    }

    /// Returns how many messages and requests have not ended.
    pub(crate) fn pending(&self) -> usize {
        let ended = usize::from(self.session.ended);
        self.taken_slots().saturating_sub(ended)
    }

    /// Returns the index of the slot with a packet identifier.
    #[inline]
    pub(crate) fn find(&self, m: &Memory<'_>, id: u16) -> Option<usize> {
        let slots = self.slots(m);
        let fits = |slot: &Slot| looked(slot).id() == id && !slot.has_ended();
        if FAST {
            if slots.first().is_some_and(fits) {
                return Some(0);
            }
            if slots.len() > SCAN_LIMIT {
                return find_among_many(slots, id);
            }
        }
        slots.iter().position(fits)
    }

    /// Returns the slot of a token, whether its message has ended or not.
    pub(crate) fn find_token<'m>(&self, m: &'m Memory<'_>, token: Token) -> Option<&'m Slot> {
        let slots = self.slots(m);
        let first = if FAST { search(slots, token.number) } else { 0 };
        let rest = slots.get(first..).unwrap_or_default();
        rest.iter()
            .take_while(|slot| !FAST || slot.number == token.number)
            .find(|slot| slot.token() == token && slot.awaits != Awaits::FREE)
    }

    /// Returns the slot of the next message or request, which gets its memory in [`Self::place`].
    pub(crate) fn next_slot(&self, m: &Memory<'_>, awaits: Awaits) -> Slot {
        let (number, nth) = if KEEPS_QOS_0 && awaits == Awaits::CONNECTION {
            (self.session.last, self.session.unnumbered.next())
        } else {
            (self.next_number(m), Nth::NONE)
        };
        Slot {
            number,
            nth,
            awaits,
            ..Slot::EMPTY
        }
    }

    /// Returns the next number whose lower half is not an identifier in use. Numbers ascend, so one can be in use only after
    /// 65,535 of them.
    #[inline]
    fn next_number(&self, m: &Memory<'_>) -> u32 {
        let mut number = self.session.last;
        loop {
            number = number.wrapping_add(1);
            let id = low_half(number);
            let first = self.slots(m).first();
            let age = first.map_or(0, |slot| number.wrapping_sub(slot.number));
            // 3.1.1 [MQTT-2.3.1-2], [MQTT-2.3.1-4] and [MQTT-4.3.2-1], 5 [MQTT-2.2.1-4], [MQTT-4.3.2-1]
            // 5 [MQTT-4.3.3-1]: an identifier is not 0 and not in use.
            if id != 0 && (age <= 0xFFFF || self.find(m, id).is_none()) {
                return number;
            }
        }
    }

    /// Reserves `len` bytes in `kept` for a slot. The caller writes these bytes, then gives the slot to [`Self::add`]. `most`
    /// limits the slots that have not ended; with [`NO_LIMIT`] only the memory limits them and their bytes.
    #[inline]
    pub(crate) fn place(
        &mut self,
        m: &mut Memory<'_>,
        slot: &mut Slot,
        len: usize,
        most: usize,
    ) -> Result<(), Refused> {
        let start = self.make_slot_room(m, len, most)?;
        (slot.start, slot.len) = (to_u32(start), to_u32(len));
        Ok(())
    }

    not_inlined_on_devices! {
        /// Returns the bytes in `kept` that are reserved for a slot.
        pub(crate) fn slot_room<'m>(m: &'m mut Memory<'_>, slot: &Slot) -> &'m mut [u8] {
            part_mut(m.kept_mut(), to_usize(slot.start), to_usize(slot.len))
        }
    }

    not_inlined_on_devices! {
        /// Adds a reserved slot as the last one.
        pub(crate) fn add(&mut self, m: &mut Memory<'_>, slot: Slot) {
            let end = self
                .slots_start()
                .wrapping_add(usize::from(self.session.len));
            if let Some(place) = m.slots_mut().get_mut(end) {
                *place = slot;
                let session = &mut self.session;
                session.kept_end = slot.start.wrapping_add(slot.len);
                session.len = session.len.wrapping_add(1);
                session.last = slot.number;
                if !slot.nth.is_none() {
                    session.unnumbered = slot.nth;
                }
            }
        }
    }

    /// Makes room for a slot, and for `len` bytes in `kept`. Returns where these begin.
    #[inline]
    fn make_slot_room(
        &mut self,
        m: &mut Memory<'_>,
        len: usize,
        most: usize,
    ) -> Result<usize, Refused> {
        if LIMITED && self.taken_slots() >= most.wrapping_add(usize::from(self.session.ended))
            || !self.has_slot(m, most)
        {
            return Err(Refused::Full);
        }
        if self.session.len == 0 {
            self.session.kept_end = 0;
        }
        let start = to_usize(self.session.kept_end);
        let end = start.wrapping_add(len);
        // A large message may have made the memory larger than the limit.
        let within = most == NO_LIMIT || end <= self.config.most_kept();
        if within && end <= m.kept().len() {
            return Ok(start);
        }
        self.make_kept_room(m, len, most)
    }

    /// Returns how many slots are not free. On small targets none is.
    fn taken_slots(&self) -> usize {
        let free = if FAST { self.session.free } else { 0 };
        usize::from(self.session.len.saturating_sub(free))
    }

    /// Returns whether there is room for one more slot, if `most` may have not ended. The others may move.
    pub(crate) fn has_slot(&mut self, m: &mut Memory<'_>, most: usize) -> bool {
        let len = usize::from(self.session.len);
        let end = self.slots_start().wrapping_add(len);
        // The number of dropped messages whose end was not fetched is limited as well. In lent memory, the table is their limit.
        (!GROWS || self.taken_slots() < self.config.slots().max(most).saturating_mul(2))
            && (end < m.slots().len() || GROWS && self.make_table_room(m, end))
    }

    #[cold]
    fn make_table_room(&mut self, m: &mut Memory<'_>, end: usize) -> bool {
        let (start, most) = (self.slots_start(), usize::from(u16::MAX));
        // Moving the slots to the front is cheap if there is as much room before them as they take.
        let moves = start > 0 && start >= usize::from(self.session.len);
        let wanted = end.wrapping_add(1);
        let grows = !moves && wanted <= most && m.grow_slots(wanted);
        if FAST && !grows {
            self.sweep(m);
        }
        let end = self
            .slots_start()
            .wrapping_add(usize::from(self.session.len));
        end < m.slots().len().min(most)
    }

    /// Moves the slots that are in use to the front of their memory.
    pub(crate) fn sweep(&mut self, m: &mut Memory<'_>) {
        let cursor = usize::from(self.link.cursor);
        let (start, len) = (self.slots_start(), usize::from(self.session.len));
        let slots = m.slots_mut();
        let (mut end, mut before_cursor) = (0_u16, 0_u16);
        for index in 0..len {
            let Some(slot) = slots.get(start.wrapping_add(index)).map(looked).copied() else {
                break;
            };
            if slot.awaits == Awaits::FREE {
                continue;
            }
            if let Some(place) = slots.get_mut(usize::from(end)) {
                *place = slot;
            }
            end = end.wrapping_add(1);
            if index < cursor {
                before_cursor = end;
            }
        }
        let session = &mut self.session;
        (session.start, session.len, session.free) = (0, end, 0);
        self.link.cursor = before_cursor;
    }

    #[cold]
    fn make_kept_room(
        &mut self,
        m: &mut Memory<'_>,
        len: usize,
        most: usize,
    ) -> Result<usize, Refused> {
        check_size(len, m.kept_limit())?;
        if !LARGE {
            self.compact(m);
            let start = to_usize(self.session.kept_end);
            let fits = start.wrapping_add(len) <= m.kept().len();
            return if fits { Ok(start) } else { Err(Refused::Full) };
        }
        let lengths = self.slots(m).iter().map(|slot| to_usize(slot.len));
        let live: usize = lengths.sum();
        // One message may be longer than the limit if no other is kept.
        let limit = if live == 0 || most == NO_LIMIT {
            usize::MAX
        } else {
            self.config.most_kept()
        };
        let end = to_usize(self.session.kept_end);
        let wanted = end.wrapping_add(len);
        // While at least half of the memory is in use, growing is cheaper than moving that half to the front.
        if live >= end / 2 && wanted <= limit && m.grow_kept(wanted) {
            return Ok(end);
        }
        let moved = live.wrapping_add(len);
        if moved > limit || !m.grow_kept(moved) {
            return Err(Refused::Full);
        }
        self.compact(m);
        Ok(live)
    }

    /// Moves all kept packets to the front without gaps. Slots and packets are in the same order, so no packet is overwritten.
    fn compact(&mut self, m: &mut Memory<'_>) {
        let mut end = 0_usize;
        for index in 0..usize::from(self.session.len) {
            let Some(slot) = self.slot_mut(m, index) else {
                break;
            };
            let (start, len) = (to_usize(slot.start), to_usize(slot.len));
            slot.start = to_u32(end);
            move_down(m.kept_mut(), start..start.wrapping_add(len), end);
            end = end.wrapping_add(len);
        }
        self.session.kept_end = to_u32(end);
    }

    /// Frees a slot.
    #[inline]
    pub(crate) fn remove(&mut self, m: &mut Memory<'_>, index: usize) {
        let Some(slot) = self.slot_mut(m, index) else {
            return;
        };
        if !FAST {
            return self.close_gap(m, index);
        }
        (slot.awaits, slot.len) = (Awaits::FREE, 0);
        self.session.free = self.session.free.wrapping_add(1);
        if index == 0 {
            self.pass_free(m);
        } else if self.session.free > self.session.len / 2 {
            // At least as many slots were removed before as are moved now, so the cost of each removal is bounded.
            self.sweep(m);
        }
        if LARGE && self.session.len == 0 {
            self.session.start = 0;
            m.give_back_kept(KEPT_WHEN_EMPTY);
        }
    }

    /// Frees a slot by moving those behind it.
    fn close_gap(&mut self, m: &mut Memory<'_>, index: usize) {
        let slots = self.slots_mut(m);
        move_down(slots, index.wrapping_add(1)..slots.len(), index);
        self.session.len = self.session.len.wrapping_sub(1);
        if index < usize::from(self.link.cursor) {
            self.link.cursor = self.link.cursor.wrapping_sub(1);
        }
        if LARGE && self.session.len == 0 {
            m.give_back_kept(KEPT_WHEN_EMPTY);
        }
    }

    /// Removes the free slots at the front.
    #[inline]
    fn pass_free(&mut self, m: &Memory<'_>) {
        while self
            .slots(m)
            .first()
            .is_some_and(|slot| slot.awaits == Awaits::FREE)
        {
            let session = &mut self.session;
            session.start = session.start.wrapping_add(1);
            session.len = session.len.wrapping_sub(1);
            session.free = session.free.wrapping_sub(1);
            self.link.cursor = self.link.cursor.saturating_sub(1);
        }
    }

    /// Ends a message or request without an answer of the peer.
    pub(crate) fn end(&mut self, m: &mut Memory<'_>, index: usize, how: Ended) {
        if let Some(slot) = self.slot_mut(m, index)
            && !slot.has_ended()
        {
            let before = *slot;
            slot.awaits = Awaits::ended(how);
            slot.goes(false);
            self.session.ended = self.session.ended.wrapping_add(1);
            self.record_end(m, &before);
        }
    }

    /// Ends in doubt those messages and requests for which `ends` returns `true`, in their order.
    pub(crate) fn end_in_doubt(&mut self, m: &mut Memory<'_>, ends: &dyn Fn(&mut Slot) -> bool) {
        for index in 0..usize::from(self.session.len) {
            if self.slot_mut(m, index).is_some_and(ends) {
                self.end(m, index, Ended::InDoubt);
            }
        }
    }

    /// Ends a message or request as [`Self::end`] does, and frees its bytes, which are not needed any more.
    pub(crate) fn end_empty(&mut self, m: &mut Memory<'_>, index: usize, how: Ended) {
        self.end(m, index, how);
        if let Some(slot) = self.slot_mut(m, index) {
            slot.len = 0;
        }
    }

    /// Returns the next end that has to be reported, if there is one. The slot whose end was reported last is freed.
    #[cold]
    pub(crate) fn next_ended(&mut self, m: &mut Memory<'_>) -> Option<(Token, Ended)> {
        let over = self
            .slots(m)
            .iter()
            .position(|slot| slot.awaits == Awaits::REPORTED);
        if let Some(index) = over {
            self.session.ended = self.session.ended.wrapping_sub(1);
            self.remove(m, index);
        }
        self.slots_mut(m).iter_mut().find_map(|slot| {
            let how = slot.awaits.how()?;
            slot.awaits = Awaits::REPORTED;
            Some((slot.token(), how))
        })
    }

    /// Discards all slots, whether their end was reported or not.
    pub(crate) fn clear_slots(&mut self, m: &mut Memory<'_>) {
        let session = &mut self.session;
        (session.start, session.len, session.free) = (0, 0, 0);
        (session.kept_end, session.ended) = (0, 0);
        m.give_back_kept(KEPT_WHEN_EMPTY);
    }
}
