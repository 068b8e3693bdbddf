//! Holds the listening sockets, and the task of each one that accepts connections.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mqtt_broker::Hooks;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
#[cfg(feature = "files")]
use tokio::time::Instant;
use tokio::time::{sleep, timeout};

use crate::keep_alive::TcpKeepAlive;
use crate::layers::Layers;
use crate::peer::{Peer, source};
use crate::shared::Shared;
use crate::sockets;
use crate::staged::Staged;

/// How long to wait when a connection cannot be accepted, for example because file descriptors are used up.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// The time between two log lines about connections that cannot be accepted.
#[cfg(feature = "files")]
const LOGGED_AGAIN: Duration = Duration::from_secs(60);
/// How long a client waits for its handshake before one of too many is ended. An honest client beside busy threads ends its handshake in
/// less, and a silent one gives its place to the next one long before the time limit of a handshake.
const STUCK: Duration = Duration::from_secs(2);
/// How many connections the system establishes before they are accepted.
const BACKLOG: u32 = 1_024;

/// A listening socket and its layers. A [`TcpListener`] or [`UnixListener`] converts to a listener for plain MQTT.
#[derive(Debug)]
pub struct Listener {
    socket: BoundSocket,
    layers: Arc<Layers>,
    number: usize,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// How many connections a listener accepts before the others are served.
const ACCEPTED_AT_ONCE: usize = 16;

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::new(BoundSocket::Tcp(listener))
    }
}

#[cfg(unix)]
impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::new(BoundSocket::Unix(listener))
    }
}

impl Listener {
    fn new(socket: BoundSocket) -> Self {
        Self {
            socket,
            layers: Arc::default(),
            number: 0,
        }
    }

    /// Adds TLS, WebSocket or the header of a proxy between the sockets and MQTT.
    #[must_use]
    pub fn over(mut self, layers: impl Into<Arc<Layers>>) -> Self {
        self.layers = layers.into();
        self
    }

    /// Sets a number by which hooks distinguish listeners: [`Peer::listener`](crate::Peer::listener). Default 0.
    #[must_use]
    pub const fn numbered(mut self, number: usize) -> Self {
        self.number = number;
        self
    }

    /// Sets the keep-alive of TCP for the connections that are accepted from now on. Nothing is set for a Unix socket.
    ///
    /// # Errors
    /// The system refuses a value: Linux takes at most 32,767 seconds and 127 probes.
    pub fn keep_alive(self, times: TcpKeepAlive) -> io::Result<Self> {
        if let BoundSocket::Tcp(listener) = &self.socket {
            times.set(SockRef::from(listener))?;
        }
        Ok(self)
    }

    /// Returns its number.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    /// Returns the bound address; `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            BoundSocket::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            BoundSocket::Unix(_) => None,
        }
    }

    pub(crate) async fn next(&self) -> io::Result<(Accepted, Peer)> {
        let mut peer = Peer {
            listener: self.number,
            ..Peer::default()
        };
        let accepted = match &self.socket {
            BoundSocket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Otherwise a small packet may wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                peer.address = Some(address);
                if !self.layers.is_proxy(address.ip()) {
                    peer.source = source(address.ip());
                }
                Accepted::Tcp(stream)
            }
            #[cfg(unix)]
            BoundSocket::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
        };
        Ok((accepted, peer))
    }
}

