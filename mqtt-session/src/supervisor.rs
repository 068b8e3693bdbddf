//! When to dial again, decided without a clock and without randomness of its own.

use core::time::Duration;

use crate::time::Instant;

/// How reconnection backs off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BackOff {
    /// The longest first wait. Default 1 s. The first wait is anything from nothing to this, so that clients which lost the
    /// same broker together come back one by one; each later wait is at least half of the one that is due.
    pub first: Duration,
    /// The longest wait. Default 60 s.
    pub longest: Duration,
    /// How long a connection must have lasted, from CONNACK, for the next wait to be a first one again. Default 1 s: a broker
    /// that ends connections on purpose, because it is overloaded or does not like what the client sends, does so right
    /// after CONNACK, and is asked ever less often; what lasted longer was a good connection, however short.
    pub stable_after: Duration,
    /// How many times in a row to dial without a connection that lasted [`Self::stable_after`]; `None` for ever. Default `None`.
    pub attempts: Option<u32>,
}

impl Default for BackOff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            stable_after: Duration::from_secs(1),
            attempts: None,
        }
    }
}

/// When a transport is to be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NextDial {
    /// Open one now.
    Now,
    /// Ask again at this time, or after any other call.
    At(Instant),
    /// Open none any more: [`BackOff::attempts`] are used up or, of an agent, it is closed.
    Never,
}

/// Decides about dialling.
///
/// ```
/// use mqtt_session::{BackOff, Instant, NextDial, Supervisor};
/// let mut supervisor = Supervisor::new(BackOff::default());
/// let now = Instant::from_millis(0);
/// assert_eq!(supervisor.next_dial(now), NextDial::Now);
/// supervisor.lost(now, u32::MAX); // the second number is random
/// assert_eq!(supervisor.next_dial(now), NextDial::At(Instant::from_millis(1_000)));
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
    pub fn next_dial(&self, now: Instant) -> NextDial {
        match self.back_off.attempts {
            Some(attempts) if self.failures >= attempts => NextDial::Never,
            _ if now >= self.dial_at => NextDial::Now,
            _ => NextDial::At(self.dial_at),
        }
    }

    /// CONNACK came.
    pub const fn connected(&mut self, now: Instant) {
        self.connected_at = Some(now);
    }

    /// The connection, or the attempt, is over. `random` is any number: of the first wait all is jitter, of others half.
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
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let certain = if self.failures == 0 { 0 } else { wait / 2 };
        self.failures = self.failures.saturating_add(1);
        let range = wait.saturating_sub(certain).saturating_add(1);
        let jitter = u64::from(random).saturating_mul(range) >> 32;
        self.dial_at = now.plus(certain).plus(jitter);
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

    /// How long it waits after the end of a connection or attempt.
    fn wait_after(supervisor: &mut Supervisor, now: Instant, random: u32) -> u64 {
        supervisor.lost(now, random);
        match supervisor.next_dial(now) {
            NextDial::At(until) => u64::try_from(until.since(now).as_millis()).unwrap(),
            NextDial::Now => 0,
            NextDial::Never => panic!("it gives up"),
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_jittered_by_half() {
        let now = Instant::from_millis(1_000);
        for (random, expected) in [
            (0, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]),
            (
                u32::MAX,
                [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000],
            ),
        ] {
            let mut supervisor = Supervisor::new(BackOff::default());
            let waits: [u64; 8] =
                core::array::from_fn(|_| wait_after(&mut supervisor, now, random));
            assert_eq!(waits, expected);
        }
    }

    /// Clients that lost the same broker at the same moment come back over all of the first wait.
    #[test]
    fn the_first_wait_spreads_many_clients() {
        let now = Instant::from_millis(1_000);
        let mut each_tenth = [0; 10];
        for client in 0..1_000_u32 {
            let mut supervisor = Supervisor::new(BackOff::default());
            let random = client.wrapping_mul(0x9E37_79B9);
            let wait = wait_after(&mut supervisor, now, random);
            each_tenth[usize::try_from(wait.min(999) / 100).unwrap()] += 1;
        }
        assert!(
            each_tenth.iter().all(|count| (80..=120).contains(count)),
            "{each_tenth:?}"
        );
    }

    /// A broker that kicks right after CONNACK does not cause a storm: the wait grows.
    #[test]
    fn a_broker_that_ends_connections_right_after_connack_is_asked_ever_less_often() {
        let mut supervisor = Supervisor::new(BackOff::default());
        let mut now = Instant::from_millis(0);
        for expected in [0, 1_000, 2_000, 4_000, 8_000] {
            supervisor.connected(now);
            now = now.plus(999);
            assert_eq!(wait_after(&mut supervisor, now, 0), expected);
        }
    }

    /// Good connections, however short, never make the wait grow, and the first of them ends what failures did to it.
    #[test]
    fn after_a_good_but_short_connection_the_retry_comes_soon() {
        let mut supervisor = Supervisor::new(BackOff::default());
        let mut now = Instant::from_millis(0);
        for _ in 0..6 {
            supervisor.lost(now, 0);
        }
        for _ in 0..20 {
            supervisor.connected(now);
            now = now.plus(1_000);
            assert_eq!(wait_after(&mut supervisor, now, u32::MAX), 1_000);
            assert_eq!(supervisor.failures(), 1);
        }
    }

    #[test]
    fn attempts_run_out() {
        let mut supervisor = Supervisor::new(BackOff {
            attempts: Some(2),
            ..BackOff::default()
        });
        let now = Instant::from_millis(0);
        supervisor.lost(now, u32::MAX);
        assert!(matches!(supervisor.next_dial(now), NextDial::At(_)));
        supervisor.lost(now, u32::MAX);
        assert_eq!(supervisor.next_dial(now), NextDial::Never);
    }
}
