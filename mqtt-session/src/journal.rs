//! The records of the state that outlives the process. A client writes them beside its outgoing bytes. A packet on which the peer
//! relies leaves only when the records before it are stored; `docs/JOURNAL.md` has the table of the packets and their records.

use mqtt_journal::{Entry, Machine, Outgoing, Record};
use mqtt_proto::num::{to_u32, to_usize};
use mqtt_proto::wire::View;
use mqtt_proto::write::packet_len;
use mqtt_proto::{PacketId, PacketType, PropertyId, Version};

use crate::engine::Engine;
use crate::error::Refused;
use crate::event::Outgoing as Message;
use crate::memory::Memory;
use crate::outbound::prepare;
use crate::outgoing::check_size;
use crate::state::log::Log;
use crate::state::slot::{Awaits, Slot};

/// The record of a message without its packet.
#[derive(Clone, Copy)]
struct Kept {
    order: u64,
    serial: u32,
    id: Option<PacketId>,
    version: Version,
}

impl Kept {
    const fn with(self, packet: &[u8]) -> Entry<'_> {
        let message = Outgoing::Message {
            serial: self.serial,
            id: self.id,
            version: self.version,
            packet,
        };
        Entry::Outgoing(self.order, Some(message))
    }
}

impl Engine {
    /// Makes this machine write records of the state that outlives the process.
    pub(crate) fn start_journal(&mut self, machine: Machine) {
        self.journal.get_or_insert_default().machine = Some(machine);
    }

    /// Writes a record of the machine around this one.
    pub(crate) fn record(&mut self, m: &mut Memory<'_>, record: &Record<'_>) {
        if let Some(journal) = &mut self.journal {
            journal.append(m, record.encoded_len(), |room, _, _| record.write(room));
        }
    }

    /// Returns how many bytes of records were written and, of these, stored.
    pub(crate) fn recorded(&self) -> (u64, u64) {
        let journal = self.journal.as_ref();
        journal.map_or((0, 0), |journal| (journal.written, journal.stored))
    }

