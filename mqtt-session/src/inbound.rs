//! Messages from the peer, until they are released. This code is the same for both roles.
//!
//! ```text
//!   QoS 1, by hand:     PUBLISH --> application --acknowledge--> acknowledged --PUBACK goes out--> done
//!   QoS 2, by hand:     PUBLISH --> application --acknowledge--> acknowledged --PUBREC goes out--> released by PUBREL
//!   QoS 2, automatic:   PUBLISH --PUBREC goes out--> released by PUBREL
//!   QoS 2:              PUBREL, PUBCOMP goes out --> done
//! ```
//!
//! Entries of QoS 2 messages belong to the session: they stay at a reconnect and end with the session. Entries of QoS 1
//! messages end with the connection, because the peer sends the message again.

use mqtt_proto::num::to_u16;
use mqtt_proto::wire::View;
use mqtt_proto::{EncodeError, PacketType, ReasonCode};

use crate::bytes::{move_down, part, part_mut};
use crate::engine::Engine;
use crate::error::Refused;
use crate::event::Receipt;
use crate::memory::Memory;
use crate::problem::Problem;
use crate::state::received::{
    ACKNOWLEDGED, APPLICATION, COUNTED, QOS_1, Quality, RESTORED, ReceiveSlot,
};
use crate::tune::{BY_HAND, FAST, GROWS, JOURNAL, V5};

/// The kind of a message that arrived with a PUBLISH.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Arrival {
    /// A message for the application, with the serial number of its receipt if it is to be acknowledged by hand.
    New(Option<u16>),
    /// A message that the application has already.
    Repeated,
}

/// Up to this number of entries, comparing each is faster than a search.
const SCAN_LIMIT: usize = 16;

impl Engine {
    #[inline]
    fn by_hand(&self) -> bool {
        BY_HAND && self.config.by_hand()
    }

    #[inline]
    fn received_start(&self) -> usize {
        if FAST {
            usize::from(self.session.received_start)
        } else {
            0
        }
    }

    fn received_end(&self) -> usize {
        self.received_start()
            .wrapping_add(usize::from(self.session.received))
    }

    #[inline]
    fn received<'m>(&self, m: &'m Memory<'_>) -> &'m [ReceiveSlot] {
        let len = usize::from(self.session.received);
        part(m.received(), self.received_start(), len)
    }

    #[inline]
    fn received_mut<'m>(&self, m: &'m mut Memory<'_>) -> &'m mut [ReceiveSlot] {
        let len = usize::from(self.session.received);
        part_mut(m.received_mut(), self.received_start(), len)
    }

    /// Handles a complete message at QoS 1 or 2. The room for its acknowledgement was checked before.
    #[inline]
    pub(crate) fn arrived(
        &mut self,
        m: &mut Memory<'_>,
        view: &View<'_>,
    ) -> Result<Arrival, Problem> {
        // 3.1.1 [MQTT-3.3.4-1] and [MQTT-4.5.0-2], 5 [MQTT-3.3.4-1] and [MQTT-4.5.0-2]: each message is acknowledged as its
        // quality of service requires, whatever the application does with it.
        let (id, qos1) = (view.id, view.flags & 6 == 2);
        let by_hand = self.by_hand();
        if qos1 && !by_hand {
            // 3.1.1 [MQTT-4.3.2-2], 5 [MQTT-4.3.2-4]
            // 5 [MQTT-4.3.2-5]: nothing of it is stored, so its identifier means a new message the next time.
            self.acknowledgement(m, PacketType::PubAck, id, ReasonCode::Success);
            return Ok(Arrival::New(None));
        }
        // Entries at QoS 1 are not searched: until its acknowledgement the peer has no reason to use an identifier again.
        if !qos1 && let Some(index) = self.find_received(m, id) {
            if !self.assumes_session() || view.flags & 8 != 0 {
                self.repeated(m, index);
                return Ok(Arrival::Repeated);
            }
            // The server did not have the session, because otherwise DUP would be set.
            self.remove_received(m, index);
            self.record_freed(m, id);
        }
        self.check_receive_maximum(m)?;
        if BY_HAND {
            self.session.serial = self.session.serial.wrapping_add(1);
        }
        let quality = if qos1 { QOS_1 } else { 0 };
        let state = COUNTED | quality | if by_hand { APPLICATION } else { 0 };
        let mut entry = ReceiveSlot::new(id, state);
        entry.set_serial(self.session.serial);
        if !self.remember(m, entry) {
            return Err(Problem::ReceiveMaximum);
        }
        if by_hand {
            return Ok(Arrival::New(Some(self.session.serial)));
        }
        self.record_received(m, id);
        // 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-8]
        self.acknowledgement(m, PacketType::PubRec, id, ReasonCode::Success);
        Ok(Arrival::New(None))
    }

