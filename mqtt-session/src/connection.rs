//! What dies with the network connection. Replaced whole by the next one, so nothing of the last can leak into it.

use core::num::NonZeroU32;

use mqtt_proto::{Properties, PropertyId, Version};

use crate::config::Config;
use crate::limits::Supported;
use crate::outbound::Window;
use crate::pieces::Underway;

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

#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) phase: Phase,
    pub(crate) version: Version,
    /// Fingerprint of the client identifier in CONNECT.
    pub(crate) client: Option<NonZeroU32>,
    /// CONNECT named an authentication method.
    pub(crate) authenticates: bool,
    /// How many QoS 1 and 2 messages we take at once.
    pub(crate) receive_maximum: u16,
    /// There were more, and they were taken.
    pub(crate) exceeded: bool,
    /// The highest topic alias we take.
    pub(crate) alias_maximum: u16,
    /// The highest topic alias we use.
    pub(crate) auto_alias: u16,
    /// The largest packet we take.
    pub(crate) packet_limit: u32,
    /// What the peer takes.
    pub(crate) window: Window,
    pub(crate) supported: Supported,
    /// A message whose payload is coming piece by piece.
    pub(crate) pieces: Underway,
}

impl Connection {
    pub(crate) fn new(version: Version, config: &Config) -> Self {
        Self {
            phase: Phase::Offline,
            version,
            client: None,
            authenticates: false,
            receive_maximum: u16::MAX,
            exceeded: false,
            alias_maximum: 0,
            auto_alias: 0,
            packet_limit: config.packet_limit,
            window: Window::new(u16::MAX, u32::MAX),
            supported: Supported::ALL,
            pieces: Underway::default(),
        }
    }

    /// What we announce is what we hold the peer to.
    pub(crate) fn announced(&mut self, properties: &Properties<'_>) {
        properties.each_number(&mut |property, value| match property {
            PropertyId::ReceiveMaximum => self.receive_maximum = to_u16(value),
            PropertyId::TopicAliasMaximum => self.alias_maximum = to_u16(value),
            PropertyId::MaximumPacketSize => self.packet_limit = value.min(self.packet_limit),
            _ => {}
        });
    }

    /// What the peer announces is what we keep to: 5 [MQTT-3.2.2-15], [MQTT-3.2.2-17], [MQTT-3.1.2-24], [MQTT-3.1.2-26].
    /// The keep-alive that a server demands is given back.
    pub(crate) fn agreed(&mut self, properties: &Properties<'_>, config: &Config) -> Option<u16> {
        let mut keep_alive = None;
        properties.each_number(&mut |property, value| match property {
            PropertyId::ReceiveMaximum => self.window.receive_maximum = to_u16(value),
            PropertyId::TopicAliasMaximum => self.auto_alias = to_u16(value).min(config.auto_alias),
            PropertyId::MaximumPacketSize => self.window.packet_size = value,
            PropertyId::ServerKeepAlive => keep_alive = Some(to_u16(value)),
            _ => self.supported.told(property, value),
        });
        keep_alive
    }
}

fn to_u16(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
