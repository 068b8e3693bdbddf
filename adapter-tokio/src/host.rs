//! A host for the broker core: it brings bytes and time, and takes bytes away. One thread owns the broker; a connection
//! is a small task that borrows it while it is polled, so there is no lock, no channel and no buffer between a read and
//! the packets it leads to. What a read brings is routed at once; each receiver is woken, and writes once what came
//! together for it.

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

/// What one read may bring.
const READ: usize = 64 << 10;
/// How long a connection that is over may take to write its last bytes and to close.
const LINGER: Duration = Duration::from_secs(5);
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
/// use adapter_tokio::{Host, broker::{Config, Hooks}, control};
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
    commands: Commands,
}

#[derive(Debug)]
struct Shared<H> {
    broker: Broker<H>,
    start: tokio::time::Instant,
    /// Of the connections, by their index.
    wakers: Vec<Option<Waker>>,
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

    /// Wakes whom the last call of the broker concerns. `own` is being polled anyway.
    fn wake(&mut self, own: Option<ConnectionId>) {
        while let Some(id) = self.broker.next_ready() {
            if Some(id) != own
                && let Some(Some(waker)) = self.wakers.get(id.index())
            {
                waker.wake_by_ref();
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

    fn closed(&mut self, id: ConnectionId) {
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
            connections: 0,
            buffer: vec![0; READ].into(),
            timer: None,
            timer_at: None,
            all_closed: None,
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
            commands,
        }
    }

    /// Serves a client on any transport, TLS or a Unix socket say. Spawn it on the `LocalSet` that [`Self::run`] is on.
    ///
    /// Dropping it closes the connection, and the client's will goes out.
    pub fn connection<T>(&self, transport: T) -> impl Future<Output = ()> + use<T, H>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        connection(Rc::clone(&self.shared), transport)
    }

    /// Accepts connections until `stop` is ready; then says goodbye to all clients (0x8B) and waits until they are
    /// gone, five seconds at most.
    ///
    /// It keeps one thread busy. Run it by `block_on` of a current-thread runtime; not `Send`, it cannot be spawned.
    pub async fn run(
        self,
        listeners: impl IntoIterator<Item = TcpListener>,
        stop: impl Future<Output = ()>,
    ) {
        let Self { shared, commands } = self;
        let local = LocalSet::new();
        local
            .run_until(async {
                for listener in listeners {
                    spawn_local(accept(Rc::clone(&shared), listener));
                }
                spawn_local(obey(Rc::clone(&shared), commands));
                spawn_local(tick(Rc::clone(&shared)));
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
                spawn_local(connection(Rc::clone(&shared), stream));
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
fn connection<H: Hooks, T: AsyncRead + AsyncWrite + Unpin>(
    shared: Rc<RefCell<Shared<H>>>,
    transport: T,
) -> impl Future<Output = ()> {
    let id = {
        let mut shared = shared.borrow_mut();
        let now = shared.now();
        let id = shared.broker.open(now).ok();
        shared.connections += usize::from(id.is_some());
        shared.wake(None);
        id
    };
    let mut served = id.map(|id| Served {
        shared,
        id,
        transport,
        rest: Vec::new(),
        blocked: false,
        lingers: None,
    });
    // Without a connection to serve it is over at once, and the transport is closed.
    poll_fn(move |cx| {
        served
            .as_mut()
            .map_or(Poll::Ready(()), |served| served.poll(cx))
    })
}

/// A connection and what it keeps between two polls.
struct Served<H: Hooks, T> {
    shared: Rc<RefCell<Shared<H>>>,
    id: ConnectionId,
    transport: T,
    /// The beginning of a packet, or what the broker would not take yet.
    rest: Vec<u8>,
    blocked: bool,
    /// It is over, its transport was shut down, and this is how long it waits for the client to close.
    lingers: Option<Pin<Box<Sleep>>>,
}

impl<H: Hooks, T> Drop for Served<H, T> {
    fn drop(&mut self) {
        self.shared.borrow_mut().closed(self.id);
    }
}

impl<H: Hooks, T: AsyncRead + AsyncWrite + Unpin> Served<H, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.step(cx) {
            Poll::Pending => Poll::Pending,
            // The transport failed or ended, which is the same to the broker.
            Poll::Ready(Ok(()) | Err(_)) => Poll::Ready(()),
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = Rc::clone(&self.shared);
        let mut shared = shared.borrow_mut();
        shared.set_waker(self.id, cx.waker());
        loop {
            let written = self.write(&mut shared, cx)?;
            if shared.broker.is_closing(self.id) {
                drop(shared);
                return self.linger(written, cx);
            }
            if self.blocked {
                // What is written now, or was decided meanwhile, may have made room.
                self.take_rest(&mut shared);
                shared.wake(Some(self.id));
                let can_write = written.is_ready() && !shared.broker.outgoing(self.id).is_empty();
                if self.blocked && !can_write {
                    return Poll::Pending;
                }
                continue;
            }
            let mut buffer = std::mem::take(&mut shared.buffer);
            let mut space = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut self.transport).poll_read(cx, &mut space);
            let brought = space.filled().len();
            let taken = match read {
                Poll::Ready(Ok(())) => {
                    let bytes = buffer.get(..brought).unwrap_or_default();
                    self.take(&mut shared, bytes);
                    Poll::Ready(Ok(()))
                }
                other => other,
            };
            shared.buffer = buffer;
            shared.wake(Some(self.id));
            ready!(taken)?;
            if brought == 0 {
                return Poll::Ready(Ok(()));
            }
            if brought == READ {
                // There is more: after the others.
                cx.waker().wake_by_ref();
                let _ = self.write(&mut shared, cx)?;
                return Poll::Pending;
            }
        }
    }

    /// Writes what is outgoing, as far as it goes.
    fn write(&mut self, shared: &mut Shared<H>, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        loop {
            let outgoing = shared.broker.outgoing(self.id);
            if outgoing.is_empty() {
                return Ok(Poll::Ready(()));
            }
            match Pin::new(&mut self.transport).poll_write(cx, outgoing) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    let now = shared.now();
                    shared.broker.sent(self.id, n, now);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    /// Gives the broker what a read brought, behind what is left from the last.
    fn take(&mut self, shared: &mut Shared<H>, bytes: &[u8]) {
        if self.rest.is_empty() {
            let consumed = self.receive(shared, bytes);
            self.rest
                .extend_from_slice(bytes.get(consumed..).unwrap_or_default());
        } else {
            self.rest.extend_from_slice(bytes);
            self.take_rest(shared);
        }
    }

    fn take_rest(&mut self, shared: &mut Shared<H>) {
        let mut rest = std::mem::take(&mut self.rest);
        let consumed = self.receive(shared, &rest);
        if consumed < rest.len() {
            rest.drain(..consumed);
            self.rest = rest;
        }
    }

    fn receive(&mut self, shared: &mut Shared<H>, input: &[u8]) -> usize {
        let now = shared.now();
        let received = shared.broker.receive(self.id, input, now);
        self.blocked = received.next == Next::Blocked;
        received.consumed
    }

    /// Nothing more is said: the last bytes go out, and the client closes, or its time is up. Closing at once could
    /// destroy what it has not read yet.
    fn linger(&mut self, written: Poll<()>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let lingers = self.lingers.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if lingers.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        ready!(written);
        ready!(Pin::new(&mut self.transport).poll_shutdown(cx))?;
        let mut space = [0; 1_024];
        loop {
            let mut space = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.transport).poll_read(cx, &mut space))?;
            if space.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
