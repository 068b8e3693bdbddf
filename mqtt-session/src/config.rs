//! Settings of a session where the standard leaves the behaviour to the application. What is announced to the peer is not here:
//! it is in the CONNECT or CONNACK that the machine gets, and the machine enforces it.

use core::time::Duration;

use mqtt_proto::Version;
#[cfg(feature = "alloc")]
use mqtt_proto::num::to_usize;

/// Settings of a [`crate::Client`] or [`crate::Server`]. Make the default ones, then assign fields.
///
/// ```
/// use mqtt_session::{Acknowledge, Config};
/// let mut config = Config::default();
/// config.acknowledge = Acknowledge::ByHand;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The version in which messages are kept that are published before the first CONNECT. Default 3.1.1. If CONNECT then asks
    /// for 5, messages kept in 3.1.1 end in [`crate::Ended::InDoubt`], and the other way round.
    pub version: Version,
    /// How many QoS 1 and QoS 2 messages may be on their way to the peer at once. At least 1, default 128. The peer's receive
    /// maximum can only lower it.
    pub window: u16,
    /// How many of them may be at QoS 2. At least 1, default 20, because Mosquitto closes a 3.1.1 connection with more.
    #[cfg(feature = "policies")]
    pub window_qos2: u16,
    /// How many messages may be kept while there is no connection, if [`Self::offline`](field@Self::offline) keeps them.
    /// Default 1,024.
    #[cfg(feature = "policies")]
    pub queue: u16,
    /// How many SUBSCRIBE and UNSUBSCRIBE may wait for their answer at once. At least 1, default 16.
    pub requests: u8,
    /// What happens to a message that is published while there is no connection, or while it is ending. Default
    /// [`Offline::Keep`].
    #[cfg(feature = "policies")]
    pub offline: Offline,
    /// What happens to unacknowledged messages when the peer has lost the session. Default [`SessionLost::SendAgain`].
    #[cfg(feature = "policies")]
    pub session_lost: SessionLost,
    /// Who acknowledges incoming messages. Default [`Acknowledge::Automatic`].
    #[cfg(feature = "by-hand")]
    pub acknowledge: Acknowledge,
    /// Whether a client accepts QoS 1 and QoS 2 messages beyond the receive maximum that it announced (MQTT 5). Default
    /// `false`: such a message ends the connection with [`crate::Violation::ReceiveMaximumExceeded`], as 5 \[MQTT-3.3.4-9\]
    /// requires. Mosquitto 2.0.11 ignores the maximum when it sends again what was not acknowledged before a reconnect; with
    /// such a server the connection would end again and again. With `true` the message is accepted while there is room for it
    /// (on a heap up to 65,535 at once), and [`crate::Client::receive_maximum_exceeded`] returns `true`. A [`crate::Server`]
    /// always refuses it.
    pub receive_beyond_maximum: bool,
    /// The longest packet that is accepted from the peer, in bytes. Default 1 MiB. A maximum packet size that is announced
    /// (MQTT 5) can only lower it.
    pub packet_limit: u32,
    /// How many bytes of outgoing packets may wait for the transport. Default 256 KiB. A longer packet is refused; but a
    /// PUBLISH becomes a large message. Without the feature `alloc` the limit is the length of the lent buffer.
    ///
    /// A large message is kept once, and the transport takes its packet from there. One at a time is on its way; meanwhile
    /// another one is refused with [`crate::Refused::Full`]. Acknowledgements and messages that are written meanwhile go after
    /// it. At QoS 0 it has a token too, which ends in [`crate::Ended::Sent`] when the transport has taken the last byte. If the
    /// connection ends before the transport took the first byte, the message waits for the next connection; if it ends in
    /// between, the token ends in [`crate::Ended::Lost`]. At QoS 1 and 2, where each message is kept, messages of more than 16
    /// KiB are large as well.
    #[cfg(feature = "alloc")]
    pub outgoing_limit: u32,
    /// How many bytes of unacknowledged and queued messages may be kept. Default 16 MiB. One message may be longer, on a heap
    /// up to the maximum of MQTT, if no other is kept; otherwise it is refused with [`crate::Refused::Full`]. When no message
    /// is kept any more, all memory beyond 256 KiB is freed. Without the feature `alloc` the limit is the length of the lent
    /// buffer.
    #[cfg(feature = "alloc")]
    pub kept_limit: u32,
    /// How many topic aliases the session may assign to outgoing messages (MQTT 5). Default 0. The peer's topic alias maximum
    /// can only lower it.
    #[cfg(feature = "aliases")]
    pub auto_alias: u16,
    /// How long the answer to PINGREQ may take, in milliseconds. Default 10,000.
    pub ping_timeout_ms: u32,
    /// How long a client waits for CONNACK, or a server for CONNECT, from the opening of the connection, in milliseconds.
    /// Default 30,000.
    pub connect_timeout_ms: u32,
    /// After how much silence of the client the server ends the connection, in percent of the keep-alive. Default 150
    /// (3.1.1 \[MQTT-3.1.2-24\], 5 \[MQTT-3.1.2-22\]).
    #[cfg(feature = "server")]
    pub keep_alive_percent: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: Version::V311,
            window: 128,
            #[cfg(feature = "policies")]
            window_qos2: 20,
            #[cfg(feature = "policies")]
            queue: 1_024,
            requests: 16,
            #[cfg(feature = "policies")]
            offline: Offline::Keep,
            #[cfg(feature = "policies")]
            session_lost: SessionLost::SendAgain,
            #[cfg(feature = "by-hand")]
            acknowledge: Acknowledge::Automatic,
            receive_beyond_maximum: false,
            packet_limit: 1 << 20,
            #[cfg(feature = "alloc")]
            outgoing_limit: 256 << 10,
            #[cfg(feature = "alloc")]
            kept_limit: 16 << 20,
            #[cfg(feature = "aliases")]
            auto_alias: 0,
            ping_timeout_ms: 10_000,
            connect_timeout_ms: 30_000,
            #[cfg(feature = "server")]
            keep_alive_percent: 150,
        }
    }
}

