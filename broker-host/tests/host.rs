//! Tests the host: transports other than TCP, commands, limits, and the end.

use std::time::Duration;

use mqtt_broker_host::broker::{Config, Hooks, Outgoing};
use mqtt_broker_host::{Commands, Control, Host, Listener, control};
use mqtt_proto::{
    Connect, Decoded, MAX_PACKET, Packet, QoS, ReasonCode, Subscribe, Subscription, TopicFilter,
    TopicName, Version, Will,
};
use mqtt_testing::packets::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

#[derive(Debug)]
struct Open(u128);

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

fn host(set: impl FnOnce(&mut Config)) -> (Host<Open>, Control) {
    let mut config = Config::default();
    config.statistics_interval = 0;
    set(&mut config);
    let (control, commands): (Control, Commands) = control();
    (Host::new(config, Open(0), commands), control)
}

/// A client over any stream.
struct Client<T> {
    stream: T,
    input: Vec<u8>,
    version: Version,
}

impl<T: AsyncReadExt + AsyncWriteExt + Unpin> Client<T> {
    async fn new(stream: T, connect: &Connect<'_>) -> Self {
        let mut client = Self {
            stream,
            input: Vec::new(),
            version: connect.version,
        };
        client.send(&Packet::Connect(*connect)).await;
        let connack = client.next().await.expect("CONNACK");
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
        client
    }

    async fn send(&mut self, packet: &Packet<'_>) {
        let bytes = encode(packet, self.version);
        self.stream.write_all(&bytes).await.expect("it is read");
    }

    /// Returns the bytes of the next packet; `None` at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match Packet::decode(&self.input, self.version, MAX_PACKET).expect("a packet") {
                Decoded::Packet { consumed, .. } => {
                    return Some(self.input.drain(..consumed).collect());
                }
                Decoded::Needs(_) => {}
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        let list = [Subscription::new(
            TopicFilter::new(filter).unwrap(),
            QoS::AtMostOnce,
        )];
        let id = mqtt_proto::PacketId::new(1).unwrap();
        self.send(&Packet::Subscribe(Subscribe::new(id, &list[..])))
            .await;
        assert_eq!(self.next().await.expect("SUBACK")[0], 0x90);
    }

    async fn publish(&mut self, topic: &str, payload: &str) {
        let topic = TopicName::new(topic).unwrap();
        let publish = mqtt_proto::Publish::new(topic, payload.as_bytes());
        self.send(&Packet::Publish(publish)).await;
    }

    async fn hears(&mut self, payload: &str) {
        let packet = self.next().await.expect("a message");
        assert!(
            packet[0] >> 4 == 3 && packet.ends_with(payload.as_bytes()),
            "{packet:x?}"
        );
    }

    async fn ping(&mut self) {
        self.send(&Packet::PingReq).await;
        assert_eq!(self.next().await.expect("PINGRESP"), [0xD0, 0]);
    }
}

fn plain(id: &str) -> Connect<'_> {
    Connect {
        keep_alive: 0,
        ..Connect::new(Version::V311, id)
    }
}

/// Returns one end of a stream whose other end the host serves. It is small, so that both sides often wait.
fn pipe(host: &Host<Open>) -> DuplexStream {
    let (ours, its) = duplex(64);
    spawn_local(host.connection(its));
    ours
}

/// Runs `story` and a host at the same time.
async fn beside<F: Future<Output = ()>>(host: &Host<Open>, story: F) {
    host.run(None::<Listener>, story).await;
}

/// More subscribers than one turn writes to, and messages that come faster than they are written.
#[tokio::test(flavor = "current_thread")]
async fn each_of_many_subscribers_gets_all_messages() {
    let (host, _control) = host(|_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let story = async {
        let mut subscribers = Vec::new();
        for n in 0..200 {
            let tcp = TcpStream::connect(address).await.unwrap();
            let mut client = Client::new(tcp, &plain(&format!("subscriber {n}"))).await;
            client.subscribe("to/all").await;
            subscribers.push(client);
        }
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut publisher = Client::new(tcp, &plain("publisher")).await;
        for n in 0..100 {
            publisher.publish("to/all", &n.to_string()).await;
        }
        for client in &mut subscribers {
            for n in 0..100 {
                client.hears(&n.to_string()).await;
            }
        }
    };
    LocalSet::new().run_until(host.run([listener], story)).await;
}

#[tokio::test(flavor = "current_thread")]
async fn any_stream_is_a_transport() {
    let (host, _control) = host(|_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let story = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut over_tcp = Client::new(tcp, &plain("tcp")).await;
        over_tcp.subscribe("#").await;
        let will = Some(Will::new(TopicName::new("wills").unwrap(), b"gone"));
        let connect = Connect {
            will,
            ..plain("pipe")
        };
        let mut over_pipe = Client::new(pipe(&host), &connect).await;
        over_pipe.subscribe("a").await;
        let long = "x".repeat(5_000);
        over_tcp.publish("a", &long).await;
        over_tcp.hears(&long).await;
        over_pipe.hears(&long).await;
        over_pipe.publish("b", &long).await;
        over_tcp.hears(&long).await;
        drop(over_pipe);
        over_tcp.hears("gone").await;
    };
    LocalSet::new().run_until(host.run([listener], story)).await;
}

#[tokio::test(flavor = "current_thread")]
async fn commands_come_from_anywhere() {
    let (host, control) = host(|_| {});
    LocalSet::new()
        .run_until(beside(&host, async {
            let mut client = Client::new(pipe(&host), &plain("pump")).await;
            client.subscribe("a").await;
            let other = control.clone();
            let elsewhere = tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.unwrap().block_on(async move {
                    let topic = TopicName::new("a").unwrap();
                    let message = Outgoing::new(topic, QoS::AtLeastOnce, b"hello");
                    other.publish(&message).await.unwrap();
                    other.statistics().await.unwrap()
                })
            });
            client.hears("hello").await;
            let statistics = elsewhere.await.unwrap();
            assert_eq!(statistics.clients_connected, 1);
            assert_eq!(statistics.subscriptions, 1);
            let reason = ReasonCode::AdministrativeAction;
            assert!(!control.disconnect("valve", reason).await);
            assert!(control.disconnect("pump", reason).await);
            assert_eq!(client.next().await, None);
        }))
        .await;
    // A host that has ended answers nothing.
    drop(host);
    assert!(control.statistics().await.is_none());
}

