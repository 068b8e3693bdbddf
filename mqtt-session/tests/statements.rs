//! Tests of the statements that bind only a client, for the machine alone. The tests of those that bind a server run over TCP, in
//! broker-host. `scripts/conformance.py` makes docs/CONFORMANCE.md of the table below.

use mqtt_proto::{
    AckKind, Auth, Connect, Decoded, Disconnect, MAX_PACKET, Packet, PacketId, PacketType,
    Properties, Property, Publish, QoS, ReasonCode, Subscription, TopicAlias, TopicFilter,
    TopicName, Version,
};
use mqtt_session::{Acknowledge, Config, Receipt, Refused, Violation};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};

/// Which scenario shows which statements: of 3.1.1 in the first brackets, of 5 in the second. A scenario is one test in each
/// version of which it shows something.
macro_rules! statements {
    ($($scenario:ident: [$($v4:ident)*] [$($v5:ident)*];)*) => {
        mod v3_1_1 {
            use super::*;
            $(statements!(@test $scenario V311 $($v4)*);)*
        }
        mod v5 {
            use super::*;
            $(statements!(@test $scenario V5 $($v5)*);)*
        }
    };
    (@test $scenario:ident $version:ident) => {};
    (@test $scenario:ident $version:ident $($shown:ident)+) => {
        #[test]
        fn $scenario() {
            super::$scenario(Version::$version);
        }
    };
}

statements! {
    packet_identifiers_are_unused: [mqtt_2_3_1_2] [mqtt_2_2_1_3];
    what_is_sent_again_keeps_identifier_and_order: [mqtt_2_3_1_3] [mqtt_4_6_0_1];
    a_ping_goes_out_in_time: [mqtt_3_1_2_23] [mqtt_3_1_2_20];
    an_empty_identifier_needs_a_clean_session: [mqtt_3_1_3_7] [];
    nothing_follows_disconnect: [mqtt_3_14_4_1 mqtt_3_14_4_2] [];
    every_message_is_acknowledged: [mqtt_4_5_0_2] [mqtt_4_5_0_2];
    acknowledgements_keep_their_order:
        [mqtt_4_6_0_2 mqtt_4_6_0_3 mqtt_4_6_0_4] [mqtt_4_6_0_2 mqtt_4_6_0_3 mqtt_4_6_0_4];
    packets_may_arrive_in_parts: [mqtt_7_1_2_1] [];
    the_servers_keep_alive_replaces_the_clients: [] [mqtt_3_1_2_21 mqtt_3_2_2_21];
    only_auth_goes_out_while_authenticating: [] [mqtt_3_1_2_30 mqtt_4_12_0_3];
    session_present_without_a_local_session_ends_the_connection: [] [mqtt_3_2_2_4];
    the_client_discards_a_session_that_the_server_does_not_have: [] [mqtt_3_2_2_5];
    no_qos_above_the_servers_maximum_is_sent: [] [mqtt_3_2_2_11];
    nothing_retained_is_sent_to_a_server_without_retain: [] [mqtt_3_2_2_14];
    no_packet_above_the_servers_maximum_size_is_sent: [] [mqtt_3_2_2_15];
    no_alias_above_the_servers_maximum_is_sent: [] [mqtt_3_2_2_17 mqtt_3_2_2_18 mqtt_3_3_2_9];
    every_announced_alias_is_accepted: [] [mqtt_3_3_2_10];
    no_more_messages_than_the_servers_receive_maximum_are_sent: [] [mqtt_3_3_4_7 mqtt_3_3_4_8];
    no_auth_is_sent_without_a_method: [] [mqtt_4_12_0_7];
}

fn client(version: Version) -> TestedMachine {
    let opening = Opening::persistent(version);
    TestedMachine::connected(Role::Client, opening, Config::default())
}

