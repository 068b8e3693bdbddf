//! Pings, silence and time-outs.

use super::*;

/// A client notices that a broker answers everything but PINGREQ.
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

/// 3.1.1 [MQTT-3.1.2-23], 5 [MQTT-3.1.2-20]: pings are sent in time, one at a time, whatever the clock does.
#[test]
fn pings_are_sent_in_time_and_a_long_sleep_causes_one() {
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

/// A client that only publishes must notice as well that the server is gone.
#[test]
fn a_client_that_only_publishes_pings_as_well() {
    let mut solo = default(Role::Client, Version::V5);
    for _ in 0..60 {
        solo.wait(1_000);
        solo.publish(QoS::AtMostOnce, "x").unwrap();
    }
    assert!(solo.sent_types().contains(&P::PingReq));
    solo.wait(10_000);
    assert_eq!(closed(&mut solo), Some(Violation::PingTimeout));
}

/// A slow application does not look like a dead broker: PINGRESP may follow input that was not processed yet.
#[test]
fn a_slow_application_does_not_look_like_a_dead_broker() {
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

/// 3.1.1 [MQTT-3.1.2-24], 5 [MQTT-3.1.2-22]: the server ends the connection after one and a half keep-alives of
/// silence.
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

/// 5 [MQTT-3.1.2-21]: the server's keep-alive replaces that of the client, on both sides.
#[test]
fn the_servers_keep_alive_replaces_the_clients() {
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

/// The wait for CONNACK, and that for CONNECT, has a time-out.
#[test]
fn the_wait_for_a_silent_peer_ends() {
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
