//! Handles SUBSCRIBE and UNSUBSCRIBE, sends their answers, and sends the retained messages that follow.
//!
//! A packet with many filters is done in portions: what is left of it is kept, a few filters are done in each turn, and
//! nothing else of the connection is read until the last of them is done.

use mqtt_session::proto::{
    Decoded, MAX_PACKET, Packet, PacketId, ReasonCode, RetainHandling, SubAck, Subscribe,
    Subscription, TopicFilter, UnsubAck, Unsubscribe,
};
use mqtt_session::{Instant, Refused};

use crate::broker::Broker;
use crate::connection::{Connection, ConnectionId};
use crate::hooks::{Hooks, Observation};
use crate::keys::SessionKey;
use crate::portions::Portions;
use crate::queue::{Identifiers, Queued};
use crate::retained::Found;
use crate::router::Subscriber;
use crate::session::{RetainedOptions, filter_size};
use crate::work::{Work, step, steps_of_new_memory};

/// An answer that waits for room in the buffer.
pub(crate) enum Answer {
    Sub(PacketId, Vec<ReasonCode>),
    Unsub(PacketId, Vec<ReasonCode>),
}

/// A SUBSCRIBE or UNSUBSCRIBE that is not completely handled.
pub(crate) struct Request {
    rest: Portions,
    answer: Answer,
}

/// The steps of a filter, in addition to its length.
const FILTER_STEPS: usize = 8;

/// The steps of each turn of a walk through the retained messages, in addition to its nodes, of which there may be none.
const WALK_STEPS: usize = 2;

/// The steps of a retained message whose publisher may not publish it any more.
const SOURCE_STEPS: usize = 8;

impl<H: Hooks> Broker<H> {
    pub(crate) fn on_subscribe(
        &mut self,
        id: ConnectionId,
        subscribe: &Subscribe<'_>,
        packet: &[u8],
        now: Instant,
    ) {
        let mut codes = Vec::new();
        let mut filters = subscribe.filters.iter();
        let used = self.subscribe_some(id, subscribe, &mut filters, &mut codes);
        let answer = Answer::Sub(subscribe.packet_id, codes);
        self.answer_or_keep(id, (packet, used), answer, now);
    }

    pub(crate) fn on_unsubscribe(
        &mut self,
        id: ConnectionId,
        unsubscribe: &Unsubscribe<'_>,
        packet: &[u8],
        now: Instant,
    ) {
        let mut codes = Vec::new();
        let mut filters = unsubscribe.filters.iter();
        let used = self.unsubscribe_some(id, &mut filters, &mut codes);
        let answer = Answer::Unsub(unsubscribe.packet_id, codes);
        self.answer_or_keep(id, (packet, used), answer, now);
    }

