//! Tests of a connection between two turns, with transports in memory.

use std::collections::VecDeque;

use mqtt_broker::{Config, Verdict};
use mqtt_proto::{
    Connect, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe, Subscription, TopicFilter,
    TopicName, Version,
};
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

/// A transport with parts to read, each of which one read takes, that stores what is written.
struct Parts {
    parts: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl Parts {
    fn new(parts: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            parts: parts.into_iter().collect(),
            written: Vec::new(),
        }
    }
}

impl Wire for Parts {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(mut part) = self.parts.pop_front() else {
            return Poll::Pending;
        };
        let n = part.len().min(space.len());
        space[..n].copy_from_slice(&part[..n]);
        if n < part.len() {
            self.parts.push_front(part.split_off(n));
        }
        Poll::Ready(Ok(n))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn shut_down(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn parts_of_any_length_are_put_together() {
    let version = Version::V311;
    let filters = [Subscription::new(
        TopicFilter::from_static("a"),
        QoS::AtMostOnce,
    )];
    let subscribe = Packet::Subscribe(Subscribe::new(PacketId::new(1).unwrap(), &filters[..]));
    let connect = encode(&Packet::Connect(Connect::new(version, "a")), version);
    let mut input = encode(&subscribe, version);
    let mut messages = Vec::new();
    for (number, len) in [1, 16 << 10, 40 << 10, 5, 100 << 10, 30 << 10, 0]
        .into_iter()
        .enumerate()
    {
        let payload: Vec<u8> = (0..len).map(|at| (at / 251 + at + number) as u8).collect();
        let publish = Publish::new(TopicName::from_static("a"), &payload);
        messages.extend(encode(&Packet::Publish(publish), version));
    }
    input.extend(&messages);
    for len in [1, 7, 1_000, 20_000, 50_000, 64 << 10, 1 << 20] {
        let mut shared = Shared::new(Config::default(), Open, Peers::default());
        let id = shared.open(Peer::default()).unwrap();
        let mut link = Link::new(id);
        let mut wire = Parts::new([connect.clone()]);
        wire.parts.extend(input.chunks(len).map(<[u8]>::to_vec));
        while link.serve(&mut shared, &mut wire, READ) == ServeResult::HasMore {}
        // CONNACK and SUBACK go first.
        assert!(
            wire.written.get(9..) == Some(&messages),
            "parts of {len} bytes"
        );
        assert_eq!(link.rest.capacity(), 0, "parts of {len} bytes");
    }
}

/// A client sends small messages without a pause, each of which is in several reads or a read of its own: a turn ends after a few reads.
#[tokio::test]
async fn a_trickle_does_not_keep_a_turn_going() {
    const MESSAGES: usize = 1_000;
    let version = Version::V311;
    let publish = Publish::new(TopicName::from_static("a"), b"0123456789");
    let message = encode(&Packet::Publish(publish), version);
    for len in [1, 5, message.len()] {
        let mut shared = Shared::new(Config::default(), Open, Peers::default());
        let id = shared.open(Peer::default()).unwrap();
        let mut link = Link::new(id);
        let connect = encode(&Packet::Connect(Connect::new(version, "a")), version);
        let mut wire = Parts::new([connect]);
        let all = message.repeat(MESSAGES);
        wire.parts.extend(all.chunks(len).map(<[u8]>::to_vec));
        loop {
            let before = wire.parts.len();
            let result = link.serve(&mut shared, &mut wire, READ);
            let reads = before - wire.parts.len();
            assert!(reads <= 4, "{reads} reads of {len} bytes in one turn");
            if result != ServeResult::HasMore {
                break;
            }
        }
        let now = shared.now();
        let received = shared.broker.statistics(now).publish_received;
        assert_eq!(received, MESSAGES as u64);
    }
}

/// A client need not wait for CONNACK. Of a large message behind its CONNECT little is read before the decision, and all of it after.
#[tokio::test]
async fn a_large_message_behind_connect_is_read_after_the_decision() {
    let version = Version::V311;
    let mut shared = Shared::new(Config::default(), Undecided, Peers::default());
    let id = shared.open(Peer::default()).unwrap();
    let mut link = Link::new(id);
    let mut input = encode(&Packet::Connect(Connect::new(version, "a")), version);
    let publish = Publish::new(TopicName::from_static("a"), &[0; 100_000]);
    input.extend(encode(&Packet::Publish(publish), version));
    let mut wire = Parts::new([input]);
    for _ in 0..100 {
        link.serve(&mut shared, &mut wire, READ);
    }
    assert!(link.rest.len() <= 4 << 10, "{}", link.rest.len());
    let now = shared.now();
    shared.broker.decide(id, Verdict::Accept, now);
    for _ in 0..100 {
        link.serve(&mut shared, &mut wire, READ);
    }
    assert_eq!(shared.broker.statistics(now).publish_received, 1);
}

#[tokio::test]
async fn a_few_kilobytes_are_read_before_a_client_is_accepted() {
    let mut shared = Shared::new(Config::default(), Undecided, Peers::default());
    let id = shared.open(Peer::default()).unwrap();
    let mut link = Link::new(id);
    let connect = Connect::new(Version::V311, "a");
    let mut input = encode(&Packet::Connect(connect), Version::V311);
    input.extend([0xC0, 0].repeat(100_000));
    let mut wire = Parts::new([input]);
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
    let mut wire = Parts::new([vec![0; 1 << 20]]);
    let mut turns = 0;
    while link.serve(&mut shared, &mut wire, READ) != ServeResult::Over {
        turns += 1;
    }
    let read = (1 << 20) - wire.parts[0].len();
    assert!(read >= 256 << 10, "{read} bytes");
    assert!(turns <= 20, "{turns} turns");
}
