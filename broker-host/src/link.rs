//! Connects one transport with the broker: passes the read bytes to the broker, and writes the broker's bytes for the client.

use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use mqtt_broker::{ConnectionId, Hooks, Next};
use mqtt_proto::num::{to_u32, to_usize};
use mqtt_transport::bytes::{Buf, BytesMut};

use crate::shared::Shared;
use crate::staged::{log_other_protocol, other_protocol};

/// How many bytes one read takes at most.
pub(crate) const READ: usize = 64 << 10;
/// How long the beginning of a packet may be that is moved before the bytes of the next read.
const FRONT: usize = 32 << 10;
/// The length of the buffer of all reads.
pub(crate) const BUFFER: usize = FRONT + READ;
/// How many reads a connection may have in one turn, so that a turn with small reads ends while the client sends.
const READS: usize = 4;
/// After how many bytes a connection has the rest of its turn for others, if its session has more to send. A resumed session may have
/// megabytes of small messages, and a transport may take all of them.
const WRITTEN: usize = 64 << 10;
/// How many bytes of an ended connection are read and discarded. The host does not wait for a client that sends more.
const DISCARDED: u32 = 256 << 10;
/// How many of them one read takes. Such a connection has one read each time it is served.
const DISCARDED_AT_ONCE: usize = 16 << 10;
/// How long an ended connection may take to write its last bytes and to close.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// A transport that never waits: its methods return `Pending` instead.
pub(crate) trait Wire {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>>;
    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Returns the `n` bytes of the last read, which is given the space again. A transport with a buffer has them there, without a copy,
    /// until [`Self::release`].
    fn bytes<'a>(&'a self, space: &'a [u8], n: usize) -> &'a [u8] {
        space.get(..n).unwrap_or_default()
    }

    /// Returns whether the read bytes are in a buffer of the transport, and not in the given space.
    fn has_buffer(&self) -> bool {
        false
    }

    /// Reads as [`Self::read`] does, and appends the bytes to `rest`. A transport with stages need not have them in a buffer of its own.
    fn read_onto(&mut self, rest: &mut BytesMut, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let n = ready!(self.read(space))?;
        rest.extend_from_slice(self.bytes(space, n));
        self.release(n);
        Poll::Ready(Ok(n))
    }

    /// Notes that the bytes of the last read are not needed any more.
    fn release(&mut self, n: usize) {
        let _ = n;
    }

    /// Writes some of the bytes of several slices, in their order. By default it takes the first slice only.
    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.write(first.map_or(&[], |slice| slice))
    }

    /// Ends the stream of written bytes.
    fn shut_down(&mut self) -> Poll<io::Result<()>>;

    /// Writes buffered bytes.
    fn flush(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Writes the last bytes as far as possible at once, and ends the stream of written bytes.
    fn write_last(&mut self, bytes: &[u8]) {
        let _ = self.write(bytes).is_ready() && self.flush().is_ready();
        let _ = self.shut_down();
    }

    /// Reads bytes that are discarded.
    fn discard(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        self.read(space)
    }

    /// Returns whether the client broke a protocol below MQTT, and gets a message about it before the transport is closed.
    fn has_failed(&self) -> bool {
        false
    }
}

/// The state of a connection after [`Link::serve`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ServeResult {
    /// The link waits for its transport or for the broker.
    Waits,
    /// The link has more to read or to do, after the other connections.
    HasMore,
    /// The link has ended, and waits until its last bytes are written and the client closes, for at most [`LINGER`]. Closing it
    /// at once could destroy bytes that the client has not read.
    Lingers,
    /// Like [`Self::Lingers`], with more to read after the other connections.
    LingersOn,
    /// This other shard has the session of the client, and is to serve the connection.
    BelongsTo(u8),
    /// Close the transport.
    Over,
}

/// Whether a connection reads, and why not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Intake {
    /// The broker has accepted all whole packets.
    Open,
    /// The broker accepts no more bytes for now.
    Blocked,
    /// Like [`Self::Blocked`], since the connection has used up its part of the turn.
    Yields,
    /// This other shard has the session of the client.
    BelongsTo(u8),
    /// The client broke a protocol below MQTT.
    Failed,
}

/// How far [`Link::write`] came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wrote {
    All,
    /// The transport takes no more bytes for now.
    Some,
    /// [`WRITTEN`] bytes were written in this turn, and more follow.
    Enough,
}

