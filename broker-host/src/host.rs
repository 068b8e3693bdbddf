//! Runs the broker core: reads bytes for it, writes its outgoing bytes, and tells it the time. One thread owns the broker. The
//! task of a connection borrows the broker while it serves the connection, so there is no lock, no channel and no buffer between
//! a read and its packets. The packets of a read are routed at once; each receiver is woken, and writes once all packets that
//! were routed to it. One task serves all TCP connections (`sockets.rs`), and each other transport has a task (`task.rs`).

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
#[cfg(feature = "store")]
use std::time::{SystemTime, UNIX_EPOCH};

use mqtt_broker::{Config, Hooks};
#[cfg(feature = "store")]
use mqtt_store::{OpenError, Store};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
#[cfg(feature = "store")]
use tokio::time::sleep;
use tokio::time::timeout;

use crate::control::{Commands, obey};
use crate::descriptors;
use crate::listener::{Listener, accept};
use crate::panics::Panics;
use crate::peer::Peer;
#[cfg(any(unix, feature = "files"))]
use crate::shards::Seat;
use crate::shared::{Shared, tick};
use crate::sockets;
#[cfg(feature = "store")]
use crate::storage;
use crate::task::connection;

/// How long the host waits at its end for clients to close.
const GOODBYE: Duration = Duration::from_millis(500);

/// A broker with its clock and its connections. [`listen`](crate::listen) makes a listener with the options that a broker wants.
///
/// ```no_run
/// use mqtt_broker_host::{Host, broker::{Config, Hooks}, control};
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
    pub(crate) shared: Rc<RefCell<Shared<H>>>,
    /// The commands, until `run` executes them.
    commands: RefCell<Option<Commands>>,
    /// This shard among others, until `run` opens its links.
    #[cfg(unix)]
    seat: RefCell<Option<Seat>>,
}

