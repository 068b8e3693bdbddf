//! What the host decides: who may connect, publish and subscribe; and what it wants to know.

use mqtt_session::Violation;
use mqtt_session::proto::{Connect, ReasonCode, TopicFilter, TopicName, Version};

use crate::ConnectionId;

/// A decision on a CONNECT or on a step of an authentication.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The client is who it says.
    Accept,
    /// The same, and the last data of an enhanced authentication goes with it (5).
    AcceptWith(Vec<u8>),
    /// The client is this user, whatever user name CONNECT has: its certificate says so, for example.
    AcceptAs(String),
    /// It is not. The reason is told as the version can.
    Refuse(ReasonCode),
    /// The authentication goes on with AUTH and this data (5 \[MQTT-4.12.0-2\]).
    Continue(Vec<u8>),
    /// Not yet: the host calls [`crate::Broker::decide`]. Meanwhile the connection waits, nobody else does.
    Later,
}

/// A client, as hooks see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientInfo<'a> {
    /// Its client identifier.
    pub client_id: &'a str,
    /// The user name of its CONNECT.
    pub user_name: Option<&'a str>,
    /// Its version.
    pub version: Version,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Ending {
    /// The client said DISCONNECT.
    #[error("disconnected by the client: {0}")]
    ByClient(ReasonCode),
    /// The client broke a rule, or was silent for too long.
    #[error("{0}")]
    Failed(Violation),
    /// The transport is gone without DISCONNECT.
    #[error("the transport is gone")]
    TransportGone,
    /// The broker ended it.
    #[error("ended by the broker: {0}")]
    ByBroker(ReasonCode),
    /// CONNECT was refused.
    #[error("connection refused: {0}")]
    ConnectRefused(ReasonCode),
}

/// Something that happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A client is connected.
    Connected {
        /// Which connection.
        connection: ConnectionId,
        /// Who.
        client: ClientInfo<'a>,
        /// Whether its session went on.
        resumed: bool,
    },
    /// A client was not accepted. [`Self::Ended`] follows.
    Refused {
        /// Which connection.
        connection: ConnectionId,
        /// Who it said it was.
        client: ClientInfo<'a>,
        /// Why.
        reason: ReasonCode,
    },
    /// A connection ended.
    Ended {
        /// Which connection.
        connection: ConnectionId,
        /// Whose, if it was accepted.
        client_id: Option<&'a str>,
        /// Why.
        ending: Ending,
    },
    /// A subscription was granted or refused.
    Subscribed {
        /// By which connection.
        connection: Option<ConnectionId>,
        /// Who.
        client: ClientInfo<'a>,
        /// To what.
        filter: TopicFilter<'a>,
        /// The answer.
        reason: ReasonCode,
    },
    /// A message was not accepted from a client.
    PublishRefused {
        /// By which connection.
        connection: Option<ConnectionId>,
        /// Who.
        client: ClientInfo<'a>,
        /// To what.
        topic: TopicName<'a>,
        /// Why.
        reason: ReasonCode,
    },
    /// Messages for a client were dropped: its queue was full, or they were too large for it.
    Dropped {
        /// Its connection, unless it is away.
        connection: Option<ConnectionId>,
        /// For whom.
        client_id: &'a str,
        /// How many.
        messages: u64,
    },
    /// A connected client took nothing for [`Config::slow_consumer_ms`](crate::Config::slow_consumer_ms) though its queue is
    /// more than half full: messages for it may be dropped until it has taken all that is queued.
    SlowConsumer {
        /// Who.
        client_id: &'a str,
        /// How many messages are queued for it.
        messages: usize,
    },
}

/// What a process takes of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// Now.
    pub current: u64,
    /// The most since it began.
    pub maximum: u64,
}

/// The host's part in decisions. Only [`Self::unguessable`] must be written; by default everyone may do everything.
///
/// ```
/// use mqtt_broker::{Hooks, ConnectionId, Verdict, proto::{Connect, ReasonCode}};
/// struct OnlyPumps(u128);
/// impl Hooks for OnlyPumps {
///     fn unguessable(&mut self) -> u128 { self.0 += 1; self.0 } // take it from the system
///     fn connect(&mut self, _: ConnectionId, connect: &Connect<'_>) -> Verdict {
///         if connect.user_name == Some("pump") { Verdict::Accept } else { Verdict::Refuse(ReasonCode::NotAuthorized) }
///     }
/// }
/// ```
pub trait Hooks {
    /// A number nobody can guess: assigned client identifiers are made of it. Two must not be the same.
    fn unguessable(&mut self) -> u128;

    /// A client wants to connect, without an authentication method.
    fn connect(&mut self, connection: ConnectionId, connect: &Connect<'_>) -> Verdict {
        let _ = (connection, connect);
        Verdict::Accept
    }

    /// A step of an enhanced authentication (5, section 4.12): CONNECT named `method`, or an AUTH came, of a connected
    /// client too.
    fn authenticate(
        &mut self,
        connection: ConnectionId,
        method: &str,
        data: Option<&[u8]>,
    ) -> Verdict {
        let _ = (connection, method, data);
        Verdict::Refuse(ReasonCode::BadAuthenticationMethod)
    }

    /// Whether a client may publish to a topic; asked for its will too, and again about who published a retained message when it is
    /// delivered (see [`crate::Config::check_retained_source`]); that client need not be connected then. Denied is 0x87 in MQTT 5; earlier versions
    /// cannot say it: there the message is acknowledged and goes nowhere.
    fn may_publish(&mut self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        let _ = (client, topic);
        true
    }

    /// Whether a client may subscribe. Denied is 0x87 in MQTT 5, 0x80 before.
    fn may_subscribe(&mut self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        let _ = (client, filter);
        true
    }

    /// Whether a client may receive every message that a filter matches. If not, [`Self::may_receive`] is asked about the messages of
    /// this client, and they take longer. See [`crate::Broker::rights_changed`].
    fn may_receive_all(&mut self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        let _ = (client, filter);
        true
    }

    /// Whether a client may receive messages of a topic that one of its subscriptions matches; asked when a message is to be queued
    /// or sent, also a retained one. Denied, the client does not get it. Answers are kept while the client is connected, until
    /// [`crate::Broker::rights_changed`].
    fn may_receive(&mut self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        let _ = (client, topic);
        true
    }

    /// What the process takes of memory, if the host knows it; the `$SYS` topics `heap` tell it.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// Something happened.
    fn observe(&mut self, observation: &Observation<'_>) {
        let _ = observation;
    }
}
