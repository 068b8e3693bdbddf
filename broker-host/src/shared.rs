//! Holds the state that the tasks of a host share: the broker, the clock, the timer, and the connections to be woken.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

#[cfg(feature = "files")]
use mqtt_broker::TooManyConnections;
use mqtt_broker::{Broker, Config, ConnectionId, Elsewhere, Hooks};
use mqtt_session::Instant;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::link::BUFFER;
use crate::panics::Panics;
use crate::peer::{Peer, Peers};
use crate::sockets::Sockets;

/// The default limit of TLS and WebSocket handshakes at the same time.
const HANDSHAKES: usize = 1_000;

/// The time between two log lines about missing room for connections.
#[cfg(feature = "files")]
const TOLD_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Shared<H> {
    pub(crate) broker: Broker<H>,
    start: tokio::time::Instant,
    /// The wakers of connections with a separate task, by the connection's index.
    wakers: Vec<Option<Waker>>,
    /// The connections of listeners.
    pub(crate) sockets: Sockets,
    pub(crate) peers: Peers,
    /// The permits for handshakes at the same time.
    pub(crate) handshakes: Arc<Semaphore>,
    connections: usize,
    /// The buffer of all reads.
    pub(crate) buffer: Box<[u8]>,
    timer: Option<Waker>,
    timer_at: Option<Instant>,
    all_closed: Option<Waker>,
    /// When missing room for a connection was last logged.
    #[cfg(feature = "files")]
    full_at: Option<tokio::time::Instant>,
    /// Whether connections are being served one after the other.
    in_turn: bool,
    pub(crate) panics: Rc<Panics>,
    /// This shard among the others, if there are others.
    #[cfg(unix)]
    pub(crate) member: Option<Box<crate::shards::Member>>,
    /// The thread that stores the broker's records, if they are stored.
    #[cfg(feature = "store")]
    pub(crate) storage: Option<crate::storage::Storage>,
}

