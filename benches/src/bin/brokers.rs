//! Brokers side by side under the same load, on one machine with two cores: `brokers [ROW]... [--seconds N] [--rounds N]
//! [--only BROKER]`. `scripts/brokers.sh` builds what it needs and runs it.
//!
//! The load comes from one thread that writes packets put together beforehand and reads packet borders only, so that the
//! broker is what is measured. What counts is messages delivered per second of the broker's processor time, which the
//! kernel accounts for exactly and which does not depend on what else the machine does; the rates are told beside it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use mqtt_proto::{
    Connect, Packet, Properties, Publish, QoS, Subscribe, Subscription, TopicFilter, TopicName,
    Version,
};
use mqtt_testing::packets::encode;

/// What is measured: a load and what it must deliver.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    publishers: usize,
    subscribers: usize,
    /// Subscriber n gets what publisher n says; else all get everything.
    pairs: bool,
    qos: QoS,
    payload: usize,
    /// Publishes under way at once, of each publisher.
    window: usize,
}

const LOADS: [Load; 5] = [
    Load {
        name: "50 to 1, QoS 0",
        publishers: 50,
        subscribers: 1,
        pairs: false,
        qos: QoS::AtMostOnce,
        payload: 64,
        window: 100,
    },
    Load {
        name: "1 to 500, QoS 0",
        publishers: 1,
        subscribers: 500,
        pairs: false,
        qos: QoS::AtMostOnce,
        payload: 64,
        window: 100,
    },
    Load {
        name: "50 pairs, QoS 1",
        publishers: 50,
        subscribers: 50,
        pairs: true,
        qos: QoS::AtLeastOnce,
        payload: 64,
        window: 100,
    },
    Load {
        name: "50 pairs, QoS 2",
        publishers: 50,
        subscribers: 50,
        pairs: true,
        qos: QoS::ExactlyOnce,
        payload: 64,
        window: 20,
    },
    Load {
        name: "1 pair, QoS 0, 4 KiB",
        publishers: 1,
        subscribers: 1,
        pairs: true,
        qos: QoS::AtMostOnce,
        payload: 4_096,
        window: 100,
    },
];

/// A running broker.
struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BROKERS: [&str; 4] = ["mqtt broker", "Mosquitto", "rumqttd", "relay"];

impl Broker {
    fn start(name: &str) -> Self {
        let own = std::env::current_exe().expect("a path");
        let beside = |name: &str| own.with_file_name(name);
        let address = free_address();
        let mut command = match name {
            "mqtt broker" => {
                let path = std::env::var("MQTT").expect("MQTT names the program mqtt");
                let mut command = Command::new(path);
                let bind = address.to_string();
                command.args([
                    "broker",
                    "--log",
                    "error",
                    "--connections",
                    "20000",
                    "--bind",
                    &bind,
                ]);
                command
            }
            "Mosquitto" => {
                let path = std::env::temp_dir().join(format!("mosquitto-{}.conf", address.port()));
                let text = format!(
                    "listener {} 127.0.0.1\nallow_anonymous true\nlog_type error\nmax_queued_messages 0\n\
                     max_inflight_messages 200\nset_tcp_nodelay true\npersistence false\n",
                    address.port()
                );
                std::fs::write(&path, text).expect("a temporary folder");
                let mut command = Command::new("mosquitto");
                command.arg("-c").arg(path);
                command
            }
            "rumqttd" => {
                let mut command = Command::new(beside("rumqttd_peer"));
                command.arg(address.to_string());
                command
            }
            _ => {
                let mut command = Command::new(&own);
                command.args(["--relay", &address.to_string()]);
                command
            }
        };
        let quiet = || Stdio::null();
        command.stdin(quiet()).stdout(quiet()).stderr(quiet());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }

    /// Processor time of all its threads so far.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let nanos = tasks.into_iter().flatten().flatten().map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let first = text.split_whitespace().next().unwrap_or_default();
            first.parse::<u64>().unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Bytes of memory that are there.
    fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// A client of the load.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    written: usize,
    /// Index of the publisher, if it is one.
    publishes: Option<usize>,
    next_id: u16,
}

