//! Makes the sessions and messages of an earlier process from its records.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use mqtt_session::proto::num::{to_u32, to_u64};
use mqtt_session::proto::{PacketId, QoS, TopicFilter, Version};
use mqtt_session::records::broker::Entry;
use mqtt_session::records::{Fault, Format, Machine};
use mqtt_session::{Heap, Instant, Server};

use super::Recorded;
use super::messages::Origin;
use super::name::RecordName;
use super::saved::{RestoreError, Saved, SavedFlight, SavedSession, SavedTarget, State};
use super::window::{self, Window};
use crate::broker::Broker;
use crate::fanout::Routed;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::message::Message;
use crate::queue::{Limits, Queued, Room};
use crate::router::{Share, Subscriber};
use crate::session::{RetainedOptions, Session};
use crate::shards::{OTHER_SHARDS, Visited, shard_of_link};
use crate::timers::Due;

/// How much a broker restored from the records of an earlier process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Restored {
    /// Sessions.
    pub sessions: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Messages that sessions have not received or not acknowledged.
    pub messages: u64,
    /// Retained messages.
    pub retained: u64,
}

/// A message with the names of its targets.
struct SavedMessage {
    message: Message,
    targets: Vec<(u64, SavedTarget)>,
}

/// A message for a shared subscription without members in this shard, until the other shards are known.
#[derive(Debug)]
pub(crate) struct MemberSearch {
    message: Message,
    target: SavedTarget,
    /// The name of the target in records.
    name: u64,
}

impl MemberSearch {
    /// Returns the bytes that it counts in the limits.
    pub(crate) fn size(&self) -> usize {
        self.message.size()
    }
}

impl<H: Hooks> Broker<H> {
    /// Ends the reading of records; call it also if there were none. A client that was connected then counts as one whose
    /// connection was lost: its will is due after its delay, and its session begins to expire.
    ///
    /// # Errors
    /// The records contradict one another, or the messages in flight do not fit into memory: [`RestoreError::InFlight`].
    pub fn restored(&mut self, now: Instant) -> Result<Restored, RestoreError> {
        let Some(journal) = &mut self.journal else {
            return Err(RestoreError::TooLate);
        };
        journal.is_restored = true;
        let mut saved = *journal.saved.take().unwrap_or_default();
        if !saved.has_format {
            journal.write(&Entry::Format(Format::new(Machine::Broker)));
        }
        let wills = std::mem::take(&mut saved.wills);
        let mut keys = BTreeMap::new();
        for (number, session) in &mut saved.sessions {
            keys.insert(*number, self.make_session(*number, session, now)?);
        }
        let mut restored = Restored {
            sessions: to_u64(keys.len()),
            subscriptions: to_u64(self.router.count()),
            retained: to_u64(self.retained.count()),
            ..Restored::default()
        };
        let messages = std::mem::take(&mut saved.messages);
        let mut origins = BTreeMap::new();
        for (number, session) in &mut saved.sessions {
            if let Some(key) = keys.get(number) {
                let received = std::mem::take(&mut session.received);
                let is_known = |message: u64| message == 0 || messages.contains_key(&message);
                self.make_received(*key, received, is_known, &mut origins);
            }
        }
        // Each message takes its targets from the map of all.
        let mut targets = std::mem::take(&mut saved.targets).into_iter().peekable();
        for (number, message) in messages {
            let origin = origins.remove(&number);
            let of_message = iter::from_fn(|| {
                let next = targets.next_if(|((of, _), _)| *of == number);
                next.map(|((_, name), target)| (name, target))
            });
            let message = SavedMessage {
                message,
                targets: of_message.collect(),
            };
            if self.links.is_some() {
                self.keep_restored_message(&message, &keys, now);
            }
            let live = self.make_message((number, origin), message, &keys, &mut saved);
            restored.messages = restored.messages.saturating_add(live);
        }
        let mut copied = 0;
        for (number, session) in saved.sessions {
            if let Some(key) = keys.get(&number) {
                self.make_flights(*key, session, &mut copied)?;
            }
        }
        self.note_restored_queues();
        for (number, will) in wills {
            self.publish_restored_will(number, will, now);
        }
        Ok(restored)
    }

