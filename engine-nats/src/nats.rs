//! The engine: waits until this process is the owner, and stores on the servers of NATS.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mqtt_store::journal::Record;
use mqtt_store::{Changes, Engine, Failure};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::background::Background;
use crate::config::{Config, Notice, OpenError};
use crate::connection::{TIMEOUT, text};
use crate::lease::{Lease, Loss, Renewal};
use crate::pipes::Pipes;
use crate::random::random;
use crate::servers::Servers;
use crate::waiting::{Taken, Waiting};

/// The journal of a broker on the servers of NATS. This process is its owner until it closes it, or until another process takes
/// over.
#[derive(Debug)]
pub struct Nats {
    journal: Taken,
    place: Place,
    pipes: Option<OwnPipes>,
}

/// The pipes of a process with one of several shards.
#[derive(Debug)]
pub(crate) struct OwnPipes {
    pub(crate) pipes: Pipes,
    /// Ends the pipes when it is dropped.
    pub(crate) stop: watch::Sender<()>,
}

/// Which shard of how many a process has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) shard: u8,
    pub(crate) shards: u8,
    /// The key that decides the shard of a client.
    pub(crate) key: u64,
}

/// Waits until another process owns the journal.
#[derive(Clone, Debug)]
pub struct Lost(watch::Receiver<Option<Loss>>);

impl Lost {
    /// Returns when this process is not the owner any more. An owner without changes learns it here, not by a commit.
    pub async fn wait(mut self) -> Failure {
        match self.0.wait_for(Option::is_some).await {
            Ok(loss) => failure(&loss),
            // The journal was closed.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Tells how long a process is the owner for certain. Later, another process may have taken over that does not know what this one
/// promises without a commit.
#[derive(Clone, Debug)]
pub struct Certainty(watch::Receiver<Renewal>);

impl Certainty {
    /// Returns until when no other process can have taken over. This holds if the clocks of this machine and of the servers are equally
    /// fast.
    pub fn until(&mut self) -> Instant {
        self.0.borrow_and_update().until
    }

    /// Returns when the key of the owner was renewed since the last call of [`Self::until`]. Never returns after the journal is closed.
    pub async fn renewed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

fn failure(loss: &Option<Loss>) -> Failure {
    match loss {
        Some(Loss::To(node)) => Failure::Superseded(node.clone()),
        Some(Loss::NoAnswer(why)) => Failure::Broken(why.clone()),
        None => Failure::Broken("the journal is closed".to_owned()),
    }
}

impl Nats {
    /// Connects, waits in reserve until a journal has no other owner, and takes over. Tries for as long as it takes, and tells by
    /// `notice` what it waits for. Later it tells what is wrong with pipes. If the future is dropped, the process waits no longer,
    /// and a key that it already has is deleted, which takes up to four seconds. It is not deleted, and
    /// ends by itself, if the servers have not answered within two seconds whether the process is the owner.
    ///
    /// # Errors
    /// The journal is damaged or has another number of shards, or the configuration cannot be used.
    pub async fn open(
        config: Config,
        notice: impl Fn(Notice) + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        if let Some(fault) = config.fault() {
            return Err(Failure::Broken(fault.to_owned()).into());
        }
        let servers = Servers::parse(&config.servers).map_err(Failure::Broken)?;
        let background = Background::start("mqtt-nats").map_err(|error| broken(&error))?;
        let background = Arc::new(background);
        let take_over = Arc::new(TakeOver::default());
        let random = || random().map_err(|error| broken(&error));
        let waiting = Waiting {
            instance: random()?,
            // The upper half of the number.
            key: u64::try_from(random()? >> 64).unwrap_or_default(),
            background: Arc::clone(&background),
            servers,
            config,
            notice: Arc::new(notice),
            told: None,
            take_over: Arc::clone(&take_over),
        };
        let mut opening = Opening {
            task: Some(background.handle.spawn(waiting.open())),
            background,
            take_over,
        };
        opening.result().await
    }

    /// Returns what waits until another process owns the journal.
    #[must_use]
    pub fn lost(&self) -> Lost {
        Lost(self.journal.lost.clone())
    }

    /// Returns what tells how long this process is the owner for certain.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        Certainty(self.journal.renewals.clone())
    }

    pub(crate) const fn new(journal: Taken, place: Place, pipes: Option<OwnPipes>) -> Self {
        Self {
            journal,
            place,
            pipes,
        }
    }

    /// Returns what opens pipes to the owners of other shards, if there are other shards and the journal is open.
    #[must_use]
    pub fn pipes(&self) -> Option<Pipes> {
        self.pipes.as_ref().map(|own| own.pipes.clone())
    }

    /// Returns the shard whose journal this process owns, counted from 0.
    #[must_use]
    pub const fn shard(&self) -> u8 {
        self.place.shard
    }

    /// Returns how many shards the broker has.
    #[must_use]
    pub const fn shards(&self) -> u8 {
        self.place.shards
    }

    /// Returns the key that decides the shard of a client. It is the same in all processes of a broker of several shards, and
    /// for ever. With one shard it is a new random number.
    #[must_use]
    pub const fn key(&self) -> u64 {
        self.place.key
    }

    /// Returns how long the key of an owner lives, as the servers have it.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.journal.lease.length
    }

    /// Returns the epoch of this owner.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.journal.owner.epoch()
    }
}

impl Engine for Nats {
    fn read(&mut self, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), Failure> {
        self.journal.owner.read(&mut self.journal.connection, each)
    }