impl Client {
    /// Connects and waits for CONNACK, and for SUBACK if it subscribes.
    fn connect(address: SocketAddr, id: &str, filter: Option<(&str, QoS)>, relay: bool) -> Self {
        let mut stream = std::net::TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("TCP");
        if relay {
            // What it is, in one byte.
            let role = if filter.is_some() { b's' } else { b'p' };
            stream.write_all(&[role]).expect("it reads");
            stream.read_exact(&mut [0]).expect("it answers");
        } else {
            let connect = Connect {
                // rumqttd takes no 0.
                keep_alive: 600,
                ..Connect::new(Version::V311, id)
            };
            stream
                .write_all(&encode(&Packet::Connect(connect), Version::V311))
                .expect("it reads");
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).expect("CONNACK");
            assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK");
            if let Some((filter, qos)) = filter {
                let list = [Subscription::new(
                    TopicFilter::new(filter).expect("a filter"),
                    qos,
                )];
                let subscribe = Subscribe {
                    packet_id: mqtt_proto::PacketId::new(1).expect("not zero"),
                    properties: Properties::EMPTY,
                    filters: mqtt_proto::List::from(&list[..]),
                };
                stream
                    .write_all(&encode(&Packet::Subscribe(subscribe), Version::V311))
                    .expect("it reads");
                let mut answer = [0; 5];
                stream.read_exact(&mut answer).expect("SUBACK");
                assert_eq!(answer, [0x90, 3, 0, 1, qos.get()], "SUBACK");
            }
        }
        stream.set_nonblocking(true).expect("TCP");
        Self {
            stream: TcpStream::from_std(stream),
            input: vec![0; 128 << 10],
            filled: 0,
            output: Vec::new(),
            written: 0,
            publishes: None,
            next_id: 0,
        }
    }

    /// Writes what it can.
    fn flush(&mut self) {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("a client lost its connection: {error}"),
            }
        }
        self.output.clear();
        self.written = 0;
    }

    /// Reads once and looks at each packet. `false` if there is nothing more for now.
    fn read(&mut self, mut packet: impl FnMut(u8, &[u8], &mut Vec<u8>)) -> bool {
        let n = match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => panic!("the broker closed a connection"),
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(error) => panic!("a client lost its connection: {error}"),
        };
        self.filled += n;
        let full = self.filled == self.input.len();
        let mut at = 0;
        while let Some((header, length)) = border(&self.input[at..self.filled]) {
            let end = at + header + length;
            if end > self.filled {
                break;
            }
            packet(
                self.input[at],
                &self.input[at + header..end],
                &mut self.output,
            );
            at = end;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        full
    }
}

/// Length of the fixed header, and of what follows.
fn border(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (n, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((n + 2, length));
        }
    }
    None
}

/// What a run brought.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Messages delivered.
    messages: u64,
    seconds: f64,
    /// Of the broker.
    cpu: Duration,
}

impl Outcome {
    fn micros_each(self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }

    fn rate(self) -> f64 {
        self.messages as f64 / self.seconds
    }
}

fn message(topic: &str, qos: QoS, payload: usize) -> Vec<u8> {
    let id = mqtt_proto::PacketId::new(1).expect("not zero");
    let payload = vec![b'.'; payload];
    let publish = Publish {
        delivery: match qos {
            QoS::AtMostOnce => mqtt_proto::Delivery::AtMostOnce,
            QoS::AtLeastOnce => mqtt_proto::Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => mqtt_proto::Delivery::ExactlyOnce(id),
        },
        ..Publish::new(TopicName::new(topic).expect("a topic"), &payload)
    };
    encode(&Packet::Publish(publish), Version::V311)
}

const WARM_UP: Duration = Duration::from_millis(500);

