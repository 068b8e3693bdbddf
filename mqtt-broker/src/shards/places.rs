//! Counts sessions over all shards, by hooks of the host: the limits of [`crate::Config`] for all sessions, those of one user and those of
//! one address are limits of the whole broker. A session has a *place* of the server, one of its user and one of its address. A client
//! that begins a new session in place of its own keeps all three, so that no client of another shard takes them in between.
//!
//! A shard ends a session of its own to make room, and none of another shard.

use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::shards::shard_of_link;

/// The sessions that a limit counts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum PlaceOf {
    /// All sessions.
    Server,
    /// A user, by a number that is the same in all shards.
    User(u64),
    /// An address, by the number that the host gave to [`Broker::open_from`].
    Address(u64),
}

impl PlaceOf {
    const fn is_limited(self) -> bool {
        !matches!(self, Self::User(0) | Self::Address(0))
    }
}

/// The places of a session that its client connects to, or replaces by a new one.
pub(crate) struct Former {
    user: u64,
    address: u64,
}

impl<H: Hooks> Broker<H> {
    /// Takes a place for a new session. Returns `false` if all shards together have as many as the limit.
    pub(crate) fn take_place(&mut self, of: PlaceOf, limit: usize) -> bool {
        self.links.is_none() || !of.is_limited() || self.hooks.take_place(of, limit)
    }

    pub(crate) fn free_place(&mut self, of: PlaceOf) {
        if self.links.is_some() && of.is_limited() {
            self.hooks.free_place(of);
        }
    }

    /// Frees the places of a session that has ended, unless a new session of the client gets them.
    pub(crate) fn free_places(&mut self, key: SessionKey, user: u64, address: u64) {
        if self.links.as_ref().is_some_and(|own| own.kept != Some(key)) {
            self.free_place(PlaceOf::User(user));
            self.free_place(PlaceOf::Address(address));
            self.free_place(PlaceOf::Server);
        }
    }

    /// Takes the places of a session of an earlier process, whatever the limits are now.
    pub(crate) fn take_restored_places(&mut self, client_id: &str, user_name: Option<&str>) {
        if shard_of_link(client_id).is_none() {
            let user = self.user(user_name);
            self.take_place(PlaceOf::User(user), usize::MAX);
            self.take_place(PlaceOf::Server, usize::MAX);
        }
    }

    /// Returns the limit of the sessions of all shards: [`crate::Config::of_shard`] adds one for each link.
    pub(crate) fn sessions_of_clients(&self) -> usize {
        let shards = self.links.as_ref().map_or(1, |links| links.count());
        let links = usize::from(shards).saturating_sub(1);
        self.config.sessions.saturating_sub(links)
    }

    /// Returns how many sessions this shard has, if all have as many as the limits allow and each has the same number.
    pub(crate) fn most_sessions(&self) -> usize {
        let shards = self.links.as_ref().map_or(1, |links| links.count());
        let sessions = self.config.sessions.checked_div(usize::from(shards));
        sessions.unwrap_or(0).max(1)
    }

    /// Keeps the places of a session until [`Self::pass_places`], also if it ends meanwhile.
    pub(crate) fn keep_places(&mut self, key: SessionKey) -> Option<Former> {
        self.links.as_mut()?.kept = Some(key);
        let session = self.sessions.get(key)?;
        Some(Former {
            user: self.user(session.user_name.as_deref()),
            address: session.source,
        })
    }

    /// Gives the kept places to the session that the client has now. Another user has taken a place before.
    pub(crate) fn pass_places(&mut self, former: &Former, user_name: Option<&str>, address: u64) {
        if let Some(links) = &mut self.links {
            links.kept = None;
        }
        if former.user != self.user(user_name) {
            self.free_place(PlaceOf::User(former.user));
        }
        if former.address != address {
            // The limit is not for a client that comes back from another address.
            self.take_place(PlaceOf::Address(address), usize::MAX);
            self.free_place(PlaceOf::Address(former.address));
        }
    }
}
