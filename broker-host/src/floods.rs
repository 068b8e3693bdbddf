//! Checks how long clients wait while others send as much as they can. All runs in one thread, so the wait is counted in steps of
//! the broker and not in time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use mqtt_broker::{Config, Hooks, Instant, Statistics};
use mqtt_proto::{
    Connect, Delivery, Packet, PacketId, Publish, QoS, Subscribe, Subscription, TopicFilter,
    TopicName, Version, Will,
};
use mqtt_testing::packets::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::{Host, control, listen};

struct Open;

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        0
    }
}

type Broker = Rc<RefCell<Shared<Open>>>;

/// Runs a host and `act` at the same time.
async fn beside<F: Future<Output = ()>>(config: Config, act: impl FnOnce(SocketAddr, Broker) -> F) {
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (_control, commands) = control();
    let host = Host::new(config, Open, commands);
    let (stop, stopped) = oneshot::channel::<()>();
    let shared = Rc::clone(&host.shared);
    let run = host.run([listener], async {
        let _ = stopped.await;
    });
    let acts = async {
        act(address, shared).await;
        drop(stop);
    };
    tokio::join!(run, acts);
}

async fn join(address: SocketAddr, client_id: &str) -> TcpStream {
    join_by(address, Connect::new(Version::V311, client_id)).await
}

async fn join_by(address: SocketAddr, connect: Connect<'_>) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .write_all(&encode(&Packet::Connect(connect), Version::V311))
        .await
        .unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let topic = TopicName::new(topic).unwrap();
    let message = Packet::Publish(Publish::new(topic, payload));
    encode(&message, Version::V311)
}

/// Lets the other tasks run once. The runtime does not poll the system before.
async fn turn() {
    let mut was_polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut was_polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Writes as many bytes as the system takes; `at` is the offset in `bytes` where the last call ended.
fn fill(stream: &TcpStream, bytes: &[u8], at: &mut usize) {
    while let Ok(n) = stream.try_write(&bytes[*at..]) {
        *at = (*at + n) % bytes.len();
    }
}

/// A client that publishes a short message at times, and one that receives it.
struct Honest {
    from: TcpStream,
    to: TcpStream,
    message: Vec<u8>,
}

impl Honest {
    async fn join(address: SocketAddr) -> Self {
        Self {
            from: join(address, "from").await,
            to: subscriber(address, "to").await,
            message: publish("honest", b"x"),
        }
    }

    /// Publishes the message, and gives the other tasks turns until it has come.
    async fn converse(&self) {
        let written = self.from.try_write(&self.message).unwrap();
        assert_eq!(written, self.message.len());
        hear(&self.to, &self.message).await;
    }
}

/// Returns clients that send nothing yet.
async fn crowd(address: SocketAddr) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for n in 0..40 {
        crowd.push(join(address, &n.to_string()).await);
    }
    crowd
}

fn statistics(broker: &Broker) -> Statistics {
    broker.borrow().broker.statistics(Instant::from_millis(0))
}

fn connected(broker: &Broker) -> u64 {
    statistics(broker).clients_connected
}

/// Returns how many shares of a turn pass while `act` runs.
async fn shares_of_a_turn(broker: &Broker, act: impl Future<Output = ()>) -> u64 {
    let steps = || broker.borrow().broker.steps();
    let before = steps();
    act.await;
    (steps() - before) / u64::from(Config::default().turn_steps)
}

/// Checks that the median is at most `limit`.
fn are_few(mut waits: Vec<u64>, limit: u64, what: &str) {
    waits.sort_unstable();
    assert!(waits[waits.len() / 2] <= limit, "{waits:?} {what}");
}

/// Returns a client that subscribes to `honest`.
async fn subscriber(address: SocketAddr, client_id: &str) -> TcpStream {
    subscriber_of(address, client_id, "honest").await
}

async fn subscriber_of(address: SocketAddr, client_id: &str, filter: &'static str) -> TcpStream {
    let mut to = join(address, client_id).await;
    let filter = TopicFilter::from_static(filter);
    let list = [Subscription::new(filter, QoS::AtMostOnce)];
    let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
    let subscribe = encode(&Packet::Subscribe(subscribe), Version::V311);
    to.write_all(&subscribe).await.unwrap();
    to.read_exact(&mut [0; 5]).await.unwrap();
    to
}

