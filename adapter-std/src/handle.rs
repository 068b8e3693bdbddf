//! Holds the cloneable handle of blocking programs.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mqtt_adapter_core::dial::Dialler;
use mqtt_adapter_core::proto::{Properties, QoS, ReasonCode, Subscription, TopicFilter};
use mqtt_adapter_core::session::Instant;
use mqtt_adapter_core::{
    ConnectionEvent, DialOptions, Driving, Error, Hub, LINGER, Message, Options, Outcome, Outgoing,
    Publication, ReceivedMessage, Unsent,
};

use crate::dial::Line;
use crate::drive::{Split, drive};
use crate::wait::{block_on, block_on_for};

/// A client that many threads share. It reconnects, resumes its session, subscribes again if the server lost the session, and
/// sends unacknowledged messages again.
///
/// The thread that drops the last handle or stream waits, for at most five seconds, until pending messages and DISCONNECT are
/// sent. [`Self::close`] does the same on request.
#[derive(Clone, Debug)]
pub struct Handle {
    client: Arc<SharedHandle>,
    limit: Option<Duration>,
}

/// The client that handles and streams share. Dropping the last one waits for DISCONNECT.
#[derive(Debug)]
struct SharedHandle(mqtt_adapter_core::Handle);

impl Drop for SharedHandle {
    fn drop(&mut self) {
        let _ = close(&self.0, LINGER);
    }
}

/// Closes the client, and checks the time limit a second time, because a driver that is opening a transport does not notice it.
fn close(client: &mqtt_adapter_core::Handle, deadline: Duration) -> Vec<Unsent> {
    let mut close = client.close(deadline);
    block_on_for(&mut close, deadline)
        .or_else(|| block_on_for(&mut close, GRACE))
        .unwrap_or_else(|| client.unsent())
}

/// How long to wait for a driver that has not noticed the end of the time limit of closing.
const GRACE: Duration = Duration::from_secs(2);

impl Handle {
    /// Connects with these options, and returns when the server has accepted the connection. From then on the client reconnects
    /// by itself.
    ///
    /// # Errors
    /// The first attempt failed; the client stops then. [`Self::start`] returns at once and tries again;
    /// [`Self::wait_connected`] waits without a time limit.
    pub fn connect(options: Options) -> Result<Self, Error> {
        let handle = Self::start(options);
        block_on(handle.client.0.first_attempt())?;
        Ok(handle)
    }

    /// Starts a client with these options. It tries again after a failure.
    #[must_use]
    pub fn start(options: Options) -> Self {
        Self::start_dialling(options, DialOptions::default())
    }

    /// Starts a client with settings for TLS, WebSocket or a proxy.
    #[must_use]
    pub fn start_dialling(options: Options, dial: DialOptions) -> Self {
        let (dialler, timeout) = (Dialler::new(&options, dial), options.dial_timeout);
        Self::start_with(options, move || Line::dial(&dialler, timeout))
    }

    /// Starts a client over any transport. `dial` opens a new transport for each attempt.
    pub fn start_with<T: Split>(
        options: Options,
        dial: impl FnMut() -> io::Result<T> + Send + 'static,
    ) -> Self {
        let hub = Hub::new(options);
        let client = Arc::new(SharedHandle(mqtt_adapter_core::Handle::new(&hub)));
        let hub = Driving::new(hub);
        thread::spawn(move || drive(&hub, dial));
        Self {
            client,
            limit: None,
        }
    }