fn measure(broker: &Broker, load: Load, span: Duration, relay: bool) -> Outcome {
    let mut clients = Vec::new();
    for n in 0..load.subscribers {
        let filter = if load.pairs {
            format!("bench/{n}")
        } else {
            "bench/+".to_owned()
        };
        clients.push(Client::connect(
            broker.address,
            &format!("s{n}"),
            Some((&filter, load.qos)),
            relay,
        ));
    }
    let mut messages = Vec::new();
    for n in 0..load.publishers {
        let mut client = Client::connect(broker.address, &format!("p{n}"), None, relay);
        client.publishes = Some(n);
        clients.push(client);
        let qos = if relay { QoS::AtMostOnce } else { load.qos };
        messages.push(message(&format!("bench/{n}"), qos, load.payload));
    }
    let mut poll = Poll::new().expect("epoll");
    for (n, client) in clients.iter_mut().enumerate() {
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut client.stream, Token(n), both)
            .expect("epoll");
    }
    let copies = if load.pairs {
        1
    } else {
        u64::try_from(load.subscribers).expect("few")
    };
    // Publishes whose deliveries have not come: by publisher where that is known, else in all.
    let mut published = vec![0_u64; load.publishers];
    let mut acknowledged = vec![0_u64; load.publishers];
    let mut received = vec![0_u64; load.subscribers];
    let window = u64::try_from(load.window).expect("few");
    let first_publisher = load.subscribers;
    let mut events = Events::with_capacity(1_024);
    let mut began: Option<(Instant, u64, Duration)> = None;
    let start = Instant::now();
    let total = |received: &[u64]| received.iter().sum::<u64>();
    loop {
        // Refill.
        let all_published: u64 = published.iter().sum();
        let all_received = total(&received) / copies;
        for n in 0..load.publishers {
            let client = &mut clients[first_publisher + n];
            let done = if load.pairs {
                received[n]
            } else {
                published[n].saturating_sub(
                    (all_published - all_received)
                        .div_ceil(u64::try_from(load.publishers).expect("few")),
                )
            };
            let done = if load.qos > QoS::AtMostOnce && !relay {
                done.min(acknowledged[n])
            } else {
                done
            };
            let room = window.saturating_sub(published[n] - done);
            if room < window / 2 || !client.output.is_empty() {
                continue;
            }
            for _ in 0..room {
                let message = &messages[n];
                let at = client.output.len();
                client.output.extend_from_slice(message);
                if load.qos > QoS::AtMostOnce && !relay {
                    client.next_id = if client.next_id == u16::MAX {
                        1
                    } else {
                        client.next_id + 1
                    };
                    // Header of two bytes, topic with its length, then the identifier.
                    let topic = usize::from(u16::from_be_bytes([message[2], message[3]]));
                    client.output[at + 4 + topic..at + 6 + topic]
                        .copy_from_slice(&client.next_id.to_be_bytes());
                }
            }
            published[n] += room;
            client.flush();
        }
        poll.poll(&mut events, Some(Duration::from_millis(100)))
            .expect("epoll");
        for event in &events {
            let Token(index) = event.token();
            let client = &mut clients[index];
            if event.is_writable() {
                client.flush();
            }
            if event.is_readable() {
                let publisher = client.publishes;
                let mut got = 0;
                let mut acks = 0;
                while client.read(|first, body, output| match first >> 4 {
                    3 => {
                        let qos = first >> 1 & 3;
                        if qos == 0 {
                            got += 1;
                            return;
                        }
                        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                        let kind = if qos == 1 { 0x40 } else { 0x50 };
                        output.extend_from_slice(&[kind, 2, body[2 + topic], body[3 + topic]]);
                        if qos == 1 {
                            got += 1;
                        }
                    }
                    4 => acks += 1,
                    5 => output.extend_from_slice(&[0x62, 2, body[0], body[1]]),
                    6 => {
                        got += 1;
                        output.extend_from_slice(&[0x70, 2, body[0], body[1]]);
                    }
                    7 => acks += 1,
                    _ => {}
                }) {}
                match publisher {
                    Some(n) => acknowledged[n] += acks,
                    None => received[index] += got,
                }
                client.flush();
            }
        }
        let now = Instant::now();
        match began {
            None if now - start >= WARM_UP => began = Some((now, total(&received), broker.cpu())),
            Some((at, before, cpu)) if now - at >= span => {
                return Outcome {
                    messages: total(&received) - before,
                    seconds: (now - at).as_secs_f64(),
                    cpu: broker.cpu() - cpu,
                };
            }
            _ => {}
        }
        assert!(
            now - start < span + Duration::from_secs(30),
            "it takes too long"
        );
    }
}

/// The time from publish to delivery at 1,000 messages a second, QoS 1: the middle one of all, in microseconds.
fn latency(broker: &Broker, span: Duration, relay: bool) -> f64 {
    let qos = QoS::AtLeastOnce;
    let mut subscriber = Client::connect(broker.address, "s", Some(("bench/0", qos)), relay);
    let mut publisher = Client::connect(broker.address, "p", None, relay);
    let message = message("bench/0", if relay { QoS::AtMostOnce } else { qos }, 64);
    let mut times = Vec::new();
    let start = Instant::now();
    let mut next = start;
    while start.elapsed() < span {
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        next += Duration::from_millis(1);
        let sent = Instant::now();
        publisher.output.extend_from_slice(&message);
        publisher.flush();
        let mut got = false;
        while !got {
            subscriber.read(|first, body, output| {
                got |= first >> 4 == 3;
                if first >> 1 & 3 == 1 {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    output.extend_from_slice(&[0x40, 2, body[2 + topic], body[3 + topic]]);
                }
            });
        }
        times.push(sent.elapsed().as_secs_f64() * 1e6);
        subscriber.flush();
        publisher.read(|_, _, _| {});
    }
    middle(&mut times)
}

