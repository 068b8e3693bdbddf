//! The search of a slot among many, which hosts do.

use mqtt_proto::num::{low_half, to_usize};

use crate::state::slot::Slot;
use crate::work::looked;

/// Up to this number of slots, comparing each is faster than a search.
pub(crate) const SCAN_LIMIT: usize = 16;

/// Returns the index of the first slot with this number or a higher one.
pub(crate) fn search(slots: &[Slot], number: u32) -> usize {
    let first = slots.first().map_or(0, |slot| slot.number);
    let distance = number.wrapping_sub(first);
    slots.partition_point(|slot| looked(slot).number.wrapping_sub(first) < distance)
}

/// Returns the index of the slot with an identifier among many slots. Of the numbers that end in the identifier, the last ones
/// are the most likely.
#[cold]
pub(crate) fn find_among_many(slots: &[Slot], id: u16) -> Option<usize> {
    let fits = |slot: &Slot| looked(slot).id() == id && !slot.has_ended();
    let (first, last) = (slots.first()?.number, slots.last()?.number);
    let span = last.wrapping_sub(first);
    if to_usize(span >> 16) >= slots.len() {
        return slots.iter().position(fits);
    }
    let mut back = u32::from(low_half(last).wrapping_sub(id));
    while back <= span {
        let index = search(slots, last.wrapping_sub(back));
        // A QoS 0 message has the number of what was accepted before it.
        if slots.get(index).is_some_and(fits) {
            return Some(index);
        }
        back = back.checked_add(1 << 16)?;
    }
    None
}
