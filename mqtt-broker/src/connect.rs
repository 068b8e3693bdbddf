//! Decides on CONNECT, and connects clients with their sessions.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use mqtt_session::proto::num::to_usize;
use mqtt_session::proto::{
    ConnAck, Connect, Decoded, FixedHeader, MAX_PACKET, Packet, PacketType, Properties, Property,
    ReasonCode, TopicName, Version, Will as CarriedWill,
};
use mqtt_session::{Instant, Outgoing, Server};

use crate::broker::{Broker, Next};
use crate::connection::{ConnectionId, Extra};
use crate::hooks::{ClientInfo, Ending, Hooks, Observation, Verdict};
use crate::keys::{ConnectionKey, SessionKey};
use crate::message::Message;
use crate::session::{Session, Will};
use crate::timers::Due;

/// The steps of a CONNECT, for its session and what the hooks do: it takes more than 10 microseconds.
const CONNECT: usize = 128;

/// The facts about an accepted client that are collected before it gets its session.
struct Entrant {
    /// The session of its identifier.
    known: Option<SessionKey>,
    /// Whether another user made that session.
    is_of_another: bool,
    /// A number for the address of the client; 0 if the address is not known.
    source: u64,
    will: Option<Box<Will>>,
}

/// Decodes a CONNECT that was kept until its decision.
pub(crate) fn decode(packet: &[u8]) -> Option<Connect<'_>> {
    match Packet::decode(packet, Version::V5, MAX_PACKET) {
        Ok(Decoded::Packet {
            packet: Packet::Connect(connect),
            ..
        }) => Some(connect),
        _ => None,
    }
}

impl<H: Hooks> Broker<H> {
    /// Returns what a connection waits for whose CONNECT is not accepted. A packet that is too large is refused as soon as its length is
    /// known.
    pub(crate) fn must_wait_before_connack(
        &mut self,
        id: ConnectionId,
        input: &[u8],
        now: Instant,
    ) -> Option<Next> {
        let limit = self.config.connect_size.min(self.config.packet_size);
        // The machine reports other errors of the header.
        let header = FixedHeader::decode(input, Version::V5, MAX_PACKET).ok()??;
        let len = header.packet_len();
        if len <= to_usize(limit) {
            return None;
        }
        let connection = self.connections.get_mut(id.index)?;
        let extra = connection.extra.as_ref();
        let awaits_decision = extra.is_some_and(|extra| extra.connect.is_some());
        let ending = match header.packet_type {
            // 3.1.1 [MQTT-3.1.4-5], 5 [MQTT-3.1.4-6]: packets after CONNECT wait for the decision. Then they may be longer.
            kind if awaits_decision && kind != PacketType::Auth => return Some(Next::Blocked),
            PacketType::Connect
                if !connection.server.refuse_size(input) && input.len() < Server::CONNECT_LEVEL =>
            {
                return Some(Next::Needs(Server::CONNECT_LEVEL));
            }
            PacketType::Connect => Ending::ConnectTooLarge { len, limit },
            _ => Ending::ByBroker(ReasonCode::PacketTooLarge),
        };
        self.end(id.index, ending, now);
        Some(Next::Closing)
    }

    pub(crate) fn on_connect(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        packet: &[u8],
        now: Instant,
    ) {
        self.meter.spend(CONNECT);
        let method = connect.properties.authentication_method();
        let verdict = match (refusal(connect, &self.config), method) {
            (Some(reason), _) => Verdict::Refuse(reason),
            // 5 [MQTT-4.12.0-1]: the host refuses an unknown method.
            (None, Some(method)) => {
                let data = connect.properties.authentication_data();
                self.hooks.authenticate(id, method, data)
            }
            (None, None) => self.hooks.connect(id, connect),
        };
        self.decided(id.index, connect, packet, verdict, now);
    }

