//! Holds the bare connection: one task owns a transport and a `Client`.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mqtt_agent::Error;
use mqtt_proto::{Connect, Disconnect};
use mqtt_session::{Client, Config, Event, Heap, Instant};

use crate::driver::{Tcp, Timer, Transport, cannot_connect, transport_failed};
use crate::unreached::at_server;

/// How many bytes one read takes at most.
const READ: usize = 16 << 10;

/// A client on one transport. When the transport has ended, [`Self::into_client`] returns the client and its session for the next
/// connection.
///
/// All methods are cancel-safe: bytes that were read or written are accounted for before the next await point.
#[derive(Debug)]
pub struct Connection<W, T> {
    transport: W,
    client: Client<'static>,
    input: BytesMut,
    /// Bytes at the front of `input` that the last event borrowed.
    consumed: usize,
    /// Whether the machine must write before it accepts more input.
    blocked: bool,
    timer: T,
}

impl<W: Tcp, T: Timer> Connection<W, T> {
    /// Connects over TCP and sends CONNECT. The first event is [`Event::Connected`] or [`Event::Refused`].
    ///
    /// # Errors
    /// The transport cannot be opened, or CONNECT cannot be written.
    pub async fn dial(address: &str, connect: &Connect<'_>, config: Config) -> Result<Self, Error> {
        let unreached = |error| cannot_connect(at_server(|| address.to_owned(), error));
        let transport = W::dial(address).await.map_err(unreached)?;
        Self::new(transport, Client::new(config, Heap), connect)
    }
}

impl<W: Transport, T: Timer> Connection<W, T> {
    /// Begins a connection on a fresh transport, with a new client or one that has a session. Must be called within a runtime
    /// if its timer needs one.
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

    /// Returns the machine, which publishes, subscribes and acknowledges. The next [`Self::next`] or [`Self::flush`] writes the
    /// packets.
    pub const fn client(&mut self) -> &mut Client<'static> {
        &mut self.client
    }

    /// Returns the time of the machine's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.timer.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Takes the next step of the machine. Returns the event of the step, if there is one, and the machine, so that the program
    /// can call it while the event borrows the input.
    ///
    /// # Errors
    /// The connection is over. [`Self::disconnect`] still sends the reason to the server.
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

    /// Writes all outgoing bytes.
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

    /// Sends DISCONNECT, writes all outgoing bytes and closes the transport. Returns the client with its session.
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

    /// Drops the transport and returns the client with its session, for the next connection.
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

    /// Writes, reads and waits for deadlines until the input has bytes that the machine has not seen.
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
                // `tick` wrote a PINGREQ. If the transport does not take it now, the read below waits.
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
        // Tells the machine that it has seen all input, so that the machine can measure the time without input.
        if self.client.needs(&self.input).is_some() {
            let now = self.now();
            let _ = self.client.receive(&self.input, now)?;
        }
        Poll::Ready(Ok(()))
    }
}
