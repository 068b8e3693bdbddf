//! A host for the broker core: it brings bytes and time, and takes bytes away. One thread owns the broker, and whoever
//! serves a connection borrows it while it does so: there is no lock, no channel and no buffer between a read and the
//! packets it leads to. What a read brings is routed at once; each receiver is woken, and writes once what came together
//! for it. All TCP connections are served by one task (`sockets.rs`), other transports by a task each.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Next, Outgoing, Statistics, Verdict};
use mqtt_proto::{
    Decoded, Encode, EncodeError, MAX_PACKET, Packet, Publish, QoS, ReasonCode, Version,
};
use mqtt_session::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Sleep, sleep, timeout};

#[cfg(unix)]
use crate::sockets;
use sockets::Sockets;

/// What one read may bring.
const READ: usize = 64 << 10;
/// How long a connection that is over may take to write its last bytes and to close.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
/// How long to wait when a connection cannot be accepted, such as for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Commands that may wait.
const COMMANDS: usize = 1_024;

/// Speaks to a running [`Host`] from anywhere: other tasks, other threads, hooks that decide later.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<Command>);

/// The host's end of a [`Control`].
#[derive(Debug)]
pub struct Commands(mpsc::Receiver<Command>);

#[derive(Debug)]
enum Command {
    Decide(ConnectionId, Verdict),
    /// As the packet it would be in MQTT 5 at this quality of service.
    Publish(Vec<u8>, QoS),
    Disconnect(String, ReasonCode, oneshot::Sender<bool>),
    Statistics(oneshot::Sender<Statistics>),
}

/// A pair: hooks may hold the first, [`Host::new`] takes the second.
#[must_use]
pub fn control() -> (Control, Commands) {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    (Control(sender), Commands(receiver))
}

impl Control {
    /// Answers a hook's [`Verdict::Later`]. Waits while a thousand commands wait.
    pub async fn decide(&self, connection: ConnectionId, verdict: Verdict) {
        // A host that is gone needs no decisions.
        let _ = self.0.send(Command::Decide(connection, verdict)).await;
    }

    /// The same from a thread without a runtime, such as that of `spawn_blocking`.
    pub fn decide_blocking(&self, connection: ConnectionId, verdict: Verdict) {
        let _ = self.0.blocking_send(Command::Decide(connection, verdict));
    }

    /// Publishes a message to all whose subscriptions match.
    ///
    /// # Errors
    /// It cannot be written as a packet.
    pub async fn publish(&self, message: &Outgoing<'_>) -> Result<(), EncodeError> {
        let publish = Publish {
            retain: message.retain,
            properties: message.properties,
            ..Publish::new(message.topic, message.payload)
        };
        let mut packet = vec![0; publish.encoded_len(Version::V5)?];
        publish.encode(Version::V5, &mut packet)?;
        let _ = self.0.send(Command::Publish(packet, message.qos)).await;
        Ok(())
    }

    /// Ends the connection of a client. `false` if it is not connected.
    pub async fn disconnect(&self, client_id: &str, reason: ReasonCode) -> bool {
        let (sender, receiver) = oneshot::channel();
        let command = Command::Disconnect(client_id.to_owned(), reason, sender);
        self.0.send(command).await.is_ok() && receiver.await.unwrap_or(false)
    }

    /// What the broker counts. `None` if it is gone.
    pub async fn statistics(&self) -> Option<Statistics> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Command::Statistics(sender)).await.ok()?;
        receiver.await.ok()
    }
}

/// A broker with its clock and its connections.
///
/// ```no_run
/// use mqtt_tokio::{Host, broker::{Config, Hooks}, control};
/// struct Open(u128);
/// impl Hooks for Open {
///     fn unguessable(&mut self) -> u128 { self.0 += 1; self.0 } // take it from the system
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:1883").await?;
/// let (control, commands) = control();
/// let host = Host::new(Config::default(), Open(0), commands);
/// host.run([listener], std::future::pending()).await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Host<H> {
    shared: Rc<RefCell<Shared<H>>>,
    /// Until they are obeyed.
    commands: RefCell<Option<Commands>>,
}

#[derive(Debug)]
pub(crate) struct Shared<H> {
    pub(crate) broker: Broker<H>,
    start: tokio::time::Instant,
    /// Of the connections that have a task, by their index.
    wakers: Vec<Option<Waker>>,
    /// The TCP connections.
    pub(crate) sockets: Sockets,
    connections: usize,
    /// What all reads go to.
    buffer: Box<[u8]>,
    timer: Option<Waker>,
    timer_at: Option<Instant>,
    all_closed: Option<Waker>,
}