    /// Publishes a will of an earlier process, when the other shards are known if there are any.
    pub(crate) fn publish_restored_will(&mut self, number: u64, will: Message, now: Instant) {
        if !self.serves_other_shards() {
            return self.keep_restored_will(number, will);
        }
        let publish = will.publish();
        self.begin_share();
        if self.route(None, &will.outgoing(&publish), now) == Routed::Later {
            self.fanouts.last_is_will(number);
        } else {
            self.record_will_end(number);
        }
    }

    fn make_session(
        &mut self,
        recorded: u64,
        saved: &mut SavedSession,
        now: Instant,
    ) -> Result<SessionKey, RestoreError> {
        if self.clients.contains_key(&saved.client_id) || recorded == 0 {
            return Err(Fault::Value.into());
        }
        let client_id = Arc::clone(&saved.client_id);
        self.session_serial = self.session_serial.wrapping_add(1);
        let hash = self.clients.hasher().hash_one(&client_id);
        let link = shard_of_link(&client_id);
        let hash = link.map_or(hash, |_| OTHER_SHARDS);
        let mut session = Session::new(Arc::clone(&client_id), hash, self.session_serial);
        session.link = link;
        session.version = saved.version;
        session.user_name = saved.user_name.take();
        self.hold_session(session.user_name.as_deref());
        self.take_restored_places(&client_id, session.user_name.as_deref());
        session.will = saved.will.take();
        let will = session.will.as_ref().map_or(0, |will| will.message.size());
        self.will_bytes.moves(0, will);
        let expiry = Duration::from_secs(u64::from(saved.expiry));
        (session.ends_at, session.will_at) = match saved.away {
            Some(away) => (self.instant(away.ends), self.instant(away.will)),
            None => {
                let will = session.will.as_ref();
                (
                    (saved.expiry != u32::MAX).then(|| now.after(expiry)),
                    will.map(|will| now.after(will.delay.min(expiry))),
                )
            }
        };
        session.recorded = Some(Box::new(Recorded {
            number: recorded,
            outlives: saved.expiry > 0,
            is_written: true,
            expiry: saved.expiry,
            flights: Window::default(),
            received: BTreeMap::new(),
        }));
        let due = session.due();
        let key = self.sessions.insert(session);
        self.clients.insert(client_id, key);
        if let Some(shard) = link {
            self.link_restored(shard, key);
        }
        if let Some(due) = due {
            self.timers.set(due, Due::Session(key));
        }
        self.make_subscriptions(key, saved)?;
        if saved.away.is_none() {
            self.record_session(key);
        }
        Ok(key)
    }

    fn make_subscriptions(
        &mut self,
        key: SessionKey,
        saved: &SavedSession,
    ) -> Result<(), RestoreError> {
        for (filter, options) in &saved.subscriptions {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            let parsed = TopicFilter::new(filter).map_err(|_| Fault::Key)?;
            let wanted = RetainedOptions {
                qos: options.qos,
                no_local: options.no_local,
                identifier: options.identifier,
            };
            session.remember_filter(filter, wanted, saved.wishes.contains(filter));
            let subscriber = Subscriber {
                session: key,
                qos: options.qos,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                identifier: options.identifier,
            };
            self.router.subscribe(&parsed, subscriber, false);
            self.name_share(&parsed);
            if self.links.is_some() {
                self.filter_added(key, &parsed);
            }
        }
        self.count_filters(key);
        Ok(())
    }

