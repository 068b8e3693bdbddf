use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_broker::{Config, Hooks, shard_of};
#[cfg(feature = "proxy")]
use mqtt_proto::Publish;
use mqtt_proto::{Connect, Decoded, MAX_PACKET, Packet, ReasonCode, TopicName, Version, Will};
use mqtt_testing::packets::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::shards::seat_among;
use crate::{Control, Host, Layers, Listener, control};

mod goodbye;

const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(20);

struct Open(u128);

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

/// The processes that serve, by their shards: how to open a pipe to each, and its address for clients.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<Vec<Option<Sender<Arrived>>>>>);

/// The pipes of one process.
struct InMemory {
    own: u8,
    epoch: u64,
    all: Served,
}

impl InMemory {
    fn to(&self, shard: u8) -> Result<Sender<Arrived>, Unreached> {
        let all = self.all.0.lock().unwrap();
        let sender = all.get(usize::from(shard)).cloned().flatten();
        sender
            .filter(|it| !it.is_closed())
            .ok_or(Unreached::NoOwner)
    }
}

impl Pipes for InMemory {
    fn open(&self, shard: u8, about: &About) -> LocalFuture<Result<DuplexStream, Unreached>> {
        let about = about.bytes();
        let sender = self.to(shard);
        let (shard, epoch) = (self.own, self.epoch);
        Box::pin(async move {
            let (own, pipe) = duplex(1_000);
            let arrived = Arrived {
                shard,
                epoch,
                about,
                pipe,
            };
            let sent = sender?.send(arrived).await;
            sent.map_or(Err(Unreached::NoOwner), |()| Ok(own))
        })
    }

    fn is_there(&self, shard: u8) -> LocalFuture<Result<(), Unreached>> {
        let told = self.to(shard).map(|_| ());
        Box::pin(async move { told })
    }

    fn addresses(&self, shard: u8) -> LocalFuture<Result<Option<String>, Unreached>> {
        let lines = format!("12 other:1\n1 broker-{shard}:1883\n2 broker-{shard}:8883\n");
        let told = self.to(shard).map(|_| Some(lines));
        Box::pin(async move { told })
    }

    fn serve(&self) -> Receiver<Arrived> {
        let (sender, receiver) = channel(8);
        let mut all = self.all.0.lock().unwrap();
        all.resize(4, None);
        all[usize::from(self.own)] = Some(sender);
        receiver
    }
}

/// A process of a broker with two shards.
struct Process {
    address: SocketAddr,
    control: Control,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

struct Wanted {
    patience: Duration,
    redirects: bool,
    epoch: u64,
    logins: u64,
    listener: usize,
    layers: Layers,
    of_address: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            patience: LONG,
            redirects: false,
            epoch: 1,
            logins: 7,
            listener: 1,
            layers: Layers::default(),
            of_address: usize::MAX,
        }
    }
}

async fn process(own: u8, all: &Served, wanted: Wanted) -> Process {
    let Wanted {
        patience,
        redirects,
        epoch,
        logins,
        listener: number,
        layers,
        of_address,
    } = wanted;
    let pipes = InMemory {
        own,
        epoch,
        all: all.clone(),
    };
    let seat = seat_among(Processes {
        own,
        shards: 2,
        logins: Arc::new(Logins::new(logins)),
        patience,
        redirects,
        pipes: Box::new(pipes),
    });
    let (control, commands) = control();
    let mut config = Config::default();
    config.statistics_interval = 0;
    config.connections_per_address = of_address;
    let host = Host::of_shard(config, Open(0), commands, seat);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let ended = spawn_local(async move {
        let stop = async {
            let _ = stopped.await;
        };
        let listener = Listener::from(listener).over(layers).numbered(number);
        host.run([listener], stop).await;
    });
    Process {
        address,
        control,
        stop,
        ended,
    }
}

impl Process {
    async fn end(self) {
        drop(self.stop);
        self.ended.await.unwrap();
    }

    async fn clients(&self) -> Vec<String> {
        let all = self.control.clients(100).await.unwrap();
        all.into_iter().map(|client| client.client_id).collect()
    }
}

/// Runs a story with hosts in this thread.
async fn play(story: impl Future<Output = ()>) {
    LocalSet::new().run_until(story).await;
}

/// Runs a story with a process for each shard, the first as wanted, and ends both.
async fn play_with_both(first: Wanted, story: impl AsyncFnOnce(&Process, &Process)) {
    play(async {
        let all = Served::default();
        let first = process(0, &all, first).await;
        let second = process(1, &all, Wanted::default()).await;
        story(&first, &second).await;
        first.end().await;
        second.end().await;
    })
    .await;
}