    /// Answers a packet, or keeps it without the first `used` bytes of its filters.
    fn answer_or_keep(
        &mut self,
        id: ConnectionId,
        (packet, used): (&[u8], usize),
        answer: Answer,
        now: Instant,
    ) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        match Portions::new(packet, connection.server.version(), used) {
            None => self.answer(id, answer, now),
            Some(rest) => {
                connection.extra().request = Some(Box::new(Request { rest, answer }));
            }
        }
    }

    /// Does as many filters as the share of the turn allows, one at least. Returns how many bytes they took in their packet.
    fn subscribe_some<'a>(
        &mut self,
        id: ConnectionId,
        subscribe: &Subscribe<'_>,
        filters: &mut impl Iterator<Item = Subscription<'a>>,
        codes: &mut Vec<ReasonCode>,
    ) -> usize {
        let mut used = 0_usize;
        let connection = self.connection(id);
        let Some((key, is_bridge)) = connection.and_then(|c| Some((c.session?, c.is_bridge())))
        else {
            return usize::MAX;
        };
        let identifier = subscribe.properties.subscription_identifiers().next();
        // 3.1.1 [MQTT-3.8.4-4] and [MQTT-3.9.3-1], 5 [MQTT-3.8.4-5] and [MQTT-3.9.3-1]: one after the other, a code for each in
        // their order.
        for mut subscription in filters {
            if is_bridge {
                // A bridge of Mosquitto would ask for these options in MQTT 5, so that no message goes round between two brokers.
                subscription.no_local = !subscription.filter.is_shared();
                subscription.retain_as_published = true;
            }
            codes.push(self.subscribe_one(key, &subscription, identifier));
            step(Work::Filter);
            self.meter.spend(filter_steps(subscription.filter));
            used = used
                .saturating_add(len_in_packet(subscription.filter))
                .saturating_add(1);
            if !self.meter.has_share() {
                break;
            }
        }
        used
    }

    fn unsubscribe_some<'a>(
        &mut self,
        id: ConnectionId,
        filters: &mut impl Iterator<Item = TopicFilter<'a>>,
        codes: &mut Vec<ReasonCode>,
    ) -> usize {
        let mut used = 0_usize;
        let connection = self.connection(id);
        let Some((key, version)) = connection.and_then(|c| Some((c.session?, c.server.version())))
        else {
            return usize::MAX;
        };
        // 3.1.1 [MQTT-3.10.4-6], 5 [MQTT-3.10.4-6] and [MQTT-3.11.3-1]
        for filter in filters {
            let session = self.sessions.get_mut(key);
            let known = session.is_some_and(|session| session.forget_filter(filter.as_str()));
            // 3.1.1 [MQTT-3.10.4-1], 5 [MQTT-3.10.4-1]: filters are compared as written. 3.1.1 [MQTT-3.10.4-3],
            // 5 [MQTT-3.10.4-3]: messages that are queued or in flight stay.
            let removed = known && self.router.unsubscribe(&filter, key);
            if known {
                if self.links.is_some() {
                    self.filter_removed(key, filter.as_str());
                }
                self.count_filters(key);
                self.record_unsubscribed(key, filter.as_str());
            }
            if version.is_v5() {
                codes.push(if removed {
                    ReasonCode::Success
                } else {
                    ReasonCode::NoSubscriptionExisted
                });
            }
            step(Work::Filter);
            self.meter.spend(filter_steps(filter));
            used = used.saturating_add(len_in_packet(filter));
            if !self.meter.has_share() {
                break;
            }
        }
        used
    }

    /// Handles the next portion of a connection's request.
    pub(crate) fn continue_request(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        let version = connection.server.version();
        let Some(mut request) = connection.extra().request.take() else {
            return;
        };
        while self.meter.has_share() {
            let bytes = request.rest.next().unwrap_or_default();
            let decoded = Packet::decode(&bytes, version, MAX_PACKET);
            let Ok(Decoded::Packet { packet, .. }) = decoded else {
                self.answer(id, request.answer, now);
                return;
            };
            // A small packet is handled completely, without dividing it again.
            match (&packet, &mut request.answer) {
                (Packet::Subscribe(subscribe), Answer::Sub(_, codes)) => {
                    let mut filters = subscribe.filters.iter().peekable();
                    while self.has_session(id) && filters.peek().is_some() {
                        self.subscribe_some(id, subscribe, &mut filters, codes);
                    }
                }
                (Packet::Unsubscribe(unsubscribe), Answer::Unsub(_, codes)) => {
                    let mut filters = unsubscribe.filters.iter().peekable();
                    while self.has_session(id) && filters.peek().is_some() {
                        self.unsubscribe_some(id, &mut filters, codes);
                    }
                }
                _ => {}
            }
        }
        if let Some(connection) = self.connection_mut(id) {
            connection.extra().request = Some(request);
        }
    }

    fn has_session(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|c| c.session.is_some())
    }

    /// Subscribes to one filter. Returns its reason code.
    fn subscribe_one(
        &mut self,
        key: SessionKey,
        subscription: &Subscription<'_>,
        identifier: Option<u32>,
    ) -> ReasonCode {
        let connection = self.connection_of(key);
        let must_be_stored = self.is_durable(key) && self.storage_is_refused();
        let is_full = self.is_full_of(key, subscription.filter.as_str());
        let Some(session) = self.sessions.get_mut(key) else {
            return ReasonCode::UnspecifiedError;
        };
        let filter = subscription.filter;
        let known = session.filters.contains_key(filter.as_str());
        let client = session.info();
        let code = if !self.config.allows_topic(filter.as_bytes()) {
            ReasonCode::TopicFilterInvalid
        } else if !known && (must_be_stored || is_full) {
            ReasonCode::QuotaExceeded
        } else if !self.hooks.may_subscribe(&client, filter) {
            ReasonCode::NotAuthorized
        } else {
            // 3.1.1 [MQTT-3.8.4-6], 5 [MQTT-3.8.4-7] and [MQTT-3.8.4-8]
            ReasonCode::granted(subscription.qos)
        };
        self.hooks.observe(&Observation::Subscribed {
            connection,
            client,
            filter,
            reason: code,
        });
        if code.is_error() {
            // Before MQTT 5 there is one code for all refusals.
            return if client.version.is_v5() {
                code
            } else {
                ReasonCode::UnspecifiedError
            };
        }
        let wanted = RetainedOptions {
            qos: subscription.qos,
            no_local: subscription.no_local,
            identifier,
        };
        let sends = sends_retained(subscription, known);
        session.remember_filter(filter.as_str(), wanted, sends);
        let subscriber = Subscriber::new(key, subscription, identifier);
        self.router.subscribe(&filter, subscriber, known);
        if !known {
            let memory = filter_size(filter.as_str());
            self.meter.spend(steps_of_new_memory(memory));
        }
        if self.links.is_some() && !known {
            self.filter_added(key, &filter);
        }
        self.count_filters(key);
        self.learn_rights(key, filter);
        self.record_subscribed(key, &filter, &subscriber, sends);
        code
    }

    /// Returns whether a session has no room for another subscription.
    fn is_full_of(&self, key: SessionKey, filter: &str) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let (limit, sessions) = (self.config.subscription_bytes_total, self.most_sessions());
        let before = session.counted_filter_bytes;
        let after = before.saturating_add(filter_size(filter));
        self.config.is_full_of(session, filter)
            || !self.filter_bytes.allows(before, after, limit, sessions)
    }

    /// Counts the present bytes of a session's subscriptions. An ended session has none, although they are removed later.
    pub(crate) fn count_filters(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let bytes = if session.is_over {
            0
        } else {
            session.filter_bytes
        };
        let before = std::mem::replace(&mut session.counted_filter_bytes, bytes);
        self.filter_bytes.moves(before, bytes);
    }

    fn answer(&mut self, id: ConnectionId, answer: Answer, now: Instant) {
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        let session = connection.session;
        // 3.1.1 [MQTT-3.8.4-1] and [MQTT-3.10.4-4], 5 [MQTT-3.8.4-1] and [MQTT-3.10.4-4]: the answer is correct after a crash as
        // well.
        if session.is_some_and(|key| self.is_durable(key)) {
            self.hold_answer(id.index);
        }
        if self.links.is_some() && matches!(answer, Answer::Sub(..)) {
            self.wait_for_links(id);
        }
        let Some(connection) = self.connection_mut(id) else {
            return;
        };
        connection.extra().unanswered = Some(answer);
        match connection.try_answer() {
            Ok(()) => {
                if let Some(key) = session {
                    self.send_retained(key, now);
                }
            }
            Err(Refused::Full) => {}
            // 5 [MQTT-3.1.2-24]: the client does not accept an answer of this size.
            Err(_) => self.close(id.index, ReasonCode::PacketTooLarge, now),
        }
    }

    /// Sends a session the retained messages that its new subscriptions match, as far as its connection takes them. The others
    /// are not queued.
    pub(crate) fn send_retained(&mut self, key: SessionKey, now: Instant) {
        while let Some(session) = self.sessions.get_mut(key)
            && session.wants_retained()
            && session.queue.is_empty()
            && let Some(connection) = session.connection
        {
            let connection = self.connections.get(connection);
            if !connection.is_some_and(Connection::is_answered) {
                return;
            }
            if !self.meter.has_share() {
                self.work_for(key);
                return;
            }
            let Some((wanted, walk)) = session.next_walk() else {
                return;
            };
            let most = self.meter.left();
            let mut left = most;
            let found = self.retained.next(walk, &mut left, now);
            let walked = most.saturating_sub(left);
            self.meter.spend(WALK_STEPS.saturating_add(walked));
            let (message, publisher) = match found {
                Found::Later => continue,
                Found::End => {
                    self.record_walk_end(key);
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.end_walk();
                    }
                    continue;
                }
                Found::Message(message, publisher) => (message, publisher),
            };
            if session.hides(wanted.no_local, message.publisher()) {
                continue;
            }
            if !self.source_is_allowed(publisher.as_deref(), &message) {
                self.meter.spend(SOURCE_STEPS);
                continue;
            }
            let item = Queued {
                qos: self.config.delivery_qos(message.qos(), wanted.qos),
                // 3.1.1 [MQTT-3.3.1-8], 5 [MQTT-3.3.1-8]
                retain: true,
                identifiers: Identifiers::new(wanted.identifier.as_slice()),
                share: None,
                message,
            };
            self.enqueue(key, item, now);
        }
    }
}