    pub(crate) fn journal<'a>(&'a self, m: &'a Memory<'_>) -> &'a [u8] {
        self.journal
            .as_ref()
            .map_or(&[], |journal| journal.log.records(m))
    }

    pub(crate) fn stored(&mut self, m: &mut Memory<'_>, n: usize) {
        if let Some(journal) = &mut self.journal {
            journal.stored(m, n);
        }
        self.resume_deferred(m);
        if self.is_connected() {
            // Messages whose record had no room.
            self.pump(m);
        }
    }

    /// Returns whether a session that only the server has ends the connection although the version is older than MQTT 5.
    pub(crate) fn refuses_unknown_session(&self) -> bool {
        let journal = self.journal.as_ref();
        !self.is_v5() && journal.is_some_and(|journal| journal.refuses_unknown)
    }

    pub(crate) fn storage_failed(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.failed = true;
        }
    }

    /// Returns whether there is room for records with `len` bytes in addition to the bytes that each record has.
    #[inline]
    pub(crate) fn record_fits(&self, m: &Memory<'_>, len: usize) -> bool {
        self.journal.as_ref().is_none_or(|journal| {
            journal.is_of_server() || !journal.failed && journal.log.fits(m, self.session.len, len)
        })
    }

    /// Returns whether the record of a message has room.
    pub(crate) fn check_record(
        &self,
        m: &Memory<'_>,
        message: &Message<'_>,
    ) -> Result<(), Refused> {
        let Some(journal) = self.journal.as_ref().filter(|j| !j.is_of_server()) else {
            return Ok(());
        };
        let lent = m.lent_journal();
        let max = lent.map_or(usize::MAX, |lent| journal.log.longest(lent.len()));
        let max = max.min(journal.most_in_record());
        let mut len = message.payload.len();
        if max != usize::MAX {
            let publish = prepare(message, PacketId::FIRST);
            len = packet_len(&publish, self.session.version)?;
            check_size(len, max)?;
        }
        if self.record_fits(m, len) {
            Ok(())
        } else {
            Err(Refused::Full)
        }
    }

    /// Returns whether the record of an acknowledgement has room. On a heap it always has.
    pub(crate) fn lent_record_fits(&self, m: &Memory<'_>, len: usize) -> bool {
        self.journal.is_none() || m.lent_journal().is_none() || self.record_fits(m, len)
    }

    /// Returns whether CONNECT can be recorded.
    pub(crate) fn check_connect_record(
        &self,
        m: &Memory<'_>,
        client_id: &str,
    ) -> Result<(), Refused> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        check_size(client_id.len(), journal.most_in_record())?;
        if Log::client_id_fits(m, client_id) && self.record_fits(m, client_id.len()) {
            Ok(())
        } else {
            Err(Refused::Full)
        }
    }

    /// Returns how many of the outgoing bytes may be sent before more records are stored.
    #[inline]
    pub(crate) fn may_go(&self) -> usize {
        let Some(journal) = &self.journal else {
            return usize::MAX;
        };
        match journal.barriers.front() {
            None => usize::MAX,
            Some((place, _)) => {
                usize::try_from(place.saturating_sub(journal.sent)).unwrap_or(usize::MAX)
            }
        }
    }

    /// Counts bytes that the transport took.
    #[inline]
    pub(crate) fn count_sent(&mut self, n: usize) {
        if let Some(journal) = &mut self.journal {
            journal.sent = journal.sent.saturating_add(u64::from(to_u32(n)));
        }
    }

    /// Forgets all barriers, because nothing is outgoing any more and the stream begins anew.
    pub(crate) fn clear_barriers(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.barriers.clear();
            journal.sent = 0;
        }
    }

    /// Makes all bytes that are written from now on wait for all records so far.
    #[inline]
    pub(crate) fn wait_for_records(&mut self, m: &Memory<'_>) {
        if self.journal.is_some() {
            let waiting = self.unsent(m);
            self.wait_behind(waiting);
        }
    }

    /// Returns whether the packet of a new message waits for its record.
    pub(crate) fn message_waits(&self, awaits: Awaits) -> bool {
        awaits == Awaits::PUBREC
            && self
                .journal
                .as_ref()
                .is_some_and(|journal| journal.may_wait())
    }

    /// Makes the bytes behind the first `waiting` outgoing bytes wait for all records so far.
    fn wait_behind(&mut self, waiting: usize) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if !journal.may_wait() {
            return;
        }
        let place = journal.sent.saturating_add(u64::from(to_u32(waiting)));
        #[cfg(all(feature = "alloc", feature = "server"))]
        if journal.flows.is_some() {
            return journal.hold(place);
        }
        let behind = journal
            .barriers
            .back()
            .map_or(journal.stored, |(_, records)| *records);
        if journal.written > behind {
            journal.barriers.push_back((place, journal.written));
        }
    }

    /// Makes an acknowledgement wait for the records so far. An acknowledgement for which the application alone answers does not
    /// wait: PUBACK if the application stores no notes, and the PUBREC of a server.
    #[inline]
    pub(crate) fn acknowledgement_waits(&mut self, m: &Memory<'_>, packet: PacketType) {
        let given = match packet {
            PacketType::PubAck => self.journal.as_ref().is_none_or(|j| j.note.is_none()),
            PacketType::PubRec => self.journal.as_ref().is_some_and(|j| j.is_of_server()),
            _ => false,
        };
        if !given {
            self.wait_for_records(m);
        }
    }

    /// Records a message that was accepted. At QoS 2 its packet waits for the record (3.1.1 \[MQTT-4.3.3-1\], 5
    /// \[MQTT-4.4.0-1\]).
    #[inline]
    pub(crate) fn record_message(&mut self, m: &mut Memory<'_>, slot: &Slot) {
        if self.journal.as_ref().is_some_and(|j| !j.is_of_server())
            && slot.id() != 0
            && !self.defer(m, slot)
        {
            self.write_message(m, slot);
        }
    }

    pub(crate) fn write_message(&mut self, m: &mut Memory<'_>, slot: &Slot) {
        let (last, version) = (self.session.last, self.session.version);
        let Some(journal) = &mut self.journal else {
            return;
        };
        if journal.is_of_server() {
            return;
        }
        let order = journal.order(last, slot.token().number);
        let (serial, id) = (journal.serial, PacketId::new(slot.id()));
        let entry = Kept {
            order,
            serial,
            id,
            version,
        };
        let len = entry.with(slot.bytes(m.kept())).encoded_len();
        journal.append(m, len, |room, kept, _| {
            entry.with(slot.bytes(kept)).write(room)
        });
    }

    /// Records a message again that is about to be sent, if its record is of an earlier session. Returns `false` while the new
    /// record has no room.
    pub(crate) fn record_again(&mut self, m: &mut Memory<'_>, slot: &mut Slot) -> bool {
        if !slot.record_is_due() {
            return true;
        }
        if !self.record_fits(m, to_usize(slot.len)) {
            return false;
        }
        self.write_message(m, slot);
        slot.recorded();
        true
    }

    /// Records that PUBREC came for a message.
    pub(crate) fn record_released(&mut self, m: &mut Memory<'_>, slot: &Slot) {
        let last = self.session.last;
        if let (Some(journal), Some(id)) = (&mut self.journal, PacketId::new(slot.id())) {
            #[cfg(all(feature = "alloc", feature = "server"))]
            if let Some(flows) = &mut journal.flows {
                flows.released(slot.token());
                return;
            }
            let order = journal.order(last, slot.token().number);
            let serial = journal.serial;
            let released = Outgoing::Released { serial, id };
            journal.write(m, &Entry::Outgoing(order, Some(released)));
        }
    }

    /// Records that a message has ended.
    #[inline]
    pub(crate) fn record_end(&mut self, m: &mut Memory<'_>, slot: &Slot) {
        let last = self.session.last;
        if let Some(journal) = &mut self.journal
            && !journal.is_of_server()
            && slot.id() != 0
            && !slot.awaits.is_request()
            && !slot.has_ended()
            && !slot.is_deferred()
        {
            let order = journal.order(last, slot.token().number);
            journal.write(m, &Entry::Outgoing(order, None));
        }
    }

    /// Records a CONNECT that is outgoing. A CONNECT that asks for a clean session waits for its record, and then each further
    /// CONNECT asks for one until the server answers (3.1.1 \[MQTT-3.1.2-6\], 5 \[MQTT-3.1.2-4\]).
    pub(crate) fn record_connect(&mut self, m: &mut Memory<'_>, client_id: &str, clean: bool) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if journal.log.client_id(m) != client_id {
            journal.log.set_client_id(m, client_id);
        }
        if clean {
            journal.serial = journal.serial.wrapping_add(1);
            journal.write_session(m, true);
            self.wait_behind(0);
        }
    }

    /// Records that CONNACK accepted the connection. The packets that follow wait for the record of a session that is new: until
    /// then the server can send nothing that would be taken for a message of the old one.
    pub(crate) fn record_connected(&mut self, m: &mut Memory<'_>, view: &View<'_>, resumed: bool) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if let Some(assigned) = view.bytes(PropertyId::AssignedClientIdentifier)
            && let Ok(assigned) = core::str::from_utf8(assigned)
        {
            journal.log.set_client_id(m, assigned);
        }
        if resumed && !journal.clean {
            return;
        }
        if !journal.clean {
            journal.serial = journal.serial.wrapping_add(1);
        }
        journal.write_session(m, false);
        self.wait_for_records(m);
    }

    /// Makes each message that continues in a new session get a new record when it is sent: from then on the server may know it
    /// under this session.
    pub(crate) fn record_messages_again(&mut self, m: &mut Memory<'_>) {
        if self.journal.is_some() {
            let messages = self.slots_mut(m).iter_mut();
            messages
                .filter(|slot| matches!(slot.awaits, Awaits::PUBACK | Awaits::PUBREC))
                .for_each(Slot::record_becomes_due);
        }
    }

    /// Makes all outgoing bytes wait for the records of the last barrier, because their order has changed.
    pub(crate) fn hold_all(&mut self) {
        if let Some(journal) = &mut self.journal
            && let Some((_, records)) = journal.barriers.pop_back()
        {
            journal.barriers.clear();
            journal.barriers.push_back((journal.sent, records));
        }
    }

    /// Records the session that the application says the server has.
    pub(crate) fn record_assumed(&mut self, m: &mut Memory<'_>, client_id: &str) {
        if let Some(journal) = &mut self.journal {
            journal.log.set_client_id(m, client_id);
            journal.write_session(m, false);
        }
    }

    /// Records that the session and all its messages are forgotten.
    pub(crate) fn record_forgotten(&mut self, m: &mut Memory<'_>) {
        if self.journal.is_none() {
            return;
        }
        for index in 0..usize::from(self.session.len) {
            if let Some(slot) = self.slots(m).get(index).copied() {
                self.record_end(m, &slot);
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.serial = journal.serial.wrapping_add(1);
            let clean = journal.clean;
            journal.write_session(m, clean);
        }
    }
}
