//! The connection over `embedded-io-async`, for Embassy and other executors of firmware.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use embedded_io_async::{Error as _, ErrorKind, Read, Write};
#[cfg(feature = "flash")]
use embedded_storage_async::nor_flash::NorFlash;
use mqtt_proto::{Connect, Disconnect};
use mqtt_session::{Client, Event, Instant};

use crate::input::Input;
use crate::{Error, SessionError, Timer};

#[cfg(feature = "flash")]
pub use crate::flash::asynch::Flash;

/// Where a connection stores its session: nowhere, or in a [`Flash`](crate::asynch) (feature `flash`).
pub trait Storage {
    /// Stores the records of a client that are not stored.
    ///
    /// # Errors
    /// They cannot be stored.
    #[allow(async_fn_in_trait, reason = "firmware has one core and no Send")]
    async fn store(&mut self, client: &mut Client<'_>) -> Result<(), SessionError>;

    /// Stores all records, also those that were [put off](mqtt_session::Durable), because the connection is over.
    #[allow(async_fn_in_trait, reason = "firmware has one core and no Send")]
    async fn ended(&mut self, client: &mut Client<'_>) {
        let _ = client;
    }
}

impl Storage for () {
    async fn store(&mut self, _: &mut Client<'_>) -> Result<(), SessionError> {
        Ok(())
    }
}

/// A client on one open transport. The session stays in the borrowed client: when the transport is gone, drop this connection
/// and make another one on the next transport.
///
/// Each future may be dropped, as a `select` does: bytes that were read or written are accounted for before the next await
/// point, and no byte is held in a future. Dropping it, or reaching a time limit, drops the future of the transport. So
/// `read` and `write` of the transport must be side-effect-free on cancel in the sense of `embedded-io-async`, as those of
/// interrupt-driven UARTs and of sockets are. If `read` is not (DMA straight into the buffer), bytes can be lost, and that
/// ends the connection.
///
/// ```
/// # use embedded_io_async::{Read, Write};
/// use mqtt_embedded::proto::{Connect, QoS, TopicName, Version};
/// use mqtt_embedded::session::{Config, Event, Outgoing};
/// use mqtt_embedded::{Buffers, Error, Timer, asynch::Connection};
///
/// /// Publishes one reading, and waits until it is acknowledged.
/// async fn report<T: Read + Write, C: Timer>(uart: T, timer: C) -> Result<(), Error<T::Error>> {
///     let mut buffers = Buffers::<128, 192, 128, 2>::new();
///     let (mut client, input) = buffers.client(Config::default());
///     let connect = Connect::new(Version::V311, "pump-7");
///     let mut connection = Connection::new(uart, &mut client, input, timer, &connect)?;
///     let topic = TopicName::from_static("pump/7");
///     loop {
///         let now = connection.now();
///         match connection.next().await? {
///             (Some(Event::Connected { .. }), client) => {
///                 let reading = Outgoing::new(topic, QoS::AtLeastOnce, b"21.5");
///                 client.publish(&reading, now)?;
///             }
///             (Some(Event::Acknowledged { .. }), _) => return connection.disconnect().await,
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
    timer: C,
    /// Whether bytes were written since the last flush.
    unflushed: bool,
    /// The error of a step whose future was dropped while the session was stored.
    failed: Option<SessionError>,
    #[cfg_attr(
        not(feature = "flash"),
        allow(dead_code, reason = "only a flash stores anything")
    )]
    storage: S,
}

