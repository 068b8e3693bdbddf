//! Connects the broker's journal with the thread that stores it: passes new records to the thread at the end of each turn, and
//! reports to the broker how many are stored.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mqtt_broker::{Broker, Hooks, RestoreError, Restored, StorageFailure};
use mqtt_proto::num::to_u64;
use mqtt_session::Instant;
use mqtt_store::{Condition, Failure, OpenError, Store, Writer};
use tokio::sync::Notify;

use crate::shared::Shared;

/// The thread of the store, and how much of its progress the broker knows.
#[derive(Debug)]
pub(crate) struct Storage {
    writer: Writer,
    /// Notified when the thread has made progress.
    progress: Arc<Notify>,
    /// How many bytes of the journal the thread has received, and how many of them the broker knows as stored.
    given: u64,
    stored: u64,
    condition: Condition,
    /// Notified when the store has failed: the host ends.
    pub(crate) ended: Rc<Notify>,
}

/// The thread of the store gets at least this many bytes of records at once, so that it works while the broker goes on.
const MANY: usize = 32 << 10;

/// Restores a broker from a store, and starts the thread.
pub(crate) fn start<H: Hooks>(
    broker: &mut Broker<H>,
    mut store: Store,
    now: Instant,
) -> Result<(Storage, Restored), OpenError> {
    #[cfg(feature = "files")]
    if store.interrupted() > 0 {
        tracing::warn!(
            bytes = store.interrupted(),
            "the end of the store was being written when the earlier process ended; it was not acknowledged, and is not used"
        );
    }
    broker.start_journal();
    store.restore(|record| broker.restore(record))?;
    let mut restored = Err(RestoreError::TooLate);
    // Records that contradict one another count as damage.
    let finished = store.finish(|| {
        restored = broker.restored(now);
        restored.map(drop)
    });
    match (finished, restored) {
        (Err(OpenError::Damaged { dir, .. }), Err(why @ RestoreError::InFlight)) => {
            let what = format!("{why} (connection-bytes-total)");
            return Err(OpenError::TooLarge { dir, what });
        }
        (finished, _) => finished?,
    }
    let progress = Arc::new(Notify::new());
    let notified = Arc::clone(&progress);
    let writer = store.start(move || notified.notify_one())?;
    let storage = Storage {
        writer,
        progress,
        given: 0,
        stored: 0,
        condition: Condition::Good,
        ended: Rc::new(Notify::new()),
    };
    Ok((storage, restored.unwrap_or_default()))
}

impl Storage {
    /// Passes new records to the thread. `later`: only if they are many, because another call follows.
    pub(crate) fn give<H: Hooks>(&mut self, broker: &Broker<H>, later: bool) {
        let journal = broker.journal();
        let known = usize::try_from(self.given - self.stored).unwrap_or(usize::MAX);
        let new = journal.get(known..).unwrap_or_default();
        let least = if later { MANY } else { 1 };
        if new.len() >= least {
            self.writer.append(new);
            self.given += to_u64(new.len());
        }
    }

    /// Tells the broker how many records are stored.
    fn tell<H: Hooks>(&mut self, broker: &mut Broker<H>) {
        let progress = self.writer.progress();
        let n = progress.stored - self.stored;
        self.stored = progress.stored;
        if progress.condition != self.condition {
            match &progress.condition {
                Condition::Good => broker.storage_recovered(),
                Condition::Full(_) => broker.storage_failed(StorageFailure::Full),
                _ => broker.storage_failed(StorageFailure::Broken),
            }
            log(&self.condition, &progress.condition);
            self.condition = progress.condition;
        }
        broker.stored(usize::try_from(n).unwrap_or(usize::MAX));
        if matches!(self.condition, Condition::Ended(_)) {
            self.ended.notify_one();
        }
    }

    /// Stores the remaining records and closes the store.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.writer.close()
    }
}

/// Logs a change of the condition.
fn log(before: &Condition, now: &Condition) {
    #[cfg(feature = "files")]
    match (before, now) {
        (Condition::Full(_), Condition::Full(_)) => {}
        (_, Condition::Full(failure)) => tracing::error!(
            why = %failure,
            "the store is full: nothing that must be stored is accepted until there is room"
        ),
        (_, Condition::Good) => tracing::info!("the store has room again"),
        (_, Condition::Ended(failure)) => {
            tracing::error!(why = %failure, "the store failed; the broker ends");
        }
        (_, _) => {}
    }
    let _ = (before, now);
}

/// Tells the broker which records are stored, each time that the thread has stored some.
pub(crate) async fn watch<H: Hooks>(shared: Rc<RefCell<Shared<H>>>) {
    let Some(progress) = shared
        .borrow()
        .storage
        .as_ref()
        .map(|storage| Arc::clone(&storage.progress))
    else {
        return;
    };
    loop {
        progress.notified().await;
        let mut shared = shared.borrow_mut();
        let Shared {
            broker, storage, ..
        } = &mut *shared;
        if let Some(storage) = storage {
            storage.tell(broker);
        }
        shared.wake(None);
    }
}
