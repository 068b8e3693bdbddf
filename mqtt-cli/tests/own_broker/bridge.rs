//! Tests Mosquitto as a bridge to `mqtt broker`: messages in both directions, at each QoS, and over a restart of either side.

use mqtt_testing::peers::{Mosquitto, free_port};
use mqtt_testing::process::{Process, run};

use crate::broker::MQTT;

const QOS: [&str; 3] = ["0", "1", "2"];

/// Returns the configuration of a bridge to a port.
fn bridge(version: &str, port: &str) -> String {
    format!(
        "connection ours\nremote_clientid bridge\naddress 127.0.0.1:{port}\nbridge_protocol_version {version}\n\
         topic out/# out 2\ntopic in/# in 2\ntopic both/# both 2\nrestart_timeout 1\ncleansession true\n"
    )
}

fn broker(bind: &str) -> Process {
    Process::start(MQTT, &["broker", "--log", "debug", "--bind", bind])
}

/// Checks that a message at each QoS passes from one port to another.
fn carries(from: &str, to: &str, topic: &str) {
    for qos in QOS {
        let words = [
            "sub", "-p", to, "-q", "2", "-t", topic, "-C", "1", "-F", "%q %p", "-d",
        ];
        let subscriber = Process::start(MQTT, &words);
        subscriber.wait_stderr("receiving SUBACK");
        let ended = run(
            MQTT,
            &["pub", "-p", from, "-q", qos, "-t", topic, "-m", "hello"],
            "",
        );
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(subscriber.end().stdout, format!("{qos} hello\n"));
    }
}

fn publish(port: &str, words: &[&str]) {
    let words = [&["pub", "-p", port, "-q", "1"], words].concat();
    let ended = run(MQTT, &words, "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Returns a subscriber at a port that ends after `count` messages.
fn subscribe(port: &str, topic: &str, count: &str) -> Process {
    let words = [
        "sub", "-p", port, "-q", "1", "-t", topic, "-C", count, "-F", "%t %p", "-d",
    ];
    let subscriber = Process::start(MQTT, &words);
    subscriber.wait_stderr("receiving SUBACK");
    subscriber
}

/// Checks that a message does not come back to the broker at which it was published, though the bridge carries its topic in both
/// directions. The second message goes from `ours` to `other` behind whatever comes back.
fn nothing_comes_back(ours: &str, other: &str) {
    let here = subscribe(ours, "both/#", "1");
    let there = subscribe(other, "both/#", "2");
    publish(other, &["-t", "both/a", "-m", "first"]);
    assert_eq!(here.end().stdout, "both/a first\n");
    publish(ours, &["-t", "both/b", "-m", "second"]);
    assert_eq!(there.end().stdout, "both/a first\nboth/b second\n");
}

/// Checks that a message that is published as retained at one port is retained at the other.
fn stays_retained(from: &str, to: &str, topic: &str) {
    let subscriber = subscribe(to, topic, "1");
    publish(from, &["-t", topic, "-m", "kept", "-r"]);
    assert_eq!(subscriber.end().stdout, format!("{topic} kept\n"));
    let words = ["sub", "-p", to, "-t", topic, "-C", "1", "-F", "%r %p"];
    assert_eq!(run(MQTT, &words, "").stdout, "1 kept\n");
}

fn bridges(version: &str) {
    // Not one of those that the system gives to clients, because nobody listens there between two brokers.
    let port = free_port().to_string();
    let process = broker(&format!("127.0.0.1:{port}"));
    process.wait_stderr("listening");
    // The will of the bridge shows that it was connected.
    let is_bridged = |process: &Process| process.wait_stderr("filter=\"in/#\"");
    let config = bridge(version, &port);
    let mosquitto = Mosquitto::start(&config);
    let other = mosquitto.port.to_string();
    is_bridged(&process);
    let state = [
        "sub",
        "-p",
        &port,
        "-t",
        "$SYS/broker/connection/+/state",
        "-C",
        "1",
    ];
    assert_eq!(run(MQTT, &state, "").stdout, "1\n");
    carries(&port, &other, "in/a");
    carries(&other, &port, "out/a");

    nothing_comes_back(&port, &other);
    stays_retained(&port, &other, "in/kept");
    stays_retained(&other, &port, "out/kept");

    // Its first attempt was the one that was served.
    process.signal("TERM");
    let logged = process.end().stderr;
    assert!(!logged.contains("protocol level"), "{logged}");
    let process = broker(&format!("127.0.0.1:{port}"));
    is_bridged(&process);
    carries(&port, &other, "in/b");
    carries(&other, &port, "out/b");

    let listener = Process::start(
        MQTT,
        &["sub", "-p", &port, "-R", "-t", state[4], "-C", "2", "-d"],
    );
    listener.wait_stderr("receiving SUBACK");
    drop(mosquitto);
    let _mosquitto = Mosquitto::start_there(other.parse().unwrap(), &config);
    // The bridge disconnected and connected again.
    assert_eq!(listener.end().stdout, "0\n1\n");
    carries(&other, &port, "out/c");
    // It comes to the subscription of the bridge, whether that is already here or not.
    stays_retained(&port, &other, "in/late");
    carries(&port, &other, "in/c");
}

#[test]
fn a_mosquitto_bridge_connects_by_3_1() {
    bridges("mqttv31");
}

#[test]
fn a_mosquitto_bridge_connects_by_3_1_1() {
    bridges("mqttv311");
}

#[test]
fn a_mosquitto_bridge_connects_by_5() {
    bridges("mqttv50");
}
