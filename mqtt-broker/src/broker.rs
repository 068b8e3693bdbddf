//! Holds the broker: its connections, its input and its output. `connect.rs` decides on CONNECT, `subscribe.rs` answers
//! subscriptions, `fanout.rs` and `deliver.rs` bring messages to their receivers, `leave.rs` ends connections and sessions, and
//! `turn.rs` does work that was too much for one turn.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use mqtt_session::proto::num::{to_u32, to_u64, to_usize};
use mqtt_session::proto::{Disconnect, ReasonCode};
use mqtt_session::{Heap, Instant, Outgoing, Server, ServerEvent, Step};

use crate::config::Config;
use crate::connection::{Connection, ConnectionId};
use crate::fanout::{Fanouts, RoutingMemory};
use crate::frames::Frames;
use crate::holders::Holders;
use crate::hooks::{Ending, Hooks};
use crate::journal::Journal;
use crate::keys::{ConnectionKey, OfConnections, OfSessions, SessionKey, Table};
use crate::largest::{Largest, Part};
use crate::level::{Shared, Total};
use crate::pressure::ReleasedAcknowledgements;
use crate::retained::Retained;
use crate::router::{Keyed, Router};
use crate::routing_limits::RoutingLimits;
use crate::session::Session;
use crate::shards::Links;
use crate::share::HandedOver;
use crate::statistics::{Loads, Statistics};
use crate::timers::{Due, Timers};
use crate::work::{Meter, packet_steps, steps_of_bytes};

/// The result of [`Broker::receive`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Handled {
    /// How many bytes of the input were handled; the host passes the others to the next call.
    pub consumed: usize,
    /// Why the call ended.
    pub next: Next,
}

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// At least this many bytes, counted from the first one that was not handled.
    Needs(usize),
    /// Room for answers, a decision of the host, or the end of the work for the last packet: call [`Broker::receive`] again with
    /// the same bytes when [`Broker::next_ready`] returns this connection, or after [`Broker::sent`].
    Blocked,
    /// The next turn of the connection, because it has used its share of this one: call [`Broker::receive`] again with the same
    /// bytes, even if there are none, after the other connections have had their turn.
    Yields,
    /// The end of the connection: write the outgoing bytes, close the transport, and call [`Broker::closed`].
    Closing,
}

/// The broker has no room for another connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("all {limit} connections are taken")]
pub struct TooManyConnections {
    /// The limit that was reached: [`Config::connections`] or [`Config::connections_per_address`].
    pub limit: usize,
}

