//! Delivers messages from a publisher to its receivers.

use mqtt_session::proto::num::to_u64;
use mqtt_session::proto::{Properties, QoS, ReasonCode, TopicName};
use mqtt_session::{Incoming, Instant, Outgoing, Refused, Token};

use crate::broker::Broker;
use crate::connect::is_reserved;
use crate::connection::Connection;
use crate::fanout::{Routed, Target};
use crate::hooks::{Hooks, Observation};
use crate::keys::{ConnectionKey, SessionKey};
use crate::message::forwarded;
use crate::pressure::Withheld;
use crate::queue::{Limits, Queued, Room};
use crate::rights::may_receive;
use crate::routing_limits::RoutingLimits;
use crate::shards::is_for_keeping;
use crate::source::Source;

/// Returns the steps of one delivery: properties are written one by one, and the payload is copied.
pub(crate) fn delivery_steps(message: &Outgoing<'_>) -> usize {
    let properties = if message.properties.is_empty() {
        0
    } else {
        message.properties.iter().count().div_ceil(6)
    };
    let payload = message.payload.len() / 1_024;
    properties.saturating_add(payload).saturating_add(2)
}

/// Returns about how many bytes a message takes in a queue.
const fn message_size(message: &Outgoing<'_>) -> usize {
    let topic = message.topic.as_bytes().len();
    topic.saturating_add(message.payload.len())
}

/// The steps for a message that goes into a queue, in addition to its delivery: a copy is made and later freed.
const QUEUE: usize = 6;

impl<H: Hooks> Broker<H> {
    /// Handles a message of a client.
    pub(crate) fn message(&mut self, index: ConnectionKey, incoming: &Incoming<'_>, now: Instant) {
        if self.links.is_some() && self.is_link_connection(index) {
            return self.message_from_shard(index, incoming, now);
        }
        let mut topic = std::mem::take(&mut self.topic);
        self.message_on(index, incoming, &mut topic, now);
        self.topic = topic;
    }

    /// Handles a message of a client; `resolved` is memory for the topic behind a topic alias.
    fn message_on(
        &mut self,
        index: ConnectionKey,
        incoming: &Incoming<'_>,
        resolved: &mut String,
        now: Instant,
    ) {
        let publish = &incoming.publish;
        let connection = self.connections.get(index);
        let Some((connection, key)) = connection.and_then(|own| Some((own, own.session?))) else {
            return;
        };
        if let Some(reason) = self.config.refuses(publish.qos(), publish.retain) {
            self.close(index, reason, now);
            return;
        }
        let topic = if publish.topic.is_none() {
            // The topic alias stands for a topic that this connection has sent.
            resolved.clear();
            resolved.push_str(connection.server.topic(publish).as_str());
            TopicName::new(resolved).unwrap_or_default()
        } else {
            publish.topic
        };
        if publish.topic_alias.is_some()
            && let Some(reason) = self.refuses_alias(index, topic)
        {
            // An alias would stay in memory.
            self.close(index, reason, now);
            return;
        }
        let message = Outgoing {
            topic,
            qos: publish.qos(),
            retain: publish.retain,
            properties: publish.properties,
            payload: publish.payload,
        };
        let before = self.position();
        if self.has_journal() && message.qos > QoS::AtMostOnce {
            if self.storage_is_refused() {
                self.refuse_message(index, incoming.receipt, now);
                return;
            }
            let packet_id = publish.delivery.packet_id();
            self.record_origin(key, packet_id.filter(|_| message.qos == QoS::ExactlyOnce));
        }
        if incoming.receipt.is_some() {
            self.press = self.limits_for_publisher(key);
        }
        let (reason, routed) = self.accept_message(key, &message, now);
        if let Some(receipt) = incoming.receipt {
            let size = message_size(&message);
            let reason = self.press.answer(message.qos, reason);
            let answer = Withheld::new(receipt, reason, before);
            self.answer_message(index, answer, routed, size);
        }
        self.press = RoutingLimits::default();
    }

    /// Acknowledges a message that was routed, or notes its acknowledgement for later.
    pub(crate) fn answer_message(
        &mut self,
        index: ConnectionKey,
        answer: Withheld,
        routed: Routed,
        size: usize,
    ) {
        if routed == Routed::Later {
            let origin = self.forget_origin();
            self.fanouts.acknowledge_later(answer, origin);
            return;
        }
        if self.has_journal() {
            if answer.reason.is_error() {
                let _ = self.forget_origin();
            } else {
                self.record_received();
            }
        }
        let pressed_by = self.press.by();
        self.acknowledge_or_hold(index, answer, size, pressed_by);
    }

