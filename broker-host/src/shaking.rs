//! Does the steps of handshakes on other threads, of a low priority: a step takes longer than a hundred messages, and the thread of the
//! broker only passes the bytes. While other connections are served, such a thread works for a tenth of the time: the clients of the
//! handshakes get no more work either, and the processors are left to others.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use mqtt_broker::ConnectionId;

use crate::staged::Staged;

/// How many threads there are at most. One processor is left to the broker.
const THREADS: usize = 4;

/// A thread works for one part in this many of the time while other connections are served.
const SHARE: u32 = 10;
/// How long after a step other connections that were served since then count as being served.
const BUSY: Duration = Duration::from_millis(5);

/// A step of a handshake: the stages of a connection, and bytes for them.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) id: ConnectionId,
    pub(crate) staged: Box<Staged>,
    pub(crate) bytes: Vec<u8>,
}

/// The threads. They start with the first handshake, and end when this is dropped. Each connection has at most one step here.
#[derive(Debug, Default)]
pub(crate) struct Shaker {
    steps: Option<Sender<Step>>,
    done: Arc<Mutex<Done>>,
    /// How often other connections were served.
    served: Arc<AtomicU32>,
}

#[derive(Debug, Default)]
struct Done {
    steps: Vec<Step>,
    waker: Option<Waker>,
}

impl Shaker {
    /// Starts a step. Does it at once if the system has no thread for it.
    pub(crate) fn start(&mut self, step: Step) {
        let steps = match &self.steps {
            Some(steps) => Some(steps),
            None => {
                self.steps = self.spawn();
                self.steps.as_ref()
            }
        };
        let refused = match steps {
            Some(steps) => steps.send(step).err().map(|unsent| unsent.0),
            None => Some(step),
        };
        if let Some(step) = refused {
            finish(step, &self.done);
        }
    }

    /// Notes that a connection was served that is not in a handshake.
    pub(crate) fn served_others(&self) {
        let served = self.served.load(Ordering::Relaxed);
        // Only the thread of the broker writes it.
        self.served.store(served.wrapping_add(1), Ordering::Relaxed);
    }

    /// Returns the finished steps, and wakes the task when there is another one.
    pub(crate) fn done(&self, cx: &Context<'_>) -> Vec<Step> {
        let mut done = lock(&self.done);
        match &mut done.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        std::mem::take(&mut done.steps)
    }

    fn spawn(&self) -> Option<Sender<Step>> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = 0;
        for _ in 0..processors.saturating_sub(1).clamp(1, THREADS) {
            let (receiver, done) = (Arc::clone(&receiver), Arc::clone(&self.done));
            let served = Arc::clone(&self.served);
            let thread = std::thread::Builder::new().name("handshakes".to_owned());
            let spawned = thread.spawn(move || work(&receiver, &done, &served));
            threads += usize::from(spawned.is_ok());
        }
        (threads > 0).then_some(sender)
    }
}

/// Does steps until the broker ends.
fn work(steps: &Mutex<Receiver<Step>>, done: &Mutex<Done>, served: &AtomicU32) {
    lower_priority();
    let (mut end, mut seen) = (Instant::now(), 0);
    loop {
        let next = lock(steps).recv();
        let Ok(step) = next else {
            return;
        };
        let start = Instant::now();
        if start > end + BUSY {
            seen = served.load(Ordering::Relaxed);
        }
        finish(step, done);
        let took = start.elapsed();
        let before = std::mem::replace(&mut seen, served.load(Ordering::Relaxed));
        if before != seen {
            std::thread::sleep(took * (SHARE - 1));
        }
        end = Instant::now();
    }
}

fn finish(mut step: Step, done: &Mutex<Done>) {
    step.staged.shake(&step.bytes);
    let mut done = lock(done);
    done.steps.push(step);
    if let Some(waker) = &done.waker {
        waker.wake_by_ref();
    }
}

/// Lets other threads have the processor first. On Linux the priority belongs to the thread.
#[cfg(all(target_os = "linux", feature = "tls"))]
fn lower_priority() {
    const NICE: i32 = 10;
    // Without a lower priority the thread works as well.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

#[cfg(not(all(target_os = "linux", feature = "tls")))]
fn lower_priority() {}

/// The values are valid at any time, even if a thread panicked while it held the lock.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
