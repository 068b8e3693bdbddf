//! Notices that publishers wait again and again for a receiver that takes messages more slowly than they come.

use std::time::Duration;

use mqtt_session::Instant;

use crate::broker::Broker;
use crate::hooks::{Hooks, Observation};
use crate::keys::SessionKey;

/// When the queue of a receiver was not too full for this time, publishers do not wait for it any more. While the queue is too full,
/// that is noted about each second.
const PAUSE: Duration = Duration::from_secs(2);

/// The time in which publishers wait for a receiver, send as much as it has taken, and wait again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongWait {
    since: Instant,
    /// When the queue was too full last.
    last: Instant,
    /// Whether it was observed.
    is_told: bool,
}

impl LongWait {
    const fn new(now: Instant) -> Self {
        Self {
            since: now,
            last: now,
            is_told: false,
        }
    }

    /// Notes that the queue is too full, and returns how long publishers wait.
    fn goes_on(&mut self, now: Instant) -> Duration {
        if now.since(self.last) > PAUSE {
            *self = Self::new(now);
        }
        self.last = now;
        now.since(self.since)
    }
}

impl<H: Hooks> Broker<H> {
    /// Notes that the queue of a receiver is too full, and reports the receiver once if publishers wait long for it. Returns whether they
    /// have waited as long as they may.
    pub(crate) fn waits_too_long(&mut self, key: SessionKey, now: Instant) -> bool {
        let connection = self.connection_of(key);
        let session = self.sessions.get_mut(key);
        // Another shard notices its own receivers.
        let Some(session) = session.filter(|session| session.link.is_none()) else {
            return false;
        };
        let wait = session
            .long_wait
            .get_or_insert_with(|| LongWait::new(now).into());
        let waited = wait.goes_on(now);
        let most = Duration::from_millis(u64::from(self.config.publisher_wait_ms));
        if !most.is_zero() && waited >= most {
            return true;
        }
        if waited >= self.config.slow_after() && !std::mem::replace(&mut wait.is_told, true) {
            self.hooks.observe(&Observation::PublishersWait {
                connection,
                client_id: &session.client_id,
                messages: session.queue.len(),
            });
        }
        false
    }
}
