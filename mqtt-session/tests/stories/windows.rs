//! The windows of both sides, and messages that are more or larger than they allow.

use super::*;

/// 3.1.1 [MQTT-2.3.1-2], 5 [MQTT-2.2.1-3]: PUBLISH and SUBSCRIBE share their identifiers, also when these wrap around.
#[test]
fn subscribe_and_publish_ids_interleave_around_the_wrap() {
    for version in [Version::V311, Version::V5] {
        let mut solo = default(Role::Client, version);
        let filter = [Subscription::new(
            TopicFilter::new("a/#").unwrap(),
            QoS::AtLeastOnce,
        )];
        let mut stuck = Vec::new();
        for n in 0..140_000_u32 {
            let now = solo.now;
            let token = if n % 2 == 0 {
                solo.must_publish(QoS::AtLeastOnce, "x")
            } else {
                solo.machine
                    .client()
                    .subscribe(&filter, Properties::EMPTY, now)
                    .unwrap()
            };
            let id = token.packet_id().unwrap();
            assert!(!stuck.contains(&id), "{id} is still in use");
            solo.sent();
            // Around each wrap some are never answered.
            if (65_530..65_540).contains(&n) {
                stuck.push(id);
                continue;
            }
            if n % 2 == 0 {
                solo.feed_ack(AckKind::PubAck, id.get());
            } else {
                solo.feed_packet(&Packet::SubAck(SubAck::new(id, &[ReasonCode::GrantedQoS1])));
            }
            assert_eq!(solo.learned().len(), 1);
        }
        assert_eq!(solo.machine.pending(), stuck.len());
    }
}

/// A client that receives messages and publishes them again in one task does not stall when both windows are full.
#[test]
fn a_client_that_republishes_under_full_windows_never_freezes() {
    for version in [Version::V311, Version::V5] {
        let mut solo = with(Role::Client, version, |config, _| {
            (config.window, config.window_qos2, config.outgoing_limit) = (2, 2, 512);
        });
        let (mut waiting, mut answered, mut next) = (Vec::new(), 0, 1_u16);
        let mut unacknowledged: Vec<(u16, bool)> = Vec::new();
        for round in 0..2_000_u32 {
            // The broker fills its window towards us and never waits.
            for _ in 0..2 {
                solo.feed_publish(QoS::ExactlyOnce, next, false, "m");
                next = next % 60_000 + 1;
            }
            waiting.extend(solo.messages());
            while let Some(message) = waiting.pop() {
                if solo.publish(QoS::ExactlyOnce, &message).is_err() {
                    waiting.push(message);
                    break;
                }
            }
            let mut bytes = &solo.sent()[..];
            while let Ok(Decoded::Packet { packet, consumed }) =
                Packet::decode(bytes, version, MAX_PACKET)
            {
                match packet {
                    Packet::Publish(p) => {
                        unacknowledged.push((p.delivery.packet_id().unwrap().get(), false))
                    }
                    Packet::PubRec(a) => solo.feed_ack(AckKind::PubRel, a.packet_id.get()),
                    Packet::PubRel(a) => solo.feed_ack(AckKind::PubComp, a.packet_id.get()),
                    _ => {}
                }
                bytes = &bytes[consumed..];
            }
            // It acknowledges ours, one a round, after our window was full.
            if round % 2 == 1 && !unacknowledged.is_empty() {
                solo.feed_ack(AckKind::PubRec, unacknowledged.remove(0).0);
                answered += 1;
            }
        }
        assert_eq!(closed(&mut solo), None);
        assert!(answered > 900, "froze after {answered}");
    }
}

/// 5 [MQTT-4.3.3-9], [MQTT-4.4.0-2]: a PUBREC of 0x80 or above ends the message on both sides.
#[test]
fn a_pubrec_that_refuses_ends_the_message() {
    let mut solo = default(Role::Client, Version::V5);
    let token = solo.must_publish(QoS::ExactlyOnce, "x");
    solo.sent();
    solo.feed(&ack_with(AckKind::PubRec, 1, ReasonCode::QuotaExceeded));
    let reason = ReasonCode::QuotaExceeded;
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token, reason }]);
    assert_eq!((solo.machine.pending(), solo.sent()), (0, vec![]));
    // The receiver's side of it.
    let mut solo = with(Role::Server, Version::V5, |config, _| {
        config.acknowledge = Acknowledge::ByHand
    });
    solo.feed_publish(QoS::ExactlyOnce, 9, false, "no");
    let learned = solo.learned();
    let [
        OwnedEvent::Message {
            receipt: Some(receipt),
            ..
        },
    ] = learned[..]
    else {
        panic!("{learned:?}")
    };
    let now = solo.now;
    solo.machine
        .acknowledge(receipt, ReasonCode::NotAuthorized, now)
        .unwrap();
    assert_eq!(
        solo.sent(),
        ack_with(AckKind::PubRec, 9, ReasonCode::NotAuthorized)
    );
    solo.feed_publish(QoS::ExactlyOnce, 9, false, "new");
    assert_eq!(solo.messages(), ["new"]);
}

