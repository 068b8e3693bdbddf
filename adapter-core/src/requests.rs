//! Sends requests and awaits their responses in one call (5, section 4.10), and answers requests.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mqtt_agent::{Error, Message, Publication, ReceivedMessage, RequestId};
use mqtt_proto::QoS;
use mqtt_session::{Outgoing, Refused};

use crate::events::in_full;
use crate::handle::Handle;
use crate::hub::ResponseState;
use crate::waiters::{Place, RoomPlace};

/// The future of [`Handle::await_response`]. If it is dropped before it is ready, a later response is ignored.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Requesting<'a> {
    handle: &'a Handle,
    message: Outgoing<'a>,
    id: Option<RequestId>,
    place: Place,
    room: RoomPlace,
}

impl<'a> Requesting<'a> {
    pub(crate) const fn new(handle: &'a Handle, message: Outgoing<'a>) -> Self {
        Self {
            handle,
            message,
            id: None,
            place: Place::NONE,
            room: RoomPlace::NONE,
        }
    }
}

impl Future for Requesting<'_> {
    type Output = Result<Message, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let handle = self.handle;
        let hub = handle.hub();
        let now = hub.now();
        let mut state = hub.lock();
        let id = match self.id {
            Some(id) => id,
            None => {
                if state.agent.is_stopped() {
                    return Poll::Ready(Err(Error::Stopped));
                }
                let asked = state.agent.request(&self.message, now);
                state.settle();
                match asked {
                    Ok(id) => {
                        state.requests.insert(id, ResponseState::default());
                        state.wake_driver();
                        id
                    }
                    // The request is sent as soon as there is a connection with room.
                    Err(Error::Refused(Refused::Full | Refused::Offline)) => {
                        state.wait_for_room(&mut self.room, cx.waker());
                        state.watchers.wait(&mut self.place, cx.waker());
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        };
        let requested = state.requests.entry(id).or_default();
        let response = requested.response.take();
        if response.is_none() {
            requested.waker = Some(cx.waker().clone());
        }
        drop(state);
        self.id = Some(id);
        response.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Requesting<'_> {
    fn drop(&mut self) {
        let mut state = self.handle.hub().lock();
        let left = state.watchers.leave(&self.place);
        if let Some(id) = self.id {
            state.requests.remove(&id);
            state.agent.forget_request(id);
        }
        drop(state);
        drop(left);
        self.room.leave(self.handle.hub());
    }
}

impl Handle {
    /// Publishes a request and waits for its response: a message with the correlation data of the request (5). The first
    /// request subscribes to a response topic of this client. This future has no time limit; `request` of the adapters has
    /// one.
    pub const fn await_response<'a>(&'a self, message: Outgoing<'a>) -> Requesting<'a> {
        Requesting::new(self, message)
    }

    /// Responds to requests on `filter`: `answer` returns the payload of the response. A request is acknowledged when its
    /// response is accepted. Messages without a response topic are given to `answer` as well. Ends with the client.
    ///
    /// # Errors
    /// The subscription is refused, or a response cannot be published.
    pub async fn respond<F>(
        &self,
        filter: &str,
        qos: QoS,
        mut answer: impl FnMut(ReceivedMessage) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Vec<u8>>,
    {
        let mut requests = self.subscribe(filter, qos).await?;
        while let Some(request) = requests.next().await {
            let message = request.clone().into_message();
            let payload = answer(request).await;
            if let Some(response) = Publication::response_to(&message, payload) {
                match self.publish_owned(&response).await {
                    Ok(ticket) => drop(ticket),
                    // An invalid response topic or a response that is too large must not end the responder for other requesters.
                    Err(error @ Error::Topic(..)) => {
                        tracing::warn!("no response: {}", in_full(&error))
                    }
                    Err(Error::Refused(why @ Refused::TooLarge { .. })) => {
                        tracing::warn!("no response: {why}");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