fn middle(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Resident bytes per connection that is silent, with this many of them.
fn idle(broker: &Broker, connections: usize) -> f64 {
    let one = Client::connect(broker.address, "first", None, false);
    std::thread::sleep(Duration::from_millis(300));
    let before = broker.memory();
    let all: Vec<TcpStream> = (0..connections)
        .map(|n| Client::connect(broker.address, &format!("idle-{n}"), None, false).stream)
        .collect();
    std::thread::sleep(Duration::from_millis(1_000));
    let bytes = broker.memory().saturating_sub(before);
    drop((one, all));
    bytes as f64 / connections as f64
}

/// What a thousand connections do that nobody likes.
#[derive(Clone, Copy)]
enum Bad {
    Silent,
    Slow,
    Garbage,
}

/// How much slower a normal pair is with a thousand bad connections: 1 is not at all. In messages per second, QoS 1, as
/// fast as its window goes.
fn hostile(broker: &Broker, bad: Bad, span: Duration) -> f64 {
    let load = Load {
        name: "pair",
        publishers: 1,
        subscribers: 1,
        pairs: true,
        qos: QoS::AtLeastOnce,
        payload: 64,
        window: 100,
    };
    let address = broker.address;
    let alone = measure(broker, load, span, false).rate();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let bother = std::thread::spawn(move || {
        let open = || {
            let stream = std::net::TcpStream::connect(address).expect("the broker listens");
            stream.set_nonblocking(true).expect("TCP");
            stream
        };
        let mut all: Vec<_> = (0..1_000).map(|_| open()).collect();
        // A CONNECT that goes on and on.
        let slow = [
            0x10, 0xFF, 0x7F, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0x3F, 0xF0,
        ];
        let mut at = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            // Spread over the second.
            for chunk in all.chunks_mut(10) {
                for stream in chunk {
                    match bad {
                        Bad::Silent => {}
                        Bad::Slow => {
                            let _ = stream.write(&[slow.get(at).copied().unwrap_or(b'x')]);
                        }
                        Bad::Garbage => {
                            // The broker hangs up; it comes again.
                            let _ = stream.write(&[0xFF; 64]);
                            *stream = open();
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
                if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
            at += 1;
        }
    });
    std::thread::sleep(Duration::from_millis(500));
    let bothered = measure(broker, load, span, false).rate();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    bother.join().expect("it only writes");
    alone / bothered
}

/// Copies what publishers say to subscribers, reads nothing of it: the floor. In a process of its own.
fn relay(address: &str) {
    let mut poll = Poll::new().expect("epoll");
    let mut listener =
        mio::net::TcpListener::bind(address.parse().expect("an address")).expect("a free port");
    poll.registry()
        .register(&mut listener, Token(0), Interest::READABLE)
        .expect("epoll");
    struct Peer {
        stream: TcpStream,
        role: u8,
        number: usize,
        output: Vec<u8>,
    }
    let mut peers: HashMap<usize, Peer> = HashMap::new();
    let mut roles = HashMap::new();
    let mut next = 1;
    let mut events = Events::with_capacity(1_024);
    let mut buffer = vec![0; 64 << 10];
    loop {
        poll.poll(&mut events, None).expect("epoll");
        let mut touched = Vec::new();
        for event in &events {
            let Token(key) = event.token();
            if key == 0 {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.set_nodelay(true);
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry()
                        .register(&mut stream, Token(next), both)
                        .expect("epoll");
                    peers.insert(
                        next,
                        Peer {
                            stream,
                            role: 0,
                            number: 0,
                            output: Vec::new(),
                        },
                    );
                    next += 1;
                }
                continue;
            }
            if event.is_writable() {
                touched.push(key);
            }
            loop {
                let Some(peer) = peers.get_mut(&key) else {
                    break;
                };
                match peer.stream.read(&mut buffer) {
                    Ok(0) => {
                        peers.remove(&key);
                        break;
                    }
                    Ok(n) => {
                        let mut bytes = &buffer[..n];
                        if peer.role == 0 {
                            peer.role = bytes[0];
                            let number = roles.entry(peer.role).or_insert(0);
                            peer.number = *number;
                            *number += 1;
                            let _ = peer.stream.write(&[1]);
                            bytes = &bytes[1..];
                        }
                        if bytes.is_empty() || peer.role != b'p' {
                            continue;
                        }
                        let (from, publishers) = (peer.number, roles[&b'p']);
                        let subscribers = roles.get(&b's').copied().unwrap_or(0);
                        let pairs = publishers == subscribers;
                        for (key, other) in &mut peers {
                            if other.role == b's' && (!pairs || other.number == from) {
                                other.output.extend_from_slice(bytes);
                                touched.push(*key);
                            }
                        }
                    }
                    Err(_) => break,
                }
            }
        }
        for key in touched {
            let Some(peer) = peers.get_mut(&key) else {
                continue;
            };
            if !peer.output.is_empty()
                && let Ok(n) = peer.stream.write(&peer.output)
            {
                peer.output.drain(..n);
            }
        }
    }
}

fn main() {
    let mut rows = Vec::new();
    let (mut seconds, mut rounds, mut only) = (2.0, 3, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--relay" => return relay(&value()),
            "--seconds" => seconds = value().parse().expect("seconds"),
            "--rounds" => rounds = value().parse().expect("a number"),
            "--only" => only = Some(value()),
            _ => rows.push(argument),
        }
    }
    let span = Duration::from_secs_f64(seconds);
    let wanted = |name: &str| rows.is_empty() || rows.iter().any(|row| name.contains(row.as_str()));
    let brokers: Vec<&str> = BROKERS
        .into_iter()
        .filter(|name| only.as_deref().is_none_or(|only| *name == only))
        .collect();
    let print = |name: &str, cells: &[String]| println!("| {name} | {} |", cells.join(" | "));
    print(
        "",
        &brokers
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    );
    print("---", &vec!["---:".to_owned(); brokers.len()]);
    for load in LOADS.into_iter().filter(|load| wanted(load.name)) {
        let mut outcomes = vec![Vec::new(); brokers.len()];
        for _ in 0..rounds {
            for (broker, outcomes) in brokers.iter().zip(&mut outcomes) {
                let running = Broker::start(broker);
                outcomes.push(measure(&running, load, span, *broker == "relay"));
            }
        }
        let cells: Vec<String> = outcomes
            .iter_mut()
            .map(|outcomes| {
                outcomes.sort_by(|a, b| a.micros_each().total_cmp(&b.micros_each()));
                let middle = outcomes[outcomes.len() / 2];
                format!("{:.0}k ({:.2})", middle.rate() / 1e3, middle.micros_each())
            })
            .collect();
        print(load.name, &cells);
    }
    if wanted("latency") {
        let cells: Vec<String> = brokers
            .iter()
            .map(|broker| {
                let mut all: Vec<f64> = (0..rounds)
                    .map(|_| latency(&Broker::start(broker), span, *broker == "relay"))
                    .collect();
                format!("{:.0} us", middle(&mut all))
            })
            .collect();
        print("QoS 1 at 1,000 a second, latency p50", &cells);
    }
    if wanted("idle") {
        let cells: Vec<String> = brokers
            .iter()
            .map(|broker| match *broker {
                "relay" => "-".to_owned(),
                broker => format!("{:.0} B", idle(&Broker::start(broker), 9_000)),
            })
            .collect();
        print("memory per idle connection, at 9,000", &cells);
    }
    for (name, bad) in [
        ("silent", Bad::Silent),
        ("a byte a second", Bad::Slow),
        ("garbage", Bad::Garbage),
    ] {
        if wanted(name) {
            let cells: Vec<String> = brokers
                .iter()
                .map(|broker| match *broker {
                    "relay" => "-".to_owned(),
                    broker => {
                        let mut all: Vec<f64> = (0..rounds)
                            .map(|_| hostile(&Broker::start(broker), bad, span))
                            .collect();
                        format!("{:.2}", middle(&mut all))
                    }
                })
                .collect();
            print(
                &format!("a pair beside 1,000 connections, {name}: times slower"),
                &cells,
            );
        }
    }
}
