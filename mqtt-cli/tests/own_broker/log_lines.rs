//! Checks that the log of `mqtt broker` tells what a client did, or what was done to it, with its address.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use mqtt_proto::{
    Connect, Delivery, Disconnect, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe,
    Subscription, TopicFilter, TopicName, Version, Will,
};
use mqtt_testing::packets::encode;
use mqtt_testing::process::{run, words};

use crate::broker::{Broker, MQTT};
use crate::commands::{folder, is_well};

/// A client of MQTT 5 that sends what a test wants.
struct Client(TcpStream);

impl Client {
    fn open(broker: &Broker) -> Self {
        let stream = TcpStream::connect(format!("127.0.0.1:{}", broker.port)).unwrap();
        Self(stream)
    }

    /// Connects, and returns the client with the reason code of its CONNACK.
    fn connect(broker: &Broker, connect: &Connect<'_>) -> (Self, u8) {
        let mut client = Self::open(broker);
        client.send(&Packet::Connect(*connect));
        let code = client.packet()[3];
        (client, code)
    }

    fn join(broker: &Broker, client_id: &str) -> Self {
        let (client, code) = Self::connect(broker, &Connect::new(Version::V5, client_id));
        assert_eq!(code, 0);
        client
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn send(&mut self, packet: &Packet<'_>) {
        self.write(&encode(packet, Version::V5));
    }

    /// Subscribes to a topic at QoS 1.
    fn subscribe(&mut self, topic: &'static str) {
        let filter = TopicFilter::from_static(topic);
        let list = [Subscription::new(filter, QoS::AtLeastOnce)];
        let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
        self.send(&Packet::Subscribe(subscribe));
        assert_eq!(self.packet()[0], 0x90);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Reads a packet of less than 128 bytes.
    fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet).unwrap();
        let start = packet.len();
        packet.resize(start + usize::from(packet[1]), 0);
        self.0.read_exact(&mut packet[start..]).unwrap();
        packet
    }

    /// Reads to the end of the connection.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }
}

/// Stops a broker, and returns the lines of its log about the client with this address.
fn lines_about(broker: Broker, address: SocketAddr) -> Vec<String> {
    broker.process.signal("TERM");
    let log = broker.process.end().stderr;
    let peer = format!("peer={address}");
    let is_about = |line: &&str| line.split(' ').any(|word| word == peer);
    log.lines().filter(is_about).map(str::to_owned).collect()
}

/// Checks that one of the lines has all these words, and returns it.
#[track_caller]
fn only<'a>(lines: &'a [String], words: &[&str]) -> &'a str {
    let fits = |line: &&String| words.iter().all(|word| line.contains(word));
    let found: Vec<_> = lines.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{words:?} in {lines:#?}");
    found[0]
}

/// The reader takes nothing, so its publisher waits until the broker does not wait for the reader any more.
#[test]
fn a_slow_consumer_is_told_once() {
    let broker = Broker::start(&words("--queued-messages 40 --slow-consumer 0.2"));
    let mut reader = Client::join(&broker, "stuck");
    reader.subscribe("n");
    let lines = "x\n".repeat(500);
    let publish = ["pub", "-p", &broker.port, "-q", "1", "-t", "n", "-l"];
    is_well(&run(MQTT, &publish, &lines));
    let lines = lines_about(broker, reader.address());
    let slow = only(&lines, &["slow consumer"]);
    assert!(slow.contains("WARN") && slow.contains("client=\"stuck\""));
    // More than half of the queue.
    let (_, count) = slow.split_once("messages=").unwrap();
    let count: String = count.chars().take_while(char::is_ascii_digit).collect();
    assert!((20..=40).contains(&count.parse().unwrap()), "{slow}");
}

#[test]
fn a_take_over_is_told_of_both_connections() {
    let broker = Broker::start(&[]);
    let mut first = Client::join(&broker, "same");
    let second = Client::join(&broker, "same");
    assert_eq!(first.rest(), [0xE0, 1, 0x8E]);
    let addresses = [first.address(), second.address()];
    broker.process.signal("TERM");
    let log = broker.process.end().stderr;
    let line = |text: &str, address: SocketAddr| {
        let peer = format!("peer={address}");
        let has = |line: &&str| line.contains(text) && line.contains(&peer);
        let line = log.lines().find(has);
        let line = line.unwrap_or_else(|| panic!("{text} of {address}: {log}"));
        assert!(line.contains("\"same\""), "{line}");
        line
    };
    line(" connected", addresses[0]);
    let taken = line(" disconnected", addresses[0]);
    assert!(taken.contains("session taken over"), "{taken}");
    line(" connected", addresses[1]);
}

