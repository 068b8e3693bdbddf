//! Kills `mqtt broker --store` by `kill -9` repeatedly under the load of other client libraries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mqtt_testing::peers::free_port;
use mqtt_testing::process::{Process, run, whole_lines, words};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python");
const PAHO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/paho_session.py");

/// How often the broker is killed; `scripts/soak.sh` sets a higher number.
fn kills() -> usize {
    std::env::var("MQTT_KILLS").map_or(3, |kills| kills.parse().expect("a number"))
}

fn broker(dir: &Path, port: &str, threads: &str) -> Process {
    let bind = format!("127.0.0.1:{port}");
    let dir = dir.to_str().expect("UTF-8");
    let own = ["broker", "--bind", &bind, "--store", dir];
    let broker = Process::start(MQTT, &[&own[..], &["--threads", threads]].concat());
    broker.wait_stderr("listening");
    broker
}

/// Returns the numbers in the whole lines that begin with `prefix`.
fn numbers(printed: &str, prefix: &str) -> Vec<u32> {
    let numbers = whole_lines(printed).filter_map(|line| line.strip_prefix(prefix));
    numbers
        .map(|number| number.parse().expect("a number"))
        .collect()
}

/// Returns the numbers that paho printed as acknowledged for a topic.
fn acknowledged(printed: &str, topic: &str) -> Vec<u32> {
    numbers(printed, &format!("acknowledged {topic} "))
}

/// Returns the numbers that a subscriber printed for a topic.
fn heard(printed: &str, topic: &str) -> Vec<u32> {
    numbers(printed, &format!("{topic} "))
}

fn mosquitto_sub(port: &str, arguments: &[&str]) -> Process {
    // mosquitto_sub does not flush its output of -d.
    let program = ["-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", port];
    Process::start("stdbuf", &[&program[..], arguments].concat())
}

/// Connects a client with a will.
fn leaver(port: &str, number: usize) -> Process {
    let (name, will) = (format!("leaver-{number}"), number.to_string());
    let arguments = ["-d", "-i", &name, "-t", "nothing", "--will-topic", "w"];
    let will = ["--will-qos", "1", "--will-payload", &will];
    let leaver = mosquitto_sub(port, &[&arguments[..], &will].concat());
    leaver.wait_stdout("CONNACK (0)");
    leaver
}

/// Runs `mqtt` to its end.
fn client(command: &str, port: &str) -> String {
    let all = [&words(command)[..], &["-h", "127.0.0.1", "-p", port]].concat();
    let ended = run(MQTT, &all, "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

/// Kills a broker: paho publishes without a pause; paho reads at QoS 2, mosquitto_sub at QoS 1. After a
/// kill at any instant, all acknowledged messages exist: at QoS 1 at least once, at QoS 2 once and in order, the last retained
/// message, and the will of a client that was connected. (mosquitto_sub 2.0.11 is not used at QoS 2: it stores a repeated PUBLISH
/// beside the first one, and prints both if PUBREL is sent again as well.)
fn state_survives_kills(threads: &str) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("store-foreign-{threads}"));
    let _ = std::fs::remove_dir_all(&dir);
    // Not one of those that the system gives to clients, because nobody listens there between two brokers.
    let port = free_port().to_string();
    let mut running = broker(&dir, &port, threads);
    let reader = Process::start(PYTHON, &[PAHO, "sub", &port]);
    reader.wait_stdout("subscribed");
    let other = ["-i", "other", "-c", "-q", "1", "-v", "-d"];
    let topics = ["-t", "n/1", "-t", "w", "-t", "end"];
    let other = mosquitto_sub(&port, &[&other[..], &topics].concat());
    other.wait_stdout("Subscribed");
    let mut outbox = Process::start(PYTHON, &[PAHO, "pub", &port]);
    let mut last = 0;
    for kill in 0..kills() {
        let leaver = leaver(&port, kill);
        // A hundred more messages are acknowledged, then the kill comes at any instant.
        outbox.wait_stdout(&format!("acknowledged n/1 {}\n", last + 101));
        drop(running);
        drop(leaver);
        let printed = outbox.printed();
        let kept = acknowledged(&printed, "kept").into_iter().max();
        last = acknowledged(&printed, "n/2").into_iter().max().unwrap_or(0);
        running = broker(&dir, &port, threads);
        let retained = client("sub -t kept -C 1", &port);
        let retained: u32 = retained.trim().parse().expect("a retained message");
        assert!(
            Some(retained) >= kept,
            "{retained} is retained after {kept:?}"
        );
    }
    outbox.close_input();
    outbox.wait_stdout("end ");
    client("pub -t end -q 2 -m 1", &port);
    reader.wait_stdout("end 1\n");
    other.wait_stdout("end 1\n");
    let (printed, told) = (other.printed(), outbox.printed());
    let once = heard(&reader.printed(), "n/2");
    assert!(
        once.is_sorted_by(|a, b| a < b),
        "doubled, or out of order: {once:?}"
    );
    is_complete(&acknowledged(&told, "n/1"), heard(&printed, "n/1"));
    is_complete(&acknowledged(&told, "n/2"), once);
    let wills = BTreeSet::from_iter(heard(&printed, "w"));
    let expected = (0..kills()).map(|kill| u32::try_from(kill).expect("few"));
    assert_eq!(wills, expected.collect());
}

/// Checks that all acknowledged messages were received.
#[track_caller]
fn is_complete(told: &[u32], heard: Vec<u32>) {
    let heard = BTreeSet::from_iter(heard);
    let lost: Vec<_> = told.iter().filter(|n| !heard.contains(n)).collect();
    assert_eq!(lost, [&0; 0], "of {}", told.len());
    eprintln!("{} acknowledged, {} heard", told.len(), heard.len());
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]
#[test]
fn acknowledged_state_of_other_clients_survives_kills() {
    state_survives_kills("1");
}

/// Each thread has a part of the clients and of the store.
#[test]
fn acknowledged_state_in_two_threads_survives_kills() {
    state_survives_kills("2");
}
