//! The times of a connection.
//!
//! Time is counted in milliseconds of 32 bits that wrap around. Only the span between two moments is compared, which may be up
//! to 24 days long. [`crate::Instant`], in the public interface, has 64 bits.

/// A span without an end.
pub(crate) const NEVER: u32 = u32::MAX;

/// When packets went and came, and how long the peer may be silent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// The silence in milliseconds after which a client sends PINGREQ, or a server ends the connection; 0 is off.
    pub(crate) silence_limit: u32,
    /// When a packet last became outgoing. The transport sends it no earlier, so a ping is never late.
    pub(crate) last_sent: u32,
    /// When a packet last arrived. A client that only sends needs this to notice that the server does not answer any more.
    pub(crate) last_heard: u32,
    /// When the oldest request without an answer was sent: CONNECT or PINGREQ.
    pub(crate) asked_at: u32,
    pub(crate) awaits_answer: bool,
    /// Whether there may be input that was not processed.
    pub(crate) unread: bool,
    /// Whether the answer was overdue already when that input arrived.
    pub(crate) was_overdue: bool,
}

impl Times {
    /// Starts the wait for CONNECT or its answer, when the transport is opened.
    pub(crate) const fn opened(&mut self, now: u32) {
        (self.last_sent, self.last_heard, self.asked_at) = (now, now, now);
        self.awaits_answer = true;
    }

    /// Sets the keep-alive of a client. The last eighth of it is time for the way to the server: 3.1.1 [MQTT-3.1.2-23],
    /// 5 [MQTT-3.1.2-20].
    pub(crate) fn pings_every(&mut self, seconds: u16) {
        self.silence_limit = u32::from(seconds).wrapping_mul(875);
    }

    /// Ends the wait for CONNACK.
    pub(crate) const fn accepted(&mut self, now: u32) {
        (self.last_sent, self.awaits_answer) = (now, false);
    }

    /// Sets the keep-alive of a server: one and a half times the client's, or what is configured (3.1.1 [MQTT-3.1.2-24],
    /// 5 [MQTT-3.1.2-22]).
    #[cfg(feature = "server")]
    pub(crate) fn watches(&mut self, seconds: u16, percent: u16, now: u32) {
        let silence_limit = u32::from(seconds).wrapping_mul(10);
        *self = Self {
            silence_limit: silence_limit.saturating_mul(u32::from(percent)),
            last_heard: now,
            ..Self::default()
        };
    }

    pub(crate) const fn sent(&mut self, now: u32) {
        self.last_sent = now;
    }

    /// Notes that there is input that was not processed.
    #[cfg(feature = "server")]
    pub(crate) const fn input_waits(&mut self) {
        self.unread = true;
    }

    pub(crate) const fn answered(&mut self) {
        self.awaits_answer = false;
    }
}

/// Returns how long ago a moment was. The result is 0 for a moment to come, because clocks that are read in several places may
/// seem to go back.
pub(crate) const fn since(then: u32, now: u32) -> u32 {
    let span = now.wrapping_sub(then);
    if span > NEVER / 2 { 0 } else { span }
}

/// Returns how much is left of a span that began at `then`.
pub(crate) const fn left(then: u32, span: u32, now: u32) -> u32 {
    span.saturating_sub(since(then, now))
}
