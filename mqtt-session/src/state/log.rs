//! Where the records of a journal lie until they are stored, and the client identifier that they name: on the heap, or in the lent
//! buffer, the records at its front and the identifier at its end.

#[cfg(feature = "alloc")]
use alloc::{boxed::Box, collections::BTreeSet, collections::VecDeque, vec::Vec};

use crate::bytes::{copy, move_down};
use crate::memory::Memory;

/// On the heap, records that are not stored may take this many bytes. Beyond it, nothing that needs a record is accepted. A single
/// record may be longer.
#[cfg(feature = "alloc")]
const LIMIT: usize = 256 << 10;

/// The bytes that are reserved for a record beside the packet of a message and a client identifier.
const HEAD: usize = 40;

/// The bytes that a lent buffer leaves free for each slot, for the record of its end.
const END: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Log {
    #[cfg(feature = "alloc")]
    records: Vec<u8>,
    #[cfg(feature = "alloc")]
    client_id: Box<str>,
    /// How many bytes of the lent buffer are records, and how many the identifier.
    len: usize,
    id_len: usize,
    /// A record had no room.
    pub(crate) overflowed: bool,
}

impl Log {
    pub(crate) fn records<'a>(&'a self, m: &'a Memory<'_>) -> &'a [u8] {
        #[cfg(feature = "alloc")]
        if m.lent_journal().is_none() {
            return &self.records;
        }
        let lent = m.lent_journal().unwrap_or_default();
        lent.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn client_id<'a>(&'a self, m: &'a Memory<'_>) -> &'a str {
        #[cfg(feature = "alloc")]
        if m.lent_journal().is_none() {
            return &self.client_id;
        }
        let lent = m.lent_journal().unwrap_or_default();
        let id = lent.get(lent.len().saturating_sub(self.id_len)..);
        core::str::from_utf8(id.unwrap_or_default()).unwrap_or_default()
    }

    /// Returns whether a lent buffer is long enough for an identifier, and for the record of the session that names it.
    pub(crate) fn client_id_fits(m: &Memory<'_>, id: &str) -> bool {
        let needed = id.len().saturating_mul(2).saturating_add(HEAD);
        m.lent_journal().is_none_or(|lent| needed <= lent.len())
    }

    pub(crate) fn set_client_id(&mut self, m: &mut Memory<'_>, id: &str) {
        #[cfg(feature = "alloc")]
        if m.lent_journal().is_none() {
            self.client_id = id.into();
            return;
        }
        let len = self.len;
        let Some(lent) = m.lent_journal_mut() else {
            return;
        };
        let start = lent.len().saturating_sub(id.len());
        if id.len() > lent.len() || start < len {
            self.overflowed = true;
            return;
        }
        copy(lent.get_mut(start..).unwrap_or_default(), id.as_bytes());
        self.id_len = id.len();
    }

    /// Appends what `write` writes, which is of this length. It also gets the kept packets and the client identifier.
    pub(crate) fn append(
        &mut self,
        m: &mut Memory<'_>,
        len: usize,
        write: impl FnOnce(&mut [u8], &[u8], &str) -> Option<usize>,
    ) -> bool {
        #[cfg(feature = "alloc")]
        if m.lent_journal().is_none() {
            let start = self.records.len();
            self.records.resize(start.saturating_add(len), 0);
            let room = self.records.get_mut(start..).unwrap_or_default();
            return write(room, m.kept(), &self.client_id).is_some();
        }
        let (lent, kept) = m.lent_journal_and_kept();
        let split = lent.len().saturating_sub(self.id_len);
        let (room, id) = lent.split_at_mut_checked(split).unwrap_or_default();
        let id = core::str::from_utf8(id).unwrap_or_default();
        let end = self.len.saturating_add(len);
        let written = room
            .get_mut(self.len..end)
            .and_then(|room| write(room, kept, id));
        if written.is_some() {
            self.len = end;
        } else {
            self.overflowed = true;
        }
        written.is_some()
    }

    /// Removes the first `n` bytes of the records. Returns how many there were of them.
    pub(crate) fn remove_front(&mut self, m: &mut Memory<'_>, n: usize) -> usize {
        let n = n.min(self.records(m).len());
        #[cfg(feature = "alloc")]
        if m.lent_journal().is_none() {
            self.records.drain(..n);
            return n;
        }
        if let Some(lent) = m.lent_journal_mut() {
            move_down(lent, n..self.len, 0);
            self.len = self.len.saturating_sub(n);
        }
        n
    }

    /// Returns the length of the longest packet of a message whose record has room in a lent buffer of this length.
    pub(crate) const fn longest(&self, lent: usize) -> usize {
        lent.saturating_sub(self.id_len.saturating_mul(3))
            .saturating_sub(HEAD.saturating_mul(2))
            .saturating_sub(END)
    }

    /// Returns whether there is room for records that have `len` bytes beside what each record has.
    pub(crate) fn fits(&self, m: &Memory<'_>, slots: u16, len: usize) -> bool {
        let used = self.records(m).len();
        let wanted = used.saturating_add(len).saturating_add(HEAD);
        #[cfg(feature = "alloc")]
        if m.lent_journal().is_none() {
            return used == 0 || wanted <= LIMIT;
        }
        // Ends that no step of the peer brings, and the record of a session, have room in any case.
        let reserve = self
            .id_len
            .saturating_mul(2)
            .saturating_add(HEAD)
            .saturating_add(END.saturating_mul(usize::from(slots)));
        let lent = m.lent_journal().unwrap_or_default().len();
        let free = lent.saturating_sub(self.id_len);
        !self.overflowed && wanted.saturating_add(reserve) <= free
    }
}

