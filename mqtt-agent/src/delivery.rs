//! Finds the subscriptions that match a received message, and acknowledges the message.
//!
//! ```text
//! PUBLISH --> the inbox of each subscription that matches, or the inbox of the others
//! inbox --next_message--> in the program's hand --taken--> PUBACK or PUBREC, when the last of its inboxes is done with it
//! connection lost, QoS 1: its receipt is void. The server sends it again, and it is not given out a second time
//! session lost: messages that wait are given out, and are not acknowledged
//! ```

use alloc::vec::Vec;

use bytes::Bytes;
use mqtt_proto::{AckKind, EncodeError, Message, QoS, ReasonCode};
use mqtt_session::{Incoming, Instant, Refused};

use crate::agent::Agent;
use crate::event::{AgentEvent, ConnectionEvent};
use crate::held::{HeldMessage, MessageId};
use crate::inbox::{Entry, Inbox, Popped, Queued, ReceivedMessage};
use crate::options::{AcknowledgeWhen, QoS0Overflow, Unclaimed};
use crate::subscriptions::{Receiver, Route, RouteId, SubscriptionState};

impl Agent {
    /// Puts a received message into the inbox of each matching subscription.
    pub(crate) fn deliver(
        &mut self,
        incoming: &Incoming<'_>,
        shared: Option<&Bytes>,
        now: Instant,
    ) {
        let publish = &incoming.publish;
        let topic = self.client.topic(publish);
        let message = match shared {
            Some(packet) => Message::share(publish, topic, packet),
            None => Message::copied(publish, topic),
        };
        if self.client.receive_maximum_exceeded() && !self.told_exceeded {
            self.told_exceeded = true;
            self.queue_connection_event(ConnectionEvent::ReceiveMaximumExceeded);
        }
        if message.qos == QoS::AtLeastOnce && self.recognise_resent(&message, incoming, now) {
            return;
        }
        self.number = self.number.saturating_add(1);
        let number = self.number;
        let (mut streams, mut requests, mut index) = (0_u32, false, 0);
        for (at, route) in self.routes.iter().enumerate() {
            if route.matches(message.topic()) {
                match route.receiver {
                    Receiver::Stream(_) | Receiver::Others => {
                        (streams, index) = (streams.saturating_add(1), at);
                    }
                    Receiver::Requests => requests = true,
                    Receiver::Nobody => {}
                }
            }
        }
        if requests {
            self.answered(&message);
        }
        if streams == 1 {
            self.put_into_one(index, message, incoming, number);
        } else if streams > 1 {
            self.put_into_each(&message, incoming, number, streams);
        } else if requests {
            self.acknowledge_at_once(incoming, now);
        } else {
            self.put_unclaimed(message, incoming, number, now);
        }
        self.paused |= self.is_full();
    }

    fn acknowledge_at_once(&mut self, incoming: &Incoming<'_>, now: Instant) {
        if let Some(receipt) = incoming.receipt {
            let _ = self.client.acknowledge(receipt, ReasonCode::Success, now);
        }
    }

    /// Puts a message into the inbox of the only matching subscription.
    fn put_into_one(
        &mut self,
        index: usize,
        message: Message,
        incoming: &Incoming<'_>,
        number: u64,
    ) {
        let waiting = self.hold(message, incoming, number, 1);
        let overflow = self.options.qos0_overflow;
        match self.routes.get_mut(index) {
            Some(Route {
                id,
                receiver: Receiver::Stream(inbox),
                ..
            }) => {
                inbox.put(number, waiting, &self.options, overflow);
                if core::mem::take(&mut inbox.wanted) {
                    self.events.push_back(AgentEvent::Messages(Some(*id)));
                }
            }
            _ => self.put_to_others(number, waiting),
        }
    }

    /// Puts a message into the inbox of each matching subscription.
    fn put_into_each(
        &mut self,
        message: &Message,
        incoming: &Incoming<'_>,
        number: u64,
        streams: u32,
    ) {
        let overflow = self.options.qos0_overflow;
        let waiting = self.hold(message.clone(), incoming, number, streams);
        let mut to_others = false;
        for route in &mut self.routes {
            if !route.matches(message.topic()) {
                continue;
            }
            match &mut route.receiver {
                Receiver::Stream(inbox) => {
                    inbox.put(number, waiting.clone(), &self.options, overflow);
                    if core::mem::take(&mut inbox.wanted) {
                        self.events.push_back(AgentEvent::Messages(Some(route.id)));
                    }
                }
                Receiver::Others => {
                    // Several subscriptions of the options may match: their shared inbox gets the message once.
                    if core::mem::replace(&mut to_others, true)
                        && let Queued::Qos12(Entry::Held(id)) = waiting
                    {
                        self.held.done(id);
                    }
                }
                Receiver::Requests | Receiver::Nobody => {}
            }
        }
        if to_others {
            self.put_to_others(number, waiting);
        }
    }

