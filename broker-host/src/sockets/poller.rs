//! The turns of the task that serves the sockets: in which order, and how much of each.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::Events;
use mqtt_broker::{ConnectionId, Hooks};
use mqtt_proto::num::to_u64;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Socket, entry_of, move_to};
use crate::link::{LINGER, ServeResult};
use crate::shaking::{Shaker, Step};
use crate::shared::{Shared, wake_after_poll};

/// How many events one poll of the system may return.
const EVENTS: usize = 1_024;
/// The least cost of serving a connection in steps of the broker, for the calls of the system.
const SERVED: u64 = 32;
/// The least cost if the client has ended the connection, which is closed and logged then.
const ENDED: u64 = 256;

/// The long connections are served after the others. All of them together have this many times the steps that one connection may
/// take in a turn.
const SHARES: u64 = 2;
/// How often each of them may be served in a turn, while at most half of these steps are taken. A client that sends large payloads to
/// one receiver causes few steps and many reads, which then reach the receiver in fewer writes.
const ROUNDS: usize = 3;

/// How many connections one turn serves at most because the broker has bytes for them. A connection with many bytes to write, or
/// much work for the broker, counts as several.
const WRITES: usize = 128;
/// How many steps of the broker count as one of these connections.
const STEPS_A_WRITE: u64 = 64;
/// How many written bytes count as one of these connections.
const BYTES_A_WRITE: usize = 1 << 10;
/// How many connections one turn serves at most that stand in line because they were served before. Each counts as one, and as one
/// more for each [`WRITE`] bytes written to it.
const WRITES_IN_LINE: usize = 8;
/// A connection in line gathers bytes if it had some in at least this many of the last eight turns: it gets messages all the time.
const STEADY: u32 = 3;
/// A connection with this many bytes to write does not wait for more.
const WRITE: usize = 16 << 10;

/// Serves all connections of listeners. Does not return.
pub(crate) async fn serve<H: Hooks>(shared: Rc<RefCell<Shared<H>>>) {
    let started = mio::Poll::new().and_then(|poll| {
        shared.borrow_mut().sockets.registry = Some(poll.registry().try_clone()?);
        #[allow(
            deprecated,
            reason = "the successor is unsafe: it asks for a promise that mio's poll keeps, one descriptor for its life"
        )]
        AsyncFd::with_interest(poll, tokio::io::Interest::READABLE)
    });
    let Ok(poll) = started else {
        shared.borrow_mut().sockets.registry = None;
        return;
    };
    let mut poller = Poller {
        shared,
        poll,
        events: Events::with_capacity(EVENTS),
        more: VecDeque::new(),
        line: VecDeque::new(),
        large: Vec::new(),
        turn_number: 0,
        shaker: Shaker::default(),
        lingering: VecDeque::new(),
        sleep: Box::pin(sleep_until(Instant::now())),
    };
    poll_fn(|cx| poller.turn(cx)).await
}

/// What it took to serve a connection.
#[derive(Default)]
struct Served {
    /// The steps of the broker.
    steps: u64,
    /// The written bytes.
    written: usize,
}

struct Poller<H> {
    shared: Rc<RefCell<Shared<H>>>,
    poll: AsyncFd<mio::Poll>,
    events: Events,
    /// The connections that did all they may in one turn, and have more to read. They have their next turn after all others.
    more: VecDeque<ConnectionId>,
    /// The connections that were served because the broker had something for them, until their turn to be served again.
    line: VecDeque<ConnectionId>,
    /// Memory for the connections with many bytes to write.
    large: Vec<ConnectionId>,
    turn_number: u32,
    /// The threads for handshakes.
    shaker: Shaker,
    /// The ended connections, each with the time at which it is closed in any case, in ascending order.
    lingering: VecDeque<(Instant, ConnectionId)>,
    sleep: Pin<Box<Sleep>>,
}

impl<H: Hooks> Poller<H> {
    /// Reads, routes and writes as far as possible without waiting.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = Rc::clone(&self.shared);
        let mut shared = shared.borrow_mut();
        self.turn_number = self.turn_number.wrapping_add(1);
        shared.begin_turn();
        let all_told = self.take_events(&mut shared, cx);
        self.take_shaken(&mut shared, cx);
        self.serve_more(&mut shared);
        self.serve_ready(&mut shared);
        let all_written = self.serve_line(&mut shared);
        self.close_lingering(&mut shared, cx);
        shared.end_turn();
        let all_served = self.more.is_empty() && shared.sockets.ready.is_empty();
        if !all_told || !all_written || !all_served {
            wake_after_poll(cx);
        }
        shared.sockets.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Serves the connections with more to read until they have taken [`SHARES`] times the steps of one connection, so that all other
    /// connections have their turn after any number of them.
    fn serve_more(&mut self, shared: &mut Shared<H>) {
        let share = shared.broker.share();
        let mut left = SHARES.saturating_mul(share);
        let waiting = self.more.len();
        for served in 0..waiting.saturating_mul(ROUNDS) {
            if served >= waiting && left <= (SHARES - 1).saturating_mul(share) {
                return;
            }
            let Some(id) = self.more.pop_front() else {
                return;
            };
            let mut least = SERVED;
            if let Some(Some(socket)) = entry_of(shared, id) {
                socket.has_more = false;
                if socket.stream.ends {
                    // Freeing memory takes time as well.
                    let held = to_u64(socket.link.held() / 256);
                    least = ENDED.saturating_add(held);
                }
            }
            left = left.saturating_sub(self.serve(shared, id).steps.max(least));
            if left == 0 {
                return;
            }
        }
    }

