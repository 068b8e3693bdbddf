//! Records sessions, subscriptions, retained messages and received messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use mqtt_session::proto::{PacketId, QoS, TopicFilter};
use mqtt_session::records::broker::{
    Away, DueWill, Entry, Flow, NEVER, Retained, Session as SessionRecord, Subscription, Will,
};
use mqtt_session::{Instant, Token};

use super::messages::Origin;
use super::window::Window;
use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::keys::{ConnectionKey, SessionKey};
use crate::message::Message;
use crate::publisher::Publisher;
use crate::router::{Share, Subscriber};

/// The records of a session.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// The number of the session in records.
    pub(super) number: u64,
    /// Whether it outlives its connection, so that its flows are recorded.
    pub(super) outlives: bool,
    /// Whether it has a record.
    pub(super) is_written: bool,
    /// The session expiry in seconds.
    pub(super) expiry: u32,
    /// The recorded messages of the session that are in flight.
    pub(super) flights: Window,
    /// Received QoS 2 messages whose identifiers are not free, with the numbers of the messages.
    pub(super) received: BTreeMap<PacketId, u64>,
}

impl<H: Hooks> Broker<H> {
    /// Returns the wall-clock time of an instant.
    pub(super) fn wall(&self, at: Instant) -> u64 {
        self.config.wall_clock.saturating_add(at.as_millis())
    }

    pub(super) fn wall_or_never(&self, at: Option<Instant>) -> u64 {
        at.map_or(NEVER, |at| self.wall(at))
    }

    /// Returns the number of a session whose flows are recorded.
    pub(super) fn durable(&self, key: SessionKey) -> Option<u64> {
        let recorded = self.sessions.get(key)?.recorded.as_ref()?;
        recorded.outlives.then_some(recorded.number)
    }

    /// Returns the number of a session for a QoS 1 or 2 message that is recorded. The session outlives its connection, or is a
    /// member of a shared subscription with another member that does and that gets the message when this session ends.
    pub(super) fn target(&self, key: SessionKey, share: Option<Share>) -> Option<u64> {
        let journal = self.journal.as_ref()?;
        let recorded = self.sessions.get(key)?.recorded.as_ref()?;
        let is_target =
            recorded.outlives || share.is_some_and(|share| journal.share_name(share).is_some());
        is_target.then_some(recorded.number)
    }

