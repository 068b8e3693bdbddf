//! The client: which packets may come when, and what they mean to it. Everything shared lives in `session.rs`.

use core::fmt;

use mqtt_proto::{
    AckKind, Auth, Connect, Disconnect, Encode, Frame, PacketType, PingReq, Properties, PropertyId,
    Publish, ReasonCode, SubAck, Subscribe, Subscription, TopicFilter, TopicName, Unsubscribe,
};

use crate::config::Config;
use crate::connection::Phase;
use crate::error::{Refused, Violation};
use crate::event::{Event, Incoming, Outgoing, Receipt, Step, Token};
use crate::inbound::Arrival;
use crate::keep_alive::{Due, Pinger};
use crate::outbound::{Await, Window};
use crate::outbox::to_u32;
use crate::pieces::{PIECES, Piece, Pieces};
use crate::request;
use crate::session::{Side, V5, fingerprint};
use crate::storage::Storage;
use crate::time::Instant;

/// One client: its session, which survives, and its connection, which does not.
///
/// Any call is legal at any time; what cannot be now is [`Refused`] and changes nothing. See the crate's page for the
/// loop.
pub struct Client<S: Storage> {
    side: Side<S>,
    pinger: Pinger,
}

/// What became of the input. The event goes where it is wanted at once: it is large, and what is large is not moved.
enum Progress {
    Needs(usize),
    Blocked,
    Consumed(usize),
}

/// Tells the phase, never the contents: they may be secret.
impl<S: Storage> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, pending) = (self.side.connection.phase, self.pending());
        f.debug_struct("Client")
            .field("phase", &phase)
            .field("pending", &pending)
            .finish_non_exhaustive()
    }
}

impl<S: Storage> Client<S> {
    /// A client without a connection and without a session.
    pub fn new(config: Config, storage: S) -> Self {
        Self {
            side: Side::new(config, storage),
            pinger: Pinger::new(0, 0, Instant::default()),
        }
    }

    /// Begins a connection on a fresh transport: CONNECT is outgoing. A connection that was there is given up.
    ///
    /// What `connect` announces (receive maximum, maximum packet size, topic alias maximum) is what the server is held
    /// to. The session goes on only under the same client identifier.
    ///
    /// A clean start ends the session here at once, as [`Config::session_lost`] says, since the server ends it when it reads
    /// CONNECT and its CONNACK may be lost. Until a CONNACK accepts a clean start, [`Self::must_start_clean`] is true.
    ///
    /// # Errors
    /// [`Refused::Encode`], [`Refused::TooLarge`] or [`Refused::Full`] if CONNECT cannot be written, which leaves the session
    /// as it is; [`Refused::NoClientIdentifier`] if its version allows no empty one here; [`Refused::MustStartClean`] if
    /// it is without clean start where [`Self::must_start_clean`] asks for it. The last two leave the connection as well.
    pub fn connect(&mut self, connect: &Connect<'_>, now: Instant) -> Result<(), Refused> {
        if connect.lacks_client_id() {
            return Err(Refused::NoClientIdentifier);
        }
        if self.side.must_start_clean && !connect.clean_start {
            return Err(Refused::MustStartClean);
        }
        self.side.open(connect.version);
        let config = &self.side.config;
        let connection = &mut self.side.connection;
        connection.client = Some(fingerprint(connect.client_id));
        if connect.version.is_v5() {
            connection.authenticates = connect.properties.has(PropertyId::AuthenticationMethod);
            connection.announced(&connect.properties);
        }
        let (ping, connect_by) = (config.ping_timeout_ms, config.connect_timeout_ms);
        self.pinger = Pinger::connecting(connect.keep_alive, ping, connect_by, now);
        let written = self.side.send(connect);
        if written.is_err() {
            self.side.lost();
            return written;
        }
        self.side.session.outbound.set_version(connect.version);
        self.side.session.inbound.set_version(connect.version);
        if connect.clean_start {
            // 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.1.2-4]: whether the server's session is the one that was here is known again
            // when CONNACK comes.
            self.side.session_lost();
            self.side.session.inbound.owner = None;
            self.side.must_start_clean = true;
        }
        Ok(())
    }