    pub(crate) fn decided(
        &mut self,
        index: ConnectionKey,
        connect: &Connect<'_>,
        packet: &[u8],
        verdict: Verdict,
        now: Instant,
    ) {
        let method = connect.properties.authentication_method();
        match verdict {
            Verdict::Accept => self.accept(index, connect, None, now),
            Verdict::AcceptWith(data) => self.accept(index, connect, Some(&data), now),
            Verdict::AcceptAs(user) => {
                let connect = Connect {
                    user_name: Some(&user),
                    ..*connect
                };
                self.accept(index, &connect, None, now);
            }
            Verdict::Refuse(reason) => self.refuse_client(index, connect, reason, now),
            Verdict::Later => self.keep_connect(index, packet),
            // 5 [MQTT-4.12.0-2]
            Verdict::Continue(data) => {
                self.keep_connect(index, packet);
                let reason = ReasonCode::ContinueAuthentication;
                let sent =
                    method.map(|method| self.send_auth(index, reason, method, Some(&data)).is_ok());
                if sent != Some(true) {
                    self.refuse(index, ReasonCode::UnspecifiedError, now);
                }
            }
        }
    }

    fn keep_connect(&mut self, index: ConnectionKey, packet: &[u8]) {
        if let Some(connection) = self.connections.get_mut(index) {
            let extra = connection.extra();
            if extra.connect.is_none() {
                extra.connect = Some(packet.into());
            }
        }
    }

    /// Refuses a client and reports it to the host.
    fn refuse_client(
        &mut self,
        index: ConnectionKey,
        connect: &Connect<'_>,
        reason: ReasonCode,
        now: Instant,
    ) {
        let client = ClientInfo {
            client_id: connect.client_id,
            user_name: connect.user_name,
            version: connect.version,
        };
        self.report_refused(index, client, reason);
        self.refuse(index, reason, now);
    }

    fn report_refused(&mut self, index: ConnectionKey, client: ClientInfo<'_>, reason: ReasonCode) {
        if let Some(connection) = self.id(index) {
            self.hooks.observe(&Observation::Refused {
                connection,
                client,
                reason,
            });
        }
    }

