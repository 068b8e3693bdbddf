//! Defines the decisions of the host (which clients may connect, publish and subscribe) and the observations that it gets.

use mqtt_session::Violation;
use mqtt_session::proto::{Connect, ReasonCode, TopicFilter, TopicName, Version};

use crate::{ConnectionId, PlaceOf, Statistics};

/// A decision on a CONNECT or on a step of an authentication.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// The client is authenticated.
    Accept,
    /// The client is authenticated, and CONNACK has this last data of an enhanced authentication (5).
    AcceptWith(Vec<u8>),
    /// The client is authenticated as this user, whatever the user name of CONNECT: its certificate names the user, for example.
    AcceptAs(String),
    /// The client is refused. The reason is sent as far as the version allows.
    Refuse(ReasonCode),
    /// The authentication continues with an AUTH that has this data.
    Continue(Vec<u8>),
    /// There is no decision yet: the host calls [`crate::Broker::decide`]. Only this connection waits.
    Later,
}

/// A client as hooks see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientInfo<'a> {
    /// The client identifier.
    pub client_id: &'a str,
    /// The user name: that of CONNECT, or the one of [`Verdict::AcceptAs`].
    pub user_name: Option<&'a str>,
    /// The version of MQTT that the client uses.
    pub version: Version,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Ending {
    /// The client sent DISCONNECT.
    #[error("disconnected by the client: {0}")]
    ByClient(ReasonCode),
    /// The client broke a rule or exceeded the keep-alive.
    #[error("{0}")]
    Failed(Violation),
    /// The transport ended without DISCONNECT.
    #[error("the transport is gone")]
    TransportGone,
    /// The broker ended it.
    #[error("ended by the broker: {0}")]
    ByBroker(ReasonCode),
    /// CONNECT was refused.
    #[error("connection refused: {0}")]
    ConnectRefused(ReasonCode),
    /// CONNECT was refused because of its length.
    #[error("CONNECT has {len} bytes; connect-size and packet-size allow {limit}")]
    ConnectTooLarge {
        /// The length of CONNECT in bytes.
        len: usize,
        /// The limit: the lower one of [`Config::connect_size`](crate::Config::connect_size) and `packet_size`.
        limit: u32,
    },
}

/// An event that the broker reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A client has connected.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// The client.
        client: ClientInfo<'a>,
        /// Whether its session was resumed.
        resumed: bool,
    },
    /// A client was not accepted. [`Self::Ended`] follows.
    Refused {
        /// The connection.
        connection: ConnectionId,
        /// The client as its CONNECT describes it.
        client: ClientInfo<'a>,
        /// The reason.
        reason: ReasonCode,
    },
    /// A connection ended.
    Ended {
        /// The connection.
        connection: ConnectionId,
        /// The client identifier, if CONNECT was accepted.
        client_id: Option<&'a str>,
        /// The reason.
        ending: Ending,
    },
    /// A subscription was granted or refused.
    Subscribed {
        /// The connection, unless the client has disconnected since.
        connection: Option<ConnectionId>,
        /// The client.
        client: ClientInfo<'a>,
        /// The filter.
        filter: TopicFilter<'a>,
        /// The answer.
        reason: ReasonCode,
    },
    /// A message was not accepted from a client.
    PublishRefused {
        /// The connection, unless the client has disconnected since.
        connection: Option<ConnectionId>,
        /// The client.
        client: ClientInfo<'a>,
        /// The topic.
        topic: TopicName<'a>,
        /// The reason.
        reason: ReasonCode,
    },
    /// Messages for a client were dropped because its queue was full or they were too large for it.
    Dropped {
        /// The connection of the receiver, if it is connected.
        connection: Option<ConnectionId>,
        /// The receiver's client identifier.
        client_id: &'a str,
        /// The number of messages.
        messages: u64,
    },
    /// A connected client took nothing for [`Config::slow_consumer_ms`](crate::Config::slow_consumer_ms) though its queue is more
    /// than half full: messages for it may be dropped until it has taken all queued ones.
    SlowConsumer {
        /// The connection of the client.
        connection: Option<ConnectionId>,
        /// The client identifier.
        client_id: &'a str,
        /// How many messages are queued for it.
        messages: usize,
    },
    /// Publishers have waited for [`Config::slow_consumer_ms`](crate::Config::slow_consumer_ms) for a connected client that takes
    /// messages more slowly than they come: its queue is about half full all this time. Reported once until they did not wait for two
    /// seconds.
    PublishersWait {
        /// The connection of the client.
        connection: Option<ConnectionId>,
        /// The client identifier.
        client_id: &'a str,
        /// How many messages are queued for it.
        messages: usize,
    },
    /// The queue of messages for another shard is more than half full, and its link is not open: publishers of messages for it wait.
    PublishersWaitForShard {
        /// The shard.
        shard: u8,
        /// How many messages are queued for it.
        messages: usize,
    },
    /// Publishers do not wait for another shard any more, because it took nothing for
    /// [`Config::slow_consumer_ms`](crate::Config::slow_consumer_ms) or, while its link was not open, for the time of
    /// [`Config::publisher_wait_ms`](crate::Config::publisher_wait_ms): messages for it may be dropped until its link opens or
    /// its queue is empty.
    ShardGivenUp {
        /// The shard.
        shard: u8,
        /// How many messages are queued for it.
        messages: usize,
    },
    /// The queue of a client had no room for a message, for the first time since it was empty. [`Self::Dropped`] reports each time.
    QueueFull {
        /// The connection of the client, if it is connected.
        connection: Option<ConnectionId>,
        /// The client identifier.
        client_id: &'a str,
        /// How many messages are queued for it.
        messages: usize,
    },
    /// A message was delivered but not retained: there is no room for another retained message, or it cannot be stored.
    RetainRefused {
        /// The connection, unless the client has disconnected since.
        connection: Option<ConnectionId>,
        /// The client that published it.
        client: ClientInfo<'a>,
        /// The topic.
        topic: TopicName<'a>,
    },
}

