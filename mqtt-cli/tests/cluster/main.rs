//! Tests `mqtt broker --engine` on servers of NATS: what was acknowledged survives the kill of the broker that serves and of the
//! server that leads, and of two brokers only one serves.

#![cfg(feature = "nats")]

mod partition;
mod restarts;
mod shards;

use std::collections::BTreeSet;

use mqtt_testing::peers::{ClosedPort, NatsServers, free_port};
use mqtt_testing::process::{Ended, Process, run, whole_lines, words};
use mqtt_testing::wires::Network;

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python");
const PAHO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/paho_session.py");

/// A lease that is too short for programs in use: a broker may take over while the servers elect a leader.
const LEASE: &str = "--engine-lease 2";

/// How often a broker and a server are killed by turns; `scripts/soak.sh` sets a higher number.
fn kills() -> usize {
    std::env::var("MQTT_KILLS").map_or(1, |kills| kills.parse().expect("a number"))
}

/// Starts a broker with more arguments.
fn broker(servers: &NatsServers, node: &str, port: &str, more: &str) -> Process {
    broker_at(&servers.url(), node, port, more)
}

/// Starts a broker of the servers at an address.
fn broker_at(url: &str, node: &str, port: &str, more: &str) -> Process {
    let bind = format!("127.0.0.1:{port}");
    let own = ["broker", "--bind", &bind, "--engine", url, "--node", node];
    let more: Vec<_> = more.split_whitespace().collect();
    Process::start(MQTT, &[&own[..], &more].concat())
}

fn client(command: &str, port: &str) -> Ended {
    let all = [&words(command)[..], &["-h", "127.0.0.1", "-p", port]].concat();
    run(MQTT, &all, "")
}

/// Returns the numbers in the whole lines that begin with `prefix`.
fn numbers(printed: &str, prefix: &str) -> Vec<u32> {
    let numbers = whole_lines(printed).filter_map(|line| line.strip_prefix(prefix));
    numbers
        .map(|number| number.parse().expect("a number"))
        .collect()
}

/// Waits until a hundred more messages are acknowledged.
fn goes_on(outbox: &Process) {
    let last = numbers(&outbox.printed(), "acknowledged n/1 ");
    let last = last.into_iter().max().unwrap_or(1);
    outbox.wait_stdout(&format!("acknowledged n/1 {}\n", last + 100));
}

