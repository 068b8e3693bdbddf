//! What the broker counts, and the `$SYS` topics that tell it, under the names that Mosquitto uses.

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
}

pub(crate) const VERSION_TOPIC: &str = "$SYS/broker/version";
pub(crate) const UPTIME_TOPIC: &str = "$SYS/broker/uptime";

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
