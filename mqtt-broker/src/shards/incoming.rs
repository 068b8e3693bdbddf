//! Handles messages that come over links. Their shard has checked them: limits and rights of the publisher are not asked again.

use mqtt_session::proto::num::to_u64;
use mqtt_session::proto::{Properties, Property, QoS, ReasonCode, TopicFilter};
use mqtt_session::{Incoming, Instant, Outgoing, Token};
use smallvec::SmallVec;

use super::Visited;
use super::control::TOPIC;
use super::retained::Kind;
use crate::Handled;
use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::fanout::Routed;
use crate::hooks::{Ending, Hooks};
use crate::keys::{ConnectionKey, GroupKey, SessionKey};
use crate::pressure::Withheld;
use crate::queue::Identifiers;
use crate::router::Share;
use crate::routing_limits::RoutingLimits;
use crate::source::Source;

/// The answer to a message for a shared subscription that has no members any more.
const NO_MEMBER: ReasonCode = ReasonCode::ImplementationSpecificError;

/// Returns whether a property is the publisher's, and not one of the link.
fn is_of_publisher(property: &Property<'_>) -> bool {
    !matches!(property, Property::SubscriptionIdentifier(_))
}

impl<H: Hooks> Broker<H> {
    /// Handles received bytes, without counting what links bring as received from clients.
    pub(crate) fn receive_uncounted(
        &mut self,
        id: ConnectionId,
        input: &[u8],
        now: Instant,
    ) -> Handled {
        let before = self.statistics;
        let received = self.receive_any(id, input, now);
        self.statistics.packets_received = before.packets_received;
        self.statistics.bytes_received = before.bytes_received;
        received
    }

