//! The records of messages from the server, and the notes of the program in them.
//!
//! A note is in the record of the message that it was stored with, so that a crash leaves both or none. When that message's
//! identifier is free, its record stays for the note until a later note is written.

use mqtt_journal::{Entry, Fault, MAX_NOTE, Received};
use mqtt_proto::{PacketId, ReasonCode};

use crate::engine::Engine;
use crate::error::Refused;
use crate::event::Receipt;
use crate::memory::Memory;
#[cfg(feature = "by-hand")]
use crate::outgoing::check_size;
use crate::state::journal::Journal;
use crate::state::note::LastNote;

impl Engine {
    /// Records that the packet identifier of a received QoS 2 message stands for it until PUBREL.
    #[inline]
    pub(crate) fn record_received(&mut self, m: &mut Memory<'_>, id: u16) {
        if let (Some(journal), Some(id)) = (&mut self.journal, PacketId::new(id))
            && !journal.is_of_server()
        {
            journal.write_received(m, id, false);
        }
    }

    /// Records that PUBREL came, so that the packet identifier is free.
    #[inline]
    pub(crate) fn record_freed(&mut self, m: &mut Memory<'_>, id: u16) {
        if let (Some(journal), Some(id)) = (&mut self.journal, PacketId::new(id)) {
            #[cfg(all(feature = "alloc", feature = "server"))]
            if let Some(flows) = &mut journal.flows {
                flows.freed(id);
                return;
            }
            journal.write_received(m, id, true);
        }
    }

    /// Acknowledges a message for the application and stores a note of it, both in one record.
    #[cfg(feature = "by-hand")]
    pub(crate) fn acknowledge_with(
        &mut self,
        m: &mut Memory<'_>,
        receipt: Receipt,
        note: &[u8],
    ) -> Result<(), Refused> {
        check_size(note.len(), self.longest_note())?;
        let qos2 = self
            .awaits_acknowledgement(m, receipt)
            .ok_or(Refused::NothingToAcknowledge)?;
        // The note, and the record of the one before.
        if !self.lent_record_fits(m, note.len().saturating_add(MAX_NOTE)) {
            return Err(Refused::Full);
        }
        let Some(journal) = &mut self.journal else {
            return self.acknowledge(m, receipt, ReasonCode::Success);
        };
        let order = journal.note.as_ref().map_or(0, |last| last.order);
        let before = journal.note.replace(LastNote {
            order: order.saturating_add(1),
            id: receipt.id,
            bytes: note.into(),
        });
        if !qos2 {
            journal.write_received(m, receipt.id, true);
        }
        let done = self.acknowledge(m, receipt, ReasonCode::Success);
        if let Some(before) = before {
            self.drop_note(m, &before);
        }
        done
    }

    /// Stores a note with a message that nobody waits for any more.
    pub(crate) fn store_note(&mut self, m: &mut Memory<'_>, id: PacketId, note: &[u8]) {
        let taken = self.is_recorded(m, id.get());
        let Some(journal) = &mut self.journal else {
            return;
        };
        let order = journal.note.as_ref().map_or(0, |last| last.order);
        let before = journal.note.replace(LastNote {
            order: order.saturating_add(1),
            id,
            bytes: note.into(),
        });
        journal.write_received(m, id, !taken);
        if let Some(before) = before {
            self.drop_note(m, &before);
        }
    }

    /// Deletes the record of a note that a later one replaced, if it is of no other use.
    fn drop_note(&mut self, m: &mut Memory<'_>, before: &LastNote) {
        let held = self.holds(m, before.id.get());
        if let Some(journal) = &mut self.journal
            && !held
            && journal
                .note
                .as_ref()
                .is_none_or(|last| last.id != before.id)
        {
            journal.write(m, &Entry::Received(before.id, None));
        }
    }

    /// Returns the length of the longest note whose record can be stored.
    pub(crate) fn longest_note(&self) -> usize {
        let journal = self.journal.as_ref();
        journal.map_or(MAX_NOTE, |journal| journal.most_in_record().min(MAX_NOTE))
    }

    pub(crate) fn note(&self) -> Option<&[u8]> {
        let note = self.journal.as_ref()?.note.as_ref()?;
        Some(&note.bytes)
    }

    /// Takes the record of a message from the server.
    pub(crate) fn restore_acknowledged(
        &mut self,
        m: &mut Memory<'_>,
        journal: &mut Journal,
        id: PacketId,
        received: Option<Received<'_>>,
    ) -> Result<(), Fault> {
        journal.needless.remove(&id.get());
        let Some(received) = received else {
            self.forget_received(m, id.get());
            journal.note.take_if(|last| last.id == id);
            return Ok(());
        };
        if let Some(note) = received.note
            && journal
                .note
                .as_ref()
                .is_none_or(|last| last.order <= note.order)
        {
            let before = journal.note.replace(LastNote {
                order: note.order,
                id,
                bytes: note.bytes.into(),
            });
            if let Some(before) = before.filter(|before| !self.holds(m, before.id.get())) {
                journal.needless.insert(before.id.get());
            }
        }
        let has_note = journal.note.as_ref().is_some_and(|last| last.id == id);
        if received.released || received.serial != journal.serial {
            self.forget_received(m, id.get());
            if !has_note {
                journal.needless.insert(id.get());
            }
        } else if !self.holds(m, id.get()) && !self.restore_received(m, id.get()) {
            return Err(Fault::Value);
        }
        if has_note {
            journal.needless.remove(&id.get());
        }
        Ok(())
    }
}
