//! The server's end of one connection: which packets may come when, and what they mean to it. The host decides on
//! CONNECT, SUBSCRIBE and UNSUBSCRIBE; everything shared with the client lives in `session.rs`.

use core::fmt;

use mqtt_proto::{
    Auth, ConnAck, Connect, DecodeError, Decoded, Disconnect, Encode, Packet, PacketType, PingResp,
    Properties, PropertyId, Publish, ReasonCode, Rule, SubAck, TopicName, UnsubAck, Version,
};

use crate::bytes::copy;
use crate::config::Config;
use crate::connection::Phase;
use crate::error::{Refused, Violation};
use crate::event::{Incoming, Outgoing, Receipt, ServerEvent, Step, Token};
use crate::inbound::Arrival;
use crate::keep_alive::Watch;
use crate::session::{Side, fingerprint};
use crate::storage::Storage;
use crate::time::Instant;

/// One client as the server sees it: the session, which survives, and the connection, which does not.
///
/// Any call is legal at any time; what cannot be now is [`Refused`] and changes nothing.
pub struct Server<S: Storage> {
    side: Side<S>,
    watch: Watch,
    /// CONNECT came, and the host has not decided.
    undecided: bool,
    will: bool,
    keep_alive: u16,
    session_expiry: u32,
}

/// Whether the end of a connection makes the will due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WillDue {
    /// There was none, or DISCONNECT took it back (3.1.1 \[MQTT-3.14.4-3\], 5 \[MQTT-3.14.4-3\]).
    No,
    /// It is to be published (3.1.1 \[MQTT-3.1.2-8\], 5 \[MQTT-3.1.2-8\]), in 5 after its delay.
    Yes,
}

/// Tells the phase, never the contents: they may be secret.
impl<S: Storage> fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, pending) = (self.side.connection.phase, self.pending());
        f.debug_struct("Server")
            .field("phase", &phase)
            .field("pending", &pending)
            .finish_non_exhaustive()
    }
}

impl<S: Storage> Server<S> {
    /// A server without a connection and without a session.
    pub fn new(mut config: Config, storage: S) -> Self {
        config.receive_beyond_maximum = false;
        Self {
            side: Side::new(config, storage),
            watch: Watch::new(0, 0, Instant::default()),
            undecided: false,
            will: false,
            keep_alive: 0,
            session_expiry: 0,
        }
    }

    /// A client connected a transport. A connection that was there is given up.
    pub fn opened(&mut self, now: Instant) {
        // Until CONNECT says its version, everything is read as 3.1.1.
        self.side.open(Version::V311);
        self.watch = Watch::connecting(self.side.config.connect_timeout_ms, now);
        (
            self.undecided,
            self.will,
            self.keep_alive,
            self.session_expiry,
        ) = (false, false, 0, 0);
    }

    /// The transport is gone. Messages wait for the next connection of this session. Says whether the will is due.
    pub fn disconnected(&mut self) -> WillDue {
        self.side.lost();
        self.undecided = false;
        if core::mem::take(&mut self.will) {
            WillDue::Yes
        } else {
            WillDue::No
        }
    }

