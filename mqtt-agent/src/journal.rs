//! Writes the state that outlives the process as records: the state of the session, and the subscriptions of the program.
//! `docs/JOURNAL.md` describes the bytes of the records, and which packets wait for them.
//!
//! A message that the program has not finished needs no record: it is not acknowledged, so the server keeps it.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use mqtt_proto::{ReasonCode, Version};
use mqtt_session::records::{Entry, Fault, Machine, Outgoing, Owner, Record, Subscribed};
use mqtt_session::{Instant, Refused};

use crate::agent::Agent;
use crate::error::Error;
use crate::event::ConnectionEvent;
use crate::held::MessageId;
use crate::options::Options;
use crate::subscription_records::Subscriptions;

/// The state of the agent beside the records of its session.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) is_on: bool,
    pub(crate) subscriptions: Subscriptions,
    /// The client identifier of the earlier process, if that had no session.
    owner: Option<String>,
    /// Whether the first CONNECT asks for a clean start because the records of the server's session are lost.
    pub(crate) begins_clean: bool,
    /// Whether there is no room for records now.
    pub(crate) is_full: bool,
    /// The number of the last note of the program, and of the last one in a record.
    notes: u64,
    noted: u64,
}

/// A note of the program whose message is not acknowledged yet.
#[derive(Debug)]
pub(crate) struct PendingNote {
    number: u64,
    bytes: Box<[u8]>,
}

/// Why an agent cannot continue with the records of an earlier process.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RestoreError {
    /// A record is damaged, belongs to another kind of machine, or exceeds the limits of the options.
    Record(Fault),
    /// Messages are kept in this version, and [`Options::version`] differs: their packets cannot be sent.
    Version(Version),
    /// The session belongs to this client identifier, and [`Options::client_id`] differs.
    ClientIdentifier(String),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(fault) => write!(f, "{fault}"),
            Self::Version(Version::V5) => f.write_str("it has messages of MQTT 5"),
            Self::Version(_) => f.write_str("it has messages of MQTT 3.1.1"),
            Self::ClientIdentifier(id) => write!(f, "it belongs to the client identifier {id:?}"),
        }
    }
}

impl core::error::Error for RestoreError {}

impl From<Fault> for RestoreError {
    fn from(fault: Fault) -> Self {
        Self::Record(fault)
    }
}

impl Agent {
    /// Makes an agent that writes the state that outlives the process to [`Self::journal`]. Call [`Self::restore`] for the
    /// records of the earlier process first, then [`Self::restored`].
    ///
    /// Its [`Options::clean_start`] should be `false`, and [`Options::session_expiry`] (5) long enough for a restart:
    /// otherwise the server forgets the session, and only messages to the server outlive the process.
    #[must_use]
    pub fn with_journal(mut options: Options) -> Self {
        let assume_session = core::mem::replace(&mut options.assume_session, false);
        let mut agent = Self::new(options);
        agent.options.assume_session = assume_session;
        agent.client.start_journal_of(Machine::Agent);
        agent.journal.is_on = true;
        agent
    }

    /// Takes a record of the earlier process: call it for all records of a log, or for one record for each key of a key-value
    /// store, in ascending order of kind and key.
    ///
    /// # Errors
    /// Do not continue with this agent.
    pub fn restore(&mut self, record: &Record<'_>) -> Result<(), RestoreError> {
        if let Some(subscribed) = Subscribed::read(record)? {
            return Ok(self.journal.subscriptions.restore(&subscribed)?);
        }
        if let Some(owner) = Owner::read(record)? {
            self.journal.owner = Some(String::from(owner.client_id));
            return Ok(());
        }
        if let Ok(Some(Entry::Outgoing(_, Some(Outgoing::Message { version, .. })))) =
            Entry::read(record)
            && version.is_v5() != self.options.version.is_v5()
        {
            return Err(RestoreError::Version(version));
        }
        Ok(self.client.restore(record)?)
    }

    /// Ends the reading of records; call it also if there were none. The agent continues the unfinished messages of the earlier
    /// process with the first connection: [`Self::unsent`] has its messages to the server, and the server sends the messages
    /// again that the program had not finished.
    ///
    /// Until the program subscribes again, messages for the subscriptions of the earlier process are unclaimed
    /// ([`crate::Unclaimed`]).
    ///
    /// # Errors
    /// The records do not fit the options. Do not continue with this agent.
    pub fn restored(&mut self) -> Result<(), RestoreError> {
        let has_session = self.has_session()?;
        if !has_session {
            self.own_records()?;
        }
        if !self.options.clean_start {
            self.client.refuse_unknown_session();
        }
        self.add_restored_routes();
        self.journal.subscriptions.changed = true;
        Ok(())
    }

    /// Checks that the records belong to the client identifier of the options, before there is a session.
    fn own_records(&mut self) -> Result<(), RestoreError> {
        let client_id = &self.options.client_id;
        match self.journal.owner.take() {
            _ if client_id.is_empty() => {}
            Some(owner) if owner != *client_id => {
                return Err(RestoreError::ClientIdentifier(owner));
            }
            Some(_) => {}
            None => self.client.record(&Owner { client_id }.record()),
        }
        Ok(())
    }

