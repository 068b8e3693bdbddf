//! Holds the limits and settings of a broker. Each limit has a default that is safe for a broker with unknown clients.

use mqtt_session::Instant;
use mqtt_session::proto::{QoS, ReasonCode, Version};

use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::retained::RetainedRoom;
use crate::session::{Session, filter_size};
use crate::timers::Due;

/// Settings and limits of a [`crate::Broker`].
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
    /// The limit of connections, including those without a CONNECT. Default 10,000.
    pub connections: usize,
    /// The limit of connections without an accepted CONNECT. At the limit, a new one closes the oldest one of the address with
    /// the most of them. Default 1,000.
    pub pending_connections: usize,
    /// The limit of connections from one address. Default `usize::MAX`: any number.
    pub connections_per_address: usize,
    /// The limit of sessions, of connected clients and others. At the limit, a new session ends one of a client that is not
    /// connected: first one without subscriptions and messages, then the oldest one of the address with the most of them, if that
    /// address has more than the address of the new one. Default 100,000.
    pub sessions: usize,
    /// The limit of sessions whose clients connected last from one address. Default `usize::MAX`: any number.
    pub sessions_per_address: usize,
    /// The limit of sessions of one user. Default `usize::MAX`: any number.
    pub sessions_per_user: usize,
    /// How long a client may take to send CONNECT, in milliseconds. Default 10,000.
    pub connect_timeout_ms: u32,
    /// After which part of the keep-alive without a packet a connection ends, in percent. Default 150 (3.1.1 \[MQTT-3.1.2-24\],
    /// 5 \[MQTT-3.1.2-22\]).
    pub keep_alive_percent: u16,
    /// The longest keep-alive of a client of MQTT 5, in seconds. A client that asks for a longer one or none gets this one
    /// (5 \[MQTT-3.1.2-21\]). Default 0: no limit.
    pub keep_alive_maximum: u16,
    /// The largest packet from a client, in bytes. Default 2 MiB; sent to clients of MQTT 5.
    pub packet_size: u32,
    /// The largest packet before CONNECT is accepted, in bytes: CONNECT with its will. For a larger CONNECT, MQTT 5 gets 0x95, and the
    /// connection of earlier versions is closed. Packets that follow CONNECT, except AUTH, wait for the decision on it. Default 16 KiB.
    pub connect_size: u32,
    /// The largest payload from a client, in bytes. The broker drops a message with a larger one and keeps the connection; MQTT 5
    /// reports 0x97. A CONNECT with a will that has a larger one is refused. Default `usize::MAX`: the packet size is the only limit.
    pub payload_size: usize,
    /// How many QoS 1 and 2 messages of one client may be unacknowledged at the same time. Default 1,024; sent to clients of MQTT
    /// 5.
    pub receive_maximum: u16,
    /// The highest topic alias that a client may use (5). Default 16; sent to clients.
    pub topic_alias_maximum: u16,
    /// How many topic aliases the broker assigns for one client that allows them (5). Default 16.
    pub topic_aliases: u16,
    /// How many QoS 1 and 2 messages may be in flight to one client. Default 128.
    pub window: u16,
    /// How many of them may have QoS 2. Default 20.
    pub window_qos2: u16,
    /// How many bytes of QoS 1 and 2 messages may be in flight to one client; one message may be larger. Default 1 MiB.
    pub in_flight_bytes: u32,
    /// The bytes of all connections and sessions for outgoing bytes, for messages in flight and for topic aliases. Beyond the
    /// limit, messages for connections that have more than their share are queued. Default 512 MiB.
    pub connection_bytes_total: usize,
    /// The bytes of input of all connections that waits: packets that have not arrived completely, and packets that wait for their
    /// turn. Beyond half of it, hosts read a few kilobytes at once ([`Broker::read_size`](crate::Broker::read_size)); beyond the
    /// limit, the connection with the most bytes of an incomplete packet is ended. Default 256 MiB, at least [`Self::packet_size`].
    pub input_bytes_total: usize,
    /// The longest client identifier and user name, in bytes. Default 1,024.
    pub client_id_length: usize,
    /// The longest topic name or filter, in bytes. Default 65,535, the limit of MQTT.
    pub topic_length: usize,
    /// How many bytes may wait for one client's transport before messages are queued; one message may be larger. Default 256 KiB.
    pub outgoing_bytes: u32,
    /// How many messages may be queued for one client. Default 100,000.
    pub queued_messages: usize,
    /// How many bytes of messages may be queued for one client. Default 32 MiB.
    pub queued_bytes: usize,
    /// How many bytes of messages may be queued for all clients, where a message counts once for each client. Beyond the limit,
    /// only clients with more than their share of it lose messages. Default 512 MiB.
    pub queued_bytes_total: usize,
    /// How long publishers wait for a connected client whose queue is more than half full and that takes nothing, in
    /// milliseconds. After that time, messages for it are dropped while its queue is full. Default 30,000; with 0 publishers do
    /// not wait.
    pub slow_consumer_ms: u32,
    /// How long publishers wait for a connected client that takes messages more slowly than they come, in milliseconds. After that
    /// time it is treated as one that takes nothing. The time begins again when its queue was not too full for two seconds. Default 0:
    /// there is no limit, because the client may be as slow as it wants. Publishers wait as long for another shard whose link is not open
    /// and whose queue is more than half full; with 0, four times [`Self::slow_consumer_ms`].
    pub publisher_wait_ms: u32,
    /// Whether QoS 0 messages are queued for clients that are not connected. Default `false`.
    pub queue_qos0: bool,
    /// The limit of subscriptions of one client. Default 10,000.
    pub subscriptions: usize,
    /// The bytes of one client's subscriptions, including their nodes in the tree of filters. Default 8 MiB.
    pub subscription_bytes: usize,
    /// The bytes of the subscriptions of all clients, as in [`Self::subscription_bytes`]. Beyond the limit, only clients with less
    /// than their share of it can make subscriptions. Default 512 MiB.
    pub subscription_bytes_total: usize,
    /// The bytes of the wills of all clients as they are stored: with topic, properties, payload and 96 bytes for each. Beyond the limit, a
    /// client whose will is larger than its share is refused. Default 64 MiB.
    pub will_bytes: usize,
    /// The limit of levels of a topic name or filter. Default 64.
    pub topic_levels: usize,
    /// The limit of retained messages. Default 100,000.
    pub retained_messages: usize,
    /// The bytes of all retained messages. Default 256 MiB.
    pub retained_bytes: usize,
    /// After how many seconds a retained message is removed, unless it expires sooner. Default `None`: never.
    pub retained_expiry: Option<u32>,
    /// The longest time that a session outlives its connection, in seconds. Default 2,592,000, which is 30 days. With `u32::MAX`
    /// the client decides, and a session may never end.
    pub session_expiry_maximum: u32,
    /// The versions that may connect. Default: all.
    pub versions: Vec<Version>,
    /// Whether a client without a client identifier gets one. Default `true`; 3.1 has no such clients.
    pub empty_client_ids: bool,
    /// Whether a client may use the client identifier of another user's session. If so, it gets a new session and the other session
    /// ends; otherwise it is refused. Default `true`.
    pub client_ids_of_others: bool,
    /// The highest quality of service of messages from clients: 0, 1 or 2. A client that exceeds it is disconnected.
    /// Subscriptions are granted without this limit. Default 2; sent to clients of MQTT 5.
    pub maximum_qos: u8,
    /// Whether clients may publish retained messages. If not, a client that does is disconnected. Default `true`; sent to clients
    /// of MQTT 5.
    pub retain_available: bool,
    /// Whether [`Hooks::may_publish`] is asked again about the publisher of a retained message when it is delivered; it is not delivered
    /// if the answer is no. Default yes.
    pub check_retained_source: bool,
    /// Whether a message is delivered at the quality of service of the subscription even if it was published at a lower one; the
    /// standards have it delivered at the lower of both. Default no.
    pub raise_qos: bool,
    /// How often the `$SYS` topics are published, in seconds; 0 turns them off. Default 10.
    pub statistics_interval: u32,
    /// How much work a call of the broker does for one connection before the other connections have their turn, in steps of about
    /// a tenth of a microsecond. The rest of a packet's work is done in portions of this size. Default 2,048.
    pub turn_steps: u32,
    /// The wall-clock time at [`Instant`] 0, in milliseconds since the beginning of 1970. Records contain wall-clock times.
    /// [`Broker::set_wall_clock`] follows a clock that is set. Default 0.
    pub wall_clock: u64,
    /// A secret of the host, which prevents clients from choosing topics that collide in hash tables. Default 0.
    pub hash_key: u64,
}

