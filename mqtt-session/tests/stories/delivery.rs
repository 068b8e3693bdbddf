//! Messages at QoS 1 and 2, cut anywhere, and what waits while there is no connection.

use super::*;

/// One `#[test]` for each role and version.
macro_rules! stories {
    ($($(#[$doc:meta])* fn $name:ident($role:ident, $version:ident) $body:block)*) => {
        $($(#[$doc])* mod $name {
            use super::*;
            fn story($role: Role, $version: Version) $body
            #[test] fn client_3_1_1() { story(Role::Client, Version::V311); }
            #[test] fn client_5() { story(Role::Client, Version::V5); }
            #[test] fn server_3_1_1() { story(Role::Server, Version::V311); }
            #[test] fn server_5() { story(Role::Server, Version::V5); }
        })*
    };
}

stories! {
/// 3.1.1 [MQTT-4.3.2-1], 5 [MQTT-4.3.2-2]: a QoS 1 message ends with PUBACK, and the end of its token is reported.
fn qos_1_ends_with_puback(role, version) {
    let mut solo = default(role, version);
    let token = solo.must_publish(QoS::AtLeastOnce, "hello");
    assert_eq!(publishes(&solo.sent(), version).0, [(false, QoS::AtLeastOnce, 1, "hello".into())]);
    solo.feed_ack(AckKind::PubAck, 1);
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token, reason: ReasonCode::Success }]);
    assert_eq!(solo.machine.pending(), 0);
}

/// 3.1.1 [MQTT-4.3.3-1], 5 [MQTT-4.3.3-4]: a QoS 2 message needs PUBREC, PUBREL and PUBCOMP, with its identifier
/// (5 [MQTT-2.2.1-5]).
fn qos_2_ends_with_pubcomp(role, version) {
    let mut solo = default(role, version);
    let token = solo.must_publish(QoS::ExactlyOnce, "hello");
    solo.sent();
    solo.feed_ack(AckKind::PubRec, 1);
    assert_eq!(solo.sent(), ack(AckKind::PubRel, 1));
    assert_eq!(solo.learned(), []);
    solo.feed_ack(AckKind::PubComp, 1);
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token, reason: ReasonCode::Success }]);
}

/// 5, section 3.7.2.1: PUBREL is sent again because its PUBCOMP was lost with the connection. If the peer does not know the
/// identifier any more, this is not an error, because the message has arrived.
fn a_pubcomp_for_an_unknown_identifier_is_a_success(role, version) {
    let mut solo = default(role, version);
    let token = solo.must_publish(QoS::ExactlyOnce, "hello");
    solo.feed_ack(AckKind::PubRec, 1);
    solo.connect(true);
    solo.learned();
    solo.sent();
    let pubcomp = if version == Version::V5 {
        ack_with(AckKind::PubComp, 1, ReasonCode::PacketIdentifierNotFound)
    } else {
        ack(AckKind::PubComp, 1)
    };
    solo.feed(&pubcomp);
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token, reason: ReasonCode::Success }]);
}

/// 5 [MQTT-3.3.4-7] and [MQTT-4.9.0-1], section 4.9: the window is counted correctly in a resumed session: kept messages are
/// sent within the receive maximum, in their order, and then new ones.
fn a_resumed_session_sends_its_messages_within_the_receive_maximum(role, version) {
    let mut solo = with(role, version, |config, opening| {
        config.window = 3;
        if version == Version::V5 {
            config.window = 100;
            peer_announces(role, opening, Property::ReceiveMaximum(3));
        }
    });
    for payload in ["1", "2", "3"] {
        solo.must_publish(QoS::ExactlyOnce, payload);
    }
    assert_eq!(solo.publish(QoS::ExactlyOnce, "4"), Err(Refused::Full));
    solo.sent();
    // The first is released: its PUBREL goes again, and does not count in the window.
    solo.feed_ack(AckKind::PubRec, 1);
    solo.sent();
    for round in 0..5 {
        solo.connect(true);
        let (resent, others) = publishes(&solo.sent(), version);
        let ids: Vec<_> = resent.iter().map(|(dup, _, id, _)| (*dup, *id)).collect();
        assert_eq!((ids, others), (vec![(true, 2), (true, 3)], vec![P::PubRel]), "round {round}");
        // Room for exactly one more: two of three are under way. Then its end must not count back twice.
        if round == 4 {
            solo.must_publish(QoS::AtLeastOnce, "5");
            assert_eq!(solo.publish(QoS::AtLeastOnce, "6"), Err(Refused::Full));
            solo.feed_ack(AckKind::PubComp, 1);
            assert_eq!(solo.publish(QoS::AtLeastOnce, "6"), Err(Refused::Full), "the count underflowed");
            let sent = solo.sent();
            assert_eq!(publishes(&sent, version).0, [(false, QoS::AtLeastOnce, 4, "5".into())]);
            solo.feed_ack(AckKind::PubAck, 4);
        }
    }
    for id in [2, 3] {
        solo.feed_ack(AckKind::PubRec, id);
        solo.feed_ack(AckKind::PubComp, id);
    }
    assert_eq!(solo.machine.pending(), 0);
    for _ in 0..3 {
        solo.must_publish(QoS::AtLeastOnce, "on");
    }
    assert_eq!(solo.publish(QoS::AtLeastOnce, "full"), Err(Refused::Full), "the count leaked");
}

