//! Messages to the peer, until they are acknowledged. This code is the same for both roles.
//!
//! ```text
//!   QoS 1:  Awaits::PUBACK --PUBACK--> done
//!   QoS 2:  Awaits::PUBREC --PUBREC--> Awaits::PUBCOMP --PUBCOMP--> done    (5: a PUBREC of 0x80 or more ends the message)
//! ```

use mqtt_proto::num::to_usize;
use mqtt_proto::wire::{Reader, View, frame, kind};
use mqtt_proto::write::{packet_len, write_packet};
use mqtt_proto::{Delivery, MAX_PACKET, PacketId, PacketType, Publish, QoS, ReasonCode, Version};

use crate::bytes::copy;
use crate::config::Offline;
use crate::engine::Engine;
use crate::error::Refused;
use crate::event::{Ended, Outgoing, Token};
use crate::memory::Memory;
use crate::outgoing::check_size;
use crate::plain::Plain;
use crate::problem::Problem;
use crate::progress::{Found, Progress};
use crate::state::large::KEPT_IS_LARGE;
use crate::state::slot::{Awaits, Slot};
use crate::tune::{ALIASES, FAST, JOURNAL, KEEPS_QOS_0, LARGE, POLICIES, V5};

/// The DUP flag in the first byte of a PUBLISH.
pub(crate) const DUP: u8 = 0b1000;

/// The effect of an acknowledgement on its message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    /// The message has ended.
    Done,
    /// PUBREL is sent, and PUBCOMP is awaited.
    Release,
    /// The answer to a request that was not made is ignored.
    Nothing,
    /// The acknowledgement does not fit what was sent.
    Wrong,
}

/// Returns what follows an acknowledgement of a message that waits for `awaits`.
#[inline]
fn next(awaits: Awaits, packet: u8, failed: bool) -> Next {
    // 5 [MQTT-4.3.2-3], [MQTT-4.3.3-3] and [MQTT-4.3.3-5]: only the right acknowledgement takes a message further.
    let received = awaits == Awaits::PUBREC || awaits == Awaits::PUBCOMP;
    // 3.1.1 [MQTT-4.3.3-1], 5 [MQTT-4.3.3-4]; a repeated PUBREC gets its PUBREL again. 5 [MQTT-4.4.0-2]: a PUBREC that fails
    // ends it.
    if packet == kind::PUBREC && received && !(failed && awaits == Awaits::PUBREC) {
        Next::Release
    } else if awaits == Awaits::answer(packet) {
        Next::Done
    } else if Awaits::answer(packet).is_request() {
        Next::Nothing
    } else {
        Next::Wrong
    }
}

/// One call stops to send waiting messages when this many outgoing bytes wait for the transport.
const PORTION: usize = 64 << 10;

impl Engine {
    /// Accepts a message and sends it, or keeps it while there is no connection.
    pub(crate) fn publish(
        &mut self,
        m: &mut Memory<'_>,
        message: &Outgoing<'_>,
        now: u32,
    ) -> Result<Option<Token>, Refused> {
        if message.qos != QoS::AtMostOnce {
            self.check_deferred(m, message, now)?;
            self.check_record(m, message)?;
        }
        if FAST && let Some(token) = self.publish_plain(m, message) {
            self.link.times.sent(now);
            return Ok(token);
        }
        if V5 {
            self.link.unsupported.publish(message)?;
        }
        let online = self.is_connected();
        if !online && self.config.offline() == Offline::Reject {
            return Err(Refused::Offline);
        }
        // A new message must not overtake those that wait.
        if online && self.link.cursor < self.session.len {
            return Err(Refused::Full);
        }
        let awaits = match message.qos {
            QoS::AtMostOnce => Awaits::CONNECTION,
            QoS::AtLeastOnce => Awaits::PUBACK,
            QoS::ExactlyOnce => Awaits::PUBREC,
        };
        let mut slot = self.next_slot(m, awaits);
        let publish = &mut prepare(message, slot.packet_id());
        let len = packet_len(publish, self.session.version)?;
        let token = if !online {
            check_size(len, m.kept_limit())?;
            self.keep_for_later(m, &mut slot, publish, len)?;
            Some(slot.token())
        } else {
            check_size(len, self.largest_message(m))?;
            // 5 [MQTT-4.9.0-2]
            if awaits != Awaits::CONNECTION && !self.window_is_open(awaits) {
                return Err(Refused::Full);
            }
            if LARGE && self.becomes_large(m, len, awaits) {
                self.publish_large(m, &mut slot, publish, len)?;
                Some(slot.token())
            } else {
                self.publish_in_buffer(m, &mut slot, publish, len)?;
                (awaits != Awaits::CONNECTION).then_some(slot.token())
            }
        };
        self.link.times.sent(now);
        Ok(token)
    }

