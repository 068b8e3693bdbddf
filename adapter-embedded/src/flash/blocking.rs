//! The session in a flash that blocks.

use core::ops::Range;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_storage::nor_flash::NorFlash;
use embedded_storage_async::nor_flash as asynch;
use mqtt_session::Client;

use super::{FlashError, Store};
use crate::SessionError;
use crate::blocking::Storage;

/// The session of a client in a range of a NOR flash: it survives a reset and a power cut.
///
/// * `RECORD`: bytes of the longest record, which is the packet of a message and 32 more, rounded up to words of the flash. What needs a
///   longer record, or one that does not fit a page, is refused with [`Refused::TooLarge`](mqtt_session::Refused::TooLarge).
/// * `ENTRIES`: how many records there may be at once: three, and one for each of the slots of both directions. At most 255.
///
/// After [`Self::restore`], [`Client::set_durable`] with `Durable::WhenOffline` lets most messages at QoS 1 never touch the flash: they are
/// stored if their acknowledgement takes long, or when the connection ends. A reset while it is up loses those that are younger.
///
/// The range needs two pages at least; with more, pages are erased less often. All records must fit the pages but one: those of messages
/// to the server take their packets and at most 36 bytes each, those from the server at most 20 each, and those of session and note 160
/// and the client identifier (with words of 4 bytes). At the end of each page up to `RECORD` bytes may be unused. What was written by a
/// later major version of `sequential-storage` may not be readable: erase the range then.
///
/// ```
/// # use embedded_io::{Read, ReadReady, Write};
/// # use embedded_storage::nor_flash::NorFlash;
/// use mqtt_embedded::proto::{Connect, Property, Version};
/// use mqtt_embedded::session::Config;
/// use mqtt_embedded::{Buffers, Clock, Error, blocking::{Connection, Flash}};
///
/// fn serve<T: Read + ReadReady + Write>(
///     uart: T,
///     clock: impl Clock,
///     flash: impl NorFlash,
/// ) -> Result<(), Error<T::Error>> {
///     let mut flash = Flash::<_, 288, 19>::new(flash, 0x7_0000..0x8_0000)?;
///     let mut buffers = Buffers::<256, 320, 512, 8, 512>::with_journal();
///     let (mut client, input) = buffers.client(Config::default());
///     let has_session = flash.restore(&mut client)?;
///     let expiry = [Property::SessionExpiryInterval(86_400)]; // in seconds
///     let connect = Connect {
///         clean_start: !has_session,
///         properties: (&expiry).into(),
///         ..Connect::new(Version::V5, "pump-7")
///     };
///     let connection = Connection::new(uart, &mut client, input, clock, &connect)?;
///     let mut connection = connection.with_flash(&mut flash);
///     loop {
///         let (_event, _client) = connection.next()?; // stores before it writes
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Flash<F: NorFlash, const RECORD: usize, const ENTRIES: usize>(
    Store<Blocking<F>, RECORD, ENTRIES>,
);

impl<F: NorFlash, const RECORD: usize, const ENTRIES: usize> Flash<F, RECORD, ENTRIES> {
    /// Uses this range of a flash, whose bounds are bounds of pages. Nothing is read or written yet.
    ///
    /// # Errors
    /// [`FlashError::Range`].
    pub fn new(flash: F, range: Range<u32>) -> Result<Self, FlashError> {
        Store::new(Blocking(flash), range).map(Self)
    }

    /// Restores a client from the flash, before its first connection, and starts its journal. Returns whether there is a session that
    /// goes on. If not, the first CONNECT should ask for a clean start, because the server may have a session that this side lost (5
    /// \[MQTT-3.2.2-4\]), or because an earlier clean start was not answered. With MQTT 3.1.1 it should ask for one only if
    /// [`Client::must_start_clean`] returns `true`: a session that begins with a clean start ends with its connection there. With MQTT 5
    /// CONNECT needs a session expiry interval, or the server's session ends with the connection. The client needs the memory of
    /// [`Lent::journal`](mqtt_session::Lent::journal).
    ///
    /// # Errors
    /// What is stored cannot be read or does not fit the memory of the client, which must not be used then. After
    /// [`Self::erase`], another client starts without a session.
    pub fn restore(&mut self, client: &mut Client<'_>) -> Result<bool, FlashError> {
        finish(self.0.restore(client))
    }

    /// Stores what the client has accepted or received. A connection calls this before it writes; without a connection, call it
    /// after [`Client::publish`](mqtt_session::Client::publish).
    ///
    /// # Errors
    /// Nothing is lost, and what would have to be stored first is not sent; a later call continues.
    pub fn store(&mut self, client: &mut Client<'_>) -> Result<(), FlashError> {
        finish(self.0.store(client))
    }

    /// Erases the range.
    ///
    /// # Errors
    /// The flash failed.
    pub fn erase(&mut self) -> Result<(), FlashError> {
        finish(self.0.erase())
    }
}

impl<F: NorFlash, const RECORD: usize, const ENTRIES: usize> Storage
    for &mut Flash<F, RECORD, ENTRIES>
{
    fn store(&mut self, client: &mut Client<'_>) -> Result<(), SessionError> {
        let stored = Flash::store(self, client);
        stored.map_err(SessionError::Flash)
    }

    fn ended(&mut self, client: &mut Client<'_>) {
        client.record_deferred();
        // Records that cannot be stored now are stored before the next connection writes.
        let _ = Flash::store(self, client);
    }
}

/// A flash whose operations are done when they return.
#[derive(Debug)]
struct Blocking<F>(F);

impl<F: NorFlash> asynch::ErrorType for Blocking<F> {
    type Error = F::Error;
}

impl<F: NorFlash> asynch::ReadNorFlash for Blocking<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: NorFlash> asynch::NorFlash for Blocking<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
        self.0.write(offset, bytes)
    }
}

/// Runs a future that waits for nothing but a flash that blocks.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}
