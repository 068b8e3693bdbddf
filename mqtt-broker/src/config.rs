//! What a broker allows. Every limit has a default that a stranger's broker survives with.

use mqtt_session::Instant;
use mqtt_session::proto::{QoS, ReasonCode, Version};

use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::retained::Room;
use crate::session::{Session, filter_size};
use crate::timers::Due;

/// Settings and limits of a [`crate::Broker`]: make one, then assign fields.
///
/// ```
/// use mqtt_broker::Config;
/// let mut config = Config::default();
/// config.connections = 100;
/// config.queued_messages = 50;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Connections at once, those included that have not sent CONNECT. Default 10,000.
    pub connections: usize,
    /// How many of them may be not accepted yet: CONNECT is not there or not decided. If there are as many, the oldest of the address
    /// that has most of them gives way. Default 1,000.
    pub pending_connections: usize,
    /// Connections of one address. Default `usize::MAX`: any number.
    pub connections_per_address: usize,
    /// Sessions, of clients that are connected and of clients that are away. If there are as many, those give way first that are
    /// away and have neither subscriptions nor messages, and then the oldest that is away of the address with most of them, if that
    /// has more than the address of the new one. Default 100,000.
    pub sessions: usize,
    /// Sessions of clients that connected last from one address. Default `usize::MAX`: any number.
    pub sessions_per_address: usize,
    /// Sessions of one user. Default `usize::MAX`: any number.
    pub sessions_per_user: usize,
    /// How long CONNECT may take, in milliseconds. Default 10,000.
    pub connect_timeout_ms: u32,
    /// After how many keep-alives of silence a connection ends, in percent. Default 150
    /// (3.1.1 \[MQTT-3.1.2-24\], 5 \[MQTT-3.1.2-22\]).
    pub keep_alive_percent: u16,
    /// The longest keep-alive of a client of MQTT 5, in seconds; one that asks for more or for none is told this
    /// (5 \[MQTT-3.1.2-21\]). Default 0: any.
    pub keep_alive_maximum: u16,
    /// The largest packet from a client, in bytes. Default 2 MiB; told to clients of MQTT 5.
    pub packet_size: u32,
    /// The largest packet from a client that is not accepted, in bytes: its CONNECT with the will. Default 16 KiB.
    pub connect_size: u32,
    /// The largest payload that is taken from a client, in bytes. A message with a larger one goes nowhere, and its publisher stays
    /// connected: MQTT 5 tells it 0x97. Default `usize::MAX`: what fits in a packet.
    pub payload_size: usize,
    /// How many QoS 1 and 2 messages of one client may be half received at once. Default 1,024; told to clients of
    /// MQTT 5.
    pub receive_maximum: u16,
    /// The highest topic alias a client may use (5). Default 16; told to clients.
    pub topic_alias_maximum: u16,
    /// How many topic aliases are assigned to one client that allows them (5). Default 16.
    pub topic_aliases: u16,
    /// How many QoS 1 and QoS 2 messages may be under way to one client. Default 128.
    pub window: u16,
    /// How many of them may be QoS 2. Default 20.
    pub window_qos2: u16,
    /// Bytes of QoS 1 and 2 messages that may be under way to one client; one message may be larger. Default 16 MiB, at least
    /// [`Self::packet_size`].
    pub in_flight_bytes: u32,
    /// Bytes of all connections and sessions for what waits for transports, for messages under way and for topic aliases. Beyond it,
    /// only who takes more than its share of it waits: what is for it goes to its queue. Default 512 MiB.
    pub connection_bytes_total: usize,
    /// The longest client identifier and user name, in bytes. Default 1,024.
    pub client_id_length: usize,
    /// The longest topic name or filter, in bytes. Default 65,535: as MQTT allows.
    pub topic_length: usize,
    /// Bytes that may wait for one client's transport before messages are queued. Default 256 KiB, at least
    /// [`Self::packet_size`].
    pub outgoing_bytes: u32,
    /// How many messages may be queued for one client. Default 100,000.
    pub queued_messages: usize,
    /// How many bytes of messages may be queued for one client. Default 32 MiB.
    pub queued_bytes: usize,
    /// How many bytes of messages may be queued in all, each counted once for each client. Default 512 MiB. Beyond it,
    /// only clients lose messages that have more than their share of it waiting.
    pub queued_bytes_total: usize,
    /// How long publishers wait for a connected client whose queue is more than half full and that takes nothing, in
    /// milliseconds. Then messages for it are dropped if its queue is full. Default 30,000; 0 is not at all.
    pub slow_consumer_ms: u32,
    /// Whether QoS 0 messages are queued for clients that are away. Default no.
    pub queue_qos0: bool,
    /// Subscriptions of one client. Default 10,000.
    pub subscriptions: usize,
    /// Bytes that the subscriptions of one client take, with their nodes in the tree of filters. Default 8 MiB.
    pub subscription_bytes: usize,
    /// Bytes of the wills of all clients. Who has one that goes beyond it is refused. Default 64 MiB.
    pub will_bytes: usize,
    /// Levels of a topic name or filter. Default 64.
    pub topic_levels: usize,
    /// Retained messages. Default 100,000.
    pub retained_messages: usize,
    /// Bytes of retained messages. Default 256 MiB.
    pub retained_bytes: usize,
    /// After how many seconds a retained message is forgotten, unless its own expiry is sooner. Default `None`: never.
    pub retained_expiry: Option<u32>,
    /// The longest time a session outlives its connection, in seconds. Default 2,592,000: 30 days. `u32::MAX` is as long as the client
    /// wants, which may be for ever.
    pub session_expiry_maximum: u32,
    /// Which versions may connect. Default: all.
    pub versions: Vec<Version>,
    /// Whether clients without a client identifier get one. Default yes; 3.1 has no such clients.
    pub empty_client_ids: bool,
    /// Whether a client may take the client identifier of another user's session. It gets a session of its own, and the other one
    /// ends; otherwise it is refused. Default yes.
    pub client_ids_of_others: bool,
    /// The highest quality of service of messages from clients: 0, 1 or 2. Who exceeds it is disconnected. Subscriptions are granted
    /// as they are asked for. Default 2; told to clients of MQTT 5.
    pub maximum_qos: u8,
    /// Whether clients may publish retained messages. Who does nevertheless is disconnected. Default yes; told to clients of MQTT 5.
    pub retain_available: bool,
    /// Whether [`Hooks::may_publish`] is asked again about the publisher of a retained message when it is delivered; it is not delivered
    /// if the answer is no. Default yes.
    pub check_retained_source: bool,
    /// Whether a message is delivered at the quality of service of the subscription even if it was published at a lower one; the
    /// standards have it delivered at the lower of both. Default no.
    pub raise_qos: bool,
    /// How often the `$SYS` topics are published, in seconds; 0 turns them off. Default 10.
    pub statistics_interval: u32,
    /// How much work a call of the broker does for one connection before the others have their turn, in steps of about a
    /// tenth of a microsecond. What one packet leads to beyond it is done in portions of this size. Default 1,024.
    pub turn_steps: u32,
    /// What the clock on the wall shows at [`Instant`] 0, in milliseconds since the beginning of 1970: records tell times by it.
    /// Default 0.
    pub wall_clock: u64,
    /// A secret of the host, so that nobody can choose topics that slow the broker down. Default 0.
    pub hash_key: u64,
}

