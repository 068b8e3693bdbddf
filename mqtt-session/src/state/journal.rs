//! The journal of a machine: its records, and the outgoing bytes that wait for them.
//!
//! A barrier is a place in the stream of outgoing bytes, with a number of bytes of records. The bytes behind the place are sent when
//! that many bytes of records are stored.

use mqtt_journal::{Entry, Machine, Received};
use mqtt_proto::PacketId;
use mqtt_proto::num::to_u32;

#[cfg(all(feature = "alloc", feature = "server"))]
use super::flows::{Flows, UNKNOWN};
use super::log::{Barriers, Log, Needless};
use super::note::LastNote;
use crate::memory::Memory;

/// The longest record beside a packet, a note or a client identifier: that of a message has its length in at most 4 bytes, 10 bytes of
/// kind and key, and 8 of its value.
const BESIDE: usize = 22;

/// The journal is on the heap, because most machines have none.
#[cfg(feature = "alloc")]
pub(crate) type Boxed = alloc::boxed::Box<Journal>;
#[cfg(not(feature = "alloc"))]
pub(crate) type Boxed = Journal;

/// The records of one client, and the outgoing bytes that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) log: Log,
    /// How many bytes of records were written, and how many of them are stored.
    pub(crate) written: u64,
    pub(crate) stored: u64,
    /// How many bytes the transport took on this connection.
    pub(crate) sent: u64,
    /// Places in the stream of outgoing bytes, each with the bytes of records that must be stored before the bytes behind it are sent.
    pub(crate) barriers: Barriers,
    /// The serial number of the session.
    pub(crate) serial: u32,
    /// The clean flag of the last record of the session.
    pub(crate) clean: bool,
    /// The order number of the last message that took an identifier.
    pub(crate) last: u64,
    /// The length of the longest record that can be stored; 0 is without limit.
    pub(crate) longest: usize,
    /// The machine that the first record names.
    pub(crate) machine: Option<Machine>,
    /// The note that the program stored with its last acknowledgement.
    pub(crate) note: Option<LastNote>,
    pub(crate) needless: Needless,
    /// Whether the first record was read.
    pub(crate) has_format: bool,
    pub(crate) failed: bool,
    /// Whether, before MQTT 5, a session that the server has and this client has not ends the connection.
    pub(crate) refuses_unknown: bool,
    pub(crate) deferred: Deferred,
    /// The flows of a server, whose host writes the records. `None` in a client.
    #[cfg(all(feature = "alloc", feature = "server"))]
    pub(crate) flows: Option<Flows>,
}

impl Journal {
    /// Returns whether this is the journal of a server, for which the host writes all records.
    #[allow(clippy::unused_self, reason = "without servers")]
    pub(crate) const fn is_of_server(&self) -> bool {
        #[cfg(all(feature = "alloc", feature = "server"))]
        return self.flows.is_some();
        #[cfg(not(all(feature = "alloc", feature = "server")))]
        false
    }

    /// Returns whether outgoing bytes wait for records. Those of a session that ends with its connection do not.
    pub(crate) const fn may_wait(&self) -> bool {
        #[cfg(all(feature = "alloc", feature = "server"))]
        if let Some(flows) = &self.flows {
            return flows.waits;
        }
        true
    }

    pub(crate) fn write(&mut self, m: &mut Memory<'_>, entry: &Entry<'_>) {
        self.append(m, entry.encoded_len(), |room, _, _| entry.write(room));
    }

    /// Appends what `write` writes, which is of this length.
    pub(crate) fn append(
        &mut self,
        m: &mut Memory<'_>,
        len: Option<usize>,
        write: impl FnOnce(&mut [u8], &[u8], &str) -> Option<usize>,
    ) {
        // Machines write only what was accepted, and that is never too long for a record.
        let Some(len) = len else {
            return;
        };
        // A record without room is not stored, so the packets that wait for it are never sent.
        self.log.append(m, len, write);
        self.written = self.written.saturating_add(u64::from(to_u32(len)));
    }

    /// Returns how long the packet, the note or the client identifier in a record may be.
    pub(crate) const fn most_in_record(&self) -> usize {
        match self.longest {
            0 => usize::MAX,
            longest => longest.saturating_sub(BESIDE),
        }
    }

    pub(crate) fn machine(&self) -> Machine {
        self.machine.unwrap_or(Machine::Client)
    }

    pub(crate) fn write_session(&mut self, m: &mut Memory<'_>, clean: bool) {
        self.clean = clean;
        let serial = self.serial;
        let len = session(serial, clean, self.log.client_id(m)).encoded_len();
        self.append(m, len, |room, _, client_id| {
            session(serial, clean, client_id).write(room)
        });
    }

    pub(crate) fn stored(&mut self, m: &mut Memory<'_>, n: usize) {
        let n = self.log.remove_front(m, n);
        self.stored = self.stored.saturating_add(u64::from(to_u32(n)));
        while self
            .barriers
            .front()
            .is_some_and(|(_, records)| *records <= self.stored)
        {
            self.barriers.pop_front();
        }
    }

    /// Returns the number in the order of acceptance, which continues where the numbers of the session wrap.
    pub(crate) fn order(&mut self, last: u32, number: u32) -> u64 {
        let more = last.wrapping_sub(low_word(self.last));
        self.last = self.last.wrapping_add(u64::from(more));
        self.last.wrapping_sub(u64::from(last.wrapping_sub(number)))
    }

    /// Holds the outgoing bytes from this place on, until records are stored that the host is about to write.
    #[cfg(all(feature = "alloc", feature = "server"))]
    pub(crate) fn hold(&mut self, place: u64) {
        if self.barriers.back().map(|(_, records)| *records) != Some(UNKNOWN) {
            self.barriers.push_back((place, UNKNOWN));
        }
    }

    /// Writes the record of a message, with the note that is under its identifier.
    pub(crate) fn write_received(&mut self, m: &mut Memory<'_>, id: PacketId, released: bool) {
        let last = self.note.take();
        let note = last.as_ref().filter(|last| last.id == id);
        let received = Received {
            serial: self.serial,
            released,
            note: note.map(LastNote::as_note),
        };
        let needless = released && note.is_none();
        self.write(m, &Entry::Received(id, (!needless).then_some(received)));
        self.note = last;
    }
}

fn session(serial: u32, clean: bool, client_id: &str) -> Entry<'_> {
    Entry::Session(mqtt_journal::Session {
        serial,
        clean,
        client_id,
    })
}

/// Which records are put off, and until when.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// Half of the time in milliseconds; 0 puts nothing off.
    pub(crate) half: u32,
    /// When ages advance, if a record is put off.
    pub(crate) next: Option<u32>,
    /// The time of the last publish.
    pub(crate) now: u32,
    /// A record that is due had no room.
    pub(crate) waits: bool,
}

/// Returns the lower half of an order number, which is the number in the session.
pub(crate) fn low_word(order: u64) -> u32 {
    let [.., a, b, c, d] = order.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}
