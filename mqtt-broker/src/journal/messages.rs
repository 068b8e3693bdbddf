//! Knows which messages are in the store. A message is stored until none of its targets needs it.

use mqtt_session::Token;
use mqtt_session::proto::num::to_u64;
use mqtt_session::proto::{PacketId, QoS};
use mqtt_session::records::broker::{Entry, Flow, Message as Recorded, Target, Targets};

use super::numbered::Numbered;
use super::{Journal, RecordName, append};
use crate::keys::SessionKey;

/// A recorded message.
#[derive(Debug)]
struct StoredMessage {
    /// How many targets still need it.
    targets: u32,
    /// The session from which it came and its identifier there, for a QoS 2 message.
    from: Option<Origin>,
    /// The targets that do not need it any more and have a record of that.
    done: Vec<u64>,
}

/// The origin of a QoS 2 message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    /// The index of the session.
    pub(crate) key: SessionKey,
    /// The number of the session in records.
    pub(crate) session: u64,
    pub(crate) id: PacketId,
}

/// The state of the record of the message that is being delivered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum RecordState {
    /// No message is being delivered.
    #[default]
    Idle,
    /// The broker collects the targets of the message, and writes the record when it has all.
    Collecting,
    /// The record of the message with all targets is written.
    Listed,
}

/// The recorded messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) last: u64,
    left: Numbered<StoredMessage>,
    pub(super) stage: RecordState,
    /// The number of the message that is being delivered.
    number: u64,
    pub(super) from: Option<Origin>,
    /// The copy that is being delivered, and how many shared subscriptions have got one so far.
    pub(super) copy: u16,
    pub(super) copies: u16,
    count: u32,
    /// The session to which the message was sent last, and its token there.
    pub(super) last_flight: Option<(SessionKey, Token)>,
    targets: Vec<u8>,
    /// Records that must follow the record of the message whose targets are being collected.
    later: Vec<u8>,
    /// Targets that already do not need that message any more.
    early: Vec<u64>,
    /// Memory for the packet of the message. Its content has no meaning.
    pub(super) packet: Vec<u8>,
}

impl Journal {
    /// Returns the number for a new message.
    pub(super) fn number_message(&mut self) -> u64 {
        self.messages.last = self.messages.last.saturating_add(1);
        self.messages.last
    }

    /// Returns the name of the message that is being delivered, with its copy.
    pub(super) const fn current(&self) -> RecordName {
        match self.messages.stage {
            RecordState::Idle => RecordName::NONE,
            RecordState::Collecting | RecordState::Listed => {
                RecordName::new(self.messages.number, self.messages.copy)
            }
        }
    }

    pub(super) fn begin(&mut self, stage: RecordState, number: u64) {
        let messages = &mut self.messages;
        (messages.stage, messages.number) = (stage, number);
        (messages.copy, messages.copies) = (0, 0);
        (messages.count, messages.last_flight) = (0, None);
        messages.targets.clear();
    }

    pub(super) fn add_target(&mut self, target: &Target<'_>) {
        let messages = &mut self.messages;
        messages.count = messages.count.saturating_add(1);
        target.write(&mut |bytes| messages.targets.extend_from_slice(bytes));
    }

    pub(super) const fn has_targets(&self) -> bool {
        self.messages.count > 0
    }

    /// Writes the record of the message whose targets were collected, and the records that must follow it. `packet` is its packet
    /// in MQTT 5 at QoS 0, and `expires` a wall-clock time.
    pub(super) fn end(&mut self, packet: &[u8], qos: QoS, expires: u64) {
        let number = self.messages.number;
        let from = self.messages.from.take();
        if let Some(from) = from {
            // This record is valid only with the record of the message: after a crash both exist, or neither does.
            self.write(&Entry::Received {
                session: from.session,
                id: from.id,
                message: Some(number),
            });
        }
        self.write_message(packet, qos, expires);
        self.keep(number, self.messages.count, from);
        self.write_later();
    }

