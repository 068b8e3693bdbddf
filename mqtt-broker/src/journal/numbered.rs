//! Keeps values by numbers that were counted up.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use mqtt_session::proto::num::to_u64;

/// Values by their numbers. Most numbers are close to the last one, and these values are in a list without gaps; a value that
/// stays much longer than others moves into a map.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    /// The values of the numbers from `first` on.
    recent: VecDeque<Option<T>>,
    first: u64,
    /// How many values are in `recent`.
    live: usize,
    others: HashMap<u64, T, BuildHasherDefault<OfNumbers>>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            first: 0,
            live: 0,
            others: HashMap::default(),
        }
    }
}

impl<T> Numbered<T> {
    /// Adds the value of a number that has none.
    pub(super) fn insert(&mut self, number: u64, value: T) {
        if self.recent.is_empty() {
            self.first = number;
        }
        let gap = number.checked_sub(self.end());
        match gap.and_then(|gap| usize::try_from(gap).ok()) {
            Some(gap) if gap <= GAP => {
                self.recent.extend((0..gap).map(|_| None));
                self.recent.push_back(Some(value));
                self.live = self.live.saturating_add(1);
                self.shorten();
            }
            _ => drop(self.others.insert(number, value)),
        }
    }

    /// Returns the number after the last one of the list.
    fn end(&self) -> u64 {
        self.first.saturating_add(to_u64(self.recent.len()))
    }

    /// Moves the front of the list into the map if few numbers of the list have values.
    fn shorten(&mut self) {
        while self.recent.len() > self.live.saturating_mul(2).saturating_add(SHORT)
            && let Some(front) = self.recent.pop_front()
        {
            if let Some(value) = front {
                self.live = self.live.saturating_sub(1);
                self.others.insert(self.first, value);
            }
            self.first = self.first.saturating_add(1);
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        (place < self.recent.len()).then_some(place)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        match self.place(number) {
            Some(place) => self.recent.get(place).is_some_and(Option::is_some),
            None => self.others.contains_key(&number),
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match self.place(number) {
            Some(place) => self.recent.get_mut(place)?.as_mut(),
            None => self.others.get_mut(&number),
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let Some(place) = self.place(number) else {
            let value = self.others.remove(&number);
            if self.others.is_empty() {
                self.others.shrink_to(KEPT);
            }
            return value;
        };
        let value = self.recent.get_mut(place)?.take()?;
        self.live = self.live.saturating_sub(1);
        while matches!(self.recent.front(), Some(None)) {
            self.recent.pop_front();
            self.first = self.first.saturating_add(1);
        }
        if self.recent.is_empty() {
            self.recent.shrink_to(KEPT);
        }
        Some(value)
    }
}

/// This many numbers in line may have no value.
const GAP: usize = 64;

/// This many numbers without values may be in the list.
const SHORT: usize = 4096;

/// For how many values memory stays allocated.
const KEPT: usize = 16 << 10;

/// Hashes numbers that the broker counts, so that a client cannot choose numbers that collide.
#[derive(Clone, Copy, Debug, Default)]
struct OfNumbers(u64);

impl Hasher for OfNumbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        // Consecutive numbers differ in the upper and in the lower bits of the hash, which the map uses for different purposes.
        let product = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn values_are_found_by_their_numbers() {
        let (mut numbered, mut model) = (Numbered::default(), BTreeMap::new());
        let (mut random, mut next) = (1_u64, 1 << 20);
        for round in 0..60_000_u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let draw = random >> 33;
            // Most numbers follow one another, some after a gap, and few are old.
            next += match draw % 1_000 {
                0 => 100_000,
                1..20 => 1 + draw % 90,
                _ => 1,
            };
            let number = if draw % 997 == 0 { round } else { next };
            if model.insert(number, round).is_none() {
                numbered.insert(number, round);
            }
            // The first hundred stay.
            let nth = 100 + usize::try_from(draw % 50).unwrap();
            if let Some(number) = model.keys().nth(nth).copied()
                && draw % 8 != 0
            {
                assert!(numbered.contains(number));
                assert_eq!(numbered.remove(number), model.remove(&number));
                assert!(!numbered.contains(number) && numbered.remove(number).is_none());
            }
            assert!(numbered.recent.len() <= 2 * numbered.live + SHORT + GAP);
        }
        assert!(!numbered.others.is_empty() && numbered.live > 0);
        for (number, value) in &model {
            assert_eq!(numbered.get_mut(*number), Some(&mut value.clone()));
        }
        for number in model.into_keys() {
            assert!(numbered.remove(number).is_some());
        }
        assert!(numbered.recent.is_empty() && numbered.others.is_empty());
    }
}
