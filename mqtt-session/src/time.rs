//! The time of the caller's clock.

use core::time::Duration;

/// A moment on the caller's monotonic clock, in milliseconds since a start that the caller chooses.
///
/// Arithmetic saturates, so a clock that stands still or jumps cannot cause a panic.
///
/// ```
/// use core::time::Duration;
/// use mqtt_session::Instant;
/// let later = Instant::from_millis(1_000).after(Duration::from_secs(2));
/// assert_eq!(later.as_millis(), 3_000);
/// assert_eq!(later.since(Instant::from_millis(500)), Duration::from_millis(2_500));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Instant(u64);

impl Instant {
    /// Returns the moment `millis` milliseconds after the start of the clock.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the start of the clock.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the moment that is `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        self.plus(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub(crate) const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Returns the moment as the engine counts it: in 32 bits, which wrap around.
    pub(crate) const fn wrapped(self) -> u32 {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}
