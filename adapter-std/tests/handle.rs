//! Runs the suites of the handle on the async handle inside of the blocking one, and tests the blocking calls.

mod awaited;

use std::io::Read;
use std::time::Duration;

use awaited::Handle;
use futures_lite::future::block_on;
use mqtt_std::proto::{Connect, QoS, TopicName, Version};
use mqtt_std::session::Event;
use mqtt_std::{Config, Connection, Error, Options, Outgoing};
use mqtt_testing::peers::{Mosquitto, RawServer, free_port};

fn start(options: Options) -> Handle {
    Handle(mqtt_std::Handle::start(options))
}

mqtt_testing::handles!(start, block_on);
mqtt_testing::services!(start, block_on, 5_000);

/// A program that ends without `close` has sent all its messages.
#[test]
fn the_last_drop_waits_until_all_is_sent() {
    let broker = Mosquitto::start("");
    let options = || Options::new("127.0.0.1", broker.port);
    let receiver = mqtt_std::Handle::connect(options()).unwrap();
    let mut messages = receiver.subscribe("a", QoS::ExactlyOnce).unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let sender = mqtt_std::Handle::connect(options()).unwrap();
        for n in 0..200_u8 {
            drop(sender.publish("a", qos, false, [n]).unwrap());
        }
        drop(sender);
        for n in 0..200_u8 {
            assert_eq!(messages.next().unwrap().payload[..], [n]);
        }
    }
}

#[test]
fn waits_have_a_time_limit() {
    let limit = Duration::from_millis(20);
    let nowhere = mqtt_std::Handle::start(Options::new("127.0.0.1", free_port()));
    let impatient = nowhere.timeout(limit);
    let connected = impatient.wait_connected();
    assert!(
        matches!(connected, Err(Error::TimedOut(_))),
        "{connected:?}"
    );
    let subscribed = impatient.subscribe("a", QoS::AtMostOnce);
    assert!(
        matches!(subscribed, Err(Error::TimedOut(_))),
        "{subscribed:?}"
    );
    let broker = Mosquitto::start("");
    let mut options = Options::new("127.0.0.1", broker.port);
    options.version = Version::V5;
    let handle = mqtt_std::Handle::connect(options).unwrap();
    let request = Outgoing::new(TopicName::from_static("nobody"), QoS::AtMostOnce, b"");
    let response = handle.request(&request, limit);
    assert!(matches!(response, Err(Error::TimedOut(_))), "{response:?}");
}

/// The time for CONNACK may be over before CONNECT is written: the last bytes are written, and the reason is told nevertheless.
#[test]
fn a_time_that_is_over_at_once_is_told() {
    let server = RawServer::start(|mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for _ in 0..50 {
        let mut options = Options::new("127.0.0.1", server.port);
        options.config.connect_timeout_ms = 1;
        let error = mqtt_std::Handle::connect(options).unwrap_err();
        assert_eq!(error.to_string(), "cannot connect", "{error:?}");
    }
}

/// The longest time limit that a program can give is none.
#[test]
fn a_limit_beyond_the_clock_is_no_limit() {
    let broker = Mosquitto::start("");
    let mut options = Options::new("127.0.0.1", broker.port);
    options.dial_timeout = Duration::MAX;
    let handle = mqtt_std::Handle::start(options).timeout(Duration::MAX);
    handle.wait_connected().unwrap();
    let mut messages = handle.subscribe("a", QoS::AtMostOnce).unwrap();
    drop(handle.publish("a", QoS::AtMostOnce, false, "x").unwrap());
    assert!(messages.next_within(Duration::MAX).is_some());
    let connect = Connect::new(Version::V311, "bare");
    let (address, config) = (("127.0.0.1", broker.port), Config::default());
    let mut bare = Connection::dial(address, &connect, config, Duration::MAX).unwrap();
    let (event, _) = bare.next_within(Duration::MAX).unwrap();
    assert!(matches!(event, Some(Event::Connected { .. })), "{event:?}");
}
