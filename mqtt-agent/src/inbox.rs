//! Holds the messages that wait for one stream of the program.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Deref;

use mqtt_proto::Message;

use crate::held::{HeldMessages, MessageId, size};
use crate::options::{Options, QoS0Overflow};

/// A received message as the program gets it. It dereferences to [`Message`].
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    pub(crate) message: Message,
    pub(crate) id: Option<MessageId>,
}

impl ReceivedMessage {
    /// Returns the identifier for [`crate::Agent::taken`] and [`crate::Agent::acknowledge`]; `None` at QoS 0, and for a message
    /// that is already acknowledged.
    #[must_use]
    pub const fn id(&self) -> Option<MessageId> {
        self.id
    }

    /// Returns the message without its identifier.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for ReceivedMessage {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// A waiting message at QoS 1 or 2.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// The message was acknowledged on arrival.
    Acknowledged(Message),
    /// The message awaits its acknowledgement.
    Held(MessageId),
}

/// An entry of an inbox.
#[derive(Clone, Debug)]
pub(crate) enum Queued {
    /// A message at QoS 0.
    Qos0(Message),
    /// A message at QoS 1 or 2.
    Qos12(Entry),
}

impl Entry {
    pub(crate) const fn id(&self) -> Option<MessageId> {
        match self {
            Self::Held(id) => Some(*id),
            Self::Acknowledged(_) => None,
        }
    }
}

/// The messages that wait for one stream, numbered in the order of their arrival. QoS 0 messages have a separate queue, so that
/// the oldest one can be dropped without a search.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    qos0: VecDeque<(u64, Message)>,
    qos0_bytes: usize,
    qos12: VecDeque<(u64, Entry)>,
    /// Bytes of messages that were acknowledged on arrival.
    acknowledged_bytes: usize,
    /// Messages that were given out and that the program is not done with. There is at most one if a single task reads the
    /// stream.
    pub(crate) in_hand: Vec<MessageId>,
    /// How many messages at QoS 0 were dropped since the queue became full.
    pub(crate) dropped: u64,
    /// Whether the program asked for a message when there was none.
    pub(crate) wanted: bool,
    /// Whether the program has asked for a message and has not dropped the stream since.
    pub(crate) is_read: bool,
}

/// The result of [`Inbox::pop`].
#[derive(Debug)]
pub(crate) enum Popped {
    /// A message that needs no acknowledgement.
    Message(Message),
    /// A message that is held until it is acknowledged.
    Held(MessageId),
}

impl Inbox {
    /// Adds a message. For a QoS 0 message, `overflow` decides whether it or an older message is dropped.
    pub(crate) fn put(
        &mut self,
        number: u64,
        waiting: Queued,
        options: &Options,
        overflow: QoS0Overflow,
    ) {
        match waiting {
            Queued::Qos0(message) => self.push_qos0(number, message, options, overflow),
            Queued::Qos12(entry) => self.push_qos12(number, entry),
        }
    }

    /// Adds a message at QoS 0 as far as `overflow` allows.
    fn push_qos0(
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
                    self.pop_qos0();
                    self.dropped = self.dropped.saturating_add(1);
                }
            }
            // Reading stops after the message that fills the queue.
            QoS0Overflow::DropNewest | QoS0Overflow::PauseReading => {}
        }
        self.qos0_bytes = self.qos0_bytes.saturating_add(len);
        self.qos0.push_back((number, message));
    }

    /// Adds a message at QoS 1 or 2.
    fn push_qos12(&mut self, number: u64, entry: Entry) {
        if let Entry::Acknowledged(message) = &entry {
            self.acknowledged_bytes = self.acknowledged_bytes.saturating_add(size(message));
        }
        self.qos12.push_back((number, entry));
    }

    /// Returns whether another message fits. An empty queue takes a message of any size.
    fn has_room(&self, len: usize, options: &Options) -> bool {
        self.qos0.is_empty()
            || (self.qos0.len() < options.qos0_queue
                && self.qos0_bytes.saturating_add(len) <= options.qos0_queue_bytes)
    }

    fn pop_qos0(&mut self) -> Option<Message> {
        let (_, message) = self.qos0.pop_front()?;
        self.qos0_bytes = self.qos0_bytes.saturating_sub(size(&message));
        Some(message)
    }

    /// Removes and returns the next message, in the order of arrival.
    pub(crate) fn pop(&mut self) -> Option<Popped> {
        if self.next_is_qos0() {
            return self.pop_qos0().map(Popped::Message);
        }
        let (_, entry) = self.qos12.pop_front()?;
        Some(match entry {
            Entry::Acknowledged(message) => {
                self.acknowledged_bytes = self.acknowledged_bytes.saturating_sub(size(&message));
                Popped::Message(message)
            }
            Entry::Held(id) => Popped::Held(id),
        })
    }

    /// Returns whether the next message has QoS 0.
    pub(crate) fn next_is_qos0(&self) -> bool {
        let next = self.qos12.front().map_or(u64::MAX, |(number, _)| *number);
        self.qos0.front().is_some_and(|(number, _)| *number < next)
    }

    /// Returns whether the message at QoS 1 or 2 with this number waits here.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.qos12
            .binary_search_by_key(&number, |(number, _)| *number)
            .is_ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.qos0.is_empty() && self.qos12.is_empty()
    }

    /// Returns how many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.qos0.len().saturating_add(self.qos12.len())
    }

    pub(crate) const fn acknowledged_bytes(&self) -> usize {
        self.acknowledged_bytes
    }

    /// Returns whether its QoS 0 messages fill it.
    pub(crate) fn is_full(&self, options: &Options) -> bool {
        self.qos0.len() >= options.qos0_queue.max(1) || self.qos0_bytes >= options.qos0_queue_bytes
    }

    /// Moves the messages that `belongs` selects to `other`, in their order.
    pub(crate) fn move_to(
        &mut self,
        other: &mut Self,
        held: &HeldMessages,
        belongs: impl Fn(&Message) -> bool,
    ) {
        let chosen;
        (chosen, self.qos0) = core::mem::take(&mut self.qos0)
            .into_iter()
            .partition(|(_, message)| belongs(message));
        other.qos0 = chosen;
        let chosen;
        (chosen, self.qos12) =
            core::mem::take(&mut self.qos12)
                .into_iter()
                .partition(|(_, entry)| match entry {
                    Entry::Acknowledged(message) => belongs(message),
                    Entry::Held(id) => held.get(*id).is_some_and(|held| belongs(&held.message)),
                });
        other.qos12 = chosen;
        self.count();
        other.count();
    }

    fn count(&mut self) {
        let sum = |sum: usize, len: usize| sum.saturating_add(len);
        self.qos0_bytes = self.qos0.iter().map(|(_, m)| size(m)).fold(0, sum);
        let acknowledged = |(_, entry): &(u64, Entry)| match entry {
            Entry::Acknowledged(message) => size(message),
            Entry::Held(_) => 0,
        };
        self.acknowledged_bytes = self.qos12.iter().map(acknowledged).fold(0, sum);
    }

    /// Puts messages at QoS 1 and 2 back, in the order of their arrival.
    pub(crate) fn put_back(&mut self, entries: impl IntoIterator<Item = (u64, Entry)>) {
        self.qos12.extend(entries);
        self.qos12
            .make_contiguous()
            .sort_by_key(|(number, _)| *number);
        self.count();
    }

    /// Removes and returns its messages at QoS 1 and 2.
    pub(crate) fn take_qos12(&mut self) -> VecDeque<(u64, Entry)> {
        self.acknowledged_bytes = 0;
        core::mem::take(&mut self.qos12)
    }
}
