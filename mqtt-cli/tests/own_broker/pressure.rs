//! Tests a subscriber that is slower than its publisher.

use mqtt_testing::process::run;

use crate::broker::{Broker, MQTT};

/// The broker may queue a fiftieth of the published messages.
#[test]
fn a_slow_connected_subscriber_receives_all_messages() {
    const COUNT: &str = "20000";
    for qos in ["0", "1", "2"] {
        let broker = Broker::start(&["--queued-messages", "400"]);
        let subscriber = broker.spawn("sub", &["-t", "n", "-q", qos, "-C", COUNT, "-d"]);
        subscriber.wait_stderr("receiving SUBACK");
        let count: usize = COUNT.parse().expect("a number");
        let numbers: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let publishing = [
            "pub",
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port,
            "-t",
            "n",
            "-q",
            "1",
            "-l",
        ];
        let published = run(MQTT, &publishing, &(numbers.join("\n") + "\n"));
        assert_eq!(published.code, Some(0), "{}", published.stderr);
        let ended = subscriber.end();
        assert_eq!(ended.code, Some(0));
        let in_order = ended.stdout.lines().eq(numbers.iter().map(String::as_str));
        assert!(in_order, "{} came", ended.stdout.lines().count());
    }
}
