//! One connection between its transport and the broker: what a read brings goes to the broker, and what the broker has for the
//! client is written.

use std::io;
use std::task::Poll;
use std::time::Duration;

use mqtt_broker::{ConnectionId, Hooks, Next};

use crate::shared::Shared;

/// What one read may bring.
pub(crate) const READ: usize = 64 << 10;
/// How many reads a connection may have in one turn: small ones must not go on as long as the client sends.
const READS: usize = 4;
/// What is read and thrown away of a connection that is over, in all. Who sends more is not waited for.
const DISCARDED: usize = 256 << 10;
/// How long a connection that is over may take to write its last bytes and to close.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// A transport as [`Link`] sees it: `Pending` where it would have to wait.
pub(crate) trait Wire {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>>;
    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Nothing more is written.
    fn shut_down(&mut self) -> Poll<io::Result<()>>;

    /// Writes what it took and holds back.
    fn flush(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Reads what nobody looks at any more.
    fn discard(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        self.read(space)
    }

    /// Whether a read may bring something.
    fn is_readable(&self) -> bool {
        true
    }

    /// Whether the client broke a protocol below MQTT, and is to be told so before the transport is closed.
    fn has_failed(&self) -> bool {
        false
    }
}

/// Where a connection stands after [`Link::serve`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    /// For its transport or for the broker.
    Waits,
    /// There is more to read or to do, after the others.
    HasMore,
    /// It is over, and waits for its last bytes to go out and for the client to close: no longer than [`LINGER`].
    /// Closing at once could destroy what the client has not read yet.
    Lingers,
    /// The same, and there is more to read, after the others.
    LingersOn,
    /// Close the transport.
    Over,
}

/// What a connection keeps between two turns.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    /// The beginning of a packet, or what the broker would not take yet.
    rest: Vec<u8>,
    /// Where `rest` begins.
    taken: usize,
    blocked: bool,
    /// Its share of the turn is used up.
    yields: bool,
    shut_down: bool,
    /// A protocol below MQTT was broken.
    failed: bool,
    /// What was read since it is over.
    discarded: usize,
}

impl Link {
    pub(crate) const fn new(id: ConnectionId) -> Self {
        Self {
            id,
            rest: Vec::new(),
            taken: 0,
            blocked: false,
            yields: false,
            shut_down: false,
            failed: false,
            discarded: 0,
        }
    }

    /// Does what can be done now: a few reads, and what the broker allows in one turn. A transport that fails or ends is the
    /// same to the broker.
    pub(crate) fn serve<H: Hooks>(&mut self, shared: &mut Shared<H>, wire: &mut impl Wire) -> Turn {
        self.try_serve(shared, wire).unwrap_or(Turn::Over)
    }

    fn try_serve<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
    ) -> io::Result<Turn> {
        if shared.broker.gives_way(self.id) {
            return Ok(Turn::Over);
        }
        for _ in 0..READS {
            if self.failed {
                let written = wire.flush()?.is_ready();
                return self.linger(written, wire);
            }
            let written = self.write(shared, wire)?;
            if shared.broker.is_closing(self.id) {
                return self.linger(written, wire);
            }
            if self.blocked {
                // What is written now, or was decided meanwhile, may have made room.
                self.take_rest(shared);
                shared.wake(Some(self.id));
                if self.yields {
                    break;
                }
                let can_write = written && !shared.broker.outgoing(self.id).is_empty();
                if self.blocked && !can_write {
                    return Ok(Turn::Waits);
                }
                continue;
            }
            let mut buffer = std::mem::take(&mut shared.buffer);
            let read = wire.read(&mut buffer);
            if let Poll::Ready(Ok(brought)) = read {
                self.take(shared, buffer.get(..brought).unwrap_or_default());
            }
            shared.buffer = buffer;
            shared.wake(Some(self.id));
            match read {
                Poll::Pending => return Ok(Turn::Waits),
                Poll::Ready(Ok(0)) => return Ok(Turn::Over),
                Poll::Ready(Ok(n)) if n == READ || self.yields => break,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) if wire.has_failed() => self.failed = true,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        self.write(shared, wire)?;
        Ok(Turn::HasMore)
    }

    /// Writes what is outgoing, as far as it goes; whether that is all.
    fn write<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
    ) -> io::Result<bool> {
        loop {
            let outgoing = shared.broker.outgoing(self.id);
            if outgoing.is_empty() {
                return Ok(wire.flush()?.is_ready());
            }
            match wire.write(outgoing) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    let now = shared.now();
                    shared.broker.sent(self.id, n, now);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            }
        }
    }

    /// Gives the broker what a read brought, behind what is left from the last.
    fn take<H: Hooks>(&mut self, shared: &mut Shared<H>, bytes: &[u8]) {
        if self.rest.is_empty() {
            let consumed = self.receive(shared, bytes);
            self.rest
                .extend_from_slice(bytes.get(consumed..).unwrap_or_default());
        } else {
            self.rest.extend_from_slice(bytes);
            self.take_rest(shared);
        }
    }

    fn take_rest<H: Hooks>(&mut self, shared: &mut Shared<H>) {
        let mut rest = std::mem::take(&mut self.rest);
        let input = rest.get(self.taken..).unwrap_or_default();
        self.taken += self.receive(shared, input);
        // What was taken is moved away once, however many turns it takes.
        if self.taken >= rest.len() {
            self.taken = 0;
        } else {
            if !self.yields {
                rest.drain(..self.taken);
                self.taken = 0;
            }
            self.rest = rest;
        }
    }

    fn receive<H: Hooks>(&mut self, shared: &mut Shared<H>, input: &[u8]) -> usize {
        let now = shared.now();
        let received = shared.broker.receive(self.id, input, now);
        self.blocked = matches!(received.next, Next::Blocked | Next::Yields);
        self.yields = received.next == Next::Yields;
        received.consumed
    }

    fn linger(&mut self, written: bool, wire: &mut impl Wire) -> io::Result<Turn> {
        if !written {
            return Ok(Turn::Lingers);
        }
        if !self.shut_down {
            match wire.shut_down() {
                Poll::Pending => return Ok(Turn::Lingers),
                Poll::Ready(done) => done?,
            }
            self.shut_down = true;
        }
        let mut space = [0; 1_024];
        for _ in 0..READS {
            match wire.discard(&mut space) {
                Poll::Pending => return Ok(Turn::Lingers),
                Poll::Ready(Ok(0)) => return Ok(Turn::Over),
                Poll::Ready(Ok(n)) => self.discarded += n,
                Poll::Ready(Err(error)) => return Err(error),
            }
            if self.discarded > DISCARDED {
                return Ok(Turn::Over);
            }
        }
        Ok(Turn::LingersOn)
    }
}
