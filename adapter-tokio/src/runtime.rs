//! Implements the transport and the timer of the shared driver with tokio.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::dial::{Dialler, Either};
use mqtt_adapter_core::driver::{Tcp, Timer, Transport};
use mqtt_adapter_core::runtime::{self, Runtime, connect_first};
#[cfg(feature = "sockets")]
use mqtt_adapter_core::socket2;
#[cfg(feature = "srv")]
use mqtt_adapter_core::srv;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
#[cfg(not(unix))]
use tokio::net::TcpStream as UnixStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, Sleep, sleep};

/// A transport of tokio for [`mqtt_adapter_core::driver`].
#[derive(Debug)]
pub struct Stream<T>(T);

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for Stream<T> {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        pin!(self.0.read_buf(buffer)).poll(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<T> From<T> for Stream<T> {
    fn from(transport: T) -> Self {
        Self(transport)
    }
}

impl Tcp for Stream<TcpStream> {
    async fn dial(address: &str) -> io::Result<Self> {
        connect_first::<Tokio, _>(lookup_host(address).await?, Tokio::connect).await
    }
}

/// The sockets of tokio.
#[derive(Debug)]
struct Tokio;

/// The socket of a client. The second variant is not used where the system has no Unix sockets.
pub type Socket = Either<Stream<TcpStream>, Stream<UnixStream>>;

/// Opens the socket of a client, as [`Handle::start`](crate::Handle::start) does: all addresses of a name are tried (RFC 8305).
///
/// # Errors
/// The name has no address, or nobody listens there.
pub async fn connect(dialler: &Dialler) -> io::Result<Socket> {
    runtime::connect::<Tokio>(dialler).await
}

impl Runtime for Tokio {
    type Clock = Clock;
    type Tcp = Stream<TcpStream>;
    type Unix = Stream<UnixStream>;

    async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((host, port)).await?.collect())
    }

    async fn connect(address: SocketAddr) -> io::Result<Self::Tcp> {
        TcpStream::connect(address).await.map(Stream)
    }

    fn set_nodelay(socket: &Self::Tcp) -> io::Result<()> {
        socket.0.set_nodelay(true)
    }

    #[cfg(feature = "sockets")]
    async fn connect_with(socket: socket2::Socket, address: SocketAddr) -> io::Result<Self::Tcp> {
        let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
        socket.connect(address).await.map(Stream)
    }

    #[cfg(feature = "srv")]
    async fn run_query(
        query: srv::SrvQuery,
        until: std::time::Instant,
    ) -> io::Result<Vec<srv::Endpoint>> {
        tokio::task::spawn_blocking(move || query.run(until)).await?
    }

    #[cfg(unix)]
    async fn connect_unix(path: &str) -> io::Result<Self::Unix> {
        // tokio treats a name that begins with a zero byte as an abstract socket.
        let path = match path.strip_prefix('@') {
            Some(name) => format!("\0{name}"),
            None => path.to_owned(),
        };
        UnixStream::connect(path).await.map(Stream)
    }
}

/// The clock and timer of tokio for [`mqtt_adapter_core::driver`]. It must be made within a runtime whose timer is enabled.
#[derive(Debug)]
pub struct Clock {
    made: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Timer for Clock {
    fn after(span: Duration) -> Self {
        Self {
            made: Instant::now(),
            sleep: Box::pin(sleep(span)),
        }
    }

    fn reset(&mut self, span: Duration) {
        self.sleep.as_mut().reset(Instant::now() + span);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }

    fn elapsed(&self) -> Duration {
        self.made.elapsed()
    }
}
