//! Runs the stages of a transport (TLS, WebSocket, proxies) in an async runtime.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use mqtt_transport::{Error, Stack, taken_now};

use crate::driver::Transport;

/// A transport with stages.
pub struct Staged<W> {
    transport: W,
    stack: Stack,
    /// A buffer for bytes that were read from the transport. They are given to the stages at once.
    wire: BytesMut,
    is_ended: bool,
    /// An error that followed valid bytes. It is returned after those are read.
    failed: Option<Error>,
}

/// The least room for one read, in bytes.
const READ: usize = 64 << 10;

impl<W> fmt::Debug for Staged<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stack.fmt(f)
    }
}

impl<W: Transport> Staged<W> {
    /// Performs the handshakes of the stages.
    ///
    /// # Errors
    /// A stage or the transport fails.
    pub async fn open(transport: W, stack: Stack) -> io::Result<Self> {
        let mut staged = Self {
            transport,
            stack,
            wire: BytesMut::new(),
            is_ended: false,
            failed: None,
        };
        let mut early = BytesMut::new();
        while !staged.stack.is_open() {
            let shaken = poll_fn(|cx| {
                if staged.poll_send(cx)?.is_pending() {
                    return Poll::Pending;
                }
                staged.poll_input(cx, &mut early)
            })
            .await;
            shaken.map_err(|error| staged.explain(error))?;
            if let Some(error) = staged.failed.take() {
                return Err(error.into());
            }
        }
        // An MQTT server sends nothing before CONNECT.
        if !early.is_empty() {
            let message = "the server sent bytes before CONNECT";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        poll_fn(|cx| staged.poll_flush(cx)).await?;
        Ok(staged)
    }

    /// Explains an error during the handshake: a server of another protocol may reset the connection, and the stages know the
    /// likely cause.
    fn explain(&mut self, error: io::Error) -> io::Error {
        match (error.kind(), self.stack.end_of_file()) {
            (io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, Err(told)) => told.into(),
            _ => error,
        }
    }

    /// Gives plain bytes to the stages, which may write to the transport at once. Returns how many bytes they took.
    fn output(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        let transport = &mut self.transport;
        self.stack.output_to(bytes, &mut Direct { transport, cx })
    }

    /// Writes the outgoing bytes of the stages.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.stack.outgoing().is_empty() {
            let n = ready!(self.transport.poll_write(cx, self.stack.outgoing()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.stack.sent(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and passes the bytes to the stages.
    fn poll_input(&mut self, cx: &mut Context<'_>, plain: &mut BytesMut) -> Poll<io::Result<()>> {
        self.wire.clear();
        self.wire.reserve(READ);
        let n = ready!(self.transport.poll_fill(cx, &mut self.wire))?;
        let result = if n == 0 {
            self.is_ended = true;
            self.stack.end_of_file()
        } else {
            self.stack.input(&self.wire, plain)
        };
        self.is_ended |= self.stack.is_ended();
        self.failed = result.err();
        // The stages may have outgoing answers, or an alert with the reason of the end.
        if let Poll::Ready(Err(error)) = self.poll_send(cx)
            && self.failed.is_none()
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

/// A transport as a writer that does not wait.
struct Direct<'a, 'c, W> {
    transport: &'a mut W,
    cx: &'a mut Context<'c>,
}

impl<W: Transport> io::Write for Direct<'_, '_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        taken_now(self.transport.poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        taken_now(self.transport.poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Transport> Transport for Staged<W> {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.len();
        loop {
            // The peer may wait for an answer that is still outgoing.
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            if let Some(error) = self.failed.take() {
                self.is_ended = true;
                return Poll::Ready(Err(error.into()));
            }
            if self.is_ended {
                return Poll::Ready(Ok(0));
            }
            ready!(self.poll_input(cx, buffer))?;
            // The bytes of a handshake, of a ping or of an incomplete record yield no plain bytes, but the stream has not ended.
            if buffer.len() > before {
                return Poll::Ready(Ok(buffer.len() - before));
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Nothing is taken while bytes of the stages wait, because then the stages would have to store these as well.
        ready!(self.poll_send(cx))?;
        let taken = self.output(cx, bytes)?;
        if taken == 0 && !bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stack.close();
        ready!(self.poll_send(cx))?;
        self.transport.poll_close(cx)
    }
}
