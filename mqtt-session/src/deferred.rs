//! Records of messages at QoS 1 that are written late: only if no acknowledgement comes in time, or if the connection ends.
//!
//! A slot has no room for a time, so each message has an age of three steps. They advance together, each half of the time: a message
//! is recorded after half of the time at the earliest, and when it is over at the latest. Records stay in the order of acceptance,
//! which restoring needs: before any other message is recorded, all that were put off are.

use mqtt_proto::QoS;
use mqtt_proto::num::to_usize;

use crate::engine::Engine;
use crate::error::Refused;
use crate::event::Outgoing;
use crate::memory::Memory;
use crate::state::slot::{Awaits, DUE, OLD, Slot, YOUNG};

/// When the record of a message to the server is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Durable {
    /// When the message is accepted.
    #[default]
    Always,
    /// At QoS 1 on a connection: if the message is not acknowledged within this number of milliseconds, or when the connection
    /// ends. The record may be written from half of this time on. A message that is acknowledged sooner has no record.
    ///
    /// If the process ends while the connection is up, messages at QoS 1 that are younger than this time may be lost. Messages at QoS
    /// 2, and those that are accepted without a connection, are recorded when they are accepted, as with [`Self::Always`]: if a
    /// message at QoS 2 were sent without its record, its packet identifier could be given to another message after a restart, which
    /// the server would take for the first one, and lose (5 \[MQTT-4.4.0-1\]). A message that is recorded at once is recorded after all
    /// that were put off.
    WhenOffline(u32),
}

/// Returns how many milliseconds are left until a time, which may have passed.
const fn left(until: u32, now: u32) -> u32 {
    let left = until.wrapping_sub(now);
    if left > u32::MAX / 2 { 0 } else { left }
}

impl Engine {
    pub(crate) fn set_durable(&mut self, m: &mut Memory<'_>, durable: Durable) {
        self.record_deferred(m);
        if let Some(journal) = &mut self.journal {
            journal.deferred.half = match durable {
                Durable::Always => 0,
                Durable::WhenOffline(millis) => millis.div_ceil(2).clamp(1, u32::MAX / 4),
            };
        }
    }

    fn defers(&self, qos: QoS) -> bool {
        let journal = self.journal.as_ref();
        qos == QoS::AtLeastOnce
            && self.is_connected()
            && journal.is_some_and(|j| j.deferred.half != 0)
    }

    /// Records the messages that were put off, if the message to be published is recorded at once: records stay in the order of
    /// acceptance. Returns [`Refused::Full`] if there is no room for all of them.
    pub(crate) fn check_deferred(
        &mut self,
        m: &mut Memory<'_>,
        message: &Outgoing<'_>,
        now: u32,
    ) -> Result<(), Refused> {
        let Some(journal) = self.journal.as_mut().filter(|j| !j.is_of_server()) else {
            return Ok(());
        };
        journal.deferred.now = now;
        if !self.defers(message.qos) {
            self.record_deferred(m);
            if self.journal.as_ref().is_some_and(|j| j.deferred.waits) {
                return Err(Refused::Full);
            }
        }
        Ok(())
    }

    /// Puts off the record of the last message, if it can wait.
    pub(crate) fn defer(&mut self, m: &mut Memory<'_>, slot: &Slot) -> bool {
        if slot.awaits != Awaits::PUBACK || !self.defers(QoS::AtLeastOnce) {
            return false;
        }
        if let Some(last) = self.slots_mut(m).last_mut() {
            last.set_age(YOUNG);
        }
        if let Some(journal) = &mut self.journal {
            let deferred = &mut journal.deferred;
            let next = deferred.now.wrapping_add(deferred.half);
            deferred.next.get_or_insert(next);
        }
        true
    }

    /// Returns in how many milliseconds ages advance.
    pub(crate) fn deferred_due_in(&self, now: u32) -> u32 {
        let next = self.journal.as_ref().and_then(|j| j.deferred.next);
        next.map_or(u32::MAX, |next| left(next, now))
    }

    /// Writes the records of messages whose time is over.
    #[inline]
    pub(crate) fn tick_deferred(&mut self, m: &mut Memory<'_>, now: u32) {
        let journal = self.journal.as_ref();
        if journal.is_some_and(|journal| journal.deferred.next.is_some()) {
            self.write_due(m, now);
        }
    }

    #[cold]
    fn write_due(&mut self, m: &mut Memory<'_>, now: u32) {
        // After a long sleep, both halves of the time have passed.
        for _ in 0..2 {
            let Some(journal) = &mut self.journal else {
                return;
            };
            let deferred = &mut journal.deferred;
            let Some(next) = deferred.next.filter(|next| left(*next, now) == 0) else {
                return;
            };
            deferred.next = Some(next.wrapping_add(deferred.half));
            self.advance_ages(m);
        }
        if let Some(journal) = &mut self.journal
            && let Some(next) = &mut journal.deferred.next
            && left(*next, now) == 0
        {
            *next = now.wrapping_add(journal.deferred.half);
        }
    }

    fn advance_ages(&mut self, m: &mut Memory<'_>) {
        let mut any = false;
        for slot in self.slots_mut(m).iter_mut() {
            if slot.has_age(OLD) {
                slot.set_age(DUE);
            } else if slot.has_age(YOUNG) {
                slot.set_age(OLD);
                any = any || !slot.has_ended();
            }
        }
        if let (Some(journal), false) = (&mut self.journal, any) {
            journal.deferred.next = None;
        }
        self.write_deferred(m);
    }

    /// Writes all records that were put off, as far as they have room; [`Self::stored`] writes the others.
    pub(crate) fn record_deferred(&mut self, m: &mut Memory<'_>) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if journal.deferred.next.take().is_none() {
            return;
        }
        for slot in self.slots_mut(m).iter_mut() {
            if slot.is_deferred() {
                slot.set_age(DUE);
            }
        }
        self.write_deferred(m);
    }

    /// Writes the records that are due and have room.
    pub(crate) fn write_deferred(&mut self, m: &mut Memory<'_>) {
        let mut waits = false;
        for index in 0..usize::from(self.session.len) {
            let Some(slot) = self.slots(m).get(index).copied() else {
                break;
            };
            if !slot.has_age(DUE) || slot.has_ended() {
                continue;
            }
            if !self.record_fits(m, to_usize(slot.len)) {
                waits = true;
                break;
            }
            self.write_message(m, &slot);
            if let Some(slot) = self.slot_mut(m, index) {
                slot.set_age(0);
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.deferred.waits = waits;
        }
    }

    /// Records were stored, so there is room for others.
    pub(crate) fn resume_deferred(&mut self, m: &mut Memory<'_>) {
        if self.journal.as_ref().is_some_and(|j| j.deferred.waits) {
            self.write_deferred(m);
        }
    }
}
