//! Checks that `mqtt sub` and `mqtt pub` end on a signal whatever becomes of their output and their broker.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use mqtt_testing::process::{run, signal};

use crate::broker::{Broker, MQTT};
use crate::commands::is_well;

/// The reader of its output has stopped, so that the program cannot write any more.
#[test]
fn sub_ends_on_a_signal_while_nobody_reads_its_output() {
    let broker = Broker::start(&[]);
    let line = "x".repeat(50_000) + "\n";
    for sign in ["INT", "TERM"] {
        let mut subscriber = subscriber(&broker, Stdio::piped());
        let mut log = wait(&mut subscriber, "receiving SUBACK");
        let publish = ["pub", "-p", &broker.port, "-t", "a", "-l"];
        is_well(&run(MQTT, &publish, &line.repeat(4)));
        // The pipe has room for the first message and not for the second one, which stops the program before it reads on.
        for _ in 0..2 {
            wait_line(&mut log, "receiving PUBLISH");
        }
        signal(subscriber.id(), sign);
        ends(&mut subscriber);
    }
}

/// Starts a subscriber that prints its packets on standard error.
fn subscriber(broker: &Broker, output: Stdio) -> Child {
    Command::new(MQTT)
        .args(["sub", "-p", &broker.port, "-t", "a", "-d"])
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until a process has ended.
fn ends(process: &mut Child) {
    let status = (0..600).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        process.try_wait().unwrap()
    });
    let _ = process.kill();
    assert!(status.is_some(), "it does not end");
}

/// Standard error with the packets of `-d` is closed by its reader, or not read.
#[test]
fn sub_ends_on_a_signal_whatever_becomes_of_its_standard_error() {
    let broker = Broker::start(&[]);
    for closes in [true, false] {
        let mut subscriber = subscriber(&broker, Stdio::null());
        let log = wait(&mut subscriber, "receiving SUBACK");
        let log = (!closes).then_some(log);
        // The pipe has room for 64 KiB.
        let publish = ["pub", "-p", &broker.port, "-t", "a", "-l"];
        is_well(&run(MQTT, &publish, &"x\n".repeat(3_000)));
        signal(subscriber.id(), "TERM");
        ends(&mut subscriber);
        drop(log);
    }
}

/// The lines of `-d` are more than the pipe of standard error has room for.
#[test]
fn pub_ends_on_a_signal_while_nobody_reads_its_standard_error() {
    let broker = Broker::start(&[]);
    for sign in ["INT", "TERM"] {
        let subscriber = broker.spawn("sub", &["-t", "a", "-C", "100", "-d"]);
        subscriber.wait_stderr("receiving SUBACK");
        let mut publisher = Command::new(MQTT)
            .args(["pub", "-p", &broker.port, "-t", "a", "-l", "-d"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = wait(&mut publisher, "receiving CONNACK");
        let lines = "x\n".repeat(3_000);
        let mut input = publisher.stdin.take().unwrap();
        input.write_all(lines.as_bytes()).unwrap();
        is_well(&subscriber.end());
        signal(publisher.id(), sign);
        ends(&mut publisher);
        drop((log, input));
    }
}

#[test]
fn pub_ends_on_a_signal_while_its_broker_is_stopped() {
    for sign in ["INT", "TERM"] {
        let broker = Broker::start(&[]);
        let mut publisher = broker.spawn("pub", &["-i", "p", "-t", "a", "-q", "1", "-l"]);
        broker.process.wait_stderr("client=\"p\"");
        broker.process.signal("STOP");
        publisher.write(&"x\n".repeat(3_000));
        publisher.signal(sign);
        let ended = publisher.end();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    }
}

/// Reads lines of standard error until one contains `text`. Returns the rest.
fn wait(process: &mut Child, text: &str) -> BufReader<ChildStderr> {
    let mut log = BufReader::new(process.stderr.take().unwrap());
    wait_line(&mut log, text);
    log
}

fn wait_line(log: &mut BufReader<ChildStderr>, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it has ended");
    }
}
