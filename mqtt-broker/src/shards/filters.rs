//! Counts the filters of the own clients, so that the other shards are told when the first one subscribes and the last one is gone.

use core::ops::Bound;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mqtt_session::proto::TopicFilter;

use super::Links;
use super::hash::stable_hash;
use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::keys::SessionKey;

/// A filter of own clients.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    /// How many sessions have it.
    sessions: u32,
    /// For a shared subscription: how many of them are connected.
    connected: u32,
    /// For a shared subscription: the identifier by which other shards call it.
    identifier: u32,
}

/// The filters of the own clients.
#[derive(Debug, Default)]
pub(super) struct Filters {
    all: BTreeMap<Arc<str>, Own>,
    /// The shared subscriptions by their identifiers.
    shares: BTreeMap<u32, Arc<str>>,
    /// The identifiers of those without members, oldest first: messages for them may be on their way.
    gone: VecDeque<u32>,
}

/// The state of a filter that other shards have to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    Filter,
    /// The identifier of a shared subscription, and how many of its members are connected.
    Share(u32, u32),
    Gone,
}

/// How many shared subscriptions without members are known by their identifiers.
const GONE: usize = 1_024;

/// Identifiers below are used for other purposes; see `retained.rs`.
const FIRST_IDENTIFIER: u32 = 16;

/// The highest subscription identifier of MQTT.
const LAST_IDENTIFIER: u32 = 268_435_455;

impl Filters {
    /// Returns the present state of a filter.
    pub(super) fn state(&self, filter: &str) -> Told {
        match self.all.get(filter) {
            None => Told::Gone,
            Some(own) if own.identifier != 0 => Told::Share(own.identifier, own.connected),
            Some(_) => Told::Filter,
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.all.keys()
    }

    /// Returns the filter of a shared subscription, also if it had members until a while ago.
    pub(super) fn share(&self, identifier: u32) -> Option<Arc<str>> {
        self.shares.get(&identifier).map(Arc::clone)
    }

    /// Adds a session to a filter. Returns the filter if the other shards have to know about it.
    fn add(&mut self, filter: &str, is_connected: bool) -> Option<Arc<str>> {
        let is_shared = filter.starts_with(SHARE);
        if let Some((name, _)) = self.all.get_key_value(filter) {
            let name = Arc::clone(name);
            let own = self.all.get_mut(filter)?;
            own.sessions = own.sessions.saturating_add(1);
            if is_shared && is_connected {
                own.connected = own.connected.saturating_add(1);
            }
            return (is_shared && is_connected).then_some(name);
        }
        let name: Arc<str> = filter.into();
        let identifier = if is_shared { self.identify(&name) } else { 0 };
        let own = Own {
            sessions: 1,
            connected: u32::from(is_shared && is_connected),
            identifier,
        };
        self.all.insert(Arc::clone(&name), own);
        Some(name)
    }

    /// Returns an identifier for a shared subscription. It is a hash of the filter, so that a message that waits in another shard
    /// since before a crash is not for another shared subscription.
    fn identify(&mut self, name: &Arc<str>) -> u32 {
        let hash = stable_hash(name.as_bytes(), 0);
        let range = u64::from(LAST_IDENTIFIER.saturating_sub(FIRST_IDENTIFIER));
        let place = u32::try_from(hash.checked_rem(range).unwrap_or(0)).unwrap_or(0);
        let mut identifier = FIRST_IDENTIFIER.saturating_add(place);
        while self
            .shares
            .get(&identifier)
            .is_some_and(|other| other != name)
        {
            identifier = match identifier {
                LAST_IDENTIFIER => FIRST_IDENTIFIER,
                _ => identifier.saturating_add(1),
            };
        }
        self.shares.insert(identifier, Arc::clone(name));
        identifier
    }

    /// Removes a session from a filter. Returns the filter if the other shards have to know about it.
    fn remove(&mut self, filter: &str, is_connected: bool) -> Option<Arc<str>> {
        let name = Arc::clone(self.all.get_key_value(filter)?.0);
        let own = self.all.get_mut(filter)?;
        own.sessions = own.sessions.saturating_sub(1);
        if own.sessions == 0 {
            let identifier = own.identifier;
            self.all.remove(filter);
            if identifier != 0 {
                self.gone.push_back(identifier);
                if self.gone.len() > GONE
                    && let Some(old) = self.gone.pop_front()
                {
                    self.forget(old);
                }
            }
            return Some(name);
        }
        if own.identifier == 0 || !is_connected {
            return None;
        }
        own.connected = own.connected.saturating_sub(1);
        Some(name)
    }

    /// Forgets the identifier of a shared subscription, unless it has members again.
    fn forget(&mut self, identifier: u32) {
        let name = self.shares.get(&identifier);
        if name.is_some_and(|name| !self.all.contains_key(name)) {
            self.shares.remove(&identifier);
        }
    }

    /// Counts a member of a shared subscription as connected or not.
    fn connected(&mut self, filter: &str, is_connected: bool) -> Option<Arc<str>> {
        let name = Arc::clone(self.all.get_key_value(filter)?.0);
        let own = self.all.get_mut(filter)?;
        own.connected = if is_connected {
            own.connected.saturating_add(1)
        } else {
            own.connected.saturating_sub(1)
        };
        Some(name)
    }
}

/// How the filters of shared subscriptions begin.
const SHARE: &str = "$share/";

impl Links {
    fn changed(&mut self, filter: Option<Arc<str>>) {
        let Some(filter) = filter else { return };
        let own = usize::from(self.own);
        self.has_news = true;
        let number = self.next_change();
        for (at, peer) in self.peers.iter_mut().enumerate() {
            // A shard that is away gets the complete list when its link opens.
            if at != own && !peer.is_away() {
                peer.owe(number, &filter);
            }
        }
    }
}

impl<H: Hooks> Broker<H> {
    /// Notes that a session has a new subscription.
    pub(crate) fn filter_added(&mut self, key: SessionKey, filter: &TopicFilter<'_>) {
        let is_connected = self.connection_of(key).is_some();
        if let Some(links) = &mut self.links {
            let added = links.filters.add(filter.as_str(), is_connected);
            links.changed(added);
        }
    }

    /// Notes that a session has lost a subscription.
    pub(crate) fn filter_removed(&mut self, key: SessionKey, filter: &str) {
        let is_connected = self.connection_of(key).is_some();
        if let Some(links) = &mut self.links {
            let removed = links.filters.remove(filter, is_connected);
            links.changed(removed);
        }
    }

    /// Notes that the client of a session has connected or disconnected: a shard with connected members of a shared subscription
    /// gets more of its messages.
    pub(crate) fn members_changed(&mut self, key: SessionKey, are_connected: bool) {
        let Some(links) = &mut self.links else { return };
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let from = (Bound::Included(SHARE), Bound::Unbounded);
        let shared = session.filters.range::<str, _>(from);
        for (filter, _) in shared.take_while(|(filter, _)| filter.starts_with(SHARE)) {
            let changed = links.filters.connected(filter, are_connected);
            links.changed(changed);
            self.meter.spend(4);
        }
    }
}
