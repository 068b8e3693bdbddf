//! Named stories that published libraries fail, each told of client and server, in 3.1.1 and 5. The test is the peer.

use mqtt_proto::{
    AckKind, Auth, ConnAck, Connect, Decoded, Disconnect, EncodeError, MAX_PACKET, Packet,
    PacketId, PacketType, Properties, Property, Publish, QoS, ReasonCode, Rule, SubAck,
    Subscription, TopicAlias, TopicFilter, TopicName, Version, Will,
};
use mqtt_session::{
    Acknowledge, Client, Config, Ended, Event, Heap, Instant, Offline, Outgoing, Refused,
    SessionLost, Step, Violation, WillDue,
};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};
use mqtt_testing::packets::vectors::hex;
use mqtt_testing::packets::{ack, ack_with, encode, publish};

use PacketType as P;

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

fn default(role: Role, version: Version) -> TestedMachine {
    TestedMachine::connected(role, Opening::persistent(version), Config::default())
}

fn with(
    role: Role,
    version: Version,
    set: impl FnOnce(&mut Config, &mut Opening),
) -> TestedMachine {
    let (mut config, mut opening) = (Config::default(), Opening::persistent(version));
    set(&mut config, &mut opening);
    TestedMachine::connected(role, opening, config)
}

/// What the peer of `role` announces in 5.
fn peer_announces(role: Role, opening: &mut Opening, property: Property<'static>) {
    match role {
        Role::Client => opening.connack.push(property),
        Role::Server => opening.connect.push(property),
    }
}

/// What the machine of `role` announces in 5.
fn announces(role: Role, opening: &mut Opening, property: Property<'static>) {
    match role {
        Role::Client => opening.connect.push(property),
        Role::Server => opening.connack.push(property),
    }
}

/// DUP, QoS, identifier and payload of a PUBLISH.
type Seen = (bool, QoS, u16, String);

/// The PUBLISH packets in `bytes`, and the types of all others.
fn publishes(mut bytes: &[u8], version: Version) -> (Vec<Seen>, Vec<P>) {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    while let Ok(Decoded::Packet { packet, consumed }) = Packet::decode(bytes, version, MAX_PACKET)
    {
        match packet {
            Packet::Publish(p) => {
                let id = p.delivery.packet_id().map_or(0, PacketId::get);
                found.push((
                    p.dup,
                    p.qos(),
                    id,
                    String::from_utf8(p.payload.to_vec()).unwrap(),
                ));
            }
            other => others.push(other.packet_type()),
        }
        bytes = &bytes[consumed..];
    }
    (found, others)
}

