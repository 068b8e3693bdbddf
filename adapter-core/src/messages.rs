//! Holds the stream of messages of a subscription, and the futures of subscribing and unsubscribing.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use mqtt_agent::{Error, MessageId, ReceivedMessage, RouteId};
use mqtt_proto::ReasonCode;

use crate::hub::Hub;
use crate::waiters::Place;

/// Counts as a user of the hub until it is dropped. The driver runs while there is a user.
pub(crate) struct User(pub(crate) Arc<Hub>);

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

/// The messages of a subscription, in their order, as a [`Stream`] that ends when the subscription is over or the client
/// stopped.
///
/// A message at QoS 1 or 2 is acknowledged when the program asks the stream for the next one
/// ([`crate::AcknowledgeWhen::Taken`], the default). When the stream is dropped, the message that it gave out last and those
/// that wait are not acknowledged. If the session outlives its connections, they wait for the next subscription that they
/// match, and the server keeps the subscription; otherwise the client unsubscribes. [`Self::unsubscribe`] unsubscribes in
/// either case.
///
/// A server sends a limited number of messages without an acknowledgement, and acknowledgements go out in the order of the
/// messages. So a stream that is kept and not read also stops the messages at QoS 1 and 2 of other streams, when the window
/// of the server is full. It stops nothing else.
#[derive(Debug)]
pub struct Messages {
    user: User,
    /// `None` for the stream of unclaimed messages.
    id: Option<RouteId>,
    granted: Vec<ReasonCode>,
    /// Messages at QoS 0 that were taken from the agent and are not given out yet.
    ready: VecDeque<ReceivedMessage>,
    in_hand: Option<MessageId>,
    place: Place,
}

/// How many messages at QoS 0 are taken from the agent at once.
const BATCH: usize = 64;

impl Messages {
    pub(crate) fn new(hub: &Arc<Hub>, id: Option<RouteId>) -> Self {
        if id.is_none() {
            hub.lock().others += 1;
        }
        Self {
            user: User::new(hub),
            id,
            granted: Vec::new(),
            ready: VecDeque::new(),
            in_hand: None,
            place: Place::NONE,
        }
    }

    /// Returns the reason code of the server for each filter, in their order.
    #[must_use]
    pub fn granted(&self) -> &[ReasonCode] {
        &self.granted
    }

    /// Returns how many messages at QoS 0 were dropped since the queue became full ([`crate::QoS0Overflow`]).
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.user.0.lock().agent.dropped(self.id)
    }

    /// Polls for the next message, and acknowledges the one before it; `None` at the end of the stream.
    pub fn poll_message(&mut self, cx: &Context<'_>) -> Poll<Option<ReceivedMessage>> {
        if self.ready.is_empty() {
            self.take_some(cx);
        }
        match self.ready.pop_front() {
            Some(message) => {
                self.in_hand = message.id();
                Poll::Ready(Some(message))
            }
            None if self.user.0.lock().agent.is_over(self.id) => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn take_some(&mut self, cx: &Context<'_>) {
        let hub = &self.user.0;
        let mut state = hub.lock();
        let paused = state.agent.is_paused();
        let done = self.in_hand.take();
        if let Some(id) = done {
            state.agent.taken(self.id, id, hub.now());
        }
        while self.ready.len() < BATCH {
            let Some(message) = state.agent.next_message(self.id) else {
                break;
            };
            self.ready.push_back(message);
            // A message at QoS 1 or 2 is taken only to be given out at once: when the stream is dropped, the agent still has the others.
            if !state.agent.next_is_qos0(self.id) {
                break;
            }
        }
        if self.ready.is_empty() {
            let waiting = state.streams.entry(self.id).or_default();
            waiting.waiters.wait(&mut self.place, cx.waker());
        }
        if done.is_some() || paused != state.agent.is_paused() {
            state.wake_driver();
        }
    }

    /// Returns the next message, and acknowledges the one before it; `None` at the end of the stream. Cancel-safe.
    #[allow(
        clippy::should_implement_trait,
        reason = "the name that streams have for it"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<ReceivedMessage>> + use<'_> {
        std::future::poll_fn(|cx| self.poll_message(cx))
    }

    /// Unsubscribes, and waits for the server's reason code for each filter (5). Messages that came before can still be
    /// taken. There are no codes if the subscription has ended already, because the server refused it when the client subscribed
    /// again.
    pub fn unsubscribe(&self) -> Unsubscribing<'_> {
        let hub = &self.user.0;
        let now = hub.now();
        let mut state = hub.lock();
        if let Some(id) = self.id {
            state.agent.unsubscribe(id, now);
        }
        state.settle();
        state.wake_driver();
        Unsubscribing::new(self)
    }
}

