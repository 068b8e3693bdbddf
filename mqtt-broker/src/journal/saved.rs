//! Reads the records of an earlier process.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use mqtt_session::Instant;
use mqtt_session::proto::num::to_u64;
use mqtt_session::proto::{PacketId, QoS, TopicFilter, TopicName, Version};
use mqtt_session::records::broker::{
    Away, Delivery, Entry, Flow, Message as MessageRecord, NEVER, Retained,
    Session as SessionRecord, Subscription,
};
use mqtt_session::records::{Fault, Format, Machine, Record};

use super::name::{NUMBERS, RecordName};
use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::message::Message;
use crate::publisher::Publisher;
use crate::queue::{Identifiers, Queued};
use crate::retained::RetainedRoom;
use crate::session::Will;

/// Why the records cannot be used. Do not continue with the broker that returned this.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// A record is damaged.
    #[error(transparent)]
    Damaged(#[from] Fault),
    /// The messages in flight take more than twice [`crate::Config::connection_bytes_total`], without the largest one of each session.
    /// This is the only limit that refuses records: they are not damaged, and a higher limit restores them.
    #[error("messages in flight take more than twice the limit for the bytes of all connections")]
    InFlight,
    /// [`Broker::start_journal`] was not called, or [`Broker::restored`] was already called.
    #[error("records are read before anything else")]
    TooLate,
}

/// The content of the records read so far.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) has_format: bool,
    pub(super) sessions: BTreeMap<u64, SavedSession>,
    pub(super) messages: BTreeMap<u64, Message>,
    /// The targets of the messages by the number of the message and the name of the target. One map for all, because a map for each
    /// message takes the memory of eleven targets for its only one.
    pub(super) targets: BTreeMap<(u64, u64), SavedTarget>,
    pub(super) wills: BTreeMap<u64, Message>,
}

#[derive(Debug)]
pub(super) struct SavedSession {
    pub(super) client_id: Arc<str>,
    pub(super) user_name: Option<Box<str>>,
    pub(super) version: Version,
    pub(super) expiry: u32,
    pub(super) away: Option<Away>,
    pub(super) will: Option<Box<Will>>,
    pub(super) subscriptions: BTreeMap<Arc<str>, Subscription>,
    pub(super) wishes: BTreeSet<Arc<str>>,
    pub(super) received: BTreeMap<PacketId, u64>,
    pub(super) flights: Vec<SavedFlight>,
}

#[derive(Debug)]
pub(super) struct SavedTarget {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Identifiers,
    pub(super) share: Option<Arc<str>>,
    pub(super) state: State,
    pub(super) has_flow: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Waiting,
    Sent(u32),
    Released(u32),
    Done,
}

/// A message that was in flight.
#[derive(Debug)]
pub(super) struct SavedFlight {
    pub(super) number: u32,
    pub(super) released: bool,
    pub(super) item: Queued,
}

impl SavedTarget {
    fn new(delivery: &Delivery<'_>, has_flow: bool) -> Self {
        Self {
            qos: delivery.qos,
            retain: delivery.retain,
            identifiers: Identifiers::of(&delivery.identifiers),
            share: delivery.share.map(Arc::from),
            state: delivery.sent.map_or(State::Waiting, State::Sent),
            has_flow,
        }
    }

    /// Returns whether another member of its shared subscription may get the message when the session has ended.
    pub(super) fn may_be_handed_over(&self) -> bool {
        self.state == State::Waiting || self.qos == QoS::AtLeastOnce
    }
}

impl<H: Hooks> Broker<H> {
    /// Takes a record of an earlier process: call it for all records of a log, or for one record for each key of a store, in
    /// ascending order of kind and key. Limits of the [`crate::Config`] that are lower than in the earlier process drop nothing, as
    /// with [`Broker::configure`]: they refuse what is new. The memory is proportional to the bytes of the records.
    ///
    /// # Errors
    /// The record is damaged or not a record of a broker.
    pub fn restore(&mut self, record: &Record<'_>) -> Result<(), RestoreError> {
        let Some(journal) = &mut self.journal else {
            return Err(RestoreError::TooLate);
        };
        if self.serial > 0 || journal.is_restored {
            return Err(RestoreError::TooLate);
        }
        let mut saved = journal.saved.take().unwrap_or_default();
        let taken = self.take_record(&mut saved, record);
        if let Some(journal) = &mut self.journal {
            journal.saved = Some(saved);
        }
        taken
    }