impl<H: Hooks> Shared<H> {
    pub(crate) fn new(config: Config, hooks: H, peers: Peers) -> Self {
        Self {
            broker: Broker::new(config, hooks, Instant::from_millis(0)),
            start: tokio::time::Instant::now(),
            wakers: Vec::new(),
            sockets: Sockets::default(),
            peers,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            connections: 0,
            buffer: vec![0; BUFFER].into(),
            timer: None,
            timer_at: None,
            all_closed: None,
            #[cfg(feature = "files")]
            full_at: None,
            in_turn: false,
            panics: Rc::default(),
            #[cfg(unix)]
            member: None,
            #[cfg(feature = "store")]
            storage: None,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    #[cfg(feature = "files")]
    pub(crate) fn owns_journal_until(&mut self, until: std::time::Instant) {
        let since = until.saturating_duration_since(self.start.into_std());
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.broker.owns_journal_until(Instant::from_millis(millis));
    }

    /// Notes that connections are being served one after the other: their records are passed to the store together, since each time
    /// wakes its thread.
    pub(crate) const fn begin_turn(&mut self) {
        self.in_turn = true;
    }

    pub(crate) fn end_turn(&mut self) {
        self.in_turn = false;
        self.give_records(false);
    }

    /// Passes new records to the store. `later`: only if they are many.
    fn give_records(&mut self, later: bool) {
        #[cfg(feature = "store")]
        if let Some(storage) = &mut self.storage {
            storage.give(&self.broker, later);
        }
        #[cfg(not(feature = "store"))]
        let _ = later;
    }

    /// Wakes the tasks of the connections that the last call of the broker affects. `own` is being served and need not be woken.
    pub(crate) fn wake(&mut self, own: Option<ConnectionId>) {
        self.give_records(self.in_turn);
        while let Some(id) = self.broker.next_ready() {
            if Some(id) == own {
                continue;
            }
            match self.wakers.get(id.index()) {
                Some(Some(waker)) => waker.wake_by_ref(),
                _ => self.sockets.is_ready(id),
            }
        }
        let sooner = |at: Instant| self.timer_at.is_none_or(|timer| at < timer);
        if self.broker.deadline().is_some_and(sooner)
            && let Some(timer) = self.timer.take()
        {
            timer.wake();
        }
    }

    pub(crate) fn set_waker(&mut self, id: ConnectionId, waker: &Waker) {
        let index = id.index();
        if index >= self.wakers.len() {
            self.wakers.resize(index + 1, None);
        }
        if let Some(place) = self.wakers.get_mut(index) {
            match place {
                Some(old) if old.will_wake(waker) => {}
                _ => *place = Some(waker.clone()),
            }
        }
    }

    /// Adds a connection, unless there are too many.
    pub(crate) fn open(&mut self, peer: Peer) -> Option<ConnectionId> {
        let elsewhere = self.elsewhere(peer.source);
        self.open_beside(peer, elsewhere)
    }

    /// Adds a connection that another shard has accepted and counted.
    #[cfg(unix)]
    pub(crate) fn open_here(&mut self, peer: Peer) -> Option<ConnectionId> {
        let source = peer.source;
        let id = self.open_beside(peer, Elsewhere::default());
        if let (Some(member), None) = (&self.member, id) {
            member.closed(source);
        }
        id
    }

    /// Counts a connection for the address that its proxy has sent, before the broker gets its first bytes. Returns `false` if the address
    /// has too many: the broker ends this one.
    pub(crate) fn is_within_address(&mut self, id: ConnectionId) -> bool {
        let source = self.peers.source(id);
        let (elsewhere, now) = (self.elsewhere(source), self.now());
        let counted = self.broker.set_source(id, source, elsewhere, now);
        #[cfg(feature = "files")]
        if let (Err(error), Some(peer)) = (&counted, self.peers.get(id)) {
            self.log_full(&peer, Some(error));
        }
        counted.is_ok()
    }

    fn open_beside(&mut self, peer: Peer, elsewhere: Elsewhere) -> Option<ConnectionId> {
        let now = self.now();
        let opened = self.broker.open_beside(peer.source, elsewhere, now);
        #[cfg(feature = "files")]
        self.log_full(&peer, opened.as_ref().err());
        let id = opened.ok();
        if let Some(id) = id {
            self.connections += 1;
            self.peers.set(id, peer);
        }
        self.wake(None);
        id
    }

    #[cfg(unix)]
    fn elsewhere(&self, source: u64) -> Elsewhere {
        let member = self.member.as_ref();
        member.map_or_else(Elsewhere::default, |own| own.elsewhere(source))
    }

    #[cfg(not(unix))]
    fn elsewhere(&self, _: u64) -> Elsewhere {
        Elsewhere::default()
    }

    /// Returns the shard that has the session of a new client, if it is another shard. Other processes get no clients without
    /// an identifier: to serve these here costs less.
    pub(crate) fn owner_of(&mut self, input: &[u8]) -> Option<u8> {
        let owner = self.broker.owner_of(input)?;
        #[cfg(unix)]
        if self
            .member
            .as_ref()
            .is_some_and(|own| own.relays().is_some())
            && crate::relay::is_unnamed(input)
        {
            return None;
        }
        Some(owner)
    }

    /// Opens the link to another shard.
    #[cfg(unix)]
    pub(crate) fn open_link(&mut self, to: u8) -> Option<ConnectionId> {
        let now = self.now();
        let id = self.broker.open_link(to, now);
        self.connections += usize::from(id.is_some());
        self.wake(None);
        id
    }

    /// Notes that another shard is away.
    #[cfg(unix)]
    pub(crate) fn miss(&mut self, shard: u8) {
        let now = self.now();
        self.broker.shard_is_away(shard, now);
        self.wake(None);
    }

    /// Ends a connection without an accepted CONNECT, if there is one.
    pub(crate) fn make_room(&mut self) -> bool {
        let now = self.now();
        let has_room = self.broker.make_room(now);
        self.wake(None);
        has_room
    }

    /// Logs that there is no room for a connection, at most once a minute.
    #[cfg(feature = "files")]
    fn log_full(&mut self, peer: &Peer, error: Option<&TooManyConnections>) {
        let now = tokio::time::Instant::now();
        let is_told = self.full_at.is_some_and(|at| now < at + TOLD_AGAIN);
        if let Some(error) = error
            && !is_told
        {
            self.full_at = Some(now);
            let peer = peer.address.map(tracing::field::display);
            tracing::warn!(peer, %error, "a connection is refused");
        }
    }

    pub(crate) fn closed(&mut self, id: ConnectionId) {
        let now = self.now();
        self.broker.closed(id, now);
        let peer = self.peers.forget(id);
        #[cfg(unix)]
        if let (Some(member), Some(peer)) = (&self.member, peer) {
            member.closed(peer.source);
        }
        self.has_closed(id);
    }

    /// Forgets a connection that goes to another shard.
    #[cfg(unix)]
    pub(crate) fn moved(&mut self, id: ConnectionId) {
        let now = self.now();
        self.broker.moved(id, now);
        self.peers.forget(id);
        self.has_closed(id);
    }

    fn has_closed(&mut self, id: ConnectionId) {
        if let Some(place) = self.wakers.get_mut(id.index()) {
            *place = None;
        }
        self.connections -= 1;
        if self.connections == 0
            && let Some(waker) = self.all_closed.take()
        {
            waker.wake();
        }
        self.wake(None);
    }

    /// Ends all connections.
    pub(crate) fn shut_down(&mut self) {
        #[cfg(unix)]
        if let Some(member) = &mut self.member {
            member.end();
        }
        let now = self.now();
        self.broker.shut_down(now);
        self.wake(None);
    }

    /// Waits until all connections are closed.
    pub(crate) fn poll_all_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connections == 0 {
            return Poll::Ready(());
        }
        self.all_closed = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Wakes the task after the runtime has polled the system. Otherwise the runtime would poll the system after 61 polls of tasks,
/// and a client that sends little would wait for 61 turns of those that send much.
pub(crate) fn wake_after_poll(cx: &mut Context<'_>) {
    let _ = pin!(yield_now()).poll(cx);
}

/// Tells the broker the time at its deadline.
pub(crate) async fn tick<H: Hooks>(shared: Rc<RefCell<Shared<H>>>) {
    let mut waiting = pin!(sleep(Duration::ZERO));
    poll_fn(|cx| {
        loop {
            let mut shared = shared.borrow_mut();
            let now = shared.now();
            shared.broker.tick(now);
            shared.wake(None);
            shared.timer = Some(cx.waker().clone());
            shared.timer_at = shared.broker.deadline();
            let Some(at) = shared.timer_at else {
                return Poll::Pending;
            };
            if at <= now {
                // Work remains: the connections have their turn before it continues.
                wake_after_poll(cx);
                return Poll::Pending;
            }
            let at = shared.start + Duration::from_millis(at.as_millis());
            drop(shared);
            waiting.as_mut().reset(at);
            ready!(waiting.as_mut().poll(cx));
        }
    })
    .await
}
