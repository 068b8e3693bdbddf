//! The session in a flash that can be awaited.

use core::ops::Range;

use embedded_storage_async::nor_flash::NorFlash;
use mqtt_session::Client;

use super::{FlashError, Store};
use crate::SessionError;
use crate::asynch::Storage;

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
/// A future may be dropped: the records that it did not store are stored by the next call.
#[derive(Debug)]
pub struct Flash<F: NorFlash, const RECORD: usize, const ENTRIES: usize>(Store<F, RECORD, ENTRIES>);

impl<F: NorFlash, const RECORD: usize, const ENTRIES: usize> Flash<F, RECORD, ENTRIES> {
    /// Uses this range of a flash, whose bounds are bounds of pages. Nothing is read or written yet.
    ///
    /// # Errors
    /// [`FlashError::Range`].
    pub fn new(flash: F, range: Range<u32>) -> Result<Self, FlashError> {
        Store::new(flash, range).map(Self)
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
    pub async fn restore(&mut self, client: &mut Client<'_>) -> Result<bool, FlashError> {
        self.0.restore(client).await
    }

    /// Stores what the client has accepted or received. A connection calls this before it writes; without a connection, call it
    /// after [`Client::publish`](mqtt_session::Client::publish).
    ///
    /// # Errors
    /// Nothing is lost, and what would have to be stored first is not sent; a later call continues.
    pub async fn store(&mut self, client: &mut Client<'_>) -> Result<(), FlashError> {
        self.0.store(client).await
    }

    /// Erases the range.
    ///
    /// # Errors
    /// The flash failed.
    pub async fn erase(&mut self) -> Result<(), FlashError> {
        self.0.erase().await
    }
}

impl<F: NorFlash, const RECORD: usize, const ENTRIES: usize> Storage
    for &mut Flash<F, RECORD, ENTRIES>
{
    async fn store(&mut self, client: &mut Client<'_>) -> Result<(), SessionError> {
        let stored = Flash::store(self, client).await;
        stored.map_err(SessionError::Flash)
    }

    async fn ended(&mut self, client: &mut Client<'_>) {
        client.record_deferred();
        // Records that cannot be stored now are stored before the next connection writes.
        let _ = Flash::store(self, client).await;
    }
}