    fn take_record(&mut self, saved: &mut Saved, record: &Record<'_>) -> Result<(), RestoreError> {
        if !saved.has_format {
            Format::read_of(Machine::Broker, record)?;
            saved.has_format = true;
            return Ok(());
        }
        let Some(entry) = Entry::read(record)? else {
            return Ok(());
        };
        let (session, message) = numbers_of(&entry);
        if session >= NUMBERS || message >= NUMBERS {
            return Err(Fault::Key.into());
        }
        if let Some(journal) = &mut self.journal {
            journal.sessions = journal.sessions.max(session);
            journal.messages.last = journal.messages.last.max(message);
        }
        match entry {
            Entry::Format(_) => {
                Format::read_of(Machine::Broker, record)?;
            }
            Entry::Session(number, None) => {
                saved.sessions.remove(&number);
            }
            Entry::Session(number, Some(session)) => take_session(saved, number, &session)?,
            Entry::Subscription { .. } | Entry::Wish { .. } | Entry::Received { .. } => {
                return self.take_of_session(saved, &entry, record);
            }
            Entry::Retained(topic, retained) => self.take_retained(topic, retained.as_ref())?,
            Entry::DueWill(number, None) => {
                saved.wills.remove(&number);
            }
            Entry::DueWill(number, Some(will)) => {
                let will = Message::restored(will.packet, will.qos, None).ok_or(Fault::Value)?;
                saved.wills.insert(number, will);
            }
            Entry::Message(number, None) => saved.remove_message(number),
            Entry::Message(number, Some(message)) => self.take_message(saved, number, &message)?,
            Entry::Flow {
                message,
                session,
                flow,
            } => {
                if saved.messages.contains_key(&message) {
                    saved.take_flow((message, session), flow.as_ref())?;
                } else if flow.is_some() {
                    self.delete(record);
                }
            }
        }
        Ok(())
    }

