//! Routes a message to its receivers. A message whose few receivers are found quickly is delivered at once. A message with many
//! receivers, or with a long search for them, is stored and delivered in portions, one such message after the other: only its
//! publisher waits. A message to the same topic waits until the one before it is delivered, so that all receivers get them in the
//! same order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use mqtt_session::proto::num::{to_u32, to_u64, to_usize};
use mqtt_session::proto::{ReasonCode, TopicName};
use mqtt_session::{Instant, Outgoing, Receipt};
use smallvec::SmallVec;

use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::hooks::Hooks;
use crate::journal::{MOST_COPIES, Origin, RecordName, steps_of};
use crate::keys::SessionKey;
use crate::message::Message;
use crate::pressure::{SessionName, Withheld};
use crate::router::{Keyed, Matches, Share, Subscriber};
use crate::routing_limits::RoutingLimits;
use crate::session::{RoutingMark, Session};
use crate::source::Source;

/// One receiver of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) subscriber: Subscriber,
    /// The serial number of its session.
    pub(crate) serial: u32,
    pub(crate) share: Option<Share>,
    /// The first and the last of its further subscription identifiers.
    more: Option<(u32, u32)>,
}

/// The receivers of one message.
#[derive(Debug, Default)]
struct Targets {
    list: Vec<Target>,
    /// The further subscription identifiers of all targets, each with the index of the next one of the same target.
    identifiers: Vec<(u32, Option<u32>)>,
    /// The number of the message.
    message: u32,
}

/// Memory for routing a message.
#[derive(Debug, Default)]
pub(crate) struct RoutingMemory {
    matches: Matches,
    targets: Targets,
}

/// The result of routing a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Routed {
    /// No subscription matches.
    ToNobody,
    /// All receivers have the message.
    ToAll,
    /// The message is delivered in portions: the next message of its publisher must wait.
    Later,
}

/// A message that is delivered in portions.
#[derive(Debug)]
struct Fanout {
    message: Message,
    topic: Arc<str>,
    /// The session that published it.
    from: Option<SessionName>,
    /// Whether it is for shared subscriptions although it comes from another shard.
    is_unsure: bool,
    /// The connection whose next packet waits.
    waits: Option<ConnectionId>,
    /// The fullest receiver of the message, if one is too full.
    press: RoutingLimits,
    /// The acknowledgement to be sent when all receivers have the message, and its reason code if at least one got it.
    receipt: Option<(Receipt, ReasonCode)>,
    /// How many bytes were recorded before the message arrived, and the origin of a QoS 2 message.
    recorded: (u64, Option<Origin>),
    /// The number of the message's record as a due will; 0 if there is none.
    will: u64,
}

/// Messages that are delivered in portions, one after the other: the first one is being delivered.
#[derive(Debug)]
pub(crate) struct Fanouts {
    waiting: VecDeque<Fanout>,
    /// How many of these messages each topic has.
    topics: HashMap<Arc<str>, u32, Keyed>,
    /// The bytes of messages whose publishing connection has ended.
    orphaned: usize,
    stage: Progress,
    targets: Targets,
    groups: Vec<Share>,
    /// The names of the first message's targets in its record.
    numbers: Vec<u64>,
}

/// The progress of the first message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Progress {
    #[default]
    New,
    Searching,
    /// The index of the next target; after the targets, that of the next shared subscription.
    Delivering(usize),
}

/// The index of a mark in a session.
const AT_ONCE: usize = 0;
const IN_PORTIONS: usize = 1;

