//! Finds limits with which the broker could serve no client, or pass on no message.

use super::{Checked, SMALLEST_PACKET, Settings};

impl Settings {
    pub(super) fn zero_address_limits(&self) -> [Checked; 4] {
        let client = "must be at least 1, or no client can connect";
        let session = "must be at least 1, since every client has one";
        [
            zero(self.pending_connections, "pending-connections", client),
            zero(
                self.connections_per_address,
                "connections-per-address",
                client,
            ),
            zero(self.sessions_per_address, "sessions-per-address", session),
            zero(self.sessions_per_user, "sessions-per-user", session),
        ]
    }

    pub(super) fn unusable_limits(&self) -> [Checked; 9] {
        [
            zero(
                self.connections,
                "connections",
                "must be at least 1, or no client can connect",
            ),
            zero(
                self.sessions,
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
            zero(
                self.topic_levels,
                "topic-levels",
                "must be at least 1, since every topic has one",
            ),
            zero(
                self.password_queue,
                "password-queue",
                "must be at least 1, or no user can connect",
            ),
            zero(
                self.handshakes,
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
                self.outgoing_bytes
                    .is_some_and(|bytes| bytes < SMALLEST_PACKET),
                "outgoing-bytes",
                "must be at least 128, or CONNACK does not fit",
            ),
            zero(
                self.topic_length,
                "topic-length",
                "must be at least 1, since no topic is empty",
            ),
            zero(
                self.payload_size,
                "payload-size",
                "must be at least 1, or no payload is delivered",
            ),
            zero(self.subscriptions, "subscriptions", filter),
            zero(self.subscription_bytes, "subscription-bytes", filter),
            zero(
                self.subscription_bytes_total,
                "subscription-bytes-total",
                filter,
            ),
        ]
    }
}

/// Returns whether a limit is 0, with its name and why it must not be.
fn zero<T: From<u8> + PartialEq>(
    limit: Option<T>,
    name: &'static str,
    why: &'static str,
) -> Checked {
    (limit == Some(T::from(0)), name, why)
}