impl<H: Hooks + 'static> Host<H> {
    /// Makes a host with a new broker; [`Self::run`] serves it. Must be called within a runtime whose timer is enabled.
    #[must_use]
    pub fn new(config: Config, hooks: H, commands: Commands) -> Self {
        descriptors::reserve(config.connections);
        Self {
            shared: Rc::new(RefCell::new(Shared::new(
                config,
                hooks,
                commands.peers.clone(),
            ))),
            commands: RefCell::new(Some(commands)),
            #[cfg(unix)]
            seat: RefCell::new(None),
        }
    }

    /// Makes a host of one shard.
    #[cfg(feature = "files")]
    pub(crate) fn of_shard(config: Config, hooks: H, commands: Commands, seat: Seat) -> Self {
        let host = Self::new(config, hooks, commands);
        #[cfg(unix)]
        {
            let mut shared = host.shared.borrow_mut();
            shared.broker.start_links(seat.own, seat.count());
            shared.member = Some(Box::new(seat.member()));
        }
        #[cfg(unix)]
        host.seat.replace(Some(seat));
        #[cfg(not(unix))]
        drop(seat);
        host
    }

    /// Makes a host with a store, like [`Self::new`]: the broker continues the stored sessions and messages, and its answers to
    /// clients hold after a crash. Sets `config.wall_clock`.
    ///
    /// # Errors
    /// The store cannot be read, or its content is damaged.
    #[cfg(feature = "store")]
    pub fn with_store(
        mut config: Config,
        hooks: H,
        commands: Commands,
        store: Store,
    ) -> Result<Self, OpenError> {
        config.wall_clock = wall_clock();
        let host = Self::new(config, hooks, commands);
        host.restore(store)?;
        Ok(host)
    }

    /// Continues what is in a store. The broker has connected no client, and knows the wall clock.
    #[cfg(feature = "store")]
    pub(crate) fn restore(&self, store: Store) -> Result<(), OpenError> {
        let mut shared = self.shared.borrow_mut();
        let now = shared.now();
        let (storage, restored) = storage::start(&mut shared.broker, store, now)?;
        shared.storage = Some(storage);
        #[cfg(feature = "files")]
        tracing::info!(
            sessions = restored.sessions,
            subscriptions = restored.subscriptions,
            messages = restored.messages,
            retained = restored.retained,
            "restored"
        );
        let _ = restored;
        shared.wake(None);
        Ok(())
    }

    /// Serves a client over any transport, such as TLS or a Unix socket, until its connection has ended. Await it in the same
    /// thread as [`Self::run`]: joined with it, or spawned on a `LocalSet` around both.
    ///
    /// Dropping the future closes the connection, and the broker publishes the client's will.
    pub fn connection<T>(&self, transport: T) -> impl Future<Output = ()> + use<T, H>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        connection(Rc::clone(&self.shared), transport, Peer::default(), None)
    }

    /// Sets how many handshakes (TLS, WebSocket, the header of a proxy) may run at the same time; the system keeps other clients
    /// waiting. [`Config::connect_timeout_ms`] limits the time of a handshake. Default 1,000. Call it before [`Self::run`].
    pub fn limit_handshakes(&self, most: usize) {
        let handshakes = Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS));
        self.shared.borrow_mut().handshakes = Arc::new(handshakes);
    }

    /// Accepts connections until `stop` is ready. Then it sends DISCONNECT with 0x8B to clients of MQTT 5, ends all connections,
    /// and waits until they are closed, for at most half a second. A host runs once. A failed store stops it as well: see
    /// [`Self::close`].
    ///
    /// The future is not `Send`: run it by `block_on` of a current-thread runtime, or spawn it on a `LocalSet`.
    ///
    /// # Panics
    /// A task of the host panicked, by a defect of this library or of `H`. No task continues, and clients of MQTT 5 get DISCONNECT with
    /// 0x83 where that is possible: on listeners, on Unix.
    pub async fn run(
        &self,
        listeners: impl IntoIterator<Item = impl Into<Listener>>,
        stop: impl Future<Output = ()>,
    ) {
        if let Err(payload) = self.serve(listeners, stop).await {
            resume_unwind(payload);
        }
    }

    /// Does the same, and returns the message of a panic.
    pub(crate) async fn serve(
        &self,
        listeners: impl IntoIterator<Item = impl Into<Listener>>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Box<dyn Any + Send>> {
        let shared = &self.shared;
        let commands = self.commands.take();
        let local = LocalSet::new();
        local
            .run_until(async {
                let panics = Rc::clone(&shared.borrow().panics);
                panics.spawn(sockets::serve(Rc::clone(shared)));
                #[cfg(unix)]
                if let Some(seat) = self.seat.take() {
                    seat.start(shared, &panics);
                }
                for listener in listeners {
                    panics.spawn(accept(Rc::clone(shared), listener.into()));
                }
                if let Some(commands) = commands {
                    panics.spawn(obey(Rc::clone(shared), commands));
                }
                panics.spawn(tick(Rc::clone(shared)));
                let work = async {
                    self.run_store(stop, &panics).await;
                    shared.borrow_mut().shut_down();
                    let all_closed = poll_fn(|cx| shared.borrow_mut().poll_all_closed(cx));
                    let all_ended = async { tokio::join!(all_closed, relays_ended(shared)) };
                    let _ = timeout(GOODBYE, all_ended).await;
                };
                tokio::select! {
                    biased;
                    payload = panics.first() => {
                        shared.borrow_mut().say_goodbye();
                        Err(payload)
                    }
                    () = work => Ok(()),
                }
            })
            .await
    }

    /// Stores the remaining records and closes the store; does nothing without a store. Call it after [`Self::run`].
    ///
    /// # Errors
    /// The store failed, or there is no room for all records. All that clients were told is stored.
    #[cfg(feature = "store")]
    pub fn close(self) -> Result<(), StoreFailed> {
        let mut shared = self.shared.borrow_mut();
        shared.wake(None);
        let storage = shared.storage.take();
        drop(shared);
        let closed = storage.map_or(Ok(()), storage::Storage::close);
        closed.map_err(StoreFailed)
    }

    /// Returns what tells the broker how long it owns its journal for certain.
    #[cfg(feature = "files")]
    pub(crate) fn tell_certainty(&self) -> crate::engine::TellUntil {
        let shared = Rc::clone(&self.shared);
        Box::new(move |until| shared.borrow_mut().owns_journal_until(until))
    }

    /// Runs the store until `stop` is ready or the store fails.
    #[cfg(feature = "store")]
    async fn run_store(&self, stop: impl Future<Output = ()>, panics: &Rc<Panics>) {
        let ended = {
            let shared = self.shared.borrow();
            shared.storage.as_ref().map(|s| Rc::clone(&s.ended))
        };
        let Some(ended) = ended else {
            return stop.await;
        };
        panics.spawn(storage::watch(Rc::clone(&self.shared)));
        panics.spawn(follow_clock(Rc::clone(&self.shared)));
        tokio::select! {
            () = stop => {}
            () = ended.notified() => {}
        }
    }

    #[cfg(not(feature = "store"))]
    async fn run_store(&self, stop: impl Future<Output = ()>, _: &Rc<Panics>) {
        stop.await;
    }
}