#[tokio::test(flavor = "current_thread")]
async fn too_many_connections_are_closed_and_the_others_go_on() {
    let (host, _control) = host(|config| config.connections = 2);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let story = async {
        let open = || async { TcpStream::connect(address).await.unwrap() };
        let mut first = Client::new(open().await, &plain("first")).await;
        let mut second = Client::new(pipe(&host), &plain("second")).await;
        for mut third in [open().await, open().await] {
            assert_eq!(third.read(&mut [0; 9]).await.unwrap_or(0), 0);
        }
        assert_eq!(pipe(&host).read(&mut [0; 9]).await.unwrap(), 0);
        first.ping().await;
        second.ping().await;
        // A free index is used again.
        drop(second);
        let mut fourth = loop {
            let mut stream = open().await;
            let hello = encode(&Packet::Connect(plain("fourth")), Version::V311);
            // The broker may have closed it already.
            let _ = stream.write_all(&hello).await;
            let mut connack = [0; 4];
            if stream.read_exact(&mut connack).await.is_ok() {
                break stream;
            }
        };
        fourth.write_all(&[0xC0, 0]).await.unwrap();
        first.ping().await;
    };
    LocalSet::new().run_until(host.run([listener], story)).await;
}

#[tokio::test(flavor = "current_thread")]
async fn who_does_not_read_stops_nobody() {
    let (host, _control) = host(|config| {
        config.outgoing_bytes = 10_000;
        config.packet_size = 2_000;
        config.queued_messages = 50;
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let story = async {
        let mut lazy = Client::new(pipe(&host), &plain("lazy")).await;
        lazy.subscribe("a").await;
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut client = Client::new(tcp, &plain("client")).await;
        client.subscribe("a").await;
        for n in 0..1_000 {
            let payload = format!("{n:>1000}");
            client.publish("a", &payload).await;
            client.hears(&payload).await;
        }
        // The messages queued for the other client come in their order; the others were dropped.
        let mut came = Vec::new();
        loop {
            let before = came.len();
            lazy.send(&Packet::PingReq).await;
            loop {
                let packet = lazy.next().await.expect("a packet");
                if packet[0] == 0xD0 {
                    break;
                }
                let text = std::str::from_utf8(&packet[packet.len() - 10..]).unwrap();
                came.push(text.trim().parse::<usize>().unwrap());
            }
            if came.len() == before {
                break;
            }
        }
        // The buffer and the queue hold this many.
        assert!((55..65).contains(&came.len()), "{came:?}");
        assert_eq!(came, (0..came.len()).collect::<Vec<_>>());
        client.publish("a", "now").await;
        lazy.hears("now").await;
    };
    LocalSet::new().run_until(host.run([listener], story)).await;
}

/// Uses virtual time.
#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn the_end_does_not_wait_for_who_never_closes() {
    let (host, _control) = host(|_| {});
    let before = tokio::time::Instant::now();
    let mut stays = None;
    LocalSet::new()
        .run_until(async {
            beside(&host, async {
                let connect = Connect {
                    keep_alive: 0,
                    ..Connect::new(Version::V5, "pump")
                };
                stays = Some(Client::new(pipe(&host), &connect).await);
            })
            .await;
        })
        .await;
    let taken = before.elapsed();
    assert!(
        taken >= Duration::from_millis(500) && taken < Duration::from_secs(1),
        "{taken:?}"
    );
    let goodbye = stays.unwrap().next().await.expect("DISCONNECT");
    assert_eq!(goodbye[..3], [0xE0, 1, 0x8B]);
}

/// An ended connection does not stay for ever either.
#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_connection_that_is_over_lingers_for_a_while_only() {
    let (host, control) = host(|_| {});
    LocalSet::new()
        .run_until(beside(&host, async {
            let mut client = Client::new(pipe(&host), &plain("pump")).await;
            // A second CONNECT is sent; the client neither reads nor closes.
            client.send(&Packet::Connect(plain("pump"))).await;
            let open = || async { control.statistics().await.unwrap().clients_connected };
            while open().await > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(Duration::from_secs(6)).await;
            // The broker has closed its side: nothing can be written any more.
            assert!(client.stream.write_all(&[0; 1_000]).await.is_err());
        }))
        .await;
}
