//! The `$SYS` topics of `mqtt broker` and those of Mosquitto 2.0.11 have the same names, so that dashboards work with both.

use std::collections::BTreeSet;

use mqtt_testing::peers::Mosquitto;
use mqtt_testing::process::{Process, whole_lines};

use crate::broker::{Broker, MQTT};

/// What only one of them has, and why.
const DIFFERENCES: [&str; 0] = [];

/// Subscribes to all `$SYS` topics until each of these was heard. Returns all that were heard by then.
fn names(port: &str, last: &[&str]) -> BTreeSet<String> {
    let words = ["sub", "-p", port, "-t", "$SYS/#", "-F", "%t"];
    let subscriber = Process::start(MQTT, &words);
    for name in last {
        subscriber.wait_stdout(&format!("{name}\n"));
    }
    whole_lines(&subscriber.printed())
        .map(str::to_owned)
        .collect()
}

#[test]
fn all_statistics_topics_of_mosquitto_are_published() {
    let mosquitto = Mosquitto::start("sys_interval 1");
    // Retained messages come first. This topic is not told until a client was connected, so it comes behind them.
    let theirs = names(
        &mosquitto.port.to_string(),
        &[
            "$SYS/broker/clients/maximum",
            "$SYS/broker/load/bytes/sent/15min",
        ],
    );
    let Broker { process, port } = Broker::start(&["--statistics-interval", "1"]);
    let all: Vec<_> = theirs.iter().map(String::as_str).collect();
    // Its retained messages come in the order of their topics.
    let ours = names(&port, &[&all[..], &["$SYS/broker/version"]].concat());
    drop(process);
    let differences: Vec<_> = ours.symmetric_difference(&theirs).collect();
    assert_eq!(differences, DIFFERENCES.iter().collect::<Vec<_>>());
    assert!(theirs.len() > 50, "{theirs:?}");
}
