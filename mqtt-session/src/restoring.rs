//! Restores a machine from the records of an earlier process.

use mqtt_journal::{Entry, Fault, Format, Outgoing, Record};
use mqtt_proto::num::low_half;
use mqtt_proto::{PacketId, QoS, Version};

use crate::engine::Engine;
use crate::memory::Memory;
use crate::outbound::read_packet;
use crate::slots::NO_LIMIT;
use crate::state::journal::{Journal, low_word};
use crate::state::session::fingerprint;
use crate::state::slot::Awaits;

impl Engine {
    /// Takes a record of an earlier process.
    pub(crate) fn restore(&mut self, m: &mut Memory<'_>, record: &Record<'_>) -> Result<(), Fault> {
        let mut journal = self.journal.take().unwrap_or_default();
        // Without the journal in its place, nothing that is restored is written again.
        let restored = self.restore_into(m, &mut journal, record);
        self.journal = Some(journal);
        restored
    }

    fn restore_into(
        &mut self,
        m: &mut Memory<'_>,
        journal: &mut Journal,
        record: &Record<'_>,
    ) -> Result<(), Fault> {
        if !journal.has_format {
            Format::read_of(journal.machine(), record)?;
            journal.has_format = true;
            return Ok(());
        }
        match Entry::read(record)? {
            None => Ok(()),
            Some(Entry::Format(_)) => Format::read_of(journal.machine(), record).map(|_| ()),
            Some(Entry::Session(session)) => {
                if session.serial != journal.serial {
                    // The records do not say which messages were sent in the earlier session, so each counts as not sent. A message
                    // that ended in doubt here would be lost, because its outcome is reported to nobody.
                    let messages = self.slots_mut(m).iter_mut();
                    messages
                        .filter(|slot| slot.awaits.is_message())
                        .for_each(|slot| {
                            slot.is_new_again();
                            slot.record_becomes_due();
                        });
                    self.session_lost(m);
                    self.tell_nothing(m);
                }
                journal.serial = session.serial;
                journal.log.set_client_id(m, session.client_id);
                if journal.log.overflowed {
                    return Err(Fault::Value);
                }
                journal.clean = session.clean;
                self.must_start_clean = session.clean;
                self.session.owner = if session.clean {
                    0
                } else {
                    fingerprint(session.client_id.as_bytes())
                };
                Ok(())
            }
            Some(Entry::Outgoing(order, message)) => {
                self.restore_message(m, journal, order, message)
            }
            Some(Entry::Received(id, received)) => {
                self.restore_acknowledged(m, journal, id, received)
            }
        }
    }

    fn restore_message(
        &mut self,
        m: &mut Memory<'_>,
        journal: &mut Journal,
        order: u64,
        message: Option<Outgoing<'_>>,
    ) -> Result<(), Fault> {
        let number = low_word(order);
        let number_of = |index: &usize| self.slots(m).get(*index).map(|slot| slot.token().number);
        let known = self.find(m, low_half(number));
        let known = known.filter(|index| number_of(index) == Some(number));
        let Some(message) = message else {
            if let Some(index) = known {
                self.remove(m, index);
            }
            return Ok(());
        };
        let (serial, id, packet) = match message {
            Outgoing::Message {
                serial,
                id,
                version,
                packet,
            } => (serial, id, Some((version, packet))),
            Outgoing::Released { serial, id } => (serial, Some(id), None),
        };
        if id.map(PacketId::get) != Some(low_half(number)) {
            return Err(Fault::Key);
        }
        let index = match known {
            Some(index) => index,
            None => {
                let index = self.restore_slot(m, number, packet)?;
                journal.last = order;
                index
            }
        };
        let same = serial == journal.serial;
        let Some(slot) = self.slot_mut(m, index) else {
            return Ok(());
        };
        if packet.is_none() {
            slot.received();
        } else {
            slot.goes(false);
        }
        slot.disconnected();
        if !same {
            // The server does not know it: it is new again, or has arrived in a session that is over.
            slot.is_new_again();
            slot.record_becomes_due();
            if slot.awaits == Awaits::PUBCOMP {
                self.remove(m, index);
                if m.lent_journal().is_none() {
                    journal.write(m, &Entry::Outgoing(order, None));
                }
            }
        }
        Ok(())
    }

