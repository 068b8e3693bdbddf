//! Ends connections and sessions, and publishes wills.

use std::sync::Arc;
use std::time::Duration;

use mqtt_session::proto::{QoS, ReasonCode, TopicFilter, TopicName};
use mqtt_session::{Heap, Instant, Receipt, Server, WillDue};

use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::fanout::Routed;
use crate::hooks::{Ending, Hooks, Observation};
use crate::keys::{ConnectionKey, SessionKey};
use crate::pressure::SessionName;
use crate::queue::Lanes;
use crate::session::Will;
use crate::timers::Due;

/// The steps for removing a subscription.
const ENDED_FILTER: usize = 8;

/// Which part of the limit for queued bytes may be messages that are delivered in portions and whose publishers have
/// disconnected.
const ORPHANED: usize = 16;

impl<H: Hooks> Broker<H> {
    /// Sends DISCONNECT with a reason to a client of MQTT 5, and ends its connection. Does nothing if there is no such connection.
    pub fn end_connection(&mut self, id: ConnectionId, reason: ReasonCode, now: Instant) {
        if self.connection(id).is_some() {
            self.begin(now);
            self.close(id.index, reason, now);
            self.settle();
        }
    }

    /// Ends the connection; its last bytes may still be written. A second call does nothing.
    pub(crate) fn end(&mut self, index: ConnectionKey, ending: Ending, now: Instant) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        if connection.ended {
            return;
        }
        self.take_changes(index);
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        connection.ended = true;
        self.inputs.set(index, &mut connection.input, 0);
        let extra = connection.extra.take();
        let (in_portions, withheld) = extra.map_or((false, None), |extra| {
            (extra.message_in_portions, extra.withheld)
        });
        let will_due = connection.server.will_due();
        let connected = connection.server.session_expiry();
        let key = connection.session.take();
        let is_link = key.is_some_and(|key| self.is_link(key));
        let most = self.config.session_expiry_maximum;
        let expiry = connected.min(if is_link { u32::MAX } else { most });
        let client_id = key.and_then(|key| self.park_session(index, key));
        self.recount(index);
        self.mark_ready(index);
        if let Some(connection) = self.id(index) {
            let limit = self.config.queued_bytes_total / ORPHANED;
            if in_portions
                && let Some(receipt) = self.fanouts.publisher_disconnected(connection, limit)
            {
                self.forget_message(key, receipt);
            }
            if let Some(withheld) = withheld
                && let Some(from) = key.and_then(|key| self.session_name(key))
            {
                self.forget_held(connection, withheld, from);
            }
            // A client whose CONNACK is too large for it has a session, but was not accepted.
            let is_refused = matches!(ending, Ending::ConnectRefused(_));
            let client_id = client_id.as_deref().filter(|_| !is_refused);
            self.report_end(connection, client_id, ending, is_link);
        }
        let Some(key) = key else { return };
        if self.links.is_some() {
            self.members_changed(key, false);
        }
        let connected = &mut self.statistics.clients_connected;
        *connected = connected.saturating_sub(1);
        self.leave(key, will_due, expiry, now);
        self.end_largest_parked(now);
    }

    /// Forgets a message of a session without a connection that no receiver has. The client sends it again, unless it is at QoS 0.
    fn forget_message(&mut self, key: Option<SessionKey>, receipt: Option<Receipt>) {
        let Some(receipt) = receipt else {
            self.count_dropped(1);
            return;
        };
        let session = key.and_then(|key| self.sessions.get_mut(key));
        if let Some(parked) = session.and_then(|session| session.parked.as_deref_mut()) {
            parked.forget(receipt);
        }
    }

    fn report_end(
        &mut self,
        connection: ConnectionId,
        client_id: Option<&str>,
        ending: Ending,
        is_link: bool,
    ) {
        if !is_link {
            self.hooks.observe(&Observation::Ended {
                connection,
                client_id,
                ending,
            });
        }
    }

    /// Moves the session of a connection that ends to a machine without a connection. Returns the client identifier.
    fn park_session(&mut self, index: ConnectionKey, key: SessionKey) -> Option<Arc<str>> {
        let connection = self.connections.get_mut(index)?;
        let session = self.sessions.get_mut(key)?;
        let mut parked = Server::new(self.config.session(), Heap);
        parked.swap_session(&mut connection.server);
        // The session of a link is not ended to make room.
        let size = match session.link {
            Some(_) => 0,
            None => parked.heap_size(),
        };
        self.parked.set(key, &mut session.held, size);
        self.heap_bytes = self.heap_bytes.saturating_add(size);
        session.parked = Some(Box::new(parked));
        session.connection = None;
        session.rights.disconnected();
        Some(Arc::clone(&session.client_id))
    }

    pub(crate) fn session_name(&self, key: SessionKey) -> Option<SessionName> {
        Some((key, self.sessions.get(key)?.serial))
    }

    /// Refuses a message because there is no room to store it.
    pub(crate) fn refuse_message(
        &mut self,
        index: ConnectionKey,
        receipt: Option<Receipt>,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        if let Some(receipt) = receipt
            && connection.server.version().is_v5()
        {
            let reason = ReasonCode::QuotaExceeded;
            let _ = connection.server.acknowledge(receipt, reason);
        } else {
            self.close(index, ReasonCode::QuotaExceeded, now);
        }
    }

    /// Acknowledges a message of a session, whether its client is connected or not.
    pub(crate) fn acknowledge(
        &mut self,
        (key, serial): SessionName,
        receipt: Receipt,
        reason: ReasonCode,
    ) {
        let session = self.sessions.get_mut(key);
        let Some(session) = session.filter(|session| session.serial == serial) else {
            return;
        };
        let connection = session
            .connection
            .and_then(|index| self.connections.get_mut(index));
        let server = match connection {
            Some(connection) => Some(&mut connection.server),
            None => session.parked.as_deref_mut(),
        };
        // At QoS 1 the message is forgotten with its connection, and the client sends it again.
        let _ = server.map(|server| server.acknowledge(receipt, reason));
        // At QoS 2 the client may have another connection, which the host does not poll for any other reason.
        if let Some(index) = session.connection {
            self.mark_ready(index);
        }
    }

    /// Handles the end of a session's connection: its will, the messages that other members may get, and the end of the session.
    fn leave(&mut self, key: SessionKey, will_due: WillDue, expiry: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let expiry_span = Duration::from_secs(u64::from(expiry));
        match (will_due, &session.will) {
            // 3.1.1 [MQTT-3.1.2-8]: at once, as there is no delay. 5 [MQTT-3.1.2-8]: after its delay or with the session,
            // whichever is first.
            (WillDue::Yes, Some(will)) => {
                session.will_at = Some(now.after(will.delay.min(expiry_span)));
            }
            // 3.1.1 [MQTT-3.1.2-10], 5 [MQTT-3.1.2-10]
            _ => drop(session.take_will(&mut self.will_bytes)),
        }
        // 3.1.1 [MQTT-3.1.2-5], 5 [MQTT-4.1.0-2]
        session.ends_at = (expiry != u32::MAX).then(|| now.after(expiry_span));
        let shared = session.queue.take_shared(&mut self.queued);
        if let Some(due) = session.due() {
            self.timers.set(due, Due::Session(key));
        }
        if session.is_idle() {
            self.idle_serial = self.idle_serial.wrapping_add(1);
            session.idle = Some(self.idle_serial);
            self.unused_sessions.insert(self.idle_serial, key);
        }
        self.session_is_left(key);
        self.end_pressure(key);
        if let Some(shard) = self.sessions.get(key).and_then(|own| own.link) {
            self.forget_busy_topics(shard);
        }
        let origin = self.number_of(key);
        self.hand_over(shared, origin, now);
        // A will or end that is already due is not left to the next tick.
        self.session_due(key, now);
        self.record_away(key, expiry);
    }

    /// Publishes the will of a session without a connection and ends the session, if they are due.
    pub(crate) fn session_due(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        // 3.1.1 [MQTT-4.1.0-2], 5 [MQTT-4.1.0-1]: a session does not end while its client is connected.
        let Some(due) = session.due().filter(|_| session.connection.is_none()) else {
            return;
        };
        if due > now {
            return;
        }
        self.timers.clear(due, Due::Session(key));
        if session.ends_at.is_some_and(|at| at <= now) {
            let expired = &mut self.statistics.clients_expired;
            *expired = expired.saturating_add(1);
            self.end_session(key, now);
            return;
        }
        session.will_at = None;
        let will = session.take_will(&mut self.will_bytes);
        if let Some(due) = session.due() {
            self.timers.set(due, Due::Session(key));
        }
        if let Some(will) = will {
            self.publish_will(key, &will, now);
            self.record_session(key);
        }
    }

    fn publish_will(&mut self, key: SessionKey, will: &Will, now: Instant) {
        let publish = will.message.publish();
        let message = will.message.outgoing(&publish);
        if !self.may_still_publish(key, message.topic) {
            return;
        }
        // 3.1.1 [MQTT-3.1.2-8], 5 [MQTT-3.1.2-8]: the will is published like a message of the client.
        // 3.1.1 [MQTT-3.1.2-16] and [MQTT-3.1.2-17], 5 [MQTT-3.1.2-14] and [MQTT-3.1.2-15]: it is retained if it says so.
        if message.retain {
            self.retain(Some(key), &message, now);
        }
        if self.route(Some(key), &message, now) == Routed::Later {
            self.record_due_will(&will.message);
        }
    }

    /// Returns whether a client may publish its will now: the right may have ended since its CONNECT.
    fn may_still_publish(&mut self, key: SessionKey, topic: TopicName<'_>) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let client = session.info();
        let may = self.hooks.may_publish(&client, topic);
        if !may {
            self.hooks.observe(&Observation::PublishRefused {
                connection: None,
                client,
                topic,
                reason: ReasonCode::NotAuthorized,
            });
        }
        may
    }

    /// Ends a session. Publishes its will, if it has not been published (5 \[MQTT-3.1.2-8\]), and gives the messages in flight
    /// for shared subscriptions at QoS 1 to other members (5 \[MQTT-4.8.2-5\] forbids it for QoS 2).
    pub(crate) fn end_session(&mut self, key: SessionKey, now: Instant) {
        // A session is ended once: it keeps its index until all its parts are removed, and then another session may get the
        // index.
        let session = self.sessions.get_mut(key);
        let Some(session) = session.filter(|session| !session.is_over) else {
            return;
        };
        if let Some(due) = session.due() {
            self.timers.clear(due, Due::Session(key));
        }
        (session.will_at, session.ends_at) = (None, None);
        self.record_flights_end(key);
        let origin = self.number_of(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.is_over = true;
        // From now on its room is available to others, while its parts are being removed.
        self.session_is_over(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(idle) = session.idle.take() {
            self.unused_sessions.remove(&idle);
        }
        let will = session.take_will(&mut self.will_bytes);
        let under_way: Lanes = std::mem::take(&mut session.shared)
            .into_values()
            .filter(|item| item.qos == QoS::AtLeastOnce)
            .inspect(|item| self.queued.add(item.size()))
            .collect();
        let shared = session.queue.take_shared(&mut self.queued);
        self.clients.remove(&session.client_id);
        self.hand_over(Some(under_way), origin, now);
        self.hand_over(shared, origin, now);
        if let Some(will) = will {
            self.publish_will(key, &will, now);
        }
        self.record_session_end(key);
        let session = self.sessions.get(key);
        if session.is_some_and(|session| session.filters.is_empty() && session.queue.is_empty()) {
            self.sessions.remove(key);
            return;
        }
        self.ending_sessions.push_back(key);
        self.continue_ending();
    }

    /// Removes the parts of ended sessions. The index of a session is free when nothing refers to it.
    pub(crate) fn continue_ending(&mut self) {
        while self.meter.has_share()
            && let Some(key) = self.ending_sessions.front().copied()
        {
            self.meter.spend(4);
            let Some(session) = self.sessions.get_mut(key) else {
                self.ending_sessions.pop_front();
                continue;
            };
            if let Some((filter, _)) = session.filters.pop_first() {
                self.meter.spend(ENDED_FILTER);
                self.record_unsubscribed(key, &filter);
                if self.links.is_some() {
                    self.filter_removed(key, &filter);
                }
                if let Ok(filter) = TopicFilter::new(&filter) {
                    self.router.unsubscribe(&filter, key);
                }
            } else if let Some(item) = session.queue.pop(&mut self.queued) {
                self.record_dropped(key, &item);
            } else {
                self.sessions.remove(key);
                self.ending_sessions.pop_front();
            }
        }
    }
}
