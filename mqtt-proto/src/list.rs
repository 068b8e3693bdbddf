//! Lists in packets. One type serves both directions: a decoded list borrows checked bytes, a list to be sent borrows a slice.

use core::fmt;

use crate::wire::{Reader, ReasonCode};

/// The types that a [`List`] can have as elements: [`ReasonCode`], [`crate::Subscription`], [`crate::TopicFilter`] and
/// [`crate::Property`].
pub trait Element<'a>: Copy + sealed::ReadElement<'a> {}

impl<'a, T: Copy + sealed::ReadElement<'a>> Element<'a> for T {}

pub(crate) mod sealed {
    use crate::wire::Reader;

    /// Reads an element from bytes that were checked before. Returns `None` only at their end.
    #[allow(unnameable_types, reason = "sealed")]
    pub trait ReadElement<'a>: Sized {
        fn read(bytes: &mut Reader<'a>) -> Option<Self>;
    }
}

impl sealed::ReadElement<'_> for ReasonCode {
    fn read(bytes: &mut Reader<'_>) -> Option<Self> {
        Self::new(bytes.u8())
    }
}

/// A borrowed list: as it was received, or a slice to be sent.
///
/// ```
/// use mqtt_proto::{List, ReasonCode};
/// let codes: List<'_, ReasonCode> = (&[ReasonCode::Success, ReasonCode::NotAuthorized]).into();
/// assert_eq!(codes.iter().count(), 2);
/// ```
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    pub(crate) backing: Backing<'a, T>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Backing<'a, T> {
    Wire(&'a [u8]),
    Slice(&'a [T]),
}

impl<'a, T: Element<'a>> List<'a, T> {
    /// The empty list.
    pub const EMPTY: Self = Self {
        backing: Backing::Slice(&[]),
    };

    /// Makes a list of bytes that consist of whole, checked elements.
    pub(crate) const fn validated(bytes: &'a [u8]) -> Self {
        Self {
            backing: Backing::Wire(bytes),
        }
    }

    /// Returns an iterator over the elements, in their order.
    #[must_use]
    pub const fn iter(&self) -> ListIter<'a, T> {
        ListIter(self.backing)
    }

    /// Returns whether the list has no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        match self.backing {
            Backing::Wire(bytes) => bytes.is_empty(),
            Backing::Slice(slice) => slice.is_empty(),
        }
    }

    /// Returns the number of elements. For a received list it reads all of them.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.backing {
            Backing::Wire(_) => self.iter().count(),
            Backing::Slice(slice) => slice.len(),
        }
    }
}

impl<'a, T: Element<'a>> Default for List<'a, T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(slice: &'a [T]) -> Self {
        Self {
            backing: Backing::Slice(slice),
        }
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for List<'a, T> {
    fn from(slice: &'a [T; N]) -> Self {
        Self::from(&slice[..])
    }
}

impl<'a, T: Element<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Element<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Element<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Element<'a>> IntoIterator for List<'a, T> {
    type IntoIter = ListIter<'a, T>;
    type Item = T;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Element<'a>> IntoIterator for &List<'a, T> {
    type IntoIter = ListIter<'a, T>;
    type Item = T;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// An iterator over the elements of a [`List`].
#[derive(Clone, Debug)]
pub struct ListIter<'a, T>(Backing<'a, T>);

impl<'a, T: Element<'a>> Iterator for ListIter<'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Backing::Slice(slice) => {
                let (first, rest) = slice.split_first()?;
                *slice = rest;
                Some(*first)
            }
            Backing::Wire([]) => None,
            Backing::Wire(bytes) => {
                let mut reader = Reader::new(bytes);
                let element = T::read(&mut reader);
                *bytes = reader.rest;
                element
            }
        }
    }
}
