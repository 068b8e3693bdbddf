//! The tables of connections, sessions and shared subscriptions. Each has its own type of key, so the key of one cannot index
//! another.

use std::marker::PhantomData;

use mqtt_session::proto::num::{to_u32, to_usize};

/// The place of an entry in the [`Table`] with the same marker, until the entry is removed. A later entry may get the same key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key<Of> {
    index: u32,
    of: PhantomData<Of>,
}

/// Marks the keys of connections.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum OfConnections {}

/// Marks the keys of sessions.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum OfSessions {}

/// Marks the keys of shared subscriptions.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum OfGroups {}

pub(crate) type ConnectionKey = Key<OfConnections>;
pub(crate) type SessionKey = Key<OfSessions>;
pub(crate) type GroupKey = Key<OfGroups>;

impl<Of> Key<Of> {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index: to_u32(index),
            of: PhantomData,
        }
    }

    /// Returns a number that no other entry of the table has.
    pub(crate) fn index(self) -> usize {
        to_usize(self.index)
    }
}

/// Entries by their keys.
#[derive(Debug)]
pub(crate) struct Table<Of, T> {
    entries: slab::Slab<T>,
    of: PhantomData<Of>,
}

impl<Of, T> Table<Of, T> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: slab::Slab::new(),
            of: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn insert(&mut self, entry: T) -> Key<Of> {
        Key::new(self.entries.insert(entry))
    }

    pub(crate) fn get(&self, key: Key<Of>) -> Option<&T> {
        self.entries.get(key.index())
    }

    pub(crate) fn get_mut(&mut self, key: Key<Of>) -> Option<&mut T> {
        self.entries.get_mut(key.index())
    }

    /// Removes an entry, which the caller knows to exist.
    pub(crate) fn remove(&mut self, key: Key<Of>) -> T {
        self.entries.remove(key.index())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<Of>, &T)> {
        let entries = self.entries.iter();
        entries.map(|(index, entry)| (Key::new(index), entry))
    }
}