fn closed(solo: &mut TestedMachine) -> Option<Violation> {
    solo.learned().into_iter().find_map(|h| {
        if let OwnedEvent::Closed(why) = h {
            Some(why)
        } else {
            None
        }
    })
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

/// 3.1.1 [MQTT-2.3.1-2], 5 [MQTT-2.2.1-3]: one identifier space for PUBLISH and SUBSCRIBE, around the wrap.
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

/// A broker that answers everything but PINGREQ is noticed.
#[test]
fn a_broker_that_answers_everything_but_pingreq_is_noticed() {
    for version in [Version::V311, Version::V5] {
        let mut solo = default(Role::Client, version);
        let mut noticed = None;
        for second in 0..200_u64 {
            // It answers every publish, and sends messages of its own.
            let token = solo.must_publish(QoS::AtLeastOnce, "x");
            solo.sent();
            solo.feed_ack(AckKind::PubAck, token.packet_id().unwrap().get());
            solo.feed_publish(QoS::AtMostOnce, 0, false, "y");
            solo.learned();
            if second % 3 == 0 {
                continue;
            }
            // Sometimes nothing is sent for a whole keep-alive, so a ping is due.
            solo.wait(53_000);
            let pinged = solo.sent_types().contains(&P::PingReq);
            solo.feed_publish(QoS::AtMostOnce, 0, false, "y");
            solo.learned();
            solo.wait(9_999);
            assert_eq!(closed(&mut solo), None);
            solo.feed_publish(QoS::AtMostOnce, 0, false, "y");
            solo.learned();
            solo.wait(1);
            if let Some(why) = closed(&mut solo) {
                assert!(pinged);
                noticed = Some((second, why));
                break;
            }
        }
        assert_eq!(noticed, Some((1, Violation::PingTimeout)));
    }
}

/// 3.1.1 [MQTT-3.1.2-23], 5 [MQTT-3.1.2-20]: pings go out in time, whatever the clock does, one at a time.
#[test]
fn pings_go_out_in_time_and_a_long_sleep_makes_one() {
    let mut solo = default(Role::Client, Version::V311);
    for _ in 0..5 {
        let due = solo.machine.deadline().unwrap();
        assert!(due.since(solo.now).as_secs() < 60);
        solo.now = due;
        solo.wait(0);
        assert_eq!(solo.sent(), hex("C0 00"));
        solo.feed(&hex("D0 00"));
        assert_eq!(solo.learned(), [OwnedEvent::Pong]);
    }
    // Asleep for a day: it pings once, and judges only what happens after.
    solo.wait(86_400_000);
    assert_eq!((solo.sent(), solo.learned()), (hex("C0 00"), vec![]));
    solo.wait(9_999);
    assert_eq!(solo.learned(), []);
    solo.wait(1);
    assert_eq!(closed(&mut solo), Some(Violation::PingTimeout));
}

/// An application that only publishes must notice as well that nobody listens any more.
#[test]
fn one_who_only_publishes_pings_as_well() {
    let mut solo = default(Role::Client, Version::V5);
    for _ in 0..60 {
        solo.wait(1_000);
        solo.publish(QoS::AtMostOnce, "x").unwrap();
    }
    assert!(solo.sent_types().contains(&P::PingReq));
    solo.wait(10_000);
    assert_eq!(closed(&mut solo), Some(Violation::PingTimeout));
}

/// An application that takes its time is not mistaken for a dead broker: PINGRESP may lie behind what it has not taken.
#[test]
fn a_slow_application_is_not_a_dead_broker() {
    let mut solo = default(Role::Client, Version::V311);
    solo.wait(55_000);
    assert_eq!(solo.sent(), hex("C0 00"));
    let message = encode(
        &Packet::Publish(publish(QoS::AtMostOnce, 0, false, "x")),
        Version::V311,
    );
    // One message is taken, then nothing for longer than the ping time-out. What follows was there all the time.
    let input = [message.clone(), hex("D0 00")].concat();
    let now = solo.now;
    assert!(matches!(
        solo.machine.receive(&input, now),
        Ok(Step::Packet { .. })
    ));
    solo.wait(20_000);
    assert_eq!(solo.learned(), []);
    solo.feed(&input[message.len()..]);
    assert_eq!(solo.learned(), [OwnedEvent::Pong]);
    solo.wait(1);
    assert_eq!(solo.learned(), []);
}

/// 3.1.1 [MQTT-3.1.2-24], 5 [MQTT-3.1.2-22]: the server ends it after one and a half keep-alives of silence.
#[test]
fn the_server_ends_a_silent_connection_after_one_and_a_half_keep_alives() {
    for version in [Version::V311, Version::V5] {
        let mut solo = default(Role::Server, version);
        solo.wait(89_999);
        assert_eq!(solo.learned(), []);
        solo.wait(1);
        assert_eq!(closed(&mut solo), Some(Violation::KeepAliveTimeout));
        let expected = if version == Version::V5 {
            hex("E0 01 8D")
        } else {
            vec![]
        };
        assert_eq!(solo.sent(), expected);
        // Another factor, as one broker has it.
        let mut solo = with(Role::Server, version, |config, _| {
            config.keep_alive_percent = 250
        });
        solo.wait(149_999);
        assert_eq!(solo.learned(), []);
        solo.wait(1);
        assert!(closed(&mut solo).is_some());
    }
}

/// A client that receives and republishes in one task, both windows full, never freezes.
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

/// 5 [MQTT-3.2.2-4]: session present without local state ends the connection; by `assume_session` an application that
/// kept nothing says that there is a state, and it is empty.
#[test]
fn session_present_without_local_state_is_closed_as_5_demands() {
    let mut solo = TestedMachine::new(
        Role::Client,
        Opening::persistent(Version::V5),
        Config::default(),
    );
    solo.connect(true);
    assert_eq!(
        closed(&mut solo),
        Some(Violation::SessionPresentWithoutState)
    );
    assert!(solo.machine.client().must_start_clean());
    let mut solo = TestedMachine::new(
        Role::Client,
        Opening::persistent(Version::V5),
        Config::default(),
    );
    solo.machine
        .client()
        .assume_session(mqtt_testing::machines::CLIENT_ID);
    solo.connect(true);
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Connected {
            resumed: true,
            unasked_session: false
        }]
    );
    // 3.1.1 does not demand it: a client that was restarted goes on.
    let mut solo = TestedMachine::new(
        Role::Client,
        Opening::persistent(Version::V311),
        Config::default(),
    );
    solo.connect(true);
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Connected {
            resumed: true,
            unasked_session: false
        }]
    );
}

