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
//! its queued messages, and its queue drops messages for which it has no room. A receiver that takes messages, but so slowly that
//! publishers wait as long without a pause, is observed once; [`Config::publisher_wait_ms`] limits this wait.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use mqtt_session::proto::{PacketType, ReasonCode};
use mqtt_session::{Instant, Receipt};

use crate::broker::{Broker, usize_of};
use crate::config::Config;
use crate::connection::{Connection, ConnectionId};
use crate::hooks::{Hooks, Observation};
use crate::queue::Room;
use crate::timers::Due;

/// The index of a session, and its serial number, which no other session with that index has.
pub(crate) type SessionName = (u32, u32);

/// Which part of a receiver's queue limit one publisher may have unacknowledged before it is not read.
const PART: usize = 64;

/// The interval of the checks for receivers that take nothing, in milliseconds.
const LOOK_MS: u32 = 1_000;

/// How many acknowledgements of a link may be withheld. Further messages are acknowledged at once, because messages for others must not
/// wait until the window of the link is used up. The shard of their publishers is told long before: see `shards/busy.rs`.
const MOST_OF_LINK: usize = 16 << 10;

/// How many bytes a transport must take to count as taking, if they do not complete a message.
const TAKEN: usize = 16 << 10;

/// The state of a connected receiver whose queue is too full.
#[derive(Debug)]
pub(crate) struct Pressure {
    /// The publishers that wait for it.
    publishers: BTreeSet<ConnectionId>,
    /// When it last took a message or enough bytes.
    taken_at: Instant,
    /// Its entry in the timers.
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
    /// The receiver that it waits for.
    by: Option<SessionName>,
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

/// The limits that queues apply to the message that is being routed, and the receiver for which its publisher waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoutingLimits {
    room: Room,
    /// The fullest of the receivers that are too full, and its level.
    by: Option<(SessionName, usize)>,
}

impl RoutingLimits {
    /// For a message whose publisher does not wait.
    pub(crate) const NONE: Self = Self {
        room: Room::Own,
        by: None,
    };

    /// For a message that was taken from another queue.
    pub(crate) const MOVED: Self = Self {
        room: Room::Any,
        by: None,
    };

    pub(crate) const fn by(&self) -> Option<SessionName> {
        match self.by {
            Some((by, _)) => Some(by),
            None => None,
        }
    }
}

impl<H: Hooks> Broker<H> {
    /// Returns the limits that queues apply to messages of this session.
    pub(crate) fn limits_for_publisher(&self, key: u32) -> RoutingLimits {
        let publisher = self.sessions.get(usize_of(key));
        let Some(publisher) = publisher.filter(|_| self.config.slow_consumer_ms > 0) else {
            return RoutingLimits::NONE;
        };
        // Withheld acknowledgements do not slow down a publisher that is always read, so the limit is lower. A link is always read,
        // because a message for a slow receiver must not stop those behind it.
        let room = if publisher.link.is_some() || publisher.pressure.is_some() {
            Room::Twice
        } else {
            Room::Any
        };
        RoutingLimits { room, by: None }
    }

    /// Returns the limits that the queue of a receiver applies to the message that is being routed, which takes `size` bytes.
    pub(crate) fn room(&mut self, key: u32, size: usize, now: Instant) -> Room {
        let session = self.sessions.get(usize_of(key));
        let Some(session) = session.filter(|session| session.connection.is_some()) else {
            return Room::Own;
        };
        let is_slow = session.pressure.as_ref().is_some_and(|p| p.is_slow);
        if is_slow || self.press.room == Room::Own {
            return Room::Own;
        }
        if self.press.room == Room::Twice && !session.queue.has_room_twice(size, &self.config) {
            self.mark_slow(key, now);
            return Room::Own;
        }
        self.press.room
    }

    /// Notes that a message was queued: its publisher has to wait if the queue is too full.
    pub(crate) fn note_queued(&mut self, key: u32, share: usize, now: Instant) {
        if self.press.room == Room::Own {
            return;
        }
        let Some(session) = self.sessions.get_mut(usize_of(key)) else {
            return;
        };
        let (Some(connection), name) = (session.connection, (key, session.serial)) else {
            return;
        };
        let fullness = session.queue.fullness(&self.config, share, &self.queued);
        match &session.pressure {
            Some(pressure) if pressure.is_slow => return,
            Some(_) => {}
            None if !fullness.is_high() => return,
            None => {
                self.begin_pressure(key, now);
                // If the receiver is a client that is not being read, it must be read now.
                self.mark_ready(connection);
                if self.waits_too_long(key, now) {
                    self.mark_slow(key, now);
                    return;
                }
            }
        }
        // If other publishers wait for this publisher, it may need its acknowledgement to go on.
        let waits = self.press.room == Room::Any || fullness.is_full();
        let level = fullness.level();
        if waits && self.press.by.is_none_or(|(_, other)| level > other) {
            self.press.by = Some((name, level));
        }
    }

