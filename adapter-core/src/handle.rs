//! The cloneable way to a client: what the adapters' handles are made of. All of it is cancel-safe: a dropped future either did
//! nothing, or what it did goes on and is not lost.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_agent::{Accepted, Error, Publication, ReceivedMessage, Unsent};
use mqtt_proto::{Properties, QoS, ReasonCode, Subscription, TopicFilter, TopicName};
use mqtt_session::{Instant, Outgoing, Refused};

use crate::events::ConnectionEvents;
use crate::hub::Hub;
use crate::messages::{Messages, Subscribing, Unsubscribing, User};
use crate::publishing::{Publishing, Ticket};

/// A client that many tasks share. When the last handle and stream are gone, the driver sends what is pending for up to five
/// seconds, says goodbye and stops.
#[derive(Debug)]
pub struct Handle {
    user: User,
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(&self.user.0)
    }
}

impl Handle {
    /// Another user of this hub.
    #[must_use]
    pub fn new(hub: &Arc<Hub>) -> Self {
        Self {
            user: User::new(hub),
        }
    }

    pub(crate) const fn hub(&self) -> &Arc<Hub> {
        &self.user.0
    }

    /// Publishes as soon as there is room; the ticket tells the message's end. Dropped before it is ready, nothing was
    /// published.
    ///
    /// # Errors
    /// `topic` is no topic name, the message is larger than the server takes, or the client is closed. While there is no
    /// connection, messages are kept as [`crate::Config::offline`] says.
    pub fn publish<'a>(
        &'a self,
        topic: &'a str,
        qos: QoS,
        retain: bool,
        payload: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Publishing<'a> {
        let message = TopicName::new(topic)
            .map_err(|error| Error::Topic(format!("topic {topic:?}"), error))
            .map(|topic| Outgoing {
                retain,
                ..Outgoing::new(topic, qos, payload.as_ref())
            });
        Publishing::new(self, message)
    }

    /// The same with all that a message can have.
    pub fn publish_message<'a>(&'a self, message: &Outgoing<'a>) -> Publishing<'a> {
        Publishing::new(self, Ok(*message))
    }

    /// The same for a message that owns what it says.
    pub const fn publish_owned<'a>(&'a self, message: &'a Publication) -> Publishing<'a> {
        Publishing::owned(self, message)
    }

    /// Publishes now, or says why not.
    ///
    /// # Errors
    /// [`Refused::Full`] while there is no room, and all that [`mqtt_session::Client::publish`] refuses.
    pub fn try_publish(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        self.attempt(message, None)
    }

    /// One look: the message is accepted, or refused, and then whoever waits for room is remembered under the same lock.
    pub(crate) fn attempt(
        &self,
        message: &Outgoing<'_>,
        waits: Option<&Context<'_>>,
    ) -> Result<Ticket, Error> {
        let now = self.hub().now();
        let mut state = self.hub().lock();
        if state.agent.is_closing() || state.agent.is_stopped() {
            return Err(Error::Stopped);
        }
        match state.agent.publish(message, now) {
            Ok(published) => {
                if let Accepted::Token(token) = published {
                    state.tickets.issue(token);
                }
                state.wake_driver();
                Ok(Ticket::new(Arc::clone(self.hub()), published))
            }
            Err(refused) => {
                if let (Refused::Full, Some(cx)) = (refused, waits) {
                    state.wait_for_room(cx.waker());
                }
                Err(refused.into())
            }
        }
    }

    /// Subscribes to one filter. The stream has the messages that come from now on, and the future ends when the server
    /// answered.
    ///
    /// # Errors
    /// [`Error::SubscriptionRefused`] if the server refused it; `filter` is no topic filter; the client is closed before the
    /// server answered.
    ///
    /// ```no_run
    /// # use mqtt_adapter_core::{Error, Handle, proto::QoS};
    /// # async fn example(handle: &Handle) -> Result<(), Error> {
    /// let mut pressures = handle.subscribe("pumps/+/pressure", QoS::AtLeastOnce).await?;
    /// while let Some(message) = pressures.next().await {
    ///     println!("{}: {:?}", message.topic(), message.payload);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Subscribing {
        match TopicFilter::new(filter) {
            Ok(filter) => self.subscribe_all(&[Subscription::new(filter, qos)], Properties::EMPTY),
            Err(error) => {
                Subscribing::failed(Error::Topic(format!("topic filter {filter:?}"), error))
            }
        }
    }

    /// Subscribes to several filters by one SUBSCRIBE, whose messages come in one stream in their order. `properties` may
    /// be a subscription identifier and user properties (5). [`Messages::granted`] has the server's code for each filter.
    ///
    /// # Errors
    /// [`Error::SubscriptionRefused`] if the server refused all of them; the client is closed before the server answered.
    pub fn subscribe_all(
        &self,
        filters: &[Subscription<'_>],
        properties: Properties<'_>,
    ) -> Subscribing {
        let now = self.hub().now();
        let mut state = self.hub().lock();
        let id = state.agent.subscribe(filters, &properties, now);
        state.expect_answer(id);
        drop(state);
        Subscribing::new(Messages::new(self.hub(), Some(id)))
    }

    /// Gives up filters of a session from before, which no [`Messages`] stand for; the server answers with a code for each (5).
    ///
    /// # Errors
    /// The client is closed before the server answered.
    pub fn unsubscribe(
        &self,
        filters: &[TopicFilter<'_>],
    ) -> impl Future<Output = Result<Vec<ReasonCode>, Error>> + use<> {
        let now = self.hub().now();
        let mut state = self.hub().lock();
        let id = state.agent.unsubscribe_filters(filters, now);
        state.expect_answer(id);
        drop(state);
        let messages = Messages::new(self.hub(), Some(id));
        async move { Unsubscribing::new(&messages).await }
    }

    /// The messages that no other stream claims: those of [`crate::Options::subscriptions`], and of a session from before.
    #[must_use]
    pub fn other_messages(&self) -> Messages {
        Messages::new(self.hub(), None)
    }

    /// Acknowledges a message by hand, where [`crate::Options::acknowledge`] is [`crate::AcknowledgeWhen::ByHand`], in any order.
    /// A message that is not acknowledged comes again after the next reconnect (QoS 1), or holds its place among the
    /// server's receive maximum. Does nothing for QoS 0.
    ///
    /// # Errors
    /// [`Refused::NothingToAcknowledge`] if it was done before; [`Refused::Encode`] for a reason code that an acknowledgement
    /// does not have.
    pub fn acknowledge(&self, message: &ReceivedMessage, reason: ReasonCode) -> Result<(), Error> {
        let Some(id) = message.id() else {
            return Ok(());
        };
        let now = self.hub().now();
        let mut state = self.hub().lock();
        state.agent.acknowledge(id, reason, now)?;
        state.wake_driver();
        Ok(())
    }

    /// Ends when the client is connected, however long that takes.
    ///
    /// # Errors
    /// The client is closed, or gave up: the reason.
    pub fn connected(&self) -> impl Future<Output = Result<(), Error>> + use<'_> {
        std::future::poll_fn(|cx| {
            let mut state = self.hub().lock();
            if state.agent.is_connected() {
                return Poll::Ready(Ok(()));
            }
            if state.agent.is_stopped() {
                return Poll::Ready(Err(state.log.last_error.clone().unwrap_or(Error::Stopped)));
            }
            state.watch(cx.waker());
            Poll::Pending
        })
    }

    /// Ends when there is no connection, with the reason why the last one ended; also if there is a new one by the time
    /// the future is polled again.
    pub fn disconnected(&self) -> impl Future<Output = Error> + use<'_> {
        let mut losses = None;
        std::future::poll_fn(move |cx| {
            let mut state = self.hub().lock();
            let known = *losses.get_or_insert(state.log.losses);
            if !state.agent.is_connected() || state.log.losses != known {
                return Poll::Ready(state.log.last_error.clone().unwrap_or(Error::Stopped));
            }
            state.watch(cx.waker());
            Poll::Pending
        })
    }

    /// Ends when the first attempt to connect did.
    ///
    /// # Errors
    /// It failed: the reason. The client goes on trying.
    pub fn first_attempt(&self) -> impl Future<Output = Result<(), Error>> + use<'_> {
        std::future::poll_fn(|cx| {
            let mut state = self.hub().lock();
            if let Some(done) = state.log.first_attempt.clone() {
                return Poll::Ready(done);
            }
            state.watch(cx.waker());
            Poll::Pending
        })
    }

    /// What becomes of the connection.
    #[must_use]
    pub fn events(&self) -> ConnectionEvents {
        ConnectionEvents::new(Arc::clone(self.hub()))
    }

    /// How long it is until a moment that an event told, such as [`crate::ConnectionEvent::WaitingUntil`].
    #[must_use]
    pub fn until(&self, at: Instant) -> Duration {
        self.hub().until(at)
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.hub().lock().agent.is_connected()
    }

    /// How many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.hub().lock().agent.pending()
    }

    /// What was accepted and is not acknowledged.
    #[must_use]
    pub fn unsent(&self) -> Vec<Unsent> {
        self.hub().lock().agent.unsent()
    }

    /// Closes: sends what is pending, for at most `deadline`, disconnects, and gives back what was not acknowledged.
    /// Nothing more is accepted from now on, also if the future is dropped.
    pub fn close(&self, deadline: Duration) -> Close {
        let now = self.hub().now();
        self.hub().lock().close(now.after(deadline), now);
        Close {
            hub: Arc::clone(self.hub()),
        }
    }
}

/// See [`Handle::close`].
#[derive(Debug)]
#[must_use = "await it, or what is pending may not be sent before the program ends"]
pub struct Close {
    hub: Arc<Hub>,
}

impl Future for Close {
    type Output = Vec<Unsent>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<Unsent>> {
        let now = self.hub.now();
        let mut state = self.hub.lock();
        // A driver that opens a connection may not notice that the time for closing is over.
        if !state.agent.is_up() {
            let _ = state.agent.tick(now);
            state.settle();
        }
        if state.agent.is_stopped() {
            return Poll::Ready(state.agent.unsent());
        }
        state.watch(cx.waker());
        Poll::Pending
    }
}