    fn put_to_others(&mut self, number: u64, waiting: Queued) {
        // Without a reader of this inbox, its messages do not pause reading.
        let overflow = if self.others_are_awaited() {
            self.options.qos0_overflow
        } else {
            QoS0Overflow::DropOldest
        };
        self.others.put(number, waiting, &self.options, overflow);
        if core::mem::take(&mut self.others.wanted) {
            self.events.push_back(AgentEvent::Messages(None));
        }
    }

    /// Returns the entry of a message for an inbox, and stores the message if it is to be acknowledged later.
    fn hold(
        &mut self,
        message: Message,
        incoming: &Incoming<'_>,
        number: u64,
        streams: u32,
    ) -> Queued {
        if message.qos == QoS::AtMostOnce {
            return Queued::Qos0(message);
        }
        Queued::Qos12(match incoming.receipt {
            None => Entry::Acknowledged(message),
            Some(receipt) => {
                // With acknowledgements by hand, the call of the program counts like one more inbox.
                let by_hand = self.options.acknowledge == AcknowledgeWhen::ByHand;
                let held = HeldMessage {
                    message,
                    receipt: Some(receipt),
                    pending_receivers: streams.saturating_add(u32::from(by_hand)),
                    by_hand,
                    reason: None,
                    is_given_out: false,
                    #[cfg(feature = "journal")]
                    note: None,
                    may_return: true,
                    since: self.connection,
                };
                Entry::Held(self.held.insert(number, held))
            }
        })
    }

    fn report_unclaimed(&mut self) {
        if !core::mem::replace(&mut self.told_unclaimed, true) {
            self.queue_connection_event(ConnectionEvent::Unclaimed);
        }
    }

    fn put_unclaimed(
        &mut self,
        message: Message,
        incoming: &Incoming<'_>,
        number: u64,
        now: Instant,
    ) {
        if message.qos != QoS::AtMostOnce {
            self.report_unclaimed();
        }
        if self.options.unclaimed == Unclaimed::Discard {
            self.acknowledge_at_once(incoming, now);
            return;
        }
        let waiting = self.hold(message, incoming, number, 1);
        self.put_to_others(number, waiting);
    }

    /// Returns the next message of a subscription or, with `None`, the next message that matches no subscription.
    ///
    /// By default a message at QoS 1 or 2 is then in the program's hand until [`Self::taken`]. When there is no message,
    /// [`AgentEvent::Messages`] is the event that reports the next one.
    pub fn next_message(&mut self, from: Option<RouteId>) -> Option<ReceivedMessage> {
        let when_taken = self.options.acknowledge == AcknowledgeWhen::Taken;
        let inbox = inbox(&mut self.routes, &mut self.others, from)?;
        inbox.is_read = true;
        let received = match inbox.pop() {
            None => {
                inbox.wanted = true;
                return None;
            }
            Some(Popped::Message(message)) => ReceivedMessage { message, id: None },
            Some(Popped::Held(id)) => {
                let held = self.held.get_mut(id)?;
                held.is_given_out = true;
                let message = held.message.clone();
                if when_taken {
                    inbox.in_hand.push(id);
                } else if self.held.done(id) {
                    // The message was acknowledged before the last inbox gave it out, and stays stored if the server may send it
                    // again.
                    if let Some(held) = self.held.get(id)
                        && (held.receipt.is_some() || !held.may_return)
                    {
                        self.held.remove(id);
                    }
                }
                ReceivedMessage {
                    message,
                    id: Some(id),
                }
            }
        };
        self.resume_reading();
        Some(received)
    }

    /// Returns whether [`Self::next_message`] would return a message at QoS 0, which a caller may take before the program asks for it.
    #[must_use]
    pub fn next_is_qos0(&self, from: Option<RouteId>) -> bool {
        let inbox = self.inboxes().find(|(id, _)| *id == from);
        inbox.is_some_and(|(_, inbox)| inbox.next_is_qos0())
    }

    /// Returns whether a subscription has no more messages: the subscription has ended or the agent is stopped, and the inbox is
    /// empty.
    #[must_use]
    pub fn is_over(&self, from: Option<RouteId>) -> bool {
        let Some(id) = from else {
            return self.is_stopped() && self.others.is_empty();
        };
        match self.routes.iter().find(|route| route.id == id) {
            Some(route) => match &route.receiver {
                Receiver::Stream(inbox) => {
                    (route.standing == SubscriptionState::Over || self.is_stopped())
                        && inbox.is_empty()
                }
                _ => true,
            },
            None => true,
        }
    }

