//! Connects several brokers that serve the clients of one server together. Each of them is a *shard*: it has the sessions of some of
//! the clients, which their identifiers determine ([`shard_of`]), and one thread or process owns it.
//!
//! A *link* connects two shards. It is a connection like that of a client, with a session on both sides: what one shard sends is the
//! input of the other. So a message waits in the queue of the link's session, has a packet identifier and an acknowledgement, is sent
//! again when the link is made again, and is recorded like the messages for clients. A link has no CONNECT, since both shards know
//! what it would say. A QoS 2 message is delivered once across crashes of both shards; a QoS 1 message may come again after a link
//! was lost, and then finds the subscriptions of that moment.
//!
//! A shard tells the others when its first client subscribes to a filter and when the last one is gone. The session of the link in
//! the other shard subscribes to this filter. SUBACK waits until all shards that are not away know the filter, so what is published
//! anywhere after SUBACK is delivered. If the filters of a shard that is away were never known, the session of its link subscribes to
//! `#` until they are.
//!
//! A shared subscription has the link of each shard with members as a member, with as many turns as that shard has connected members.
//! The message carries a subscription identifier that names the shared subscription, and the receiving shard chooses the member. If it
//! has none that may read the message, it gives the message to a member of another shard.
//!
//! After a restart, wills that are due and messages for shared subscriptions without own members wait until the lists of all other
//! shards have come.
//!
//! A message goes over a link at most once for the subscriptions of that shard, and once more for each shared subscription for
//! which a member in that shard is chosen. Messages that came over a link do not go over another link, except for a shared
//! subscription of which this shard has no member that may read the message: `visited.rs` bounds that. `filters.rs` counts the
//! filters of the own clients, `control.rs` tells them to the other shards, `table.rs` applies what the others tell,
//! `incoming.rs` handles messages of other shards, `retained.rs` keeps the retained messages of all shards the same, `stale.rs`
//! repairs them, `arrivals.rs` finds the shard of a new client, `places.rs` counts the sessions of all shards, of users and of
//! addresses, `busy.rs` makes publishers wait for receivers of other shards whose queues are too full, and `away.rs` for shards
//! that are away. `unsure.rs` keeps what came from a shard that did not know this one, and `hash.rs` has the hash that all
//! builds of the program share.

use std::collections::VecDeque;
use std::sync::Arc;

use mqtt_session::proto::{
    ConnAck, Connect, Encode, Properties, Property, QoS, Subscription, TopicFilter, Version,
};
use mqtt_session::{Heap, Instant, Server};

use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::hooks::Hooks;
use crate::journal::MemberSearch;
use crate::keys::{ConnectionKey, SessionKey};
use crate::message::Message;
use crate::router::Subscriber;
use crate::session::Session;

mod arrivals;
mod away;
mod busy;
mod control;
mod filters;
mod hash;
mod incoming;
mod places;
mod retained;
mod stale;
mod statistics;
mod table;
mod unsure;
mod visited;

pub use arrivals::Elsewhere;
use filters::Filters;
use hash::stable_hash;
pub use places::PlaceOf;
pub(crate) use retained::is_for_keeping;
use table::Peer;
use unsure::Unsure;
pub(crate) use visited::Visited;

/// How many shards there may be.
pub const MOST_SHARDS: u8 = 64;

/// Returns the shard that has the session of a client. `key` is [`crate::Config::hash_key`], which is the same for all shards.
#[must_use]
pub fn shard_of(client_id: &str, shards: u8, key: u64) -> u8 {
    let hash = stable_hash(client_id.as_bytes(), key);
    // The broker's tables use the lower bits.
    let shard = (hash >> 32).checked_rem(u64::from(shards)).unwrap_or(0);
    u8::try_from(shard).unwrap_or(0)
}

/// The number that stands for all links as publishers: a subscription of a link excludes what came over a link.
pub(crate) const OTHER_SHARDS: u64 = 0x6C69_6E6B_7300_0001;

/// The client identifiers of links begin with a character that no client may use (3.1.1 \[MQTT-1.5.3-2\], 5 \[MQTT-1.5.4-2\]).
const NAME: &str = "\0shard/";

/// Returns the shard to which the link with this client identifier leads.
pub(crate) fn shard_of_link(client_id: &str) -> Option<u8> {
    client_id.strip_prefix(NAME)?.parse().ok()
}