/// A client whose server announced this property.
fn told(property: Option<Property<'static>>) -> TestedMachine {
    let mut opening = Opening::persistent(Version::V5);
    opening.connack.extend(property);
    let mut config = Config::default();
    config.auto_alias = 10;
    TestedMachine::connected(Role::Client, opening, config)
}

/// Calls `look` with each packet that the client sends, and returns the results.
fn each<R>(solo: &mut TestedMachine, mut look: impl FnMut(&Packet<'_>) -> R) -> Vec<R> {
    let (sent, version) = (solo.sent(), solo.version());
    let (mut at, mut all) = (0, Vec::new());
    while let Ok(Decoded::Packet { packet, consumed }) =
        Packet::decode(&sent[at..], version, MAX_PACKET)
    {
        all.push(look(&packet));
        at += consumed;
    }
    assert_eq!(at, sent.len());
    all
}

/// The type and packet identifier of each packet that the client sends.
fn identifiers(solo: &mut TestedMachine) -> Vec<(PacketType, u16)> {
    each(solo, |packet| {
        let id = match packet {
            Packet::Publish(publish) => publish.delivery.packet_id(),
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => Some(ack.packet_id),
            _ => None,
        };
        (packet.packet_type(), id.map_or(0, PacketId::get))
    })
}

const BOTH: [QoS; 2] = [QoS::AtLeastOnce, QoS::ExactlyOnce];

fn packet_identifiers_are_unused(version: Version) {
    let mut solo = client(version);
    for n in 0..30 {
        solo.must_publish(BOTH[n % 2], "x");
    }
    let filter = TopicFilter::new("a").unwrap();
    let now = solo.now;
    let list = [Subscription::new(filter, QoS::AtMostOnce)];
    solo.machine
        .client()
        .subscribe(&list, Properties::EMPTY, now)
        .unwrap();
    let mut used = each(&mut solo, |packet| match packet {
        Packet::Publish(publish) => publish.delivery.packet_id().unwrap().get(),
        Packet::Subscribe(subscribe) => subscribe.packet_id.get(),
        other => panic!("{other:?}"),
    });
    assert_eq!(used.len(), 31);
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 31);
    // Also after all other identifiers were in use once.
    let mut solo = client(version);
    solo.must_publish(QoS::ExactlyOnce, "x");
    let open = identifiers(&mut solo)[0].1;
    for _ in 0..if cfg!(miri) { 50 } else { 70_000 } {
        solo.must_publish(QoS::AtLeastOnce, "x");
        let [(_, id)] = identifiers(&mut solo)[..] else {
            panic!("one message, one packet");
        };
        assert_ne!(id, open);
        solo.feed_ack(AckKind::PubAck, id);
    }
}

fn what_is_sent_again_keeps_identifier_and_order(version: Version) {
    let mut solo = client(version);
    for n in 0..6 {
        solo.must_publish(BOTH[n % 2], &n.to_string());
    }
    let first = identifiers(&mut solo);
    solo.connect(true);
    assert_eq!(identifiers(&mut solo), first);
}

fn a_ping_goes_out_in_time(version: Version) {
    let mut opening = Opening::persistent(version);
    opening.keep_alive = 10;
    let mut solo = TestedMachine::connected(Role::Client, opening, Config::default());
    // What it sent last was CONNECT.
    let at = solo.machine.deadline().unwrap();
    assert!(at.since(solo.now).as_secs() <= 10);
    let wait = at.since(solo.now).as_millis();
    solo.wait(u64::try_from(wait).unwrap());
    assert_eq!(solo.sent_types(), [PacketType::PingReq]);
    solo.feed_packet(&Packet::PingResp);
    // What it receives does not count.
    for _ in 0..10 {
        solo.feed_publish(QoS::AtMostOnce, 0, false, "x");
        solo.wait(1_000);
    }
    assert_eq!(solo.sent_types(), [PacketType::PingReq]);
}

