//! Records of a client in NOR flash: what both kinds of connections share.
//!
//! `sequential-storage` keeps a map from keys to values, whose values stay until they are overwritten. So keys are few and are
//! used again: key 0 has the format, key 1 the session, and each other key one message. A value is a whole record; it is empty
//! when the key is free.

#[cfg(feature = "async")]
pub(crate) mod asynch;
#[cfg(feature = "blocking")]
pub(crate) mod blocking;

use core::cmp::Ordering;
use core::fmt;
use core::ops::Range;

use embedded_storage_async::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};
use mqtt_session::Client;
use mqtt_session::records::{Entry, Fault, Record, Records};
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

/// Why the flash did not store or return the records of a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FlashError {
    /// The range does not begin and end with a page, or has less than two pages.
    #[error("the range must have whole pages of the flash, and at least two")]
    Range,
    /// The records that are needed take all pages of the range but one, or there are more messages than entries.
    #[error("the flash has no room for the record")]
    Full,
    /// The buffer is shorter than a record, or the record does not fit a page.
    #[error("a record is longer than the buffer or a page of the flash")]
    TooLong,
    /// The content of the flash is damaged in a way that no power cut causes.
    #[error("the flash is damaged")]
    Damaged,
    /// A record that was stored cannot be restored.
    #[error("a stored record cannot be restored: {0}")]
    Record(Fault),
    /// The flash reported a failure.
    #[error("the flash failed: {0}")]
    Failed(NorFlashErrorKind),
}

#[cfg(feature = "defmt")]
impl defmt::Format for FlashError {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", defmt::Display2Format(self));
    }
}

type MapError<E> = sequential_storage::Error<E>;

impl<E: NorFlashError> From<MapError<E>> for FlashError {
    fn from(error: MapError<E>) -> Self {
        match error {
            MapError::Storage { value, .. } => Self::Failed(value.kind()),
            MapError::FullStorage => Self::Full,
            MapError::BufferTooBig | MapError::BufferTooSmall(_) | MapError::ItemTooBig => {
                Self::TooLong
            }
            MapError::SerializationError(_) => Self::TooLong,
            _ => Self::Damaged,
        }
    }
}

/// Which record a key of the flash has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Free,
    Format,
    Session,
    /// A message to the server: the lower half of its order number.
    Outgoing(u32),
    /// A message from the server: its packet identifier.
    Received(u16),
}

impl Place {
    fn of(record: &Record<'_>) -> Option<Self> {
        match Entry::read(record).ok()?? {
            Entry::Format(_) => Some(Self::Format),
            Entry::Session(_) => Some(Self::Session),
            Entry::Outgoing(order, _) => {
                let [.., a, b, c, d] = order.to_be_bytes();
                Some(Self::Outgoing(u32::from_be_bytes([a, b, c, d])))
            }
            Entry::Received(id, _) => Some(Self::Received(id.get())),
        }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Free => 4,
            Self::Format => 0,
            Self::Session => 1,
            Self::Outgoing(_) => 2,
            Self::Received(_) => 3,
        }
    }

    /// Returns whether a client takes this record back before the other one. Order numbers wrap, and are close to each other.
    fn before(self, other: Self) -> bool {
        match (self, other) {
            (Self::Outgoing(one), Self::Outgoing(other)) => {
                (1..u32::MAX / 2).contains(&other.wrapping_sub(one))
            }
            (one, other) => one.rank().cmp(&other.rank()) == Ordering::Less,
        }
    }
}

/// The header of an item and the length of the longest one in `sequential-storage`.
const ITEM_HEADER: usize = 8;
const MAX_ITEM: usize = 65_535;

const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

type Map<F> = MapStorage<u8, F, Cache<Uncached, Uncached, Uncached, u8>>;

/// Some flash controllers read from words only.
#[repr(align(4))]
struct Aligned<const N: usize>([u8; N]);

/// The records of one client in a range of a flash.
pub(crate) struct Store<F: NorFlash, const RECORD: usize, const ENTRIES: usize> {
    map: Map<F>,
    buffer: Aligned<RECORD>,
    places: [Place; ENTRIES],
}

