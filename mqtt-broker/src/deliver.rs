//! From a publisher to its receivers.

use std::sync::Arc;

use mqtt_session::proto::{Properties, QoS, ReasonCode, TopicName};
use mqtt_session::{Incoming, Instant, Outgoing, Refused, Token};
use smallvec::SmallVec;

use crate::broker::{Broker, Connection, usize_of, widen};
use crate::connect::is_reserved;
use crate::hooks::{Hooks, Observation};
use crate::message::{Message, forwarded};
use crate::queue::{Identifiers, Queued};
use crate::router::{Share, Subscriber};
use crate::stall::Tried;

/// One receiver of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    subscriber: Subscriber,
    share: Option<Share>,
}

/// A message while it is routed: borrowed from the input, kept at most once however many queues it goes to.
struct Source<'a> {
    message: &'a Outgoing<'a>,
    kept: Option<Message>,
}

impl<H: Hooks> Broker<H> {
    /// A client published.
    pub(crate) fn message(&mut self, index: u32, incoming: &Incoming<'_>, now: Instant) {
        let publish = &incoming.publish;
        // An alias stands for a topic that this connection knows.
        let mut resolved = std::mem::take(&mut self.topic);
        let Some(connection) = self.connections.get(usize_of(index)) else {
            return;
        };
        let Some(key) = connection.session else {
            return;
        };
        let topic = if publish.topic.is_none() {
            resolved.clear();
            resolved.push_str(connection.server.topic(publish).as_str());
            TopicName::new(&resolved).unwrap_or_default()
        } else {
            publish.topic
        };
        let message = Outgoing {
            topic,
            qos: publish.qos(),
            retain: publish.retain,
            properties: publish.properties,
            payload: publish.payload,
        };
        let reason = self.accept_message(key, &message, now);
        self.topic = resolved;
        if let Some(receipt) = incoming.receipt
            && let Some(connection) = self.connections.get_mut(usize_of(index))
        {
            // It was received just now, so it awaits this.
            let _ = connection.server.acknowledge(receipt, reason);
        }
    }

    fn accept_message(&mut self, key: u32, message: &Outgoing<'_>, now: Instant) -> ReasonCode {
        let statistics = &mut self.statistics;
        statistics.publish_received = statistics.publish_received.saturating_add(1);
        let payload = widen(message.payload.len());
        statistics.payload_received = statistics.payload_received.saturating_add(payload);
        let topic = message.topic;
        let Some(session) = self.sessions.get(usize_of(key)) else {
            return ReasonCode::UnspecifiedError;
        };
        let client = session.info();
        let refused = if !self.config.allows_levels(topic.as_bytes()) {
            Some(ReasonCode::TopicNameInvalid)
        } else if is_reserved(topic.as_str()) || !self.hooks.may_publish(&client, topic) {
            Some(ReasonCode::NotAuthorized)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.hooks.observe(&Observation::PublishRefused {
                client,
                topic,
                reason,
            });
            return reason;
        }
        let kept = !message.retain || self.retain(Some(key), message, now);
        let matched = self.route(Some(key), message, now);
        match (kept, matched) {
            (false, _) => ReasonCode::QuotaExceeded,
            (true, false) => ReasonCode::NoMatchingSubscribers,
            (true, true) => ReasonCode::Success,
        }
    }

