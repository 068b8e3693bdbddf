//! Checks how much a client may send before its CONNECT is accepted.

use mqtt_broker::{Broker, Config, ConnectionId, Ending, Hooks, Next, Observation, Verdict};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Delivery, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Subscribe,
    Subscription, TopicFilter, TopicName, Version, Will,
};
use mqtt_testing::packets::encode;

const NOW: Instant = Instant::from_millis(0);
const SIZE: usize = 16 << 10;

/// Hooks that decide later on clients that begin with "wait", and note who was refused and how connections ended.
#[derive(Default)]
struct Watching {
    endings: Vec<Ending>,
    /// The clients that were refused.
    refused: Vec<(String, ReasonCode)>,
}

impl Hooks for Watching {
    fn unguessable(&mut self) -> u128 {
        0
    }

    fn connect(&mut self, _: ConnectionId, connect: &Connect<'_>) -> Verdict {
        if connect.client_id.starts_with("wait") {
            Verdict::Later
        } else {
            Verdict::Accept
        }
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Ended { ending, .. } => self.endings.push(*ending),
            Observation::Refused { client, reason, .. } => {
                self.refused.push((client.client_id.to_owned(), *reason));
            }
            _ => {}
        }
    }
}

fn broker() -> Broker<Watching> {
    broker_with(3 << 20)
}

/// Returns a broker that accepts packets up to this length.
fn broker_with(packet_size: u32) -> Broker<Watching> {
    let mut config = Config::default();
    config.statistics_interval = 0;
    config.packet_size = packet_size;
    Broker::new(config, Watching::default(), NOW)
}

/// Returns a CONNECT with a will of this length.
fn connect(version: Version, will: usize) -> Vec<u8> {
    let payload = vec![b'x'; will];
    let connect = Connect {
        will: Some(Will::new(TopicName::from_static("a"), &payload)),
        ..Connect::new(version, "dying")
    };
    encode(&Packet::Connect(connect), version)
}

/// Returns the first bytes of a CONNECT with this remaining length.
fn beginning(version: Version, len: usize) -> Vec<u8> {
    let small = connect(version, 1);
    let digit = |shift: u32| u8::try_from(len >> shift & 0x7F).unwrap();
    let length = [
        0x80 | digit(0),
        0x80 | digit(7),
        0x80 | digit(14),
        digit(21),
    ];
    [&[0x10], &length[..], &small[2..]].concat()
}

fn message(payload: usize) -> Vec<u8> {
    let payload = vec![b'x'; payload];
    let publish = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::from_static("a"), &payload)
    };
    encode(&Packet::Publish(publish), Version::V311)
}

/// The broker refuses a CONNECT by its first bytes. MQTT 5 has a reason code for it, and earlier versions get no answer.
#[test]
fn a_connect_that_is_too_large_is_refused() {
    for version in [Version::V31, Version::V311, Version::V5] {
        // The last one is larger than any packet may be.
        for len in [1 << 21, 3 << 20] {
            let mut broker = broker();
            let id = broker.open(NOW).unwrap();
            let received = broker.receive(id, &beginning(version, len), NOW);
            assert_eq!(received.next, Next::Closing);
            let answer: &[u8] = match version {
                Version::V5 => &[0x20, 3, 0, 0x95, 0],
                _ => &[],
            };
            assert_eq!(broker.outgoing(id), answer, "{version} {len}");
            let ending = Ending::ConnectTooLarge {
                len: len + 5,
                limit: u32::try_from(SIZE).unwrap(),
            };
            assert_eq!(broker.hooks().endings, [ending]);
        }
    }
}

/// The version comes a few bytes after the length. The broker waits for it, and for no more, whichever limit is the lower one.
#[test]
fn a_connect_that_is_too_large_is_refused_once_its_version_is_there() {
    let bytes = connect(Version::V5, SIZE);
    for packet_size in [3 << 20, 1_000] {
        let limit = packet_size.min(u32::try_from(SIZE).unwrap());
        for first in 1..=bytes.len() {
            let mut broker = broker_with(packet_size);
            let id = broker.open(NOW).unwrap();
            let received = broker.receive(id, &bytes[..first], NOW);
            // Four bytes of the header, six of the name, and the version.
            if first < 11 {
                assert_eq!(received.consumed, 0);
                assert!(matches!(received.next, Next::Needs(..=12)), "{received:?}");
                continue;
            }
            assert_eq!(received.next, Next::Closing, "{first} bytes");
            assert_eq!(broker.outgoing(id), [0x20, 3, 0, 0x95, 0]);
            let len = bytes.len();
            let ending = Ending::ConnectTooLarge { len, limit };
            assert_eq!(broker.hooks().endings, [ending]);
        }
    }
}