/// Kills the server that leads a stream. It starts again when more messages were acknowledged without it.
fn lose_leader(servers: &mut NatsServers, stream: &str, outbox: &Process) {
    let leader = servers.leader(stream);
    servers.kill(leader);
    goes_on(outbox);
    servers.restart(leader);
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: paho publishes without a pause at QoS 1 and 2, and paho reads at QoS 2. By turns the
/// broker that serves and the server that leads the stream are killed. All acknowledged messages at QoS 2 arrive, once and in
/// order; the last acknowledged message at QoS 1 is retained.
#[test]
fn acknowledged_messages_survive_kills_of_brokers_and_servers() {
    let mut servers = NatsServers::start(3, "");
    let port = free_port().to_string();
    let mut active = broker(&servers, "one", &port, LEASE);
    active.wait_stderr("listening");
    let reader = Process::start(PYTHON, &[PAHO, "sub", &port]);
    reader.wait_stdout("subscribed");
    let mut outbox = Process::start(PYTHON, &[PAHO, "pub", &port]);
    for kill in 0..kills() {
        let reserve = broker(&servers, &format!("reserve-{kill}"), &port, LEASE);
        reserve.wait_stderr("in reserve: ");
        goes_on(&outbox);
        // Dropping the process kills it.
        drop(active);
        reserve.wait_stderr("listening");
        active = reserve;
        goes_on(&outbox);
        lose_leader(&mut servers, "MQTT-journal-0", &outbox);
    }
    let told = end(&mut outbox);
    all_arrived(&told, &reader);
    kept_is_retained(&told, &port);
    drop(active);
}

/// Ends a publisher when all its messages are acknowledged. Returns what it has printed.
fn end(outbox: &mut Process) -> String {
    outbox.close_input();
    outbox.wait_stdout("end ");
    outbox.printed()
}

/// Checks that all messages at QoS 2 arrive that are acknowledged, once and in order. The last one of them comes last.
fn all_arrived(told: &str, reader: &Process) {
    let mut lost = numbers(told, "acknowledged n/2 ");
    let last = lost.iter().max().expect("an acknowledged message");
    reader.wait_stdout(&format!("n/2 {last}\n"));
    let heard = numbers(&reader.printed(), "n/2 ");
    let wrong = (1..heard.len()).filter(|at| heard[at - 1] >= heard[*at]);
    let wrong: Vec<_> = wrong.map(|at| with_others(&heard, at)).collect();
    assert!(wrong.is_empty(), "doubled, or out of order: {wrong:#?}");
    let heard = BTreeSet::from_iter(heard);
    let all = lost.len();
    lost.retain(|number| !heard.contains(number));
    assert_eq!(lost, [0; 0], "of {all}");
}

/// Returns what is known of a number that is not above the one before.
fn with_others(heard: &[u32], at: usize) -> String {
    let number = heard[at];
    let how = match heard[..at].iter().position(|earlier| *earlier == number) {
        Some(first) => format!("twice, {} messages apart", at - first),
        None => "late".to_owned(),
    };
    let others = &heard[at.saturating_sub(6)..heard.len().min(at + 6)];
    format!("{number} {how}, in {others:?}")
}

/// Checks that the last retained message is not older than the last one that was acknowledged.
fn kept_is_retained(told: &str, port: &str) {
    let kept = numbers(told, "acknowledged kept ").into_iter().max();
    let retained = client("sub -t kept -C 1", port).stdout;
    let retained: u32 = retained.trim().parse().expect("a retained message");
    assert!(
        Some(retained) >= kept,
        "{retained} is retained after {kept:?}"
    );
}

/// An owner that was frozen for longer than its lease ends with an exit code of its own. Its clients find the state at the other
/// broker, at which no one could connect before.
#[test]
fn a_frozen_broker_ends_when_it_finds_that_another_one_serves() {
    let servers = NatsServers::start(1, "");
    let one = "--engine-replicas 1 --engine-lease 2";
    let frozen = broker(&servers, "one", "0", one);
    let port = frozen.wait_stderr_after("address=127.0.0.1:");
    let kept = client("pub -t kept -r -q 1 -m here", &port);
    assert_eq!(kept.code, Some(0), "{}", kept.stderr);
    let second = free_port().to_string();
    let other = broker(&servers, "two", &second, one);
    other.wait_stderr("in reserve: one is the owner");
    let refused = client("pub -t kept -q 1 -m there", &second);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    frozen.signal("STOP");
    other.wait_stderr("listening");
    let kept = client("sub -t kept -C 1", &second);
    assert_eq!(kept.stdout, "here\n", "{}", kept.stderr);
    frozen.signal("CONT");
    let ended = frozen.end();
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    let why = "mqtt: the store failed: another process owns the store now: two";
    assert!(last.starts_with(why), "{}", ended.stderr);
}

/// An owner that does not reach its server for longer than its lease acknowledges nothing, and ends when it finds that another one
/// serves. What it acknowledged before is there.
#[test]
fn a_partitioned_broker_acknowledges_nothing_and_ends() {
    let servers = NatsServers::start(1, "");
    let network = Network::to(servers.port(0));
    let (port, one) = (
        free_port().to_string(),
        "--engine-replicas 1 --engine-lease 2",
    );
    let url = format!("nats://127.0.0.1:{}", network.port);
    let parted = broker_at(&url, "one", &port, one);
    parted.wait_stderr("listening");
    let kept = client("pub -t kept -r -q 1 -m before", &port);
    assert_eq!(kept.code, Some(0), "{}", kept.stderr);
    let second = free_port().to_string();
    let other = broker(&servers, "two", &second, one);
    other.wait_stderr("in reserve: one is the owner");
    network.cut(true);
    let publish = |to: &str| {
        let to = format!("pub -t {to} -q 1 -m parted -d -h 127.0.0.1 -p {port} --patience 1");
        let publisher = Process::start(MQTT, &words(&to));
        publisher.wait_stderr("sending PUBLISH");
        publisher
    };
    let mut publishers = vec![publish("kept -r")];
    other.wait_stderr("listening");
    // The broker that serves may have a subscriber for a message that no session of the other one keeps.
    publishers.push(publish("nobody"));
    let kept = client("sub -t kept -C 1", &second);
    assert_eq!(kept.stdout, "before\n", "{}", kept.stderr);
    network.cut(false);
    let ended = parted.end();
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
    for publisher in publishers {
        let refused = publisher.end();
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(!refused.stderr.contains("PUBACK"), "{}", refused.stderr);
    }
}

/// One server of three is not a majority: the broker serves QoS 0, and acknowledges when a second server is there.
#[test]
fn nothing_is_acknowledged_while_two_of_three_servers_are_away() {
    let mut servers = NatsServers::start(3, "");
    let port = free_port().to_string();
    let broker = broker(&servers, "one", &port, "");
    broker.wait_stderr("listening");
    let first = client("pub -t kept -r -q 1 -m first", &port);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let to =
        |command: &str| Process::start(MQTT, &words(&format!("{command} -h 127.0.0.1 -p {port}")));
    let reader = to("sub -t n -C 1 -d");
    reader.wait_stderr("receiving SUBACK");
    servers.kill(0);
    servers.kill(1);
    let publisher = to("pub -t kept -r -q 1 -m second -d");
    publisher.wait_stderr("sending PUBLISH");
    let sent = client("pub -t n -m 0", &port);
    assert_eq!((sent.code, reader.end().stdout.as_str()), (Some(0), "0\n"));
    assert!(!publisher.has_complained("PUBACK"));
    servers.restart(1);
    let ended = publisher.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let kept = client("sub -t kept -C 1", &port);
    assert_eq!(kept.stdout, "second\n", "{}", kept.stderr);
    drop(broker);
}

/// A broker that is asked to end gives its journal away: the next one does not wait for the end of the lease.
#[test]
fn a_broker_that_ends_hands_over() {
    let servers = NatsServers::start(1, "");
    let more = "--engine-replicas 1 --engine-lease 3600";
    let first = broker(&servers, "one", "0", more);
    first.wait_stderr("listening");
    let other = broker(&servers, "two", "0", more);
    other.wait_stderr("in reserve: one is the owner");
    first.signal("TERM");
    assert_eq!(first.end().code, Some(0));
    other.wait_stderr("listening");
}

/// A broker that waits for the journal, or for the servers, ends as one that serves.
#[test]
fn a_broker_in_reserve_ends_when_it_is_asked_to() {
    let servers = NatsServers::start(1, "");
    let serving = broker(&servers, "one", "0", "--engine-replicas 1");
    serving.wait_stderr("listening");
    let closed = ClosedPort::new();
    let nobody = format!("nats://127.0.0.1:{}", closed.number());
    for signal in ["TERM", "INT"] {
        let reserve = broker(&servers, "two", "0", "--engine-replicas 1");
        reserve.wait_stderr("in reserve: one is the owner");
        let waiting = broker_at(&nobody, "three", "0", "");
        waiting.wait_stderr("waits for the servers: ");
        for process in [reserve, waiting] {
            process.signal(signal);
            let ended = process.end();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            assert!(ended.stderr.contains("shutting down"), "{}", ended.stderr);
        }
    }
    drop(serving);
}
