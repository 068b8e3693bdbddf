//! How a session behaves where the standard leaves it to the application. What is announced to the peer is not here:
//! it is in the CONNECT or CONNACK given to the machine, and enforced as announced.

use core::time::Duration;

use mqtt_proto::Version;
#[cfg(feature = "alloc")]
use mqtt_proto::num::to_usize;

/// Settings of a [`crate::Client`] or [`crate::Server`]: make one, then assign fields.
///
/// ```
/// use mqtt_session::{Acknowledge, Config};
/// let mut config = Config::default();
/// config.acknowledge = Acknowledge::ByHand;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The version in which messages are kept that are published before the first CONNECT. Default 3.1.1. What was kept
    /// in 3.1.1 ends in doubt when CONNECT asks for 5, and the other way round.
    pub version: Version,
    /// How many QoS 1 and QoS 2 messages may be under way to the peer. At least 1, default 128. The peer's receive
    /// maximum (5 \[MQTT-4.9.0-1\]) can only lower it.
    pub window: u16,
    /// How many of them may be QoS 2. Default 20: Mosquitto closes a 3.1.1 connection with more.
    #[cfg(feature = "policies")]
    pub window_qos2: u16,
    /// How many messages are kept while offline, if [`Self::offline`](field@Self::offline) keeps them. Default 1,024.
    #[cfg(feature = "policies")]
    pub queue: u16,
    /// How many SUBSCRIBE and UNSUBSCRIBE may await their answer. Default 16.
    pub requests: u8,
    /// What happens to messages published while there is no connection, or one that is ending. Default [`Offline::Keep`].
    #[cfg(feature = "policies")]
    pub offline: Offline,
    /// What happens to unacknowledged messages when the peer lost the session. Default [`SessionLost::SendAgain`].
    #[cfg(feature = "policies")]
    pub session_lost: SessionLost,
    /// Who acknowledges incoming messages. Default [`Acknowledge::Automatic`].
    #[cfg(feature = "by-hand")]
    pub acknowledge: Acknowledge,
    /// Whether a client takes QoS 1 and QoS 2 messages beyond the receive maximum that it announced (5). By default, `false`,
    /// such a message ends the connection with [`crate::Violation::ReceiveMaximumExceeded`], as 5 \[MQTT-3.3.4-9\] has it.
    /// Mosquitto 2.0.11 ignores the maximum when it sends again what was not acknowledged before a reconnect: with such a
    /// server the connection would end again and again. With `true` the message is taken while there is room for it (on a
    /// heap up to 65,535 at once), and [`crate::Client::receive_maximum_exceeded`] tells of it. A [`crate::Server`] always
    /// refuses.
    pub receive_beyond_maximum: bool,
    /// The largest packet accepted from the peer, in bytes. Default 1 MiB. A maximum packet size that is announced
    /// (5) can only lower it.
    pub packet_limit: u32,
    /// Bytes of outgoing packets that may wait for the transport. Default 256 KiB. Any packet larger than this is refused but a
    /// PUBLISH, which is large then. Without the feature `alloc` the buffer that was lent is the limit.
    ///
    /// A large message is kept once, and its packet goes to the transport from there, one at a time: while one is under way
    /// another is [`crate::Refused::Full`]. Acknowledgements and messages that come meanwhile go after it. At QoS 0 it
    /// has a token too, which ends in [`crate::Ended::Sent`] when the transport took its last byte. If the connection
    /// ends before its first byte was taken, it waits for the next one; if in between, it ends in
    /// [`crate::Ended::Lost`]. At QoS 1 and 2, where each message is kept, those of more than 16 KiB are large as well.
    #[cfg(feature = "alloc")]
    pub outgoing_limit: u32,
    /// Bytes of unacknowledged and queued messages that are kept. Default 16 MiB. One message may be larger, on a heap up
    /// to the maximum of MQTT, if nothing else is kept; beside others it is [`crate::Refused::Full`]. Of the memory nothing
    /// beyond 256 KiB stays when nothing is kept any more. Without the feature `alloc` the buffer that was lent is the limit.
    #[cfg(feature = "alloc")]
    pub kept_limit: u32,
    /// How many topic aliases are assigned to outgoing messages by themselves (5). Default 0. The peer's topic alias
    /// maximum can only lower it.
    #[cfg(feature = "aliases")]
    pub auto_alias: u16,
    /// How long the answer to PINGREQ may take, in milliseconds. Default 10,000.
    pub ping_timeout_ms: u32,
    /// How long CONNECT or CONNACK may take, in milliseconds. Default 30,000.
    pub connect_timeout_ms: u32,
    /// After how many keep-alives of silence the server ends a connection, in percent. Default 150
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
    /// [`Self::ping_timeout_ms`] as a span.
    #[must_use]
    pub const fn ping_timeout(&self) -> Duration {
        Duration::from_millis(widen(self.ping_timeout_ms))
    }

    /// How many slots the table of unacknowledged messages and requests may have.
    pub(crate) fn slots(&self) -> usize {
        let messages = usize::from(self.window.max(1)).max(usize::from(self.queue()));
        messages.wrapping_add(usize::from(self.requests))
    }

    /// [`Self::queue`](field@Self::queue); without the feature `policies` nothing is kept while offline.
    #[inline]
    pub(crate) const fn queue(&self) -> u16 {
        #[cfg(feature = "policies")]
        return self.queue;
        #[cfg(not(feature = "policies"))]
        0
    }

    /// [`Self::window_qos2`](field@Self::window_qos2); without the feature `policies` only the window of both counts.
    #[inline]
    pub(crate) const fn window_qos2(&self) -> u16 {
        #[cfg(feature = "policies")]
        return self.window_qos2;
        #[cfg(not(feature = "policies"))]
        u16::MAX
    }

    /// [`Self::outgoing_limit`]; without a heap what was lent is the limit.
    pub(crate) fn most_outgoing(&self) -> usize {
        #[cfg(feature = "alloc")]
        return to_usize(self.outgoing_limit);
        #[cfg(not(feature = "alloc"))]
        usize::MAX
    }

    /// [`Self::kept_limit`]; without a heap what was lent is the limit.
    pub(crate) fn most_kept(&self) -> usize {
        #[cfg(feature = "alloc")]
        return to_usize(self.kept_limit);
        #[cfg(not(feature = "alloc"))]
        usize::MAX
    }

    /// [`Self::auto_alias`]; without the feature `aliases` none is assigned.
    pub(crate) const fn most_aliases(&self) -> u16 {
        #[cfg(feature = "aliases")]
        return self.auto_alias;
        #[cfg(not(feature = "aliases"))]
        0
    }

    #[inline]
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

    #[inline]
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

/// What happens to messages published while there is no connection, or one that is ending.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Offline {
    /// They are refused with [`crate::Refused::Offline`].
    Reject,
    /// Up to [`Config::queue`](field@Config::queue) are kept and sent after the next connect, in their order; then
    /// [`crate::Refused::Full`].
    #[default]
    Keep,
    /// As [`Self::Keep`], but the oldest that was never sent makes room, and its token ends in
    /// [`crate::Ended::Dropped`].
    DropOldest,
}

/// What happens to unacknowledged messages when the peer lost the session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SessionLost {
    /// They are sent as new ones. The peer's application may see a message twice, even at QoS 2. A QoS 2 message that
    /// the peer had already received ends in [`crate::Ended::InDoubt`].
    #[default]
    SendAgain,
    /// Each ends in [`crate::Ended::InDoubt`], and can be looked at once more.
    HandBack,
}

/// Who acknowledges incoming messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Acknowledge {
    /// The session, as soon as the message is delivered.
    #[default]
    Automatic,
    /// The application, by [`crate::Client::acknowledge`] with the message's receipt, in any order: the packets go out
    /// in the order of the messages (3.1.1 \[MQTT-4.6.0-2\], 5 \[MQTT-4.6.0-2\]).
    ByHand,
}
