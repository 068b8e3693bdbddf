//! tokio's transports and timer, as the shared driver uses them.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::driver::{Tcp, Timer, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// A transport of tokio, as [`mqtt_adapter_core::driver`] uses it.
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
        let transport = TcpStream::connect(address).await?;
        transport.set_nodelay(true)?;
        Ok(Self(transport))
    }
}

/// tokio's clock and timer, as [`mqtt_adapter_core::driver`] uses them. Must be made within a runtime whose timer is on.
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
