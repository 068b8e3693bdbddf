//! What the agent tells.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use mqtt_proto::{ConnAck, Decoded, MAX_PACKET, Message, Packet, ReasonCode, Version};
use mqtt_session::{Instant, Token};

use crate::error::Error;
use crate::publishing::Outcome;
use crate::requests::RequestId;
use crate::subscriptions::RouteId;

/// What [`crate::Agent::next_event`] tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AgentEvent {
    /// Something became of the connection.
    Connection(ConnectionEvent),
    /// A message that [`crate::Agent::publish`] accepted with this token came to its end.
    Published(Token, Outcome),
    /// There is a message for this subscription, or for none (`None`), after [`crate::Agent::next_message`] had none.
    Messages(Option<RouteId>),
    /// The server answered a SUBSCRIBE, with a code for each filter; some filter was granted.
    Subscribed(RouteId, Vec<ReasonCode>),
    /// A subscription came to nothing: it could not be sent, or all its filters were refused.
    SubscribeFailed(RouteId, Error),
    /// The server answered an UNSUBSCRIBE, with a code for each filter (5). The subscription is over.
    Unsubscribed(RouteId, Vec<ReasonCode>),
    /// The response to a request came, or it cannot come any more.
    Response(RequestId, Result<Message, Error>),
}

/// What becomes of the connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// An attempt begins.
    Connecting,
    /// The server accepted.
    Connected(ConnectionInfo),
    /// The server refused.
    Refused(OwnedConnAck),
    /// The connection, or the attempt to open it, is over. [`Self::Refused`] comes before it if that was the reason.
    Lost(Error),
    /// The next attempt begins then.
    WaitingUntil(Instant),
    /// The server sent more messages at once than the receive maximum (5, section 3.3.4). Told once in a connection; the
    /// messages are accepted.
    ReceiveMaximumExceeded,
    /// A message at QoS 1 or 2 came, or was left by a stream of the program, that no subscription claims, and is handled as
    /// [`crate::Options::unclaimed`] says. Told once in a connection.
    Unclaimed,
    /// Nothing more will come: the client was closed, or gave up for this reason.
    Stopped(Error),
}

/// What a server said when it accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Whether the session goes on where it was.
    pub session_present: bool,
    /// The client identifier in use: the one of the options, or the one that the server assigned (5).
    pub client_id: String,
    /// Its CONNACK.
    pub connack: OwnedConnAck,
}

impl ConnectionInfo {
    /// What response topics of this client begin with, if it asked (5; [`crate::Options::request_response_information`]).
    #[must_use]
    pub fn response_information(&self) -> Option<&str> {
        self.connack.get().properties.response_information()
    }
}

/// A CONNACK that owns what it says.
#[derive(Clone, Debug)]
pub struct OwnedConnAck {
    packet: Bytes,
    version: Version,
}

impl OwnedConnAck {
    /// Of a packet that was decoded before.
    pub(crate) fn new(packet: &[u8], version: Version) -> Self {
        Self {
            packet: Bytes::copy_from_slice(packet),
            version,
        }
    }

    /// The CONNACK, with its reason code and its properties (5).
    #[must_use]
    pub fn get(&self) -> ConnAck<'_> {
        match Packet::decode(&self.packet, self.version, MAX_PACKET) {
            Ok(Decoded::Packet {
                packet: Packet::ConnAck(connack),
                ..
            }) => connack,
            _ => ConnAck::default(),
        }
    }
}
