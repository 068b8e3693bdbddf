//! The memory of a machine: tables on the heap, which grow, or lent buffers of a fixed size. The engine serves both. It has no
//! memory of its own and asks this module for what it needs.

#[cfg(feature = "alloc")]
use alloc::{boxed::Box, vec::Vec};
#[cfg(any(feature = "alloc", feature = "server"))]
use core::mem;

use crate::state::received::ReceiveSlot;
use crate::state::slot::Slot;

/// Memory on the heap. It grows as needed, up to the limits of the [`crate::Config`], and allocates nothing before its first
/// use.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

/// Buffers that firmware lends. Nothing grows, and nothing is allocated.
///
/// The receive maximum announced in CONNECT (MQTT 5) should not be above the length of `received`.
#[derive(Debug, Default)]
pub struct Lent<'b> {
    /// For outgoing bytes: at least the length of the longest packet to be sent, and 64 bytes for acknowledgements.
    pub outgoing: &'b mut [u8],
    /// For unacknowledged messages: the sum of the lengths of their packets, and a byte for each filter of a request.
    pub kept: &'b mut [u8],
    /// One slot for each message or request that may be on its way.
    pub slots: &'b mut [Slot],
    /// One slot for each QoS 2 message that may be received and not yet released. With acknowledgement by hand, also one for
    /// each QoS 1 message that is not acknowledged.
    pub received: &'b mut [ReceiveSlot],
    /// For the topics of aliases, incoming and outgoing ones, with 5 bytes more for each (MQTT 5). Empty if no alias is
    /// announced or assigned.
    #[cfg(feature = "aliases")]
    pub aliases: &'b mut [u8],
    /// For records that are not stored: the length of the longest packet of a message at QoS 1 or 2, 16 bytes for each slot, three
    /// times the client identifier, and 100 more. Empty without a journal.
    #[cfg(feature = "journal")]
    pub journal: &'b mut [u8],
}

/// The memory of a machine, made of [`Lent`] buffers or of the heap.
#[derive(Debug)]
pub struct Memory<'b>(Kind<'b>);

#[derive(Debug)]
enum Kind<'b> {
    Lent(Lent<'b>),
    #[cfg(feature = "alloc")]
    Heap(Tables),
}

/// The tables on the heap. Few sessions have aliases, so those are behind a pointer.
#[cfg(feature = "alloc")]
#[derive(Debug, Default)]
struct Tables {
    outgoing: Vec<u8>,
    kept: Vec<u8>,
    slots: Box<[Slot]>,
    received: Box<[ReceiveSlot]>,
    #[cfg(feature = "aliases")]
    aliases: Option<Box<AliasTable>>,
}

#[cfg(all(feature = "alloc", feature = "aliases"))]
#[derive(Debug, Default)]
struct AliasTable(Vec<u8>);

impl<'b> From<Lent<'b>> for Memory<'b> {
    fn from(lent: Lent<'b>) -> Self {
        Self(Kind::Lent(lent))
    }
}

#[cfg(feature = "alloc")]
impl From<Heap> for Memory<'_> {
    fn from(_: Heap) -> Self {
        Self(Kind::Heap(Tables::default()))
    }
}

/// How many bytes a buffer becomes longer at most, beyond what is needed.
#[cfg(feature = "alloc")]
const STEP: usize = 64 << 10;

/// Makes a buffer on the heap at least `len` bytes long. Its capacity doubles, but only a part of it is written now: the first write to
/// a page of memory costs more than what the call does otherwise.
#[cfg(feature = "alloc")]
fn grow_buffer(bytes: &mut Vec<u8>, len: usize) {
    if len > bytes.capacity() {
        let wanted = len.max(bytes.len().saturating_mul(2)).max(16);
        bytes.reserve_exact(wanted.saturating_sub(bytes.len()));
    }
    if len > bytes.len() {
        let end = bytes.capacity().min(len.saturating_add(STEP));
        bytes.resize(end, 0);
    }
}

/// Makes a table on the heap at least `len` items long.
#[cfg(feature = "alloc")]
fn grow_table<T: Clone + Default>(items: &mut Box<[T]>, len: usize) {
    if len > items.len() {
        let mut all = mem::take(items).into_vec();
        let wanted = len.max(all.len().saturating_mul(2)).max(16);
        all.reserve_exact(wanted.saturating_sub(all.len()));
        all.resize(wanted, T::default());
        *items = all.into_boxed_slice();
    }
}

/// Makes three methods for each table: one returns its items, one returns them to be changed, and one makes the table at least
/// `len` items long or returns `false`.
macro_rules! tables {
    ($($field:ident, $items_mut:ident, $grow:ident: $item:ty, $how:ident;)*) => {
        impl Memory<'_> {
            $(
                pub(crate) fn $field(&self) -> &[$item] {
                    match &self.0 {
                        Kind::Lent(lent) => lent.$field,
                        #[cfg(feature = "alloc")]
                        Kind::Heap(tables) => &tables.$field,
                    }
                }

                pub(crate) fn $items_mut(&mut self) -> &mut [$item] {
                    match &mut self.0 {
                        Kind::Lent(lent) => lent.$field,
                        #[cfg(feature = "alloc")]
                        Kind::Heap(tables) => &mut tables.$field,
                    }
                }

                pub(crate) fn $grow(&mut self, len: usize) -> bool {
                    match &mut self.0 {
                        Kind::Lent(lent) => len <= lent.$field.len(),
                        #[cfg(feature = "alloc")]
                        Kind::Heap(tables) => {
                            $how(&mut tables.$field, len);
                            true
                        }
                    }
                }
            )*
        }
    };
}