impl<F: NorFlash, const RECORD: usize, const ENTRIES: usize> fmt::Debug
    for Store<F, RECORD, ENTRIES>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl<F: NorFlash, const RECORD: usize, const ENTRIES: usize> Store<F, RECORD, ENTRIES> {
    pub(crate) fn new(flash: F, range: Range<u32>) -> Result<Self, FlashError> {
        if range.is_empty() {
            return Err(FlashError::Range);
        }
        let config = MapConfig::try_new(range).map_err(|_| FlashError::Range)?;
        Ok(Self {
            map: MapStorage::new(flash, config, Cache::new_uncached()),
            buffer: Aligned([0; RECORD]),
            places: [Place::Free; ENTRIES],
        })
    }

    /// The longest record that can be stored and read again. With its key it takes whole words of the buffer, and of a page beside
    /// two words and the header of the item.
    const LONGEST: usize = {
        let word = max(max(F::WRITE_SIZE, F::READ_SIZE), 1);
        let in_page = F::ERASE_SIZE.saturating_sub(2 * word + ITEM_HEADER.next_multiple_of(word));
        let bytes = min(min(RECORD, in_page), MAX_ITEM);
        (bytes - bytes % word).saturating_sub(1)
    };

    /// Starts the journal of a client, and gives it the records of an earlier run. Returns whether it has a session that goes on.
    pub(crate) async fn restore(&mut self, client: &mut Client<'_>) -> Result<bool, FlashError> {
        client.start_journal();
        client.limit_records(Self::LONGEST);
        self.find_places().await?;
        let mut last = None;
        while let Some(index) = self.next_place(last) {
            last = Some(index);
            if let Some(bytes) = fetch(&mut self.map, &mut self.buffer, index).await?
                && let Some(record) = whole(bytes)?
            {
                client.restore(&record).map_err(FlashError::Record)?;
            }
        }
        // A clean start that was never answered must be asked for again.
        let goes_on = client.restored().is_some() && !client.must_start_clean();
        for index in 0..ENTRIES {
            if self.places.get(index) != Some(&Place::Free)
                && let Some(bytes) = fetch(&mut self.map, &mut self.buffer, index).await?
                && let Some(record) = whole(bytes)?
                && !client.needs_record(&record)
            {
                self.put(index, Place::Free, &[]).await?;
            }
        }
        self.store(client).await?;
        Ok(goes_on)
    }

    pub(crate) async fn erase(&mut self) -> Result<(), FlashError> {
        self.places = [Place::Free; ENTRIES];
        Ok(self.map.erase_all().await?)
    }

    /// Writes the records of a client that are not stored. What waited for them is outgoing then.
    pub(crate) async fn store(&mut self, client: &mut Client<'_>) -> Result<(), FlashError> {
        while !client.journal().is_empty() {
            let mut records = Records::new(client.journal());
            let Some(Ok(record)) = records.next() else {
                return Err(FlashError::Damaged);
            };
            let bytes = client.journal().get(..records.consumed());
            let bytes = bytes.unwrap_or_default();
            self.write(client, &record, bytes).await?;
            let len = records.consumed();
            client.stored(len);
        }
        Ok(())
    }

    async fn write(
        &mut self,
        client: &Client<'_>,
        record: &Record<'_>,
        bytes: &[u8],
    ) -> Result<(), FlashError> {
        let place = Place::of(record).ok_or(FlashError::Damaged)?;
        let has = |wanted: Place| move |(_, place): &(usize, &Place)| **place == wanted;
        let mut places = self.places.iter().enumerate();
        let known = match place {
            Place::Format => Some(0),
            Place::Session => Some(1),
            _ => places.find(has(place)).map(|(index, _)| index),
        };
        let (index, is, bytes) = match (known, record.value) {
            (None, None) => return Ok(()),
            (Some(index), None) => (index, Place::Free, &[][..]),
            (Some(index), Some(_)) => (index, place, bytes),
            (None, Some(_)) => {
                // A session that is lost deletes no records of messages that were half received in it.
                let needless = |(_, place): &(usize, &Place)| matches!(place, Place::Received(id) if !client.needs_received(*id));
                let mut places = self.places.iter().enumerate().skip(2);
                let free = places.clone().find(has(Place::Free));
                let free = free.or_else(|| places.find(needless));
                let (index, _) = free.ok_or(FlashError::Full)?;
                (index, place, bytes)
            }
        };
        self.put(index, is, bytes).await
    }

    async fn put(&mut self, index: usize, place: Place, value: &[u8]) -> Result<(), FlashError> {
        let key = u8::try_from(index).map_err(|_| FlashError::Full)?;
        let slot = self.places.get_mut(index).ok_or(FlashError::Full)?;
        if value.len() > Self::LONGEST {
            return Err(FlashError::TooLong);
        }
        self.map
            .store_item(&mut self.buffer.0, &key, &value)
            .await?;
        *slot = place;
        Ok(())
    }

    /// Reads which record each key has.
    async fn find_places(&mut self) -> Result<(), FlashError> {
        self.places = [Place::Free; ENTRIES];
        // A page whose erase was interrupted is repaired by this call, but in version 8.0.2 not by the next one.
        fetch(&mut self.map, &mut self.buffer, 0).await?;
        let buffer = &mut self.buffer.0;
        let mut items = self.map.fetch_all_items(buffer).await?;
        while let Some((key, value)) = items.next::<&[u8]>(buffer).await? {
            let place = match whole(value)? {
                None => Place::Free,
                Some(record) => Place::of(&record).ok_or(FlashError::Damaged)?,
            };
            let slot = self.places.get_mut(usize::from(key));
            *slot.ok_or(FlashError::Full)? = place;
        }
        Ok(())
    }

    /// Returns the key of the record that a client takes after the one of `last`.
    fn next_place(&self, last: Option<usize>) -> Option<usize> {
        let last = last.and_then(|index| Some((index, *self.places.get(index)?)));
        let mut next: Option<(usize, Place)> = None;
        for (index, place) in self.places.iter().copied().enumerate() {
            let later = last
                .is_none_or(|(before, at)| at.before(place) || !place.before(at) && index > before);
            let sooner = next.is_none_or(|(_, other)| place.before(other));
            if place != Place::Free && later && sooner {
                next = Some((index, place));
            }
        }
        Some(next?.0)
    }
}

async fn fetch<'d, F: NorFlash, const RECORD: usize>(
    map: &mut Map<F>,
    buffer: &'d mut Aligned<RECORD>,
    index: usize,
) -> Result<Option<&'d [u8]>, FlashError> {
    let key = u8::try_from(index).map_err(|_| FlashError::Full)?;
    Ok(map.fetch_item::<&[u8]>(&mut buffer.0, &key).await?)
}

/// Returns the record in a value; `None` if the key is free.
fn whole(value: &[u8]) -> Result<Option<Record<'_>>, FlashError> {
    if value.is_empty() {
        return Ok(None);
    }
    match Record::read(value) {
        Ok(Some((record, len))) if len == value.len() => Ok(Some(record)),
        _ => Err(FlashError::Damaged),
    }
}