    /// The fast path: accepts a message without properties on a connection where nothing waits and everything has room. For any
    /// other message it returns `None`, and [`Self::publish`] goes on.
    #[inline]
    fn publish_plain(
        &mut self,
        m: &mut Memory<'_>,
        message: &Outgoing<'_>,
    ) -> Option<Option<Token>> {
        let link = &self.link;
        let waits = link.cursor < self.session.len;
        let plain = message.properties.is_empty() && !message.topic.is_none();
        if !self.is_connected()
            || waits
            || !plain
            || link.peers.aliases > 0
            || !link.unsupported.is_none()
        {
            return None;
        }
        let packet = Plain::new(message, self.is_v5());
        let len = packet.len();
        if len > self.largest_in_buffer(m) || !self.message_fits(m, len) {
            return None;
        }
        let awaits = match message.qos {
            QoS::AtMostOnce => {
                packet.write(self.room(m), 0);
                self.advance(len);
                return Some(None);
            }
            QoS::AtLeastOnce => Awaits::PUBACK,
            QoS::ExactlyOnce => Awaits::PUBREC,
        };
        if !self.window_is_open(awaits) || len > KEPT_IS_LARGE {
            return None;
        }
        let mut slot = self.next_slot(m, awaits);
        self.place(m, &mut slot, len, self.config.slots()).ok()?;
        packet.write(Self::slot_room(m, &slot), slot.id());
        slot.goes(true);
        self.copy_packet(m, &slot);
        self.add(m, slot);
        self.record_message(m, &slot);
        self.publish_waits(m, awaits);
        self.advance(len);
        self.enter(awaits);
        self.link.cursor = self.session.len;
        Some(Some(slot.token()))
    }

    #[inline]
    fn publish_in_buffer(
        &mut self,
        m: &mut Memory<'_>,
        slot: &mut Slot,
        publish: &mut Publish<'_>,
        len: usize,
    ) -> Result<(), Refused> {
        // The alias is assigned when nothing can refuse the message any more, because its packet fits with or without it.
        let with_alias = len.wrapping_add(ALIAS_LEN);
        let alias =
            ALIASES && self.link.peers.aliases > 0 && with_alias <= self.largest_in_buffer(m);
        if !self.message_fits(m, if alias { with_alias } else { len }) {
            return Err(Refused::Full);
        }
        let awaits = slot.awaits;
        let kept = awaits != Awaits::CONNECTION;
        if kept {
            self.keep(m, slot, publish, (len, self.config.slots()))?;
            if !FAST && !alias {
                // This is smaller code with the same effect: the message is the only one that waits, and it has room.
                self.add(m, *slot);
                self.record_message(m, slot);
                self.pump(m);
                return Ok(());
            }
            slot.goes(true);
            self.add(m, *slot);
            self.record_message(m, slot);
            self.publish_waits(m, awaits);
            self.enter(awaits);
            self.link.cursor = self.session.len;
        }
        if alias {
            self.assign_alias(m, publish);
            let len = packet_len(publish, self.session.version)?;
            self.put(m, publish, len);
        } else if FAST && kept {
            // The packet is there already.
            self.copy_packet(m, slot);
            self.advance(len);
        } else {
            self.put(m, publish, len);
        }
        Ok(())
    }

    /// Copies the packet of a slot behind the waiting bytes.
    #[inline]
    fn copy_packet(&self, m: &mut Memory<'_>, slot: &Slot) {
        let end = to_usize(self.link.end);
        let (outgoing, kept) = m.outgoing_and_kept();
        copy(
            outgoing.get_mut(end..).unwrap_or_default(),
            slot.bytes(kept),
        );
    }

    /// Makes a packet that becomes outgoing next wait for its record, if it must: at QoS 2 its identifier belongs to this
    /// message from then on.
    #[inline]
    pub(crate) fn publish_waits(&mut self, m: &Memory<'_>, awaits: Awaits) {
        if awaits == Awaits::PUBREC {
            self.wait_for_records(m);
        }
    }