/// The other shards of a broker.
pub(crate) struct Links {
    /// The number of this shard.
    own: u8,
    /// The other shards by their numbers; the own entry is not used.
    peers: Vec<Peer>,
    /// The filters of the own clients.
    filters: Filters,
    /// SUBACKs that wait until all other shards know the changes up to a number.
    waiting: VecDeque<(u64, ConnectionId)>,
    /// Whether there is something to tell to another shard.
    has_news: bool,
    /// Wills of an earlier process, with the numbers of their records, until the other shards are known.
    wills: Vec<(u64, Message)>,
    /// Messages of an earlier process for shared subscriptions, until the other shards are known.
    searches: Vec<MemberSearch>,
    /// The bytes of the messages of an earlier process for shared subscriptions.
    searches_bytes: usize,
    /// Messages for shared subscriptions from shards that did not know the filters of this one.
    unsure: Unsure,
    /// How many topics other shards are told, for all receivers.
    told: usize,
    /// The shared subscriptions of messages of an earlier process, which may have no members, until the other shards are known.
    held_shares: Vec<Arc<str>>,
    /// How many changes of the own filters there were.
    changes: u64,
    /// The messages that came over links, and the bytes of their payloads.
    received: (u64, u64),
    /// Whether a member of a shared subscription is chosen in this shard only.
    pub(crate) only_own: bool,
    /// The shards that had the message for which a member of a shared subscription is chosen.
    visited: Visited,
    /// Whether a message of another shard is routed that may have missed shared subscriptions of this one.
    pub(crate) is_unsure: bool,
    /// The session whose places are kept for a new one of its client.
    kept: Option<SessionKey>,
    /// The shard of the next client without an identifier.
    next_of_any: u8,
}

impl Links {
    fn new(own: u8, shards: u8) -> Self {
        Self {
            own,
            peers: (0..shards).map(|_| Peer::default()).collect(),
            filters: Filters::default(),
            waiting: VecDeque::new(),
            has_news: false,
            wills: Vec::new(),
            searches: Vec::new(),
            searches_bytes: 0,
            unsure: Unsure::default(),
            told: 0,
            held_shares: Vec::new(),
            changes: 0,
            received: (0, 0),
            only_own: false,
            visited: Visited::default(),
            is_unsure: false,
            kept: None,
            next_of_any: own,
        }
    }

    /// Returns how many shards there are.
    fn count(&self) -> u8 {
        u8::try_from(self.peers.len()).unwrap_or(u8::MAX)
    }

    /// Returns the shard of a client that may be of any: all shards in turn.
    fn next_of_any(&mut self) -> u8 {
        let shard = self.next_of_any;
        let next = shard.saturating_add(1);
        self.next_of_any = if next < self.count() { next } else { 0 };
        shard
    }

    fn peer(&mut self, shard: u8) -> Option<&mut Peer> {
        let own = shard == self.own;
        self.peers.get_mut(usize::from(shard)).filter(|_| !own)
    }

    /// Returns the number of a change that happens now.
    const fn next_change(&mut self) -> u64 {
        self.changes = self.changes.saturating_add(1);
        self.changes
    }

    const fn last_change(&self) -> u64 {
        self.changes
    }

    /// Returns whether a shard gets all messages, because its list has not come.
    pub(crate) fn is_unknown(&self, shard: u8) -> bool {
        let peer = self.peers.get(usize::from(shard));
        peer.is_some_and(|peer| peer.gets_all() && !peer.is_ready())
    }

    /// Returns whether the filters of all shards are known that are not away.
    fn knows_present(&self) -> bool {
        self.others().all(|peer| peer.is_ready() || peer.is_away())
    }

    fn serve_all(&self) -> bool {
        self.others().all(Peer::is_served)
    }

    fn others(&self) -> impl Iterator<Item = &Peer> {
        let own = usize::from(self.own);
        let all = self.peers.iter().enumerate();
        all.filter(move |(at, _)| *at != own).map(|(_, peer)| peer)
    }

    /// Returns how many connected members the shard has of the shared subscription that it calls by this identifier.
    pub(crate) fn weight(&self, shard: u8, identifier: Option<u32>) -> u32 {
        let peer = self.peers.get(usize::from(shard));
        peer.zip(identifier)
            .map_or(0, |(peer, identifier)| peer.weight(identifier))
    }
}

impl<H: Hooks> Broker<H> {
    /// Makes this broker the shard `own` of `shards` ones. Call it before the first connection, and before [`Self::restore`]. A
    /// call with less than two shards, or more than [`MOST_SHARDS`], does nothing: the broker serves all clients itself.
    pub fn start_links(&mut self, own: u8, shards: u8) {
        if (2..=MOST_SHARDS).contains(&shards) && own < shards {
            self.links = Some(Box::new(Links::new(own, shards)));
        }
    }

