//! Implements the transport and the timer of the shared driver with futures-io and async-io.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_net::{TcpStream, resolve};
use futures_io::{AsyncRead, AsyncWrite};
use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::dial::{Dialler, Either, Target, race};
use mqtt_adapter_core::driver::{Tcp, Timer, Transport};
#[cfg(feature = "srv")]
use mqtt_adapter_core::srv;

/// How many bytes one read takes at most.
const READ: usize = 16 << 10;

/// A transport of futures-io for [`mqtt_adapter_core::driver`].
#[derive(Debug)]
pub struct Stream<T> {
    io: T,
    /// The buffer of a read, because futures-io reads into initialised bytes only.
    space: Box<[u8]>,
}

impl<T> From<T> for Stream<T> {
    fn from(io: T) -> Self {
        let space = vec![0; READ].into();
        Self { io, space }
    }
}

impl Tcp for Stream<TcpStream> {
    async fn dial(address: &str) -> io::Result<Self> {
        tcp(resolve(address).await?, TcpStream::connect).await
    }
}

/// Connects to the first address that answers, and turns off the delay for small packets.
async fn tcp<F: Future<Output = io::Result<TcpStream>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<Stream<TcpStream>> {
    let transport = race::<Clock, _, _>(addresses, connect).await?;
    transport.set_nodelay(true)?;
    Ok(transport.into())
}

/// The socket of a client.
#[cfg(unix)]
pub(crate) type Socket = Either<Stream<TcpStream>, Stream<async_net::unix::UnixStream>>;
/// The socket of a client. The second variant is not used on this system.
#[cfg(not(unix))]
pub(crate) type Socket = Either<Stream<TcpStream>, Stream<TcpStream>>;

/// Opens a socket.
pub(crate) async fn connect(dialler: &Dialler) -> io::Result<Socket> {
    open(dialler)
        .await
        .map_err(|error| dialler.unreached(error))
}

async fn open(dialler: &Dialler) -> io::Result<Socket> {
    match dialler.target() {
        Target::Tcp(host, port) => {
            #[cfg(feature = "srv")]
            if let Some(query) = dialler.srv()? {
                let until = query.until();
                let found = blocking::unblock(move || query.run(until)).await?;
                let connect =
                    |one: srv::Endpoint| async move { to_host(dialler, &one.host, one.port).await };
                let connected = srv::connect_in_turn::<Clock, _, _>(found, until, connect);
                return Ok(Either::First(connected.await?));
            }
            Ok(Either::First(to_host(dialler, host, port).await?))
        }
        #[cfg(unix)]
        Target::Unix(path) => Ok(Either::Second(unix(path).await?.into())),
        #[cfg(not(unix))]
        Target::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Connects to a port of a host.
#[cfg_attr(
    not(feature = "sockets"),
    allow(unused_variables, reason = "there are no settings of sockets then")
)]
async fn to_host(dialler: &Dialler, host: &str, port: u16) -> io::Result<Stream<TcpStream>> {
    let addresses = resolve((host, port)).await?;
    #[cfg(feature = "sockets")]
    if let Some(sockets) = dialler.sockets() {
        let connect = |address| connect_with(sockets, address);
        return tcp(addresses, connect).await;
    }
    tcp(addresses, TcpStream::connect::<SocketAddr>).await
}

#[cfg(feature = "sockets")]
async fn connect_with(
    options: &mqtt_adapter_core::SocketOptions,
    address: SocketAddr,
) -> io::Result<TcpStream> {
    let socket = options.open(address)?;
    socket.set_nonblocking(true)?;
    // It usually returns an error that only says that the attempt has begun.
    let begun = socket.connect(&address.into());
    let transport = async_io::Async::new(std::net::TcpStream::from(socket))?;
    transport.writable().await?;
    if let Some(error) = transport.get_ref().take_error()? {
        return Err(error);
    }
    if transport.get_ref().peer_addr().is_err() {
        // The attempt did not begin.
        begun?;
    }
    Ok(transport.into())
}

#[cfg(unix)]
async fn unix(path: &str) -> io::Result<async_net::unix::UnixStream> {
    // The system accepts or refuses a connection to an abstract name at once.
    #[cfg(target_os = "linux")]
    if let Some(name) = path.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixStream};
        let transport = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        return Ok(async_io::Async::new(transport)?.into());
    }
    async_net::unix::UnixStream::connect(path).await
}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for Stream<T> {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_read(cx, &mut self.space))?;
        buffer.extend_from_slice(self.space.get(..n).unwrap_or_default());
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// The clock, and the timer of async-io, which runs its own thread and needs no runtime.
#[derive(Debug)]
pub struct Clock {
    made: Instant,
    timer: async_io::Timer,
}

impl Timer for Clock {
    fn after(span: Duration) -> Self {
        Self {
            made: Instant::now(),
            timer: async_io::Timer::after(span),
        }
    }

    fn reset(&mut self, span: Duration) {
        self.timer.set_after(span);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.timer).poll(cx).map(|_| ())
    }

    fn elapsed(&self) -> Duration {
        self.made.elapsed()
    }
}