impl Config {
    /// Returns [`Self::ping_timeout_ms`] as a duration.
    #[must_use]
    pub const fn ping_timeout(&self) -> Duration {
        Duration::from_millis(widen(self.ping_timeout_ms))
    }

    /// Returns how many slots the table of unacknowledged messages and requests may have.
    pub(crate) fn slots(&self) -> usize {
        let messages = usize::from(self.window.max(1)).max(usize::from(self.queue()));
        messages.wrapping_add(usize::from(self.requests))
    }

    /// Returns [`Self::queue`](field@Self::queue). Without the feature `policies` nothing is kept while there is no connection.
    pub(crate) const fn queue(&self) -> u16 {
        #[cfg(feature = "policies")]
        return self.queue;
        #[cfg(not(feature = "policies"))]
        0
    }

    /// Returns [`Self::window_qos2`](field@Self::window_qos2). Without the feature `policies` QoS 2 has no limit of its own.
    pub(crate) const fn window_qos2(&self) -> u16 {
        #[cfg(feature = "policies")]
        return self.window_qos2;
        #[cfg(not(feature = "policies"))]
        u16::MAX
    }

    /// Returns [`Self::outgoing_limit`]. Without a heap the length of the lent buffer is the limit.
    pub(crate) fn most_outgoing(&self) -> usize {
        #[cfg(feature = "alloc")]
        return to_usize(self.outgoing_limit);
        #[cfg(not(feature = "alloc"))]
        usize::MAX
    }

    /// Returns [`Self::kept_limit`]. Without a heap the length of the lent buffer is the limit.
    pub(crate) fn most_kept(&self) -> usize {
        #[cfg(feature = "alloc")]
        return to_usize(self.kept_limit);
        #[cfg(not(feature = "alloc"))]
        usize::MAX
    }

    /// Returns [`Self::auto_alias`]. Without the feature `aliases` none is assigned.
    pub(crate) const fn most_aliases(&self) -> u16 {
        #[cfg(feature = "aliases")]
        return self.auto_alias;
        #[cfg(not(feature = "aliases"))]
        0
    }

    pub(crate) const fn offline(&self) -> Offline {
        #[cfg(feature = "policies")]
        return self.offline;
        #[cfg(not(feature = "policies"))]
        Offline::Reject
    }

    pub(crate) const fn session_lost(&self) -> SessionLost {
        #[cfg(feature = "policies")]
        return self.session_lost;
        #[cfg(not(feature = "policies"))]
        SessionLost::SendAgain
    }

    pub(crate) const fn by_hand(&self) -> bool {
        #[cfg(feature = "by-hand")]
        return matches!(self.acknowledge, Acknowledge::ByHand);
        #[cfg(not(feature = "by-hand"))]
        false
    }
}

#[allow(clippy::as_conversions, reason = "a widening; `From` is not const")]
const fn widen(number: u32) -> u64 {
    number as u64
}

/// What happens to a message that is published while there is no connection, or while it is ending.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Offline {
    /// The message is refused with [`crate::Refused::Offline`].
    Reject,
    /// Up to [`Config::queue`](field@Config::queue) messages are kept, and sent in their order after the next connect. Further
    /// ones are refused with [`crate::Refused::Full`].
    #[default]
    Keep,
    /// As [`Self::Keep`], but a further message replaces the oldest one that was never sent, whose token ends in
    /// [`crate::Ended::Dropped`].
    DropOldest,
}

/// What happens to unacknowledged messages when the peer has lost the session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum SessionLost {
    /// The messages are sent as new ones. The peer's application may get a message twice, even at QoS 2. A QoS 2 message whose
    /// PUBREC has arrived ends in [`crate::Ended::InDoubt`].
    #[default]
    SendAgain,
    /// Each ends in [`crate::Ended::InDoubt`]. Until the next `receive`, [`crate::Client::unacknowledged`] returns the message.
    HandBack,
}

/// Who acknowledges incoming messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Acknowledge {
    /// The session, in the step that returns the message.
    #[default]
    Automatic,
    /// The application, with [`crate::Client::acknowledge`] and the receipt of the message. It may do so in any order; the
    /// packets go out in the order of the messages (3.1.1 \[MQTT-4.6.0-2\], 5 \[MQTT-4.6.0-2\]).
    ByHand,
}
