//! Which messages are in the store, and how long each is needed: until the last of its targets is done with it.

use std::collections::BTreeMap;

use mqtt_session::proto::PacketId;
use mqtt_session::records::broker::{Entry, Flow, Message as Recorded, Target, Targets};

use super::{Journal, Record, append};
use crate::message::Message;

/// A message that is recorded.
#[derive(Debug)]
struct Left {
    /// How many sessions are not done with it.
    targets: u32,
    /// From which session it came, and its identifier there.
    from: Option<Origin>,
    /// The sessions that are done with it, for each of which there is a record.
    done: Vec<u64>,
}

/// Where a QoS 2 message came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    /// The place of the session.
    pub(crate) key: u32,
    /// Its number in records.
    pub(crate) session: u64,
    pub(crate) id: PacketId,
}

/// What is known of the message that is being delivered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Stage {
    /// None is routed.
    #[default]
    Idle,
    /// Its targets are collected; its record follows.
    Collecting,
    /// Its record is written, with all targets.
    Listed,
}

/// The recorded messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) last: u64,
    left: BTreeMap<u64, Left>,
    pub(super) stage: Stage,
    /// Of the message that is being delivered.
    number: u64,
    pub(super) from: Option<Origin>,
    /// Which copy of it is delivered, and how many shared subscriptions got one so far.
    pub(super) copy: u16,
    pub(super) copies: u16,
    count: u32,
    targets: Vec<u8>,
    /// Records that belong behind that of the message whose targets are collected.
    later: Vec<u8>,
    /// Sessions that are done with that message already.
    early: Vec<u64>,
}

impl Journal {
    /// The number of a new message.
    pub(super) fn number_message(&mut self) -> u64 {
        self.messages.last = self.messages.last.saturating_add(1);
        self.messages.last
    }

    /// What names the message that is being delivered, and its copy.
    pub(super) const fn current(&self) -> Record {
        match self.messages.stage {
            Stage::Idle => Record::NONE,
            Stage::Collecting | Stage::Listed => {
                Record::new(self.messages.number, self.messages.copy)
            }
        }
    }

    pub(super) fn begin(&mut self, stage: Stage, number: u64) {
        let messages = &mut self.messages;
        (messages.stage, messages.number) = (stage, number);
        (messages.copy, messages.copies) = (0, 0);
        messages.count = 0;
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

    /// Writes the record of the message whose targets were collected, and what belongs behind it. `expires` is told by the clock on
    /// the wall.
    pub(super) fn end(&mut self, message: &Message, expires: u64) {
        let number = self.messages.number;
        let from = self.messages.from.take();
        self.messages.stage = Stage::Idle;
        if let Some(from) = from {
            // Without the record of the message it counts for nothing: both are there, or none.
            self.write(&Entry::Received {
                session: from.session,
                id: from.id,
                message: Some(number),
            });
        }
        let (count, targets) = (
            self.messages.count,
            std::mem::take(&mut self.messages.targets),
        );
        self.write(&Entry::Message(
            number,
            Some(Recorded {
                expires,
                qos: message.qos(),
                targets: Targets::new(count, &targets),
                packet: message.packet(),
            }),
        ));
        self.messages.targets = targets;
        self.messages.targets.shrink_to(KEPT);
        self.keep(number, count, from);
        self.write_later();
    }

    /// A message is in the store, for so many sessions.
    pub(super) fn keep(&mut self, number: u64, targets: u32, from: Option<Origin>) {
        let left = Left {
            targets,
            from,
            done: Vec::new(),
        };
        self.messages.left.insert(number, left);
    }

    /// No session that outlives its connection gets the message.
    pub(super) fn end_without_record(&mut self) {
        self.messages.stage = Stage::Idle;
        self.write_later();
    }

    fn write_later(&mut self) {
        let later = std::mem::take(&mut self.messages.later);
        self.written = self
            .written
            .saturating_add(crate::broker::widen(later.len()));
        self.records.extend_from_slice(&later);
    }

    /// A record about a message on its way, in its place.
    pub(super) fn write_flow(&mut self, message: u64, session: u64, flow: Option<Flow<'_>>) {
        let entry = Entry::Flow {
            message,
            session,
            flow,
        };
        if self.messages.stage != Stage::Collecting {
            return self.write(&entry);
        }
        let later = &mut self.messages.later;
        append(later, entry.encoded_len(), |room| entry.write(room));
    }

    pub(super) fn is_kept(&self, message: u64) -> bool {
        self.messages.left.contains_key(&message)
    }

    /// One more session is to get a message that is recorded.
    pub(super) fn one_more(&mut self, message: u64) {
        if let Some(left) = self.messages.left.get_mut(&message) {
            left.targets = left.targets.saturating_add(1);
        }
    }

    /// A session is done with a message. `has_flow`: there may be a record of how far it was. If it was the last session, returns
    /// where the message came from: the caller deletes the message.
    pub(super) fn done(&mut self, message: u64, session: u64, has_flow: bool) -> Option<Last> {
        let messages = &mut self.messages;
        if messages.stage == Stage::Collecting && messages.number == message {
            messages.early.push(session);
            return None;
        }
        let left = messages.left.get_mut(&message)?;
        left.targets = left.targets.saturating_sub(1);
        if left.targets > 0 {
            left.done.push(session);
            self.write_flow(message, session, Some(Flow::Done));
            return None;
        }
        let left = messages.left.remove(&message)?;
        let mut flows = left.done;
        if has_flow {
            flows.push(session);
        }
        Some(Last {
            from: left.from,
            flows,
        })
    }

    /// The sessions that were done with a message before its record was written.
    pub(super) fn take_early(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.messages.early)
    }
}

/// No session needs a message any more.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) from: Option<Origin>,
    /// Targets of which there are records: they are deleted after the message, or it would be on its way to them again.
    pub(super) flows: Vec<u64>,
}

/// Memory that stays for targets.
const KEPT: usize = 64 << 10;
