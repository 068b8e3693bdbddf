//! Implements a client that sends packets as bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqtt_proto::{
    Connect, Delivery, Packet, PacketId, Properties, Property, Publish, QoS, Subscribe,
    Subscription, TopicFilter, TopicName, Version,
};
use mqtt_testing::packets::encode;

/// The time limit of a call.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client waits when it can neither read nor write.
const PAUSE: Duration = Duration::from_micros(200);

pub(crate) struct Client(pub(crate) TcpStream);

pub(crate) fn topic(text: &str) -> TopicName<'_> {
    TopicName::new(text).expect("a topic")
}

pub(crate) fn publish(text: &str, payload: &[u8]) -> Vec<u8> {
    encode(
        &Packet::Publish(Publish::new(topic(text), payload)),
        Version::V5,
    )
}

pub(crate) fn retained(text: &str, payload: &[u8], properties: &[Property<'_>]) -> Vec<u8> {
    let message = Publish {
        retain: true,
        properties: properties.into(),
        ..Publish::new(topic(text), payload)
    };
    encode(&Packet::Publish(message), Version::V5)
}

/// Returns `count` messages with different packet identifiers, for which `delivery` chooses the quality of service.
pub(crate) fn numbered(
    count: u16,
    delivery: fn(PacketId) -> Delivery,
    text: &str,
    payload: &[u8],
) -> Vec<u8> {
    let packet = |id| {
        let message = Publish {
            delivery: delivery(id),
            ..Publish::new(topic(text), payload)
        };
        encode(&Packet::Publish(message), Version::V5)
    };
    (1..=count)
        .filter_map(PacketId::new)
        .flat_map(packet)
        .collect()
}

/// Returns SUBSCRIBE at QoS 0, with a subscription identifier.
pub(crate) fn subscribe<'a>(
    filters: impl Iterator<Item = &'a str>,
    identifier: Option<u32>,
) -> Vec<u8> {
    let properties: Vec<_> = identifier
        .map(Property::SubscriptionIdentifier)
        .into_iter()
        .collect();
    subscribe_at(QoS::AtMostOnce, filters, &properties)
}

pub(crate) fn subscribe_at<'a>(
    qos: QoS,
    filters: impl Iterator<Item = &'a str>,
    properties: &[Property<'_>],
) -> Vec<u8> {
    let list: Vec<_> = filters
        .map(|filter| Subscription::new(TopicFilter::new(filter).expect("a filter"), qos))
        .collect();
    let subscribe = Subscribe {
        properties: Properties::from(properties),
        ..Subscribe::new(PacketId::FIRST, &list[..])
    };
    encode(&Packet::Subscribe(subscribe), Version::V5)
}

/// Returns the CONNECT of a client without a keep-alive, with a new session that ends with the connection.
pub(crate) fn connect(name: &str) -> Connect<'_> {
    Connect {
        keep_alive: 0,
        ..Connect::new(Version::V5, name)
    }
}

/// Returns the CONNECT of a client whose session outlives the connection if the properties say so.
pub(crate) fn returning<'a>(name: &'a str, properties: &'a [Property<'a>]) -> Connect<'a> {
    Connect {
        clean_start: false,
        properties: properties.into(),
        ..connect(name)
    }
}

impl Client {
    /// Connects, and reads CONNACK. Returns `None` if the broker refuses the client.
    pub(crate) fn open(address: SocketAddr, connect: &Connect<'_>) -> Option<Self> {
        Self::open_within(address, connect, PATIENCE)
    }

    /// The same with a time limit for each call until it is accepted.
    pub(crate) fn open_within(
        address: SocketAddr,
        connect: &Connect<'_>,
        patience: Duration,
    ) -> Option<Self> {
        let mut client = Self::begin(address, connect, patience)?;
        if !client.is_accepted() {
            return None;
        }
        client.0.set_read_timeout(Some(PATIENCE)).ok()?;
        client.0.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(client)
    }

    /// Connects, and does not wait for CONNACK.
    pub(crate) fn begin(
        address: SocketAddr,
        connect: &Connect<'_>,
        patience: Duration,
    ) -> Option<Self> {
        let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        stream.set_write_timeout(Some(patience)).ok()?;
        let bytes = encode(&Packet::Connect(*connect), Version::V5);
        stream.write_all(&bytes).ok()?;
        Some(Self(stream))
    }

    /// Reads CONNACK.
    pub(crate) fn is_accepted(&mut self) -> bool {
        let packet = self.read_packet();
        packet.is_some_and(|(kind, body)| kind == 0x20 && body.get(1) == Some(&0))
    }

    /// Reads a packet of less than 128 bytes: its first byte, and what follows the length.
    pub(crate) fn read_packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let mut body = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Sends the bytes repeatedly and discards received ones, until `over` is set or the broker closes the connection.
    pub(crate) fn flood(&mut self, bytes: &[u8], over: &AtomicBool) {
        while self.pour(bytes, over) {}
    }

    /// Sends the bytes once and discards received ones. Returns `false` if `over` is set or the broker closes the connection before.
    pub(crate) fn pour(&mut self, bytes: &[u8], over: &AtomicBool) -> bool {
        self.0.set_nonblocking(true).is_ok()
            && self.pour_now(bytes, over)
            && self.0.set_nonblocking(false).is_ok()
    }

    fn pour_now(&mut self, bytes: &[u8], over: &AtomicBool) -> bool {
        let mut space = vec![0; 64 << 10];
        let mut at = 0;
        while at < bytes.len() {
            if over.load(Ordering::Relaxed) {
                return false;
            }
            let written = self.0.write(&bytes[at..]);
            let read = self.0.read(&mut space);
            let waits = |kind| kind == ErrorKind::WouldBlock;
            match (&written, &read) {
                (Ok(n), _) => at += n,
                (Err(error), _) if !waits(error.kind()) => return false,
                (_, Ok(0)) => return false,
                (_, Err(error)) if !waits(error.kind()) => return false,
                // Neither direction is ready.
                (_, Err(_)) => std::thread::sleep(PAUSE),
                (_, Ok(_)) => {}
            }
        }
        true
    }

    /// Reads and discards until nothing comes for some milliseconds, or `over` is set.
    pub(crate) fn drain(&mut self, over: &AtomicBool) {
        let _ = self.0.set_read_timeout(Some(Duration::from_millis(20)));
        let mut space = vec![0; 64 << 10];
        while !over.load(Ordering::Relaxed) && self.0.read(&mut space).is_ok_and(|n| n > 0) {}
        let _ = self.0.set_read_timeout(Some(PATIENCE));
    }
}

/// Reads and discards what all clients get until `over` is set.
pub(crate) fn read_all(clients: &mut [Client], over: &AtomicBool) {
    let mut space = vec![0; 64 << 10];
    for client in &mut *clients {
        let _ = client.0.set_nonblocking(true);
    }
    while !over.load(Ordering::Relaxed) {
        let mut got = false;
        for client in &mut *clients {
            got |= client.0.read(&mut space).is_ok_and(|n| n > 0);
        }
        if !got {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Sends as much of the bytes as a socket takes without waiting.
pub(crate) fn push(stream: &mut TcpStream, mut bytes: &[u8]) {
    if stream.set_nonblocking(true).is_err() {
        return;
    }
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(_) => return,
        }
    }
}