impl<H: Hooks> Shared<H> {
    fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Wakes whom the last call of the broker concerns. `own` is being served anyway.
    pub(crate) fn wake(&mut self, own: Option<ConnectionId>) {
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

    fn set_waker(&mut self, id: ConnectionId, waker: &Waker) {
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

    /// A connection, unless there are too many.
    pub(crate) fn open(&mut self) -> Option<ConnectionId> {
        let now = self.now();
        let id = self.broker.open(now).ok();
        self.connections += usize::from(id.is_some());
        self.wake(None);
        id
    }

    pub(crate) fn closed(&mut self, id: ConnectionId) {
        let now = self.now();
        self.broker.closed(id, now);
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
}

impl<H: Hooks + 'static> Host<H> {
    /// A broker that runs when [`Self::run`] does. Must be called within a runtime whose timer is on.
    #[must_use]
    pub fn new(config: Config, hooks: H, commands: Commands) -> Self {
        let start = tokio::time::Instant::now();
        let shared = Shared {
            broker: Broker::new(config, hooks, Instant::from_millis(0)),
            start,
            wakers: Vec::new(),
            sockets: Sockets::default(),
            connections: 0,
            buffer: vec![0; READ].into(),
            timer: None,
            timer_at: None,
            all_closed: None,
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
            commands: RefCell::new(Some(commands)),
        }
    }

    /// Serves a client on any transport, TLS or a Unix socket say, until its connection is over. Await it beside
    /// [`Self::run`], on the same thread: joined with it, or spawned on a `LocalSet` around both.
    ///
    /// Dropping it closes the connection, and the client's will goes out.
    pub fn connection<T>(&self, transport: T) -> impl Future<Output = ()> + use<T, H>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        connection(Rc::clone(&self.shared), transport)
    }

    /// Accepts connections until `stop` is ready; then says goodbye to all clients (0x8B) and waits until they are
    /// gone, five seconds at most. Once.
    ///
    /// It keeps one thread busy. Run it by `block_on` of a current-thread runtime; not `Send`, it cannot be spawned.
    pub async fn run(
        &self,
        listeners: impl IntoIterator<Item = TcpListener>,
        stop: impl Future<Output = ()>,
    ) {
        let shared = &self.shared;
        let commands = self.commands.take();
        let local = LocalSet::new();
        local
            .run_until(async {
                spawn_local(sockets::serve(Rc::clone(shared)));
                for listener in listeners {
                    spawn_local(accept(Rc::clone(shared), listener));
                }
                if let Some(commands) = commands {
                    spawn_local(obey(Rc::clone(shared), commands));
                }
                spawn_local(tick(Rc::clone(shared)));
                stop.await;
                {
                    let mut shared = shared.borrow_mut();
                    let now = shared.now();
                    shared.broker.shut_down(now);
                    shared.wake(None);
                }
                let all_closed = poll_fn(|cx| {
                    let mut shared = shared.borrow_mut();
                    if shared.connections == 0 {
                        return Poll::Ready(());
                    }
                    shared.all_closed = Some(cx.waker().clone());
                    Poll::Pending
                });
                let _ = timeout(LINGER, all_closed).await;
            })
            .await;
    }
}

async fn accept<H: Hooks + 'static>(shared: Rc<RefCell<Shared<H>>>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it a small packet may wait for the acknowledgement of the last.
                let _ = stream.set_nodelay(true);
                sockets::accepted(&shared, stream);
            }
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }
}

async fn obey<H: Hooks>(shared: Rc<RefCell<Shared<H>>>, mut commands: Commands) {
    while let Some(command) = commands.0.recv().await {
        let mut shared = shared.borrow_mut();
        let now = shared.now();
        match command {
            Command::Decide(connection, verdict) => shared.broker.decide(connection, verdict, now),
            Command::Publish(packet, qos) => {
                if let Ok(Decoded::Packet {
                    packet: Packet::Publish(publish),
                    ..
                }) = Packet::decode(&packet, Version::V5, MAX_PACKET)
                {
                    let message = Outgoing {
                        retain: publish.retain,
                        properties: publish.properties,
                        ..Outgoing::new(publish.topic, qos, publish.payload)
                    };
                    shared.broker.publish(&message, now);
                }
            }
            Command::Disconnect(client_id, reason, answer) => {
                let _ = answer.send(shared.broker.disconnect(&client_id, reason, now));
            }
            Command::Statistics(answer) => {
                let _ = answer.send(shared.broker.statistics(now));
            }
        }
        shared.wake(None);
    }
}

/// Tells the broker the time when it wants to know.
async fn tick<H: Hooks>(shared: Rc<RefCell<Shared<H>>>) {
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
            let at = shared.start + Duration::from_millis(at.as_millis());
            drop(shared);
            waiting.as_mut().reset(at);
            ready!(waiting.as_mut().poll(cx));
        }
    })
    .await
}

/// Serves one client until its connection is over.
pub(crate) fn connection<H: Hooks, T: AsyncRead + AsyncWrite + Unpin>(
    shared: Rc<RefCell<Shared<H>>>,
    transport: T,
) -> impl Future<Output = ()> {
    let id = shared.borrow_mut().open();
    let mut task = id.map(|id| Task {
        shared,
        link: Link::new(id),
        transport,
        lingers: None,
    });
    // Without a connection to serve it is over at once, and the transport is closed.
    poll_fn(move |cx| task.as_mut().map_or(Poll::Ready(()), |task| task.poll(cx)))
}