    /// Retains a message that was being sent to other shards for that purpose.
    fn keep_restored_message(
        &mut self,
        saved: &SavedMessage,
        keys: &BTreeMap<u64, SessionKey>,
        now: Instant,
    ) {
        let is_for_shard = |(name, target): &&(u64, SavedTarget)| {
            let key = keys.get(&RecordName::of_target(*name).0);
            target.state != State::Done && key.is_some_and(|key| self.is_link(*key))
        };
        let target = saved.targets.iter().find(is_for_shard);
        if let Some((_, target)) = target {
            let identifier = target.identifiers.as_slice().first().copied();
            self.keep_restored(&saved.message, identifier, now);
        }
    }

    /// Gives a message to the sessions that have not received it. Returns how many these are.
    fn make_message(
        &mut self,
        (recorded, origin): (u64, Option<Origin>),
        saved: SavedMessage,
        keys: &BTreeMap<u64, SessionKey>,
        all: &mut Saved,
    ) -> u64 {
        let SavedMessage { message, targets } = saved;
        if let Some(journal) = &mut self.journal {
            let targets = to_u32(targets.len());
            journal.keep(recorded, targets, origin);
            if targets == 0 {
                journal.write(&Entry::Message(recorded, None));
            }
        }
        let mut live = 0_u64;
        for (name, target) in targets {
            let (session, copy) = RecordName::of_target(name);
            let share = self.restored_share(&target, keys.get(&session).copied());
            let mut message = message.clone();
            message.set_record(RecordName::new(recorded, copy));
            if target.state == State::Done {
                self.done(recorded, name, target.has_flow);
                continue;
            }
            let Some(key) = self.receiver(keys.get(&session).copied(), &target, share) else {
                let search = MemberSearch {
                    message,
                    target,
                    name,
                };
                self.find_member_or_wait(search, share);
                continue;
            };
            live = live.saturating_add(1);
            let item = Queued {
                message,
                qos: target.qos,
                retain: target.retain,
                identifiers: target.identifiers,
                share,
            };
            let (number, released) = match target.state {
                State::Sent(number) => (number, false),
                State::Released(number) => (number, true),
                State::Waiting | State::Done => {
                    self.queue_restored(key, item);
                    continue;
                }
            };
            if let Some(session) = all.sessions.get_mut(&session) {
                session.flights.push(SavedFlight {
                    number,
                    released,
                    item,
                });
            }
        }
        live
    }

    /// Returns the shared subscription for which a target was chosen. If the target is another shard, it has members of it until it
    /// tells otherwise. If it is a client that left the subscription, other shards may have members.
    fn restored_share(&mut self, target: &SavedTarget, key: Option<SessionKey>) -> Option<Share> {
        let filter = target.share.as_deref()?;
        let parsed = TopicFilter::new(filter).ok()?;
        let share = self.router.share(&parsed);
        if share.is_none() && self.links.is_some() {
            let key = key?;
            if !self.is_link(key) {
                let stays = target.may_be_handed_over() && self.durable(key).is_some();
                return stays.then(|| self.hold_share(&parsed)).flatten();
            }
            let identifier = target.identifiers.as_slice().first().copied();
            self.learn_restored(key, filter, identifier);
            return self.router.share(&parsed);
        }
        share
    }

    /// Returns the shared subscription of a filter without members in this shard, which is kept until the other shards are known.
    fn hold_share(&mut self, filter: &TopicFilter<'_>) -> Option<Share> {
        let share = self.router.hold_share(filter);
        self.name_share(filter);
        self.end_share_later(filter.as_str());
        share
    }

    /// Returns the session that still gets a message. A session that was restored only for its will ended with its connection: if other
    /// shards may have members, one of them gets the message.
    fn receiver(
        &self,
        key: Option<SessionKey>,
        target: &SavedTarget,
        share: Option<Share>,
    ) -> Option<SessionKey> {
        let is_for_shards = self.links.is_some() && target.share.is_some() && share.is_none();
        let searches = is_for_shards && target.may_be_handed_over();
        key.filter(|key| !searches || self.durable(*key).is_some())
    }

