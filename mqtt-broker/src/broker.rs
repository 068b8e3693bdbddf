//! The broker: its connections, and what goes in and out. `connect.rs` decides on CONNECT and ends, `deliver.rs` on
//! messages.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use mqtt_session::proto::{
    Auth, Disconnect, PacketId, Properties, Property, QoS, ReasonCode, RetainHandling, SubAck,
    Subscribe, Subscription, TopicName, UnsubAck, Unsubscribe,
};
use mqtt_session::{Heap, Instant, Outgoing, Refused, Server, ServerEvent, Step};

use crate::config::Config;
use crate::deliver::Target;
use crate::hooks::{Ending, Hooks, Observation, Verdict};
use crate::queue::{Identifiers, Total};
use crate::retained::Retained;
use crate::router::{Keyed, Matches, Router, Subscriber};
use crate::session::Session;
use crate::statistics::{self, Statistics};
use crate::timers::{Due, Timers};

/// Names a connection until the host says that it is closed. Never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId {
    pub(crate) index: u32,
    serial: u32,
}

impl ConnectionId {
    /// A small number for tables: below [`Config::connections`], unlike that of any other connection that is not closed.
    #[must_use]
    pub fn index(self) -> usize {
        usize_of(self.index)
    }
}

/// What [`Broker::receive`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// How many bytes of the input were used up; the host keeps the others for the next call.
    pub consumed: usize,
    /// Why it did not go on.
    pub next: Next,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// At least this many bytes, counted from the first that was not used up.
    Needs(usize),
    /// Room for answers, or a decision of the host: call [`Broker::receive`] again with the same bytes when
    /// [`Broker::next_ready`] names this connection, or something was [`Broker::sent`].
    Blocked,
    /// Nothing: write what is outgoing, close the transport, and say [`Broker::closed`].
    Closing,
}

/// There is no room for another connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("all {limit} connections are taken")]
pub struct TooManyConnections {
    /// [`Config::connections`].
    pub limit: usize,
}

pub(crate) struct Connection {
    pub(crate) server: Server<'static>,
    serial: u32,
    pub(crate) session: Option<u32>,
    /// How many messages of QoS 1 and 2 the client lets be under way.
    pub(crate) window: usize,
    /// Its entry in the timers.
    pub(crate) timer: Option<Instant>,
    /// It is in the list of those that are ready.
    ready: bool,
    pub(crate) ended: bool,
    pub(crate) extra: Option<Box<Extra>>,
}

/// What few connections need, or not for long.
#[derive(Default)]
pub(crate) struct Extra {
    /// The CONNECT that awaits a decision.
    pub(crate) connect: Option<Box<[u8]>>,
    /// The authentication method of an accepted CONNECT (5).
    pub(crate) method: Option<Box<str>>,
    /// An answer that had no room.
    unanswered: Option<Answer>,
}

enum Answer {
    Sub(PacketId, Vec<ReasonCode>),
    Unsub(PacketId, Vec<ReasonCode>),
}

/// Routes messages between clients. Everything goes in and comes out through its methods: bytes, time, decisions.
///
/// Same inputs, same outputs: there is no clock, no I/O, no randomness and no thread in it.
pub struct Broker<H> {
    pub(crate) config: Config,
    pub(crate) hooks: H,
    pub(crate) connections: slab::Slab<Connection>,
    pub(crate) sessions: slab::Slab<Session>,
    pub(crate) clients: HashMap<Arc<str>, u32, Keyed>,
    pub(crate) router: Router,
    pub(crate) retained: Retained,
    pub(crate) timers: Timers,
    pub(crate) statistics: Statistics,
    pub(crate) queued: Total,
    ready: VecDeque<ConnectionId>,
    serial: u32,
    started: Instant,
    published: Option<Statistics>,
    /// Counts the publishes.
    pub(crate) publish: u64,
    pub(crate) matches: Matches,
    pub(crate) targets: Vec<Target>,
    /// Subscription identifiers beside the first of a target.
    pub(crate) identifiers: Vec<(usize, u32)>,
    pub(crate) topic: String,
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
    /// A broker without connections.
    pub fn new(config: Config, hooks: H, now: Instant) -> Self {
        let key = Keyed(config.hash_key);
        let mut timers = Timers::default();
        if config.statistics_interval > 0 {
            // The first are there at once, for those who subscribe.
            timers.set(now, Due::Statistics);
        }
        Self {
            config,
            hooks,
            connections: slab::Slab::new(),
            sessions: slab::Slab::new(),
            clients: HashMap::with_hasher(key),
            router: Router::new(key),
            retained: Retained::default(),
            timers,
            statistics: Statistics::default(),
            queued: Total::default(),
            ready: VecDeque::new(),
            serial: 0,
            started: now,
            published: None,
            publish: 0,
            matches: Matches::default(),
            targets: Vec::new(),
            identifiers: Vec::new(),
            topic: String::new(),
        }
    }