    /// Handles a QoS 2 message that arrived before: its answer is sent again, if it has one.
    fn repeated(&mut self, m: &mut Memory<'_>, index: usize) {
        let Some(entry) = self.received_mut(m).get_mut(index) else {
            return;
        };
        if JOURNAL && BY_HAND && entry.is(RESTORED) {
            self.came_again(m, index);
            return;
        }
        // 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-10]: until PUBREL the identifier means this message, with or without DUP.
        if BY_HAND && entry.is(APPLICATION | ACKNOWLEDGED) {
            entry.state |= COUNTED;
            self.flush(m);
        } else {
            let id = entry.id;
            self.acknowledgement(m, PacketType::PubRec, id, ReasonCode::Success);
        }
    }

    /// Handles a message that comes again and that an earlier process acknowledged: it takes its place in the order of the
    /// messages, in which PUBREC is sent (3.1.1 \[MQTT-4.6.0-3\], 5 \[MQTT-4.6.0-3\]).
    fn came_again(&mut self, m: &mut Memory<'_>, index: usize) {
        let Some(mut entry) = self.received(m).get(index).copied() else {
            return;
        };
        self.remove_received(m, index);
        self.session.serial = self.session.serial.wrapping_add(1);
        entry.set_serial(self.session.serial);
        entry.state = ACKNOWLEDGED | COUNTED;
        if self.remember(m, entry) {
            let count = Quality::Two.of(&mut self.session.acknowledged);
            *count = count.wrapping_add(1);
            self.flush(m);
        }
    }

    /// Returns whether the identifier belongs to a QoS 2 message that arrived before.
    pub(crate) fn holds(&self, m: &Memory<'_>, id: u16) -> bool {
        self.find_received(m, id).is_some()
    }

    /// Checks the receive maximum of this side (5 [MQTT-3.3.4-7] and [MQTT-3.3.4-9]).
    #[inline]
    fn check_receive_maximum(&mut self, m: &Memory<'_>) -> Result<(), Problem> {
        let maximum = self.link.ours.receive_maximum;
        // Before MQTT 5 there is no receive maximum; the size of the table is the limit.
        if V5 && self.session.received >= maximum && !self.link.exceeded {
            // Counting takes a look at every entry, but happens only near the maximum.
            let counted = self.received(m).iter().filter(|entry| entry.is(COUNTED));
            if counted.count() >= usize::from(maximum) {
                if !self.config.receive_beyond_maximum || self.is_server() {
                    return Err(Problem::ReceiveMaximum);
                }
                self.link.exceeded = true;
            }
        }
        Ok(())
    }

