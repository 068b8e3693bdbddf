//! The state that all pipes of a process share: the connection, and the table that finds the pipe of a message.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::flow::Size;
use super::message::{
    EndName, PipeRequest, REFUSED, Request, accepted, accepts, address, gone, has_address,
};
use super::owners::{OwnerName, Owners};
use super::pipe::Pipe;
use super::{ABOUT, Arrivals, Opened, PipeError, PipeUse};
use crate::lease::Loss;

/// How many messages may wait at a pipe beside those of a whole window: some questions and answers.
const POSTS: usize = 64;

/// The bytes of one permit of the budget.
pub(crate) const BUDGET_UNIT: u64 = 1 << 10;

/// How long the owner of a shard has to answer, at most.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// The connection and the table.
pub(crate) struct Hub {
    pub(crate) client: Client,
    /// The name of the journals.
    pub(crate) journal: String,
    pub(crate) shard: u8,
    /// This process.
    pub(crate) own: OwnerName,
    pub(crate) owners: Owners,
    pub(crate) address: Option<String>,
    /// A pipe fails after so long without a message.
    pub(crate) silence: Duration,
    /// The most bytes of data in a message.
    pub(crate) most_data: usize,
    /// Ends when the journal is closed.
    pub(crate) stop: watch::Receiver<()>,
    /// Whether another process has the key of this one.
    pub(crate) lost: watch::Receiver<Option<Loss>>,
    pub(crate) links: Places,
    pub(crate) clients: Places,
    /// The room for bytes on their way in the pipes of clients, beyond the room of each pipe, in [`BUDGET_UNIT`].
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) ends: Mutex<HashMap<u64, mpsc::Sender<Post>>>,
    pub(crate) next: AtomicU64,
    /// The addresses of the owners of shards.
    pub(crate) addresses: Mutex<HashMap<u8, Address>>,
}

/// The answer of an owner that was asked for its address.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    owner: OwnerName,
    address: Option<String>,
}

/// The places for pipes of one kind.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    most: u32,
}

impl Places {
    pub(crate) fn new(most: u32) -> Self {
        let free = Semaphore::new(usize::try_from(most).unwrap_or(0));
        Self {
            free: Arc::new(free),
            most,
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shard, own) = (self.shard, self.own);
        write!(f, "Hub {{ shard: {shard}, own: {own:?}, .. }}")
    }
}

/// An event for a pipe.
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
    pub(crate) size: Size,
    _place: OwnedSemaphorePermit,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.hub.ends().remove(&self.number);
    }
}

impl Hub {
    /// Locks the table. Its values are valid at any time, even if a thread panicked while it held the lock.
    fn ends(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Post>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<u8, Address>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.stop.has_changed().is_err()
    }

    /// Returns the subject of an end.
    fn subject_of(&self, end: EndName) -> Subject {
        let EndName { instance, number } = end;
        format!("mqtt.pipe.{}.{instance:032x}.{number}", self.journal).into()
    }

    /// Returns the subject of requests to the owner of a shard. An earlier owner does not get what is for a later one.
    fn requests_of(&self, shard: u8, owner: OwnerName) -> Subject {
        let (journal, epoch) = (&self.journal, owner.epoch);
        format!("mqtt.shard.{journal}.{shard}.{epoch}").into()
    }

