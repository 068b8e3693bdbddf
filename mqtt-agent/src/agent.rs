//! The machine: what it is made of, and the verbs that move bytes and time. What the verbs of the program do is in the module
//! of their subject: `publishing`, `subscriptions`, `delivery`, `requests`, `connection`.

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

/// What to do with the input now. A driver does all of them, so the enum is exhaustive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flow {
    /// Read until this many bytes are in the input.
    Read(usize),
    /// Write first: an acknowledgement has no room.
    Write,
    /// Do not read until the program has taken messages: [`Agent::is_paused`] tells.
    Paused,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// No transport, and none is being opened.
    Down,
    /// A transport is being opened.
    Dialling,
    /// A transport is there.
    Up,
    /// Never again.
    Stopped,
}

/// A client that lives long: see the crate's page for the loop.
///
/// Any call is legal at any time.
pub struct Agent {
    pub(crate) client: Client<'static>,
    pub(crate) options: Options,
    /// The client identifier in use; the server may have assigned it.
    pub(crate) client_id: String,
    pub(crate) supervisor: Supervisor,
    pub(crate) stage: Stage,
    /// CONNACK came once at least.
    pub(crate) was_connected: bool,
    /// Number of the connection, or of the attempt.
    pub(crate) connection: u32,
    pub(crate) authenticator: Option<Box<dyn Authenticator>>,
    /// Close by then.
    pub(crate) closing: Option<Instant>,
    /// DISCONNECT is written: the transport is given up by then.
    pub(crate) hang_up: Option<Instant>,
    pub(crate) progress: Progress,
    /// Messages at QoS 0 that waited for a connection, and where their last byte is at the latest.
    pub(crate) sending: VecDeque<(Position, Token)>,
    pub(crate) routes: Vec<Route>,
    pub(crate) next_subscription: u64,
    /// SUBSCRIBE and UNSUBSCRIBE that are not answered, also those whose subscription is forgotten.
    pub(crate) asked: Vec<Token>,
    /// What no subscription claims.
    pub(crate) others: Inbox,
    pub(crate) held: HeldMessages,
    /// Messages at QoS 1 of a lost connection by packet identifier: the server sends them again.
    pub(crate) returning: BTreeMap<u16, MessageId>,
    /// Number of the next message.
    pub(crate) number: u64,
    pub(crate) paused: bool,
    pub(crate) told_unclaimed: bool,
    pub(crate) told_exceeded: bool,
    pub(crate) requests: Requests,
    /// What response topics of this client begin with (5).
    pub(crate) response_information: Option<String>,
    pub(crate) events: VecDeque<AgentEvent>,
}

/// Packets from this size on are not copied: their message shares the buffer in which they came. A smaller one would hold
/// many times its own size of it.
const SHARED: usize = 16 << 10;

/// How many events about the connection wait to be told. Later ones replace the oldest.
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
    /// An agent without a connection.
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
            sending: VecDeque::new(),
            routes: Vec::new(),
            next_subscription: 0,
            asked: Vec::new(),
            others: Inbox::default(),
            held: HeldMessages::default(),
            returning: BTreeMap::new(),
            number: 0,
            paused: false,
            told_unclaimed: false,
            told_exceeded: false,
            requests: Requests::default(),
            response_information: None,
            events: VecDeque::new(),
            options,
        };
        agent.subscribe_from_the_start(wanted);
        agent
    }

    /// The options.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The bytes that wait for the transport. Look as often as you like.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.client.outgoing()
    }

    /// The transport took the first `n` bytes of [`Self::outgoing`]; any number is fine.
    pub fn sent(&mut self, n: usize) {
        let n = n.min(self.client.outgoing().len());
        self.client.sent(n);
        self.progress.sent(n);
        // A large message at QoS 0 ends with its last byte. Telling an end takes no time.
        self.tell_ended(Instant::default());
        self.tell_sent();
    }

    /// Looks at the input: removes every whole packet from its front and does what it says.
    ///
    /// # Errors
    /// The connection is over: write what is outgoing, close the transport, call [`Self::lost`] with this error.
    pub fn receive(&mut self, input: &mut BytesMut, now: Instant) -> Result<Flow, Error> {
        self.tell_ended(now);
        if self.stage != Stage::Up {
            input.clear();
            return Ok(Flow::Read(1));
        }
        let mut at = 0_usize;
        let flow = loop {
            if self.paused {
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
        self.ask(now);
        flow
    }

    /// The length of the packet at the front, if it is whole and large.
    fn large_packet(&self, input: &[u8]) -> Option<usize> {
        // What is that large has a length of three bytes at least.
        let is_long = matches!(input, [_, 0x80..=0xFF, 0x80..=0xFF, ..]);
        if !is_long || input.len() < SHARED {
            return None;
        }
        let limit = mqtt_proto::MAX_PACKET;
        let header = FixedHeader::decode(input, self.options.version, limit).ok()??;
        let len = header.packet_len();
        (len >= SHARED && len <= input.len()).then_some(len)
    }

    /// Takes a large packet out of the input without a copy; `false` if the session does not take it now.
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
                // An event that was due before the packet uses none of it.
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

    /// Time passes. Call it when [`Self::deadline`] comes, or earlier.
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
        // What waited for room may have been sent since.
        self.tell_ended(now);
        self.client.tick(now)?;
        self.ask(now);
        self.go_on_closing(now)
    }

    /// When [`Self::tick`] is to be called at the latest, if there is a connection. Valid after any call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let closing = self.hang_up.or(self.closing);
        match (self.client.deadline(), closing) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    /// Whether an event waits.
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    pub(crate) fn tell(&mut self, event: ConnectionEvent) {
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

    /// Ends that no packet told.
    pub(crate) fn tell_ended(&mut self, now: Instant) {
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

    /// `packet` is where the event borrows from, `shared` the same if a message may share it.
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
                self.was_asked(*token);
                self.on_suback(*token, suback, now);
            }
            ClientEvent::Unsubscribed { token, unsuback } => {
                self.was_asked(*token);
                self.on_unsuback(*token, unsuback.codes.iter().collect(), now);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Makes one buffer again of what was split; nothing is copied if nobody else shares it.
fn put_back(input: &mut BytesMut, packet: Bytes) {
    let mut whole = BytesMut::from(packet);
    whole.unsplit(core::mem::take(input));
    *input = whole;
}
