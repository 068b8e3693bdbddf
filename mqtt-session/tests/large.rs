//! Large messages, which are kept once and sent from where they are kept, in order with the other outgoing packets.

use mqtt_proto::{
    AckKind, ConnAck, Decoded, Disconnect, MAX_PACKET, Packet, PacketType, Property, QoS,
    Subscription, TopicFilter, TopicName, Version,
};
use mqtt_session::{
    Client, Config, Ended, Event, Heap, Instant, Offline, Outgoing, Refused, SessionLost, Step,
    Token, Violation,
};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};
use mqtt_testing::packets::{ack, encode, publish};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
const ROLES: [Role; 2] = [Role::Client, Role::Server];
const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// A machine whose outgoing buffer takes messages of up to 136 bytes.
fn connected(role: Role, version: Version, set: impl FnOnce(&mut Config)) -> TestedMachine {
    let mut config = Config::default();
    config.outgoing_limit = 200;
    config.session_lost = SessionLost::HandBack;
    set(&mut config);
    TestedMachine::connected(role, Opening::persistent(version), config)
}

fn all() -> impl Iterator<Item = TestedMachine> {
    all_with(|_| {})
}

fn all_with(set: fn(&mut Config)) -> impl Iterator<Item = TestedMachine> {
    ROLES
        .into_iter()
        .flat_map(move |role| VERSIONS.map(|version| connected(role, version, set)))
}

fn large() -> String {
    "large ".repeat(100)
}

/// Takes `n` bytes, in pieces of `piece`.
fn take(solo: &mut TestedMachine, n: usize, piece: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < n && !solo.machine.outgoing().is_empty() {
        let outgoing = solo.machine.outgoing();
        let most = outgoing.len().min(piece).min(n - bytes.len());
        bytes.extend_from_slice(&outgoing[..most]);
        solo.machine.sent(most);
    }
    bytes
}

/// The peer acknowledges a message to its end.
fn acknowledge(solo: &mut TestedMachine, qos: QoS, id: u16) {
    let first = match qos {
        QoS::ExactlyOnce => AckKind::PubRec,
        _ => AckKind::PubAck,
    };
    solo.feed_ack(first, id);
    solo.feed_ack(AckKind::PubComp, id);
}

/// The bytes are the same for every length of the pieces that the transport takes. No packet is written into another.
#[test]
fn packets_written_meanwhile_go_out_after_a_large_message() {
    for piece in [1, 2, 7, 100, 150, 600, usize::MAX] {
        for (mut solo, at) in all().zip([0, 1, 5, 300].into_iter().cycle()) {
            let version = solo.version();
            let mut expected = Vec::new();
            solo.must_publish(QoS::AtLeastOnce, "before");
            expected.push(publish(QoS::AtLeastOnce, 1, false, "before"));
            solo.must_publish(QoS::AtLeastOnce, &large());
            let payload = large();
            expected.push(publish(QoS::AtLeastOnce, 2, false, &payload));
            let mut expected: Vec<u8> = expected
                .into_iter()
                .flat_map(|publish| encode(&Packet::Publish(publish), version))
                .collect();
            let mut sent = take(&mut solo, at, piece);
            solo.feed_publish(QoS::AtLeastOnce, 7, false, "x");
            expected.extend(ack(AckKind::PubAck, 7));
            assert_eq!(solo.publish(QoS::AtMostOnce, "after"), Ok(None));
            let after = publish(QoS::AtMostOnce, 0, false, "after");
            expected.extend(encode(&Packet::Publish(after), version));
            sent.extend(take(&mut solo, usize::MAX, piece));
            assert_eq!(sent, expected);
        }
    }
}

/// A number above the length of `outgoing` counts as all of these bytes.
#[test]
fn sent_counts_no_more_bytes_than_are_outgoing() {
    for mut solo in all() {
        solo.publish(QoS::AtMostOnce, "before").unwrap();
        solo.must_publish(QoS::AtLeastOnce, &large());
        let before = solo.machine.outgoing().len();
        solo.machine.sent(usize::MAX);
        assert!(before < 20 && solo.machine.outgoing().len() > 600);
        solo.machine.sent(0);
        assert!(solo.machine.outgoing().len() > 600);
        solo.machine.sent(usize::MAX);
        assert_eq!(solo.machine.outgoing(), []);
        solo.feed_ack(AckKind::PubAck, 1);
        assert_eq!(solo.machine.pending(), 0);
    }
}