fn an_empty_identifier_needs_a_clean_session(version: Version) {
    let mut solo = TestedMachine::new(
        Role::Client,
        Opening::persistent(version),
        Config::default(),
    );
    let connect = Connect {
        clean_start: false,
        ..Connect::new(version, "")
    };
    let now = solo.now;
    let refused = Err(Refused::NoClientIdentifier);
    assert_eq!(solo.machine.client().connect(&connect, now), refused);
    assert_eq!(solo.sent(), []);
}

fn nothing_follows_disconnect(version: Version) {
    let mut solo = client(version);
    let goodbye = Disconnect::default();
    solo.machine.client().disconnect(&goodbye).unwrap();
    let _ = solo.publish(QoS::AtMostOnce, "x");
    solo.feed_publish(QoS::AtLeastOnce, 7, false, "x");
    solo.wait(1_000_000);
    assert_eq!(solo.sent_types(), [PacketType::Disconnect]);
    // The host closes the transport.
    assert!(solo.machine.client().is_closing());
}

fn every_message_is_acknowledged(version: Version) {
    let mut solo = client(version);
    solo.feed_publish(QoS::AtMostOnce, 0, false, "x");
    solo.feed_publish(QoS::AtLeastOnce, 7, false, "x");
    solo.feed_publish(QoS::ExactlyOnce, 8, false, "x");
    solo.feed_ack(AckKind::PubRel, 8);
    let expected = [
        (PacketType::PubAck, 7),
        (PacketType::PubRec, 8),
        (PacketType::PubComp, 8),
    ];
    assert_eq!(identifiers(&mut solo), expected);
}

fn acknowledgements_keep_their_order(version: Version) {
    let mut solo = client(version);
    let ids = [9, 3, 7, 1, 8];
    for id in ids {
        solo.feed_publish(QoS::AtLeastOnce, id, false, "x");
    }
    let all = |kind| ids.map(|id| (kind, id)).to_vec();
    assert_eq!(identifiers(&mut solo), all(PacketType::PubAck));
    for id in ids {
        solo.feed_publish(QoS::ExactlyOnce, id, false, "x");
    }
    assert_eq!(identifiers(&mut solo), all(PacketType::PubRec));
    acknowledgements_by_hand_keep_their_order(version);
    // PUBREL as PUBREC came, also against the order of PUBLISH.
    for _ in 0..3 {
        solo.must_publish(QoS::ExactlyOnce, "x");
    }
    let mut own: Vec<u16> = identifiers(&mut solo).iter().map(|(_, id)| *id).collect();
    own.reverse();
    for id in &own {
        solo.feed_ack(AckKind::PubRec, *id);
    }
    let expected: Vec<_> = own.iter().map(|id| (PacketType::PubRel, *id)).collect();
    assert_eq!(identifiers(&mut solo), expected);
}

/// The application acknowledges in another order.
fn acknowledgements_by_hand_keep_their_order(version: Version) {
    let mut config = Config::default();
    config.acknowledge = Acknowledge::ByHand;
    for (qos, kind) in [
        (QoS::AtLeastOnce, PacketType::PubAck),
        (QoS::ExactlyOnce, PacketType::PubRec),
    ] {
        let opening = Opening::persistent(version);
        let mut solo = TestedMachine::connected(Role::Client, opening, config);
        for id in [9, 3, 7] {
            solo.feed_publish(qos, id, false, "x");
        }
        let mut receipts = receipts(&mut solo);
        let now = solo.now;
        while let Some(receipt) = receipts.pop() {
            assert_eq!(identifiers(&mut solo), []);
            let client = solo.machine.client();
            client
                .acknowledge(receipt, ReasonCode::Success, now)
                .unwrap();
        }
        assert_eq!(identifiers(&mut solo), [9, 3, 7].map(|id| (kind, id)));
    }
}

/// The receipts of the messages that arrived.
fn receipts(solo: &mut TestedMachine) -> Vec<Receipt> {
    let events = solo.learned().into_iter();
    events
        .filter_map(|event| match event {
            OwnedEvent::Message { receipt, .. } => receipt,
            _ => None,
        })
        .collect()
}