    /// Returns whether one more message fits the window.
    #[inline]
    fn window_is_open(&self, awaits: Awaits) -> bool {
        // 5 [MQTT-3.3.4-8], [MQTT-3.3.4-10] and [MQTT-4.9.0-3]: only messages need the window; no other packet waits for it.
        // 5 [MQTT-4.9.0-1]: its size is at least 1 and at most the receive maximum of the peer.
        let link = &self.link;
        let most = self.config.window.min(link.most_in_flight()).max(1);
        link.in_flight < most
            && (!POLICIES
                || awaits != Awaits::PUBREC
                || link.in_flight_qos2 < self.config.window_qos2().max(1))
    }

    #[inline]
    pub(crate) fn enter(&mut self, awaits: Awaits) {
        self.link.in_flight = self.link.in_flight.wrapping_add(1);
        if POLICIES {
            let qos2 = u16::from(awaits == Awaits::PUBREC);
            self.link.in_flight_qos2 = self.link.in_flight_qos2.wrapping_add(qos2);
        }
    }

    /// Removes a message from the window. A PUBREL that was sent again was never counted, so its end is not counted either (5,
    /// section 4.9).
    #[inline]
    fn leave(&mut self, slot: &Slot) {
        if slot.is_counted() {
            self.link.in_flight = self.link.in_flight.saturating_sub(1);
            if POLICIES {
                let qos2 = u16::from(slot.awaits != Awaits::PUBACK);
                self.link.in_flight_qos2 = self.link.in_flight_qos2.saturating_sub(qos2);
            }
        }
    }

    /// Returns the length of the longest PUBLISH that the peer accepts and this side can send.
    #[inline]
    fn largest_message(&self, m: &Memory<'_>) -> usize {
        if LARGE {
            to_usize(self.link.longest_packet())
        } else {
            self.largest_in_buffer(m)
        }
    }

    fn keep_for_later(
        &mut self,
        m: &mut Memory<'_>,
        slot: &mut Slot,
        publish: &Publish<'_>,
        len: usize,
    ) -> Result<(), Refused> {
        let most = usize::from(self.config.queue().max(1));
        loop {
            match self.keep(m, slot, publish, (len, most)) {
                Err(Refused::Full)
                    if self.config.offline() == Offline::DropOldest
                        && self.fits_without_fresh(m, len, most)
                        && self.drop_oldest(m) => {}
                Ok(()) => {
                    self.add(m, *slot);
                    self.record_message(m, slot);
                    return Ok(());
                }
                refused => return refused,
            }
        }
    }

    /// Returns whether a message has room after all messages that were never sent are dropped. Without this check they would be
    /// dropped for a message that is refused in the end.
    fn fits_without_fresh(&mut self, m: &mut Memory<'_>, len: usize, most: usize) -> bool {
        let stay = self
            .slots(m)
            .iter()
            .filter(|slot| !slot.has_ended() && !slot.is_fresh());
        let (count, bytes) = stay.fold((0_usize, len), |(count, bytes), slot| {
            (
                count.wrapping_add(1),
                bytes.wrapping_add(to_usize(slot.len)),
            )
        });
        count < most
            && (count == 0 || bytes <= m.kept_limit().min(self.config.most_kept()))
            && self.has_slot(m, most)
    }

    /// Ends the oldest message that was never sent. Its packet is removed at once; its end is reported later.
    fn drop_oldest(&mut self, m: &mut Memory<'_>) -> bool {
        let Some(oldest) = self.slots(m).iter().position(Slot::is_fresh) else {
            return false;
        };
        self.end_empty(m, oldest, Ended::Dropped);
        true
    }

    /// Writes the packet of a message to `kept`. The caller then adds its slot. `most` limits the slots that have not ended.
    #[inline]
    pub(crate) fn keep(
        &mut self,
        m: &mut Memory<'_>,
        slot: &mut Slot,
        publish: &Publish<'_>,
        (len, most): (usize, usize),
    ) -> Result<(), Refused> {
        self.place(m, slot, len, most)?;
        let room = Self::slot_room(m, slot);
        write_packet(publish, self.session.version, len, room);
        Ok(())
    }

    /// Sends, in order, the packets that wait and have room.
    pub(crate) fn pump(&mut self, m: &mut Memory<'_>) {
        if self.link.cursor < self.session.len {
            self.pump_all(m);
        }
    }

