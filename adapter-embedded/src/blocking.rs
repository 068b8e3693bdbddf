//! The connection over `embedded-io`: one loop owns the transport, and waiting blocks the processor.

use core::time::Duration;

use embedded_io::{Error as _, ErrorKind, Read, ReadReady, Write};
#[cfg(feature = "flash")]
use embedded_storage::nor_flash::NorFlash;
use mqtt_proto::{Connect, Disconnect};
use mqtt_session::{Client, Event, Instant};

use crate::input::Input;
use crate::{Clock, Error, SessionError};

#[cfg(feature = "flash")]
pub use crate::flash::blocking::Flash;

/// Where a connection stores its session: nowhere, or in a [`Flash`](crate::blocking) (feature `flash`).
pub trait Storage {
    /// Stores the records of a client that are not stored.
    ///
    /// # Errors
    /// They cannot be stored.
    fn store(&mut self, client: &mut Client<'_>) -> Result<(), SessionError>;

    /// Stores all records, also those that were [put off](mqtt_session::Durable), because the connection is over.
    fn ended(&mut self, client: &mut Client<'_>) {
        let _ = client;
    }
}

impl Storage for () {
    fn store(&mut self, _: &mut Client<'_>) -> Result<(), SessionError> {
        Ok(())
    }
}

/// A client on one open transport. The session stays in the borrowed client: when the transport is gone, drop this connection
/// and make another one on the next transport.
///
/// ```
/// # use embedded_io::{ErrorType, Read, ReadReady, Write};
/// use mqtt_embedded::proto::{Connect, QoS, TopicName, Version};
/// use mqtt_embedded::session::{Config, Event, Outgoing};
/// use mqtt_embedded::{Buffers, Clock, Error, blocking::Connection};
///
/// /// Publishes one reading, and waits until it is acknowledged.
/// fn report<T: Read + ReadReady + Write, C: Clock>(uart: T, clock: C) -> Result<(), Error<T::Error>> {
///     let mut buffers = Buffers::<128, 192, 128, 2>::new();
///     let (mut client, input) = buffers.client(Config::default());
///     let connect = Connect::new(Version::V311, "pump-7");
///     let mut connection = Connection::new(uart, &mut client, input, clock, &connect)?;
///     let topic = TopicName::from_static("pump/7");
///     loop {
///         let now = connection.now();
///         match connection.next()? {
///             (Some(Event::Connected { .. }), client) => {
///                 let reading = Outgoing::new(topic, QoS::AtLeastOnce, b"21.5");
///                 client.publish(&reading, now)?;
///             }
///             (Some(Event::Acknowledged { .. }), _) => return connection.disconnect(),
///             _ => {}
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Connection<'c, 'b, T, C, S = ()> {
    transport: T,
    client: &'c mut Client<'b>,
    input: Input<'c>,
    clock: C,
    storage: S,
}

impl<'c, 'b, T: Read + ReadReady + Write, C: Clock> Connection<'c, 'b, T, C> {
    /// Begins a connection on an open transport. The first event is [`Event::Connected`] or [`Event::Refused`].
    ///
    /// `input` must hold each packet but PUBLISH whole, and the head of a PUBLISH; see [`crate::Buffers`].
    ///
    /// # Errors
    /// CONNECT cannot be written.
    #[inline(never)]
    pub fn new(
        transport: T,
        client: &'c mut Client<'b>,
        input: &'c mut [u8],
        mut clock: C,
        connect: &Connect<'_>,
    ) -> Result<Self, Error<T::Error>> {
        client.connect(connect, clock.now())?;
        Ok(Self {
            transport,
            client,
            input: Input::new(input),
            clock,
            storage: (),
        })
    }

    /// Stores the session in a flash before anything is written that needs it. [`Flash::restore`] must have been called.
    #[cfg(feature = "flash")]
    pub fn with_flash<F: NorFlash, const RECORD: usize, const ENTRIES: usize>(
        self,
        flash: &'c mut Flash<F, RECORD, ENTRIES>,
    ) -> Connection<'c, 'b, T, C, &'c mut Flash<F, RECORD, ENTRIES>> {
        Connection {
            transport: self.transport,
            client: self.client,
            input: self.input,
            clock: self.clock,
            storage: flash,
        }
    }
}