#[test]
fn a_packet_that_is_too_large_is_told_with_the_limit() {
    let broker = Broker::start(&words("--packet-size 1000 --connect-size 1000"));
    let mut client = Client::join(&broker, "large");
    let publish = Publish::new(TopicName::from_static("a"), &[b'x'; 2_000]);
    client.send(&Packet::Publish(publish));
    assert_eq!(client.rest(), [0xE0, 1, 0x95]);
    let lines = lines_about(broker, client.address());
    let ended = only(&lines, &["WARN", "disconnected", "client=\"large\""]);
    assert!(
        ended.contains("2007 bytes") && ended.contains("1000"),
        "{ended}"
    );
}

/// Its will makes a CONNECT larger than `connect-size`.
#[test]
fn a_connect_that_is_too_large_is_told_with_the_limit() {
    let broker = Broker::start(&words("--connect-size 1000"));
    let connect = Connect {
        will: Some(Will::new(TopicName::from_static("a"), &[b'x'; 2_000])),
        ..Connect::new(Version::V5, "dying")
    };
    let (client, code) = Client::connect(&broker, &connect);
    assert_eq!(code, 0x95);
    let lines = lines_about(broker, client.address());
    let [line] = &lines[..] else {
        panic!("{lines:#?}")
    };
    for text in ["WARN", "refused", "2027 bytes", "connect-size", "1000"] {
        assert!(line.contains(text), "{line}");
    }
}

#[test]
fn a_refused_login_is_told_with_its_user() {
    let users = folder("refused-logins").join("users");
    let users = users.to_str().unwrap();
    is_well(&run(MQTT, &["passwd", "-b", users, "alice", "secret"], ""));
    let broker = Broker::start(&["--user-file", users]);
    let connect = Connect {
        user_name: Some("alice"),
        password: Some(b"guess"),
        ..Connect::new(Version::V5, "thief")
    };
    let (client, code) = Client::connect(&broker, &connect);
    assert_eq!(code, 0x86);
    let lines = lines_about(broker, client.address());
    let refused = only(&lines, &["refused"]);
    for text in [
        "WARN",
        "client=\"thief\"",
        "user=\"alice\"",
        "bad user name or password",
    ] {
        assert!(refused.contains(text), "{refused}");
    }
    assert!(!refused.contains("guess"), "{refused}");
}

#[test]
fn the_end_of_a_connection_is_told_with_its_reason() {
    type Ends = fn(&mut Client);
    let disconnect: Ends = |client| {
        client.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::DisconnectWithWill,
            ..Disconnect::default()
        }));
    };
    let violation: Ends = |client| client.write(&[0xF0, 0]);
    let gone: Ends = |client| client.0.shutdown(std::net::Shutdown::Both).unwrap();
    for (ends, level, reason) in [
        (disconnect, "INFO", "disconnect with will message"),
        (violation, "WARN", "AUTH"),
        (gone, "WARN", "the transport is gone"),
    ] {
        let broker = Broker::start(&[]);
        let mut client = Client::join(&broker, "leaving");
        let address = client.address();
        ends(&mut client);
        client.rest();
        broker.process.wait_stderr(" disconnected");
        let lines = lines_about(broker, address);
        only(&lines, &[level, " disconnected", "\"leaving\"", reason]);
    }
}

#[test]
fn limits_of_clients_are_told() {
    let broker = Broker::start(&words("--connections 1"));
    let first = Client::join(&broker, "first");
    let mut second = Client::open(&broker);
    assert_eq!(second.rest(), [0_u8; 0]);
    drop(first);
    let lines = lines_about(broker, second.address());
    only(&lines, &["WARN", "refused", "all 1 connections are taken"]);

    // A session more than there may be.
    let broker = Broker::start(&words("--sessions 1"));
    let first = Client::join(&broker, "first");
    let (second, code) = Client::connect(&broker, &Connect::new(Version::V5, "second"));
    assert_eq!(code, 0x97);
    drop(first);
    let lines = lines_about(broker, second.address());
    only(
        &lines,
        &["WARN", "refused", "client=\"second\"", "quota exceeded"],
    );
}

/// A message that is not accepted is told with its topic.
#[test]
fn a_refused_publish_is_told_with_its_topic() {
    let broker = Broker::start(&words("--payload-size 10"));
    let mut client = Client::join(&broker, "talker");
    let publish = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::from_static("plant/7"), &[b'x'; 11])
    };
    client.send(&Packet::Publish(publish));
    assert_eq!(client.packet()[4], 0x97);
    let lines = lines_about(broker, client.address());
    let refused = only(&lines, &["WARN", "publish refused"]);
    for text in ["client=\"talker\"", "topic=\"plant/7\"", "quota exceeded"] {
        assert!(refused.contains(text), "{refused}");
    }
}
