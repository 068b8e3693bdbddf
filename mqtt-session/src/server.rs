//! The server's end of one connection: typed commands and events over the engine. The host decides on CONNECT, SUBSCRIBE and
//! UNSUBSCRIBE.

use mqtt_proto::{
    Auth, ConnAck, Connect, Disconnect, Encode, PacketType, Publish, ReasonCode, Rule, SubAck,
    Subscribe, TopicName, UnsubAck, Unsubscribe, Version,
};

use crate::config::Config;
use crate::connection::written_properties;
use crate::endpoint::endpoint;
use crate::engine::{Engine, Role, Terms};
use crate::error::{Refused, Violation};
use crate::event::{Outgoing, Receipt, ServerEvent, Step, Token};
use crate::memory::Memory;
use crate::problem::Problem;
use crate::progress::{Found, Progress};
use crate::state::link::Phase;
use crate::state::session::fingerprint;
use crate::time::Instant;

/// The server's state of one client: the session, which outlives connections, and the connection. On a heap its type is
/// `Server<'static>`; with lent buffers it lives as long as they do.
///
/// Every method may be called at any time. A command that is not possible now returns [`Refused`] and changes nothing.
pub struct Server<'m> {
    pub(crate) engine: Engine,
    pub(crate) memory: Memory<'m>,
    /// The time of the last call that had it as an argument.
    now: Instant,
}

/// The length of what is before the properties of CONNACK: session present and the reason code.
const BEFORE_PROPERTIES: usize = 2;

/// Whether the end of a connection makes the will due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WillDue {
    /// There is no will, or DISCONNECT deleted it (3.1.1 \[MQTT-3.14.4-3\], 5 \[MQTT-3.14.4-3\]).
    No,
    /// The will is to be published (3.1.1 \[MQTT-3.1.2-8\], 5 \[MQTT-3.1.2-8\]), in MQTT 5 after its delay.
    Yes,
}

endpoint!(Server);

impl<'m> Server<'m> {
    /// Makes a server without a connection and without a session. `memory` is [`crate::Heap`] or [`crate::Lent`].
    pub fn new(config: Config, memory: impl Into<Memory<'m>>) -> Self {
        Self {
            engine: Engine::new(config, Role::Server),
            memory: memory.into(),
            now: Instant::default(),
        }
    }

    /// Makes a server whose client is a server as well, for messages between the parts of one broker: it accepts subscription
    /// identifiers in PUBLISH (MQTT 5), which end the connection of other clients (5 \[MQTT-3.3.4-6\]).
    ///
    /// ```
    /// use mqtt_session::{Config, Heap, Server};
    ///
    /// let server = Server::of_server(Config::default(), Heap);
    /// assert!(!server.is_connected());
    /// ```
    pub fn of_server(config: Config, memory: impl Into<Memory<'m>>) -> Self {
        let mut server = Self::new(config, memory);
        server.engine.serve_server();
        server
    }

    /// Tells the server that a client opened a transport. An earlier connection is given up.
    pub fn opened(&mut self, now: Instant) {
        let now = self.at(now);
        // Until CONNECT names its version, everything is read as 3.1.1.
        self.engine.open(&mut self.memory, Version::V311, now);
        self.engine.terms = Terms::default();
    }

    /// Tells the server that the transport is closed. Messages wait for the next connection of this session. Returns whether
    /// the will is due.
    pub fn disconnected(&mut self) -> WillDue {
        self.engine.disconnected(&mut self.memory);
        let due = self.will_due();
        self.engine.terms.will = false;
        due
    }

