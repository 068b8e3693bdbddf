//! A clean start ends the session at CONNECT, not at CONNACK: a CONNACK that is lost must not bring the old session back.

use mqtt_proto::{AckKind, ConnAck, Connect, Packet, Property, QoS, Version};
use mqtt_session::{Config, Ended, Refused, SessionLost};
use mqtt_testing::machines::{CLIENT_ID, Opening, OwnedEvent, Role, TestedMachine};
use mqtt_testing::packets::{ack, encode, properties, publish};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn connected(version: Version, session_lost: SessionLost) -> TestedMachine {
    let mut config = Config::default();
    config.session_lost = session_lost;
    TestedMachine::connected(Role::Client, Opening::persistent(version), config)
}

fn connect(solo: &mut TestedMachine, clean_start: bool) -> Result<(), Refused> {
    let connect = Connect {
        clean_start,
        ..Connect::new(solo.version(), CLIENT_ID)
    };
    let now = solo.now;
    solo.machine.client().connect(&connect, now)
}

/// Sends CONNECT with clean start and ends the connection before its CONNACK.
fn lose_the_connack_of_a_clean_start(solo: &mut TestedMachine) {
    solo.disconnect();
    connect(solo, true).unwrap();
    solo.sent();
    solo.disconnect();
}

/// 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.1.2-4]: the identifier of a half received QoS 2 message means a new message afterwards.
#[test]
fn a_message_after_a_lost_connack_is_not_taken_for_a_repetition() {
    for version in VERSIONS {
        let mut solo = connected(version, SessionLost::SendAgain);
        solo.feed_publish(QoS::ExactlyOnce, 1, false, "old");
        assert_eq!(solo.sent(), ack(AckKind::PubRec, 1));
        lose_the_connack_of_a_clean_start(&mut solo);
        assert!(solo.machine.client().must_start_clean());
        assert_eq!(connect(&mut solo, false), Err(Refused::MustStartClean));
        connect(&mut solo, true).unwrap();
        solo.sent();
        solo.learned();
        solo.feed_packet(&Packet::ConnAck(ConnAck::default()));
        assert_eq!(
            solo.learned(),
            [OwnedEvent::Connected {
                resumed: false,
                unasked_session: false
            }]
        );
        assert!(!solo.machine.client().must_start_clean());
        solo.feed_publish(QoS::ExactlyOnce, 1, false, "new");
        assert_eq!(solo.messages(), ["new"]);
    }
}

/// A CONNECT that is refused changes nothing: an existing connection continues.
#[test]
fn a_connect_without_the_required_clean_start_changes_nothing() {
    for version in VERSIONS {
        let mut solo = connected(version, SessionLost::SendAgain);
        lose_the_connack_of_a_clean_start(&mut solo);
        connect(&mut solo, true).unwrap();
        let outgoing = solo.machine.outgoing().to_vec();
        assert_eq!(connect(&mut solo, false), Err(Refused::MustStartClean));
        assert_eq!(solo.machine.outgoing(), outgoing);
        solo.sent();
        solo.feed_packet(&Packet::ConnAck(ConnAck::default()));
        assert!(solo.machine.is_connected());
        solo.disconnect();
        assert_eq!(connect(&mut solo, false), Ok(()));
    }
}

/// After a refusal it is unknown whether the server has ended its session.
#[test]
fn a_clean_start_that_was_refused_must_be_asked_for_again() {
    let mut solo = connected(Version::V5, SessionLost::SendAgain);
    solo.disconnect();
    connect(&mut solo, true).unwrap();
    solo.sent();
    solo.feed_packet(&Packet::ConnAck(ConnAck {
        reason: mqtt_proto::ReasonCode::ServerBusy,
        ..ConnAck::default()
    }));
    solo.disconnect();
    assert!(solo.machine.client().must_start_clean());
    solo.machine.client().assume_session(CLIENT_ID);
    assert!(!solo.machine.client().must_start_clean());
    assert_eq!(connect(&mut solo, false), Ok(()));
}

/// At CONNECT, outgoing messages are handled as if the server had lost the session.
#[test]
fn outgoing_messages_end_or_are_new_when_a_clean_start_is_asked_for() {
    for version in VERSIONS {
        let mut solo = connected(version, SessionLost::HandBack);
        let token = solo.must_publish(QoS::ExactlyOnce, "x");
        solo.sent();
        solo.disconnect();
        solo.learned();
        connect(&mut solo, true).unwrap();
        solo.feed(&[]);
        let how = Ended::InDoubt;
        assert_eq!(solo.learned(), [OwnedEvent::Ended { token, how }]);

        let mut solo = connected(version, SessionLost::SendAgain);
        solo.must_publish(QoS::AtLeastOnce, "x");
        let received = solo.must_publish(QoS::ExactlyOnce, "y");
        solo.sent();
        solo.feed_ack(AckKind::PubRec, 2);
        lose_the_connack_of_a_clean_start(&mut solo);
        let ended = OwnedEvent::Ended {
            token: received,
            how,
        };
        assert_eq!(solo.learned(), [ended]);
        connect(&mut solo, true).unwrap();
        solo.sent();
        solo.feed_packet(&Packet::ConnAck(ConnAck::default()));
        let again = Packet::Publish(publish(QoS::AtLeastOnce, 1, false, "x"));
        assert_eq!(solo.sent(), encode(&again, version));
    }
}

/// A CONNECT that cannot be written drops nothing: QoS 2 messages that are not released are still known.
#[test]
fn a_connect_that_cannot_be_written_drops_nothing() {
    let mut solo = connected(Version::V5, SessionLost::HandBack);
    solo.feed_publish(QoS::ExactlyOnce, 1, false, "old");
    solo.must_publish(QoS::AtLeastOnce, "kept");
    solo.sent();
    let twice = [Property::ReceiveMaximum(1), Property::ReceiveMaximum(1)];
    let unwritable = Connect {
        properties: properties(&twice),
        ..Connect::new(Version::V5, CLIENT_ID)
    };
    let large = "x".repeat(60_000);
    solo.machine.client().config_mut().outgoing_limit = 10_000;
    let too_large = Connect {
        user_name: Some(&large),
        ..Connect::new(Version::V5, CLIENT_ID)
    };
    // What was kept in 5 cannot be sent in 3.1.1, but that CONNECT does not go out.
    let other_version = Connect {
        properties: properties(&twice),
        ..Connect::new(Version::V311, CLIENT_ID)
    };
    let now = solo.now;
    for connect in [unwritable, too_large, other_version] {
        let refused = solo.machine.client().connect(&connect, now);
        assert!(matches!(
            refused,
            Err(Refused::Encode(_) | Refused::TooLarge { .. })
        ));
        assert!(!solo.machine.client().must_start_clean());
    }
    solo.feed(&[]);
    assert_eq!(solo.messages(), ["old"]);
    assert_eq!(solo.learned(), []);
    assert_eq!(solo.machine.pending(), 1);
    connect(&mut solo, false).unwrap();
    solo.sent();
    solo.feed_packet(&Packet::ConnAck(ConnAck {
        session_present: true,
        ..ConnAck::default()
    }));
    solo.feed_publish(QoS::ExactlyOnce, 1, true, "old");
    assert_eq!(solo.messages(), Vec::<String>::new());
}
