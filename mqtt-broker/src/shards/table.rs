//! Applies what other shards tell about the filters of their clients: the session of a link has a subscription for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use mqtt_session::Instant;
use mqtt_session::proto::TopicFilter;

use super::busy::Busy;
use super::control::Entry;
use super::retained::UNSURE;
use super::stale::Stale;
use super::{Links, subscriber};
use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::keys::SessionKey;

/// A filter of another shard.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The identifier of a shared subscription.
    identifier: Option<u32>,
    /// The list in which it was last.
    list: u32,
}

/// How far the list of the own filters is told.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum List {
    Begins,
    Goes,
    #[default]
    Ended,
}

/// Another shard.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The session of its link, if it has one.
    session: Option<SessionKey>,
    /// Whether SUBACK and the start of the host do not wait for it until its link opens.
    is_away: bool,
    /// Whether it was away before its filters were known, and counts as subscribed to everything until they are.
    gets_all: bool,
    /// The changes that it was not told, by their numbers and places.
    changes: BTreeMap<(u64, u64), Arc<str>>,
    /// The same changes by filter.
    owed: BTreeMap<Arc<str>, (u64, u64)>,
    place: u64,
    list: List,
    told: u64,
    confirmed: u64,
    /// The number of its last changes, which is still to be confirmed.
    to_confirm: Option<u64>,
    /// The filters of the shard.
    filters: BTreeMap<Arc<str>, Known>,
    /// The connected members of its shared subscriptions, by identifier.
    weights: BTreeMap<u32, u32>,
    /// How many lists have begun and ended.
    lists: (u32, u32),
    pub(super) busy: Busy,
    pub(super) stale: Stale,
}

impl Peer {
    /// Notes that its link is open: it gets the complete list.
    pub(super) fn opened(&mut self, session: SessionKey) {
        self.session = Some(session);
        self.is_away = false;
        self.forget_owed();
        self.busy.tell_all();
        self.list = List::Begins;
        (self.told, self.to_confirm) = (0, None);
    }

    /// Notes that its link has a session, which an earlier process made.
    pub(super) const fn restored(&mut self, session: SessionKey) {
        self.session = Some(session);
    }

    /// Notes that SUBACK and the start of the host do not wait for it. The changes that it has not been told are in the list that it gets
    /// when its link opens.
    pub(super) fn leave(&mut self) {
        self.is_away = true;
        self.gets_all = !self.is_ready();
        self.forget_owed();
    }

    fn forget_owed(&mut self) {
        self.changes.clear();
        self.owed.clear();
    }

    /// Notes that it is to be told the state of a filter.
    pub(super) fn owe(&mut self, number: u64, filter: &Arc<str>) {
        if !self.owed.contains_key(filter) {
            self.place = self.place.saturating_add(1);
            let change = (number, self.place);
            self.owed.insert(Arc::clone(filter), change);
            self.changes.insert(change, Arc::clone(filter));
        }
    }

    /// Returns the filters that it is to be told, in the order of their changes.
    pub(super) fn owed(&self) -> impl Iterator<Item = (u64, &Arc<str>)> {
        let changes = self.changes.iter();
        changes.map(|((number, _), filter)| (*number, filter))
    }

    /// Notes that the first `changes` changes were written, and the state of the list.
    pub(super) fn wrote(&mut self, changes: usize, list: List, last: u64) {
        self.to_confirm = None;
        self.list = list;
        for _ in 0..changes {
            if let Some((_, filter)) = self.changes.pop_first() {
                self.owed.remove(&filter);
            }
        }
        let next = self.changes.first_key_value();
        self.told = next.map_or(last, |((number, _), _)| number.saturating_sub(1));
    }

    pub(super) const fn is_away(&self) -> bool {
        self.is_away
    }

    /// Returns whether messages for it are queued: its filters are known, or it gets all.
    pub(super) const fn is_served(&self) -> bool {
        self.is_ready() || self.gets_all
    }

    pub(super) const fn gets_all(&self) -> bool {
        self.gets_all
    }

    pub(super) const fn session(&self) -> Option<SessionKey> {
        self.session
    }

    pub(super) const fn list(&self) -> List {
        self.list
    }

    pub(super) const fn told(&self) -> u64 {
        self.told
    }

    pub(super) const fn to_confirm(&self) -> Option<u64> {
        self.to_confirm
    }

    pub(super) const fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub(super) fn confirm(&mut self, number: u64) {
        self.confirmed = self.confirmed.max(number);
    }

    /// Returns whether a complete list of its filters has come.
    pub(super) const fn is_ready(&self) -> bool {
        self.lists.1 > 0
    }

    pub(super) fn weight(&self, identifier: u32) -> u32 {
        self.weights.get(&identifier).copied().unwrap_or(0)
    }