    /// Sends the waiting messages that have room. A resumed session may have thousands of them, so that one call sends a portion: when
    /// the transport has taken bytes, the next call sends more.
    #[inline(never)]
    fn pump_all(&mut self, m: &mut Memory<'_>) {
        // 3.1.1 [MQTT-4.6.0-1], 5 [MQTT-4.6.0-1]: in the order in which they were accepted.
        while let Some(slot) = self.slots(m).get(usize::from(self.link.cursor)).copied() {
            if FAST && self.waiting() >= PORTION {
                return;
            }
            if slot.may_go() && !self.send_slot(m, slot) {
                return;
            }
            self.link.cursor = self.link.cursor.wrapping_add(1);
        }
    }

    /// Sends the packet of the slot at the cursor. Returns `false` if it has no room.
    fn send_slot(&mut self, m: &mut Memory<'_>, mut slot: Slot) -> bool {
        let index = usize::from(self.link.cursor);
        let len = to_usize(slot.len);
        let message = !KEEPS_QOS_0 || slot.awaits != Awaits::CONNECTION;
        if slot.awaits == Awaits::PUBCOMP {
            // 3.1.1 [MQTT-4.4.0-1], 5 [MQTT-4.3.3-6]: after PUBREL the message is never published again.
            if !self.acknowledgement(m, PacketType::PubRel, slot.id(), ReasonCode::Success) {
                return false;
            }
            slot.goes(false);
        } else if let Some(how) = self.cannot_go(m, &slot) {
            self.end(m, index, how);
            return true;
        } else if message && !self.window_is_open(slot.awaits)
            || JOURNAL && !self.record_again(m, &mut slot)
        {
            return false;
        } else if LARGE && self.is_large(m, len, slot.awaits) {
            return self.send_large(m, index);
        } else {
            if !self.message_fits(m, len) {
                return false;
            }
            // 3.1.1 [MQTT-2.3.1-3], 5 [MQTT-4.4.0-1]: the packet is sent again as it was kept, with its identifier.
            self.copy_packet(m, &slot);
            // 3.1.1 [MQTT-3.3.1-1], 5 [MQTT-3.3.1-1]
            if let (true, Some(first)) = (slot.is_dup(), self.room(m).first_mut()) {
                *first |= DUP;
            }
            self.publish_waits(m, slot.awaits);
            self.advance(len);
            if !message {
                self.end(m, index, Ended::Sent);
                return true;
            }
            slot.goes(true);
            self.enter(slot.awaits);
        }
        if let Some(place) = self.slot_mut(m, index) {
            place.flags = slot.flags;
        }
        true
    }

    /// Returns how a kept message ends that this connection does not allow. The new connection of a session may have smaller
    /// limits, and such a message must not stall the others.
    #[inline]
    fn cannot_go(&self, m: &Memory<'_>, slot: &Slot) -> Option<Ended> {
        if to_usize(slot.len) > self.largest_message(m) {
            return Some(Ended::TooLarge);
        }
        let first = *slot.bytes(m.kept()).first()?;
        (V5 && self.link.unsupported.lacked(first) != 0).then_some(Ended::NotSupported)
    }

