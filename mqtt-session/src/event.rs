//! The commands and events of the machines.

use mqtt_proto::num::low_half;
use mqtt_proto::{
    Auth, ConnAck, Connect, Disconnect, PacketId, Properties, Publish, QoS, ReasonCode, SubAck,
    Subscribe, TopicName, UnsubAck, Unsubscribe,
};

/// The result of one call of `receive`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step<E> {
    /// The next step needs at least this many bytes, counted from the first of the input. Nothing was consumed.
    Needs(usize),
    /// Write the outgoing bytes first: the answer has no room in them, or the input acknowledges a message of which `sent` has not
    /// told all bytes. Nothing was consumed, and no state has changed.
    Blocked,
    /// One step was done. Remove `consumed` bytes, which may be 0, from the front of the input and call `receive` again.
    Packet {
        /// How many bytes were consumed.
        consumed: usize,
        /// The event for the application, if there is one. It borrows from the input.
        event: Option<E>,
    },
}

/// A message to be published. The session chooses its packet identifier.
///
/// ```
/// use mqtt_session::{Outgoing, proto::{QoS, TopicName}};
/// let topic = TopicName::new("a/b").unwrap();
/// let message = Outgoing { retain: true, ..Outgoing::new(topic, QoS::AtLeastOnce, b"hello") };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outgoing<'a> {
    /// The topic.
    pub topic: TopicName<'a>,
    /// The quality of service.
    pub qos: QoS,
    /// Whether the server retains the message.
    pub retain: bool,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Outgoing<'a> {
    /// Makes a message that is not retained.
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

/// Names an accepted command until its end is reported. Commands are counted, up to 4,294,967,296 before the count starts
/// again, so a packet identifier that is used again does not fit an old token.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Token {
    /// How many packet identifiers were issued up to this one; the lower half is the packet identifier.
    pub(crate) number: u32,
    /// For a QoS 0 message, which has no packet identifier: how many such messages there were up to this one.
    pub(crate) nth: Nth,
}

/// Counts the QoS 0 messages that have a slot, from 1 on; 0 for any other message or request. A build without such slots does not
/// store it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Nth(#[cfg(any(feature = "alloc", feature = "policies"))] u16);

impl Nth {
    pub(crate) const NONE: Self = Self(
        #[cfg(any(feature = "alloc", feature = "policies"))]
        0,
    );

    #[inline]
    pub(crate) const fn is_none(self) -> bool {
        #[cfg(any(feature = "alloc", feature = "policies"))]
        return self.0 == 0;
        #[cfg(not(any(feature = "alloc", feature = "policies")))]
        true
    }

    /// Returns the next number.
    pub(crate) fn next(self) -> Self {
        Self(
            #[cfg(any(feature = "alloc", feature = "policies"))]
            self.0.wrapping_add(1).max(1),
        )
    }
}

impl Token {
    /// Returns the packet identifier, for logs. `None` for a QoS 0 message.
    #[must_use]
    pub const fn packet_id(self) -> Option<PacketId> {
        if self.nth.is_none() {
            PacketId::new(low_half(self.number))
        } else {
            None
        }
    }
}

/// The end of a message or request that no packet of the peer reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Ended {
    /// The session was lost, or for SUBSCRIBE and UNSUBSCRIBE the connection. The packet may have arrived or not.
    InDoubt,
    /// A newer message replaced it while there was no connection ([`crate::Offline::DropOldest`]).
    Dropped,
    /// The message is longer than the maximum packet size of the new connection.
    TooLarge,
    /// The server of the new connection does not support its QoS or retained messages, as its CONNACK says (MQTT 5). The client
    /// did not send it on this connection.
    NotSupported,
    /// A QoS 0 message that waited for a connection was sent, or the transport has taken all of a large one. No answer follows.
    Sent,
    /// The connection of a large QoS 0 message ended when the transport had taken a part of it. A QoS 0 message is not sent
    /// again.
    Lost,
}

/// Names an incoming message that waits for its acknowledgement by hand.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Receipt {
    pub(crate) id: PacketId,
    pub(crate) serial: u16,
}

/// An incoming message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Incoming<'i> {
    /// The PUBLISH. If its topic is [`TopicName::NONE`], the method `topic` of the machine returns the topic of its alias.
    pub publish: Publish<'i>,
    /// The receipt to acknowledge the message with, if that is done by hand ([`crate::Acknowledge::ByHand`]). `None` at QoS 0.
    pub receipt: Option<Receipt>,
}