    pub(crate) fn refuse(&mut self, index: ConnectionKey, reason: ReasonCode, now: Instant) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        // 3.1.1 has five return codes for a refusal.
        let said = if connection.server.version().is_v5() || reason.to_return_code().is_some() {
            reason
        } else {
            match reason {
                ReasonCode::BadAuthenticationMethod | ReasonCode::Banned => {
                    ReasonCode::NotAuthorized
                }
                _ => ReasonCode::ServerUnavailable,
            }
        };
        // 5 [MQTT-3.1.4-2] and [MQTT-4.12.0-4]; 3.1.1 [MQTT-3.2.2-4], 5 [MQTT-3.2.2-6]: without session present.
        let _ = connection.server.refuse(&ConnAck {
            reason: said,
            ..ConnAck::default()
        });
        self.end(index, Ending::ConnectRefused(reason), now);
    }

    fn accept(
        &mut self,
        index: ConnectionKey,
        connect: &Connect<'_>,
        data: Option<&[u8]>,
        now: Instant,
    ) {
        // 3.1.1 [MQTT-3.1.3-6], 5 [MQTT-3.1.3-6] and [MQTT-3.1.3-7]: a client without an identifier gets a unique one.
        // 3.1.1 [MQTT-3.1.3-5], 5 [MQTT-3.1.3-5]: any other identifier is accepted.
        let assigned = connect
            .client_id
            .is_empty()
            .then(|| format!("auto-{:032x}", self.hooks.unguessable()))
            .map(|name| self.name_of_own(name));
        let client = ClientInfo {
            client_id: assigned.as_deref().unwrap_or(connect.client_id),
            user_name: connect.user_name,
            version: connect.version,
        };
        let before = self.position();
        let Some(entrant) = self.admit(index, connect, &client, now) else {
            return;
        };
        let (key, resumed) = self.session_of(&entrant, connect, client.client_id, now);
        self.was_accepted_or_ended(index);
        self.attach(index, key, connect, entrant.will);
        let session_expiry = self.session_expiry(connect);
        self.record_connected(index, key, session_expiry, before);
        let properties = self.announce(connect, assigned.as_deref(), data, session_expiry);
        let connack = ConnAck {
            // 3.1.1 [MQTT-3.2.2-2] and [MQTT-3.2.2-3], 5 [MQTT-3.2.2-3]: CONNACK tells whether the server has the session.
            // 3.1.1 [MQTT-3.1.4-4], 5 [MQTT-3.1.4-5]: CONNACK reports success.
            session_present: resumed,
            reason: ReasonCode::Success,
            properties: Properties::from(&properties[..]),
        };
        let accepted = self
            .connections
            .get_mut(index)
            .map(|connection| connection.server.accept(&connack, now));
        let connected = &mut self.statistics.clients_connected;
        *connected = connected.saturating_add(1);
        if accepted != Some(Ok(())) {
            // The client does not accept a packet of the size of its CONNACK. It was not connected, so it has no will.
            if let Some(session) = self.sessions.get_mut(key) {
                drop(session.take_will(&mut self.will_bytes));
            }
            let reason = ReasonCode::PacketTooLarge;
            self.report_refused(index, client, reason);
            return self.end(index, Ending::ConnectRefused(reason), now);
        }
        self.recount(index);
        self.schedule(index);
        self.report_connected(index, client, resumed);
        self.mark_ready(index);
        self.pump(key, now);
    }

    /// Returns what is known of a client that may have a session. Refuses any other, and returns `None`.
    fn admit(
        &mut self,
        index: ConnectionKey,
        connect: &Connect<'_>,
        client: &ClientInfo<'_>,
        now: Instant,
    ) -> Option<Entrant> {
        if let Some(will) = &connect.will
            && (is_reserved(will.topic) || !self.hooks.may_publish(client, will.topic))
        {
            self.refuse_client(index, connect, ReasonCode::NotAuthorized, now);
            return None;
        }
        let known = self.known(client.client_id, now);
        let is_of_another = known.is_some_and(|key| self.is_of_another(key, connect.user_name));
        if is_of_another && !self.config.client_ids_of_others {
            self.refuse_client(index, connect, ReasonCode::NotAuthorized, now);
            return None;
        }
        let expiry = self.session_expiry(connect);
        if self.storage_is_refused()
            && (connect.will.is_some() || expiry > 0 && (known.is_none() || connect.clean_start))
        {
            self.refuse_client(index, connect, ReasonCode::QuotaExceeded, now);
            return None;
        }
        let connection = self.connections.get(index);
        let source = connection.map_or(0, |connection| connection.source);
        let will = connect.will.as_ref().and_then(|will| new_will(will, now));
        let will_size = will.as_ref().map_or(0, |will| will.message.size());
        let has_room = self.has_room_for_will(will_size)
            && match known {
                None => self.has_room_for_session(source, connect.user_name, now),
                Some(_) => !is_of_another || self.has_room_for_user(connect.user_name),
            };
        if !has_room {
            self.refuse_client(index, connect, ReasonCode::QuotaExceeded, now);
            return None;
        }
        Some(Entrant {
            known,
            is_of_another,
            source,
            will,
        })
    }

    /// Returns the session that a client gets, and whether it existed before.
    fn session_of(
        &mut self,
        entrant: &Entrant,
        connect: &Connect<'_>,
        client_id: &str,
        now: Instant,
    ) -> (SessionKey, bool) {
        let former = entrant.known.and_then(|key| self.keep_places(key));
        if let Some(key) = entrant.known {
            // 3.1.1 [MQTT-3.1.4-2], 5 [MQTT-3.1.4-3]
            let other = self.sessions.get(key).and_then(|s| s.connection);
            if let Some(other) = other {
                self.close(other, ReasonCode::SessionTakenOver, now);
            }
            // 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.1.2-4]; the messages of a session are for its user only.
            if connect.clean_start || entrant.is_of_another {
                self.end_session(key, now);
            }
        }
        // The session may have ended with its connection. 3.1.1 [MQTT-3.1.2-4] and [MQTT-3.1.4-3],
        // 5 [MQTT-3.1.2-5], [MQTT-3.1.2-6] and [MQTT-3.1.4-4]: the existing session is resumed, or a new one is made.
        let resumed = self.clients.get(client_id).copied();
        let key = resumed.unwrap_or_else(|| {
            self.hold_session(connect.user_name);
            self.new_session(client_id)
        });
        self.session_is_used(key, entrant.source);
        if let Some(former) = former {
            self.pass_places(&former, connect.user_name, entrant.source);
        }
        (key, resumed.is_some())
    }

    fn report_connected(&mut self, index: ConnectionKey, client: ClientInfo<'_>, resumed: bool) {
        let statistics = &mut self.statistics;
        statistics.clients_maximum = statistics.clients_maximum.max(statistics.clients_connected);
        if let Some(connection) = self.id(index) {
            self.hooks.observe(&Observation::Connected {
                connection,
                client,
                resumed,
            });
        }
    }

    /// Returns the session of a client, unless it has ended.
    fn known(&mut self, client_id: &str, now: Instant) -> Option<SessionKey> {
        let key = *self.clients.get(client_id)?;
        self.session_due(key, now);
        self.clients.get(client_id).copied()
    }

    /// Returns whether another user made the session.
    fn is_of_another(&self, key: SessionKey, user_name: Option<&str>) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| session.user_name.as_deref() != user_name)
    }

    fn new_session(&mut self, client_id: &str) -> SessionKey {
        let client_id: Arc<str> = client_id.into();
        self.session_serial = self.session_serial.wrapping_add(1);
        let hash = self.clients.hasher().hash_one(&client_id);
        let session = Session::new(Arc::clone(&client_id), hash, self.session_serial);
        let key = self.sessions.insert(session);
        self.clients.insert(client_id, key);
        key
    }

    /// Connects a connection with its session, which gets the will.
    pub(crate) fn attach(
        &mut self,
        index: ConnectionKey,
        key: SessionKey,
        connect: &Connect<'_>,
        will: Option<Box<Will>>,
    ) {
        let (Some(connection), Some(session)) =
            (self.connections.get_mut(index), self.sessions.get_mut(key))
        else {
            return;
        };
        if let Some(due) = session.due() {
            self.timers.clear(due, Due::Session(key));
        }
        if let Some(mut parked) = session.parked.take() {
            connection.server.swap_session(&mut parked);
            self.heap_bytes = self.heap_bytes.saturating_sub(session.held.bytes());
            self.parked.set(key, &mut session.held, 0);
        }
        if let Some(idle) = session.idle.take() {
            self.unused_sessions.remove(&idle);
        }
        // 5 [MQTT-3.1.3-9]: a will whose delay has not passed is not sent any more.
        session.take_will(&mut self.will_bytes);
        connection.session = Some(key);
        let most = connect.properties.receive_maximum().unwrap_or(u16::MAX);
        connection.window = usize::from(most.min(self.config.window.max(1)));
        session.queue.connected();
        let is_empty = session.queue.is_empty() && session.filters.is_empty();
        session.rights.connected(self.rights, is_empty);
        connection.extra = Extra::of(connect);
        session.connection = Some(index);
        session.version = connect.version;
        session.publisher = None;
        session.user_name = connect.user_name.map(Into::into);
        (session.will_at, session.ends_at) = (None, None);
        // 3.1.1 [MQTT-3.1.2-9] and [MQTT-3.1.2-12], 5 [MQTT-3.1.2-7] and [MQTT-3.1.2-9]: without a will, nothing is published
        // later.
        session.will = will;
        let will = session.will.as_ref().map_or(0, |will| will.message.size());
        self.will_bytes.moves(0, will);
        if self.links.is_some() {
            self.members_changed(key, true);
        }
    }

    fn has_room_for_will(&self, size: usize) -> bool {
        let (limit, sessions) = (self.config.will_bytes, self.most_sessions());
        size == 0 || self.will_bytes.allows(0, size, limit, sessions)
    }

    /// Returns how long the session may outlive this connection, in seconds.
    fn session_expiry(&self, connect: &Connect<'_>) -> u32 {
        let most = self.config.session_expiry_maximum;
        connect.session_expiry().min(most)
    }

    /// Returns the properties of CONNACK in MQTT 5.
    fn announce<'a>(
        &self,
        connect: &Connect<'a>,
        assigned: Option<&'a str>,
        data: Option<&'a [u8]>,
        session_expiry: u32,
    ) -> Vec<Property<'a>> {
        if !connect.version.is_v5() {
            return Vec::new();
        }
        let config = &self.config;
        // 5 [MQTT-3.1.2-28]: the broker sends no response information.
        let mut properties = vec![
            Property::ReceiveMaximum(nonzero(config.receive_maximum)),
            Property::MaximumPacketSize(nonzero(config.packet_size)),
        ];
        if config.topic_alias_maximum > 0 {
            properties.push(Property::TopicAliasMaximum(config.topic_alias_maximum));
        }
        // 5 [MQTT-3.2.2-9]; 5 [MQTT-3.2.2-10]: SUBSCRIBE may ask for any QoS nevertheless.
        if config.maximum_qos < 2 {
            properties.push(Property::MaximumQoS(config.maximum_qos == 1));
        }
        if !config.retain_available {
            properties.push(Property::RetainAvailable(false));
        }
        let asked = connect.properties.session_expiry_interval().unwrap_or(0);
        if session_expiry != asked {
            properties.push(Property::SessionExpiryInterval(session_expiry));
        }
        let most = config.keep_alive_maximum;
        if most > 0 && (connect.keep_alive == 0 || connect.keep_alive > most) {
            properties.push(Property::ServerKeepAlive(most));
        }
        // 5 [MQTT-3.2.2-16]
        properties.extend(assigned.map(Property::AssignedClientIdentifier));
        // 5 [MQTT-4.12.0-5]
        if let Some(method) = connect.properties.authentication_method() {
            properties.push(Property::AuthenticationMethod(method));
            properties.extend(data.map(Property::AuthenticationData));
        }
        properties
    }
}