/// Ends the connections that this process passes on to others.
#[cfg(unix)]
async fn relays_ended<H: Hooks>(shared: &RefCell<Shared<H>>) {
    let relays = shared
        .borrow()
        .member
        .as_ref()
        .and_then(|own| own.relays().cloned());
    if let Some(relays) = relays {
        relays.say_goodbye().await;
    }
}

#[cfg(not(unix))]
async fn relays_ended<H>(_: &RefCell<Shared<H>>) {}

/// How often the clock of the machine is asked: it may be set after the start.
#[cfg(feature = "store")]
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// Tells the broker the wall clock again and again, for the times in records.
#[cfg(feature = "store")]
async fn follow_clock<H: Hooks>(shared: Rc<RefCell<Shared<H>>>) {
    loop {
        sleep(CLOCK_CHECK).await;
        let mut shared = shared.borrow_mut();
        let since_start = shared.now().as_millis();
        let at_start = wall_clock().saturating_sub(since_start);
        shared.broker.set_wall_clock(at_start);
    }
}

/// Returns the milliseconds since the beginning of 1970.
#[cfg(feature = "store")]
pub(crate) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.map_or(0, |since| since.as_millis())).unwrap_or(u64::MAX)
}

/// The store of a host failed. All that clients were told is stored, and another process can read it.
#[cfg(feature = "store")]
#[derive(Clone, Debug)]
pub struct StoreFailed(pub(crate) mqtt_store::Failure);

#[cfg(feature = "store")]
impl StoreFailed {
    /// Returns whether another process has the state now and serves.
    #[must_use]
    pub const fn is_superseded(&self) -> bool {
        matches!(self.0, mqtt_store::Failure::Superseded(_))
    }
}

#[cfg(feature = "store")]
impl std::fmt::Display for StoreFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(feature = "store")]
impl std::error::Error for StoreFailed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The text is that of the failure.
        self.0.source()
    }
}

#[cfg(all(test, feature = "store"))]
mod tests {
    use mqtt_broker::records::Records;
    use mqtt_broker::records::broker::Entry;

    use super::*;

    struct Open;

    impl Hooks for Open {
        fn unguessable(&mut self) -> u128 {
            0
        }
    }

    /// Virtual time goes on by a minute, and the clock of the machine does not, as if somebody had set it back: the end of a session in
    /// its record is that of the clock.
    #[tokio::test(start_paused = true)]
    async fn records_have_the_wall_clock_of_the_last_minute() {
        const EXPIRY: u64 = 0x100;
        let mut config = Config::default();
        config.wall_clock = wall_clock();
        let host = Host::new(config, Open, crate::control().1);
        let minute = timeout(
            CLOCK_CHECK + Duration::from_secs(1),
            follow_clock(Rc::clone(&host.shared)),
        );
        assert!(minute.await.is_err(), "it never ends");
        let mut shared = host.shared.borrow_mut();
        let now = shared.now();
        let broker = &mut shared.broker;
        broker.start_journal();
        broker.restored(now).unwrap();
        let id = broker.open(now).unwrap();
        let connect = b"\x10\x13\0\x04MQTT\x05\0\0\0\x05\x11\0\0\x01\0\0\x01b";
        broker.receive(id, connect, now);
        broker.closed(id, now);
        let ends = Records::new(broker.journal()).filter_map(|record| {
            match Entry::read(&record.unwrap()).unwrap() {
                Some(Entry::Session(_, Some(session))) => session.away.map(|away| away.ends),
                _ => None,
            }
        });
        let expected = wall_clock() + EXPIRY * 1_000;
        let ends = ends.last().unwrap();
        assert!(ends.abs_diff(expected) < 30_000, "{ends}, {expected}");
    }
}