/// Room for a thousand of them and more.
const IDENTIFIERS: u32 = 8 << 10;

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: 10_000,
            pending_connections: 1_000,
            connections_per_address: usize::MAX,
            sessions: 100_000,
            sessions_per_address: usize::MAX,
            sessions_per_user: usize::MAX,
            connect_timeout_ms: 10_000,
            keep_alive_percent: 150,
            keep_alive_maximum: 0,
            packet_size: 2 << 20,
            connect_size: 16 << 10,
            payload_size: usize::MAX,
            receive_maximum: 1_024,
            topic_alias_maximum: 16,
            topic_aliases: 16,
            window: 128,
            window_qos2: 20,
            in_flight_bytes: 16 << 20,
            connection_bytes_total: 512 << 20,
            client_id_length: 1_024,
            topic_length: 65_535,
            outgoing_bytes: 256 << 10,
            queued_messages: 100_000,
            queued_bytes: 32 << 20,
            queued_bytes_total: 512 << 20,
            slow_consumer_ms: 30_000,
            queue_qos0: false,
            subscriptions: 10_000,
            subscription_bytes: 8 << 20,
            will_bytes: 64 << 20,
            topic_levels: 64,
            retained_messages: 100_000,
            retained_bytes: 256 << 20,
            retained_expiry: None,
            session_expiry_maximum: 30 * 24 * 3_600,
            versions: vec![Version::V31, Version::V311, Version::V5],
            empty_client_ids: true,
            client_ids_of_others: true,
            maximum_qos: 2,
            retain_available: true,
            check_retained_source: true,
            raise_qos: false,
            statistics_interval: 10,
            turn_steps: 1_024,
            wall_clock: 0,
            hash_key: 0,
        }
    }
}

