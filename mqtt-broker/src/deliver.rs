//! Delivers messages from a publisher to its receivers.

use mqtt_session::proto::{Properties, QoS, ReasonCode, TopicName, Version};
use mqtt_session::{Incoming, Instant, Outgoing, Refused, Server, Token};
use smallvec::SmallVec;

use crate::broker::{Broker, to_u64, usize_of};
use crate::connect::is_reserved;
use crate::connection::Connection;
use crate::fanout::{Routed, Target};
use crate::hooks::{Hooks, Observation};
use crate::message::{Message, forwarded};
use crate::pressure::Withheld;
use crate::queue::{Identifiers, Limits, Queued, Room};
use crate::rights::{drops_first, may_receive};
use crate::router::Share;
use crate::source::Source;
use crate::stall::Tried;

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
    pub(crate) fn message(&mut self, index: u32, incoming: &Incoming<'_>, now: Instant) {
        let publish = &incoming.publish;
        // The topic alias stands for a topic that this connection has sent.
        let mut resolved = std::mem::take(&mut self.topic);
        let Some(connection) = self.connections.get(usize_of(index)) else {
            return;
        };
        let Some(key) = connection.session else {
            return;
        };
        if let Some(reason) = self.config.refuses(publish.qos(), publish.retain) {
            self.topic = resolved;
            self.close(index, reason, now);
            return;
        }
        let topic = if publish.topic.is_none() {
            resolved.clear();
            resolved.push_str(connection.server.topic(publish).as_str());
            TopicName::new(&resolved).unwrap_or_default()
        } else {
            publish.topic
        };
        if publish.topic_alias.is_some()
            && let Some(reason) = self.refuses_alias(index, topic)
        {
            // An alias would stay in memory.
            self.topic = resolved;
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
        if self.has_journal() && publish.qos() > QoS::AtMostOnce {
            if self.storage_is_refused() {
                self.topic = resolved;
                self.refuse_message(index, incoming.receipt, now);
                return;
            }
            let qos2 = publish.qos() == QoS::ExactlyOnce;
            self.record_origin(key, publish.delivery.packet_id().filter(|_| qos2));
        }
        if incoming.receipt.is_some() {
            self.press = self.limits_for_publisher(key);
        }
        let (reason, routed) = self.accept_message(key, &message, now);
        let size = message_size(&message);
        self.topic = resolved;
        let pressed_by = std::mem::take(&mut self.press).by();
        let Some(receipt) = incoming.receipt else {
            return;
        };
        if routed == Routed::Later {
            let origin = self.forget_origin();
            self.fanouts
                .acknowledge_later(receipt, reason, before, origin);
            return;
        }
        if self.has_journal() {
            if reason.is_error() {
                let _ = self.forget_origin();
            } else {
                self.record_received();
            }
        }
        let answer = Withheld {
            receipt,
            reason,
            before,
        };
        self.acknowledge_or_hold(index, answer, size, pressed_by);
    }

    fn accept_message(
        &mut self,
        key: u32,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> (ReasonCode, Routed) {
        let statistics = &mut self.statistics;
        statistics.publish_received = statistics.publish_received.saturating_add(1);
        let payload = to_u64(message.payload.len());
        statistics.payload_received = statistics.payload_received.saturating_add(payload);
        let topic = message.topic;
        let connection = self.connection_of(key);
        let Some(session) = self.sessions.get(usize_of(key)) else {
            return (ReasonCode::UnspecifiedError, Routed::ToNobody);
        };
        let client = session.info();
        let refused = if !self.config.allows_topic(topic.as_bytes()) {
            Some(ReasonCode::TopicNameInvalid)
        } else if is_reserved(topic.as_str()) || !self.hooks.may_publish(&client, topic) {
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

    fn report_not_retained(&mut self, key: u32, topic: TopicName<'_>) {
        let connection = self.connection_of(key);
        if let Some(session) = self.sessions.get(usize_of(key)) {
            self.hooks.observe(&Observation::RetainRefused {
                connection,
                client: session.info(),
                topic,
            });
        }
    }

    /// Returns whether a QoS 0 message is queued for a session that cannot send it now.
    pub(crate) fn keeps_qos0(&self, key: u32) -> bool {
        let session = self.sessions.get(usize_of(key));
        self.config.queue_qos0 || session.is_some_and(|session| session.connection.is_some())
    }

    pub(crate) fn deliver(
        &mut self,
        target: &Target,
        source: &mut Source<'_>,
        identifiers: &[u32],
        now: Instant,
    ) {
        let Target {
            subscriber, share, ..
        } = target;
        let message = source.message;
        self.meter
            .spend(source.steps().saturating_add(identifiers.len() / 8));
        let qos = self.config.delivery_qos(message.qos, subscriber.qos);
        // 3.1.1 [MQTT-3.3.1-9], 5 [MQTT-3.3.1-12] and [MQTT-3.3.1-13]
        let retain = message.retain && subscriber.retain_as_published;
        let current = self.current_rights();
        let limit = self.connection_share();
        let Some(session) = self.sessions.get_mut(usize_of(subscriber.session)) else {
            return;
        };
        let full = session.rights.are_full(self.rights);
        if !full && !may_receive(session, current, &mut self.hooks, message.topic) {
            self.not_delivered(subscriber.session, qos, *share);
            return;
        }
        let connection = session
            .connection
            .and_then(|index| self.connections.get_mut(usize_of(index)));
        let scarce = self.heap_bytes > self.config.connection_bytes_total;
        match connection {
            // 3.1.1 [MQTT-4.6.0-5] and [MQTT-4.6.0-6], 5 [MQTT-4.6.0-5] and [MQTT-4.6.0-6]: a message is not sent before older
            // queued ones.
            Some(connection)
                if session.queue.is_empty()
                    && share.is_none()
                    && !(scarce && connection.holds_more_than(limit)) =>
            {
                let sent = send(
                    connection,
                    message,
                    qos,
                    retain,
                    message.properties,
                    None,
                    identifiers,
                );
                match sent {
                    Err(Refused::Full) => {}
                    sent => {
                        connection.recount(&mut self.heap_bytes);
                        let index = session.connection;
                        if self.journal.is_some() {
                            let how = (qos, retain);
                            self.record_delivery(subscriber.session, sent, how, identifiers);
                        }
                        self.sent_or_dropped(
                            subscriber.session,
                            index,
                            sent,
                            message.payload.len(),
                        );
                        return;
                    }
                }
            }
            None if qos == QoS::AtMostOnce && !self.config.queue_qos0 => return,
            _ => {}
        }
        let Some(mut kept) = source.kept(now).cloned() else {
            return;
        };
        kept.set_record(self.current_record());
        let identifiers = self
            .sessions
            .get_mut(usize_of(subscriber.session))
            .map(|session| session.identifiers(identifiers))
            .unwrap_or_default();
        self.deliver_kept(
            subscriber.session,
            kept,
            qos,
            retain,
            identifiers,
            *share,
            now,
        );
    }

    /// Records that a message was sent to a client at once, or will not be sent.
    fn record_delivery(
        &mut self,
        key: u32,
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
    #[allow(clippy::too_many_arguments, reason = "the parts of one queued message")]
    pub(crate) fn deliver_kept(
        &mut self,
        key: u32,
        mut message: Message,
        qos: QoS,
        retain: bool,
        identifiers: Identifiers,
        share: Option<Share>,
        now: Instant,
    ) {
        self.meter.spend(QUEUE);
        self.number_for_queue(key, &mut message, qos, share);
        let item = Queued {
            message,
            qos,
            retain,
            identifiers,
            share,
        };
        let copy = self.journal.is_some().then(|| item.clone());
        let (is_firm, share) = (item.is_firm(), self.fair_share());
        let room = if is_firm {
            self.room(key, item.size(), now)
        } else {
            Room::Own
        };
        let Some(session) = self.sessions.get_mut(usize_of(key)) else {
            return;
        };
        let limits = Limits {
            config: &self.config,
            share,
            room,
        };
        session.full_queue_reported &= !session.queue.is_empty();
        let pushed = session.queue.push(item, &limits, &mut self.queued);
        if pushed.dropped > 0 {
            self.dropped(key, pushed.dropped);
            self.report_full_queue(key);
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

    pub(crate) fn dropped(&mut self, key: u32, messages: u64) {
        let dropped = &mut self.statistics.publish_dropped;
        *dropped = dropped.saturating_add(messages);
        let connection = self.connection_of(key);
        if let Some(session) = self.sessions.get(usize_of(key)) {
            self.hooks.observe(&Observation::Dropped {
                connection,
                client_id: &session.client_id,
                messages,
            });
        }
    }

    fn sent_or_dropped(
        &mut self,
        key: u32,
        connection: Option<u32>,
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
                    self.mark_ready(index);
                }
            }
            // 5 [MQTT-3.1.2-25]: a message that is too large for this client counts as sent.
            Err(_) => self.dropped(key, 1),
        }
    }

    /// Sends the queued messages of a session as far as its window, its buffer and its share of the turn allow.
    pub(crate) fn pump(&mut self, key: u32, now: Instant) {
        self.pump_queue(key, now);
        self.release_if_shorter(key);
    }

    fn pump_queue(&mut self, key: u32, now: Instant) {
        let current = self.current_rights();
        let share = self.connection_share();
        loop {
            let Some(session) = self.sessions.get_mut(usize_of(key)) else {
                return;
            };
            let Some(index) = session.connection else {
                return;
            };
            let Some(connection) = self.connections.get_mut(usize_of(index)) else {
                return;
            };
            let full = session.rights.are_full(self.rights);
            if !full
                && self.meter.has_share()
                && let Some(item) = drops_first(session, current, &mut self.hooks, &mut self.queued)
            {
                self.record_dropped(key, &item);
                self.meter.spend(4);
                continue;
            }
            let Some(item) = session.queue.front() else {
                if session.wants_retained() && connection.is_answered() {
                    self.work_for(key);
                }
                return;
            };
            if !self.meter.has_share() && !session.queue.is_stalled() {
                self.work_for(key);
                return;
            }
            // 5 [MQTT-4.3.3-7] and [MQTT-4.3.3-13]: only queued messages expire, not messages that were sent.
            if item.message.has_expired(now) {
                let expired = session.queue.pop(&mut self.queued);
                if let (Some(_), Some(item)) = (&self.journal, &expired) {
                    self.record_dropped(key, item);
                }
                let expired = &mut self.statistics.publish_expired;
                *expired = expired.saturating_add(1);
                continue;
            }
            if session.queue.is_stalled() {
                return;
            }
            let publish = item.message.publish();
            let message = Outgoing {
                qos: item.qos,
                retain: item.retain,
                ..item.message.outgoing(&publish)
            };
            let identifiers = item.identifiers.as_slice().len() / 8;
            self.meter
                .spend(delivery_steps(&message).saturating_add(identifiers));
            let scarce = self.heap_bytes > self.config.connection_bytes_total;
            let sent = if scarce && connection.holds_more_than(share) {
                Err(Refused::Full)
            } else {
                send(
                    connection,
                    &message,
                    item.qos,
                    item.retain,
                    publish.properties,
                    item.message.remaining(now),
                    item.identifiers.as_slice(),
                )
            };
            connection.recount(&mut self.heap_bytes);
            if sent == Err(Refused::Full) {
                let tried = Tried {
                    len: item.message.len(),
                    head: item.message.head(),
                    unsent: connection.server.outgoing().len(),
                    pending: connection.server.pending(),
                    window: connection.window,
                };
                session.queue.stalls(&tried);
                return;
            }
            session.note_taken(now);
            let Some(item) = session.queue.pop(&mut self.queued) else {
                return;
            };
            if self.journal.is_some() {
                match sent {
                    Ok(Some(token)) if item.qos > QoS::AtMostOnce => {
                        self.record_pumped(key, &item, token);
                    }
                    Ok(_) => {}
                    Err(_) => self.record_dropped(key, &item),
                }
            }
            let Some(session) = self.sessions.get_mut(usize_of(key)) else {
                return;
            };
            // 5 [MQTT-4.8.2-4]: the message stays with this client until the client acknowledges it.
            if let (Ok(Some(token)), Some(_)) = (sent, item.share) {
                session.shared.insert(token, item.clone());
            }
            let message = &item.message;
            let payload = message.len().saturating_sub(message.head());
            self.sent_or_dropped(key, Some(index), sent, payload);
        }
    }
}

/// Restores to a session's machine a message that it had sent in an earlier process.
pub(crate) fn restore(
    server: &mut Server<'static>,
    item: &Queued,
    number: u32,
    version: Version,
) -> Result<Token, Refused> {
    let publish = item.message.publish();
    let message = Outgoing {
        qos: item.qos,
        retain: item.retain,
        ..item.message.outgoing(&publish)
    };
    let identifiers = item.identifiers.as_slice().iter().copied();
    let properties = if version.is_v5() {
        forwarded(&publish.properties, None, identifiers)
    } else {
        SmallVec::new()
    };
    let message = Outgoing {
        properties: Properties::from(&properties[..]),
        ..message
    };
    server.restore_message(number, &message, version)
}

/// Sends a message to one connection in the version of the connection.
fn send(
    connection: &mut Connection,
    message: &Outgoing<'_>,
    qos: QoS,
    retain: bool,
    properties: Properties<'_>,
    remaining: Option<u32>,
    identifiers: &[u32],
) -> Result<Option<Token>, Refused> {
    let server = &mut connection.server;
    let mut message = Outgoing {
        topic: message.topic,
        qos,
        retain,
        properties: Properties::EMPTY,
        payload: message.payload,
    };
    if !server.version().is_v5() {
        return server.publish(&message);
    }
    if identifiers.is_empty() && remaining.is_none() {
        message.properties = properties;
        return server.publish(&message);
    }
    let properties = forwarded(&properties, remaining, identifiers.iter().copied());
    server.publish(&Outgoing {
        properties: Properties::from(&properties[..]),
        ..message
    })
}
