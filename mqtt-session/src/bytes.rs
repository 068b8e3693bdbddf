//! Copying that cannot panic: where lengths differ, the shorter counts. Firmware proves at link time that no panic is left,
//! and the slices' own methods have one that the compiler does not always see through.
//!
//! Here and in its neighbours, lengths of packets and buffers are added by `wrapping_add`: two of them never reach the end of
//! `usize`, and saturating would cost a device half a kilobyte. What a caller or a peer names is added saturating.

use core::ops::Range;

use crate::tune::FAST;

/// Copies from the front of one to the front of the other.
#[inline]
pub(crate) fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    if FAST && let Some(to) = to.get_mut(..from.len()) {
        // A message is copied as a block: 30 instead of 110 instructions for 90 bytes.
        to.copy_from_slice(from);
        return;
    }
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// Moves items down to `to`, which is not behind them.
pub(crate) fn move_down<T: Copy>(items: &mut [T], from: Range<usize>, to: usize) {
    if FAST {
        if from.start <= from.end && from.end <= items.len() && to <= from.start {
            items.copy_within(from, to);
        }
        return;
    }
    // In pieces that do not overlap: a loop over all of it becomes a call that links a `memmove`.
    let gap = from.start.wrapping_sub(to);
    let mut rest = items.get_mut(to..from.end).unwrap_or_default();
    while gap > 0
        && let Some((piece, behind)) = core::mem::take(&mut rest).split_at_mut_checked(gap)
    {
        copy(piece, behind);
        rest = behind;
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
                    move_down(&mut moved, from..from + len, to);
                    expected.copy_within(from..from + len, to);
                    assert_eq!(moved, expected, "{len} from {from} to {to}");
                }
            }
        }
    }
}
