//! The client: typed commands and events over the engine.

use core::fmt;

use mqtt_proto::{
    Auth, ConnAck, Connect, Disconnect, Properties, Publish, ReasonCode, SubAck, Subscription,
    TopicFilter, TopicName, UnsubAck,
};

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Refused, Violation};
use crate::event::{Event, Outgoing, Receipt, Step, Token};
use crate::link::Phase;
use crate::memory::Memory;
use crate::problem::Problem;
use crate::progress::{Progress, What};
use crate::requests::Filters;
use crate::time::Instant;

/// One client: its session, which survives, and its connection, which does not. On a heap it is a `Client<'static>`; one that
/// works in lent buffers lives as long as they do.
///
/// Any call is legal at any time; what cannot be now is [`Refused`] and changes nothing. See the crate's page for the
/// loop.
pub struct Client<'m> {
    engine: Engine,
    memory: Memory<'m>,
    /// The time of the last call that told it.
    now: Instant,
}

/// Tells the phase, never the contents: they may be secret.
impl fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("phase", &self.engine.link.phase)
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

impl<'m> Client<'m> {
    /// A client without a connection and without a session. Its memory is [`crate::Heap`] or [`crate::Lent`].
    pub fn new(config: Config, memory: impl Into<Memory<'m>>) -> Self {
        Self {
            engine: Engine::new(config, false),
            memory: memory.into(),
            now: Instant::default(),
        }
    }

    /// The moment as the engine counts it.
    #[inline]
    fn at(&mut self, now: Instant) -> u32 {
        self.now = now;
        now.wrapped()
    }

    /// Begins a connection on a fresh transport: CONNECT is outgoing. A connection that was there is given up.
    ///
    /// What `connect` announces (receive maximum, maximum packet size, topic alias maximum) is what the server is held
    /// to. The session goes on only under the same client identifier.
    ///
    /// A clean start ends the session here at once, as [`Config::session_lost`](field@Config::session_lost) says, since the server ends it when it reads
    /// CONNECT and its CONNACK may be lost. Until a CONNACK accepts a clean start, [`Self::must_start_clean`] is true.
    ///
    /// # Errors
    /// [`Refused::Encode`], [`Refused::TooLarge`] or [`Refused::Full`] if CONNECT cannot be written, which leaves the session
    /// as it is; [`Refused::NoClientIdentifier`] if its version allows no empty one here; [`Refused::MustStartClean`] if
    /// it is without clean start where [`Self::must_start_clean`] asks for it. The last two leave the connection as well.
    pub fn connect(&mut self, connect: &Connect<'_>, now: Instant) -> Result<(), Refused> {
        let now = self.at(now);
        self.engine.connect(&mut self.memory, connect, now)
    }

    /// The transport is gone, or there is none. Messages wait for the next connection, requests are in doubt.
    /// Afterwards [`Self::receive`] with nothing tells what ended.
    pub fn disconnected(&mut self) {
        self.engine.disconnected(&mut self.memory);
    }

