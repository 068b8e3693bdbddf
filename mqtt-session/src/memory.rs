//! Memory is the caller's: growing on a heap, or lent buffers of a fixed size. One engine serves both; it has no memory of its
//! own and asks here for what it needs.

#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(any(feature = "alloc", feature = "server"))]
use core::mem;

use crate::inbound::ReceiveSlot;
use crate::slots::Slot;

/// Memory that grows as needed, up to the limits of the [`crate::Config`]. Nothing is allocated before its first use.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

/// Buffers lent by firmware: nothing grows, nothing is allocated.
///
/// The receive maximum announced in CONNECT (5) should not be above the length of `received`.
#[derive(Debug, Default)]
pub struct Lent<'b> {
    /// Outgoing bytes: at least the largest packet to be sent, and 64 for acknowledgements.
    pub outgoing: &'b mut [u8],
    /// Unacknowledged messages: their packets' lengths added up, and a byte for each filter of a request.
    pub kept: &'b mut [u8],
    /// One for each message or request under way.
    pub slots: &'b mut [Slot],
    /// One for each QoS 2 message that may be half received.
    pub received: &'b mut [ReceiveSlot],
    /// Topics of aliases, of those that come in and those that go out, with 5 bytes more for each (5). Empty if none is announced
    /// and none assigned.
    #[cfg(feature = "aliases")]
    pub aliases: &'b mut [u8],
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

/// What lies on the heap. Aliases are rare: an idle session pays one pointer for them.
#[cfg(feature = "alloc")]
#[derive(Debug, Default)]
struct Tables {
    outgoing: Box<[u8]>,
    kept: Box<[u8]>,
    slots: Box<[Slot]>,
    received: Box<[ReceiveSlot]>,
    #[cfg(feature = "aliases")]
    aliases: Option<Box<Rare>>,
}

#[cfg(all(feature = "alloc", feature = "aliases"))]
#[derive(Debug, Default)]
struct Rare(Box<[u8]>);

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

/// Makes a table on the heap at least `len` items long.
#[cfg(feature = "alloc")]
fn grow<T: Clone + Default>(items: &mut Box<[T]>, len: usize) {
    if len > items.len() {
        let mut all = mem::take(items).into_vec();
        let wanted = len.max(all.len().saturating_mul(2)).max(16);
        all.reserve_exact(wanted.saturating_sub(all.len()));
        all.resize(wanted, T::default());
        *items = all.into_boxed_slice();
    }
}

/// For each table: its items, its items to be changed, and how it becomes at least as long as is asked for; `false` if it
/// cannot.
macro_rules! tables {
    ($($field:ident, $items_mut:ident, $grow:ident: $item:ty;)*) => {
        impl Memory<'_> {
            $(
                #[inline]
                pub(crate) fn $field(&self) -> &[$item] {
                    match &self.0 {
                        Kind::Lent(lent) => lent.$field,
                        #[cfg(feature = "alloc")]
                        Kind::Heap(tables) => &tables.$field,
                    }
                }

                #[inline]
                pub(crate) fn $items_mut(&mut self) -> &mut [$item] {
                    match &mut self.0 {
                        Kind::Lent(lent) => lent.$field,
                        #[cfg(feature = "alloc")]
                        Kind::Heap(tables) => &mut tables.$field,
                    }
                }

                #[inline]
                pub(crate) fn $grow(&mut self, len: usize) -> bool {
                    match &mut self.0 {
                        Kind::Lent(lent) => len <= lent.$field.len(),
                        #[cfg(feature = "alloc")]
                        Kind::Heap(tables) => {
                            grow(&mut tables.$field, len);
                            true
                        }
                    }
                }
            )*
        }
    };
}

tables! {
    outgoing, outgoing_mut, grow_outgoing: u8;
    kept, kept_mut, grow_kept: u8;
    slots, slots_mut, grow_slots: Slot;
    received, received_mut, grow_received: ReceiveSlot;
}

impl Memory<'_> {
    /// How long the buffer of outgoing bytes can be.
    #[inline]
    pub(crate) fn outgoing_limit(&self) -> usize {
        match &self.0 {
            Kind::Lent(lent) => lent.outgoing.len(),
            #[cfg(feature = "alloc")]
            Kind::Heap(_) => usize::MAX,
        }
    }

    /// How long the buffer of kept packets can be.
    #[inline]
    pub(crate) fn kept_limit(&self) -> usize {
        match &self.0 {
            Kind::Lent(lent) => lent.kept.len(),
            #[cfg(feature = "alloc")]
            Kind::Heap(_) => usize::MAX,
        }
    }

    /// The outgoing bytes to be written, and the kept packets to be read.
    #[inline]
    pub(crate) fn outgoing_and_kept(&mut self) -> (&mut [u8], &[u8]) {
        match &mut self.0 {
            Kind::Lent(lent) => (lent.outgoing, lent.kept),
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => (&mut tables.outgoing, &tables.kept),
        }
    }

    /// Gives the memory of kept packets back if it is longer than `len`: nothing in it is needed any more.
    #[inline]
    pub(crate) fn give_back_kept(&mut self, len: usize) {
        match &mut self.0 {
            Kind::Lent(_) => {
                let _ = len;
            }
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => {
                if tables.kept.len() > len {
                    tables.kept = Box::default();
                }
            }
        }
    }

    /// Gives what belongs to a session to another machine, and takes what that one has. `false` if one lends its memory and
    /// the other has it on the heap; nothing changed then.
    #[cfg(feature = "server")]
    pub(crate) fn swap_session(&mut self, other: &mut Self) -> bool {
        swap_session(&mut self.0, &mut other.0)
    }
}

#[cfg(feature = "aliases")]
impl Memory<'_> {
    pub(crate) fn aliases(&self) -> &[u8] {
        match &self.0 {
            Kind::Lent(lent) => lent.aliases,
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => tables.aliases.as_ref().map_or(&[], |rare| &rare.0),
        }
    }

    /// The same to be changed, made at least `len` bytes long where that can be.
    pub(crate) fn aliases_mut(&mut self, len: usize) -> &mut [u8] {
        match &mut self.0 {
            Kind::Lent(lent) => {
                let _ = len;
                lent.aliases
            }
            #[cfg(feature = "alloc")]
            Kind::Heap(tables) => {
                let Rare(items) = &mut **tables.aliases.get_or_insert_default();
                grow(items, len);
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
