//! Copies that cannot panic. If the lengths differ, only the shorter one is copied. Firmware proves at link time that no panic
//! is left, and the copy methods of slices have one that the compiler does not always remove.
//!
//! In this crate, lengths of packets and buffers are added with `wrapping_add`: the sum of two of them never reaches the end of
//! `usize`, and saturating would cost a device half a kilobyte. Numbers of a caller or a peer are added saturating.

use core::ops::Range;

use crate::tune::FAST;

/// Returns `len` items from `start` on; none if there are fewer. Hosts take a range, which is fewer instructions; on a device it is
/// more code.
pub(crate) fn part<T>(items: &[T], start: usize, len: usize) -> &[T] {
    if FAST {
        let end = start.wrapping_add(len);
        return items.get(start..end).unwrap_or_default();
    }
    let rest = items.get(start..);
    rest.and_then(|rest| rest.get(..len)).unwrap_or_default()
}

/// Returns the same items as [`part`], to be changed.
pub(crate) fn part_mut<T>(items: &mut [T], start: usize, len: usize) -> &mut [T] {
    if FAST {
        let end = start.wrapping_add(len);
        return items.get_mut(start..end).unwrap_or_default();
    }
    let rest = items.get_mut(start..);
    rest.and_then(|rest| rest.get_mut(..len))
        .unwrap_or_default()
}

/// Copies items from the front of one slice to the front of the other.
#[inline]
pub(crate) fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    if FAST && let Some(to) = to.get_mut(..from.len()) {
        // A message is copied as a block: 30 instead of 110 instructions for 90 bytes.
        to.copy_from_slice(from);
        return;
    }
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// Moves the items of a range to `to`, which is not after its start.
pub(crate) fn move_down<T: Copy>(items: &mut [T], from: Range<usize>, to: usize) {
    if FAST {
        if from.start <= from.end && from.end <= items.len() && to <= from.start {
            items.copy_within(from, to);
        }
        return;
    }
    // One item at a time, because the compiler would turn a loop without the checks into a call of `memmove`.
    let gap = from.start.wrapping_sub(to);
    for at in from {
        let item = items.get(at).copied();
        if let (Some(item), Some(place)) = (item, items.get_mut(at.wrapping_sub(gap))) {
            *place = item;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn move_down_moves_as_copy_within_does() {
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
