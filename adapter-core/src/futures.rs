//! What a caller awaits. All of it is cancel-safe: a dropped future either did nothing, or what it did goes on and is not
//! lost.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use mqtt_proto::{Message, Properties, QoS, ReasonCode, Subscription as Filter, TopicFilter};
use mqtt_session::{Outgoing, Receipt, Refused, Token};

use crate::error::Error;
use crate::hub::{Hub, Unsent, Wait};
use crate::routes::Standing;

/// How a publish ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The server has it, or (0x80 and above, 5) refused it. At QoS 0: it is on its way.
    Acknowledged(ReasonCode),
    /// The server lost the session before it acknowledged.
    InDoubt,
    /// It gave way to a newer one while offline.
    Dropped,
    /// The server's maximum packet size does not allow it any more.
    TooLarge,
    /// The client was closed before.
    Closed,
}

/// A message as a subscription gives it out.
#[derive(Clone, Debug)]
pub struct Received {
    message: Message,
    pub(crate) receipt: Option<Receipt>,
}

impl Received {
    pub(crate) const fn new(message: Message, receipt: Option<Receipt>) -> Self {
        Self { message, receipt }
    }

    /// The message on its own.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for Received {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// Keeps the hub's driver going while it is there.
pub(crate) struct User(Arc<Hub>);

impl User {
    pub(crate) fn new(hub: &Arc<Hub>) -> Self {
        hub.join();
        Self(Arc::clone(hub))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User")
    }
}

/// A cloneable way to the hub: what the adapters' handles are made of.
#[derive(Debug)]
pub struct Connected {
    user: User,
}

impl Clone for Connected {
    fn clone(&self) -> Self {
        Self::new(&self.user.0)
    }
}

impl Connected {
    /// Another user of this hub; when the last is gone, the driver says goodbye and stops.
    #[must_use]
    pub fn new(hub: &Arc<Hub>) -> Self {
        Self {
            user: User::new(hub),
        }
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.user.0
    }

    /// Publishes now, or says why not.
    ///
    /// # Errors
    /// [`Refused::Full`] while there is no room, and all that [`mqtt_session::Client::publish`] refuses.
    pub fn try_publish(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        self.attempt(message, None)
    }

    /// One look: the message is accepted, or refused, and then whoever waits for room is remembered under the same lock.
    fn attempt(
        &self,
        message: &Outgoing<'_>,
        waits: Option<&Context<'_>>,
    ) -> Result<Ticket, Error> {
        let now = self.hub().now();
        let mut state = self.hub().lock();
        if state.is_closing() || state.is_stopped() {
            return Err(Error::HandleClosed);
        }
        match state.publish(message, now) {
            Ok(token) => {
                if let Some(token) = token {
                    state.tickets.insert(token, Wait::For(None));
                }
                Ok(Ticket {
                    hub: Arc::clone(self.hub()),
                    token,
                })
            }
            Err(refused) => {
                if let (Refused::Full, Some(cx)) = (refused, waits) {
                    state.wait_for_room(cx.waker());
                }
                Err(refused.into())
            }
        }
    }