/// Returns a client identifier of a shard.
fn name(shard: u8) -> String {
    let mut names = (0..).map(|n| format!("client-{n}"));
    names.find(|name| shard_of(name, 2, 0) == shard).unwrap()
}

/// Returns the bytes of a CONNECT.
fn connect(version: Version, name: &str) -> Vec<u8> {
    encode(&Packet::Connect(Connect::new(version, name)), version)
}

/// Sends CONNECT, and returns the answer as text.
async fn ask(address: SocketAddr, version: Version, name: &str) -> (TcpStream, String) {
    ask_with(address, version, &connect(version, name)).await
}

/// Sends the first bytes of a connection, and returns the answer as text.
async fn ask_with(address: SocketAddr, version: Version, bytes: &[u8]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let answer = next(&mut stream, version).await;
    (stream, answer)
}

/// Reads a packet as text, byte by byte.
async fn next(stream: &mut TcpStream, version: Version) -> String {
    let mut bytes = Vec::new();
    loop {
        if let Ok(Decoded::Packet { packet, .. }) = Packet::decode(&bytes, version, MAX_PACKET) {
            return match packet {
                Packet::ConnAck(connack) => {
                    let server = connack.properties.server_reference().unwrap_or_default();
                    format!("{:?} {server}", connack.reason)
                }
                Packet::Publish(publish) => {
                    format!(
                        "{} {}",
                        publish.topic,
                        String::from_utf8_lossy(publish.payload)
                    )
                }
                Packet::Disconnect(disconnect) => format!("{:?}", disconnect.reason),
                other => format!("{:?}", other.packet_type()),
            };
        }
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => return "end".to_owned(),
        }
    }
}

async fn join(address: SocketAddr, name: &str) -> TcpStream {
    let (stream, answer) = ask(address, Version::V311, name).await;
    assert_eq!(answer, "Success ");
    stream
}

/// Connects the client of the second shard, with the will `gone` for the topic `w`.
async fn join_with_will(address: SocketAddr, version: Version) -> TcpStream {
    let name = name(1);
    let will = Will::new(TopicName::from_static("w"), b"gone");
    let connect = Connect {
        will: Some(will),
        ..Connect::new(version, &name)
    };
    let bytes = encode(&Packet::Connect(connect), version);
    let (stream, answer) = ask_with(address, version, &bytes).await;
    assert_eq!(answer, "Success ");
    stream
}

/// Subscribes to a topic of one letter at QoS 1.
async fn subscribe(stream: &mut TcpStream, topic: u8) {
    let bytes = [0x82, 6, 0, 1, 0, 1, topic, 1];
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(next(stream, Version::V311).await, "SubAck");
}

async fn publish(stream: &mut TcpStream, payload: &str) {
    let mut bytes = vec![
        0x32,
        5 + u8::try_from(payload.len()).unwrap(),
        0,
        1,
        b'a',
        0,
        1,
    ];
    bytes.extend_from_slice(payload.as_bytes());
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(next(stream, Version::V311).await, "PubAck");
}

/// Clients connect to either process, and their sessions are in the process of their shard.
#[tokio::test]
async fn a_client_of_another_process_is_served_by_it() {
    play_with_both(Wanted::default(), async |first, second| {
        let (here, there) = (name(0), name(1));
        // Each is connected to the wrong process.
        let mut one = join(second.address, &here).await;
        let mut other = join(first.address, &there).await;
        assert_eq!(first.clients().await, [&*here]);
        assert_eq!(second.clients().await, [&*there]);
        subscribe(&mut other, b'a').await;
        publish(&mut one, "x").await;
        assert_eq!(next(&mut other, Version::V311).await, "a x");
        // The address is that of the client, not that of a process.
        let peers = second.control.clients(1).await.unwrap();
        let address = peers[0].address.unwrap();
        assert_eq!(address, other.local_addr().unwrap());
        // The end of a connection is known in the other process, in both directions.
        drop(one);
        while !first.clients().await.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(
            second
                .control
                .disconnect(&there, ReasonCode::NotAuthorized)
                .await
        );
        assert_eq!(next(&mut other, Version::V311).await, "end");
    })
    .await;
}

