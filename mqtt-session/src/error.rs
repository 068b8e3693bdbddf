//! Errors by whose fault they are: [`Refused`] is the caller's, [`Violation`] the peer's. [`Closed`] is why a connection ended.

use mqtt_proto::write::Unencodable;
use mqtt_proto::{DecodeError, EncodeError, PacketId, PacketType, ReasonCode};

/// A command is not possible now. Nothing has changed, and the caller still has what was to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Refused {
    /// A window, a table or a buffer is full. The command is possible again after something was sent or acknowledged.
    #[error("no room now")]
    Full,
    /// There is no connection, and the message or request is not kept for the next one.
    #[error("there is no connection")]
    Offline,
    /// The command needs another state of the connection, such as [`crate::Client::disconnect`] without a connection.
    #[error("the connection is not in a state for this")]
    WrongPhase,
    /// The packet is longer than the peer or the outgoing buffer allows.
    #[error("the packet has {len} bytes, {max} are allowed")]
    TooLarge {
        /// Length of the packet in bytes.
        len: usize,
        /// The longest length allowed.
        max: usize,
    },
    /// The server does not support this, as its CONNACK says (MQTT 5). The reason code names what it does not support.
    #[error("{0}")]
    NotSupportedByServer(ReasonCode),
    /// The client identifier is empty, which the version of CONNECT does not allow here; see
    /// [`mqtt_proto::Connect::lacks_client_id`].
    #[error("this CONNECT needs a client identifier")]
    NoClientIdentifier,
    /// CONNECT must ask for a clean start; see [`crate::Client::must_start_clean`].
    #[error("CONNECT must ask for a clean start")]
    MustStartClean,
    /// No message with this receipt waits for an acknowledgement.
    #[error("nothing awaits this acknowledgement")]
    NothingToAcknowledge,
    /// The packet cannot be encoded.
    #[error("{0}")]
    Encode(EncodeError),
}

impl From<Unencodable> for Refused {
    fn from(error: Unencodable) -> Self {
        Self::Encode(error.into())
    }
}

impl From<EncodeError> for Refused {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// The peer broke a rule. The connection ends, and the session stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Violation {
    /// The bytes are not a packet of this version, or the packet is too large.
    #[error("{0}")]
    Malformed(DecodeError),
    /// The packet is not allowed in this state, or never from this side.
    #[error("{0} cannot come here")]
    Unexpected(PacketType),
    /// The acknowledgement does not fit the packet that was sent with this packet identifier.
    #[error("{packet} does not answer what was sent with packet identifier {id}")]
    WrongAck {
        /// The acknowledgement.
        packet: PacketType,
        /// The packet identifier of the acknowledgement.
        id: PacketId,
    },
    /// There are more unacknowledged QoS 1 and QoS 2 messages than was announced (5, section 3.3.4), or than there is room for.
    #[error("more messages at once than the receive maximum")]
    ReceiveMaximumExceeded,
    /// The topic alias is above the maximum, or no topic is assigned to it (5 \[MQTT-3.3.2-9\]).
    #[error("topic alias {0} is not valid")]
    TopicAlias(u16),
    /// CONNACK has session present, but this client has no session state (5 \[MQTT-3.2.2-4\]).
    #[error("session present, but there is no session state here")]
    SessionPresentWithoutState,
    /// SUBACK or UNSUBACK does not have one code for each filter (3.1.1 \[MQTT-3.8.4-5\], 5 \[MQTT-3.8.4-6\]).
    #[error("{codes} codes answer {filters} filters")]
    CodeCount {
        /// How many codes it has.
        codes: usize,
        /// How many filters the request had.
        filters: usize,
    },
    /// AUTH arrived, but CONNECT named no authentication method (5 \[MQTT-4.12.0-6\]).
    #[error("AUTH, but no authentication method was agreed on")]
    AuthNotAgreed,
    /// PINGRESP did not arrive in time.
    #[error("no PINGRESP within the ping time-out")]
    PingTimeout,
    /// No packet arrived for one and a half times the keep-alive (3.1.1 \[MQTT-3.1.2-24\], 5 \[MQTT-3.1.2-22\]).
    #[error("no packet within the keep-alive time")]
    KeepAliveTimeout,
    /// CONNECT or CONNACK did not arrive in time.
    #[error("the connection was not established in time")]
    ConnectTimeout,
}

impl Violation {
    /// Returns the reason code that MQTT 5 has for it.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Malformed(error) => error.reason_code(),
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAlias(_) => ReasonCode::TopicAliasInvalid,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Self::PingTimeout | Self::ConnectTimeout => ReasonCode::UnspecifiedError,
            _ => ReasonCode::ProtocolError,
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Closed {
    /// The peer broke a rule, or stopped answering.
    #[error("{0}")]
    Violation(Violation),
    /// The server refused the connection.
    #[error("connection refused: {0}")]
    Refused(ReasonCode),
    /// The peer sent DISCONNECT.
    #[error("disconnected by the peer: {0}")]
    ByPeer(ReasonCode),
}

impl From<Violation> for Closed {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