    fn begin_pressure(&mut self, key: u32, now: Instant) {
        let due = self.config.look_at(now, now);
        if let Some(session) = self.sessions.get_mut(usize_of(key)) {
            self.timers.set(due, Due::Receiver(key));
            session.pressure = Some(Box::new(Pressure::new(now, due)));
        }
    }

    /// Notes that a message is for receivers of another shard that are too full: its publisher has to wait.
    pub(crate) fn note_busy_link(&mut self, key: u32, now: Instant) {
        let session = self.sessions.get(usize_of(key));
        let session = session.filter(|session| session.connection.is_some());
        let Some(session) = session.filter(|_| self.press.room == Room::Any) else {
            return;
        };
        let name = (key, session.serial);
        let is_slow = session.pressure.as_ref().map(|pressure| pressure.is_slow);
        if is_slow.is_none() {
            self.begin_pressure(key, now);
        }
        if is_slow != Some(true) && self.press.by.is_none() {
            self.press.by = Some((name, 0));
        }
    }

    /// Acknowledges a message to its publisher, or withholds the acknowledgement while a receiver is too full.
    pub(crate) fn acknowledge_or_hold(
        &mut self,
        index: u32,
        answer: Withheld,
        size: usize,
        by: Option<SessionName>,
    ) {
        let id = self.id(index);
        let by = by.filter(|_| !self.withholds_most(index));
        let pressure = by.and_then(|(key, serial)| {
            let session = self.sessions.get_mut(usize_of(key))?;
            session
                .pressure
                .as_mut()
                .filter(|pressure| session.serial == serial && !pressure.is_slow)
        });
        let records = self.journal.is_some();
        let Some(connection) = self.connections.get_mut(usize_of(index)) else {
            return;
        };
        let (Some(pressure), Some(id), false) = (pressure, id, connection.ended) else {
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
            held.by = by;
            pressure.publishers.insert(id);
        }
    }

    /// Returns whether the next packet of a connection has to wait because receivers of its messages are too full.
    pub(crate) fn is_paused(&self, connection: &Connection, rest: &[u8]) -> bool {
        let Some(held) = connection.extra.as_ref().and_then(|e| e.withheld.as_ref()) else {
            return false;
        };
        let own = connection
            .session
            .and_then(|key| self.sessions.get(usize_of(key)));
        held.is_too_much(&self.config)
            && rest
                .first()
                .is_some_and(|first| first >> 4 == PacketType::Publish.get())
            && own.is_none_or(|own| own.pressure.is_none() && own.link.is_none())
    }

    fn withheld_of(&self, index: u32) -> Option<&WithheldQueue> {
        let connection = self.connections.get(usize_of(index))?;
        connection.extra.as_ref()?.withheld.as_ref()
    }

    /// Returns whether a connection waits for so many acknowledgements that a client would not be read.
    pub(crate) fn withholds_much(&self, index: u32) -> bool {
        let held = self.withheld_of(index);
        held.is_some_and(|held| held.is_too_much(&self.config))
    }

    /// Returns whether a connection is a link that waits for as many acknowledgements as it may.
    fn withholds_most(&self, index: u32) -> bool {
        let held = self.withheld_of(index);
        held.is_some_and(|held| held.receipts.len() > MOST_OF_LINK)
            && self.is_link_connection(index)
    }

    /// Releases the publishers that wait for a receiver, if its queue is no longer too full.
    pub(crate) fn release_if_shorter(&mut self, key: u32) {
        let share = self.fair_share();
        let is_busy = self.links.is_some() && self.is_link_of_busy_shard(key);
        let Some(session) = self.sessions.get_mut(usize_of(key)) else {
            return;
        };
        let over = match &session.pressure {
            None => return,
            Some(pressure) if pressure.is_slow => session.queue.is_empty(),
            Some(_) => {
                let fullness = session.queue.fullness(&self.config, share, &self.queued);
                fullness.is_low() && !is_busy
            }
        };
        if over {
            self.end_pressure(key);
        }
    }