    /// Publishes as soon as there is room. Dropped before it is done, nothing was published.
    pub const fn publish<'a>(&'a self, message: &'a Outgoing<'a>) -> Publishing<'a> {
        Publishing {
            handle: self,
            message,
        }
    }

    /// Subscribes to one filter. The subscription gets messages from now on, and the future ends when the server answered.
    ///
    /// # Errors
    /// The client is closed before the server answered, or SUBSCRIBE cannot be sent.
    ///
    /// ```no_run
    /// # use adapter_core::{Connected, Error, proto::{QoS, Subscription, TopicFilter}};
    /// # async fn example(handle: &Connected) -> Result<(), Error> {
    /// let filter = TopicFilter::new("pumps/+/pressure").unwrap();
    /// let (granted, mut pressures) = handle.subscribe(&Subscription::new(filter, QoS::AtLeastOnce)).await?;
    /// while let Some(message) = pressures.next().await {
    ///     println!("{}: {:?}", message.topic(), message.payload);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn subscribe(
        &self,
        filter: &Filter<'_>,
    ) -> impl Future<Output = Result<(ReasonCode, Subscription), Error>> + use<> {
        let all = self.subscribe_all(std::slice::from_ref(filter), Properties::EMPTY);
        async move {
            let (codes, subscription) = all.await?;
            let code = codes.first().copied();
            Ok((code.unwrap_or(ReasonCode::UnspecifiedError), subscription))
        }
    }

    /// Subscribes to several filters by one SUBSCRIBE, whose messages come in one stream in their order. `properties` may
    /// be a subscription identifier and user properties (5). The server answers with a code for each filter.
    pub fn subscribe_all(&self, filters: &[Filter<'_>], properties: Properties<'_>) -> Subscribing {
        Subscribing {
            subscription: Some(self.add(filters, &properties, Standing::Wanted)),
        }
    }

    /// Gives up filters of a session from before, which no [`Subscription`] stands for; the server answers with a code for
    /// each (5).
    ///
    /// # Errors
    /// The client is closed before the server answered.
    pub fn unsubscribe(
        &self,
        filters: &[TopicFilter<'_>],
    ) -> impl Future<Output = Result<Vec<ReasonCode>, Error>> + use<> {
        let filters: Vec<_> = filters
            .iter()
            .map(|filter| Filter::new(*filter, QoS::AtMostOnce))
            .collect();
        let leaving = self.add(&filters, &Properties::EMPTY, Standing::Unwanted);
        async move { leaving.unsubscribe().await }
    }

    fn add(
        &self,
        filters: &[Filter<'_>],
        properties: &Properties<'_>,
        standing: Standing,
    ) -> Subscription {
        let now = self.hub().now();
        let key = self
            .hub()
            .lock()
            .add_route(filters, properties, standing, now);
        Subscription {
            user: User::new(self.hub()),
            key: Some(key),
            taken: VecDeque::new(),
        }
    }

    /// The messages that no subscription claims, such as those of a session from before. Who does not ask for it loses
    /// them, with a warning.
    #[must_use]
    pub fn other_messages(&self) -> Subscription {
        self.hub().lock().others.get_or_insert_default();
        Subscription {
            user: User::new(self.hub()),
            key: None,
            taken: VecDeque::new(),
        }
    }

    /// Acknowledges a message, where [`crate::Config::acknowledge`] is [`crate::Acknowledge::ByHand`]. A message that is
    /// not acknowledged comes again after the next reconnect (QoS 1), or holds its place among the server's receive
    /// maximum; one that no subscription claims is acknowledged by itself. Does nothing for QoS 0.
    ///
    /// # Errors
    /// [`Refused::NothingToAcknowledge`] if it was done before, or the connection (QoS 1) or session (QoS 2) is gone.
    pub fn acknowledge(&self, message: &Received, reason: ReasonCode) -> Result<(), Error> {
        let now = self.hub().now();
        let Some(receipt) = message.receipt else {
            return Ok(());
        };
        let mut state = self.hub().lock();
        state.client.acknowledge(receipt, reason, now)?;
        state.wake_driver();
        Ok(())
    }

    /// Ends when the client is connected; with an error when an attempt fails before it ever was.
    pub fn connected(&self) -> impl Future<Output = Result<(), Error>> + use<'_> {
        std::future::poll_fn(|cx| {
            let mut state = self.hub().lock();
            if state.client.is_connected() {
                return Poll::Ready(Ok(()));
            }
            if state.is_stopped() || (!state.was_connected && state.last_error.is_some()) {
                return Poll::Ready(Err(state.last_error.clone().unwrap_or(Error::HandleClosed)));
            }
            state.watch(cx.waker());
            Poll::Pending
        })
    }

    /// Ends when the connection is lost, or the client stopped, with the reason.
    pub fn disconnected(&self) -> impl Future<Output = Error> + use<'_> {
        std::future::poll_fn(|cx| {
            let mut state = self.hub().lock();
            if state.is_stopped() || !state.client.is_connected() {
                return Poll::Ready(state.last_error.clone().unwrap_or(Error::HandleClosed));
            }
            state.watch(cx.waker());
            Poll::Pending
        })
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.hub().lock().client.is_connected()
    }

    /// How many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.hub().lock().client.pending()
    }

    /// Closes: sends what is pending, for at most `deadline`, disconnects, and gives back what was not acknowledged.
    /// Nothing more is accepted from now on, also if the future is dropped.
    pub fn close(&self, deadline: Duration) -> Close {
        let by = self.hub().now().after(deadline);
        self.hub().lock().close(by);
        Close {
            hub: Arc::clone(self.hub()),
        }
    }
}

/// See [`Connected::publish`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Publishing<'a> {
    handle: &'a Connected,
    message: &'a Outgoing<'a>,
}

impl Future for Publishing<'_> {
    type Output = Result<Ticket, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.handle.attempt(self.message, Some(cx)) {
            Err(Error::Refused(Refused::Full)) => Poll::Pending,
            done => Poll::Ready(done),
        }
    }
}

/// A published message. Await it for its end, or drop it.
#[derive(Debug)]
#[must_use = "await it for the acknowledgement, or drop it"]
pub struct Ticket {
    hub: Arc<Hub>,
    /// `None` for QoS 0, which is at its end.
    token: Option<Token>,
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(token) = self.token else {
            return Poll::Ready(Outcome::Acknowledged(ReasonCode::Success));
        };
        match self.hub.lock().tickets.get_mut(&token) {
            Some(Wait::For(waker)) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Wait::Over(outcome)) => Poll::Ready(*outcome),
            None => Poll::Ready(Outcome::Closed),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.hub.lock().tickets.remove(&token);
        }
    }
}