/// How many bytes may be in flight on a link to another shard.
const LINK: u32 = 16 << 20;

/// Enough for a client identifier, a user name and a subscription identifier.
const PUBLISHER: u32 = 160 << 10;

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
            in_flight_bytes: 1 << 20,
            connection_bytes_total: 512 << 20,
            input_bytes_total: 256 << 20,
            client_id_length: 1_024,
            topic_length: 65_535,
            outgoing_bytes: 256 << 10,
            queued_messages: 100_000,
            queued_bytes: 32 << 20,
            queued_bytes_total: 512 << 20,
            slow_consumer_ms: 30_000,
            publisher_wait_ms: 0,
            queue_qos0: false,
            subscriptions: 10_000,
            subscription_bytes: 8 << 20,
            subscription_bytes_total: 512 << 20,
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
            turn_steps: 2_048,
            wall_clock: 0,
            hash_key: 0,
        }
    }
}

impl<H: Hooks> Broker<H> {
    /// Replaces the limits. Sessions, connections and messages that were accepted stay, even beyond a new limit. A connection
    /// keeps the limits of its CONNACK, and [`ConnectionId::index`](crate::ConnectionId::index) stays below the highest
    /// [`Config::connections`] so far. [`Config::hash_key`] does not change.
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

    /// Sets [`Config::wall_clock`] again, because the clock of the machine was set. The times of later records are those of the new clock;
    /// records that exist keep theirs.
    pub const fn set_wall_clock(&mut self, milliseconds: u64) {
        self.config.wall_clock = milliseconds;
    }
}

