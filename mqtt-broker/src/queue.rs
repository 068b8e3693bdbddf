//! Queues the messages of a client that is not connected, or that takes messages too slowly for its window and its buffer.
//!
//! A full queue drops its oldest QoS 0 message for a QoS 1 or 2 message, if it has one; otherwise it drops the message that came.
//! Both are counted. A queue is full at its own limits, in messages and in bytes. When all queues together reach their limit,
//! those with more than their share of it are full: a client with a long queue cannot make other clients lose messages.
//!
//! The queue of a connected client takes QoS 1 and 2 messages beyond its own limits, because their publishers wait until it is
//! shorter (`pressure.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use mqtt_session::Outgoing;
use mqtt_session::proto::{Publish, QoS};

use crate::config::Config;
use crate::level::Total;
use crate::message::Message;
use crate::router::Share;
use crate::stall::{Stall, Tried};
use crate::work::{Work, step};

/// A message in the queue of one client.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) message: Message,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Subscription identifiers (5).
    pub(crate) identifiers: Identifiers,
    /// The shared subscription for which the client was chosen, if there is one: another member may get the message instead.
    pub(crate) share: Option<Share>,
}

/// The subscription identifiers of one delivery: usually none or one.
#[derive(Clone, Debug, Default)]
pub(crate) enum Identifiers {
    #[default]
    None,
    One(u32),
    Many(Arc<[u32]>),
}

impl Queued {
    /// Returns the message as this client gets it; `publish` is its packet.
    pub(crate) const fn outgoing<'a>(&self, publish: &Publish<'a>) -> Outgoing<'a> {
        Outgoing {
            qos: self.qos,
            retain: self.retain,
            ..self.message.outgoing(publish)
        }
    }

    /// Returns whether its publisher gets an acknowledgement.
    pub(crate) fn is_firm(&self) -> bool {
        self.message.qos() > QoS::AtMostOnce
    }

    /// Returns the bytes that it counts in the limits.
    pub(crate) fn size(&self) -> usize {
        let identifiers = match &self.identifiers {
            Identifiers::None | Identifiers::One(_) => 0,
            Identifiers::Many(many) => many.len().saturating_mul(size_of::<u32>()),
        };
        self.message.size().saturating_add(identifiers)
    }
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

/// The limits that a queue applies to firm messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Room {
    /// The configured limits.
    #[default]
    Own,
    /// A few times the configured limits.
    Limited,
    /// No limits: the publishers wait.
    Any,
}

/// The limits of one queue.
pub(crate) struct Limits<'a> {
    pub(crate) config: &'a Config,
    /// The share of this queue in the total, which applies when the total is used up.
    pub(crate) share: usize,
    pub(crate) room: Room,
}

/// The amount of firm messages in a queue, and its limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fullness {
    messages: (usize, usize),
    bytes: (usize, usize),
}

impl Fullness {
    /// Returns whether it is more than half full.
    pub(crate) const fn is_high(&self) -> bool {
        let (messages, most) = self.messages;
        let (bytes, most_bytes) = self.bytes;
        messages > most / 2 || bytes > most_bytes / 2
    }

    /// Returns whether it is full or fuller.
    pub(crate) const fn is_full(&self) -> bool {
        let (messages, most) = self.messages;
        let (bytes, most_bytes) = self.bytes;
        messages >= most || bytes >= most_bytes
    }

    /// Returns whether it is a little less than half full, so that released publishers do not have to wait again at once.
    pub(crate) const fn is_low(&self) -> bool {
        let (messages, most) = self.messages;
        let (bytes, most_bytes) = self.bytes;
        messages <= low(most) && bytes <= low(most_bytes)
    }

    /// Returns a number to compare it with other queues: the larger fraction of its limits in 256ths.
    pub(crate) fn level(&self) -> usize {
        let part = |(has, most): (usize, usize)| {
            has.saturating_mul(256)
                .checked_div(most)
                .unwrap_or(usize::MAX)
        };
        part(self.messages).max(part(self.bytes))
    }
}

const fn low(most: usize) -> usize {
    (most / 2).saturating_sub(most / 32)
}

/// The result of adding a message to a queue.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    /// How many messages were dropped: this one or older ones.
    pub(crate) dropped: u64,
    pub(crate) accepted: bool,
}

/// A message, and how many were queued before it.
type NumberedMessage = (u64, Queued);

/// Two queues, so that the oldest QoS 0 message is found without a search. The numbers keep the order of both.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Messages that were published at QoS 0.
    qos0: VecDeque<NumberedMessage>,
    others: VecDeque<NumberedMessage>,
}