/// 5 [MQTT-3.3.4-7] and [MQTT-3.3.4-9]: one message more than the receive maximum ends the connection with 0x93.
#[test]
fn more_than_the_receive_maximum_ends_the_connection() {
    for role in [Role::Client, Role::Server] {
        let mut solo = with(role, Version::V5, |_, opening| {
            announces(role, opening, Property::ReceiveMaximum(2))
        });
        for id in 1..=3 {
            solo.feed_publish(QoS::ExactlyOnce, id, false, "x");
        }
        assert_eq!(solo.messages().len(), 2);
        assert_eq!(closed(&mut solo), Some(Violation::ReceiveMaximumExceeded));
        assert!(solo.sent().ends_with(&hex("E0 01 93")));
        // What was half received before a resume does not count on the new connection.
        solo.connect(true);
        solo.learned();
        for id in 3..=4 {
            solo.feed_publish(QoS::ExactlyOnce, id, false, "x");
        }
        assert_eq!(closed(&mut solo), None);
    }
}

/// 5 [MQTT-3.2.2-11], [MQTT-3.2.2-14]: a message that waited is not sent to a server whose CONNACK does not support it. It ends,
/// and the others are sent. Messages that were sent on an earlier connection are no exception.
#[test]
fn a_waiting_message_that_the_server_does_not_support_ends() {
    let not_supported = |token| OwnedEvent::Ended {
        token,
        how: Ended::NotSupported,
    };
    let mut solo = default(Role::Client, Version::V5);
    let sent = solo.must_publish(QoS::ExactlyOnce, "sent");
    solo.disconnect();
    let retained = Outgoing {
        retain: true,
        ..Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, b"retained")
    };
    let now = solo.now;
    let retained = solo.machine.client().publish(&retained, now).unwrap();
    let small = solo.must_publish(QoS::AtLeastOnce, "y");
    let waits = solo.must_publish(QoS::ExactlyOnce, "waits");
    solo.sent();
    solo.learned();
    solo.opening.connack.push(Property::MaximumQoS(true));
    solo.opening.connack.push(Property::RetainAvailable(false));
    solo.connect(true);
    solo.feed(&[]);
    let learned = solo.learned();
    for token in [sent, retained.unwrap(), waits] {
        assert!(learned.contains(&not_supported(token)), "{learned:?}");
    }
    assert_eq!(
        publishes(&solo.sent(), Version::V5).0,
        [(
            false,
            QoS::AtLeastOnce,
            small.packet_id().unwrap().get(),
            "y".into()
        )]
    );
    assert_eq!(solo.machine.client().pending(), 1);
}

/// A resumed session with smaller limits does not stall: messages that no longer fit end, and the others are sent.
#[test]
fn a_resumed_session_with_a_smaller_packet_size_drains() {
    let mut solo = default(Role::Client, Version::V5);
    let large = solo.must_publish(QoS::AtLeastOnce, &"x".repeat(100));
    let small = solo.must_publish(QoS::AtLeastOnce, "y");
    solo.sent();
    solo.opening.connack.push(Property::MaximumPacketSize(50));
    solo.connect(true);
    solo.feed(&[]);
    assert!(solo.learned().contains(&OwnedEvent::Ended {
        token: large,
        how: Ended::TooLarge
    }));
    assert_eq!(
        publishes(&solo.sent(), Version::V5).0,
        [(true, QoS::AtLeastOnce, 2, "y".into())]
    );
    solo.feed_ack(AckKind::PubAck, 2);
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Acknowledged {
            token: small,
            reason: ReasonCode::Success
        }]
    );
    assert_eq!(solo.machine.pending(), 0);
}