    /// The bytes that wait for the transport, as many as lie together: after [`Self::sent`] there may be more.
    #[must_use]
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.side.outgoing()
    }

    /// The transport took the first `n` bytes of [`Self::outgoing`]; any number is fine.
    #[inline]
    pub fn sent(&mut self, n: usize) {
        self.side.sent(n);
    }

    /// Looks at the front of the input and does one step. Call it until it needs more. After
    /// [`ServerEvent::Connect`] it is [`Step::Blocked`] until the host decides.
    ///
    /// # Errors
    /// The connection is over: write what is outgoing, close the transport, call [`Self::disconnected`].
    pub fn receive<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
    ) -> Result<Step<ServerEvent<'i>>, Violation> {
        if let Some((token, how)) = self.side.next_ended() {
            return Ok(Step::Packet {
                consumed: 0,
                event: Some(ServerEvent::Ended { token, how }),
            });
        }
        if let Some(step) = self.side.without_connection(input) {
            return Ok(step);
        }
        let common = self.side.common(input, forbidden, arrived, acknowledged);
        if let Some(step) = common {
            self.watch.received(now);
            return step.inspect_err(|violation| self.side.fail(violation));
        }
        // By reference: a packet is not moved on its way to its event.
        let (version, limit) = self.side.reads();
        match &Packet::decode(input, version, limit) {
            Ok(Decoded::Needs(needed)) => {
                self.watch.drained(now);
                Ok(Step::Needs(*needed))
            }
            // 3.1.1 [MQTT-3.1.4-5], 5 [MQTT-3.1.4-6]: what follows a CONNECT waits for the decision on it.
            Ok(Decoded::Packet { packet, .. })
                if self.undecided && packet.packet_type() != PacketType::Auth =>
            {
                Ok(Step::Blocked)
            }
            Ok(Decoded::Packet { packet, consumed }) => {
                self.watch.received(now);
                // Nothing is committed before any answer has room.
                if !self.side.answer_fits() {
                    return Ok(Step::Blocked);
                }
                match self.handle(packet) {
                    Ok(event) => Ok(Step::Packet {
                        consumed: *consumed,
                        event,
                    }),
                    Err(violation) => {
                        self.side.fail(&violation);
                        Err(violation)
                    }
                }
            }
            Err(error) => {
                self.answer_unknown_level(error);
                let violation = Violation::Malformed(*error);
                self.side.fail(&violation);
                Err(violation)
            }
        }
    }

    #[inline]
    fn handle<'i>(&mut self, packet: &Packet<'i>) -> Result<Option<ServerEvent<'i>>, Violation> {
        let side = &mut self.side;
        if let (Phase::Connected, Some((kind, ack))) = (side.connection.phase, packet.as_ack()) {
            return Ok(acknowledged(side.on_ack(kind, ack)?, ack.properties));
        }
        match (side.connection.phase, packet) {
            (Phase::Connected, Packet::Publish(publish)) if !forbidden(publish) => {
                Ok(arrived(side.on_publish(publish)?, *publish))
            }
            (Phase::Connected, Packet::Subscribe(subscribe)) => {
                Ok(Some(ServerEvent::Subscribe(*subscribe)))
            }
            (Phase::Connected, Packet::Unsubscribe(request)) => {
                Ok(Some(ServerEvent::Unsubscribe(*request)))
            }
            (Phase::Connected, Packet::PingReq) => {
                // 3.1.1 [MQTT-3.12.4-1], 5 [MQTT-3.12.4-1]; its room was made sure of.
                let _ = side.send(&PingResp);
                Ok(Some(ServerEvent::Ping))
            }
            (Phase::Connected, Packet::Disconnect(disconnect)) => {
                self.on_disconnect(*disconnect).map(Some)
            }
            // 3.1.1 [MQTT-3.1.0-1], 5 [MQTT-3.1.0-1]: the first packet, and (3.1.1 [MQTT-3.1.0-2], 5 [MQTT-3.1.0-2]) once.
            (Phase::Connecting, Packet::Connect(connect)) if !self.undecided => {
                Ok(Some(self.on_connect(*connect)))
            }
            (Phase::Connecting | Phase::Connected, Packet::Auth(auth)) => {
                if side.connection.authenticates {
                    Ok(Some(ServerEvent::Auth(*auth)))
                } else {
                    Err(Violation::AuthNotAgreed)
                }
            }
            (_, packet) => Err(Violation::Unexpected(packet.packet_type())),
        }
    }

    fn on_connect<'i>(&mut self, connect: Connect<'i>) -> ServerEvent<'i> {
        let Side {
            connection,
            config,
            must_start_clean,
            ..
        } = &mut self.side;
        connection.version = connect.version;
        connection.client = Some(fingerprint(connect.client_id));
        *must_start_clean = connect.clean_start;
        connection.authenticates = connect.properties.has(PropertyId::AuthenticationMethod);
        if connect.version.is_v5() {
            connection.agreed(&connect.properties, config);
        }
        self.keep_alive = connect.keep_alive;
        self.session_expiry = match connect.version {
            Version::V5 => connect.properties.session_expiry_interval().unwrap_or(0),
            // 3.1.1 [MQTT-3.1.2-6]: a clean session ends with its connection, any other does not by itself.
            Version::V31 | Version::V311 => {
                if connect.clean_start {
                    0
                } else {
                    u32::MAX
                }
            }
        };
        self.will = connect.will.is_some();
        self.undecided = true;
        ServerEvent::Connect(connect)
    }

    fn on_disconnect<'i>(
        &mut self,
        disconnect: Disconnect<'i>,
    ) -> Result<ServerEvent<'i>, Violation> {
        if let Some(expiry) = disconnect.properties.session_expiry_interval() {
            // 5, section 3.14.2.2.2: what was 0 cannot become something.
            if self.session_expiry == 0 && expiry != 0 {
                return Err(Violation::Unexpected(PacketType::Disconnect));
            }
            self.session_expiry = expiry;
        }
        // 3.1.1 [MQTT-3.14.4-3], 5 [MQTT-3.14.4-3]
        if disconnect.reason == ReasonCode::Success {
            self.will = false;
        }
        self.side.connection.phase = Phase::Closing;
        Ok(ServerEvent::Disconnected(disconnect))
    }

    /// 3.1.1 [MQTT-3.1.2-2], 5 [MQTT-3.1.2-2]: a level nobody here speaks is answered in the words of its neighbour.
    fn answer_unknown_level(&mut self, error: &DecodeError) {
        if let (Phase::Connecting, Rule::ProtocolLevel { found }) =
            (self.side.connection.phase, error.rule)
        {
            let version = if found > 4 {
                Version::V5
            } else {
                Version::V311
            };
            let connack = ConnAck {
                reason: ReasonCode::UnsupportedProtocolVersion,
                ..ConnAck::default()
            };
            let mut bytes = [0; 8];
            if let Ok(len) = connack.encode(version, &mut bytes)
                && let (Some(room), Some(bytes)) = (self.side.outbox.control(len), bytes.get(..len))
            {
                copy(room, bytes);
                self.side.outbox.advance(len);
            }
        }
    }

    /// Accepts the connection. With `session_present` the session goes on where it was, otherwise it begins anew.
    /// What the properties announce is what the client is held to.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] if no CONNECT awaits a decision, or `connack` says session present after a clean start
    /// (3.1.1 \[MQTT-3.2.2-1\], 5 \[MQTT-3.2.2-2\]).
    pub fn accept(&mut self, connack: &ConnAck<'_>, now: Instant) -> Result<(), Refused> {
        let connection = &mut self.side.connection;
        let impossible = connack.session_present && self.side.must_start_clean;
        if !self.undecided || impossible || connack.reason != ReasonCode::Success {
            return Err(Refused::WrongPhase);
        }
        connection.announced(&connack.properties);
        let version = connection.version;
        self.side.send(connack)?;
        self.undecided = false;
        self.side.session.outbound.set_version(version);
        self.side.session.inbound.set_version(version);
        let assigned = connack
            .properties
            .assigned_client_identifier()
            .map(fingerprint);
        self.side.session.inbound.owner = assigned.or(self.side.connection.client);
        if let Some(expiry) = connack.properties.session_expiry_interval() {
            self.session_expiry = expiry;
        }
        // 5 [MQTT-3.1.2-21]
        let keep_alive = connack
            .properties
            .server_keep_alive()
            .unwrap_or(self.keep_alive);
        self.watch = Watch::new(keep_alive, self.side.config.keep_alive_percent, now);
        self.side.connected(connack.session_present);
        Ok(())
    }

    /// Refuses the connection: CONNACK with the reason is the last that goes out (3.1.1 \[MQTT-3.2.2-5\]).
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] if no CONNECT awaits a decision; [`Refused::Encode`] for a reason that its version does
    /// not have.
    pub fn refuse(&mut self, connack: &ConnAck<'_>) -> Result<(), Refused> {
        if !self.undecided || connack.reason == ReasonCode::Success {
            return Err(Refused::WrongPhase);
        }
        self.side.send(connack)?;
        // 3.1.1 [MQTT-3.1.2-8]: a will exists only for a connection that was accepted.
        (self.undecided, self.will) = (false, false);
        self.side.connection.phase = Phase::Closing;
        Ok(())
    }

    /// Publishes a message to this client. `None` for QoS 0 on a connection, unless it is large, see
    /// [`Config::outgoing_limit`].
    ///
    /// # Errors
    /// As [`crate::Client::publish`].
    #[inline]
    pub fn publish(&mut self, message: &Outgoing<'_>) -> Result<Option<Token>, Refused> {
        self.side.publish(message)
    }

    /// Acknowledges a message by hand. In any order.
    ///
    /// # Errors
    /// As [`crate::Client::acknowledge`].
    pub fn acknowledge(&mut self, receipt: Receipt, reason: ReasonCode) -> Result<(), Refused> {
        self.side.acknowledge(receipt, reason)
    }

    /// Answers a SUBSCRIBE.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection, [`Refused::Full`] without room.
    pub fn subscribed(&mut self, suback: &SubAck<'_>) -> Result<(), Refused> {
        self.answer(suback)
    }

    /// Answers an UNSUBSCRIBE.
    ///
    /// # Errors
    /// As [`Self::subscribed`].
    pub fn unsubscribed(&mut self, unsuback: &UnsubAck<'_>) -> Result<(), Refused> {
        self.answer(unsuback)
    }

    /// Goes on with an authentication (5, section 4.12).
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] if CONNECT named no method (5 \[MQTT-4.12.0-6\]).
    pub fn authenticate(&mut self, auth: &Auth<'_>) -> Result<(), Refused> {
        let open = self.undecided || self.side.is_connected();
        if !open || !self.side.connection.authenticates {
            return Err(Refused::WrongPhase);
        }
        self.side.send(auth)
    }

    fn answer(&mut self, packet: &impl Encode) -> Result<(), Refused> {
        if !self.side.is_connected() {
            return Err(Refused::WrongPhase);
        }
        self.side.send(packet)
    }

    /// Ends the connection: MQTT 5 says why by DISCONNECT, earlier versions just close. Write what is outgoing, then
    /// close the transport.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection.
    pub fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Refused> {
        if self.side.connection.version.is_v5() {
            return self.side.disconnect(disconnect);
        }
        if !self.side.is_connected() {
            return Err(Refused::WrongPhase);
        }
        self.side.connection.phase = Phase::Closing;
        Ok(())
    }

    /// Time passes.
    ///
    /// # Errors
    /// The client was silent for too long, or did not say CONNECT in time: as for [`Self::receive`].
    pub fn tick(&mut self, now: Instant) -> Result<(), Violation> {
        match self.side.connection.phase {
            Phase::Connecting if !self.undecided && now >= self.watch.connect_by() => {
                self.side.time_out(Violation::ConnectTimeout)
            }
            Phase::Connected if now >= self.watch.deadline() => {
                self.side.time_out(Violation::KeepAliveTimeout)
            }
            _ => Ok(()),
        }
    }

    /// When [`Self::tick`] is to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.side.connection.phase {
            Phase::Connecting if !self.undecided => self.watch.connect_by().real(),
            Phase::Connected => self.watch.deadline().real(),
            _ => None,
        }
    }

    /// The topic of an incoming message: its own, or what its alias stands for (5).
    #[must_use]
    pub fn topic<'a>(&'a self, publish: &Publish<'a>) -> TopicName<'a> {
        if publish.topic.is_none() {
            self.side.topic(publish).unwrap_or_default()
        } else {
            publish.topic
        }
    }

    /// Whether this session belongs to `client_id`, so that it can be resumed.
    #[must_use]
    pub fn has_session_of(&self, client_id: &str) -> bool {
        self.side.session.inbound.owner == Some(fingerprint(client_id))
    }

    /// How long the session outlives its connection, in seconds: 0 not at all, `u32::MAX` for ever.
    #[must_use]
    pub const fn session_expiry(&self) -> u32 {
        self.session_expiry
    }

    /// Gives the session of `other` to this connection and takes the one it had: what a host does between CONNECT and
    /// [`Self::accept`] when the client was known under another connection, and when a connection ends whose session
    /// stays. Each session goes on with the next `accept`, as after [`Self::disconnected`]. A connection of which a part of a
    /// large message was sent ends, see [`Config::outgoing_limit`].
    pub fn swap_session(&mut self, other: &mut Self) {
        self.side.stop_large();
        other.side.stop_large();
        core::mem::swap(&mut self.side.session, &mut other.side.session);
        for session in [&mut self.side.session, &mut other.side.session] {
            session.outbound.disconnected();
            session.inbound.disconnected();
        }
    }

    /// Whether there is a will that the end of the connection makes due.
    #[must_use]
    pub const fn will_due(&self) -> WillDue {
        if self.will { WillDue::Yes } else { WillDue::No }
    }

    /// How many messages were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.side.session.outbound.pending()
    }

    /// Whether the connection is established.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.side.is_connected()
    }

    /// Whether the connection is over: write what is outgoing, then close the transport.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.side.connection.phase, Phase::Closing)
    }

    /// The version that CONNECT asked for.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.side.connection.version
    }
}

/// 5 [MQTT-3.3.4-6]: only servers put subscription identifiers into PUBLISH.
fn forbidden(publish: &Publish<'_>) -> bool {
    publish.properties.has(PropertyId::SubscriptionIdentifier)
}

const fn arrived(arrival: Arrival, publish: Publish<'_>) -> Option<ServerEvent<'_>> {
    match arrival {
        Arrival::New(receipt) => Some(ServerEvent::Message(Incoming { publish, receipt })),
        Arrival::Repeated => None,
    }
}

fn acknowledged(
    ended: Option<(Token, ReasonCode)>,
    properties: Properties<'_>,
) -> Option<ServerEvent<'_>> {
    ended.map(|(token, reason)| ServerEvent::Acknowledged {
        token,
        reason,
        properties,
    })
}