    /// Ends the reading of records. Returns whether they have a session.
    fn has_session(&mut self) -> Result<bool, RestoreError> {
        let options = &self.options;
        match self.client.restored().filter(|id| !id.is_empty()) {
            Some(id) if options.client_id.is_empty() => self.client_id = String::from(id),
            Some(id) if id != options.client_id => {
                return Err(RestoreError::ClientIdentifier(String::from(id)));
            }
            Some(_) => {}
            None if options.assume_session && !options.clean_start => {
                self.client.assume_session(&options.client_id);
                return Ok(false);
            }
            // 5 [MQTT-3.2.2-4]: a session that the server has is not here. In 3.1.1 CONNACK tells whether it has one, in 3.1 it does
            // not.
            None => {
                self.journal.begins_clean = options.version != Version::V311;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the complete records that are not stored, the oldest first. The call changes nothing. While more than 256 KiB
    /// wait, [`Self::publish`] returns [`Refused::Full`] at QoS 1 and 2, and the agent receives nothing.
    #[must_use]
    pub fn journal(&self) -> &[u8] {
        self.client.journal()
    }

    /// Notes that the first `n` bytes of [`Self::journal`] are stored, and removes them. Packets that waited for these records
    /// are then in [`Self::outgoing`].
    pub fn stored(&mut self, n: usize) {
        self.client.stored(n);
    }

    /// Returns how many bytes of records were written since the start, and how many of them are stored. A QoS 1 or 2 message
    /// outlives the process as soon as the second number reaches the first number of the time at which [`Self::publish`] accepted
    /// the message.
    #[must_use]
    pub fn recorded(&self) -> (u64, u64) {
        self.client.recorded()
    }

    /// Stops the agent because its records cannot be stored any more. Packets that wait for a record are not sent by this
    /// process; the next process finds their messages.
    pub fn storage_failed(&mut self, why: Error) {
        self.client.storage_failed();
        self.stop(why);
    }

    /// Notes that there is no room for more records, or that there is room again, and reports the change by an event.
    /// [`Self::publish`] returns [`Refused::Full`] at QoS 1 and 2 until there is room. Records that are written nevertheless,
    /// such as those of received messages, wait in [`Self::journal`] until the caller has stored them.
    pub fn storage_is_full(&mut self, is_full: bool) {
        if core::mem::replace(&mut self.journal.is_full, is_full) != is_full {
            self.queue_connection_event(if is_full {
                ConnectionEvent::StoreFull
            } else {
                ConnectionEvent::StoreHasRoom
            });
        }
    }

    /// Acknowledges a message like [`Self::acknowledge`], and stores a note of at most 64 bytes in the same record.
    /// [`Self::note`] returns the last note, also in the next process. A program whose result is one number or the state of one
    /// row updates it exactly once for each message at QoS 2.
    ///
    /// The record is written at once. If the connection that brought a QoS 1 message has ended, it is written when the server has
    /// sent the message again. Another subscription with the same message does not get it after a crash.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] for a longer note; as for [`Self::acknowledge`].
    pub fn acknowledge_with(
        &mut self,
        id: MessageId,
        note: &[u8],
        now: Instant,
    ) -> Result<(), Refused> {
        let max = mqtt_session::records::MAX_NOTE;
        if note.len() > max {
            let len = note.len();
            return Err(Refused::TooLarge { len, max });
        }
        match self.held.get_mut(id) {
            Some(held) if held.reason.is_none() => {
                self.journal.notes = self.journal.notes.saturating_add(1);
                held.note = Some(PendingNote {
                    number: self.journal.notes,
                    bytes: note.into(),
                });
            }
            _ => return Err(Refused::NothingToAcknowledge),
        }
        self.send_note(id, now);
        self.acknowledge(id, ReasonCode::Success, now)
    }

    /// Returns the note of the last [`Self::acknowledge_with`] that is stored or about to be stored, by this process or the
    /// earlier one.
    #[must_use]
    pub fn note(&self) -> Option<&[u8]> {
        self.client.note()
    }

    /// Sends an acknowledgement with its note, or stores the note alone if the server will not send the message again. Does
    /// nothing while the server has yet to send it. A note that is older than a stored one is not stored, because the later note
    /// replaces it.
    pub(crate) fn send_note(&mut self, id: MessageId, now: Instant) {
        let Some(held) = self.held.get_mut(id) else {
            return;
        };
        if held.receipt.is_none() && held.may_return {
            return;
        }
        let (Some(note), Some(packet_id)) = (held.note.take(), held.message.packet_id) else {
            return;
        };
        let is_new = note.number > self.journal.noted;
        self.journal.noted = self.journal.noted.max(note.number);
        match held.receipt {
            Some(receipt) if is_new => {
                let _ = self.client.acknowledge_with(receipt, &note.bytes, now);
            }
            Some(receipt) => {
                let _ = self.client.acknowledge(receipt, ReasonCode::Success, now);
            }
            None if is_new => self.client.store_note(packet_id, &note.bytes),
            None => {}
        }
    }

    /// Stores the note of a message that is about to be forgotten because the server does not send it again.
    pub(crate) fn keep_note(&mut self, id: MessageId) {
        if let Some(held) = self.held.get_mut(id)
            && held.note.is_some()
        {
            (held.receipt, held.may_return) = (None, false);
            self.send_note(id, Instant::default());
        }
    }
}
