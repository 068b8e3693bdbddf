//! The journal of a server. The host writes the records, because a session of the host has more state than the flows of its packets.
//! The machine reports each change to the host, and holds outgoing packets until the records of the host are stored. Positions count
//! the bytes of the host's journal.

use mqtt_proto::{PacketId, Version};

use crate::error::Refused;
use crate::event::{Outgoing, Receipt, Token};
use crate::server::Server;
use crate::state::flows::{Change, UNKNOWN};
use crate::state::slot::Awaits;

impl Server<'_> {
    /// Makes the machine report changes ([`Self::take_change`]) and hold bytes until the host has stored its records
    /// ([`Self::wait_for`]). Without `flows` it holds only the bytes for which the host calls [`Self::hold`]: for sessions that
    /// end with their connection.
    pub fn start_journal(&mut self, flows: bool) {
        let journal = self.engine.journal.get_or_insert_default();
        journal.flows.get_or_insert_default().waits = flows;
    }

    /// Returns whether there may be changes that the host must record, or bytes that wait for records. This is cheaper than
    /// [`Self::take_change`] and [`Self::waits_for_records`] after a packet that has neither, which most packets are.
    #[must_use]
    pub fn may_need_records(&self) -> bool {
        self.engine.journal.as_ref().is_some_and(|journal| {
            let flows = journal.flows.as_ref();
            !journal.barriers.is_empty() || flows.is_some_and(|flows| !flows.changes.is_empty())
        })
    }

    /// Returns the next change that the host must record, oldest first.
    pub fn take_change(&mut self) -> Option<Change> {
        let flows = self.engine.journal.as_mut()?.flows.as_mut()?;
        flows.changes.pop_front()
    }

    /// Holds the bytes that are written from now on, until the host has stored the records that it is about to write.
    pub fn hold(&mut self) {
        let waiting = self.engine.unsent(&self.memory);
        if let Some(journal) = &mut self.engine.journal {
            let waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
            journal.hold(journal.sent.saturating_add(waiting));
        }
    }

    /// Tells the machine that the host recorded all changes. The bytes that are held since the last call wait until the host has
    /// stored `position` bytes of its journal. Returns whether they wait; `false` if there are none, or if that much is stored
    /// already.
    pub fn wait_for(&mut self, position: u64) -> bool {
        let Some(journal) = &mut self.engine.journal else {
            return false;
        };
        let Some((_, records)) = journal.barriers.back_mut() else {
            return false;
        };
        if *records != UNKNOWN {
            return false;
        }
        *records = position;
        if journal.stored >= position {
            journal.barriers.pop_back();
            return false;
        }
        true
    }

    /// Tells the machine that the host's journal is stored up to `position`. The bytes that waited for it are then in
    /// [`Self::outgoing`].
    pub fn stored(&mut self, position: u64) {
        let Some(journal) = &mut self.engine.journal else {
            return;
        };
        journal.stored = journal.stored.max(position);
        let stored = journal.stored;
        let is_stored = |(_, records): &(u64, u64)| *records <= stored;
        while journal.barriers.front().is_some_and(is_stored) {
            journal.barriers.pop_front();
        }
    }

    /// Returns whether bytes wait for records.
    #[must_use]
    pub fn waits_for_records(&self) -> bool {
        let journal = self.engine.journal.as_ref();
        journal.is_some_and(|journal| !journal.barriers.is_empty())
    }

    /// Restores a message that was sent under `number` before the process began anew, and was not acknowledged. The host restores
    /// messages in the order of their numbers, before the machine has a connection.
    ///
    /// # Errors
    /// The number is not above the last one, or the message cannot be written in this version.
    pub fn restore_message(
        &mut self,
        number: u32,
        message: &Outgoing<'_>,
        version: Version,
    ) -> Result<Token, Refused> {
        let id = PacketId::new(mqtt_proto::num::low_half(number));
        let publish = crate::outbound::prepare(message, id.unwrap_or(PacketId::FIRST));
        let awaits = if message.qos == mqtt_proto::QoS::ExactlyOnce {
            Awaits::PUBREC
        } else {
            Awaits::PUBACK
        };
        let mut packet = alloc::vec![0; mqtt_proto::Encode::encoded_len(&publish, version)?];
        mqtt_proto::Encode::encode(&publish, version, &mut packet)?;
        self.restore_slot_of((number, version), awaits, &packet)
    }

    /// Restores a message that was sent under `number`, and whose PUBREC came: PUBREL is sent for it.
    ///
    /// # Errors
    /// The number is not above the last one.
    pub fn restore_released(&mut self, number: u32, version: Version) -> Result<Token, Refused> {
        self.restore_slot_of((number, version), Awaits::PUBCOMP, &[])
    }

    fn restore_slot_of(
        &mut self,
        (number, version): (u32, Version),
        awaits: Awaits,
        packet: &[u8],
    ) -> Result<Token, Refused> {
        let (engine, memory) = (&mut self.engine, &mut self.memory);
        if engine.session.len == 0 {
            engine.session.version = version;
        }
        let last = engine.session.last;
        let later =
            engine.session.len == 0 || (1..=u32::MAX / 2).contains(&number.wrapping_sub(last));
        if !later || mqtt_proto::num::low_half(number) == 0 {
            return Err(Refused::WrongPhase);
        }
        engine.session.last = number.wrapping_sub(1);
        let index = engine
            .place_restored(memory, packet, awaits)
            .ok_or(Refused::Full)?;
        let Some(slot) = engine.slot_mut(memory, index) else {
            return Err(Refused::Full);
        };
        slot.goes(false);
        slot.disconnected();
        if slot.token().number != number {
            // The packet identifier of the message is in use.
            return Err(Refused::WrongPhase);
        }
        Ok(slot.token())
    }

    /// Restores the packet identifier of a message that came at QoS 2 before the process began anew, and whose PUBREL is awaited.
    /// Returns `false` if there is no room.
    pub fn restore_received(&mut self, id: PacketId) -> bool {
        self.engine.holds(&self.memory, id.get())
            || self.engine.restore_received(&mut self.memory, id.get())
    }
}

impl Receipt {
    /// Returns the packet identifier of the message.
    #[must_use]
    pub const fn packet_id(self) -> PacketId {
        self.id
    }
}

impl Token {
    /// Returns the number under which the message is sent; the lower half is its packet identifier.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }
}
