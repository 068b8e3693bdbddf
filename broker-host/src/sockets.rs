//! Serves the connections of the host's listeners. One task polls the system for all of them, so that a silent connection needs a
//! socket and a few words here, and not a task of tokio. All packets of one poll are routed before the receivers write, and a receiver
//! that gets messages all the time stands in line until the others have written: its next write takes many messages.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mio::{Events, Registry, Token};
use mqtt_broker::{ConnectionId, Hooks};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::link::{LINGER, Link, READ, ServeResult, Wire};
use crate::listener::Accepted;
use crate::peer::{Peer, Peers};
use crate::shaking::{Shaker, Step};
use crate::shards::Moved;
use crate::shared::{Shared, wake_after_poll};
use crate::staged::Staged;
use crate::stream::Stream;
use crate::task::spawn_accepted;

/// How many events one poll of the system may return.
const EVENTS: usize = 1_024;
/// The least cost of serving a connection in steps of the broker, for the calls of the system.
const SERVED: u64 = 32;
/// The least cost if the client has ended the connection, which is closed and logged then.
const ENDED: u64 = 256;

/// A connection is long if one turn took at least this many steps of the broker for it. Long connections, and those with more to read,
/// are served after all others.
const LONG: u64 = 256;
/// All long connections together get this many times the steps that one turn of the broker has.
const SHARES: u64 = 2;
/// How often a long connection is served in a turn, while the first of [`SHARES`] lasts: if its reads are little work, such as large
/// payloads for one receiver, the receiver gets them in fewer writes.
const ROUNDS: usize = 3;
/// A connection stays long for this many further turns.
const LONG_FOR: u8 = 8;
/// How many bytes are read at once from the other connections.
const SHORT_READ: usize = 16 << 10;

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

/// The connections of listeners, for the tasks that add or wake one.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// The connections by their index, which is also the token of the poll.
    places: Vec<Option<Socket>>,
    /// `None` before [`serve`] runs.
    registry: Option<Registry>,
    /// The connections that have work independently of the system's events.
    ready: Vec<ConnectionId>,
    /// The waker of [`serve`] while it waits.
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Socket {
    link: Link,
    stream: Stream,
    staged: Option<Box<Staged>>,
    lingers: bool,
    /// Whether it is in the list of connections with more to read or to do.
    has_more: bool,
    /// How many times it is still served as one that takes [`LONG`].
    long_for: u8,
    /// Whether another thread has the stages, for a step of the handshake.
    shakes: bool,
    /// Whether it stands in line because it was served before.
    in_line: bool,
    /// The number of the turn in which the broker last had something for it.
    had_work: u32,
    /// The turns until then in which it had something, as bits: the lowest one is the last turn.
    recent: u8,
    /// Whether the broker has something for it, and it waits for its turn in the line.
    gathers: bool,
}

impl Sockets {
    /// Notes that the broker has work for a connection. The connections are served after the runtime has asked the system for news:
    /// if this task and that of the broker's timer woke each other at once, new packets would wait until they have nothing to do.
    pub(crate) fn is_ready(&mut self, id: ConnectionId) {
        self.ready.push(id);
        if let Some(waker) = self.waker.take() {
            wake_after_poll(&mut Context::from_waker(&waker));
        }
    }

    /// Writes these bytes to the connections that take them, and ends their streams, without the broker.
    pub(crate) fn write_last(
        &mut self,
        bytes: &[u8],
        peers: &Peers,
        takes: impl Fn(ConnectionId) -> bool,
    ) {
        let sockets = self.places.iter_mut().flatten();
        for socket in sockets.filter(|socket| takes(socket.link.id)) {
            let (id, stream) = (socket.link.id, &mut socket.stream);
            match &mut socket.staged {
                Some(staged) => staged.over(stream, id, peers).write_last(bytes),
                None => stream.write_last(bytes),
            }
        }
    }

    fn add(
        &mut self,
        link: Link,
        accepted: Accepted,
        staged: Option<Box<Staged>>,
    ) -> io::Result<()> {
        let registry = self.registry.as_ref().ok_or(ErrorKind::NotConnected)?;
        let stream = Stream::new(accepted, registry, Token(link.id.index()))?;
        self.place(link, stream, staged);
        Ok(())
    }