    /// The bytes that wait for the transport, as many as lie together: after [`Self::sent`] there may be more. Look as often
    /// as you like.
    #[must_use]
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.engine.outgoing(&self.memory)
    }

    /// How many bytes wait for the transport in all; [`Self::outgoing`] has the first of them.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.engine.unsent(&self.memory)
    }

    /// The transport took the first `n` bytes of [`Self::outgoing`]; any number is fine.
    #[inline]
    pub fn sent(&mut self, n: usize) {
        self.engine.sent(&mut self.memory, n);
    }

    /// Looks at the front of the input and does one step. Call it until it needs more.
    ///
    /// # Errors
    /// The connection is over: write what is outgoing, close the transport, call [`Self::disconnected`].
    #[inline]
    pub fn receive<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
    ) -> Result<Step<Event<'i>>, Violation> {
        let now = self.at(now);
        self.step(Progress::new(input, now, false))
    }

    /// As [`Self::receive`], for an input buffer that is full and shall not grow: what is not whole there must be the head
    /// of a PUBLISH. It is told by [`Event::MessageHead`], and `receive` goes on with its payload in pieces. The limit
    /// for such a message is still [`Config::packet_limit`]. Without the feature `pieces` it is refused like any other packet.
    ///
    /// # Errors
    /// As [`Self::receive`]; [`Violation::Malformed`] with [`mqtt_proto::Rule::TooLarge`] for any other packet, and for a
    /// head that does not fit.
    #[inline]
    pub fn receive_full<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
    ) -> Result<Step<Event<'i>>, Violation> {
        let now = self.at(now);
        self.step(Progress::new(input, now, true))
    }

    /// [`Self::receive_full`] where the input buffer is full, [`Self::receive`] where it is not: for loops that do both, which have the
    /// way from a step to its event once.
    ///
    /// # Errors
    /// As both.
    #[inline]
    pub fn receive_from<'i>(
        &mut self,
        input: &'i [u8],
        is_full: bool,
        now: Instant,
    ) -> Result<Step<Event<'i>>, Violation> {
        let now = self.at(now);
        self.step(Progress::new(input, now, is_full))
    }

    /// All input there was has been looked at: what [`Self::receive`] notes when it needs more, for loops that asked by
    /// [`Self::needs`] instead. Then silence counts, and [`Self::tick`] may judge it.
    pub fn looked_at_all(&mut self, now: Instant) {
        let now = self.at(now);
        self.engine.drained(now);
    }

    #[inline]
    fn step<'i>(&mut self, mut progress: Progress<'i>) -> Result<Step<Event<'i>>, Violation> {
        let progress = &mut progress;
        if let Err(problem) = self.engine.step(&mut self.memory, progress) {
            return Err(problem.violation(&self.engine, progress));
        }
        let event = match progress.what {
            What::Needs => return Ok(Step::Needs(progress.consumed)),
            What::Blocked => return Ok(Step::Blocked),
            _ => event(progress, self.engine.is_v5()),
        };
        Ok(Step::Packet {
            consumed: progress.consumed,
            event,
        })
    }

    /// Publishes a message, or keeps it as [`Config::offline`](field@Config::offline) says while there is no connection or the connection is ending.
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
        let now = self.at(now);
        self.engine.publish(&mut self.memory, message, now)
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
        let now = self.at(now);
        if self.engine.is_v5() {
            self.engine.link.lacks.subscribe(filters, &properties)?;
        }
        let filters = Filters::Subscribe(filters);
        self.engine
            .request(&mut self.memory, filters, properties, now)
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
        let now = self.at(now);
        let filters = Filters::Unsubscribe(filters);
        self.engine
            .request(&mut self.memory, filters, properties, now)
    }

    /// Acknowledges a message by hand, with a reason code that MQTT 5 sends and 3.1.1 cannot. In any order.
    ///
    /// # Errors
    /// [`Refused::NothingToAcknowledge`] if it was done before, or the connection (QoS 1) or session (QoS 2) is gone;
    /// [`Refused::Encode`] for a reason code that such a packet does not have.
    #[cfg(feature = "by-hand")]
    pub fn acknowledge(
        &mut self,
        receipt: Receipt,
        reason: ReasonCode,
        now: Instant,
    ) -> Result<(), Refused> {
        let now = self.at(now);
        self.engine.acknowledge(&mut self.memory, receipt, reason)?;
        self.engine.link.times.sent(now);
        Ok(())
    }

    /// Goes on with an authentication, or begins one anew (5, section 4.12).
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection or if CONNECT named no method (5 \[MQTT-4.12.0-7\]).
    pub fn authenticate(&mut self, auth: &Auth<'_>, now: Instant) -> Result<(), Refused> {
        let now = self.at(now);
        self.engine.authenticate(&mut self.memory, auth, now)
    }

    /// Ends the connection: DISCONNECT is the last that goes out (3.1.1 \[MQTT-3.14.4-2\]). Write what is outgoing,
    /// then close the transport.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection.
    pub fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Refused> {
        self.engine.disconnect(&mut self.memory, disconnect)
    }

    /// Time passes.
    ///
    /// # Errors
    /// The server did not answer in time: as for [`Self::receive`].
    pub fn tick(&mut self, now: Instant) -> Result<(), Violation> {
        let now = self.at(now);
        let ticked = self.engine.tick(&mut self.memory, now);
        ticked.map_err(Problem::timeout)
    }

    /// When [`Self::tick`] is to be called at the latest. Valid after any call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.engine.due_in(self.now.wrapped())?;
        Some(self.now.plus(u64::from(due)))
    }

    /// The topic of an incoming message: its own, or what its alias stands for (5).
    #[must_use]
    pub fn topic<'a>(&'a self, publish: &Publish<'a>) -> TopicName<'a> {
        if publish.topic.is_none() {
            self.engine.topic(&self.memory, publish).unwrap_or_default()
        } else {
            publish.topic
        }
    }

    /// A message that was accepted and is not acknowledged, or whose [`Event::Ended`] was told last.
    #[must_use]
    pub fn unacknowledged(&self, token: Token) -> Option<Publish<'_>> {
        self.engine.unacknowledged(&self.memory, token)
    }

    /// All messages that were accepted and are neither acknowledged nor, at QoS 2, received; in their order.
    pub fn unacknowledged_all(&self) -> impl Iterator<Item = (Token, Publish<'_>)> {
        self.engine.unacknowledged_all(&self.memory)
    }

    /// How many bytes must be there before [`Self::receive`] does anything with this input; `None` if it would now. For
    /// loops that hold an event and cannot ask by trying.
    #[must_use]
    #[inline]
    pub fn needs(&self, input: &[u8]) -> Option<usize> {
        self.engine.needs(input)
    }

    /// How many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.engine.pending()
    }

    /// Whether [`Self::receive`] has something to tell without input.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.engine.has_ended()
    }

    /// Whether CONNACK came and nothing ended the connection since.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.engine.is_connected()
    }

    /// Whether the connection is over: write what is outgoing, then close the transport.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.engine.link.phase, Phase::Closing)
    }

    /// Whether the next CONNECT must ask for a clean start: the last CONNACK told of a session that is not here, which ended
    /// the connection (5 \[MQTT-3.2.2-4\]), or a CONNECT with clean start was not accepted yet, so that it is unknown which
    /// session the server has. [`Self::assume_session`] ends it too.
    #[must_use]
    pub const fn must_start_clean(&self) -> bool {
        self.engine.must_start_clean
    }

    /// Whether the server sent more QoS 1 and QoS 2 messages at once on this connection than the receive maximum allows, and
    /// [`Config::receive_beyond_maximum`] took them.
    #[must_use]
    pub const fn receive_maximum_exceeded(&self) -> bool {
        self.engine.link.exceeded
    }

    /// The settings. The window and the limits may be changed at any time.
    pub const fn config_mut(&mut self) -> &mut Config {
        &mut self.engine.config
    }

    /// From now on what must outlive the process is written to [`Self::journal`]. Call it before anything else.
    #[cfg(feature = "journal")]
    pub fn start_journal(&mut self) {
        self.engine.start_journal();
    }

    /// Records that are not stored, whole ones, oldest first. Look as often as you like. While more than 256 KiB of them wait,
    /// [`Self::publish`] at QoS 1 and 2 is [`Refused::Full`] and [`Self::receive`] is [`Step::Blocked`].
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn journal(&self) -> &[u8] {
        self.engine.journal()
    }

    /// The first `n` bytes of [`Self::journal`] are durable: what waited for them is in [`Self::outgoing`] now.
    #[cfg(feature = "journal")]
    pub fn stored(&mut self, n: usize) {
        self.engine.stored(n);
    }

    /// Nothing will be stored any more: what waits for it never goes out, and nothing more is accepted that would have to be
    /// stored. Close the transport and end the process; the next one restores what is there.
    #[cfg(feature = "journal")]
    pub fn storage_failed(&mut self) {
        self.engine.storage_failed();
    }

    /// Takes a record of an earlier process, after [`Self::start_journal`] and before the first connection: all of a log, or of a
    /// store one for each key, in ascending order of kind and key.
    ///
    /// # Errors
    /// The record is damaged, or not of a client, or does not fit the limits of the [`Config`]. Do not go on with this client.
    #[cfg(feature = "journal")]
    pub fn restore(
        &mut self,
        record: &mqtt_journal::Record<'_>,
    ) -> Result<(), mqtt_journal::Fault> {
        self.engine.restore(&mut self.memory, record)
    }

    /// All records of the earlier process were given, or there was none. Returns the client identifier of its session: CONNECT must
    /// have the same. What it had not finished is in [`Self::unacknowledged_all`], under new tokens.
    ///
    /// Without a session the first CONNECT must ask for a clean one, since the server may remember what is lost here
    /// (5 \[MQTT-3.2.2-4\]).
    #[cfg(feature = "journal")]
    pub fn restored(&mut self) -> Option<&str> {
        self.engine.restored();
        self.engine.restored_client_id()
    }

    /// Takes it that this client has the session of `client_id`, and that nothing in it is unfinished. Without this a
    /// client that starts anew must close when an MQTT 5 server says session present (5 \[MQTT-3.2.2-4\]); a client that
    /// only receives, and kept nothing, can say so by this call.
    pub fn assume_session(&mut self, client_id: &str) {
        self.engine.assume_session(&mut self.memory, client_id);
    }

    /// Forgets the session at once; tokens that are not ended never will be. The connection ends if a part of a large message
    /// was sent, see [`Config::outgoing_limit`].
    pub fn forget_session(&mut self) {
        self.engine.forget_session(&mut self.memory);
    }
}

