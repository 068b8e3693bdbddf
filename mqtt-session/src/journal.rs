//! What must outlive the process, as records. A client writes them beside its outgoing bytes; bytes that promise something leave
//! only when the records before them are stored. `docs/JOURNAL.md` says which wait for which.
//!
//! A barrier is a place in the stream of outgoing bytes: what lies behind it waits until so many bytes of records are stored.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use mqtt_journal::{Entry, Fault, Format, Machine, Outgoing, Record};
use mqtt_proto::num::{low_half, to_u32};
use mqtt_proto::wire::View;
use mqtt_proto::{PacketId, PacketType, PropertyId, QoS, Version};

use crate::engine::Engine;
use crate::link::fingerprint;
use crate::memory::Memory;
use crate::notes::LastNote;
use crate::outbound::read_packet;
#[cfg(feature = "server")]
use crate::server_journal::Flows;
use crate::slots::{Awaits, Slot};

/// Records that are not stored may take so many bytes; beyond that nothing is accepted that needs one. One record may be longer.
const LIMIT: usize = 256 << 10;

/// Bytes of a record of a message, beside its packet.
const HEAD: usize = 32;

/// The records of one client, and what waits for them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Those that are not stored.
    records: Vec<u8>,
    /// Bytes of records that were written, and that are stored.
    written: u64,
    pub(crate) stored: u64,
    /// Bytes that the transport took on this connection.
    pub(crate) sent: u64,
    /// Each: the place in the stream of outgoing bytes, and how many bytes of records must be stored before what follows goes.
    pub(crate) barriers: VecDeque<(u64, u64)>,
    /// Counts the sessions.
    pub(crate) serial: u32,
    client_id: Box<str>,
    /// The clean flag of the last record of the session.
    clean: bool,
    /// The order number of the last message that took an identifier.
    last: u64,
    /// The machine that the first record names.
    machine: Option<Machine>,
    /// What the program stored with its last acknowledgement.
    pub(crate) note: Option<LastNote>,
    /// While records are read: the packet identifiers of received messages whose records are of no use any more.
    pub(crate) needless: BTreeSet<u16>,
    /// The first record was read.
    has_format: bool,
    failed: bool,
    /// Of a server, whose host keeps the records.
    #[cfg(feature = "server")]
    pub(crate) flows: Option<Flows>,
}

impl Journal {
    /// The host writes the records. Says so of whatever a client would have written here.
    #[allow(clippy::unused_self, reason = "without servers")]
    pub(crate) const fn is_of_server(&self) -> bool {
        #[cfg(feature = "server")]
        return self.flows.is_some();
        #[cfg(not(feature = "server"))]
        false
    }

    pub(crate) fn write(&mut self, entry: &Entry<'_>) {
        self.append(entry.encoded_len(), |room| entry.write(room));
    }

    /// Appends what `write` writes, which is of this length.
    fn append(&mut self, len: Option<usize>, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        // Machines write only what was accepted, and that is never too long for a record.
        let Some(len) = len else {
            return;
        };
        let start = self.records.len();
        self.records.resize(start.saturating_add(len), 0);
        let room = self.records.get_mut(start..).unwrap_or_default();
        if write(room).is_some() {
            self.written = self.written.saturating_add(u64::from(to_u32(len)));
        }
    }

    fn machine(&self) -> Machine {
        self.machine.unwrap_or(Machine::Client)
    }

    fn write_session(&mut self, clean: bool) {
        self.clean = clean;
        let client_id = core::mem::take(&mut self.client_id);
        self.write(&Entry::Session(mqtt_journal::Session {
            serial: self.serial,
            clean,
            client_id: &client_id,
        }));
        self.client_id = client_id;
    }

    fn stored(&mut self, n: usize) {
        let n = n.min(self.records.len());
        self.records.drain(..n);
        self.stored = self.stored.saturating_add(u64::from(to_u32(n)));
        while self
            .barriers
            .front()
            .is_some_and(|(_, records)| *records <= self.stored)
        {
            self.barriers.pop_front();
        }
    }

    /// The number in the order of acceptance, which goes on where those of the session wrap.
    fn order(&mut self, last: u32, number: u32) -> u64 {
        let more = last.wrapping_sub(low_word(self.last));
        self.last = self.last.wrapping_add(u64::from(more));
        self.last.wrapping_sub(u64::from(last.wrapping_sub(number)))
    }
}

impl Engine {
    /// From now on what must outlive the process is written as records.
    pub(crate) fn start_journal(&mut self, machine: Machine) {
        self.journal.get_or_insert_default().machine = Some(machine);
    }