#[test]
fn a_second_large_message_is_refused_while_one_is_under_way() {
    for mut solo in all() {
        solo.must_publish(QoS::AtLeastOnce, &large());
        for qos in LEVELS {
            assert_eq!(solo.publish(qos, &large()), Err(Refused::Full));
        }
        solo.must_publish(QoS::AtLeastOnce, "small");
        take(&mut solo, usize::MAX, 64);
        assert_eq!(
            solo.must_publish(QoS::ExactlyOnce, &large())
                .packet_id()
                .unwrap()
                .get(),
            3
        );
    }
}

fn ended(token: Token, how: Ended) -> OwnedEvent {
    OwnedEvent::Ended { token, how }
}

#[test]
fn a_large_qos_0_message_ends_when_its_last_byte_was_taken() {
    for mut solo in all() {
        let token = solo.must_publish(QoS::AtMostOnce, &large());
        let len = solo.machine.outgoing().len();
        take(&mut solo, len - 1, usize::MAX);
        solo.feed(&[]);
        assert_eq!(solo.learned(), []);
        take(&mut solo, 1, usize::MAX);
        solo.feed(&[]);
        assert_eq!(solo.learned(), [ended(token, Ended::Sent)]);
        assert_eq!(solo.machine.pending(), 0);
    }
}

#[test]
fn a_large_qos_0_message_waits_for_the_next_connection_unless_a_byte_was_taken() {
    for mut solo in all() {
        let token = solo.must_publish(QoS::AtMostOnce, &large());
        solo.connect(true);
        assert!(!solo.learned().contains(&ended(token, Ended::Lost)));
        let payload = large();
        let again = Packet::Publish(publish(QoS::AtMostOnce, 0, false, &payload));
        let again = encode(&again, solo.version());
        assert_eq!(take(&mut solo, 1, 1), again[..1]);
        solo.disconnect();
        assert_eq!(solo.learned(), [ended(token, Ended::Lost)]);
        solo.connect(true);
        assert_eq!(solo.sent(), []);
        assert_eq!(solo.machine.pending(), 0);
    }
}

/// 3.1.1 [MQTT-3.3.1-1], 5 [MQTT-3.3.1-1]: DUP is set if a byte of the message may have arrived, and only then.
#[test]
fn a_large_message_at_qos_1_and_2_is_sent_again_with_dup() {
    for mut solo in all() {
        let version = solo.version();
        let payload = large();
        for (qos, taken) in [(QoS::AtLeastOnce, 0), (QoS::ExactlyOnce, 1)] {
            let token = solo.must_publish(qos, &payload);
            let id = token.packet_id().unwrap().get();
            take(&mut solo, taken, 1);
            solo.connect(true);
            let again = encode(
                &Packet::Publish(publish(qos, id, taken > 0, &payload)),
                version,
            );
            assert_eq!(solo.sent(), again);
            acknowledge(&mut solo, qos, id);
            solo.sent();
            assert_eq!(solo.machine.pending(), 0);
            solo.learned();
        }
    }
}

/// After a lost session the message is a new one.
#[test]
fn after_a_lost_session_a_large_message_has_no_dup() {
    for version in VERSIONS {
        let mut solo = connected(Role::Client, version, |config| {
            config.session_lost = SessionLost::SendAgain;
        });
        let payload = large();
        solo.must_publish(QoS::AtLeastOnce, &payload);
        for (present, dup) in [(true, true), (false, false)] {
            solo.sent();
            solo.connect(present);
            let again = Packet::Publish(publish(QoS::AtLeastOnce, 1, dup, &payload));
            assert_eq!(solo.sent(), encode(&again, version));
        }
    }
}

/// The transport may have taken all of a message, and the peer may have answered it, before the host tells what was sent.
#[test]
fn an_acknowledgement_waits_until_the_last_byte_is_told() {
    for mut solo in all() {
        solo.must_publish(QoS::ExactlyOnce, &large());
        take(&mut solo, 500, 64);
        solo.feed_ack(AckKind::PubRec, 1);
        assert_eq!(solo.learned(), []);
        solo.sent();
        solo.feed(&[]);
        assert_eq!(solo.sent_types(), [PacketType::PubRel]);
        // The next message is large as well.
        let token = solo.must_publish(QoS::AtLeastOnce, &large());
        take(&mut solo, 500, 64);
        solo.feed_ack(AckKind::PubAck, 2);
        assert_eq!(solo.learned(), []);
        solo.sent();
        solo.feed(&[]);
        let [OwnedEvent::Acknowledged { token: ended, .. }] = solo.learned()[..] else {
            panic!("not acknowledged")
        };
        assert_eq!(ended, token);
    }
}

