//! Holds the futures of publishing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mqtt_agent::Accepted;
use mqtt_agent::{Error, Outcome, Publication};
use mqtt_session::{Outgoing, Refused};

use crate::handle::Handle;
use crate::hub::Hub;
use crate::waiters::RoomPlace;

/// The future of [`Handle::publish`]. If it is dropped before it is ready, nothing is published.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Publishing<'a> {
    handle: &'a Handle,
    message: Result<Content<'a>, Error>,
    place: RoomPlace,
}

#[derive(Debug)]
enum Content<'a> {
    Borrowed(Outgoing<'a>),
    Owned(&'a Publication),
}

impl<'a> Publishing<'a> {
    pub(crate) fn new(handle: &'a Handle, message: Result<Outgoing<'a>, Error>) -> Self {
        Self {
            handle,
            message: message.map(Content::Borrowed),
            place: RoomPlace::NONE,
        }
    }

    pub(crate) const fn owned(handle: &'a Handle, message: &'a Publication) -> Self {
        Self {
            handle,
            message: Ok(Content::Owned(message)),
            place: RoomPlace::NONE,
        }
    }
}

impl Future for Publishing<'_> {
    type Output = Result<Ticket, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            handle,
            message,
            place,
        } = &mut *self;
        let mut attempt = |message: &Outgoing<'_>| handle.attempt(message, Some((place, cx)));
        let done = match message {
            Ok(Content::Borrowed(message)) => attempt(message),
            Ok(Content::Owned(message)) => message.with_outgoing(attempt).and_then(|done| done),
            Err(error) => Err(error.clone()),
        };
        match done {
            Err(Error::Refused(Refused::Full)) => Poll::Pending,
            done => Poll::Ready(done),
        }
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.place.leave(self.handle.hub());
    }
}

/// An accepted message. Awaiting it returns its [`Outcome`]. Dropping it does not stop the message.
#[derive(Debug)]
#[must_use = "await it for the acknowledgement, or drop it"]
pub struct Ticket {
    hub: Arc<Hub>,
    published: Accepted,
    /// How many bytes of records there were, including that of the message, when it was accepted.
    #[cfg_attr(
        not(feature = "store"),
        allow(dead_code, reason = "there are no records")
    )]
    recorded: u64,
    place: RoomPlace,
}

impl Ticket {
    pub(crate) const fn new(hub: Arc<Hub>, published: Accepted, recorded: u64) -> Self {
        Self {
            hub,
            published,
            recorded,
            place: RoomPlace::NONE,
        }
    }

    /// Waits until the message is stored and outlives the process, if the client has a store. A message at QoS 0 is not stored;
    /// its future is ready at once.
    #[cfg(feature = "store")]
    pub fn stored(&self) -> crate::Stored {
        crate::Stored::new(Arc::clone(&self.hub), self.recorded)
    }
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Self {
            hub,
            published,
            place,
            ..
        } = &mut *self;
        let mut state = hub.lock();
        match *published {
            Accepted::Token(token) => state.tickets.poll(token, cx.waker()),
            Accepted::Position(at) => match state.agent.outcome(at) {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    state.wait_for_room(place, cx.waker());
                    Poll::Pending
                }
            },
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        match self.published {
            Accepted::Token(token) => self.hub.lock().tickets.give_up(token),
            Accepted::Position(_) => self.place.leave(&self.hub),
        }
    }
}
