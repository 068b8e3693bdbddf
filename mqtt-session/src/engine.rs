//! The engine: one end of one connection and its session, without memory, lifetime or type parameter. Each call gets the memory as an
//! argument. The engine has three roles: a client, a server, and a server whose peer is a server of the same broker. The roles differ
//! in the packets that they accept, in their time-outs, and in who begins and ends a connection.
//!
//! ```text
//! receive.rs   incoming packets: one step, one match by packet type
//! outbound.rs  messages to the peer      requests.rs  SUBSCRIBE and UNSUBSCRIBE      slots.rs  the table of both
//! inbound.rs   messages from the peer    pieces.rs    those larger than the input buffer
//! outgoing.rs  bytes for the transport   large.rs     packets that are sent from where they are kept
//! link.rs      what ends with the connection      keep_alive.rs  time      aliases.rs  topic aliases
//! client.rs, server.rs  typed commands and events of the two roles      endpoint.rs  the methods of both
//! ```

use mqtt_proto::write::Body;
use mqtt_proto::{Auth, Connect, Disconnect, PacketType, ReasonCode, Version};

use crate::config::{Config, SessionLost};
use crate::error::Refused;
use crate::event::Ended;
use crate::large::Large;
use crate::link::{Link, Phase, fingerprint, written_properties};
use crate::memory::Memory;
use crate::slots::Awaits;
use crate::tune::{POLICIES, SERVER, V5};

/// The length of what is before the properties of CONNECT: protocol name, level, flags and keep-alive.
const BEFORE_PROPERTIES: usize = 10;

/// The state that belongs to a client identifier, not to a connection (section 4.1).
#[derive(Debug)]
pub(crate) struct Session {
    /// The fingerprint of the client identifier that this session belongs to; 0 while there is none.
    pub(crate) owner: u32,
    /// The number of the last message or request that got a packet identifier.
    pub(crate) last: u32,
    /// The end of the last packet in `kept`.
    pub(crate) kept_end: u32,
    /// How many QoS 0 messages were kept so far.
    pub(crate) unnumbered: u16,
    /// The slots in use: the index of the first, how many there are, how many of them are free again, and how many have ended.
    pub(crate) start: u16,
    pub(crate) len: u16,
    pub(crate) free: u16,
    pub(crate) ended: u16,
    /// The received messages that have not ended: the index of the first, and how many there are.
    pub(crate) received_start: u16,
    pub(crate) received: u16,
    /// How many of them are acknowledged by hand and wait for their turn, at QoS 1 and at QoS 2.
    pub(crate) acknowledged: [u16; 2],
    /// The serial number of the last received message.
    pub(crate) serial: u16,
    /// Whether the packet identifiers of the received messages are out of order.
    pub(crate) unordered: bool,
    /// The version in which the packets in `kept` are encoded.
    pub(crate) version: Version,
}

impl Session {
    const fn new(version: Version) -> Self {
        Self {
            owner: 0,
            last: 0,
            kept_end: 0,
            unnumbered: 0,
            start: 0,
            len: 0,
            free: 0,
            ended: 0,
            received_start: 0,
            received: 0,
            acknowledged: [0, 0],
            serial: 0,
            unordered: false,
            version,
        }
    }
}

/// The terms of a connection: those that the client asked for in CONNECT, or those that its host decided instead.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// How long the session outlives its connection, in seconds.
    pub(crate) session_expiry: u32,
    /// The keep-alive in seconds.
    pub(crate) keep_alive: u16,
    /// Whether there is a will that the end of the connection makes due.
    pub(crate) will: bool,
}

/// The side of a connection that an engine is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Client,
    #[cfg(feature = "server")]
    Server,
    /// A server whose client is a server as well, a part of the same broker: messages have subscription identifiers in both directions.
    #[cfg(feature = "server")]
    ServerOfServer,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) session: Session,
    pub(crate) link: Link,
    /// The packet that is sent from where it is kept. It ends with the connection, but the session still has its slot.
    pub(crate) large: Large,
    /// Whether the next CONNECT has to start a new session: the peer has, or may have, another session than this side, or this
    /// session is to be forgotten.
    pub(crate) must_start_clean: bool,
    role: Role,
    #[cfg(feature = "server")]
    pub(crate) terms: Terms,
    #[cfg(feature = "journal")]
    pub(crate) journal: Option<crate::journal::Boxed>,
}

impl Engine {
    pub(crate) fn new(config: Config, role: Role) -> Self {
        Self {
            session: Session::new(config.version),
            link: Link::new(config.version, &config),
            config,
            large: Large::NONE,
            must_start_clean: false,
            role,
            #[cfg(feature = "server")]
            terms: Terms::default(),
            #[cfg(feature = "journal")]
            journal: None,
        }
    }

