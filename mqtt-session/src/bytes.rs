//! Copying that cannot panic: where lengths differ, the shorter counts. Firmware proves at link time that no panic is left,
//! and the slices' own methods have one that the compiler does not always see through.
//!
//! Here and in its neighbours, lengths of packets and buffers are added by `wrapping_add`: two of them never reach the end of
//! `usize`, and saturating would cost a device half a kilobyte. What a caller or a peer names is added saturating.

use core::cell::Cell;

use crate::session::FAST;

/// Copies from the front of one to the front of the other.
#[inline]
pub(crate) fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// Moves `len` items that begin at `from` down to `to`, in pieces that do not overlap.
pub(crate) fn move_down<T: Copy>(items: &mut [T], from: usize, len: usize, to: usize) {
    let gap = from.saturating_sub(to);
    if FAST && gap < len {
        // By cells: as one piece where the compiler sees that it can be.
        let cells = Cell::from_mut(items).as_slice_of_cells();
        let from = cells.get(from..).unwrap_or_default();
        let to = cells.get(to..).unwrap_or_default();
        for (to, from) in to.iter().zip(from.iter().take(len)) {
            to.set(from.get());
        }
        return;
    }
    let end = from.wrapping_add(len);
    let mut rest = items.get_mut(to..end).unwrap_or_default();
    while gap > 0
        && let Some((piece, behind)) = core::mem::take(&mut rest).split_at_mut_checked(gap)
    {
        copy(piece, behind);
        rest = behind;
    }
}

/// Moves the first `len` items up by one.
pub(crate) fn move_up<T: Copy>(items: &mut [T], len: usize) {
    let cells = Cell::from_mut(items).as_slice_of_cells();
    let pairs = cells.iter().zip(cells.iter().skip(1)).take(len);
    for (from, to) in pairs.rev() {
        to.set(from.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_what_copy_within_moves() {
        let all: [u8; 12] = core::array::from_fn(|n| u8::try_from(n).unwrap());
        for from in 0..12 {
            for len in 0..=12 - from {
                for to in 0..=from {
                    let (mut moved, mut expected) = (all, all);
                    move_down(&mut moved, from, len, to);
                    expected.copy_within(from..from + len, to);
                    assert_eq!(moved, expected, "{len} from {from} to {to}");
                }
            }
        }
        for len in 0..12 {
            let (mut moved, mut expected) = (all, all);
            move_up(&mut moved, len);
            expected.copy_within(..len, 1);
            assert_eq!(moved, expected, "{len} up");
        }
    }
}
