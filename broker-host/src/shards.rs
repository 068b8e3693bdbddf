//! Connects the hosts of several shards (see `mqtt_broker::Broker::start_links`), each with a thread of its own. The first
//! shard accepts all connections. It reads until CONNECT is complete, and passes the socket with the bytes so far to the thread
//! of the client's shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mqtt_broker::{ConnectionId, Elsewhere, Hooks, PlaceOf, Statistics};
use mqtt_proto::num::to_u32;
use mqtt_transport::bytes::BytesMut;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use crate::panics::Panics;
use crate::peer::Peer;
use crate::processes::{Processes, Relays};
use crate::shared::Shared;
use crate::sockets;
use crate::staged::Staged;
use crate::stream::Stream;
use crate::task::linked;

/// How many bytes a link holds in each direction. Further ones wait in the shard that sends them.
const LINK: usize = 256 << 10;
/// How long to wait before a link that ended is opened again: the shard that ended it may have no room in its store.
const OPEN_AGAIN: Duration = Duration::from_millis(100);

/// The state that the threads of all shards share.
#[derive(Debug)]
pub(crate) struct Whole {
    /// How a connection comes to its shard. A connection on its way counts for the limits, so they are bounded.
    arrivals: Vec<UnboundedSender<Moved>>,
    census: Census,
    shards: u8,
    /// Has a permit for each shard of this process whose links are ready.
    ready: Semaphore,
    /// The last statistics of each shard.
    board: Mutex<Vec<Statistics>>,
    /// The sessions of all shards, of each user and of each address.
    places: Mutex<HashMap<PlaceOf, usize>>,
}

impl Whole {
    fn new(shards: u8, arrivals: Vec<UnboundedSender<Moved>>) -> Arc<Self> {
        Arc::new(Self {
            arrivals,
            census: Census::default(),
            shards,
            ready: Semaphore::new(0),
            board: Mutex::new(vec![Statistics::default(); usize::from(shards)]),
            places: Mutex::default(),
        })
    }

    /// Returns how many shards this process has.
    fn own_shards(&self) -> u32 {
        to_u32(self.arrivals.len().max(1))
    }

    /// Counts a connection that this process passes to another process.
    pub(crate) fn add(&self, source: u64) {
        self.census.add(source);
    }

    pub(crate) fn remove(&self, source: u64) {
        self.census.remove(source);
    }

    /// Takes the present counts of one shard, and returns those of all. The others are as old as their last call.
    pub(crate) fn statistics(&self, own: u8, now: Statistics) -> Statistics {
        let mut board = lock(&self.board);
        if let Some(place) = board.get_mut(usize::from(own)) {
            *place = now;
        }
        Statistics::of_all(&*board)
    }

    /// Counts a session of the broker, a user or an address, unless there are as many as the limit.
    pub(crate) fn take_place(&self, of: PlaceOf, limit: usize) -> bool {
        let mut places = lock(&self.places);
        let held = places.get(&of).copied().unwrap_or(0);
        let has_room = held < limit;
        if has_room {
            places.insert(of, held + 1);
        }
        has_room
    }

    pub(crate) fn free_place(&self, of: PlaceOf) {
        count_down(&mut lock(&self.places), of);
    }
}

/// The connections that were passed on: those of all shards of this process but the first one, which accepts them, and those of other
/// processes.
#[derive(Debug, Default)]
struct Census {
    connections: AtomicUsize,
    addresses: Mutex<HashMap<u64, usize>>,
}

impl Census {
    fn add(&self, source: u64) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        *lock(&self.addresses).entry(source).or_default() += 1;
    }

    fn remove(&self, source: u64) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        count_down(&mut lock(&self.addresses), source);
    }
}

