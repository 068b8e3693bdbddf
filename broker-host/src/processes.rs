//! Connects the shard of this process with the shards of other processes, by pipes that carry bytes between two of them. A link between
//! two shards is a pipe, and so is a client that has connected to a process that is not the owner of its shard (`relay.rs`).
//!
//! The process of the lower shard opens the pipe of a link. A shard whose link does not open in time is away: the others serve without
//! it, see `Broker::shard_is_away`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mqtt_broker::{ConnectionId, Hooks};
use mqtt_proto::ReasonCode;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::about::About;
use crate::logins::{Logins, Others};
use crate::panics::Panics;
use crate::peer::Peer;
use crate::relay::relay;
use crate::shards::{Moved, Whole, all_ready, note_ready, open_link, serve_link};
use crate::shared::Shared;
use crate::task::linked;

/// How long to wait before a link is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long the process of the higher shard waits for a pipe before it asks whether the other shard has an owner.
const ASKED: Duration = Duration::from_secs(1);
/// How long a shard whose process has ended is waited for, if its link was open before.
const GONE: Duration = Duration::from_secs(1);
/// How many pipes of the same shard wait to become its link: the last one is valid.
const PIPES: usize = 8;
/// The size of the buffer for the bytes of relayed clients.
const BUFFER: usize = 16 << 10;

/// A future of this thread.
pub(crate) type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Why another process is not reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Unreached {
    /// No process serves the shard.
    NoOwner,
    Failed(String),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOwner => f.write_str("no process serves the shard"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// A pipe that another process has opened.
pub(crate) struct Arrived {
    /// The shard of that process, and the number of the process among the owners of the shard.
    pub(crate) shard: u8,
    pub(crate) epoch: u64,
    /// The use of the pipe: see [`About`].
    pub(crate) about: Vec<u8>,
    pub(crate) pipe: DuplexStream,
}

/// Carries bytes between processes.
pub(crate) trait Pipes {
    /// Opens a pipe to the process that owns a shard.
    fn open(&self, shard: u8, about: &About) -> LocalFuture<Result<DuplexStream, Unreached>>;

    /// Asks whether the process that owns a shard is there.
    fn is_there(&self, shard: u8) -> LocalFuture<Result<(), Unreached>>;

    /// Returns how clients reach the process that owns a shard: for each listener that has an address a line with its number and the
    /// address. An owner is asked once.
    fn addresses(&self, shard: u8) -> LocalFuture<Result<Option<String>, Unreached>>;

    /// Lets other processes find this one. Called once.
    fn serve(&self) -> Receiver<Arrived>;
}

/// The place of this process among the others.
pub(crate) struct Processes {
    pub(crate) own: u8,
    pub(crate) shards: u8,
    /// Who may connect at which listener.
    pub(crate) logins: Arc<Logins>,
    /// How long to wait for other shards.
    pub(crate) patience: Duration,
    /// Whether clients of MQTT 5 are sent to the other process, if it has an address for clients.
    pub(crate) redirects: bool,
    pub(crate) pipes: Box<dyn Pipes + Send + Sync>,
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, shards) = (self.own, self.shards);
        write!(f, "Processes {{ own: {own}, shards: {shards}, .. }}")
    }
}

/// Passes clients to other processes.
#[derive(Clone, Debug)]
pub(crate) struct Relays {
    pub(crate) processes: Arc<Processes>,
    pub(crate) whole: Arc<Whole>,
    /// The buffer of all reads.
    pub(crate) buffer: Rc<RefCell<Box<[u8]>>>,
    /// How many clients have their sessions in which shard.
    relayed: Rc<watch::Sender<Vec<usize>>>,
}

impl Relays {
    pub(crate) fn new(processes: Arc<Processes>, whole: Arc<Whole>) -> Self {
        let buffer = Rc::new(RefCell::new(vec![0; BUFFER].into()));
        let none = vec![0; usize::from(processes.shards)];
        Self {
            processes,
            whole,
            buffer,
            relayed: Rc::new(watch::Sender::new(none)),
        }
    }

    /// Connects a client with the process that has its session. It counts in the limits of both.
    pub(crate) fn pass_on<H: Hooks>(&self, shared: &Shared<H>, moved: Moved, owner: u8) {
        let (own, peers) = (self.clone(), shared.peers.clone());
        // Before the task runs: this process may stop until then, and the other process is told if it has clients.
        self.count(owner, 1);
        shared.panics.spawn(async move {
            let source = moved.peer.source;
            own.whole.add(source);
            relay(&own, moved, owner, &peers).await;
            own.count(owner, -1);
            own.whole.remove(source);
        });
    }