impl Config {
    /// Returns the configuration of a connection's machine.
    pub(crate) fn session(&self) -> mqtt_session::Config {
        let mut config = mqtt_session::Config::default();
        config.window = self.window;
        config.window_qos2 = self.window_qos2;
        config.offline = mqtt_session::Offline::Reject;
        config.session_lost = mqtt_session::SessionLost::HandBack;
        config.acknowledge = mqtt_session::Acknowledge::ByHand;
        config.packet_limit = self.packet_size;
        config.outgoing_limit = self.outgoing_bytes;
        config.kept_limit = self.in_flight_bytes;
        config.auto_alias = self.topic_aliases;
        config.connect_timeout_ms = self.connect_timeout_ms;
        config.keep_alive_percent = self.keep_alive_percent;
        config
    }

    /// Returns the settings of a link to another shard.
    pub(crate) fn link_session(&self) -> mqtt_session::Config {
        let mut config = self.session();
        (config.window, config.window_qos2) = (u16::MAX, u16::MAX);
        // A retained message goes with the client identifier and the user name of its publisher.
        config.packet_limit = config.packet_limit.saturating_add(PUBLISHER);
        // All clients of the other shard share it.
        config.kept_limit = config.kept_limit.max(LINK);
        config.outgoing_limit = config.outgoing_limit.max(config.packet_limit);
        config.auto_alias = 0;
        config
    }

    /// Returns whether a topic name or filter is within the limits of length and levels.
    pub(crate) fn allows_topic(&self, topic: &[u8]) -> bool {
        topic.len() <= self.topic_length && self.allows_levels(topic)
    }

    fn allows_levels(&self, topic: &[u8]) -> bool {
        topic.iter().filter(|byte| **byte == b'/').count() < self.topic_levels
    }

    pub(crate) const fn retained_room(&self) -> RetainedRoom {
        RetainedRoom {
            messages: self.retained_messages,
            bytes: self.retained_bytes,
        }
    }

    /// Returns whether a session has no room for another subscription.
    pub(crate) fn is_full_of(&self, session: &Session, filter: &str) -> bool {
        let bytes = session.filter_bytes.saturating_add(filter_size(filter));
        session.filters.len() >= self.subscriptions || bytes > self.subscription_bytes
    }

    /// Returns why clients may not publish with these flags, if they may not.
    pub(crate) fn refuses(&self, qos: QoS, retain: bool) -> Option<ReasonCode> {
        if qos.get() > self.maximum_qos {
            return Some(ReasonCode::QoSNotSupported);
        }
        (retain && !self.retain_available).then_some(ReasonCode::RetainNotSupported)
    }

    /// Returns the quality of service of a delivery.
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