    fn place(&mut self, link: Link, stream: Stream, staged: Option<Box<Staged>>) {
        let id = link.id;
        if id.index() >= self.places.len() {
            self.places.resize_with(id.index() + 1, || None);
        }
        if let Some(place) = self.places.get_mut(id.index()) {
            *place = Some(Socket {
                link,
                stream,
                staged,
                lingers: false,
                has_more: false,
                long_for: 0,
                shakes: false,
                in_line: false,
                had_work: 0,
                recent: 0,
                gathers: false,
            });
        }
    }
}

impl Socket {
    const fn read_size(&self) -> usize {
        if self.long_for > 0 { READ } else { SHORT_READ }
    }

    /// Returns the last turns in which the broker had something for it, seen from this turn.
    fn recent_turns(&self, turn: u32) -> u8 {
        let since = turn.wrapping_sub(self.had_work);
        self.recent.checked_shl(since).unwrap_or(0)
    }
}

/// Adds an accepted connection.
pub(crate) fn accepted<H: Hooks + 'static>(
    shared: &Rc<RefCell<Shared<H>>>,
    accepted: Accepted,
    peer: Peer,
    staged: Option<Box<Staged>>,
) {
    if shared.borrow().sockets.registry.is_none() {
        // The system has no poll left. A separate task for the connection needs none.
        spawn_accepted(shared, accepted, peer, staged);
        return;
    }
    let mut shared = shared.borrow_mut();
    // If there are too many connections, the stream is closed.
    if let Some(id) = shared.open(peer) {
        let link = match shared.member.is_some() {
            true => Link::unsettled(id),
            false => Link::new(id),
        };
        if shared.sockets.add(link, accepted, staged).is_err() {
            shared.closed(id);
        }
    }
}

/// Adds a connection that another shard has accepted.
pub(crate) fn arrived<H: Hooks>(shared: &Rc<RefCell<Shared<H>>>, moved: Moved) {
    let mut shared = shared.borrow_mut();
    let Moved {
        id: _,
        mut stream,
        staged,
        peer,
        input,
    } = moved;
    let Some(id) = shared.open_here(peer) else {
        return;
    };
    let registry = shared.sockets.registry.as_ref();
    let added = registry.map(|registry| stream.register(registry, Token(id.index())));
    match added {
        Some(Ok(())) => {
            let link = Link::arrived(id, input);
            shared.sockets.place(link, stream, staged);
            shared.sockets.is_ready(id);
        }
        _ => shared.closed(id),
    }
}

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
        turn: 0,
        shaker: Shaker::default(),
        lingering: VecDeque::new(),
        sleep: Box::pin(sleep_until(Instant::now())),
    };
    poll_fn(|cx| poller.turn(cx)).await
}

struct Poller<H> {
    shared: Rc<RefCell<Shared<H>>>,
    poll: AsyncFd<mio::Poll>,
    events: Events,
    /// The connections that used up their share of a turn and have more to read. They have their next turn after all others.
    more: VecDeque<ConnectionId>,
    /// The connections that were served because the broker had something for them, until their turn to be served again.
    line: VecDeque<ConnectionId>,
    /// Memory for the connections with many bytes to write.
    large: Vec<ConnectionId>,
    /// The number of the turn.
    turn: u32,
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
        self.turn = self.turn.wrapping_add(1);
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