/// Counts one less, and forgets what is not counted any more.
fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, usize>, what: K) {
    if let Entry::Occupied(mut entry) = counts.entry(what) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// A connection on its way to its shard.
#[derive(Debug)]
pub(crate) struct Moved {
    /// The number of the connection in the shard that accepted it.
    pub(crate) id: ConnectionId,
    pub(crate) stream: Stream,
    pub(crate) staged: Option<Box<Staged>>,
    pub(crate) peer: Peer,
    /// The bytes that were read: CONNECT, and perhaps more.
    pub(crate) input: BytesMut,
}

/// A shard among the others, for its own thread.
#[derive(Debug)]
pub(crate) struct Member {
    own: u8,
    whole: Arc<Whole>,
    /// How clients come to the shards of other processes, if these have the other shards.
    relays: Option<Relays>,
    /// Whether the others know that the links of this shard are ready.
    is_ready: bool,
    /// Whether the host ends.
    is_over: bool,
}

impl Member {
    /// Returns the connections of other shards that count for the limits of a new one.
    pub(crate) fn elsewhere(&self, source: u64) -> Elsewhere {
        let census = &self.whole.census;
        Elsewhere {
            connections: census.connections.load(Ordering::Relaxed),
            of_address: lock(&census.addresses).get(&source).copied().unwrap_or(0),
        }
    }

    /// Passes a connection to its shard. If that has ended, or this host ends, the connection is closed.
    pub(crate) fn pass_on<H: Hooks>(&self, shared: &Shared<H>, moved: Moved, to: u8) {
        if let Some(relays) = &self.relays {
            // The other process knows that this one stops, and says no second goodbye.
            if !self.is_over {
                relays.pass_on(shared, moved, to);
            }
            return;
        }
        let source = moved.peer.source;
        self.whole.census.add(source);
        let shard = self.whole.arrivals.get(usize::from(to));
        if shard.is_none_or(|shard| shard.send(moved).is_err()) {
            self.whole.census.remove(source);
        }
    }

    /// Notes that a connection is closed, or was not taken.
    pub(crate) fn closed(&self, source: u64) {
        // The broker of a shard that accepts counts its own.
        if self.own != 0 && self.relays.is_none() {
            self.whole.census.remove(source);
        }
    }

    /// Returns how clients come to the shards of other processes, if these have the other shards.
    pub(crate) const fn relays(&self) -> Option<&Relays> {
        self.relays.as_ref()
    }

    pub(crate) fn end(&mut self) {
        self.is_over = true;
    }
}

/// A shard before its host runs.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) own: u8,
    pub(crate) whole: Arc<Whole>,
    others: Others,
}

/// Where the other shards are.
#[derive(Debug)]
enum Others {
    Threads {
        arrivals: UnboundedReceiver<Moved>,
        links: Vec<(u8, End)>,
    },
    Processes(Arc<Processes>),
}

/// One end of a link, over several times of being open: the shard with the lower number makes its pipes.
#[derive(Debug)]
enum End {
    Makes(UnboundedSender<DuplexStream>),
    Takes(UnboundedReceiver<DuplexStream>),
}

impl End {
    /// Returns the next pipe; `None` if the other shard has ended.
    async fn next(&mut self) -> Option<DuplexStream> {
        match self {
            Self::Makes(other) => {
                let (own, its) = duplex(LINK);
                other.send(its).ok()?;
                Some(own)
            }
            Self::Takes(other) => other.recv().await,
        }
    }
}

/// Makes the seats of `shards` shards, each with its ends of the links to all others.
pub(crate) fn seats(shards: u8) -> Vec<Seat> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| unbounded_channel()).unzip();
    let whole = Whole::new(shards, senders);
    let mut links: Vec<Vec<(u8, End)>> = (0..shards).map(|_| Vec::new()).collect();
    for low in 0..shards {
        for high in low + 1..shards {
            let (makes, takes) = unbounded_channel();
            for (own, to, end) in [
                (low, high, End::Makes(makes)),
                (high, low, End::Takes(takes)),
            ] {
                if let Some(links) = links.get_mut(usize::from(own)) {
                    links.push((to, end));
                }
            }
        }
    }
    let all = (0..shards).zip(receivers).zip(links);
    all.map(|((own, arrivals), links)| Seat {
        own,
        whole: Arc::clone(&whole),
        others: Others::Threads { arrivals, links },
    })
    .collect()
}

/// Makes the shard of this process, if other processes have the others.
pub(crate) fn seat_among(processes: Processes) -> Seat {
    let (own, whole) = (processes.own, Whole::new(processes.shards, Vec::new()));
    Seat {
        own,
        whole,
        others: Others::Processes(Arc::new(processes)),
    }
}

impl Seat {
    pub(crate) fn count(&self) -> u8 {
        self.whole.shards
    }

