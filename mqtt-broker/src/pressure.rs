//! Slows publishers down: a QoS 1 or 2 message is not dropped because a connected receiver is slower than its publisher.
//!
//! While the queue of a connected receiver is more than half full, the broker withholds PUBACK and PUBREC of messages to it. A
//! client with a window stops sending when the window is used up. A client that sends much without a window is not read: its next
//! PUBLISH waits in the transport. Meanwhile the queue takes messages beyond its limits, at most a part for each publisher.
//!
//! No client waits for ever. A client whose own queue is more than half full is always read, because its acknowledgements make
//! the queue shorter. Its messages are acknowledged while the receiver's queue is not full, because a program may take its next
//! message only after the acknowledgement of its own one. If that queue is full, the client waits until the receiver has taken
//! messages, at most about a second.
//!
//! A receiver that takes nothing for [`Config::slow_consumer_ms`] is slow: publishers do not wait for it until it has taken all
//! its queued messages, and its queue drops messages for which it has no room. A receiver that takes messages, but more
//! slowly than they come for as long, is observed once (`long_wait.rs`); [`Config::publisher_wait_ms`] limits this time. Publishers of
//! other shards wait by topic (`shards/busy.rs`), and publishers of messages for a shard that is away wait for its link (`shards/away.rs`).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use mqtt_session::proto::{PacketType, ReasonCode};
use mqtt_session::{Instant, Receipt};

use crate::broker::Broker;
use crate::config::Config;
use crate::connection::{Connection, ConnectionId};
use crate::hooks::{Hooks, Observation};
use crate::keys::{ConnectionKey, SessionKey};
use crate::queue::Room;
use crate::timers::Due;

/// The index of a session, and its serial number, which no other session with that index has.
pub(crate) type SessionName = (SessionKey, u32);

/// The broker stops to read a publisher that waits for acknowledgements of more messages or bytes than the limit of a receiver's queue
/// divided by this number.
const PART: usize = 64;

/// The interval of the checks for receivers that take nothing.
const LOOK: Duration = Duration::from_secs(1);

/// The reason why a publisher gets no acknowledgement yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WaitsFor {
    /// A receiver whose queue is too full.
    Receiver(SessionName),
    /// Such receivers of another shard, for messages to the topic with this hash.
    Topic(u8, u64),
}

/// How many times the limits of a queue its messages from other shards may take: their publishers wait once their shard knows
/// the topic, and what they have sent before has room.
const TIMES_OF_SHARDS: usize = 4;

/// How many bytes a transport must take to count as taking, if they do not complete a message.
const TAKEN: usize = 16 << 10;

/// The state of a connected receiver whose queue is too full.
#[derive(Debug)]
pub(crate) struct Pressure {
    /// The publishers that wait for it.
    publishers: BTreeSet<ConnectionId>,
    /// The topics of its messages that other shards were told, as hashes, so that their publishers wait.
    pub(crate) told: BTreeSet<(u8, u64)>,
    /// When it last took a message or enough bytes.
    taken_at: Instant,
    /// The time of this receiver's entry in the timers.
    timer: Option<Instant>,
    /// How many bytes its transport has taken since.
    bytes: usize,
    /// Whether it has taken nothing for too long.
    is_slow: bool,
}

impl Pressure {
    fn new(now: Instant, due: Instant) -> Self {
        Self {
            publishers: BTreeSet::new(),
            told: BTreeSet::new(),
            taken_at: now,
            timer: Some(due),
            bytes: 0,
            is_slow: false,
        }
    }

    pub(crate) const fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Notes that the receiver took or acknowledged a message.
    pub(crate) const fn note_taken(&mut self, now: Instant) {
        self.taken_at = now;
        self.bytes = 0;
    }

    /// Notes that its transport took `n` bytes.
    pub(crate) const fn sent(&mut self, n: usize, now: Instant) {
        self.bytes = self.bytes.saturating_add(n);
        if self.bytes >= TAKEN {
            self.note_taken(now);
        }
    }
}