    /// Serves connections that the broker has something for, those with many bytes after the others. Calls of the system are most of
    /// the cost, so that a turn has a limited number of them, and the other connections are the first of the next turn.
    fn serve_ready(&mut self, shared: &mut Shared<H>) {
        let mut ready = std::mem::take(&mut shared.sockets.ready);
        let mut large = std::mem::take(&mut self.large);
        ready.retain(|id| {
            let is_large = shared.broker.outgoing(*id).len() >= WRITE;
            if is_large {
                large.push(*id);
            }
            !is_large
        });
        let (mut left, mut in_next_turn) = (WRITES, Vec::new());
        for id in ready.drain(..).chain(large.drain(..)) {
            if !self.serve_if_it_does_not_gather(shared, id, &mut left) {
                in_next_turn.push(id);
            }
        }
        // Serving these may have made others ready.
        in_next_turn.append(&mut shared.sockets.ready);
        if in_next_turn.is_empty() {
            // The memory of the list is used again.
            in_next_turn = ready;
        }
        shared.sockets.ready = in_next_turn;
        self.large = large;
    }

    /// Serves a connection that the broker has something for, and puts it in line behind the others that were. If it gets something
    /// again soon, it gathers bytes until its turn in the line comes; it leaves the line if it has none then. Returns `false` if nothing
    /// is left of the turn.
    fn serve_if_it_does_not_gather(
        &mut self,
        shared: &mut Shared<H>,
        id: ConnectionId,
        left: &mut usize,
    ) -> bool {
        let waiting = shared.broker.outgoing(id).len();
        let Some(Some(socket)) = entry_of(shared, id) else {
            return true;
        };
        let recent = socket.recent_turns(self.turn_number);
        let is_steady = socket.in_line && recent.count_ones() >= STEADY;
        let may_gather = waiting < WRITE && socket.link.only_writes();
        let gathers = (socket.gathers || is_steady) && may_gather;
        if *left == 0 && !gathers {
            return false;
        }
        (socket.had_work, socket.recent) = (self.turn_number, recent | 1);
        socket.gathers = gathers;
        if !std::mem::replace(&mut socket.in_line, true) {
            self.line.push_back(id);
        }
        if gathers {
            shared.broker.writes_later(id, WRITE);
            return true;
        }
        shared.broker.writes_later(id, 0);
        let Served { steps, written } = self.serve(shared, id);
        let steps = usize::try_from(steps / STEPS_A_WRITE).unwrap_or(usize::MAX);
        let taken = steps.max(written / BYTES_A_WRITE);
        *left = left.saturating_sub(taken.saturating_add(1));
        true
    }

    /// Serves the next connections in line. Returns whether all of them were looked at.
    fn serve_line(&mut self, shared: &mut Shared<H>) -> bool {
        let mut left = WRITES_IN_LINE;
        for _ in 0..self.line.len() {
            if left == 0 {
                return false;
            }
            let Some(id) = self.line.pop_front() else {
                break;
            };
            let Some(Some(socket)) = entry_of(shared, id) else {
                continue;
            };
            socket.in_line = std::mem::take(&mut socket.gathers);
            if socket.in_line {
                // The connection gathered bytes until now.
                socket.had_work = self.turn_number;
                self.line.push_back(id);
                // If it has no bytes left now, the next message makes it ready again.
                shared.broker.writes_later(id, 0);
                let written = self.serve(shared, id).written;
                left = left.saturating_sub((written / WRITE).saturating_add(1));
            }
        }
        true
    }

    /// Serves the connections of the system's events. Returns whether these were all events.
    fn take_events(&mut self, shared: &mut Shared<H>, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(Ok(mut guard)) = self.poll.poll_read_ready_mut(cx) {
            let system = guard.get_inner_mut();
            if system.poll(&mut self.events, Some(Duration::ZERO)).is_err() {
                return false;
            }
            let all_told = self.events.iter().count() < EVENTS;
            if all_told {
                guard.clear_ready();
            }
            self.serve_events(shared);
            if !all_told {
                return false;
            }
        }
        true
    }