/// Returns whether retained messages follow a subscription; `known` is whether the session had it before.
fn sends_retained(subscription: &Subscription<'_>, known: bool) -> bool {
    let wanted = match subscription.retain_handling {
        // 3.1.1 [MQTT-3.3.1-6], 5 [MQTT-3.3.1-9] and [MQTT-3.8.4-4]
        RetainHandling::Send => true,
        // 5 [MQTT-3.3.1-10]
        RetainHandling::SendIfNew => !known,
        // 5 [MQTT-3.3.1-11]
        RetainHandling::DoNotSend => false,
    };
    // 5, section 3.8.3.1: a shared subscription gets no retained messages.
    wanted && !subscription.filter.is_shared()
}

/// Returns how many bytes a filter takes in its packet, without options.
fn len_in_packet(filter: TopicFilter<'_>) -> usize {
    filter.as_bytes().len().saturating_add(2)
}

fn filter_steps(filter: TopicFilter<'_>) -> usize {
    FILTER_STEPS.saturating_add(filter.as_bytes().len() / 64)
}

impl Connection {
    pub(crate) fn has_request(&self) -> bool {
        self.extra
            .as_ref()
            .is_some_and(|extra| extra.request.is_some())
    }

    fn is_bridge(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.bridge)
    }

    pub(crate) fn has_unanswered(&self) -> bool {
        self.extra
            .as_ref()
            .is_some_and(|extra| extra.unanswered.is_some())
    }

    /// Returns whether no SUBSCRIBE or UNSUBSCRIBE is being handled.
    pub(crate) fn is_answered(&self) -> bool {
        !self.has_request() && !self.has_unanswered()
    }

    /// Writes waiting answers, if there is room. Returns whether all are written.
    pub(crate) fn answer(&mut self) -> bool {
        !matches!(self.try_answer(), Err(Refused::Full))
    }

    fn try_answer(&mut self) -> Result<(), Refused> {
        let Some(extra) = &mut self.extra else {
            return Ok(());
        };
        let answered = match &extra.unanswered {
            None => return Ok(()),
            Some(_) if extra.waits_for_links => return Err(Refused::Full),
            // 3.1.1 [MQTT-3.8.4-1] and [MQTT-3.8.4-2], 5 [MQTT-3.8.4-1] and [MQTT-3.8.4-2]
            Some(Answer::Sub(id, codes)) => self.server.subscribed(&SubAck::new(*id, &codes[..])),
            // 3.1.1 [MQTT-3.10.4-4] and [MQTT-3.10.4-5], 5 [MQTT-3.10.4-4] and [MQTT-3.10.4-5]: the answer is sent even if no
            // subscription was removed.
            Some(Answer::Unsub(id, codes)) => {
                self.server.unsubscribed(&UnsubAck::new(*id, &codes[..]))
            }
        };
        if answered != Err(Refused::Full) {
            extra.unanswered = None;
        }
        answered
    }
}