fn packets_may_arrive_in_parts(version: Version) {
    let mut solo = client(version);
    let publish = mqtt_testing::packets::publish(QoS::AtLeastOnce, 7, false, "x");
    for byte in mqtt_testing::packets::encode(&Packet::Publish(publish), version) {
        solo.feed(&[byte]);
    }
    assert_eq!(solo.messages(), ["x"]);
}

fn the_servers_keep_alive_replaces_the_clients(_: Version) {
    let mut solo = told(Some(Property::ServerKeepAlive(5)));
    let wait = solo.machine.deadline().unwrap().since(solo.now);
    assert!(wait.as_secs() <= 5);
    solo.wait(u64::try_from(wait.as_millis()).unwrap());
    assert_eq!(solo.sent_types(), [PacketType::PingReq]);
}

const METHOD: Property<'static> = Property::AuthenticationMethod("question");

fn only_auth_goes_out_while_authenticating(version: Version) {
    let mut opening = Opening::persistent(version);
    opening.connect.push(METHOD);
    opening.connack.push(METHOD);
    let mut solo = TestedMachine::new(Role::Client, opening.clone(), Config::default());
    let now = solo.now;
    let connect = opening.connect();
    solo.machine.client().connect(&connect, now).unwrap();
    let _ = solo.publish(QoS::AtMostOnce, "x");
    let _ = solo.publish(QoS::AtLeastOnce, "x");
    assert_eq!(solo.sent_types(), [PacketType::Connect]);
    let continued = ReasonCode::ContinueAuthentication;
    let auth = Packet::Auth(Auth {
        reason: continued,
        properties: (&[METHOD][..]).into(),
    });
    solo.feed_packet(&auth);
    let Packet::Auth(answer) = auth else {
        unreachable!("made above")
    };
    solo.machine.client().authenticate(&answer, now).unwrap();
    let reasons = each(&mut solo, |packet| match packet {
        Packet::Auth(auth) => auth.reason,
        other => panic!("{other:?}"),
    });
    assert_eq!(reasons, [continued]);
    solo.feed_packet(&Packet::ConnAck(opening.connack(false)));
    assert_eq!(solo.sent_types().last(), Some(&PacketType::Publish));
}

fn session_present_without_a_local_session_ends_the_connection(version: Version) {
    let opening = Opening::persistent(version);
    let mut solo = TestedMachine::new(Role::Client, opening, Config::default());
    solo.connect(true);
    let closed = Violation::SessionPresentWithoutState;
    assert!(solo.learned().contains(&OwnedEvent::Closed(closed)));
}

fn the_client_discards_a_session_that_the_server_does_not_have(version: Version) {
    let mut config = Config::default();
    config.session_lost = mqtt_session::SessionLost::HandBack;
    let opening = Opening::persistent(version);
    let mut solo = TestedMachine::connected(Role::Client, opening, config);
    solo.must_publish(QoS::ExactlyOnce, "x");
    let id = identifiers(&mut solo)[0].1;
    solo.feed_ack(AckKind::PubRec, id);
    solo.sent();
    solo.connect(false);
    assert_eq!(solo.sent_types(), []);
    assert_eq!(solo.machine.pending(), 0);
}

fn no_qos_above_the_servers_maximum_is_sent(_: Version) {
    let mut solo = told(Some(Property::MaximumQoS(false)));
    let refused = Refused::NotSupportedByServer(ReasonCode::QoSNotSupported);
    for qos in BOTH {
        assert_eq!(solo.publish(qos, "x"), Err(refused));
    }
    assert_eq!(solo.publish(QoS::AtMostOnce, "x"), Ok(None));
}

fn nothing_retained_is_sent_to_a_server_without_retain(_: Version) {
    let mut solo = told(Some(Property::RetainAvailable(false)));
    let topic = TopicName::new("a").unwrap();
    let message = mqtt_session::Outgoing {
        retain: true,
        ..mqtt_session::Outgoing::new(topic, QoS::AtMostOnce, b"x")
    };
    let now = solo.now;
    let refused = Refused::NotSupportedByServer(ReasonCode::RetainNotSupported);
    assert_eq!(solo.machine.client().publish(&message, now), Err(refused));
}

