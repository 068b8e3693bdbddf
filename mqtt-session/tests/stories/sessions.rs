//! Whose session it is, and in which version.

use super::*;

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

/// The byte of session present is reserved in 3.1.
#[test]
fn a_client_of_3_1_is_not_told_whether_there_is_a_session() {
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

/// Nor is it told by a server of 3.1, and goes on as if the session were there: nothing is delivered twice or lost.
#[test]
fn a_client_of_3_1_takes_the_session_to_be_there() {
    let opening = Opening::persistent(Version::V31);
    let mut solo = TestedMachine::connected(Role::Client, opening, Config::default());
    solo.must_publish(QoS::ExactlyOnce, "sent");
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "first");
    solo.sent();
    solo.connect(false);
    let resumed = OwnedEvent::Connected {
        resumed: true,
        unasked_session: false,
    };
    assert!(solo.learned().contains(&resumed));
    // The same message, not a new one.
    assert_eq!(solo.sent()[0], 0x3C, "PUBLISH at QoS 2 with DUP");
    solo.feed_publish(QoS::ExactlyOnce, 7, true, "first");
    assert_eq!(solo.messages(), [""; 0]);
    // A server that lost the session uses the identifier for another message.
    solo.feed_publish(QoS::ExactlyOnce, 7, false, "second");
    assert_eq!(solo.messages(), ["second"]);
    solo.feed_publish(QoS::ExactlyOnce, 7, true, "second");
    assert_eq!(solo.messages(), [""; 0]);
}