    /// Does one step over the front of the input. Call it until it returns [`Step::Needs`]. After [`ServerEvent::Connect`] it
    /// returns [`Step::Blocked`] until the host decides.
    ///
    /// # Errors
    /// The rule that the client broke. The connection is over: write what is outgoing, close the transport, and call
    /// [`Self::disconnected`].
    #[inline]
    pub fn receive<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
    ) -> Result<Step<ServerEvent<'i>>, Violation> {
        let now = self.at(now);
        let progress = &mut Progress::new(input, now, false);
        if let Err(problem) = self.engine.step(&mut self.memory, progress) {
            let violation = problem.violation(&self.engine, progress);
            self.answer_unknown_level(&violation, input);
            return Err(violation);
        }
        let event = match progress.found {
            Found::Needs => return Ok(Step::Needs(progress.consumed)),
            Found::Blocked => return Ok(Step::Blocked),
            Found::Nothing => None,
            Found::Message => Some(ServerEvent::Message(progress.incoming())),
            Found::Acknowledged => Some(ServerEvent::Acknowledged {
                token: progress.token,
                reason: progress.outcome(),
                properties: progress.view.properties(),
            }),
            _ => self.other_event(progress)?,
        };
        Ok(Step::Packet {
            consumed: progress.consumed,
            event,
        })
    }

    #[cold]
    fn other_event<'i>(
        &mut self,
        progress: &Progress<'i>,
    ) -> Result<Option<ServerEvent<'i>>, Violation> {
        let view = &progress.view;
        let (reason, properties) = (progress.outcome(), view.properties());
        Ok(Some(match progress.found {
            Found::Connect => ServerEvent::Connect(self.on_connect(progress)),
            Found::Subscribe => ServerEvent::Subscribe(Subscribe {
                packet_id: view.packet_id(),
                properties,
                filters: view.subscriptions(),
            }),
            Found::Unsubscribe => ServerEvent::Unsubscribe(Unsubscribe {
                packet_id: view.packet_id(),
                properties,
                filters: view.filters(),
            }),
            Found::Ended => ServerEvent::Ended {
                token: progress.token,
                how: progress.how,
            },
            Found::Auth => ServerEvent::Auth(Auth { reason, properties }),
            Found::Disconnected => {
                let disconnect = Disconnect { reason, properties };
                self.on_disconnect(&disconnect)?;
                ServerEvent::Disconnected(disconnect)
            }
            Found::Ping => ServerEvent::Ping,
            _ => return Ok(None),
        }))
    }

    fn on_connect<'i>(&mut self, progress: &Progress<'i>) -> Connect<'i> {
        let connect = progress.view.connect();
        let terms = &mut self.engine.terms;
        terms.keep_alive = connect.keep_alive;
        terms.session_expiry = connect.session_expiry();
        terms.will = connect.will.is_some();
        connect
    }

    fn on_disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Violation> {
        if let Some(expiry) = disconnect.properties.session_expiry_interval() {
            // 5, section 3.14.2.2.2: an expiry interval of 0 cannot be changed to another one.
            if self.engine.terms.session_expiry == 0 && expiry != 0 {
                let violation = Violation::Unexpected(PacketType::Disconnect);
                self.engine.fail(&mut self.memory, violation.reason_code());
                return Err(violation);
            }
            self.engine.terms.session_expiry = expiry;
        }
        // 3.1.1 [MQTT-3.14.4-3], 5 [MQTT-3.14.4-3]
        if disconnect.reason == ReasonCode::Success {
            self.engine.terms.will = false;
        }
        self.engine.link.phase = Phase::Closing;
        Ok(())
    }

    /// Answers a protocol level that is not supported in the nearest version that is (3.1.1 [MQTT-3.1.2-2], 5 [MQTT-3.1.2-2]). The name of
    /// 3.1 has no later version.
    #[cold]
    fn answer_unknown_level(&mut self, violation: &Violation, input: &[u8]) {
        if let Violation::Malformed(error) = violation
            && let Rule::ProtocolLevel { found } = error.rule
        {
            let is_mqtt = level_of_mqtt(input).is_some();
            let version = match found {
                6..0x80 if is_mqtt => Version::V5,
                _ => Version::V311,
            };
            self.send_refusal(ReasonCode::UnsupportedProtocolVersion, version);
        }
    }

    /// Sends CONNACK to a client whose CONNECT was not read.
    fn send_refusal(&mut self, reason: ReasonCode, version: Version) {
        let connack = ConnAck {
            reason,
            ..ConnAck::default()
        };
        let mut bytes = [0; 8];
        if let Ok(len) = connack.encode(version, &mut bytes) {
            let bytes = bytes.get(..len).unwrap_or_default();
            self.engine.send_bytes(&mut self.memory, bytes);
        }
    }

    /// Refuses a CONNECT because of its size, from its first bytes: the host does not wait for the others. MQTT 5 sends CONNACK with 0x95,
    /// packet too large, as the last packet; earlier versions have no return code for it and send nothing. Returns `false` and does
    /// nothing if `input` has less than [`Self::CONNECT_LEVEL`] bytes, and does not reach to the version, or if CONNECT was accepted.
    pub fn refuse_size(&mut self, input: &[u8]) -> bool {
        let is_short = input.len() < Self::CONNECT_LEVEL;
        let level = level_of_mqtt(input);
        if self.engine.link.phase != Phase::Connecting || is_short && level.is_none() {
            return false;
        }
        // Bit 7 is that of a bridge.
        if level.is_some_and(|level| level & 0x7F == 5) {
            self.send_refusal(ReasonCode::PacketTooLarge, Version::V5);
        }
        self.engine.terms.will = false;
        self.engine.link.undecided = false;
        self.engine.link.phase = Phase::Closing;
        true
    }

    /// The most bytes of a CONNECT up to the level of its protocol name `MQTT`: a fixed header of 5, a name of 6, and the level.
    pub const CONNECT_LEVEL: usize = 12;

    /// Accepts the connection. With `session_present` the session continues, otherwise a new one begins. The client has to keep
    /// to what the properties announce.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] if no CONNECT waits for a decision, if the reason of `connack` is not success, or if `connack`
    /// has session present after a clean start (3.1.1 \[MQTT-3.2.2-1\], 5 \[MQTT-3.2.2-2\]); [`Refused::Encode`],
    /// [`Refused::TooLarge`] or [`Refused::Full`] if CONNACK cannot be written.
    pub fn accept(&mut self, connack: &ConnAck<'_>, now: Instant) -> Result<(), Refused> {
        let now = self.at(now);
        let (engine, memory) = (&mut self.engine, &mut self.memory);
        // 3.1.1 [MQTT-3.2.0-1], 5 [MQTT-3.2.0-1] and [MQTT-3.2.0-2]: CONNECT has one answer, and messages go out after it.
        let present = connack.session_present;
        let impossible = present && engine.must_start_clean;
        if !engine.link.undecided || impossible || connack.reason != ReasonCode::Success {
            return Err(Refused::WrongPhase);
        }
        // MQTT 3.1 reserves the byte.
        let told = connack.session_present && engine.link.version != Version::V31;
        let connack = &ConnAck {
            session_present: told,
            ..*connack
        };
        let waiting = engine.waiting();
        engine.send(memory, connack)?;
        if engine.is_v5() {
            let written = engine.written(memory).get(waiting..).unwrap_or_default();
            let properties = written_properties(written, BEFORE_PROPERTIES);
            engine.announced(true, properties);
        }
        engine.link.undecided = false;
        engine.set_version(memory, engine.link.version);
        if let Some(expiry) = connack.properties.session_expiry_interval() {
            engine.terms.session_expiry = expiry;
        }
        // 5 [MQTT-3.1.2-21]
        let keep_alive = connack.properties.server_keep_alive();
        // 5 [MQTT-3.2.2-22]
        let keep_alive = keep_alive.unwrap_or(engine.terms.keep_alive);
        let percent = engine.config.keep_alive_percent;
        engine.link.times.watches(keep_alive, percent, now);
        engine.connected(memory, present);
        Ok(())
    }

    /// Refuses the connection. CONNACK with the reason is the last packet that is sent (3.1.1 \[MQTT-3.2.2-5\]).
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] if no CONNECT waits for a decision or the reason is success; [`Refused::Encode`] for a reason
    /// that the version does not have.
    pub fn refuse(&mut self, connack: &ConnAck<'_>) -> Result<(), Refused> {
        if !self.engine.link.undecided || connack.reason == ReasonCode::Success {
            return Err(Refused::WrongPhase);
        }
        self.engine.send(&mut self.memory, connack)?;
        // 3.1.1 [MQTT-3.1.2-8]: a will exists only for a connection that was accepted.
        self.engine.terms.will = false;
        self.engine.link.undecided = false;
        // 5 [MQTT-3.2.2-7]
        self.engine.link.phase = Phase::Closing;
        Ok(())
    }

    /// Publishes a message to this client. Returns `None` for QoS 0 on a connection, unless the message is large (see
    /// [`Config::outgoing_limit`]).
    ///
    /// # Errors
    /// As [`crate::Client::publish`].
    #[inline]
    pub fn publish(&mut self, message: &Outgoing<'_>) -> Result<Option<Token>, Refused> {
        let now = self.now.wrapped();
        self.engine.publish(&mut self.memory, message, now)
    }

    /// Acknowledges a message by hand, in any order.
    ///
    /// # Errors
    /// As [`crate::Client::acknowledge`].
    #[cfg(feature = "by-hand")]
    pub fn acknowledge(&mut self, receipt: Receipt, reason: ReasonCode) -> Result<(), Refused> {
        self.engine.acknowledge(&mut self.memory, receipt, reason)
    }

    /// Forgets a message at QoS 2 that is not acknowledged: if the client sends it again, it is a new message. It is for a machine
    /// without a connection, whose messages at QoS 1 are forgotten already.
    #[cfg(feature = "by-hand")]
    pub fn forget(&mut self, receipt: Receipt) {
        if let Some(index) = self.engine.find_receipt(&self.memory, receipt) {
            self.engine.remove_received(&mut self.memory, index);
        }
    }

    /// Answers a SUBSCRIBE.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection, [`Refused::Full`] without room.
    pub fn subscribed(&mut self, suback: &SubAck<'_>) -> Result<(), Refused> {
        self.engine.answer(&mut self.memory, suback)
    }

    /// Answers an UNSUBSCRIBE.
    ///
    /// # Errors
    /// As [`Self::subscribed`].
    pub fn unsubscribed(&mut self, unsuback: &UnsubAck<'_>) -> Result<(), Refused> {
        self.engine.answer(&mut self.memory, unsuback)
    }

    /// Sends AUTH, to continue an authentication (5, section 4.12).
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] if CONNECT named no method (5 \[MQTT-4.12.0-6\]).
    pub fn authenticate(&mut self, auth: &Auth<'_>) -> Result<(), Refused> {
        let now = self.now.wrapped();
        self.engine.authenticate(&mut self.memory, auth, now)
    }

    /// Ends the connection. MQTT 5 sends the reason in DISCONNECT, earlier versions send nothing. Write what is outgoing, then
    /// close the transport.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection.
    pub fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Refused> {
        self.engine.disconnect(&mut self.memory, disconnect)
    }

    /// Tells the server the time. It ends the connection if the client was silent for too long.
    ///
    /// # Errors
    /// [`Violation::KeepAliveTimeout`] if the client was silent for too long, [`Violation::ConnectTimeout`] if CONNECT did not
    /// arrive in time. The connection is over, as after an error of [`Self::receive`].
    pub fn tick(&mut self, now: Instant) -> Result<(), Violation> {
        let now = self.at(now);
        let ticked = self.engine.tick(&mut self.memory, now);
        ticked.map_err(Problem::timeout)
    }

    /// Tells the server that input has arrived which was not given to [`Self::receive`] yet. The client does not count as
    /// silent until all input was processed.
    pub const fn input_waits(&mut self) {
        self.engine.link.times.input_waits();
    }

    /// Returns whether this session belongs to `client_id`, so that it can be resumed.
    #[must_use]
    pub fn has_session_of(&self, client_id: &str) -> bool {
        self.engine.session.owner == fingerprint(client_id.as_bytes())
    }

    /// Returns how long the session outlives its connection, in seconds: 0 is not at all, and `u32::MAX` does not expire.
    #[must_use]
    pub const fn session_expiry(&self) -> u32 {
        self.engine.terms.session_expiry
    }

    /// Exchanges the session with `other`. A host does this between CONNECT and [`Self::accept`] if another connection has the
    /// session of the client, and when a connection ends whose session stays. Each session continues with the next `accept`, as
    /// after [`Self::disconnected`]. If a part of a large message was sent on one of the connections, that connection ends (see
    /// [`Config::outgoing_limit`]).
    ///
    /// Returns `false` and changes nothing if one of them has lent memory and the other a heap.
    pub fn swap_session(&mut self, other: &mut Self) -> bool {
        self.engine.stop_large(&mut self.memory);
        other.engine.stop_large(&mut other.memory);
        if !self.memory.swap_session(&mut other.memory) {
            return false;
        }
        core::mem::swap(&mut self.engine.session, &mut other.engine.session);
        self.engine.park(&mut self.memory);
        other.engine.park(&mut other.memory);
        true
    }

    /// Returns whether there is a will that the end of the connection makes due.
    #[must_use]
    pub const fn will_due(&self) -> WillDue {
        if self.engine.terms.will {
            WillDue::Yes
        } else {
            WillDue::No
        }
    }

    /// Returns how many bytes it has on the heap: outgoing bytes, messages that are not acknowledged, and topic aliases, with
    /// the room that was made for them.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.memory.heap_size()
    }

    /// Returns the version of the client's CONNECT.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.engine.link.version
    }
}

/// Returns the protocol level of a CONNECT with the name `MQTT`, if its first bytes have both.
fn level_of_mqtt(input: &[u8]) -> Option<u8> {
    let length = input.iter().skip(1).position(|byte| byte & 0x80 == 0)?;
    let body = input.get(length.saturating_add(2)..)?;
    body.strip_prefix(b"\0\x04MQTT")?.first().copied()
}
