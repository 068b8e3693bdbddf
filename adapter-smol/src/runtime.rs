//! Transports of futures-io and the timer of async-io, as the shared driver uses them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_net::TcpStream;
use futures_io::{AsyncRead, AsyncWrite};
use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::driver::{Tcp, Timer, Transport};

/// What one read may bring.
const READ: usize = 16 << 10;

/// A transport of futures-io, as [`mqtt_adapter_core::driver`] uses it.
#[derive(Debug)]
pub struct Stream<T> {
    io: T,
    /// What is read goes here first: futures-io reads into bytes that have a value already.
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
        let transport = TcpStream::connect(address).await?;
        transport.set_nodelay(true)?;
        Ok(transport.into())
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

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// The clock, and the timer of async-io, which needs no runtime: a thread of its own keeps it.
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