/// Routes messages between clients. Everything goes in and comes out through its methods: bytes, time, decisions.
///
/// The same calls give the same results: the broker has no clock, no I/O, no randomness and no thread.
pub struct Broker<H> {
    pub(crate) config: Config,
    pub(crate) hooks: H,
    pub(crate) connections: Table<OfConnections, Connection>,
    pub(crate) sessions: Table<OfSessions, Session>,
    pub(crate) clients: HashMap<Arc<str>, SessionKey, Keyed>,
    pub(crate) router: Router,
    pub(crate) retained: Retained,
    pub(crate) timers: Timers,
    pub(crate) statistics: Statistics,
    pub(crate) queued: Total,
    pub(crate) meter: Meter,
    /// Sessions with queued messages to send, or with retained messages to get.
    pub(crate) sessions_with_work: VecDeque<SessionKey>,
    /// Messages that are delivered in portions.
    pub(crate) fanouts: Fanouts,
    /// Messages for other members of their shared subscriptions.
    pub(crate) to_other_members: VecDeque<HandedOver>,
    /// Withheld acknowledgements that can be sent now.
    pub(crate) released_acknowledgements: VecDeque<ReleasedAcknowledgements>,
    /// The queue limits and the fullest receiver of the message that is being routed.
    pub(crate) press: RoutingLimits,
    /// Ended sessions that still have subscriptions.
    pub(crate) ending_sessions: VecDeque<SessionKey>,
    /// Sessions that are ended first to make room for new ones, in the order in which their clients disconnected.
    pub(crate) unused_sessions: BTreeMap<u64, SessionKey>,
    pub(crate) idle_serial: u64,
    /// Connections by their address, and those without an accepted CONNECT.
    pub(crate) connections_by_address: Holders<ConnectionKey>,
    /// How many connections have been closed to make room for others.
    pub(crate) closed_for_room_count: usize,
    /// How many bytes the machines of all connections and sessions have on the heap.
    pub(crate) heap_bytes: usize,
    /// Connections with many received bytes that the broker has not accepted.
    pub(crate) inputs: Largest<ConnectionKey>,
    /// Sessions without a connection whose machines have bytes on the heap.
    pub(crate) parked: Largest<SessionKey>,
    /// The bytes of the subscriptions of all sessions.
    pub(crate) filter_bytes: Shared,
    /// Sessions by the address of their client, and those whose client is not connected.
    pub(crate) sessions_by_address: Holders<SessionKey>,
    /// Sessions by their user.
    pub(crate) sessions_by_user: Holders<SessionKey>,
    /// The bytes of all wills.
    pub(crate) will_bytes: Shared,
    /// Whether retained messages have expired and are still to be removed.
    pub(crate) purging: bool,
    ready: VecDeque<ConnectionId>,
    pub(crate) serial: u32,
    pub(crate) session_serial: u32,
    /// The number of changes of rights; not 0.
    pub(crate) rights: u32,
    /// The journal, if there is one.
    pub(crate) journal: Option<Box<Journal>>,
    /// The links to other shards, if there are any.
    pub(crate) links: Option<Box<Links>>,
    pub(crate) started: Instant,
    pub(crate) published: Option<Statistics>,
    pub(crate) loads: Loads,
    /// Memory for routing one message, except while a message is routed.
    pub(crate) scratch: Option<Box<RoutingMemory>>,
    pub(crate) topic: String,
    /// Whether the message that is being routed is the host's: it is for the clients of this shard only.
    pub(crate) is_of_host: bool,
}

impl<H> fmt::Debug for Broker<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("connections", &self.connections.len())
            .field("sessions", &self.sessions.len())
            .field("subscriptions", &self.router.count())
            .finish_non_exhaustive()
    }
}

impl<H: Hooks> Broker<H> {
    /// Makes a broker without connections.
    pub fn new(config: Config, hooks: H, now: Instant) -> Self {
        let key = Keyed(config.hash_key);
        let mut timers = Timers::default();
        if config.statistics_interval > 0 {
            // The first statistics are published at once, for clients that subscribe early.
            timers.set(now, Due::Statistics);
        }
        Self {
            config,
            hooks,
            connections: Table::new(),
            sessions: Table::new(),
            clients: HashMap::with_hasher(key),
            router: Router::new(key),
            retained: Retained::default(),
            timers,
            statistics: Statistics::default(),
            queued: Total::default(),
            meter: Meter::default(),
            sessions_with_work: VecDeque::new(),
            fanouts: Fanouts::new(key),
            to_other_members: VecDeque::new(),
            released_acknowledgements: VecDeque::new(),
            press: RoutingLimits::NONE,
            ending_sessions: VecDeque::new(),
            unused_sessions: BTreeMap::new(),
            idle_serial: 0,
            connections_by_address: Holders::new(key),
            closed_for_room_count: 0,
            heap_bytes: 0,
            inputs: Largest::default(),
            parked: Largest::default(),
            filter_bytes: Shared::default(),
            sessions_by_address: Holders::new(key),
            sessions_by_user: Holders::new(key),
            will_bytes: Shared::default(),
            purging: false,
            ready: VecDeque::new(),
            serial: 0,
            session_serial: 0,
            rights: 1,
            journal: None,
            links: None,
            started: now,
            published: None,
            loads: Loads::new(now),
            scratch: None,
            topic: String::new(),
            is_of_host: false,
        }
    }

    /// Returns the host's hooks.
    pub const fn hooks(&mut self) -> &mut H {
        &mut self.hooks
    }

