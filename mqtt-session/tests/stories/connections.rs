//! The beginning and the end of a connection.

use super::*;

const METHOD: Property<'static> = Property::AuthenticationMethod("SCRAM-SHA-1");
const CHALLENGE: &[Property<'static>] = &[METHOD, Property::AuthenticationData(b"salt")];
const ANSWER: &[Property<'static>] = &[METHOD, Property::AuthenticationData(b"proof")];

fn auth(reason: ReasonCode, list: &'static [Property<'static>]) -> Auth<'static> {
    Auth {
        reason,
        properties: list.into(),
    }
}

/// 5, section 4.12: AUTH has a challenge and an answer before CONNACK, and again later.
#[test]
fn auth_is_exchanged_before_and_after_connack() {
    let reason = ReasonCode::ContinueAuthentication;
    let mut opening = Opening::persistent(Version::V5);
    opening.connect.push(METHOD);
    opening.connack.push(METHOD);
    let mut client = TestedMachine::new(Role::Client, opening.clone(), Config::default());
    let mut server = TestedMachine::new(Role::Server, opening.clone(), Config::default());
    let now = client.now;
    let machine = client.machine.client();
    machine.connect(&opening.connect(), now).unwrap();
    server.machine.server().opened(now);
    server.feed(&client.sent());
    assert!(matches!(server.learned()[..], [OwnedEvent::Connect { .. }]));
    let machine = server.machine.server();
    machine.authenticate(&auth(reason, CHALLENGE)).unwrap();
    client.feed(&server.sent());
    let data = b"salt".to_vec();
    assert_eq!(client.learned(), [OwnedEvent::Auth { reason, data }]);
    let machine = client.machine.client();
    machine.authenticate(&auth(reason, ANSWER), now).unwrap();
    server.feed(&client.sent());
    let data = b"proof".to_vec();
    assert_eq!(server.learned(), [OwnedEvent::Auth { reason, data }]);
    let machine = server.machine.server();
    machine.accept(&opening.connack(false), now).unwrap();
    client.feed(&server.sent());
    let connected = OwnedEvent::Connected {
        resumed: false,
        unasked_session: false,
    };
    assert_eq!(client.learned(), [connected]);
    let reason = ReasonCode::ReAuthenticate;
    let machine = client.machine.client();
    machine.authenticate(&auth(reason, ANSWER), now).unwrap();
    server.feed(&client.sent());
    let data = b"proof".to_vec();
    assert_eq!(server.learned(), [OwnedEvent::Auth { reason, data }]);
}

/// 5 [MQTT-4.12.0-6] and [MQTT-4.12.0-7]
#[test]
fn auth_needs_a_method_in_connect() {
    let mut plain = default(Role::Client, Version::V5);
    let reason = ReasonCode::ContinueAuthentication;
    plain.feed_packet(&Packet::Auth(auth(reason, CHALLENGE)));
    assert_eq!(closed(&mut plain), Some(Violation::AuthNotAgreed));
    let now = plain.now;
    let refused = plain.machine.client().authenticate(&Auth::default(), now);
    assert_eq!(refused, Err(Refused::WrongPhase));
}

/// 3.1.1 [MQTT-3.1.2-8] and [MQTT-3.14.4-3], 5 [MQTT-3.1.2-8] and [MQTT-3.14.4-3]: the will is due unless DISCONNECT deletes it.
/// A DISCONNECT of MQTT 5 with 0x04 does not delete it.
#[test]
fn the_will_is_due_unless_disconnect_deletes_it() {
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

/// 3.1.1 [MQTT-3.1.0-1] and [MQTT-3.1.0-2], 5 the same: CONNECT is the first packet and comes once.
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

/// 3.1.1 [MQTT-3.1.2-2], 5 [MQTT-3.1.2-2]: an unknown level gets an answer before the connection ends.
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

/// A host refuses a CONNECT that it does not want to read to its end. Only MQTT 5 has an answer.
#[test]
fn a_connect_is_refused_by_its_size() {
    for (name, level, answer) in [
        ("0004 4D515454", "05", "20 03 00 95 00"),
        ("0004 4D515454", "85", "20 03 00 95 00"),
        ("0004 4D515454", "04", ""),
        ("0006 4D5149736470", "03", ""),
    ] {
        let mut solo = TestedMachine::new(
            Role::Server,
            Opening::persistent(Version::V311),
            Config::default(),
        );
        let now = solo.now;
        let server = solo.machine.server();
        server.opened(now);
        let bytes = hex(&format!("10 80 80 04 {name} {level}"));
        assert!(!server.refuse_size(&bytes[..10]), "the level is missing");
        assert!(server.refuse_size(&[&bytes[..], &[0; 10]].concat()));
        // Later bytes are dropped.
        solo.feed(&hex("C0 00"));
        assert_eq!(solo.sent(), hex(answer));
        assert!(
            solo.machine
                .server()
                .accept(&ConnAck::default(), now)
                .is_err()
        );
    }
}

/// 3.1.1 [MQTT-3.1.4-5], 5 [MQTT-3.1.4-6]: packets after CONNECT wait for the decision, and are not handled after a refusal.
#[test]
fn packets_after_connect_wait_for_the_decision() {
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

/// The event of a refusal has its reason, and the connection is over.
#[test]
fn a_refused_connection_is_reported() {
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

/// 3.1.1 [MQTT-3.14.4-2], 5 [MQTT-3.14.4-1]: nothing is sent after DISCONNECT.
#[test]
fn nothing_is_sent_after_disconnect() {
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

/// 5 [MQTT-3.3.4-6]: a client sends no subscription identifier. A message that has one is refused and not acknowledged.
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
