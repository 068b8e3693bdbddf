//! Connects the records of the agent with the thread that stores them. The driver passes new records to the thread, and tells the
//! agent how many are stored. The thread only wakes the driver.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use mqtt_agent::{Agent, Error, Options, RestoreError, StoreFault, StoreOptions};
use mqtt_proto::num::to_u64;
use mqtt_store::{Condition, Config, Durability, OpenError, Progress, Store, Writer};

use crate::hub::Hub;
use crate::waiters::{Place, Waiters};

/// The thread of the store, and how much of its progress the agent knows.
#[derive(Debug)]
pub(crate) struct Storage {
    /// `None` after the store is closed.
    writer: Option<Writer>,
    signal: Arc<Signal>,
    /// How many bytes of records the thread has received, and how many of them the agent knows as stored.
    given: u64,
    stored: u64,
    condition: Condition,
}

/// The wakers of futures that wait for the thread.
#[derive(Debug, Default)]
struct Signal(Mutex<SignalState>);

#[derive(Debug, Default)]
struct SignalState {
    wakers: Waiters,
    /// The last progress, after the store was closed.
    closed: Option<Progress>,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, SignalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, closed: Option<Progress>) {
        let mut state = self.lock();
        if closed.is_some() {
            state.closed = closed;
        }
        let wakers: Vec<_> = state.wakers.take().collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns whether the store is closed. Otherwise stores the waker.
    fn wait(&self, place: &mut Place, waker: &Waker) -> bool {
        let mut state = self.lock();
        state.wakers.wait(place, waker);
        state.closed.is_some()
    }
}

/// Stores the last records and closes the store when it is dropped.
struct Closing {
    writer: Option<Writer>,
    given: u64,
    signal: Arc<Signal>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else {
            return;
        };
        // An error is in the progress.
        let _ = writer.wait(self.given);
        let progress = writer.progress();
        drop(writer);
        self.signal.wake(Some(progress));
    }
}

impl Storage {
    /// Makes an agent from the records of its store. If the store cannot be opened, the agent is stopped with the reason.
    pub(crate) fn open(options: Options) -> (Agent, Option<Self>) {
        let Some(store) = options.store.clone() else {
            return (Agent::new(options), None);
        };
        match open(&options, &store) {
            Ok((agent, storage)) => (agent, Some(storage)),
            Err(error) => {
                let mut agent = Agent::new(options);
                agent.storage_failed(error);
                (agent, None)
            }
        }
    }

    /// Passes new records to the thread.
    pub(crate) fn give(&mut self, agent: &Agent) {
        let Some(writer) = &self.writer else {
            return;
        };
        let known = usize::try_from(self.given.saturating_sub(self.stored)).unwrap_or(usize::MAX);
        let new = agent.journal().get(known..).unwrap_or_default();
        if !new.is_empty() {
            writer.append(new);
            let added = to_u64(new.len());
            self.given = self.given.saturating_add(added);
        }
    }

    /// Tells the agent how many records are stored. Returns whether the number has changed.
    pub(crate) fn report_progress(&mut self, agent: &mut Agent) -> bool {
        self.give(agent);
        let Some(progress) = self.progress() else {
            return false;
        };
        let n = progress.stored.saturating_sub(self.stored);
        let changed = progress.condition != self.condition;
        if n == 0 && !changed {
            return false;
        }
        self.stored = progress.stored;
        agent.stored(usize::try_from(n).unwrap_or(usize::MAX));
        if changed {
            match &progress.condition {
                Condition::Good => agent.storage_is_full(false),
                Condition::Full(_) => agent.storage_is_full(true),
                Condition::Ended(failure) => {
                    let failure = Arc::new(failure.clone());
                    agent.storage_failed(Error::Store(StoreFault::Failed, failure));
                }
                _ => {}
            }
            self.condition = progress.condition;
        }
        true
    }

    /// Returns the progress; `None` while the store is being closed.
    fn progress(&self) -> Option<Progress> {
        match &self.writer {
            Some(writer) => Some(writer.progress()),
            None => self.signal.lock().closed.clone(),
        }
    }

    /// Returns whether records that were given to the thread will be stored soon, also after the agent has stopped.
    fn is_storing(&self) -> bool {
        self.condition == Condition::Good
            && (self.writer.is_some() || self.signal.lock().closed.is_none())
    }

    pub(crate) fn wait(&self, place: &mut Place, waker: &Waker) {
        self.signal.wait(place, waker);
    }