    pub(crate) fn add_connection(&mut self, source: u64, now: Instant) -> ConnectionId {
        self.serial = self.serial.wrapping_add(1);
        self.statistics.sockets = self.statistics.sockets.saturating_add(1);
        let mut server = Server::new(self.config.session(), Heap);
        server.opened(now);
        let timer = server.deadline();
        let index = self.connections.insert(Connection {
            server,
            serial: self.serial,
            session: None,
            window: usize::MAX,
            timer,
            ready: false,
            ended: false,
            gathers: 0,
            closed_for_room: false,
            source,
            heap_bytes: 0,
            input: Part::default(),
            pending: None,
            frames: Frames::default(),
            extra: None,
        });
        self.hold_connection(index, source);
        if let Some(at) = timer {
            self.timers.set(at, Due::Connection(index));
        }
        ConnectionId {
            index,
            serial: self.serial,
        }
    }

    pub(crate) fn id(&self, index: ConnectionKey) -> Option<ConnectionId> {
        let serial = self.connections.get(index)?.serial;
        Some(ConnectionId { index, serial })
    }

    /// Returns the connection of a session, if it has one.
    pub(crate) fn connection_of(&self, key: SessionKey) -> Option<ConnectionId> {
        self.id(self.sessions.get(key)?.connection?)
    }

