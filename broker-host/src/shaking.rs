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

use crate::priority::spawn_lower;
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

    /// Returns the finished steps, and wakes the task when there is another finished step.
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
            let spawned = spawn_lower("handshakes", move || work(&receiver, &done, &served));
            threads += usize::from(spawned.is_ok());
        }
        (threads > 0).then_some(sender)
    }
}

/// Does steps until the broker ends.
fn work(steps: &Mutex<Receiver<Step>>, done: &Mutex<Done>, served: &AtomicU32) {
    let mut pace = Pace::new(Instant::now());
    loop {
        let next = lock(steps).recv();
        let Ok(step) = next else {
            return;
        };
        pace.begin(Instant::now(), served.load(Ordering::Relaxed));
        finish(step, done);
        let pause = pace.end(Instant::now(), served.load(Ordering::Relaxed));
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        pace.resume(Instant::now());
    }
}

/// Decides how long a thread pauses after a step.
#[derive(Debug)]
struct Pace {
    /// When the present step began, or the pause after the last one ended.
    since: Instant,
    /// How often others had been served then.
    seen: u32,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self {
            since: now,
            seen: 0,
        }
    }

    /// Notes the begin of a step. Those that were served in the pause before it, or shortly after it, count as served beside the step: a
    /// message that comes each millisecond finds most steps between two others.
    fn begin(&mut self, now: Instant, served: u32) {
        if now > self.since + BUSY {
            self.seen = served;
        }
        self.since = now;
    }

    /// Notes the end of a step. Returns the pause after it.
    fn end(&mut self, now: Instant, served: u32) -> Duration {
        let took = now.saturating_duration_since(self.since);
        match std::mem::replace(&mut self.seen, served) == served {
            true => Duration::ZERO,
            false => took * (SHARE - 1),
        }
    }

    /// Notes the end of the pause.
    const fn resume(&mut self, now: Instant) {
        self.since = now;
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

/// Locks a value that is valid at any time, even if a thread panicked while it held the lock.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a step takes.
    const STEP: Duration = Duration::from_micros(250);

    /// A thread in virtual time that has a step at any time, or each time after `idle`.
    struct Thread {
        pace: Pace,
        start: Instant,
        now: Instant,
        worked: Duration,
        idle: Duration,
    }

    impl Thread {
        fn new(idle: Duration) -> Self {
            let start = Instant::now();
            Self {
                pace: Pace::new(start),
                start,
                now: start,
                worked: Duration::ZERO,
                idle,
            }
        }

        /// Does `steps` steps. `served` returns how often others have been served after this time.
        fn work(&mut self, steps: u32, served: impl Fn(Duration) -> u32) {
            for _ in 0..steps {
                self.now += self.idle;
                self.pace.begin(self.now, served(self.now - self.start));
                self.now += STEP;
                self.worked += STEP;
                self.now += self.pace.end(self.now, served(self.now - self.start));
                self.pace.resume(self.now);
            }
        }

        /// Returns which part of the time it worked, in thousandths.
        fn share(&self) -> u128 {
            self.worked.as_nanos() * 1_000 / (self.now - self.start).as_nanos()
        }
    }

    /// Returns a function that counts one service in each span.
    fn each(span: Duration) -> impl Fn(Duration) -> u32 {
        move |time| u32::try_from(time.as_nanos() / span.as_nanos()).unwrap()
    }

    #[test]
    fn a_thread_works_for_a_tenth_of_the_time_while_others_are_served() {
        for micros in [1, 100, 1_000, 2_000] {
            let mut thread = Thread::new(Duration::ZERO);
            thread.work(1_000, each(Duration::from_micros(micros)));
            let share = thread.share();
            assert!((90..=111).contains(&share), "{micros} us: {share}");
        }
    }

    #[test]
    fn a_thread_does_not_pause_while_nobody_else_is_served() {
        let mut thread = Thread::new(Duration::ZERO);
        thread.work(1_000, |_| 7);
        // The first step cannot know since when.
        assert!(thread.share() > 980, "{}", thread.share());
        let mut rare = Thread::new(Duration::ZERO);
        rare.work(1_000, each(Duration::from_millis(100)));
        assert!(rare.share() > 900, "{}", rare.share());
    }

    #[test]
    fn what_was_served_long_before_a_step_does_not_delay_the_next_one() {
        let mut thread = Thread::new(2 * BUSY);
        // One service in each gap, soon after its begin.
        let (idle, cycle) = (thread.idle, thread.idle + STEP);
        let served = |time: Duration| u32::try_from((time + idle).as_nanos() / cycle.as_nanos());
        thread.work(100, |time| served(time).unwrap());
        assert_eq!(thread.now - thread.start, cycle * 100);
    }
}
