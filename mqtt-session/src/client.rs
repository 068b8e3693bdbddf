//! The client: typed commands and events over the engine.

use mqtt_proto::{
    Auth, ConnAck, Connect, Disconnect, Properties, Publish, ReasonCode, SubAck, Subscription,
    TopicFilter, TopicName, UnsubAck,
};

use crate::config::Config;
use crate::endpoint::endpoint;
use crate::engine::{Engine, Role};
use crate::error::{Refused, Violation};
use crate::event::{Event, Outgoing, Receipt, Step, Token};
use crate::memory::Memory;
use crate::problem::Problem;
use crate::progress::{Found, Progress};
use crate::state::link::Phase;
use crate::time::Instant;

/// A client: its session, which outlives connections, and its connection. On a heap its type is `Client<'static>`; with lent
/// buffers it lives as long as they do.
///
/// Every method may be called at any time. A command that is not possible now returns [`Refused`] and changes nothing. The page
/// of the crate shows the loop.
pub struct Client<'m> {
    engine: Engine,
    memory: Memory<'m>,
    /// The time of the last call that had it as an argument.
    now: Instant,
}

endpoint!(Client);

impl<'m> Client<'m> {
    /// Makes a client without a connection and without a session. `memory` is [`crate::Heap`] or [`crate::Lent`].
    pub fn new(config: Config, memory: impl Into<Memory<'m>>) -> Self {
        Self {
            engine: Engine::new(config, Role::Client),
            memory: memory.into(),
            now: Instant::default(),
        }
    }

    /// Starts a connection on a new transport: CONNECT is in [`Self::outgoing`]. An earlier connection is given up.
    ///
    /// The server has to keep to what `connect` announces (receive maximum, maximum packet size, topic alias maximum). The
    /// session continues only with the same client identifier.
    ///
    /// A clean start ends the session on this side at once, as [`Config::session_lost`](field@Config::session_lost) says,
    /// because the server ends it when it reads CONNECT, and its CONNACK may be lost. Until a CONNACK accepts a clean start,
    /// [`Self::must_start_clean`] returns `true`.
    ///
    /// # Errors
    /// [`Refused::Encode`], [`Refused::TooLarge`] or [`Refused::Full`] if CONNECT cannot be written; the session does not
    /// change then. [`Refused::NoClientIdentifier`] if the client identifier is empty and must not be;
    /// [`Refused::MustStartClean`] if `connect` has no clean start although [`Self::must_start_clean`] returns `true`. The last
    /// two do not change the connection either.
    pub fn connect(&mut self, connect: &Connect<'_>, now: Instant) -> Result<(), Refused> {
        let now = self.at(now);
        self.engine.connect(&mut self.memory, connect, now)
    }

    /// Tells the client that the transport is closed, or was never opened. Messages wait for the next connection, and requests
    /// end in doubt. [`Self::receive`] with empty input then reports what has ended.
    pub fn disconnected(&mut self) {
        self.engine.disconnected(&mut self.memory);
    }