    pub(crate) fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections
            .get(id.index)
            .filter(|connection| connection.is(id))
    }

    pub(crate) fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections
            .get_mut(id.index)
            .filter(|connection| connection.is(id))
    }

    /// Returns the bytes that wait for the transport.
    #[must_use]
    pub fn outgoing(&self, id: ConnectionId) -> &[u8] {
        self.connection(id)
            .map_or(&[], |connection| connection.server.outgoing())
    }

    /// Notes that the transport took the first `n` bytes of [`Self::outgoing`]. `n` may be larger than the number of outgoing
    /// bytes.
    pub fn sent(&mut self, id: ConnectionId, n: usize, now: Instant) {
        self.begin(now);
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        let outgoing = connection.server.outgoing();
        let begun = connection
            .frames
            .count(outgoing.get(..n).unwrap_or(outgoing));
        connection.server.sent(n);
        connection.gathers = 0;
        let (session, has_ended) = (connection.session, connection.server.has_ended());
        let is_link = self.links.is_some() && session.is_some_and(|key| self.is_link(key));
        let (n_sent, begun) = if is_link { (0, 0) } else { (n, begun) };
        let statistics = &mut self.statistics;
        statistics.bytes_sent = statistics.bytes_sent.saturating_add(to_u64(n_sent));
        statistics.packets_sent = statistics.packets_sent.saturating_add(begun);
        if let Some(key) = session {
            if let Some(session) = self.sessions.get_mut(key) {
                session.queue.sent(n);
                if let Some(pressure) = &mut session.pressure {
                    pressure.sent(n, now);
                }
            }
            if has_ended {
                self.take_ends(id, now);
            }
            self.pump(key, now);
        }
        self.take_changes(id.index);
        self.recount(id.index);
        self.settle();
    }

    /// Returns the next connection that has outgoing bytes, is to be closed, or may continue with its input. A connection is
    /// returned once, until there is something new for it.
    pub fn next_ready(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(connection) = self.connection_mut(id) {
                connection.ready = false;
                return Some(id);
            }
        }
        None
    }

    /// Marks a connection as ready because of a message for its client.
    pub(crate) fn mark_to_write(&mut self, index: ConnectionKey) {
        let connection = self.connections.get(index);
        let is_told = connection.is_none_or(|connection| {
            connection.ready || connection.server.outgoing().len() < to_usize(connection.gathers)
        });
        if !is_told {
            self.mark_ready(index);
        }
    }

    pub(crate) fn mark_ready(&mut self, index: ConnectionKey) {
        let Some(id) = self.id(index) else { return };
        if let Some(connection) = self.connection_mut(id)
            && !connection.ready
        {
            connection.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Notes that the host has seen the outgoing bytes of a connection and writes them later. Until the next call of [`Self::sent`],
    /// [`Self::next_ready`] returns the connection for another message only if `bytes` are outgoing then. The host calls this again
    /// with 0 when the time to write has come, since there may be no bytes to write by then.
    pub fn writes_later(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connection_mut(id) {
            connection.gathers = to_u32(bytes);
        }
    }

    /// Returns whether the connection has ended: write the outgoing bytes, close the transport, and call [`Self::closed`].
    #[must_use]
    pub fn is_closing(&self, id: ConnectionId) -> bool {
        self.connection(id)
            .is_none_or(|connection| connection.ended)
    }

    /// Notes that the transport is closed, by either side.
    pub fn closed(&mut self, id: ConnectionId, now: Instant) {
        if self.connection(id).is_none() {
            return;
        }
        self.begin(now);
        self.end(id.index, Ending::TransportGone, now);
        self.count_closed_connection(id.index);
        let connection = self.connections.remove(id.index);
        // Freeing memory is work as well.
        self.meter.spend(steps_of_bytes(connection.heap_bytes));
        if let Some(at) = connection.timer {
            self.timers.clear(at, Due::Connection(id.index));
        }
        self.settle();
    }

    /// Handles received bytes: all complete packets, as far as the connection's share of the turn allows.
    pub fn receive(&mut self, id: ConnectionId, input: &[u8], now: Instant) -> Handled {
        if self.links.is_some() && self.link_of(id).is_some() {
            return self.receive_uncounted(id, input, now);
        }
        self.receive_any(id, input, now)
    }

    pub(crate) fn receive_any(&mut self, id: ConnectionId, input: &[u8], now: Instant) -> Handled {
        self.begin(now);
        let mut consumed = 0_usize;
        let waiting = self.outgoing(id).len();
        let next = loop {
            let rest = input.get(consumed..).unwrap_or_default();
            if let Some(next) = self.must_wait(id, rest, now) {
                if next == Next::Closing {
                    consumed = input.len();
                }
                break next;
            }
            let Some(connection) = self.connection_mut(id) else {
                break Next::Closing;
            };
            match connection.server.receive(rest, now) {
                Ok(Step::Needs(needed)) => break Next::Needs(needed),
                Ok(Step::Blocked) => break Next::Blocked,
                Ok(Step::Packet { consumed: n, event }) => {
                    consumed = consumed.saturating_add(n);
                    self.meter.spend(packet_steps(n));
                    if n > 0 {
                        let received = &mut self.statistics.packets_received;
                        *received = received.saturating_add(1);
                    }
                    // Changes of the machine are recorded before the results of the packet.
                    self.take_changes(id.index);
                    if let Some(event) = event {
                        let packet = rest.get(..n).unwrap_or_default();
                        self.handle(id, event, packet, now);
                    }
                }
                Err(violation) => self.end(id.index, Ending::Failed(violation), now),
            }
        };
        let received = &mut self.statistics.bytes_received;
        *received = received.saturating_add(to_u64(consumed));
        self.recount(id.index);
        let next = self.count_input(id, input.len().saturating_sub(consumed), next, now);
        if next == Next::Closing {
            consumed = input.len();
        }
        self.settle();
        if self.outgoing(id).len() > waiting {
            self.mark_ready(id.index);
        }
        Handled { consumed, next }
    }

    /// Returns whether the CONNECT of a connection was accepted and the connection has not ended. Before, the host should read
    /// little at a time, since it keeps what the client sends after its CONNECT.
    #[must_use]
    pub fn is_accepted(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|c| c.session.is_some())
    }

    /// Returns what a connection waits for before its next packet.
    fn must_wait(&mut self, id: ConnectionId, rest: &[u8], now: Instant) -> Option<Next> {
        let has_share = self.meter.has_share();
        let connection = self.connection_mut(id).filter(|c| !c.ended);
        let Some(connection) = connection else {
            return Some(Next::Closing);
        };
        if connection.session.is_none()
            && let Some(next) = self.must_wait_before_connack(id, rest, now)
        {
            return Some(next);
        }
        let connection = self.connection_mut(id)?;
        if let Some(extra) = &connection.extra {
            if extra.message_in_portions {
                return Some(Next::Blocked);
            }
            if extra.request.is_some() {
                self.continue_request(id, now);
                return self.must_wait_for_answer(id, now);
            }
            if extra.unanswered.is_some() {
                return self.must_wait_for_answer(id, now);
            }
        }
        if !rest.is_empty() && (self.waits_for_storage(id) || self.must_pause(id, rest)) {
            return Some(Next::Blocked);
        }
        (!has_share && !rest.is_empty()).then_some(Next::Yields)
    }

    /// Returns whether the next packet has to wait because receivers of the client's messages are too full.
    fn must_pause(&mut self, id: ConnectionId, rest: &[u8]) -> bool {
        let pauses = self
            .connection(id)
            .is_some_and(|connection| self.is_paused(connection, rest));
        if pauses && let Some(connection) = self.connection_mut(id) {
            connection.server.input_waits();
        }
        pauses
    }

    fn must_wait_for_answer(&mut self, id: ConnectionId, now: Instant) -> Option<Next> {
        let connection = self.connection_mut(id).filter(|c| !c.ended);
        let Some(connection) = connection else {
            return Some(Next::Closing);
        };
        if connection.has_request() {
            return Some(Next::Yields);
        }
        let session = connection.session;
        let was_unanswered = connection.has_unanswered();
        if !connection.answer() {
            return Some(Next::Blocked);
        }
        if was_unanswered && let Some(key) = session {
            // Retained messages follow the answer.
            self.send_retained(key, now);
        }
        None
    }

    pub(crate) fn handle(
        &mut self,
        id: ConnectionId,
        event: ServerEvent<'_>,
        packet: &[u8],
        now: Instant,
    ) {
        match event {
            ServerEvent::Message(incoming) => self.message(id.index, &incoming, now),
            ServerEvent::Acknowledged { token, reason, .. }
                if reason.is_error()
                    && self.links.is_some()
                    && self.refused_by_shard(id, token, now) => {}
            ServerEvent::Acknowledged { token, .. } | ServerEvent::Ended { token, .. } => {
                let session = self.connection(id).and_then(|c| c.session);
                if let Some(key) = session
                    && let Some(session) = self.sessions.get_mut(key)
                {
                    // 5 [MQTT-4.8.2-6]: no other member gets the message, whether the acknowledgement reports success or an
                    // error.
                    session.shared.remove(&token);
                    session.queue.acknowledged();
                    session.note_taken(now);
                    self.record_acknowledged(key, token);
                    self.pump(key, now);
                }
            }
            ServerEvent::Connect(connect) => {
                self.statistics.connects = self.statistics.connects.saturating_add(1);
                self.on_connect(id, &connect, packet, now);
            }
            ServerEvent::Subscribe(subscribe) => self.on_subscribe(id, &subscribe, packet, now),
            ServerEvent::Unsubscribe(unsubscribe) => {
                self.on_unsubscribe(id, &unsubscribe, packet, now)
            }
            ServerEvent::Auth(auth) => self.on_auth(id, &auth, now),
            ServerEvent::Disconnected(disconnect) => {
                self.end(id.index, Ending::ByClient(disconnect.reason), now);
            }
            // The session has already written PINGRESP.
            _ => {}
        }
    }

    /// Publishes a message of the host to all clients with a matching subscription. Stores it if it is retained.
    pub fn publish(&mut self, message: &Outgoing<'_>, now: Instant) {
        self.begin(now);
        self.say_to_all(message, now);
        self.settle();
    }

    /// Ends the connection of a client. Returns `false` if the client is not connected.
    pub fn disconnect(&mut self, client_id: &str, reason: ReasonCode, now: Instant) -> bool {
        self.begin(now);
        let connection = self
            .clients
            .get(client_id)
            .and_then(|key| self.sessions.get(*key))
            .and_then(|session| session.connection);
        match connection {
            Some(index) => {
                self.close(index, reason, now);
                self.settle();
                true
            }
            None => false,
        }
    }

    /// Ends all connections. Clients of MQTT 5 get the reason code 0x8B, server shutting down.
    pub fn shut_down(&mut self, now: Instant) {
        self.begin(now);
        let all: Vec<_> = self.connections.iter().map(|(key, _)| key).collect();
        for index in all {
            self.close(index, ReasonCode::ServerShuttingDown, now);
        }
        self.settle();
    }

    /// Sends DISCONNECT with a reason and ends a connection.
    pub(crate) fn close(&mut self, index: ConnectionKey, reason: ReasonCode, now: Instant) {
        if let Some(connection) = self.connections.get_mut(index) {
            // 5 [MQTT-3.14.2-2]: DISCONNECT has no properties.
            let _ = connection.server.disconnect(&Disconnect {
                reason,
                ..Disconnect::default()
            });
        }
        self.end(index, Ending::ByBroker(reason), now);
    }
}
