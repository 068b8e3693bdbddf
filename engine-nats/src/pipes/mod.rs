//! Pipes of bytes between the processes of a broker, over the core of NATS.
//!
//! A process asks the owner of a shard for a pipe, by a request on the subject of the shard and the epoch, which it knows from the key
//! of the owner. Both processes check that the other one has the key of its shard (`owners.rs`). The messages of the pipe go to a subject
//! of each end. They have numbers, because NATS may lose some: then the pipe ends, at both ends. What may be on its way is bounded.

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
use crate::waiting::Tells;
use hub::Hub;
use message::HEADER;
use owners::{OwnerName, Owners};

/// The most bytes that tell what a pipe is for.
pub const ABOUT: usize = 64 << 10;

/// How many pipes of other processes wait for [`Incoming::next`]. Further ones are refused.
const WAITING: usize = 1 << 10;

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

/// What the pipes of a process must know.
pub(crate) struct Of<'c> {
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
    pub(crate) notice: Tells,
}

/// The pipes that other processes open to this one.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Opened>);

/// A pipe that another process has opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The shard of the other process. The key of the shard's owner was that of this process a moment ago.
    pub shard: u8,
    /// The epoch of the other process.
    pub epoch: u64,
    /// What the pipe is for.
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
    /// What the pipe is for has too many bytes.
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
    pub(crate) fn start(carrier: Carrier, of: Of<'_>) -> Self {
        let Carrier {
            client,
            bucket,
            background,
        } = carrier;
        let Of {
            config,
            shard,
            instance,
            epoch,
            silence,
            lost,
            stop,
            notice,
        } = of;
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
            places: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(0))),
            most,
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

    /// Opens a pipe to the owner of a shard, and tells it by at most [`ABOUT`] bytes what the pipe is for.
    ///
    /// # Errors
    /// There is no pipe now, and it may be tried again later, unless it is [`PipeError::TooLong`] or [`PipeError::Closed`].
    pub async fn open(&self, shard: u8, about: Bytes) -> Result<DuplexStream, PipeError> {
        let opening = Arc::clone(&self.hub).open(shard, about);
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
        let (opened, incoming) = mpsc::channel(WAITING);
        let answering = Arc::clone(&self.hub).answer_all(opened);
        self.background.handle.spawn(answering);
        Incoming(incoming)
    }
}

impl Incoming {
    /// Returns the next pipe; `None` when the journal is closed.
    pub async fn next(&mut self) -> Option<Opened> {
        self.0.recv().await
    }
}