    fn accept_message(
        &mut self,
        key: SessionKey,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> (ReasonCode, Routed) {
        let statistics = &mut self.statistics;
        statistics.publish_received = statistics.publish_received.saturating_add(1);
        let payload = to_u64(message.payload.len());
        statistics.payload_received = statistics.payload_received.saturating_add(payload);
        let topic = message.topic;
        let connection = self.connection_of(key);
        let Some(session) = self.sessions.get(key) else {
            return (ReasonCode::UnspecifiedError, Routed::ToNobody);
        };
        let client = session.info();
        let refused = if !self.config.allows_topic(topic.as_bytes()) {
            Some(ReasonCode::TopicNameInvalid)
        } else if is_reserved(topic) || !self.hooks.may_publish(&client, topic) {
            Some(ReasonCode::NotAuthorized)
        } else if message.payload.len() > self.config.payload_size {
            Some(ReasonCode::QuotaExceeded)
        } else {
            None
        };
        // 3.1.1 [MQTT-3.3.5-2]: a message without permission is acknowledged like others.
        if let Some(reason) = refused {
            self.hooks.observe(&Observation::PublishRefused {
                connection,
                client,
                topic,
                reason,
            });
            return (reason, Routed::ToNobody);
        }
        // 3.1.1 [MQTT-3.3.1-12]
        let kept = !message.retain || self.retain(Some(key), message, now);
        if !kept {
            // The message is refused, so its identifier is not recorded.
            let _ = self.forget_origin();
            self.report_not_retained(key, topic);
        }
        let routed = self.route(Some(key), message, now);
        let reason = match (kept, routed) {
            (false, _) => ReasonCode::QuotaExceeded,
            (true, Routed::ToNobody) => ReasonCode::NoMatchingSubscribers,
            (true, Routed::ToAll | Routed::Later) => ReasonCode::Success,
        };
        (reason, routed)
    }

    fn report_not_retained(&mut self, key: SessionKey, topic: TopicName<'_>) {
        let connection = self.connection_of(key);
        if let Some(session) = self.sessions.get(key) {
            self.hooks.observe(&Observation::RetainRefused {
                connection,
                client: session.info(),
                topic,
            });
        }
    }

    /// Returns whether a QoS 0 message is queued for a session that cannot send it now.
    pub(crate) fn keeps_qos0(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        self.config.queue_qos0 || session.is_some_and(|session| session.connection.is_some())
    }

    /// Delivers a message to one receiver: at once if the receiver's queue is empty and its connection takes the message, by its
    /// queue otherwise.
    pub(crate) fn deliver(
        &mut self,
        target: &Target,
        source: &mut Source<'_>,
        identifiers: &[u32],
        now: Instant,
    ) {
        let Target {
            subscriber, share, ..
        } = *target;
        let key = subscriber.session;
        self.meter
            .spend(source.steps().saturating_add(identifiers.len() / 8));
        let message = Outgoing {
            qos: self.config.delivery_qos(source.message.qos, subscriber.qos),
            // 3.1.1 [MQTT-3.3.1-9], 5 [MQTT-3.3.1-12] and [MQTT-3.3.1-13]
            retain: source.message.retain && subscriber.retain_as_published,
            ..*source.message
        };
        let current = self.current_rights();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let full = session.rights.are_full(self.rights);
        let may = full || may_receive(session, current, &mut self.hooks, message.topic);
        let (is_online, link) = (session.connection.is_some(), session.link);
        if !may || self.has_expired(source, link, identifiers, now) {
            self.not_delivered(key, message.qos, share);
            return;
        }
        if let Some(shard) = link {
            self.wait_for_busy_shard(shard, message.topic.as_bytes());
        }
        let may_be_sent = is_online && share.is_none();
        if may_be_sent && self.send_at_once(key, &message, source.remaining(now), identifiers) {
            return;
        }
        if !is_online && message.qos == QoS::AtMostOnce && !self.config.queue_qos0 {
            return;
        }
        let Some(mut kept) = source.kept(now).cloned() else {
            return;
        };
        kept.set_record(self.current_record());
        let session = self.sessions.get_mut(key);
        let identifiers = session
            .map(|session| session.identifiers(identifiers))
            .unwrap_or_default();
        let item = Queued {
            message: kept,
            qos: message.qos,
            retain: message.retain,
            identifiers,
            share,
        };
        self.enqueue(key, item, now);
    }

    /// Returns whether a message has expired since it arrived (5 \[MQTT-3.3.2-5\]). A retained message on its way to another shard does
    /// not expire: if it did not arrive, that shard would still retain the older message of the topic.
    fn has_expired(
        &mut self,
        source: &Source<'_>,
        link: Option<u8>,
        identifiers: &[u32],
        now: Instant,
    ) -> bool {
        let has_expired =
            source.has_expired(now) && (link.is_none() || !is_for_keeping(identifiers));
        let expired = &mut self.statistics.publish_expired;
        *expired = expired.saturating_add(has_expired.into());
        has_expired
    }

    /// Sends a message to a connected session whose queue is empty. Returns `false` if it must be queued.
    fn send_at_once(
        &mut self,
        key: SessionKey,
        message: &Outgoing<'_>,
        remaining: Option<u32>,
        identifiers: &[u32],
    ) -> bool {
        let scarce = self.heap_bytes > self.config.connection_bytes_total;
        // A division for each receiver takes longer than the rest of this function.
        let limit = if scarce {
            self.connection_share()
        } else {
            usize::MAX
        };
        let session = self.sessions.get(key);
        // 3.1.1 [MQTT-4.6.0-5] and [MQTT-4.6.0-6], 5 [MQTT-4.6.0-5] and [MQTT-4.6.0-6]: a message is not sent before older queued
        // ones.
        let Some(session) =
            session.filter(|session| session.queue.is_empty() && !session.tells_first)
        else {
            return false;
        };
        let index = session.connection;
        let connection = index.and_then(|index| self.connections.get_mut(index));
        let Some(connection) = connection else {
            return false;
        };
        if connection.holds_more_than(limit) {
            return false;
        }
        let sent = send(connection, message, remaining, identifiers);
        if sent == Err(Refused::Full) {
            return false;
        }
        let steps = connection.recount(&mut self.heap_bytes);
        self.meter.spend(steps);
        if self.journal.is_some() {
            let how = (message.qos, message.retain);
            self.record_delivery(key, sent, how, identifiers);
        }
        self.sent_or_dropped(key, index, sent, message.payload.len());
        true
    }

    /// Records that a message was sent to a client at once, or will not be sent.
    fn record_delivery(
        &mut self,
        key: SessionKey,
        sent: Result<Option<Token>, Refused>,
        how: (QoS, bool),
        identifiers: &[u32],
    ) {
        match sent {
            Ok(Some(token)) if how.0 > QoS::AtMostOnce => {
                self.record_sent(key, token, how, identifiers);
            }
            Ok(_) => {}
            Err(_) => self.not_delivered(key, how.0, None),
        }
    }

    /// Queues a message, and sends queued messages as far as possible.
    pub(crate) fn enqueue(&mut self, key: SessionKey, mut item: Queued, now: Instant) {
        self.meter.spend(QUEUE);
        self.number_for_queue(key, &mut item);
        let copy = self.journal.is_some().then(|| item.clone());
        let (is_firm, share) = (item.is_firm(), self.fair_share());
        let room = if is_firm {
            self.room(key, item.size(), now)
        } else {
            Room::Own
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let limits = Limits {
            config: &self.config,
            share,
            room,
        };
        session.full_queue_reported &= !session.queue.is_empty();
        let for_shard = session.link.map(|shard| (shard, item.message.clone()));
        let is_kept = is_for_keeping(item.identifiers.as_slice());
        let pushed = session.queue.push(item, &limits, &mut self.queued);
        if pushed.dropped > 0 {
            self.dropped(key, pushed.dropped);
            self.report_full_queue(key);
        }
        if let Some((shard, message)) = for_shard.filter(|_| !pushed.accepted) {
            if is_kept {
                self.note_stale(shard, &message);
            } else {
                self.press.is_incomplete |= is_firm;
            }
        }
        if let Some(item) = &copy {
            if pushed.accepted {
                self.record_queued(key, item);
            } else {
                self.not_delivered(key, item.qos, item.share);
            }
        }
        if pushed.accepted {
            self.pump(key, now);
            if is_firm {
                self.note_queued(key, share, now);
            }
        }
    }

    pub(crate) const fn count_dropped(&mut self, messages: u64) {
        let dropped = &mut self.statistics.publish_dropped;
        *dropped = dropped.saturating_add(messages);
    }

    pub(crate) fn dropped(&mut self, key: SessionKey, messages: u64) {
        self.count_dropped(messages);
        let connection = self.connection_of(key);
        if let Some(session) = self.sessions.get(key) {
            self.hooks.observe(&Observation::Dropped {
                connection,
                client_id: &session.client_id,
                messages,
            });
        }
    }

    pub(crate) fn sent_or_dropped(
        &mut self,
        key: SessionKey,
        connection: Option<ConnectionKey>,
        sent: Result<Option<Token>, Refused>,
        payload: usize,
    ) {
        match sent {
            Ok(_) => {
                let statistics = &mut self.statistics;
                statistics.publish_sent = statistics.publish_sent.saturating_add(1);
                let payload = to_u64(payload);
                statistics.payload_sent = statistics.payload_sent.saturating_add(payload);
                if let Some(index) = connection {
                    self.mark_to_write(index);
                }
            }
            // 5 [MQTT-3.1.2-25]: a message that is too large for this client counts as sent.
            Err(_) => self.dropped(key, 1),
        }
    }
}

/// Sends a message to one connection in the version of the connection; `remaining` is its message expiry interval in seconds.
pub(crate) fn send(
    connection: &mut Connection,
    message: &Outgoing<'_>,
    remaining: Option<u32>,
    identifiers: &[u32],
) -> Result<Option<Token>, Refused> {
    let server = &mut connection.server;
    if message.properties.is_empty() && identifiers.is_empty() && remaining.is_none() {
        return server.publish(message);
    }
    if !server.version().is_v5() {
        return server.publish(&Outgoing {
            properties: Properties::EMPTY,
            ..*message
        });
    }
    if identifiers.is_empty() && remaining.is_none() {
        return server.publish(message);
    }
    let properties = forwarded(&message.properties, remaining, identifiers.iter().copied());
    server.publish(&Outgoing {
        properties: Properties::from(&properties[..]),
        ..*message
    })
}
