//! One end of a pipe without its connection: it counts what is sent and taken, and decides when the pipe has failed.
//!
//! The core of NATS drops messages without a word when a connection fails. Each message tells what its sender has sent before it, so
//! the first one that comes after a loss shows it. After some silence an end asks, so that a loss of the last message is seen too.

use std::time::Duration;

use super::message::{Header, Kind};

/// How many bytes a message counts in addition to its data, so that many small messages do not take memory without bound.
pub(crate) const OVERHEAD: u64 = 256;

/// The limits of a pipe, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Size {
    /// How many bytes may be sent that the other end has not taken. Bytes beyond `assured` need room in the budget of the sender.
    pub(crate) window: u64,
    pub(crate) assured: u64,
    /// An end reports how much it has taken when it has taken this much since its last report.
    tell: u64,
    /// With room for less than this, an end waits instead of sending small pieces.
    least: u64,
    /// The bytes that the stream of an end holds in each direction beside the window.
    pub(crate) stream: usize,
}

impl Size {
    /// The limits of a link between two shards; a link carries the messages of many clients.
    pub(crate) const LINK: Self = Self {
        window: 256 << 10,
        assured: 256 << 10,
        tell: 64 << 10,
        least: 4 << 10,
        stream: 64 << 10,
    };

    /// The limits of a pipe that carries one client; there are many of them.
    pub(crate) const CLIENT: Self = Self {
        window: 32 << 10,
        assured: 8 << 10,
        tell: 4 << 10,
        least: 2 << 10,
        stream: 8 << 10,
    };

    /// Returns the most messages with data of a window.
    pub(crate) fn messages(self) -> usize {
        usize::try_from(self.window / OVERHEAD).unwrap_or(0)
    }

    /// Returns whether an end that waits for room gets a report of the other end before the other end has taken everything.
    const fn is_live(self) -> bool {
        self.tell + self.least + OVERHEAD <= self.assured && self.assured <= self.window
    }
}

const _: () = assert!(Size::LINK.is_live() && Size::CLIENT.is_live());

/// How many bytes [`Kind::End`] counts. The counter in the messages that follow then includes it, so that its loss is detected.
const END: u64 = 1;

/// One end of a pipe. Times count from its begin.
#[derive(Debug)]
pub(crate) struct Flow {
    size: Size,
    /// How many bytes this end has sent, and how many of them the other end has reported as taken.
    sent: u64,
    freed: u64,
    has_ended: bool,
    /// How many bytes came from the other end, how many of them this end has taken, and how many it has reported as taken.
    came: u64,
    taken: u64,
    told: u64,
    other_ended: bool,
    /// Whether the other end has sent [`Kind::Probe`] and waits for the answer.
    is_asked: bool,
    /// The pipe fails after this time without a message.
    silence: Duration,
    /// The times of the last message of the other end, and of the last question to it.
    heard: Duration,
    asked: Duration,
}

/// Why a pipe has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PipeFault {
    /// A message was lost, doubled, or came before an earlier message.
    Sequence,
    /// The other end sent more than it may, or told what cannot be.
    Window,
    /// The other end is not there any more.
    Gone,
    /// Nothing was heard of the other end.
    Silence,
}

/// The action that is due after some time.
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
    pub(crate) const fn new(size: Size, silence: Duration) -> Self {
        Self {
            size,
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

    /// Returns how much is sent that is not known to be taken.
    pub(crate) const fn on_its_way(&self) -> u64 {
        self.sent.saturating_sub(self.freed)
    }

    /// Returns how many bytes the next [`Kind::Data`] may have, with room in the budget or without.
    pub(crate) fn room(&self, in_budget: bool) -> usize {
        let most = match in_budget {
            true => self.size.window,
            false => self.size.assured,
        };
        let used = self.on_its_way().saturating_add(OVERHEAD);
        let room = most.saturating_sub(used);
        if self.has_ended || room < self.size.least {
            return 0;
        }
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Returns the header of the next message, which has `len` bytes of data.
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

    /// Takes a message of the other end, with `len` bytes of data.
    pub(crate) fn receive(
        &mut self,
        header: Header,
        len: usize,
        now: Duration,
    ) -> Result<(), PipeFault> {
        let Header { kind, sent, taken } = header;
        if kind == Kind::Gone {
            return Err(PipeFault::Gone);
        }
        if sent != self.came {
            return Err(PipeFault::Sequence);
        }
        if taken < self.freed || taken > self.sent {
            return Err(PipeFault::Window);
        }
        self.freed = taken;
        self.heard = now;
        match kind {
            Kind::Data => {
                let came = self.came.saturating_add(weight(len));
                if self.other_ended || came.saturating_sub(self.taken) > self.size.window {
                    return Err(PipeFault::Window);
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
        // After its end the other side sends no data, so it does not wait for this count.
        let is_needed = !self.other_ended && self.taken.saturating_sub(self.told) >= self.size.tell;
        self.is_asked || is_needed
    }

    /// Returns whether the other end has ended, and sends no more data.
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
    pub(crate) fn tick(&mut self, now: Duration) -> Result<Due, PipeFault> {
        if now < self.deadline() {
            return Ok(Due::Nothing);
        }
        if now >= self.heard.saturating_add(self.silence) {
            return Err(PipeFault::Silence);
        }
        self.asked = now;
        Ok(Due::Probe)
    }
}