    /// Adds an entry as the last one. Returns `false` if there is no room.
    #[inline]
    fn remember(&mut self, m: &mut Memory<'_>, entry: ReceiveSlot) -> bool {
        let mut end = self.received_end();
        if self.session.received == u16::MAX {
            return false;
        }
        if GROWS && end >= m.received().len() {
            if !self.make_received_room(m, end) {
                return false;
            }
            end = self.received_end();
        }
        // Most peers use ascending identifiers. While they do, an entry is found by a search.
        if FAST
            && let (Some(first), Some(last)) = (self.received(m).first(), self.received(m).last())
        {
            let before = last.id.wrapping_sub(first.id);
            self.session.unordered |= entry.id.wrapping_sub(first.id) <= before;
        }
        let Some(place) = m.received_mut().get_mut(end) else {
            return false;
        };
        *place = entry;
        self.session.received = self.session.received.wrapping_add(1);
        true
    }

    #[cold]
    fn make_received_room(&mut self, m: &mut Memory<'_>, end: usize) -> bool {
        let (start, len) = (self.received_start(), usize::from(self.session.received));
        let most = usize::from(u16::MAX);
        if start > 0 && (start >= len || end >= most) {
            // There is as much room before the entries as they take, so moving them is cheap.
            move_down(m.received_mut(), start..end, 0);
            self.session.received_start = 0;
            return true;
        }
        end < most && m.grow_received(end.wrapping_add(1).min(most))
    }

    /// Returns the index of the entry of a QoS 2 message.
    #[inline]
    fn find_received(&self, m: &Memory<'_>, id: u16) -> Option<usize> {
        let entries = self.received(m);
        let fits = |entry: &ReceiveSlot| crate::work::looked(entry).is_qos2(id);
        if FAST {
            if entries.first().is_some_and(fits) {
                return Some(0);
            }
            if entries.len() > SCAN_LIMIT && !self.session.unordered {
                let first = entries.first().map_or(0, |entry| entry.id);
                let distance = id.wrapping_sub(first);
                let index =
                    entries.partition_point(|entry| entry.id.wrapping_sub(first) < distance);
                return entries.get(index).is_some_and(fits).then_some(index);
            }
        }
        entries.iter().position(fits)
    }

    /// Handles PUBREL: sends exactly one PUBCOMP, even if the identifier is not known.
    #[inline]
    pub(crate) fn released(&mut self, m: &mut Memory<'_>, id: u16) {
        // 5 [MQTT-4.3.3-12]: the entry is removed, so the identifier means a new message from now on. 5 [MQTT-3.7.2-1]: PUBCOMP
        // has these two reason codes.
        let reason = match self.find_received(m, id) {
            Some(index) => {
                self.remove_received(m, index);
                self.record_freed(m, id);
                ReasonCode::Success
            }
            None if self.is_v5() => ReasonCode::PacketIdentifierNotFound,
            None => ReasonCode::Success,
        };
        // 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-11]
        self.acknowledgement(m, PacketType::PubComp, id, reason);
        self.flush(m);
    }

    /// Removes an entry and closes the gap.
    #[inline]
    pub(crate) fn remove_received(&mut self, m: &mut Memory<'_>, index: usize) {
        let entries = self.received_mut(m);
        let Some(entry) = entries.get(index) else {
            return;
        };
        let (acknowledged, quality) = (u16::from(entry.is(ACKNOWLEDGED)), entry.quality());
        if FAST && index < entries.len() / 2 {
            // The side with fewer entries moves.
            entries
                .get_mut(..=index)
                .unwrap_or_default()
                .rotate_right(1);
            self.session.received_start = self.session.received_start.wrapping_add(1);
        } else {
            let next = index.wrapping_add(1);
            move_down(entries, next..entries.len(), index);
        }
        let session = &mut self.session;
        let count = quality.of(&mut session.acknowledged);
        *count = count.wrapping_sub(acknowledged);
        session.received = session.received.wrapping_sub(1);
        if FAST && session.received == 0 {
            (session.received_start, session.unordered) = (0, false);
        }
    }

