//! Limits the time of handshakes: while other connections need the thread, handshakes get a fifth of it; otherwise all of it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use mqtt_broker::ConnectionId;
use tokio::time::{Instant, Sleep, sleep_until};

/// Handshakes get one part in this many of the time while other connections are served.
const SHARE: u32 = 5;
/// How long after the last service other connections count as being served: longer than the time between two of their packets.
const BUSY: Duration = Duration::from_millis(2);
/// How much unused time handshakes may use later.
const SAVED: Duration = Duration::from_millis(2);

/// The connections in a handshake that have something to read, and the time of the next step.
#[derive(Debug)]
pub(crate) struct Pace {
    waiting: VecDeque<ConnectionId>,
    /// When other connections were last served while a handshake waited.
    others_at: Option<Instant>,
    /// The time until which the share of handshakes is used.
    used_until: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            waiting: VecDeque::new(),
            others_at: None,
            used_until: now,
            sleep: Box::pin(sleep_until(now)),
        }
    }

    pub(crate) fn add(&mut self, id: ConnectionId) {
        self.waiting.push_back(id);
    }

    /// Notes that a connection was served that is not in a handshake.
    pub(crate) fn served_others(&mut self) {
        if !self.waiting.is_empty() {
            self.others_at = Some(Instant::now());
        }
    }

    /// Returns the connection whose next step may be done now. Otherwise wakes the task when one may.
    pub(crate) fn next(&mut self, cx: &mut Context<'_>) -> Option<ConnectionId> {
        if self.waiting.is_empty() {
            return None;
        }
        let now = Instant::now();
        let is_busy = self.others_at.is_some_and(|at| now < at + BUSY);
        if is_busy && now < self.used_until {
            self.sleep.as_mut().reset(self.used_until);
            if self.sleep.as_mut().poll(cx).is_pending() {
                return None;
            }
        }
        self.waiting.pop_front()
    }

    /// Notes how long a step took.
    pub(crate) fn took(&mut self, step: Duration, now: Instant) {
        let from = self.used_until.max(now.checked_sub(SAVED).unwrap_or(now));
        self.used_until = from + step * SHARE;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use mqtt_broker::{Broker, Config, Hooks};
    use mqtt_session::Instant as Now;

    use super::*;

    struct Open;

    impl Hooks for Open {
        fn unguessable(&mut self) -> u128 {
            0
        }
    }

    /// Returns how many steps of a millisecond are done within a second, if other connections are served each millisecond, or
    /// not.
    fn steps(others: bool) -> u32 {
        let mut broker = Broker::new(Config::default(), Open, Now::from_millis(0));
        let id = broker.open(Now::from_millis(0)).unwrap();
        let mut pace = Pace::new();
        let mut cx = Context::from_waker(Waker::noop());
        let (start, mut at) = (Instant::now(), Duration::ZERO);
        let mut steps = 0;
        pace.add(id);
        while at < Duration::from_secs(1) {
            if others {
                pace.others_at = Some(start + at + BUSY);
            }
            // Sets the clock of the test.
            pace.used_until = pace.used_until.checked_sub(at).unwrap();
            let next = pace.next(&mut cx);
            pace.used_until += at;
            if let Some(id) = next {
                steps += 1;
                pace.took(Duration::from_millis(1), start + at);
                pace.add(id);
            }
            at += Duration::from_millis(1);
        }
        steps
    }

    #[tokio::test]
    async fn handshakes_take_a_fifth_of_the_time_of_others() {
        assert_eq!(steps(false), 1_000);
        let beside_others = steps(true);
        assert!((190..=210).contains(&beside_others), "{beside_others}");
    }
}
