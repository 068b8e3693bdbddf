//! Whose fault it is: [`Refused`], [`Violation`], [`Closed`].

use mqtt_proto::{DecodeError, EncodeError, PacketId, PacketType, ReasonCode};

/// The application asked what cannot be now. Nothing changed; what was to be sent is still the caller's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Refused {
    /// A window, a table or a buffer is full: again when something was sent or acknowledged.
    #[error("no room now")]
    Full,
    /// There is no connection, and this is not kept for the next one.
    #[error("there is no connection")]
    Offline,
    /// There is a connection already, or it is ending.
    #[error("the connection is not in a state for this")]
    WrongPhase,
    /// The packet is larger than the peer or the outgoing buffer takes.
    #[error("the packet has {len} bytes, {max} are allowed")]
    TooLarge {
        /// Length of the packet.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// The server said in CONNACK that it does not support this (5); the code says what.
    #[error("{0}")]
    NotSupportedByServer(ReasonCode),
    /// The version of CONNECT allows no empty client identifier here; see [`mqtt_proto::Connect::lacks_client_id`].
    #[error("this CONNECT needs a client identifier")]
    NoClientIdentifier,
    /// CONNECT must ask for a clean start; see [`crate::Client::must_start_clean`].
    #[error("CONNECT must ask for a clean start")]
    MustStartClean,
    /// A receipt or packet identifier that awaits no acknowledgement.
    #[error("nothing awaits this acknowledgement")]
    NothingToAcknowledge,
    /// The packet cannot be written.
    #[error("{0}")]
    Encode(EncodeError),
}

impl From<EncodeError> for Refused {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// The peer broke a rule. The connection ends, the session stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are no packet of this version, or one too large.
    #[error("{0}")]
    Malformed(DecodeError),
    /// A packet that cannot come now, or never from this side.
    #[error("{0} cannot come here")]
    Unexpected(PacketType),
    /// An acknowledgement that does not fit what was sent under this packet identifier.
    #[error("{packet} does not answer what was sent with packet identifier {id}")]
    WrongAck {
        /// The acknowledgement.
        packet: PacketType,
        /// Its packet identifier.
        id: PacketId,
    },
    /// More QoS 1 and QoS 2 messages at once than was announced (5, section 3.3.4), or than there is room for.
    #[error("more messages at once than the receive maximum")]
    ReceiveMaximumExceeded,
    /// A topic alias beyond the maximum, or one that stands for nothing yet (5 \[MQTT-3.3.2-9\]).
    #[error("topic alias {0} is not valid")]
    TopicAlias(u16),
    /// Session present without session state here (5 \[MQTT-3.2.2-4\]).
    #[error("session present, but there is no session state here")]
    SessionPresentWithoutState,
    /// SUBACK or UNSUBACK has not one code for each filter (3.1.1 \[MQTT-3.8.4-5\], 5 \[MQTT-3.8.4-6\]).
    #[error("{codes} codes answer {filters} filters")]
    CodeCount {
        /// Codes found.
        codes: usize,
        /// Filters asked for.
        filters: usize,
    },
    /// AUTH without an authentication method in CONNECT (5 \[MQTT-4.12.0-6\]).
    #[error("AUTH, but no authentication method was agreed on")]
    AuthNotAgreed,
    /// No PINGRESP in time.
    #[error("no PINGRESP within the ping time-out")]
    PingTimeout,
    /// One and a half keep-alives of silence (3.1.1 \[MQTT-3.1.2-24\], 5 \[MQTT-3.1.2-22\]).
    #[error("no packet within the keep-alive time")]
    KeepAliveTimeout,
    /// No CONNECT, or no CONNACK, in time.
    #[error("the connection was not established in time")]
    ConnectTimeout,
}

impl Violation {
    /// The reason code with which MQTT 5 says it.
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
    /// The peer said DISCONNECT.
    #[error("disconnected by the peer: {0}")]
    ByPeer(ReasonCode),
}

impl From<Violation> for Closed {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
