//! Stores the subscribers of one filter.

use std::collections::HashMap;

use mqtt_session::proto::num::{to_u32, to_usize};
use smallvec::SmallVec;

use super::{Keyed, Subscriber};
use crate::keys::SessionKey;
use crate::work::{Work, step};

/// The subscribers of one filter. Most filters have one, which needs no allocation: reading a topic that is not in the cache
/// takes fewer memory accesses. A filter with many subscribers has an index by session.
#[derive(Debug)]
pub(crate) struct Members {
    list: SmallVec<[Subscriber; 1]>,
    #[allow(clippy::box_collection, reason = "a pointer is a quarter of it")]
    places: Option<Box<HashMap<SessionKey, u32, Keyed>>>,
}

/// From this number of subscribers on, there is an index.
const MANY: usize = 32;

impl Members {
    pub(crate) const fn new() -> Self {
        Self {
            list: SmallVec::new_const(),
            places: None,
        }
    }

    pub(crate) fn as_slice(&self) -> &[Subscriber] {
        &self.list
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Subscriber> {
        self.list.get(at)
    }

    fn place(&self, session: SessionKey) -> Option<usize> {
        match &self.places {
            Some(places) => {
                step(Work::Member);
                places.get(&session).copied().map(to_usize)
            }
            None => self.list.iter().position(|own| {
                step(Work::Member);
                own.session == session
            }),
        }
    }

    /// Adds the subscriber of a session that is not in the list.
    pub(super) fn add(&mut self, subscriber: Subscriber, key: Keyed) {
        self.list.push(subscriber);
        match &mut self.places {
            Some(places) => {
                let at = to_u32(self.list.len().saturating_sub(1));
                places.insert(subscriber.session, at);
            }
            None if self.list.len() > MANY => {
                let mut places = HashMap::with_hasher(key);
                places.extend((0..).zip(&self.list).map(|(at, own)| (own.session, at)));
                self.places = Some(Box::new(places));
            }
            None => {}
        }
    }

    /// Replaces the subscriber of the same session.
    pub(super) fn replace(&mut self, subscriber: Subscriber) {
        let old = self.place(subscriber.session);
        if let Some(old) = old.and_then(|at| self.list.get_mut(at)) {
            *old = subscriber;
        }
    }

    /// Removes the subscriber of a session. Returns whether it existed. The last one of a list takes its place.
    pub(super) fn remove(&mut self, session: SessionKey) -> bool {
        let Some(at) = self.place(session) else {
            return false;
        };
        let Some(places) = &mut self.places else {
            self.list.remove(at);
            if self.list.is_empty() {
                *self = Self::new();
            }
            return true;
        };
        places.remove(&session);
        self.list.swap_remove(at);
        if let Some(moved) = self.list.get(at) {
            places.insert(moved.session, to_u32(at));
        }
        if self.list.len() <= MANY / 2 {
            self.places = None;
            self.list.shrink_to_fit();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use mqtt_session::proto::{QoS, Subscription, TopicFilter};

    use super::*;
    use crate::work::steps;

    fn subscriber(session: usize, qos: QoS) -> Subscriber {
        let filter = TopicFilter::new("a").unwrap();
        Subscriber::new(
            SessionKey::new(session),
            &Subscription::new(filter, qos),
            None,
        )
    }

    /// Subscribers are added and removed in any order, and each one is found.
    #[test]
    fn who_goes_is_gone_and_the_others_stay() {
        let mut members = Members::new();
        let mut model = Vec::new();
        let mut seed = 5_u32;
        let mut random = |n: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            to_usize(seed >> 8) % n
        };
        for round in 0..6_000 {
            let grows = random(10) < if round < 3_000 { 6 } else { 3 };
            if grows {
                members.add(subscriber(round, QoS::AtMostOnce), Keyed(1));
                model.push(round);
            } else if !model.is_empty() {
                let gone = model.swap_remove(random(model.len()));
                assert!(members.remove(SessionKey::new(gone)));
                assert!(!members.remove(SessionKey::new(gone)));
            }
            if let Some(one) = model.first() {
                members.replace(subscriber(*one, QoS::ExactlyOnce));
                let at = members.place(SessionKey::new(*one)).unwrap();
                assert_eq!(members.get(at).unwrap().qos, QoS::ExactlyOnce);
            }
            let mut found: Vec<_> = members
                .as_slice()
                .iter()
                .map(|own| own.session.index())
                .collect();
            let mut expected = model.clone();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn many_are_not_searched() {
        let mut members = Members::new();
        for session in 0..10_000 {
            members.add(subscriber(session, QoS::AtMostOnce), Keyed(1));
        }
        let (taken, removed) = steps(Work::Member, || members.remove(SessionKey::new(9_000)));
        assert!(removed);
        assert_eq!(taken, 1);
    }
}