    /// Makes the peer of a server a server as well.
    #[cfg(feature = "server")]
    pub(crate) const fn serve_server(&mut self) {
        self.role = Role::ServerOfServer;
    }

    /// Returns whether the peer is a server as well.
    #[cfg(feature = "server")]
    pub(crate) const fn serves_server(&self) -> bool {
        matches!(self.role, Role::ServerOfServer)
    }

    #[inline]
    pub(crate) const fn is_server(&self) -> bool {
        SERVER && !matches!(self.role, Role::Client)
    }

    #[inline]
    pub(crate) const fn is_v5(&self) -> bool {
        V5 && self.link.version.is_v5()
    }

    #[inline]
    pub(crate) const fn is_connected(&self) -> bool {
        matches!(self.link.phase, Phase::Connected)
    }

    /// Returns whether an end has not been reported yet.
    #[inline]
    pub(crate) const fn has_ended(&self) -> bool {
        self.session.ended > 0
    }

    /// Starts a network connection. Nothing of the last one stays.
    pub(crate) fn open(&mut self, m: &mut Memory<'_>, version: Version, now: u32) {
        self.disconnected(m);
        (self.link.phase, self.link.version) = (Phase::Connecting, version);
        self.link.times.opened(now);
    }

    /// Ends the network connection. Messages wait for the next one, and requests end in doubt.
    pub(crate) fn disconnected(&mut self, m: &mut Memory<'_>) {
        // 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-3.1.2-23]: the session stays.
        self.stop_large(m);
        if self.link.phase != Phase::Offline {
            self.park(m);
        }
        self.link = Link::new(self.link.version, &self.config);
        self.clear_barriers();
    }

    /// Makes everything in the session independent of this connection: messages are to be sent again, and requests end in
    /// doubt.
    pub(crate) fn park(&mut self, m: &mut Memory<'_>) {
        self.record_deferred(m);
        for index in 0..usize::from(self.session.len) {
            let Some(slot) = self.slot_mut(m, index) else {
                break;
            };
            slot.disconnected();
            if slot.awaits.is_request() {
                self.end_empty(m, index, Ended::InDoubt);
            }
        }
        let link = &mut self.link;
        (link.in_flight, link.in_flight_qos2, link.cursor) = (0, 0, 0);
        self.received_disconnected(m);
    }

    /// Starts a connection: writes CONNECT to the outgoing bytes.
    pub(crate) fn connect(
        &mut self,
        m: &mut Memory<'_>,
        connect: &Connect<'_>,
        now: u32,
    ) -> Result<(), Refused> {
        if connect.lacks_client_id() {
            return Err(Refused::NoClientIdentifier);
        }
        if self.must_start_clean && !connect.clean_start {
            return Err(Refused::MustStartClean);
        }
        if !self.connect_record_fits(m, connect.client_id) {
            return Err(Refused::Full);
        }
        self.open(m, connect.version, now);
        let link = &mut self.link;
        link.client = fingerprint(connect.client_id.as_bytes());
        link.times.pings_every(connect.keep_alive);
        let written = self.send(m, connect);
        if written.is_err() {
            self.disconnected(m);
            return written;
        }
        if self.is_v5() {
            let properties = written_properties(self.written(m), BEFORE_PROPERTIES);
            self.announced(true, properties);
        }
        self.set_version(m, connect.version);
        self.record_connect(m, connect.client_id, connect.clean_start);
        if connect.clean_start {
            // 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.1.2-4]: until CONNACK arrives it is unknown whether the server has ended the
            // session.
            self.session_lost(m);
            self.record_messages_again(m);
            self.session.owner = 0;
            self.must_start_clean = true;
        }
        Ok(())
    }

    /// Sets the version of kept packets. Messages that are kept in another version cannot be sent any more and end in doubt; those whose
    /// PUBREC came have no packet, and go on with PUBREL, which fits every version. Acknowledgements that wait with a reason code
    /// of MQTT 5 lose it in an earlier version.
    pub(crate) fn set_version(&mut self, m: &mut Memory<'_>, version: Version) {
        if V5 && version.is_v5() != self.session.version.is_v5() {
            for index in 0..usize::from(self.session.len) {
                if self
                    .slots(m)
                    .get(index)
                    .is_some_and(|slot| !slot.has_ended() && slot.awaits != Awaits::PUBCOMP)
                {
                    self.end_empty(m, index, Ended::InDoubt);
                }
            }
            if !version.is_v5() {
                self.forget_reasons(m);
            }
        }
        self.session.version = version;
    }