    /// Tells the agent that the program is done with a message of [`Self::next_message`]. The agent acknowledges the message when
    /// this was called for each matching subscription. Does nothing for a message that is not in hand.
    pub fn taken(&mut self, from: Option<RouteId>, id: MessageId, now: Instant) {
        let Some(inbox) = inbox(&mut self.routes, &mut self.others, from) else {
            return;
        };
        let Some(at) = inbox.in_hand.iter().position(|known| *known == id) else {
            return;
        };
        inbox.in_hand.swap_remove(at);
        if self.held.done(id) {
            let reason = self.held.get(id).and_then(|held| held.reason);
            self.finish(id, reason.unwrap_or(ReasonCode::Success), now);
        }
        self.resume_reading();
    }

    /// Acknowledges a message by hand with a reason code, which MQTT 5 sends and 3.1.1 does not have. Messages may be
    /// acknowledged in any order; the packets go out in the order of the messages. With [`AcknowledgeWhen::Taken`] this also
    /// takes the message.
    ///
    /// # Errors
    /// [`Refused::NothingToAcknowledge`] if the message is acknowledged already; [`Refused::Encode`] for a reason code that
    /// PUBACK or PUBREC does not have.
    pub fn acknowledge(
        &mut self,
        id: MessageId,
        reason: ReasonCode,
        now: Instant,
    ) -> Result<(), Refused> {
        let Some(held) = self.held.get_mut(id) else {
            return Err(Refused::NothingToAcknowledge);
        };
        if held.reason.is_some() {
            return Err(Refused::NothingToAcknowledge);
        }
        let kind = match held.message.qos {
            QoS::ExactlyOnce => AckKind::PubRec,
            QoS::AtMostOnce | QoS::AtLeastOnce => AckKind::PubAck,
        };
        if !reason.belongs_in(kind.packet_type()) {
            return Err(EncodeError::ReasonCode(reason).into());
        }
        held.reason = Some(reason);
        if self.options.acknowledge == AcknowledgeWhen::ByHand {
            if self.held.done(id) {
                self.finish(id, reason, now);
            } else {
                self.send_acknowledgement(id, reason, now);
            }
        } else {
            let holders: Vec<_> = core::iter::once(None)
                .chain(self.routes.iter().map(|route| Some(route.id)))
                .collect();
            for from in holders {
                self.taken(from, id, now);
            }
        }
        self.resume_reading();
        Ok(())
    }

    /// Sends the acknowledgement and forgets the message.
    pub(crate) fn finish(&mut self, id: MessageId, reason: ReasonCode, now: Instant) {
        self.send_acknowledgement(id, reason, now);
        let Some(held) = self.held.get_mut(id) else {
            return;
        };
        // Without a receipt, the acknowledgement waits until the server sends the message again.
        if held.receipt.is_some() || !held.may_return {
            self.held.remove(id);
        }
    }

    pub(crate) fn send_acknowledgement(&mut self, id: MessageId, reason: ReasonCode, now: Instant) {
        if let Some(held) = self.held.get_mut(id) {
            held.reason = Some(reason);
            #[cfg(feature = "journal")]
            if held.note.is_some() {
                self.send_note(id, now);
                return;
            }
            if let Some(receipt) = held.receipt {
                let _ = self.client.acknowledge(receipt, reason, now);
            }
        }
    }

    /// Ends a stream of the program. Its unfinished messages wait for another subscription, or end with the session.
    pub(crate) fn end_stream(&mut self, mut inbox: Inbox, now: Instant) {
        let in_hand = core::mem::take(&mut inbox.in_hand)
            .into_iter()
            .map(|id| (id.number, Entry::Held(id)));
        for id in in_hand.clone().filter_map(|(_, entry)| entry.id()) {
            if let Some(held) = self.held.get_mut(id) {
                held.message.dup = true;
            }
        }
        let entries: Vec<_> = in_hand.chain(inbox.take_qos12()).collect();
        let mut left = Vec::new();
        for (number, entry) in entries {
            let elsewhere = self.is_in_another_inbox(number, &entry);
            match entry.id() {
                Some(id) if self.held.get(id).is_some_and(HeldMessage::is_elsewhere) => {
                    self.held.done(id);
                }
                Some(id) if elsewhere || self.options.unclaimed == Unclaimed::Discard => {
                    self.discard(id, now);
                }
                None if elsewhere => {}
                _ => left.push((number, entry)),
            }
        }
        if !left.is_empty() {
            self.report_unclaimed();
            self.others.put_back(left);
            if core::mem::take(&mut self.others.wanted) {
                self.events.push_back(AgentEvent::Messages(None));
            }
        }
        self.resume_reading();
    }

    /// Acknowledges and forgets a message that no stream will give out.
    fn discard(&mut self, id: MessageId, now: Instant) {
        while self
            .held
            .get(id)
            .is_some_and(|held| held.pending_receivers > 0)
        {
            self.held.done(id);
        }
        let reason = self.held.get(id).and_then(|held| held.reason);
        self.finish(id, reason.unwrap_or(ReasonCode::Success), now);
    }