    fn find_member_or_wait(&mut self, search: MemberSearch, share: Option<Share>) {
        let is_shared = search.target.share.is_some();
        if share.is_none() && is_shared && !self.knows_other_shards() {
            self.search_member_later(search);
        } else {
            self.find_member(search.message, search.target, share, search.name);
        }
    }

    /// Finds members in other shards for messages whose members were gone at the restart.
    pub(crate) fn search_members(&mut self, waiting: Vec<MemberSearch>, now: Instant) {
        for search in waiting {
            let MemberSearch {
                message,
                target,
                name,
            } = search;
            let share = self.restored_share(&target, None);
            if let Some(key) = self.find_member(message, target, share, name) {
                self.pump(key, now);
            }
        }
    }

    /// Keeps a message of an ended session until the other shards are known: one of them may have members. Returns `false` if they are
    /// known, if there is no room, and without a journal.
    pub(crate) fn search_others_later(&mut self, item: &Queued, origin: u64) -> bool {
        if self.knows_other_shards() || !self.has_room_for_search(item.message.size()) {
            return false;
        }
        let journal = self.journal.as_ref();
        let Some(filter) = item
            .share
            .and_then(|share| journal.and_then(|journal| journal.share_name(share)))
        else {
            return false;
        };
        let target = SavedTarget {
            qos: item.qos,
            retain: item.retain,
            identifiers: item.identifiers.clone(),
            share: Some(filter),
            state: State::Waiting,
            has_flow: true,
        };
        let message = item.message.clone();
        let name = message.record().target(origin);
        self.search_member_later(MemberSearch {
            message,
            target,
            name,
        });
        true
    }

    /// Handles a session that ended with the process. If it was chosen for a shared subscription, another member gets the message
    /// (at QoS 1, as when a session ends: 5 \[MQTT-4.8.2-5\]). Returns the session of that member.
    fn find_member(
        &mut self,
        message: Message,
        target: SavedTarget,
        share: Option<Share>,
        name: u64,
    ) -> Option<SessionKey> {
        let record = message.record();
        let group = share.filter(|_| target.may_be_handed_over());
        let group = group.map(Share::group);
        let publish = message.publish();
        let visited = Visited::of(target.identifiers.as_slice());
        let member = group.and_then(|group| self.choose_unvisited(group, publish.topic, visited));
        if let Some(member) = &member {
            let key = member.subscriber.session;
            let item = Queued {
                qos: self
                    .config
                    .delivery_qos(message.qos(), member.subscriber.qos),
                message,
                retain: target.retain,
                identifiers: self.member_identifiers(member, visited),
                share: member.share,
            };
            if item.qos > QoS::AtMostOnce {
                self.record_queued(key, &item);
                self.queue_restored(key, item);
            }
        }
        self.done(record.message(), name, target.has_flow);
        member.map(|member| member.subscriber.session)
    }

    fn queue_restored(&mut self, key: SessionKey, item: Queued) {
        let copy = item.clone();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        // The queue may have exceeded its limits: see `pressure.rs`.
        let limits = Limits {
            config: &self.config,
            share: usize::MAX,
            room: Room::Any,
        };
        let pushed = session.queue.push(item, &limits, &mut self.queued);
        if !pushed.accepted {
            // The limits are lower than in the earlier process.
            self.dropped(key, 1);
            self.record_dropped(key, &copy);
        }
    }

