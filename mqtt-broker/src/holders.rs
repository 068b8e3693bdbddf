//! Counts connections and sessions by address and user, so that one address or user cannot take all of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;

use mqtt_session::Instant;
use mqtt_session::proto::ReasonCode;

use crate::broker::{Broker, TooManyConnections};
use crate::connection::ConnectionId;
use crate::hooks::{Ending, Hooks};
use crate::keys::{ConnectionKey, SessionKey};
use crate::router::Keyed;
use crate::shards::{Elsewhere, PlaceOf};

/// Connections or sessions by the address or user that holds them. For the unknown holder 0, only offers are counted.
#[derive(Debug)]
pub(crate) struct Holders<K> {
    by: HashMap<u64, Holder<K>, Keyed>,
    /// The holders with offers, by the number of their offers.
    most: BTreeSet<(usize, u64)>,
    offered: usize,
    serial: u64,
}

#[derive(Debug)]
struct Holder<K> {
    held: usize,
    /// The connections or sessions that can be ended to make room, in the order in which they are ended.
    offers: BTreeMap<EndRank, K>,
}

/// The rank of a connection or session that can be ended to make room: useless ones come first, then the oldest.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct EndRank {
    is_useful: bool,
    serial: u64,
}

impl<K> Default for Holder<K> {
    fn default() -> Self {
        Self {
            held: 0,
            offers: BTreeMap::new(),
        }
    }
}

impl<K: Copy> Holders<K> {
    pub(crate) fn new(key: Keyed) -> Self {
        Self {
            by: HashMap::with_hasher(key),
            most: BTreeSet::new(),
            offered: 0,
            serial: 0,
        }
    }

    pub(crate) fn held(&self, whose: u64) -> usize {
        self.by.get(&whose).map_or(0, |holder| holder.held)
    }

    pub(crate) fn hold(&mut self, whose: u64) {
        if whose != 0 {
            let holder = self.by.entry(whose).or_default();
            holder.held = holder.held.saturating_add(1);
        }
    }

    pub(crate) fn let_go(&mut self, whose: u64) {
        if let Entry::Occupied(mut entry) = self.by.entry(whose) {
            let holder = entry.get_mut();
            holder.held = holder.held.saturating_sub(1);
            if holder.held == 0 && holder.offers.is_empty() {
                entry.remove();
            }
        }
    }

    /// Adds an offer: from now on `item` can be ended to make room.
    pub(crate) fn offer(&mut self, whose: u64, item: K, is_useful: bool) -> EndRank {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let offer = EndRank { is_useful, serial };
        let offers = &mut self.by.entry(whose).or_default().offers;
        self.most.remove(&(offers.len(), whose));
        offers.insert(offer, item);
        self.most.insert((offers.len(), whose));
        self.offered = self.offered.saturating_add(1);
        offer
    }

    pub(crate) fn withdraw(&mut self, whose: u64, offer: EndRank) {
        let Entry::Occupied(mut entry) = self.by.entry(whose) else {
            return;
        };
        let offers = &mut entry.get_mut().offers;
        self.most.remove(&(offers.len(), whose));
        if offers.remove(&offer).is_some() {
            self.offered = self.offered.saturating_sub(1);
        }
        if !offers.is_empty() {
            self.most.insert((offers.len(), whose));
        } else if entry.get().held == 0 {
            entry.remove();
        }
    }

    /// Returns the number of all offers.
    pub(crate) const fn offered(&self) -> usize {
        self.offered
    }

    /// Returns the first offer of a holder, and whether it is useful.
    pub(crate) fn first_of(&self, whose: u64) -> Option<(K, bool)> {
        let (offer, item) = self.by.get(&whose)?.offers.first_key_value()?;
        Some((*item, offer.is_useful))
    }

    /// Returns the holder with the most offers; `whose`, if no other one has more.
    pub(crate) fn largest(&self, whose: u64) -> Option<u64> {
        let (most, largest) = self.most.last().copied()?;
        let own = self.by.get(&whose).map_or(0, |own| own.offers.len());
        Some(if own >= most { whose } else { largest })
    }
}

impl<H: Hooks> Broker<H> {
    /// Adds a connection whose address is not known: see [`Self::open_from`].
    ///
    /// # Errors
    /// [`TooManyConnections`]: close the transport.
    pub fn open(&mut self, now: Instant) -> Result<ConnectionId, TooManyConnections> {
        self.open_from(0, now)
    }

    /// Adds a connection. `source` is a number for its address: the same one for all connections that count together for the
    /// limits of one address, and 0 for an address that is not known or not limited.
    ///
    /// If there are too many connections without an accepted CONNECT, the broker ends one of them: [`Self::was_closed_for_room`].
    ///
    /// # Errors
    /// [`TooManyConnections`]: close the transport.
    pub fn open_from(
        &mut self,
        source: u64,
        now: Instant,
    ) -> Result<ConnectionId, TooManyConnections> {
        self.open_beside(source, Elsewhere::default(), now)
    }

