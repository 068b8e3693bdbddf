//! Implements a client for loads: it writes prepared packets and reads only the borders of packets.

use std::io::{Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mqtt_proto::{Connect, Packet, Properties, QoS, Subscribe, Subscription, TopicFilter, Version};
use mqtt_testing::packets::encode;

/// What the clients of a run talk to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    Relay,
    /// A broker; sessions end with their connections.
    Broker,
    /// A broker; the sessions of subscribers outlive their connections.
    Lasting,
    /// A broker; the client identifiers begin with this number.
    Numbered(usize),
}

/// A client of the load.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    pub(crate) output: Vec<u8>,
    written: usize,
    /// The index of the publisher, if it is one.
    pub(crate) publishes: Option<usize>,
    next_id: u16,
}

impl Client {
    /// Connects and waits for CONNACK, and for SUBACK if it subscribes.
    pub(crate) fn connect(
        address: SocketAddr,
        id: &str,
        filter: Option<(&str, QoS)>,
        peer: Peer,
    ) -> Self {
        let mut stream = std::net::TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("TCP");
        if peer == Peer::Relay {
            // What it is, in one byte.
            let role = if filter.is_some() { b's' } else { b'p' };
            stream.write_all(&[role]).expect("it reads");
            stream.read_exact(&mut [0]).expect("it answers");
        } else {
            let lasting = peer == Peer::Lasting && filter.is_some();
            let id = match peer {
                Peer::Numbered(number) => format!("{number}-{id}"),
                _ => id.to_owned(),
            };
            handshake(&mut stream, (&id, lasting), filter);
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

    /// Appends a PUBLISH to the output, with the next identifier if it has one.
    pub(crate) fn publish(&mut self, message: &[u8], has_identifier: bool) {
        let at = self.output.len();
        self.output.extend_from_slice(message);
        if has_identifier {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            // Header of two bytes, topic with its length, then the identifier.
            let topic = usize::from(u16::from_be_bytes([message[2], message[3]]));
            self.output[at + 4 + topic..at + 6 + topic]
                .copy_from_slice(&self.next_id.to_be_bytes());
        }
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&mut self) {
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

    /// Reads once and handles each packet. Returns `false` if no more bytes are there.
    pub(crate) fn read(&mut self, mut packet: impl FnMut(u8, &[u8], &mut Vec<u8>)) -> bool {
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

/// Sends CONNECT, and SUBSCRIBE if there is a filter, and waits for the answers.
fn handshake(
    stream: &mut std::net::TcpStream,
    (id, lasting): (&str, bool),
    filter: Option<(&str, QoS)>,
) {
    let connect = Connect {
        // rumqttd does not accept 0.
        keep_alive: 600,
        clean_start: !lasting,
        ..Connect::new(Version::V311, id)
    };
    stream
        .write_all(&encode(&Packet::Connect(connect), Version::V311))
        .expect("it reads");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("CONNACK");
    assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK");
    let Some((filter, qos)) = filter else { return };
    let filter = TopicFilter::new(filter).expect("a filter");
    let list = [Subscription::new(filter, qos)];
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

/// Whether the session of a client is at a process that sends clients of MQTT 5 to theirs.
pub(crate) fn is_home(address: SocketAddr, id: &str) -> bool {
    let mut stream = std::net::TcpStream::connect(address).expect("the broker listens");
    let connect = Packet::Connect(Connect::new(Version::V5, id));
    let connect = encode(&connect, Version::V5);
    stream.write_all(&connect).expect("it reads");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("CONNACK");
    answer[3] == 0
}

/// Returns the length of the fixed header, and of the bytes after it.
pub(crate) fn border(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (n, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((n + 2, length));
        }
    }
    None
}
