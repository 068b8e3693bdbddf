//! Implements a client that sends packets as bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqtt_proto::{
    Connect, Packet, PacketId, Properties, Property, Publish, QoS, Subscribe, Subscription,
    TopicFilter, TopicName, Version, Will,
};
use mqtt_testing::packets::encode;

/// The time limit of a call.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Client(pub(crate) TcpStream);

pub(crate) fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let topic = TopicName::new(topic).expect("a topic");
    encode(&Packet::Publish(Publish::new(topic, payload)), Version::V5)
}

pub(crate) fn subscribe<'a>(
    filters: impl Iterator<Item = &'a str>,
    identifier: Option<u32>,
) -> Vec<u8> {
    let list: Vec<_> = filters
        .map(|filter| {
            let filter = TopicFilter::new(filter).expect("a filter");
            Subscription::new(filter, QoS::AtMostOnce)
        })
        .collect();
    let properties: Vec<_> = identifier
        .map(Property::SubscriptionIdentifier)
        .into_iter()
        .collect();
    let subscribe = Subscribe {
        properties: Properties::from(&properties[..]),
        ..Subscribe::new(PacketId::FIRST, &list[..])
    };
    encode(&Packet::Subscribe(subscribe), Version::V5)
}

impl Client {
    /// Connects, and reads CONNACK.
    pub(crate) fn connect(address: SocketAddr, name: &str, will: Option<Will<'_>>) -> Option<Self> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let connect = Connect {
            keep_alive: 0,
            will,
            ..Connect::new(Version::V5, name)
        };
        let bytes = encode(&Packet::Connect(connect), Version::V5);
        stream.write_all(&bytes).ok()?;
        let mut head = [0; 2];
        stream.read_exact(&mut head).ok()?;
        let mut body = vec![0; usize::from(head[1])];
        stream.read_exact(&mut body).ok()?;
        (head[0] == 0x20 && body.get(1) == Some(&0)).then_some(Self(stream))
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Sends the bytes repeatedly and discards received ones, until `over` is set or the broker closes the connection.
    pub(crate) fn flood(&mut self, bytes: &[u8], over: &AtomicBool) {
        if self.0.set_nonblocking(true).is_err() {
            return;
        }
        let mut space = vec![0; 64 << 10];
        let mut at = 0;
        while !over.load(Ordering::Relaxed) {
            let written = self.0.write(&bytes[at..]);
            let read = self.0.read(&mut space);
            let waits = |kind| kind == ErrorKind::WouldBlock;
            match (&written, &read) {
                (Ok(n), _) => at = (at + n) % bytes.len(),
                (Err(error), _) if !waits(error.kind()) => return,
                (_, Ok(0)) => return,
                (_, Err(error)) if !waits(error.kind()) => return,
                // Neither direction is ready.
                (_, Err(_)) => std::thread::sleep(Duration::from_micros(200)),
                (_, Ok(_)) => {}
            }
        }
    }

    /// Reads and discards until `over` is set.
    pub(crate) fn read_all(&mut self, over: &AtomicBool) {
        if self.0.set_nonblocking(true).is_err() {
            return;
        }
        let mut space = vec![0; 64 << 10];
        while !over.load(Ordering::Relaxed) {
            match self.0.read(&mut space) {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }
}
