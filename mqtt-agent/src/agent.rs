//! Holds the state of the agent, and the methods that take bytes and time. The methods for the program are in `publishing`,
//! `subscriptions`, `delivery`, `requests` and `connection`.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf, Bytes, BytesMut};
use mqtt_proto::FixedHeader;
use mqtt_session::{
    self as session, Client, Event as ClientEvent, Heap, Instant, Step, Supervisor, Token,
};

use crate::authentication::Authenticator;
use crate::error::Error;
use crate::event::{AgentEvent, ConnectionEvent};
use crate::held::{HeldMessages, MessageId};
use crate::inbox::Inbox;
use crate::options::{AcknowledgeWhen, Options};
use crate::publishing::{Position, Progress};
use crate::requests::Requests;
use crate::subscriptions::Route;

/// The next step of the caller with the input. The enum is exhaustive, so that a driver handles each variant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flow {
    /// Read until the input holds this many bytes.
    Read(usize),
    /// Write the outgoing bytes first: the buffer has no room for an acknowledgement.
    Write,
    /// Do not read until the program has taken messages and [`Agent::is_paused`] returns `false`.
    Paused,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// There is no transport, and none is being opened.
    Down,
    /// A transport is being opened.
    Dialling,
    /// A transport is open.
    Up,
    /// The agent opens no transport any more.
    Stopped,
}

/// A client that reconnects by itself. The page of the crate shows the loop that drives it.
///
/// Any method may be called at any time.
pub struct Agent {
    pub(crate) client: Client<'static>,
    pub(crate) options: Options,
    /// The client identifier in use, which the server may have assigned.
    pub(crate) client_id: String,
    pub(crate) supervisor: Supervisor,
    pub(crate) stage: Stage,
    /// Whether a CONNACK accepted a connection at least once.
    pub(crate) was_connected: bool,
    /// The number of the connection, or of the attempt to open one.
    pub(crate) connection: u32,
    pub(crate) authenticator: Option<Box<dyn Authenticator>>,
    /// The time at which the agent closes even if messages are pending.
    pub(crate) closing: Option<Instant>,
    /// The time at which the agent gives up the transport after it has written DISCONNECT.
    pub(crate) hang_up: Option<Instant>,
    pub(crate) progress: Progress,
    /// QoS 0 messages that waited for a connection, each with the highest position that its last byte can have.
    pub(crate) waiting_qos0: VecDeque<(Position, Token)>,
    pub(crate) routes: Vec<Route>,
    pub(crate) next_subscription: u64,
    /// The tokens of SUBSCRIBE and UNSUBSCRIBE packets without an answer, including those of forgotten subscriptions.
    pub(crate) unanswered_requests: Vec<Token>,
    /// Messages that match no subscription.
    pub(crate) others: Inbox,
    pub(crate) held: HeldMessages,
    /// QoS 1 messages of a lost connection, by packet identifier. The server sends these messages again.
    pub(crate) to_be_resent: BTreeMap<u16, MessageId>,
    /// The number of the next received message.
    pub(crate) number: u64,
    pub(crate) paused: bool,
    pub(crate) told_unclaimed: bool,
    pub(crate) told_exceeded: bool,
    pub(crate) requests: Requests,
    /// The prefix of the response topics of this client (5).
    pub(crate) response_information: Option<String>,
    pub(crate) events: VecDeque<AgentEvent>,
    #[cfg(feature = "journal")]
    pub(crate) journal: crate::journal::Journal,
}

/// From this size on, a message shares the receive buffer instead of a copy. A smaller message would keep a buffer in memory that
/// is many times larger than the message.
const SHARED: usize = 16 << 10;

/// How many connection events are queued for the program. Newer events replace the oldest ones.
const CONNECTION_EVENTS: usize = 64;