    /// Makes a place in the table.
    fn enter(self: &Arc<Self>, carries: PipeUse) -> Result<(Entry, EndName), PipeError> {
        let (places, size) = match carries {
            PipeUse::Link => (&self.links, Size::LINK),
            PipeUse::Client => (&self.clients, Size::CLIENT),
        };
        let place = Arc::clone(&places.free).try_acquire_owned();
        let place = place.map_err(|_| PipeError::TooMany)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, posts) = mpsc::channel(size.messages() + POSTS);
        self.ends().insert(number, sender);
        let instance = self.own.instance;
        let end = EndName { instance, number };
        let entry = Entry {
            hub: Arc::clone(self),
            number,
            subject: self.subject_of(end),
            posts,
            size,
            _place: place,
        };
        Ok((entry, end))
    }

    /// Asks the owner of a shard. Returns the answer, and who that is.
    async fn ask(&self, shard: u8, request: &Request) -> Result<(Bytes, OwnerName), PipeError> {
        if self.is_closed() {
            return Err(PipeError::Closed);
        }
        let mut owner = self.owners.owner(shard).await?;
        loop {
            match self.ask_owner(shard, owner, request).await {
                // The shard may have another owner since.
                Err(PipeError::NoOwner) => {
                    owner = self.owners.other_than(owner, shard).await?;
                }
                asked => return Ok((asked?, owner)),
            }
        }
    }

    async fn ask_owner(
        &self,
        shard: u8,
        owner: OwnerName,
        request: &Request,
    ) -> Result<Bytes, PipeError> {
        let subject = self.requests_of(shard, owner);
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
        carries: PipeUse,
        about: Bytes,
    ) -> Result<DuplexStream, PipeError> {
        if about.len() > ABOUT {
            return Err(PipeError::TooLong);
        }
        let (entry, from) = self.enter(carries)?;
        let request = Request::Pipe(PipeRequest {
            carries,
            shard: self.shard,
            epoch: self.own.epoch,
            from,
            about,
        });
        let (answer, owner) = self.ask(shard, &request).await?;
        let other = accepted(answer).ok_or(PipeError::Refused)?;
        self.check(shard, owner, other.instance)?;
        let (own, stream) = duplex(entry.size.stream);
        let peer = self.subject_of(other);
        tokio::spawn(Pipe::new(self, entry, peer, stream).run());
        Ok(own)
    }

    pub(crate) async fn address_of(
        self: Arc<Self>,
        shard: u8,
    ) -> Result<Option<String>, PipeError> {
        let owner = self.owners.owner(shard).await?;
        let known = self.addresses().get(&shard).cloned();
        if let Some(known) = known.filter(|known| known.owner == owner) {
            return Ok(known.address);
        }
        let Address { owner, address } = Arc::clone(&self).ask_address(shard).await?;
        let told = Address {
            owner,
            address: address.clone(),
        };
        self.addresses().insert(shard, told);
        Ok(address)
    }

    pub(crate) async fn ask_address(self: Arc<Self>, shard: u8) -> Result<Address, PipeError> {
        let (answer, owner) = self.ask(shard, &Request::Address).await?;
        let address = match address(answer) {
            None => None,
            Some((instance, address)) => {
                self.check(shard, owner, instance)?;
                Some(address)
            }
        };
        Ok(Address { owner, address })
    }

    /// Checks that the owner of a shard has answered.
    fn check(&self, shard: u8, owner: OwnerName, answered: u128) -> Result<(), PipeError> {
        if answered == owner.instance {
            return Ok(());
        }
        self.owners.tell_stranger("answers for", shard);
        Err(PipeError::Stranger)
    }

    /// Answers the requests of other processes until the journal is closed, or another process has the key of this one.
    pub(crate) async fn answer_all(self: Arc<Self>, arrivals: Arrivals) {
        let subject = self.requests_of(self.shard, self.own);
        let Ok(mut requests) = self.client.subscribe(subject).await else {
            return;
        };
        let mut lost = self.lost.clone();
        let answering = async {
            while let Some(message) = self.next(&mut requests).await {
                if let Some(reply) = message.reply {
                    self.answer_one(reply, message.payload, &arrivals).await;
                }
            }
        };
        tokio::select! {
            () = answering => {}
            Ok(_) = lost.wait_for(Option::is_some) => {}
        }
    }

    async fn answer_one(self: &Arc<Self>, reply: Subject, request: Bytes, arrivals: &Arrivals) {
        let answer = match Request::read(request) {
            Some(Request::Pipe(request)) => {
                let arrivals = match request.carries {
                    PipeUse::Link => &arrivals.links,
                    PipeUse::Client => &arrivals.clients,
                };
                let room = arrivals.clone().try_reserve_owned();
                match (room, self.enter(request.carries)) {
                    (Ok(room), Ok(place)) => {
                        tokio::spawn(Arc::clone(self).accept(request, reply, room, place));
                        return;
                    }
                    _ => None,
                }
            }
            Some(Request::Address) => {
                let address = self.address.as_deref();
                address.map(|address| has_address(self.own.instance, address))
            }
            None => None,
        };
        let answer = answer.unwrap_or(Bytes::from_static(REFUSED));
        self.answer(reply, answer).await;
    }

    /// Carries a pipe for another process, if that owns its shard.
    async fn accept(
        self: Arc<Self>,
        request: PipeRequest,
        reply: Subject,
        room: mpsc::OwnedPermit<Opened>,
        (entry, end): (Entry, EndName),
    ) {
        let (process, from) = (request.process(), request.from);
        let PipeRequest {
            shard,
            epoch,
            about,
            ..
        } = request;
        if !self.owners.owns(process, shard).await {
            return self.answer(reply, Bytes::from_static(REFUSED)).await;
        }
        let (pipe, stream) = duplex(entry.size.stream);
        room.send(Opened {
            shard,
            epoch,
            about,
            pipe,
        });
        self.answer(reply, accepts(end)).await;
        let peer = self.subject_of(from);
        Pipe::new(self, entry, peer, stream).run().await;
    }

    /// Passes each message to its pipe until the journal is closed.
    pub(crate) async fn pass_all(self: Arc<Self>) {
        let all = format!("mqtt.pipe.{}.{:032x}.*", self.journal, self.own.instance);
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
        for Places { free, most } in [&self.links, &self.clients] {
            // The semaphore is never closed.
            let _ = free.acquire_many(*most).await;
        }
        let _ = self.client.flush().await;
    }

    /// Publishes an answer that may get lost.
    pub(crate) async fn answer(&self, to: Subject, answer: Bytes) {
        let published = self.client.publish(to, answer);
        let _ = tokio::time::timeout(self.silence, published).await;
    }
}