    /// Opens the link to another shard, which opens its side as well. What is outgoing for the returned connection is the input of
    /// the connection that the other shard got. If bytes are lost, both sides call [`Self::closed`] and open the link again: all
    /// messages that were not acknowledged are sent again. Returns `None` for an unknown shard, and for one whose link is open.
    pub fn open_link(&mut self, shard: u8, now: Instant) -> Option<ConnectionId> {
        self.begin(now);
        self.links.as_mut()?.peer(shard)?;
        let name = format!("{NAME}{shard}");
        let key = match self.clients.get(name.as_str()).copied() {
            Some(key) => key,
            None => self.new_link_session(&name, shard),
        };
        let session = self.sessions.get(key)?;
        if session.connection.is_some() {
            return None;
        }
        let before = self.position();
        let id = self.add_connection(0, now);
        self.was_accepted_or_ended(id.index);
        let sockets = &mut self.statistics.sockets;
        *sockets = sockets.saturating_sub(1);
        let properties = [Property::SessionExpiryInterval(u32::MAX)];
        let connect = Connect {
            keep_alive: 0,
            clean_start: false,
            properties: Properties::from(&properties[..]),
            ..Connect::new(Version::V5, "shard")
        };
        let mut server = Server::of_server(self.config.link_session(), Heap);
        server.opened(now);
        connect_by(&mut server, &connect, now)?;
        self.connection_mut(id)?.server = server;
        if let Some(session) = self.sessions.get_mut(key) {
            session.tells_first = true;
        }
        // Releases the publishers that waited while the shard was away. From now on they wait while the shard takes nothing.
        self.end_pressure(key);
        self.attach(id.index, key, &connect, None);
        self.record_connected(id.index, key, u32::MAX, before);
        let connection = self.connection_mut(id)?;
        connection.window = usize::from(u16::MAX);
        accept(&mut connection.server, now)?;
        let connected = &mut self.statistics.clients_connected;
        *connected = connected.saturating_add(1);
        self.recount(id.index);
        self.schedule(id.index);
        if let Some(links) = &mut self.links {
            links.tell_all(shard, key);
        }
        self.mark_ready(id.index);
        // The other shard knows the filters of this one before it gets messages.
        self.settle();
        self.pump(key, now);
        self.settle();
        Some(id)
    }

    fn new_link_session(&mut self, name: &str, shard: u8) -> SessionKey {
        let name: Arc<str> = name.into();
        self.session_serial = self.session_serial.wrapping_add(1);
        let mut session = Session::new(Arc::clone(&name), OTHER_SHARDS, self.session_serial);
        session.link = Some(shard);
        self.hold_session(None);
        let key = self.sessions.insert(session);
        self.clients.insert(name, key);
        key
    }

    /// Notes that another shard is away until its link opens: neither SUBACKs nor [`Self::links_are_ready`] wait for it. Messages
    /// of clients for that shard are queued: all messages, if its filters are not known since the start of this process, and then
    /// that shard drops those without a receiver. If it makes subscriptions while it serves clients without the link, this shard
    /// does not know them until the link opens. The call does nothing while the link is open.
    pub fn shard_is_away(&mut self, shard: u8, now: Instant) {
        let Some(peer) = self.links.as_mut().and_then(|links| links.peer(shard)) else {
            return;
        };
        let session = match peer.session() {
            Some(key) => Some(key),
            // The session of a link begins with its first connection.
            None => self.open_link(shard, now).and_then(|id| {
                let key = self.connection(id).and_then(|own| own.session);
                self.closed(id, now);
                key
            }),
        };
        let Some(key) = session.filter(|key| self.connection_of(*key).is_none()) else {
            return;
        };
        self.begin(now);
        let Some(links) = &mut self.links else { return };
        let Some(peer) = links.peer(shard).filter(|peer| !peer.is_away()) else {
            return;
        };
        peer.leave();
        let gets_all = peer.gets_all();
        for id in links.released() {
            self.release_suback(id);
        }
        if gets_all {
            self.learn_of_shard(shard, key, "#", Some(retained::UNSURE));
        }
        self.continue_restored(now);
        self.settle();
    }

    /// Returns whether this shard knows the filters of all others, and they know those of its clients, except for shards that are away.
    /// Before, messages for other shards may be lost: a host of several shards waits for this before it accepts clients.
    #[must_use]
    pub fn links_are_ready(&self) -> bool {
        let links = self.links.as_ref();
        links.is_none_or(|links| links.serve_all() && !links.is_unconfirmed())
    }

    /// Returns whether messages for other shards are not lost.
    pub(crate) fn serves_other_shards(&self) -> bool {
        self.links.as_ref().is_none_or(|links| links.serve_all())
    }

