//! Holds the bare connection: one thread owns a transport, a `Client` and its input.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant as Clock};

use mqtt_adapter_core::dial::after;
use mqtt_adapter_core::driver::{cannot_connect, transport_failed};
use mqtt_proto::Connect;
use mqtt_session::{Client, Config, Event, Heap, Instant, Step};

use crate::Error;
use crate::dial::{open, race};

/// A transport whose reads can have a time limit, so that PINGREQ goes out while no bytes arrive.
pub trait Timeouts {
    /// Makes reads fail with `WouldBlock` or `TimedOut` after this time; `None` removes the limit.
    ///
    /// A transport with a short built-in time limit, such as a serial port, may ignore the call.
    ///
    /// # Errors
    /// The transport refuses it.
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()>;
}

impl Timeouts for TcpStream {
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        Self::set_read_timeout(self, timeout)
    }
}

#[cfg(unix)]
impl Timeouts for std::os::unix::net::UnixStream {
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        Self::set_read_timeout(self, timeout)
    }
}

/// A client on one transport: any `Read + Write` whose reads have a time limit. When the transport has ended,
/// [`Self::into_client`] returns the client and its session for the next connection.
#[derive(Debug)]
pub struct Connection<T> {
    transport: T,
    client: Client<'static>,
    input: Vec<u8>,
    filled: usize,
    /// Bytes at the front of `input` that the last event borrowed.
    consumed: usize,
    start: Clock,
}

impl Connection<TcpStream> {
    /// Connects over TCP and sends CONNECT. The first event is [`Event::Connected`] or [`Event::Refused`]. Dialling takes at most
    /// `timeout`; each write has the same limit.
    ///
    /// # Errors
    /// The transport cannot be opened, or CONNECT cannot be written.
    pub fn dial(
        address: impl ToSocketAddrs,
        connect: &Connect<'_>,
        config: Config,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let addresses = address.to_socket_addrs().map_err(cannot_connect)?;
        let transport = race(addresses, after(timeout), open).map_err(cannot_connect)?;
        transport
            .set_write_timeout(Some(timeout))
            .map_err(cannot_connect)?;
        Self::new(transport, Client::new(config, Heap), connect)
    }
}

/// How many bytes one read takes at most.
const READ: usize = 16 << 10;

impl<T: Read + Write + Timeouts> Connection<T> {
    /// Begins a connection on a fresh transport, with a new client or one that has a session.
    ///
    /// # Errors
    /// CONNECT cannot be written.
    pub fn new(
        transport: T,
        mut client: Client<'static>,
        connect: &Connect<'_>,
    ) -> Result<Self, Error> {
        client.connect(connect, Instant::from_millis(0))?;
        Ok(Self {
            transport,
            client,
            input: Vec::new(),
            filled: 0,
            consumed: 0,
            start: Clock::now(),
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
        Instant::from_millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Waits for the next step of the machine. Returns the event of the step, if there is one, and the machine, so that the
    /// program can call it while the event borrows the input.
    ///
    /// # Errors
    /// The connection is over. [`Self::disconnect`] still sends the reason to the server.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator could not lend the event"
    )]
    pub fn next(&mut self) -> Result<(Option<Event<'_>>, &mut Client<'static>), Error> {
        self.step(None)
    }

    /// Waits for the next step like [`Self::next`], but returns without an event after `patience`.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub fn next_within(
        &mut self,
        patience: Duration,
    ) -> Result<(Option<Event<'_>>, &mut Client<'static>), Error> {
        self.step(Some(patience))
    }

    fn step(
        &mut self,
        patience: Option<Duration>,
    ) -> Result<(Option<Event<'_>>, &mut Client<'static>), Error> {
        self.input.copy_within(self.consumed..self.filled, 0);
        self.filled -= std::mem::take(&mut self.consumed);
        let until = patience.map(after);
        self.flush()?;
        while let Some(needed) = self.client.needs(&self.input[..self.filled]) {
            self.flush()?;
            let left = until.map(|until| until.saturating_duration_since(Clock::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok((None, &mut self.client));
            }
            self.read(needed, left)?;
        }
        let now = self.now();
        match self.client.receive(&self.input[..self.filled], now)? {
            Step::Packet { consumed, event } => {
                self.consumed = consumed;
                Ok((event, &mut self.client))
            }
            // The next call writes the outgoing bytes first.
            Step::Needs(_) | Step::Blocked => Ok((None, &mut self.client)),
        }
    }

    /// Reads once, at most until the deadline of the machine or for `patience`.
    fn read(&mut self, needed: usize, patience: Option<Duration>) -> Result<(), Error> {
        let now = self.now();
        // There is no new input: the machine is told that it has seen all input, so that it can measure the time without input.
        let _ = self.client.receive(&self.input[..self.filled], now)?;
        let deadline = self.client.deadline().map(|deadline| deadline.since(now));
        let wait = deadline
            .into_iter()
            .chain(patience)
            .min()
            .map(|wait| wait.max(Duration::from_millis(1)));
        self.transport
            .set_read_timeout(wait)
            .map_err(transport_failed)?;
        if self.input.len() < needed.max(self.filled + READ) {
            self.input.resize(needed.max(self.filled + READ), 0);
        }
        match self.transport.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(Error::EndOfStream),
            Ok(n) => self.filled += n,
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(transport_failed(error)),
        }
        let now = self.now();
        if self.client.needs(&self.input[..self.filled]).is_some() {
            self.client.tick(now)?;
        }
        Ok(())
    }

    /// Writes all outgoing bytes.
    ///
    /// # Errors
    /// The transport fails, or takes nothing within its own time limit.
    pub fn flush(&mut self) -> Result<(), Error> {
        while !self.client.outgoing().is_empty() {
            match self.transport.write(self.client.outgoing()) {
                Ok(0) => return Err(transport_failed(io::ErrorKind::WriteZero.into())),
                Ok(n) => self.client.sent(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(transport_failed(error)),
            }
        }
        self.transport.flush().map_err(transport_failed)
    }

    /// Sends DISCONNECT, writes all outgoing bytes and drops the transport. Returns the client with its session.
    ///
    /// # Errors
    /// The transport fails.
    pub fn disconnect(mut self) -> Result<Client<'static>, Error> {
        let _ = self.client.disconnect(&mqtt_proto::Disconnect::default());
        self.flush()?;
        Ok(self.into_client())
    }

    /// Drops the transport and returns the client with its session, for the next connection.
    #[must_use]
    pub fn into_client(mut self) -> Client<'static> {
        self.client.disconnected();
        self.client
    }
}

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