/// A real broker says session present after a clean connect (3.1.1 [MQTT-3.2.2-1]): the client carries on and says so.
#[test]
fn session_present_after_a_clean_connect_is_told_in_an_event() {
    let opening = Opening {
        clean_start: true,
        ..Opening::persistent(Version::V311)
    };
    let mut solo = TestedMachine::new(Role::Client, opening, Config::default());
    solo.connect(true);
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Connected {
            resumed: false,
            unasked_session: true
        }]
    );
    assert!(solo.publish(QoS::AtLeastOnce, "x").is_ok());
}

/// A real broker always grants QoS 1, also where 0 was asked for: accepted, and told.
#[test]
fn suback_granting_more_than_asked_for_is_accepted_and_told() {
    for version in [Version::V311, Version::V5] {
        let mut solo = default(Role::Client, version);
        let filter = TopicFilter::new("a").unwrap();
        let asked = [
            Subscription::new(filter, QoS::AtMostOnce),
            Subscription::new(filter, QoS::ExactlyOnce),
        ];
        let now = solo.now;
        let token = solo
            .machine
            .client()
            .subscribe(&asked, Properties::EMPTY, now)
            .unwrap();
        solo.sent();
        let codes = [ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS1];
        solo.feed_packet(&Packet::SubAck(SubAck::new(PacketId::FIRST, &codes)));
        assert_eq!(
            solo.learned(),
            [OwnedEvent::Subscribed {
                token,
                codes: codes.to_vec(),
                granted_more: true
            }]
        );
        // 3.1.1 [MQTT-3.8.4-5], 5 [MQTT-3.8.4-6]: but each filter must have its code.
        solo.machine
            .client()
            .subscribe(&asked, Properties::EMPTY, now)
            .unwrap();
        solo.feed_packet(&Packet::SubAck(SubAck::new(
            PacketId::new(2).unwrap(),
            &codes[..1],
        )));
        assert_eq!(
            closed(&mut solo),
            Some(Violation::CodeCount {
                codes: 1,
                filters: 2
            })
        );
    }
}

/// A refused subscription is told with its code; 5 has many, 3.1.1 one.
#[test]
fn each_filter_has_its_result() {
    let mut solo = default(Role::Client, Version::V311);
    let filter = TopicFilter::new("a").unwrap();
    let now = solo.now;
    let asked = [Subscription::new(filter, QoS::ExactlyOnce); 2];
    let token = solo
        .machine
        .client()
        .subscribe(&asked, Properties::EMPTY, now)
        .unwrap();
    let codes = [ReasonCode::UnspecifiedError, ReasonCode::GrantedQoS2];
    solo.feed_packet(&Packet::SubAck(SubAck::new(PacketId::FIRST, &codes)));
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Subscribed {
            token,
            codes: codes.to_vec(),
            granted_more: false
        }]
    );
}

/// Requests do not outlive their connection: nobody waits for ever for an answer that cannot come.
#[test]
fn a_subscribe_that_is_not_answered_before_the_cut_ends_in_doubt() {
    let mut solo = default(Role::Client, Version::V5);
    let filter = [Subscription::new(
        TopicFilter::new("a").unwrap(),
        QoS::AtMostOnce,
    )];
    let now = solo.now;
    let token = solo
        .machine
        .client()
        .subscribe(&filter, Properties::EMPTY, now)
        .unwrap();
    solo.disconnect();
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Ended {
            token,
            how: Ended::InDoubt
        }]
    );
    assert_eq!(
        solo.machine
            .client()
            .subscribe(&filter, Properties::EMPTY, now),
        Err(Refused::Offline)
    );
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

