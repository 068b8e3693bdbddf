//! A host for the broker core: it brings bytes and time, and takes bytes away. One thread owns the broker, and whoever
//! serves a connection borrows it while it does so: there is no lock, no channel and no buffer between a read and the
//! packets it leads to. What a read brings is routed at once; each receiver is woken, and writes once what came together
//! for it. All TCP connections are served by one task (`sockets.rs`), other transports by a task each (`task.rs`).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;

use mqtt_broker::{Config, Hooks};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use crate::control::{Commands, obey};
use crate::link::LINGER;
use crate::listener::{Listener, accept};
use crate::peer::Peer;
use crate::shared::{Shared, tick};
use crate::sockets;
use crate::task::connection;

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
    shared: Rc<RefCell<Shared<H>>>,
    /// Until they are obeyed.
    commands: RefCell<Option<Commands>>,
}

impl<H: Hooks + 'static> Host<H> {
    /// Makes a broker; [`Self::run`] serves it. Must be called within a runtime whose timer is on.
    #[must_use]
    pub fn new(config: Config, hooks: H, commands: Commands) -> Self {
        Self {
            shared: Rc::new(RefCell::new(Shared::new(
                config,
                hooks,
                commands.peers.clone(),
            ))),
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
        connection(Rc::clone(&self.shared), transport, Peer::default(), None)
    }

    /// Sets how many clients may shake hands (TLS, WebSocket) at once; the system keeps the others waiting. How long a handshake may
    /// take is bounded by [`Config::connect_timeout_ms`]. Default 1,000. Call it before [`Self::run`].
    pub fn limit_handshakes(&self, most: usize) {
        let handshakes = Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS));
        self.shared.borrow_mut().handshakes = Arc::new(handshakes);
    }

    /// Accepts connections until `stop` is ready. Then it sends DISCONNECT with 0x8B to clients of MQTT 5, ends all connections, and
    /// waits until they are closed, for at most five seconds. A host runs once.
    ///
    /// The future is not `Send`: run it by `block_on` of a current-thread runtime, or spawn it on a `LocalSet`.
    pub async fn run(
        &self,
        listeners: impl IntoIterator<Item = impl Into<Listener>>,
        stop: impl Future<Output = ()>,
    ) {
        let shared = &self.shared;
        let commands = self.commands.take();
        let local = LocalSet::new();
        local
            .run_until(async {
                spawn_local(sockets::serve(Rc::clone(shared)));
                for listener in listeners {
                    spawn_local(accept(Rc::clone(shared), listener.into()));
                }
                if let Some(commands) = commands {
                    spawn_local(obey(Rc::clone(shared), commands));
                }
                spawn_local(tick(Rc::clone(shared)));
                stop.await;
                shared.borrow_mut().shut_down();
                let all_closed = poll_fn(|cx| shared.borrow_mut().poll_all_closed(cx));
                let _ = timeout(LINGER, all_closed).await;
            })
            .await;
    }
}
