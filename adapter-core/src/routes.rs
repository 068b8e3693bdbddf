//! Subscriptions of a handle: which messages go where, and what must be subscribed again.

use std::collections::VecDeque;
use std::task::Waker;

use mqtt_proto::{Message, ReasonCode, RetainHandling, Subscription, TopicFilter, TopicName};
use mqtt_session::Token;

use crate::error::Error;

/// How far a subscription is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// SUBSCRIBE is to be sent.
    Wanted,
    /// SUBSCRIBE is sent.
    Asked(Token),
    /// The server granted it.
    Granted(ReasonCode),
    /// UNSUBSCRIBE is to be sent.
    Unwanted,
    /// UNSUBSCRIBE is sent.
    Leaving(Token),
    /// It is over: the server refused it, or it was given up.
    Over(Result<ReasonCode, Error>),
}

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) key: u64,
    filter: String,
    options: Wish,
    pub(crate) standing: Standing,
    pub(crate) queue: VecDeque<Message>,
    pub(crate) waker: Option<Waker>,
}

/// A [`Subscription`] without its filter.
#[derive(Clone, Copy, Debug)]
struct Wish {
    qos: mqtt_proto::QoS,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: RetainHandling,
}

impl Route {
    pub(crate) fn new(key: u64, subscription: &Subscription<'_>) -> Self {
        let Subscription {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        } = *subscription;
        Self {
            key,
            filter: filter.as_str().to_owned(),
            options: Wish {
                qos,
                no_local,
                retain_as_published,
                retain_handling,
            },
            standing: Standing::Wanted,
            queue: VecDeque::new(),
            waker: None,
        }
    }

    pub(crate) fn filter(&self) -> TopicFilter<'_> {
        TopicFilter::new(&self.filter).unwrap_or_default()
    }

    pub(crate) fn subscription(&self) -> Subscription<'_> {
        let Wish {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        } = self.options;
        Subscription {
            filter: self.filter(),
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        }
    }

    pub(crate) fn matches(&self, topic: TopicName<'_>) -> bool {
        !matches!(self.standing, Standing::Over(_)) && self.filter().matches(topic)
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
