//! Limits that would serve nobody.

use super::{Checked, SMALLEST_PACKET, Settings};

impl Settings {
    pub(super) fn zero_address_limits(&self) -> [Checked; 4] {
        let client = "must be at least 1, or no client can connect";
        let session = "must be at least 1, since every client has one";
        [
            (
                self.pending_connections == Some(0),
                "pending-connections",
                client,
            ),
            (
                self.connections_per_address == Some(0),
                "connections-per-address",
                client,
            ),
            (
                self.sessions_per_address == Some(0),
                "sessions-per-address",
                session,
            ),
            (
                self.sessions_per_user == Some(0),
                "sessions-per-user",
                session,
            ),
        ]
    }

    pub(super) fn unusable_limits(&self) -> [Checked; 9] {
        [
            (
                self.connections == Some(0),
                "connections",
                "must be at least 1, or no client can connect",
            ),
            (
                self.sessions == Some(0),
                "sessions",
                "must be at least 1, since every client has one",
            ),
            (
                self.connect_timeout
                    .is_some_and(|time| u32::from(time) == 0),
                "connect-timeout",
                "must be at least 0.001, or no CONNECT is in time",
            ),
            (
                self.keep_alive_percent.is_some_and(|percent| percent < 100),
                "keep-alive-percent",
                "must be at least 100, or clients that keep to their keep-alive are disconnected",
            ),
            (
                self.packet_size.is_some_and(|size| size < SMALLEST_PACKET),
                "packet-size",
                "must be at least 128, or CONNECT does not fit",
            ),
            (
                self.connect_size.is_some_and(|size| size < SMALLEST_PACKET),
                "connect-size",
                "must be at least 128, or CONNECT does not fit",
            ),
            (
                self.topic_levels == Some(0),
                "topic-levels",
                "must be at least 1, since every topic has one",
            ),
            (
                self.password_queue == Some(0),
                "password-queue",
                "must be at least 1, or no user can connect",
            ),
            (
                self.handshakes == Some(0),
                "handshakes",
                "must be at least 1, or no TLS begins",
            ),
        ]
    }

    /// Returns the limits with which no message or subscription is possible.
    pub(super) fn zero_limits_of_messages(&self) -> [Checked; 6] {
        let filter = "must be at least 1, or no subscription is granted";
        [
            (
                self.outgoing_bytes == Some(0),
                "outgoing-bytes",
                "must be at least 1, or no message is sent",
            ),
            (
                self.topic_length == Some(0),
                "topic-length",
                "must be at least 1, since no topic is empty",
            ),
            (
                self.payload_size == Some(0),
                "payload-size",
                "must be at least 1, or no payload is delivered",
            ),
            (self.subscriptions == Some(0), "subscriptions", filter),
            (
                self.subscription_bytes == Some(0),
                "subscription-bytes",
                filter,
            ),
            (
                self.subscription_bytes_total == Some(0),
                "subscription-bytes-total",
                filter,
            ),
        ]
    }
}
