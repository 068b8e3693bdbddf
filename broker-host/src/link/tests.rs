use std::collections::VecDeque;

use mqtt_broker::{Config, Verdict};
use mqtt_proto::{Connect, Packet, Publish, ReasonCode, TopicName, Version};
use mqtt_testing::packets::encode;

use super::*;
use crate::peer::{Peer, Peers};

/// Hooks that do not decide on a CONNECT.
struct Undecided;

impl Hooks for Undecided {
    fn unguessable(&mut self) -> u128 {
        0
    }

    fn connect(&mut self, _: ConnectionId, _: &Connect<'_>) -> Verdict {
        Verdict::Later
    }
}

/// A transport with bytes to read, to which any bytes can be written.
struct Input(Vec<u8>);

impl Wire for Input {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let n = self.0.len().min(space.len());
        space[..n].copy_from_slice(&self.0[..n]);
        self.0.drain(..n);
        Poll::Ready(Ok(n))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn shut_down(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Hooks that accept each client.
struct Open;

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        0
    }
}

/// A transport that the client has closed: it has parts to read, and cannot be written to.
struct Closed(VecDeque<Vec<u8>>);

impl Wire for Closed {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let part = self.0.pop_front().unwrap_or_default();
        space[..part.len()].copy_from_slice(&part);
        Poll::Ready(Ok(part.len()))
    }

    fn write(&mut self, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn shut_down(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

#[tokio::test]
async fn a_client_that_reads_no_answer_is_heard_to_its_end() {
    let mut shared = Shared::new(Config::default(), Open, Peers::default());
    let id = shared.open(Peer::default()).unwrap();
    let mut link = Link::new(id);
    let connect = Connect::new(Version::V311, "a");
    let mut parts = vec![encode(&Packet::Connect(connect), Version::V311)];
    parts.extend(["0", "1"].map(|payload| {
        let topic = TopicName::from_static("a");
        let publish = Publish::new(topic, payload.as_bytes());
        encode(&Packet::Publish(publish), Version::V311)
    }));
    let mut wire = Closed(parts.into());
    while link.serve(&mut shared, &mut wire, READ) != ServeResult::Over {}
    let now = shared.now();
    assert_eq!(shared.broker.statistics(now).publish_received, 2);
}

#[tokio::test]
async fn a_few_kilobytes_are_read_before_a_client_is_accepted() {
    let mut shared = Shared::new(Config::default(), Undecided, Peers::default());
    let id = shared.open(Peer::default()).unwrap();
    let mut link = Link::new(id);
    let connect = Connect::new(Version::V311, "a");
    let mut input = encode(&Packet::Connect(connect), Version::V311);
    input.extend([0xC0, 0].repeat(100_000));
    let mut wire = Input(input);
    for _ in 0..100 {
        link.serve(&mut shared, &mut wire, READ);
    }
    assert!(link.rest.len() <= 4 << 10, "{}", link.rest.len());
    // After the decision the rest is read, or not kept.
    let now = shared.now();
    let refused = Verdict::Refuse(ReasonCode::NotAuthorized);
    shared.broker.decide(id, refused, now);
    for _ in 0..100 {
        link.serve(&mut shared, &mut wire, READ);
    }
    assert!(link.rest.is_empty());
}

#[tokio::test]
async fn few_reads_discard_what_an_ended_client_sends() {
    let mut shared = Shared::new(Config::default(), Open, Peers::default());
    let id = shared.open(Peer::default()).unwrap();
    let mut link = Link::new(id);
    let mut wire = Input(vec![0; 1 << 20]);
    let mut turns = 0;
    while link.serve(&mut shared, &mut wire, READ) != ServeResult::Over {
        turns += 1;
    }
    let read = (1 << 20) - wire.0.len();
    assert!(read >= 256 << 10, "{read} bytes");
    assert!(turns <= 20, "{turns} turns");
}