/// While records are read: the packet identifiers of received messages whose records are of no use any more.
#[cfg(feature = "alloc")]
pub(crate) type Needless = BTreeSet<u16>;

/// Without a heap they are found by [`crate::Client::needs_record`].
#[cfg(not(feature = "alloc"))]
#[derive(Debug, Default)]
pub(crate) struct Needless;

#[cfg(not(feature = "alloc"))]
#[allow(clippy::unused_self, reason = "as with a heap")]
impl Needless {
    pub(crate) const fn insert(&mut self, _: u16) {}

    pub(crate) const fn remove(&mut self, _: &u16) {}
}

/// Places in the stream of outgoing bytes, in their order. Each has how many bytes of records must be stored before what follows
/// it goes out.
#[cfg(feature = "alloc")]
pub(crate) type Barriers = VecDeque<(u64, u64)>;

/// Without a heap there are few places; when they are used up, what follows the last one waits for more.
#[cfg(not(feature = "alloc"))]
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    places: [(u64, u64); 3],
    len: usize,
}

#[cfg(not(feature = "alloc"))]
impl Barriers {
    pub(crate) fn front(&self) -> Option<&(u64, u64)> {
        self.places.get(..self.len)?.first()
    }

    pub(crate) fn back(&self) -> Option<&(u64, u64)> {
        self.places.get(..self.len)?.last()
    }

    pub(crate) fn push_back(&mut self, barrier: (u64, u64)) {
        if let Some(place) = self.places.get_mut(self.len) {
            *place = barrier;
            self.len = self.len.wrapping_add(1);
        } else if let Some((_, records)) = self.places.last_mut() {
            *records = barrier.1;
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<(u64, u64)> {
        let first = self.front().copied()?;
        move_down(&mut self.places, 1..self.len, 0);
        self.len = self.len.wrapping_sub(1);
        Some(first)
    }

    pub(crate) fn pop_back(&mut self) -> Option<(u64, u64)> {
        let last = self.back().copied()?;
        self.len = self.len.wrapping_sub(1);
        Some(last)
    }

    pub(crate) const fn clear(&mut self) {
        self.len = 0;
    }
}
