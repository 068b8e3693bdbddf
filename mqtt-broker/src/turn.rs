//! Divides work into turns: each call of the host does a bounded amount of work. The next calls of [`Broker::tick`] do the rest,
//! a portion of each kind at a time.

use mqtt_session::Instant;
use mqtt_session::proto::ReasonCode;

use crate::broker::Broker;
use crate::hooks::{Ending, Hooks};
use crate::keys::{ConnectionKey, SessionKey};
use crate::timers::Due;

/// How many steps a session with messages to send may take before the next one has its turn.
const SESSION_STEPS: u64 = 512;

impl<H: Hooks> Broker<H> {
    /// Handles the passing of time, and does a portion of the remaining work. Call it at [`Self::deadline`].
    pub fn tick(&mut self, now: Instant) {
        self.begin(now);
        // Wills that are due must find their receivers in all shards.
        let is_ready = self.serves_other_shards();
        while is_ready
            && self.meter.has_share()
            && let Some(due) = self.timers.pop(now)
        {
            self.meter.spend(4);
            match due {
                Due::Connection(index) => self.connection_due(index, now),
                Due::Session(key) => self.session_due(key, now),
                Due::Receiver(key) => self.receiver_due(key, now),
                Due::Statistics => {
                    self.publish_statistics(now);
                    if let Some(at) = self.config.statistics_due(now) {
                        self.timers.set(at, Due::Statistics);
                    }
                }
                Due::Loads => self.publish_loads(now),
            }
        }
        self.work(now);
        self.settle();
    }

    /// Returns when [`Self::tick`] is to be called at the latest. A past time means that work remains: call it again after the
    /// connections have had their turn.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.has_work() {
            Some(Instant::from_millis(0))
        } else if self.serves_other_shards() {
            self.timers.next()
        } else {
            // Nothing is done at a time before that.
            None
        }
    }

    /// Returns how many steps of work were done so far; see [`crate::Config::turn_steps`].
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.meter.taken()
    }

    /// Returns how many steps one connection may take in a turn: [`crate::Config::turn_steps`], or 1 if that is 0.
    #[must_use]
    pub fn share(&self) -> u64 {
        u64::from(self.config.turn_steps.max(1))
    }

    fn has_work(&self) -> bool {
        self.purging
            || !self.sessions_with_work.is_empty()
            || !self.fanouts.is_empty()
            || !self.to_other_members.is_empty()
            || self.has_unsure()
            || !self.released_acknowledgements.is_empty()
            || !self.ending_sessions.is_empty()
    }

    /// Does a portion of each kind of remaining work.
    fn work(&mut self, now: Instant) {
        self.begin_share();
        for _ in 0..self.sessions_with_work.len() {
            if !self.meter.has_share() {
                break;
            }
            self.work_for_next_session(now);
        }
        self.begin_share();
        self.continue_fanout(now);
        self.begin_share();
        self.continue_handing_over(now);
        self.begin_share();
        self.continue_unsure(now);
        self.begin_share();
        self.continue_releasing();
        self.begin_share();
        self.continue_ending();
        if self.purging {
            self.purging = self.purge_retained(PURGED, now);
        }
    }

    /// Begins a call of the host.
    pub(crate) fn begin(&mut self, now: Instant) {
        if let Some(journal) = &mut self.journal {
            journal.note_time(now);
        }
        self.begin_share();
    }

    /// Begins the share of one kind of work.
    pub(crate) fn begin_share(&mut self) {
        self.meter.begin(self.config.turn_steps);
    }

    /// Notes that the session has more to send than this turn allows.
    pub(crate) fn work_for(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && !session.at_work
        {
            session.at_work = true;
            self.sessions_with_work.push_back(key);
        }
    }

    fn work_for_next_session(&mut self, now: Instant) {
        let Some(key) = self.sessions_with_work.pop_front() else {
            return;
        };
        let session = self.sessions.get_mut(key);
        let Some(session) = session.filter(|session| session.at_work) else {
            return;
        };
        session.at_work = false;
        let until = self.meter.limit_share(SESSION_STEPS);
        self.pump(key, now);
        self.send_retained(key, now);
        self.repair_retained(key, now);
        self.meter.spend(1);
        self.meter.restore_share(until);
    }

    fn connection_due(&mut self, index: ConnectionKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        connection.timer = None;
        if connection.ended {
            return;
        }
        if connection.session.is_none() && connection.server.deadline().is_none() {
            // CONNECT came in time, but the decision on it did not: the client may be right, and try again.
            self.refuse(index, ReasonCode::ServerBusy, now);
            return;
        }
        match connection.server.tick(now) {
            Ok(()) => self.schedule(index),
            Err(violation) => self.end(index, Ending::Failed(violation), now),
        }
    }

    /// Sets the timer of a connection to its deadline.
    pub(crate) fn schedule(&mut self, index: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        let due = Due::Connection(index);
        if let Some(old) = connection.timer.take() {
            self.timers.clear(old, due);
        }
        connection.timer = connection.server.deadline();
        if let Some(at) = connection.timer {
            self.timers.set(at, due);
        }
    }
}

/// How many expired retained messages are removed in one turn.
const PURGED: usize = 512;