    /// Ends the wait of all publishers for this receiver.
    pub(crate) fn end_pressure(&mut self, key: u32) {
        let session = self.sessions.get_mut(usize_of(key));
        let Some(pressure) = session.and_then(|session| session.pressure.take()) else {
            return;
        };
        if let Some(at) = pressure.timer {
            self.timers.clear(at, Due::Receiver(key));
        }
        self.release(ReleasedAcknowledgements::Waited(pressure.publishers));
    }

    /// Checks a receiver that may have taken nothing for too long.
    pub(crate) fn receiver_due(&mut self, key: u32, now: Instant) {
        let is_busy = self.is_link_of_busy_shard(key);
        let session = self.sessions.get_mut(usize_of(key));
        let Some(pressure) = session.and_then(|session| session.pressure.as_mut()) else {
            return;
        };
        pressure.timer = None;
        if is_busy {
            // The other shard notices its receivers that take nothing.
            pressure.note_taken(now);
        }
        let taken_at = pressure.taken_at;
        let takes_nothing = now.since(taken_at) >= self.config.slow_after();
        if takes_nothing || self.waits_too_long(key, now) {
            self.mark_slow(key, now);
            return;
        }
        let due = self.config.look_at(taken_at, now);
        self.timers.set(due, Due::Receiver(key));
        let session = self.sessions.get_mut(usize_of(key));
        if let Some(pressure) = session.and_then(|session| session.pressure.as_mut()) {
            pressure.timer = Some(due);
        }
        if taken_at < now || is_busy {
            self.release_waiting_receivers(key);
        }
    }

    /// Releases the publishers that wait for this receiver and for which others wait: the receiver may be one of those others.
    fn release_waiting_receivers(&mut self, key: u32) {
        let session = self.sessions.get_mut(usize_of(key));
        let Some(pressure) = session.and_then(|session| session.pressure.as_mut()) else {
            return;
        };
        let publishers = std::mem::take(&mut pressure.publishers);
        self.meter.spend(publishers.len());
        let is_full = |id: &ConnectionId| {
            let session = self.connection(*id).and_then(|own| own.session);
            let session = session.and_then(|key| self.sessions.get(usize_of(key)));
            session.is_some_and(|session| session.pressure.is_some())
        };
        let (circle, others) = publishers.into_iter().partition(is_full);
        let session = self.sessions.get_mut(usize_of(key));
        if let Some(pressure) = session.and_then(|session| session.pressure.as_mut()) {
            pressure.publishers = others;
        }
        self.release(ReleasedAcknowledgements::Waited(circle));
    }

    /// Marks a receiver as too slow to wait for.
    fn mark_slow(&mut self, key: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(usize_of(key)) else {
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
        let connection = self.connection_of(key);
        let Some(session) = self.sessions.get(usize_of(key)) else {
            return;
        };
        self.hooks.observe(&Observation::SlowConsumer {
            connection,
            client_id: &session.client_id,
            messages: session.queue.len(),
        });
        self.release(ReleasedAcknowledgements::Waited(publishers));
    }

    /// Reports that the queue of a session had no room for a message, once until the queue was empty.
    pub(crate) fn report_full_queue(&mut self, key: u32) {
        let connection = self.connection_of(key);
        let Some(session) = self.sessions.get_mut(usize_of(key)) else {
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
        if let Some((key, _)) = held.by
            && let Some(session) = self.sessions.get_mut(usize_of(key))
            && let Some(pressure) = &mut session.pressure
        {
            pressure.publishers.remove(&id);
        }
        self.release(ReleasedAcknowledgements::Gone(from, held.receipts));
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
        // Sends at least one acknowledgement, however small the share of the turn is.
        loop {
            let held = self
                .connection_mut(id)
                .and_then(|connection| connection.extra.as_mut()?.withheld.as_mut());
            let Some(held) = held else { break };
            held.by = None;
            let answer = held.receipts.pop_front();
            if held.receipts.is_empty()
                && let Some(connection) = self.connection_mut(id)
            {
                connection.extra().withheld = None;
                self.tell_idle(id);
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

    /// Returns when to check a receiver that last took something at `taken_at`.
    fn look_at(&self, taken_at: Instant, now: Instant) -> Instant {
        let look = LOOK_MS.min(self.slow_consumer_ms.div_ceil(2));
        let look = now.after(Duration::from_millis(u64::from(look)));
        look.min(taken_at.after(self.slow_after()))
    }
}