    /// A record of the machine around this one.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        if let Some(journal) = &mut self.journal {
            journal.append(record.encoded_len(), |room| record.write(room));
        }
    }

    /// How many bytes of records were written and, of these, stored.
    pub(crate) fn recorded(&self) -> (u64, u64) {
        let journal = self.journal.as_ref();
        journal.map_or((0, 0), |journal| (journal.written, journal.stored))
    }

    pub(crate) fn journal(&self) -> &[u8] {
        self.journal
            .as_ref()
            .map_or(&[], |journal| &journal.records)
    }

    pub(crate) fn stored(&mut self, n: usize) {
        if let Some(journal) = &mut self.journal {
            journal.stored(n);
        }
    }

    pub(crate) fn storage_failed(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.failed = true;
        }
    }

    /// Whether a record of `len` bytes beside its own has room.
    #[inline]
    pub(crate) fn record_fits(&self, len: usize) -> bool {
        self.journal.as_ref().is_none_or(|journal| {
            let records = journal.records.len();
            !journal.failed
                && (records == 0 || records.saturating_add(len).saturating_add(HEAD) <= LIMIT)
        })
    }

    /// Of the outgoing bytes, how many may go before the records are stored.
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

    /// The transport took bytes.
    #[inline]
    pub(crate) fn count_sent(&mut self, n: usize) {
        if let Some(journal) = &mut self.journal {
            journal.sent = journal.sent.saturating_add(u64::from(to_u32(n)));
        }
    }

    /// Nothing is outgoing any more: the stream begins anew.
    pub(crate) fn clear_barriers(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.barriers.clear();
            journal.sent = 0;
        }
    }

    /// What is written from here on waits for all records so far.
    #[inline]
    pub(crate) fn wait_for_records(&mut self, m: &Memory<'_>) {
        if self.journal.is_some() {
            let waiting = self.unsent(m);
            self.wait_behind(waiting);
        }
    }

    /// What lies behind so many outgoing bytes waits for all records so far.
    fn wait_behind(&mut self, waiting: usize) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let place = journal.sent.saturating_add(u64::from(to_u32(waiting)));
        #[cfg(feature = "server")]
        if let Some(flows) = &journal.flows {
            if flows.waits {
                journal.hold(place);
            }
            return;
        }
        let behind = journal
            .barriers
            .back()
            .map_or(journal.stored, |(_, records)| *records);
        if journal.written > behind {
            journal.barriers.push_back((place, journal.written));
        }
    }

    /// The acknowledgements that promise something wait. A PUBACK is the word of the application, and on a server so is PUBREC;
    /// but where the application stores notes, its word is in a record.
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

    /// A message was accepted. At QoS 2 its packet waits for the record (3.1.1 \[MQTT-4.3.3-1\], 5 \[MQTT-4.4.0-1\]).
    #[inline]
    pub(crate) fn record_message(&mut self, m: &Memory<'_>, slot: &Slot) {
        if self.journal.is_some() && slot.id() != 0 {
            self.write_message(m, slot);
        }
    }

    fn write_message(&mut self, m: &Memory<'_>, slot: &Slot) {
        let (last, version) = (self.session.last, self.session.version);
        let Some(journal) = &mut self.journal else {
            return;
        };
        if journal.is_of_server() {
            return;
        }
        let order = journal.order(last, slot.token().number);
        let message = Outgoing::Message {
            serial: journal.serial,
            id: PacketId::new(slot.id()),
            version,
            packet: slot.bytes(m.kept()),
        };
        journal.write(&Entry::Outgoing(order, Some(message)));
    }

    /// PUBREC came for a message.
    pub(crate) fn record_released(&mut self, slot: &Slot) {
        let last = self.session.last;
        if let (Some(journal), Some(id)) = (&mut self.journal, PacketId::new(slot.id())) {
            #[cfg(feature = "server")]
            if let Some(flows) = &mut journal.flows {
                flows.released(slot.token());
                return;
            }
            let order = journal.order(last, slot.token().number);
            let serial = journal.serial;
            journal.write(&Entry::Outgoing(
                order,
                Some(Outgoing::Released { serial, id }),
            ));
        }
    }

    /// A message has ended.
    #[inline]
    pub(crate) fn record_end(&mut self, slot: &Slot) {
        let last = self.session.last;
        if let Some(journal) = &mut self.journal
            && !journal.is_of_server()
            && slot.id() != 0
            && !slot.awaits.is_request()
            && !slot.has_ended()
        {
            let order = journal.order(last, slot.token().number);
            journal.write(&Entry::Outgoing(order, None));
        }
    }

    /// CONNECT is outgoing. One that asks for a clean session waits for its record, and with it all CONNECTs to come are clean
    /// until the server answers one (3.1.1 \[MQTT-3.1.2-6\], 5 \[MQTT-3.1.2-4\]).
    pub(crate) fn record_connect(&mut self, client_id: &str, clean: bool) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if *journal.client_id != *client_id {
            journal.client_id = client_id.into();
        }
        if clean {
            journal.serial = journal.serial.wrapping_add(1);
            journal.write_session(true);
            self.wait_behind(0);
        }
    }

    /// CONNACK accepted. What follows waits for the record of a session that is new: until then the server can send nothing that
    /// would be taken for a message of the old one.
    pub(crate) fn record_connected(&mut self, m: &Memory<'_>, view: &View<'_>, resumed: bool) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if let Some(assigned) = view.bytes(PropertyId::AssignedClientIdentifier)
            && let Ok(assigned) = core::str::from_utf8(assigned)
        {
            journal.client_id = assigned.into();
        }
        if resumed && !journal.clean {
            return;
        }
        if !journal.clean {
            journal.serial = journal.serial.wrapping_add(1);
        }
        journal.write_session(false);
        self.wait_for_records(m);
    }

    /// What goes on in a new session is written anew: from now on the server may know it under this session.
    pub(crate) fn record_messages_again(&mut self, m: &Memory<'_>) {
        if self.journal.is_none() {
            return;
        }
        for index in 0..usize::from(self.session.len) {
            if let Some(slot) = self.slots(m).get(index).copied()
                && matches!(slot.awaits, Awaits::PUBACK | Awaits::PUBREC)
            {
                self.record_message(m, &slot);
            }
        }
    }

    /// The order of what is outgoing changed: all of it waits for what any of it waited for.
    pub(crate) fn hold_all(&mut self) {
        if let Some(journal) = &mut self.journal
            && let Some((_, records)) = journal.barriers.pop_back()
        {
            journal.barriers.clear();
            journal.barriers.push_back((journal.sent, records));
        }
    }

    /// The application says which session there is.
    pub(crate) fn record_assumed(&mut self, client_id: &str) {
        if let Some(journal) = &mut self.journal {
            journal.client_id = client_id.into();
            journal.write_session(false);
        }
    }

    /// All is forgotten.
    pub(crate) fn record_forgotten(&mut self, m: &Memory<'_>) {
        if self.journal.is_none() {
            return;
        }
        for index in 0..usize::from(self.session.len) {
            if let Some(slot) = self.slots(m).get(index).copied() {
                self.record_end(&slot);
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.serial = journal.serial.wrapping_add(1);
            journal.write_session(journal.clean);
        }
    }

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
                    self.session_lost(m);
                    self.tell_nothing(m);
                }
                journal.serial = session.serial;
                journal.client_id = session.client_id.into();
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
            if slot.awaits == Awaits::PUBCOMP {
                self.remove(m, index);
                journal.write(&Entry::Outgoing(order, None));
            }
        }
        Ok(())
    }

    /// A slot as the last one, for a message whose record is the first that is read of it.
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
        let (awaits, bytes) = match packet {
            None => (Awaits::PUBCOMP, &[][..]),
            Some((version, packet)) => (self.judge(version, packet)?, packet),
        };
        self.session.last = number.wrapping_sub(1);
        self.place_restored(m, bytes, awaits).ok_or(Fault::Value)
    }

    /// What a packet that was kept waits for.
    pub(crate) fn judge(&mut self, version: Version, packet: &[u8]) -> Result<Awaits, Fault> {
        if self.session.len == 0 {
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

    /// A slot as the last one, under the next number.
    pub(crate) fn place_restored(
        &mut self,
        m: &mut Memory<'_>,
        packet: &[u8],
        awaits: Awaits,
    ) -> Option<usize> {
        let slot = self
            .place(m, packet.len(), awaits, self.config.slots())
            .ok()?;
        Self::slot_room(m, &slot).copy_from_slice(packet);
        self.add(m, slot);
        Some(usize::from(self.session.len).wrapping_sub(1))
    }

    /// What ended while records were read ended in the earlier process: nobody here waits for it.
    fn tell_nothing(&mut self, m: &mut Memory<'_>) {
        while self.next_ended(m).is_some() {}
    }

    /// All records of the earlier process were read.
    pub(crate) fn restored(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if !journal.has_format {
            journal.has_format = true;
            journal.write(&Entry::Format(Format::new(journal.machine())));
        }
        for id in core::mem::take(&mut journal.needless) {
            if let Some(id) = PacketId::new(id) {
                journal.write(&Entry::Received(id, None));
            }
        }
    }

    /// The client identifier of the session that was restored.
    pub(crate) fn restored_client_id(&self) -> Option<&str> {
        let journal = self.journal.as_ref()?;
        let known = self.session.owner != 0 || self.must_start_clean;
        known.then_some(&*journal.client_id)
    }
}

/// The lower half of an order number is the number of the session.
fn low_word(order: u64) -> u32 {
    let [.., a, b, c, d] = order.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}