impl Fanouts {
    pub(crate) fn new(key: Keyed) -> Self {
        Self {
            waiting: VecDeque::new(),
            topics: HashMap::with_hasher(key),
            orphaned: 0,
            stage: Progress::New,
            targets: Targets::default(),
            groups: Vec::new(),
            numbers: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Notes the acknowledgement that is sent when all receivers have the last message.
    pub(crate) fn acknowledge_later(&mut self, answer: Withheld, origin: Option<Origin>) {
        if let Some(last) = self.waiting.back_mut() {
            last.receipt = Some((answer.receipt, answer.reason));
            last.recorded = (answer.before, origin);
        }
    }

    /// Notes that the last message is a will, recorded under this number.
    pub(crate) fn last_is_will(&mut self, number: u64) {
        if let Some(last) = self.waiting.back_mut() {
            last.will = number;
        }
    }

    /// Handles the end of a connection. Its message stays if such messages take no more than `limit` bytes together. Otherwise
    /// the message is dropped, and its receipt is returned, unless it is at QoS 0.
    pub(crate) fn publisher_disconnected(
        &mut self,
        id: ConnectionId,
        limit: usize,
    ) -> Option<Option<Receipt>> {
        let own = |fanout: &Fanout| fanout.waits == Some(id);
        let at = self.waiting.iter().position(own)?;
        let size = self.waiting.get(at).map_or(0, Fanout::size);
        let orphaned = self.orphaned.saturating_add(size);
        if at == 0 || orphaned <= limit {
            self.orphaned = orphaned;
            return None;
        }
        let dropped = self.waiting.remove(at)?;
        self.forget_topic(&dropped.topic);
        Some(dropped.receipt.map(|(receipt, _)| receipt))
    }

    fn forget_topic(&mut self, topic: &str) {
        if let Some(count) = self.topics.get_mut(topic) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.topics.remove(topic);
            }
        }
    }

    fn has_topic(&self, topic: TopicName<'_>) -> bool {
        !self.waiting.is_empty() && self.topics.contains_key(topic.as_str())
    }
}

impl Fanout {
    fn size(&self) -> usize {
        self.message.size().saturating_add(self.topic.len())
    }
}

impl Targets {
    fn begin(&mut self) {
        self.list.clear();
        self.identifiers.clear();
        self.message = self.message.wrapping_add(1);
    }

    /// Adds one copy for each client, at the highest quality of service of its subscriptions, with all their identifiers
    /// (3.1.1 \[MQTT-3.3.5-1\], 5 \[MQTT-3.3.4-2\] to \[MQTT-3.3.4-5\]).
    fn add(&mut self, subscriber: &Subscriber, session: &mut Session, mark: usize) {
        let Some(mark) = session.found.get_mut(mark) else {
            return;
        };
        if mark.message == self.message
            && let Some(first) = self.list.get_mut(to_usize(mark.at))
            && first.subscriber.session == subscriber.session
        {
            first.subscriber.qos = first.subscriber.qos.max(subscriber.qos);
            first.subscriber.retain_as_published |= subscriber.retain_as_published;
            // 5 [MQTT-3.3.4-4]
            if let Some(identifier) = subscriber.identifier {
                let at = to_u32(self.identifiers.len());
                self.identifiers.push((identifier, None));
                let (start, last) = first.more.unwrap_or((at, at));
                if last != at
                    && let Some((_, next)) = self.identifiers.get_mut(to_usize(last))
                {
                    *next = Some(at);
                }
                first.more = Some((start, at));
            }
            return;
        }
        *mark = RoutingMark {
            message: self.message,
            at: to_u32(self.list.len()),
        };
        self.list.push(Target {
            subscriber: *subscriber,
            serial: session.serial,
            share: None,
            more: None,
        });
    }

    /// Returns the subscription identifiers of a target, gathered in `all` if they are several.
    fn identifiers<'a>(&self, target: &'a Target, all: &'a mut SmallVec<[u32; 4]>) -> &'a [u32] {
        let Some((first, _)) = target.more else {
            return target.identifier();
        };
        all.clear();
        all.extend(target.subscriber.identifier);
        let mut next = Some(first);
        while let Some(at) = next
            && let Some((identifier, behind)) = self.identifiers.get(to_usize(at))
        {
            all.push(*identifier);
            next = *behind;
        }
        all
    }
}