/// A host may have the whole packet at once.
#[test]
fn a_large_connect_is_refused_however_it_arrives() {
    let bytes = connect(Version::V5, SIZE);
    let mut broker = broker();
    let id = broker.open(NOW).unwrap();
    assert_eq!(broker.receive(id, &bytes, NOW).next, Next::Closing);
    assert_eq!(broker.outgoing(id), [0x20, 3, 0, 0x95, 0]);
    assert_eq!(broker.statistics(NOW).sessions, 0);
    // A smaller one is accepted.
    let bytes = connect(Version::V5, SIZE - 100);
    let id = broker.open(NOW).unwrap();
    broker.receive(id, &bytes, NOW);
    assert!(broker.is_accepted(id));
}

#[test]
fn after_connect_is_accepted_a_client_may_send_more() {
    let mut broker = broker();
    let id = broker.open(NOW).unwrap();
    let connect = encode(
        &Packet::Connect(Connect::new(Version::V311, "home")),
        Version::V311,
    );
    let bytes = [connect, message(1 << 20)].concat();
    let received = broker.receive(id, &bytes, NOW);
    assert_eq!(received.consumed, bytes.len());
    assert_eq!(broker.outgoing(id), [0x20, 2, 0, 0, 0x40, 2, 0, 1]);
}

/// 3.1.1 [MQTT-3.1.4-5], 5 [MQTT-3.1.4-6]: a client need not wait for CONNACK. A large message behind its CONNECT waits for the decision
/// on it, and the broker takes no more of it before.
#[test]
fn a_large_message_behind_connect_waits_for_the_decision() {
    for accepted in [true, false] {
        let mut broker = broker();
        let id = broker.open(NOW).unwrap();
        let connect = encode(
            &Packet::Connect(Connect::new(Version::V311, "wait")),
            Version::V311,
        );
        let message = message(2 * SIZE);
        let received = broker.receive(id, &[&connect, &message[..10]].concat(), NOW);
        assert_eq!(received.consumed, connect.len());
        assert_eq!(received.next, Next::Blocked);
        let verdict = match accepted {
            true => Verdict::Accept,
            false => Verdict::Refuse(ReasonCode::NotAuthorized),
        };
        broker.decide(id, verdict, NOW);
        assert_eq!(broker.next_ready(), Some(id));
        let next = broker.receive(id, &message[..10], NOW).next;
        if accepted {
            assert_eq!(next, Next::Needs(message.len()));
            broker.receive(id, &message, NOW);
            assert_eq!(broker.outgoing(id), [0x20, 2, 0, 0, 0x40, 2, 0, 1]);
        } else {
            assert_eq!(next, Next::Closing);
            assert_eq!(broker.outgoing(id), [0x20, 2, 0, 5]);
        }
    }
}

/// A client that takes no packet of the size of its CONNACK is not connected: it changes no count of others, and its will is not published.
#[test]
fn a_client_that_takes_no_connack_was_never_connected() {
    let mut broker = broker();
    let reader = broker.open(NOW).unwrap();
    let own = encode(
        &Packet::Connect(Connect::new(Version::V5, "reader")),
        Version::V5,
    );
    broker.receive(reader, &own, NOW);
    let filters = [Subscription::new(
        TopicFilter::from_static("#"),
        QoS::AtMostOnce,
    )];
    let subscribe = Packet::Subscribe(Subscribe::new(PacketId::FIRST, &filters[..]));
    broker.receive(reader, &encode(&subscribe, Version::V5), NOW);
    let waiting = broker.outgoing(reader).len();
    broker.sent(reader, waiting, NOW);
    for _ in 0..3 {
        let id = broker.open(NOW).unwrap();
        let properties = [Property::MaximumPacketSize(10)];
        let connect = Connect {
            properties: Properties::from(&properties),
            will: Some(Will::new(TopicName::from_static("a"), b"gone")),
            ..Connect::new(Version::V5, "narrow")
        };
        broker.receive(id, &encode(&Packet::Connect(connect), Version::V5), NOW);
        assert!(broker.is_closing(id));
        broker.closed(id, NOW);
    }
    let statistics = broker.statistics(NOW);
    assert_eq!(
        (statistics.clients_connected, statistics.clients_maximum),
        (1, 1)
    );
    assert_eq!(broker.outgoing(reader), b"", "no will");
    // The host is told why, and that no client was connected.
    let hooks = broker.hooks();
    let reason = ReasonCode::PacketTooLarge;
    assert_eq!(hooks.refused, vec![("narrow".to_owned(), reason); 3]);
    assert_eq!(hooks.endings, [Ending::ConnectRefused(reason); 3]);
}