/// 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-11]: each PUBREL after a cut gets one PUBCOMP. The message is not
/// delivered again, also after a second PUBREL.
fn pubrel_after_a_cut_gets_one_pubcomp(role, version) {
    let mut solo = default(role, version);
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "once");
    assert_eq!(solo.messages(), ["once"]);
    assert_eq!(solo.sent(), ack(AckKind::PubRec, 7));
    solo.connect(true);
    solo.learned();
    solo.feed_ack(AckKind::PubRel, 7);
    assert_eq!(solo.sent(), ack(AckKind::PubComp, 7));
    assert_eq!(solo.learned(), []);
    // Again, as if PUBCOMP was lost: an identifier nobody knows is answered, not an error.
    let again = if version == Version::V5 {
        ack_with(AckKind::PubComp, 7, ReasonCode::PacketIdentifierNotFound)
    } else {
        ack(AckKind::PubComp, 7)
    };
    solo.feed_ack(AckKind::PubRel, 7);
    assert_eq!(solo.sent(), again);
    assert_eq!(solo.learned(), []);
}

/// 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-10]: a PUBLISH that is sent again with DUP gets another PUBREC and is not
/// delivered again.
fn a_repeated_qos_2_publish_after_a_cut_is_not_delivered_again(role, version) {
    let mut solo = default(role, version);
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "once");
    assert_eq!(solo.messages(), ["once"]);
    for _ in 0..2 {
        solo.connect(true);
        solo.learned();
        solo.feed_publish(QoS::ExactlyOnce, 7, true, "once");
        assert_eq!(solo.sent(), ack(AckKind::PubRec, 7));
        assert_eq!(solo.learned(), []);
    }
    solo.feed_ack(AckKind::PubRel, 7);
    assert_eq!(solo.sent(), ack(AckKind::PubComp, 7));
    // The identifier is free, so the same number means a new message.
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "another");
    assert_eq!(solo.messages(), ["another"]);
}

/// 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.2.2-5]: identifiers are forgotten with their session, so a new PUBLISH is
/// delivered.
fn after_a_lost_session_a_known_identifier_means_a_new_message(role, version) {
    let mut solo = default(role, version);
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "old");
    assert_eq!(solo.messages(), ["old"]);
    solo.connect(false);
    solo.learned();
    solo.sent();
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "new");
    assert_eq!(solo.messages(), ["new"]);
    assert_eq!(solo.sent(), ack(AckKind::PubRec, 7));
}

/// 3.1.1 [MQTT-4.4.0-1], 5 [MQTT-4.4.0-1]: without session present each message ends in doubt, and none stalls.
fn after_a_lost_session_each_message_ends_in_doubt(role, version) {
    let mut solo = with(role, version, |config, _| config.session_lost = SessionLost::HandBack);
    let tokens =
        [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce].map(|qos| solo.must_publish(qos, "in doubt"));
    solo.sent();
    solo.feed_ack(AckKind::PubRec, 3);
    solo.sent();
    solo.connect(false);
    // The machine hands each back, and the message with it while it is looked at.
    solo.feed(&[]);
    let ended: Vec<_> = solo.learned().into_iter().filter(|h| matches!(h, OwnedEvent::Ended { .. })).collect();
    assert_eq!(ended, tokens.map(|token| OwnedEvent::Ended { token, how: Ended::InDoubt }));
    assert_eq!((solo.machine.pending(), solo.sent()), (0, vec![]));
    let token = solo.must_publish(QoS::AtLeastOnce, "goes on");
    solo.sent();
    solo.feed_ack(AckKind::PubAck, 4);
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token, reason: ReasonCode::Success }]);
}

