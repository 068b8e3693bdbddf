//! What the pipes of a process share: the connection, and the table that finds the pipe of a message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::flow::MESSAGES;
use super::message::{EndName, NONE, Request, accepted, accepts, address, gone, has_address};
use super::pipe::Pipe;
use super::{ABOUT, Opened, PipeError};

/// The bytes that a stream holds in each direction beside the window.
const STREAM: usize = 64 << 10;

/// How many messages may wait at a pipe: those of a whole window, and some questions and answers.
const POSTS: usize = MESSAGES + 64;

/// How long the owner of a shard has to answer, at most.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// The connection and the table.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) client: Client,
    /// The name of the journals.
    pub(crate) journal: String,
    pub(crate) shard: u8,
    pub(crate) instance: u128,
    pub(crate) address: Option<String>,
    /// A pipe fails after so long without a message.
    pub(crate) silence: Duration,
    /// The most bytes of data in a message.
    pub(crate) most_data: usize,
    /// Ends when the journal is closed.
    pub(crate) stop: watch::Receiver<()>,
    /// When the key of the owner was written the last time.
    pub(crate) renewed: watch::Receiver<std::time::Instant>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) most: u32,
    pub(crate) ends: Mutex<HashMap<u64, mpsc::Sender<Post>>>,
    pub(crate) next: AtomicU64,
}

/// What comes to a pipe.
#[derive(Debug)]
pub(crate) enum Post {
    Message {
        /// The subject of the end that sent it.
        reply: Option<Subject>,
        payload: Bytes,
    },
    /// The server tells that nobody receives what this end sends.
    NobodyReceives,
}

/// The place of a pipe in the table.
#[derive(Debug)]
pub(crate) struct Entry {
    hub: Arc<Hub>,
    number: u64,
    pub(crate) subject: Subject,
    pub(crate) posts: mpsc::Receiver<Post>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.hub.ends().remove(&self.number);
    }
}

impl Hub {
    /// The values are valid at any time, even if a thread panicked while it held the lock.
    fn ends(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Post>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.stop.has_changed().is_err()
    }

    /// Returns the subject of an end.
    fn subject_of(&self, end: EndName) -> Subject {
        let EndName { instance, number } = end;
        format!("mqtt.pipe.{}.{instance:032x}.{number}", self.journal).into()
    }

    /// Returns the subject of requests to the owner of a shard.
    fn requests_of(&self, shard: u8) -> Subject {
        format!("mqtt.shard.{}.{shard}", self.journal).into()
    }

