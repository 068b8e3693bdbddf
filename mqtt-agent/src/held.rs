//! Holds the QoS 1 and 2 messages that are not acknowledged. A message has one entry, even if it matches several subscriptions.

use alloc::vec::Vec;

use mqtt_proto::{Message, ReasonCode};
use mqtt_session::Receipt;

/// Names a message at QoS 1 or 2 that the agent holds until the program is done with it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MessageId {
    index: u32,
    /// The number of the message. It differs when an entry is used for another message.
    pub(crate) number: u64,
}

/// A QoS 1 or 2 message that is not acknowledged.
#[derive(Debug)]
pub(crate) struct HeldMessage {
    pub(crate) message: Message,
    /// The name of the message in the session; `None` if the connection that brought the message (QoS 1) or the session has
    /// ended.
    pub(crate) receipt: Option<Receipt>,
    /// How many inboxes are not done with the message, plus one if the program is to acknowledge it by hand.
    pub(crate) pending_receivers: u32,
    /// Whether the program acknowledges it by hand.
    pub(crate) by_hand: bool,
    /// The reason code of the program's acknowledgement, if that could not be sent yet.
    pub(crate) reason: Option<ReasonCode>,
    /// Whether an inbox has given it out.
    pub(crate) is_given_out: bool,
    /// The note of the program that is stored with the acknowledgement.
    #[cfg(feature = "journal")]
    pub(crate) note: Option<crate::journal::PendingNote>,
    /// Whether the server may send the message again, on this connection or the next, because it is not acknowledged.
    pub(crate) may_return: bool,
    /// The number of the connection on which the message arrived last.
    pub(crate) since: u32,
}

impl HeldMessage {
    /// Returns how many inboxes are not done with the message.
    pub(crate) fn streams(&self) -> u32 {
        let by_hand = self.by_hand && self.reason.is_none();
        self.pending_receivers.saturating_sub(u32::from(by_hand))
    }

    /// Returns whether a stream that ends with the message in its inbox only forgets it: another inbox has it, or has given it out and
    /// the program will acknowledge it by hand.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.streams() > 1 || (self.by_hand && self.is_given_out && self.reason.is_none())
    }

    /// Returns the bytes that the message counts against the limit.
    pub(crate) fn len(&self) -> usize {
        size(&self.message)
    }
}

/// Returns the bytes that a message counts: its content and the overhead of storing it.
pub(crate) fn size(message: &Message) -> usize {
    message
        .payload
        .len()
        .saturating_add(message.topic().as_bytes().len())
        .saturating_add(OVERHEAD)
}

/// Approximately the bytes of an entry and of a message's allocation.
const OVERHEAD: usize = 128;

/// All held messages.
#[derive(Debug, Default)]
pub(crate) struct HeldMessages {
    entries: Vec<Option<(u64, HeldMessage)>>,
    free: Vec<u32>,
    /// The bytes of messages that the program is not done with.
    pub(crate) bytes: usize,
}

impl HeldMessages {
    pub(crate) fn insert(&mut self, number: u64, held: HeldMessage) -> MessageId {
        self.bytes = self.bytes.saturating_add(held.len());
        let entry = Some((number, held));
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.entries.push(None);
                u32::try_from(self.entries.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.place(index) {
            *place = entry;
        }
        MessageId { index, number }
    }

    fn place(&mut self, index: u32) -> Option<&mut Option<(u64, HeldMessage)>> {
        self.entries.get_mut(usize::try_from(index).ok()?)
    }

    pub(crate) fn get(&self, id: MessageId) -> Option<&HeldMessage> {
        match self.entries.get(usize::try_from(id.index).ok()?)? {
            Some((number, held)) if *number == id.number => Some(held),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: MessageId) -> Option<&mut HeldMessage> {
        match self.place(id.index)? {
            Some((number, held)) if *number == id.number => Some(held),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, id: MessageId) -> Option<HeldMessage> {
        let place = self.place(id.index)?;
        let (_, held) = place.take_if(|(number, _)| *number == id.number)?;
        self.free.push(id.index);
        if held.pending_receivers > 0 {
            self.bytes = self.bytes.saturating_sub(held.len());
        }
        if self.free.len() == self.entries.len() {
            self.entries = Vec::new();
            self.free = Vec::new();
        }
        Some(held)
    }

    /// Notes that one inbox is done with a message. Returns whether that was the last one.
    pub(crate) fn done(&mut self, id: MessageId) -> bool {
        let Some(held) = self.get_mut(id) else {
            return false;
        };
        if held.pending_receivers == 0 {
            return false;
        }
        held.pending_receivers = held.pending_receivers.saturating_sub(1);
        let (last, len) = (held.pending_receivers == 0, held.len());
        if last {
            self.bytes = self.bytes.saturating_sub(len);
        }
        last
    }

    pub(crate) fn ids(&self) -> Vec<MessageId> {
        let named = |(index, entry): (usize, &Option<(u64, HeldMessage)>)| {
            Some(MessageId {
                index: u32::try_from(index).ok()?,
                number: entry.as_ref()?.0,
            })
        };
        self.entries.iter().enumerate().filter_map(named).collect()
    }
}