/// A withheld acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Withheld {
    pub(crate) receipt: Receipt,
    pub(crate) reason: ReasonCode,
    /// How many bytes were recorded before its message arrived.
    pub(crate) before: u64,
}

impl Withheld {
    pub(crate) const fn new(receipt: Receipt, reason: ReasonCode, before: u64) -> Self {
        Self {
            receipt,
            reason,
            before,
        }
    }
}

/// The withheld acknowledgements of a publisher.
#[derive(Debug, Default)]
pub(crate) struct WithheldQueue {
    by: Option<WaitsFor>,
    receipts: VecDeque<Withheld>,
    /// The bytes of these messages.
    bytes: usize,
}

impl WithheldQueue {
    /// Returns whether the publisher is not to be read.
    fn is_too_much(&self, config: &Config) -> bool {
        let most = usize::from(config.receive_maximum).min(config.queued_messages / PART);
        self.receipts.len() > most || self.bytes > config.queued_bytes / PART
    }
}

/// Acknowledgements that can be sent now.
#[derive(Debug)]
pub(crate) enum ReleasedAcknowledgements {
    /// The acknowledgements of publishers that waited for the same receiver.
    Waited(BTreeSet<ConnectionId>),
    /// The acknowledgements of an ended connection: the client sends a QoS 2 message again and expects an answer.
    Gone(SessionName, VecDeque<Withheld>),
}

impl<H: Hooks> Broker<H> {
    /// Returns the limits that the queue of a receiver applies to the message that is being routed, which takes `size` bytes.
    pub(crate) fn room(&mut self, key: SessionKey, size: usize, now: Instant) -> Room {
        let session = self.sessions.get(key);
        let Some(session) = session.filter(|session| session.is_waited_for()) else {
            return Room::Own;
        };
        let is_slow = session.pressure.as_ref().is_some_and(|p| p.is_slow);
        if is_slow || self.press.room == Room::Own {
            return Room::Own;
        }
        let times = match self.press.from {
            Some(_) => TIMES_OF_SHARDS,
            None => 2,
        };
        let is_limited = self.press.room == Room::Limited;
        if is_limited && !session.queue.has_room_times(times, size, &self.config) {
            // Only the time decides that a link is slow, since it carries the messages of many.
            if session.link.is_none() {
                self.mark_slow(key, now);
            }
            return Room::Own;
        }
        self.press.room
    }

    /// Notes that a message was queued: its publisher has to wait if the queue is too full.
    pub(crate) fn note_queued(&mut self, key: SessionKey, share: usize, now: Instant) {
        if self.press.room == Room::Own {
            return;
        }
        let session = self.sessions.get_mut(key);
        let Some(session) = session.filter(|session| session.is_waited_for()) else {
            return;
        };
        let (connection, name) = (session.connection, (key, session.serial));
        let fullness = session.queue.fullness(&self.config, share, &self.queued);
        match &session.pressure {
            Some(pressure) if pressure.is_slow => return,
            Some(_) => {}
            None if !fullness.is_high() => return,
            None => {
                self.begin_pressure(key, now);
                match connection {
                    // If the receiver is a client that is not being read, it must be read now.
                    Some(connection) => self.mark_ready(connection),
                    None => self.report_waits_for_shard(key),
                }
                if self.waits_too_long(key, now) {
                    self.mark_slow(key, now);
                    return;
                }
            }
        }
        if let Some((shard, topic)) = self.press.from {
            self.tell_busy(key, shard, topic);
            return;
        }
        // If other publishers wait for this publisher, it may need its acknowledgement to go on.
        let waits = self.press.room == Room::Any || fullness.is_full();
        let level = fullness.level();
        if waits && self.press.by.is_none_or(|(_, other)| level > other) {
            self.press.by = Some((WaitsFor::Receiver(name), level));
        }
    }

    fn begin_pressure(&mut self, key: SessionKey, now: Instant) {
        let due = look_at(now, self.longest_wait(key), now);
        if let Some(session) = self.sessions.get_mut(key) {
            self.timers.set(due, Due::Receiver(key));
            session.pressure = Some(Box::new(Pressure::new(now, due)));
        }
    }

