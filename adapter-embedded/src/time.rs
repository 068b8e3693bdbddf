//! Clocks and timers: the adapter asks them for the time, and has no clock of its own.

use mqtt_session::Instant;

/// A monotonic clock. A closure that returns milliseconds is one; [`Millis32`] makes one of a counter of 32 bits.
pub trait Clock {
    /// Returns the milliseconds since any fixed start. The value never decreases, also not between connections.
    fn now(&mut self) -> Instant;

    /// Called when no byte has arrived and nothing is due before `until`, or at any time with `None`. It may sleep until an
    /// interrupt, but not longer than `until`; the transport is read afterwards. The default implementation returns at once.
    ///
    /// The interrupt of a byte may come after the transport was asked for bytes and before the processor sleeps, and must end that sleep
    /// as well. On a Cortex-M, WFE does that: it returns at once if an interrupt was served since the last one. WFI does not: either look
    /// for bytes with interrupts masked, call it while they are masked (one that is pending ends it), and unmask them, or let a timer
    /// interrupt often. Otherwise the byte waits for the next interrupt, which with keep-alive 0 may never come.
    fn idle(&mut self, until: Option<Instant>) {
        let _ = until;
    }
}

impl<F: FnMut() -> u64> Clock for F {
    fn now(&mut self) -> Instant {
        Instant::from_millis(self())
    }
}

/// A clock from a counter of milliseconds that wraps after 49 days, such as one that SysTick counts. It must be called at
/// least once in that time; keep-alive does that.
///
/// ```
/// use mqtt_embedded::{Clock, Millis32};
/// let mut readings = [u32::MAX, 4].into_iter();
/// let mut clock = Millis32::new(|| readings.next().unwrap_or_default());
/// let before = clock.now();
/// assert_eq!(clock.now().since(before).as_millis(), 5);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Millis32<F> {
    counter: F,
    now: u64,
    last: u32,
}

impl<F: FnMut() -> u32> Millis32<F> {
    /// Makes a clock of a function that reads the counter.
    pub const fn new(counter: F) -> Self {
        Self {
            counter,
            now: 0,
            last: 0,
        }
    }
}

impl<F: FnMut() -> u32> Clock for Millis32<F> {
    fn now(&mut self) -> Instant {
        let reading = (self.counter)();
        self.now = self
            .now
            .saturating_add(u64::from(reading.wrapping_sub(self.last)));
        self.last = reading;
        Instant::from_millis(self.now)
    }
}

/// A clock that can be awaited.
#[cfg(feature = "async")]
pub trait Timer {
    /// Returns the time like [`Clock::now`].
    fn now(&mut self) -> Instant;

    /// Waits until `at` or a little longer; without end for `None`.
    #[allow(async_fn_in_trait, reason = "firmware has one core and no Send")]
    async fn until(&mut self, at: Option<Instant>);
}

/// The clock and timer of Embassy.
#[cfg(feature = "embassy-time")]
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbassyTime;

#[cfg(feature = "embassy-time")]
impl Clock for EmbassyTime {
    fn now(&mut self) -> Instant {
        Instant::from_millis(embassy_time::Instant::now().as_millis())
    }
}

#[cfg(all(feature = "embassy-time", feature = "async"))]
impl Timer for EmbassyTime {
    fn now(&mut self) -> Instant {
        Clock::now(self)
    }

    async fn until(&mut self, at: Option<Instant>) {
        match at {
            Some(at) => {
                embassy_time::Timer::at(embassy_time::Instant::from_millis(at.as_millis())).await;
            }
            None => core::future::pending().await,
        }
    }
}