/// 5 [MQTT-3.3.2-9] to [MQTT-3.3.2-12]: an alias is set once and then stands for its topic, up to the maximum announced.
#[test]
fn topic_aliases_come_in() {
    for role in [Role::Client, Role::Server] {
        let mut solo = with(role, Version::V5, |_, opening| {
            announces(role, opening, Property::TopicAliasMaximum(2))
        });
        let named = Publish {
            topic_alias: TopicAlias::new(2),
            ..publish(QoS::AtMostOnce, 0, false, "x")
        };
        let unnamed = Publish {
            topic: TopicName::NONE,
            ..named
        };
        solo.feed_packet(&Packet::Publish(named));
        solo.feed_packet(&Packet::Publish(unnamed));
        let topics: Vec<_> = solo
            .learned()
            .into_iter()
            .map(|h| {
                if let OwnedEvent::Message { topic, .. } = h {
                    topic
                } else {
                    panic!("{h:?}")
                }
            })
            .collect();
        assert_eq!(topics, ["a/b", "a/b"]);
        // 5 [MQTT-3.3.2-7]: the next connection knows nothing of it.
        solo.connect(true);
        solo.learned();
        solo.feed_packet(&Packet::Publish(unnamed));
        assert_eq!(closed(&mut solo), Some(Violation::TopicAlias(2)));
        solo.connect(true);
        solo.learned();
        solo.feed_packet(&Packet::Publish(Publish {
            topic_alias: TopicAlias::new(3),
            ..named
        }));
        assert_eq!(closed(&mut solo), Some(Violation::TopicAlias(3)));
        assert!(solo.sent().ends_with(&hex("E0 01 94")));
    }
}

/// 5 [MQTT-3.2.2-17], [MQTT-3.1.2-26]: aliases are assigned by themselves, not beyond the peer's maximum, and never in
/// what is sent again.
#[test]
fn topic_aliases_go_out_by_themselves() {
    for role in [Role::Client, Role::Server] {
        let mut solo = with(role, Version::V5, |config, opening| {
            config.auto_alias = 10;
            peer_announces(role, opening, Property::TopicAliasMaximum(1));
        });
        let now = solo.now;
        let mut send = |topic: &str, qos| {
            solo.machine.publish(qos, topic, b"x", now).unwrap();
            let sent = solo.sent();
            match Packet::decode(&sent, Version::V5, MAX_PACKET) {
                Ok(Decoded::Packet {
                    packet: Packet::Publish(p),
                    ..
                }) => (
                    p.topic.as_str().to_owned(),
                    p.topic_alias.map(TopicAlias::get),
                ),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            send("long/topic", QoS::AtMostOnce),
            ("long/topic".into(), Some(1))
        );
        assert_eq!(
            send("long/topic", QoS::AtLeastOnce),
            (String::new(), Some(1))
        );
        assert_eq!(send("other", QoS::AtMostOnce), ("other".into(), None));
        solo.connect(true);
        let sent = solo.sent();
        let Ok(Decoded::Packet {
            packet: Packet::Publish(resent),
            ..
        }) = Packet::decode(&sent, Version::V5, MAX_PACKET)
        else {
            panic!("{sent:?}")
        };
        assert_eq!(
            (resent.topic.as_str(), resent.topic_alias, resent.dup),
            ("long/topic", None, true)
        );
    }
}

/// A resumed session with smaller limits than before still drains: what no longer fits ends, the rest goes on.
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

/// 5 [MQTT-3.2.2-11], [MQTT-3.2.2-14]: what the server said it does not support is refused here.
#[test]
fn what_the_server_does_not_support_is_refused() {
    let mut solo = with(Role::Client, Version::V5, |_, opening| {
        opening.connack.extend([
            Property::MaximumQoS(true),
            Property::RetainAvailable(false),
            Property::WildcardSubscriptionAvailable(false),
            Property::SharedSubscriptionAvailable(false),
            Property::SubscriptionIdentifierAvailable(false),
        ]);
    });
    let refused = |reason| Err(Refused::NotSupportedByServer(reason));
    assert_eq!(
        solo.publish(QoS::ExactlyOnce, "x"),
        refused(ReasonCode::QoSNotSupported)
    );
    let now = solo.now;
    let client = solo.machine.client();
    let topic = TopicName::from_static("a");
    let retained = Outgoing {
        retain: true,
        ..Outgoing::new(topic, QoS::AtMostOnce, b"x")
    };
    assert_eq!(
        client.publish(&retained, now),
        refused(ReasonCode::RetainNotSupported)
    );
    let mut subscribe = |filter, properties| {
        let filters = [Subscription::new(
            TopicFilter::new(filter).unwrap(),
            QoS::AtMostOnce,
        )];
        client.subscribe(&filters, properties, now).map(|_| None)
    };
    assert_eq!(
        subscribe("a/#", Properties::EMPTY),
        refused(ReasonCode::WildcardSubscriptionsNotSupported)
    );
    assert_eq!(
        subscribe("$share/g/a", Properties::EMPTY),
        refused(ReasonCode::SharedSubscriptionsNotSupported)
    );
    let identifier = [Property::SubscriptionIdentifier(1)];
    let unsupported = refused(ReasonCode::SubscriptionIdentifiersNotSupported);
    assert_eq!(subscribe("a", Properties::from(&identifier)), unsupported);
    assert_eq!(subscribe("a", Properties::EMPTY), Ok(None));
}

/// 5 [MQTT-3.1.2-21]: the server's keep-alive replaces the client's, on both sides.
#[test]
fn the_servers_keep_alive_counts() {
    let mut client = with(Role::Client, Version::V5, |_, opening| {
        opening.connack.push(Property::ServerKeepAlive(8))
    });
    client.wait(7_000);
    assert_eq!(client.sent(), hex("C0 00"));
    let mut server = with(Role::Server, Version::V5, |_, opening| {
        opening.connack.push(Property::ServerKeepAlive(8))
    });
    server.wait(12_000);
    assert_eq!(closed(&mut server), Some(Violation::KeepAliveTimeout));
}

/// The session of an assigned client identifier goes on under that identifier (5 [MQTT-3.2.2-16]).
#[test]
fn an_assigned_client_id_owns_the_session() {
    let mut opening = Opening::persistent(Version::V5);
    opening
        .connack
        .push(Property::AssignedClientIdentifier("assigned"));
    let mut solo = TestedMachine::connected(Role::Client, opening, Config::default());
    solo.must_publish(QoS::AtLeastOnce, "x");
    solo.sent();
    solo.disconnect();
    let connect = Connect {
        clean_start: false,
        ..Connect::new(Version::V5, "assigned")
    };
    let now = solo.now;
    solo.machine.client().connect(&connect, now).unwrap();
    solo.sent();
    solo.feed_packet(&Packet::ConnAck(ConnAck {
        session_present: true,
        ..ConnAck::default()
    }));
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Connected {
            resumed: true,
            unasked_session: false
        }]
    );
    assert_eq!(publishes(&solo.sent(), Version::V5).0.len(), 1);
}

