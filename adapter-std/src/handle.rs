//! The cloneable handle of blocking programs.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mqtt_adapter_core::dial::Dialler;
use mqtt_adapter_core::proto::{Properties, QoS, ReasonCode, Subscription, TopicFilter};
use mqtt_adapter_core::session::Instant;
use mqtt_adapter_core::{
    ConnectionEvent, DialOptions, Error, Hub, LINGER, Message, Options, Outcome, Outgoing,
    Publication, ReceivedMessage, Unsent,
};

use crate::dial::Line;
use crate::drive::{Split, drive};
use crate::wait::{block_on, block_on_for};

/// A client that many threads share: it reconnects, resumes its session, subscribes again what the server forgot, and
/// sends again what was not acknowledged.
///
/// When the last handle and stream are gone, the thread that drops it waits until what is pending is sent and the server was
/// told, for up to five seconds; [`Self::close`] does it at a time of the program's choosing.
#[derive(Clone, Debug)]
pub struct Handle {
    client: Arc<SharedHandle>,
    limit: Option<Duration>,
}

/// What handles and streams share; the last one waits for the goodbye.
#[derive(Debug)]
struct SharedHandle(mqtt_adapter_core::Handle);

impl Drop for SharedHandle {
    fn drop(&mut self) {
        let _ = close(&self.0, LINGER);
    }
}

/// Closes, and looks once more when the time is over: a driver that opens a connection does not.
fn close(client: &mqtt_adapter_core::Handle, deadline: Duration) -> Vec<Unsent> {
    let mut close = client.close(deadline);
    block_on_for(&mut close, deadline)
        .or_else(|| block_on_for(&mut close, GRACE))
        .unwrap_or_else(|| client.unsent())
}

/// How long a driver may take to notice that the time for closing is over, before nobody waits for it.
const GRACE: Duration = Duration::from_secs(2);

impl Handle {
    /// Connects as the options say, and comes back when the server accepted. Later losses are repaired by themselves.
    ///
    /// # Errors
    /// The first attempt fails; nothing goes on then. [`Self::start`] does not mind, and [`Self::wait_connected`] waits
    /// however long it takes.
    pub fn connect(options: Options) -> Result<Self, Error> {
        let handle = Self::start(options);
        block_on(handle.client.0.first_attempt())?;
        Ok(handle)
    }

    /// Begins to connect as the options say and goes on trying.
    #[must_use]
    pub fn start(options: Options) -> Self {
        Self::start_dialling(options, DialOptions::default())
    }

    /// The same with settings of TLS, WebSocket or a proxy.
    #[must_use]
    pub fn start_dialling(options: Options, dial: DialOptions) -> Self {
        let (dialler, timeout) = (Dialler::new(&options, dial), options.dial_timeout);
        Self::start_with(options, move || Line::dial(&dialler, timeout))
    }

    /// The same over any transport: `dial` opens a fresh one for each attempt.
    pub fn start_with<T: Split>(
        options: Options,
        dial: impl FnMut() -> io::Result<T> + Send + 'static,
    ) -> Self {
        let hub = Hub::new(options);
        let client = Arc::new(SharedHandle(mqtt_adapter_core::Handle::new(&hub)));
        thread::spawn(move || drive(&hub, dial));
        Self {
            client,
            limit: None,
        }
    }

    /// The same client, whose calls wait no longer than `limit`: [`Error::TimedOut`] is what they return then, and what they
    /// were to do is not done. A new handle waits without a limit.
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

    /// The same client for code that awaits: its futures run on any executor, and its streams do not keep the client from
    /// closing when the last handle is dropped.
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
    /// The client is closed, or gave up: the reason.
    pub fn wait_connected(&self) -> Result<(), Error> {
        self.wait("connecting", self.client.0.connected())
    }

    /// Publishes, waiting for room if need be; the ticket tells the message's end.
    ///
    /// # Errors
    /// `topic` is no topic name, the message is larger than the server takes, or the client is closed. While there is no
    /// connection, messages are kept as [`crate::Config::offline`] says.
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