    /// Does one step over the front of the input. Call it until it returns [`Step::Needs`].
    ///
    /// # Errors
    /// The rule that the server broke. The connection is over: write what is outgoing, close the transport, and call
    /// [`Self::disconnected`].
    #[inline]
    pub fn receive<'i>(
        &mut self,
        input: &'i [u8],
        now: Instant,
    ) -> Result<Step<Event<'i>>, Violation> {
        let now = self.at(now);
        self.step(Progress::new(input, now, false))
    }

    /// Does one step, as [`Self::receive`], over an input buffer that is full and cannot grow. An incomplete packet in it must be
    /// a PUBLISH whose head is complete. [`Event::MessageHead`] reports the head, and `receive` continues with the payload in
    /// pieces. [`Config::packet_limit`] is still the limit of such a message. Without the feature `pieces` it is refused as any
    /// other packet.
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

    /// Does a step as [`Self::receive_full`] if the input buffer is full, otherwise as [`Self::receive`]. Returns the event and how
    /// many bytes were consumed, without an event and 0 where those return [`Step::Needs`] or [`Step::Blocked`]. It is smaller code
    /// for devices.
    ///
    /// # Errors
    /// As [`Self::receive`] and [`Self::receive_full`].
    #[inline]
    pub fn receive_from<'i>(
        &mut self,
        input: &'i [u8],
        is_full: bool,
        now: Instant,
    ) -> Result<(Option<Event<'i>>, usize), Violation> {
        let now = self.at(now);
        let progress = &mut Progress::new(input, now, is_full);
        self.progress(progress)?;
        Ok(match progress.found {
            Found::Needs | Found::Blocked => (None, 0),
            _ => (event(progress, self.engine.is_v5()), progress.consumed),
        })
    }

    /// Tells the client that all input was processed. [`Self::receive`] notes this itself when it needs more; loops that ask
    /// [`Self::needs`] instead have to call this method. From then on silence of the server counts, and [`Self::tick`] may end
    /// the connection.
    pub fn looked_at_all(&mut self, now: Instant) {
        let now = self.at(now);
        self.engine.drained(now);
    }

    #[inline]
    fn step<'i>(&mut self, mut progress: Progress<'i>) -> Result<Step<Event<'i>>, Violation> {
        let progress = &mut progress;
        self.progress(progress)?;
        let event = match progress.found {
            Found::Needs => return Ok(Step::Needs(progress.consumed)),
            Found::Blocked => return Ok(Step::Blocked),
            _ => event(progress, self.engine.is_v5()),
        };
        Ok(Step::Packet {
            consumed: progress.consumed,
            event,
        })
    }

    fn progress(&mut self, progress: &mut Progress<'_>) -> Result<(), Violation> {
        let done = self.engine.step(&mut self.memory, progress);
        done.map_err(|problem| problem.violation(&self.engine, progress))
    }

    /// Publishes a message. While there is no connection, or it is ending, the message is kept as
    /// [`Config::offline`](field@Config::offline) says. Returns `None` for QoS 0 on a connection, because nothing will be
    /// reported of it, unless it is large (see [`Config::outgoing_limit`]).
    ///
    /// # Errors
    /// [`Refused::Full`] while the window or a buffer is full, [`Refused::TooLarge`] beyond the server's maximum packet size,
    /// [`Refused::NotSupportedByServer`], [`Refused::Offline`] and [`Refused::Encode`]. The message is not accepted then and
    /// uses no packet identifier.
    #[inline]
    pub fn publish(
        &mut self,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> Result<Option<Token>, Refused> {
        let now = self.at(now);
        self.engine.publish(&mut self.memory, message, now)
    }

    /// Sends SUBSCRIBE. [`Event::Subscribed`] reports the answer, with a code for each filter.
    ///
    /// # Errors
    /// As [`Self::publish`]; [`Refused::Offline`] without a connection.
    pub fn subscribe(
        &mut self,
        filters: &[Subscription<'_>],
        properties: Properties<'_>,
        now: Instant,
    ) -> Result<Token, Refused> {
        let now = self.at(now);
        self.engine
            .subscribe(&mut self.memory, filters, properties, now)
    }

    /// Sends UNSUBSCRIBE. [`Event::Unsubscribed`] reports the answer.
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
        self.engine
            .unsubscribe(&mut self.memory, filters, properties, now)
    }

    /// Acknowledges a message by hand, in any order. MQTT 5 sends the reason code, 3.1.1 cannot.
    ///
    /// # Errors
    /// [`Refused::NothingToAcknowledge`] if the message was acknowledged before, or its connection (QoS 1) or session (QoS 2)
    /// has ended; [`Refused::Encode`] for a reason code that the acknowledgement cannot have.
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

    /// Sends AUTH, to continue an authentication or to start one again (5, section 4.12).
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection or if CONNECT named no method (5 \[MQTT-4.12.0-7\]).
    pub fn authenticate(&mut self, auth: &Auth<'_>, now: Instant) -> Result<(), Refused> {
        let now = self.at(now);
        self.engine.authenticate(&mut self.memory, auth, now)
    }

    /// Ends the connection with DISCONNECT, the last packet that is sent (3.1.1 \[MQTT-3.14.4-2\]). Write what is outgoing,
    /// then close the transport.
    ///
    /// # Errors
    /// [`Refused::WrongPhase`] without a connection.
    pub fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Refused> {
        self.engine.disconnect(&mut self.memory, disconnect)
    }

    /// Tells the client the time. It sends PINGREQ when one is due, and ends the connection if an answer is overdue.
    ///
    /// # Errors
    /// [`Violation::ConnectTimeout`] or [`Violation::PingTimeout`] if the server did not answer in time. The connection is
    /// over, as after an error of [`Self::receive`].
    pub fn tick(&mut self, now: Instant) -> Result<(), Violation> {
        let now = self.at(now);
        let ticked = self.engine.tick(&mut self.memory, now);
        ticked.map_err(Problem::timeout)
    }

    /// Returns a message that was accepted and is not acknowledged, or the one whose [`Event::Ended`] was reported last.
    #[must_use]
    pub fn unacknowledged(&self, token: Token) -> Option<Publish<'_>> {
        self.engine.unacknowledged(&self.memory, token)
    }

    /// Returns all messages, in their order, that were accepted and are not acknowledged. QoS 2 messages whose PUBREC has
    /// arrived are left out.
    pub fn unacknowledged_all(&self) -> impl Iterator<Item = (Token, Publish<'_>)> {
        self.engine.unacknowledged_all(&self.memory)
    }

    /// Returns how many bytes [`Self::receive`] needs to do a step over this input; `None` if it can do one now. For loops that
    /// still hold an event and cannot call `receive` to find out.
    #[must_use]
    #[inline]
    pub fn needs(&self, input: &[u8]) -> Option<usize> {
        self.engine.needs(input)
    }

    /// Returns whether the next CONNECT must ask for a clean start. This is so if the last CONNACK had session present for a
    /// session that this client does not have, which ended the connection (5 \[MQTT-3.2.2-4\]), or if a CONNECT with clean
    /// start was not accepted yet, so that it is unknown which session the server has. [`Self::assume_session`] resets it.
    #[must_use]
    pub const fn must_start_clean(&self) -> bool {
        self.engine.must_start_clean
    }

    /// Returns whether the server has sent more unacknowledged QoS 1 and QoS 2 messages on this connection than the receive
    /// maximum allows, and [`Config::receive_beyond_maximum`] accepted them.
    #[must_use]
    pub const fn receive_maximum_exceeded(&self) -> bool {
        self.engine.link.exceeded
    }

    /// Returns the settings, for changes. The window and the limits may be changed at any time.
    pub const fn config_mut(&mut self) -> &mut Config {
        &mut self.engine.config
    }

    /// Starts the journal: what must outlive the process is written to [`Self::journal`] from now on. Call it before anything
    /// else.
    #[cfg(feature = "journal")]
    pub fn start_journal(&mut self) {
        self.engine.start_journal(mqtt_journal::Machine::Client);
    }

    /// Starts a journal as [`Self::start_journal`] does, for a machine around this client, which adds records of its own by
    /// [`Self::record`]. The first record names that machine.
    #[cfg(feature = "journal")]
    pub fn start_journal_of(&mut self, machine: mqtt_journal::Machine) {
        self.engine.start_journal(machine);
    }

    /// Sets the length in bytes of the longest record that can be stored; 0 is without limit. What would need a longer one is refused
    /// with [`Refused::TooLarge`]: messages at QoS 1 and 2 in [`Self::publish`], client identifiers in [`Self::connect`], and notes.
    /// The record of a message is at most 22 bytes longer than its packet. Call it after [`Self::start_journal`].
    #[cfg(feature = "journal")]
    pub fn limit_records(&mut self, longest: usize) {
        if let Some(journal) = &mut self.engine.journal {
            journal.longest = longest;
        }
    }

    /// Appends a record of the machine around this client to [`Self::journal`]. [`Self::restore`] does not take it.
    #[cfg(feature = "journal")]
    pub fn record(&mut self, record: &mqtt_journal::Record<'_>) {
        self.engine.record(&mut self.memory, record);
    }

    /// Returns how many bytes of records were written since the start, and how many of these are stored.
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn recorded(&self) -> (u64, u64) {
        self.engine.recorded()
    }

    /// Acknowledges a message by hand, and stores a note of at most 64 bytes with it, such as a number or the key of a row: one
    /// record has both. [`Self::note`] returns the last one, also in the next process. From the first note on, PUBACK waits
    /// until its note is stored.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] for a longer note, and as for [`Self::acknowledge`].
    #[cfg(all(feature = "by-hand", feature = "journal"))]
    pub fn acknowledge_with(
        &mut self,
        receipt: Receipt,
        note: &[u8],
        now: Instant,
    ) -> Result<(), Refused> {
        let now = self.at(now);
        self.engine
            .acknowledge_with(&mut self.memory, receipt, note)?;
        self.engine.link.times.sent(now);
        Ok(())
    }

    /// Stores a note with a message that cannot be acknowledged any more, since its session ended. A note that is too long for
    /// [`Self::acknowledge_with`] is cut.
    #[cfg(feature = "journal")]
    pub fn store_note(&mut self, id: mqtt_proto::PacketId, note: &[u8]) {
        let note = note.get(..self.engine.longest_note()).unwrap_or(note);
        self.engine.store_note(&mut self.memory, id, note);
    }

    /// Returns the note of the last [`Self::acknowledge_with`], of this process or of the one that was restored.
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn note(&self) -> Option<&[u8]> {
        self.engine.note()
    }

    /// Sets when records of messages to the server are written, from the next message on. Records that were put off are written.
    /// Call it after [`Self::start_journal`].
    #[cfg(feature = "journal")]
    pub fn set_durable(&mut self, durable: crate::Durable) {
        self.engine.set_durable(&mut self.memory, durable);
    }

    /// Writes the records that [`Durable::WhenOffline`](crate::Durable::WhenOffline) has put off, as [`Self::disconnected`] does: when
    /// the transport has failed, or before the power ends. Those that have no room are written when others are [stored](Self::stored).
    #[cfg(feature = "journal")]
    pub fn record_deferred(&mut self) {
        self.engine.record_deferred(&mut self.memory);
    }

    /// Returns the records that are not stored yet: whole ones, oldest first. The call has no effect of its own. While more
    /// than 256 KiB of them wait, [`Self::publish`] at QoS 1 and 2 returns [`Refused::Full`], and [`Self::receive`] returns
    /// [`Step::Blocked`].
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn journal(&self) -> &[u8] {
        self.engine.journal(&self.memory)
    }

    /// Tells the client that the first `n` bytes of [`Self::journal`] are durable. Packets that waited for them are in
    /// [`Self::outgoing`] now.
    #[cfg(feature = "journal")]
    pub fn stored(&mut self, n: usize) {
        self.engine.stored(&mut self.memory, n);
    }

    /// Tells the client that nothing will be stored any more. Packets that wait for a record are never sent, and nothing is
    /// accepted that would have to be stored. Close the transport and end the process; the next one restores what is stored.
    #[cfg(feature = "journal")]
    pub fn storage_failed(&mut self) {
        self.engine.storage_failed();
    }

    /// Restores a record of an earlier process, after [`Self::start_journal`] and before the first connection. Give it all
    /// records of a log or, of a store, one for each key in ascending order of kind and key.
    ///
    /// # Errors
    /// The record is damaged, is not of a client, or does not fit the limits of the [`Config`]. The client must not be used any
    /// more.
    #[cfg(feature = "journal")]
    pub fn restore(
        &mut self,
        record: &mqtt_journal::Record<'_>,
    ) -> Result<(), mqtt_journal::Fault> {
        self.engine.restore(&mut self.memory, record)
    }

    /// Ends the restoring, after all records of the earlier process, or if there was none. Returns the client identifier of its
    /// session; CONNECT must have the same. [`Self::unacknowledged_all`] has its unfinished messages, with new tokens.
    ///
    /// Without a session the first CONNECT must ask for a clean start, because the server may have a session that is lost on
    /// this side (5 \[MQTT-3.2.2-4\]).
    #[cfg(feature = "journal")]
    pub fn restored(&mut self) -> Option<&str> {
        self.engine.restored(&mut self.memory);
        self.engine.restored_client_id(&self.memory)
    }

    /// Makes this client refuse a session that only the server has, also before MQTT 5. A server may still hold packet identifiers
    /// of QoS 2 messages that an earlier process with other records had sent, and takes the next message with such an identifier for a
    /// repetition.
    ///
    /// CONNACK then ends the connection with [`Violation::SessionPresentWithoutState`] in two cases: it has session present and this
    /// client has no session, as in MQTT 5; afterwards [`Self::must_start_clean`] returns `true`. Or it accepts a clean session,
    /// which before MQTT 5 ends with its connection; the next CONNECT, without a clean session, then begins a session that the
    /// server keeps. Call it after [`Self::start_journal`].
    #[cfg(feature = "journal")]
    pub fn refuse_unknown_session(&mut self) {
        if let Some(journal) = &mut self.engine.journal {
            journal.refuses_unknown = true;
        }
    }

    /// Returns whether a record that is stored is still needed. With lent memory, call it for each record after
    /// [`Self::restored`], and delete those for which it returns `false`; with a heap, the records that delete them are in
    /// [`Self::journal`].
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn needs_record(&self, record: &mqtt_journal::Record<'_>) -> bool {
        self.engine.is_needed(&self.memory, record)
    }

    /// Returns whether a stored record of a message from the server with this packet identifier is still needed, as
    /// [`Self::needs_record`] does. It may be asked at any time: a session that is lost deletes no records of the messages that were
    /// half received in it.
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn needs_received(&self, id: u16) -> bool {
        self.engine.needs_received(&self.memory, id)
    }

    /// Assumes that this client has the session of `client_id`, with nothing unfinished. Without this call, a client that has
    /// just been made must close the connection when an MQTT 5 server has session present (5 \[MQTT-3.2.2-4\]). A client that
    /// only receives, and has kept nothing, can make this call.
    pub fn assume_session(&mut self, client_id: &str) {
        self.engine.assume_session(&mut self.memory, client_id);
    }

    /// Discards the session at once. Tokens that have not ended get no end any more. If a part of a large message was sent, the
    /// connection ends (see [`Config::outgoing_limit`]).
    pub fn forget_session(&mut self) {
        self.engine.forget_session(&mut self.memory);
    }
}