/// 5, section 4.12: a challenge and its answer before CONNACK, and again later; without a method AUTH is a violation.
#[test]
fn authentication_goes_back_and_forth() {
    let method = Property::AuthenticationMethod("SCRAM-SHA-1");
    let (challenge, answer) = (
        [method, Property::AuthenticationData(b"salt")],
        [method, Property::AuthenticationData(b"proof")],
    );
    let auth = |reason, list: &'static [Property<'static>]| Auth {
        reason,
        properties: list.into(),
    };
    let challenge: &'static [_] = Vec::leak(challenge.to_vec());
    let answer: &'static [_] = Vec::leak(answer.to_vec());
    let mut opening = Opening::persistent(Version::V5);
    opening.connect.push(method);
    opening.connack.push(method);
    let mut client = TestedMachine::new(Role::Client, opening.clone(), Config::default());
    let mut server = TestedMachine::new(Role::Server, opening.clone(), Config::default());
    let now = client.now;
    client
        .machine
        .client()
        .connect(&opening.connect(), now)
        .unwrap();
    server.machine.server().opened(now);
    server.feed(&client.sent());
    assert!(matches!(server.learned()[..], [OwnedEvent::Connect { .. }]));
    server
        .machine
        .server()
        .authenticate(&auth(ReasonCode::ContinueAuthentication, challenge))
        .unwrap();
    client.feed(&server.sent());
    let reason = ReasonCode::ContinueAuthentication;
    assert_eq!(
        client.learned(),
        [OwnedEvent::Auth {
            reason,
            data: b"salt".to_vec()
        }]
    );
    client
        .machine
        .client()
        .authenticate(&auth(ReasonCode::ContinueAuthentication, answer), now)
        .unwrap();
    server.feed(&client.sent());
    assert_eq!(
        server.learned(),
        [OwnedEvent::Auth {
            reason,
            data: b"proof".to_vec()
        }]
    );
    server
        .machine
        .server()
        .accept(&opening.connack(false), now)
        .unwrap();
    client.feed(&server.sent());
    assert_eq!(
        client.learned(),
        [OwnedEvent::Connected {
            resumed: false,
            unasked_session: false
        }]
    );
    client
        .machine
        .client()
        .authenticate(&auth(ReasonCode::ReAuthenticate, answer), now)
        .unwrap();
    server.feed(&client.sent());
    assert!(matches!(
        server.learned()[..],
        [OwnedEvent::Auth {
            reason: ReasonCode::ReAuthenticate,
            ..
        }]
    ));

    let mut plain = default(Role::Client, Version::V5);
    plain.feed_packet(&Packet::Auth(auth(
        ReasonCode::ContinueAuthentication,
        challenge,
    )));
    assert_eq!(closed(&mut plain), Some(Violation::AuthNotAgreed));
    let now = plain.now;
    let refused = plain.machine.client().authenticate(&Auth::default(), now);
    assert_eq!(refused, Err(Refused::WrongPhase));
}