tables! {
    outgoing, outgoing_mut, grow_outgoing: u8, grow_buffer;
    kept, kept_mut, grow_kept: u8, grow_buffer;
    slots, slots_mut, grow_slots: Slot, grow_table;
    received, received_mut, grow_received: ReceiveSlot, grow_table;
}

impl Memory<'_> {
    /// Returns how long the buffer of outgoing bytes can become.
    pub(crate) fn outgoing_limit(&self) -> usize {
        match &self.0 {
            Kind::Lent(lent) => lent.outgoing.len(),
            #[cfg(feature = "alloc")]
            Kind::Heap(_) => usize::MAX,
        }
    }

    /// Returns how long the buffer of kept packets can become.
    pub(crate) fn kept_limit(&self) -> usize {
        match &self.0 {
            Kind::Lent(lent) => lent.kept.len(),
            #[cfg(feature = "alloc")]
            Kind::Heap(_) => usize::MAX,
        }
    }

    /// Returns the outgoing bytes to be written, and the kept packets to be read.
    pub(crate) fn outgoing_and_kept(&mut self) -> (&mut [u8], &[u8]) {
        match &mut self.0 {
            Kind::Lent(lent) => (lent.outgoing, lent.kept),
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => (&mut tables.outgoing, &tables.kept),
        }
    }

    /// Frees the memory of kept packets if it is longer than `len`. No packet in it may be needed any more.
    pub(crate) fn give_back_kept(&mut self, len: usize) {
        match &mut self.0 {
            Kind::Lent(_) => {
                let _ = len;
            }
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => {
                if tables.kept.len() > len {
                    tables.kept = Vec::new();
                }
            }
        }
    }

    /// Returns how many bytes lie on the heap.
    #[cfg(all(feature = "alloc", feature = "server"))]
    pub(crate) fn heap_size(&self) -> usize {
        let Kind::Heap(tables) = &self.0 else {
            return 0;
        };
        let slots = size_of_val(&*tables.slots);
        let received = size_of_val(&*tables.received);
        let bytes = tables.outgoing.capacity();
        let bytes = bytes.saturating_add(tables.kept.capacity());
        #[cfg(feature = "aliases")]
        let bytes = tables
            .aliases
            .as_ref()
            .map_or(bytes, |rare| bytes.saturating_add(rare.0.capacity()));
        bytes.saturating_add(slots).saturating_add(received)
    }

    /// Exchanges what belongs to a session with another machine. Returns `false` and changes nothing if one has lent memory and
    /// the other a heap.
    #[cfg(feature = "server")]
    pub(crate) fn swap_session(&mut self, other: &mut Self) -> bool {
        swap_session(&mut self.0, &mut other.0)
    }
}

#[cfg(feature = "journal")]
impl Memory<'_> {
    /// Returns the lent buffer for records; `None` with a heap.
    pub(crate) fn lent_journal(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Lent(lent) => Some(lent.journal),
            #[cfg(feature = "alloc")]
            Kind::Heap(_) => None,
        }
    }

    pub(crate) fn lent_journal_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.0 {
            Kind::Lent(lent) => Some(lent.journal),
            #[cfg(feature = "alloc")]
            Kind::Heap(_) => None,
        }
    }

    /// Returns the lent buffer for records to be written, and the kept packets to be read.
    pub(crate) fn lent_journal_and_kept(&mut self) -> (&mut [u8], &[u8]) {
        match &mut self.0 {
            Kind::Lent(lent) => (lent.journal, lent.kept),
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => (&mut [], &tables.kept),
        }
    }
}

#[cfg(feature = "aliases")]
impl Memory<'_> {
    pub(crate) fn aliases(&self) -> &[u8] {
        match &self.0 {
            Kind::Lent(lent) => lent.aliases,
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => tables.aliases.as_ref().map_or(&[], |table| &table.0),
        }
    }

    /// Returns the same bytes to be changed, made at least `len` bytes long if the memory can grow.
    pub(crate) fn aliases_mut(&mut self, len: usize) -> &mut [u8] {
        match &mut self.0 {
            Kind::Lent(lent) => {
                let _ = len;
                lent.aliases
            }
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => {
                let AliasTable(items) = &mut **tables.aliases.get_or_insert_default();
                grow_buffer(items, len);
                items
            }
        }
    }
}

#[cfg(feature = "server")]
fn swap_session<'b>(one: &mut Kind<'b>, other: &mut Kind<'b>) -> bool {
    match (one, other) {
        (Kind::Lent(one), Kind::Lent(other)) => {
            mem::swap(&mut one.kept, &mut other.kept);
            mem::swap(&mut one.slots, &mut other.slots);
            mem::swap(&mut one.received, &mut other.received);
        }
        #[cfg(feature = "alloc")]
        (Kind::Heap(one), Kind::Heap(other)) => {
            mem::swap(&mut one.kept, &mut other.kept);
            mem::swap(&mut one.slots, &mut other.slots);
            mem::swap(&mut one.received, &mut other.received);
        }
        #[cfg(feature = "alloc")]
        _ => return false,
    }
    true
}