/// What follows a step of a turn.
enum Step {
    GoOn,
    /// The connection is served again after the others.
    Yield,
    EndWith(ServeResult),
}

/// The state of a connection between two turns.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    /// The beginning of a packet, or bytes that the broker has not accepted.
    rest: BytesMut,
    /// The offset in `rest` of the first byte that is still needed.
    taken: usize,
    intake: Intake,
    shut_down: bool,
    /// Whether the client has closed the connection and reads no more. What it sent before may still be here.
    is_deaf: bool,
    /// Whether the client is of this shard, as far as is known.
    is_settled: bool,
    /// The length of the packet that `rest` begins with, if it is known.
    needed: u32,
    /// How many bytes were discarded since the connection ended.
    discarded: u32,
    /// How many bytes the last call of [`Self::serve`] wrote.
    written: usize,
}

impl Link {
    pub(crate) fn new(id: ConnectionId) -> Self {
        Self {
            id,
            rest: BytesMut::new(),
            taken: 0,
            intake: Intake::Open,
            shut_down: false,
            is_deaf: false,
            is_settled: true,
            needed: 0,
            discarded: 0,
            written: 0,
        }
    }

    /// Makes the state of a connection whose client may be of another shard.
    #[cfg(unix)]
    pub(crate) fn unsettled(id: ConnectionId) -> Self {
        Self {
            is_settled: false,
            ..Self::new(id)
        }
    }

    /// Makes the state of a connection of which another shard has read these bytes.
    #[cfg(unix)]
    pub(crate) fn arrived(id: ConnectionId, input: BytesMut) -> Self {
        Self {
            rest: input,
            intake: Intake::Blocked,
            ..Self::new(id)
        }
    }

    /// Returns the bytes for the shard that has the session of the client.
    #[cfg(unix)]
    pub(crate) fn into_input(self) -> BytesMut {
        self.rest
    }

    /// Returns whether nothing waits for the broker that was read before.
    pub(crate) fn only_writes(&self) -> bool {
        matches!(self.intake, Intake::Open | Intake::Failed)
    }

    /// Returns how many read bytes are kept here.
    pub(crate) fn held(&self) -> usize {
        self.rest.len()
    }

    /// Returns how many bytes the last call of [`Self::serve`] wrote.
    pub(crate) const fn written(&self) -> usize {
        self.written
    }