    /// Serves the connections of the last poll.
    fn serve_events(&mut self, shared: &mut Shared<H>) {
        let mut left_to_connect = shared.broker.share();
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Some(Some(socket)) = shared.sockets.entries.get_mut(event.token().0) else {
                continue;
            };
            let stream = &mut socket.stream;
            stream.readable |= event.is_readable() || event.is_error();
            stream.writable |= event.is_writable();
            stream.ends |= event.is_read_closed() || event.is_error();
            let id = socket.link.id;
            // The connection had its turn in this round, or has it in the next one.
            if socket.has_more {
                continue;
            }
            // CONNECT and the end of a connection lead to more work than a message. Many of them at once wait together with the long
            // connections: those that end, and those that connect after others took as many steps as one connection may.
            let connects = !shared.broker.is_accepted(id);
            if stream.ends || socket.long_for > 0 || connects && left_to_connect == 0 {
                socket.has_more = true;
                self.more.push_back(id);
                continue;
            }
            let steps = self.serve(shared, id).steps;
            if connects {
                left_to_connect = left_to_connect.saturating_sub(steps.max(SERVED));
            }
        }
        events.clear();
        self.events = events;
    }

    /// Serves the connections whose step of a handshake is done.
    fn take_shaken(&mut self, shared: &mut Shared<H>, cx: &Context<'_>) {
        for Step { id, staged, .. } in self.shaker.done(cx) {
            let peer = staged.is_open().then(|| staged.peer().clone());
            // The connection may have been closed meanwhile.
            if let Some(Some(socket)) = entry_of(shared, id) {
                socket.shakes = false;
                socket.staged = Some(staged);
                if let Some(peer) = peer {
                    shared.peers.set(id, peer);
                }
                self.serve(shared, id);
            }
        }
    }

    fn close_lingering(&mut self, shared: &mut Shared<H>, cx: &mut Context<'_>) {
        while let Some((at, id)) = self.lingering.front().copied() {
            self.sleep.as_mut().reset(at);
            if self.sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            self.lingering.pop_front();
            if entry_of(shared, id).is_some_and(|entry| entry.take().is_some()) {
                shared.closed(id);
            }
        }
    }

    /// Serves a connection.
    fn serve(&mut self, shared: &mut Shared<H>, id: ConnectionId) -> Served {
        let Some(mut socket) = entry_of(shared, id).and_then(Option::take) else {
            return Served::default();
        };
        let before = shared.broker.steps();
        let result = self.serve_socket(shared, &mut socket);
        let served = Served {
            steps: shared.broker.steps().wrapping_sub(before),
            written: socket.link.written(),
        };
        socket.note_served(served.steps, result);
        match result {
            ServeResult::BelongsTo(owner) => {
                move_to(owner, shared, socket);
                return served;
            }
            ServeResult::Over => {
                drop(socket);
                shared.closed(id);
                return served;
            }
            ServeResult::Waits => {}
            ServeResult::HasMore => self.queue_more(&mut socket),
            ServeResult::Lingers => self.linger(&mut socket),
            ServeResult::LingersOn => {
                self.linger(&mut socket);
                self.queue_more(&mut socket);
            }
        }
        if let Some(entry) = shared.sockets.entries.get_mut(id.index()) {
            *entry = Some(socket);
        }
        served
    }

    /// Notes that a connection has more to read or to do.
    fn queue_more(&mut self, socket: &mut Socket) {
        if !std::mem::replace(&mut socket.has_more, true) {
            self.more.push_back(socket.link.id);
        }
    }

    /// Notes that a connection has ended, and when it is closed in any case.
    fn linger(&mut self, socket: &mut Socket) {
        if !std::mem::replace(&mut socket.lingers, true) {
            let at = Instant::now() + LINGER;
            self.lingering.push_back((at, socket.link.id));
        }
    }

    fn serve_socket(&mut self, shared: &mut Shared<H>, socket: &mut Socket) -> ServeResult {
        if socket.shakes {
            // The connection is served after the step of its handshake.
            return ServeResult::Waits;
        }
        if socket.staged.is_some() {
            return self.serve_staged(shared, socket);
        }
        self.shaker.served_others();
        let most = socket.read_size();
        socket.link.serve(shared, &mut socket.stream, most)
    }

    /// Serves a connection with stages.
    fn serve_staged(&mut self, shared: &mut Shared<H>, socket: &mut Socket) -> ServeResult {
        let Some(mut staged) = socket.staged.take() else {
            return ServeResult::Over;
        };
        let most = socket.read_size();
        let (link, peers) = (&mut socket.link, shared.peers.clone());
        if staged.is_open() {
            self.shaker.served_others();
        }
        staged.shakes_elsewhere = true;
        let mut wire = staged.over(&mut socket.stream, link.id, &peers);
        let result = link.serve(shared, &mut wire, most);
        staged.log_failure(link.id, &peers);
        let (id, has_more) = (link.id, std::mem::take(&mut staged.has_more));
        match (result, staged.unshaken.take()) {
            (ServeResult::Waits, Some(bytes)) => {
                socket.shakes = true;
                self.shaker.start(Step { id, staged, bytes });
                return result;
            }
            _ => socket.staged = Some(staged),
        }
        match result {
            ServeResult::Waits if has_more => ServeResult::HasMore,
            result => result,
        }
    }
}
