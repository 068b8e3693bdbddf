//! The owners of the shards, by the keys of the owners on the servers. An owner that was read is valid for a moment, so that not
//! each pipe needs a request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Stream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::PipeError;
use crate::config::{BUCKET, Config, Notice};
use crate::connection::TIMEOUT;
use crate::division::last_value;
use crate::lease::Holder;
use crate::waiting::TellNotice;

/// How long what was read is valid.
const VALID: Duration = Duration::from_millis(500);

/// A process as the owner of a shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OwnerName {
    pub(crate) instance: u128,
    pub(crate) epoch: u64,
}

/// The owners of all shards.
pub(crate) struct Owners {
    /// The stream of the bucket.
    bucket: Stream<()>,
    shards: Vec<Shard>,
    notice: TellNotice,
    /// Whether a process that does not own what it says was told.
    has_told: AtomicBool,
}

/// A shard, and what was read about it.
struct Shard {
    /// The subject of its key.
    subject: String,
    read: Mutex<Option<Read>>,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    /// When the request began.
    at: Instant,
    owner: Result<OwnerName, PipeError>,
    /// The highest epoch that was read since there was no key. A server that is behind may answer with an earlier one.
    newest: u64,
}

impl Owners {
    pub(crate) fn new(bucket: Stream<()>, config: &Config, notice: TellNotice) -> Self {
        let shard = |shard| Shard {
            subject: format!("$KV.{BUCKET}.{}", config.journal(shard).name),
            read: Mutex::default(),
        };
        Self {
            bucket,
            shards: (0..config.shards).map(shard).collect(),
            notice,
            has_told: AtomicBool::new(false),
        }
    }

    /// Returns the owner of a shard, as it was a moment ago. That there was none is not valid now: a process may have become it.
    pub(crate) async fn owner(&self, shard: u8) -> Result<OwnerName, PipeError> {
        self.find(shard, |_| true).await
    }

    /// Returns the owner of a shard, which is not known to be this one.
    pub(crate) async fn other_than(
        &self,
        former: OwnerName,
        shard: u8,
    ) -> Result<OwnerName, PipeError> {
        let owner = self.find(shard, |owner| owner != former).await?;
        if owner == former {
            return Err(PipeError::NoOwner);
        }
        Ok(owner)
    }

    /// Returns whether a process owns a shard. Reports a warning if it opens a pipe although the key is that of another process.
    pub(crate) async fn owns(&self, process: OwnerName, shard: u8) -> bool {
        let owner = self.find(shard, |owner| owner == process).await;
        // The owner has no key for a moment when it is late, and nobody knows it while the bucket has no leader.
        if owner.is_ok_and(|owner| owner.instance != process.instance) {
            self.tell_stranger("opens a pipe for", shard);
        }
        owner == Ok(process)
    }

    /// Returns the owner that was read a moment ago if it is good, or what was read since this was called; otherwise reads it.
    async fn find(
        &self,
        shard: u8,
        is_good: impl Fn(OwnerName) -> bool,
    ) -> Result<OwnerName, PipeError> {
        let begin = Instant::now();
        let is_valid = |read: &Read| {
            let is_fresh = read.at.elapsed() < VALID;
            read.at >= begin || (is_fresh && read.owner.is_ok_and(&is_good))
        };
        let shard = self.shards.get(usize::from(shard));
        let Shard { subject, read } = shard.ok_or(PipeError::NoOwner)?;
        // Others that want to know it wait here, and need not read it then.
        let mut read = read.lock().await;
        if let Some(known) = read.filter(is_valid) {
            return known.owner;
        }
        let at = Instant::now();
        let before = read.map_or(0, |read| read.newest);
        let (owner, newest) = match self.read(subject).await {
            Err(error) => (Err(error), before),
            // The next owner may begin with an earlier epoch, if the journal was restored from a backup.
            Ok(None) => (Err(PipeError::NoOwner), 0),
            Ok(Some(holder)) => match owner_name(&holder).filter(|owner| owner.epoch >= before) {
                Some(owner) => (Ok(owner), owner.epoch),
                None => (Err(PipeError::NoOwner), before),
            },
        };
        *read = Some(Read { at, owner, newest });
        owner
    }

    /// Returns who has a key; `None` if there is no key.
    async fn read(&self, subject: &str) -> Result<Option<Holder>, PipeError> {
        let value = timeout(TIMEOUT, last_value(&self.bucket, subject)).await;
        let Ok(Ok(value)) = value else {
            return Err(PipeError::NoAnswer);
        };
        Ok(value.as_deref().map(Holder::parse))
    }

    /// Reports, the first time only, that a process which does not own a shard does something as its owner.
    pub(crate) fn tell_stranger(&self, does: &str, shard: u8) {
        if !self.has_told.swap(true, Ordering::Relaxed) {
            let warning = format!("a process {does} shard {shard}, which it does not own");
            (self.notice)(Notice::Warning(warning));
        }
    }
}

/// Returns the process that has a key, if it has begun its epoch.
fn owner_name(holder: &Holder) -> Option<OwnerName> {
    Some(OwnerName {
        instance: holder.instance?,
        epoch: holder.epoch?,
    })
}
