//! The key that tells which process owns the journal. It ends by itself when its owner does not renew it. It decides only when
//! another process tries to take over; the sequences of the stream decide who may append.

use std::fmt;
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
    /// The holder that is written into the key.
    holder: Holder,
    /// The revision of the key that this process wrote last.
    revision: u64,
    /// Whether this process may have written the key when there was none.
    may_be_recreated: bool,
    /// The time after which the servers delete the key.
    pub(crate) length: Duration,
}

/// Why the answer of a replica of the bucket is not used.
const BEHIND: &str = "a server answers with an earlier key of the owner";

/// The process that holds a key.
///
/// The value of the key is this text: the instance, the epoch and the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Holder {
    /// `None` if the key has what no process wrote.
    pub(crate) instance: Option<u128>,
    /// `None` until the process has begun its epoch.
    pub(crate) epoch: Option<u64>,
    node: String,
}

impl Holder {
    pub(crate) fn parse(value: &[u8]) -> Self {
        let value = String::from_utf8_lossy(value);
        let (instance, rest) = value.split_once(' ').unwrap_or(("", &value));
        let (epoch, node) = rest.split_once(' ').unwrap_or(("", rest));
        Self {
            instance: u128::from_str_radix(instance, 16).ok(),
            epoch: epoch.parse().ok(),
            node: node.to_owned(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (instance, node) = (self.instance.unwrap_or(0), &self.node);
        match self.epoch {
            Some(epoch) => write!(f, "{instance:032x} {epoch} {node}"),
            None => write!(f, "{instance:032x} - {node}"),
        }
    }
}

/// The state of the key.
#[derive(Debug)]
pub(crate) enum Held {
    /// By this process, which has just written the key again.
    Renewed,
    /// By this process, which wrote the key some time ago, or anew after it had ended.
    ByThis,
    /// By the process of this node.
    By(String),
    /// This answer does not tell, for this reason. The next one may.
    Unclear(&'static str),
}

/// Why it is not known who has a key that was there a moment ago.
const ENDED: &str = "the key of the owner has just ended";

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
            holder: Holder {
                instance: Some(instance),
                epoch: None,
                node: node.to_owned(),
            },
            revision: 0,
            may_be_recreated: false,
            length,
        }
    }

    fn value(&self) -> Bytes {
        self.holder.to_string().into()
    }

    /// Returns the node of an entry, and whether this process wrote it.
    fn owner(&self, entry: &Entry) -> (String, bool) {
        let holder = Holder::parse(&entry.value);
        (holder.node, holder.instance == self.holder.instance)
    }

