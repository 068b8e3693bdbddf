//! Decides which SUBSCRIBE and UNSUBSCRIBE packets are to be sent, and which inbox gets the messages.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use mqtt_proto::{
    Properties, Property, QoS, ReasonCode, RetainHandling, SubAck, Subscription, TopicFilter,
    TopicName,
};
use mqtt_session::{Instant, Refused, Token};

use crate::agent::Agent;
use crate::error::Error;
use crate::event::AgentEvent;
use crate::inbox::Inbox;
use crate::options::OwnedSubscription;

/// Names a subscription.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RouteId(u64);

/// The state of a subscription at the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SubscriptionState {
    /// SUBSCRIBE is not sent yet.
    Wanted,
    /// SUBSCRIBE is sent, and not answered.
    Asked(Token),
    /// The server granted at least one filter.
    Granted,
    /// UNSUBSCRIBE is not sent yet.
    Unwanted,
    /// UNSUBSCRIBE is sent, and not answered.
    Leaving(Token),
    /// The subscription has ended: the server refused it, or the program gave it up.
    Over,
}

/// The receiver of the messages of a subscription.
#[derive(Debug)]
pub(crate) enum Receiver {
    /// A stream of the program.
    Stream(Inbox),
    /// The stream of unclaimed messages.
    Others,
    /// The requests that await a response.
    Requests,
    /// There is no receiver any more. The messages are unclaimed until the server has answered the UNSUBSCRIBE, and are then
    /// dropped.
    Nobody,
}

/// A [`Subscription`] that owns its topic filter.
#[derive(Clone, Debug)]
pub(crate) struct PlainSubscription {
    pub(crate) filter: String,
    /// Whether the filter has neither a wildcard nor a share name.
    is_plain: bool,
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: RetainHandling,
}

impl PlainSubscription {
    pub(crate) fn new(subscription: &Subscription<'_>) -> Self {
        let Subscription {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        } = *subscription;
        Self {
            filter: filter.as_str().to_owned(),
            is_plain: !filter.as_str().contains(['+', '#']) && !filter.is_shared(),
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        }
    }

    fn filter(&self) -> TopicFilter<'_> {
        TopicFilter::new(&self.filter).unwrap_or_default()
    }

    fn matches(&self, topic: TopicName<'_>) -> bool {
        if self.is_plain {
            self.filter.as_bytes() == topic.as_bytes()
        } else {
            self.filter().matches(topic)
        }
    }

    pub(crate) fn subscription(&self) -> Subscription<'_> {
        Subscription {
            filter: self.filter(),
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling,
        }
    }
}

/// The filters of one SUBSCRIBE, and the receiver of their messages.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) id: RouteId,
    pub(crate) wanted: Vec<PlainSubscription>,
    pub(crate) identifier: Option<u32>,
    user_properties: Vec<(String, String)>,
    pub(crate) standing: SubscriptionState,
    pub(crate) receiver: Receiver,
}

impl Route {
    pub(crate) fn matches(&self, topic: TopicName<'_>) -> bool {
        self.standing != SubscriptionState::Over && self.matches_always(topic)
    }

    /// Returns whether one of its filters matches, even if the subscription has ended.
    pub(crate) fn matches_always(&self, topic: TopicName<'_>) -> bool {
        self.wanted.iter().any(|wanted| wanted.matches(topic))
    }

    /// Returns whether the subscription is granted or still to be requested.
    pub(crate) const fn is_wanted(&self) -> bool {
        matches!(
            self.standing,
            SubscriptionState::Wanted | SubscriptionState::Asked(_) | SubscriptionState::Granted
        )
    }

    pub(crate) fn has(&self, filter: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted.filter == filter)
    }

    fn filters(&self) -> Vec<TopicFilter<'_>> {
        self.wanted.iter().map(PlainSubscription::filter).collect()
    }

    fn subscriptions(&self) -> Vec<Subscription<'_>> {
        self.wanted
            .iter()
            .map(PlainSubscription::subscription)
            .collect()
    }

    fn properties(&self) -> Vec<Property<'_>> {
        let identifier = self.identifier.map(Property::SubscriptionIdentifier);
        let pairs = crate::options::pairs(&self.user_properties);
        identifier.into_iter().chain(pairs).collect()
    }
}

