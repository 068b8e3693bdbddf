//! Where `mqtt sub` has its messages and the answers to its SUBSCRIBE and UNSUBSCRIBE from, in the order in which they come.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use mqtt_tokio::proto::{Properties, ReasonCode, Subscription, TopicFilter};
use mqtt_tokio::{Error, Handle, Messages, ReceivedMessage, Subscribing};

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    Message(ReceivedMessage),
    /// The broker answered SUBSCRIBE.
    Subscribed(Result<Messages, Error>),
    /// The broker answered UNSUBSCRIBE.
    Unsubscribed(Result<Vec<ReasonCode>, Error>),
    /// Nothing more will come.
    Over,
}

type Leaving = Pin<Box<dyn Future<Output = Result<Vec<ReasonCode>, Error>>>>;

/// A broker sends what waits in a kept session before it answers. Messages are taken meanwhile: the answer may stand behind
/// more than what is read ahead.
pub(crate) struct Source {
    leaving: Option<Leaving>,
    asked: Option<Subscribing>,
    messages: Option<Messages>,
    /// What a kept session brings from subscriptions of before.
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

    /// Goes on with the stream that [`Step::Subscribed`] brought.
    pub(crate) fn subscribed(&mut self, messages: Messages) {
        self.messages = Some(messages);
    }

    /// Whether an answer is missing.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.leaving.is_some() || self.asked.is_some()
    }

    /// The next answer. Messages stay where they are.
    pub(crate) async fn answer(&mut self) -> Step {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    /// The next message or answer. Cancel-safe.
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
