//! Keep-alive of both roles (section 3.1.2.10). A side does not judge its peer while there may be input that it has not
//! processed, because an application that is slow to take messages must not look like a dead peer.

use mqtt_proto::PacketType;

use crate::engine::Engine;
use crate::memory::Memory;
use crate::problem::Problem;
use crate::state::link::Phase;
use crate::state::times::{NEVER, left, since};

impl Engine {
    /// Returns how long the awaited answer may take, in milliseconds.
    #[inline]
    const fn answer_timeout(&self) -> u32 {
        match self.link.phase {
            Phase::Connecting => self.config.connect_timeout_ms,
            _ => self.config.ping_timeout_ms,
        }
    }

    /// Notes that a packet arrived; more may follow. A ping that is due is sent now, because a caller that is busy with packets
    /// may not call `tick` in time.
    #[inline]
    pub(crate) fn heard(&mut self, m: &mut Memory<'_>, now: u32) {
        self.tick_deferred(m, now);
        let timeout = self.answer_timeout();
        let times = &mut self.link.times;
        times.last_heard = now;
        if !times.unread {
            times.unread = true;
            times.was_overdue = times.awaits_answer && since(times.asked_at, now) >= timeout;
        }
        let times = &self.link.times;
        if times.silence_limit != 0
            && since(times.last_sent, now) >= times.silence_limit
            && !self.is_server()
            && self.is_connected()
        {
            self.ping(m, now);
        }
    }

    /// Notes that all input was processed.
    #[inline]
    pub(crate) fn drained(&mut self, now: u32) {
        let (is_server, timeout) = (self.is_server(), self.answer_timeout());
        let times = &mut self.link.times;
        if times.unread {
            times.unread = false;
            if is_server {
                times.last_heard = now;
            } else if times.awaits_answer
                && !times.was_overdue
                && since(times.asked_at, now) >= timeout
            {
                // The answer became overdue while no input was processed. It may be in what the transport has not delivered
                // yet.
                times.asked_at = now;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn ping(&mut self, m: &mut Memory<'_>, now: u32) {
        // While the transport takes a large packet, the connection is alive, and PINGREQ would wait for the end of the packet.
        let moves = self.large.moves();
        let times = &mut self.link.times;
        times.last_sent = now;
        if moves {
            times.last_heard = now;
            return;
        }
        if !times.awaits_answer {
            (times.asked_at, times.awaits_answer) = (now, true);
        }
        // If PINGREQ has no room, the bytes that wait before it keep the connection alive or show that it is dead.
        self.send_short(m, PacketType::PingReq, None);
    }

    /// Returns in how many milliseconds the client sends PINGREQ.
    fn ping_in(&self, now: u32) -> u32 {
        let times = &self.link.times;
        if self.is_server() || times.silence_limit == 0 {
            return NEVER;
        }
        let sent = left(times.last_sent, times.silence_limit, now);
        if times.awaits_answer {
            sent
        } else {
            sent.min(left(times.last_heard, times.silence_limit, now))
        }
    }

    /// Returns in how many milliseconds the connection is given up.
    fn overdue_in(&self, now: u32) -> u32 {
        let times = &self.link.times;
        match self.link.phase {
            // This time counts from the opening, however slowly bytes arrive.
            Phase::Connecting if !self.is_undecided() => {
                left(times.asked_at, self.config.connect_timeout_ms, now)
            }
            Phase::Connected if self.is_server() => {
                if times.silence_limit == 0 || times.unread {
                    NEVER
                } else {
                    left(times.last_heard, times.silence_limit, now)
                }
            }
            Phase::Connected if times.awaits_answer && !times.unread => {
                left(times.asked_at, self.config.ping_timeout_ms, now)
            }
            _ => NEVER,
        }
    }

    /// Returns in how many milliseconds [`Self::tick`] is due at the latest, if at all.
    pub(crate) fn due_in(&self, now: u32) -> Option<u32> {
        let mut due = self.overdue_in(now);
        if self.is_connected() {
            due = due.min(self.ping_in(now)).min(self.deferred_due_in(now));
        }
        (due != NEVER).then_some(due)
    }

    /// Sends PINGREQ if it is due, or ends the connection if the peer was silent for too long.
    pub(crate) fn tick(&mut self, m: &mut Memory<'_>, now: u32) -> Result<(), Problem> {
        self.tick_deferred(m, now);
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