    /// Restores the messages in flight to a client, and those that are released but not completed. A message in flight is copied for
    /// each client; `copied` counts these bytes of all clients, see [`beyond_the_largest`].
    fn make_flights(
        &mut self,
        key: SessionKey,
        mut saved: SavedSession,
        copied: &mut usize,
    ) -> Result<(), RestoreError> {
        *copied = copied.saturating_add(beyond_the_largest(&saved.flights));
        if *copied > self.config.connection_bytes_total.saturating_mul(2) {
            return Err(RestoreError::InFlight);
        }
        let flights = &mut saved.flights;
        // New numbers follow the last one.
        let numbers = || flights.iter().map(|flight| flight.number);
        let (least, most) = (numbers().min().unwrap_or(0), numbers().max().unwrap_or(0));
        let turn = if most.wrapping_sub(least) > u32::MAX / 2 {
            1 << 31
        } else {
            0
        };
        flights.sort_by_key(|flight| flight.number.wrapping_add(turn));
        let mut config = self.config.session();
        let count = u16::try_from(flights.len()).map_err(|_| Fault::Value)?;
        config.window = config.window.max(count);
        config.kept_limit = u32::MAX;
        let mut server = Server::new(config, Heap);
        for flight in saved.flights {
            self.make_flight(key, &mut server, flight, saved.version)?;
        }
        if let Some(session) = self.sessions.get_mut(key) {
            let recorded = session.recorded.iter();
            for id in recorded.flat_map(|recorded| recorded.received.keys()) {
                if !server.restore_received(*id) {
                    return Err(Fault::Value.into());
                }
            }
            // As when the connection of a link ends.
            let size = session.link.map_or_else(|| server.heap_size(), |_| 0);
            self.parked.set(key, &mut session.held, size);
            self.heap_bytes = self.heap_bytes.saturating_add(size);
            session.parked = Some(Box::new(server));
            if session.is_idle() {
                self.idle_serial = self.idle_serial.wrapping_add(1);
                session.idle = Some(self.idle_serial);
                self.unused_sessions.insert(self.idle_serial, key);
            }
        }
        Ok(())
    }

    fn make_flight(
        &mut self,
        key: SessionKey,
        server: &mut Server<'static>,
        flight: SavedFlight,
        version: Version,
    ) -> Result<(), RestoreError> {
        let item = flight.item;
        let token = if flight.released {
            server.restore_released(flight.number, version)
        } else {
            crate::pump::restore(server, &item, flight.number, version)
        };
        let token = token.map_err(|_| Fault::Value)?;
        let Some(session) = self.sessions.get_mut(key) else {
            return Ok(());
        };
        if let Some(recorded) = &mut session.recorded {
            recorded.flights.add(window::Flight {
                token,
                record: item.message.record(),
                has_flow: true,
                is_only: false,
            });
        }
        if item.share.is_some() {
            session.shared.insert(token, item);
        }
        Ok(())
    }

    /// Restores the identifiers of received messages that are not free.
    fn make_received(
        &mut self,
        key: SessionKey,
        received: BTreeMap<PacketId, u64>,
        is_known: impl Fn(u64) -> bool,
        origins: &mut BTreeMap<u64, Origin>,
    ) {
        let session = self.sessions.get_mut(key);
        let Some(recorded) = session.and_then(|session| session.recorded.as_mut()) else {
            return;
        };
        for (id, message) in received {
            let session = recorded.number;
            if is_known(message) {
                recorded.received.insert(id, message);
                if message != 0 {
                    origins.insert(message, Origin { key, session, id });
                }
            } else if let Some(journal) = &mut self.journal {
                // The crash came between the record of the identifier and that of the message: the identifier counts as free.
                journal.write(&Entry::Received {
                    session,
                    id,
                    message: None,
                });
            }
        }
    }
}

/// Returns the bytes of messages in flight to one client without the largest one: a client that has nothing in flight gets one message
/// of any size, even beyond the limit of all connections.
fn beyond_the_largest(flights: &[SavedFlight]) -> usize {
    let (mut all, mut largest) = (0_usize, 0);
    for flight in flights.iter().filter(|flight| !flight.released) {
        let len = flight.item.message.len();
        all = all.saturating_add(len);
        largest = largest.max(len);
    }
    all.saturating_sub(largest)
}