    /// The same with all that a message can have.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_message(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        self.wait("publishing", self.client.0.publish_message(message))
            .map(Ticket)
    }

    /// The same for a message that owns what it says.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_owned(&self, message: &Publication) -> Result<Ticket, Error> {
        self.wait("publishing", self.client.0.publish_owned(message))
            .map(Ticket)
    }

    /// Publishes now, or says why not.
    ///
    /// # Errors
    /// [`crate::Refused::Full`] while there is no room, and as [`Self::publish`].
    pub fn try_publish(&self, message: &Outgoing<'_>) -> Result<Ticket, Error> {
        self.client.0.try_publish(message).map(Ticket)
    }

    /// Subscribes to one filter and waits for the server's answer.
    ///
    /// # Errors
    /// [`Error::SubscriptionRefused`] if the server refused it; `filter` is no topic filter; the client is closed before.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<Messages, Error> {
        self.wait("subscribing", self.client.0.subscribe(filter, qos))
            .map(|messages| self.stream(messages))
    }

    /// Subscribes to several filters by one SUBSCRIBE, with its properties (5), and waits for the server's codes.
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

    /// Gives up filters of a session from before, and waits for the server's answer: a code for each (5).
    ///
    /// # Errors
    /// The client is closed before.
    pub fn unsubscribe(&self, filters: &[TopicFilter<'_>]) -> Result<Vec<ReasonCode>, Error> {
        self.wait("unsubscribing", self.client.0.unsubscribe(filters))
    }

    /// The messages that no other stream claims: those of [`crate::Options::subscriptions`], and of a session from before.
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
    /// As there.
    pub fn acknowledge(&self, message: &ReceivedMessage, reason: ReasonCode) -> Result<(), Error> {
        self.client.0.acknowledge(message, reason)
    }

    /// Publishes a request and waits for its response, for at most `limit` (5). See
    /// [`mqtt_adapter_core::Handle::await_response`].
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::MessageRefused`] if nobody listens there and the server says so; and what refuses a
    /// publish or the subscription to the response topic.
    pub fn request(&self, request: &Outgoing<'_>, limit: Duration) -> Result<Message, Error> {
        block_on_for(self.client.0.await_response(*request), limit)
            .unwrap_or(Err(Error::TimedOut("the response")))
    }

    /// Answers requests that come to `filter` until the client is closed: `answer` makes the payload of the response.
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

    /// What becomes of the connection.
    #[must_use]
    pub fn events(&self) -> ConnectionEvents {
        ConnectionEvents(self.client.0.events())
    }

    /// How long it is until a moment that an event told, such as [`ConnectionEvent::WaitingUntil`].
    #[must_use]
    pub fn until(&self, at: Instant) -> Duration {
        self.client.0.until(at)
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.0.is_connected()
    }

    /// How many messages and requests were accepted and have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.client.0.pending()
    }

    /// Closes: sends what is pending, for at most `deadline`, disconnects, and gives back what was not acknowledged.
    #[must_use]
    pub fn close(&self, deadline: Duration) -> Vec<Unsent> {
        close(&self.client.0, deadline)
    }
}

/// A published message.
#[derive(Debug)]
pub struct Ticket(mqtt_adapter_core::Ticket);

impl Ticket {
    /// Waits for its end.
    #[must_use]
    pub fn wait(self) -> Outcome {
        block_on(self.0)
    }

    /// Waits for its end, for at most `limit`; `None` if it did not come. The message goes on.
    pub fn wait_for(&mut self, limit: Duration) -> Option<Outcome> {
        block_on_for(&mut self.0, limit)
    }
}

/// The messages of a subscription: an iterator that ends when the subscription is over or the client stopped. A message at QoS 1
/// or 2 is acknowledged when the iterator is asked for the next one; see [`mqtt_adapter_core::Messages`].
#[derive(Debug)]
pub struct Messages {
    messages: mqtt_adapter_core::Messages,
    /// Dropped last: the client goes on as long as a stream is there.
    _client: Arc<SharedHandle>,
}

impl Deref for Messages {
    type Target = mqtt_adapter_core::Messages;

    fn deref(&self) -> &mqtt_adapter_core::Messages {
        &self.messages
    }
}

impl Messages {
    /// The next message, if one comes within `patience`.
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

/// What becomes of the connection: an iterator that ends when the client stopped.
#[derive(Debug)]
pub struct ConnectionEvents(mqtt_adapter_core::ConnectionEvents);

impl ConnectionEvents {
    /// The next event, if one comes within `patience`.
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