impl core::fmt::Debug for Agent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Agent")
            .field("stage", &self.stage)
            .field("client", &self.client)
            .field("held_bytes", &self.held.bytes)
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Makes an agent without a connection.
    #[must_use]
    pub fn new(mut options: Options) -> Self {
        let config = &mut options.config;
        config.version = options.version;
        config.receive_beyond_maximum = true;
        config.acknowledge = match options.acknowledge {
            AcknowledgeWhen::Arrived => session::Acknowledge::Automatic,
            AcknowledgeWhen::Taken | AcknowledgeWhen::ByHand => session::Acknowledge::ByHand,
        };
        let mut client = Client::new(*config, Heap);
        if options.assume_session && !options.clean_start {
            client.assume_session(&options.client_id);
        }
        let wanted = core::mem::take(&mut options.subscriptions);
        let mut agent = Self {
            client,
            client_id: options.client_id.clone(),
            supervisor: Supervisor::new(options.back_off),
            stage: Stage::Down,
            was_connected: false,
            connection: 0,
            authenticator: None,
            closing: None,
            hang_up: None,
            progress: Progress::default(),
            waiting_qos0: VecDeque::new(),
            routes: Vec::new(),
            next_subscription: 0,
            unanswered_requests: Vec::new(),
            others: Inbox::default(),
            held: HeldMessages::default(),
            to_be_resent: BTreeMap::new(),
            number: 0,
            paused: false,
            told_unclaimed: false,
            told_exceeded: false,
            requests: Requests::default(),
            response_information: None,
            events: VecDeque::new(),
            #[cfg(feature = "journal")]
            journal: crate::journal::Journal::default(),
            options,
        };
        agent.subscribe_from_the_start(wanted);
        agent
    }

    /// Returns the options.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the bytes that wait for the transport. The call changes nothing.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.client.outgoing()
    }

    /// Removes the first `n` bytes of [`Self::outgoing`], which the transport has taken. `n` may exceed the number of outgoing
    /// bytes.
    pub fn sent(&mut self, n: usize) {
        let n = n.min(self.client.outgoing().len());
        self.client.sent(n);
        self.progress.sent(n);
        // A large message at QoS 0 ends with its last byte. This call needs no time.
        self.report_ended(Instant::default());
        self.report_sent();
    }

    /// Handles and removes every complete packet at the front of the input.
    ///
    /// # Errors
    /// The connection is over: write the outgoing bytes, close the transport, and call [`Self::lost`] with this error.
    pub fn receive(&mut self, input: &mut BytesMut, now: Instant) -> Result<Flow, Error> {
        self.report_ended(now);
        if self.stage != Stage::Up {
            input.clear();
            return Ok(Flow::Read(1));
        }
        let mut at = 0_usize;
        let flow = loop {
            // CONNACK is read in any case: without it the connection would not come up.
            if self.paused && self.client.is_connected() {
                break Ok(Flow::Paused);
            }
            let rest = input.get(at..).unwrap_or_default();
            if let Some(len) = self.large_packet(rest) {
                input.advance(at);
                at = 0;
                match self.receive_large(input, len, now) {
                    Ok(true) => continue,
                    Ok(false) => break Ok(Flow::Write),
                    Err(error) => break Err(error),
                }
            }
            match self.client.receive(rest, now) {
                Ok(Step::Needs(needed)) => break Ok(Flow::Read(needed)),
                Ok(Step::Blocked) => break Ok(Flow::Write),
                Ok(Step::Packet { consumed, event }) => {
                    at = at.saturating_add(consumed);
                    if let Some(event) = event {
                        let packet = rest.get(..consumed).unwrap_or_default();
                        if let Err(error) = self.on_event(&event, packet, None, now) {
                            break Err(error);
                        }
                    }
                }
                Err(violation) => break Err(violation.into()),
            }
        };
        input.advance(at.min(input.len()));
        self.send_waiting(now);
        flow
    }

    /// Returns the length of the packet at the front, if the packet is complete and large.
    fn large_packet(&self, input: &[u8]) -> Option<usize> {
        // A large packet has a remaining length of at least three bytes.
        let is_long = matches!(input, [_, 0x80..=0xFF, 0x80..=0xFF, ..]);
        if !is_long || input.len() < SHARED {
            return None;
        }
        let limit = mqtt_proto::MAX_PACKET;
        let header = FixedHeader::decode(input, self.options.version, limit).ok()??;
        let len = header.packet_len();
        (len >= SHARED && len <= input.len()).then_some(len)
    }

    /// Takes a large packet out of the input without copying it. Returns `false` if the session does not accept it now.
    fn receive_large(
        &mut self,
        input: &mut BytesMut,
        len: usize,
        now: Instant,
    ) -> Result<bool, Error> {
        let packet = input.split_to(len).freeze();
        match self.client.receive(&packet, now)? {
            Step::Packet { consumed, event } => {
                if let Some(event) = event {
                    self.on_event(&event, &packet, Some(&packet), now)?;
                }
                // The event was due before the packet and consumed no byte.
                if consumed == 0 {
                    put_back(input, packet);
                }
                Ok(true)
            }
            Step::Needs(_) | Step::Blocked => {
                put_back(input, packet);
                Ok(false)
            }
        }
    }

    /// Tells the agent the time. The caller calls it at [`Self::deadline`] or earlier.
    ///
    /// # Errors
    /// The connection is over, as for [`Self::receive`].
    pub fn tick(&mut self, now: Instant) -> Result<(), Error> {
        if self.stage != Stage::Up {
            if self.is_done(now) {
                self.stop(Error::Stopped);
            }
            return Ok(());
        }
        // The session may have sent messages that waited for room.
        self.report_ended(now);
        self.client.tick(now)?;
        self.send_waiting(now);
        self.continue_closing(now)
    }

    /// Returns the latest time for the next [`Self::tick`], or `None` without a connection. Any call may change it.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let closing = self.hang_up.or(self.closing);
        match (self.client.deadline(), closing) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Returns the next event, if there is one.
    pub fn next_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    /// Returns whether [`Self::next_event`] has an event.
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    pub(crate) fn queue_connection_event(&mut self, event: ConnectionEvent) {
        let is_connection = |event: &AgentEvent| matches!(event, AgentEvent::Connection(_));
        let told = self
            .events
            .iter()
            .filter(|event| is_connection(event))
            .count();
        if told >= CONNECTION_EVENTS
            && let Some(oldest) = self.events.iter().position(is_connection)
        {
            self.events.remove(oldest);
        }
        self.events.push_back(AgentEvent::Connection(event));
    }

    /// Queues the ends of messages and requests that the session decided without a packet of the server.
    pub(crate) fn report_ended(&mut self, now: Instant) {
        while self.client.has_ended() {
            let Ok(Step::Packet {
                event: Some(ClientEvent::Ended { token, how }),
                ..
            }) = self.client.receive(&[], now)
            else {
                return;
            };
            self.ended(token, how);
        }
    }

    /// Handles an event of the session. `packet` holds the bytes that the event borrows; `shared` holds the same bytes if a
    /// message may share them.
    fn on_event(
        &mut self,
        event: &ClientEvent<'_>,
        packet: &[u8],
        shared: Option<&Bytes>,
        now: Instant,
    ) -> Result<(), Error> {
        match event {
            ClientEvent::Message(incoming) => self.deliver(incoming, shared, now),
            ClientEvent::Acknowledged { token, reason, .. } => {
                self.end(*token, crate::Outcome::Acknowledged(*reason));
            }
            ClientEvent::Ended { token, how } => self.ended(*token, *how),
            ClientEvent::Connected {
                connack, resumed, ..
            } => self.on_connected(connack, packet, *resumed, now)?,
            ClientEvent::Refused(connack) => return Err(self.on_refused(connack, packet)),
            ClientEvent::Disconnected(disconnect) => {
                return Err(session::Closed::ByPeer(disconnect.reason).into());
            }
            ClientEvent::Auth(auth) => self.on_auth(auth, now)?,
            ClientEvent::Subscribed { token, suback, .. } => {
                self.take_request_token(*token);
                self.on_suback(*token, suback, now);
            }
            ClientEvent::Unsubscribed { token, unsuback } => {
                self.take_request_token(*token);
                self.on_unsuback(*token, unsuback.codes.iter().collect(), now);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Joins split-off bytes to the input again. Copies nothing if no message shares the buffer.
fn put_back(input: &mut BytesMut, packet: Bytes) {
    let mut whole = BytesMut::from(packet);
    whole.unsplit(core::mem::take(input));
    *input = whole;
}
