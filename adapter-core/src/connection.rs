//! The bare connection: one task, one transport, the machine's events and the machine to answer them with.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mqtt_agent::Error;
use mqtt_proto::{Connect, Disconnect};
use mqtt_session::{Client, Config, Event, Heap, Instant};

use crate::driver::{Tcp, Timer, Transport, cannot_connect, transport_failed};

/// The most that one read takes.
const READ: usize = 16 << 10;

/// A client on one transport. When the transport is gone, [`Self::into_client`] gives the session back for the next.
///
/// All methods are cancel-safe: what was read or written is accounted for before anything is awaited again.
#[derive(Debug)]
pub struct Connection<W, T> {
    transport: W,
    client: Client<'static>,
    input: BytesMut,
    /// Bytes at the front of `input` that the last event borrowed.
    consumed: usize,
    /// The machine wants something written before it takes more.
    blocked: bool,
    timer: T,
}

impl<W: Tcp, T: Timer> Connection<W, T> {
    /// Connects by TCP and sends CONNECT. The first event is [`Event::Connected`] or [`Event::Refused`].
    ///
    /// # Errors
    /// The transport cannot be opened, or CONNECT cannot be written.
    pub async fn dial(address: &str, connect: &Connect<'_>, config: Config) -> Result<Self, Error> {
        let transport = W::dial(address).await.map_err(cannot_connect)?;
        Self::new(transport, Client::new(config, Heap), connect)
    }
}

impl<W: Transport, T: Timer> Connection<W, T> {
    /// Begins a connection on a fresh transport, with a new client or one that has a session. Must be called within a
    /// runtime, if its timer needs one.
    ///
    /// # Errors
    /// CONNECT cannot be written.
    pub fn new(
        transport: impl Into<W>,
        mut client: Client<'static>,
        connect: &Connect<'_>,
    ) -> Result<Self, Error> {
        let transport = transport.into();
        let timer = T::after(Duration::ZERO);
        client.connect(connect, Instant::from_millis(0))?;
        Ok(Self {
            transport,
            client,
            input: BytesMut::new(),
            consumed: 0,
            blocked: false,
            timer,
        })
    }

    /// The machine: publish, subscribe, acknowledge. What it has to say goes out with the next [`Self::next`] or
    /// [`Self::flush`].
    pub const fn client(&mut self) -> &mut Client<'static> {
        &mut self.client
    }

    /// The machine's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.timer.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The next step of the machine: its event, if it has one, and the machine to answer it with while the event is held.
    ///
    /// # Errors
    /// The connection is over; [`Self::disconnect`] still says why to the server.
    pub async fn next(&mut self) -> Result<(Option<Event<'_>>, &mut Client<'static>), Error> {
        self.input.advance(std::mem::take(&mut self.consumed));
        poll_fn(|cx| self.poll_ready(cx)).await?;
        let now = self.now();
        match self.client.receive(&self.input, now)? {
            mqtt_session::Step::Packet { consumed, event } => {
                self.consumed = consumed;
                Ok((event, &mut self.client))
            }
            mqtt_session::Step::Needs(_) => Ok((None, &mut self.client)),
            mqtt_session::Step::Blocked => {
                self.blocked = true;
                Ok((None, &mut self.client))
            }
        }
    }

    /// Writes all that is outgoing.
    ///
    /// # Errors
    /// The transport fails.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| {
            while !self.client.outgoing().is_empty() {
                ready!(self.poll_write(cx))?;
            }
            self.transport.poll_flush(cx).map_err(transport_failed)
        })
        .await
    }

    /// Says DISCONNECT, writes all that is outgoing and closes the transport. The session stays in the client.
    ///
    /// # Errors
    /// The transport fails.
    pub async fn disconnect(mut self) -> Result<Client<'static>, Error> {
        let _ = self.client.disconnect(&Disconnect::default());
        self.flush().await?;
        poll_fn(|cx| self.transport.poll_close(cx))
            .await
            .map_err(transport_failed)?;
        Ok(self.into_client())
    }

    /// Gives the transport up and the session back, for the next connection.
    #[must_use]
    pub fn into_client(mut self) -> Client<'static> {
        self.client.disconnected();
        self.client
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let written = ready!(self.transport.poll_write(cx, self.client.outgoing()))
            .map_err(transport_failed)?;
        if written == 0 {
            return Poll::Ready(Err(transport_failed(io::ErrorKind::WriteZero.into())));
        }
        self.client.sent(written);
        self.blocked = false;
        Poll::Ready(Ok(()))
    }

    /// Writes, reads and keeps time until the machine has something to look at.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            while !self.client.outgoing().is_empty() {
                match self.poll_write(cx) {
                    Poll::Ready(done) => done?,
                    Poll::Pending => break,
                }
            }
            if !self.blocked && self.client.needs(&self.input).is_none() {
                return Poll::Ready(Ok(()));
            }
            let now = self.now();
            self.client.tick(now)?;
            if !self.client.outgoing().is_empty() && !self.blocked {
                // The tick made a ping; if the transport does not take it, the read below waits all the same.
                if self.poll_write(cx)?.is_ready() {
                    continue;
                }
            }
            if !self.blocked && self.poll_read(cx)?.is_ready() {
                continue;
            }
            if let Some(deadline) = self.client.deadline() {
                self.timer.reset(deadline.since(self.now()));
                if self.timer.poll(cx).is_ready() {
                    continue;
                }
            }
            return Poll::Pending;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.input.reserve(READ);
        if ready!(self.transport.poll_fill(cx, &mut self.input)).map_err(transport_failed)? == 0 {
            return Poll::Ready(Err(Error::EndOfStream));
        }
        // The machine learns when all there was is looked at, for its judgement of silence.
        if self.client.needs(&self.input).is_some() {
            let now = self.now();
            let _ = self.client.receive(&self.input, now)?;
        }
        Poll::Ready(Ok(()))
    }
}