    /// Keeps or clears a retained message. `false` if there is no room for it.
    pub(crate) fn retain(
        &mut self,
        from: Option<u32>,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> bool {
        // 3.1.1 [MQTT-3.3.1-10] and [MQTT-3.3.1-11], 5 [MQTT-3.3.1-6] and [MQTT-3.3.1-7]
        let kept = if message.payload.is_empty() {
            None
        } else {
            let Ok(mut kept) = Message::new(message, now) else {
                return false;
            };
            if let Some(seconds) = self.config.retained_expiry {
                kept.expire_by(now.after(core::time::Duration::from_secs(u64::from(seconds))));
            }
            let publisher = from
                .and_then(|key| self.sessions.get(usize_of(key)))
                .map(|session| Arc::clone(&session.client_id));
            Some(kept.published_by(publisher))
        };
        let topic = message.topic.as_str();
        let (limit, bytes) = (self.config.retained_messages, self.config.retained_bytes);
        if self.retained.set(topic, kept.clone(), limit, bytes) {
            return true;
        }
        // Those that expired may have taken the room.
        self.retained.purge(now) && self.retained.set(topic, kept, limit, bytes)
    }

    /// Gives a message to all whose subscriptions match. Whether there was one.
    pub(crate) fn route(
        &mut self,
        from: Option<u32>,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> bool {
        let mut matches = std::mem::take(&mut self.matches);
        let mut targets = std::mem::take(&mut self.targets);
        let mut identifiers = std::mem::take(&mut self.identifiers);
        self.router.matches(message.topic.as_str(), &mut matches);
        self.publish = self.publish.wrapping_add(1);
        for subscriber in &matches.subscribers {
            // 5 [MQTT-3.8.3-3]
            if subscriber.no_local && from == Some(subscriber.session) {
                continue;
            }
            self.add_target(subscriber, &mut targets, &mut identifiers);
        }
        for group in &matches.groups {
            targets.extend(self.choose(*group));
        }
        let matched = !targets.is_empty();
        let mut source = Source {
            message,
            kept: None,
        };
        let mut several = SmallVec::<[u32; 4]>::new();
        for (at, target) in targets.iter().enumerate() {
            several.clear();
            several.extend(target.subscriber.identifier);
            if !identifiers.is_empty() {
                let more = identifiers.iter().filter(|(target, _)| *target == at);
                several.extend(more.map(|(_, identifier)| *identifier));
            }
            self.deliver(target, &mut source, &several, now);
        }
        targets.clear();
        identifiers.clear();
        self.matches = matches;
        self.targets = targets;
        self.identifiers = identifiers;
        matched
    }

    /// One copy for each client, at the highest quality of service of its subscriptions, with all their identifiers
    /// (3.1.1 \[MQTT-3.3.5-1\], 5 \[MQTT-3.3.4-2\] to \[MQTT-3.3.4-5\]).
    fn add_target(
        &mut self,
        subscriber: &Subscriber,
        targets: &mut Vec<Target>,
        identifiers: &mut Vec<(usize, u32)>,
    ) {
        let Some(session) = self.sessions.get_mut(usize_of(subscriber.session)) else {
            return;
        };
        let (publish, at) = session.found;
        if publish == self.publish
            && let Some(Target {
                subscriber: first, ..
            }) = targets.get_mut(at)
        {
            first.qos = first.qos.max(subscriber.qos);
            first.retain_as_published |= subscriber.retain_as_published;
            identifiers.extend(subscriber.identifier.map(|identifier| (at, identifier)));
            return;
        }
        session.found = (self.publish, targets.len());
        targets.push(Target {
            subscriber: *subscriber,
            share: None,
        });
    }

    /// The member of a shared subscription that gets the next message: in turn, but who is connected and has nothing
    /// waiting comes before who is connected, and that before who is away.
    fn choose(&mut self, group: u32) -> Option<Target> {
        let state = self.router.group_mut(group)?;
        let turn = |offset: usize| {
            let at = state.next.wrapping_add(offset);
            at.checked_rem(state.members.len())
        };
        let mut best: Option<(u8, usize)> = None;
        for offset in 0..state.members.len() {
            let Some(at) = turn(offset) else { break };
            let session = state
                .members
                .get(at)
                .and_then(|member| self.sessions.get(usize_of(member.session)));
            let Some(session) = session else { continue };
            let rank = match (session.connection, session.queue.is_empty()) {
                (Some(_), true) => 0,
                (Some(_), false) => 1,
                (None, _) => 2,
            };
            if best.is_none_or(|(other, _)| rank < other) {
                best = Some((rank, at));
            }
            if rank == 0 {
                break;
            }
        }
        let (_, at) = best?;
        state.next = at.wrapping_add(1);
        let subscriber = *state.members.get(at)?;
        Some(Target {
            subscriber,
            share: Some(state.share(group)),
        })
    }

    /// Another member of its shared subscription gets a message. Without one it is dropped.
    pub(crate) fn hand_over(&mut self, item: Queued, now: Instant) {
        let group = item
            .share
            .and_then(|share| self.router.shared_mut(share).map(|_| share.group()));
        let Some(target) = group.and_then(|group| self.choose(group)) else {
            let dropped = &mut self.statistics.publish_dropped;
            *dropped = dropped.saturating_add(1);
            return;
        };
        let qos = item.message.qos().min(target.subscriber.qos);
        let key = target.subscriber.session;
        if qos == QoS::AtMostOnce && !self.keeps_qos0(key) {
            return;
        }
        let identifiers = Identifiers::new(target.subscriber.identifier.as_slice());
        self.deliver_kept(
            key,
            item.message,
            qos,
            item.retain,
            identifiers,
            target.share,
            now,
        );
    }

    /// Whether a QoS 0 message for a session that cannot go now is queued.
    fn keeps_qos0(&self, key: u32) -> bool {
        let session = self.sessions.get(usize_of(key));
        self.config.queue_qos0 || session.is_some_and(|session| session.connection.is_some())
    }

    fn deliver(
        &mut self,
        target: &Target,
        source: &mut Source<'_>,
        identifiers: &[u32],
        now: Instant,
    ) {
        let Target { subscriber, share } = target;
        let message = source.message;
        let qos = message.qos.min(subscriber.qos);
        // 3.1.1 [MQTT-3.3.1-9], 5 [MQTT-3.3.1-12] and [MQTT-3.3.1-13]
        let retain = message.retain && subscriber.retain_as_published;
        let Some(session) = self.sessions.get_mut(usize_of(subscriber.session)) else {
            return;
        };
        let connection = session
            .connection
            .and_then(|index| self.connections.get_mut(usize_of(index)));
        match connection {
            Some(connection) if session.queue.is_empty() && share.is_none() => {
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
                        let index = session.connection;
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
        let kept = match &source.kept {
            Some(kept) => kept.clone(),
            None => {
                let Ok(kept) = Message::new(message, now) else {
                    return;
                };
                source.kept.insert(kept).clone()
            }
        };
        let identifiers = Identifiers::new(identifiers);
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

    /// Queues a message, and sends what can go.
    #[allow(clippy::too_many_arguments, reason = "the parts of one queued message")]
    pub(crate) fn deliver_kept(
        &mut self,
        key: u32,
        message: Message,
        qos: QoS,
        retain: bool,
        identifiers: Identifiers,
        share: Option<Share>,
        now: Instant,
    ) {
        let sessions = self.sessions.len().max(1);
        let Some(session) = self.sessions.get_mut(usize_of(key)) else {
            return;
        };
        let item = Queued {
            message,
            qos,
            retain,
            identifiers,
            share,
        };
        let fair = self
            .config
            .queued_bytes_total
            .checked_div(sessions)
            .unwrap_or(0);
        let pushed = session
            .queue
            .push(item, &self.config, fair, &mut self.queued);
        if pushed.dropped > 0 {
            self.dropped(key, pushed.dropped);
        }
        if pushed.accepted {
            self.pump(key, now);
        }
    }

    fn dropped(&mut self, key: u32, messages: u64) {
        let dropped = &mut self.statistics.publish_dropped;
        *dropped = dropped.saturating_add(messages);
        if let Some(session) = self.sessions.get(usize_of(key)) {
            self.hooks.observe(&Observation::Dropped {
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
                let payload = widen(payload);
                statistics.payload_sent = statistics.payload_sent.saturating_add(payload);
                if let Some(index) = connection {
                    self.mark_ready(index);
                }
            }
            // 5 [MQTT-3.1.2-25]: too large for this client, as if it had been sent.
            Err(_) => self.dropped(key, 1),
        }
    }

    /// Sends what is queued for a session, as far as its window and its buffer go.
    pub(crate) fn pump(&mut self, key: u32, now: Instant) {
        loop {
            let Some(session) = self.sessions.get_mut(usize_of(key)) else {
                return;
            };
            let (Some(item), Some(index)) = (session.queue.front(), session.connection) else {
                return;
            };
            let Some(connection) = self.connections.get_mut(usize_of(index)) else {
                return;
            };
            if item.message.has_expired(now) {
                session.queue.pop(&mut self.queued);
                let expired = &mut self.statistics.publish_expired;
                *expired = expired.saturating_add(1);
                continue;
            }
            if session.queue.is_stalled() {
                return;
            }
            let publish = item.message.publish();
            let message = Outgoing {
                topic: publish.topic,
                qos: item.qos,
                retain: item.retain,
                properties: publish.properties,
                payload: publish.payload,
            };
            let sent = send(
                connection,
                &message,
                item.qos,
                item.retain,
                publish.properties,
                item.message.remaining(now),
                item.identifiers.as_slice(),
            );
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
            let Some(item) = session.queue.pop(&mut self.queued) else {
                return;
            };
            if let (Ok(Some(token)), Some(_)) = (sent, item.share) {
                session.shared.push((token, item.clone()));
            }
            let message = &item.message;
            let payload = message.len().saturating_sub(message.head());
            self.sent_or_dropped(key, Some(index), sent, payload);
        }
    }
}

/// Gives a message to one connection, in its version.
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
