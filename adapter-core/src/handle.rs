//! Holds the cloneable handle that the handles of the adapters wrap. Its futures are cancel-safe: when a future is dropped, it
//! has either done nothing, or its work continues.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_agent::{Accepted, Error, Publication, ReceivedMessage, Unsent};
use mqtt_proto::{Properties, QoS, ReasonCode, Subscription, TopicFilter, TopicName};
use mqtt_session::{Instant, Outgoing, Refused};

use crate::events::ConnectionEvents;
use crate::hub::{Hub, HubState};
use crate::messages::{Messages, Subscribing, Unsubscribing, User};
use crate::publishing::{Publishing, Ticket};
#[cfg(feature = "store")]
use crate::waiters::Place;
use crate::waiters::{RoomPlace, Watch};

/// Declares the handle of an adapter: it has the methods of the common [`Handle`], and `request`, whose time limit the timer of the
/// runtime keeps. The adapter adds how a client starts.
#[macro_export]
macro_rules! declare_handle {
    ($(#[$doc:meta])* pub struct $name:ident timed by $timer:ty;) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use = "the client stops after its last handle is dropped"]
        pub struct $name($crate::Handle);

        impl ::std::ops::Deref for $name {
            type Target = $crate::Handle;

            fn deref(&self) -> &$crate::Handle {
                &self.0
            }
        }

        impl $name {
            /// Publishes a request and waits for its response, for at most `limit` (5). See
            /// [`mqtt_adapter_core::Handle::await_response`]($crate::Handle::await_response).
            ///
            /// # Errors
            /// [`Error::TimedOut`]($crate::Error::TimedOut);
            /// [`Error::MessageRefused`]($crate::Error::MessageRefused) if the server answers that the topic has no subscriber; and
            /// the errors of publishing and of subscribing to the response topic.
            pub async fn request(
                &self,
                request: &$crate::Outgoing<'_>,
                limit: ::std::time::Duration,
            ) -> Result<$crate::Message, $crate::Error> {
                $crate::driver::timeout::<$timer, _>(limit, self.await_response(*request))
                    .await
                    .unwrap_or(Err($crate::Error::TimedOut("the response")))
            }
        }
    };
}

/// A client that many tasks share. After the last handle and stream are dropped, the driver sends pending messages for at most
/// five seconds, sends DISCONNECT and stops.
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
    /// Makes another handle of this hub.
    #[must_use]
    pub fn new(hub: &Arc<Hub>) -> Self {
        Self {
            user: User::new(hub),
        }
    }

    pub(crate) const fn hub(&self) -> &Arc<Hub> {
        &self.user.0
    }

    /// Publishes a message as soon as there is room. The ticket of the result reports the end of the message. If the future
    /// is dropped before it is ready, nothing is published.
    ///
    /// # Errors
    /// `topic` is no valid topic name, the message is larger than the server takes, or the client is closed. While there is
    /// no connection, messages are kept as [`crate::Config::offline`] says.
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

    /// Publishes a message with all its fields, like [`Self::publish`].
    pub fn publish_message<'a>(&'a self, message: &Outgoing<'a>) -> Publishing<'a> {
        Publishing::new(self, Ok(*message))
    }

    /// Publishes an owned message, like [`Self::publish`].
    pub const fn publish_owned<'a>(&'a self, message: &'a Publication) -> Publishing<'a> {
        Publishing::owned(self, message)
    }

    /// Publishes a message now, or returns an error.
    ///
    /// # Errors
    /// [`Refused::Full`] while there is no room, and the other errors of [`mqtt_session::Client::publish`].
    pub fn try_publish(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        self.attempt(message, None)
    }

    /// Tries once to publish. If there is no room, stores the waker under the same lock.
    pub(crate) fn attempt(
        &self,
        message: &Outgoing<'_>,
        waits: Option<(&mut RoomPlace, &Context<'_>)>,
    ) -> Result<Ticket, Error> {
        let now = self.hub().now();
        let mut state = self.hub().lock();
        state.sync_storage();
        if state.agent.is_closing() || state.agent.is_stopped() {
            return Err(Error::Stopped);
        }
        match state.agent.publish(message, now) {
            Ok(published) => {
                if let Accepted::Token(token) = published {
                    state.tickets.issue(token);
                }
                state.wake_driver();
                #[cfg(feature = "store")]
                let recorded = state.agent.recorded().0;
                #[cfg(not(feature = "store"))]
                let recorded = 0;
                Ok(Ticket::new(Arc::clone(self.hub()), published, recorded))
            }
            Err(refused) => {
                if let (Refused::Full, Some((place, cx))) = (refused, waits) {
                    state.wait_for_room(place, cx.waker());
                }
                Err(refused.into())
            }
        }
    }

    /// Subscribes to one filter. The stream has all matching messages from now on; the future is ready when the server has
    /// answered.
    ///
    /// # Errors
    /// [`Error::SubscriptionRefused`] if the server refused it; `filter` is no valid topic filter; the client is closed
    /// before the server answered.
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

    /// Subscribes to several filters by one SUBSCRIBE. One stream has their messages in order. `properties` may have a
    /// subscription identifier and user properties (5). [`Messages::granted`] returns the server's reason code for each filter.
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

    /// Unsubscribes from filters of an earlier session, for which the program has no [`Messages`]. The server answers with a
    /// reason code for each (5).
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

    /// Returns the stream of messages that match no other stream: those of [`crate::Options::subscriptions`], and of an earlier
    /// session.
    #[must_use]
    pub fn other_messages(&self) -> Messages {
        Messages::new(self.hub(), None)
    }

    /// Acknowledges a message by hand, if [`crate::Options::acknowledge`] is [`crate::AcknowledgeWhen::ByHand`]. Messages may
    /// be acknowledged in any order. A message that is not acknowledged comes again after the next reconnect (QoS 1), or
    /// occupies one place of the receive maximum. Does nothing at QoS 0.
    ///
    /// # Errors
    /// [`Refused::NothingToAcknowledge`] if the message is acknowledged already; [`Refused::Encode`] for a reason code that
    /// an acknowledgement does not have.
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

    /// Acknowledges a message that the program has finished, and stores a note of at most 64 bytes with the acknowledgement, such
    /// as a number or the key of a row: after a crash both are stored or none is. [`Self::note`] returns the last note, also in
    /// the next process. See [`mqtt_agent::Agent::acknowledge_with`].
    ///
    /// # Errors
    /// [`Refused::TooLarge`] for a longer note; [`Refused::NothingToAcknowledge`] at QoS 0, and if the message is acknowledged
    /// already.
    #[cfg(feature = "store")]
    pub fn acknowledge_with(&self, message: &ReceivedMessage, note: &[u8]) -> Result<(), Error> {
        let id = message.id().ok_or(Refused::NothingToAcknowledge)?;
        let now = self.hub().now();
        let mut state = self.hub().lock();
        state.agent.acknowledge_with(id, note, now)?;
        state.settle();
        state.wake_driver();
        Ok(())
    }

    /// Returns the note of the last [`Self::acknowledge_with`], of this process or of an earlier one with the same store.
    #[cfg(feature = "store")]
    #[must_use]
    pub fn note(&self) -> Option<Vec<u8>> {
        self.hub().lock().agent.note().map(<[u8]>::to_vec)
    }

    /// Waits until the client is connected, without a time limit.
    ///
    /// # Errors
    /// The client is closed, or stopped for this reason.
    pub fn connected(&self) -> impl Future<Output = Result<(), Error>> + use<'_> {
        self.watch(|state| {
            if state.agent.is_connected() {
                return Some(Ok(()));
            }
            let why = || state.log.last_error.clone().unwrap_or(Error::Stopped);
            state.agent.is_stopped().then(|| Err(why()))
        })
    }

    /// Waits until there is no connection, and returns why the last one ended. The future is also ready if the client has
    /// connected again before it is polled.
    pub fn disconnected(&self) -> impl Future<Output = Error> + use<'_> {
        let mut losses = None;
        self.watch(move |state| {
            let known = *losses.get_or_insert(state.log.losses);
            (!state.log.has_connection || state.log.losses != known)
                .then(|| state.log.last_error.clone().unwrap_or(Error::Stopped))
        })
    }

    /// Waits until the first attempt to connect has ended.
    ///
    /// # Errors
    /// The attempt failed for this reason. The client tries again.
    pub fn first_attempt(&self) -> impl Future<Output = Result<(), Error>> + use<'_> {
        self.watch(|state| state.log.first_attempt.clone())
    }

    /// Waits until `look` returns something. It is asked again after each change of the connection.
    fn watch<R>(
        &self,
        mut look: impl FnMut(&mut HubState) -> Option<R>,
    ) -> impl Future<Output = R> {
        let mut watch = Watch::new(self.hub());
        std::future::poll_fn(move |cx| watch.poll(cx, &mut look))
    }

    /// Returns the events of the connection as a stream.
    #[must_use]
    pub fn events(&self) -> ConnectionEvents {
        ConnectionEvents::new(self.hub())
    }

    /// Returns the time from now until an instant of an event, such as [`crate::ConnectionEvent::WaitingUntil`].
    #[must_use]
    pub fn until(&self, at: Instant) -> Duration {
        self.hub().until(at)
    }

    /// Returns whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.hub().lock().agent.is_connected()
    }

    /// Returns how many messages without a [`Ticket`] were not delivered: those of an earlier process with the same store, those
    /// whose ticket was dropped, and the messages of requests. The server refused them, does not support them, or lost the session.
    /// Messages that a newer one replaced ([`Offline::DropOldest`](mqtt_session::Offline::DropOldest)) do not count.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.hub().lock().tickets.undelivered
    }

    /// Returns how many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.hub().lock().agent.pending()
    }

    /// Returns the messages that were accepted and are not acknowledged.
    #[must_use]
    pub fn unsent(&self) -> Vec<Unsent> {
        self.hub().lock().agent.unsent()
    }

    /// Closes the client: sends pending messages for at most `deadline`, disconnects, and returns the messages that were not
    /// acknowledged. The client accepts no new messages from this call on, even if the future is dropped.
    pub fn close(&self, deadline: Duration) -> Close {
        let now = self.hub().now();
        self.hub().lock().close(now.after(deadline), now);
        Close {
            hub: Arc::clone(self.hub()),
            watch: Watch::new(self.hub()),
            #[cfg(feature = "store")]
            place: Place::NONE,
        }
    }
}