    /// Adds a connection like [`Self::open_from`]. The connections of other shards count for the limits as well.
    ///
    /// # Errors
    /// [`TooManyConnections`]: close the transport.
    pub fn open_beside(
        &mut self,
        source: u64,
        elsewhere: Elsewhere,
        now: Instant,
    ) -> Result<ConnectionId, TooManyConnections> {
        let limit = self.config.connections_per_address;
        let held = self.connections_by_address.held(source);
        if source != 0 && held.saturating_add(elsewhere.of_address) >= limit {
            return Err(TooManyConnections { limit });
        }
        let limit = self.config.connections;
        let others = elsewhere.connections;
        if self.connections_by_address.offered() >= self.config.pending_connections.max(1)
            || self.open_connections().saturating_add(others) >= limit
        {
            self.close_oldest_pending(source, now);
        }
        if self.open_connections().saturating_add(others) >= limit {
            return Err(TooManyConnections { limit });
        }
        Ok(self.add_connection(source, now))
    }

    /// Sets the number of the address of a connection without an accepted CONNECT: a proxy sends the address of its client after the
    /// host has opened the connection. See [`Self::open_beside`].
    ///
    /// # Errors
    /// There are too many connections from this address, and the broker ends this one.
    pub fn set_source(
        &mut self,
        id: ConnectionId,
        source: u64,
        elsewhere: Elsewhere,
        now: Instant,
    ) -> Result<(), TooManyConnections> {
        let Some(connection) = self.connection(id) else {
            return Ok(());
        };
        let before = connection.source;
        if before == source || connection.pending.is_none() {
            return Ok(());
        }
        self.was_accepted_or_ended(id.index);
        self.connections_by_address.let_go(before);
        let limit = self.config.connections_per_address;
        let held = self.connections_by_address.held(source);
        self.hold_connection(id.index, source);
        if source == 0 || held.saturating_add(elsewhere.of_address) < limit {
            return Ok(());
        }
        self.begin(now);
        self.end(id.index, Ending::ByBroker(ReasonCode::QuotaExceeded), now);
        self.mark_ready(id.index);
        self.settle();
        Err(TooManyConnections { limit })
    }

    /// Returns whether the connection was ended to make room for another connection: close the transport without writing, and call
    /// [`Self::closed`].
    #[must_use]
    pub fn was_closed_for_room(&self, id: ConnectionId) -> bool {
        self.connection(id)
            .is_some_and(|connection| connection.closed_for_room)
    }

    /// Returns how many connections are open, without links and those that were ended to make room.
    fn open_connections(&self) -> usize {
        self.connections
            .len()
            .saturating_sub(self.closed_for_room_count)
            .saturating_sub(self.open_links())
    }

    /// Ends the oldest connection without an accepted CONNECT, of the address with the most of them: [`Self::was_closed_for_room`].
    /// For a host that has no file descriptor for another connection, or no place for another handshake. The broker does not know
    /// which connections are in a handshake: it may end one whose client waits for the check of its password. Returns `false` if there
    /// is none.
    pub fn make_room(&mut self, now: Instant) -> bool {
        self.begin(now);
        let has_room = self.close_oldest_pending(0, now);
        self.settle();
        has_room
    }

    /// Ends the oldest connection without an accepted CONNECT, of the address with the most of them. Returns `false` if there is
    /// none.
    fn close_oldest_pending(&mut self, source: u64, now: Instant) -> bool {
        let whose = self.connections_by_address.largest(source);
        let Some((index, _)) = whose.and_then(|whose| self.connections_by_address.first_of(whose))
        else {
            return false;
        };
        self.end(index, Ending::ByBroker(ReasonCode::QuotaExceeded), now);
        self.was_accepted_or_ended(index);
        if let Some(connection) = self.connections.get_mut(index) {
            connection.closed_for_room = true;
            self.closed_for_room_count = self.closed_for_room_count.saturating_add(1);
        }
        self.mark_ready(index);
        true
    }

    /// Notes that CONNECT was accepted, or that the connection has ended.
    pub(crate) fn was_accepted_or_ended(&mut self, index: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(index)
            && let Some(offer) = connection.pending.take()
        {
            self.connections_by_address
                .withdraw(connection.source, offer);
        }
    }

    /// Returns whether there is room for one more session, and takes its places in what all shards have together. May end an unused
    /// session, or one of an address that has more of them.
    pub(crate) fn has_room_for_session(
        &mut self,
        source: u64,
        user_name: Option<&str>,
        now: Instant,
    ) -> bool {
        if !self.has_room_for_user(user_name) {
            return false;
        }
        if self.has_room_for_address(source, now) {
            if self.has_room_in_all(source, now) {
                return true;
            }
            self.free_place(PlaceOf::Address(source));
        }
        self.free_place(PlaceOf::User(self.user(user_name)));
        false
    }