/// A connection with a task of its own.
struct Task<H: Hooks, T> {
    shared: Rc<RefCell<Shared<H>>>,
    link: Link,
    transport: T,
    /// It is over, and this is how long it waits for the client to close.
    lingers: Option<Pin<Box<Sleep>>>,
}

impl<H: Hooks, T> Drop for Task<H, T> {
    fn drop(&mut self) {
        self.shared.borrow_mut().closed(self.link.id);
    }
}

impl<H: Hooks, T: AsyncRead + AsyncWrite + Unpin> Task<H, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.shared.borrow_mut();
        shared.set_waker(self.link.id, cx.waker());
        let mut wire = Polled {
            transport: &mut self.transport,
            cx,
        };
        let turn = self.link.serve(&mut shared, &mut wire);
        drop(shared);
        match turn {
            Turn::Waits => {}
            Turn::HasMore => cx.waker().wake_by_ref(),
            Turn::Over => return Poll::Ready(()),
            Turn::Lingers => {
                let sleep = self.lingers.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                return sleep.as_mut().poll(cx);
            }
        }
        Poll::Pending
    }
}

/// A transport as [`Link`] sees it: `Pending` where it would have to wait.
pub(crate) trait Wire {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>>;
    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Nothing more is written.
    fn shut_down(&mut self) -> Poll<io::Result<()>>;
}

struct Polled<'a, 'c, T> {
    transport: &'a mut T,
    cx: &'a mut Context<'c>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for Polled<'_, '_, T> {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(space);
        ready!(Pin::new(&mut *self.transport).poll_read(self.cx, &mut space))?;
        Poll::Ready(Ok(space.filled().len()))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.transport).poll_write(self.cx, bytes)
    }

    fn shut_down(&mut self) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.transport).poll_shutdown(self.cx)
    }
}

/// Where a connection stands after [`Link::serve`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    /// For its transport or for the broker.
    Waits,
    /// There is more to read, after the others.
    HasMore,
    /// It is over, and waits for its last bytes to go out and for the client to close: no longer than [`LINGER`].
    /// Closing at once could destroy what the client has not read yet.
    Lingers,
    /// Close the transport.
    Over,
}

/// What a connection keeps between two turns.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    /// The beginning of a packet, or what the broker would not take yet.
    rest: Vec<u8>,
    blocked: bool,
    shut_down: bool,
}

impl Link {
    pub(crate) const fn new(id: ConnectionId) -> Self {
        Self {
            id,
            rest: Vec::new(),
            blocked: false,
            shut_down: false,
        }
    }

    /// Does all that can be done now. A transport that fails or ends is the same to the broker.
    pub(crate) fn serve<H: Hooks>(&mut self, shared: &mut Shared<H>, wire: &mut impl Wire) -> Turn {
        self.try_serve(shared, wire).unwrap_or(Turn::Over)
    }

    fn try_serve<H: Hooks>(
        &mut self,
        shared: &mut Shared<H>,
        wire: &mut impl Wire,
    ) -> io::Result<Turn> {
        loop {
            let written = self.write(shared, wire)?;
            if shared.broker.is_closing(self.id) {
                return self.linger(written, wire);
            }
            if self.blocked {
                // What is written now, or was decided meanwhile, may have made room.
                self.take_rest(shared);
                shared.wake(Some(self.id));
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
                Poll::Ready(Ok(READ)) => {
                    self.write(shared, wire)?;
                    return Ok(Turn::HasMore);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
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
                return Ok(true);
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
        let consumed = self.receive(shared, &rest);
        if consumed < rest.len() {
            rest.drain(..consumed);
            self.rest = rest;
        }
    }

    fn receive<H: Hooks>(&mut self, shared: &mut Shared<H>, input: &[u8]) -> usize {
        let now = shared.now();
        let received = shared.broker.receive(self.id, input, now);
        self.blocked = received.next == Next::Blocked;
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
        loop {
            match wire.read(&mut space) {
                Poll::Pending => return Ok(Turn::Lingers),
                Poll::Ready(Ok(0)) => return Ok(Turn::Over),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }
}

/// Where there is no `epoll` or `kqueue`, TCP connections have a task each like all others.
#[cfg(not(unix))]
mod sockets {
    use tokio::net::TcpStream;

    use super::{ConnectionId, Hooks, Rc, RefCell, Shared, connection, spawn_local};

    #[derive(Debug, Default)]
    pub(crate) struct Sockets;

    impl Sockets {
        pub(crate) fn is_ready(&mut self, _: ConnectionId) {}
    }

    pub(crate) fn accepted<H: Hooks + 'static>(shared: &Rc<RefCell<Shared<H>>>, stream: TcpStream) {
        spawn_local(connection(Rc::clone(shared), stream));
    }

    pub(crate) async fn serve<H: Hooks>(_: Rc<RefCell<Shared<H>>>) {}
}