/// 3.1.1 [MQTT-3.1.2-8] and [MQTT-3.14.4-3], 5 [MQTT-3.1.2-8] and [MQTT-3.14.4-3]: the will is due unless DISCONNECT
/// took it back; 5's 0x04 leaves it.
#[test]
fn the_will_is_due_unless_disconnect_took_it_back() {
    for version in [Version::V311, Version::V5] {
        let with_will = |goodbye: Option<ReasonCode>| {
            let opening = Opening::persistent(version);
            let mut solo = TestedMachine::new(Role::Server, opening.clone(), Config::default());
            let now = solo.now;
            solo.machine.server().opened(now);
            let will = Will::new(TopicName::from_static("gone"), b"bye");
            let connect = Connect {
                will: Some(will),
                ..opening.connect()
            };
            solo.feed_packet(&Packet::Connect(connect));
            assert!(
                matches!(&solo.learned()[..], [OwnedEvent::Connect { will: Some(will), .. }] if will == b"bye")
            );
            solo.machine
                .server()
                .accept(&ConnAck::default(), now)
                .unwrap();
            if let Some(reason) = goodbye {
                solo.feed_packet(&Packet::Disconnect(Disconnect {
                    reason,
                    ..Disconnect::default()
                }));
            }
            solo.machine.server().disconnected()
        };
        assert_eq!(with_will(None), WillDue::Yes);
        assert_eq!(with_will(Some(ReasonCode::Success)), WillDue::No);
        if version == Version::V5 {
            assert_eq!(
                with_will(Some(ReasonCode::DisconnectWithWill)),
                WillDue::Yes
            );
        }
    }
}

/// 3.1.1 [MQTT-3.1.0-1] and [MQTT-3.1.0-2], 5 the same: CONNECT comes first and once.
#[test]
fn connect_comes_first_and_once() {
    for version in [Version::V311, Version::V5] {
        let mut solo = TestedMachine::new(
            Role::Server,
            Opening::persistent(version),
            Config::default(),
        );
        let now = solo.now;
        solo.machine.server().opened(now);
        solo.feed(&hex("C0 00"));
        assert_eq!(closed(&mut solo), Some(Violation::Unexpected(P::PingReq)));
        let mut solo = default(Role::Server, version);
        let connect = solo.opening.clone();
        solo.feed_packet(&Packet::Connect(connect.connect()));
        assert_eq!(closed(&mut solo), Some(Violation::Unexpected(P::Connect)));
    }
}

/// 3.1.1 [MQTT-3.1.2-2], 5 [MQTT-3.1.2-2]: an unknown level is told so before the connection ends.
#[test]
fn an_unknown_protocol_level_is_answered() {
    for (level, answer) in [("06", "20 03 00 84 00"), ("02", "20 02 00 01")] {
        let mut solo = TestedMachine::new(
            Role::Server,
            Opening::persistent(Version::V311),
            Config::default(),
        );
        let now = solo.now;
        solo.machine.server().opened(now);
        solo.feed(&hex(&format!("10 0C 0004 4D515454 {level} 02 0000 0000")));
        assert!(closed(&mut solo).is_some());
        assert_eq!(solo.sent(), hex(answer));
    }
}

/// 3.1.1 [MQTT-3.1.4-5], 5 [MQTT-3.1.4-6]: what follows CONNECT waits for the decision, and is not looked at after a refusal.
#[test]
fn what_follows_connect_waits_for_the_decision() {
    let opening = Opening::persistent(Version::V311);
    let behind = encode(
        &Packet::Publish(publish(QoS::AtLeastOnce, 1, false, "early")),
        Version::V311,
    );
    for accepted in [true, false] {
        let mut solo = TestedMachine::new(Role::Server, opening.clone(), Config::default());
        let now = solo.now;
        solo.machine.server().opened(now);
        solo.feed(
            &[
                encode(&Packet::Connect(opening.connect()), Version::V311),
                behind.clone(),
            ]
            .concat(),
        );
        assert!(matches!(solo.learned()[..], [OwnedEvent::Connect { .. }]));
        if accepted {
            solo.machine
                .server()
                .accept(&ConnAck::default(), now)
                .unwrap();
        } else {
            let no = ConnAck {
                reason: ReasonCode::NotAuthorized,
                ..ConnAck::default()
            };
            solo.machine.server().refuse(&no).unwrap();
        }
        solo.feed(&[]);
        assert_eq!(
            solo.messages(),
            if accepted { vec!["early"] } else { vec![] }
        );
        assert_eq!(
            solo.sent_types(),
            if accepted {
                vec![P::ConnAck, P::PubAck]
            } else {
                vec![P::ConnAck]
            }
        );
    }
}

