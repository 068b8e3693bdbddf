//! The state that ends with the network connection. The next connection replaces all of it, so nothing of the last one can
//! stay.

use mqtt_proto::{Properties, PropertyId, ReasonCode, Subscription, Version};

use super::times::Times;
use crate::config::Config;
use crate::error::Refused;
use crate::event::Outgoing;
use crate::tune::V5;

/// The phase of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// There is no connection.
    Offline,
    /// The client has sent CONNECT; the server waits for it or for the decision of its host.
    Connecting,
    /// CONNACK has accepted the connection.
    Connected,
    /// The connection is over. Outgoing bytes are still sent, and incoming bytes are dropped.
    Closing,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// The bytes that wait for the transport lie between these two places in the memory of outgoing bytes.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// The limits of this side for the packets of the peer.
    pub(crate) ours: Limits,
    /// The limits of the peer for the packets of this side.
    pub(crate) peers: Limits,
    /// The fingerprint of the client identifier in CONNECT, or of the one that was assigned; 0 before.
    pub(crate) client: u32,
    pub(crate) times: Times,
    /// The message whose payload arrives in pieces.
    pub(crate) pieces: Pieces,
    pub(crate) aliases: Aliases,
    /// How many QoS 1 and 2 messages are on their way on this connection.
    pub(crate) in_flight: u16,
    /// How many of them are at QoS 2.
    pub(crate) in_flight_qos2: u16,
    /// The index of a slot. No slot before it has to be sent.
    pub(crate) cursor: u16,
    pub(crate) unsupported: Unsupported,
    pub(crate) version: Version,
    pub(crate) phase: Phase,
    /// Whether CONNECT named an authentication method.
    pub(crate) authenticates: bool,
    /// Whether CONNECT has arrived and the host has not decided on it.
    pub(crate) undecided: bool,
    /// Whether messages beyond the receive maximum of this side arrived and were accepted.
    pub(crate) exceeded: bool,
}

/// The limits that one side of a connection has for packets of the other.
#[derive(Debug)]
pub(crate) struct Limits {
    /// The longest packet, in bytes.
    pub(crate) packet: u32,
    /// How many QoS 1 and 2 messages at the same time.
    pub(crate) receive_maximum: u16,
    /// The highest topic alias. What the peer accepts is lowered to what this side may assign.
    pub(crate) aliases: u16,
}

impl Limits {
    /// Returns the limits of a side that has not announced any.
    const fn below(packet: u32) -> Self {
        Self {
            packet,
            receive_maximum: u16::MAX,
            // 5 [MQTT-3.1.2-27] and [MQTT-3.2.2-18]: none unless the peer allows some.
            aliases: 0,
        }
    }
}

/// The message whose payload is arriving. Without the feature this takes no room, and there never is one.
#[cfg(feature = "pieces")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pieces {
    /// How many bytes of the payload have not arrived yet.
    pub(crate) left: u32,
    /// The packet identifier; 0 at QoS 0.
    pub(crate) id: u16,
    /// The flags of the fixed header.
    pub(crate) flags: u8,
    /// Whether the application has the message already.
    pub(crate) repeated: bool,
}

#[cfg(not(feature = "pieces"))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pieces;

impl Pieces {
    /// Returns whether a payload is arriving.
    #[inline]
    pub(crate) const fn is_some(self) -> bool {
        #[cfg(feature = "pieces")]
        return self.left > 0;
        #[cfg(not(feature = "pieces"))]
        false
    }
}

/// How much of the table of topic aliases is used. Without the feature this takes no room.
#[cfg(feature = "aliases")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aliases {
    pub(crate) end: u32,
    /// How many aliases were assigned to outgoing messages.
    pub(crate) assigned: u16,
}

#[cfg(not(feature = "aliases"))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aliases;

impl Link {
    pub(crate) fn new(version: Version, config: &Config) -> Self {
        Self {
            start: 0,
            end: 0,
            ours: Limits::below(config.packet_limit),
            peers: Limits::below(u32::MAX),
            client: 0,
            times: Times::default(),
            pieces: Pieces::default(),
            // 5 [MQTT-3.3.2-7]
            aliases: Aliases::default(),
            in_flight: 0,
            in_flight_qos2: 0,
            cursor: 0,
            unsupported: Unsupported::default(),
            version,
            phase: Phase::Offline,
            authenticates: false,
            undecided: false,
            exceeded: false,
        }
    }

