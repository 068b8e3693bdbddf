//! A transport with stages upon it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use mqtt_transport::{Error, Stack};

use crate::driver::Transport;

/// A transport with stages upon it.
pub struct Staged<W> {
    transport: W,
    stack: Stack,
    /// What was read from the transport and goes through the stages at once.
    wire: BytesMut,
    is_ended: bool,
    /// An error that came behind good bytes.
    failed: Option<Error>,
}

/// The least that one read has room for.
const READ: usize = 64 << 10;

impl<W> fmt::Debug for Staged<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stack.fmt(f)
    }
}

impl<W: Transport> Staged<W> {
    /// Shakes hands.
    ///
    /// # Errors
    /// Of the stages, or the transport fails.
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
        // A server of MQTT says nothing before CONNECT.
        if !early.is_empty() {
            let message = "the server speaks before it is asked";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        poll_fn(|cx| staged.poll_flush(cx)).await?;
        Ok(staged)
    }

    /// A server that speaks another protocol may reset the connection: what that means for the handshake tells more.
    fn explain(&mut self, error: io::Error) -> io::Error {
        match (error.kind(), self.stack.end_of_file()) {
            (io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, Err(told)) => told.into(),
            _ => error,
        }
    }

    /// Writes what the stages have to send.
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

    /// Reads once, and gives it to the stages.
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
        // Answers, or an alert that says why it ends.
        if let Poll::Ready(Err(error)) = self.poll_send(cx)
            && self.failed.is_none()
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
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
            // An answer may wait here that the peer waits for.
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
            // Bytes of a handshake, of a ping or of a part of a record bring nothing: that is no end.
            if buffer.len() > before {
                return Poll::Ready(Ok(buffer.len() - before));
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = self.stack.output(bytes);
        if taken == 0 {
            ready!(self.poll_send(cx))?;
            taken = self.stack.output(bytes);
        }
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