    /// Returns how many filters it has, and how many of them are shared.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.filters.len(), self.weights.len())
    }

    /// Notes a filter. Returns its former identifier, if it was known.
    #[allow(clippy::option_option, reason = "most filters have no identifier")]
    fn learn(&mut self, filter: &str, identifier: Option<u32>) -> Option<Option<u32>> {
        let list = self.lists.0;
        let known = Known { identifier, list };
        if let Some(old) = self.filters.get_mut(filter) {
            let before = old.identifier;
            *old = known;
            return Some(before);
        }
        self.filters.insert(filter.into(), known);
        None
    }

    /// Returns the filters that were not in the last list.
    fn stale(&self) -> Vec<Arc<str>> {
        let stale = self.filters.iter();
        stale
            .filter(|(_, known)| known.list != self.lists.0)
            .map(|(filter, _)| Arc::clone(filter))
            .collect()
    }
}

impl<H: Hooks> Broker<H> {
    /// Handles what another shard tells.
    pub(super) fn told(&mut self, shard: u8, key: SessionKey, mut bytes: &[u8], now: Instant) {
        while let Some(entry) = Entry::read(&mut bytes) {
            self.meter.spend(8);
            let Some(links) = &mut self.links else { return };
            let Some(peer) = links.peer(shard) else {
                return;
            };
            match entry {
                Entry::Begin => peer.lists.0 = peer.lists.0.wrapping_add(1),
                Entry::End => {
                    peer.lists.1 = peer.lists.1.saturating_add(1);
                    for filter in peer.stale() {
                        self.forget_of_shard(shard, key, &filter, now);
                    }
                    self.continue_restored(now);
                }
                Entry::Filter(filter) => self.learn_of_shard(shard, key, filter, None),
                Entry::Share {
                    identifier,
                    connected,
                    filter,
                } => {
                    peer.weights.insert(identifier, connected);
                    self.learn_of_shard(shard, key, filter, Some(identifier));
                }
                Entry::Gone(filter) => self.forget_of_shard(shard, key, filter, now),
                Entry::Told(number) => {
                    peer.to_confirm = Some(number);
                    links.has_news = true;
                }
                Entry::Busy(topic) => peer.busy.learn(topic),
                Entry::Idle(topic) => self.topic_is_idle(shard, topic),
                Entry::Known(number) => {
                    for id in links.confirmed(shard, number) {
                        self.release_suback(id);
                    }
                }
            }
        }
    }

    pub(super) fn release_suback(&mut self, id: crate::ConnectionId) {
        if let Some(connection) = self.connection_mut(id) {
            connection.extra().waits_for_links = false;
            self.mark_ready(id.index);
        }
    }

    /// Notes that another shard had a shared subscription before this one crashed.
    pub(crate) fn learn_restored(
        &mut self,
        key: SessionKey,
        filter: &str,
        identifier: Option<u32>,
    ) {
        let session = self.sessions.get(key);
        if let Some(shard) = session.and_then(|session| session.link) {
            self.learn_of_shard(shard, key, filter, identifier);
        }
    }

    pub(super) fn learn_of_shard(
        &mut self,
        shard: u8,
        key: SessionKey,
        filter: &str,
        identifier: Option<u32>,
    ) {
        let Ok(parsed) = TopicFilter::new(filter) else {
            return;
        };
        let Some(peer) = self.links.as_mut().and_then(|links| links.peer(shard)) else {
            return;
        };
        let before = peer.learn(filter, identifier);
        if before == Some(identifier) {
            return;
        }
        if let Some(Some(old)) = before {
            peer.weights.remove(&old);
        }
        let subscriber = subscriber(key, identifier);
        self.router.subscribe(&parsed, subscriber, before.is_some());
        self.name_share(&parsed);
    }

    /// Removes a filter of another shard. Other members get the messages of a shared subscription that wait for the shard.
    fn forget_of_shard(&mut self, shard: u8, key: SessionKey, filter: &str, now: Instant) {
        let Some(peer) = self.links.as_mut().and_then(|links| links.peer(shard)) else {
            return;
        };
        let Some(known) = peer.filters.remove(filter) else {
            return;
        };
        if let Some(identifier) = known.identifier {
            peer.weights.remove(&identifier);
        }
        if let Ok(parsed) = TopicFilter::new(filter) {
            self.router.unsubscribe(&parsed, key);
        }
        if known.identifier.is_some_and(|own| own != UNSURE)
            && let Some(session) = self.sessions.get_mut(key)
        {
            let waiting = session.queue.take_shared(&mut self.queued);
            let origin = self.number_of(key);
            self.hand_over(waiting, origin, now);
        }
    }
}

impl Links {
    /// Returns how many subscriptions of the router are those of links, and how many of them are shared.
    pub(super) fn subscriptions(&self) -> (usize, usize) {
        let counts = self.others().map(Peer::count);
        counts.fold((0, 0), |all, one| {
            (all.0.saturating_add(one.0), all.1.saturating_add(one.1))
        })
    }
}