    /// The host's hooks.
    pub const fn hooks(&mut self) -> &mut H {
        &mut self.hooks
    }

    /// A client connected a transport.
    ///
    /// # Errors
    /// [`TooManyConnections`]: close the transport.
    pub fn open(&mut self, now: Instant) -> Result<ConnectionId, TooManyConnections> {
        if self.connections.len() >= self.config.connections {
            return Err(TooManyConnections {
                limit: self.config.connections,
            });
        }
        self.serial = self.serial.wrapping_add(1);
        let mut server = Server::new(self.config.session(), Heap);
        server.opened(now);
        let timer = server.deadline();
        let index = number(self.connections.insert(Connection {
            server,
            serial: self.serial,
            session: None,
            window: usize::MAX,
            timer,
            ready: false,
            ended: false,
            extra: None,
        }));
        if let Some(at) = timer {
            self.timers.set(at, Due::Connection(index));
        }
        Ok(ConnectionId {
            index,
            serial: self.serial,
        })
    }

    pub(crate) fn id(&self, index: u32) -> Option<ConnectionId> {
        let serial = self.connections.get(usize_of(index))?.serial;
        Some(ConnectionId { index, serial })
    }

    fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections
            .get(usize_of(id.index))
            .filter(|connection| connection.serial == id.serial)
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections
            .get_mut(usize_of(id.index))
            .filter(|connection| connection.serial == id.serial)
    }

    /// The bytes that wait for the transport.
    #[must_use]
    pub fn outgoing(&self, id: ConnectionId) -> &[u8] {
        self.connection(id)
            .map_or(&[], |connection| connection.server.outgoing())
    }

    /// The transport took the first `n` bytes of [`Self::outgoing`]; any number is fine.
    pub fn sent(&mut self, id: ConnectionId, n: usize, now: Instant) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        connection.server.sent(n);
        let session = connection.session;
        self.statistics.bytes_sent = self.statistics.bytes_sent.saturating_add(widen(n));
        if let Some(key) = session {
            if let Some(session) = self.sessions.get_mut(usize_of(key)) {
                session.queue.sent(n);
            }
            self.pump(key, now);
        }
    }

    /// The next connection that has something to write, or is to be closed, or may go on with its input. Each is named
    /// once, until something new happens to it.
    pub fn next_ready(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(connection) = self.connection_mut(id) {
                connection.ready = false;
                return Some(id);
            }
        }
        None
    }

    pub(crate) fn mark_ready(&mut self, index: u32) {
        let Some(id) = self.id(index) else { return };
        if let Some(connection) = self.connection_mut(id)
            && !connection.ready
        {
            connection.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Whether the connection is over: write what is outgoing, close the transport, say [`Self::closed`].
    #[must_use]
    pub fn is_closing(&self, id: ConnectionId) -> bool {
        self.connection(id)
            .is_none_or(|connection| connection.ended)
    }

    /// The transport is closed, whoever did it.
    pub fn closed(&mut self, id: ConnectionId, now: Instant) {
        if self.connection(id).is_none() {
            return;
        }
        self.end(id.index, Ending::TransportGone, now);
        let connection = self.connections.remove(usize_of(id.index));
        if let Some(at) = connection.timer {
            self.timers.clear(at, Due::Connection(id.index));
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: Instant) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Connection(index) => self.connection_due(index, now),
                Due::Session(key) => self.session_due(key, now),
                Due::Statistics => {
                    self.publish_statistics(now);
                    if let Some(at) = self.config.statistics_due(now) {
                        self.timers.set(at, Due::Statistics);
                    }
                }
            }
        }
    }

    /// When [`Self::tick`] is to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn connection_due(&mut self, index: u32, now: Instant) {
        let Some(connection) = self.connections.get_mut(usize_of(index)) else {
            return;
        };
        connection.timer = None;
        if connection.ended {
            return;
        }
        if connection.session.is_none() && connection.server.deadline().is_none() {
            // CONNECT came in time, but what its decision takes did not.
            self.refuse(index, ReasonCode::NotAuthorized, now);
            return;
        }
        match connection.server.tick(now) {
            Ok(()) => self.schedule(index),
            Err(violation) => self.end(index, Ending::Failed(violation), now),
        }
    }

    /// Sets the timer of a connection to its deadline.
    pub(crate) fn schedule(&mut self, index: u32) {
        let Some(connection) = self.connections.get_mut(usize_of(index)) else {
            return;
        };
        let due = Due::Connection(index);
        if let Some(old) = connection.timer.take() {
            self.timers.clear(old, due);
        }
        connection.timer = connection.server.deadline();
        if let Some(at) = connection.timer {
            self.timers.set(at, due);
        }
    }

    /// Takes what a transport brought: as many packets as there are.
    pub fn receive(&mut self, id: ConnectionId, input: &[u8], now: Instant) -> Received {
        let mut consumed = 0_usize;
        let next = loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let Some(connection) = self.connection_mut(id).filter(|c| !c.ended) else {
                consumed = input.len();
                break Next::Closing;
            };
            if connection.has_unanswered() && !connection.answer() {
                break Next::Blocked;
            }
            match connection.server.receive(rest, now) {
                Ok(Step::Needs(needed)) => break Next::Needs(needed),
                Ok(Step::Blocked) => break Next::Blocked,
                Ok(Step::Packet { consumed: n, event }) => {
                    consumed = consumed.saturating_add(n);
                    if n > 0 {
                        let received = &mut self.statistics.packets_received;
                        *received = received.saturating_add(1);
                    }
                    if let Some(event) = event {
                        let packet = rest.get(..n).unwrap_or_default();
                        self.handle(id, event, packet, now);
                    }
                }
                Err(violation) => self.end(id.index, Ending::Failed(violation), now),
            }
        };
        let received = &mut self.statistics.bytes_received;
        *received = received.saturating_add(widen(consumed));
        if !self.outgoing(id).is_empty() {
            self.mark_ready(id.index);
        }
        Received { consumed, next }
    }

    fn handle(&mut self, id: ConnectionId, event: ServerEvent<'_>, packet: &[u8], now: Instant) {
        match event {
            ServerEvent::Message(incoming) => self.message(id.index, &incoming, now),
            ServerEvent::Acknowledged { token, .. } | ServerEvent::Ended { token, .. } => {
                let session = self.connection(id).and_then(|c| c.session);
                if let Some(key) = session
                    && let Some(session) = self.sessions.get_mut(usize_of(key))
                {
                    if !session.shared.is_empty() {
                        session.shared.retain(|(other, _)| *other != token);
                    }
                    session.queue.acknowledged();
                    self.pump(key, now);
                }
            }
            ServerEvent::Connect(connect) => self.on_connect(id, &connect, packet, now),
            ServerEvent::Subscribe(subscribe) => self.on_subscribe(id, &subscribe, now),
            ServerEvent::Unsubscribe(unsubscribe) => self.on_unsubscribe(id, &unsubscribe, now),
            ServerEvent::Auth(auth) => self.on_auth(id, &auth, now),
            ServerEvent::Disconnected(disconnect) => {
                self.end(id.index, Ending::ByClient(disconnect.reason), now);
            }
            // PINGRESP is written already.
            _ => {}
        }
    }

    fn on_subscribe(&mut self, id: ConnectionId, subscribe: &Subscribe<'_>, now: Instant) {
        let Some(key) = self.connection(id).and_then(|c| c.session) else {
            return;
        };
        let identifier = subscribe.properties.subscription_identifiers().next();
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut retained = Vec::new();
        for subscription in &subscribe.filters {
            let (code, is_new) = self.subscribe_one(key, &subscription, identifier);
            codes.push(code);
            let wanted = match subscription.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => is_new,
                RetainHandling::DoNotSend => false,
            };
            // 5, section 3.8.3.1: a shared subscription gets no retained messages.
            if !code.is_error() && wanted && !subscription.filter.is_shared() {
                retained.push(subscription);
            }
        }
        self.answer(id, Answer::Sub(subscribe.packet_id, codes), now);
        for subscription in retained {
            self.send_retained(key, &subscription, identifier, now);
        }
        self.pump(key, now);
    }

    /// The code that answers it, and whether it is a new one.
    fn subscribe_one(
        &mut self,
        key: u32,
        subscription: &Subscription<'_>,
        identifier: Option<u32>,
    ) -> (ReasonCode, bool) {
        let Some(session) = self.sessions.get_mut(usize_of(key)) else {
            return (ReasonCode::UnspecifiedError, false);
        };
        let filter = subscription.filter;
        let known = session.filters.contains(filter.as_str());
        let client = session.info();
        let code = if !self.config.allows_levels(filter.as_bytes()) {
            ReasonCode::TopicFilterInvalid
        } else if !known && session.filters.len() >= self.config.subscriptions {
            ReasonCode::QuotaExceeded
        } else if !self.hooks.may_subscribe(&client, filter) {
            ReasonCode::NotAuthorized
        } else {
            // 3.1.1 [MQTT-3.8.4-6], 5 [MQTT-3.8.4-8]
            ReasonCode::granted(subscription.qos)
        };
        self.hooks.observe(&Observation::Subscribed {
            client,
            filter,
            reason: code,
        });
        if code.is_error() {
            // Before 5 there is only one way to say no.
            let code = if client.version.is_v5() {
                code
            } else {
                ReasonCode::UnspecifiedError
            };
            return (code, false);
        }
        if !known {
            session.filters.insert(filter.as_str().into());
        }
        let subscriber = Subscriber::new(key, subscription, identifier);
        self.router.subscribe(&filter, subscriber, known);
        (code, !known)
    }

    fn send_retained(
        &mut self,
        key: u32,
        subscription: &Subscription<'_>,
        identifier: Option<u32>,
        now: Instant,
    ) {
        let client_id = self
            .sessions
            .get(usize_of(key))
            .map(|session| Arc::clone(&session.client_id))
            .unwrap_or_default();
        for message in self.retained.matches(subscription.filter.as_str(), now) {
            // 5 [MQTT-3.8.3-3]
            if subscription.no_local && message.is_from(&client_id) {
                continue;
            }
            let qos = message.qos().min(subscription.qos);
            let identifiers = Identifiers::new(identifier.as_slice());
            // 3.1.1 [MQTT-3.3.1-8], 5 [MQTT-3.3.1-8]
            self.deliver_kept(key, message, qos, true, identifiers, None, now);
        }
    }

    fn on_unsubscribe(&mut self, id: ConnectionId, unsubscribe: &Unsubscribe<'_>, now: Instant) {
        let Some(key) = self.connection(id).and_then(|c| c.session) else {
            return;
        };
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        let is_v5 = self
            .connection(id)
            .is_some_and(|c| c.server.version().is_v5());
        for filter in &unsubscribe.filters {
            let known = self
                .sessions
                .get_mut(usize_of(key))
                .is_some_and(|session| session.filters.remove(filter.as_str()));
            // 3.1.1 [MQTT-3.10.4-1], 5 [MQTT-3.10.4-1]: compared as written.
            let removed = known && self.router.unsubscribe(&filter, key);
            if is_v5 {
                codes.push(if removed {
                    ReasonCode::Success
                } else {
                    ReasonCode::NoSubscriptionExisted
                });
            }
        }
        self.answer(id, Answer::Unsub(unsubscribe.packet_id, codes), now);
    }

    fn answer(&mut self, id: ConnectionId, answer: Answer, now: Instant) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        connection.extra().unanswered = Some(answer);
        match connection.try_answer() {
            Ok(()) | Err(Refused::Full) => {}
            // 5 [MQTT-3.1.2-24]: the client does not take an answer of this size.
            Err(_) => self.close(id.index, ReasonCode::PacketTooLarge, now),
        }
    }

    fn on_auth(&mut self, id: ConnectionId, auth: &Auth<'_>, now: Instant) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        let method = auth.properties.authentication_method();
        let data = auth.properties.authentication_data();
        if connection.session.is_none() {
            let packet = connection
                .extra
                .as_ref()
                .and_then(|extra| extra.connect.clone());
            let Some(packet) = packet else { return };
            if let Some(connect) = crate::connect::decode(&packet) {
                let same = method == connect.properties.authentication_method();
                // 5 [MQTT-4.12.0-5]
                let Some(method) = method.filter(|_| same) else {
                    self.refuse(id.index, ReasonCode::ProtocolError, now);
                    return;
                };
                let verdict = self.hooks.authenticate(id, method, data);
                self.decided(id.index, &connect, &packet, verdict, now);
            }
            return;
        }
        let known = connection
            .extra
            .as_ref()
            .and_then(|extra| extra.method.as_deref());
        // 5 [MQTT-4.12.1-1]
        let Some(method) = method.filter(|method| known == Some(*method)) else {
            self.close(id.index, ReasonCode::ProtocolError, now);
            return;
        };
        let verdict = self.hooks.authenticate(id, method, data);
        self.authenticated_again(id.index, method, &verdict, now);
    }

    pub(crate) fn authenticated_again(
        &mut self,
        index: u32,
        method: &str,
        verdict: &Verdict,
        now: Instant,
    ) {
        let (reason, data) = match verdict {
            Verdict::Accept => (ReasonCode::Success, None),
            Verdict::AcceptWith(data) => (ReasonCode::Success, Some(&data[..])),
            Verdict::Continue(data) => (ReasonCode::ContinueAuthentication, Some(&data[..])),
            Verdict::Later => return,
            // 5 [MQTT-4.12.1-2]
            Verdict::Refuse(reason) => return self.close(index, *reason, now),
        };
        if self.send_auth(index, reason, method, data).is_err() {
            self.close(index, ReasonCode::QuotaExceeded, now);
        }
    }

    pub(crate) fn send_auth(
        &mut self,
        index: u32,
        reason: ReasonCode,
        method: &str,
        data: Option<&[u8]>,
    ) -> Result<(), Refused> {
        let mut properties = vec![Property::AuthenticationMethod(method)];
        properties.extend(data.map(Property::AuthenticationData));
        let auth = Auth {
            reason,
            properties: Properties::from(&properties[..]),
        };
        self.mark_ready(index);
        match self.connections.get_mut(usize_of(index)) {
            Some(connection) => connection.server.authenticate(&auth),
            None => Ok(()),
        }
    }

    /// The host decides on what a hook answered with [`Verdict::Later`]. Nothing happens if the connection is gone.
    pub fn decide(&mut self, id: ConnectionId, verdict: Verdict, now: Instant) {
        let Some(connection) = self.connection(id).filter(|c| !c.ended) else {
            return;
        };
        let extra = connection.extra.as_ref();
        if connection.session.is_some() {
            let method = extra.and_then(|extra| extra.method.clone());
            if let Some(method) = method {
                self.authenticated_again(id.index, &method, &verdict, now);
            }
            return;
        }
        let packet = extra.and_then(|extra| extra.connect.clone());
        if let Some(packet) = packet
            && let Some(connect) = crate::connect::decode(&packet)
        {
            self.decided(id.index, &connect, &packet, verdict, now);
            // What came behind CONNECT may go on.
            self.mark_ready(id.index);
        }
    }

    /// The host publishes a message, to all whose subscriptions match. A retained one is kept.
    pub fn publish(&mut self, message: &Outgoing<'_>, now: Instant) {
        if message.retain {
            self.retain(None, message, now);
        }
        self.route(None, message, now);
    }

    /// Ends the connection of a client. `false` if it is not connected.
    pub fn disconnect(&mut self, client_id: &str, reason: ReasonCode, now: Instant) -> bool {
        let connection = self
            .clients
            .get(client_id)
            .and_then(|key| self.sessions.get(usize_of(*key)))
            .and_then(|session| session.connection);
        match connection {
            Some(index) => {
                self.close(index, reason, now);
                true
            }
            None => false,
        }
    }

    /// Ends all connections: clients of MQTT 5 are told that the server shuts down (0x8B).
    pub fn shut_down(&mut self, now: Instant) {
        let all: Vec<u32> = self.connections.iter().map(|(i, _)| number(i)).collect();
        for index in all {
            self.close(index, ReasonCode::ServerShuttingDown, now);
        }
    }

    /// Says goodbye and ends a connection.
    pub(crate) fn close(&mut self, index: u32, reason: ReasonCode, now: Instant) {
        if let Some(connection) = self.connections.get_mut(usize_of(index)) {
            let _ = connection.server.disconnect(&Disconnect {
                reason,
                ..Disconnect::default()
            });
        }
        self.end(index, Ending::ByBroker(reason), now);
    }

    /// Counts since the start, and the present state.
    #[must_use]
    pub fn statistics(&self, now: Instant) -> Statistics {
        Statistics {
            uptime: now.since(self.started).as_secs(),
            sessions: widen(self.sessions.len()),
            subscriptions: widen(self.router.count()),
            shared_subscriptions: widen(self.router.shared_count()),
            retained: widen(self.retained.count()),
            retained_bytes: widen(self.retained.bytes()),
            queued: self.queued.messages,
            queued_bytes: widen(self.queued.bytes),
            ..self.statistics
        }
    }

    fn publish_statistics(&mut self, now: Instant) {
        self.retained.purge(now);
        let new = self.statistics(now);
        let old = self.published.replace(new);
        let text = format!("{} seconds", new.uptime);
        self.say(statistics::UPTIME_TOPIC, &text, now);
        if old.is_none() {
            let version = concat!("mqtt broker ", env!("CARGO_PKG_VERSION"));
            self.say(statistics::VERSION_TOPIC, version, now);
        }
        for (at, (topic, number)) in new.topics().into_iter().enumerate() {
            let before = old.and_then(|old| old.topics().get(at).copied());
            if before != Some((topic, number)) {
                self.say(topic, &number.to_string(), now);
            }
        }
    }

    fn say(&mut self, topic: &str, text: &str, now: Instant) {
        let topic = TopicName::new(topic).unwrap_or_default();
        let message = Outgoing {
            retain: true,
            ..Outgoing::new(topic, QoS::AtMostOnce, text.as_bytes())
        };
        self.publish(&message, now);
    }
}

impl Extra {
    pub(crate) fn authenticated_by(method: &str) -> Box<Self> {
        Box::new(Self {
            method: Some(method.into()),
            ..Self::default()
        })
    }
}

impl Connection {
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    fn has_unanswered(&self) -> bool {
        self.extra
            .as_ref()
            .is_some_and(|extra| extra.unanswered.is_some())
    }

    /// Whether everything is answered.
    fn answer(&mut self) -> bool {
        !matches!(self.try_answer(), Err(Refused::Full))
    }

    fn try_answer(&mut self) -> Result<(), Refused> {
        let Some(extra) = &mut self.extra else {
            return Ok(());
        };
        let answered = match &extra.unanswered {
            None => return Ok(()),
            Some(Answer::Sub(id, codes)) => self.server.subscribed(&SubAck::new(*id, &codes[..])),
            Some(Answer::Unsub(id, codes)) => {
                self.server.unsubscribed(&UnsubAck::new(*id, &codes[..]))
            }
        };
        if answered != Err(Refused::Full) {
            extra.unanswered = None;
        }
        answered
    }
}

pub(crate) fn usize_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(crate) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

pub(crate) fn widen(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