    /// The transport is gone, or there is none. Messages wait for the next connection, requests are in doubt.
    /// Afterwards [`Self::receive`] with nothing tells what ended.
    pub fn disconnected(&mut self) {
        self.side.lost();
    }

    /// The bytes that wait for the transport, as many as lie together: after [`Self::sent`] there may be more. Look as often
    /// as you like.
    #[must_use]
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.side.outgoing()
    }

    /// How many bytes wait for the transport in all; [`Self::outgoing`] has the first of them.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.side.unsent()
    }

    /// The transport took the first `n` bytes of [`Self::outgoing`]; any number is fine.
    #[inline]
    pub fn sent(&mut self, n: usize) {
        self.side.sent(n);
    }

    /// Looks at the front of the input and does one step. Call it until it needs more.
    ///
    /// # Errors
    /// The connection is over: write what is outgoing, close the transport, call [`Self::disconnected`].
    pub fn receive<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
    ) -> Result<Step<Event<'i>>, Violation> {
        let waiting = self.side.outbox.bytes().len();
        let common = self.side.common(input, |_| false, arrived, acknowledged);
        if let Some(step) = common {
            self.received(now);
            if self.side.outbox.bytes().len() != waiting {
                self.pinger.sent(now);
            }
            return step.inspect_err(|violation| self.side.fail(violation));
        }
        self.step(input, now, false)
    }

    /// As [`Self::receive`], for an input buffer that is full and shall not grow: what is not whole there must be the head
    /// of a PUBLISH. It is told by [`Event::MessageHead`], and `receive` goes on with its payload in pieces. The limit
    /// for such a message is still [`Config::packet_limit`]. Without the feature `pieces` it is refused like any other packet.
    ///
    /// # Errors
    /// As [`Self::receive`]; [`Violation::Malformed`] with [`mqtt_proto::Rule::TooLarge`] for any other packet, and for a
    /// head that does not fit.
    pub fn receive_full<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
    ) -> Result<Step<Event<'i>>, Violation> {
        self.step(input, now, true)
    }

    /// `full`: there is no room for more input.
    #[inline(never)]
    fn step<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
        full: bool,
    ) -> Result<Step<Event<'i>>, Violation> {
        if let Some((token, how)) = self.side.next_ended() {
            return Ok(Step::Packet {
                consumed: 0,
                event: Some(Event::Ended { token, how }),
            });
        }
        if let Some(step) = self.side.without_connection(input) {
            return Ok(step);
        }
        let waiting = self.side.outbox.bytes().len();
        let mut event = None;
        let progress = match self.side.connection.pieces.get() {
            Some(pieces) => self.piece(pieces, input, now, &mut event),
            None => self.packet(input, now, full, &mut event),
        };
        if self.side.outbox.bytes().len() != waiting {
            self.pinger.sent(now);
        }
        match progress {
            Ok(Progress::Needs(len)) => Ok(Step::Needs(len)),
            Ok(Progress::Blocked) => Ok(Step::Blocked),
            Ok(Progress::Consumed(consumed)) => Ok(Step::Packet { consumed, event }),
            Err(violation) => {
                self.side.fail(&violation);
                Err(violation)
            }
        }
    }

    #[inline(never)]
    fn packet<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
        full: bool,
        event: &mut Option<Event<'i>>,
    ) -> Result<Progress, Violation> {
        let (version, limit) = self.side.reads();
        let frame = Frame::decode(input, version, limit).map_err(Violation::Malformed)?;
        let missing = frame.map_or(1, |frame| frame.missing());
        if missing > 0 && !full {
            self.pinger.drained(now);
            return Ok(Progress::Needs(input.len().wrapping_add(missing).max(2)));
        }
        let Some(frame) = frame else {
            let len = input.len().wrapping_add(1);
            return Err(self.side.no_room(None, len, input.len()));
        };
        self.received(now);
        // Nothing is committed before any answer has room.
        if !self.side.answer_fits() {
            return Ok(Progress::Blocked);
        }
        let (packet_type, len) = (frame.packet_type(), frame.packet_len());
        if packet_type == PacketType::Publish && (missing == 0 || PIECES) {
            match frame.publish() {
                Ok(Some(publish)) => return self.on_publish(&publish, len, missing, event),
                Ok(None) => {}
                Err(error) => return Err(Violation::Malformed(error)),
            }
        } else if missing == 0 {
            self.handle(&frame, now, event)?;
            return Ok(Progress::Consumed(len));
        }
        Err(self.side.no_room(Some(packet_type), len, input.len()))
    }

    /// A message came; `missing` of its `len` bytes did not.
    fn on_publish<'i>(
        &mut self,
        publish: &Publish<'i>,
        len: usize,
        missing: usize,
        event: &mut Option<Event<'i>>,
    ) -> Result<Progress, Violation> {
        let side = &mut self.side;
        if !side.is_connected() {
            return Err(Violation::Unexpected(PacketType::Publish));
        }
        if missing == 0 || !PIECES {
            *event = arrived(side.on_publish(publish)?, *publish);
            return Ok(Progress::Consumed(len));
        }
        let payload = publish.payload.len().wrapping_add(missing);
        let payload_len = to_u32(payload);
        if side.head(publish, payload_len)? {
            let payload = &[];
            *event = Some(Event::MessageHead {
                publish: Publish {
                    payload,
                    ..*publish
                },
                payload_len,
            });
        }
        Ok(Progress::Consumed(len.saturating_sub(payload)))
    }

    /// Something came; there may be more. A ping that is due goes out now: while packets come one after the other, nobody need
    /// find the time for a tick.
    #[inline]
    fn received(&mut self, now: Instant) {
        self.pinger.received(now);
        if self.side.is_connected() && self.pinger.due(now) == Due::Ping {
            self.ping(now);
        }
    }

    #[cold]
    fn ping(&mut self, now: Instant) {
        // While a large packet moves, the connection is alive, and PINGREQ would wait for its end.
        if self.side.outbox.large.moves() {
            return self.pinger.moves(now);
        }
        // If even this has no room, what waits before it keeps the connection alive or shows it dead.
        let _ = self.side.send(&PingReq);
        self.pinger.pinged(now);
    }

    #[cold]
    fn piece<'i>(
        &mut self,
        pieces: Pieces,
        input: &'i [u8],
        now: Instant,
        event: &mut Option<Event<'i>>,
    ) -> Result<Progress, Violation> {
        if input.is_empty() {
            self.pinger.drained(now);
            return Ok(Progress::Needs(1));
        }
        self.received(now);
        Ok(match self.side.piece(pieces, input)? {
            Piece::Blocked => Progress::Blocked,
            Piece::Repeated { consumed } => Progress::Consumed(consumed),
            Piece::Payload {
                bytes,
                left,
                receipt,
            } => {
                *event = Some(Event::Payload {
                    bytes,
                    left,
                    receipt,
                });
                Progress::Consumed(bytes.len())
            }
        })
    }

    fn handle<'i>(
        &mut self,
        frame: &Frame<'i>,
        now: Instant,
        event: &mut Option<Event<'i>>,
    ) -> Result<(), Violation> {
        let side = &mut self.side;
        let phase = side.connection.phase;
        if let (Phase::Connected, Some(kind)) = (phase, AckKind::of(frame.packet_type())) {
            let ack = frame.ack().map_err(Violation::Malformed)?;
            *event = acknowledged(side.on_ack(kind, &ack)?, ack.properties);
            return Ok(());
        }
        match (phase, frame.packet_type()) {
            (Phase::Connected, PacketType::SubAck | PacketType::UnsubAck) => {
                self.on_answer(frame, event)?;
            }
            (Phase::Connected, PacketType::PingResp) => {
                self.pinger.answered();
                *event = Some(Event::Pong);
            }
            (Phase::Connecting, PacketType::ConnAck) => self.on_connack(frame, now, event)?,
            (Phase::Connecting | Phase::Connected, PacketType::Auth) if V5 => {
                let auth = frame.auth().map_err(Violation::Malformed)?;
                // 5 [MQTT-4.12.0-6]
                if !side.connection.authenticates {
                    return Err(Violation::AuthNotAgreed);
                }
                *event = Some(Event::Auth(auth));
            }
            // 3.1.1 has no DISCONNECT from a server.
            (Phase::Connected, PacketType::Disconnect) if side.connection.version.is_v5() => {
                let disconnect = frame.disconnect().map_err(Violation::Malformed)?;
                side.connection.phase = Phase::Closing;
                *event = Some(Event::Disconnected(disconnect));
            }
            (_, packet_type) => return Err(Violation::Unexpected(packet_type)),
        }
        Ok(())
    }

    fn on_connack<'i>(
        &mut self,
        frame: &Frame<'i>,
        now: Instant,
        event: &mut Option<Event<'i>>,
    ) -> Result<(), Violation> {
        let Self { side, pinger } = self;
        let connack = frame.connack().map_err(Violation::Malformed)?;
        if connack.reason != ReasonCode::Success {
            side.connection.phase = Phase::Closing;
            *event = Some(Event::Refused(connack));
            return Ok(());
        }
        let (version, clean_start) = (side.connection.version, side.must_start_clean);
        let ours = !clean_start
            && side.session.inbound.owner.is_some()
            && side.session.inbound.owner == side.connection.client;
        // 5 [MQTT-3.2.2-4]
        side.must_start_clean = connack.session_present && !ours && version.is_v5();
        if side.must_start_clean {
            return Err(Violation::SessionPresentWithoutState);
        }
        side.session.inbound.owner = side.connection.client;
        if version.is_v5() {
            // 5 [MQTT-3.1.2-21]
            if let Some(keep_alive) = side.connection.agreed(&connack.properties, &side.config) {
                *pinger = Pinger::new(keep_alive, side.config.ping_timeout_ms, now);
            }
            if let Some(assigned) = connack.properties.bytes(ASSIGNED) {
                side.session.inbound.owner = Some(fingerprint(assigned));
            }
        }
        let unasked_session = connack.session_present && clean_start;
        side.connected(connack.session_present && ours);
        pinger.answered();
        pinger.sent(now);
        *event = Some(Event::Connected {
            connack,
            resumed: connack.session_present && !clean_start,
            unasked_session,
        });
        Ok(())
    }

    /// SUBACK or UNSUBACK.
    fn on_answer<'i>(
        &mut self,
        frame: &Frame<'i>,
        event: &mut Option<Event<'i>>,
    ) -> Result<(), Violation> {
        let subscribes = frame.packet_type() == PacketType::SubAck;
        let (answer, awaits) = if subscribes {
            (frame.suback(), Await::SubAck)
        } else {
            let unsuback = frame.unsuback();
            (unsuback.map(SubAck::from), Await::UnsubAck)
        };
        let answer = answer.map_err(Violation::Malformed)?;
        let outbound = &mut self.side.session.outbound;
        let Some((index, token, request)) = outbound.answered(awaits, answer.packet_id) else {
            return Ok(());
        };
        let version = self.side.connection.version;
        // An UNSUBACK of 3.1.1 has no codes.
        let granted_more = (subscribes || version.is_v5())
            && request::compare(subscribes, request, version, answer.codes)?;
        outbound.remove(index, &mut self.side.connection.window);
        *event = Some(if subscribes {
            Event::Subscribed {
                token,
                suback: answer,
                granted_more,
            }
        } else {
            Event::Unsubscribed {
                token,
                unsuback: answer.into(),
            }
        });
        Ok(())
    }

    /// Publishes a message, or keeps it as [`Config::offline`] says while there is no connection or the connection is ending.
    /// `None` for QoS 0 on a connection: nothing will be told of it, unless it is large, see [`Config::outgoing_limit`].
    ///
    /// # Errors
    /// [`Refused::Full`] while the window or a buffer is full, `TooLarge` beyond the server's maximum packet size,
    /// `NotSupportedByServer`, `Offline`, `Encode`. Nothing was taken then, no identifier either.
    #[inline]
    pub fn publish(
        &mut self,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> Result<Option<Token>, Refused> {
        let token = self.side.publish(message)?;
        self.pinger.sent(now);
        Ok(token)
    }

    /// Subscribes. Its end is [`Event::Subscribed`] with a code for each filter.
    ///
    /// # Errors
    /// As [`Self::publish`]; `Offline` without a connection.
    pub fn subscribe(
        &mut self,
        filters: &[Subscription<'_>],
        properties: Properties<'_>,
        now: Instant,
    ) -> Result<Token, Refused> {
        let connection = &self.side.connection;
        if connection.version.is_v5() {
            let identifier = properties.has(PropertyId::SubscriptionIdentifier);
            connection.supported.subscribe(filters, identifier)?;
        }
        self.request(
            Await::SubAck,
            |packet_id| Subscribe {
                packet_id,
                properties,
                filters: filters.into(),
            },
            now,
        )
    }

    /// Unsubscribes. Its end is [`Event::Unsubscribed`].
    ///
    /// # Errors
    /// As [`Self::subscribe`].
    pub fn unsubscribe(
        &mut self,
        filters: &[TopicFilter<'_>],
        properties: Properties<'_>,
        now: Instant,
    ) -> Result<Token, Refused> {
        self.request(
            Await::UnsubAck,
            |packet_id| Unsubscribe {
                packet_id,
                properties,
                filters: filters.into(),
            },
            now,
        )
    }

    fn request<P: Encode>(
        &mut self,
        awaits: Await,
        packet: impl Fn(mqtt_proto::PacketId) -> P,
        now: Instant,
    ) -> Result<Token, Refused> {
        if !self.side.is_connected() {
            return Err(Refused::Offline);
        }
        let Side {
            session,
            connection,
            outbox,
            config,
            ..
        } = &mut self.side;
        let token =
            session
                .outbound
                .request(awaits, packet, &mut connection.window, outbox, config)?;
        self.pinger.sent(now);
        Ok(token)
    }

    /// Acknowledges a message by hand, with a reason code that MQTT 5 sends and 3.1.1 cannot. In any order.
    ///
    /// # Errors
    /// [`Refused::NothingToAcknowledge`] if it was done before, or the connection (QoS 1) or session (QoS 2) is gone;
    /// [`Refused::Encode`] for a reason code that such a packet does not have.
    pub fn acknowledge(
        &mut self,
        receipt: Receipt,
        reason: ReasonCode,
        now: Instant,
    ) -> Result<(), Refused> {
        self.side.acknowledge(receipt, reason)?;
        self.pinger.sent(now);
        Ok(())
    }

    /// Goes on with an authentication, or begins one anew (5, section 4.12).
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection or if CONNECT named no method (5 \[MQTT-4.12.0-7\]).
    pub fn authenticate(&mut self, auth: &Auth<'_>, now: Instant) -> Result<(), Refused> {
        let connection = &self.side.connection;
        let open = matches!(connection.phase, Phase::Connecting | Phase::Connected);
        if !open || !connection.authenticates {
            return Err(Refused::WrongPhase);
        }
        self.side.send(auth)?;
        self.pinger.sent(now);
        Ok(())
    }

    /// Ends the connection: DISCONNECT is the last that goes out (3.1.1 \[MQTT-3.14.4-2\]). Write what is outgoing,
    /// then close the transport.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection.
    pub fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Refused> {
        self.side.disconnect(disconnect)
    }

    /// Time passes.
    ///
    /// # Errors
    /// The server did not answer in time: as for [`Self::receive`].
    pub fn tick(&mut self, now: Instant) -> Result<(), Violation> {
        match self.side.connection.phase {
            Phase::Connecting if now >= self.pinger.connect_by() => {
                self.side.time_out(Violation::ConnectTimeout)
            }
            Phase::Connected => match self.pinger.due(now) {
                Due::Nothing => Ok(()),
                Due::Ping => {
                    self.ping(now);
                    Ok(())
                }
                Due::TimedOut => self.side.time_out(Violation::PingTimeout),
            },
            _ => Ok(()),
        }
    }

    /// When [`Self::tick`] is to be called at the latest. Valid after any call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.side.connection.phase {
            Phase::Connecting => self.pinger.connect_by().real(),
            Phase::Connected => self.pinger.deadline().real(),
            Phase::Offline | Phase::Closing => None,
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

    /// A message that was accepted and is not acknowledged, or whose [`Event::Ended`] was told last.
    #[must_use]
    pub fn unacknowledged(&self, token: Token) -> Option<Publish<'_>> {
        self.side.session.outbound.message(token)
    }

    /// All messages that were accepted and are neither acknowledged nor, at QoS 2, received; in their order.
    pub fn unacknowledged_all(&self) -> impl Iterator<Item = (Token, Publish<'_>)> {
        self.side.session.outbound.messages()
    }

    /// How many bytes must be there before [`Self::receive`] does anything with this input; `None` if it would now. For
    /// loops that hold an event and cannot ask by trying.
    #[must_use]
    #[inline]
    pub fn needs(&self, input: &[u8]) -> Option<usize> {
        if self.has_ended() {
            return None;
        }
        match self.side.connection.phase {
            Phase::Connected | Phase::Connecting => self.side.needs(input),
            Phase::Offline | Phase::Closing => input.is_empty().then_some(1),
        }
    }

    /// How many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.side.session.outbound.pending()
    }

    /// Whether [`Self::receive`] has something to tell without input.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.side.session.outbound.has_ended()
    }

    /// Whether CONNACK came and nothing ended the connection since.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.side.is_connected()
    }

    /// Whether the connection is over: write what is outgoing, then close the transport.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.side.connection.phase, Phase::Closing)
    }

    /// Whether the next CONNECT must ask for a clean start: the last CONNACK told of a session that is not here, which ended
    /// the connection (5 \[MQTT-3.2.2-4\]), or a CONNECT with clean start was not accepted yet, so that it is unknown which
    /// session the server has. [`Self::assume_session`] ends it too.
    #[must_use]
    pub const fn must_start_clean(&self) -> bool {
        self.side.must_start_clean
    }

    /// Whether the server sent more QoS 1 and QoS 2 messages at once on this connection than the receive maximum allows, and
    /// [`Config::receive_beyond_maximum`] took them.
    #[must_use]
    pub const fn receive_maximum_exceeded(&self) -> bool {
        self.side.connection.exceeded
    }

    /// The settings. The window and the limits may be changed at any time.
    pub const fn config_mut(&mut self) -> &mut Config {
        &mut self.side.config
    }

    /// Takes it that this client has the session of `client_id`, and that nothing in it is unfinished. Without this a
    /// client that starts anew must close when an MQTT 5 server says session present (5 \[MQTT-3.2.2-4\]); a client that
    /// only receives, and kept nothing, can say so by this call.
    pub fn assume_session(&mut self, client_id: &str) {
        self.forget_session();
        self.side.must_start_clean = false;
        self.side.session.inbound.owner = Some(fingerprint(client_id));
    }

    /// Forgets the session at once; tokens that are not ended never will be. The connection ends if a part of a large message
    /// was sent, see [`Config::outgoing_limit`].
    pub fn forget_session(&mut self) {
        self.side.stop_large();
        self.side.session.outbound.clear();
        self.side.session.inbound.clear();
        self.side.session.inbound.owner = None;
        let window = &mut self.side.connection.window;
        *window = Window::new(window.receive_maximum, window.packet_size);
    }
}

const ASSIGNED: PropertyId = PropertyId::AssignedClientIdentifier;

const fn arrived(arrival: Arrival, publish: Publish<'_>) -> Option<Event<'_>> {
    match arrival {
        Arrival::New(receipt) => Some(Event::Message(Incoming { publish, receipt })),
        Arrival::Repeated => None,
    }
}

fn acknowledged(
    ended: Option<(Token, ReasonCode)>,
    properties: Properties<'_>,
) -> Option<Event<'_>> {
    ended.map(|(token, reason)| Event::Acknowledged {
        token,
        reason,
        properties,
    })
}
