//! Bytes from the receive interrupt to the program. One writes, one reads, each moves its own end: loads and stores are
//! enough, which is all that a Cortex-M0 has.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// A ring of `N` bytes, of which `N - 1` can be in use. `N` is a power of two.
pub struct Ring<const N: usize> {
    bytes: [AtomicU8; N],
    read: AtomicUsize,
    written: AtomicUsize,
}

impl<const N: usize> Ring<N> {
    pub const fn new() -> Self {
        assert!(N.is_power_of_two());
        Self {
            bytes: [const { AtomicU8::new(0) }; N],
            read: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
        }
    }

    pub fn is_full(&self) -> bool {
        let written = self.written.load(Ordering::Acquire);
        (written + 1) % N == self.read.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.written.load(Ordering::Acquire) == self.read.load(Ordering::Acquire)
    }

    /// For the interrupt. The byte is dropped if there is no room.
    pub fn push(&self, byte: u8) {
        let written = self.written.load(Ordering::Acquire);
        if let (false, Some(place)) = (self.is_full(), self.bytes.get(written)) {
            place.store(byte, Ordering::Release);
            self.written.store((written + 1) % N, Ordering::Release);
        }
    }

    /// For the program.
    pub fn pop(&self) -> Option<u8> {
        let read = self.read.load(Ordering::Acquire);
        if self.is_empty() {
            return None;
        }
        let byte = self.bytes.get(read)?.load(Ordering::Acquire);
        self.read.store((read + 1) % N, Ordering::Release);
        Some(byte)
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}
