//! Pipes of bytes between the processes of a broker, over the core of NATS.
//!
//! A process asks the owner of a shard for a pipe, by a request on the subject of the shard and the epoch, which it knows from
//! the key of the owner. Both processes check that the other process has the key of its shard (`owners.rs`). The messages of
//! the pipe go to a subject of each end. They have numbers, because NATS may lose some: then the pipe ends, at both ends. What
//! may be on its way is bounded.

mod flow;
mod hub;
mod message;
mod owners;
mod pipe;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::background::Background;
use crate::config::Config;
use crate::lease::Loss;
use crate::waiting::TellNotice;
use hub::{BUDGET_UNIT, Hub, Places};
use message::HEADER;
use owners::{OwnerName, Owners};

/// The most bytes that tell what a pipe is for.
pub const ABOUT: usize = 64 << 10;

/// How many pipes for clients of other processes wait for [`Incoming::next`], and how many links. Further ones are refused.
const WAITING: usize = 1 << 10;
const WAITING_LINKS: usize = 1 << 7;

/// How many links may be open at once, in either direction: some for each other shard, since an earlier one may not have ended yet.
const LINKS: u32 = 1 << 9;

/// The use of a pipe, which decides how many bytes may be on their way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PipeUse {
    /// The messages of many clients between two shards: up to 256 KiB in each direction. Links have places of their own.
    Link,
    /// The bytes of one client: up to 32 KiB in each direction, of which 24 KiB have to fit into [`Config::pipe_bytes`] with those of
    /// the others.
    Client,
}

/// Opens pipes to the owners of other shards.
///
/// A pipe carries bytes in both directions. What one end reads are the first of those that the other end wrote, in their order.
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ends one direction, and dropping an end ends both; what was written before still
/// comes. If messages are lost, or the other process ends or is silent for as long as the key of an owner lives, both ends end.
#[derive(Clone, Debug)]
pub struct Pipes {
    hub: Arc<Hub>,
    background: Arc<Background>,
}

/// A connection for pipes alone, with a thread of its own, so that they do not delay the journal.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) client: Client,
    /// The stream of the bucket with the keys of the owners.
    pub(crate) bucket: Stream<()>,
    pub(crate) background: Arc<Background>,
}

/// The settings of all pipes of a process.
pub(crate) struct PipeSettings<'c> {
    pub(crate) config: &'c Config,
    pub(crate) shard: u8,
    pub(crate) instance: u128,
    pub(crate) epoch: u64,
    /// How long the key of an owner lives.
    pub(crate) silence: Duration,
    /// Whether another process has the key.
    pub(crate) lost: watch::Receiver<Option<Loss>>,
    /// Ends when the journal is closed.
    pub(crate) stop: watch::Receiver<()>,
    pub(crate) notice: TellNotice,
}

/// The pipes that other processes open to this one.
#[derive(Debug)]
pub struct Incoming {
    links: mpsc::Receiver<Opened>,
    clients: mpsc::Receiver<Opened>,
}

/// Where the pipes go that other processes open.
pub(crate) struct Arrivals {
    links: mpsc::Sender<Opened>,
    clients: mpsc::Sender<Opened>,
}

/// A pipe that another process has opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The shard of the other process. The key of the shard's owner was that of this process a moment ago.
    pub shard: u8,
    /// The epoch of the other process.
    pub epoch: u64,
    /// The bytes with which the other process describes the use of the pipe.
    pub about: Bytes,
    /// This end of the pipe.
    pub pipe: DuplexStream,
}

/// Why there is no pipe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PipeError {
    /// No process owns the shard, or its owner does not serve yet.
    NoOwner,
    /// The owner did not answer in time.
    NoAnswer,
    /// The description of the pipe has too many bytes.
    TooLong,
    /// This process has too many pipes.
    TooMany,
    /// The owner has too many pipes, does not understand the request, or found that this process does not own its shard.
    Refused,
    /// Another process than the owner answered.
    Stranger,
    /// This process has closed its journal.
    Closed,
}

impl fmt::Display for PipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoOwner => "no process owns the shard",
            Self::NoAnswer => "the owner of the shard does not answer",
            Self::TooLong => "there is too much about the pipe",
            Self::TooMany => "this process has too many pipes",
            Self::Refused => "the owner of the shard does not take the pipe",
            Self::Stranger => "a process that does not own the shard answers",
            Self::Closed => "the journal is closed",
        })
    }
}

