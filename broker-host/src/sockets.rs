//! Serves the connections of the host's listeners. One task polls the system for all of them, so that a silent connection needs a
//! socket and a few words here, and not a task of tokio. All packets of one poll are routed before the receivers write, and a receiver
//! that gets messages all the time stands in line until the others have written: its next write takes many messages.

mod poller;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::task::{Context, Waker};

use mio::{Registry, Token};
use mqtt_broker::{ConnectionId, Hooks};

pub(crate) use self::poller::serve;
use crate::link::{Link, READ, ServeResult, Wire as _};
use crate::listener::Accepted;
use crate::peer::{Peer, Peers};
use crate::shards::Moved;
use crate::shared::{Shared, wake_after_poll};
use crate::staged::Staged;
use crate::stream::Stream;
use crate::task::spawn_accepted;

/// A connection that takes this many steps of the broker when it is served, or that has more to read then, is a long one.
const LONG: u64 = 256;
/// How many times a connection is still served as a long one after that.
const LONG_FOR: u8 = 8;
/// How many bytes are read at once from a connection that is not a long one.
const SHORT_READ: usize = 16 << 10;

/// The connections of listeners, for the tasks that add or wake one.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// The connections by their index, which is also the token of the poll.
    entries: Vec<Option<Socket>>,
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
    /// How many times it is still served as a long one.
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
        let sockets = self.entries.iter_mut().flatten();
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
        self.insert(link, stream, staged);
        Ok(())
    }

    fn insert(&mut self, link: Link, stream: Stream, staged: Option<Box<Staged>>) {
        let id = link.id;
        if id.index() >= self.entries.len() {
            self.entries.resize_with(id.index() + 1, || None);
        }
        if let Some(entry) = self.entries.get_mut(id.index()) {
            *entry = Some(Socket {
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
    fn recent_turns(&self, turn_number: u32) -> u8 {
        let since = turn_number.wrapping_sub(self.had_work);
        self.recent.checked_shl(since).unwrap_or(0)
    }

    /// Notes whether it is a long connection, after it was served.
    fn note_served(&mut self, steps: u64, result: ServeResult) {
        self.long_for = match steps >= LONG || result == ServeResult::HasMore {
            true => LONG_FOR,
            false => self.long_for.saturating_sub(1),
        };
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
            shared.sockets.insert(link, stream, staged);
            shared.sockets.is_ready(id);
        }
        _ => shared.closed(id),
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
fn entry_of<H>(shared: &mut Shared<H>, id: ConnectionId) -> Option<&mut Option<Socket>> {
    let entry = shared.sockets.entries.get_mut(id.index())?;
    let own = entry.as_ref().is_some_and(|socket| socket.link.id == id);
    own.then_some(entry)
}