/// With another configuration they are sent as new messages: without DUP, in their order.
fn after_a_lost_session_each_message_is_sent_as_new(role, version) {
    let mut solo = default(role, version);
    let first = solo.must_publish(QoS::AtLeastOnce, "1");
    let second = solo.must_publish(QoS::ExactlyOnce, "2");
    solo.sent();
    solo.connect(false);
    let (sent, others) = publishes(&solo.sent(), version);
    let expected = [(false, QoS::AtLeastOnce, 1, "1".into()), (false, QoS::ExactlyOnce, 2, "2".into())];
    assert_eq!((sent, others), (expected.to_vec(), vec![]));
    solo.learned();
    solo.feed_ack(AckKind::PubAck, 1);
    solo.feed_ack(AckKind::PubRec, 2);
    solo.feed_ack(AckKind::PubComp, 2);
    let reason = ReasonCode::Success;
    let acknowledged = [first, second].map(|token| OwnedEvent::Acknowledged { token, reason });
    assert_eq!(solo.learned(), acknowledged);
}

/// 3.1.1 [MQTT-2.3.1-2], 5 [MQTT-2.2.1-3]: an identifier that is never acknowledged stays in use and stalls no other
/// message, even if the numbers wrap around several times.
fn an_identifier_that_is_never_acknowledged_stalls_no_other(role, version) {
    let mut solo = default(role, version);
    let stuck = solo.must_publish(QoS::AtLeastOnce, "stuck");
    solo.sent();
    for n in 0..150_000_u32 {
        let token = solo.must_publish(QoS::AtLeastOnce, "passes");
        let id = token.packet_id().unwrap().get();
        assert_ne!(id, 1, "the stuck identifier was given away at {n}");
        solo.sent();
        solo.feed_ack(AckKind::PubAck, id);
        assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token, reason: ReasonCode::Success }]);
    }
    solo.feed_ack(AckKind::PubAck, 1);
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token: stuck, reason: ReasonCode::Success }]);
}

/// With a full window the message is refused: nothing is lost, and no identifier is used.
fn a_full_window_refuses_the_message(role, version) {
    let mut solo = with(role, version, |config, _| config.window = 2);
    let first = solo.must_publish(QoS::AtLeastOnce, "1");
    solo.must_publish(QoS::AtLeastOnce, "2");
    for _ in 0..10 {
        assert_eq!(solo.publish(QoS::AtLeastOnce, "3"), Err(Refused::Full));
    }
    let sent = solo.sent();
    assert_eq!(publishes(&sent, version).0.len(), 2);
    solo.feed_ack(AckKind::PubAck, 1);
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token: first, reason: ReasonCode::Success }]);
    let third = solo.must_publish(QoS::AtLeastOnce, "3");
    assert_eq!(third.packet_id().unwrap().get(), 3, "the refused ones took no identifier");
}

/// The first five bytes announce 256 MiB. The packet is refused before memory is allocated.
fn a_giant_first_packet_is_refused_before_any_memory_is_taken(role, version) {
    let opening = Opening::persistent(version);
    let mut solo = TestedMachine::new(role, opening.clone(), Config::default());
    let now = solo.now;
    match role {
        Role::Client => solo.machine.client().connect(&opening.connect(), now).unwrap(),
        Role::Server => solo.machine.server().opened(now),
    }
    solo.feed(&hex("10 FF FF FF 7F"));
    let Some(Violation::Malformed(error)) = closed(&mut solo) else { panic!("not refused") };
    assert_eq!(error.rule, Rule::TooLarge { len: 268_435_460, max: 1 << 20 });
}

