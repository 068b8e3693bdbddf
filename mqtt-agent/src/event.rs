//! Holds the events of an agent.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use mqtt_proto::{ConnAck, Decoded, MAX_PACKET, Message, Packet, ReasonCode, Version};
use mqtt_session::{Instant, Token};

use crate::error::Error;
use crate::publishing::Outcome;
use crate::requests::RequestId;
use crate::subscriptions::RouteId;

/// An event that [`crate::Agent::next_event`] returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AgentEvent {
    /// The state of the connection changed.
    Connection(ConnectionEvent),
    /// A message that [`crate::Agent::publish`] accepted with this token ended.
    Published(Token, Outcome),
    /// A message arrived for this subscription, or for none (`None`), after [`crate::Agent::next_message`] had returned
    /// `None`.
    Messages(Option<RouteId>),
    /// The server answered a SUBSCRIBE, with a reason code for each filter. It granted at least one of them.
    Subscribed(RouteId, Vec<ReasonCode>),
    /// A SUBSCRIBE failed: the agent could not send it, or the server refused all its filters.
    SubscribeFailed(RouteId, Error),
    /// The server answered an UNSUBSCRIBE, with a reason code for each filter (5). The subscription is over.
    Unsubscribed(RouteId, Vec<ReasonCode>),
    /// The response to a request arrived, or will not arrive.
    Response(RequestId, Result<Message, Error>),
}

/// A change of the connection, or a report about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// An attempt to connect begins.
    Connecting,
    /// The server accepted the connection.
    Connected(ConnectionInfo),
    /// The server refused the connection.
    Refused(OwnedConnAck),
    /// The connection, or the attempt to open it, ended. If the server refused it, [`Self::Refused`] comes first.
    Lost(Error),
    /// The next attempt begins at this time.
    WaitingUntil(Instant),
    /// The server sent more unacknowledged messages than the receive maximum allows (5, section 3.3.4). This event comes once
    /// in a connection. The messages are accepted.
    ReceiveMaximumExceeded,
    /// A QoS 1 or 2 message arrived or was left over by an ended stream, and matches no subscription.
    /// [`crate::Options::unclaimed`] says how it is handled. This event comes once in a connection.
    Unclaimed,
    /// There is no room for records: the agent accepts no QoS 1 and 2 messages until there is room. On a full disk, packets that
    /// wait for their record are not sent, and messages are not acknowledged.
    #[cfg(feature = "journal")]
    StoreFull,
    /// There is room for records again.
    #[cfg(feature = "journal")]
    StoreHasRoom,
    /// There are no further events: the client was closed, or stopped for this reason.
    Stopped(Error),
}

/// The server's answer with which it accepted the connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Whether the server continues a session.
    pub session_present: bool,
    /// The client identifier in use: the one of the options, or the one that the server assigned (5).
    pub client_id: String,
    /// The CONNACK.
    pub connack: OwnedConnAck,
}

impl ConnectionInfo {
    /// Returns the beginning of the response topics of this client, if it asked for it (5;
    /// [`crate::Options::request_response_information`]).
    #[must_use]
    pub fn response_information(&self) -> Option<&str> {
        self.connack.get().properties.response_information()
    }
}

/// A CONNACK that owns its content.
#[derive(Clone, Debug)]
pub struct OwnedConnAck {
    packet: Bytes,
    version: Version,
}

impl OwnedConnAck {
    /// Copies a CONNACK that has already been decoded.
    pub(crate) fn new(packet: &[u8], version: Version) -> Self {
        Self {
            packet: Bytes::copy_from_slice(packet),
            version,
        }
    }

    /// Returns the CONNACK, with its reason code and its properties (5).
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