/// Nobody serves the other shard, and no process ever did.
#[tokio::test]
async fn a_process_serves_its_clients_without_the_others() {
    play(async {
        let all = Served::default();
        let wanted = Wanted {
            patience: SHORT,
            ..Wanted::default()
        };
        let first = process(0, &all, wanted).await;
        let mut one = join(first.address, &name(0)).await;
        subscribe(&mut one, b'a').await;
        for (version, reason) in [
            (Version::V311, "ServerUnavailable "),
            (Version::V5, "ServerUnavailable "),
        ] {
            let (mut stream, answer) = ask(first.address, version, &name(1)).await;
            assert_eq!(answer, reason);
            assert_eq!(next(&mut stream, version).await, "end");
        }
        publish(&mut join(first.address, "").await, "x").await;
        assert_eq!(next(&mut one, Version::V311).await, "a x");
        first.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_of_mqtt_5_is_sent_to_the_other_process() {
    play(async {
        let all = Served::default();
        let at = |listener| Wanted {
            redirects: true,
            listener,
            ..Wanted::default()
        };
        // Each listener has an address of its own, or none.
        for (listener, expected) in [(2, "UseAnotherServer broker-0:8883"), (3, "Success ")] {
            let one = process(0, &all, Wanted::default()).await;
            let other = process(1, &all, at(listener)).await;
            let (_, answer) = ask(other.address, Version::V5, &name(0)).await;
            assert_eq!(answer, expected);
            one.end().await;
            other.end().await;
        }
        let first = process(0, &all, at(1)).await;
        let second = process(1, &all, Wanted::default()).await;
        let (_, answer) = ask(first.address, Version::V5, &name(1)).await;
        assert_eq!(answer, "UseAnotherServer broker-1:1883");
        // MQTT 3.1.1 has no server reference, and the other process does not redirect.
        let _one = join(first.address, &name(1)).await;
        let (_other, answer) = ask(second.address, Version::V5, &name(0)).await;
        assert_eq!(answer, "Success ");
        first.end().await;
        second.end().await;
    })
    .await;
}

/// The number of a listener tells who may connect there, but not to a process whose listeners differ.
#[tokio::test]
async fn a_client_of_a_process_with_other_logins_is_refused() {
    let wanted = Wanted {
        logins: 8,
        ..Wanted::default()
    };
    play_with_both(wanted, async |first, second| {
        let (_, answer) = ask(first.address, Version::V5, &name(1)).await;
        assert_eq!(answer, "end");
        let _here = join(first.address, &name(0)).await;
        let _there = join(second.address, &name(1)).await;
    })
    .await;
}

/// A process ends, and another one takes its shard later. Nothing waits meanwhile, and what was published arrives.
#[tokio::test]
async fn a_process_that_ends_is_missed_and_its_successor_is_found() {
    for ends in [0, 1] {
        play(async move {
            let all = Served::default();
            let stays = process(1 - ends, &all, Wanted::default()).await;
            let leaves = process(ends, &all, Wanted::default()).await;
            let mut subscriber = join(stays.address, &name(1 - ends)).await;
            subscribe(&mut subscriber, b'a').await;
            leaves.end().await;
            // A client without an identifier is served where it connects. Its subscription waits for the other process until that one is
            // missed.
            let (mut late, answer) = ask(stays.address, Version::V5, "").await;
            assert_eq!(answer, "Success ");
            late.write_all(b"\x82\x07\0\x01\0\0\x01b\x01")
                .await
                .unwrap();
            assert_eq!(next(&mut late, Version::V5).await, "SubAck");

            // Its journal was restored from a backup.
            let wanted = Wanted {
                epoch: 0,
                ..Wanted::default()
            };
            let comes = process(ends, &all, wanted).await;
            let mut publisher = join(stays.address, &name(ends)).await;
            publish(&mut publisher, "x").await;
            assert_eq!(next(&mut subscriber, Version::V311).await, "a x");
            stays.end().await;
            comes.end().await;
        })
        .await;
    }
}

/// The process of the higher shard takes the link of the last owner of the lower one, not that of an earlier owner.
#[tokio::test]
async fn an_earlier_owner_does_not_take_the_link_again() {
    play(async {
        let all = Served::default();
        let first = process(
            0,
            &all,
            Wanted {
                epoch: 7,
                ..Wanted::default()
            },
        )
        .await;
        let second = process(1, &all, Wanted::default()).await;
        let mut subscriber = join(second.address, &name(1)).await;
        subscribe(&mut subscriber, b'a').await;
        let of = |epoch| InMemory {
            own: 0,
            epoch,
            all: all.clone(),
        };
        let mut stale = of(6).open(1, &About::Link).await.unwrap();
        assert_eq!(stale.read(&mut [0; 64]).await.unwrap(), 0);
        let mut publisher = join(first.address, &name(0)).await;
        publish(&mut publisher, "x").await;
        assert_eq!(next(&mut subscriber, Version::V311).await, "a x");
        // A later one does.
        let mut newer = of(8).open(1, &About::Link).await.unwrap();
        assert!(newer.read(&mut [0; 64]).await.unwrap() > 0);
        first.end().await;
        second.end().await;
    })
    .await;
}

/// The bytes of a client pass the stages of the process to which it has connected. The other process knows the address that the proxy in
/// front has told. Large messages wait for room in the pipe.
#[cfg(feature = "proxy")]
#[tokio::test]
async fn a_client_behind_a_proxy_is_known_by_its_address_in_the_other_process() {
    let layers = Layers {
        proxy_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Layers::default()
    };
    let wanted = Wanted {
        layers,
        ..Wanted::default()
    };
    play_with_both(wanted, async |first, second| {
        let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 1883\r\n";
        let bytes = [&header[..], &connect(Version::V311, &name(1))].concat();
        let (mut client, answer) = ask_with(first.address, Version::V311, &bytes).await;
        assert_eq!(answer, "Success ");
        let peers = second.control.clients(1).await.unwrap();
        assert_eq!(peers[0].address, Some("192.0.2.7:4000".parse().unwrap()));
        subscribe(&mut client, b'a').await;
        let payload = vec![b'x'; 1_000_000];
        let publish = Publish::new(TopicName::new("a").unwrap(), &payload);
        let bytes = encode(&Packet::Publish(publish), Version::V311);
        let (mut reads, mut writes) = client.split();
        let mut received = vec![0; bytes.len()];
        let (sent, read) = tokio::join!(writes.write_all(&bytes), reads.read_exact(&mut received));
        sent.unwrap();
        assert_eq!(read.unwrap(), bytes.len());
        assert!(received == bytes);
    })
    .await;
}

/// A client of WebSocket sends pings that are nothing for MQTT, more than one turn reads, and a packet behind them.
#[cfg(feature = "websocket")]
#[tokio::test]
async fn what_stages_keep_to_themselves_does_not_stop_a_relayed_client() {
    let layers = Layers {
        websocket: Some(mqtt_transport::websocket::WebSocketServerOptions::default()),
        ..Layers::default()
    };
    let wanted = Wanted {
        layers,
        ..Wanted::default()
    };
    play_with_both(wanted, async |first, _| {
        let mut client = TcpStream::connect(first.address).await.unwrap();
        let upgrade = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
        let connect = connect(Version::V311, &name(1));
        client.write_all(upgrade.as_bytes()).await.unwrap();
        client.write_all(&frame(0x82, &connect)).await.unwrap();
        read_until(&mut client, &[0x82, 4, 0x20, 2, 0, 0]).await;
        let mut bytes = frame(0x89, &[0; 125]).repeat(2_000);
        bytes.extend_from_slice(&frame(0x82, &[0xC0, 0]));
        let (mut reads, mut writes) = client.split();
        let read = read_until(&mut reads, &[0x82, 2, 0xD0, 0]);
        let (sent, ()) = tokio::join!(writes.write_all(&bytes), read);
        sent.unwrap();
    })
    .await;
}

/// Returns a frame of WebSocket with a mask of zeros.
#[cfg(feature = "websocket")]
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    assert!(len < 126);
    [&[kind, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

#[cfg(feature = "websocket")]
async fn read_until(reads: &mut (impl tokio::io::AsyncRead + Unpin), end: &[u8]) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(reads.read_u8().await.unwrap());
    }
}

/// A client leaves with DISCONNECT and does not read what the other process still sends to it. Its will is not published.
#[tokio::test]
async fn the_disconnect_of_a_relayed_client_that_reads_no_more_counts() {
    play_with_both(Wanted::default(), async |first, second| {
        let mut watcher = join(second.address, "").await;
        subscribe(&mut watcher, b'w').await;
        for number in 0..20 {
            let mut stream = join_with_will(first.address, Version::V311).await;
            subscribe(&mut stream, b'a').await;
            // The answers to these, and the messages, meet a socket that is closed.
            let mut bytes = b"\x32\x06\0\x01a\0\x01x".repeat(number * 50);
            bytes.extend_from_slice(&[0xE0, 0]);
            stream.write_all(&bytes).await.unwrap();
            drop(stream);
            while !second
                .clients()
                .await
                .iter()
                .all(|client| *client != name(1))
            {
                tokio::task::yield_now().await;
            }
        }
        watcher.write_all(b"\xC0\0").await.unwrap();
        assert_eq!(next(&mut watcher, Version::V311).await, "PingResp");
    })
    .await;
}