/// Listens on an address, for [`Host::run`](crate::Host::run). The address can be bound again at once after a broker has ended,
/// while the system still has its old connections. Accepted connections have the default [`TcpKeepAlive`].
///
/// # Errors
/// The address is not an address of this machine, is in use, or must not be used.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // 3.1.1 [MQTT-7.1.1-1], 5 [MQTT-4.2.0-1]: TCP keeps the order of bytes and loses none, as MQTT needs.
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    TcpKeepAlive::default().set(SockRef::from(&socket))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until the future is dropped.
pub(crate) async fn accept<H: Hooks + 'static>(shared: Rc<RefCell<Shared<H>>>, listener: Listener) {
    crate::shards::all_ready(&shared).await;
    let is_plain = listener.layers.is_plain();
    let handshakes = Arc::clone(&shared.borrow().handshakes);
    #[cfg(feature = "files")]
    let mut failures = Failures::default();
    for accepts in 1_usize.. {
        if accepts.is_multiple_of(ACCEPTED_AT_ONCE) {
            yield_now().await;
        }
        let accepted = listener.next().await;
        #[cfg(feature = "files")]
        failures.log(accepted.as_ref().err(), Instant::now());
        match accepted {
            Ok((socket, peer)) if is_plain => sockets::accepted(&shared, socket, peer, None),
            Ok((socket, peer)) => {
                // An accepted client waits, so that a listener without clients holds no permit.
                let permit = permit(&shared, &handshakes).await;
                match Staged::new(&listener.layers, peer.clone(), permit) {
                    Ok(staged) => sockets::accepted(&shared, socket, peer, Some(Box::new(staged))),
                    Err(error) => {
                        crate::staged::tell(&shared.borrow().peers, &peer, &error, false);
                    }
                }
            }
            // A client without an accepted CONNECT gives its file descriptor to the next one.
            Err(error) if lacks_descriptors(&error) && shared.borrow_mut().make_room() => {
                yield_now().await;
            }
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }
}

/// Returns the permit for the handshake of an accepted client. While there are too many handshakes, the client waits, and the system keeps
/// those behind it waiting. If it gets none for a while, the clients that have one are probably silent, and one connection without an
/// accepted CONNECT ends, with or without a handshake: the oldest one of the address with the most. That one may be young and hold no
/// permit. Then the client waits for the next try, or until the time of a silent client for CONNECT is over and frees its permit.
async fn permit<H: Hooks + 'static>(
    shared: &RefCell<Shared<H>>,
    handshakes: &Arc<Semaphore>,
) -> Option<OwnedSemaphorePermit> {
    loop {
        // The semaphore is never closed, so there will be a permit.
        match timeout(STUCK, Arc::clone(handshakes).acquire_owned()).await {
            Ok(permit) => return permit.ok(),
            Err(_) => {
                shared.borrow_mut().make_room();
            }
        }
    }
}

/// Serves a connection that the program has accepted. Closes it if there are too many handshakes.
pub(crate) fn serve<H: Hooks + 'static>(
    shared: &Rc<RefCell<Shared<H>>>,
    stream: TcpStream,
    layers: &Arc<Layers>,
) {
    let _ = stream.set_nodelay(true);
    let peer = Peer {
        address: stream.peer_addr().ok(),
        ..Peer::default()
    };
    if layers.is_plain() {
        sockets::accepted(shared, Accepted::Tcp(stream), peer, None);
        return;
    }
    let permit = Arc::clone(&shared.borrow().handshakes).try_acquire_owned();
    let Ok(permit) = permit else {
        return;
    };
    match Staged::new(layers, peer.clone(), Some(permit)) {
        Ok(staged) => {
            sockets::accepted(shared, Accepted::Tcp(stream), peer, Some(Box::new(staged)))
        }
        Err(error) => {
            crate::staged::tell(&shared.borrow().peers, &peer, &error, false);
        }
    }
}

/// Returns whether this process or the system has no file descriptor for another socket.
fn lacks_descriptors(error: &io::Error) -> bool {
    /// The numbers of `EMFILE` and `ENFILE`, which are the same on all systems that have them.
    const FULL: [i32; 2] = [24, 23];
    cfg!(unix) && error.raw_os_error().is_some_and(|os| FULL.contains(&os))
}

/// The state of the log about connections that cannot be accepted.
#[cfg(feature = "files")]
#[derive(Debug, Default)]
struct Failures {
    /// When the last failure was logged.
    logged_at: Option<Instant>,
    /// Whether the end of the failures is still to be logged.
    is_failing: bool,
}

#[cfg(feature = "files")]
impl Failures {
    /// Logs a connection that cannot be accepted and the first one that can be accepted again, each at most once in a minute.
    fn log(&mut self, error: Option<&io::Error>, now: Instant) {
        let is_recent = self.logged_at.is_some_and(|at| now < at + LOGGED_AGAIN);
        match error {
            Some(error) if !is_recent => {
                tracing::warn!(%error, "connections cannot be accepted");
                self.logged_at = Some(now);
                self.is_failing = true;
            }
            None if self.is_failing => {
                tracing::info!("connections are accepted again");
                self.is_failing = false;
            }
            _ => {}
        }
    }
}