/// A client that acknowledges a message before it takes it does not escape the keep-alive.
#[test]
fn who_acknowledges_early_and_takes_nothing_is_silent() {
    for version in VERSIONS {
        let mut solo = connected(Role::Server, version, |_| {});
        solo.must_publish(QoS::AtLeastOnce, &large());
        solo.feed_ack(AckKind::PubAck, 1);
        assert_eq!(solo.learned(), []);
        solo.wait(91_000);
        let violation = Violation::KeepAliveTimeout;
        assert_eq!(solo.learned(), [OwnedEvent::Closed(violation)]);
    }
}

/// The messages kept before and after it may end and move in memory while it is under way.
#[test]
fn other_messages_begin_and_end_while_a_large_one_is_under_way() {
    for mut solo in all_with(|config| config.kept_limit = 1_000) {
        let version = solo.version();
        solo.must_publish(QoS::AtLeastOnce, &"x".repeat(100));
        solo.sent();
        solo.must_publish(QoS::ExactlyOnce, &"y".repeat(100));
        solo.sent();
        let payload = large();
        solo.must_publish(QoS::AtLeastOnce, &payload);
        let before = take(&mut solo, 300, 33);
        solo.feed_ack(AckKind::PubAck, 1);
        solo.feed_ack(AckKind::PubRec, 2);
        // Their room is needed again, so that what is kept moves.
        let mut others = 0;
        while solo.publish(QoS::AtLeastOnce, "123456789").is_ok() {
            others += 1;
        }
        assert!(others > 1);
        let sent = [before, solo.sent()].concat();
        let packet = encode(
            &Packet::Publish(publish(QoS::AtLeastOnce, 3, false, &payload)),
            version,
        );
        assert!(sent.windows(packet.len()).any(|window| window == packet));
        let mut rest = &sent[..];
        while let Decoded::Packet { consumed, .. } =
            Packet::decode(rest, version, MAX_PACKET).unwrap()
        {
            rest = &rest[consumed..];
        }
        assert_eq!(rest, []);
    }
}

/// If no other message is kept, one message may be longer than the limits of kept and of outgoing bytes.
#[test]
fn a_message_that_is_kept_alone_may_exceed_every_limit() {
    for mut solo in all_with(|config| config.kept_limit = 300) {
        for qos in LEVELS {
            let token = solo.must_publish(qos, &large());
            assert_eq!(solo.publish(QoS::AtLeastOnce, "x"), Err(Refused::Full));
            solo.sent();
            if let Some(id) = token.packet_id().map(mqtt_proto::PacketId::get) {
                acknowledge(&mut solo, qos, id);
            }
            solo.feed(&[]);
            assert_eq!(solo.machine.pending(), 0);
        }
        solo.must_publish(QoS::AtLeastOnce, "x");
        assert_eq!(solo.publish(QoS::AtMostOnce, &large()), Err(Refused::Full));
        assert_eq!(solo.publish(QoS::AtLeastOnce, &large()), Err(Refused::Full));
    }
}

#[test]
fn a_message_that_is_kept_alone_may_exceed_the_limit_offline() {
    for offline in [Offline::Keep, Offline::DropOldest] {
        let mut solo = connected(Role::Client, Version::V5, |config| {
            (config.offline, config.kept_limit) = (offline, 300);
        });
        solo.disconnect();
        let small = solo.must_publish(QoS::AtLeastOnce, "small");
        match solo.publish(QoS::AtMostOnce, &large()) {
            Err(refused) => assert_eq!((refused, offline), (Refused::Full, Offline::Keep)),
            Ok(token) => {
                solo.connect(true);
                solo.sent();
                solo.feed(&[]);
                let learned = solo.learned();
                assert!(
                    learned.contains(&ended(small, Ended::Dropped)),
                    "{learned:?}"
                );
                assert!(
                    learned.contains(&ended(token.unwrap(), Ended::Sent)),
                    "{learned:?}"
                );
            }
        }
    }
}

/// The packet identifier of the next message.
fn next_identifier(solo: &mut TestedMachine) -> u16 {
    let token = solo.must_publish(QoS::AtLeastOnce, "fits");
    token.packet_id().unwrap().get()
}