/// 3.1.1 [MQTT-4.6.0-2], 5 [MQTT-4.6.0-2]: the application acknowledges in any order; PUBACK and PUBREC are sent in
/// the order of the messages.
fn acknowledging_by_hand_keeps_the_order_of_the_messages(role, version) {
    let mut solo = with(role, version, |config, _| config.acknowledge = Acknowledge::ByHand);
    for (id, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce), (4, QoS::ExactlyOnce)] {
        solo.feed_publish(qos, id, false, "m");
    }
    let receipts: Vec<_> = solo
        .learned()
        .into_iter()
        .map(|h| if let OwnedEvent::Message { receipt, .. } = h { receipt.unwrap() } else { panic!("{h:?}") })
        .collect();
    let now = solo.now;
    assert_eq!(solo.sent(), []);
    solo.machine.acknowledge(receipts[2], ReasonCode::Success, now).unwrap();
    solo.machine.acknowledge(receipts[3], ReasonCode::Success, now).unwrap();
    assert_eq!(solo.sent(), [], "3 and 4 wait for 1 and 2");
    solo.machine.acknowledge(receipts[0], ReasonCode::Success, now).unwrap();
    assert_eq!(solo.sent(), [ack(AckKind::PubAck, 1), ack(AckKind::PubAck, 3)].concat());
    solo.machine.acknowledge(receipts[1], ReasonCode::Success, now).unwrap();
    assert_eq!(solo.sent(), [ack(AckKind::PubRec, 2), ack(AckKind::PubRec, 4)].concat());
    let again = solo.machine.acknowledge(receipts[1], ReasonCode::Success, now);
    assert_eq!(again, Err(Refused::NothingToAcknowledge));
}

/// 5 [MQTT-3.4.2-1] and [MQTT-3.5.2-1]: a reason code that the packet does not have is refused, and the message still waits for its
/// acknowledgement.
fn acknowledging_by_hand_with_a_wrong_reason_code_is_refused(role, version) {
    let mut solo = with(role, version, |config, _| config.acknowledge = Acknowledge::ByHand);
    for (id, qos, kind) in [(1, QoS::AtLeastOnce, AckKind::PubAck), (2, QoS::ExactlyOnce, AckKind::PubRec)] {
        solo.feed_publish(qos, id, false, "m");
        let Some(OwnedEvent::Message { receipt: Some(receipt), .. }) = solo.learned().pop() else {
            panic!("a message");
        };
        let now = solo.now;
        let wrong = ReasonCode::SessionTakenOver;
        let refused = solo.machine.acknowledge(receipt, wrong, now);
        assert_eq!(refused, Err(Refused::Encode(EncodeError::ReasonCode(wrong))));
        assert_eq!(solo.sent(), []);
        solo.machine.acknowledge(receipt, ReasonCode::Success, now).unwrap();
        assert_eq!(solo.sent(), ack(kind, id));
    }
}

/// A QoS 2 message that the application has and did not acknowledge is not delivered again after a cut, and its receipt is still
/// valid. A QoS 1 message is delivered again.
fn after_a_cut_a_qos_2_receipt_is_still_valid(role, version) {
    let mut solo = with(role, version, |config, _| config.acknowledge = Acknowledge::ByHand);
    solo.feed_publish(QoS::ExactlyOnce, 5, false, "two");
    solo.feed_publish(QoS::AtLeastOnce, 6, false, "one");
    let learned = solo.learned();
    let [OwnedEvent::Message { receipt: Some(two), .. }, OwnedEvent::Message { receipt: Some(one), .. }] = learned[..]
    else { panic!("{learned:?}") };
    solo.connect(true);
    solo.learned();
    let now = solo.now;
    assert_eq!(solo.machine.acknowledge(one, ReasonCode::Success, now), Err(Refused::NothingToAcknowledge));
    solo.machine.acknowledge(two, ReasonCode::Success, now).unwrap();
    assert_eq!(solo.sent(), [], "the peer has not sent it again yet");
    solo.feed_publish(QoS::ExactlyOnce, 5, true, "two");
    solo.feed_publish(QoS::AtLeastOnce, 6, true, "one");
    assert_eq!(solo.messages(), ["one"]);
    assert_eq!(solo.sent(), ack(AckKind::PubRec, 5));
}

/// A repeated PUBREC gets another PUBREL, and so does a PUBREC without a message, so that its sender can forget the identifier.
fn a_repeated_pubrec_gets_another_pubrel(role, version) {
    let mut solo = default(role, version);
    solo.must_publish(QoS::ExactlyOnce, "x");
    solo.sent();
    for _ in 0..3 {
        solo.feed_ack(AckKind::PubRec, 1);
        assert_eq!(solo.sent(), ack(AckKind::PubRel, 1));
    }
    solo.feed_ack(AckKind::PubRec, 99);
    assert_eq!(solo.sent(), ack(AckKind::PubRel, 99));
    assert_eq!(solo.learned(), []);
}