    /// Reads a few times, together `most` bytes and at most as many in one read, and passes as many packets to the broker as the turn
    /// allows. The broker treats a failed transport like an ended one.
    pub(crate) fn serve<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
        most: usize,
    ) -> ServeResult {
        self.written = 0;
        let served = self.try_serve(shared, wire, most);
        served.unwrap_or(ServeResult::Over)
    }

    fn try_serve<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
        most: usize,
    ) -> io::Result<ServeResult> {
        if shared.broker.was_closed_for_room(self.id) {
            return Ok(ServeResult::Over);
        }
        let mut left = most;
        for _ in 0..READS {
            if self.intake == Intake::Failed {
                let all_written = wire.flush()?.is_ready();
                return self.linger(shared, wire, all_written);
            }
            let wrote = self.write(shared, wire)?;
            if wrote == Wrote::Enough {
                return Ok(ServeResult::HasMore);
            }
            if shared.broker.is_closing(self.id) {
                // No byte of it is needed any more.
                self.rest = BytesMut::new();
                return self.linger(shared, wire, wrote == Wrote::All);
            }
            let step = match self.intake {
                Intake::Open => self.read_step(shared, wire, most, &mut left)?,
                _ => self.retry_step(shared, wrote),
            };
            match step {
                Step::GoOn => {}
                Step::Yield => break,
                Step::EndWith(result) => return Ok(result),
            }
        }
        self.write(shared, wire)?;
        Ok(match self.intake {
            Intake::BelongsTo(owner) => ServeResult::BelongsTo(owner),
            _ => ServeResult::HasMore,
        })
    }

    /// Passes bytes to the broker that it did not accept before: the bytes that were written now, or a decision made meanwhile, may
    /// have made room.
    fn retry_step<H: Hooks>(&mut self, shared: &mut Shared<H>, wrote: Wrote) -> Step {
        self.take_rest(shared);
        shared.wake(Some(self.id));
        let can_write = wrote == Wrote::All && !shared.broker.outgoing(self.id).is_empty();
        match self.intake {
            Intake::Yields | Intake::BelongsTo(_) => Step::Yield,
            Intake::Blocked if !can_write => Step::EndWith(ServeResult::Waits),
            _ => Step::GoOn,
        }
    }

    /// Reads at most `most` bytes, and subtracts the read bytes from `left`, which is what the connection may still read in this turn.
    fn read_step<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
        most: usize,
        left: &mut usize,
    ) -> io::Result<Step> {
        let brought = match self.read(shared, wire, most) {
            Poll::Pending if !self.is_deaf => return Ok(Step::EndWith(ServeResult::Waits)),
            Poll::Pending | Poll::Ready(Ok(0)) => return Ok(Step::EndWith(ServeResult::Over)),
            Poll::Ready(Ok(brought)) => brought,
            Poll::Ready(Err(_)) if wire.has_failed() => {
                self.intake = Intake::Failed;
                return Ok(Step::GoOn);
            }
            Poll::Ready(Err(error)) => return Err(error),
        };
        *left = left.saturating_sub(brought);
        Ok(match self.intake {
            Intake::Yields | Intake::BelongsTo(_) => Step::Yield,
            _ if *left == 0 => Step::Yield,
            _ => Step::GoOn,
        })
    }

    /// Reads at most `most` bytes, and passes them to the broker. Returns how many were read.
    fn read<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let most = shared.broker.read_size(self.id).min(most);
        let mut buffer = std::mem::take(&mut shared.buffer);
        let len = self.rest.len();
        let read = if len == 0 || len <= FRONT && !wire.has_buffer() {
            self.read_packets(shared, wire, &mut buffer, most)
        } else {
            self.make_room(most);
            let read = wire.read_onto(&mut self.rest, buffer.get_mut(..most).unwrap_or_default());
            if let Poll::Ready(Ok(brought)) = read {
                shared.broker.has_read(brought);
                shared.broker.has_kept(brought);
                self.take_rest(shared);
            }
            read
        };
        shared.buffer = buffer;
        shared.wake(Some(self.id));
        read
    }

    /// Reads into the shared buffer. If the bytes complete a packet whose beginning is here, the beginning is moved before them, since
    /// many packets may follow it. Otherwise they are moved to the beginning.
    fn read_packets<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
        buffer: &mut [u8],
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let (front, space) = buffer.split_at_mut(self.rest.len());
        let space = space.get_mut(..most).unwrap_or_default();
        let brought = ready!(wire.read(space))?;
        shared.broker.has_read(brought);
        let len = front.len() + brought;
        if front.is_empty() {
            self.take(shared, wire.bytes(space, brought));
            wire.release(brought);
        } else if usize::try_from(self.needed).is_ok_and(|needed| needed <= len) {
            front.copy_from_slice(&self.rest);
            self.rest.clear();
            self.take(shared, buffer.get(..len).unwrap_or_default());
            if self.rest.is_empty() {
                // A silent connection keeps no buffer.
                self.rest = BytesMut::new();
            }
        } else {
            self.make_room(brought);
            self.rest
                .extend_from_slice(space.get(..brought).unwrap_or_default());
            shared.broker.has_kept(brought);
            self.take_rest(shared);
        }
        Poll::Ready(Ok(brought))
    }

    /// Writes the outgoing bytes as far as possible. After a client has closed its connection the bytes are dropped, so that what it
    /// sent before is still read: messages, and the DISCONNECT that deletes its will.
    fn write<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
    ) -> io::Result<Wrote> {
        let mut left = WRITTEN;
        loop {
            let outgoing = shared.broker.outgoing(self.id);
            if outgoing.is_empty() {
                return Ok(match self.is_deaf || wire.flush()?.is_ready() {
                    true => Wrote::All,
                    false => Wrote::Some,
                });
            }
            if left == 0 && !shared.broker.is_closing(self.id) {
                // The session has copied as many bytes, in messages of any size.
                shared.broker.has_kept(WRITTEN);
                return Ok(Wrote::Enough);
            }
            let written = match self.is_deaf {
                true => Poll::Ready(Ok(outgoing.len())),
                false => wire.write(outgoing),
            };
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.is_deaf = true;
                }
                Poll::Ready(Ok(n)) => {
                    let now = shared.now();
                    left = left.saturating_sub(n);
                    self.written = self.written.saturating_add(n);
                    shared.broker.sent(self.id, n, now);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Wrote::Some),
            }
        }
    }

    /// Passes the read bytes to the broker, if the last call left none.
    fn take<H: Hooks>(&mut self, shared: &mut Shared<H>, bytes: &[u8]) {
        let is_new = !shared.broker.is_accepted(self.id);
        if is_new && !shared.is_within_address(self.id) {
            return;
        }
        if is_new && self.belongs_elsewhere(shared, bytes) {
            self.rest.extend_from_slice(bytes);
            return;
        }
        let other = is_new.then(|| other_protocol(bytes)).flatten();
        if other.is_some() {
            // The broker only knows that the bytes are no CONNECT.
            shared.peers.set_told(self.id, true);
        }
        let consumed = self.receive(shared, bytes);
        self.is_settled |= consumed > 0;
        if let Some(other) = other {
            let is_over = shared.broker.is_closing(self.id);
            shared.peers.set_told(self.id, is_over);
            if is_over {
                let peer = shared.peers.get(self.id).unwrap_or_default();
                log_other_protocol(&shared.peers, &peer, other);
            }
        }
        let rest = bytes.get(consumed..).unwrap_or_default();
        shared.broker.has_kept(rest.len());
        self.rest.extend_from_slice(rest);
    }

    /// Returns whether another shard has the session of the client, and ends the turn if so.
    fn belongs_elsewhere<H: Hooks>(&mut self, shared: &mut Shared<H>, input: &[u8]) -> bool {
        if self.is_settled || shared.broker.is_closing(self.id) {
            return false;
        }
        let owner = shared.owner_of(input);
        if let Some(owner) = owner {
            self.intake = Intake::BelongsTo(owner);
        }
        owner.is_some()
    }

    /// Makes room for the rest of a packet of which an eighth is here: its bytes are moved at most once more, and a client that only
    /// announces a packet takes no memory.
    fn make_room(&mut self, most: usize) {
        let len = self.rest.len();
        let needed = to_usize(self.needed);
        let is_tight = self.rest.capacity().saturating_sub(len) < most;
        if is_tight && needed > len && needed / 8 <= len {
            self.rest.reserve(needed.saturating_sub(len));
        }
    }

    fn take_rest<H: Hooks>(&mut self, shared: &mut Shared<H>) {
        let mut rest = std::mem::take(&mut self.rest);
        let input = rest.get(self.taken..).unwrap_or_default();
        if !self.is_settled && self.belongs_elsewhere(shared, input) {
            self.rest = rest;
            return;
        }
        let consumed = self.receive(shared, input);
        self.is_settled |= consumed > 0;
        self.taken += consumed;
        // The accepted bytes are removed once, after any number of turns.
        if self.taken >= rest.len() {
            self.taken = 0;
        } else {
            if self.intake != Intake::Yields {
                rest.advance(self.taken);
                self.taken = 0;
            }
            self.rest = rest;
        }
    }

    fn receive<H: Hooks>(&mut self, shared: &mut Shared<H>, input: &[u8]) -> usize {
        let now = shared.now();
        let received = shared.broker.receive(self.id, input, now);
        self.needed = 0;
        self.intake = match received.next {
            Next::Blocked => Intake::Blocked,
            Next::Yields => Intake::Yields,
            Next::Needs(needed) => {
                self.needed = to_u32(needed);
                Intake::Open
            }
            _ => Intake::Open,
        };
        received.consumed
    }

    fn linger<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
        all_written: bool,
    ) -> io::Result<ServeResult> {
        if !all_written {
            return Ok(ServeResult::Lingers);
        }
        if !self.shut_down {
            match wire.shut_down() {
                Poll::Pending => return Ok(ServeResult::Lingers),
                Poll::Ready(done) => done?,
            }
            self.shut_down = true;
        }
        let space = shared.buffer.get_mut(..DISCARDED_AT_ONCE);
        match wire.discard(space.unwrap_or_default()) {
            Poll::Pending => Ok(ServeResult::Lingers),
            Poll::Ready(Ok(0)) => Ok(ServeResult::Over),
            Poll::Ready(Ok(n)) => {
                shared.broker.has_read(n);
                let n = to_u32(n);
                self.discarded = self.discarded.saturating_add(n);
                match self.discarded > DISCARDED {
                    true => Ok(ServeResult::Over),
                    false => Ok(ServeResult::LingersOn),
                }
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