    pub(crate) fn member(&self) -> Member {
        Member {
            own: self.own,
            whole: Arc::clone(&self.whole),
            relays: match &self.others {
                Others::Threads { .. } => None,
                Others::Processes(all) => {
                    Some(Relays::new(Arc::clone(all), Arc::clone(&self.whole)))
                }
            },
            is_ready: false,
            is_over: false,
        }
    }

    /// Opens the links, and takes the connections of this shard, by tasks of the present `LocalSet`.
    pub(crate) fn start<H: Hooks + 'static>(
        self,
        shared: &Rc<RefCell<Shared<H>>>,
        panics: &Rc<Panics>,
    ) {
        let (mut arrivals, links) = match self.others {
            Others::Threads { arrivals, links } => (arrivals, links),
            Others::Processes(all) => return all.start(shared, panics),
        };
        for (to, end) in links {
            panics.spawn(link(Rc::clone(shared), to, end));
        }
        let shared = Rc::clone(shared);
        panics.spawn(async move {
            while let Some(moved) = arrivals.recv().await {
                sockets::arrived(&shared, moved);
            }
        });
    }
}

/// Waits until the links of all shards are ready.
pub(crate) async fn all_ready<H>(shared: &RefCell<Shared<H>>) {
    let whole = shared
        .borrow()
        .member
        .as_ref()
        .map(|own| Arc::clone(&own.whole));
    if let Some(whole) = whole {
        // The semaphore is never closed. The permits return for the next one that waits.
        let _ = whole.ready.acquire_many(whole.own_shards()).await;
    }
}

/// Keeps the link to another shard open.
async fn link<H: Hooks + 'static>(shared: Rc<RefCell<Shared<H>>>, to: u8, mut end: End) {
    while let Some(pipe) = end.next().await {
        let Some(id) = open_link(&shared, to) else {
            return;
        };
        serve_link(&shared, linked(Rc::clone(&shared), pipe, id)).await;
        sleep(OPEN_AGAIN).await;
    }
}

/// Serves an open link until it has ended, and closes it.
pub(crate) async fn serve_link<H: Hooks>(
    shared: &RefCell<Shared<H>>,
    serving: impl Future<Output = ()>,
) {
    let mut serving = pin!(serving);
    poll_fn(|cx| {
        let ended = serving.as_mut().poll(cx);
        note_ready(shared);
        ended
    })
    .await;
}

/// Opens the link to another shard, unless the host ends.
pub(crate) fn open_link<H: Hooks>(shared: &RefCell<Shared<H>>, to: u8) -> Option<ConnectionId> {
    let mut shared = shared.borrow_mut();
    if shared.member.as_ref().is_none_or(|own| own.is_over) {
        return None;
    }
    shared.open_link(to)
}

/// Tells the others when the links of this shard are ready for the first time.
pub(crate) fn note_ready<H: Hooks>(shared: &RefCell<Shared<H>>) {
    let mut shared = shared.borrow_mut();
    let Shared { broker, member, .. } = &mut *shared;
    if let Some(member) = member.as_deref_mut().filter(|own| !own.is_ready)
        && broker.links_are_ready()
    {
        member.is_ready = true;
        member.whole.ready.add_permits(1);
    }
}