    /// Returns the length of the longest packet that the peer accepts. Only MQTT 5 can announce it.
    #[inline]
    pub(crate) const fn longest_packet(&self) -> u32 {
        if V5 { self.peers.packet } else { u32::MAX }
    }

    /// Returns how many messages at QoS 1 and 2 the peer accepts at the same time. Only MQTT 5 can announce it.
    #[inline]
    pub(crate) const fn most_in_flight(&self) -> u16 {
        if V5 {
            self.peers.receive_maximum
        } else {
            u16::MAX
        }
    }
}

/// The features that the server does not support according to its CONNACK (5, sections 3.2.2.3.4 to 3.2.2.3.13), a bit for each.
/// A client must not send them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unsupported(u8);

/// These bits are those of the first byte of PUBLISH: the QoS moved down by one, and the retain flag moved up by two.
const QOS_1: u8 = 1;
const QOS_2: u8 = 2;
const RETAIN: u8 = 4;
const WILDCARDS: u8 = 8;
const IDENTIFIERS: u8 = 16;
const SHARED: u8 = 32;

/// The retain flag in the first byte of a PUBLISH.
const RETAINED: u8 = 1;

impl Unsupported {
    /// Stores a property of the server's CONNACK.
    pub(crate) const fn told(&mut self, property: PropertyId, value: u32) {
        // A maximum QoS is 0 or 1, so QoS 2 is not supported in any case.
        let (never, at_0) = match property {
            PropertyId::MaximumQoS => (QOS_2, QOS_1),
            PropertyId::RetainAvailable => (0, RETAIN),
            PropertyId::WildcardSubscriptionAvailable => (0, WILDCARDS),
            PropertyId::SubscriptionIdentifierAvailable => (0, IDENTIFIERS),
            PropertyId::SharedSubscriptionAvailable => (0, SHARED),
            _ => (0, 0),
        };
        self.0 |= never | if value == 0 { at_0 } else { 0 };
    }

    #[inline]
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn publish(self, message: &Outgoing<'_>) -> Result<(), Refused> {
        if self.0 == 0 {
            Ok(())
        } else {
            self.refuse_publish(message)
        }
    }

    #[cold]
    fn refuse_publish(self, message: &Outgoing<'_>) -> Result<(), Refused> {
        let refuse = |reason| Err(Refused::NotSupportedByServer(reason));
        match self.lacked(message.qos.get() << 1 | u8::from(message.retain)) {
            0 => Ok(()),
            RETAIN => refuse(ReasonCode::RetainNotSupported),
            _ => refuse(ReasonCode::QoSNotSupported),
        }
    }

    /// Returns what a message needs that the server does not support. The first byte of its PUBLISH has its QoS and retain flag.
    #[inline]
    pub(crate) const fn lacked(self, first: u8) -> u8 {
        // 5 [MQTT-3.2.2-11] and [MQTT-3.2.2-14]
        self.0 & (first >> 1 & (QOS_1 | QOS_2) | (first & RETAINED) << 2)
    }

    pub(crate) fn subscribe(
        self,
        filters: &[Subscription<'_>],
        properties: &Properties<'_>,
    ) -> Result<(), Refused> {
        if self.0 == 0 {
            return Ok(());
        }
        let refuse = |reason| Err(Refused::NotSupportedByServer(reason));
        if self.0 & IDENTIFIERS != 0 && properties.has(PropertyId::SubscriptionIdentifier) {
            return refuse(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        for subscription in filters {
            if self.0 & SHARED != 0 && subscription.filter.is_shared() {
                return refuse(ReasonCode::SharedSubscriptionsNotSupported);
            }
            let mut bytes = subscription.filter.as_bytes().iter();
            if self.0 & WILDCARDS != 0 && bytes.any(|byte| matches!(byte, b'+' | b'#')) {
                return refuse(ReasonCode::WildcardSubscriptionsNotSupported);
            }
        }
        Ok(())
    }
}
