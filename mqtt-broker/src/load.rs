//! Load averages: how much of something happens in a minute, averaged over 1, 5 and 15 minutes.
//!
//! At each look, with `t` since the last one and `rate` the count since then in a minute, an average over a time `T` becomes
//! `rate + (average - rate) * exp(-t / T)`: what was longer ago counts less. Mosquitto's averages of the same names have this formula.

use core::time::Duration;

/// The times that averages are over, and their names in topics.
pub(crate) const PERIODS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

/// Changes that are smaller are not told.
const LEAST_CHANGE: f64 = 0.01;

/// The averages of one count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    averages: [f64; PERIODS.len()],
    count: u64,
}

impl Load {
    /// Takes the present count, `elapsed` after the last time. Returns each average that has changed.
    pub(crate) fn update(&mut self, count: u64, elapsed: Duration) -> [Option<f64>; PERIODS.len()] {
        let new = u32::try_from(count.saturating_sub(self.count)).unwrap_or(u32::MAX);
        self.count = count;
        let seconds = elapsed.as_secs_f64();
        let mut changed = [None; PERIODS.len()];
        if seconds <= 0.0 {
            return changed;
        }
        let rate = f64::from(new) * 60.0 / seconds;
        let all = self.averages.iter_mut().zip(PERIODS).zip(&mut changed);
        for ((average, (_, period)), changed) in all {
            let before = *average;
            *average = rate + (before - rate) * (-seconds / period).exp();
            *changed = ((*average - before).abs() >= LEAST_CHANGE).then_some(*average);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn is_near(average: Option<f64>, expected: f64) -> bool {
        average.is_some_and(|average| (average - expected).abs() < 0.005)
    }

    /// 100 within 10 seconds are 600 a minute. The expected averages are computed by hand: 600 * (1 - exp(-10 / 60)) and so on.
    #[test]
    fn an_average_follows_its_formula() {
        let mut load = Load::default();
        let first = load.update(100, 10 * SECOND);
        for (average, expected) in first.into_iter().zip([92.111, 19.670, 6.630]) {
            assert!(is_near(average, expected), "{first:?}");
        }
        // Nothing more: 92.111 * exp(-10 / 60) and so on.
        let then = load.update(100, 10 * SECOND);
        for (average, expected) in then.into_iter().zip([77.970, 19.025, 6.557]) {
            assert!(is_near(average, expected), "{then:?}");
        }
    }

    /// The same rate for long enough is the average, however often it is looked at.
    #[test]
    fn an_average_of_a_steady_rate_is_the_rate() {
        for (interval, looks) in [(1, 4_000), (10, 1_000)] {
            let mut load = Load::default();
            for look in 1..=looks {
                load.update(
                    look * 5 * interval,
                    u32::try_from(interval).unwrap() * SECOND,
                );
            }
            let steady = load
                .averages
                .iter()
                .all(|average| (average - 300.0).abs() < 5.0);
            assert!(steady, "{load:?}");
            // It does not change any more in 1 minute, so nothing is told.
            let last = load.update(
                (looks + 1) * 5 * interval,
                u32::try_from(interval).unwrap() * SECOND,
            );
            assert_eq!(last[0], None);
        }
    }

    #[test]
    fn no_time_changes_nothing() {
        let mut load = Load::default();
        assert_eq!(load.update(5, Duration::ZERO), [None; 3]);
        assert_eq!(load.averages, [0.0; 3]);
    }
}