    /// Acknowledges a message for the application.
    pub(crate) fn acknowledge(
        &mut self,
        m: &mut Memory<'_>,
        receipt: Receipt,
        reason: ReasonCode,
    ) -> Result<(), Refused> {
        let index = self.find_receipt(m, receipt);
        let index = index.ok_or(Refused::NothingToAcknowledge)?;
        if !self.lent_record_fits(m, 0) {
            return Err(Refused::Full);
        }
        let version = self.link.version;
        let Some(entry) = self.received_mut(m).get_mut(index) else {
            return Err(Refused::NothingToAcknowledge);
        };
        // 5 [MQTT-3.4.2-1] and [MQTT-3.5.2-1]
        if !reason.belongs_in(entry.answer()) {
            return Err(EncodeError::ReasonCode(reason).into());
        }
        entry.state = entry.state & !APPLICATION | ACKNOWLEDGED;
        if version.is_v5() {
            entry.set_reason(reason);
        }
        let (id, takes) = (entry.id, !entry.is(QOS_1) && !entry.reason().is_error());
        let count = entry.quality().of(&mut self.session.acknowledged);
        *count = count.wrapping_add(1);
        if takes {
            // From now on the application is done with it, also if its PUBREC waits for others.
            self.record_received(m, id);
        }
        if self.is_connected() {
            self.flush(m);
        }
        Ok(())
    }

    /// Returns whether the identifier stands for a QoS 2 message that the application is done with.
    #[cfg(feature = "journal")]
    pub(crate) fn is_recorded(&self, m: &Memory<'_>, id: u16) -> bool {
        let found = self.find_received(m, id);
        let entry = found.and_then(|index| self.received(m).get(index));
        entry.is_some_and(|entry| !entry.is(APPLICATION))
    }

    /// Returns whether the message of a receipt that is not acknowledged has QoS 2. `None` if there is no such message.
    #[cfg(all(feature = "by-hand", feature = "journal"))]
    pub(crate) fn awaits_acknowledgement(&self, m: &Memory<'_>, receipt: Receipt) -> Option<bool> {
        let entry = self.received(m).get(self.find_receipt(m, receipt)?)?;
        Some(!entry.is(QOS_1))
    }

    /// Returns the index of the entry of a receipt that is not acknowledged.
    #[inline]
    pub(crate) fn find_receipt(&self, m: &Memory<'_>, receipt: Receipt) -> Option<usize> {
        let wanted = |entry: &ReceiveSlot| {
            entry.id == receipt.id.get()
                && entry.serial() == receipt.serial
                && entry.is(APPLICATION)
        };
        let entries = self.received(m);
        if FAST {
            // Serial numbers ascend, and there are fewer entries than numbers.
            let first = entries.first()?.serial();
            let distance = receipt.serial.wrapping_sub(first);
            let guess = usize::from(distance);
            if entries.get(guess).is_some_and(wanted) {
                return Some(guess);
            }
            let index =
                entries.partition_point(|entry| entry.serial().wrapping_sub(first) < distance);
            if entries.get(index).is_some_and(wanted) {
                return Some(index);
            }
            // The numbers have passed the one of a message that was held for long.
        }
        entries.iter().position(wanted)
    }

    /// Sends the acknowledgements that may go, for each quality of service in the order of its messages
    /// (3.1.1 \[MQTT-4.6.0-2\] and \[MQTT-4.6.0-3\], 5 the same).
    #[inline]
    pub(crate) fn flush(&mut self, m: &mut Memory<'_>) {
        if BY_HAND && self.session.acknowledged != [0, 0] {
            self.flush_acknowledged(m);
        }
    }