    /// Returns the flight of the message whose targets were collected, if the message ends with this flight: it was sent to its only
    /// target, which has not acknowledged it, and no packet identifier is recorded with it. Such a message need not be kept.
    pub(super) fn only_flight(&self) -> Option<(SessionKey, Token)> {
        let messages = &self.messages;
        let is_only = messages.count == 1 && messages.from.is_none() && messages.early.is_empty();
        messages.last_flight.filter(|_| is_only)
    }

    /// Ends a message as [`Self::end`] does, for one with an [`Self::only_flight`], which knows when the message ends.
    pub(super) fn end_of_flight(&mut self, packet: &[u8], qos: QoS, expires: u64) {
        self.write_message(packet, qos, expires);
        self.write_later();
    }

    fn write_message(&mut self, packet: &[u8], qos: QoS, expires: u64) {
        let messages = &mut self.messages;
        messages.stage = RecordState::Idle;
        let message = Recorded {
            expires,
            qos,
            targets: Targets::new(messages.count, &messages.targets),
            packet,
        };
        let entry = Entry::Message(messages.number, Some(message));
        let len = append(&mut self.records, &entry);
        self.written = self.written.saturating_add(len);
        messages.targets.shrink_to(KEPT);
    }

    /// Notes that a message is in the store for this many targets.
    pub(super) fn keep(&mut self, number: u64, targets: u32, from: Option<Origin>) {
        let left = StoredMessage {
            targets,
            from,
            done: Vec::new(),
        };
        self.messages.left.insert(number, left);
    }

    /// Ends a message that no session with records gets.
    pub(super) fn end_without_record(&mut self) {
        self.messages.stage = RecordState::Idle;
        self.write_later();
    }

    fn write_later(&mut self) {
        if self.messages.later.is_empty() {
            return;
        }
        let later = std::mem::take(&mut self.messages.later);
        self.written = self.written.saturating_add(to_u64(later.len()));
        self.records.extend_from_slice(&later);
    }

    /// Writes a record about the delivery of a message at its place in the order of records.
    pub(super) fn write_flow(&mut self, message: u64, session: u64, flow: Option<Flow<'_>>) {
        let entry = Entry::Flow {
            message,
            session,
            flow,
        };
        if self.messages.stage != RecordState::Collecting {
            return self.write(&entry);
        }
        let later = &mut self.messages.later;
        append(later, &entry);
    }

    pub(super) fn is_kept(&self, message: u64) -> bool {
        self.messages.left.contains(message)
    }

    /// Adds a target to a recorded message.
    pub(super) fn one_more(&mut self, message: u64) {
        if let Some(left) = self.messages.left.get_mut(message) {
            left.targets = left.targets.saturating_add(1);
        }
    }

    /// Notes that a target does not need a message any more. `has_flow`: its delivery may have a record. If it was the last
    /// target, returns the origin of the message and the records to delete with it: the caller deletes the message.
    pub(super) fn done(&mut self, message: u64, session: u64, has_flow: bool) -> Option<Unneeded> {
        let messages = &mut self.messages;
        if messages.stage == RecordState::Collecting && messages.number == message {
            messages.early.push(session);
            return None;
        }
        let left = messages.left.get_mut(message)?;
        left.targets = left.targets.saturating_sub(1);
        if left.targets > 0 {
            left.done.push(session);
            self.write_flow(message, session, Some(Flow::Done));
            return None;
        }
        let left = messages.left.remove(message)?;
        let mut flows = left.done;
        if has_flow {
            flows.push(session);
        }
        Some(Unneeded {
            from: left.from,
            flows,
        })
    }

    /// Returns the targets that ceased to need a message before its record was written.
    pub(super) fn take_early(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.messages.early)
    }
}

/// The result when the last target does not need a message any more.
#[derive(Debug)]
pub(super) struct Unneeded {
    pub(super) from: Option<Origin>,
    /// Targets whose deliveries have records. These are deleted after the message; otherwise the message would be delivered to
    /// them again.
    pub(super) flows: Vec<u64>,
}

/// How many bytes of memory for targets and for a packet stay allocated.
pub(super) const KEPT: usize = 64 << 10;
