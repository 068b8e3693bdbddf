//! Implements the transport and the timer of the shared driver with tokio.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::dial::{Dialler, Either, Target, race};
use mqtt_adapter_core::driver::{Tcp, Timer, Transport};
#[cfg(feature = "srv")]
use mqtt_adapter_core::srv;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
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
        tcp(lookup_host(address).await?, TcpStream::connect).await
    }
}

/// Connects to the first address that answers, and turns off the delay for small packets.
async fn tcp<F: Future<Output = io::Result<TcpStream>>>(
    addresses: impl Iterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<Stream<TcpStream>> {
    let transport = race::<Clock, _, _>(addresses, connect).await?;
    transport.set_nodelay(true)?;
    Ok(Stream(transport))
}

/// The socket of a client.
#[cfg(unix)]
pub type Socket = Either<Stream<TcpStream>, Stream<tokio::net::UnixStream>>;
/// The socket of a client. The second variant is not used on this system.
#[cfg(not(unix))]
pub type Socket = Either<Stream<TcpStream>, Stream<TcpStream>>;

/// Opens the socket of a client, as [`Handle::start`](crate::Handle::start) does: all addresses of a name are tried (RFC 8305).
///
/// # Errors
/// The name has no address, or nobody listens there.
pub async fn connect(dialler: &Dialler) -> io::Result<Socket> {
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
                let found = tokio::task::spawn_blocking(move || query.run(until)).await??;
                let connect =
                    |one: srv::Endpoint| async move { to_host(dialler, &one.host, one.port).await };
                let connected = srv::connect_in_turn::<Clock, _, _>(found, until, connect);
                return Ok(Either::First(connected.await?));
            }
            Ok(Either::First(to_host(dialler, host, port).await?))
        }
        #[cfg(unix)]
        Target::Unix(path) => {
            // tokio treats a name that begins with a zero byte as an abstract socket.
            let path = match path.strip_prefix('@') {
                Some(name) => format!("\0{name}"),
                None => path.to_owned(),
            };
            let transport = tokio::net::UnixStream::connect(path).await?;
            Ok(Either::Second(Stream(transport)))
        }
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
    let addresses = lookup_host((host, port)).await?;
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
    let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
    socket.connect(address).await
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
