//! Runs the shards of a broker but the first one, each in a thread with a runtime of its own.
//!
//! The first shard runs on the caller's thread. It accepts all connections, and does the stages below MQTT and the limits before
//! CONNECT. If `Broker::owner_of` names another shard for a client, the socket leaves the poll of this thread, and goes with its
//! stages, its peer and the bytes of CONNECT over a channel to the other thread. A link is a pipe of 256 KiB in each direction
//! (`tokio::io::duplex`). If one side ends a link, both open it again with a new pipe. If one thread ends, all do.

use std::thread::JoinHandle;

use mqtt_broker::MOST_SHARDS;
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::division::stored_threads;
use crate::reload::Access;
use crate::shards::{Seat, seats};
use crate::{Control, Error, Listener, Settings};

/// How many threads of a shard's runtime do what blocks, such as reading files.
const BLOCKING: usize = 4;

/// The threads of the other shards. They end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    running: Vec<Running>,
    stop: Option<watch::Sender<()>>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    /// Why it ended.
    ended: oneshot::Receiver<Result<(), Error>>,
}

/// From how many cores on each has a thread by default. With fewer, the system and other programs need the others.
const MANY_CORES: usize = 4;

/// Returns how many cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Settings {
    /// Returns these settings with the number of threads, and logs it.
    pub(crate) fn with_threads(&self, cores: usize) -> Result<Self, Error> {
        let stored = match self.store_config() {
            Some(config) => stored_threads(&config)?,
            None => None,
        };
        let (threads, why) = self.threads_on(cores, stored);
        info!(threads, why, "threads serve clients");
        let mut own = self.clone();
        own.threads = Some(threads);
        Ok(own)
    }

    /// Returns how many threads there are on `cores` cores with a store of `stored` parts, and why.
    fn threads_on(&self, cores: usize, stored: Option<u8>) -> (usize, &'static str) {
        match (self.threads, stored) {
            (Some(threads), _) => (threads, "the settings say so"),
            _ if !cfg!(unix) => (1, "this system allows no more"),
            (None, Some(stored)) => (stored.into(), "the store has so many parts"),
            _ if self.engine.is_some() => (1, "the journal is on an engine"),
            _ if cores >= MANY_CORES => {
                (cores.min(MOST_SHARDS.into()), "there is one for each core")
            }
            _ => (1, "there are fewer than four cores"),
        }
    }

    /// Returns how many shards there are.
    pub(crate) fn shards(&self) -> u8 {
        let threads = self.threads.unwrap_or(1);
        u8::try_from(threads)
            .unwrap_or(MOST_SHARDS)
            .clamp(1, MOST_SHARDS)
    }
}

impl Threads {
    /// Starts a thread for each shard but the first one, whose seat it returns. There are no seats for a single shard. Also returns the
    /// controls of the others.
    pub(crate) async fn start(
        settings: &Settings,
        access: &Access,
        hash_key: u64,
    ) -> Result<(Self, Option<Seat>, Vec<Control>), Error> {
        let shards = settings.shards();
        if shards < 2 {
            return Ok((Self::default(), None, Vec::new()));
        }
        let mut seats = seats(shards).into_iter();
        let first = seats.next();
        let (stop, stopped) = watch::channel(());
        let (mut threads, mut made_by) = (Self::default(), Vec::new());
        threads.stop = Some(stop);
        for seat in seats {
            let (made, control) = oneshot::channel();
            let (end, ended) = oneshot::channel();
            let shard = Shard {
                settings: settings.clone(),
                access: access.clone(),
                hash_key,
                seat,
                stopped: stopped.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("shard-{}", shard.seat.own));
            let thread = thread.spawn(move || {
                // The receiver is gone if the broker ends at once.
                let _ = end.send(shard.run(made));
            });
            match thread {
                Ok(thread) => threads.running.push(Running { thread, ended }),
                Err(error) => {
                    // The others have their parts of the store open.
                    let _ = threads.join().await;
                    return Err(Error::Thread(error));
                }
            }
            made_by.push(control);
        }
        let mut controls = Vec::new();
        for (at, control) in made_by.into_iter().enumerate() {
            match control.await {
                Ok(control) => controls.push(control),
                // The part of this thread could not be made, and the thread returns the error.
                Err(_) => {
                    let failed = threads.running.swap_remove(at);
                    let error = error_of(failed.ended.await);
                    let _ = threads.join().await;
                    return Err(error);
                }
            }
        }
        Ok((threads, first, controls))
    }

