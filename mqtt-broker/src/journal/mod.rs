//! Writes the state that outlives the process as records beside the outgoing bytes. `docs/JOURNAL.md` has the byte tables and
//! says which packets wait for which record. `record.rs` and `flights.rs` write records, `saved.rs` reads them, `restore.rs`
//! makes sessions of them, and `messages.rs` knows how long a message is needed.
//!
//! A position is a number of bytes of records, counted from the start of the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mqtt_session::proto::ReasonCode;
use mqtt_session::proto::num::to_u64;
use mqtt_session::records::broker::Entry;
use mqtt_session::records::{Format, Machine};
use mqtt_session::{Change, Instant, Receipt};

use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::hooks::Hooks;
use crate::keys::{ConnectionKey, GroupKey};
use crate::pressure::SessionName;
use crate::router::Share;

mod flights;
mod messages;
mod name;
mod numbered;
mod record;
mod restore;
mod saved;
mod window;

pub(crate) use flights::steps_of;
use messages::Messages;
pub(crate) use messages::Origin;
pub(crate) use name::{MOST_COPIES, RecordName};
pub(crate) use record::Recorded;
pub(crate) use restore::MemberSearch;
pub use restore::Restored;
pub use saved::RestoreError;
use saved::Saved;

/// Why records cannot be stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StorageFailure {
    /// There is no room, but there may be later: [`Broker::storage_recovered`].
    Full,
    /// Nothing can be stored any more. The host ends.
    Broken,
}

/// The records of the broker, and the packets that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The records from `start` on are not stored.
    records: Vec<u8>,
    start: usize,
    written: u64,
    stored: u64,
    /// Connections and acknowledgements that wait until this many bytes are stored.
    waiting: VecDeque<(u64, Waiting)>,
    /// Connections whose machines have changed: their waiting bytes get the position that they wait for.
    changed: Vec<ConnectionKey>,
    /// Connections whose input waits until fewer records wait.
    blocked: Vec<ConnectionId>,
    failed: Option<StorageFailure>,
    /// From when on another process may own the journal, and whether that time has come.
    own_until: Option<Instant>,
    may_be_of_another: bool,
    /// How many bytes were written before the present call.
    written_before: u64,
    /// The number of the last session that was recorded.
    sessions: u64,
    is_restored: bool,
    /// The number of the session from which a message is handed over.
    handed_over_session: u64,
    messages: Messages,
    /// The filters of shared subscriptions, by the numbers of their groups.
    shares: BTreeMap<GroupKey, (Share, Arc<str>)>,
    /// The content of earlier records, until all are read.
    saved: Option<Box<Saved>>,
}

#[derive(Debug)]
enum Waiting {
    Connection(ConnectionId),
    Acknowledgement(SessionName, Receipt, ReasonCode),
}

/// How many bytes of records may wait for the store. Beyond it no connection is read. On a full disk, the log of the store has room for
/// twice as many: those that wait, and those that are written until the broker knows that the disk is full.
const BACKLOG: usize = 2 << 20;

impl Journal {
    fn backlog(&self) -> usize {
        self.records.len().saturating_sub(self.start)
    }

    /// Appends a record to the records.
    fn write(&mut self, entry: &Entry<'_>) {
        let len = append(&mut self.records, entry);
        self.written = self.written.saturating_add(len);
    }

    /// Notes the time of a call. The host has the records that were written before.
    pub(crate) fn note_time(&mut self, now: Instant) {
        self.may_be_of_another = self.own_until.is_some_and(|until| now >= until);
        self.written_before = self.written;
    }

    /// Returns the position to be stored before a message is acknowledged whose own records are those after `before`; `None` if that
    /// is stored.
    fn awaited_by_message(&mut self, before: u64) -> Option<u64> {
        if self.may_be_of_another && self.written == self.written_before {
            // A record that changes nothing: it is refused if the journal belongs to another process. Those of earlier calls may have been
            // stored before it did.
            self.write(&Entry::Format(Format::new(Machine::Broker)));
        }
        let waits = self.may_be_of_another || self.written > before;
        (waits && self.written > self.stored).then_some(self.written)
    }

