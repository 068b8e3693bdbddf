//! Memory is the caller's: growing on a heap, or lent buffers of a fixed size. One state machine serves both.

#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(feature = "alloc")]
use core::mem;

use crate::bytes::{move_down, move_up};
use crate::inbound::Received;
use crate::outbound::Slot;
use crate::session::FAST;

/// Room for items of one kind. All of it may be in use; the machine keeps count.
pub trait Memory<T> {
    /// The room there is.
    fn items(&self) -> &[T];

    /// The room there is.
    fn items_mut(&mut self) -> &mut [T];

    /// How large it could become.
    fn limit(&self) -> usize;

    /// Makes it at least `len` items large, keeping what is in it. `false` if that cannot be; nothing changed then.
    fn grow(&mut self, len: usize) -> bool;

    /// Gives the memory back if it is larger than `len` items. Nothing in it is needed any more. A memory that cannot stays
    /// as it is, which is what this does if it is not provided.
    fn give_back(&mut self, len: usize) {
        let _ = len;
    }
}

impl<T> Memory<T> for &mut [T] {
    fn items(&self) -> &[T] {
        self
    }

    fn items_mut(&mut self) -> &mut [T] {
        self
    }

    fn limit(&self) -> usize {
        self.len()
    }

    fn grow(&mut self, len: usize) -> bool {
        len <= self.len()
    }
}

#[cfg(feature = "alloc")]
impl<T: Clone + Default> Memory<T> for Box<[T]> {
    fn items(&self) -> &[T] {
        self
    }

    fn items_mut(&mut self) -> &mut [T] {
        self
    }

    fn limit(&self) -> usize {
        usize::MAX
    }

    fn grow(&mut self, len: usize) -> bool {
        if len > self.len() {
            let mut items = mem::take(self).into_vec();
            let wanted = len.max(items.len().saturating_mul(2)).max(16);
            items.reserve_exact(wanted.saturating_sub(items.len()));
            items.resize(wanted, T::default());
            *self = items.into_boxed_slice();
        }
        true
    }

    fn give_back(&mut self, len: usize) {
        if self.len() > len {
            *self = Self::default();
        }
    }
}

/// Items of which an idle session pays only one pointer.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, Default)]
pub struct Rare<T>(Option<Box<Box<[T]>>>);

#[cfg(feature = "alloc")]
impl<T: Clone + Default> Memory<T> for Rare<T> {
    fn items(&self) -> &[T] {
        self.0.as_deref().map_or(&[], |items| items)
    }

    fn items_mut(&mut self) -> &mut [T] {
        self.0.as_deref_mut().map_or(&mut [], |items| items)
    }

    fn limit(&self) -> usize {
        usize::MAX
    }

    fn grow(&mut self, len: usize) -> bool {
        self.0.get_or_insert_default().grow(len)
    }

    fn give_back(&mut self, len: usize) {
        if let Some(items) = &mut self.0 {
            items.give_back(len);
        }
    }
}

/// Where a machine keeps what it must remember.
pub trait Storage: Sized {
    /// Outgoing bytes.
    type Outgoing: Memory<u8>;
    /// Unacknowledged messages.
    type Kept: Memory<u8>;
    /// What is under way to the peer, one slot a message or request.
    type Slots: Memory<Slot>;
    /// What came from the peer and is not ended, one a message.
    type Received: Memory<Received>;
    /// Topic aliases.
    type Aliases: Memory<u8>;

    /// The memories, one by one.
    fn into_parts(self) -> Parts<Self>;
}

/// The memories of a [`Storage`].
#[allow(
    missing_debug_implementations,
    missing_docs,
    reason = "each is named after its memory"
)]
pub struct Parts<S: Storage> {
    pub outgoing: S::Outgoing,
    pub kept: S::Kept,
    pub slots: S::Slots,
    pub received: S::Received,
    pub aliases_in: S::Aliases,
    pub aliases_out: S::Aliases,
}

/// Memory that grows as needed, up to the limits of the [`crate::Config`]. Nothing is allocated before its first use.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

#[cfg(feature = "alloc")]
impl Storage for Heap {
    type Aliases = Rare<u8>;
    type Kept = Rare<u8>;
    type Outgoing = Box<[u8]>;
    type Received = Rare<Received>;
    type Slots = Rare<Slot>;

    fn into_parts(self) -> Parts<Self> {
        Parts {
            outgoing: Box::default(),
            kept: Rare(None),
            slots: Rare(None),
            received: Rare(None),
            aliases_in: Rare(None),
            aliases_out: Rare(None),
        }
    }
}

/// Buffers lent by firmware: nothing grows, nothing is allocated.
///
/// The receive maximum announced in CONNECT (5) should not be above the length of `received`.
#[derive(Debug, Default)]
pub struct Lent<'b> {
    /// Outgoing bytes: at least the largest packet to be sent, and 64 for acknowledgements.
    pub outgoing: &'b mut [u8],
    /// Unacknowledged messages: their packets' lengths added up.
    pub kept: &'b mut [u8],
    /// One for each message or request under way.
    pub slots: &'b mut [Slot],
    /// One for each QoS 2 message that may be half received.
    pub received: &'b mut [Received],
    /// Topics of incoming aliases; empty if none is announced (5).
    pub aliases_in: &'b mut [u8],
    /// Topics of outgoing aliases; empty if none is assigned (5).
    pub aliases_out: &'b mut [u8],
}