impl Lanes {
    fn len(&self) -> usize {
        self.qos0.len().saturating_add(self.others.len())
    }

    /// Returns the queue with the first message, and the number of that message.
    fn first(&self) -> Option<(u64, &VecDeque<NumberedMessage>)> {
        let number = |lane: &VecDeque<NumberedMessage>| lane.front().map(|(number, _)| *number);
        let qos0 = number(&self.qos0).map(|number| (number, &self.qos0));
        let others = number(&self.others).map(|number| (number, &self.others));
        match (qos0, others) {
            (Some(qos0), Some(others)) if others.0 < qos0.0 => Some(others),
            (qos0, others) => qos0.or(others),
        }
    }

    fn first_number(&self) -> u64 {
        self.first().map_or(u64::MAX, |(number, _)| number)
    }

    fn first_of_qos0(&self) -> u64 {
        self.qos0.front().map_or(u64::MAX, |(number, _)| *number)
    }

    fn lane(&mut self, is_firm: bool) -> &mut VecDeque<NumberedMessage> {
        if is_firm {
            &mut self.others
        } else {
            &mut self.qos0
        }
    }

    fn push(&mut self, number: u64, item: Queued) {
        self.lane(item.is_firm()).push_back((number, item));
    }

    fn pop_of(&mut self, is_firm: bool) -> Option<Queued> {
        step(Work::Queue);
        let items = self.lane(is_firm);
        let (_, item) = items.pop_front()?;
        if items.is_empty() {
            *items = VecDeque::new();
        }
        Some(item)
    }

    /// Removes and returns the first message.
    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let (_, lane) = self.first()?;
        let is_firm = lane.front().map(|(_, item)| item.is_firm())?;
        self.pop_of(is_firm)
    }
}

impl FromIterator<Queued> for Lanes {
    fn from_iter<I: IntoIterator<Item = Queued>>(items: I) -> Self {
        let mut lanes = Self::default();
        for (number, item) in (0..).zip(items) {
            lanes.push(number, item);
        }
        lanes
    }
}