fn no_packet_above_the_servers_maximum_size_is_sent(_: Version) {
    let mut solo = told(Some(Property::MaximumPacketSize(40)));
    assert!(solo.publish(QoS::AtMostOnce, &"x".repeat(40)).is_err());
    assert_eq!(solo.publish(QoS::AtMostOnce, "x"), Ok(None));
    assert!(solo.sent().len() <= 40);
}

fn no_alias_above_the_servers_maximum_is_sent(_: Version) {
    for maximum in [None, Some(0), Some(1), Some(3)] {
        let mut solo = told(maximum.map(Property::TopicAliasMaximum));
        let now = solo.now;
        for n in 0..20 {
            let topic = format!("a/{}", n % 5);
            solo.machine
                .publish(QoS::AtMostOnce, &topic, b"x", now)
                .unwrap();
        }
        let aliases = each(&mut solo, |packet| match packet {
            Packet::Publish(publish) => publish.topic_alias.map_or(0, TopicAlias::get),
            other => panic!("{other:?}"),
        });
        assert_eq!(aliases.into_iter().max(), Some(maximum.unwrap_or(0)));
    }
}

fn every_announced_alias_is_accepted(version: Version) {
    let mut opening = Opening::persistent(version);
    opening.connect.push(Property::TopicAliasMaximum(5));
    let mut solo = TestedMachine::connected(Role::Client, opening, Config::default());
    for alias in 1..=5 {
        solo.feed_packet(&Packet::Publish(Publish {
            topic_alias: TopicAlias::new(alias),
            ..Publish::new(TopicName::new("a").unwrap(), b"x")
        }));
    }
    assert_eq!(solo.messages().len(), 5);
}

fn no_more_messages_than_the_servers_receive_maximum_are_sent(_: Version) {
    let mut solo = told(Some(Property::ReceiveMaximum(3)));
    for n in 0..3 {
        solo.must_publish(BOTH[n % 2], "x");
    }
    let first = identifiers(&mut solo);
    assert_eq!(first.len(), 3);
    let full = Err(Refused::Full);
    assert_eq!(solo.publish(QoS::AtLeastOnce, "x"), full);
    // Other packets are not delayed.
    let now = solo.now;
    let list = [TopicFilter::new("a").unwrap()];
    let client = solo.machine.client();
    client.unsubscribe(&list, Properties::EMPTY, now).unwrap();
    solo.feed_publish(QoS::AtLeastOnce, 7, false, "x");
    let expected = [PacketType::Unsubscribe, PacketType::PubAck];
    assert_eq!(solo.sent_types(), expected);
    // PUBREC alone makes no room.
    solo.feed_ack(AckKind::PubRec, first[1].1);
    assert_eq!(solo.publish(QoS::AtLeastOnce, "x"), full);
    assert_eq!(solo.sent_types(), [PacketType::PubRel]);
    solo.feed_ack(AckKind::PubComp, first[1].1);
    solo.must_publish(QoS::AtLeastOnce, "x");
    assert_eq!(solo.publish(QoS::AtLeastOnce, "x"), full);
    solo.feed_ack(AckKind::PubAck, first[0].1);
    solo.must_publish(QoS::AtLeastOnce, "x");
    assert_eq!(solo.sent_types(), [PacketType::Publish; 2]);
}

fn no_auth_is_sent_without_a_method(version: Version) {
    let mut solo = client(version);
    let auth = Auth {
        reason: ReasonCode::ReAuthenticate,
        properties: (&[METHOD][..]).into(),
    };
    let now = solo.now;
    assert!(solo.machine.client().authenticate(&auth, now).is_err());
    assert_eq!(solo.sent(), []);
}