    /// Handles a message of another shard.
    pub(crate) fn message_from_shard(
        &mut self,
        index: ConnectionKey,
        incoming: &Incoming<'_>,
        now: Instant,
    ) {
        let publish = &incoming.publish;
        let key = self.connections.get(index).and_then(|own| own.session);
        let session = key.and_then(|key| self.sessions.get(key));
        let (Some(key), Some(shard)) = (key, session.and_then(|session| session.link)) else {
            return;
        };
        if publish.topic == TOPIC {
            self.told(shard, key, publish.payload, now);
            return;
        }
        let properties = publish.properties;
        let kind = Kind::of(properties.subscription_identifiers());
        let others: SmallVec<[Property<'_>; 8]>;
        let properties = if kind != Kind::Live {
            others = properties.iter().filter(is_of_publisher).collect();
            Properties::from(&others[..])
        } else {
            properties
        };
        let message = Outgoing {
            topic: publish.topic,
            qos: publish.qos(),
            retain: publish.retain,
            properties,
            payload: publish.payload,
        };
        self.count_of_shard(&message);
        let before = self.position();
        if self.has_journal() && message.qos > QoS::AtMostOnce {
            if self.storage_is_refused() {
                // The message comes again with the next link.
                let ending = Ending::ByBroker(ReasonCode::QuotaExceeded);
                self.end(index, ending, now);
                return;
            }
            let packet_id = publish.delivery.packet_id();
            self.record_origin(key, packet_id.filter(|_| message.qos == QoS::ExactlyOnce));
        }
        if incoming.receipt.is_some() {
            self.press = self.limits_for_shard(shard, message.topic.as_bytes());
        }
        let (reason, routed) = self.accept_of_shard(key, kind, &message, now);
        if let Some(receipt) = incoming.receipt {
            let topic = message.topic.as_bytes().len();
            let size = topic.saturating_add(message.payload.len());
            let answer = Withheld::new(receipt, reason, before);
            self.answer_message(index, answer, routed, size);
        }
        self.press = RoutingLimits::default();
    }

    fn count_of_shard(&mut self, message: &Outgoing<'_>) {
        if let Some(links) = &mut self.links {
            let (messages, payload) = links.received;
            let size = to_u64(message.payload.len());
            links.received = (messages.saturating_add(1), payload.saturating_add(size));
        }
    }

    fn accept_of_shard(
        &mut self,
        key: SessionKey,
        kind: Kind,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> (ReasonCode, Routed) {
        let routed = match kind {
            Kind::Live => self.route(Some(key), message, now),
            Kind::Unsure => {
                let is_kept = self.keep_unsure(message, now);
                self.set_unsure(!is_kept);
                let routed = self.route(Some(key), message, now);
                self.set_unsure(false);
                routed
            }
            Kind::Keep(qos) => {
                let message = Outgoing { qos, ..*message };
                self.keep_of_shard(key, &message, now);
                Routed::ToAll
            }
            Kind::Share(identifier, visited) => {
                let routed = self.route_to_share(identifier, visited, message, now);
                if routed == Routed::ToNobody {
                    return (NO_MEMBER, routed);
                }
                routed
            }
        };
        (ReasonCode::Success, routed)
    }

    /// Gives a message to a member of the shared subscription for which another shard has chosen this one.
    fn route_to_share(
        &mut self,
        identifier: u32,
        visited: Visited,
        message: &Outgoing<'_>,
        now: Instant,
    ) -> Routed {
        let links = self.links.as_ref();
        let visited = links.map_or(visited, |links| links.and_own(visited));
        let filter = links.and_then(|links| links.filters.share(identifier));
        let filter = filter
            .as_deref()
            .and_then(|filter| TopicFilter::new(filter).ok());
        let share = filter.and_then(|filter| self.router.share(&filter));
        let target = share.map(Share::group).and_then(|group| {
            self.set_only_own(true);
            let own = self.choose(group, message.topic);
            self.set_only_own(false);
            // The last member here has gone meanwhile, or none may read the message.
            own.or_else(|| self.choose_unvisited(group, message.topic, visited))
        });
        let Some(target) = target else {
            if message.qos == QoS::AtMostOnce {
                // The shard that chose this one does not hear about it.
                self.count_dropped(1);
            }
            return Routed::ToNobody;
        };
        let identifiers = self.member_identifiers(&target, visited);
        let mut source = Source::new(message);
        self.begin_record();
        if self.next_copy() {
            self.deliver(&target, &mut source, identifiers.as_slice(), now);
        }
        if self.has_journal() {
            self.end_record(&mut source, now);
        }
        Routed::ToAll
    }

    /// Handles the acknowledgement of a message that another shard did not take: another member of its shared subscription gets it.
    /// Returns whether it was one.
    pub(crate) fn refused_by_shard(
        &mut self,
        id: ConnectionId,
        token: Token,
        now: Instant,
    ) -> bool {
        let key = self
            .connection(id)
            .and_then(|connection| connection.session);
        let session = key.and_then(|key| self.sessions.get_mut(key));
        let session = session.filter(|session| session.link.is_some());
        let (Some(key), Some(session)) = (key, session) else {
            return false;
        };
        let Some(mut item) = session.shared.remove(&token) else {
            return false;
        };
        if let Some(shard) = session.link {
            let identifiers = item.identifiers.as_slice();
            let visited = Visited::of(identifiers).with(shard);
            item.identifiers = Identifiers::new(&visited.behind(identifiers));
        }
        session.queue.acknowledged();
        session.note_taken(now);
        self.forget_flight(key, token);
        self.queued.add(item.size());
        let origin = self.number_of(key);
        self.hand_over(Some(std::iter::once(item).collect()), origin, now);
        self.pump(key, now);
        true
    }

    fn set_unsure(&mut self, is_unsure: bool) {
        if let Some(links) = &mut self.links {
            links.is_unsure = is_unsure;
        }
    }

    /// Returns whether a message from another shard is one that may have missed shared subscriptions of this shard.
    pub(crate) fn is_unsure(&self) -> bool {
        let links = self.links.as_ref();
        links.is_some_and(|links| links.is_unsure)
    }

    /// Returns whether all members of a shared subscription are clients of this shard.
    pub(crate) fn has_own_members_only(&mut self, group: GroupKey) -> bool {
        let Some(group) = self.router.group_mut(group) else {
            return false;
        };
        let members = (0..group.members.len()).filter_map(|at| group.members.get(at));
        self.meter.spend(group.members.len() / 8);
        let sessions = members.filter_map(|member| self.sessions.get(member.session));
        sessions.into_iter().all(|session| session.link.is_none())
    }

    fn set_only_own(&mut self, only_own: bool) {
        if let Some(links) = &mut self.links {
            links.only_own = only_own;
        }
    }
}
