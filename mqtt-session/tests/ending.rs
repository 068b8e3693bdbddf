//! Messages that are published while the connection is ending: after DISCONNECT or a violation, before the transport is closed.

use mqtt_proto::{AckKind, Disconnect, Packet, QoS, Version};
use mqtt_session::{Config, Ended, Offline, Refused};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};
use mqtt_testing::packets::{encode, publish};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
const ROLES: [Role; 2] = [Role::Client, Role::Server];

fn ending(role: Role, version: Version, offline: Offline) -> TestedMachine {
    let mut config = Config::default();
    config.offline = offline;
    let mut solo = TestedMachine::connected(role, Opening::persistent(version), config);
    let goodbye = Disconnect::default();
    match role {
        Role::Client => solo.machine.client().disconnect(&goodbye).unwrap(),
        Role::Server => solo.machine.server().disconnect(&goodbye).unwrap(),
    }
    solo
}

fn all() -> impl Iterator<Item = (Role, Version)> {
    ROLES
        .into_iter()
        .flat_map(|role| VERSIONS.map(|version| (role, version)))
}

/// 3.1.1 [MQTT-3.14.4-2], 5 [MQTT-3.14.4-1]: nothing is sent after DISCONNECT. The next connection sends the message.
#[test]
fn a_message_published_while_ending_is_kept_for_the_next_connection() {
    for (role, version) in all() {
        let mut solo = ending(role, version, Offline::Keep);
        let goodbye = solo.machine.outgoing().to_vec();
        let unanswered = solo.must_publish(QoS::AtMostOnce, "zero");
        let token = solo.must_publish(QoS::AtLeastOnce, "one");
        assert_eq!(solo.sent(), goodbye);
        solo.connect(true);
        let packets = [
            publish(QoS::AtMostOnce, 0, false, "zero"),
            publish(QoS::AtLeastOnce, 1, false, "one"),
        ];
        let expected = packets.map(|packet| encode(&Packet::Publish(packet), version));
        assert_eq!(solo.sent(), expected.concat());
        solo.feed_ack(AckKind::PubAck, 1);
        let ended = OwnedEvent::Ended {
            token: unanswered,
            how: Ended::Sent,
        };
        let learned = solo.learned();
        assert!(learned.contains(&ended), "{learned:?}");
        assert!(
            matches!(learned.last(), Some(OwnedEvent::Acknowledged { token: other, .. }) if *other == token)
        );
    }
}

#[test]
fn a_message_published_while_ending_is_refused_with_reject() {
    for (role, version) in all() {
        let mut solo = ending(role, version, Offline::Reject);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            assert_eq!(solo.publish(qos, "x"), Err(Refused::Offline));
        }
    }
}

/// A violation of the peer ends the connection as well. What the application publishes before it notices this is not lost.
#[test]
fn a_message_published_after_a_violation_is_kept() {
    for (role, version) in all() {
        let mut solo =
            TestedMachine::connected(role, Opening::persistent(version), Config::default());
        solo.feed(&[0xFF, 0xFF]);
        assert!(matches!(solo.learned()[..], [OwnedEvent::Closed(_)]));
        solo.must_publish(QoS::ExactlyOnce, "x");
        solo.connect(true);
        let packet = publish(QoS::ExactlyOnce, 1, false, "x");
        assert_eq!(solo.sent(), encode(&Packet::Publish(packet), version));
    }
}