/// Returns whether only the broker may publish to a topic.
pub(crate) fn is_reserved(topic: TopicName<'_>) -> bool {
    let below = topic.as_str().strip_prefix("$SYS");
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && !is_bridge_state(topic.as_str())
}

/// Returns whether a bridge of Mosquitto publishes its state to this topic, also by its will.
fn is_bridge_state(topic: &str) -> bool {
    topic
        .strip_prefix("$SYS/broker/connection/")
        .and_then(|rest| rest.strip_suffix("/state"))
        .is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Returns why a CONNECT cannot be accepted from any client.
pub(crate) fn refusal(connect: &Connect<'_>, config: &crate::Config) -> Option<ReasonCode> {
    // 3.1.1 [MQTT-3.1.3-8] 3.1.1 [MQTT-3.1.3-9]: CONNACK has the return code 0x02.
    if connect.lacks_client_id() {
        return Some(ReasonCode::ClientIdentifierNotValid);
    }
    // 3.1.1 [MQTT-3.1.2-2], 5 [MQTT-3.1.2-2]
    if !config.versions.contains(&connect.version) {
        return Some(ReasonCode::UnsupportedProtocolVersion);
    }
    // 5 [MQTT-3.1.3-8]
    if connect.client_id.is_empty() && !config.empty_client_ids {
        return Some(ReasonCode::ClientIdentifierNotValid);
    }
    // 3.1.1 [MQTT-3.1.3-5], 5 [MQTT-3.1.3-5]: up to 23 bytes are accepted with any setting.
    let longest = config.client_id_length.max(23);
    if connect.client_id.len() > longest {
        return Some(ReasonCode::ClientIdentifierNotValid);
    }
    if connect.user_name.is_some_and(|name| name.len() > longest) {
        return Some(ReasonCode::BadUserNameOrPassword);
    }
    let will = connect.will.as_ref();
    // 5 [MQTT-3.2.2-12] and [MQTT-3.2.2-13]
    let refused = will.and_then(|will| config.refuses(will.qos, will.retain));
    if refused.is_some() {
        return refused;
    }
    if will.is_some_and(|will| !config.allows_topic(will.topic.as_bytes())) {
        return Some(ReasonCode::TopicNameInvalid);
    }
    if will.is_some_and(|will| will.payload.len() > config.payload_size) {
        return Some(ReasonCode::QuotaExceeded);
    }
    None
}

/// Returns a limit that can be announced: at least 1.
fn nonzero<T: Default + From<u8> + PartialEq>(limit: T) -> T {
    if limit == T::default() {
        T::from(1)
    } else {
        limit
    }
}

/// Returns the will of a CONNECT as it is stored.
fn new_will(will: &CarriedWill<'_>, now: Instant) -> Option<Box<Will>> {
    let delay = will.properties.will_delay_interval().unwrap_or(0);
    // 5 [MQTT-3.1.3-10]: user properties keep their order.
    let properties: Vec<Property<'_>> = will
        .properties
        .iter()
        .filter(|property| !matches!(property, Property::WillDelayInterval(_)))
        .collect();
    let message = Outgoing {
        retain: will.retain,
        properties: Properties::from(&properties[..]),
        ..Outgoing::new(will.topic, will.qos, will.payload)
    };
    let message = Message::new(&message, now).ok()?;
    let delay = Duration::from_secs(u64::from(delay));
    Some(Box::new(Will { message, delay }))
}