    /// Serves the connections with more to read until they have used [`SHARES`] of the turn together, so that all other
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
            if let Some(Some(socket)) = place(shared, id) {
                socket.has_more = false;
                if socket.stream.ends {
                    // Freeing memory takes time as well.
                    let held = u64::try_from(socket.link.held() / 256).unwrap_or(u64::MAX);
                    least = ENDED.saturating_add(held);
                }
            }
            left = left.saturating_sub(self.serve(shared, id).0.max(least));
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
        let Some(Some(socket)) = place(shared, id) else {
            return true;
        };
        let recent = socket.recent_turns(self.turn);
        let is_steady = socket.in_line && recent.count_ones() >= STEADY;
        let may_gather = waiting < WRITE && socket.link.only_writes();
        let gathers = (socket.gathers || is_steady) && may_gather;
        if *left == 0 && !gathers {
            return false;
        }
        (socket.had_work, socket.recent) = (self.turn, recent | 1);
        socket.gathers = gathers;
        if !std::mem::replace(&mut socket.in_line, true) {
            self.line.push_back(id);
        }
        if gathers {
            shared.broker.writes_later(id, WRITE);
            return true;
        }
        shared.broker.writes_later(id, 0);
        let (steps, written) = self.serve(shared, id);
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
            let Some(Some(socket)) = place(shared, id) else {
                continue;
            };
            socket.in_line = std::mem::take(&mut socket.gathers);
            if socket.in_line {
                // The connection gathered bytes until now.
                socket.had_work = self.turn;
                self.line.push_back(id);
                // If it has no bytes left now, the next message makes it ready again.
                shared.broker.writes_later(id, 0);
                let (_, written) = self.serve(shared, id);
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
            let Some(Some(socket)) = shared.sockets.places.get_mut(event.token().0) else {
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
            // CONNECT and the end of a connection lead to more work than a message. Connections that end at once, or that have
            // much to do, have [`SHARES`] of the turn together, and so have those that connect beyond a share of their own.
            let connects = !shared.broker.is_accepted(id);
            if stream.ends || socket.long_for > 0 || connects && left_to_connect == 0 {
                socket.has_more = true;
                self.more.push_back(id);
                continue;
            }
            let (steps, _) = self.serve(shared, id);
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
            if let Some(Some(socket)) = place(shared, id) {
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
            if place(shared, id).is_some_and(|place| place.take().is_some()) {
                shared.closed(id);
            }
        }
    }

    /// Serves a connection. Returns the steps of the broker and the written bytes that this took.
    fn serve(&mut self, shared: &mut Shared<H>, id: ConnectionId) -> (u64, usize) {
        let Some(mut socket) = place(shared, id).and_then(Option::take) else {
            return (0, 0);
        };
        let before = shared.broker.steps();
        let turn = match &mut socket.staged {
            // The connection is served after the step of its handshake.
            None if socket.shakes => ServeResult::Waits,
            None => {
                self.shaker.served_others();
                let most = socket.read_size();
                socket.link.serve(shared, &mut socket.stream, most)
            }
            Some(_) => self.serve_staged(shared, &mut socket),
        };
        let steps = shared.broker.steps().wrapping_sub(before);
        let taken = (steps, socket.link.written());
        socket.long_for = match steps >= LONG || turn == ServeResult::HasMore {
            true => LONG_FOR,
            false => socket.long_for.saturating_sub(1),
        };
        if turn == ServeResult::HasMore
            && let Some(owner) = socket.link.owner()
        {
            move_to(owner, shared, socket);
            return taken;
        }
        if turn == ServeResult::Over {
            drop(socket);
            shared.closed(id);
            return taken;
        }
        if matches!(turn, ServeResult::HasMore | ServeResult::LingersOn) && !socket.has_more {
            socket.has_more = true;
            self.more.push_back(id);
        }
        if matches!(turn, ServeResult::Lingers | ServeResult::LingersOn) && !socket.lingers {
            socket.lingers = true;
            self.lingering.push_back((Instant::now() + LINGER, id));
        }
        if let Some(place) = shared.sockets.places.get_mut(id.index()) {
            *place = Some(socket);
        }
        taken
    }
}

impl<H: Hooks> Poller<H> {
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
        let turn = link.serve(shared, &mut wire, most);
        staged.log_failure(link.id, &peers);
        let (id, has_more) = (link.id, std::mem::take(&mut staged.has_more));
        match (turn, staged.unshaken.take()) {
            (ServeResult::Waits, Some(bytes)) => {
                socket.shakes = true;
                self.shaker.start(Step { id, staged, bytes });
                return turn;
            }
            _ => socket.staged = Some(staged),
        }
        match turn {
            ServeResult::Waits if has_more => ServeResult::HasMore,
            turn => turn,
        }
    }
}

/// Passes a connection to the shard that has the session of its client.
fn move_to<H: Hooks>(owner: u8, shared: &mut Shared<H>, mut socket: Socket) {
    let id = socket.link.id;
    let peer = shared.peers.get(id).unwrap_or_default();
    let registry = shared.sockets.registry.as_ref();
    let is_free = registry.is_some_and(|registry| socket.stream.deregister(registry).is_ok());
    shared.moved(id);
    if let Some(member) = shared.member.as_ref().filter(|_| is_free) {
        let moved = Moved {
            id,
            stream: socket.stream,
            staged: socket.staged,
            peer,
            input: socket.link.into_input(),
        };
        member.pass_on(shared, moved, owner);
    }
}

/// Returns the entry of a connection, if the entry still belongs to it.
fn place<H>(shared: &mut Shared<H>, id: ConnectionId) -> Option<&mut Option<Socket>> {
    let place = shared.sockets.places.get_mut(id.index())?;
    let own = place.as_ref().is_some_and(|socket| socket.link.id == id);
    own.then_some(place)
}