impl<'c, 'b, T: Read + Write, C: Timer> Connection<'c, 'b, T, C> {
    /// Begins a connection on an open transport. The first event is [`Event::Connected`] or [`Event::Refused`].
    ///
    /// `input` must hold each packet but PUBLISH whole, and the head of a PUBLISH; see [`crate::Buffers`].
    ///
    /// # Errors
    /// CONNECT cannot be written.
    pub fn new(
        transport: T,
        client: &'c mut Client<'b>,
        input: &'c mut [u8],
        mut timer: C,
        connect: &Connect<'_>,
    ) -> Result<Self, Error<T::Error>> {
        client.connect(connect, timer.now())?;
        Ok(Self {
            transport,
            client,
            input: Input::new(input),
            timer,
            unflushed: false,
            failed: None,
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
            timer: self.timer,
            unflushed: self.unflushed,
            failed: self.failed,
            storage: flash,
        }
    }
}

impl<'b, T: Read + Write, C: Timer, S: Storage> Connection<'_, 'b, T, C, S> {
    /// Returns the machine, which publishes, subscribes and acknowledges. Its packets go out with the next [`Self::next`] or
    /// [`Self::flush`].
    pub const fn client(&mut self) -> &mut Client<'b> {
        self.client
    }

    /// Returns the time of the timer.
    pub fn now(&mut self) -> Instant {
        self.timer.now()
    }

    /// Waits for the next step of the machine. Returns its event, if there is one, and the machine, so that the program can
    /// answer while it holds the event. Writes, pings and keeps time meanwhile.
    ///
    /// The future can be dropped without a loss: the next call continues.
    ///
    /// # Errors
    /// The connection is over, and the error says why, also if an event said so before: a server that refused or ended it need not
    /// end the transport. Each further call returns an error as well. [`Self::disconnect`] still sends the reason to the server. The
    /// session is kept: packets that are not acknowledged go out again on the next connection.
    pub async fn next(&mut self) -> Result<(Option<Event<'_>>, &mut Client<'b>), Error<T::Error>> {
        self.step(None).await
    }

    /// Waits for the next step like [`Self::next`], but returns without an event after `patience`.
    ///
    /// The future can be dropped without a loss: the next call continues.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub async fn next_within(
        &mut self,
        patience: Duration,
    ) -> Result<(Option<Event<'_>>, &mut Client<'b>), Error<T::Error>> {
        let until = self.timer.now().after(patience);
        self.step(Some(until)).await
    }

    async fn step(
        &mut self,
        until: Option<Instant>,
    ) -> Result<(Option<Event<'_>>, &mut Client<'b>), Error<T::Error>> {
        let waited = match self.failed {
            Some(why) => Err(why.into()),
            None => self.wait(until).await,
        };
        let why = match waited {
            Ok(false) => return Ok((None, self.client)),
            Ok(true) => {
                let now = self.timer.now();
                match self.input.step(self.client, now) {
                    Ok(event) => return Ok((event, self.client)),
                    Err(violation) => violation.into(),
                }
            }
            Err(why) => why,
        };
        #[cfg(feature = "flash")]
        {
            if let Error::Session(why) = why {
                self.failed = Some(why);
            }
            self.storage.ended(self.client).await;
            self.failed = None;
        }
        Err(why)
    }

    /// Waits until the machine can do a step. Returns `false` if it is too late.
    async fn wait(&mut self, until: Option<Instant>) -> Result<bool, Error<T::Error>> {
        self.input.advance();
        self.send().await?;
        while self.input.wants_more(self.client) {
            if self.client.is_closing() {
                return Err(SessionError::Over(self.input.over).into());
            }
            let now = self.timer.now();
            if until.is_some_and(|until| until <= now) {
                return Ok(false);
            }
            let wake = self.client.deadline().into_iter().chain(until).min();
            self.read(wake).await?;
            if self.input.wants_more(self.client) {
                let now = self.timer.now();
                self.input.tick(self.client, now)?;
                self.send().await?;
            }
        }
        Ok(true)
    }

    /// Reads bytes that arrive before `until`.
    async fn read(&mut self, until: Option<Instant>) -> Result<(), Error<T::Error>> {
        let read = {
            let mut read = pin!(self.transport.read(self.input.room()));
            let mut timer = pin!(self.timer.until(until));
            poll_fn(|cx| match read.as_mut().poll(cx) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
            })
            .await
        };
        match read {
            None => Ok(()),
            Some(Ok(0)) => Err(SessionError::EndOfFile.into()),
            Some(Ok(n)) => {
                self.input.came(n);
                Ok(())
            }
            Some(Err(error)) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
                _ => Err(Error::Io(error)),
            },
        }
    }

    /// Writes all that is outgoing, and flushes the transport.
    ///
    /// The future can be dropped without a loss: the next call continues.
    ///
    /// # Errors
    /// The transport fails, or the flash.
    pub async fn flush(&mut self) -> Result<(), Error<T::Error>> {
        let sent = self.send().await;
        #[cfg(feature = "flash")]
        if sent.is_err() {
            self.storage.ended(self.client).await;
        }
        sent
    }

    async fn send(&mut self) -> Result<(), Error<T::Error>> {
        #[cfg(feature = "flash")]
        self.storage.store(self.client).await?;
        while !self.client.outgoing().is_empty() {
            match self.transport.write(self.client.outgoing()).await {
                Ok(0) => return Err(SessionError::WriteZero.into()),
                Ok(n) => {
                    self.client.sent(n);
                    self.unflushed = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io(error)),
            }
        }
        if self.unflushed {
            self.transport.flush().await.map_err(Error::Io)?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Sends DISCONNECT and writes all that is outgoing. The session stays in the client.
    ///
    /// If the future is dropped, the server may not get DISCONNECT; it publishes the will then.
    ///
    /// # Errors
    /// The transport fails, or the flash.
    pub async fn disconnect(mut self) -> Result<(), Error<T::Error>> {
        let _ = self.client.disconnect(&Disconnect::default());
        let flushed = self.send().await;
        self.client.disconnected();
        #[cfg(feature = "flash")]
        self.storage.ended(self.client).await;
        flushed
    }
}