impl<'b, T: Read + ReadReady + Write, C: Clock, S: Storage> Connection<'_, 'b, T, C, S> {
    /// Returns the machine, which publishes, subscribes and acknowledges. Its packets go out with the next [`Self::next`] or
    /// [`Self::flush`].
    pub const fn client(&mut self) -> &mut Client<'b> {
        self.client
    }

    /// Returns the time of the clock.
    pub fn now(&mut self) -> Instant {
        self.clock.now()
    }

    /// Waits for the next step of the machine. Returns its event, if there is one, and the machine, so that the program can
    /// answer while it holds the event. Writes, pings and keeps time meanwhile.
    ///
    /// # Errors
    /// The connection is over, and the error says why, also if an event said so before: a server that refused or ended it need not
    /// end the transport. Each further call returns an error as well. [`Self::disconnect`] still sends the reason to the server. The
    /// session is kept: packets that are not acknowledged go out again on the next connection.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator could not lend the event"
    )]
    pub fn next(&mut self) -> Result<(Option<Event<'_>>, &mut Client<'b>), Error<T::Error>> {
        self.step(None)
    }

    /// Waits for the next step like [`Self::next`], but returns without an event after `patience`, if the transport can tell
    /// that no byte has arrived.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub fn next_within(
        &mut self,
        patience: Duration,
    ) -> Result<(Option<Event<'_>>, &mut Client<'b>), Error<T::Error>> {
        let until = self.clock.now().after(patience);
        self.step(Some(until))
    }

    fn step(
        &mut self,
        until: Option<Instant>,
    ) -> Result<(Option<Event<'_>>, &mut Client<'b>), Error<T::Error>> {
        let why = match self.wait(until) {
            Ok(false) => return Ok((None, self.client)),
            Ok(true) => {
                let now = self.clock.now();
                match self.input.step(self.client, now) {
                    Ok(event) => return Ok((event, self.client)),
                    Err(violation) => violation.into(),
                }
            }
            Err(why) => why,
        };
        self.storage.ended(self.client);
        Err(why)
    }

    /// Waits until the machine can do a step. Returns `false` if it is too late.
    fn wait(&mut self, until: Option<Instant>) -> Result<bool, Error<T::Error>> {
        self.input.advance();
        self.send()?;
        while self.input.wants_more(self.client) {
            if self.client.is_closing() {
                return Err(SessionError::Over(self.input.over).into());
            }
            let now = self.clock.now();
            if until.is_some_and(|until| until <= now) {
                return Ok(false);
            }
            if self.transport.read_ready().map_err(Error::Io)? {
                self.read()?;
            } else {
                let until = self.client.deadline().into_iter().chain(until).min();
                if until.is_none_or(|until| now < until) {
                    self.clock.idle(until);
                }
            }
            if self.input.wants_more(self.client) {
                let now = self.clock.now();
                self.input.tick(self.client, now)?;
                self.send()?;
            }
        }
        Ok(true)
    }

    /// Reads the bytes that have arrived.
    fn read(&mut self) -> Result<(), Error<T::Error>> {
        match self.transport.read(self.input.room()) {
            Ok(0) => Err(SessionError::EndOfFile.into()),
            Ok(n) => {
                self.input.came(n);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
                _ => Err(Error::Io(error)),
            },
        }
    }

    /// Writes all that is outgoing, and flushes the transport.
    ///
    /// # Errors
    /// The transport fails, or the flash.
    pub fn flush(&mut self) -> Result<(), Error<T::Error>> {
        let sent = self.send();
        if sent.is_err() {
            self.storage.ended(self.client);
        }
        sent
    }

    fn send(&mut self) -> Result<(), Error<T::Error>> {
        self.storage.store(self.client)?;
        if self.client.outgoing().is_empty() {
            return Ok(());
        }
        while !self.client.outgoing().is_empty() {
            match self.transport.write(self.client.outgoing()) {
                Ok(0) => return Err(SessionError::WriteZero.into()),
                Ok(n) => self.client.sent(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io(error)),
            }
        }
        self.transport.flush().map_err(Error::Io)
    }

    /// Sends DISCONNECT and writes all that is outgoing. The session stays in the client.
    ///
    /// # Errors
    /// The transport fails, or the flash.
    pub fn disconnect(mut self) -> Result<(), Error<T::Error>> {
        let _ = self.client.disconnect(&Disconnect::default());
        let flushed = self.send();
        self.client.disconnected();
        self.storage.ended(self.client);
        flushed
    }
}
