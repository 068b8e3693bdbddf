//! Records the messages that are to be delivered to sessions or are in flight to them.

use std::sync::Arc;

use mqtt_session::proto::QoS;
use mqtt_session::records::broker::{
    Delivery, Entry, Flow, Identifiers as Written, Target as TargetRecord,
};
use mqtt_session::{Instant, Token};

use super::messages::{KEPT, Origin, RecordState, Unneeded};
use super::name::RecordName;
use super::window::Flight;
use crate::broker::Broker;
use crate::fanout::Target;
use crate::hooks::Hooks;
use crate::keys::SessionKey;
use crate::message::Message;
use crate::queue::{Identifiers, Queued};
use crate::router::Share;
use crate::source::Source;

impl<H: Hooks> Broker<H> {
    /// Begins the record of a message that is about to be delivered.
    pub(crate) fn begin_record(&mut self) {
        if let Some(journal) = &mut self.journal {
            let number = journal.messages.last.saturating_add(1);
            journal.begin(RecordState::Collecting, number);
        }
    }

    /// Ends the record: all receivers have the message in their buffers or queues.
    pub(crate) fn end_record(&mut self, source: &mut Source<'_>, now: Instant) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if !journal.has_targets() {
            journal.end_without_record();
            return;
        }
        journal.number_message();
        if let Some(message) = source.kept_before() {
            return self.write_message(message);
        }
        // A message that no queue has is encoded into memory that all such messages use.
        let mut memory = std::mem::take(&mut journal.messages.packet);
        let encoded = source.encode(&mut memory);
        match encoded.ok().and_then(|len| memory.get(..len)) {
            None => journal.end_without_record(),
            Some(packet) => self.write_packet(packet, source.qos(), source.expires(now)),
        }
        if let Some(journal) = &mut self.journal {
            if memory.len() > KEPT {
                memory = Vec::new();
            }
            journal.messages.packet = memory;
        }
    }

    fn write_message(&mut self, message: &Message) {
        self.write_packet(message.packet(), message.qos(), message.expires());
    }

    /// Writes the record of the message whose targets were collected; `packet` is its packet in MQTT 5 at QoS 0.
    fn write_packet(&mut self, packet: &[u8], qos: QoS, expires: Option<Instant>) {
        let expires = self.wall_or_never(expires);
        let Some(journal) = &mut self.journal else {
            return;
        };
        let (from, number) = (journal.messages.from, journal.current().message());
        if let Some((key, token)) = journal.only_flight()
            && let Some(session) = self.sessions.get_mut(key)
            && let Some(recorded) = &mut session.recorded
            && recorded.flights.last_is_only(token)
        {
            journal.end_of_flight(packet, qos, expires);
            return;
        }
        journal.end(packet, qos, expires);
        let early = journal.take_early();
        if let Some(from) = from {
            self.remember_received(from, number);
        }
        for target in early {
            self.done(number, target, true);
        }
    }

    /// Records all receivers of a message with many of them, before the first one gets it. Returns the number of the record, 0 if
    /// there is none, and the name of each target in it, 0 for targets that are not recorded.
    pub(crate) fn record_fanout(
        &mut self,
        message: &Message,
        targets: &[Target],
        identifiers: impl Fn(&Target) -> Vec<u32>,
        origin: Option<Origin>,
    ) -> (RecordName, Vec<u64>) {
        let Some(journal) = &mut self.journal else {
            return (RecordName::NONE, Vec::new());
        };
        let number = journal.messages.last.saturating_add(1);
        journal.begin(RecordState::Collecting, number);
        journal.messages.from = origin;
        let numbers = self.names_of(message, targets, number);
        for (target, number) in targets.iter().zip(&numbers) {
            if *number == 0 {
                continue;
            }
            let subscribed = target.subscriber.qos;
            let qos = self.config.delivery_qos(message.qos(), subscribed);
            let retain = message.is_retained() && target.subscriber.retain_as_published;
            let identifiers = identifiers(target);
            let identifiers = Written::Numbers(&identifiers);
            self.add_target(*number, (qos, retain), identifiers, target.share, None);
        }
        let Some(journal) = &mut self.journal else {
            return (RecordName::NONE, numbers);
        };
        if journal.has_targets() {
            journal.number_message();
            self.write_message(message);
            return (RecordName::new(number, 0), numbers);
        }
        journal.end_without_record();
        self.record_received();
        (RecordName::NONE, numbers)
    }

    fn names_of(&self, message: &Message, targets: &[Target], number: u64) -> Vec<u64> {
        let mut copy = 0_u16;
        let name = |target: &Target| {
            if target.share.is_some() {
                // The shared subscriptions of a message are not more: see `record_first_fanout`.
                copy = copy.saturating_add(1);
            }
            let subscribed = target.subscriber.qos;
            let qos = self.config.delivery_qos(message.qos(), subscribed);
            if qos == QoS::AtMostOnce || !self.is_target(target) {
                return 0;
            }
            let session = self.target(target.subscriber.session, target.share);
            let nth = if target.share.is_some() { copy } else { 0 };
            session.map_or(0, |session| RecordName::new(number, nth).target(session))
        };
        targets.iter().map(name).collect()
    }

    /// Returns whether the session of a target exists and has not ended.
    pub(crate) fn is_target(&self, target: &Target) -> bool {
        let session = self.sessions.get(target.subscriber.session);
        session.is_some_and(|session| session.serial == target.serial && !session.is_over)
    }

    /// Sets the recorded message that is being delivered, or none.
    pub(crate) fn deliver_recorded(&mut self, record: RecordName) {
        if let Some(journal) = &mut self.journal {
            let stage = if record.is_some() {
                RecordState::Listed
            } else {
                RecordState::Idle
            };
            journal.begin(stage, record.message());
        }
    }

    /// Sets the target of the next delivery by its name in the record.
    pub(crate) fn deliver_to(&mut self, target: u64) {
        if let Some(journal) = &mut self.journal {
            (_, journal.messages.copy) = RecordName::of_target(target);
        }
    }

    /// Notes that the next delivery is for another shared subscription. Returns `false` if the journal has no number for it, since the
    /// message goes to [`MOST_COPIES`](super::MOST_COPIES) of them already: the caller does not deliver this copy, which is counted as
    /// dropped.
    pub(crate) fn next_copy(&mut self) -> bool {
        let Some(journal) = &mut self.journal else {
            return true;
        };
        let next = journal.messages.copies.checked_add(1);
        if let Some(copy) = next {
            (journal.messages.copies, journal.messages.copy) = (copy, copy);
        } else {
            self.count_dropped(1);
        }
        next.is_some()
    }

    /// Records that a target of a recorded message does not get it.
    pub(crate) fn not_delivered(&mut self, key: SessionKey, qos: QoS, share: Option<Share>) {
        let journal = self.journal.as_ref();
        if qos > QoS::AtMostOnce
            && journal.is_some_and(|journal| journal.messages.stage == RecordState::Listed)
            && let Some(number) = self.target(key, share)
        {
            let record = self.current_record();
            self.done(record.message(), record.target(number), true);
        }
    }

    /// Records that a target of a recorded message has ended.
    pub(crate) fn target_ended(&mut self, target: u64) {
        let record = self.current_record();
        if target != 0 && record.is_some() {
            self.done(record.message(), target, true);
        }
    }

    /// Returns the name of the message that is being delivered, with its copy; no name without a journal.
    pub(crate) fn current_record(&self) -> RecordName {
        let journal = self.journal.as_ref();
        journal.map_or(RecordName::NONE, |journal| journal.current())
    }

    fn add_target(
        &mut self,
        target: u64,
        (qos, retain): (QoS, bool),
        identifiers: Written<'_>,
        share: Option<Share>,
        sent: Option<u32>,
    ) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let share = share.and_then(|share| journal.share_name(share));
        let delivery = Delivery {
            qos,
            retain,
            identifiers,
            share: share.as_deref(),
            sent,
        };
        journal.add_target(&TargetRecord {
            session: target,
            delivery,
        });
    }

    /// Records that a message was sent to a client at once, with this token.
    pub(crate) fn record_sent(
        &mut self,
        key: SessionKey,
        token: Token,
        (qos, retain): (QoS, bool),
        identifiers: &[u32],
    ) {
        let Some(number) = self.durable(key) else {
            return;
        };
        let Some(journal) = &mut self.journal else {
            return;
        };
        let (stage, record) = (journal.messages.stage, journal.current());
        let target = record.target(number);
        match stage {
            RecordState::Idle => return,
            RecordState::Collecting => {
                let identifiers = Written::Numbers(identifiers);
                let sent = Some(token.number());
                journal.messages.last_flight = Some((key, token));
                self.add_target(target, (qos, retain), identifiers, None, sent);
            }
            RecordState::Listed => {
                let flow = Flow::Sent(token.number());
                journal.write_flow(record.message(), target, Some(flow));
            }
        }
        self.begin_flight(key, token, record, stage == RecordState::Listed);
    }

    fn begin_flight(&mut self, key: SessionKey, token: Token, record: RecordName, has_flow: bool) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(recorded) = &mut session.recorded {
            recorded.flights.add(Flight {
                token,
                record,
                has_flow,
                is_only: false,
            });
        }
        if let Some(index) = session.connection {
            self.machine_changed(index);
        }
    }

    /// Returns the name for a message that is about to be queued for a session; no name if it is not recorded for this session.
    pub(crate) fn number_for_queue(&mut self, key: SessionKey, item: &mut Queued) {
        let is_target = item.qos > QoS::AtMostOnce && self.target(key, item.share).is_some();
        let message = &mut item.message;
        let Some(journal) = &mut self.journal else {
            return;
        };
        if !is_target {
            message.set_record(RecordName::NONE);
        } else if journal.messages.stage == RecordState::Idle
            && !journal.is_kept(message.record().message())
        {
            let number = journal.number_message();
            message.set_record(RecordName::new(number, 0));
        }
    }

    /// Records that a message was queued for a session; see [`Self::number_for_queue`].
    pub(crate) fn record_queued(&mut self, key: SessionKey, item: &Queued) {
        let record = item.message.record();
        let Some(number) = self.target(key, item.share).filter(|_| record.is_some()) else {
            return;
        };
        let target = record.target(number);
        let how = (item.qos, item.retain);
        let identifiers = Written::Numbers(item.identifiers.as_slice());
        let Some(journal) = &mut self.journal else {
            return;
        };
        match journal.messages.stage {
            RecordState::Listed => {}
            RecordState::Collecting => self.add_target(target, how, identifiers, item.share, None),
            RecordState::Idle if !journal.is_kept(record.message()) => {
                journal.begin(RecordState::Collecting, record.message());
                self.add_target(target, how, identifiers, item.share, None);
                self.write_message(&item.message);
            }
            // The message stays with the session that was chosen before.
            RecordState::Idle if number == journal.handed_over_session => {}
            RecordState::Idle => {
                journal.one_more(record.message());
                self.record_target(target, item, None);
            }
        }
    }

    /// Records that a session is a target in addition to those of the message's record.
    pub(super) fn record_target(&mut self, target: u64, item: &Queued, sent: Option<u32>) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let share = item.share.and_then(|share| journal.share_name(share));
        let delivery = Delivery {
            qos: item.qos,
            retain: item.retain,
            identifiers: Written::Numbers(item.identifiers.as_slice()),
            share: share.as_deref(),
            sent,
        };
        let message = item.message.record().message();
        journal.write_flow(message, target, Some(Flow::Target(delivery)));
    }

    /// Records that a queued message was sent.
    pub(crate) fn record_pumped(&mut self, key: SessionKey, item: &Queued, token: Token) {
        let record = item.message.record();
        if !record.is_some() {
            return;
        }
        let target = record.target(self.number_of(key));
        // The session may be a target by a record of its own, which this one replaces: it says all of the target again, also when the
        // shared subscription has ended.
        if item.share.is_some() || record.copy() != 0 {
            self.record_target(target, item, Some(token.number()));
        } else if let Some(journal) = &mut self.journal {
            let flow = Flow::Sent(token.number());
            journal.write_flow(record.message(), target, Some(flow));
        }
        self.begin_flight(key, token, record, true);
    }

    /// Records that a message was removed from the queue without being sent.
    pub(crate) fn record_dropped(&mut self, key: SessionKey, item: &Queued) {
        let record = item.message.record();
        if record.is_some() {
            self.done(record.message(), record.target(self.number_of(key)), true);
        }
    }

    /// Records that a message of an ended session has no other receiver, or that another session has it.
    pub(crate) fn record_handed_over(&mut self, record: RecordName, origin: u64) {
        if record.is_some() {
            self.done(record.message(), record.target(origin), true);
        }
    }

    /// Records that a client acknowledged a message.
    pub(crate) fn record_acknowledged(&mut self, key: SessionKey, token: Token) {
        if self.journal.is_some() {
            self.end_flight(key, token);
        }
    }

    fn end_flight(&mut self, key: SessionKey, token: Token) {
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(recorded) = &mut session.recorded
            && let Some(flight) = recorded.flights.end(token)
        {
            let target = flight.record.target(recorded.number);
            self.flight_ended(&flight, target);
        }
    }

    /// Records that a message in flight to a target has ended.
    pub(super) fn flight_ended(&mut self, flight: &Flight, target: u64) {
        let message = flight.record.message();
        if !flight.is_only {
            return self.done(message, target, flight.has_flow);
        }
        self.write(&Entry::Message(message, None));
        if flight.has_flow
            && let Some(journal) = &mut self.journal
        {
            journal.write_flow(message, target, None);
        }
    }

    /// Records that a target does not need a message any more.
    pub(super) fn done(&mut self, message: u64, target: u64, has_flow: bool) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let Some(Unneeded { from, flows }) = journal.done(message, target, has_flow) else {
            return;
        };
        if let Some(from) = from
            && let Some(known) = self.sessions.get_mut(from.key)
            && let Some(recorded) = &mut known.recorded
            && recorded.number == from.session
            && recorded.received.get(&from.id) == Some(&message)
        {
            // The identifier stays in use without the message.
            self.received(from, 0);
        }
        self.write(&Entry::Message(message, None));
        if let Some(journal) = &mut self.journal {
            for target in flows {
                journal.write_flow(message, target, None);
            }
        }
    }
}

impl super::Journal {
    pub(super) fn share_name(&self, share: Share) -> Option<Arc<str>> {
        let (known, name) = self.shares.get(&share.group())?;
        (*known == share).then(|| Arc::clone(name))
    }
}

impl Identifiers {
    /// Returns the identifiers of a record.
    pub(super) fn of(identifiers: &Written<'_>) -> Self {
        let identifiers: Vec<u32> = identifiers.iter().collect();
        Self::new(&identifiers)
    }
}

/// Returns the steps of recording this many targets.
pub(crate) const fn steps_of(targets: usize) -> usize {
    targets.div_ceil(4)
}