impl<H: Hooks> Broker<H> {
    /// Replaces the limits. What is over a new limit stays: sessions, connections and messages that were accepted. A connection keeps
    /// what CONNACK told it, and [`ConnectionId::index`](crate::ConnectionId::index) stays below the highest
    /// [`Config::connections`] so far. [`Config::hash_key`] stays what it was.
    pub fn configure(&mut self, config: Config, now: Instant) {
        if config.statistics_interval > 0 && !self.timers.has(Due::Statistics) {
            self.timers.set(now, Due::Statistics);
        }
        self.config = Config {
            hash_key: self.config.hash_key,
            wall_clock: self.config.wall_clock,
            ..config
        };
    }
}

impl Config {
    /// What one connection's machine is told.
    pub(crate) fn session(&self) -> mqtt_session::Config {
        let mut config = mqtt_session::Config::default();
        config.window = self.window;
        config.window_qos2 = self.window_qos2;
        config.offline = mqtt_session::Offline::Reject;
        config.session_lost = mqtt_session::SessionLost::HandBack;
        config.acknowledge = mqtt_session::Acknowledge::ByHand;
        config.packet_limit = self.packet_size;
        // What one client may send another must be able to get, with its subscription identifiers.
        let largest = self.packet_size.saturating_add(IDENTIFIERS);
        config.outgoing_limit = self.outgoing_bytes.max(largest);
        config.kept_limit = self.in_flight_bytes.max(largest);
        config.auto_alias = self.topic_aliases;
        config.connect_timeout_ms = self.connect_timeout_ms;
        config.keep_alive_percent = self.keep_alive_percent;
        config
    }

    /// Whether a topic name or filter is neither too long nor too deep.
    pub(crate) fn allows_topic(&self, topic: &[u8]) -> bool {
        topic.len() <= self.topic_length && self.allows_levels(topic)
    }

    fn allows_levels(&self, topic: &[u8]) -> bool {
        topic.iter().filter(|byte| **byte == b'/').count() < self.topic_levels
    }

    pub(crate) const fn retained_room(&self) -> Room {
        Room {
            messages: self.retained_messages,
            bytes: self.retained_bytes,
        }
    }

    /// Whether a session has no room for another subscription.
    pub(crate) fn is_full_of(&self, session: &Session, filter: &str) -> bool {
        let bytes = session.filter_bytes.saturating_add(filter_size(filter));
        session.filters.len() >= self.subscriptions || bytes > self.subscription_bytes
    }

    /// Why no client may publish with these flags, if none may.
    pub(crate) fn refuses(&self, qos: QoS, retain: bool) -> Option<ReasonCode> {
        if qos.get() > self.maximum_qos {
            return Some(ReasonCode::QoSNotSupported);
        }
        (retain && !self.retain_available).then_some(ReasonCode::RetainNotSupported)
    }

    /// The quality of service of a delivery.
    pub(crate) fn delivery_qos(&self, published: QoS, subscribed: QoS) -> QoS {
        if self.raise_qos {
            subscribed
        } else {
            // 3.1.1 [MQTT-3.8.4-6], 5 [MQTT-3.8.4-8] and [MQTT-4.8.2-3]
            published.min(subscribed)
        }
    }

    pub(crate) fn statistics_due(&self, now: Instant) -> Option<Instant> {
        let interval = core::time::Duration::from_secs(u64::from(self.statistics_interval));
        (!interval.is_zero()).then(|| now.after(interval))
    }
}