impl Agent {
    /// Adds the subscriptions of the options.
    pub(crate) fn subscribe_from_the_start(&mut self, subscriptions: Vec<OwnedSubscription>) {
        for OwnedSubscription(wanted) in subscriptions {
            let wanted = Vec::from([wanted]);
            self.add_route(
                wanted,
                &Properties::EMPTY,
                SubscriptionState::Wanted,
                Receiver::Others,
            );
        }
    }

    /// Subscribes to filters by one SUBSCRIBE, now or with the next connection. `properties` may have a subscription
    /// identifier and user properties (5). Unclaimed messages that came before and match are the first ones of this
    /// subscription.
    ///
    /// The answer is [`AgentEvent::Subscribed`] or [`AgentEvent::SubscribeFailed`]. When the server loses the session, the
    /// agent subscribes again.
    pub fn subscribe(
        &mut self,
        filters: &[Subscription<'_>],
        properties: &Properties<'_>,
        now: Instant,
    ) -> RouteId {
        let wanted = filters.iter().map(PlainSubscription::new).collect();
        let mut inbox = Inbox::default();
        if self.is_stopped() {
            return self.add_route(
                wanted,
                properties,
                SubscriptionState::Over,
                Receiver::Stream(inbox),
            );
        }
        let claimed = |message: &mqtt_proto::Message| {
            filters
                .iter()
                .any(|subscription| subscription.filter.matches(message.topic()))
        };
        self.others.move_to(&mut inbox, &self.held, claimed);
        let receiver = Receiver::Stream(inbox);
        let id = self.add_route(wanted, properties, SubscriptionState::Wanted, receiver);
        self.send_waiting(now);
        id
    }

    /// Unsubscribes from filters of an earlier session that no subscription of this process has. [`AgentEvent::Unsubscribed`]
    /// reports the answer.
    pub fn unsubscribe_filters(&mut self, filters: &[TopicFilter<'_>], now: Instant) -> RouteId {
        let wanted = filters
            .iter()
            .map(|filter| PlainSubscription::new(&Subscription::new(*filter, QoS::AtMostOnce)))
            .collect();
        let properties = &Properties::EMPTY;
        let id = self.add_route(
            wanted,
            properties,
            SubscriptionState::Unwanted,
            Receiver::Others,
        );
        self.send_waiting(now);
        id
    }

    /// Gives up a subscription. [`AgentEvent::Unsubscribed`] reports the answer; one that has ended already
    /// ([`Self::has_ended`]) has none. The program can still take messages that came before. A filter that another subscription of
    /// this agent has stays subscribed at the server, and has no code in the answer.
    pub fn unsubscribe(&mut self, id: RouteId, now: Instant) {
        self.subscriptions_change();
        // The server may know the filters from a kept session, or from a SUBSCRIBE whose answer was lost.
        let may_be_known = self.options.is_persistent();
        if let Some(route) = self.route(id) {
            match route.standing {
                SubscriptionState::Wanted if !may_be_known => {
                    route.standing = SubscriptionState::Over;
                    self.events
                        .push_back(AgentEvent::Unsubscribed(id, Vec::new()));
                }
                SubscriptionState::Wanted => route.standing = SubscriptionState::Unwanted,
                // The agent ignores an answer to SUBSCRIBE that comes later.
                SubscriptionState::Asked(_) | SubscriptionState::Granted => {
                    route.standing = SubscriptionState::Unwanted
                }
                SubscriptionState::Unwanted
                | SubscriptionState::Leaving(_)
                | SubscriptionState::Over => {}
            }
        }
        self.send_waiting(now);
    }

    /// Gives up a subscription and its messages. Its QoS 1 and 2 messages that the program has not finished stay unacknowledged:
    /// they wait for the next subscription that they match, or for the stream of unclaimed messages. If the session outlives its
    /// connections, the server keeps the subscription. Otherwise the agent unsubscribes, and drops the messages that are still
    /// unclaimed when the server has answered.
    pub fn forget(&mut self, id: RouteId, now: Instant) {
        let Some(index) = self.routes.iter().position(|route| route.id == id) else {
            return;
        };
        let Some(route) = self.routes.get_mut(index) else {
            return;
        };
        // The messages of `unsubscribe_filters` are those of the others, whether its answer is awaited or not.
        let receiver = match &mut route.receiver {
            Receiver::Others => Receiver::Others,
            receiver => core::mem::replace(receiver, Receiver::Nobody),
        };
        let standing = route.standing;
        self.subscriptions_change();
        let Some(route) = self.routes.get_mut(index) else {
            return;
        };
        match standing {
            SubscriptionState::Over | SubscriptionState::Wanted => {
                self.routes.remove(index);
            }
            SubscriptionState::Asked(_) | SubscriptionState::Granted
                if self.options.is_persistent() =>
            {
                self.routes.remove(index);
            }
            SubscriptionState::Asked(_) | SubscriptionState::Granted => {
                route.standing = SubscriptionState::Unwanted
            }
            SubscriptionState::Unwanted | SubscriptionState::Leaving(_) => {}
        }
        if let Receiver::Stream(inbox) = receiver {
            self.end_stream(inbox, now);
        }
        self.send_waiting(now);
    }

    pub(crate) fn add_route(
        &mut self,
        wanted: Vec<PlainSubscription>,
        properties: &Properties<'_>,
        standing: SubscriptionState,
        receiver: Receiver,
    ) -> RouteId {
        #[cfg(feature = "journal")]
        self.forget_restored(&wanted);
        self.subscriptions_change();
        self.next_subscription = self.next_subscription.saturating_add(1);
        let id = RouteId(self.next_subscription);
        self.routes.push(Route {
            id,
            wanted,
            identifier: properties.subscription_identifiers().next(),
            user_properties: properties
                .user_properties()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            standing,
            receiver,
        });
        id
    }

    /// Returns whether a subscription has ended: the server refused it, also when the agent subscribed again, or the program gave it
    /// up and the server has answered. Messages may still wait for it.
    #[must_use]
    pub fn has_ended(&self, id: RouteId) -> bool {
        let route = self.routes.iter().find(|route| route.id == id);
        route.is_none_or(|route| route.standing == SubscriptionState::Over)
    }

    pub(crate) fn route(&mut self, id: RouteId) -> Option<&mut Route> {
        self.routes.iter_mut().find(|route| route.id == id)
    }

    /// Sends the waiting SUBSCRIBE and UNSUBSCRIBE packets, as far as there is room.
    pub(crate) fn send_waiting(&mut self, now: Instant) {
        #[cfg(feature = "journal")]
        if self.journal.subscriptions.changed {
            self.record_subscriptions();
        }
        if !self.client.is_connected() || self.is_closing() {
            return;
        }
        let mut ended = Vec::new();
        for index in 0..self.routes.len() {
            let asked = match self.ask_one(index, now) {
                None => continue,
                Some(Err(Refused::Full | Refused::Offline)) => break,
                Some(asked) => asked,
            };
            let Some(route) = self.routes.get_mut(index) else {
                break;
            };
            route.standing = asked.as_ref().copied().unwrap_or(SubscriptionState::Over);
            match asked {
                Ok(SubscriptionState::Asked(token) | SubscriptionState::Leaving(token)) => {
                    self.unanswered_requests.push(token)
                }
                Ok(_) => ended.push((route.id, AgentEvent::Unsubscribed(route.id, Vec::new()))),
                Err(refused) => {
                    ended.push((
                        route.id,
                        AgentEvent::SubscribeFailed(route.id, refused.into()),
                    ));
                }
            }
        }
        for (id, event) in ended {
            self.over(id, event, now);
        }
    }

    /// Sends the SUBSCRIBE or UNSUBSCRIBE of one route, if one waits. Returns its new state.
    fn ask_one(
        &mut self,
        index: usize,
        now: Instant,
    ) -> Option<Result<SubscriptionState, Refused>> {
        let route = self.routes.get(index)?;
        match route.standing {
            SubscriptionState::Wanted => {
                let properties = route.properties();
                let properties = Properties::from(&properties[..]);
                let asked = self
                    .client
                    .subscribe(&route.subscriptions(), properties, now);
                Some(asked.map(SubscriptionState::Asked))
            }
            SubscriptionState::Unwanted => {
                // The server stores a filter once, even if several subscriptions of this agent have it.
                let mut filters = route.filters();
                filters.retain(|filter| {
                    !self
                        .routes
                        .iter()
                        .any(|other| other.is_wanted() && other.has(filter.as_str()))
                });
                if filters.is_empty() {
                    return Some(Ok(SubscriptionState::Over));
                }
                let asked = self.client.unsubscribe(&filters, Properties::EMPTY, now);
                Some(asked.map(SubscriptionState::Leaving))
            }
            _ => None,
        }
    }

    /// Ends a subscription. Its stream ends after the messages that wait in it.
    fn over(&mut self, id: RouteId, event: AgentEvent, now: Instant) {
        let why = match &event {
            AgentEvent::SubscribeFailed(_, why) => why.clone(),
            _ => Error::Stopped,
        };
        self.events.push_back(event);
        self.subscriptions_change();
        let Some(index) = self.routes.iter().position(|route| route.id == id) else {
            return;
        };
        match self.routes.get(index).map(|route| &route.receiver) {
            Some(Receiver::Stream(_)) => self.events.push_back(AgentEvent::Messages(Some(id))),
            Some(Receiver::Nobody) => {
                let route = self.routes.remove(index);
                self.drop_unclaimed(&route, now);
            }
            Some(Receiver::Requests) => {
                self.routes.remove(index);
                self.end_responses(&why);
            }
            Some(Receiver::Others) | None => {
                self.routes.remove(index);
                // The unclaimed messages may have no reader any more.
                self.resume_reading();
            }
        }
    }

    /// Removes a token from those of SUBSCRIBE and UNSUBSCRIBE packets. Returns whether it was one of them.
    pub(crate) fn take_request_token(&mut self, token: Token) -> bool {
        let known = self
            .unanswered_requests
            .iter()
            .position(|asked| *asked == token);
        known.is_some_and(|at| {
            self.unanswered_requests.swap_remove(at);
            true
        })
    }

    pub(crate) fn on_suback(&mut self, token: Token, suback: &SubAck<'_>, now: Instant) {
        let codes: Vec<ReasonCode> = suback.codes.iter().collect();
        let Some(route) = self
            .routes
            .iter_mut()
            .find(|route| route.standing == SubscriptionState::Asked(token))
        else {
            return;
        };
        let id = route.id;
        if codes.iter().all(|code| code.is_error()) {
            route.standing = SubscriptionState::Over;
            self.over(
                id,
                AgentEvent::SubscribeFailed(id, Error::SubscriptionRefused(codes)),
                now,
            );
        } else {
            route.standing = SubscriptionState::Granted;
            self.events.push_back(AgentEvent::Subscribed(id, codes));
            self.subscriptions_change();
        }
        self.send_waiting(now);
    }

    pub(crate) fn on_unsuback(&mut self, token: Token, codes: Vec<ReasonCode>, now: Instant) {
        let Some(route) = self
            .routes
            .iter_mut()
            .find(|route| route.standing == SubscriptionState::Leaving(token))
        else {
            return;
        };
        route.standing = SubscriptionState::Over;
        let id = route.id;
        self.over(id, AgentEvent::Unsubscribed(id, codes), now);
        self.send_waiting(now);
    }

    /// Marks the SUBSCRIBE and UNSUBSCRIBE packets without an answer as not sent, after a lost connection.
    pub(crate) fn ask_again(&mut self) {
        for route in &mut self.routes {
            match route.standing {
                SubscriptionState::Asked(_) => route.standing = SubscriptionState::Wanted,
                SubscriptionState::Leaving(_) => route.standing = SubscriptionState::Unwanted,
                _ => {}
            }
        }
    }

    /// Marks all subscriptions as not sent, and ends those that were being given up, when the server has no session.
    pub(crate) fn subscriptions_lost(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for route in &mut self.routes {
            match route.standing {
                SubscriptionState::Granted => route.standing = SubscriptionState::Wanted,
                SubscriptionState::Unwanted => {
                    route.standing = SubscriptionState::Over;
                    gone.push(route.id);
                }
                _ => {}
            }
        }
        self.subscriptions_change();
        for id in gone {
            self.over(id, AgentEvent::Unsubscribed(id, Vec::new()), now);
        }
    }

    /// Notes that the records of the subscriptions may be out of date.
    #[allow(clippy::unused_self, reason = "with the feature it is needed")]
    const fn subscriptions_change(&mut self) {
        #[cfg(feature = "journal")]
        {
            self.journal.subscriptions.changed = true;
        }
    }
}