    /// Removes the waker of a future that is dropped. The caller drops it without a lock.
    pub(crate) fn leave(&self, place: &Place) -> Option<Waker> {
        self.signal.lock().wakers.leave(place)
    }

    /// Stores the last records and closes the store, so that another client can open it. Returns ready when the store is closed.
    pub(crate) fn poll_closed(&mut self, place: &mut Place, cx: &Context<'_>) -> Poll<()> {
        if let Some(writer) = self.writer.take() {
            let closing = Closing {
                writer: Some(writer),
                given: self.given,
                signal: Arc::clone(&self.signal),
            };
            // If no thread can be spawned, dropping the closure closes the store here.
            let _ = thread::Builder::new().spawn(move || drop(closing));
        }
        if self.signal.wait(place, cx.waker()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

fn open(options: &Options, store: &StoreOptions) -> Result<(Agent, Storage), Error> {
    let mut config = Config::new(&store.dir);
    config.log = LOG;
    config.limit = store.limit;
    config.durability = if store.flush {
        Durability::Stored
    } else {
        Durability::Written
    };
    let mut agent = Agent::with_journal(options.clone());
    let mut store = Store::open(config)
        .map_err(open_error)?
        .ok_or(Error::Options("the store is off".to_owned()))?;
    let mut other = None;
    let restored = store.restore(|record| {
        agent.restore(record).inspect_err(|error| {
            other = Some(error.clone());
        })
    });
    let restored = restored.and_then(|()| {
        store.finish(|| {
            agent.restored().inspect_err(|error| {
                other = Some(error.clone());
            })
        })
    });
    match (other, restored) {
        (Some(why @ (RestoreError::ClientIdentifier(_) | RestoreError::Version(_))), _) => {
            let dir = options
                .store
                .as_ref()
                .map_or("", |store| &store.dir)
                .to_owned();
            let error = OtherClient { dir, why };
            return Err(Error::Store(StoreFault::OtherClient, Arc::new(error)));
        }
        (_, Err(error)) => return Err(open_error(error)),
        (_, Ok(())) => {}
    }
    let signal = Arc::new(Signal::default());
    let notified = Arc::clone(&signal);
    let writer = store
        .start(move || notified.wake(None))
        .map_err(open_error)?;
    let mut storage = Storage {
        writer: Some(writer),
        signal,
        given: 0,
        stored: 0,
        condition: Condition::Good,
    };
    storage.give(&agent);
    Ok((agent, storage))
}

/// The size of the log. On a full disk it has room for twice the 256 KiB of records that an agent lets wait.
const LOG: u64 = 2 << 20;

fn open_error(error: OpenError) -> Error {
    let fault = match &error {
        OpenError::InUse { .. } => StoreFault::InUse,
        OpenError::Damaged { .. } => StoreFault::Damaged,
        OpenError::Full { .. } => StoreFault::Full,
        _ => StoreFault::Failed,
    };
    Error::Store(fault, Arc::new(error))
}

/// The store belongs to another client.
#[derive(Debug)]
struct OtherClient {
    dir: String,
    why: RestoreError,
}

impl fmt::Display for OtherClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store {} cannot be used: {}", self.dir, self.why)
    }
}

impl std::error::Error for OtherClient {}

/// The future of [`crate::Ticket::stored`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Stored {
    hub: Arc<Hub>,
    recorded: u64,
    place: Place,
}

impl Stored {
    pub(crate) const fn new(hub: Arc<Hub>, recorded: u64) -> Self {
        Self {
            hub,
            recorded,
            place: Place::NONE,
        }
    }
}

/// Removes the waker of a future that waits for the store and is dropped.
pub(crate) fn leave(hub: &Hub, place: &Place) {
    if place.has_waited() {
        let state = hub.lock();
        let left = state
            .storage
            .as_ref()
            .and_then(|storage| storage.leave(place));
        drop(state);
        drop(left);
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        leave(&self.hub, &self.place);
    }
}

impl Future for Stored {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            hub,
            recorded,
            place,
        } = &mut *self;
        let mut state = hub.lock();
        if let Some(storage) = &state.storage {
            // The waker is stored before the progress is read, so that no progress is missed.
            storage.wait(place, cx.waker());
        }
        state.sync_storage();
        if state.agent.recorded().1 >= *recorded {
            return Poll::Ready(Ok(()));
        }
        let storage = state.storage.as_ref();
        if state.agent.is_stopped() && !storage.is_some_and(Storage::is_storing) {
            let why = state.log.last_error.clone();
            return Poll::Ready(Err(why.unwrap_or(Error::Stopped)));
        }
        Poll::Pending
    }
}
