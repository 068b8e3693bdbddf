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
/// 3.1.1 [MQTT-4.3.2-1], 5 [MQTT-4.3.2-2]: QoS 1 ends with PUBACK, and its token says so.
fn qos_1_ends_with_puback(role, version) {
    let mut solo = default(role, version);
    let token = solo.must_publish(QoS::AtLeastOnce, "hello");
    assert_eq!(publishes(&solo.sent(), version).0, [(false, QoS::AtLeastOnce, 1, "hello".into())]);
    solo.feed_ack(AckKind::PubAck, 1);
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token, reason: ReasonCode::Success }]);
    assert_eq!(solo.machine.pending(), 0);
}

/// 3.1.1 [MQTT-4.3.3-1], 5 [MQTT-4.3.3-4]: QoS 2 takes PUBREC, PUBREL, PUBCOMP. The identifier is 5 [MQTT-2.2.1-5]'s.
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

/// 5, section 3.7.2.1: PUBREL again, whose PUBCOMP was lost with the connection; that the peer has forgotten the identifier is no
/// error, for the message has arrived.
fn a_pubcomp_that_knows_nothing_any_more_is_a_success(role, version) {
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

/// 5 [MQTT-3.3.4-7] and [MQTT-4.9.0-1], section 4.9: after a resume the count of messages under way neither underflows nor
/// leaks; what is stored goes out within the receive maximum, in its order, and publishing goes on.
fn resume_with_a_receive_maximum_and_stored_publishes(role, version) {
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

/// 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-11]: PUBREL after a cut gets one PUBCOMP, no second delivery, no error; twice in a row.
fn inbound_qos_2_cut_after_pubrec_then_pubrel(role, version) {
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

/// 3.1.1 [MQTT-4.3.3-2], 5 [MQTT-4.3.3-10]: PUBLISH sent again with DUP gets PUBREC again, and is not delivered again.
fn inbound_qos_2_cut_after_pubrec_then_publish_with_dup(role, version) {
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
    // The identifier is free: the same number is a new message.
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "another");
    assert_eq!(solo.messages(), ["another"]);
}

/// 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.2.2-5]: with the session its identifiers are forgotten, so a new PUBLISH is delivered.
fn inbound_qos_2_identifier_known_but_the_session_is_gone(role, version) {
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

/// 3.1.1 [MQTT-4.4.0-1], 5 [MQTT-4.4.0-1]: without session present nothing hangs; each message ends in doubt.
fn session_lost_each_message_ends_in_doubt(role, version) {
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

/// By configuration they are sent as new instead: without DUP, in their order.
fn session_lost_each_message_is_sent_anew(role, version) {
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

/// 3.1.1 [MQTT-2.3.1-2], 5 [MQTT-2.2.1-3]: an identifier that is never acknowledged stays taken, and stalls no other,
/// over several rounds through the number space.
fn a_packet_id_stuck_for_ever_while_thousands_pass(role, version) {
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

/// A full window hands the message back: nothing is lost, no identifier is taken.
fn window_full_the_message_comes_back(role, version) {
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

/// 256 MiB announced by the first five bytes: refused before any memory is taken.
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

/// 3.1.1 [MQTT-4.6.0-2], 5 [MQTT-4.6.0-2]: acknowledged by hand in any order, PUBACK and PUBREC go out in the order of
/// the messages.
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

/// 5 [MQTT-3.4.2-1] and [MQTT-3.5.2-1]: a reason code that the packet does not have is refused, and the message still awaits its
/// acknowledgement.
fn by_hand_with_a_reason_code_that_cannot_be(role, version) {
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

/// A QoS 2 message that the application has but did not acknowledge is not delivered a second time after a cut, and its
/// receipt is still good; a QoS 1 message comes again.
fn by_hand_across_a_cut(role, version) {
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

/// A repeated PUBREC gets its PUBREL again, one that nobody waits for as well: its sender can then forget it.
fn a_pubrec_again_gets_pubrel_again(role, version) {
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

/// An acknowledgement of the wrong kind ends the connection; the session stays and goes on.
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

/// Messages published while offline are kept in their order, up to the bound; then the message comes back.
fn offline_messages_are_kept_up_to_the_bound(role, version) {
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

/// With drop-oldest the oldest makes room, and its token is told so.
fn offline_the_oldest_makes_room(role, version) {
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

/// Nothing is dropped for a message that has no room even then: what the peer may have seen does not give way.
fn offline_nothing_is_dropped_in_vain(role, version) {
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

/// With reject nothing is kept.
fn offline_rejects(role, version) {
    let mut solo = with(role, version, |config, _| config.offline = Offline::Reject);
    solo.disconnect();
    assert_eq!(solo.publish(QoS::AtLeastOnce, "x"), Err(Refused::Offline));
    assert_eq!(solo.machine.pending(), 0);
}

/// A buffer full of messages does not keep acknowledgements back.
fn acknowledgements_find_room_when_messages_do_not(role, version) {
    let mut solo = with(role, version, |config, _| config.outgoing_limit = 400);
    while solo.publish(QoS::AtMostOnce, "a message that takes some room").is_ok() {}
    solo.feed_publish(QoS::AtLeastOnce, 1, false, "in");
    assert_eq!(solo.messages(), ["in"]);
    assert!(solo.sent_types().ends_with(&[P::PubAck]));
}
}
