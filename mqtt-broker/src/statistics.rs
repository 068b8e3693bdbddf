//! What the broker counts, and the `$SYS` topics that tell it, under the names that Mosquitto uses.

use mqtt_session::proto::{QoS, TopicName};
use mqtt_session::{Instant, Outgoing};

use crate::broker::{Broker, widen};
use crate::hooks::Hooks;

/// Counts since the start, and the present state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Seconds since the broker was made.
    pub uptime: u64,
    /// Clients connected.
    pub clients_connected: u64,
    /// The most that were connected at once.
    pub clients_maximum: u64,
    /// Sessions, of clients that are connected or away.
    pub sessions: u64,
    /// Sessions that expired.
    pub clients_expired: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// PUBLISH packets received.
    pub publish_received: u64,
    /// Messages handed to clients' connections.
    pub publish_sent: u64,
    /// Messages dropped: a queue was full, or they were too large for their receiver.
    pub publish_dropped: u64,
    /// Messages that expired before they could be sent.
    pub publish_expired: u64,
    /// Bytes of payload received.
    pub payload_received: u64,
    /// Bytes of payload handed to clients' connections.
    pub payload_sent: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Shared ones among them.
    pub shared_subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Bytes of retained messages.
    pub retained_bytes: u64,
    /// Messages queued for clients.
    pub queued: u64,
    /// Bytes of messages queued for clients.
    pub queued_bytes: u64,
    /// Bytes that connections and sessions take for what waits for transports, for messages under way and for topic aliases.
    pub connection_bytes: u64,
}

const VERSION_TOPIC: &str = "$SYS/broker/version";
const UPTIME_TOPIC: &str = "$SYS/broker/uptime";

impl Statistics {
    /// The numbers under their topics. Version and uptime are texts of their own.
    pub(crate) fn topics(&self) -> [(&'static str, u64); 19] {
        let away = self.sessions.saturating_sub(self.clients_connected);
        [
            ("$SYS/broker/clients/total", self.sessions),
            ("$SYS/broker/clients/connected", self.clients_connected),
            ("$SYS/broker/clients/active", self.clients_connected),
            ("$SYS/broker/clients/disconnected", away),
            ("$SYS/broker/clients/inactive", away),
            ("$SYS/broker/clients/maximum", self.clients_maximum),
            ("$SYS/broker/clients/expired", self.clients_expired),
            ("$SYS/broker/messages/received", self.packets_received),
            ("$SYS/broker/bytes/received", self.bytes_received),
            ("$SYS/broker/bytes/sent", self.bytes_sent),
            (
                "$SYS/broker/publish/messages/received",
                self.publish_received,
            ),
            ("$SYS/broker/publish/messages/sent", self.publish_sent),
            ("$SYS/broker/publish/messages/dropped", self.publish_dropped),
            ("$SYS/broker/publish/bytes/received", self.payload_received),
            ("$SYS/broker/publish/bytes/sent", self.payload_sent),
            ("$SYS/broker/subscriptions/count", self.subscriptions),
            (
                "$SYS/broker/shared_subscriptions/count",
                self.shared_subscriptions,
            ),
            ("$SYS/broker/retained messages/count", self.retained),
            ("$SYS/broker/store/messages/count", self.queued),
        ]
    }
}

impl<H: Hooks> Broker<H> {
    /// Counts since the start, and the present state.
    #[must_use]
    pub fn statistics(&self, now: Instant) -> Statistics {
        Statistics {
            uptime: now.since(self.started).as_secs(),
            sessions: widen(self.sessions.len()),
            subscriptions: widen(self.router.count()),
            shared_subscriptions: widen(self.router.shared_count()),
            retained: widen(self.retained.count()),
            retained_bytes: widen(self.retained.bytes()),
            queued: self.queued.messages,
            queued_bytes: widen(self.queued.bytes),
            connection_bytes: widen(self.held),
            ..self.statistics
        }
    }

    pub(crate) fn publish_statistics(&mut self, now: Instant) {
        self.purging = true;
        let new = self.statistics(now);
        let old = self.published.replace(new);
        let text = format!("{} seconds", new.uptime);
        self.say(UPTIME_TOPIC, &text, now);
        if old.is_none() {
            let version = concat!("mqtt broker ", env!("CARGO_PKG_VERSION"));
            self.say(VERSION_TOPIC, version, now);
        }
        for (at, (topic, number)) in new.topics().into_iter().enumerate() {
            let before = old.and_then(|old| old.topics().get(at).copied());
            if before != Some((topic, number)) {
                self.say(topic, &number.to_string(), now);
            }
        }
    }

    fn say(&mut self, topic: &str, text: &str, now: Instant) {
        let topic = TopicName::new(topic).unwrap_or_default();
        let message = Outgoing {
            retain: true,
            ..Outgoing::new(topic, QoS::AtMostOnce, text.as_bytes())
        };
        self.say_to_all(&message, now);
    }
}
