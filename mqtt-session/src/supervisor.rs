//! Decides when to dial again. The caller supplies time and random numbers.

use core::time::Duration;

use crate::time::Instant;

/// The waits between attempts to connect.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BackOff {
    /// The upper limit of the first wait. Default 1 s. The first wait is a random time from nothing to this, so that clients
    /// which lost the same broker together do not come back together. Each later wait is random as well, but at least half of
    /// the doubled one.
    pub first: Duration,
    /// The longest wait. Default 60 s.
    pub longest: Duration,
    /// How long a connection must have lasted, from CONNACK, for the next wait to be a first one again. Default 1 s. A broker
    /// that ends connections on purpose, because it is overloaded or rejects what the client sends, does so right after
    /// CONNACK, and the waits grow. A connection that lasted longer was a good one, however short.
    pub stable_after: Duration,
    /// How many attempts in a row may fail to make a connection that lasts [`Self::stable_after`]. Default `None`: no limit.
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

/// When to open a transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NextDial {
    /// Open one now.
    Now,
    /// Ask again at this time, or after any other call.
    At(Instant),
    /// Open no more: [`BackOff::attempts`] are used up or, for an agent, it is closed.
    Never,
}

/// Decides when to dial.
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
    /// Makes a supervisor whose first dial is due at once.
    #[must_use]
    pub const fn new(back_off: BackOff) -> Self {
        Self {
            back_off,
            failures: 0,
            connected_at: None,
            dial_at: Instant::from_millis(0),
        }
    }

    /// Returns when to dial.
    #[must_use]
    pub fn next_dial(&self, now: Instant) -> NextDial {
        match self.back_off.attempts {
            Some(attempts) if self.failures >= attempts => NextDial::Never,
            _ if now >= self.dial_at => NextDial::Now,
            _ => NextDial::At(self.dial_at),
        }
    }

    /// Takes note that CONNACK arrived.
    pub const fn connected(&mut self, now: Instant) {
        self.connected_at = Some(now);
    }

    /// Takes note that a connection, or an attempt to make one, has ended. `random` is any number. The first wait is random as
    /// a whole, later ones by half.
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

    /// Returns how many attempts in a row have failed.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the wait after the end of a connection or attempt, in milliseconds.
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

    /// Clients that lost the same broker at the same moment come back spread over all of the first wait.
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

    /// A broker that ends connections right after CONNACK gets fewer attempts with time.
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

    /// Connections that lasted long enough never make the wait grow, and the first of them resets what failures have added.
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
