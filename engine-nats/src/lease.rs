//! The key that tells which process owns the journal. It ends by itself when its owner does not renew it. It decides only when
//! another process tries to take over; the sequences of the stream decide who may append.

use std::time::{Duration, Instant};

use async_nats::jetstream::kv::{CreateErrorKind, Entry, Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::connection::{TIMEOUT, text};

/// The key of a process.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    store: Store,
    key: String,
    node: String,
    instance: u128,
    /// The revision of the key that this process wrote last.
    revision: u64,
    /// The time after which the servers delete the key.
    pub(crate) length: Duration,
}

/// The state of the key.
#[derive(Debug)]
pub(crate) enum Held {
    ByThis,
    /// By the process of this node.
    By(String),
}

impl Lease {
    pub(crate) fn new(
        store: Store,
        key: &str,
        node: &str,
        instance: u128,
        length: Duration,
    ) -> Self {
        Self {
            store,
            key: key.to_owned(),
            node: node.to_owned(),
            instance,
            revision: 0,
            length,
        }
    }

    fn value(&self) -> Bytes {
        format!("{:032x} {}", self.instance, self.node).into()
    }

    /// Returns the node of an entry, and whether this process wrote it.
    fn owner(&self, entry: &Entry) -> (String, bool) {
        let value = String::from_utf8_lossy(&entry.value);
        let (instance, node) = value.split_once(' ').unwrap_or(("", &value));
        (
            node.to_owned(),
            instance == format!("{:032x}", self.instance),
        )
    }

    /// Writes the key if there is none.
    pub(crate) async fn acquire(&mut self) -> Result<Held, String> {
        let created = self.store.create(&self.key, self.value()).await;
        match created {
            Ok(revision) => {
                self.revision = revision;
                Ok(Held::ByThis)
            }
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => self.look().await,
            Err(error) => Err(text(&error)),
        }
    }

    /// Returns who holds the key. An answer may be lost, so this process may hold it without knowing.
    async fn look(&mut self) -> Result<Held, String> {
        let entry = self.store.entry(self.key.as_str()).await;
        let Some(entry) = entry.map_err(|error| text(&error))? else {
            return Err("the key of the owner has just ended".to_owned());
        };
        if entry.operation != Operation::Put {
            return Err("the key of the owner has just ended".to_owned());
        }
        let (node, is_own) = self.owner(&entry);
        // A server that is behind may answer with the key of an earlier owner.
        if is_own || entry.revision <= self.revision {
            self.revision = self.revision.max(entry.revision);
            return Ok(Held::ByThis);
        }
        Ok(Held::By(node))
    }

    /// Writes the key again. Returns `Held::By` if another process has it.
    async fn renew(&mut self) -> Result<Held, String> {
        let (key, value) = (self.key.clone(), self.value());
        match self.store.update(key, value, self.revision).await {
            Ok(revision) => {
                self.revision = revision;
                Ok(Held::ByThis)
            }
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                self.acquire().await
            }
            Err(error) => Err(text(&error)),
        }
    }

    /// Renews the key until another process has it, or there was no answer for `patience`. Sends then why, and whether another
    /// process has it. Sends each time when it begins to renew the key with success.
    pub(crate) async fn keep(
        mut self,
        patience: Duration,
        lost: watch::Sender<Option<Loss>>,
        renewed: watch::Sender<Instant>,
    ) {
        let pause = self.length / 3;
        loop {
            sleep(pause).await;
            let begin = Instant::now();
            let why = match timeout(TIMEOUT, self.renew()).await {
                Ok(Ok(Held::ByThis)) => {
                    renewed.send_replace(begin);
                    continue;
                }
                Ok(Ok(Held::By(node))) => {
                    lost.send_replace(Some(Loss::To(node)));
                    return;
                }
                Ok(Err(why)) => why,
                Err(_) => "the servers do not answer".to_owned(),
            };
            if renewed.borrow().elapsed() >= patience {
                lost.send_replace(Some(Loss::NoAnswer(why)));
                return;
            }
        }
    }

    /// Deletes the key if this process has it, so that another one takes over at once.
    pub(crate) async fn release(self) {
        let entry = self.store.entry(self.key.as_str()).await;
        if let Ok(Some(entry)) = entry
            && self.owner(&entry).1
        {
            let revision = Some(entry.revision);
            let deleted = self.store.delete_expect_revision(&self.key, revision);
            // Otherwise the key ends by itself.
            let _ = deleted.await;
        }
    }
}

/// Why a process is not the owner any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// The process of another node has the key.
    To(String),
    /// The servers did not answer.
    NoAnswer(String),
}
