//! Chooses the members of shared subscriptions that get messages, also for messages that an ended session left.

use mqtt_session::Instant;
use mqtt_session::proto::{QoS, TopicName};

use crate::broker::Broker;
use crate::fanout::Target;
use crate::hooks::Hooks;
use crate::journal::RecordName;
use crate::keys::{GroupKey, SessionKey};
use crate::message::Message;
use crate::queue::{Identifiers, Lanes, Queued};
use crate::rights::may_receive;
use crate::routing_limits::RoutingLimits;
use crate::shards::Visited;
use crate::source::Source;

/// Messages of an ended member of shared subscriptions.
pub(crate) struct HandedOver {
    items: Lanes,
    /// The number of its session in records; 0 if it has none.
    origin: u64,
}

/// How many members are checked for one message.
const LOOKED_AT: usize = 1_024;

impl<H: Hooks> Broker<H> {
    /// Chooses the member of a shared subscription that gets the next message: in turn, but first a connected one with an empty
    /// queue, then any connected one, then one that is not connected, and a slow one last. Skips members that may not receive the
    /// topic.
    pub(crate) fn choose(&mut self, group: GroupKey, topic: TopicName<'_>) -> Option<Target> {
        let current = self.current_rights();
        let state = self.router.group_mut(group)?;
        let turn = |offset: usize| {
            let at = state.next.wrapping_add(offset);
            at.checked_rem(state.members.len())
        };
        let mut best: Option<(u8, usize, u32)> = None;
        let mut looked_at = 0_usize;
        for offset in 0..state.members.len().min(LOOKED_AT) {
            let Some(at) = turn(offset) else { break };
            looked_at = offset;
            let session = state
                .members
                .get(at)
                .and_then(|member| self.sessions.get_mut(member.session));
            let Some(session) = session.filter(|session| !session.is_over) else {
                continue;
            };
            let mut weight = 1;
            if let (Some(shard), Some(links)) = (session.link, &self.links) {
                // A shard whose list comes gets the message anyway, and chooses among its own members.
                if links.is_passed_over(shard) || links.is_unknown(shard) {
                    continue;
                }
                let member = state.members.get(at);
                weight = links.weight(shard, member.and_then(|member| member.identifier));
            }
            let full = session.rights.are_full(current.version);
            if !full && !may_receive(session, current, &mut self.hooks, topic) {
                continue;
            }
            let connection = session.connection.filter(|_| weight > 0);
            let rank = match (connection, &session.pressure) {
                (Some(_), None) if session.queue.is_empty() => 0,
                (Some(_), None) => 1,
                (Some(_), Some(pressure)) if !pressure.is_slow() => 2,
                (None, _) => 3,
                (Some(_), Some(_)) => 4,
            };
            if best.is_none_or(|(other, ..)| rank < other) {
                best = Some((rank, at, weight));
            }
            if rank == 0 {
                break;
            }
        }
        self.meter.spend(looked_at / 2);
        let (_, at, weight) = best?;
        state.turn_ends(at, weight);
        let subscriber = *state.members.get(at)?;
        Some(Target::member(subscriber, state.share(group)))
    }

    /// Delivers a message to one member of each shared subscription. Returns whether there was one.
    pub(crate) fn deliver_to_groups(
        &mut self,
        groups: &[GroupKey],
        from: Option<SessionKey>,
        source: &mut Source<'_>,
        now: Instant,
    ) -> bool {
        let is_of_shard = self.links.is_some() && from.is_some_and(|key| self.is_link(key));
        if is_of_shard && !self.is_unsure() {
            // The publisher's shard has chosen.
            return false;
        }
        let mut found = false;
        for group in groups {
            if is_of_shard && !self.has_own_members_only(*group) {
                continue;
            }
            if let Some(target) = self.choose(*group, source.message.topic) {
                found = true;
                if self.next_copy() {
                    self.deliver(&target, source, target.identifier(), now);
                }
            }
        }
        found
    }

    /// Gives a message that is delivered in portions to another member of a shared subscription: the session of the chosen one has ended
    /// before the message came to it. `name` is the name of that target in the message's record, 0 if it has none.
    pub(crate) fn deliver_to_another(
        &mut self,
        chosen: &Target,
        message: &Message,
        name: u64,
        now: Instant,
    ) {
        let listed = message.record();
        let mut message = message.clone();
        let record = if name == 0 {
            RecordName::NONE
        } else {
            listed.of_copy(name)
        };
        message.set_record(record);
        let subscriber = &chosen.subscriber;
        let item = Queued {
            qos: self.config.delivery_qos(message.qos(), subscriber.qos),
            retain: message.is_retained() && subscriber.retain_as_published,
            message,
            identifiers: Identifiers::new(chosen.identifier()),
            share: chosen.share,
        };
        // The other member is a target in addition to those of the message's record.
        self.deliver_recorded(RecordName::NONE);
        self.hand_over_one(item, RecordName::of_target(name).0, now);
        self.deliver_recorded(listed);
    }

    /// Keeps the messages of an ended member for other members. They count in the total of all queues until then.
    pub(crate) fn hand_over(&mut self, items: Option<Lanes>, origin: u64, now: Instant) {
        if let Some(items) = items {
            self.to_other_members
                .push_back(HandedOver { items, origin });
            self.continue_handing_over(now);
        }
    }

    /// Gives the next kept messages to other members.
    pub(crate) fn continue_handing_over(&mut self, now: Instant) {
        while self.meter.has_share()
            && let Some(HandedOver { items, origin }) = self.to_other_members.front_mut()
        {
            let origin = *origin;
            match items.pop() {
                Some(item) => {
                    self.meter.spend(4);
                    self.queued.remove(item.size());
                    self.press = RoutingLimits::MOVED;
                    self.hand_over_one(item, origin, now);
                    self.press = RoutingLimits::NONE;
                }
                None => {
                    self.to_other_members.pop_front();
                }
            }
        }
    }

    /// Gives a message to another member of its shared subscription. Drops it if there is none, also in shards that are not known yet.
    fn hand_over_one(&mut self, item: Queued, origin: u64, now: Instant) {
        let record = item.message.record();
        let group = item
            .share
            .and_then(|share| self.router.shared_mut(share).map(|_| share.group()));
        let visited = Visited::of(item.identifiers.as_slice());
        let topic = item.message.publish().topic;
        let target = group.and_then(|group| self.choose_unvisited(group, topic, visited));
        let Some(target) = target else {
            if self.search_others_later(&item, origin) {
                return;
            }
            self.count_dropped(1);
            self.record_handed_over(record, origin);
            return;
        };
        let published = item.message.qos();
        let qos = self.config.delivery_qos(published, target.subscriber.qos);
        let key = target.subscriber.session;
        let stays = qos > QoS::AtMostOnce && self.number_of(key) == origin;
        if qos > QoS::AtMostOnce || self.keeps_qos0(key) {
            let item = Queued {
                qos,
                identifiers: self.member_identifiers(&target, visited),
                share: target.share,
                ..item
            };
            self.handed_over_from(origin);
            self.enqueue(key, item, now);
            self.handed_over_from(0);
        }
        if !stays {
            self.record_handed_over(record, origin);
        }
    }
}