    fn drop_stored(&mut self, n: usize) {
        let n = n.min(self.backlog());
        self.start = self.start.saturating_add(n);
        self.stored = self.stored.saturating_add(to_u64(n));
        if self.start == self.records.len() {
            self.records.clear();
            self.records.shrink_to(KEPT);
            self.start = 0;
        } else if self.start > self.records.len() / 2 {
            // Moves at most as many bytes as were stored.
            self.records.drain(..self.start);
            self.start = 0;
        }
    }
}

/// Appends a record. Returns by how many bytes the records grew: 0 for a record that is too long, which no record of accepted
/// input is.
fn append(records: &mut Vec<u8>, entry: &Entry<'_>) -> u64 {
    let len = entry.put(&mut |bytes| records.extend_from_slice(bytes));
    to_u64(len.unwrap_or(0))
}

/// How many bytes of memory for records stay allocated when all are stored.
const KEPT: usize = 1 << 20;

impl<H: Hooks> Broker<H> {
    /// Starts the journal: from now on the state that outlives the process is written to [`Self::journal`], and packets that
    /// promise something wait until it is stored. Call this before the first connection, then [`Self::restore`] for each existing
    /// record, then [`Self::restored`].
    pub fn start_journal(&mut self) {
        self.journal.get_or_insert_default();
    }

    /// Returns the complete records that are not stored, the oldest first. The call changes nothing.
    #[must_use]
    pub fn journal(&self) -> &[u8] {
        let journal = self.journal.as_ref();
        journal.map_or(&[], |journal| {
            journal.records.get(journal.start..).unwrap_or_default()
        })
    }

    /// Notes that the first `n` bytes of [`Self::journal`] are stored: packets that waited for them become outgoing.
    pub fn stored(&mut self, n: usize) {
        self.begin_share();
        let Some(journal) = &mut self.journal else {
            return;
        };
        journal.drop_stored(n);
        let stored = journal.stored;
        let has_room = journal.backlog() < BACKLOG / 2;
        let blocked = if has_room {
            std::mem::take(&mut journal.blocked)
        } else {
            Vec::new()
        };
        for id in blocked {
            self.mark_ready(id.index);
        }
        while let Some(waiting) = self.next_stored(stored) {
            match waiting {
                Waiting::Connection(id) => {
                    if let Some(connection) = self.connection_mut(id) {
                        connection.server.stored(stored);
                        self.mark_ready(id.index);
                    }
                }
                Waiting::Acknowledgement(from, receipt, reason) => {
                    self.acknowledge(from, receipt, reason);
                }
            }
        }
        self.settle();
    }

    fn next_stored(&mut self, stored: u64) -> Option<Waiting> {
        let waiting = &mut self.journal.as_mut()?.waiting;
        if waiting.front()?.0 > stored {
            return None;
        }
        waiting.pop_front().map(|(_, waiting)| waiting)
    }

    /// Notes that records cannot be stored. Until [`Self::storage_recovered`], input that needs a record is refused with 0x97;
    /// before MQTT 5, which cannot report it, the connection ends. Input without a record is handled, and packets that wait for a
    /// record are not sent. Each message at QoS 1 or 2 is refused, although one that no session keeps needs no record: the broker knows
    /// that only after the search for its receivers, which may take several turns.
    pub const fn storage_failed(&mut self, why: StorageFailure) {
        if let Some(journal) = &mut self.journal {
            journal.failed = Some(why);
        }
    }

    /// Notes that there is room again after [`StorageFailure::Full`].
    pub fn storage_recovered(&mut self) {
        if let Some(journal) = &mut self.journal
            && journal.failed == Some(StorageFailure::Full)
        {
            journal.failed = None;
        }
    }

    /// Notes that no other process owns the journal before `until`; without this call that is never the case. From `until` on, or
    /// from the next time that a later call tells, a message that no session keeps is not acknowledged at once but when a later record
    /// is stored, so that it is not acknowledged by a process that has lost its journal: a client may have subscribed at the owner. If
    /// the call writes no other record, the broker writes one that repeats the first record of the journal.
    ///
    /// Without a journal this call has no effect.
    pub const fn owns_journal_until(&mut self, until: Instant) {
        if let Some(journal) = &mut self.journal {
            journal.own_until = Some(until);
        }
    }