impl<'b> Storage for Lent<'b> {
    type Aliases = &'b mut [u8];
    type Kept = &'b mut [u8];
    type Outgoing = &'b mut [u8];
    type Received = &'b mut [Received];
    type Slots = &'b mut [Slot];

    fn into_parts(self) -> Parts<Self> {
        let Self {
            outgoing,
            kept,
            slots,
            received,
            aliases_in,
            aliases_out,
        } = self;
        Parts {
            outgoing,
            kept,
            slots,
            received,
            aliases_in,
            aliases_out,
        }
    }
}

/// An ordered table in a [`Memory`]: pushed at the end, mostly removed at the front.
pub(crate) struct Table<M> {
    memory: M,
    start: u16,
    len: u16,
}

impl<M> Table<M> {
    pub(crate) const fn new(memory: M) -> Self {
        Self {
            memory,
            start: 0,
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the first item is. Where size goes before speed, that is always the front.
    #[inline]
    fn start(&self) -> usize {
        if FAST { usize::from(self.start) } else { 0 }
    }

    pub(crate) fn clear(&mut self) {
        (self.start, self.len) = (0, 0);
    }

    #[inline]
    pub(crate) fn items<T>(&self) -> &[T]
    where
        M: Memory<T>,
    {
        let start = self.start();
        self.memory
            .items()
            .get(start..start.wrapping_add(self.len()))
            .unwrap_or_default()
    }

    #[inline]
    pub(crate) fn items_mut<T>(&mut self) -> &mut [T]
    where
        M: Memory<T>,
    {
        let start = self.start();
        let end = start.wrapping_add(self.len());
        self.memory
            .items_mut()
            .get_mut(start..end)
            .unwrap_or_default()
    }

    /// Whether another item has room, with at most `limit` in all. Makes the room.
    pub(crate) fn make_room<T: Copy>(&mut self, limit: usize) -> bool
    where
        M: Memory<T>,
    {
        let end = self.start().wrapping_add(self.len());
        if self.len() >= limit.min(usize::from(u16::MAX)) {
            return false;
        }
        if end < self.memory.items().len() {
            return true;
        }
        // Moving the items to the front is cheap if there is as much room before them as they take.
        let start = self.start();
        if start > 0 && (start >= self.len() || !self.memory.grow(end.wrapping_add(1))) {
            let len = self.len();
            move_down(self.memory.items_mut(), start, len, 0);
            self.start = 0;
            return true;
        }
        end < usize::from(u16::MAX) && self.memory.grow(end.wrapping_add(1))
    }

    /// Adds at the end; `false` without room.
    #[inline]
    pub(crate) fn push<T: Copy>(&mut self, item: T, limit: usize) -> bool
    where
        M: Memory<T>,
    {
        if !self.make_room(limit) {
            return false;
        }
        let end = self.start().wrapping_add(self.len());
        let Some(place) = self.memory.items_mut().get_mut(end) else {
            return false;
        };
        *place = item;
        self.len = self.len.wrapping_add(1);
        true
    }

    /// Removes one and closes the gap from the shorter side.
    #[inline]
    pub(crate) fn remove<T: Copy>(&mut self, index: usize)
    where
        M: Memory<T>,
    {
        let len = self.len();
        if index >= len {
            return;
        }
        let items = self.items_mut();
        if FAST && (index < len / 2 || index == 0) {
            move_up(items, index);
            self.start = self.start.wrapping_add(1);
        } else {
            let next = index.wrapping_add(1);
            move_down(items, next, len.saturating_sub(next), index);
        }
        self.len = self.len.saturating_sub(1);
        if self.len == 0 {
            self.start = 0;
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_table_keeps_its_order_whatever_is_removed() {
        let mut seed = 7_u32;
        let mut random = move |n: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            usize::try_from(seed >> 8).unwrap() % n
        };
        let mut lent = [0_u16; 9];
        let mut fixed = Table::new(&mut lent[..]);
        let mut grown = Table::new(Rare::<u16>(None));
        let mut model = vec![];
        for item in 0..if cfg!(miri) { 500 } else { 20_000_u16 } {
            assert_eq!(fixed.push(item, 100), model.len() < 9);
            if model.len() < 9 {
                assert!(grown.push(item, 9));
                model.push(item);
            } else {
                assert!(!grown.push(item, 9));
            }
            if random(3) > 0 && !model.is_empty() {
                let index = random(model.len());
                model.remove(index);
                fixed.remove(index);
                grown.remove(index);
            }
            assert_eq!((fixed.items(), grown.items()), (&model[..], &model[..]));
        }
    }
}
