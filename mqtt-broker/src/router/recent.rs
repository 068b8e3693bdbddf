//! Keeps the subscribers of topics that had a message recently, so that the next message to one of them needs no search.

use std::hash::BuildHasher;

use compact_str::CompactString;
use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::{Keyed, Subscriber};

/// How many topics are kept, a power of two. A topic has one place, which it takes from the one before.
const PLACES: u16 = 1_024;
/// The longest topic that is kept, in bytes.
const LONGEST: usize = 64;
/// The most subscribers of a topic that is kept. For more of them the search is a small part of the work.
const MOST: usize = 4;

/// The subscribers of some topics.
#[derive(Debug)]
pub(super) struct Recent {
    /// Empty until the first search.
    places: Vec<RecentTopic>,
    /// Clients can choose topics that share a place, which costs them and their topics the search that they would need anyway.
    hasher: FixedState,
    /// The number of the last change of a subscription. What was found before it is no longer true.
    change: u64,
}

#[derive(Clone, Debug, Default)]
struct RecentTopic {
    topic: CompactString,
    subscribers: SmallVec<[Subscriber; MOST]>,
    /// The number of the last change before the search; 0 for none.
    change: u64,
}

impl Recent {
    pub(super) fn new(key: Keyed) -> Self {
        Self {
            places: Vec::new(),
            hasher: FixedState::with_seed(key.0),
            change: 1,
        }
    }

    /// Notes that a subscription was added, replaced or removed.
    pub(super) const fn changed(&mut self) {
        self.change = self.change.wrapping_add(1);
    }

    /// Returns the subscribers of a topic if they are known.
    pub(super) fn find(&self, topic: &str) -> Option<&[Subscriber]> {
        let place = self.places.get(self.place(topic))?;
        let is_known = place.change == self.change && place.topic == topic;
        is_known.then_some(&place.subscribers)
    }

    /// Keeps what a search has found.
    pub(super) fn keep(&mut self, topic: &str, subscribers: &[Subscriber]) {
        if topic.len() > LONGEST || subscribers.len() > MOST {
            return;
        }
        if self.places.is_empty() {
            self.places
                .resize(usize::from(PLACES), RecentTopic::default());
        }
        let (at, change) = (self.place(topic), self.change);
        if let Some(place) = self.places.get_mut(at) {
            // The memory of a long topic is used again.
            place.topic.clear();
            place.topic.push_str(topic);
            place.subscribers.clear();
            place.subscribers.extend_from_slice(subscribers);
            place.change = change;
        }
    }

    fn place(&self, topic: &str) -> usize {
        let last = u64::from(PLACES.saturating_sub(1));
        usize::try_from(self.hasher.hash_one(topic) & last).unwrap_or(0)
    }
}