/// An acknowledgement of the wrong kind ends the connection. The session stays and can be resumed.
fn the_wrong_acknowledgement_ends_the_connection_not_the_session(role, version) {
    let mut solo = default(role, version);
    solo.must_publish(QoS::ExactlyOnce, "x");
    solo.sent();
    solo.feed_ack(AckKind::PubAck, 1);
    let id = PacketId::FIRST;
    assert_eq!(closed(&mut solo), Some(Violation::WrongAck { packet: P::PubAck, id }));
    let expected = if version == Version::V5 { hex("E0 01 82") } else { vec![] };
    assert_eq!(solo.sent(), expected, "MQTT 5 says why");
    solo.connect(true);
    assert_eq!(publishes(&solo.sent(), version).0, [(true, QoS::ExactlyOnce, 1, "x".into())]);
}

/// Messages that are published without a connection are kept in their order, up to the limit. Further ones are refused.
fn offline_messages_are_kept_up_to_the_limit(role, version) {
    let mut solo = with(role, version, |config, _| config.queue = 3);
    solo.disconnect();
    for (qos, payload) in [(QoS::AtMostOnce, "1"), (QoS::AtLeastOnce, "2"), (QoS::ExactlyOnce, "3")] {
        solo.must_publish(qos, payload);
    }
    assert_eq!(solo.publish(QoS::AtLeastOnce, "4"), Err(Refused::Full));
    solo.connect(true);
    let sent = publishes(&solo.sent(), version).0;
    let brief: Vec<_> = sent.iter().map(|(dup, qos, _, payload)| (*dup, *qos, payload.as_str())).collect();
    let expected = [
        (false, QoS::AtMostOnce, "1"), (false, QoS::AtLeastOnce, "2"), (false, QoS::ExactlyOnce, "3"),
    ];
    assert_eq!(brief, expected);
}

/// With drop-oldest the oldest message is dropped for a new one, and the end of its token is reported.
fn with_drop_oldest_the_oldest_message_makes_room(role, version) {
    let mut solo = with(role, version, |config, _| (config.queue, config.offline) = (2, Offline::DropOldest));
    solo.disconnect();
    let tokens: Vec<_> = (0..50).map(|n| solo.must_publish(QoS::AtLeastOnce, &n.to_string())).collect();
    solo.feed(&[]);
    let dropped: Vec<_> =
        tokens[..48].iter().map(|token| OwnedEvent::Ended { token: *token, how: Ended::Dropped }).collect();
    assert_eq!(solo.learned(), dropped);
    solo.connect(true);
    let sent = publishes(&solo.sent(), version).0;
    assert_eq!(sent.iter().map(|(.., payload)| payload.as_str()).collect::<Vec<_>>(), ["48", "49"]);
}

/// No message is dropped for one that would have no room even then, because messages that the peer may have seen are not dropped.
fn no_message_is_dropped_for_one_that_has_no_room(role, version) {
    let mut solo = with(role, version, |config, _| (config.kept_limit, config.offline) = (300, Offline::DropOldest));
    let (long, longer) = ("x".repeat(200), "y".repeat(120));
    solo.must_publish(QoS::AtLeastOnce, &long);
    solo.disconnect();
    solo.must_publish(QoS::AtLeastOnce, "short");
    assert_eq!(solo.publish(QoS::AtLeastOnce, &longer), Err(Refused::Full));
    solo.connect(true);
    let sent = publishes(&solo.sent(), version).0;
    assert_eq!(sent.iter().map(|(.., payload)| payload.as_str()).collect::<Vec<_>>(), [&long, "short"]);
}

/// With reject no message is kept.
fn with_reject_no_message_is_kept(role, version) {
    let mut solo = with(role, version, |config, _| config.offline = Offline::Reject);
    solo.disconnect();
    assert_eq!(solo.publish(QoS::AtLeastOnce, "x"), Err(Refused::Offline));
    assert_eq!(solo.machine.pending(), 0);
}

/// Acknowledgements have room in a buffer that is full of messages.
fn acknowledgements_find_room_when_messages_do_not(role, version) {
    let mut solo = with(role, version, |config, _| config.outgoing_limit = 400);
    while solo.publish(QoS::AtMostOnce, "a message that takes some room").is_ok() {}
    solo.feed_publish(QoS::AtLeastOnce, 1, false, "in");
    assert_eq!(solo.messages(), ["in"]);
    assert!(solo.sent_types().ends_with(&[P::PubAck]));
}
}
