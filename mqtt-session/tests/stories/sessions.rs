//! Which client identifier a session belongs to, and in which version it is kept.

use super::*;

/// The event of a connection that continues its session.
const RESUMED: OwnedEvent = OwnedEvent::Connected {
    resumed: true,
    unasked_session: false,
};

/// A client of this version before its first CONNECT.
fn unconnected(version: Version) -> TestedMachine {
    TestedMachine::new(
        Role::Client,
        Opening::persistent(version),
        Config::default(),
    )
}

/// Connects a client of MQTT 5 again under this identifier. CONNACK has session present.
fn reconnect_as(solo: &mut TestedMachine, client_id: &str) {
    solo.disconnect();
    let connect = Connect {
        clean_start: false,
        ..Connect::new(Version::V5, client_id)
    };
    let now = solo.now;
    solo.machine.client().connect(&connect, now).unwrap();
    solo.sent();
    solo.feed_packet(&Packet::ConnAck(ConnAck {
        session_present: true,
        ..ConnAck::default()
    }));
}

/// 5 [MQTT-3.2.2-4]: session present without local state ends the connection. With `assume_session`, an application that kept
/// nothing makes an empty state.
#[test]
fn session_present_without_local_state_ends_the_connection_in_5() {
    let mut solo = unconnected(Version::V5);
    solo.connect(true);
    assert_eq!(
        closed(&mut solo),
        Some(Violation::SessionPresentWithoutState)
    );
    assert!(solo.machine.client().must_start_clean());
    let mut solo = unconnected(Version::V5);
    solo.machine
        .client()
        .assume_session(mqtt_testing::machines::CLIENT_ID);
    solo.connect(true);
    assert_eq!(solo.learned(), [RESUMED]);
    // 3.1.1 does not require this: a client that was restarted continues.
    let mut solo = unconnected(Version::V311);
    solo.connect(true);
    assert_eq!(solo.learned(), [RESUMED]);
}

/// Some brokers have session present after a clean start, against 3.1.1 [MQTT-3.2.2-1]. The client continues and reports it.
#[test]
fn session_present_after_a_clean_start_is_reported() {
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

/// 5 [MQTT-3.2.2-16]: after the server assigned a client identifier, the session belongs to that identifier.
#[test]
fn an_assigned_client_id_owns_the_session() {
    let mut opening = Opening::persistent(Version::V5);
    opening
        .connack
        .push(Property::AssignedClientIdentifier("assigned"));
    let mut solo = TestedMachine::connected(Role::Client, opening, Config::default());
    solo.must_publish(QoS::AtLeastOnce, "x");
    solo.sent();
    reconnect_as(&mut solo, "assigned");
    assert_eq!(solo.learned(), [RESUMED]);
    assert_eq!(publishes(&solo.sent(), Version::V5).0.len(), 1);
}

/// With another client identifier the client has another session, and nothing of the first one is resumed.
#[test]
fn the_session_belongs_to_its_client_id() {
    let mut solo = default(Role::Client, Version::V5);
    solo.must_publish(QoS::AtLeastOnce, "x");
    solo.sent();
    reconnect_as(&mut solo, "another");
    assert_eq!(
        closed(&mut solo),
        Some(Violation::SessionPresentWithoutState)
    );
}

/// Messages are kept in one version. If CONNECT asks for another version, those end in doubt, and new ones are sent.
#[test]
fn a_change_of_version_ends_the_kept_messages() {
    let mut solo = unconnected(Version::V5);
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

/// A message that was refused with a reason code of MQTT 5 gets a plain PUBREC if the session continues in 3.1.1.
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

/// MQTT 3.1 reserves the byte of session present.
#[test]
fn connack_of_3_1_has_no_session_present() {
    for (version, flags) in [(Version::V31, 0), (Version::V311, 1)] {
        let opening = Opening::persistent(version);
        let mut solo = TestedMachine::new(Role::Server, opening.clone(), Config::default());
        solo.connect(false);
        solo.disconnect();
        let server = solo.machine.server();
        server.opened(solo.now);
        solo.feed_packet(&Packet::Connect(opening.connect()));
        let connack = opening.connack(true);
        solo.machine.server().accept(&connack, solo.now).unwrap();
        assert_eq!(solo.sent(), [0x20, 2, flags, 0]);
    }
}

/// A server of MQTT 3.1 does not report whether it has the session. The client continues as if it had, so nothing is delivered
/// twice or lost.
#[test]
fn a_client_of_3_1_assumes_that_the_server_has_the_session() {
    let opening = Opening::persistent(Version::V31);
    let mut solo = TestedMachine::connected(Role::Client, opening, Config::default());
    solo.must_publish(QoS::ExactlyOnce, "sent");
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "first");
    solo.sent();
    solo.connect(false);
    assert!(solo.learned().contains(&RESUMED));
    // The same message, not a new one.
    assert_eq!(solo.sent()[0], 0x3C, "PUBLISH at QoS 2 with DUP");
    solo.feed_publish(QoS::ExactlyOnce, 7, true, "first");
    assert_eq!(solo.messages(), [""; 0]);
    // A server that has lost the session uses the identifier for another message.
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "second");
    assert_eq!(solo.messages(), ["second"]);
    solo.feed_publish(QoS::ExactlyOnce, 7, true, "second");
    assert_eq!(solo.messages(), [""; 0]);
}