    pub(crate) const fn has_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Records a connected client before CONNACK is written. CONNACK waits for the records after position `before`.
    pub(crate) fn record_connected(
        &mut self,
        index: ConnectionKey,
        key: SessionKey,
        expiry: u32,
        before: u64,
    ) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let outlives = expiry > 0;
        let is_new = session.recorded.is_none();
        if is_new {
            journal.sessions = journal.sessions.saturating_add(1);
            session.recorded = Some(Box::new(Recorded {
                number: journal.sessions,
                outlives,
                is_written: false,
                expiry,
                flights: Window::default(),
                received: BTreeMap::new(),
            }));
        }
        let refused = journal.failed.is_some();
        let mut flows = false;
        if let Some(recorded) = &mut session.recorded {
            recorded.expiry = expiry;
            flows = recorded.outlives;
        }
        if let Some(connection) = self.connections.get_mut(index) {
            connection.server.start_journal(flows);
        }
        self.record_session(key);
        // While there is no room, an existing session is resumed, because the client makes room by taking messages.
        if self.position() > before
            && (is_new || !refused)
            && let Some(connection) = self.connections.get_mut(index)
        {
            // 3.1.1 [MQTT-3.2.2-2], 5 [MQTT-3.2.2-3]: the session present flag of CONNACK is correct after a crash as well.
            connection.server.hold();
            self.machine_changed(index);
        }
    }

    /// Records the current state of a session.
    pub(crate) fn record_session(&mut self, key: SessionKey) {
        let Some(mut journal) = self.journal.take() else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(recorded) = &mut session.recorded
            && !session.is_over
            && (recorded.is_written || recorded.outlives || session.will.is_some())
        {
            recorded.is_written = true;
        }
        if let Some(session) = self.sessions.get(key)
            && let Some(recorded) = &session.recorded
            && !session.is_over
            && recorded.is_written
        {
            let away = session.connection.is_none().then(|| Away {
                ends: self.wall_or_never(session.ends_at),
                will: self.wall_or_never(session.will_at),
            });
            let will = session.will.as_ref().map(|will| Will {
                delay: u32::try_from(will.delay.as_secs()).unwrap_or(u32::MAX),
                qos: will.message.qos(),
                packet: will.message.packet(),
            });
            let record = SessionRecord {
                version: session.version,
                expiry: recorded.expiry,
                away,
                client_id: &session.client_id,
                user_name: session.user_name.as_deref(),
                will,
            };
            journal.write(&Entry::Session(recorded.number, Some(record)));
        }
        self.journal = Some(journal);
    }

    /// Records that the client of a session has disconnected.
    pub(crate) fn record_away(&mut self, key: SessionKey, expiry: u32) {
        if self.journal.is_none() {
            return;
        }
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(recorded) = &mut session.recorded
        {
            recorded.expiry = expiry;
            self.record_session(key);
        }
    }

    /// Records the end of a session's messages in flight, except those that other members of shared subscriptions get.
    pub(crate) fn record_flights_end(&mut self, key: SessionKey) {
        if self.journal.is_none() {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(recorded) = &mut session.recorded else {
            return;
        };
        let number = recorded.number;
        let flights = std::mem::take(&mut recorded.flights);
        let received = std::mem::take(&mut recorded.received);
        let handed_over = |token: &Token| {
            let shared = session.shared.get(token);
            shared.is_some_and(|item| item.qos == QoS::AtLeastOnce)
        };
        let ended: Vec<_> = flights
            .into_flights()
            .filter(|flight| !handed_over(&flight.token))
            .collect();
        for flight in ended {
            self.flight_ended(&flight, flight.record.target(number));
        }
        for id in received.into_keys() {
            self.write(&Entry::Received {
                session: number,
                id,
                message: None,
            });
        }
    }

    /// Forgets that a message is in flight, without a record: it is given to another member of its shared subscription.
    pub(crate) fn forget_flight(&mut self, key: SessionKey, token: Token) {
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(recorded) = &mut session.recorded
        {
            recorded.flights.end(token);
        }
    }

    /// Records that a session has ended and its will is being published.
    pub(crate) fn record_session_end(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        if let Some(recorded) = session.and_then(|session| session.recorded.as_ref())
            && recorded.is_written
        {
            let number = recorded.number;
            self.write(&Entry::Session(number, None));
        }
    }

    pub(crate) fn record_subscribed(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter<'_>,
        subscriber: &Subscriber,
        sends: bool,
    ) {
        let Some(session) = self.durable(key) else {
            return;
        };
        self.name_share(filter);
        let options = Subscription {
            qos: subscriber.qos,
            no_local: subscriber.no_local,
            retain_as_published: subscriber.retain_as_published,
            identifier: subscriber.identifier,
        };
        let filter = filter.as_str();
        self.write(&Entry::Subscription {
            session,
            filter,
            options: Some(options),
        });
        if sends {
            self.write(&Entry::Wish {
                session,
                filter,
                wanted: true,
            });
        }
    }

    /// Stores the filter of a shared subscription for records.
    pub(crate) fn name_share(&mut self, filter: &TopicFilter<'_>) {
        if filter.is_shared()
            && let Some(share) = self.router.share(filter)
            && let Some(journal) = &mut self.journal
        {
            let named = (share, Arc::from(filter.as_str()));
            journal.shares.insert(share.group(), named);
        }
    }

    pub(crate) fn record_unsubscribed(&mut self, key: SessionKey, filter: &str) {
        let Some(session) = self.durable(key) else {
            return;
        };
        self.write(&Entry::Subscription {
            session,
            filter,
            options: None,
        });
        self.write(&Entry::Wish {
            session,
            filter,
            wanted: false,
        });
    }

    /// Records that the session has got the retained messages of the current subscription.
    pub(crate) fn record_walk_end(&mut self, key: SessionKey) {
        let Some(session) = self.durable(key) else {
            return;
        };
        let known = self.sessions.get(key);
        if let Some(filter) = known.and_then(|session| session.walked_filter()) {
            self.write(&Entry::Wish {
                session,
                filter: &filter,
                wanted: false,
            });
        }
    }

    pub(crate) fn record_retained(
        &mut self,
        topic: &str,
        message: Option<&Message>,
        publisher: Option<&Publisher>,
        from: Option<SessionKey>,
    ) {
        // The broker's own statistics are valid only in one process.
        if self.journal.is_none() || from.is_none() && topic.starts_with("$SYS/") {
            return;
        }
        let retained = message.map(|message| Retained {
            expires: self.wall_or_never(message.expires()),
            qos: message.qos(),
            publisher: publisher.map_or("", |publisher| &publisher.client_id),
            user_name: publisher.and_then(|publisher| publisher.user_name.as_deref()),
            version: publisher.map(|publisher| publisher.version),
            packet: message.packet(),
        });
        self.write(&Entry::Retained(topic, retained));
    }

    /// Removes at most `most` expired retained messages. Returns whether there may be more.
    pub(crate) fn purge_retained(&mut self, most: usize, now: Instant) -> bool {
        let journal = &mut self.journal;
        self.retained.purge(most, now, |key| {
            if let (Some(journal), Some(topic)) = (&mut *journal, crate::retained::text(key)) {
                journal.write(&Entry::Retained(&topic, None));
            }
        })
    }

    pub(super) fn write(&mut self, entry: &Entry<'_>) {
        if let Some(journal) = &mut self.journal {
            journal.write(entry);
        }
    }

    /// Records a will that is delivered in portions and is no longer part of its session.
    pub(crate) fn record_due_will(&mut self, message: &Message) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let number = journal.number_message();
        let will = DueWill {
            qos: message.qos(),
            packet: message.packet(),
        };
        journal.write(&Entry::DueWill(number, Some(will)));
        self.fanouts.last_is_will(number);
    }

    /// Records that all receivers of a will are recorded.
    pub(crate) fn record_will_end(&mut self, number: u64) {
        if number != 0 {
            self.write(&Entry::DueWill(number, None));
        }
    }

    /// Notes the session from which a message comes. The identifier of a QoS 2 message is recorded together with the message.
    pub(crate) fn record_origin(&mut self, key: SessionKey, id: Option<PacketId>) {
        if self.journal.is_none() {
            return;
        }
        let session = self.durable(key);
        if let Some(journal) = &mut self.journal {
            journal.messages.from = match (session, id) {
                (Some(session), Some(id)) => Some(Origin { key, session, id }),
                _ => None,
            };
        }
    }

    /// Records the identifier of the routed message, if it was not recorded together with the message.
    pub(crate) fn record_received(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if let Some(from) = journal.messages.from.take() {
            self.received(from, 0);
        }
    }

    /// Forgets and returns the origin of the message: the message is refused, or recorded later.
    pub(crate) fn forget_origin(&mut self) -> Option<Origin> {
        self.journal.as_mut()?.messages.from.take()
    }

    /// Sets the origin of the message again.
    pub(crate) fn restore_origin(&mut self, origin: Option<Origin>) {
        if let Some(journal) = &mut self.journal {
            journal.messages.from = origin;
        }
    }

    pub(super) fn received(&mut self, from: Origin, message: u64) {
        self.write(&Entry::Received {
            session: from.session,
            id: from.id,
            message: Some(message),
        });
        self.remember_received(from, message);
    }

    pub(super) fn remember_received(&mut self, from: Origin, message: u64) {
        if let Some(session) = self.sessions.get_mut(from.key)
            && let Some(recorded) = &mut session.recorded
            && recorded.number == from.session
        {
            recorded.received.insert(from.id, message);
        }
    }

    /// Records that PUBREL arrived.
    pub(super) fn record_freed(&mut self, key: SessionKey, id: PacketId) {
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(recorded) = &mut session.recorded
            && recorded.received.remove(&id).is_some()
        {
            let session = recorded.number;
            self.write(&Entry::Received {
                session,
                id,
                message: None,
            });
        }
    }

    /// Records that PUBREC arrived.
    pub(super) fn record_released(&mut self, key: SessionKey, token: Token) {
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(recorded) = &mut session.recorded
            && let Some(flight) = recorded.flights.get_mut(token)
        {
            flight.has_flow = true;
            let record = flight.record;
            let target = record.target(recorded.number);
            if let Some(journal) = &mut self.journal {
                let flow = Flow::Released(token.number());
                journal.write_flow(record.message(), target, Some(flow));
            }
        }
    }

    /// Returns the number of a session in records; 0 without a journal.
    pub(crate) fn number_of(&self, key: SessionKey) -> u64 {
        let recorded = self.sessions.get(key).map(|s| &s.recorded);
        recorded.and_then(Option::as_ref).map_or(0, |r| r.number)
    }

    /// Returns whether the subscriptions of a session are recorded.
    pub(crate) fn is_durable(&self, key: SessionKey) -> bool {
        self.durable(key).is_some()
    }
}