    /// Returns whether a user may have one more session, and takes its place.
    pub(crate) fn has_room_for_user(&mut self, user_name: Option<&str>) -> bool {
        let (user, limit) = (self.user(user_name), self.config.sessions_per_user);
        let has_room = user == 0 || self.sessions_by_user.held(user) < limit;
        has_room && self.take_place(PlaceOf::User(user), limit)
    }

    /// Returns whether an address may have one more session, and takes its place. To make room, ends an unused session of the
    /// address in this shard.
    fn has_room_for_address(&mut self, source: u64, now: Instant) -> bool {
        let (of, limit) = (PlaceOf::Address(source), self.config.sessions_per_address);
        let has_room = source == 0 || self.sessions_by_address.held(source) < limit;
        if has_room && self.take_place(of, limit) {
            return true;
        }
        match self.sessions_by_address.first_of(source) {
            Some((key, false)) => self.end_session(key, now),
            _ => return false,
        }
        self.take_place(of, limit)
    }

    /// Returns whether there may be one more session at all, and takes its place.
    fn has_room_in_all(&mut self, source: u64, now: Instant) -> bool {
        if self.takes_place_of_all() {
            return true;
        }
        if let Some(key) = self.session_to_end(source) {
            self.end_session(key, now);
            self.continue_ending();
        }
        self.takes_place_of_all()
    }

    fn takes_place_of_all(&mut self) -> bool {
        let limit = self.config.sessions;
        self.sessions.len() < limit && self.take_place(PlaceOf::Server, self.sessions_of_clients())
    }

    /// Returns the session to be ended for a new one from an address.
    fn session_to_end(&self, source: u64) -> Option<SessionKey> {
        if let Some((_, key)) = self.unused_sessions.first_key_value() {
            return Some(*key);
        }
        let whose = self
            .sessions_by_address
            .largest(source)
            .filter(|whose| *whose != 0)?;
        let least = match whose == source {
            // The address has more than one, and the new session replaces one of them.
            true => 1,
            false => self.sessions_by_address.held(source).saturating_add(1),
        };
        let (key, _) = self.sessions_by_address.first_of(whose)?;
        (self.sessions_by_address.held(whose) > least).then_some(key)
    }

    /// Returns a number for the name of a user; 0 for none.
    pub(crate) fn user(&self, user_name: Option<&str>) -> u64 {
        user_name.map_or(0, |name| self.clients.hasher().hash_one(name).max(1))
    }

    /// Counts a new session of a user.
    pub(crate) fn hold_session(&mut self, user_name: Option<&str>) {
        let user = self.user(user_name);
        self.sessions_by_user.hold(user);
    }

    /// Notes that the client of a session has connected from this address.
    pub(crate) fn session_is_used(&mut self, key: SessionKey, source: u64) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(offer) = session.disconnected_rank.take() {
            self.sessions_by_address.withdraw(session.source, offer);
        }
        self.sessions_by_address.let_go(session.source);
        session.source = source;
        self.sessions_by_address.hold(source);
    }

    /// Notes that the client of a session has disconnected.
    pub(crate) fn session_is_left(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.source != 0
            && session.disconnected_rank.is_none()
        {
            let is_useful = !session.is_idle();
            session.disconnected_rank = Some(self.sessions_by_address.offer(
                session.source,
                key,
                is_useful,
            ));
        }
    }

    /// Notes that a session has ended.
    pub(crate) fn session_is_over(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(offer) = session.disconnected_rank.take() {
            self.sessions_by_address.withdraw(session.source, offer);
        }
        let source = session.source;
        self.sessions_by_address.let_go(source);
        self.heap_bytes = self.heap_bytes.saturating_sub(session.held.bytes());
        self.parked.set(key, &mut session.held, 0);
        self.count_filters(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let user_name = session.user_name.clone();
        let user = self.user(user_name.as_deref());
        self.sessions_by_user.let_go(user);
        self.free_places(key, user, source);
    }

    /// Counts the connection, and returns its place among the connections without an accepted CONNECT.
    pub(crate) fn hold_connection(&mut self, index: ConnectionKey, source: u64) {
        self.connections_by_address.hold(source);
        let offer = self.connections_by_address.offer(source, index, false);
        if let Some(connection) = self.connections.get_mut(index) {
            connection.source = source;
            connection.pending = Some(offer);
        }
    }

    /// Notes that a connection is closed.
    pub(crate) fn count_closed_connection(&mut self, index: ConnectionKey) {
        self.was_accepted_or_ended(index);
        if let Some(connection) = self.connections.get(index) {
            self.connections_by_address.let_go(connection.source);
            self.heap_bytes = self.heap_bytes.saturating_sub(connection.heap_bytes);
            let closed_for_room = usize::from(connection.closed_for_room);
            self.closed_for_room_count = self.closed_for_room_count.saturating_sub(closed_for_room);
        }
    }
}