impl<H: Hooks> Broker<H> {
    /// Delivers a message to all clients with a matching subscription.
    pub(crate) fn route(
        &mut self,
        from: Option<SessionKey>,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> Routed {
        // Wills that are due at the same time are not all delivered in one turn.
        let waits = from.is_none_or(|key| self.is_away(key)) && !self.meter.has_share();
        if waits || self.fanouts.has_topic(message.topic) {
            return self.fan_out(from, message, now);
        }
        let mut scratch = self.scratch.take().unwrap_or_default();
        let routed = self.route_at_once(from, message, &mut scratch, now);
        self.scratch = Some(scratch);
        routed.unwrap_or_else(|| self.fan_out(from, message, now))
    }

    fn is_open(&self, id: ConnectionId) -> bool {
        self.connection(id)
            .is_some_and(|connection| !connection.ended)
    }

    fn is_away(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_none_or(|session| session.connection.is_none())
    }

    /// Returns the number of the session's client for messages that it publishes.
    pub(crate) fn publisher(&self, key: SessionKey) -> Option<u64> {
        let session = self.sessions.get(key);
        session.map(|session| session.client_hash)
    }

    /// Delivers a message at once. Returns `None` if that is too much for one turn.
    fn route_at_once(
        &mut self,
        from: Option<SessionKey>,
        message: &Outgoing<'_>,
        scratch: &mut RoutingMemory,
        now: Instant,
    ) -> Option<Routed> {
        let RoutingMemory { matches, targets } = scratch;
        let most = to_usize(self.config.turn_steps);
        // 3.1.1 [MQTT-3.3.2-3] and [MQTT-4.5.0-1], 5 [MQTT-3.3.2-3] and [MQTT-4.5.0-1]
        let finished = self.router.matches(message.topic.as_str(), matches, most);
        self.meter.spend(matches.steps());
        if !finished {
            return None;
        }
        let receivers = matches
            .subscribers
            .len()
            .saturating_add(matches.groups.len());
        let publisher = match from {
            Some(key) => self.publisher(key),
            None => self.host_as_publisher(),
        };
        let mut source = Source::new(message);
        // A single delivery cannot be divided.
        if receivers > 1 && receivers.saturating_mul(source.steps()) > most {
            return None;
        }
        targets.begin();
        for subscriber in &matches.subscribers {
            let session = self.sessions.get_mut(subscriber.session);
            let Some(session) = session.filter(|session| !session.is_over) else {
                continue;
            };
            if !session.hides(subscriber.no_local, publisher) {
                targets.add(subscriber, session, AT_ONCE);
            }
        }
        self.begin_record();
        let mut identifiers = SmallVec::new();
        for target in &targets.list {
            let identifiers = targets.identifiers(target, &mut identifiers);
            self.deliver(target, &mut source, identifiers, now);
        }
        let mut found = !targets.list.is_empty();
        if !matches.groups.is_empty() {
            found |= self.deliver_to_groups(&matches.groups, from, &mut source, now);
        }
        if self.has_journal() {
            self.end_record(&mut source, now);
        }
        Some(if found {
            Routed::ToAll
        } else {
            Routed::ToNobody
        })
    }

    /// Stores a message, to deliver it in portions.
    fn fan_out(
        &mut self,
        from: Option<SessionKey>,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> Routed {
        let Ok(kept) = Message::new(message, now) else {
            return Routed::ToNobody;
        };
        let session = from.and_then(|key| Some((key, self.sessions.get(key)?)));
        let publisher = session.map(|(_, session)| session.client_hash);
        let kept = kept.published_by(publisher.or_else(|| self.host_as_publisher()));
        let waits = session.and_then(|(_, session)| session.connection);
        let from = session.map(|(key, session)| (key, session.serial));
        let waits = waits.and_then(|index| self.id(index));
        if let Some(connection) = waits.and_then(|id| self.connection_mut(id)) {
            connection.extra().message_in_portions = true;
        }
        let topic: Arc<str> = message.topic.as_str().into();
        let count = self.fanouts.topics.entry(Arc::clone(&topic)).or_default();
        *count = count.saturating_add(1);
        self.fanouts.waiting.push_back(Fanout {
            message: kept,
            topic,
            from,
            is_unsure: self.is_unsure(),
            waits,
            press: self.press,
            receipt: None,
            recorded: (0, None),
            will: 0,
        });
        Routed::Later
    }

    /// Does the next portion of the first message.
    pub(crate) fn continue_fanout(&mut self, now: Instant) {
        while self.meter.has_share()
            && let Some(first) = self.fanouts.waiting.front()
        {
            let (topic, message) = (Arc::clone(&first.topic), first.message.clone());
            match self.fanouts.stage {
                Progress::New => {
                    self.router.begin_search(&topic);
                    self.fanouts.targets.begin();
                    self.fanouts.groups.clear();
                    self.fanouts.stage = Progress::Searching;
                }
                Progress::Searching => self.search_some(&message),
                Progress::Delivering(at) => {
                    self.press = first.press;
                    let all = self.deliver_some(at, &message, now);
                    let press = std::mem::take(&mut self.press);
                    if let Some(first) = self.fanouts.waiting.front_mut() {
                        first.press = press;
                    }
                    if all {
                        self.end_fanout();
                    }
                }
            }
        }
    }

    fn search_some(&mut self, message: &Message) {
        let most = self.meter.left();
        let finished = self.router.search(most, &mut self.fanouts.groups);
        let found = self.router.found();
        self.meter.spend(found.steps());
        for subscriber in &found.subscribers {
            let session = self.sessions.get_mut(subscriber.session);
            let Some(session) = session.filter(|session| !session.is_over) else {
                continue;
            };
            if !session.hides(subscriber.no_local, message.publisher()) {
                self.fanouts.targets.add(subscriber, session, IN_PORTIONS);
            }
        }
        if finished {
            if self.links.is_some() && self.first_is_of_shard() {
                let mut groups = std::mem::take(&mut self.fanouts.groups);
                groups.retain(|share| {
                    self.first_is_unsure() && self.has_own_members_only(share.group())
                });
                self.fanouts.groups = groups;
            }
            self.fanouts.stage = Progress::Delivering(0);
            if self.has_journal() {
                self.record_first_fanout(message);
            }
        }
    }

    /// Returns whether the first message comes from another shard, which has chosen the members of shared subscriptions.
    fn first_is_of_shard(&self) -> bool {
        let from = self.fanouts.waiting.front().and_then(|first| first.from);
        from.is_some_and(|(key, _)| self.is_link(key))
    }

    fn first_is_unsure(&self) -> bool {
        self.fanouts
            .waiting
            .front()
            .is_some_and(|first| first.is_unsure)
    }

    /// Records the first message when all its receivers are known and before one of them gets it. To know them, the members of
    /// shared subscriptions are chosen now.
    fn record_first_fanout(&mut self, message: &Message) {
        let publish = message.publish();
        let mut groups = std::mem::take(&mut self.fanouts.groups);
        let dropped = groups.len().saturating_sub(MOST_COPIES);
        self.count_dropped(to_u64(dropped));
        groups.truncate(MOST_COPIES);
        for share in groups {
            let group = self.router.shared_mut(share).map(|_| share.group());
            let chosen = group.and_then(|group| self.choose(group, publish.topic));
            if let Some(mut target) = chosen {
                let session = self.sessions.get(target.subscriber.session);
                target.serial = session.map_or(0, |session| session.serial);
                self.fanouts.targets.list.push(target);
            }
        }
        let targets = std::mem::take(&mut self.fanouts.targets);
        self.meter.spend(steps_of(targets.list.len()));
        let identifiers =
            |target: &Target| targets.identifiers(target, &mut SmallVec::new()).to_vec();
        let first = self.fanouts.waiting.front();
        if let Some((message, origin)) = first.map(|f| (f.message.clone(), f.recorded.1)) {
            let (record, numbers) =
                self.record_fanout(&message, &targets.list, identifiers, origin);
            self.fanouts.numbers = numbers;
            if let Some(first) = self.fanouts.waiting.front_mut() {
                first.message.set_record(record);
                let will = std::mem::take(&mut first.will);
                self.record_will_end(will);
            }
        }
        self.fanouts.targets = targets;
    }

    /// Delivers to the targets from `at` on. Returns whether all have the message.
    fn deliver_some(&mut self, mut at: usize, message: &Message, now: Instant) -> bool {
        let publish = message.publish();
        let borrowed = message.outgoing(&publish);
        let mut source = Source::of(message, &borrowed);
        self.deliver_recorded(message.record());
        let mut identifiers = SmallVec::new();
        while self.meter.has_share() {
            let fanouts = &self.fanouts;
            let behind = at.saturating_sub(fanouts.targets.list.len());
            if let Some(target) = fanouts.targets.list.get(at).copied() {
                let identifiers = fanouts.targets.identifiers(&target, &mut identifiers);
                let name = self.fanouts.numbers.get(at).copied().unwrap_or(0);
                if self.is_target(&target) {
                    self.deliver_to(name);
                    self.deliver(&target, &mut source, identifiers, now);
                } else if target.share.is_some() {
                    self.deliver_to_another(&target, message, name, now);
                } else {
                    self.target_ended(name);
                }
            } else if let Some(share) = fanouts.groups.get(behind).copied() {
                let group = self.router.shared_mut(share).map(|_| share.group());
                if let Some(target) = group.and_then(|group| self.choose(group, publish.topic)) {
                    self.deliver(&target, &mut source, target.identifier(), now);
                }
            } else {
                self.deliver_recorded(RecordName::NONE);
                return true;
            }
            at = at.saturating_add(1);
        }
        self.deliver_recorded(RecordName::NONE);
        self.fanouts.stage = Progress::Delivering(at);
        false
    }

    fn end_fanout(&mut self) {
        let fanouts = &mut self.fanouts;
        fanouts.stage = Progress::New;
        let to_nobody = fanouts.targets.list.is_empty() && fanouts.groups.is_empty();
        fanouts.targets.shrink();
        fanouts.numbers = Vec::new();
        let Some(done) = fanouts.waiting.pop_front() else {
            return;
        };
        fanouts.forget_topic(&done.topic);
        if fanouts.waiting.is_empty() {
            fanouts.waiting = VecDeque::new();
            fanouts.topics.shrink_to_fit();
        }
        if let (Some((receipt, reason)), Some(from)) = (done.receipt, done.from) {
            let reason = match reason {
                ReasonCode::Success if to_nobody => ReasonCode::NoMatchingSubscribers,
                reason => done.press.answer(done.message.qos(), reason),
            };
            let answer = Withheld::new(receipt, reason, done.recorded.0);
            match done.waits.filter(|id| self.is_open(*id)) {
                Some(id) => {
                    let size = done.message.len();
                    self.acknowledge_or_hold(id.index, answer, size, done.press.by());
                }
                None => self.acknowledge_when_stored(from, receipt, reason, done.recorded.0),
            }
        }
        let Some(id) = done.waits else { return };
        if let Some(connection) = self.connection_mut(id).filter(|c| !c.ended) {
            connection.extra().message_in_portions = false;
            self.mark_ready(id.index);
        } else {
            let orphaned = &mut self.fanouts.orphaned;
            *orphaned = orphaned.saturating_sub(done.size());
        }
    }
}

impl Targets {
    /// Frees the memory that a message with very many receivers took.
    fn shrink(&mut self) {
        self.list.clear();
        self.list.shrink_to(KEPT);
        self.identifiers.clear();
        self.identifiers.shrink_to(KEPT);
    }
}

/// For how many receivers memory stays allocated.
const KEPT: usize = 1_024;

impl Target {
    /// Makes the target of a shared subscription's member.
    pub(crate) const fn member(subscriber: Subscriber, share: Share) -> Self {
        Self {
            subscriber,
            serial: 0,
            share: Some(share),
            more: None,
        }
    }

    /// Makes the target of one subscription.
    pub(crate) const fn single(subscriber: Subscriber, serial: u32) -> Self {
        Self {
            subscriber,
            serial,
            share: None,
            more: None,
        }
    }

    pub(crate) fn identifier(&self) -> &[u32] {
        self.subscriber.identifier.as_slice()
    }
}
