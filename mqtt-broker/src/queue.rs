//! What waits for a client: it is away, or reads too slowly for its window and its buffer.
//!
//! When a queue is full, QoS 0 gives way first, the oldest before the newer; then the message that came is dropped. Both
//! are counted. A queue is full at its own limits, in messages and in bytes. When all queues together reach their limit,
//! only those are full that hold more than their share of it: who leaves much waiting cannot make others lose messages.

use std::collections::VecDeque;

use mqtt_session::proto::QoS;

use crate::config::Config;
use crate::message::Message;
use crate::router::Share;

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) message: Message,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Subscription identifiers (5).
    pub(crate) identifiers: Identifiers,
    /// The shared subscription it was chosen for, if it was: another member may get it instead.
    pub(crate) share: Option<Share>,
}

/// The subscription identifiers of one delivery: mostly none or one.
#[derive(Clone, Debug, Default)]
pub(crate) enum Identifiers {
    #[default]
    None,
    One(u32),
    Many(Box<[u32]>),
}

impl Identifiers {
    pub(crate) fn new(identifiers: &[u32]) -> Self {
        match identifiers {
            [] => Self::None,
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// All queues together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    pub(crate) messages: u64,
    pub(crate) bytes: usize,
}

/// What became of a message that was to be queued.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    /// Messages dropped, this one or older ones.
    pub(crate) dropped: u64,
    pub(crate) accepted: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: VecDeque<Queued>,
    bytes: usize,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn front(&self) -> Option<&Queued> {
        self.items.front()
    }

    /// Adds at the end, or drops as the module says. `share` is what this queue may hold of the total.
    pub(crate) fn push(
        &mut self,
        item: Queued,
        config: &Config,
        share: usize,
        total: &mut Total,
    ) -> Pushed {
        let mut pushed = Pushed::default();
        let size = item.message.size();
        loop {
            let bytes = self.bytes.saturating_add(size);
            let over_all = total.bytes.saturating_add(size) > config.queued_bytes_total;
            let full = self.items.len() >= config.queued_messages
                || bytes > config.queued_bytes
                || (over_all && bytes > share);
            if !full {
                break;
            }
            // 0 is dropped for 1 and 2, and for nothing else.
            if item.qos == QoS::AtMostOnce || !self.drop_oldest_qos0(total) {
                pushed.dropped = pushed.dropped.saturating_add(1);
                return pushed;
            }
            pushed.dropped = pushed.dropped.saturating_add(1);
        }
        self.bytes = self.bytes.saturating_add(size);
        total.add(size);
        self.items.push_back(item);
        pushed.accepted = true;
        pushed
    }

    fn drop_oldest_qos0(&mut self, total: &mut Total) -> bool {
        let oldest = self
            .items
            .iter()
            .position(|item| item.qos == QoS::AtMostOnce);
        match oldest.and_then(|index| self.items.remove(index)) {
            Some(item) => {
                self.forget(&item, total);
                true
            }
            None => false,
        }
    }

    pub(crate) fn pop(&mut self, total: &mut Total) -> Option<Queued> {
        let item = self.items.pop_front()?;
        self.forget(&item, total);
        if self.items.is_empty() {
            self.items = VecDeque::new();
        }
        Some(item)
    }

    /// Takes out what was chosen for a shared subscription.
    pub(crate) fn take_shared(&mut self, total: &mut Total) -> Vec<Queued> {
        if self.items.iter().all(|item| item.share.is_none()) {
            return Vec::new();
        }
        let (shared, own): (Vec<_>, Vec<_>) = std::mem::take(&mut self.items)
            .into_iter()
            .partition(|item| item.share.is_some());
        self.items = own.into();
        for item in &shared {
            self.forget(item, total);
        }
        shared
    }

    pub(crate) fn clear(&mut self, total: &mut Total) {
        while self.pop(total).is_some() {}
    }

    fn forget(&mut self, item: &Queued, total: &mut Total) {
        let size = item.message.size();
        self.bytes = self.bytes.saturating_sub(size);
        total.remove(size);
    }
}

impl Total {
    const fn add(&mut self, size: usize) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size);
    }

    const fn remove(&mut self, size: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
    }
}
