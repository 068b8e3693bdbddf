//! Stores the times at which connections and sessions are to be checked. A connection has at most one entry, and its deadline is
//! read when the entry is due: each packet moves the deadline, but not the entry.

use std::collections::BTreeSet;

use crate::keys::{ConnectionKey, SessionKey};
use mqtt_session::Instant;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Due {
    /// Check the deadline of a connection.
    Connection(ConnectionKey),
    /// A session without a connection ends, or its will is due.
    Session(SessionKey),
    /// A receiver may have taken nothing for too long.
    Receiver(SessionKey),
    /// The statistics are published.
    Statistics,
    /// The load averages are published, after the other statistics.
    Loads,
}

#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, Due)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, due: Due) {
        self.0.insert((at, due));
    }

    pub(crate) fn clear(&mut self, at: Instant, due: Due) {
        self.0.remove(&(at, due));
    }

    /// Returns whether there is an entry for this. Visits every entry.
    pub(crate) fn has(&self, due: Due) -> bool {
        self.0.iter().any(|(_, other)| *other == due)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<Due> {
        let first = self.0.first().copied().filter(|(at, _)| *at <= now)?;
        self.0.remove(&first);
        Some(first.1)
    }
}
