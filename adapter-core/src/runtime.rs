//! Opens the socket of a client with the functions of an async runtime: SRV records, addresses, and the settings of sockets.

use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;

use crate::dial::{Dialler, Either, Target, race};
use crate::driver::{Timer, Transport};

/// The sockets of an async runtime.
pub trait Runtime {
    /// The clock and the timer.
    type Clock: Timer;
    /// A TCP connection.
    type Tcp: Transport + Send;
    /// A connection to a Unix socket. Any transport where the system has none.
    type Unix: Transport + Send;

    /// Returns the addresses of a host, which is a name or an address.
    ///
    /// # Errors
    /// The name cannot be looked up.
    fn look_up(host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Connects to an address.
    ///
    /// # Errors
    /// Nobody answers there.
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Tcp>> + Send;

    /// Turns off the delay for small packets.
    ///
    /// # Errors
    /// The connection is gone.
    fn set_nodelay(socket: &Self::Tcp) -> io::Result<()>;

    /// Connects a socket that has its settings and does not block. An adapter whose feature `sockets` is off has no such function.
    ///
    /// # Errors
    /// Nobody answers there.
    #[cfg(feature = "sockets")]
    fn connect_with(
        socket: socket2::Socket,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::Tcp>> + Send {
        let _ = (socket, address);
        let missing = crate::dial::missing("the setting of sockets", "sockets");
        ready(Err(missing))
    }

    /// Asks for the servers of a domain, on a thread that may wait. An adapter whose feature `srv` is off has no such function.
    ///
    /// # Errors
    /// As for [`SrvQuery::run`](crate::srv::SrvQuery::run).
    #[cfg(feature = "srv")]
    fn run_query(
        query: crate::srv::SrvQuery,
        until: std::time::Instant,
    ) -> impl Future<Output = io::Result<Vec<crate::srv::Endpoint>>> + Send {
        let _ = (query, until);
        ready(Err(crate::dial::missing("SRV", "srv")))
    }

    /// Connects to a Unix socket, by its path or by `@` and an abstract name of Linux.
    ///
    /// # Errors
    /// Nobody listens there, or the system has no Unix sockets.
    fn connect_unix(path: &str) -> impl Future<Output = io::Result<Self::Unix>> + Send {
        let _ = path;
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// The socket of a client in a runtime.
pub type Socket<R> = Either<<R as Runtime>::Tcp, <R as Runtime>::Unix>;

/// Opens the socket of a client: all addresses of a name are tried (RFC 8305).
///
/// # Errors
/// The name has no address, or nobody listens there.
pub async fn connect<R: Runtime>(dialler: &Dialler) -> io::Result<Socket<R>> {
    open::<R>(dialler)
        .await
        .map_err(|error| dialler.unreached(error))
}

async fn open<R: Runtime>(dialler: &Dialler) -> io::Result<Socket<R>> {
    let (host, port) = match dialler.target() {
        Target::Tcp(host, port) => (host, port),
        Target::Unix(path) => return R::connect_unix(path).await.map(Either::Second),
    };
    #[cfg(feature = "srv")]
    if let Some(query) = dialler.srv()? {
        let until = query.until();
        let found = R::run_query(query, until).await?;
        let connect = |one: crate::srv::Endpoint| async move {
            connect_to_host::<R>(dialler, &one.host, one.port).await
        };
        let connected = crate::srv::connect_in_turn::<R::Clock, _, _>(found, until, connect);
        return connected.await.map(Either::First);
    }
    connect_to_host::<R>(dialler, host, port)
        .await
        .map(Either::First)
}

/// Connects to a port of a host.
#[cfg_attr(
    not(feature = "sockets"),
    allow(unused_variables, reason = "there are no settings of sockets then")
)]
async fn connect_to_host<R: Runtime>(
    dialler: &Dialler,
    host: &str,
    port: u16,
) -> io::Result<R::Tcp> {
    let addresses = R::look_up(host, port).await?;
    #[cfg(feature = "sockets")]
    if let Some(sockets) = dialler.sockets() {
        let connect = |address| async move {
            let socket = sockets.open(address)?;
            socket.set_nonblocking(true)?;
            R::connect_with(socket, address).await
        };
        return connect_first::<R, _>(addresses, connect).await;
    }
    connect_first::<R, _>(addresses, R::connect).await
}

/// Connects to the first address that answers, and turns off the delay for small packets.
///
/// # Errors
/// As for [`race`].
pub async fn connect_first<R: Runtime, F: Future<Output = io::Result<R::Tcp>>>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<R::Tcp> {
    let socket = race::<R::Clock, _, _>(addresses, connect).await?;
    R::set_nodelay(&socket)?;
    Ok(socket)
}