    fn commit(&mut self, changes: &Changes<'_>, room: u64) -> Result<i64, Failure> {
        self.journal
            .owner
            .commit(&mut self.journal.connection, changes, room)
    }

    fn reopen(&mut self, _: bool) -> Result<(), Failure> {
        // There is nothing to open again, and no reserve.
        Ok(())
    }

    fn renew_reserve(&mut self) -> bool {
        true
    }

    fn close(&mut self) -> Result<(), Failure> {
        if let Some(OwnPipes { pipes, stop }) = self.pipes.take() {
            drop(stop);
            let told = async { timeout(TIMEOUT, pipes.closed()).await };
            // Otherwise the other processes notice the silence.
            let _ = self.journal.connection.background.wait(told);
        }
        self.journal.renewal.end();
        let lease = self.journal.lease.clone();
        let release = async { timeout(TIMEOUT, lease.release()).await };
        // Without this the key ends by itself.
        let _ = self.journal.connection.background.wait(release);
        Ok(())
    }
}

/// What a process does that does not own a journal yet, for the case that it gives up.
#[derive(Debug, Default)]
pub(crate) struct TakeOver {
    /// Set when the process gives up: from then on it appends nothing to the journal.
    pub(crate) is_given_up: Arc<AtomicBool>,
    /// The key that the process has, if it has one.
    pub(crate) holds: Mutex<Option<Holding>>,
}

/// The key of a process that takes over.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) lease: Lease,
    /// Ends when the thread that takes over has ended.
    pub(crate) taking: oneshot::Receiver<()>,
}

/// The task that opens a journal. Without its result, it ends when this is dropped, and another process takes over at once.
struct Opening {
    task: Option<JoinHandle<Result<Nats, OpenError>>>,
    background: Arc<Background>,
    take_over: Arc<TakeOver>,
}

impl Opening {
    async fn result(&mut self) -> Result<Nats, OpenError> {
        let ended = match &mut self.task {
            Some(task) => task.await,
            None => return Err(failure(&None).into()),
        };
        self.task = None;
        ended.map_err(|error| broken(&error))?
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else {
            return;
        };
        self.take_over.is_given_up.store(true, Ordering::Release);
        task.abort();
        let take_over = Arc::clone(&self.take_over);
        let release = async move {
            // It makes no other key after its end, and its renewal ends with it.
            let _ = task.await;
            // The value is valid at any time, even if a thread panicked while it held the lock.
            let holds = take_over.holds.lock();
            let holding = holds.unwrap_or_else(PoisonError::into_inner).take();
            let Some(Holding { lease, taking }) = holding else {
                return;
            };
            // The block that begins an epoch may be on its way. With the key deleted, it could end the epoch of the next owner.
            // Without this the key ends by itself.
            if timeout(TIMEOUT, taking).await.is_ok() {
                let _ = timeout(TIMEOUT, lease.release()).await;
            }
        };
        let _ = self.background.wait(release);
    }
}

pub(crate) fn broken(error: &dyn std::error::Error) -> Failure {
    Failure::Broken(text(error))
}