    /// Makes the publisher of a message for another shard wait if receivers there are too full.
    pub(crate) fn wait_for_busy_shard(&mut self, shard: u8, topic: &[u8]) {
        if self.press.waits_elsewhere && self.press.by.is_none() {
            let by = self.busy_topic_of(shard, topic);
            self.press.by = by.map(|by| (by, 0));
        }
    }

    /// Returns the publishers that wait; `None` if there is nothing to wait for any more.
    fn publishers_that_wait(&mut self, by: WaitsFor) -> Option<&mut BTreeSet<ConnectionId>> {
        match by {
            WaitsFor::Receiver((key, serial)) => {
                let session = self.sessions.get_mut(key)?;
                let pressure = session.pressure.as_mut();
                let pressure = pressure.filter(|p| session.serial == serial && !p.is_slow);
                pressure.map(|pressure| &mut pressure.publishers)
            }
            WaitsFor::Topic(shard, topic) => self.publishers_of_topic(shard, topic),
        }
    }

    /// Acknowledges a message to its publisher, or withholds the acknowledgement while a receiver is too full.
    pub(crate) fn acknowledge_or_hold(
        &mut self,
        index: ConnectionKey,
        answer: Withheld,
        size: usize,
        by: Option<WaitsFor>,
    ) {
        let id = self.id(index);
        let by = by.filter(|by| self.publishers_that_wait(*by).is_some());
        let records = self.journal.is_some();
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        let (Some(by), Some(id), false) = (by, id, connection.ended) else {
            if !records {
                // The message has just arrived, so its acknowledgement is due.
                let _ = connection.server.acknowledge(answer.receipt, answer.reason);
            } else if let Some(from) = connection.session.and_then(|key| self.session_name(key)) {
                self.acknowledge_withheld(from, answer);
            }
            return;
        };
        let held = connection.extra().withheld.get_or_insert_default();
        held.receipts.push_back(answer);
        held.bytes = held.bytes.saturating_add(size);
        if held.by.is_none() {
            held.by = Some(by);
            if let Some(publishers) = self.publishers_that_wait(by) {
                publishers.insert(id);
            }
        }
    }

    /// Returns whether the next packet of a connection has to wait because receivers of its messages are too full.
    pub(crate) fn is_paused(&self, connection: &Connection, rest: &[u8]) -> bool {
        let Some(held) = connection.extra.as_ref().and_then(|e| e.withheld.as_ref()) else {
            return false;
        };
        let own = connection.session.and_then(|key| self.sessions.get(key));
        held.is_too_much(&self.config)
            && rest
                .first()
                .is_some_and(|first| first >> 4 == PacketType::Publish.get())
            && own.is_none_or(|own| own.pressure.is_none() && own.link.is_none())
    }

    /// Releases the publishers that wait for a receiver, if its queue is no longer too full.
    pub(crate) fn release_if_shorter(&mut self, key: SessionKey) {
        let share = self.fair_share();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let over = match &session.pressure {
            None => return,
            Some(pressure) if pressure.is_slow => session.queue.is_empty(),
            Some(_) => {
                let fullness = session.queue.fullness(&self.config, share, &self.queued);
                fullness.is_low()
            }
        };
        if over {
            self.end_pressure(key);
        }
    }

    /// Ends the wait of all publishers for this receiver.
    pub(crate) fn end_pressure(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        let Some(pressure) = session.and_then(|session| session.pressure.take()) else {
            return;
        };
        if let Some(at) = pressure.timer {
            self.timers.clear(at, Due::Receiver(key));
        }
        self.tell_idle(pressure.told);
        self.release_publishers(pressure.publishers);
    }

    /// Checks a receiver that may have taken nothing for too long.
    pub(crate) fn receiver_due(&mut self, key: SessionKey, now: Instant) {
        let session = self.sessions.get_mut(key);
        let Some(pressure) = session.and_then(|session| session.pressure.as_mut()) else {
            return;
        };
        pressure.timer = None;
        let taken_at = pressure.taken_at;
        let most = self.longest_wait(key);
        let takes_nothing = now.since(taken_at) >= most;
        if takes_nothing || self.waits_too_long(key, now) {
            self.mark_slow(key, now);
            return;
        }
        let due = look_at(taken_at, most, now);
        self.timers.set(due, Due::Receiver(key));
        let session = self.sessions.get_mut(key);
        if let Some(pressure) = session.and_then(|session| session.pressure.as_mut()) {
            pressure.timer = Some(due);
        }
        if taken_at < now {
            self.release_waiting_receivers(key);
            self.release_from_shards(key);
        }
    }

