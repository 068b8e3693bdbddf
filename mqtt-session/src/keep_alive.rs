//! Keep-alive from both ends (section 3.1.2.10). Neither judges the peer while input it has not looked at may be
//! waiting: an application that is slow to take messages must not look like a dead peer.

use crate::time::Instant;

/// A client's: pings in time, and gives up when PINGRESP does not come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinger {
    /// Milliseconds; 0 is off.
    interval: u32,
    timeout: u32,
    /// When something was last given to the transport's queue: not later than it is sent, so pings are never late.
    last_sent: Instant,
    /// When something last came: one who only sends must notice as well that nobody listens any more.
    last_received: Instant,
    /// When the answer to CONNECT, then to the oldest unanswered ping, is overdue.
    overdue: Instant,
    /// Since when there may be input that was not looked at; never, if all was.
    unread_since: Instant,
}

/// What a tick asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    TimedOut,
}

impl Pinger {
    pub(crate) fn new(keep_alive: u16, timeout: u32, now: Instant) -> Self {
        let interval = u32::from(keep_alive).saturating_mul(1_000);
        let never = Instant::NEVER;
        Self {
            interval,
            timeout,
            last_sent: now,
            last_received: now,
            overdue: never,
            unread_since: never,
        }
    }

    /// Before CONNACK: nothing but that is waited for.
    pub(crate) fn connecting(
        keep_alive: u16,
        timeout: u32,
        connect_timeout: u32,
        now: Instant,
    ) -> Self {
        Self {
            overdue: now.plus(u64::from(connect_timeout)),
            ..Self::new(keep_alive, timeout, now)
        }
    }

    pub(crate) fn connect_by(&self) -> Instant {
        self.overdue
    }

    #[inline]
    pub(crate) fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// A packet that takes long to send goes on.
    pub(crate) fn moves(&mut self, now: Instant) {
        (self.last_sent, self.last_received) = (now, now);
    }

    pub(crate) fn answered(&mut self) {
        self.overdue = Instant::NEVER;
    }

    /// A packet came; there may be more.
    #[inline]
    pub(crate) fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.unread_since = self.unread_since.min(now);
    }

    /// All input there was has been looked at.
    #[inline]
    pub(crate) fn drained(&mut self, now: Instant) {
        // The answer became overdue while nobody looked: it may lie in what the transport has not shown yet.
        if self.unread_since < self.overdue && self.overdue <= now {
            self.overdue = now.plus(u64::from(self.timeout));
        }
        self.unread_since = Instant::NEVER;
    }

    /// The last eighth of the interval is for the way: 3.1.1 [MQTT-3.1.2-23], 5 [MQTT-3.1.2-20].
    fn ping_at(&self) -> Instant {
        match self.interval {
            0 => Instant::NEVER,
            interval => {
                let heard = if self.overdue == Instant::NEVER {
                    self.last_received
                } else {
                    Instant::NEVER
                };
                self.last_sent
                    .min(heard)
                    .plus(u64::from(interval.saturating_sub(interval / 8)))
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.unread_since == Instant::NEVER
    }

    pub(crate) fn due(&self, now: Instant) -> Due {
        if self.is_drained() && now >= self.overdue {
            Due::TimedOut
        } else if now >= self.ping_at() {
            Due::Ping
        } else {
            Due::Nothing
        }
    }

    pub(crate) fn pinged(&mut self, now: Instant) {
        self.last_sent = now;
        self.overdue = self.overdue.min(now.plus(u64::from(self.timeout)));
    }

    pub(crate) fn deadline(&self) -> Instant {
        let overdue = if self.is_drained() {
            self.overdue
        } else {
            Instant::NEVER
        };
        self.ping_at().min(overdue)
    }
}

/// A server's: ends a connection that was silent for one and a half keep-alives
/// (3.1.1 \[MQTT-3.1.2-24\], 5 \[MQTT-3.1.2-22\]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// Milliseconds; 0 is off.
    patience: u32,
    last_received: Instant,
    drained: bool,
}

impl Watch {
    pub(crate) fn new(keep_alive: u16, percent: u16, now: Instant) -> Self {
        let patience = u32::from(keep_alive)
            .saturating_mul(10)
            .saturating_mul(u32::from(percent));
        Self {
            patience,
            last_received: now,
            drained: true,
        }
    }

    /// Before CONNECT: nothing but that is waited for.
    pub(crate) fn connecting(connect_timeout: u32, now: Instant) -> Self {
        Self {
            patience: connect_timeout,
            last_received: now,
            drained: true,
        }
    }

    #[inline]
    pub(crate) fn received(&mut self, now: Instant) {
        (self.last_received, self.drained) = (now, false);
    }

    /// From the opening, however slowly its bytes come.
    pub(crate) fn connect_by(&self) -> Instant {
        self.last_received.plus(u64::from(self.patience))
    }

    /// All input there was has been looked at: what comes now was not there before.
    #[inline]
    pub(crate) fn drained(&mut self, now: Instant) {
        if !self.drained {
            (self.last_received, self.drained) = (now, true);
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        if self.patience == 0 || !self.drained {
            Instant::NEVER
        } else {
            self.last_received.plus(u64::from(self.patience))
        }
    }
}
