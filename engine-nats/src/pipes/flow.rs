//! One end of a pipe without its connection: it counts what is sent and taken, and decides when the pipe has failed.
//!
//! The core of NATS drops messages without a word when a connection fails. Each message tells what its sender has sent before it, so
//! the first one that comes after a loss shows it. After some silence an end asks, so that a loss of the last message is seen too.

use std::time::Duration;

use super::message::{Header, Kind};

/// How much may be sent that is not taken.
pub(crate) const WINDOW: u64 = 256 << 10;

/// What a message counts beside its bytes, so that many small ones do not take memory without bound.
const OVERHEAD: u64 = 256;

/// The most messages with data of a window.
pub(crate) const MESSAGES: usize = 1024;
const _: () = assert!(WINDOW / OVERHEAD == 1024);

/// What [`Kind::End`] counts: the messages that follow tell that it was sent, so that its loss is seen.
const END: u64 = 1;

/// What was taken is told when it is this much.
const TELL: u64 = WINDOW / 4;

/// With room for less than this, an end waits instead of sending small pieces.
const LEAST: u64 = 4 << 10;

/// One end of a pipe. Times count from its begin.
#[derive(Debug)]
pub(crate) struct Flow {
    /// What this end has sent, and what of it the other end has told to be taken.
    sent: u64,
    freed: u64,
    has_ended: bool,
    /// What came from the other end, and what of it was taken and told.
    came: u64,
    taken: u64,
    told: u64,
    other_ended: bool,
    /// Whether the other end asked.
    is_asked: bool,
    /// The pipe fails after this time without a message.
    silence: Duration,
    /// The times of the last message of the other end, and of the last question to it.
    heard: Duration,
    asked: Duration,
}

/// Why a pipe has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// A message was lost, doubled, or came before another one.
    Sequence,
    /// The other end sent more than it may, or told what cannot be.
    Window,
    /// The other end is not there any more.
    Gone,
    /// Nothing was heard of the other end.
    Silence,
}

/// What to do when some time has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Due {
    Nothing,
    /// To send [`Kind::Probe`].
    Probe,
}

fn weight(len: usize) -> u64 {
    u64::try_from(len)
        .unwrap_or(u64::MAX)
        .saturating_add(OVERHEAD)
}

impl Flow {
    pub(crate) const fn new(silence: Duration) -> Self {
        Self {
            sent: 0,
            freed: 0,
            has_ended: false,
            came: 0,
            taken: 0,
            told: 0,
            other_ended: false,
            is_asked: false,
            silence,
            heard: Duration::ZERO,
            asked: Duration::ZERO,
        }
    }

    /// Returns how many bytes the next [`Kind::Data`] may have.
    pub(crate) fn room(&self) -> usize {
        let used = self
            .sent
            .saturating_sub(self.freed)
            .saturating_add(OVERHEAD);
        let room = WINDOW.saturating_sub(used);
        if self.has_ended || room < LEAST {
            return 0;
        }
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Returns the header of the next message, which has so many bytes of data.
    pub(crate) fn send(&mut self, kind: Kind, len: usize) -> Header {
        let (sent, taken) = (self.sent, self.taken);
        match kind {
            Kind::Data => self.sent = self.sent.saturating_add(weight(len)),
            Kind::End => {
                self.sent = self.sent.saturating_add(END);
                self.has_ended = true;
            }
            Kind::Taken | Kind::Probe | Kind::Gone => {}
        }
        self.told = self.taken;
        self.is_asked = false;
        Header { kind, sent, taken }
    }

    /// Takes a message of the other end, with so many bytes of data.
    pub(crate) fn receive(
        &mut self,
        header: Header,
        len: usize,
        now: Duration,
    ) -> Result<(), Fault> {
        let Header { kind, sent, taken } = header;
        if kind == Kind::Gone {
            return Err(Fault::Gone);
        }
        if sent != self.came {
            return Err(Fault::Sequence);
        }
        if taken < self.freed || taken > self.sent {
            return Err(Fault::Window);
        }
        self.freed = taken;
        self.heard = now;
        match kind {
            Kind::Data => {
                let came = self.came.saturating_add(weight(len));
                if self.other_ended || came.saturating_sub(self.taken) > WINDOW {
                    return Err(Fault::Window);
                }
                self.came = came;
            }
            Kind::Probe => self.is_asked = true,
            Kind::End => {
                self.came = self.came.saturating_add(END);
                self.other_ended = true;
            }
            Kind::Taken | Kind::Gone => {}
        }
        Ok(())
    }

    /// Notes that the reader has the data of a message.
    pub(crate) fn take(&mut self, len: usize) {
        self.taken = self.taken.saturating_add(weight(len));
    }

    /// Returns whether [`Kind::Taken`] is to be sent.
    pub(crate) const fn has_to_tell(&self) -> bool {
        // An end that gets nothing more is not waited for.
        let is_needed = !self.other_ended && self.taken.saturating_sub(self.told) >= TELL;
        self.is_asked || is_needed
    }

    /// Returns whether the other end sends no data any more, or this one.
    pub(crate) const fn other_ended(&self) -> bool {
        self.other_ended
    }

    pub(crate) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns the time of the next [`Flow::tick`].
    pub(crate) fn deadline(&self) -> Duration {
        let ask = self.heard.max(self.asked).saturating_add(self.silence / 3);
        ask.min(self.heard.saturating_add(self.silence))
    }

    /// Notes the time.
    pub(crate) fn tick(&mut self, now: Duration) -> Result<Due, Fault> {
        if now < self.deadline() {
            return Ok(Due::Nothing);
        }
        if now >= self.heard.saturating_add(self.silence) {
            return Err(Fault::Silence);
        }
        self.asked = now;
        Ok(Due::Probe)
    }
}
