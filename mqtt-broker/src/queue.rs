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

#[cfg(test)]
mod tests {
    use mqtt_session::proto::TopicName;
    use mqtt_session::{Instant, Outgoing};

    use super::*;

    fn item(qos: QoS, payload: &str) -> Queued {
        let topic = TopicName::new("a").unwrap();
        let message = Outgoing::new(topic, qos, payload.as_bytes());
        Queued {
            message: Message::new(&message, Instant::from_millis(0)).unwrap(),
            qos,
            retain: false,
            identifiers: Identifiers::None,
            share: None,
        }
    }

    fn payloads(queue: &Queue) -> Vec<String> {
        let text = |item: &Queued| String::from_utf8_lossy(item.message.publish().payload).into();
        queue.items.iter().map(text).collect()
    }

    const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

    /// What a policy does with messages of QoS 0, 1, 0, 2, 0, 1, 1, 1 in a queue of three.
    #[test]
    fn qos_0_gives_way_the_oldest_first_then_what_comes_is_dropped() {
        let config = Config {
            queued_messages: 3,
            ..Config::default()
        };
        let (mut queue, mut total) = (Queue::default(), Total::default());
        let mut dropped = 0;
        for (n, qos) in [0, 1, 0, 2, 0, 1, 1].into_iter().enumerate() {
            let item = item(ALL[qos], &n.to_string());
            dropped += queue.push(item, &config, usize::MAX, &mut total).dropped;
            if n == 4 {
                assert_eq!(payloads(&queue), ["1", "2", "3"], "0 is not dropped for 0");
            }
        }
        // 3 took the place of 0, 4 found none, 5 took that of 2, 6 found none.
        assert_eq!(payloads(&queue), ["1", "3", "5"]);
        assert_eq!((dropped, total.messages), (4, 3));
        queue.clear(&mut total);
        assert_eq!((total.messages, total.bytes), (0, 0));
    }

    #[test]
    fn bytes_are_limited_as_well() {
        let long = item(QoS::AtLeastOnce, &"x".repeat(500));
        let config = Config {
            queued_bytes: long.message.size() * 2,
            ..Config::default()
        };
        let (mut queue, mut total) = (Queue::default(), Total::default());
        let mut accepted = 0;
        for _ in 0..5 {
            let pushed = queue.push(long.clone(), &config, usize::MAX, &mut total);
            accepted += usize::from(pushed.accepted);
        }
        assert_eq!(accepted, 2);
        assert_eq!(total.bytes, config.queued_bytes);
    }

    /// One who leaves much waiting takes nothing from one who leaves little.
    #[test]
    fn beyond_the_total_each_has_its_share() {
        let message = item(QoS::AtLeastOnce, "x");
        let size = message.message.size();
        let config = Config {
            queued_bytes_total: size * 10,
            ..Config::default()
        };
        let share = size * 5;
        let mut total = Total::default();
        let (mut greedy, mut modest) = (Queue::default(), Queue::default());
        let mut push = |queue: &mut Queue| {
            let pushed = queue.push(message.clone(), &config, share, &mut total);
            pushed.accepted
        };
        assert_eq!((0..20).filter(|_| push(&mut greedy)).count(), 10);
        assert_eq!((0..20).filter(|_| push(&mut modest)).count(), 5);
        assert!(!push(&mut greedy));
    }

    #[test]
    fn what_is_shared_is_taken_out_alone() {
        let mut total = Total::default();
        let config = Config::default();
        let mut router = crate::router::Router::new(crate::router::Keyed(0));
        let filter = mqtt_session::proto::TopicFilter::new("$share/g/a").unwrap();
        let subscription = mqtt_session::proto::Subscription::new(filter, QoS::AtLeastOnce);
        let member = crate::router::Subscriber::new(0, &subscription, None);
        router.subscribe(&filter, member, false);
        let mut matches = crate::router::Matches::default();
        router.matches("a", &mut matches);
        let group = matches.groups[0];
        let share = router.group_mut(group).map(|own| own.share(group));
        let mut queue = Queue::default();
        for n in 0..6 {
            let mut item = item(QoS::AtLeastOnce, &n.to_string());
            item.share = share.filter(|_| n % 2 == 0);
            queue.push(item, &config, usize::MAX, &mut total);
        }
        let taken = queue.take_shared(&mut total);
        assert_eq!(taken.len(), 3);
        assert_eq!(payloads(&queue), ["1", "3", "5"]);
        assert_eq!(total.messages, 3);
    }
}
