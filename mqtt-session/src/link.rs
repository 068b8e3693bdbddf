//! What dies with the network connection. Replaced whole by the next one, so nothing of the last can leak into it.

use mqtt_proto::num::to_u16;
use mqtt_proto::num::to_usize;
use mqtt_proto::wire::Reader;
use mqtt_proto::{Properties, PropertyId, QoS, ReasonCode, Subscription, Version};

use crate::aliases::Aliases;
use crate::config::Config;
use crate::error::Refused;
use crate::event::Outgoing;
use crate::keep_alive::Times;
use crate::pieces::Pieces;

/// Where a connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// There is no connection.
    Offline,
    /// CONNECT is sent (client) or awaited or undecided (server).
    Connecting,
    /// Both sides agreed.
    Connected,
    /// It is over: what is outgoing still goes out, what comes in is dropped.
    Closing,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// What waits for the transport lies between these in the memory of outgoing bytes.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// The largest packet we take, and the largest that the peer takes.
    pub(crate) packet_limit: u32,
    pub(crate) peer_limit: u32,
    /// Fingerprint of the client identifier in CONNECT, or of the one that was assigned; 0 before.
    pub(crate) client: u32,
    pub(crate) times: Times,
    /// A message whose payload is coming piece by piece.
    pub(crate) pieces: Pieces,
    pub(crate) aliases: Aliases,
    /// QoS 1 and 2 messages under way on this connection.
    pub(crate) in_flight: u16,
    /// QoS 2 among them.
    pub(crate) in_flight_qos2: u16,
    /// Slots before this one need not be sent.
    pub(crate) cursor: u16,
    /// The peer's receive maximum, and ours.
    pub(crate) peer_maximum: u16,
    pub(crate) receive_maximum: u16,
    /// The highest topic alias we take.
    pub(crate) alias_maximum: u16,
    /// The highest topic alias we use.
    pub(crate) auto_alias: u16,
    pub(crate) lacks: Lacks,
    pub(crate) version: Version,
    pub(crate) phase: Phase,
    /// CONNECT named an authentication method.
    pub(crate) authenticates: bool,
    /// CONNECT came, and the host has not decided.
    pub(crate) undecided: bool,
    /// There were more messages than our receive maximum, and they were taken.
    pub(crate) exceeded: bool,
}

impl Link {
    pub(crate) fn new(version: Version, config: &Config) -> Self {
        Self {
            start: 0,
            end: 0,
            packet_limit: config.packet_limit,
            peer_limit: u32::MAX,
            client: 0,
            times: Times::default(),
            pieces: Pieces::default(),
            // 5 [MQTT-3.3.2-7]
            aliases: Aliases::default(),
            in_flight: 0,
            in_flight_qos2: 0,
            cursor: 0,
            peer_maximum: u16::MAX,
            receive_maximum: u16::MAX,
            alias_maximum: 0,
            // 5 [MQTT-3.1.2-27] and [MQTT-3.2.2-18]: none unless the peer allows some.
            auto_alias: 0,
            lacks: Lacks::default(),
            version,
            phase: Phase::Offline,
            authenticates: false,
            undecided: false,
            exceeded: false,
        }
    }

    /// What we announce is what we hold the peer to.
    pub(crate) fn announced(&mut self, properties: &Properties<'_>) {
        properties.each_number(&mut |property, value| match property {
            PropertyId::ReceiveMaximum => self.receive_maximum = half(value),
            PropertyId::TopicAliasMaximum => self.alias_maximum = half(value),
            PropertyId::MaximumPacketSize => self.packet_limit = value.min(self.packet_limit),
            _ => {}
        });
    }

    /// What the peer announces is what we keep to: 5 [MQTT-3.2.2-15], [MQTT-3.2.2-17], [MQTT-3.1.2-24], [MQTT-3.1.2-26].
    /// The keep-alive that a server demands is given back.
    pub(crate) fn agreed(&mut self, properties: &[u8], config: &Config) -> Option<u16> {
        let mut keep_alive = None;
        let mut block = Reader::new(properties);
        while let Some(property) = block.next_property() {
            let number = property.number;
            match property.id {
                PropertyId::ReceiveMaximum => self.peer_maximum = half(number),
                PropertyId::TopicAliasMaximum => {
                    self.auto_alias = half(number).min(config.auto_alias);
                }
                PropertyId::MaximumPacketSize => self.peer_limit = number,
                // 5 [MQTT-3.1.2-21]
                PropertyId::ServerKeepAlive => keep_alive = Some(half(number)),
                PropertyId::AssignedClientIdentifier => self.client = fingerprint(property.bytes),
                id => self.lacks.told(id, number),
            }
        }
        keep_alive
    }
}

fn half(number: u32) -> u16 {
    to_u16(to_usize(number))
}

/// FNV-1a: enough to tell the few identifiers that one application uses apart, in four bytes. Never 0, which is nobody.
pub(crate) fn fingerprint(client_id: &[u8]) -> u32 {
    let hash = client_id.iter().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    if hash == 0 { u32::MAX } else { hash }
}

/// What the server said it does not support (5, sections 3.2.2.3.4 to 3.2.2.3.13), and what a client must therefore not send:
/// a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lacks(u8);

const QOS_1: u8 = 1;
const QOS_2: u8 = 2;
const RETAIN: u8 = 4;
const WILDCARDS: u8 = 8;
const IDENTIFIERS: u8 = 16;
const SHARED: u8 = 32;

impl Lacks {
    /// The server's CONNACK has this property.
    const fn told(&mut self, property: PropertyId, value: u32) {
        self.0 |= match property {
            PropertyId::MaximumQoS if value == 0 => QOS_1 | QOS_2,
            PropertyId::MaximumQoS => QOS_2,
            PropertyId::RetainAvailable if value == 0 => RETAIN,
            PropertyId::WildcardSubscriptionAvailable if value == 0 => WILDCARDS,
            PropertyId::SubscriptionIdentifierAvailable if value == 0 => IDENTIFIERS,
            PropertyId::SharedSubscriptionAvailable if value == 0 => SHARED,
            _ => 0,
        };
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
        let lacked = match message.qos {
            QoS::AtMostOnce => 0,
            QoS::AtLeastOnce => QOS_1,
            QoS::ExactlyOnce => QOS_2,
        };
        // 5 [MQTT-3.2.2-11]
        if self.0 & lacked != 0 {
            return Err(Refused::NotSupportedByServer(ReasonCode::QoSNotSupported));
        }
        // 5 [MQTT-3.2.2-14]
        if self.0 & RETAIN != 0 && message.retain {
            let reason = ReasonCode::RetainNotSupported;
            return Err(Refused::NotSupportedByServer(reason));
        }
        Ok(())
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