/// The memory that a process takes, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// The memory in use now.
    pub current: u64,
    /// The largest amount of memory since the process began.
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
    /// Returns an unguessable number for an assigned client identifier. No two results may be equal.
    fn unguessable(&mut self) -> u128;

    /// Decides on a CONNECT without an authentication method.
    fn connect(&mut self, connection: ConnectionId, connect: &Connect<'_>) -> Verdict {
        let _ = (connection, connect);
        Verdict::Accept
    }

    /// Decides on a step of an enhanced authentication (5, section 4.12): CONNECT with `method`, or an AUTH, also of a connected
    /// client.
    fn authenticate(
        &mut self,
        connection: ConnectionId,
        method: &str,
        data: Option<&[u8]>,
    ) -> Verdict {
        let _ = (connection, method, data);
        Verdict::Refuse(ReasonCode::BadAuthenticationMethod)
    }

    /// Returns whether a client may publish to a topic. The broker asks for each message and, at CONNECT and when it is due, for
    /// the will. With [`crate::Config::check_retained_source`] it asks again for the publisher of a retained message when the
    /// message is delivered; that client need not be connected then. A refusal is 0x87 in MQTT 5. Earlier versions have no such
    /// answer: the message is acknowledged and dropped.
    fn may_publish(&mut self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        let _ = (client, topic);
        true
    }

    /// Returns whether a client may subscribe. A refusal is 0x87 in MQTT 5, and 0x80 before.
    fn may_subscribe(&mut self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        let _ = (client, filter);
        true
    }

    /// Returns whether a client may receive every message that a filter matches. If not, the broker asks [`Self::may_receive`]
    /// about the messages of this client, which takes longer. See [`crate::Broker::rights_changed`].
    fn may_receive_all(&mut self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        let _ = (client, filter);
        true
    }

    /// Returns whether a client may receive messages of a topic that one of its subscriptions matches. The broker asks when a
    /// message, also a retained one, is to be queued or sent. A client without the right does not get the message. Answers are
    /// kept while the client is connected, until [`crate::Broker::rights_changed`].
    fn may_receive(&mut self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        let _ = (client, topic);
        true
    }

    /// Returns the memory that the process takes, if the host knows it. The `$SYS` topics `heap` have these numbers.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// Returns the numbers for the `$SYS` topics, made of the counts of this broker. The host of several shards adds the counts
    /// of the others: see [`Statistics::of_all`]. By default the numbers are those of this broker.
    fn statistics(&mut self, own: Statistics) -> Statistics {
        own
    }

    /// Takes a place for a session of all shards, of a user or of an address, unless `limit` places of these are taken. Returns
    /// whether the place was taken. The host of several shards counts the places, so that [`crate::Config::sessions`],
    /// [`crate::Config::sessions_per_user`] and [`crate::Config::sessions_per_address`] are limits of all shards together; by
    /// default they are limits of each shard. A broker without shards does not call this.
    fn take_place(&mut self, of: PlaceOf, limit: usize) -> bool {
        let _ = (of, limit);
        true
    }

    /// Frees a place that [`Self::take_place`] took.
    fn free_place(&mut self, of: PlaceOf) {
        let _ = of;
    }

    /// Gets each event that the broker reports.
    fn observe(&mut self, observation: &Observation<'_>) {
        let _ = observation;
    }
}