/// The messages that wait for one client.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    own: Lanes,
    /// Messages of shared subscriptions, separately, so that they can be given to other members without a search.
    shared: Option<Box<Lanes>>,
    next: u64,
    bytes: usize,
    /// The bytes of firm messages.
    firm_bytes: usize,
    shared_bytes: usize,
    shared_firm_bytes: usize,
    /// The state of the first message, if there was no room to send it.
    stall: Option<Stall>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |shared| shared.len());
        self.own.len().saturating_add(shared)
    }

    /// Returns how full it is of firm messages. `share` is as in [`Limits`].
    pub(crate) fn fullness(&self, config: &Config, share: usize, total: &Total) -> Fullness {
        let shared = self.shared.as_ref().map_or(0, |shared| shared.others.len());
        let scarce = total.bytes > config.queued_bytes_total / 2;
        let bytes = if scarce { share } else { usize::MAX };
        Fullness {
            messages: (
                self.own.others.len().saturating_add(shared),
                config.queued_messages,
            ),
            bytes: (self.firm_bytes, config.queued_bytes.min(bytes)),
        }
    }

    /// Returns whether a message of `size` bytes fits into `times` times the limits.
    pub(crate) fn has_room_times(&self, times: usize, size: usize, config: &Config) -> bool {
        let bytes = self.bytes.saturating_add(size);
        self.len() < config.queued_messages.saturating_mul(times)
            && bytes < config.queued_bytes.saturating_mul(times)
    }

    /// Returns the lanes that have the first of all messages.
    fn first(&self) -> &Lanes {
        match &self.shared {
            Some(shared) if shared.first_number() < self.own.first_number() => shared,
            _ => &self.own,
        }
    }

    pub(crate) fn front(&self) -> Option<&Queued> {
        let (_, lane) = self.first().first()?;
        lane.front().map(|(_, item)| item)
    }

    /// Notes that there was no room to send the first message.
    pub(crate) fn stalls(&mut self, tried: &Tried) {
        self.stall = Some(Stall::new(tried));
    }

    /// Returns whether there was no room for the first message, and no more room since.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stall.is_some_and(|stall| !stall.is_over())
    }

    /// Notes that the transport took `n` bytes.
    pub(crate) fn sent(&mut self, n: usize) {
        if let Some(stall) = &mut self.stall {
            stall.sent(n);
        }
    }

    /// Notes that the client acknowledged a message.
    pub(crate) fn acknowledged(&mut self) {
        if let Some(stall) = &mut self.stall {
            stall.acknowledged();
        }
    }

    /// Notes that the client has a new connection.
    pub(crate) fn connected(&mut self) {
        self.stall = None;
    }

    /// Adds a message at the end, or drops messages as the module describes.
    pub(crate) fn push(&mut self, item: Queued, limits: &Limits<'_>, total: &mut Total) -> Pushed {
        let mut pushed = Pushed::default();
        let (size, config) = (item.size(), limits.config);
        loop {
            let bytes = self.bytes.saturating_add(size);
            let over_all = total.bytes.saturating_add(size) > config.queued_bytes_total;
            let full = self.len() >= config.queued_messages || bytes > config.queued_bytes;
            let beyond_share = over_all && bytes > limits.share;
            if !full && !beyond_share {
                break;
            }
            // A QoS 0 message is dropped for a QoS 1 or 2 message, and for no other one.
            if !item.is_firm() || !self.drop_oldest_qos0(total) {
                if limits.room != Room::Own && !beyond_share {
                    break;
                }
                pushed.dropped = pushed.dropped.saturating_add(1);
                return pushed;
            }
            pushed.dropped = pushed.dropped.saturating_add(1);
        }
        let firm = if item.is_firm() { size } else { 0 };
        self.firm_bytes = self.firm_bytes.saturating_add(firm);
        self.resize(self.bytes.saturating_add(size), total);
        total.add(size);
        let lanes = if item.share.is_some() {
            self.shared_bytes = self.shared_bytes.saturating_add(size);
            self.shared_firm_bytes = self.shared_firm_bytes.saturating_add(firm);
            self.shared.get_or_insert_default()
        } else {
            &mut self.own
        };
        lanes.push(self.next, item);
        self.next = self.next.wrapping_add(1);
        pushed.accepted = true;
        pushed
    }

    fn drop_oldest_qos0(&mut self, total: &mut Total) -> bool {
        let first = self.front().map(Queued::is_firm);
        let lanes = match &mut self.shared {
            Some(shared) if shared.first_of_qos0() < self.own.first_of_qos0() => shared,
            _ => &mut self.own,
        };
        let Some(item) = lanes.pop_of(false) else {
            return false;
        };
        if first == Some(false) {
            self.stall = None;
        }
        self.forget(&item, total);
        true
    }

    pub(crate) fn pop(&mut self, total: &mut Total) -> Option<Queued> {
        self.stall = None;
        let is_shared = self
            .shared
            .as_ref()
            .is_some_and(|shared| shared.first_number() < self.own.first_number());
        let item = match &mut self.shared {
            Some(shared) if is_shared => shared.pop()?,
            _ => self.own.pop()?,
        };
        self.forget(&item, total);
        Some(item)
    }

    /// Removes and returns the messages of shared subscriptions, to be given to other members. They count in the total until
    /// then.
    pub(crate) fn take_shared(&mut self, total: &mut Total) -> Option<Lanes> {
        let shared = self.shared.take()?;
        self.stall = None;
        self.resize(self.bytes.saturating_sub(self.shared_bytes), total);
        self.shared_bytes = 0;
        self.firm_bytes = self.firm_bytes.saturating_sub(self.shared_firm_bytes);
        self.shared_firm_bytes = 0;
        Some(*shared)
    }

    fn resize(&mut self, bytes: usize, total: &mut Total) {
        total.levels.moves(self.bytes, bytes);
        self.bytes = bytes;
    }

    fn forget(&mut self, item: &Queued, total: &mut Total) {
        let size = item.size();
        let firm = if item.is_firm() { size } else { 0 };
        self.resize(self.bytes.saturating_sub(size), total);
        self.firm_bytes = self.firm_bytes.saturating_sub(firm);
        total.remove(size);
        if item.share.is_some() {
            self.shared_firm_bytes = self.shared_firm_bytes.saturating_sub(firm);
            self.shared_bytes = self.shared_bytes.saturating_sub(size);
            self.shared.take_if(|shared| shared.len() == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt_session::proto::TopicName;
    use mqtt_session::{Instant, Outgoing};

    use super::*;
    use crate::work::steps;

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

    fn limits(config: &Config, share: usize) -> Limits<'_> {
        Limits {
            config,
            share,
            room: Room::Own,
        }
    }

    fn payloads(queue: &Queue) -> Vec<String> {
        let text = |item: &Queued| String::from_utf8_lossy(item.message.publish().payload).into();
        let own = queue.own.qos0.iter().chain(&queue.own.others);
        let shared = queue.shared.iter();
        let shared = shared.flat_map(|lanes| lanes.qos0.iter().chain(&lanes.others));
        let mut items: Vec<_> = own.chain(shared).collect();
        items.sort_by_key(|(number, _)| *number);
        items.into_iter().map(|(_, item)| text(item)).collect()
    }

    const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

    /// The messages 0 to 7, published at QoS 0, 1, 0, 2, 0, 1, 1, 1, are added to a queue of three.
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
            dropped += queue
                .push(item, &limits(&config, usize::MAX), &mut total)
                .dropped;
            if n == 4 {
                assert_eq!(payloads(&queue), ["1", "2", "3"], "0 is not dropped for 0");
            }
        }
        // 3 replaces 0, 4 finds no room, 5 replaces 2, 6 finds no room.
        assert_eq!(payloads(&queue), ["1", "3", "5"]);
        assert_eq!((dropped, total.messages), (4, 3));
        while queue.pop(&mut total).is_some() {}
        assert_eq!((total.messages, total.bytes), (0, 0));
    }

    /// Adding a message to a full queue takes the same number of steps for any content.
    #[test]
    fn a_full_queue_is_not_searched() {
        const MANY: usize = 10_000;
        let config = Config {
            queued_messages: MANY,
            ..Config::default()
        };
        let one = item(QoS::AtLeastOnce, "x");
        // The only QoS 0 message is the last one, or there is none.
        for last in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let (mut queue, mut total) = (Queue::default(), Total::default());
            for n in 1..=MANY {
                let qos = if n == MANY { last } else { one.qos };
                queue.push(item(qos, "x"), &limits(&config, usize::MAX), &mut total);
            }
            let push = || queue.push(one.clone(), &limits(&config, usize::MAX), &mut total);
            let (taken, pushed) = steps(Work::Queue, push);
            assert_eq!(pushed.dropped, 1);
            assert_eq!(pushed.accepted, last == QoS::AtMostOnce);
            assert!(taken <= 2, "{taken} steps");
            assert_eq!(total.messages, 10_000);
        }
    }

    #[test]
    fn messages_go_in_the_order_in_which_they_came() {
        let (mut queue, mut total) = (Queue::default(), Total::default());
        for (n, qos) in [0, 1, 1, 0, 2, 0].into_iter().enumerate() {
            let item = item(ALL[qos], &n.to_string());
            queue.push(item, &limits(&Config::default(), usize::MAX), &mut total);
        }
        for n in 0..6 {
            let first = queue.front().unwrap().message.publish().payload.to_vec();
            assert_eq!(first, n.to_string().as_bytes());
            let popped = queue.pop(&mut total).unwrap();
            assert_eq!(popped.message.publish().payload, first);
        }
        assert!(queue.is_empty() && queue.front().is_none());
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
            let pushed = queue.push(long.clone(), &limits(&config, usize::MAX), &mut total);
            accepted += usize::from(pushed.accepted);
        }
        assert_eq!(accepted, 2);
        assert_eq!(total.bytes, config.queued_bytes);
    }

    /// A client with a long queue takes no room from a client with a short one.
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
            let pushed = queue.push(message.clone(), &limits(&config, share), &mut total);
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
        let member = crate::router::Subscriber::new(crate::keys::Key::new(0), &subscription, None);
        router.subscribe(&filter, member, false);
        let mut matches = crate::router::Matches::default();
        router.matches("a", &mut matches, usize::MAX);
        let group = matches.groups[0];
        let share = router.group_mut(group).map(|own| own.share(group));
        let mut queue = Queue::default();
        for n in 0..6 {
            let mut item = item(ALL[usize::from(n == 2)], &n.to_string());
            item.share = share.filter(|_| n % 2 == 0);
            queue.push(item, &limits(&config, usize::MAX), &mut total);
        }
        assert_eq!(payloads(&queue), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(queue.pop(&mut total).unwrap().share, share);
        // The messages come in their order, whatever their QoS.
        let mut taken = queue.take_shared(&mut total).unwrap();
        let left: Vec<_> = std::iter::from_fn(|| taken.pop()).collect();
        let texts = left.iter().map(|item| item.message.publish().payload);
        assert!(texts.eq([b"2", b"4"]));
        assert_eq!(payloads(&queue), ["1", "3", "5"]);
        // The messages count until other members have them.
        assert_eq!((total.messages, queue.shared_bytes), (5, 0));
        assert_eq!(queue.bytes, 3 * left[0].size());
    }
}