/// The future of [`Handle::close`].
#[derive(Debug)]
#[must_use = "await it, or what is pending may not be sent before the program ends"]
pub struct Close {
    hub: Arc<Hub>,
    watch: Watch,
    /// The place among those that wait for the store.
    #[cfg(feature = "store")]
    place: Place,
}

#[cfg(feature = "store")]
impl Drop for Close {
    fn drop(&mut self) {
        crate::storage::leave(&self.hub, &self.place);
    }
}

impl Future for Close {
    type Output = Vec<Unsent>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<Unsent>> {
        let now = self.hub.now();
        let stopped = self.watch.poll(cx, |state| {
            // A driver that is opening a transport may not notice that the time limit is over.
            if !state.agent.is_up() {
                let _ = state.agent.tick(now);
                state.settle();
            }
            state.agent.is_stopped().then_some(())
        });
        if stopped.is_pending() {
            return Poll::Pending;
        }
        let Self {
            hub,
            #[cfg(feature = "store")]
            place,
            ..
        } = &mut *self;
        let mut state = hub.lock();
        state.settle();
        #[cfg(feature = "store")]
        if let Some(storage) = &mut state.storage
            && storage.poll_closed(place, cx).is_pending()
        {
            return Poll::Pending;
        }
        Poll::Ready(state.agent.unsent())
    }
}
