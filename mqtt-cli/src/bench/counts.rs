//! Counts the messages and connections of a run.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::time::sleep;

use super::histogram;

/// If no message arrives for this time, the missing ones count as lost.
const SILENCE: Duration = Duration::from_secs(2);

/// Counters that all clients share; they run in one thread.
#[derive(Debug)]
pub(super) struct Counts {
    /// The time 0 of the stamps of messages.
    epoch: Instant,
    pub(super) connected: Cell<u64>,
    pub(super) published: Cell<u64>,
    pub(super) acknowledged: Cell<u64>,
    pub(super) received: Cell<u64>,
    /// When the last message arrived.
    pub(super) last: Cell<Option<Instant>>,
    /// The times from publisher to subscriber, or the times to connect.
    pub(super) times: RefCell<Histogram<u64>>,
    /// The times since the last call of [`Self::take_recent`], if they are printed.
    recent: Option<RefCell<Histogram<u64>>>,
}

impl Counts {
    pub(super) fn new(per_second: bool) -> Rc<Self> {
        Rc::new(Self {
            epoch: Instant::now(),
            connected: Cell::new(0),
            published: Cell::new(0),
            acknowledged: Cell::new(0),
            received: Cell::new(0),
            last: Cell::new(None),
            times: RefCell::new(histogram()),
            recent: per_second.then(|| RefCell::new(histogram())),
        })
    }

    /// Returns the stamp for a message that is sent now.
    pub(super) fn stamp(&self) -> [u8; 8] {
        micros(self.epoch.elapsed()).to_be_bytes()
    }

    /// Counts a message that arrived now.
    pub(super) fn arrived(&self, payload: &[u8]) {
        increase(&self.received);
        self.last.set(Some(Instant::now()));
        if let Some(stamp) = payload.first_chunk() {
            let sent = u64::from_be_bytes(*stamp);
            self.record(micros(self.epoch.elapsed()).saturating_sub(sent));
        }
    }

    /// Counts a connection, and the time to open it.
    pub(super) fn opened(&self, took: Duration) {
        increase(&self.connected);
        self.record(micros(took));
    }

    fn record(&self, micros: u64) {
        self.times.borrow_mut().saturating_record(micros);
        if let Some(recent) = &self.recent {
            recent.borrow_mut().saturating_record(micros);
        }
    }

    /// Returns the times since the last call.
    pub(super) fn take_recent(&self) -> Histogram<u64> {
        match &self.recent {
            Some(recent) => {
                let mut recent = recent.borrow_mut();
                let taken = recent.clone();
                recent.reset();
                taken
            }
            None => histogram(),
        }
    }

    /// Waits until all messages have arrived, or no more message arrives.
    pub(super) async fn settle(&self, expected: u64) {
        let mut before = self.received.get();
        let mut silent = Instant::now();
        while before < expected && silent.elapsed() < SILENCE {
            sleep(Duration::from_millis(10)).await;
            let received = self.received.get();
            if received > before {
                (before, silent) = (received, Instant::now());
            }
        }
    }
}

pub(super) fn increase(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