    fn count(&self, owner: u8, change: isize) {
        self.relayed.send_modify(|all| {
            if let Some(clients) = all.get_mut(usize::from(owner)) {
                *clients = clients.saturating_add_signed(change);
            }
        });
    }

    /// Lets the other processes say goodbye to the clients that this one relays: only they know where a packet ends. Returns when these
    /// connections have ended.
    pub(crate) async fn say_goodbye(&self) {
        let mut relayed = self.relayed.subscribe();
        let owners: Vec<u8> = (0..self.processes.shards)
            .zip(&*relayed.borrow())
            .filter_map(|(shard, clients)| (*clients > 0).then_some(shard))
            .collect();
        let pipes = &self.processes.pipes;
        // An owner that does not take it gets no answer from these clients either.
        let told = owners
            .into_iter()
            .map(|owner| spawn_local(pipes.open(owner, &About::Stops)));
        let _told: Vec<_> = told.collect();
        let none_left = |all: &Vec<usize>| all.iter().all(|clients| *clients == 0);
        // The sender is not dropped before.
        let _ = relayed.wait_for(none_left).await;
    }
}

/// The clients whose bytes come from other processes.
#[derive(Clone, Debug, Default)]
struct Guests {
    /// The shards and epochs of these processes.
    from: Rc<RefCell<HashMap<ConnectionId, (u8, u64)>>>,
    /// The epoch of the last process of each shard that has told that it stops. What was on its way from there is not served.
    stopped: Rc<RefCell<HashMap<u8, u64>>>,
}

impl Guests {
    /// Serves a client until its connection has ended.
    async fn serve<H: Hooks>(self, shared: Rc<RefCell<Shared<H>>>, guest: Guest) {
        all_ready(&shared).await;
        let Guest { from, pipe, peer } = guest;
        if self.stopped.borrow().get(&from.0) == Some(&from.1) {
            return;
        }
        let opened = shared.borrow_mut().open(peer);
        let Some(id) = opened else { return };
        self.from.borrow_mut().insert(id, from);
        linked(shared, pipe, id).await;
        self.from.borrow_mut().remove(&id);
    }

    /// Ends the connections of a process as if this one stopped: that one stops.
    fn say_goodbye<H: Hooks>(&self, shared: &RefCell<Shared<H>>, from: (u8, u64)) {
        self.stopped.borrow_mut().insert(from.0, from.1);
        let mut shared = shared.borrow_mut();
        for (id, process) in &*self.from.borrow() {
            if *process == from {
                let now = shared.now();
                shared
                    .broker
                    .end_connection(*id, ReasonCode::ServerShuttingDown, now);
            }
        }
        shared.wake(None);
    }
}

/// A client whose bytes come from another process.
struct Guest {
    /// The shard and the epoch of that process.
    from: (u8, u64),
    pipe: DuplexStream,
    peer: Peer,
}

impl Processes {
    /// Opens the links, and takes the clients that other processes relay, by tasks of the present `LocalSet`.
    pub(crate) fn start<H: Hooks + 'static>(
        self: Arc<Self>,
        shared: &Rc<RefCell<Shared<H>>>,
        panics: &Rc<Panics>,
    ) {
        let mut lower: Vec<Sender<(u64, DuplexStream)>> = Vec::new();
        for to in (0..self.shards).filter(|to| *to != self.own) {
            let mut arriving = None;
            if to < self.own {
                let (sender, receiver) = channel(PIPES);
                lower.push(sender);
                arriving = Some(receiver);
            }
            let link = LinkTo {
                processes: Arc::clone(&self),
                to,
                arriving,
                epoch: 0,
                absence: Absence::new(self.patience),
            };
            panics.spawn(link.keep_open(Rc::clone(shared)));
        }
        let mut arrived = self.pipes.serve();
        let (shared, panics) = (Rc::clone(shared), Rc::clone(panics));
        let (own_panics, guests) = (Rc::clone(&panics), Guests::default());
        panics.spawn(async move {
            while let Some(arrived) = arrived.recv().await {
                let Arrived {
                    shard,
                    epoch,
                    about,
                    pipe,
                } = arrived;
                match About::read(&about) {
                    Some(About::Link) => {
                        if let Some(sender) = lower.get(usize::from(shard)) {
                            // If too many wait, this one ends, and the other process tries again.
                            let _ = sender.try_send((epoch, pipe));
                        }
                    }
                    Some(About::Client { peer, logins }) => {
                        if !self.has_same_logins(shard, logins) {
                            continue;
                        }
                        let from = (shard, epoch);
                        let guest = Guest { from, pipe, peer };
                        own_panics.spawn(guests.clone().serve(Rc::clone(&shared), guest));
                    }
                    Some(About::Stops) => guests.say_goodbye(&shared, (shard, epoch)),
                    // A process of another version of this program. The pipe ends.
                    None => {}
                }
            }
        });
    }
}