/// The events that a client reports to its caller.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'i> {
    /// The server accepted the connection.
    Connected {
        /// The CONNACK.
        connack: ConnAck<'i>,
        /// Whether the session continues. A server of MQTT 3.1 does not report whether it has the session. The client assumes
        /// it if it has the session itself, and the program should subscribe again.
        resumed: bool,
        /// Whether the server has session present after a clean start, against 3.1.1 \[MQTT-3.2.2-1\]. The client continues
        /// with a clean session.
        unasked_session: bool,
    },
    /// The server refused the connection, which is over.
    Refused(ConnAck<'i>),
    /// A message arrived.
    Message(Incoming<'i>),
    /// The head of a message arrived that is larger than the input buffer. [`Event::Payload`] follows until no bytes are left.
    /// If the connection ends before that, the message was not received and its pieces are to be discarded; at QoS 1 and 2 the
    /// server sends it again.
    MessageHead {
        /// The PUBLISH, with an empty payload.
        publish: Publish<'i>,
        /// Length of the payload in bytes, at least 1.
        payload_len: u32,
    },
    /// The next piece of the payload arrived.
    Payload {
        /// The bytes of the piece.
        bytes: &'i [u8],
        /// How many bytes of the payload follow it. With 0 the message is received.
        left: u32,
        /// With the last piece: the receipt, as [`Incoming::receipt`].
        receipt: Option<Receipt>,
    },
    /// A publish has ended. With a reason below 0x80 the message arrived, otherwise the server refused it (MQTT 5).
    Acknowledged {
        /// The token of the message.
        token: Token,
        /// The reason code of the last acknowledgement; [`ReasonCode::Success`] before MQTT 5.
        reason: ReasonCode,
        /// The properties of the last acknowledgement (MQTT 5).
        properties: Properties<'i>,
    },
    /// The server answered a SUBSCRIBE.
    Subscribed {
        /// The token of the request.
        token: Token,
        /// The SUBACK, with a code for each filter.
        suback: SubAck<'i>,
        /// Whether the server granted a higher quality of service than the request asked for, as some servers do. It is
        /// accepted.
        granted_more: bool,
    },
    /// The server answered an UNSUBSCRIBE.
    Unsubscribed {
        /// The token of the request.
        token: Token,
        /// The UNSUBACK.
        unsuback: UnsubAck<'i>,
    },
    /// A message or request ended without an answer. Until the next `receive`, `unacknowledged` returns the message.
    Ended {
        /// The token of the message or request.
        token: Token,
        /// How it ended.
        how: Ended,
    },
    /// The server sent AUTH, a step of an authentication (5, section 4.12).
    Auth(Auth<'i>),
    /// The server sent DISCONNECT (MQTT 5).
    Disconnected(Disconnect<'i>),
    /// PINGRESP arrived.
    Pong,
}

/// The events that a server reports to its caller.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ServerEvent<'i> {
    /// A client asks for a connection. Answer with [`crate::Server::accept`] or [`crate::Server::refuse`].
    Connect(Connect<'i>),
    /// A message arrived.
    Message(Incoming<'i>),
    /// A publish to the client has ended.
    Acknowledged {
        /// The token of the message.
        token: Token,
        /// The reason code of the last acknowledgement; [`ReasonCode::Success`] before MQTT 5.
        reason: ReasonCode,
        /// The properties of the last acknowledgement (MQTT 5).
        properties: Properties<'i>,
    },
    /// The client subscribes. Answer with [`crate::Server::subscribed`].
    Subscribe(Subscribe<'i>),
    /// The client unsubscribes. Answer with [`crate::Server::unsubscribed`].
    Unsubscribe(Unsubscribe<'i>),
    /// A message ended without an answer.
    Ended {
        /// The token of the message.
        token: Token,
        /// How it ended.
        how: Ended,
    },
    /// The client sent AUTH, a step of an authentication (5, section 4.12).
    Auth(Auth<'i>),
    /// The client sent DISCONNECT.
    Disconnected(Disconnect<'i>),
    /// PINGREQ arrived, and its answer is outgoing.
    Ping,
}
