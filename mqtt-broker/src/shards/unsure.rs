//! Keeps messages of a shard that did not know the filters of this one, until all shards that are there are known: before that, this shard
//! cannot tell whether a shared subscription has members here alone, or a member in a third shard has the message already. Subscribers
//! without a share have it at once. What is kept is in memory, within the limits of one queue; what has no room is dropped and counted.

use std::collections::VecDeque;

use mqtt_session::{Instant, Outgoing};

use crate::broker::Broker;
use crate::hooks::Hooks;
use crate::message::Message;
use crate::router::Matches;
use crate::routing_limits::RoutingLimits;
use crate::source::Source;

/// The steps of a message whose shared subscriptions are searched.
const STEPS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Unsure {
    waiting: VecDeque<Message>,
    bytes: usize,
}

impl Unsure {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<H: Hooks> Broker<H> {
    /// Keeps a message for shared subscriptions, if not all shards are known or older ones wait. Returns whether it was kept or dropped.
    pub(super) fn keep_unsure(&mut self, message: &Outgoing<'_>, now: Instant) -> bool {
        let most = (self.config.queued_messages, self.config.queued_bytes);
        let Some(links) = &mut self.links else {
            return false;
        };
        if links.knows_present() && links.unsure.is_empty() {
            return false;
        }
        let unsure = &mut links.unsure;
        let kept = Message::new(message, now).ok().filter(|kept| {
            unsure.waiting.len() < most.0 && unsure.bytes.saturating_add(kept.size()) <= most.1
        });
        match kept {
            Some(kept) => {
                unsure.bytes = unsure.bytes.saturating_add(kept.size());
                unsure.waiting.push_back(kept);
            }
            None => {
                self.count_dropped(1);
            }
        }
        true
    }

    /// Returns whether messages were kept whose members can be chosen now.
    pub(crate) fn has_unsure(&self) -> bool {
        let links = self.links.as_ref();
        links.is_some_and(|links| !links.unsure.is_empty() && links.knows_present())
    }

    /// Gives the next kept messages to members of shared subscriptions that are here alone.
    pub(crate) fn continue_unsure(&mut self, now: Instant) {
        while self.meter.has_share() && self.has_unsure() {
            let unsure = self.links.as_mut().map(|links| &mut links.unsure);
            let next = unsure.and_then(|unsure| {
                let message = unsure.waiting.pop_front()?;
                unsure.bytes = unsure.bytes.saturating_sub(message.size());
                Some(message)
            });
            let Some(message) = next else { return };
            self.meter.spend(STEPS);
            if !message.has_expired(now) {
                self.press = RoutingLimits::MOVED;
                self.deliver_unsure(&message, now);
                self.press = RoutingLimits::NONE;
            }
        }
    }

    fn deliver_unsure(&mut self, message: &Message, now: Instant) {
        let publish = message.publish();
        let outgoing = message.outgoing(&publish);
        let mut matches = Matches::default();
        // Few messages are kept, at the start of a shard, so their searches are not divided.
        self.router
            .matches(publish.topic.as_str(), &mut matches, usize::MAX);
        self.meter.spend(matches.steps());
        let mut source = Source::of(message, &outgoing);
        self.begin_record();
        for group in &matches.groups {
            if self.has_own_members_only(*group)
                && let Some(target) = self.choose(*group, publish.topic)
                && self.next_copy()
            {
                self.deliver(&target, &mut source, target.identifier(), now);
            }
        }
        if self.has_journal() {
            self.end_record(&mut source, now);
        }
    }
}
