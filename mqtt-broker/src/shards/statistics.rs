//! Counts the clients of all shards together.

use mqtt_session::proto::num::to_u64;

use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::statistics::Statistics;

impl Statistics {
    /// Returns the counts of a server from those of its shards.
    #[must_use]
    pub fn of_all<'a>(shards: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for one in shards {
            all.add(one);
        }
        // Messages from one shard to another do not count as sent to a client.
        all.publish_sent = all.publish_sent.saturating_sub(all.shard_messages);
        all.payload_sent = all.payload_sent.saturating_sub(all.shard_payload);
        (all.shard_messages, all.shard_payload) = (0, 0);
        all
    }

    fn add(&mut self, one: &Self) {
        for (all, one) in [
            (&mut self.clients_connected, one.clients_connected),
            (&mut self.clients_maximum, one.clients_maximum),
            (&mut self.sessions, one.sessions),
            (&mut self.clients_expired, one.clients_expired),
            (&mut self.packets_received, one.packets_received),
            (&mut self.packets_sent, one.packets_sent),
            (&mut self.sockets, one.sockets),
            (&mut self.connects, one.connects),
            (&mut self.bytes_received, one.bytes_received),
            (&mut self.bytes_sent, one.bytes_sent),
            (&mut self.publish_received, one.publish_received),
            (&mut self.publish_sent, one.publish_sent),
            (&mut self.publish_dropped, one.publish_dropped),
            (&mut self.publish_expired, one.publish_expired),
            (&mut self.payload_received, one.payload_received),
            (&mut self.payload_sent, one.payload_sent),
            (&mut self.subscriptions, one.subscriptions),
            (&mut self.shared_subscriptions, one.shared_subscriptions),
            (&mut self.queued, one.queued),
            (&mut self.queued_bytes, one.queued_bytes),
            (&mut self.connection_bytes, one.connection_bytes),
            (&mut self.input_bytes, one.input_bytes),
            (&mut self.subscription_bytes, one.subscription_bytes),
            (&mut self.shard_messages, one.shard_messages),
            (&mut self.shard_payload, one.shard_payload),
        ] {
            *all = all.saturating_add(one);
        }
        // Each shard has all retained messages.
        self.uptime = self.uptime.max(one.uptime);
        self.retained = self.retained.max(one.retained);
        self.retained_bytes = self.retained_bytes.max(one.retained_bytes);
    }
}

impl<H: Hooks> Broker<H> {
    /// Subtracts the sessions, connections and subscriptions of links.
    pub(crate) fn without_links(&self, mut own: Statistics) -> Statistics {
        let Some(links) = &self.links else { return own };
        let (mut sessions, mut connected) = (0_usize, 0_usize);
        for key in links.others().filter_map(|peer| peer.session()) {
            sessions = sessions.saturating_add(1);
            connected = connected.saturating_add(usize::from(self.connection_of(key).is_some()));
        }
        let (subscriptions, shared) = links.subscriptions();
        (own.shard_messages, own.shard_payload) = links.received;
        for (count, links) in [
            (&mut own.sessions, sessions),
            (&mut own.clients_connected, connected),
            (&mut own.clients_maximum, connected),
            (&mut own.subscriptions, subscriptions),
            (&mut own.shared_subscriptions, shared),
        ] {
            *count = count.saturating_sub(to_u64(links));
        }
        own
    }
}