/// A message longer than the peer's maximum packet size, 5 [MQTT-3.2.2-15] and [MQTT-3.1.2-24], is refused before it gets an
/// identifier, and so is any other packet that is longer than the outgoing buffer.
#[test]
fn a_packet_too_large_is_refused_before_it_takes_an_id() {
    for role in ROLES {
        let mut opening = Opening::persistent(Version::V5);
        let maximum = Property::MaximumPacketSize(40);
        match role {
            Role::Client => opening.connack.push(maximum),
            Role::Server => opening.connect.push(maximum),
        }
        let mut solo = TestedMachine::connected(role, opening, Config::default());
        for qos in LEVELS {
            let refused = solo.publish(qos, &"x".repeat(40)).unwrap_err();
            assert!(
                matches!(refused, Refused::TooLarge { max: 40, .. }),
                "{refused:?}"
            );
        }
        assert_eq!(next_identifier(&mut solo), 1);
    }
    for version in VERSIONS {
        let mut solo = connected(Role::Client, version, |_| {});
        let topic = "x".repeat(200);
        let filters = [Subscription::new(
            TopicFilter::new(&topic).unwrap(),
            QoS::AtMostOnce,
        )];
        let now = solo.now;
        let client = solo.machine.client();
        let refused = client.subscribe(&filters, [][..].into(), now).unwrap_err();
        assert!(
            matches!(refused, Refused::TooLarge { max: 136, .. }),
            "{refused:?}"
        );
        assert_eq!(next_identifier(&mut solo), 1);
    }
}

/// A resumed session may have a smaller maximum packet size.
#[test]
fn a_message_too_large_for_the_next_connection_ends() {
    let mut solo = connected(Role::Client, Version::V5, |_| {});
    let token = solo.must_publish(QoS::AtLeastOnce, &large());
    take(&mut solo, 10, 10);
    solo.opening.connack.push(Property::MaximumPacketSize(40));
    solo.connect(true);
    solo.feed(&[]);
    assert!(solo.learned().contains(&ended(token, Ended::TooLarge)));
    assert_eq!(solo.sent(), []);
}

/// DISCONNECT goes out after a large message. If the session is forgotten in the middle of one, the connection ends.
#[test]
fn a_connection_ends_after_a_large_message_or_in_its_middle() {
    for version in VERSIONS {
        let mut solo = connected(Role::Client, version, |_| {});
        let token = solo.must_publish(QoS::AtMostOnce, &large());
        take(&mut solo, 10, 10);
        solo.machine
            .client()
            .disconnect(&Disconnect::default())
            .unwrap();
        let rest = solo.sent();
        assert_eq!(
            rest.len(),
            large().len() + 8 + usize::from(version.is_v5()) - 10 + 2
        );
        assert!(rest.ends_with(&[0xE0, 0]));
        solo.feed(&[]);
        assert_eq!(solo.learned(), [ended(token, Ended::Sent)]);

        for taken in [0, 10] {
            let mut solo = connected(Role::Client, version, |_| {});
            solo.must_publish(QoS::AtLeastOnce, &large());
            take(&mut solo, taken, 10);
            solo.machine.client().forget_session();
            assert_eq!(solo.machine.outgoing(), []);
            assert_eq!(solo.machine.client().is_closing(), taken > 0);
            assert_eq!(solo.machine.pending(), 0);
        }
    }
}

/// When a session moves to another connection, nothing of it is sent on the first one any more.
#[test]
fn a_session_that_is_taken_over_ends_the_old_connection() {
    for taken in [0, 10] {
        let mut old = connected(Role::Server, Version::V5, |_| {});
        let mut new = TestedMachine::new(Role::Server, old.opening.clone(), Config::default());
        old.must_publish(QoS::AtLeastOnce, &large());
        take(&mut old, taken, 10);
        let now = new.now;
        new.machine.server().opened(now);
        new.feed_packet(&Packet::Connect(old.opening.connect()));
        old.machine.server().swap_session(new.machine.server());
        assert_eq!(old.machine.outgoing(), []);
        assert_eq!(old.machine.server().is_closing(), taken > 0);
        let connack = ConnAck {
            session_present: true,
            ..ConnAck::default()
        };
        new.machine.server().accept(&connack, now).unwrap();
        let sent = new.sent();
        let connack = encode(&Packet::ConnAck(connack), Version::V5);
        let payload = large();
        let again = publish(QoS::AtLeastOnce, 1, taken > 0, &payload);
        assert_eq!(
            sent,
            [connack, encode(&Packet::Publish(again), Version::V5)].concat()
        );
    }
}

