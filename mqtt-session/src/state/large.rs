//! The packet that the transport takes from where it is kept.

#[cfg(feature = "alloc")]
use alloc::boxed::Box;

use crate::event::Token;

/// A packet that is kept in any case is large from this length on. Copying a longer one costs more than the restriction to one
/// large packet at a time.
pub(crate) const KEPT_IS_LARGE: usize = 16 << 10;

/// The state of the large packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Underway {
    /// The token of its slot.
    pub(crate) token: Token,
    /// How many of its bytes the transport has taken.
    pub(crate) sent: u32,
    /// The place in the outgoing buffer at which it is sent.
    pub(crate) at: u32,
    /// The value of `sent` at the last call of [`Large::moves`].
    seen: u32,
}

/// The large packet that is on its way, if there is one. It is a pointer, because every connection has room for it.
#[derive(Debug)]
pub(crate) struct Large(#[cfg(feature = "alloc")] Option<Box<Underway>>);

impl Large {
    pub(crate) const NONE: Self = Self(
        #[cfg(feature = "alloc")]
        None,
    );

    #[inline]
    pub(crate) fn get(&self) -> Option<&Underway> {
        #[cfg(feature = "alloc")]
        return self.0.as_deref();
        #[cfg(not(feature = "alloc"))]
        None
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut Underway> {
        #[cfg(feature = "alloc")]
        return self.0.as_deref_mut();
        #[cfg(not(feature = "alloc"))]
        None
    }

    /// Returns the token of the message whose packet is on its way.
    #[inline]
    pub(crate) fn token(&self) -> Option<Token> {
        self.get().map(|large| large.token)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::NONE;
    }

    /// Starts the packet of a slot. It is sent after the bytes of the outgoing buffer before `at`.
    pub(crate) fn begin(&mut self, token: Token, at: u32) {
        let underway = Underway {
            token,
            sent: 0,
            at,
            seen: u32::MAX,
        };
        *self = Self(
            #[cfg(feature = "alloc")]
            Some(Box::new(underway)),
        );
        let _ = underway;
    }

    /// Returns whether there is a large packet of which the transport took bytes since the last call. The first call returns
    /// `true`.
    pub(crate) fn moves(&mut self) -> bool {
        self.get_mut().is_some_and(|large| {
            let before = core::mem::replace(&mut large.seen, large.sent);
            before != large.sent
        })
    }
}