    /// Returns a handle of the same client whose calls wait for at most `limit`. After that time a call does nothing and returns
    /// [`Error::TimedOut`]. A new handle waits without a limit.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn example(handle: &mqtt_std::Handle) -> Result<(), mqtt_std::Error> {
    /// handle.timeout(Duration::from_secs(10)).wait_connected()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn timeout(&self, limit: Duration) -> Self {
        Self {
            client: Arc::clone(&self.client),
            limit: Some(limit),
        }
    }

    /// Returns the async handle of the same client. Its futures run on any executor. Its streams do not keep the client open
    /// when the last handle is dropped.
    #[must_use]
    pub fn as_async(&self) -> &crate::asynch::Handle {
        &self.client.0
    }

    fn wait<R>(
        &self,
        what: &'static str,
        future: impl Future<Output = Result<R, Error>>,
    ) -> Result<R, Error> {
        match self.limit {
            Some(limit) => block_on_for(future, limit).unwrap_or(Err(Error::TimedOut(what))),
            None => block_on(future),
        }
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// The client is closed, or stopped for this reason.
    pub fn wait_connected(&self) -> Result<(), Error> {
        self.wait("connecting", self.client.0.connected())
    }

    /// Publishes a message, and waits for room if there is none. The ticket reports the end of the message.
    ///
    /// # Errors
    /// `topic` is no valid topic name, the message is larger than the server takes, or the client is closed. While there is
    /// no connection, messages are kept as [`crate::Config::offline`] says.
    pub fn publish(
        &self,
        topic: &str,
        qos: QoS,
        retain: bool,
        payload: impl AsRef<[u8]>,
    ) -> Result<Ticket, Error> {
        let payload = payload.as_ref();
        self.wait(
            "publishing",
            self.client.0.publish(topic, qos, retain, payload),
        )
        .map(Ticket)
    }

    /// Publishes a message with all its fields.
    ///
    /// # Errors
    /// As for [`Self::publish`].
    pub fn publish_message(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        self.wait("publishing", self.client.0.publish_message(message))
            .map(Ticket)
    }

    /// Publishes an owned message.
    ///
    /// # Errors
    /// As for [`Self::publish`].
    pub fn publish_owned(&self, message: &Publication) -> Result<Ticket, Error> {
        self.wait("publishing", self.client.0.publish_owned(message))
            .map(Ticket)
    }

    /// Publishes a message now, or returns an error.
    ///
    /// # Errors
    /// [`crate::Refused::Full`] while there is no room, and as for [`Self::publish`].
    pub fn try_publish(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        self.client.0.try_publish(message).map(Ticket)
    }

    /// Subscribes to one filter and waits for the server's answer.
    ///
    /// # Errors
    /// [`Error::SubscriptionRefused`] if the server refused it; `filter` is no valid topic filter; the client is closed
    /// before.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<Messages, Error> {
        self.wait("subscribing", self.client.0.subscribe(filter, qos))
            .map(|messages| self.stream(messages))
    }

    /// Subscribes to several filters by one SUBSCRIBE, with its properties (5), and waits for the server's answer.
    ///
    /// # Errors
    /// [`Error::SubscriptionRefused`] if the server refused all of them; the client is closed before.
    pub fn subscribe_all(
        &self,
        filters: &[Subscription<'_>],
        properties: Properties<'_>,
    ) -> Result<Messages, Error> {
        self.wait(
            "subscribing",
            self.client.0.subscribe_all(filters, properties),
        )
        .map(|messages| self.stream(messages))
    }

    /// Unsubscribes from filters of an earlier session, and waits for the server's reason code for each (5).
    ///
    /// # Errors
    /// The client is closed before.
    pub fn unsubscribe(&self, filters: &[TopicFilter<'_>]) -> Result<Vec<ReasonCode>, Error> {
        self.wait("unsubscribing", self.client.0.unsubscribe(filters))
    }

    /// Returns the messages that match no other stream: those of [`crate::Options::subscriptions`], and of an earlier session.
    #[must_use]
    pub fn other_messages(&self) -> Messages {
        self.stream(self.client.0.other_messages())
    }

    fn stream(&self, messages: mqtt_adapter_core::Messages) -> Messages {
        Messages {
            messages,
            _client: Arc::clone(&self.client),
        }
    }

    /// Acknowledges a message by hand; see [`mqtt_adapter_core::Handle::acknowledge`].
    ///
    /// # Errors
    /// As for that method.
    pub fn acknowledge(&self, message: &ReceivedMessage, reason: ReasonCode) -> Result<(), Error> {
        self.client.0.acknowledge(message, reason)
    }

    /// Acknowledges a message that the program has finished, and stores a note with the acknowledgement; see
    /// [`mqtt_adapter_core::Handle::acknowledge_with`].
    ///
    /// # Errors
    /// As for that method.
    #[cfg(feature = "store")]
    pub fn acknowledge_with(&self, message: &ReceivedMessage, note: &[u8]) -> Result<(), Error> {
        self.client.0.acknowledge_with(message, note)
    }

    /// Returns the note of the last [`Self::acknowledge_with`], of this process or of an earlier one with the same store.
    #[cfg(feature = "store")]
    #[must_use]
    pub fn note(&self) -> Option<Vec<u8>> {
        self.client.0.note()
    }

    /// Publishes a request and waits for its response, for at most `limit` (5). See
    /// [`mqtt_adapter_core::Handle::await_response`].
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::MessageRefused`] if the server answers that the topic has no subscriber; and the errors
    /// of publishing and of subscribing to the response topic.
    pub fn request(&self, request: &Outgoing<'_>, limit: Duration) -> Result<Message, Error> {
        block_on_for(self.client.0.await_response(*request), limit)
            .unwrap_or(Err(Error::TimedOut("the response")))
    }

    /// Responds to requests on `filter` until the client is closed: `answer` returns the payload of the response.
    ///
    /// # Errors
    /// The subscription is refused, or a response cannot be published.
    pub fn respond(
        &self,
        filter: &str,
        qos: QoS,
        mut answer: impl FnMut(ReceivedMessage) -> Vec<u8>,
    ) -> Result<(), Error> {
        let respond = |request| std::future::ready(answer(request));
        block_on(self.client.0.respond(filter, qos, respond))
    }

    /// Returns the events of the connection as an iterator.
    #[must_use]
    pub fn events(&self) -> ConnectionEvents {
        ConnectionEvents(self.client.0.events())
    }

    /// Returns the time from now until an instant of an event, such as [`ConnectionEvent::WaitingUntil`].
    #[must_use]
    pub fn until(&self, at: Instant) -> Duration {
        self.client.0.until(at)
    }

    /// Returns whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.0.is_connected()
    }

    /// Returns how many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.client.0.pending()
    }

    /// Closes the client: sends pending messages for at most `deadline`, disconnects, and returns the messages that were not
    /// acknowledged.
    #[must_use]
    pub fn close(&self, deadline: Duration) -> Vec<Unsent> {
        close(&self.client.0, deadline)
    }
}

/// An accepted message.
#[derive(Debug)]
pub struct Ticket(mqtt_adapter_core::Ticket);

impl Ticket {
    /// Waits until the message has ended.
    #[must_use]
    pub fn wait(self) -> Outcome {
        block_on(self.0)
    }

    /// Waits until the message is stored; see [`mqtt_adapter_core::Ticket::stored`].
    ///
    /// # Errors
    /// The client stopped before.
    #[cfg(feature = "store")]
    pub fn wait_stored(&self) -> Result<(), Error> {
        block_on(self.0.stored())
    }

    /// Waits until the message has ended, for at most `limit`; returns `None` after that time, and the message is still sent.
    pub fn wait_for(&mut self, limit: Duration) -> Option<Outcome> {
        block_on_for(&mut self.0, limit)
    }
}

/// The messages of a subscription, as an iterator that ends when the subscription has ended or the client has stopped. A message
/// at QoS 1 or 2 is acknowledged when the program asks the iterator for the next one; see [`mqtt_adapter_core::Messages`].
#[derive(Debug)]
pub struct Messages {
    messages: mqtt_adapter_core::Messages,
    /// Dropped last, because the client stays open while there is a stream.
    _client: Arc<SharedHandle>,
}

impl Deref for Messages {
    type Target = mqtt_adapter_core::Messages;

    fn deref(&self) -> &mqtt_adapter_core::Messages {
        &self.messages
    }
}

impl Messages {
    /// Returns the next message if it comes within `patience`.
    pub fn next_within(&mut self, patience: Duration) -> Option<ReceivedMessage> {
        block_on_for(self.messages.next(), patience).flatten()
    }

    /// Unsubscribes and waits for the server's answer.
    ///
    /// # Errors
    /// The client is closed before.
    pub fn unsubscribe(&self) -> Result<Vec<ReasonCode>, Error> {
        block_on(self.messages.unsubscribe())
    }
}

impl Iterator for Messages {
    type Item = ReceivedMessage;

    fn next(&mut self) -> Option<ReceivedMessage> {
        block_on(self.messages.next())
    }
}

/// The events of the connection, as an iterator that ends when the client has stopped.
#[derive(Debug)]
pub struct ConnectionEvents(mqtt_adapter_core::ConnectionEvents);

impl ConnectionEvents {
    /// Returns the next event if it comes within `patience`.
    pub fn next_within(&mut self, patience: Duration) -> Option<ConnectionEvent> {
        block_on_for(self.0.next(), patience).flatten()
    }
}

impl Iterator for ConnectionEvents {
    type Item = ConnectionEvent;

    fn next(&mut self) -> Option<ConnectionEvent> {
        block_on(self.0.next())
    }
}