impl Processes {
    /// Returns the hash of who may connect at which listener.
    pub(crate) fn logins(&self) -> u64 {
        self.logins.hash()
    }

    /// Returns whether the process of another shard has the same logins. Otherwise its clients are refused, which is logged.
    fn has_same_logins(&self, shard: u8, theirs: u64) -> bool {
        let others = self.logins.compare(shard, theirs);
        #[cfg(feature = "files")]
        if others == Others::New {
            tracing::warn!(
                shard,
                "clients of another process are refused: it has other settings of listeners, users or certificates"
            );
        }
        others == Others::Same
    }
}

/// The link to the shard of another process.
struct LinkTo {
    processes: Arc<Processes>,
    to: u8,
    /// The pipes of the other process, with the number of the owner, if that process opens them.
    arriving: Option<Receiver<(u64, DuplexStream)>>,
    /// The number of the owner whose link is open.
    epoch: u64,
    absence: Absence,
}

impl LinkTo {
    /// Opens the link whenever it is not open, until the host ends.
    async fn keep_open<H: Hooks + 'static>(mut self, shared: Rc<RefCell<Shared<H>>>) {
        let mut newer = None;
        loop {
            let next = match newer.take() {
                Some(pipe) => Ok(pipe),
                None => self.next().await,
            };
            match next {
                Ok(pipe) => {
                    let Some(id) = open_link(&shared, self.to) else {
                        return;
                    };
                    self.tell("the link to another shard is open");
                    let serving = serve_link(&shared, linked(Rc::clone(&shared), pipe, id));
                    tokio::select! {
                        () = serving => {}
                        next = self.newer() => newer = Some(next),
                    }
                    self.tell("the link to another shard has ended");
                    self.absence.begins();
                }
                Err(why) => {
                    if self.absence.is_too_long(&why) {
                        self.tell("another shard is away");
                        shared.borrow_mut().miss(self.to);
                        note_ready(&shared);
                    }
                }
            }
            if newer.is_none() {
                sleep(AGAIN).await;
            }
        }
    }

    /// Returns the next pipe, or why there is none now.
    async fn next(&mut self) -> Result<DuplexStream, Unreached> {
        let processes = Arc::clone(&self.processes);
        if self.arriving.is_none() {
            return processes.pipes.open(self.to, &About::Link).await;
        }
        // Only while a link is open an earlier owner is refused: the owners of a restored journal begin with an earlier epoch.
        self.epoch = 0;
        if let Ok(pipe) = timeout(ASKED, self.newer()).await {
            return Ok(pipe);
        }
        match processes.pipes.is_there(self.to).await {
            Ok(()) => Err(Unreached::Failed("it does not open the link".to_owned())),
            Err(why) => Err(why),
        }
    }

    /// Waits for a pipe that the other process opens. One of an earlier owner than that of the open link is not taken.
    async fn newer(&mut self) -> DuplexStream {
        loop {
            let next = match &mut self.arriving {
                Some(arriving) => arriving.recv().await,
                None => None,
            };
            match next {
                Some((epoch, pipe)) if epoch >= self.epoch => {
                    self.epoch = epoch;
                    return pipe;
                }
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn tell(&self, what: &str) {
        #[cfg(feature = "files")]
        {
            // The process that opens the link does not know the number of the other process, and without a link no process knows one.
            let epoch = Some(self.epoch).filter(|epoch| *epoch > 0);
            tracing::info!(shard = self.to, epoch, "{what}");
        }
        #[cfg(not(feature = "files"))]
        let _ = (self.to, what);
    }
}

/// How long a link has not been open.
#[derive(Debug)]
struct Absence {
    patience: Duration,
    since: Instant,
    was_open: bool,
    is_told: bool,
}

impl Absence {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: Instant::now(),
            was_open: false,
            is_told: false,
        }
    }

    fn begins(&mut self) {
        (self.since, self.was_open, self.is_told) = (Instant::now(), true, false);
    }

    /// Returns once that the other shard is away. At the start other processes may be starting as well.
    fn is_too_long(&mut self, why: &Unreached) -> bool {
        let is_gone = self.was_open && *why == Unreached::NoOwner;
        let most = if is_gone { GONE } else { self.patience };
        let is_too_long = !self.is_told && self.since.elapsed() >= most.min(self.patience);
        self.is_told |= is_too_long;
        is_too_long
    }
}

#[cfg(all(test, feature = "files"))]
mod tests;