    /// Returns whether input that needs a record is to be refused.
    pub(crate) fn storage_is_refused(&self) -> bool {
        let journal = self.journal.as_ref();
        journal.is_some_and(|journal| journal.failed.is_some())
    }

    /// Returns whether a connection is not read because too many records wait.
    pub(crate) fn waits_for_storage(&mut self, id: ConnectionId) -> bool {
        let Some(journal) = &mut self.journal else {
            return false;
        };
        let waits = journal.backlog() >= BACKLOG;
        if waits {
            journal.blocked.push(id);
            // The client is not silent.
            if let Some(connection) = self.connection_mut(id) {
                connection.server.input_waits();
            }
        }
        waits
    }

    /// Returns how many bytes of records were written; 0 without a journal.
    pub(crate) fn position(&self) -> u64 {
        let journal = self.journal.as_ref();
        journal.map_or(0, |journal| journal.written)
    }

    /// Acknowledges a message when all records after position `before` are stored. If the journal may belong to another process, a
    /// message without records waits for a record as well.
    pub(crate) fn acknowledge_when_stored(
        &mut self,
        from: SessionName,
        receipt: Receipt,
        reason: ReasonCode,
        before: u64,
    ) {
        if let Some(journal) = &mut self.journal
            && let Some(position) = journal.awaited_by_message(before)
        {
            let waiting = Waiting::Acknowledgement(from, receipt, reason);
            journal.waiting.push_back((position, waiting));
            return;
        }
        self.acknowledge(from, receipt, reason);
    }

    /// Makes the next bytes of a connection wait for all records so far. Bytes that are already written do not wait.
    pub(crate) fn hold_answer(&mut self, index: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(index) {
            connection.server.hold();
            self.machine_changed(index);
        }
    }

    /// Sets the number of the session from which messages are handed over.
    pub(crate) fn handed_over_from(&mut self, origin: u64) {
        if let Some(journal) = &mut self.journal {
            journal.handed_over_session = origin;
        }
    }

    /// Notes that a machine may have changes to record, or bytes that wait for records.
    pub(crate) fn machine_changed(&mut self, index: ConnectionKey) {
        if let Some(journal) = &mut self.journal
            && journal.changed.last() != Some(&index)
        {
            journal.changed.push(index);
        }
    }

    /// Records the changes of a connection's machine.
    pub(crate) fn take_changes(&mut self, index: ConnectionKey) {
        if self.journal.is_some() {
            self.record_changes(index);
        }
    }

    fn record_changes(&mut self, index: ConnectionKey) {
        let connection = self.connections.get(index);
        if !connection.is_some_and(|connection| connection.server.may_need_records()) {
            return;
        }
        while let Some(connection) = self.connections.get_mut(index)
            && let Some(change) = connection.server.take_change()
        {
            let Some(key) = connection.session else {
                continue;
            };
            match change {
                Change::Released(token) => self.record_released(key, token),
                Change::Freed(id) => self.record_freed(key, id),
            }
        }
        let connection = self.connections.get(index);
        if connection.is_some_and(|connection| connection.server.waits_for_records()) {
            self.machine_changed(index);
        }
    }

    /// Gives the waiting bytes of connections the position that they wait for, at the end of a call.
    pub(crate) fn settle(&mut self) {
        if self.links.is_some() {
            self.settle_links();
        }
        if self.journal.is_some() {
            self.settle_changed();
        }
    }

    fn settle_changed(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let changed = std::mem::take(&mut journal.changed);
        for index in &changed {
            self.take_changes(*index);
        }
        let Some(journal) = &mut self.journal else {
            return;
        };
        journal.changed = changed;
        let (written, stored) = (journal.written, journal.stored);
        for index in journal.changed.drain(..) {
            let Some(connection) = self.connections.get_mut(index) else {
                continue;
            };
            if written == stored {
                connection.server.stored(stored);
            }
            if connection.server.wait_for(written) {
                let waiting = Waiting::Connection(connection.id(index));
                journal.waiting.push_back((written, waiting));
            }
        }
    }
}