/// A refusal is told with its reason, and the connection is over.
#[test]
fn a_refused_connection_is_told() {
    for version in [Version::V311, Version::V5] {
        let opening = Opening::persistent(version);
        let mut solo = TestedMachine::new(Role::Client, opening.clone(), Config::default());
        let now = solo.now;
        solo.machine
            .client()
            .connect(&opening.connect(), now)
            .unwrap();
        solo.sent();
        let reason = ReasonCode::BadUserNameOrPassword;
        solo.feed_packet(&Packet::ConnAck(ConnAck {
            reason,
            ..ConnAck::default()
        }));
        assert_eq!(solo.learned(), [OwnedEvent::Refused(reason)]);
        assert!(solo.machine.client().is_closing());
    }
}

/// Neither CONNACK nor CONNECT is waited for without end.
#[test]
fn a_peer_that_says_nothing_is_not_waited_for() {
    for role in [Role::Client, Role::Server] {
        let opening = Opening::persistent(Version::V5);
        let mut solo = TestedMachine::new(role, opening.clone(), Config::default());
        let now = solo.now;
        match role {
            Role::Client => solo
                .machine
                .client()
                .connect(&opening.connect(), now)
                .unwrap(),
            Role::Server => solo.machine.server().opened(now),
        }
        solo.wait(29_999);
        assert_eq!(solo.learned(), []);
        solo.wait(1);
        assert_eq!(closed(&mut solo), Some(Violation::ConnectTimeout));
    }
}

/// 3.1.1 [MQTT-3.14.4-2], 5 [MQTT-3.14.4-1]: nothing goes out behind DISCONNECT.
#[test]
fn nothing_goes_out_behind_disconnect() {
    let mut solo = default(Role::Client, Version::V5);
    solo.machine
        .client()
        .disconnect(&Disconnect::default())
        .unwrap();
    solo.must_publish(QoS::AtMostOnce, "x");
    solo.feed_publish(QoS::AtLeastOnce, 1, false, "late");
    solo.wait(100_000);
    assert_eq!(solo.sent(), hex("E0 00"));
    assert_eq!(solo.learned(), []);
}

/// A client under another identifier is another session: nothing of the old one is resumed.
#[test]
fn the_session_belongs_to_its_client_id() {
    let mut solo = default(Role::Client, Version::V5);
    solo.must_publish(QoS::AtLeastOnce, "x");
    solo.sent();
    solo.disconnect();
    let connect = Connect {
        clean_start: false,
        ..Connect::new(Version::V5, "another")
    };
    let now = solo.now;
    solo.machine.client().connect(&connect, now).unwrap();
    solo.sent();
    solo.feed_packet(&Packet::ConnAck(ConnAck {
        session_present: true,
        ..ConnAck::default()
    }));
    assert_eq!(
        closed(&mut solo),
        Some(Violation::SessionPresentWithoutState)
    );
}

/// Messages are kept in one version. What was kept before CONNECT asked for another ends in doubt, and nothing stalls.
#[test]
fn a_change_of_version_ends_what_was_kept_and_goes_on() {
    let mut solo = TestedMachine::new(
        Role::Client,
        Opening::persistent(Version::V5),
        Config::default(),
    );
    let tokens = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .map(|qos| solo.must_publish(qos, "3.1.1"));
    solo.connect(false);
    solo.feed(&[]);
    let ended: Vec<_> = solo
        .learned()
        .into_iter()
        .filter(|h| matches!(h, OwnedEvent::Ended { .. }))
        .collect();
    assert_eq!(
        ended,
        tokens.map(|token| OwnedEvent::Ended {
            token,
            how: Ended::InDoubt
        })
    );
    for _ in 0..10 {
        let token = solo.must_publish(QoS::AtLeastOnce, "5");
        solo.sent();
        solo.feed_ack(AckKind::PubAck, token.packet_id().unwrap().get());
    }
}