/// 3.1.1 [MQTT-3.1.2-23], 5 [MQTT-3.1.2-20]: PINGREQ could go out only after the message, and its answer would be overdue. If the
/// transport takes nothing for a whole keep-alive, the connection is dead.
#[test]
fn no_ping_is_due_while_a_large_message_moves() {
    for version in VERSIONS {
        let mut solo = connected(Role::Client, version, |_| {});
        solo.must_publish(QoS::AtLeastOnce, &large());
        for _ in 0..50 {
            solo.wait(59_000);
            take(&mut solo, 10, 10);
        }
        assert_eq!(solo.learned(), []);
        for _ in 0..4 {
            solo.wait(59_000);
        }
        assert_eq!(solo.learned(), [OwnedEvent::Closed(Violation::PingTimeout)]);
    }
}

/// A large message is copied once, and its memory is freed.
#[test]
fn a_large_message_takes_the_memory_of_one_copy_and_frees_it() {
    const LEN: usize = 40 << 20;
    let payload = vec![7; LEN];
    let topic = TopicName::from_static("a/b");
    let now = Instant::from_millis(0);
    let mut client = Client::new(Config::default(), Heap);
    let connect = mqtt_proto::Connect::new(Version::V311, "x");
    client.connect(&connect, now).unwrap();
    client.sent(usize::MAX);
    client.receive(&[0x20, 2, 0, 0], now).unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let used = allocation_counter::measure(|| {
            let message = Outgoing::new(topic, qos, &payload);
            client.publish(&message, now).unwrap();
            while !client.outgoing().is_empty() {
                client.sent(100_000);
            }
            if qos == QoS::AtLeastOnce {
                client.receive(&[0x40, 2, 0, 1], now).unwrap();
            }
            while client.has_ended() {
                client.receive(&[], now).unwrap();
            }
        });
        assert_eq!(client.pending(), 0);
        let one_copy = u64::try_from(LEN + (LEN >> 10)).unwrap();
        assert!(used.bytes_max < one_copy, "{used:?}");
        assert!(used.bytes_current < 300_000, "{used:?}");
    }
}

/// A program publishes the next message when it learns that one at QoS 0 was sent. Two of them do not fit into the kept bytes.
#[test]
fn the_end_of_a_large_message_makes_room_for_the_next_one() {
    let now = Instant::from_millis(0);
    let mut config = Config::default();
    (config.outgoing_limit, config.kept_limit) = (200, 900);
    let mut client = Client::new(config, Heap);
    let connect = mqtt_proto::Connect::new(Version::V311, "x");
    client.connect(&connect, now).unwrap();
    client.sent(usize::MAX);
    client.receive(&[0x20, 2, 0, 0], now).unwrap();
    let payload = large();
    let message = Outgoing::new(
        TopicName::from_static("a"),
        QoS::AtMostOnce,
        payload.as_bytes(),
    );
    for _ in 0..10 {
        client.publish(&message, now).unwrap();
        assert_eq!(client.publish(&message, now), Err(Refused::Full));
        client.sent(usize::MAX);
        let step = client.receive(&[], now).unwrap();
        let Step::Packet { event, .. } = step else {
            panic!("{step:?}")
        };
        let was_sent = matches!(
            event,
            Some(Event::Ended {
                how: Ended::Sent,
                ..
            })
        );
        assert!(was_sent, "{event:?}");
    }
}

/// A machine whose messages at QoS 2 wait for records, and what stores all records so far.
type Recording = (TestedMachine, fn(&mut TestedMachine));

fn recording() -> [Recording; 2] {
    let mut client = connected(Role::Client, Version::V5, |config| {
        config.outgoing_limit = 256 << 10;
    });
    client.machine.client().start_journal();
    client.machine.client().restored();
    let mut server = connected(Role::Server, Version::V5, |config| {
        config.outgoing_limit = 256 << 10;
    });
    server.machine.server().start_journal(true);
    let by_client: fn(&mut TestedMachine) = |solo| {
        let len = solo.machine.client().journal().len();
        solo.machine.client().stored(len);
    };
    let by_server: fn(&mut TestedMachine) = |solo| {
        assert!(solo.machine.server().wait_for(1));
        solo.machine.server().stored(1);
    };
    [(client, by_client), (server, by_server)]
}

/// Links between shards, and clients with stored sessions, get messages of more than 16 KiB as well.
#[test]
fn messages_that_wait_for_records_wait_together() {
    for (mut solo, store) in recording() {
        let payload = "x".repeat(40_000);
        for _ in 0..3 {
            solo.must_publish(QoS::ExactlyOnce, &payload);
            assert!(solo.machine.outgoing().is_empty(), "no record is stored");
        }
        store(&mut solo);
        let sent = take(&mut solo, usize::MAX, usize::MAX);
        assert!(sent.len() > 3 * payload.len(), "{} bytes", sent.len());
    }
}