/// Returns the event that a step reports to the client's caller.
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
    Some(match progress.found {
        Found::Message => Event::Message(progress.incoming()),
        Found::Acknowledged => Event::Acknowledged {
            token,
            reason,
            properties,
        },
        Found::Connected => Event::Connected {
            connack: connack(),
            resumed: progress.resumed,
            unasked_session: progress.unasked_session,
        },
        Found::Refused => Event::Refused(connack()),
        Found::Head => Event::MessageHead {
            publish: view.publish(),
            payload_len: progress.left,
        },
        Found::Piece => Event::Payload {
            bytes: view.body,
            left: progress.left,
            receipt: progress.receipt(),
        },
        Found::Subscribed => Event::Subscribed {
            token,
            suback: SubAck {
                packet_id: view.packet_id(),
                properties,
                codes: view.codes(),
            },
            granted_more: progress.granted_more,
        },
        Found::Unsubscribed => Event::Unsubscribed {
            token,
            unsuback: UnsubAck {
                packet_id: view.packet_id(),
                properties,
                codes: view.codes(),
            },
        },
        Found::Ended => Event::Ended {
            token,
            how: progress.how,
        },
        Found::Auth => Event::Auth(Auth { reason, properties }),
        Found::Disconnected => Event::Disconnected(Disconnect { reason, properties }),
        Found::Pong => Event::Pong,
        _ => return None,
    })
}