    /// Returns whether the filters of all other shards were known once.
    pub(crate) fn knows_other_shards(&self) -> bool {
        let links = self.links.as_ref();
        links.is_none_or(|links| links.others().all(Peer::is_ready))
    }

    /// Notes the session of a link that an earlier process had.
    pub(crate) fn link_restored(&mut self, shard: u8, key: SessionKey) {
        if let Some(peer) = self.links.as_mut().and_then(|links| links.peer(shard)) {
            peer.restored(key);
        }
    }

    pub(crate) fn keep_restored_will(&mut self, number: u64, will: Message) {
        if let Some(links) = &mut self.links {
            links.wills.push((number, will));
        }
    }

    pub(crate) fn search_member_later(&mut self, search: MemberSearch) {
        if let Some(links) = &mut self.links {
            links.searches_bytes = links.searches_bytes.saturating_add(search.size());
            links.searches.push(search);
        }
    }

    /// Returns whether such messages have room for one more: they have the limits of one queue, beside those that an earlier process left.
    pub(crate) fn has_room_for_search(&self, size: usize) -> bool {
        self.links.as_ref().is_some_and(|links| {
            let bytes = links.searches_bytes.saturating_add(size);
            links.searches.len() < self.config.queued_messages && bytes <= self.config.queued_bytes
        })
    }

    pub(crate) fn end_share_later(&mut self, filter: &str) {
        if let Some(links) = &mut self.links {
            links.held_shares.push(filter.into());
        }
    }

    /// Publishes the wills and delivers the messages that waited until the other shards are known, if they are. A shard that gets
    /// all messages need not be known for wills.
    fn continue_restored(&mut self, now: Instant) {
        let Some(links) = self.links.as_mut().filter(|links| links.serve_all()) else {
            return;
        };
        for (number, will) in std::mem::take(&mut links.wills) {
            self.publish_restored_will(number, will, now);
        }
        if !self.knows_other_shards() {
            return;
        }
        let Some(links) = &mut self.links else { return };
        let searches = std::mem::take(&mut links.searches);
        links.searches_bytes = 0;
        let held_shares = std::mem::take(&mut links.held_shares);
        self.search_members(searches, now);
        for filter in held_shares {
            if let Ok(filter) = TopicFilter::new(&filter) {
                self.router.end_empty_share(&filter);
            }
        }
    }

    /// Returns the number of the host as publisher: its messages are for the clients of this shard only.
    pub(crate) fn host_as_publisher(&self) -> Option<u64> {
        self.is_of_host.then_some(OTHER_SHARDS)
    }

    /// Returns how many links are open.
    pub(crate) fn open_links(&self) -> usize {
        let Some(links) = &self.links else { return 0 };
        let sessions = links.others().filter_map(Peer::session);
        sessions
            .filter(|key| self.connection_of(*key).is_some())
            .count()
    }

    /// Returns whether a session is that of a link.
    pub(crate) fn is_link(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| session.link.is_some())
    }

    /// Returns whether a connection is a link.
    pub(crate) fn is_link_connection(&self, index: ConnectionKey) -> bool {
        let connection = self.connections.get(index);
        connection.is_some_and(|own| own.session.is_some_and(|key| self.is_link(key)))
    }

    /// Returns the shard to which a connection leads, if it is a link.
    pub(crate) fn link_of(&self, id: ConnectionId) -> Option<u8> {
        let key = self.connection(id)?.session?;
        self.sessions.get(key)?.link
    }
}

/// Returns the subscription of a link: the message keeps its flags, and is for the other shard only if it does not come from a
/// shard.
fn subscriber(session: SessionKey, identifier: Option<u32>) -> Subscriber {
    let filter = TopicFilter::from_static("#");
    let subscription = Subscription {
        no_local: true,
        retain_as_published: true,
        ..Subscription::new(filter, QoS::ExactlyOnce)
    };
    Subscriber::new(session, &subscription, identifier)
}

/// Gives a machine the CONNECT of a link.
fn connect_by(server: &mut Server<'static>, connect: &Connect<'_>, now: Instant) -> Option<()> {
    let mut packet = vec![0; connect.encoded_len(Version::V5).ok()?];
    connect.encode(Version::V5, &mut packet).ok()?;
    server.receive(&packet, now).ok().map(drop)
}

/// Accepts the CONNECT of a link. The other shard does not get the CONNACK.
fn accept(server: &mut Server<'static>, now: Instant) -> Option<()> {
    let connack = ConnAck {
        session_present: true,
        ..ConnAck::default()
    };
    let len = connack.encoded_len(Version::V5).ok()?;
    server.accept(&connack, now).ok()?;
    server.sent(len);
    Some(())
}