/// Locks a value that is valid at any time, even if a thread panicked while it held the lock.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use mqtt_broker::{Config, Outgoing, shard_of};
    use mqtt_proto::{Connect, Packet, QoS, TopicName, Version};
    use mqtt_testing::packets::encode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;
    use crate::{Control, Host, Listener, control};

    struct Open(u128);

    impl Hooks for Open {
        fn unguessable(&mut self) -> u128 {
            self.0 += 1;
            self.0
        }
    }

    fn host(seat: Seat) -> (Host<Open>, Control) {
        let (control, commands) = control();
        let mut config = Config::default();
        config.statistics_interval = 0;
        (Host::of_shard(config, Open(0), commands, seat), control)
    }

    /// Runs two shards on this thread while a story runs. `cut` is dropped when the link between them shall end.
    async fn beside<F: Future<Output = ()>>(
        cut: oneshot::Receiver<()>,
        story: impl FnOnce(std::net::SocketAddr, [Control; 2]) -> F,
    ) {
        let mut both = seats(2);
        // The pipes go through the test, which can cut them.
        let (to_other, takes) = unbounded_channel();
        let Others::Threads { links, .. } = &mut both[1].others else {
            panic!("{both:?}");
        };
        let made = std::mem::replace(&mut links[0].1, End::Takes(takes));
        let End::Takes(mut made) = made else {
            panic!("{made:?}");
        };
        let relay = async move {
            let (mut first, pipe) = (made.recv().await.unwrap(), duplex(64));
            let mut own = pipe.0;
            to_other.send(pipe.1).unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut first, &mut own) => {}
                _ = cut => {}
            }
            drop((first, own));
            while let Some(next) = made.recv().await {
                to_other.send(next).unwrap();
            }
        };
        let mut seats = both.into_iter();
        let (first, control) = host(seats.next().unwrap());
        let (second, other) = host(seats.next().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let story = async {
            story(address, [control, other]).await;
            drop(end);
        };
        let stop = async {
            let _ = ended.await;
        };
        tokio::select! {
            _ = async { tokio::join!(first.run([listener], story), second.run(None::<Listener>, stop)) } => {}
            () = relay => {}
        }
    }

    #[tokio::test]
    async fn clients_without_an_identifier_are_in_all_shards() {
        let (_cut, uncut) = oneshot::channel();
        beside(uncut, |address, controls| async move {
            let mut streams = Vec::new();
            for _ in 0..10 {
                streams.push(connect(address, "").await);
            }
            assert_eq!(connected(&controls[0]).await, 5);
            assert_eq!(connected(&controls[1]).await, 5);
        })
        .await;
    }

    async fn connect(address: std::net::SocketAddr, name: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let connect = Packet::Connect(Connect::new(Version::V311, name));
        let bytes = encode(&connect, Version::V311);
        stream.write_all(&bytes).await.unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).await.unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        stream
    }

    async fn connected(control: &Control) -> usize {
        let counts = control.statistics().await.unwrap();
        usize::try_from(counts.clients_connected).unwrap()
    }

    #[tokio::test]
    async fn each_client_is_in_the_shard_of_its_identifier() {
        let (_cut, uncut) = oneshot::channel();
        beside(uncut, |address, controls| async move {
            let names: Vec<_> = (0..20).map(|n| format!("client-{n}")).collect();
            let mut streams = Vec::new();
            for name in &names {
                streams.push(connect(address, name).await);
            }
            let of_first = names
                .iter()
                .filter(|name| shard_of(name, 2, 0) == 0)
                .count();
            assert!((1..20).contains(&of_first));
            assert_eq!(connected(&controls[0]).await, of_first);
            assert_eq!(connected(&controls[1]).await, 20 - of_first);
        })
        .await;
    }

    #[tokio::test]
    async fn a_link_that_ends_is_opened_again() {
        let (cut, until) = oneshot::channel();
        beside(until, |address, controls| async move {
            let name = |shard| {
                let mut names = (0..).map(|n| format!("client-{n}"));
                names.find(|name| shard_of(name, 2, 0) == shard).unwrap()
            };
            let mut subscriber = connect(address, &name(1)).await;
            subscriber
                .write_all(&[0x82, 6, 0, 1, 0, 1, b'a', 1])
                .await
                .unwrap();
            let mut suback = [0; 5];
            subscriber.read_exact(&mut suback).await.unwrap();
            assert_eq!(suback, [0x90, 3, 0, 1, 1]);
            drop(cut);
            let mut publisher = connect(address, &name(0)).await;
            for n in 0..100 {
                publisher
                    .write_all(&[0x32, 6, 0, 1, b'a', 0, 1, n])
                    .await
                    .unwrap();
                let mut puback = [0; 4];
                publisher.read_exact(&mut puback).await.unwrap();
                assert_eq!(puback, [0x40, 2, 0, 1]);
            }
            // The first ones may come again.
            let mut expected = 0;
            while expected < 100 {
                let mut message = [0; 8];
                subscriber.read_exact(&mut message).await.unwrap();
                subscriber
                    .write_all(&[0x40, 2, message[5], message[6]])
                    .await
                    .unwrap();
                assert!(message[7] <= expected, "{message:?}");
                expected = expected.max(message[7] + 1);
            }
            // A message of the host is for the clients of its shard.
            let message = Outgoing::new(TopicName::new("a").unwrap(), QoS::AtMostOnce, b"x");
            controls[1].publish(&message).await.unwrap();
            let mut last = [0; 6];
            subscriber.read_exact(&mut last).await.unwrap();
            assert_eq!(last, [0x30, 4, 0, 1, b'a', b'x']);
        })
        .await;
    }
}