    /// Releases the publishers that wait for this receiver and for which others wait: the receiver may be one of those others.
    fn release_waiting_receivers(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        let Some(pressure) = session.and_then(|session| session.pressure.as_mut()) else {
            return;
        };
        let publishers = std::mem::take(&mut pressure.publishers);
        self.meter.spend(publishers.len());
        let is_full = |id: &ConnectionId| {
            let session = self.connection(*id).and_then(|own| own.session);
            let session = session.and_then(|key| self.sessions.get(key));
            session.is_some_and(|session| session.pressure.is_some())
        };
        let (circle, others) = publishers.into_iter().partition(is_full);
        let session = self.sessions.get_mut(key);
        if let Some(pressure) = session.and_then(|session| session.pressure.as_mut()) {
            pressure.publishers = others;
        }
        self.release_publishers(circle);
    }

    /// Releases a receiver that waits for receivers of another shard, since these may wait for it.
    fn release_from_shards(&mut self, key: SessionKey) {
        if let Some(id) = self.connection_of(key)
            && let Some(WaitsFor::Topic(..)) = self.waits_for(id)
        {
            self.release_publishers(BTreeSet::from([id]));
        }
    }

    fn waits_for(&self, id: ConnectionId) -> Option<WaitsFor> {
        let extra = self.connection(id)?.extra.as_ref()?;
        extra.withheld.as_ref()?.by
    }

    /// Notes that a publisher does not wait for anything any more.
    fn stop_waiting(&mut self, id: ConnectionId) {
        let by = self.waits_for(id);
        if let Some(publishers) = by.and_then(|by| self.publishers_that_wait(by)) {
            publishers.remove(&id);
        }
        let extra = self.connection_mut(id).and_then(|own| own.extra.as_mut());
        if let Some(held) = extra.and_then(|extra| extra.withheld.as_mut()) {
            held.by = None;
        }
    }