impl Stream for Messages {
    type Item = ReceivedMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ReceivedMessage>> {
        self.poll_message(cx)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        let hub = &self.user.0;
        let now = hub.now();
        let mut state = hub.lock();
        let waiting = state.streams.get_mut(&self.id);
        let left = waiting.and_then(|waiting| waiting.waiters.leave(&self.place));
        match self.id {
            Some(id) => {
                state.agent.forget(id, now);
                state.streams.remove(&self.id);
            }
            // Another stream may take the unclaimed messages.
            None => {
                if let Some(id) = self.in_hand {
                    state.agent.give_back(id);
                }
                state.others = state.others.saturating_sub(1);
                if state.others == 0 {
                    state.agent.leave_others();
                }
            }
        }
        state.settle();
        state.wake_driver();
        drop(state);
        drop(left);
    }
}

/// The future of [`crate::Handle::subscribe`]. Dropping it before it is ready gives up the subscription.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Subscribing(Result<Option<Messages>, Error>);

impl Subscribing {
    /// The stream exists from the start, so that it gets messages that arrive before the answer.
    pub(crate) const fn new(messages: Messages) -> Self {
        Self(Ok(Some(messages)))
    }

    pub(crate) const fn failed(error: Error) -> Self {
        Self(Err(error))
    }

    /// Polls for the next message, before or after the server's answer, and acknowledges the one before it; `None` at the end of
    /// the stream.
    ///
    /// A server may send messages before its answer, such as those that waited in a kept session. A program takes them by polling
    /// this method beside the future. A program that awaits only the future may wait for ever if reading pauses
    /// ([`crate::QoS0Overflow::PauseReading`], [`crate::Options::receive_limit`]), because the answer comes after the messages.
    pub fn poll_message(&mut self, cx: &Context<'_>) -> Poll<Option<ReceivedMessage>> {
        match &mut self.0 {
            Ok(Some(messages)) => messages.poll_message(cx),
            _ => Poll::Ready(None),
        }
    }
}

impl Future for Subscribing {
    type Output = Result<Messages, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let messages = match &mut self.0 {
            Ok(messages) => messages,
            Err(error) => return Poll::Ready(Err(error.clone())),
        };
        let Some(known) = messages else {
            return Poll::Ready(Err(Error::Stopped));
        };
        let answer = {
            let mut state = known.user.0.lock();
            let stopped = state.agent.is_stopped();
            let waiting = state.streams.entry(known.id).or_default();
            match waiting.subscribed.clone() {
                Some(answer) => answer,
                None if stopped => Err(Error::Stopped),
                None => {
                    waiting.waiters.wait(&mut known.place, cx.waker());
                    return Poll::Pending;
                }
            }
        };
        Poll::Ready(match (answer, messages.take()) {
            (Ok(codes), Some(mut messages)) => {
                messages.granted = codes;
                Ok(messages)
            }
            (Err(error), _) => Err(error),
            (Ok(_), None) => Err(Error::Stopped),
        })
    }
}

/// The future of [`Messages::unsubscribe`].
#[derive(Debug)]
#[must_use = "await it for the server's answer"]
pub struct Unsubscribing<'a> {
    messages: &'a Messages,
    place: Place,
}

impl<'a> Unsubscribing<'a> {
    pub(crate) const fn new(messages: &'a Messages) -> Self {
        Self {
            messages,
            place: Place::NONE,
        }
    }
}

impl Future for Unsubscribing<'_> {
    type Output = Result<Vec<ReasonCode>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Messages { user, id, .. } = self.messages;
        let mut state = user.0.lock();
        let over = state.agent.is_stopped() || id.is_none();
        let ended = id.is_some_and(|id| state.agent.has_ended(id));
        let waiting = state.streams.entry(*id).or_default();
        match (&waiting.unsubscribed, &waiting.subscribed) {
            (Some(codes), _) => Poll::Ready(Ok(codes.clone())),
            // The server has refused the subscription.
            (None, Some(Err(error))) => Poll::Ready(Err(error.clone())),
            _ if over => Poll::Ready(Err(Error::Stopped)),
            // The server refused it when the client subscribed again.
            _ if ended => Poll::Ready(Ok(Vec::new())),
            _ => {
                waiting.waiters.wait(&mut self.place, cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Unsubscribing<'_> {
    fn drop(&mut self) {
        let Messages { user, id, .. } = self.messages;
        let mut state = user.0.lock();
        let waiting = state.streams.get_mut(id);
        let left = waiting.and_then(|waiting| waiting.waiters.leave(&self.place));
        drop(state);
        drop(left);
    }
}