    /// Handles the answer to a message or request: PUBACK, PUBREC, PUBCOMP, SUBACK or UNSUBACK. Waiting messages may be sent
    /// then.
    #[inline]
    pub(crate) fn answered(
        &mut self,
        m: &mut Memory<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Problem> {
        let (kind, id) = (progress.view.kind, progress.view.id);
        let failed = progress.view.reason >= 0x80;
        // 3.1.1 [MQTT-2.3.1-7], 5 [MQTT-2.2.1-6]: the answer has the identifier of its request.
        let Some(index) = self.find(m, id) else {
            // An answer may be repeated without fault. PUBREL answers a PUBREC without a message, so that the receiver can forget
            // the identifier.
            if kind == kind::PUBREC && !failed {
                self.acknowledgement(m, PacketType::PubRel, id, ReasonCode::Success);
            }
            return Ok(());
        };
        let Some(slot) = self.slot_mut(m, index) else {
            return Ok(());
        };
        match next(slot.awaits, kind, failed) {
            Next::Done => {
                let slot = *slot;
                (progress.found, progress.token) = (Found::Acknowledged, slot.token());
                if slot.awaits.is_request() {
                    self.request_answered(m, &slot, progress)?;
                }
                self.record_end(m, &slot);
                self.leave(&slot);
                self.remove(m, index);
                self.pump(m);
                Ok(())
            }
            Next::Release => {
                let before = *slot;
                slot.received();
                if before.awaits == Awaits::PUBREC {
                    self.record_released(m, &before);
                }
                // 3.1.1 [MQTT-4.6.0-4], 5 [MQTT-4.6.0-4]: PUBREL follows each PUBREC at once. 5 [MQTT-3.6.2-1]: its reason is
                // success.
                self.acknowledgement(m, PacketType::PubRel, id, ReasonCode::Success);
                Ok(())
            }
            Next::Nothing => Ok(()),
            Next::Wrong => Err(Problem::WrongAck),
        }
    }

    /// Returns the message of a token that is not acknowledged, or whose end was reported last.
    pub(crate) fn unacknowledged<'m>(
        &self,
        m: &'m Memory<'_>,
        token: Token,
    ) -> Option<Publish<'m>> {
        self.read_slot(m, self.find_token(m, token)?)
    }

    /// Returns the messages that have not ended and whose bytes are still needed.
    pub(crate) fn unacknowledged_all<'m>(
        &self,
        m: &'m Memory<'_>,
    ) -> impl Iterator<Item = (Token, Publish<'m>)> {
        let open = |slot: &&Slot| slot.awaits.is_message();
        let slots = self.slots(m).iter().filter(open);
        slots.filter_map(|slot| Some((slot.token(), self.read_slot(m, slot)?)))
    }

    fn read_slot<'m>(&self, m: &'m Memory<'_>, slot: &Slot) -> Option<Publish<'m>> {
        read_packet(slot.bytes(m.kept()), self.session.version)
    }
}

/// Reads a PUBLISH that was kept.
pub(crate) fn read_packet(packet: &[u8], version: Version) -> Option<Publish<'_>> {
    let v5 = version.is_v5();
    let frame = frame(packet, v5, MAX_PACKET);
    let (mut view, mut body) = (View::default(), Reader::new(frame.body(packet)?));
    view.read_by_client(frame.first, &mut body, v5);
    let wrong = frame.fault.is_some() || body.fault.is_some() || view.kind != kind::PUBLISH;
    (!wrong).then(|| view.publish())
}

/// How many bytes a topic alias can add to a packet: three for the property, and one more for each of the two lengths.
const ALIAS_LEN: usize = 5;

/// Makes the packet of a message with this identifier, which a message at QoS 0 does not have.
pub(crate) const fn prepare<'a>(message: &Outgoing<'a>, id: PacketId) -> Publish<'a> {
    // 3.1.1 [MQTT-3.3.1-3] and [MQTT-4.3.1-1], 5 [MQTT-3.3.1-3], [MQTT-4.3.1-1], [MQTT-4.3.2-2] and [MQTT-4.3.3-2]: a new
    // message has no DUP flag, even if it forwards a message that had one.
    let mut publish = Publish::new(message.topic, message.payload);
    publish.retain = message.retain;
    publish.properties = message.properties;
    publish.delivery = match message.qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
    };
    publish
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each pair of what is awaited and what arrives, the result is the one of the standard.
    #[test]
    fn each_acknowledgement_ends_or_goes_on_as_the_standard_says() {
        let messages = [
            Awaits::PUBACK,
            Awaits::PUBREC,
            Awaits::PUBCOMP,
            Awaits::CONNECTION,
        ];
        let requests = [Awaits::answer(kind::SUBACK), Awaits::answer(kind::UNSUBACK)];
        for awaits in messages.into_iter().chain(requests) {
            for packet in [
                kind::PUBACK,
                kind::PUBREC,
                kind::PUBCOMP,
                kind::SUBACK,
                kind::UNSUBACK,
            ] {
                for failed in [false, true] {
                    let expected = match (awaits, packet) {
                        (Awaits::PUBACK, kind::PUBACK) | (Awaits::PUBCOMP, kind::PUBCOMP) => {
                            Next::Done
                        }
                        (Awaits::PUBREC, kind::PUBREC) if failed => Next::Done,
                        (Awaits::PUBREC | Awaits::PUBCOMP, kind::PUBREC) => Next::Release,
                        (awaits, kind::SUBACK | kind::UNSUBACK) => {
                            if awaits == Awaits::answer(packet) {
                                Next::Done
                            } else {
                                Next::Nothing
                            }
                        }
                        _ => Next::Wrong,
                    };
                    assert_eq!(
                        next(awaits, packet, failed),
                        expected,
                        "{awaits:?} {packet} {failed}"
                    );
                }
            }
        }
    }
}