    /// Begins the use of a connection that both sides accepted, with the earlier session or a new one.
    pub(crate) fn connected(&mut self, m: &mut Memory<'_>, resumed: bool) {
        self.link.phase = Phase::Connected;
        self.session.owner = self.link.client;
        // 5 [MQTT-3.2.2-5]
        if !resumed {
            self.session_lost(m);
            self.record_messages_again(m);
        }
        self.pump(m);
    }

    /// Handles that the peer does not have this session. Messages that were sent before end in doubt or become new ones.
    /// Messages that were never sent stay.
    pub(crate) fn session_lost(&mut self, m: &mut Memory<'_>) {
        self.clear_received();
        let hand_back = POLICIES && self.config.session_lost() == SessionLost::HandBack;
        for index in 0..usize::from(self.session.len) {
            let Some(slot) = self.slot_mut(m, index) else {
                break;
            };
            let was_dup = slot.is_dup();
            slot.is_new_again();
            if slot.awaits == Awaits::PUBCOMP || hand_back && was_dup {
                self.end(m, index, Ended::InDoubt);
            }
        }
    }

    /// Discards the session at once.
    pub(crate) fn forget_session(&mut self, m: &mut Memory<'_>) {
        self.stop_large(m);
        self.record_forgotten(m);
        self.clear_slots(m);
        self.clear_received();
        self.session.owner = 0;
        let link = &mut self.link;
        (link.in_flight, link.in_flight_qos2, link.cursor) = (0, 0, 0);
    }

    /// Assumes that this side has the session of `client_id`, with nothing unfinished.
    pub(crate) fn assume_session(&mut self, m: &mut Memory<'_>, client_id: &str) {
        self.forget_session(m);
        self.must_start_clean = false;
        self.session.owner = fingerprint(client_id.as_bytes());
        self.record_assumed(m, client_id);
    }

    /// Sends AUTH, to continue an authentication or to start one again (5, section 4.12).
    pub(crate) fn authenticate(
        &mut self,
        m: &mut Memory<'_>,
        auth: &Auth<'_>,
        now: u32,
    ) -> Result<(), Refused> {
        // 5 [MQTT-3.1.2-30]: AUTH is the only packet that may go out between CONNECT and CONNACK.
        let connecting =
            self.link.phase == Phase::Connecting && (self.link.undecided || !self.is_server());
        if !(connecting || self.is_connected()) || !self.link.authenticates {
            return Err(Refused::WrongPhase);
        }
        self.send(m, auth)?;
        self.link.times.sent(now);
        Ok(())
    }

    /// Sends DISCONNECT and nothing after it. A server before MQTT 5 sends nothing.
    pub(crate) fn disconnect(
        &mut self,
        m: &mut Memory<'_>,
        disconnect: &Disconnect<'_>,
    ) -> Result<(), Refused> {
        if !self.is_connected() {
            return Err(Refused::WrongPhase);
        }
        if !self.is_server() || self.is_v5() {
            self.send(m, disconnect)?;
        }
        // 3.1.1 [MQTT-3.14.4-1], 5 [MQTT-3.14.4-1] and [MQTT-3.14.4-2]: no packet follows, and the caller closes the transport.
        self.link.phase = Phase::Closing;
        Ok(())
    }

    /// Sends the answer to a request of the peer.
    pub(crate) fn answer(&mut self, m: &mut Memory<'_>, packet: &dyn Body) -> Result<(), Refused> {
        if !self.is_connected() {
            return Err(Refused::WrongPhase);
        }
        self.send(m, packet)
    }

    /// Ends the connection because the peer broke a rule. MQTT 5 reports the reason to the peer. The session stays.
    #[cold]
    #[inline(never)]
    pub(crate) fn fail(&mut self, m: &mut Memory<'_>, reason: ReasonCode) {
        self.stop_large(m);
        // 5 [MQTT-4.13.1-1]; before CONNACK no DISCONNECT may be sent (5 [MQTT-3.14.0-1]).
        if self.is_v5() && self.is_connected() {
            // 5 [MQTT-3.14.2-1]
            let reason = if reason.belongs_in(PacketType::Disconnect) {
                reason
            } else {
                ReasonCode::ProtocolError
            };
            self.send_short(m, PacketType::Disconnect, Some(reason));
        }
        // 3.1.1 [MQTT-4.8.0-1], 5 [MQTT-4.13.2-1]
        self.link.phase = Phase::Closing;
    }
}