    /// Takes a record that belongs to a session and is useless without it.
    fn take_of_session(
        &mut self,
        saved: &mut Saved,
        entry: &Entry<'_>,
        record: &Record<'_>,
    ) -> Result<(), RestoreError> {
        match *entry {
            Entry::Subscription {
                session,
                filter,
                options,
            } => {
                if TopicFilter::new(filter).is_err() {
                    return Err(Fault::Key.into());
                }
                match (saved.sessions.get_mut(&session), options) {
                    (Some(known), Some(options)) => {
                        known.subscriptions.insert(filter.into(), options);
                    }
                    (Some(known), None) => {
                        known.subscriptions.remove(filter);
                    }
                    (None, Some(_)) => self.delete(record),
                    (None, None) => {}
                }
            }
            Entry::Wish {
                session,
                filter,
                wanted,
            } => match (saved.sessions.get_mut(&session), wanted) {
                (Some(known), true) => {
                    known.wishes.insert(filter.into());
                }
                (Some(known), false) => {
                    known.wishes.remove(filter);
                }
                (None, true) => self.delete(record),
                (None, false) => {}
            },
            Entry::Received {
                session,
                id,
                message,
            } => match (saved.sessions.get_mut(&session), message) {
                (Some(known), Some(message)) => {
                    known.received.insert(id, message);
                }
                (Some(known), None) => {
                    known.received.remove(&id);
                }
                (None, Some(_)) => self.delete(record),
                (None, None) => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Writes the deletion of a record that is useless.
    fn delete(&mut self, record: &Record<'_>) {
        if let Some(journal) = &mut self.journal {
            let gone = Record {
                value: None,
                ..*record
            };
            let records = &mut journal.records;
            let start = records.len();
            records.resize(start.saturating_add(gone.encoded_len().unwrap_or(0)), 0);
            let written = gone.write(records.get_mut(start..).unwrap_or_default());
            let len = written.unwrap_or(0);
            records.truncate(start.saturating_add(len));
            journal.written = journal.written.saturating_add(to_u64(len));
        }
    }

    fn take_retained(
        &mut self,
        topic: &str,
        record: Option<&Retained<'_>>,
    ) -> Result<(), RestoreError> {
        if TopicName::new(topic).is_err() {
            return Err(Fault::Key.into());
        }
        let mut publisher = None;
        let message = match record {
            None => None,
            Some(record) => {
                let expires = self.instant(record.expires);
                let message =
                    Message::restored(record.packet, record.qos, expires).ok_or(Fault::Value)?;
                let client_id = Arc::<str>::from(record.publisher);
                let is_client = !record.publisher.is_empty();
                let hash = is_client.then(|| self.clients.hasher().hash_one(&client_id));
                // Without a version the record is of a release that did not tell the user: it is not checked again.
                publisher = record.version.filter(|_| is_client).map(|version| {
                    Arc::new(Publisher {
                        client_id,
                        user_name: record.user_name.map(Into::into),
                        version,
                    })
                });
                Some(message.published_by(hash))
            }
        };
        self.retained
            .set(topic, message, publisher, RetainedRoom::ANY);
        Ok(())
    }

    fn take_message(
        &self,
        saved: &mut Saved,
        number: u64,
        record: &MessageRecord<'_>,
    ) -> Result<(), RestoreError> {
        let expires = self.instant(record.expires);
        let mut message =
            Message::restored(record.packet, record.qos, expires).ok_or(Fault::Value)?;
        message.set_record(RecordName::new(number, 0));
        saved.remove_message(number);
        for target in record.targets.iter() {
            let new = SavedTarget::new(&target.delivery, false);
            saved.targets.insert((number, target.session), new);
        }
        saved.messages.insert(number, message);
        Ok(())
    }

    /// Returns the instant of a wall-clock time; a time in the past is due now.
    pub(super) fn instant(&self, wall: u64) -> Option<Instant> {
        (wall != NEVER).then(|| Instant::from_millis(wall.saturating_sub(self.config.wall_clock)))
    }
}

/// Returns the numbers of a session and of a message in a record, 0 for none. These numbers are not used again, even if the
/// record deletes its entry: a crash may have left other records with the number, which must not belong to a new entry.
const fn numbers_of(entry: &Entry<'_>) -> (u64, u64) {
    match *entry {
        Entry::Format(_) | Entry::Retained(..) => (0, 0),
        Entry::Session(session, _)
        | Entry::Subscription { session, .. }
        | Entry::Wish { session, .. }
        | Entry::Received {
            session,
            message: None,
            ..
        } => (session, 0),
        Entry::Received {
            session,
            message: Some(message),
            ..
        } => (session, message),
        Entry::Message(message, _) | Entry::DueWill(message, _) => (0, message),
        Entry::Flow {
            message, session, ..
        } => (RecordName::of_target(session).0, message),
    }
}

fn take_session(
    saved: &mut Saved,
    number: u64,
    record: &SessionRecord<'_>,
) -> Result<(), RestoreError> {
    let will = match &record.will {
        None => None,
        Some(will) => Some(Box::new(Will {
            message: Message::restored(will.packet, will.qos, None).ok_or(Fault::Value)?,
            delay: Duration::from_secs(u64::from(will.delay)),
        })),
    };
    let old = saved.sessions.remove(&number);
    let (subscriptions, wishes, received) = old
        .map(|old| (old.subscriptions, old.wishes, old.received))
        .unwrap_or_default();
    let session = SavedSession {
        client_id: record.client_id.into(),
        user_name: record.user_name.map(Into::into),
        version: record.version,
        expiry: record.expiry,
        away: record.away,
        will,
        subscriptions,
        wishes,
        received,
        flights: Vec::new(),
    };
    saved.sessions.insert(number, session);
    Ok(())
}

impl Saved {
    /// Removes a message with its targets.
    fn remove_message(&mut self, number: u64) {
        if self.messages.remove(&number).is_none() {
            return;
        }
        let of_message = (number, 0)..=(number, u64::MAX);
        while let Some((name, _)) = self.targets.range(of_message.clone()).next() {
            let name = *name;
            self.targets.remove(&name);
        }
    }

    /// Takes the flow of a target of a known message.
    fn take_flow(&mut self, name: (u64, u64), flow: Option<&Flow<'_>>) -> Result<(), RestoreError> {
        let target = self.targets.get_mut(&name);
        match (target, flow) {
            (_, Some(Flow::Target(delivery))) => {
                let target = SavedTarget::new(delivery, true);
                self.targets.insert(name, target);
            }
            // The record is deleted with its message.
            (Some(target), None) => target.has_flow = false,
            (None, None) => {}
            // The session was a target in addition to those of the message's record.
            (None, Some(Flow::Sent(_))) => return Err(Fault::Value.into()),
            (None, Some(flow)) => {
                let state = match flow {
                    Flow::Released(number) => State::Released(*number),
                    _ => State::Done,
                };
                let target = SavedTarget {
                    qos: QoS::ExactlyOnce,
                    retain: false,
                    identifiers: Identifiers::None,
                    share: None,
                    state,
                    has_flow: true,
                };
                self.targets.insert(name, target);
            }
            (Some(target), Some(flow)) => {
                target.has_flow = true;
                target.state = match flow {
                    Flow::Sent(number) => State::Sent(*number),
                    Flow::Released(number) => State::Released(*number),
                    Flow::Done | Flow::Target(_) => State::Done,
                };
            }
        }
        Ok(())
    }
}
