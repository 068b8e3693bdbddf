//! Implements the transport and the timer of the shared driver with futures-io and async-io.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

#[cfg(not(unix))]
use async_net::TcpStream as UnixStream;
#[cfg(unix)]
use async_net::unix::UnixStream;
use async_net::{TcpStream, resolve};
use futures_io::{AsyncRead, AsyncWrite};
use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::driver::{Tcp, Timer, Transport};
use mqtt_adapter_core::runtime::{Runtime, connect_first};
#[cfg(feature = "sockets")]
use mqtt_adapter_core::socket2;
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
        connect_first::<Smol, _>(resolve(address).await?, Smol::connect).await
    }
}

/// The sockets of async-net.
#[derive(Debug)]
pub(crate) struct Smol;

impl Runtime for Smol {
    type Clock = Clock;
    type Tcp = Stream<TcpStream>;
    type Unix = Stream<UnixStream>;

    fn look_up(host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        resolve((host, port))
    }

    async fn connect(address: SocketAddr) -> io::Result<Self::Tcp> {
        TcpStream::connect(address).await.map(Stream::from)
    }

    fn set_nodelay(socket: &Self::Tcp) -> io::Result<()> {
        socket.io.set_nodelay(true)
    }

    #[cfg(feature = "sockets")]
    async fn connect_with(socket: socket2::Socket, address: SocketAddr) -> io::Result<Self::Tcp> {
        // The call usually returns an error that only says that the attempt has begun.
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
        Ok(TcpStream::from(transport).into())
    }

    #[cfg(feature = "srv")]
    async fn run_query(query: srv::SrvQuery, until: Instant) -> io::Result<Vec<srv::Endpoint>> {
        blocking::unblock(move || query.run(until)).await
    }

    #[cfg(unix)]
    async fn connect_unix(path: &str) -> io::Result<Self::Unix> {
        // The system accepts or refuses a connection to an abstract name at once.
        #[cfg(target_os = "linux")]
        if let Some(name) = path.strip_prefix('@') {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::{SocketAddr, UnixStream as Blocking};
            let transport = Blocking::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
            let transport = UnixStream::from(async_io::Async::new(transport)?);
            return Ok(transport.into());
        }
        UnixStream::connect(path).await.map(Stream::from)
    }
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
