//! Counts what the broker does, and publishes the counts in `$SYS` topics with the names that Mosquitto uses.

use core::fmt::Write as _;

use mqtt_session::proto::num::to_u64;
use mqtt_session::proto::{QoS, TopicName};
use mqtt_session::{Instant, Outgoing};

use crate::broker::Broker;
use crate::hooks::{Hooks, Memory};
use crate::load::{Load, PERIODS};
use crate::timers::Due;

/// Counts since the start, and the current state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Seconds since the broker was made.
    pub uptime: u64,
    /// Connected clients.
    pub clients_connected: u64,
    /// The most clients that were connected at the same time.
    pub clients_maximum: u64,
    /// Sessions of connected and other clients.
    pub sessions: u64,
    /// Sessions that expired.
    pub clients_expired: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Packets of which the transports took at least the first byte.
    pub packets_sent: u64,
    /// Connections that were opened, with or without a CONNECT.
    pub sockets: u64,
    /// CONNECT packets received, accepted or not.
    pub connects: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// PUBLISH packets received.
    pub publish_received: u64,
    /// Messages sent to clients' connections.
    pub publish_sent: u64,
    /// Messages dropped: a queue was full, they were too large for their receiver, or a journal had no number for another copy (a
    /// message goes to at most 65,535 shared subscriptions then).
    pub publish_dropped: u64,
    /// Messages that expired before they could be sent.
    pub publish_expired: u64,
    /// Bytes of payload received.
    pub payload_received: u64,
    /// Bytes of payload sent to clients' connections.
    pub payload_sent: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Shared subscriptions, which also count in `subscriptions`.
    pub shared_subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Bytes of retained messages.
    pub retained_bytes: u64,
    /// Messages queued for clients.
    pub queued: u64,
    /// Bytes of messages queued for clients.
    pub queued_bytes: u64,
    /// Bytes of connections and sessions for outgoing bytes, for messages in flight and for topic aliases.
    pub connection_bytes: u64,
    /// Bytes of input that waits: packets that have not arrived completely or wait for their turn, of each connection with more than
    /// a few kilobytes.
    pub input_bytes: u64,
    /// Messages that other shards sent to this one. They count in [`Self::publish_sent`] of those.
    pub shard_messages: u64,
    /// Bytes of payload of these messages.
    pub shard_payload: u64,
    /// Bytes of subscriptions, as in [`Config::subscription_bytes`](crate::Config::subscription_bytes).
    pub subscription_bytes: u64,
}

const VERSION_TOPIC: &str = "$SYS/broker/version";
const UPTIME_TOPIC: &str = "$SYS/broker/uptime";

impl Statistics {
    /// Returns the numbers under their topics. Version and uptime are texts of their own.
    pub(crate) fn topics(&self) -> [(&'static str, u64); 22] {
        let away = self.sessions.saturating_sub(self.clients_connected);
        // A message that waits for several clients counts for each of them.
        let stored = self.retained.saturating_add(self.queued);
        let stored_bytes = self.retained_bytes.saturating_add(self.queued_bytes);
        [
            ("$SYS/broker/clients/total", self.sessions),
            ("$SYS/broker/clients/connected", self.clients_connected),
            ("$SYS/broker/clients/active", self.clients_connected),
            ("$SYS/broker/clients/disconnected", away),
            ("$SYS/broker/clients/inactive", away),
            ("$SYS/broker/clients/maximum", self.clients_maximum),
            ("$SYS/broker/clients/expired", self.clients_expired),
            ("$SYS/broker/messages/received", self.packets_received),
            ("$SYS/broker/messages/sent", self.packets_sent),
            ("$SYS/broker/messages/stored", stored),
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
            ("$SYS/broker/store/messages/count", stored),
            ("$SYS/broker/store/messages/bytes", stored_bytes),
        ]
    }

    /// Returns the counts that have load averages, and their names in topics.
    const fn counts(&self) -> [(&'static str, u64); LOADS] {
        [
            ("messages/received", self.packets_received),
            ("messages/sent", self.packets_sent),
            ("publish/received", self.publish_received),
            ("publish/sent", self.publish_sent),
            ("publish/dropped", self.publish_dropped),
            ("bytes/received", self.bytes_received),
            ("bytes/sent", self.bytes_sent),
            ("sockets", self.sockets),
            ("connections", self.connects),
        ]
    }
}

const LOADS: usize = 9;

/// The load averages, and when they were updated.
#[derive(Debug)]
pub(crate) struct Loads {
    loads: [Load; LOADS],
    updated: Instant,
    /// Whether they were published before.
    published: bool,
    /// The memory that was published last.
    memory: Option<Memory>,
}

impl Loads {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            loads: [Load::default(); LOADS],
            updated: now,
            published: false,
            memory: None,
        }
    }
}

impl<H: Hooks> Broker<H> {
    /// Returns the counts since the start, and the current state.
    #[must_use]
    pub fn statistics(&self, now: Instant) -> Statistics {
        let own = Statistics {
            uptime: now.since(self.started).as_secs(),
            sessions: to_u64(self.clients.len()),
            subscriptions: to_u64(self.router.count()),
            shared_subscriptions: to_u64(self.router.shared_count()),
            retained: to_u64(self.retained.count()),
            retained_bytes: to_u64(self.retained.bytes()),
            queued: self.queued.messages,
            queued_bytes: to_u64(self.queued.bytes),
            connection_bytes: to_u64(self.heap_bytes),
            input_bytes: to_u64(self.inputs.bytes()),
            subscription_bytes: to_u64(self.filter_bytes.bytes()),
            ..self.statistics
        };
        self.without_links(own)
    }

    pub(crate) fn publish_statistics(&mut self, now: Instant) {
        self.purging = true;
        let own = self.statistics(now);
        let new = self.hooks.statistics(own);
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
        // The rest are as many topics again, so they have a turn of their own.
        self.timers.set(now, Due::Loads);
    }

    /// Publishes the load averages that have changed, the first time all of them, and the memory in use.
    pub(crate) fn publish_loads(&mut self, now: Instant) {
        self.publish_memory(now);
        let Some(new) = self.published else {
            return;
        };
        let all = !core::mem::replace(&mut self.loads.published, true);
        let elapsed = now.since(self.loads.updated);
        self.loads.updated = now;
        let mut topic = String::new();
        for (at, (name, count)) in new.counts().into_iter().enumerate() {
            let Some(load) = self.loads.loads.get_mut(at) else {
                return;
            };
            let changed = load.update(count, elapsed);
            for ((period, _), average) in PERIODS.into_iter().zip(changed) {
                let Some(average) = average.or_else(|| all.then_some(0.0)) else {
                    continue;
                };
                topic.clear();
                let _ = write!(topic, "$SYS/broker/load/{name}/{period}");
                self.say(&topic, &format!("{average:.2}"), now);
            }
        }
    }

    fn publish_memory(&mut self, now: Instant) {
        let Some(memory) = self.hooks.memory() else {
            return;
        };
        let before = self.loads.memory.replace(memory);
        if before.map(|before| before.current) != Some(memory.current) {
            self.say("$SYS/broker/heap/current", &memory.current.to_string(), now);
        }
        if before.map(|before| before.maximum) != Some(memory.maximum) {
            self.say("$SYS/broker/heap/maximum", &memory.maximum.to_string(), now);
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

    /// Publishes a message of the host to the clients of this shard.
    pub(crate) fn say_to_all(&mut self, message: &Outgoing<'_>, now: Instant) {
        if message.retain {
            self.retain(None, message, now);
        }
        self.is_of_host = true;
        self.route(None, message, now);
        self.is_of_host = false;
    }
}
