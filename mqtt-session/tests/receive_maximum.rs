//! A server that exceeds the receive maximum, as Mosquitto 2.0.11 does when it sends messages again.

use mqtt_proto::{AckKind, Property, QoS, Version};
use mqtt_session::{Acknowledge, Config, Violation};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};
use mqtt_testing::packets::ack;

fn announces(role: Role, maximum: u16, set: impl FnOnce(&mut Config)) -> TestedMachine {
    let mut opening = Opening::persistent(Version::V5);
    let maximum = Property::ReceiveMaximum(maximum);
    match role {
        Role::Client => opening.connect.push(maximum),
        Role::Server => opening.connack.push(maximum),
    }
    let mut config = Config::default();
    config.receive_beyond_maximum = true;
    set(&mut config);
    TestedMachine::connected(role, opening, config)
}

fn by_hand(config: &mut Config) {
    config.acknowledge = Acknowledge::ByHand;
}

#[test]
fn a_client_accepts_messages_beyond_the_maximum_if_configured_and_reports_it() {
    let mut solo = announces(Role::Client, 2, |_| {});
    for id in 1..=2 {
        solo.feed_publish(QoS::ExactlyOnce, id, false, "x");
    }
    assert!(!solo.machine.client().receive_maximum_exceeded());
    solo.feed_publish(QoS::ExactlyOnce, 3, false, "beyond");
    assert_eq!(solo.messages(), ["x", "x", "beyond"]);
    assert!(solo.machine.client().receive_maximum_exceeded());
    // It is not received twice for that.
    solo.feed_publish(QoS::ExactlyOnce, 3, true, "beyond");
    solo.sent();
    for id in 1..=3 {
        solo.feed_ack(AckKind::PubRel, id);
        assert_eq!(solo.sent(), ack(AckKind::PubComp, id));
    }
    assert_eq!(solo.learned(), []);
    assert!(solo.machine.client().receive_maximum_exceeded());
    solo.connect(true);
    assert!(!solo.machine.client().receive_maximum_exceeded());
}

#[test]
fn messages_beyond_the_maximum_are_acknowledged_by_hand() {
    let mut solo = announces(Role::Client, 1, by_hand);
    for id in 1..=3 {
        solo.feed_publish(QoS::AtLeastOnce, id, false, "x");
    }
    assert!(solo.machine.client().receive_maximum_exceeded());
    let now = solo.now;
    for happening in solo.learned() {
        let OwnedEvent::Message { receipt, .. } = happening else {
            panic!("{happening:?}")
        };
        solo.machine
            .acknowledge(receipt.unwrap(), mqtt_proto::ReasonCode::Success, now)
            .unwrap();
    }
    let acks = [1, 2, 3].map(|id| ack(AckKind::PubAck, id));
    assert_eq!(solo.sent(), acks.concat());
}

/// A heap has room for as many messages as there are identifiers. One message more is a violation.
#[test]
fn up_to_65_535_messages_are_held() {
    let mut solo = announces(Role::Client, 1, by_hand);
    for id in 1..=u16::MAX {
        solo.feed_publish(QoS::AtLeastOnce, id, false, "x");
        assert_eq!(solo.messages().len(), 1, "{id}");
    }
    solo.feed_publish(QoS::AtLeastOnce, 1, false, "x");
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Closed(Violation::ReceiveMaximumExceeded)]
    );
}

/// 5 [MQTT-3.3.4-9]: a client does so by default, a server with any configuration.
#[test]
fn a_server_refuses_always_and_a_client_by_default() {
    for mut solo in [
        announces(Role::Server, 2, |_| {}),
        announces(Role::Server, 2, by_hand),
        announces(Role::Client, 2, |config| {
            config.receive_beyond_maximum = false;
        }),
    ] {
        for id in 1..=3 {
            solo.feed_publish(QoS::ExactlyOnce, id, false, "x");
        }
        assert_eq!(solo.messages().len(), 2);
        let expected = OwnedEvent::Closed(Violation::ReceiveMaximumExceeded);
        assert_eq!(solo.learned(), [expected]);
        if solo.role == Role::Client {
            assert!(!solo.machine.client().receive_maximum_exceeded());
        }
    }
}