    /// Returns when one of the threads has ended without being stopped.
    pub(crate) async fn any_ended(&mut self) -> Error {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let (mut ends, mut at) = (Vec::new(), 0);
        for (place, running) in self.running.iter_mut().enumerate() {
            ends.push((place, &mut running.ended));
        }
        let result = std::future::poll_fn(|cx| {
            for (place, ended) in &mut ends {
                if let std::task::Poll::Ready(result) = std::pin::Pin::new(&mut **ended).poll(cx) {
                    at = *place;
                    return std::task::Poll::Ready(result);
                }
            }
            std::task::Poll::Pending
        })
        .await;
        // The end of this thread is known.
        drop(self.running.swap_remove(at));
        error_of(result)
    }

    /// Lets all threads end.
    pub(crate) fn stop(&mut self) {
        self.stop = None;
    }

    /// Waits until all threads have ended.
    ///
    /// # Errors
    /// The first error of a thread.
    pub(crate) async fn join(mut self) -> Result<(), Error> {
        self.stop();
        let mut first = Ok(());
        for running in self.running {
            let ended = running.ended.await;
            let ended = ended.unwrap_or(Err(Error::ThreadEnded));
            first = first.and(ended);
            // The thread sent its last value, and has nothing left to do.
            let _ = running.thread.join();
        }
        first
    }
}

/// Returns why a thread has ended that was not stopped: an error, or a panic.
fn error_of(result: Result<Result<(), Error>, oneshot::error::RecvError>) -> Error {
    match result {
        Ok(Err(error)) => error,
        _ => Error::ThreadEnded,
    }
}

/// The values that the thread of a shard starts with.
struct Shard {
    settings: Settings,
    access: Access,
    hash_key: u64,
    seat: Seat,
    stopped: watch::Receiver<()>,
}

impl Shard {
    /// Makes the host, and serves until the broker ends.
    fn run(self, made: oneshot::Sender<Control>) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING)
            .build()
            .map_err(Error::Thread)?;
        let done = runtime.block_on(self.serve(made));
        runtime.shutdown_background();
        done
    }

    async fn serve(self, made: oneshot::Sender<Control>) -> Result<(), Error> {
        let Self {
            settings,
            access,
            hash_key,
            seat,
            mut stopped,
        } = self;
        let (host, control) = settings.host_of_shard(access, hash_key, seat)?;
        let _ = made.send(control);
        let stop = async {
            // The sender sends nothing: it is dropped.
            while stopped.changed().await.is_ok() {}
        };
        host.run(Vec::<Listener>::new(), stop).await;
        host.close().map_err(Error::StoreFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_number_of_threads_is_that_of_many_cores() {
        let settings = |text: &str| Settings::parse(text).unwrap();
        let none = settings("");
        for (cores, threads) in [(1, 1), (2, 1), (3, 1), (4, 4), (64, 64), (65, 64)] {
            let threads = if cfg!(unix) { threads } else { 1 };
            assert_eq!(none.threads_on(cores, None).0, threads, "{cores}");
            // A store keeps its number, and one that is set is not changed.
            for stored in [1, 2, 5] {
                let stays = if cfg!(unix) { stored.into() } else { 1 };
                assert_eq!(none.threads_on(cores, Some(stored)).0, stays);
            }
            let set = settings("threads = 3");
            assert_eq!(set.threads_on(cores, None).0, 3);
            assert_eq!(set.threads_on(cores, Some(2)).0, 3);
            let engine = settings("engine = 'nats://h'\nnode = 'a'");
            assert_eq!(engine.threads_on(cores, None).0, 1);
        }
    }
}