impl std::error::Error for PipeError {}

impl Pipes {
    /// Takes what comes to this process from now on.
    pub(crate) fn start(carrier: Carrier, settings: PipeSettings<'_>) -> Self {
        let Carrier {
            client,
            bucket,
            background,
        } = carrier;
        let PipeSettings {
            config,
            shard,
            instance,
            epoch,
            silence,
            lost,
            stop,
            notice,
        } = settings;
        let most = u32::try_from(config.pipes.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let most_data = client.max_payload().saturating_sub(HEADER).max(1);
        let hub = Arc::new(Hub {
            client,
            journal: config.shard.clone(),
            shard,
            own: OwnerName { instance, epoch },
            owners: Owners::new(bucket, config, notice),
            address: config.address.clone(),
            silence,
            most_data,
            stop,
            lost,
            links: Places::new(LINKS),
            clients: Places::new(most),
            budget: Arc::new(Semaphore::new(budget(config))),
            ends: Mutex::default(),
            addresses: Mutex::default(),
            next: AtomicU64::new(0),
        });
        background.handle.spawn(Arc::clone(&hub).pass_all());
        Self { hub, background }
    }

    /// Waits until all pipes have ended.
    pub(crate) async fn closed(self) {
        self.hub.closed().await;
    }

    /// Opens a pipe to the owner of a shard, and tells it by at most [`ABOUT`] bytes more of what the pipe is for.
    ///
    /// # Errors
    /// There is no pipe now, and it may be tried again later, unless it is [`PipeError::TooLong`] or [`PipeError::Closed`].
    pub async fn open(
        &self,
        shard: u8,
        carries: PipeUse,
        about: Bytes,
    ) -> Result<DuplexStream, PipeError> {
        let opening = Arc::clone(&self.hub).open(shard, carries, about);
        // The task fails only if its thread ends.
        let opened = self.background.handle.spawn(opening).await;
        opened.unwrap_or(Err(PipeError::Closed))
    }

    /// Asks the owner of a shard whether it is there.
    ///
    /// # Errors
    /// There is no answer now.
    pub async fn is_there(&self, shard: u8) -> Result<(), PipeError> {
        let asking = Arc::clone(&self.hub).ask_address(shard);
        let asked = self.background.handle.spawn(asking).await;
        asked.unwrap_or(Err(PipeError::Closed)).map(drop)
    }

    /// Returns how clients reach the owner of a shard, if that is known ([`crate::Config::address`]). Each owner is asked once.
    ///
    /// # Errors
    /// There is no answer now.
    pub async fn address(&self, shard: u8) -> Result<Option<String>, PipeError> {
        let asking = Arc::clone(&self.hub).address_of(shard);
        let asked = self.background.handle.spawn(asking).await;
        asked.unwrap_or(Err(PipeError::Closed))
    }

    /// Lets other processes find this one as the owner of its shard. To be called once, when it serves.
    #[must_use]
    pub fn serve(&self) -> Incoming {
        let (links, incoming_links) = mpsc::channel(WAITING_LINKS);
        let (clients, incoming_clients) = mpsc::channel(WAITING);
        let answering = Arc::clone(&self.hub).answer_all(Arrivals { links, clients });
        self.background.handle.spawn(answering);
        Incoming {
            links: incoming_links,
            clients: incoming_clients,
        }
    }
}

/// Returns the units of the budget: what a process may have on its way to each other one, so that all others together do not send more
/// than the setting to one.
fn budget(config: &Config) -> usize {
    let others = u64::from(config.shards.saturating_sub(1).max(1));
    let bytes = u64::try_from(config.pipe_bytes).unwrap_or(u64::MAX);
    let units = usize::try_from(bytes / others / BUDGET_UNIT).unwrap_or(usize::MAX);
    units.min(Semaphore::MAX_PERMITS)
}

impl Incoming {
    /// Returns the next pipe, the links first; `None` when the journal is closed.
    pub async fn next(&mut self) -> Option<Opened> {
        tokio::select! {
            biased;
            Some(link) = self.links.recv() => Some(link),
            Some(client) = self.clients.recv() => Some(client),
            else => None,
        }
    }
}
