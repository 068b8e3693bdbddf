//! Returns the messages of `mqtt sub` and the answers to its SUBSCRIBE and UNSUBSCRIBE in the order of their arrival.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use mqtt_tokio::proto::{Properties, ReasonCode, Subscription, TopicFilter};
use mqtt_tokio::{Error, Handle, Messages, ReceivedMessage, Subscribing};

/// The next message or answer.
#[derive(Debug)]
pub(crate) enum Step {
    Message(ReceivedMessage),
    /// The broker answered SUBSCRIBE.
    Subscribed(Result<Messages, Error>),
    /// The broker answered UNSUBSCRIBE.
    Unsubscribed(Result<Vec<ReasonCode>, Error>),
    /// There are no more messages.
    Over,
}

type Leaving = Pin<Box<dyn Future<Output = Result<Vec<ReasonCode>, Error>>>>;

/// The streams and answers of `mqtt sub`. A broker sends the messages of a kept session before its answer, and the answer may
/// come after more messages than are read ahead, so messages are taken while an answer is awaited.
pub(crate) struct Source {
    leaving: Option<Leaving>,
    asked: Option<Subscribing>,
    messages: Option<Messages>,
    /// Messages for earlier subscriptions of a kept session.
    others: Messages,
}

impl Source {
    pub(crate) fn new(handle: &Handle) -> Self {
        Self {
            leaving: None,
            asked: None,
            messages: None,
            others: handle.other_messages(),
        }
    }

    pub(crate) fn unsubscribe(&mut self, handle: &Handle, filters: &[TopicFilter<'_>]) {
        self.leaving = Some(Box::pin(handle.unsubscribe(filters)));
    }

    pub(crate) fn subscribe(
        &mut self,
        handle: &Handle,
        filters: &[Subscription<'_>],
        properties: Properties<'_>,
    ) {
        self.asked = Some(handle.subscribe_all(filters, properties));
    }

    /// Continues with the stream of [`Step::Subscribed`].
    pub(crate) fn subscribed(&mut self, messages: Messages) {
        self.messages = Some(messages);
    }

    /// Returns whether an answer is awaited.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.leaving.is_some() || self.asked.is_some()
    }

    /// Returns the next answer. Messages wait meanwhile.
    pub(crate) async fn answer(&mut self) -> Step {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    /// Returns the next message or answer. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Step {
        poll_fn(|cx| {
            if let Poll::Ready(answer) = self.poll_answer(cx) {
                return Poll::Ready(answer);
            }
            self.poll_message(cx)
        })
        .await
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(leaving) = &mut self.leaving
            && let Poll::Ready(answer) = leaving.as_mut().poll(cx)
        {
            self.leaving = None;
            return Poll::Ready(Step::Unsubscribed(answer));
        }
        if let Some(asked) = &mut self.asked
            && let Poll::Ready(answer) = Pin::new(asked).poll(cx)
        {
            self.asked = None;
            return Poll::Ready(Step::Subscribed(answer));
        }
        Poll::Pending
    }

    fn poll_message(&mut self, cx: &Context<'_>) -> Poll<Step> {
        let own = match (&mut self.asked, &mut self.messages) {
            (Some(asked), _) => asked.poll_message(cx),
            (None, Some(messages)) => messages.poll_message(cx),
            (None, None) => Poll::Pending,
        };
        match own {
            Poll::Pending => self.others.poll_message(cx),
            own => own,
        }
        .map(|message| message.map_or(Step::Over, Step::Message))
    }
}
