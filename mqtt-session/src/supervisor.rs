//! When to dial again, decided without a clock and without randomness of its own.

use core::time::Duration;

use crate::time::Instant;

/// How reconnection backs off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BackOff {
    /// The first wait. Default 500 ms.
    pub first: Duration,
    /// The longest wait. Default 60 s.
    pub longest: Duration,
    /// How long a connection must have stayed up before the next wait starts from [`Self::first`] again. Default 30 s.
    /// A broker that ends each connection right after CONNACK is therefore asked ever less often.
    pub stable_after: Duration,
    /// How many times in a row to dial without a stable connection; `None` for ever. Default `None`.
    pub attempts: Option<u32>,
}

impl Default for BackOff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(60),
            stable_after: Duration::from_secs(30),
            attempts: None,
        }
    }
}

/// What to do about the connection now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Dial.
    Dial,
    /// Wait until then.
    Wait(Instant),
    /// Stop: [`BackOff::attempts`] are used up.
    GiveUp,
}

/// Decides about dialling.
///
/// ```
/// use mqtt_session::{BackOff, Instant, Next, Supervisor};
/// let mut supervisor = Supervisor::new(BackOff::default());
/// let now = Instant::from_millis(0);
/// assert_eq!(supervisor.next(now), Next::Dial);
/// supervisor.lost(now, u32::MAX); // the second number is random
/// assert_eq!(supervisor.next(now), Next::Wait(Instant::from_millis(500)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Supervisor {
    back_off: BackOff,
    failures: u32,
    connected_at: Option<Instant>,
    dial_at: Instant,
}

impl Supervisor {
    /// Dials at once, the first time.
    #[must_use]
    pub const fn new(back_off: BackOff) -> Self {
        Self {
            back_off,
            failures: 0,
            connected_at: None,
            dial_at: Instant::from_millis(0),
        }
    }

    /// What to do now.
    #[must_use]
    pub fn next(&self, now: Instant) -> Next {
        match self.back_off.attempts {
            Some(attempts) if self.failures >= attempts => Next::GiveUp,
            _ if now >= self.dial_at => Next::Dial,
            _ => Next::Wait(self.dial_at),
        }
    }

    /// CONNACK came.
    pub const fn connected(&mut self, now: Instant) {
        self.connected_at = Some(now);
    }

    /// The connection, or the attempt, is over. `random` is any number: half of the wait is jitter.
    pub fn lost(&mut self, now: Instant, random: u32) {
        let stable = self
            .connected_at
            .take()
            .is_some_and(|since| now.since(since) >= self.back_off.stable_after);
        if stable {
            self.failures = 0;
        }
        let doubled = self
            .back_off
            .first
            .saturating_mul(1_u32.wrapping_shl(self.failures.min(31)));
        let wait = doubled.min(self.back_off.longest);
        self.failures = self.failures.saturating_add(1);
        let half = u64::try_from(wait.as_millis() / 2).unwrap_or(u64::MAX);
        let jitter = u64::from(random).saturating_mul(half.saturating_add(1)) >> 32;
        self.dial_at = now.plus(half).plus(jitter);
    }

    /// How many times in a row it failed.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_after(supervisor: &mut Supervisor, now: Instant, random: u32) -> u64 {
        supervisor.lost(now, random);
        match supervisor.next(now) {
            Next::Wait(until) => u64::try_from(until.since(now).as_millis()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_jittered_by_half() {
        let mut supervisor = Supervisor::new(BackOff::default());
        let now = Instant::from_millis(1_000);
        let waits: [u64; 9] = core::array::from_fn(|_| wait_after(&mut supervisor, now, 0));
        assert_eq!(
            waits,
            [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
        );
        assert_eq!(wait_after(&mut supervisor, now, u32::MAX), 60_000);
    }

    /// A broker that kicks right after CONNACK does not cause a storm: only a connection that stayed up resets the wait.
    #[test]
    fn only_a_connection_that_stayed_up_resets_the_wait() {
        let mut supervisor = Supervisor::new(BackOff::default());
        let mut now = Instant::from_millis(0);
        for expected in [250, 500, 1_000] {
            supervisor.connected(now);
            now = now.plus(5);
            assert_eq!(wait_after(&mut supervisor, now, 0), expected);
        }
        supervisor.connected(now);
        now = now.plus(30_000);
        assert_eq!(wait_after(&mut supervisor, now, 0), 250);
    }

    #[test]
    fn attempts_run_out() {
        let mut supervisor = Supervisor::new(BackOff {
            attempts: Some(2),
            ..BackOff::default()
        });
        let now = Instant::from_millis(0);
        supervisor.lost(now, 0);
        assert!(matches!(supervisor.next(now), Next::Wait(_)));
        supervisor.lost(now, 0);
        assert_eq!(supervisor.next(now), Next::GiveUp);
    }
}