    /// Makes a place in the table.
    fn enter(self: &Arc<Self>) -> Result<(Entry, EndName), PipeError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| PipeError::TooMany)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, posts) = mpsc::channel(POSTS);
        self.ends().insert(number, sender);
        let instance = self.instance;
        let end = EndName { instance, number };
        let entry = Entry {
            hub: Arc::clone(self),
            number,
            subject: self.subject_of(end),
            posts,
            _place: place,
        };
        Ok((entry, end))
    }

    /// Asks the owner of a shard.
    async fn ask(&self, shard: u8, request: &Request) -> Result<Bytes, PipeError> {
        if self.is_closed() {
            return Err(PipeError::Closed);
        }
        let subject = self.requests_of(shard);
        let asked = async_nats::Request::new()
            .payload(request.write())
            .timeout(Some(self.silence.min(ANSWER)));
        let answered = self.client.send_request(subject, asked).await;
        match answered {
            Ok(answer) => Ok(answer.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => PipeError::NoOwner,
                RequestErrorKind::MaxPayloadExceeded => PipeError::TooLong,
                _ => PipeError::NoAnswer,
            }),
        }
    }

    pub(crate) async fn open(
        self: Arc<Self>,
        shard: u8,
        about: Bytes,
    ) -> Result<DuplexStream, PipeError> {
        if about.len() > ABOUT {
            return Err(PipeError::TooLong);
        }
        let (entry, from) = self.enter()?;
        let answer = self.ask(shard, &Request::Pipe { from, about }).await?;
        let other = accepted(answer).ok_or(PipeError::Refused)?;
        let (own, stream) = duplex(STREAM);
        let peer = self.subject_of(other);
        tokio::spawn(Pipe::new(self, entry, peer, stream).run());
        Ok(own)
    }

    pub(crate) async fn address_of(
        self: Arc<Self>,
        shard: u8,
    ) -> Result<Option<String>, PipeError> {
        let answer = self.ask(shard, &Request::Address).await?;
        Ok(address(&answer))
    }

    /// Answers the requests of other processes until the journal is closed.
    pub(crate) async fn answer_all(self: Arc<Self>, opened: mpsc::Sender<Opened>) {
        let Ok(mut requests) = self.client.subscribe(self.requests_of(self.shard)).await else {
            return;
        };
        while let Some(message) = self.next(&mut requests).await {
            if let Some(reply) = message.reply.filter(|_| self.is_owner()) {
                self.answer_one(reply, message.payload, &opened).await;
            }
        }
    }

    /// Whether the key of the owner has not ended. A process that was frozen for long is not the owner any more.
    fn is_owner(&self) -> bool {
        self.renewed.borrow().elapsed() < self.silence
    }

    async fn answer_one(
        self: &Arc<Self>,
        reply: Subject,
        request: Bytes,
        opened: &mpsc::Sender<Opened>,
    ) {
        let answer = match Request::read(request) {
            Some(Request::Pipe { from, about }) => self.accept(from, about, opened),
            Some(Request::Address) => self.address.as_deref().map(has_address),
            None => None,
        };
        let answer = answer.unwrap_or(Bytes::from_static(NONE));
        self.answer(reply, answer).await;
    }

    /// Opens a pipe for another process, and returns the answer; `None` if there is no room.
    fn accept(
        self: &Arc<Self>,
        from: EndName,
        about: Bytes,
        opened: &mpsc::Sender<Opened>,
    ) -> Option<Bytes> {
        let place = opened.try_reserve().ok()?;
        let (entry, end) = self.enter().ok()?;
        let (pipe, stream) = duplex(STREAM);
        let peer = self.subject_of(from);
        tokio::spawn(Pipe::new(Arc::clone(self), entry, peer, stream).run());
        place.send(Opened { about, pipe });
        Some(accepts(end))
    }

    /// Passes each message to its pipe until the journal is closed.
    pub(crate) async fn pass_all(self: Arc<Self>) {
        let all = format!("mqtt.pipe.{}.{:032x}.*", self.journal, self.instance);
        let Ok(mut messages) = self.client.subscribe(all).await else {
            return;
        };
        while let Some(message) = self.next(&mut messages).await {
            self.pass(message).await;
        }
    }

    /// Returns the next message; `None` when the journal is closed.
    async fn next(&self, messages: &mut Subscriber) -> Option<Message> {
        let mut stop = self.stop.clone();
        tokio::select! {
            message = messages.next() => message,
            // The sender sends nothing: it is dropped.
            _ = stop.changed() => None,
        }
    }

    async fn pass(&self, message: Message) {
        let is_undelivered = message.status == Some(StatusCode::NO_RESPONDERS);
        let number = message.subject.rsplit('.').next();
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            return;
        };
        let post = if is_undelivered {
            Post::NobodyReceives
        } else {
            Post::Message {
                reply: message.reply.clone(),
                payload: message.payload.clone(),
            }
        };
        let end = self.ends().get(&number).cloned();
        let Some(end) = end else {
            let is_gone = message.payload.first() == gone().first();
            if let Some(reply) = message.reply.filter(|_| !is_gone && !is_undelivered) {
                self.answer(reply, gone()).await;
            }
            return;
        };
        if end.try_send(post).is_err() {
            // The other end does not keep to the window: without its sender the pipe ends.
            self.ends().remove(&number);
        }
    }

    /// Waits until all pipes have ended, and what they sent is on its way.
    pub(crate) async fn closed(self: Arc<Self>) {
        // The semaphore is never closed.
        let _ = self.places.acquire_many(self.most).await;
        let _ = self.client.flush().await;
    }

    /// Publishes an answer that may get lost.
    pub(crate) async fn answer(&self, to: Subject, answer: Bytes) {
        let published = self.client.publish(to, answer);
        let _ = tokio::time::timeout(self.silence, published).await;
    }
}
