//! The messages that wait for one stream of the program.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Deref;

use mqtt_proto::Message;

use crate::held::{HeldMessages, MessageId, size};
use crate::options::{Options, QoS0Overflow};

/// A message as the program gets it. It dereferences to the [`Message`].
#[derive(Clone, Debug)]
pub struct Received {
    pub(crate) message: Message,
    pub(crate) id: Option<MessageId>,
}

impl Received {
    /// What [`crate::Agent::taken`] and [`crate::Agent::acknowledge`] want; `None` at QoS 0, and where it is acknowledged
    /// already.
    #[must_use]
    pub const fn id(&self) -> Option<MessageId> {
        self.id
    }

    /// The message on its own.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for Received {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// A message at QoS 1 or 2 that waits.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// It was acknowledged on receipt.
    Acknowledged(Message),
    /// It awaits its acknowledgement.
    Held(MessageId),
}

/// How a message waits.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    /// At QoS 0.
    Fleeting(Message),
    /// At QoS 1 or 2.
    Kept(Entry),
}

impl Entry {
    pub(crate) const fn id(&self) -> Option<MessageId> {
        match self {
            Self::Held(id) => Some(*id),
            Self::Acknowledged(_) => None,
        }
    }
}

/// See the module. Messages are numbered in the order of their arrival; those at QoS 0 have a queue of their own, so that
/// the oldest of them can give way without a search.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    fleeting: VecDeque<(u64, Message)>,
    fleeting_bytes: usize,
    kept: VecDeque<(u64, Entry)>,
    /// Bytes of messages that were acknowledged on receipt.
    acknowledged_bytes: usize,
    /// Given out, and the program is not done with them. One at most for a stream that is read by one task.
    pub(crate) in_hand: Vec<MessageId>,
    /// Messages at QoS 0 that were dropped since the queue was full.
    pub(crate) dropped: u64,
    /// Somebody asked for a message and there was none.
    pub(crate) wanted: bool,
    /// Somebody asked for a message and has not given up since.
    pub(crate) is_read: bool,
}

/// What [`Inbox::pop`] gives out.
#[derive(Debug)]
pub(crate) enum Popped {
    /// The message is the program's.
    Message(Message),
    /// The message is held until it is acknowledged.
    Held(MessageId),
}

impl Inbox {
    /// Adds a message.
    pub(crate) fn put(
        &mut self,
        number: u64,
        waiting: Waiting,
        options: &Options,
        overflow: QoS0Overflow,
    ) {
        match waiting {
            Waiting::Fleeting(message) => self.push_fleeting(number, message, options, overflow),
            Waiting::Kept(entry) => self.push(number, entry),
        }
    }

    /// Adds a message at QoS 0, as far as `overflow` lets it.
    fn push_fleeting(
        &mut self,
        number: u64,
        message: Message,
        options: &Options,
        overflow: QoS0Overflow,
    ) {
        let len = size(&message);
        match overflow {
            QoS0Overflow::DropNewest if !self.has_room(len, options) => {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            QoS0Overflow::DropOldest => {
                while !self.has_room(len, options) {
                    self.pop_fleeting();
                    self.dropped = self.dropped.saturating_add(1);
                }
            }
            // Reading stops with the message that fills the queue.
            QoS0Overflow::DropNewest | QoS0Overflow::PauseReading => {}
        }
        self.fleeting_bytes = self.fleeting_bytes.saturating_add(len);
        self.fleeting.push_back((number, message));
    }

    /// Adds a message at QoS 1 or 2.
    fn push(&mut self, number: u64, entry: Entry) {
        if let Entry::Acknowledged(message) = &entry {
            self.acknowledged_bytes = self.acknowledged_bytes.saturating_add(size(message));
        }
        self.kept.push_back((number, entry));
    }

    /// An empty queue takes any message.
    fn has_room(&self, len: usize, options: &Options) -> bool {
        self.fleeting.is_empty()
            || (self.fleeting.len() < options.qos0_queue
                && self.fleeting_bytes.saturating_add(len) <= options.qos0_queue_bytes)
    }

    fn pop_fleeting(&mut self) -> Option<Message> {
        let (_, message) = self.fleeting.pop_front()?;
        self.fleeting_bytes = self.fleeting_bytes.saturating_sub(size(&message));
        Some(message)
    }

    /// The next message, in the order of arrival.
    pub(crate) fn pop(&mut self) -> Option<Popped> {
        let kept = self.kept.front().map_or(u64::MAX, |(number, _)| *number);
        if self
            .fleeting
            .front()
            .is_some_and(|(number, _)| *number < kept)
        {
            return self.pop_fleeting().map(Popped::Message);
        }
        let (_, entry) = self.kept.pop_front()?;
        Some(match entry {
            Entry::Acknowledged(message) => {
                self.acknowledged_bytes = self.acknowledged_bytes.saturating_sub(size(&message));
                Popped::Message(message)
            }
            Entry::Held(id) => Popped::Held(id),
        })
    }

    /// Whether the message at QoS 1 or 2 with this number waits here.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.kept
            .binary_search_by_key(&number, |(number, _)| *number)
            .is_ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fleeting.is_empty() && self.kept.is_empty()
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.fleeting.len().saturating_add(self.kept.len())
    }

    pub(crate) const fn acknowledged_bytes(&self) -> usize {
        self.acknowledged_bytes
    }

    /// Whether its messages at QoS 0 fill it.
    pub(crate) fn is_full(&self, options: &Options) -> bool {
        self.fleeting.len() >= options.qos0_queue.max(1)
            || self.fleeting_bytes >= options.qos0_queue_bytes
    }

    /// Moves the messages that `belongs` chooses to `other`, in their order.
    pub(crate) fn move_to(
        &mut self,
        other: &mut Self,
        held: &HeldMessages,
        belongs: impl Fn(&Message) -> bool,
    ) {
        let chosen;
        (chosen, self.fleeting) = core::mem::take(&mut self.fleeting)
            .into_iter()
            .partition(|(_, message)| belongs(message));
        other.fleeting = chosen;
        let chosen;
        (chosen, self.kept) =
            core::mem::take(&mut self.kept)
                .into_iter()
                .partition(|(_, entry)| match entry {
                    Entry::Acknowledged(message) => belongs(message),
                    Entry::Held(id) => held.get(*id).is_some_and(|held| belongs(&held.message)),
                });
        other.kept = chosen;
        self.count();
        other.count();
    }

    fn count(&mut self) {
        let sum = |sum: usize, len: usize| sum.saturating_add(len);
        self.fleeting_bytes = self.fleeting.iter().map(|(_, m)| size(m)).fold(0, sum);
        let acknowledged = |(_, entry): &(u64, Entry)| match entry {
            Entry::Acknowledged(message) => size(message),
            Entry::Held(_) => 0,
        };
        self.acknowledged_bytes = self.kept.iter().map(acknowledged).fold(0, sum);
    }

    /// Puts messages at QoS 1 and 2 back in the order of their arrival.
    pub(crate) fn put_back(&mut self, entries: impl IntoIterator<Item = (u64, Entry)>) {
        self.kept.extend(entries);
        self.kept
            .make_contiguous()
            .sort_by_key(|(number, _)| *number);
        self.count();
    }

    /// Gives up its messages at QoS 1 and 2.
    pub(crate) fn take_kept(&mut self) -> VecDeque<(u64, Entry)> {
        self.acknowledged_bytes = 0;
        core::mem::take(&mut self.kept)
    }
}