    /// Adds a slot as the last one, for a message whose record is the first that is read of it.
    fn restore_slot(
        &mut self,
        m: &mut Memory<'_>,
        number: u32,
        packet: Option<(Version, &[u8])>,
    ) -> Result<usize, Fault> {
        // Messages come in the order of their acceptance.
        let mut live = self.slots(m).iter().filter(|slot| !slot.has_ended());
        let last = live.next_back().map(|slot| slot.token().number);
        if last.is_some_and(|last| number.wrapping_sub(last) > u32::MAX / 2) {
            return Err(Fault::Key);
        }
        // An earlier process gave the number of an ended message again, which its records did not tell. Slots are found by
        // ascending numbers, so the free slot must not stay before the new one.
        let newest = self.slots(m).last().map(|slot| slot.token().number);
        if newest.is_some_and(|newest| newest.wrapping_sub(number) < u32::MAX / 2) {
            self.sweep(m);
        }
        let (awaits, bytes) = match packet {
            None => (Awaits::PUBCOMP, &[][..]),
            Some((version, packet)) => (self.judge(m, version, packet)?, packet),
        };
        self.session.last = number.wrapping_sub(1);
        self.place_restored(m, bytes, awaits).ok_or(Fault::Value)
    }

    /// Returns which packet a kept packet waits for.
    fn judge(&mut self, m: &Memory<'_>, version: Version, packet: &[u8]) -> Result<Awaits, Fault> {
        // A message for which PUBREC came has no packet, and fits every version.
        if !self.slots(m).iter().any(|slot| slot.awaits.is_message()) {
            self.session.version = version;
        }
        let publish = read_packet(packet, version).ok_or(Fault::Value)?;
        match publish.qos() {
            _ if version.is_v5() != self.session.version.is_v5() => Err(Fault::Value),
            QoS::AtMostOnce => Err(Fault::Value),
            QoS::AtLeastOnce => Ok(Awaits::PUBACK),
            QoS::ExactlyOnce => Ok(Awaits::PUBREC),
        }
    }

    /// Adds a slot as the last one, under the next number.
    pub(crate) fn place_restored(
        &mut self,
        m: &mut Memory<'_>,
        packet: &[u8],
        awaits: Awaits,
    ) -> Option<usize> {
        let mut slot = self.next_slot(m, awaits);
        self.place(m, &mut slot, packet.len(), NO_LIMIT).ok()?;
        Self::slot_room(m, &slot).copy_from_slice(packet);
        self.add(m, slot);
        Some(usize::from(self.session.len).wrapping_sub(1))
    }

    /// Forgets the ends of messages that ended while records were read. They ended in the earlier process, so nobody waits for
    /// them here.
    fn tell_nothing(&mut self, m: &mut Memory<'_>) {
        while self.next_ended(m).is_some() {}
    }

    /// Continues the session, when all records of the earlier process were read.
    pub(crate) fn restored(&mut self, m: &mut Memory<'_>) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if !journal.has_format {
            journal.has_format = true;
            let format = Format::new(journal.machine());
            journal.write(m, &Entry::Format(format));
        }
        #[cfg(feature = "alloc")]
        for id in core::mem::take(&mut journal.needless) {
            if let Some(id) = PacketId::new(id).filter(|_| m.lent_journal().is_none()) {
                journal.write(m, &Entry::Received(id, None));
            }
        }
    }

    /// Returns whether a stored record still has content that no other record has.
    pub(crate) fn is_needed(&self, m: &Memory<'_>, record: &Record<'_>) -> bool {
        match Entry::read(record) {
            Ok(Some(Entry::Outgoing(order, _))) => {
                let number = low_word(order);
                let index = self.find(m, low_half(number));
                let slot = index.and_then(|index| self.slots(m).get(index));
                slot.is_some_and(|slot| slot.token().number == number)
            }
            Ok(Some(Entry::Received(id, _))) => self.needs_received(m, id.get()),
            _ => true,
        }
    }

    /// Returns whether the record of a received message, or its note, is still needed.
    pub(crate) fn needs_received(&self, m: &Memory<'_>, id: u16) -> bool {
        let note = self.journal.as_ref().and_then(|j| j.note.as_ref());
        self.holds(m, id) || note.is_some_and(|note| note.id.get() == id)
    }

    /// Returns the client identifier of the session that was restored.
    pub(crate) fn restored_client_id<'a>(&'a self, m: &'a Memory<'_>) -> Option<&'a str> {
        let journal = self.journal.as_ref()?;
        let known = self.session.owner != 0 || self.must_start_clean;
        known.then(|| journal.log.client_id(m))
    }
}