/// What a client learns from a step.
#[inline]
fn event<'i>(progress: &Progress<'i>, v5: bool) -> Option<Event<'i>> {
    let view = &progress.view;
    let (reason, token) = (progress.outcome(), progress.token);
    let properties = view.properties();
    let connack = || ConnAck {
        session_present: view.flags != 0,
        reason: view.connack_reason(v5),
        properties,
    };
    Some(match progress.what {
        What::Message => Event::Message(progress.incoming()),
        What::Acknowledged => Event::Acknowledged {
            token,
            reason,
            properties,
        },
        What::Connected => Event::Connected {
            connack: connack(),
            resumed: progress.resumed,
            unasked_session: progress.unasked_session,
        },
        What::Refused => Event::Refused(connack()),
        What::Head => Event::MessageHead {
            publish: view.publish(),
            payload_len: progress.left,
        },
        What::Piece => Event::Payload {
            bytes: view.body,
            left: progress.left,
            receipt: progress.receipt(),
        },
        What::Subscribed => Event::Subscribed {
            token,
            suback: SubAck {
                packet_id: view.packet_id(),
                properties,
                codes: view.codes(),
            },
            granted_more: progress.granted_more,
        },
        What::Unsubscribed => Event::Unsubscribed {
            token,
            unsuback: UnsubAck {
                packet_id: view.packet_id(),
                properties,
                codes: view.codes(),
            },
        },
        What::Ended => Event::Ended {
            token,
            how: progress.how,
        },
        What::Auth => Event::Auth(Auth { reason, properties }),
        What::Disconnected => Event::Disconnected(Disconnect { reason, properties }),
        What::Pong => Event::Pong,
        _ => return None,
    })
}
