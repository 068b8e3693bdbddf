//! What goes in and comes out of the machines.

use mqtt_proto::num::low_half;
use mqtt_proto::{
    Auth, ConnAck, Connect, Disconnect, PacketId, Properties, Publish, QoS, ReasonCode, SubAck,
    Subscribe, TopicName, UnsubAck, Unsubscribe,
};

/// What one call of `receive` did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step<E> {
    /// Nothing: at least this many bytes must be there, counted from the first of the input.
    Needs(usize),
    /// Nothing: the answer would not fit. Write what is outgoing first; nothing was consumed or committed.
    Blocked,
    /// A step: drop `consumed` bytes from the front of the input (it may be 0) and call again.
    Packet {
        /// How many bytes were used up.
        consumed: usize,
        /// What the application should know, if anything. It borrows from the input.
        event: Option<E>,
    },
}

/// A message to be published. The packet identifier is the session's to choose.
///
/// ```
/// use mqtt_session::{Outgoing, proto::{QoS, TopicName}};
/// let topic = TopicName::new("a/b").unwrap();
/// let message = Outgoing { retain: true, ..Outgoing::new(topic, QoS::AtLeastOnce, b"hello") };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outgoing<'a> {
    /// Its topic.
    pub topic: TopicName<'a>,
    /// Its quality of service.
    pub qos: QoS,
    /// Whether the server keeps it for later subscribers.
    pub retain: bool,
    /// Properties (5).
    pub properties: Properties<'a>,
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Outgoing<'a> {
    /// A message that is not retained.
    #[must_use]
    pub const fn new(topic: TopicName<'a>, qos: QoS, payload: &'a [u8]) -> Self {
        Self {
            topic,
            qos,
            retain: false,
            properties: Properties::EMPTY,
            payload,
        }
    }
}

/// Stands for an accepted command until its end is told. A reused packet identifier cannot answer for an old token: commands
/// are counted, up to 4,294,967,296 before the count begins anew.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Token {
    /// How many identifiers were given out before; its lower half is the identifier.
    pub(crate) number: u32,
    /// Of a QoS 0 message, which takes no identifier: how many there were. Otherwise 0.
    pub(crate) nth: u16,
}

impl Token {
    /// The packet identifier it goes by, for logs. `None` for a queued QoS 0 message.
    #[must_use]
    pub const fn packet_id(self) -> Option<PacketId> {
        if self.nth == 0 {
            PacketId::new(low_half(self.number))
        } else {
            None
        }
    }
}

/// The end of a token that no packet of the peer told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Ended {
    /// The session was lost, or for SUBSCRIBE and UNSUBSCRIBE the connection: it may have arrived or not.
    InDoubt,
    /// It gave way to a newer one while offline ([`crate::Offline::DropOldest`]).
    Dropped,
    /// The new connection's maximum packet size does not allow it.
    TooLarge,
    /// A QoS 0 message that waited for a connection is on its way, or the transport took all of a large one; no answer will
    /// come.
    Sent,
    /// A large QoS 0 message whose connection ended when the transport had taken a part of it. At QoS 0 nothing is sent
    /// again.
    Lost,
}

/// Identifies an incoming message that awaits its acknowledgement by hand.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Receipt {
    pub(crate) id: PacketId,
    pub(crate) serial: u16,
}

/// An incoming message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Incoming<'i> {
    /// The PUBLISH. If its topic is [`TopicName::NONE`], `topic` of the machine tells what its alias stands for.
    pub publish: Publish<'i>,
    /// Acknowledge with this, if acknowledging is [`crate::Acknowledge::ByHand`].
    pub receipt: Option<Receipt>,
}

/// What a client learns.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'i> {
    /// The server accepted the connection.
    Connected {
        /// Its answer.
        connack: ConnAck<'i>,
        /// Whether the session goes on where it was. A server of 3.1 does not say whether it has it: it is taken to be there if it is
        /// here, and the program subscribes again.
        resumed: bool,
        /// The server said session present after a clean connect, against 3.1.1 \[MQTT-3.2.2-1\]. The client carries on
        /// with a clean session.
        unasked_session: bool,
    },
    /// The server refused the connection; it is over.
    Refused(ConnAck<'i>),
    /// A message came.
    Message(Incoming<'i>),
    /// A message begins that is larger than the input buffer: [`Event::Payload`] follows until nothing is left. If the
    /// connection ends before, it was not received: forget it; at QoS 1 and 2 the server sends it again.
    MessageHead {
        /// The PUBLISH, with an empty payload.
        publish: Publish<'i>,
        /// Length of its payload in bytes, at least 1.
        payload_len: u32,
    },
    /// The next piece of its payload.
    Payload {
        /// The piece.
        bytes: &'i [u8],
        /// How many bytes are left after it. With 0 the message is received.
        left: u32,
        /// With the last piece: as [`Incoming::receipt`].
        receipt: Option<Receipt>,
    },
    /// A publish came to its end: below 0x80 it arrived, otherwise the server refused it (5).
    Acknowledged {
        /// Which.
        token: Token,
        /// How it went.
        reason: ReasonCode,
        /// Properties of the last acknowledgement (5).
        properties: Properties<'i>,
    },
    /// A SUBSCRIBE is answered: a code for each filter.
    Subscribed {
        /// Which.
        token: Token,
        /// The answer.
        suback: SubAck<'i>,
        /// The server granted more than was asked for, as some do. Accepted.
        granted_more: bool,
    },
    /// An UNSUBSCRIBE is answered.
    Unsubscribed {
        /// Which.
        token: Token,
        /// The answer.
        unsuback: UnsubAck<'i>,
    },
    /// A command ended without an answer. The message can be looked at by `unacknowledged` until the next `receive`.
    Ended {
        /// Which.
        token: Token,
        /// How.
        how: Ended,
    },
    /// A step of an authentication (5, section 4.12).
    Auth(Auth<'i>),
    /// The server ends the connection (5).
    Disconnected(Disconnect<'i>),
    /// PINGRESP.
    Pong,
}

/// What a server learns.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ServerEvent<'i> {
    /// A client wants to connect: answer by [`crate::Server::accept`] or [`crate::Server::refuse`].
    Connect(Connect<'i>),
    /// A message came.
    Message(Incoming<'i>),
    /// A publish came to its end.
    Acknowledged {
        /// Which.
        token: Token,
        /// How it went.
        reason: ReasonCode,
        /// Properties of the last acknowledgement (5).
        properties: Properties<'i>,
    },
    /// Answer by [`crate::Server::subscribed`].
    Subscribe(Subscribe<'i>),
    /// Answer by [`crate::Server::unsubscribed`].
    Unsubscribe(Unsubscribe<'i>),
    /// A command ended without an answer.
    Ended {
        /// Which.
        token: Token,
        /// How.
        how: Ended,
    },
    /// A step of an authentication (5, section 4.12).
    Auth(Auth<'i>),
    /// The client ends the connection.
    Disconnected(Disconnect<'i>),
    /// PINGREQ, already answered.
    Ping,
}