    /// Returns whether a message of an ended stream is also in another inbox, or was acknowledged by hand.
    fn is_in_another_inbox(&self, number: u64, entry: &Entry) -> bool {
        match entry.id().map(|id| self.held.get(id)) {
            Some(held) => held.is_none_or(|held| held.by_hand && held.reason.is_some()),
            None => self.inboxes().any(|(_, inbox)| inbox.has(number)),
        }
    }

    /// Acknowledges and drops the messages of an ended subscription without a stream, except those that are in another inbox.
    pub(crate) fn drop_unclaimed(&mut self, over: &Route, now: Instant) {
        let routes = &self.routes;
        let belongs = |message: &Message| {
            over.matches_always(message.topic())
                && !routes.iter().any(|route| route.matches(message.topic()))
        };
        let mut dropped = Inbox::default();
        self.others.move_to(&mut dropped, &self.held, belongs);
        while let Some(popped) = dropped.pop() {
            if let Popped::Held(id) = popped {
                self.discard(id, now);
            }
        }
        self.resume_reading();
    }

    /// Puts an unclaimed message that the program has not finished back into the inbox of the others.
    pub fn give_back(&mut self, id: MessageId) {
        let in_hand = &mut self.others.in_hand;
        let Some(at) = in_hand.iter().position(|known| *known == id) else {
            return;
        };
        in_hand.swap_remove(at);
        if let Some(held) = self.held.get_mut(id) {
            held.message.dup = true;
        }
        self.others.put_back([(id.number, Entry::Held(id))]);
        if core::mem::take(&mut self.others.wanted) {
            self.events.push_back(AgentEvent::Messages(None));
        }
    }

    /// Ends the stream of unclaimed messages: these no longer pause reading.
    pub fn leave_others(&mut self) {
        (self.others.wanted, self.others.is_read) = (false, false);
        self.resume_reading();
    }

    /// Returns how many messages at QoS 0 were dropped for a subscription, or for the others, since its queue became full.
    #[must_use]
    pub fn dropped(&self, from: Option<RouteId>) -> u64 {
        let Some(id) = from else {
            return self.others.dropped;
        };
        self.routes
            .iter()
            .find(|route| route.id == id)
            .map_or(0, |route| match &route.receiver {
                Receiver::Stream(inbox) => inbox.dropped,
                _ => 0,
            })
    }

    /// Returns how many messages wait for a subscription, or for the others (`None`).
    #[must_use]
    pub fn waiting(&self, from: Option<RouteId>) -> usize {
        self.inboxes()
            .find(|(id, _)| *id == from)
            .map_or(0, |(_, inbox)| inbox.len())
    }

    /// Returns the bytes of messages at QoS 1 and 2 that count against [`crate::Options::receive_limit`].
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let acknowledged = if self.options.acknowledge == AcknowledgeWhen::Arrived {
            self.inboxes()
                .map(|(_, inbox)| inbox.acknowledged_bytes())
                .sum()
        } else {
            0
        };
        self.held.bytes.saturating_add(acknowledged)
    }

    /// Returns whether the caller must not read until the program has taken messages.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    fn inboxes(&self) -> impl Iterator<Item = (Option<RouteId>, &Inbox)> {
        let streams = self
            .routes
            .iter()
            .filter_map(|route| match &route.receiver {
                Receiver::Stream(inbox) => Some((Some(route.id), inbox)),
                _ => None,
            });
        core::iter::once((None, &self.others)).chain(streams)
    }

    fn is_full(&self) -> bool {
        self.held_bytes() >= self.options.receive_limit
            || (self.options.qos0_overflow == QoS0Overflow::PauseReading
                && self.inboxes().any(|(id, inbox)| {
                    (id.is_some() || self.others_are_awaited()) && inbox.is_full(&self.options)
                }))
    }

    /// Returns whether the program reads the unclaimed messages, or has subscribed in its options.
    fn others_are_awaited(&self) -> bool {
        // The route of an UNSUBSCRIBE for filters of an earlier session has this receiver too, and no reader.
        let asked = |route: &Route| matches!(route.receiver, Receiver::Others) && route.is_wanted();
        self.others.is_read || self.routes.iter().any(asked)
    }

    /// Resumes reading after messages were taken, if the limits allow it.
    pub(crate) fn resume_reading(&mut self) {
        self.paused = self.paused && self.is_full();
    }
}

fn inbox<'a>(
    routes: &'a mut [Route],
    others: &'a mut Inbox,
    from: Option<RouteId>,
) -> Option<&'a mut Inbox> {
    let Some(id) = from else {
        return Some(others);
    };
    match &mut routes.iter_mut().find(|route| route.id == id)?.receiver {
        Receiver::Stream(inbox) => Some(inbox),
        _ => None,
    }
}