    fn flush_acknowledged(&mut self, m: &mut Memory<'_>) {
        // For each quality of service: how many acknowledged entries may still follow. After one that is not acknowledged, none
        // may go. 3.1.1 [MQTT-4.6.0-2] and [MQTT-4.6.0-3], 5 [MQTT-4.6.0-2] and [MQTT-4.6.0-3]
        let mut left = self.session.acknowledged;
        let mut index = 0_usize;
        while left != [0, 0]
            && let Some(entry) = self.received(m).get(index).copied()
        {
            index = index.wrapping_add(1);
            let left = entry.quality().of(&mut left);
            if entry.is(APPLICATION) {
                *left = 0;
            } else if entry.is(ACKNOWLEDGED) && *left > 0 {
                *left = left.wrapping_sub(1);
                // An entry of an earlier connection waits until the peer has sent the message again.
                if !entry.is(COUNTED) {
                    continue;
                }
                if !self.acknowledgement(m, entry.answer(), entry.id, entry.reason()) {
                    return;
                }
                // 5 [MQTT-4.3.3-9]: a PUBREC that refuses the message ends it.
                let ends = entry.is(QOS_1) || entry.reason().is_error();
                index = index.wrapping_sub(1);
                if ends {
                    self.remove_received(m, index);
                } else {
                    self.awaits_release(m, index);
                    index = index.wrapping_add(1);
                }
            }
        }
    }

    /// Notes that the PUBREC of an entry is outgoing.
    fn awaits_release(&mut self, m: &mut Memory<'_>, index: usize) {
        if let Some(entry) = self.received_mut(m).get_mut(index) {
            entry.state &= !ACKNOWLEDGED;
            let count = entry.quality().of(&mut self.session.acknowledged);
            *count = count.wrapping_sub(1);
        }
    }

    /// Restores a QoS 2 message of an earlier process that waits for PUBREL. Returns `false` if there is no room.
    #[cfg(feature = "journal")]
    pub(crate) fn restore_received(&mut self, m: &mut Memory<'_>, id: u16) -> bool {
        let waits = self.by_hand() && !self.is_server();
        let state = if waits { RESTORED } else { 0 };
        self.remember(m, ReceiveSlot::new(id, state))
    }

    /// Removes the entry of a QoS 2 message.
    #[cfg(feature = "journal")]
    pub(crate) fn forget_received(&mut self, m: &mut Memory<'_>, id: u16) {
        if let Some(index) = self.find_received(m, id) {
            self.remove_received(m, index);
        }
    }

    /// Handles the end of the connection: removes the entries at QoS 1, and the others no longer count against the receive
    /// maximum.
    pub(crate) fn received_disconnected(&mut self, m: &mut Memory<'_>) {
        let entries = self.received_mut(m);
        if !BY_HAND {
            return entries.iter_mut().for_each(|entry| entry.state = 0);
        }
        let (mut kept, mut acknowledged) = (0_usize, [0, 0]);
        for index in 0..entries.len() {
            let Some(mut entry) = entries.get(index).copied() else {
                break;
            };
            if entry.is(QOS_1) {
                continue;
            }
            entry.state &= !COUNTED;
            let count: &mut u16 = entry.quality().of(&mut acknowledged);
            *count = count.wrapping_add(u16::from(entry.is(ACKNOWLEDGED)));
            if let Some(place) = entries.get_mut(kept) {
                *place = entry;
            }
            kept = kept.wrapping_add(1);
        }
        let session = &mut self.session;
        (session.received, session.acknowledged) = (to_u16(kept), acknowledged);
        session.unordered &= kept > 0;
    }

    /// Replaces the reason codes of waiting acknowledgements by success, because the version of the new connection has none.
    pub(crate) fn forget_reasons(&mut self, m: &mut Memory<'_>) {
        for index in 0..usize::from(self.session.received) {
            let entry = self.received_mut(m).get_mut(index).filter(|_| BY_HAND);
            if let Some(entry) = entry.filter(|e| !e.is(QOS_1) && e.reason().is_error()) {
                entry.set_reason(ReasonCode::Success);
                let id = entry.id;
                self.record_received(m, id);
            }
        }
    }

    /// Removes all entries, because the session has ended: an identifier means a new message from now on.
    pub(crate) const fn clear_received(&mut self) {
        let session = &mut self.session;
        (session.received_start, session.received) = (0, 0);
        (session.acknowledged, session.unordered) = ([0, 0], false);
    }
}