/// An alias is assigned only with a packet that goes out: a message that was refused must not leave one behind, or the next
/// on its topic would go by an alias that the server never saw (5 [MQTT-3.3.2-9] would end the connection).
#[test]
fn a_refused_message_assigns_no_topic_alias() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut opening = Opening::persistent(Version::V5);
        opening.connack.push(Property::TopicAliasMaximum(2));
        opening.connack.push(Property::MaximumPacketSize(120));
        let mut config = Config::default();
        (config.auto_alias, config.outgoing_limit) = (2, 300);
        let mut solo = TestedMachine::connected(Role::Client, opening, config);
        let publish = |solo: &mut TestedMachine, topic: &str, len: usize| {
            let payload = vec![b'x'; len];
            solo.machine.publish(qos, topic, &payload, solo.now)
        };
        while publish(&mut solo, "a", 60).is_ok() {}
        assert_eq!(publish(&mut solo, "b", 60), Err(Refused::Full));
        solo.sent();
        // Too large for the server: no alias either.
        let refused = publish(&mut solo, "b", 200);
        assert!(
            matches!(refused, Err(Refused::TooLarge { .. })),
            "{refused:?}"
        );
        publish(&mut solo, "b", 60).unwrap();
        let (first, consumed) = published(&solo.sent());
        assert_eq!(first, ("b".to_owned(), Some(2)), "{consumed}");
        // With its alias it would be larger than the server takes: it goes without.
        let head = if qos == QoS::AtMostOnce { 6 } else { 8 };
        publish(&mut solo, "b", 120 - head).unwrap();
        let (whole, len) = published(&solo.sent());
        assert_eq!((whole, len), (("b".to_owned(), None), 120));
    }
}

/// Topic and alias of the first PUBLISH, and its length.
fn published(bytes: &[u8]) -> ((String, Option<u16>), usize) {
    match Packet::decode(bytes, Version::V5, MAX_PACKET) {
        Ok(Decoded::Packet {
            packet: Packet::Publish(publish),
            consumed,
        }) => {
            let alias = publish.topic_alias.map(|alias| alias.get());
            ((publish.topic.to_string(), alias), consumed)
        }
        other => panic!("{other:?}"),
    }
}

/// 5 [MQTT-3.3.4-6]: a client sends no subscription identifier. Such a message is not acknowledged before it is refused.
#[test]
fn a_subscription_identifier_from_a_client_ends_the_connection() {
    let mut solo = TestedMachine::connected(
        Role::Server,
        Opening::persistent(Version::V5),
        Config::default(),
    );
    let identifier = [Property::SubscriptionIdentifier(7)];
    let publish = Publish {
        properties: (&identifier).into(),
        ..publish(QoS::ExactlyOnce, 5, false, "x")
    };
    solo.feed_packet(&Packet::Publish(publish));
    assert_eq!(solo.messages(), [""; 0]);
    assert_eq!(closed(&mut solo), Some(Violation::Unexpected(P::Publish)));
    assert_eq!(solo.sent_types(), [P::Disconnect]);
}

/// A session that goes on in the other version: what was refused with a reason code of MQTT 5 has none in 3.1.1.
#[test]
fn a_refusal_of_5_is_a_plain_pubrec_in_3_1_1() {
    let mut config = Config::default();
    config.acknowledge = Acknowledge::ByHand;
    let mut client = Client::new(config, Heap);
    let now = Instant::from_millis(0);
    let connect = |client: &mut Client<'static>, version, connack: &[u8]| {
        let connect = Connect {
            clean_start: false,
            ..Connect::new(version, "c")
        };
        client.connect(&connect, now).unwrap();
        client.sent(client.outgoing().len());
        client.receive(connack, now).unwrap();
    };
    connect(&mut client, Version::V5, &[0x20, 3, 0, 0, 0]);
    let message = encode(
        &Packet::Publish(publish(QoS::ExactlyOnce, 7, false, "m")),
        Version::V5,
    );
    let Ok(Step::Packet {
        event: Some(Event::Message(incoming)),
        ..
    }) = client.receive(&message, now)
    else {
        panic!("a message");
    };
    let receipt = incoming.receipt.unwrap();
    client.disconnected();
    client
        .acknowledge(receipt, ReasonCode::NotAuthorized, now)
        .unwrap();
    connect(&mut client, Version::V311, &[0x20, 2, 1, 0]);
    let again = encode(
        &Packet::Publish(publish(QoS::ExactlyOnce, 7, true, "m")),
        Version::V311,
    );
    client.receive(&again, now).unwrap();
    assert_eq!(client.outgoing(), ack(AckKind::PubRec, 7));
}