/// See [`Connected::subscribe_all`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Subscribing {
    subscription: Option<Subscription>,
}

impl Future for Subscribing {
    type Output = Result<(Vec<ReasonCode>, Subscription), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let standing = self
            .subscription
            .as_ref()
            .and_then(|subscription| subscription.standing(cx));
        match standing {
            Some(Standing::Granted(codes) | Standing::Over(Ok(codes))) => {
                match self.subscription.take() {
                    Some(subscription) => Poll::Ready(Ok((codes, subscription))),
                    None => Poll::Ready(Err(Error::HandleClosed)),
                }
            }
            Some(Standing::Over(Err(error))) => Poll::Ready(Err(error)),
            Some(_) => Poll::Pending,
            None => Poll::Ready(Err(Error::HandleClosed)),
        }
    }
}

/// The messages of a subscription, in their order; a [`Stream`] that ends when the client stopped. If its messages are not
/// taken, reading from the server pauses: nothing is dropped, nothing grows without bound.
///
/// Dropping it does not unsubscribe, so that a session can be gone back to; [`Self::unsubscribe`] does.
#[derive(Debug)]
pub struct Subscription {
    user: User,
    /// `None` for the messages that no subscription claims.
    key: Option<u64>,
    /// Taken from the hub and not given out yet.
    taken: VecDeque<Received>,
}

impl Subscription {
    fn standing(&self, cx: &Context<'_>) -> Option<Standing> {
        let mut state = self.user.0.lock();
        let route = state.route(self.key?)?;
        route.waker = Some(cx.waker().clone());
        Some(route.standing.clone())
    }

    /// The next message; `None` when the client stopped.
    pub fn poll_message(&mut self, cx: &Context<'_>) -> Poll<Option<Received>> {
        if let Some(message) = self.taken.pop_front() {
            return Poll::Ready(Some(message));
        }
        let mut state = self.user.0.lock();
        let stopped = state.is_stopped();
        let (queue, waker, over) = match self.key {
            Some(key) => match state.route(key) {
                Some(route) => {
                    let over = matches!(route.standing, Standing::Over(_));
                    (&mut route.queue, &mut route.waker, over)
                }
                None => return Poll::Ready(None),
            },
            None => {
                let state = &mut *state;
                (
                    state.others.get_or_insert_default(),
                    &mut state.others_waker,
                    stopped,
                )
            }
        };
        if queue.is_empty() {
            if over || stopped {
                return Poll::Ready(None);
            }
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(queue, &mut self.taken);
        state.taken();
        Poll::Ready(self.taken.pop_front())
    }

    /// The next message; `None` when the client stopped. Cancel-safe.
    #[allow(
        clippy::should_implement_trait,
        reason = "the name that streams have for it"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Received>> + use<'_> {
        std::future::poll_fn(|cx| self.poll_message(cx))
    }

    /// Unsubscribes; ends when the server answered. What came before can still be taken.
    pub fn unsubscribe(&self) -> Unsubscribing<'_> {
        let now = self.user.0.now();
        let mut state = self.user.0.lock();
        if let Some(route) = self.key.and_then(|key| state.route(key))
            && !matches!(
                route.standing,
                Standing::Unwanted | Standing::Leaving(_) | Standing::Over(_)
            )
        {
            route.standing = Standing::Unwanted;
        }
        state.ask(now);
        state.wake_driver();
        Unsubscribing { subscription: self }
    }
}

/// See [`Subscription::unsubscribe`].
#[derive(Debug)]
#[must_use = "await it for the server's answer"]
pub struct Unsubscribing<'a> {
    subscription: &'a Subscription,
}

impl Future for Unsubscribing<'_> {
    type Output = Result<Vec<ReasonCode>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.subscription.standing(cx) {
            Some(Standing::Over(end)) => Poll::Ready(end),
            Some(_) => Poll::Pending,
            None => Poll::Ready(Err(Error::HandleClosed)),
        }
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.poll_message(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.user.0.lock();
        match self.key {
            Some(key) => state.forget_route(key),
            None => {
                state.others = None;
                state.taken();
            }
        }
    }
}

/// See [`Connected::close`].
#[derive(Debug)]
#[must_use = "await it, or what is pending may not be sent before the program ends"]
pub struct Close {
    hub: Arc<Hub>,
}

impl Future for Close {
    type Output = Vec<Unsent>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<Unsent>> {
        let mut state = self.hub.lock();
        if state.is_stopped() {
            return Poll::Ready(std::mem::take(&mut state.remained));
        }
        state.watch(cx.waker());
        Poll::Pending
    }
}
