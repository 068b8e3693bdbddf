//! Subscriptions of a handle: which messages go where, and what must be subscribed again.

use std::collections::VecDeque;
use std::task::Waker;

use mqtt_proto::{
    Properties, Property, QoS, ReasonCode, RetainHandling, Subscription, TopicFilter, TopicName,
};
use mqtt_session::Token;

use crate::error::Error;
use crate::futures::Received;

/// How far a subscription is. The codes are one for each filter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// SUBSCRIBE is to be sent.
    Wanted,
    /// SUBSCRIBE is sent.
    Asked(Token),
    /// The server granted one filter at least.
    Granted(Vec<ReasonCode>),
    /// UNSUBSCRIBE is to be sent.
    Unwanted,
    /// UNSUBSCRIBE is sent.
    Leaving(Token),
    /// It is over: the server refused it, or it was given up.
    Over(Result<Vec<ReasonCode>, Error>),
}

/// What one SUBSCRIBE asked for, and the messages that came for it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) key: u64,
    wishes: Vec<Wish>,
    identifier: Option<u32>,
    user_properties: Vec<(String, String)>,
    pub(crate) standing: Standing,
    pub(crate) queue: VecDeque<Received>,
    pub(crate) waker: Option<Waker>,
}

/// A [`Subscription`] that owns its filter.
#[derive(Debug)]
struct Wish {
    filter: String,
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: RetainHandling,
}

impl Wish {
    fn new(subscription: &Subscription<'_>) -> Self {
        let Subscription {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        } = *subscription;
        Self {
            filter: filter.as_str().to_owned(),
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        }
    }

    fn filter(&self) -> TopicFilter<'_> {
        TopicFilter::new(&self.filter).unwrap_or_default()
    }

    fn subscription(&self) -> Subscription<'_> {
        Subscription {
            filter: self.filter(),
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling,
        }
    }
}

impl Route {
    /// `properties` are those of SUBSCRIBE: an identifier and user properties.
    pub(crate) fn new(
        key: u64,
        subscriptions: &[Subscription<'_>],
        properties: &Properties<'_>,
        standing: Standing,
    ) -> Self {
        Self {
            key,
            wishes: subscriptions.iter().map(Wish::new).collect(),
            identifier: properties.subscription_identifiers().next(),
            user_properties: properties
                .user_properties()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            standing,
            queue: VecDeque::new(),
            waker: None,
        }
    }

    pub(crate) fn filters(&self) -> Vec<TopicFilter<'_>> {
        self.wishes.iter().map(Wish::filter).collect()
    }

    pub(crate) fn subscriptions(&self) -> Vec<Subscription<'_>> {
        self.wishes.iter().map(Wish::subscription).collect()
    }

    pub(crate) fn properties(&self) -> Vec<Property<'_>> {
        let identifier = self.identifier.map(Property::SubscriptionIdentifier);
        let pairs = self
            .user_properties
            .iter()
            .map(|(name, value)| Property::UserProperty(name, value));
        identifier.into_iter().chain(pairs).collect()
    }

    pub(crate) fn matches(&self, topic: TopicName<'_>) -> bool {
        !matches!(self.standing, Standing::Over(_))
            && self.wishes.iter().any(|wish| wish.filter().matches(topic))
    }

    pub(crate) fn set(&mut self, standing: Standing) {
        self.standing = standing;
        self.wake();
    }

    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
