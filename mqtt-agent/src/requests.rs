//! Sends requests and matches their responses (5, section 4.10).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use mqtt_proto::{Message, Properties, Property, QoS, ReasonCode, Subscription, TopicFilter};
use mqtt_session::{Instant, Outgoing, Refused, Token};

use crate::agent::Agent;
use crate::error::Error;
use crate::event::AgentEvent;
use crate::options::topic_name;
use crate::publication::Publication;
use crate::publishing::{Accepted, Outcome};
use crate::subscriptions::{PlainSubscription, Receiver, SubscriptionState};

/// Names a request that awaits its response.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(u64);

/// The requests that await a response.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    next: u64,
    /// The response topic; empty before the first request.
    topic: String,
    waiting: BTreeMap<u64, Option<Token>>,
}

/// How many requests may await their responses at the same time.
const WAITING: usize = 65_535;

impl Agent {
    /// Publishes a request: `message` with a response topic of this client and correlation data. The first request subscribes
    /// to that topic, at QoS 1. [`AgentEvent::Response`] reports the end. There is no time limit; [`Self::forget_request`]
    /// gives up.
    ///
    /// The response topic is the server's response information, if there is any, `response/` and the client identifier.
    ///
    /// # Errors
    /// [`Error::Options`] in 3.1.1, which has no correlation data; [`Refused::Offline`] without a connection; and the errors
    /// of [`Self::publish`]. Nothing was sent then.
    pub fn request(&mut self, message: &Outgoing<'_>, now: Instant) -> Result<RequestId, Error> {
        if !self.options.version.is_v5() {
            return Err(Error::Options("a request needs MQTT 5".into()));
        }
        if !self.client.is_connected() {
            return Err(Refused::Offline.into());
        }
        if self.requests.waiting.len() >= WAITING {
            return Err(Refused::Full.into());
        }
        self.subscribe_to_responses(now)?;
        let number = self.requests.next.saturating_add(1);
        let correlation = number.to_be_bytes();
        let topic = self.requests.topic.clone();
        let mut properties: Vec<Property<'_>> = message.properties.iter().collect();
        properties.push(Property::ResponseTopic(topic_name(
            "response topic",
            &topic,
        )?));
        properties.push(Property::CorrelationData(&correlation));
        let message = Outgoing {
            properties: Properties::from(&properties[..]),
            ..*message
        };
        let token = match self.publish(&message, now)? {
            Accepted::Token(token) => Some(token),
            Accepted::Position(_) => None,
        };
        self.requests.next = number;
        self.requests.waiting.insert(number, token);
        Ok(RequestId(number))
    }

    /// Subscribes to the response topic. SUBSCRIBE goes out before the request, so the server knows the subscription before a
    /// response can come.
    fn subscribe_to_responses(&mut self, now: Instant) -> Result<(), Error> {
        if self.requests.topic.is_empty() {
            let topic = format!("response/{}", self.client_id);
            self.requests.topic = match &self.response_information {
                Some(base) => format!("{}/{topic}", base.trim_end_matches('/')),
                None => topic,
            };
            let filter = TopicFilter::new(&self.requests.topic).map_err(|error| {
                Error::Topic(format!("response topic {:?}", self.requests.topic), error)
            })?;
            let wanted = PlainSubscription::new(&Subscription::new(filter, QoS::AtLeastOnce));
            self.add_route(
                Vec::from([wanted]),
                &Properties::EMPTY,
                SubscriptionState::Wanted,
                Receiver::Requests,
            );
        }
        self.send_waiting(now);
        let is_responses =
            |route: &&crate::subscriptions::Route| matches!(route.receiver, Receiver::Requests);
        match self
            .routes
            .iter()
            .find(is_responses)
            .map(|route| route.standing)
        {
            Some(SubscriptionState::Asked(_) | SubscriptionState::Granted) => Ok(()),
            Some(SubscriptionState::Wanted) => Err(Refused::Full.into()),
            // The server refused the subscription to the response topic.
            _ => {
                self.requests.topic.clear();
                let code = ReasonCode::NotAuthorized;
                Err(Error::SubscriptionRefused(Vec::from([code])))
            }
        }
    }

    /// Gives up a request. The agent ignores a later response to it.
    pub fn forget_request(&mut self, id: RequestId) {
        self.requests.waiting.remove(&id.0);
    }

    /// Ends the request that a message on the response topic answers.
    pub(crate) fn answered(&mut self, message: &Message) {
        let correlation = message.properties().correlation_data();
        let number = correlation
            .and_then(|data| data.try_into().ok())
            .map(u64::from_be_bytes);
        if let Some(number) = number
            && self.requests.waiting.remove(&number).is_some()
        {
            let response = Ok(message.clone());
            self.events
                .push_back(AgentEvent::Response(RequestId(number), response));
        }
    }

    /// Ends a request whose message was not delivered, or for which the server reported no subscriber.
    pub(crate) fn end_request(&mut self, token: Token, outcome: Outcome) {
        if self.requests.waiting.is_empty() {
            return;
        }
        let error = match outcome {
            Outcome::Acknowledged(reason @ ReasonCode::NoMatchingSubscribers) => {
                Error::MessageRefused(reason)
            }
            Outcome::Acknowledged(reason) if reason.is_error() => Error::MessageRefused(reason),
            Outcome::Acknowledged(_) | Outcome::Sent => return,
            outcome => Error::NotDelivered(outcome),
        };
        let found = self
            .requests
            .waiting
            .iter()
            .find(|(_, known)| **known == Some(token));
        if let Some((&number, _)) = found {
            self.requests.waiting.remove(&number);
            self.events
                .push_back(AgentEvent::Response(RequestId(number), Err(error)));
        }
    }

    /// Ends all requests because no response can come any more. The next request subscribes to the response topic again.
    pub(crate) fn end_responses(&mut self, why: &Error) {
        self.requests.topic.clear();
        for number in core::mem::take(&mut self.requests.waiting).into_keys() {
            let response = Err(why.clone());
            self.events
                .push_back(AgentEvent::Response(RequestId(number), response));
        }
    }
}

impl Publication {
    /// Returns the response to a request: a message to its response topic, with its correlation data and its quality of
    /// service. `None` if the request has no response topic.
    #[must_use]
    pub fn response_to(request: &Message, payload: impl Into<Bytes>) -> Option<Self> {
        let properties = request.properties();
        let topic = properties.response_topic()?;
        let mut response = Self::new(topic.as_str(), request.qos, payload);
        response.correlation_data = properties.correlation_data().map(Bytes::copy_from_slice);
        Some(response)
    }
}