/// Gives the other tasks turns until a message has come.
async fn hear(to: &TcpStream, message: &[u8]) {
    let mut heard = [0; 64];
    for _ in 0..100_000 {
        turn().await;
        match to.try_read(&mut heard) {
            Ok(n) => return assert_eq!(heard[..n], *message),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    panic!("no message came");
}

/// Gives the other tasks turns until `len` bytes have come.
async fn hear_bytes(to: &TcpStream, len: usize) {
    let mut heard = 0;
    for _ in 0..10_000 {
        heard += to.try_read(&mut [0; 64]).unwrap_or(0);
        if heard == len {
            return;
        }
        turn().await;
    }
    panic!("{heard} bytes came");
}

/// A turn names each receiver twice and has no share left for the second time, when nothing is outgoing any more. Later messages
/// come nevertheless.
#[tokio::test]
async fn a_connection_does_not_gather_for_ever() {
    beside(Config::default(), |address, _| async move {
        let publishers = [join(address, "a").await, join(address, "b").await];
        let mut receivers = Vec::new();
        for n in 0..150 {
            receivers.push(subscriber(address, &n.to_string()).await);
        }
        let message = publish("honest", b"x");
        for _ in 0..3 {
            for from in &publishers {
                assert_eq!(from.try_write(&message).unwrap(), message.len());
            }
            for to in &receivers {
                hear_bytes(to, 2 * message.len()).await;
            }
        }
    })
    .await;
}

/// Many clients with much to read: while a message of others passes, few of their bytes are read.
#[tokio::test]
async fn large_packets_of_many_clients_are_read_in_turns() {
    beside(Config::default(), async |address, broker| {
        let honest = Honest::join(address).await;
        let packet = publish("large", &[0; 1_000_000]);
        let crowd = crowd(address).await;
        for stream in &crowd {
            let mut rest = &packet[..400_000];
            while let Ok(n) = stream.try_write(rest)
                && n > 0
            {
                rest = &rest[n..];
            }
        }
        let read = || statistics(&broker).input_bytes;
        // The first bytes of each client have been read.
        while read() < 40 * (60 << 10) {
            turn().await;
        }
        let before = read();
        honest.converse().await;
        let reads = (read() - before) >> 16;
        assert!(reads <= 16, "{reads}");
    })
    .await;
}

/// Many clients send one more part of a large packet: the system reports them together, and few of them are read before a message of
/// others.
#[tokio::test]
async fn who_sends_little_waits_for_few_parts_of_large_packets() {
    const PART: usize = 60_000;
    beside(Config::default(), async |address, broker| {
        let honest = Honest::join(address).await;
        let packet = publish("large", &[0; 1_000_000]);
        let crowd = crowd(address).await;
        let read = || usize::try_from(statistics(&broker).input_bytes).unwrap();
        for part in packet.chunks(PART).take(3) {
            let before = read();
            for stream in &crowd {
                assert_eq!(stream.try_write(part).unwrap(), PART);
            }
            if before > 0 {
                honest.converse().await;
                let parts = (read() - before) / PART;
                assert!(parts <= 10, "{parts} parts");
            }
            while read() < before + crowd.len() * PART {
                turn().await;
            }
        }
    })
    .await;
}

/// Many clients with a will that are gone at once: a message of others comes after few of their connections were closed.
#[tokio::test]
async fn who_sends_little_waits_for_few_of_many_who_leave() {
    const MANY: u64 = 200;
    beside(Config::default(), |address, broker| async move {
        let honest = Honest::join(address).await;
        let mut waits = Vec::new();
        for round in 0..5 {
            let mut clients = Vec::new();
            for n in 0..MANY {
                let (id, topic) = (format!("{round}-{n}"), format!("will/{n}"));
                let topic = TopicName::new(&topic).unwrap();
                let connect = Connect {
                    will: Some(Will::new(topic, b"x")),
                    ..Connect::new(Version::V311, &id)
                };
                clients.push(join_by(address, connect).await);
            }
            assert_eq!(connected(&broker), 2 + MANY);
            drop(clients);
            honest.converse().await;
            waits.push(2 + MANY - connected(&broker));
            while connected(&broker) > 2 {
                turn().await;
            }
        }
        are_few(waits, 40, "connections were closed before");
    })
    .await;
}

/// Many clients that connect at once: a message of others comes after few of them were accepted.
#[tokio::test]
async fn who_sends_little_waits_for_few_of_many_who_connect() {
    const MANY: usize = 300;
    beside(Config::default(), |address, broker| async move {
        let honest = Honest::join(address).await;
        let mut waits = Vec::new();
        for round in 0..5 {
            let mut clients = Vec::new();
            for _ in 0..MANY {
                clients.push(TcpStream::connect(address).await.unwrap());
            }
            // All of them are accepted.
            join(address, "last").await;
            let before = connected(&broker);
            for (n, client) in clients.iter().enumerate() {
                let id = format!("{round}-{n}");
                let connect = Connect::new(Version::V311, &id);
                let connect = encode(&Packet::Connect(connect), Version::V311);
                assert_eq!(client.try_write(&connect).unwrap(), connect.len());
            }
            honest.converse().await;
            waits.push(connected(&broker).saturating_sub(before));
            for client in &clients {
                hear_bytes(client, 4).await;
            }
        }
        are_few(waits, 80, "clients were connected before");
    })
    .await;
}

/// Many receivers of large messages: one turn writes to a few of them.
#[tokio::test]
async fn large_messages_are_written_in_turns() {
    const LARGE: usize = 60_000;
    beside(Config::default(), |address, broker| async move {
        let mut receivers = Vec::new();
        for n in 0..60 {
            receivers.push(subscriber(address, &n.to_string()).await);
        }
        let from = join(address, "from").await;
        let (message, mut at) = (publish("honest", &[0; LARGE]), 0);
        let sent = || usize::try_from(statistics(&broker).bytes_sent).unwrap();
        let (first, mut last, mut turns) = (sent(), sent(), Vec::new());
        for _ in 0..100_000 {
            fill(&from, &message, &mut at);
            turn().await;
            let now = sent();
            if now > last {
                turns.push((now - last) / LARGE);
            }
            last = now;
            if last - first >= 4 * receivers.len() * LARGE {
                break;
            }
        }
        assert!(last - first >= 4 * receivers.len() * LARGE);
        turns.sort_unstable();
        let most = turns[turns.len() * 9 / 10];
        assert!(most <= 10, "{turns:?} messages in a turn");
    })
    .await;
}

/// Many clients that publish as much as the broker takes.
struct Floods {
    /// Each client, and how far its part of the messages is written.
    clients: Vec<(TcpStream, usize)>,
    messages: Vec<u8>,
}

impl Floods {
    async fn new(address: SocketAddr) -> Self {
        let mut clients = Vec::new();
        for n in 0..32 {
            clients.push((join(address, &format!("flood-{n}")).await, 0));
        }
        let messages = publish("flood", b"x").repeat(4_000);
        Self { clients, messages }
    }

    /// Writes as much as the transports take.
    fn fill(&mut self) {
        for (stream, at) in &mut self.clients {
            fill(stream, &self.messages, at);
        }
    }
}

/// However many flood the broker, a message of others comes after few turns of them.
#[tokio::test]
async fn who_sends_little_waits_for_few_turns_of_many_who_flood() {
    beside(Config::default(), |address, broker| async move {
        let honest = Honest::join(address).await;
        let mut floods = Floods::new(address).await;
        let mut waits = Vec::new();
        for _ in 0..21 {
            floods.fill();
            waits.push(shares_of_a_turn(&broker, honest.converse()).await);
        }
        are_few(waits, 8, "shares of a turn");
    })
    .await;
}

/// However many flood the broker, a client connects after few turns of them.
#[tokio::test]
async fn who_connects_waits_for_few_turns_of_many_who_flood() {
    beside(Config::default(), |address, broker| async move {
        let mut floods = Floods::new(address).await;
        let connect = Connect::new(Version::V311, "honest");
        let connect = encode(&Packet::Connect(connect), Version::V311);
        let mut waits = Vec::new();
        for _ in 0..21 {
            floods.fill();
            let stream = TcpStream::connect(address).await.unwrap();
            let connects = async {
                assert_eq!(stream.try_write(&connect).unwrap(), connect.len());
                hear_bytes(&stream, 4).await;
            };
            waits.push(shares_of_a_turn(&broker, connects).await);
        }
        are_few(waits, 8, "shares of a turn");
    })
    .await;
}

/// The work for a message to many is done in turns of its own, between which the host asks the system which sockets are ready.
#[tokio::test]
async fn who_sends_little_waits_for_few_turns_of_a_message_to_many() {
    let config = Config::default();
    let share = u64::from(config.turn_steps);
    beside(config, |address, broker| async move {
        let honest = Honest::join(address).await;
        let mut receivers = Vec::new();
        for n in 0..500 {
            receivers.push(subscriber_of(address, &n.to_string(), "flood").await);
        }
        let flooding = join(address, "flood").await;
        let flood = publish("flood", b"x").repeat(4_000);
        let (mut at, mut heard) = (0, vec![0; 64 << 10]);
        let mut waits = Vec::new();
        for _ in 0..21 {
            fill(&flooding, &flood, &mut at);
            for receiver in &receivers {
                while receiver.try_read(&mut heard).is_ok() {}
            }
            let steps = || broker.borrow().broker.steps();
            let last = steps();
            while steps() - last < 8 * share {
                turn().await;
            }
            waits.push(shares_of_a_turn(&broker, honest.converse()).await);
        }
        are_few(waits, 8, "shares of a turn");
    })
    .await;
}

/// A client resumes a session with many small messages, and reads as fast as it can: a turn writes a part of them.
#[tokio::test]
async fn a_resumed_session_is_written_in_portions() {
    let mut config = Config::default();
    config.window = u16::MAX;
    beside(config, |address, broker| async move {
        let resumes = || Connect {
            clean_start: false,
            ..Connect::new(Version::V311, "resumes")
        };
        let mut to = join_by(address, resumes()).await;
        let filter = TopicFilter::from_static("a");
        let list = [Subscription::new(filter, QoS::AtLeastOnce)];
        let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
        let subscribe = Packet::Subscribe(subscribe);
        to.write_all(&encode(&subscribe, Version::V311))
            .await
            .unwrap();
        hear_bytes(&to, 5).await;
        let from = join(address, "from").await;
        let message = Publish {
            delivery: Delivery::AtLeastOnce(PacketId::FIRST),
            ..Publish::new(TopicName::new("a").unwrap(), b"x")
        };
        let message = encode(&Packet::Publish(message), Version::V311);
        let (bytes, mut at) = (message.repeat(60_000), 0);
        let mut heard = vec![0; 1 << 20];
        while statistics(&broker).publish_received < 60_000 {
            at += from.try_write(&bytes[at..]).unwrap_or(0);
            let _ = (from.try_read(&mut heard), to.try_read(&mut heard));
            turn().await;
        }
        drop(to);
        drop(from);
        let to = TcpStream::connect(address).await.unwrap();
        to.try_write(&encode(&Packet::Connect(resumes()), Version::V311))
            .unwrap();
        let written = || statistics(&broker).bytes_sent;
        let (mut most, mut last, first) = (0, written(), written());
        for _ in 0..100_000 {
            turn().await;
            let _ = to.try_read(&mut heard);
            let now = written();
            (most, last) = (most.max(now - last), now);
            if last - first > 400_000 {
                break;
            }
        }
        assert!(
            last - first > 400_000,
            "{} bytes were written",
            last - first
        );
        assert!(most <= 280 << 10, "{most} bytes in a turn");
    })
    .await;
}

/// Silent connections do not keep others out: they are closed at once when the limit is reached.
#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let mut config = Config::default();
    config.connections = 20;
    config.pending_connections = 10;
    beside(config, |address, _| async move {
        let mut silent = Vec::new();
        for n in 0..100 {
            silent.push(TcpStream::connect(address).await.unwrap());
            if n % 20 == 19 {
                join(address, &format!("client-{n}")).await;
            }
        }
        for stream in &mut silent[..80] {
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        }
    })
    .await;
}