    /// Writes the key if there is none.
    pub(crate) async fn acquire(&mut self) -> Result<Held, String> {
        let was_recreated = std::mem::replace(&mut self.may_be_recreated, true);
        let created = self.store.create(&self.key, self.value()).await;
        match created {
            Ok(revision) => {
                self.revision = revision;
                Ok(Held::ByThis)
            }
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                self.may_be_recreated = was_recreated;
                self.look().await
            }
            Err(error) => Err(text(&error)),
        }
    }

    /// Returns who holds the key. An answer may be lost, so this process may hold it without knowing.
    async fn look(&mut self) -> Result<Held, String> {
        let entry = self.store.entry(self.key.as_str()).await;
        let Some(entry) = entry.map_err(|error| text(&error))? else {
            return Ok(Held::Unclear(ENDED));
        };
        if entry.operation != Operation::Put {
            return Ok(Held::Unclear(ENDED));
        }
        let (node, is_own) = self.owner(&entry);
        if entry.revision < self.revision {
            return Ok(Held::Unclear(BEHIND));
        }
        if is_own {
            self.revision = entry.revision;
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
                Ok(Held::Renewed)
            }
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                let before = self.revision;
                match self.acquire().await? {
                    // The key has a later revision.
                    Held::ByThis if self.revision == before => Ok(Held::Unclear(BEHIND)),
                    held => Ok(held),
                }
            }
            Err(error) => Err(text(&error)),
        }
    }

    /// Renews the key until another process has it, or there was no answer for `patience`. After a try that failed, it tries again
    /// soon, because the key may end. Sends at the end why, and whether another process has it. Adds the epoch to the key as soon as
    /// it is known. Sends each renewal to `renewals`. Also ends when nobody waits for the loss.
    pub(crate) async fn keep(
        mut self,
        patience: Duration,
        lost: watch::Sender<Option<Loss>>,
        mut epoch: watch::Receiver<Option<u64>>,
        renewals: watch::Sender<Renewal>,
    ) {
        let mut renewed = Instant::now();
        let mut failed = 0;
        // From here on. What this process promised before is in its journal.
        self.may_be_recreated = false;
        loop {
            tokio::select! {
                () = sleep(pause(self.length, failed)) => {}
                Ok(()) = epoch.changed() => {}
                // The process waits no longer for its journal.
                () = lost.closed() => return,
            }
            self.holder.epoch = *epoch.borrow_and_update();
            let begin = Instant::now();
            let why = match timeout(TIMEOUT, self.renew()).await {
                Ok(Ok(held @ (Held::Renewed | Held::ByThis))) => {
                    // Otherwise the key was written at an unknown time, and may end soon.
                    let is_new = matches!(held, Held::Renewed);
                    (renewed, failed) = (begin, u32::from(!is_new));
                    renewals.send_modify(|renewal| {
                        renewal.has_epoch = self.holder.epoch.is_some();
                        // While there was no key, another process may have had it.
                        if is_new && !self.may_be_recreated {
                            renewal.until = begin + self.length;
                        }
                    });
                    continue;
                }
                Ok(Ok(Held::By(node))) => {
                    lost.send_replace(Some(Loss::To(node)));
                    return;
                }
                Ok(Ok(Held::Unclear(why))) => why.to_owned(),
                Ok(Err(why)) => why,
                Err(_) => "the servers do not answer".to_owned(),
            };
            if renewed.elapsed() >= patience {
                lost.send_replace(Some(Loss::NoAnswer(why)));
                return;
            }
            failed = failed.saturating_add(1);
        }
    }

    /// Deletes the key if this process has it, so that another process takes over at once.
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

/// Returns how long to wait before a key that lives for `length` is renewed, after `failed` tries that failed in a row.
fn pause(length: Duration, failed: u32) -> Duration {
    let most = length / 3;
    match failed.checked_sub(1) {
        None => most,
        Some(doubled) => (most / 32)
            .saturating_mul(1_u32.checked_shl(doubled).unwrap_or(u32::MAX))
            .min(most),
    }
}

/// The last time that a process has written its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    /// Before this time no other process owns the journal.
    pub(crate) until: Instant,
    /// Whether other processes know the epoch from the key.
    pub(crate) has_epoch: bool,
}

/// Why a process is not the owner any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// The process of another node has the key.
    To(String),
    /// The servers did not answer.
    NoAnswer(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The servers refuse the first renewal and further ones at once: there are several tries before the key ends. While they refuse
    /// for long, there are no more than without a failure.
    #[test]
    fn a_key_that_was_not_renewed_is_soon_tried_again() {
        let length = Duration::from_secs(15);
        let until_end = |failed: &u32| (0..=*failed).map(|n| pause(length, n)).sum::<Duration>();
        assert_eq!(pause(length, 0), length / 3);
        assert!(pause(length, 1) < Duration::from_millis(200));
        let tries = (0..).take_while(|failed| until_end(failed) < length);
        assert_eq!(tries.count(), 7);
        for failed in [6, 7, 32, 33, u32::MAX] {
            assert_eq!(pause(length, failed), length / 3);
        }
    }

    #[test]
    fn the_text_of_a_holder_is_read_as_written() {
        for epoch in [None, Some(7)] {
            let holder = Holder {
                instance: Some(0xab << 90),
                epoch,
                node: "a b".to_owned(),
            };
            assert_eq!(Holder::parse(holder.to_string().as_bytes()), holder);
        }
        // The text that another process wrote names a node at most.
        for (text, node) in [("", ""), ("node", "node"), ("x y", "y"), ("x 1 y", "y")] {
            let holder = Holder::parse(text.as_bytes());
            assert_eq!((holder.instance, &*holder.node), (None, node), "{text}");
        }
    }
}
