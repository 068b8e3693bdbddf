//! Keep-alive from both ends (section 3.1.2.10). Neither judges the peer while input it has not looked at may be
//! waiting: an application that is slow to take messages must not look like a dead peer.
//!
//! Time is counted in milliseconds of 32 bits that wrap around, and only spans between two moments are compared: up to 24 days of
//! them. [`crate::Instant`] has 64 bits, at the edge.

use mqtt_proto::PacketType;

use crate::engine::Engine;
use crate::link::Phase;
use crate::memory::Memory;
use crate::problem::Problem;

/// A span that does not end.
const NEVER: u32 = u32::MAX;

/// What a connection knows of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// A client pings after so long, a server ends the connection after so much silence; 0 is off.
    patience: u32,
    /// When something was last given to the transport's queue: not later than it is sent, so pings are never late.
    last_sent: u32,
    /// When something last came: one who only sends must notice as well that nobody listens any more.
    last_heard: u32,
    /// Since when an answer is awaited, to CONNECT or to the oldest PINGREQ without one.
    asked: u32,
    waits: bool,
    /// There may be input that was not looked at.
    unread: bool,
    /// When that came, the answer was overdue already.
    late: bool,
}

impl Times {
    /// The transport is open: nothing but CONNECT or its answer is waited for.
    pub(crate) const fn opened(&mut self, now: u32) {
        (self.last_sent, self.last_heard, self.asked) = (now, now, now);
        self.waits = true;
    }

    /// The last eighth of the keep-alive is for the way: 3.1.1 [MQTT-3.1.2-23], 5 [MQTT-3.1.2-20].
    pub(crate) fn pings_every(&mut self, seconds: u16) {
        self.patience = u32::from(seconds).wrapping_mul(875);
    }

    /// CONNACK came.
    pub(crate) const fn accepted(&mut self, now: u32) {
        (self.last_sent, self.waits) = (now, false);
    }

    /// One and a half keep-alives, or what is configured: 3.1.1 [MQTT-3.1.2-24], 5 [MQTT-3.1.2-22].
    #[cfg(feature = "server")]
    pub(crate) fn watches(&mut self, seconds: u16, percent: u16, now: u32) {
        let patience = u32::from(seconds).wrapping_mul(10);
        *self = Self {
            patience: patience.saturating_mul(u32::from(percent)),
            last_heard: now,
            ..Self::default()
        };
    }

    #[inline]
    pub(crate) const fn sent(&mut self, now: u32) {
        self.last_sent = now;
    }

    /// There is input that is not looked at yet.
    #[cfg(feature = "server")]
    pub(crate) const fn input_waits(&mut self) {
        self.unread = true;
    }

    pub(crate) const fn answered(&mut self) {
        self.waits = false;
    }
}

/// How long ago it was; 0 for what is still to come, since clocks that are read in several places may seem to go back.
#[inline]
const fn since(then: u32, now: u32) -> u32 {
    let span = now.wrapping_sub(then);
    if span > NEVER / 2 { 0 } else { span }
}

/// How much of a span is left that began then.
#[inline]
const fn left(then: u32, span: u32, now: u32) -> u32 {
    span.saturating_sub(since(then, now))
}

impl Engine {
    /// How long the answer may take that is awaited now.
    #[inline]
    const fn answer_timeout(&self) -> u32 {
        match self.link.phase {
            Phase::Connecting => self.config.connect_timeout_ms,
            _ => self.config.ping_timeout_ms,
        }
    }

    /// A packet came; there may be more. A ping that is due goes out now: while packets come one after the other, nobody need
    /// find the time for a tick.
    #[inline]
    pub(crate) fn heard(&mut self, m: &mut Memory<'_>, now: u32) {
        let timeout = self.answer_timeout();
        let times = &mut self.link.times;
        times.last_heard = now;
        if !times.unread {
            times.unread = true;
            times.late = times.waits && since(times.asked, now) >= timeout;
        }
        let times = &self.link.times;
        if times.patience != 0
            && since(times.last_sent, now) >= times.patience
            && !self.is_server()
            && self.is_connected()
        {
            self.ping(m, now);
        }
    }

    /// All input there was has been looked at.
    #[inline]
    pub(crate) fn drained(&mut self, now: u32) {
        let (is_server, timeout) = (self.is_server(), self.answer_timeout());
        let times = &mut self.link.times;
        if times.unread {
            times.unread = false;
            if is_server {
                times.last_heard = now;
            } else if times.waits && !times.late && since(times.asked, now) >= timeout {
                // The answer became overdue while nobody looked: it may lie in what the transport has not shown yet.
                times.asked = now;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn ping(&mut self, m: &mut Memory<'_>, now: u32) {
        // While a large packet moves, the connection is alive, and PINGREQ would wait for its end.
        let moves = self.large.moves();
        let times = &mut self.link.times;
        times.last_sent = now;
        if moves {
            times.last_heard = now;
            return;
        }
        if !times.waits {
            (times.asked, times.waits) = (now, true);
        }
        // If even this has no room, what waits before it keeps the connection alive or shows it dead.
        self.say(m, PacketType::PingReq, None);
    }

    /// When the client pings.
    fn ping_in(&self, now: u32) -> u32 {
        let times = &self.link.times;
        if self.is_server() || times.patience == 0 {
            return NEVER;
        }
        let sent = left(times.last_sent, times.patience, now);
        if times.waits {
            sent
        } else {
            sent.min(left(times.last_heard, times.patience, now))
        }
    }

    /// When the connection is given up.
    fn overdue_in(&self, now: u32) -> u32 {
        let times = &self.link.times;
        match self.link.phase {
            // From the opening, however slowly its bytes come.
            Phase::Connecting if !self.link.undecided => {
                left(times.asked, self.config.connect_timeout_ms, now)
            }
            Phase::Connected if self.is_server() => {
                if times.patience == 0 || times.unread {
                    NEVER
                } else {
                    left(times.last_heard, times.patience, now)
                }
            }
            Phase::Connected if times.waits && !times.unread => {
                left(times.asked, self.config.ping_timeout_ms, now)
            }
            _ => NEVER,
        }
    }

    /// In how many milliseconds [`Self::tick`] is due at the latest, if it will be.
    pub(crate) fn due_in(&self, now: u32) -> Option<u32> {
        let mut due = self.overdue_in(now);
        if self.is_connected() {
            due = due.min(self.ping_in(now));
        }
        (due != NEVER).then_some(due)
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, m: &mut Memory<'_>, now: u32) -> Result<(), Problem> {
        if self.overdue_in(now) == 0 {
            let problem = match self.link.phase {
                Phase::Connecting => Problem::ConnectTimeout,
                _ if self.is_server() => Problem::KeepAliveTimeout,
                _ => Problem::PingTimeout,
            };
            self.fail(m, problem.reason_code());
            return Err(problem);
        }
        if self.is_connected() && self.ping_in(now) == 0 {
            self.ping(m, now);
        }
        Ok(())
    }
}
