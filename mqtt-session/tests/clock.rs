//! The engine counts time in 32 bits. No time-out is early or late when they wrap around or when a clock seems to go back.

use mqtt_proto::{PacketType, QoS, Version};
use mqtt_session::{Config, Instant, Violation};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};

/// The times at which 32 bits of milliseconds wrap around for the first and for the tenth time.
const WRAPS: [u64; 2] = [1 << 32, 10 << 32];

/// A machine that connected `before` milliseconds before the wrap.
fn connected(role: Role, wrap: u64, before: u64) -> TestedMachine {
    let mut solo = TestedMachine::new(role, Opening::persistent(Version::V5), Config::default());
    solo.now = Instant::from_millis(wrap - before);
    solo.connect(false);
    solo.sent();
    solo.learned();
    solo
}

/// 3.1.1 [MQTT-3.1.2-23], 5 [MQTT-3.1.2-20]: the ping is due 52.5 seconds after the last packet, its answer 10 seconds later.
#[test]
fn a_client_pings_in_time_and_gives_up_in_time() {
    for wrap in WRAPS {
        for before in [1, 30_000, 52_499, 52_500, 52_501, 60_000, 62_500] {
            let mut solo = connected(Role::Client, wrap, before);
            let due = solo.machine.deadline().unwrap();
            assert_eq!(due.since(solo.now).as_millis(), 52_500);
            solo.wait(52_499);
            assert_eq!(solo.sent_types(), []);
            solo.wait(1);
            assert_eq!(solo.sent_types(), [PacketType::PingReq]);
            solo.wait(9_999);
            assert_eq!(solo.learned(), []);
            solo.wait(1);
            assert_eq!(solo.learned(), [OwnedEvent::Closed(Violation::PingTimeout)]);
        }
    }
}

/// 3.1.1 [MQTT-3.1.2-24], 5 [MQTT-3.1.2-22]
#[test]
fn a_server_waits_for_one_and_a_half_keep_alives() {
    for wrap in WRAPS {
        for before in [1, 45_000, 89_999, 90_000, 90_001] {
            let mut solo = connected(Role::Server, wrap, before);
            solo.wait(89_999);
            assert_eq!(solo.learned(), []);
            solo.wait(1);
            let expected = OwnedEvent::Closed(Violation::KeepAliveTimeout);
            assert_eq!(solo.learned(), [expected]);
        }
    }
}

#[test]
fn connack_is_awaited_for_as_long_as_is_configured() {
    for wrap in WRAPS {
        for before in [1, 15_000, 29_999, 30_000, 30_001] {
            let opening = Opening::persistent(Version::V311);
            let mut solo = TestedMachine::new(Role::Client, opening.clone(), Config::default());
            solo.now = Instant::from_millis(wrap - before);
            let now = solo.now;
            let connect = opening.connect();
            solo.machine.client().connect(&connect, now).unwrap();
            solo.wait(29_999);
            assert_eq!(solo.learned(), []);
            solo.wait(1);
            let expected = OwnedEvent::Closed(Violation::ConnectTimeout);
            assert_eq!(solo.learned(), [expected]);
        }
    }
}

/// Threads that read the clock in one order may call in another.
#[test]
fn a_moment_in_the_past_ends_nothing() {
    for role in [Role::Client, Role::Server] {
        for before in [1, 1_000] {
            let mut solo = connected(role, 1 << 32, before);
            let later = solo.now;
            solo.now = Instant::from_millis(later.as_millis() - 500);
            solo.wait(0);
            solo.feed_publish(QoS::AtMostOnce, 0, false, "x");
            assert_eq!(solo.messages(), ["x"]);
            assert_eq!(solo.learned(), []);
            assert_eq!(solo.sent_types(), []);
            solo.now = later;
            solo.wait(1_000);
            assert_eq!(solo.learned(), []);
        }
    }
}