    /// Marks a receiver as too slow to wait for.
    fn mark_slow(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let pressure = session
            .pressure
            .get_or_insert_with(|| Box::new(Pressure::new(now, now)));
        pressure.is_slow = true;
        if let Some(at) = pressure.timer.take() {
            self.timers.clear(at, Due::Receiver(key));
        }
        let publishers = std::mem::take(&mut pressure.publishers);
        let told = std::mem::take(&mut pressure.told);
        self.tell_idle(told);
        let connection = self.connection_of(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.long_wait = None;
        let messages = session.queue.len();
        self.hooks.observe(&match session.link {
            Some(shard) => Observation::ShardGivenUp { shard, messages },
            None => Observation::SlowConsumer {
                connection,
                client_id: &session.client_id,
                messages,
            },
        });
        self.release_publishers(publishers);
    }

    /// Reports that the queue of a session had no room for a message, once until the queue was empty.
    pub(crate) fn report_full_queue(&mut self, key: SessionKey) {
        let connection = self.connection_of(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !std::mem::replace(&mut session.full_queue_reported, true) {
            self.hooks.observe(&Observation::QueueFull {
                connection,
                client_id: &session.client_id,
                messages: session.queue.len(),
            });
        }
    }

    /// Handles the end of a publisher's connection.
    pub(crate) fn forget_held(&mut self, id: ConnectionId, held: WithheldQueue, from: SessionName) {
        if let Some(publishers) = held.by.and_then(|by| self.publishers_that_wait(by)) {
            publishers.remove(&id);
        }
        self.release(ReleasedAcknowledgements::Gone(from, held.receipts));
    }

    /// Sends the withheld acknowledgements of publishers that waited.
    pub(crate) fn release_publishers(&mut self, publishers: BTreeSet<ConnectionId>) {
        if !publishers.is_empty() {
            self.release(ReleasedAcknowledgements::Waited(publishers));
        }
    }

    fn release(&mut self, released: ReleasedAcknowledgements) {
        self.released_acknowledgements.push_back(released);
        self.continue_releasing();
    }

    /// Sends the next released acknowledgements.
    pub(crate) fn continue_releasing(&mut self) {
        while self.meter.has_share()
            && let Some(released) = self.released_acknowledgements.pop_front()
        {
            match released {
                ReleasedAcknowledgements::Waited(mut publishers) => {
                    let Some(id) = publishers.first().copied() else {
                        continue;
                    };
                    self.meter.spend(2);
                    if self.release_some(id) {
                        publishers.remove(&id);
                    }
                    self.released_acknowledgements
                        .push_front(ReleasedAcknowledgements::Waited(publishers));
                }
                ReleasedAcknowledgements::Gone(from, mut receipts) => {
                    let Some(answer) = receipts.pop_front() else {
                        continue;
                    };
                    self.meter.spend(2);
                    self.acknowledge_withheld(from, answer);
                    self.released_acknowledgements
                        .push_front(ReleasedAcknowledgements::Gone(from, receipts));
                }
            }
        }
    }

    /// Sends withheld acknowledgements of a publisher. Returns whether all are sent.
    fn release_some(&mut self, id: ConnectionId) -> bool {
        let from = self
            .connection(id)
            .and_then(|connection| connection.session);
        let Some(from) = from.and_then(|key| self.session_name(key)) else {
            return true;
        };
        self.stop_waiting(id);
        // Sends at least one acknowledgement, however small the share of the turn is.
        loop {
            let held = self
                .connection_mut(id)
                .and_then(|connection| connection.extra.as_mut()?.withheld.as_mut());
            let Some(held) = held else { break };
            let answer = held.receipts.pop_front();
            if held.receipts.is_empty()
                && let Some(connection) = self.connection_mut(id)
            {
                connection.extra().withheld = None;
            }
            let Some(answer) = answer else { break };
            self.acknowledge_withheld(from, answer);
            self.meter.spend(2);
            if !self.meter.has_share() {
                break;
            }
        }
        self.mark_ready(id.index);
        let connection = self.connection(id).and_then(|own| own.extra.as_ref());
        connection.is_none_or(|extra| extra.withheld.is_none())
    }

    fn acknowledge_withheld(&mut self, from: SessionName, answer: Withheld) {
        let Withheld {
            receipt,
            reason,
            before,
        } = answer;
        self.acknowledge_when_stored(from, receipt, reason, before);
    }

    /// Returns the share of one queue in the limit for all queues when that is reached. Receivers with short queues do not make
    /// the share of others smaller until the queues exceed the limit by half.
    pub(crate) fn fair_share(&self) -> usize {
        let (total, held) = (self.config.queued_bytes_total, self.queued.bytes);
        if held <= total / 2 {
            return usize::MAX;
        }
        if held <= total.saturating_add(total / 2) {
            let equal = total.checked_div(self.sessions.len()).unwrap_or(total);
            return self.queued.levels.share(total).max(equal);
        }
        // However many sessions follow, all of them have at most twice the limit: a quarter of it is for those that there are, and
        // a quarter for all that there may be.
        let left = total.saturating_mul(2).saturating_sub(total / 4);
        let left = left.saturating_sub(held);
        let of_present = left.checked_div(self.sessions.len()).unwrap_or(left);
        let of_possible = (total / 4).checked_div(self.most_sessions());
        of_present.max(of_possible.unwrap_or(0))
    }
}

impl Config {
    pub(crate) fn slow_after(&self) -> Duration {
        Duration::from_millis(u64::from(self.slow_consumer_ms))
    }
}

/// Returns when to check a receiver that last took something at `taken_at` and may take nothing for at most `most`.
fn look_at(taken_at: Instant, most: Duration, now: Instant) -> Instant {
    let look = LOOK.min(most.checked_div(2).unwrap_or(most));
    now.after(look).min(taken_at.after(most))
}
