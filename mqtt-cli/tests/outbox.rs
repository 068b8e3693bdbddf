//! Tests `mqtt pub --store` and `mqtt sub --store`: accepted messages are delivered once, and received ones are printed once,
//! despite `kill -9` at any instant.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mqtt_testing::peers::{RawServer, free_port};
use mqtt_testing::process::{Ended, Process, run};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// How often each program is killed; `scripts/soak.sh` sets a higher number.
fn kills() -> usize {
    std::env::var("MQTT_KILLS").map_or(3, |kills| kills.parse().expect("a number"))
}

/// Returns an empty directory for a test.
fn dir(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn broker() -> (Process, String) {
    let broker = Process::start(MQTT, &["broker", "--bind", "127.0.0.1:0"]);
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    (broker, port)
}

fn arguments<'a>(command: &'a str, port: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command, "-h", "127.0.0.1", "-p", port], more].concat()
}

fn client(command: &str, port: &str, more: &[&str], input: &str) -> Ended {
    let ended = run(MQTT, &arguments(command, port, more), input);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    ended
}

/// A port without a listener.
const NOBODY: &str = "1";

#[test]
fn accepted_lines_are_delivered_once_after_kills() {
    let dir = dir("outbox-pub");
    let store = dir.join("store");
    let (broker, port) = broker();
    let reader = ["-i", "away", "-c", "-t", "n", "-q", "2"];
    client("sub", &port, &[&reader[..], &["-E"]].concat(), "");
    let options = ["-i", "outbox", "-t", "n", "-q", "2", "-l"];
    let outbox = [&["--store", text(&store)][..], &options].concat();
    let mut accepted = Vec::new();
    let broker_port = port.as_str();
    for round in 0..kills() {
        // Every second process has no connection.
        let port = if round % 2 == 0 {
            port.as_str()
        } else {
            NOBODY
        };
        let mut running = Process::start(MQTT, &arguments("pub", port, &outbox));
        for line in 0..50 {
            running.write(&format!("{round} {line}\n"));
        }
        let count = 10 + round * 7 % 40;
        running.wait_stdout(&format!("{count}\n"));
        // Dropping the process kills it.
        drop(running);
        accepted.extend((0..count).map(|line| (round, line)));
        if round % 10 == 9 {
            // Lines are stored sooner than they are delivered, and a client accepts 1,024 that are not.
            client("pub", broker_port, &outbox, "");
        }
    }
    client("pub", &port, &outbox, "");
    client("pub", &port, &["-t", "n", "-q", "2", "-m", "end"], "");
    let reading = Process::start(MQTT, &arguments("sub", &port, &reader));
    reading.wait_stdout("end\n");
    reading.signal("INT");
    let printed = reading.end().stdout;
    let lines: Vec<(usize, usize)> = printed
        .lines()
        .filter_map(|line| {
            let (round, line) = line.split_once(' ')?;
            Some((round.parse().ok()?, line.parse().ok()?))
        })
        .collect();
    assert!(
        lines.is_sorted_by(|a, b| a < b),
        "doubled or out of order: {lines:?}"
    );
    eprintln!("{} accepted, {} delivered", accepted.len(), lines.len());
    for line in accepted {
        assert!(lines.binary_search(&line).is_ok(), "{line:?} is lost");
    }
    drop(broker);
}

/// There is no broker, and the store has as many messages as it takes: an interrupted process does not wait for a connection.
#[cfg(unix)]
#[test]
fn a_full_outbox_ends_on_a_signal() {
    let store = dir("outbox-full").join("store");
    let words = ["--store", text(&store), "-i", "full", "-t", "n", "-q", "1"];
    let patient = [&words[..], &["-l", "--patience", "600"]].concat();
    for signal in ["INT", "TERM"] {
        let mut running = Process::start(MQTT, &arguments("pub", NOBODY, &patient));
        running.write(&"line\n".repeat(3_000));
        running.wait_stderr("Connection refused");
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    }
}

/// An earlier process has left messages, and there is no broker: the process waits as it closes.
#[cfg(unix)]
#[test]
fn a_closing_outbox_ends_on_a_signal() {
    let store = dir("outbox-closing").join("store");
    let words = [
        "--store",
        text(&store),
        "-i",
        "left",
        "-t",
        "n",
        "-q",
        "1",
        "-l",
    ];
    let first = [&words[..], &["--patience", "0"]].concat();
    let left = client("pub", NOBODY, &first, "line\n");
    assert!(left.stderr.contains("1 message waits"), "{}", left.stderr);
    for signal in ["INT", "TERM"] {
        let patient = [&words[..], &["--patience", "600"]].concat();
        let mut closing = Process::start(MQTT, &arguments("pub", NOBODY, &patient));
        closing.wait_stderr("trying again");
        closing.close_input();
        closing.signal(signal);
        let ended = closing.end();
        // It may have got the signal before it read the end of its input.
        let why = match ended.code {
            Some(0) => "1 message waits",
            _ => "interrupted",
        };
        assert!(
            ended.stderr.contains(why),
            "{:?} {}",
            ended.code,
            ended.stderr
        );
    }
}

/// Returns the content of a file as soon as it is as expected, or after a minute.
fn content_when(file: &Path, is_expected: impl Fn(&str) -> bool) -> String {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let content = fs::read_to_string(file).unwrap_or_default();
        if is_expected(&content) || Instant::now() > patience {
            return content;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the options of a subscription with a store.
const fn lasting<'a>(store: &'a str, qos: &'a str) -> [&'a str; 8] {
    ["--store", store, "-i", "reader", "-t", "n", "-q", qos]
}

/// Each kill comes when some of the messages of its round are printed, while the others are on their way.
#[test]
fn messages_are_printed_once_after_kills() {
    let dir = dir("outbox-sub");
    let (store, file) = (dir.join("store"), dir.join("printed"));
    let (broker, port) = broker();
    let place = lasting(text(&store), "2");
    client("sub", &port, &[&place[..], &["-E"]].concat(), "");
    let reader = [&place[..], &["--output", text(&file)]].concat();
    let (mut expected, mut early) = (String::new(), 0);
    for round in 0..kills() {
        let reading = Process::start(MQTT, &arguments("sub", &port, &reader));
        let lines: String = (0..100).map(|line| format!("{round} {line}\n")).collect();
        let publisher = ["-t", "n", "-q", "2", "-l"];
        let mut publisher = Process::start(MQTT, &arguments("pub", &port, &publisher));
        publisher.write(&lines);
        publisher.close_input();
        let last = format!("{round} {}\n", round * 37 % 80);
        let before = content_when(&file, |printed| printed.contains(&last));
        drop(reading);
        assert!(before.contains(&last), "nothing came in round {round}");
        expected.push_str(&lines);
        early += usize::from(!before.ends_with(&expected));
        let ended = publisher.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let reading = Process::start(MQTT, &arguments("sub", &port, &reader));
    client("pub", &port, &["-t", "n", "-q", "2", "-m", "end"], "");
    expected.push_str("end\n");
    let printed = content_when(&file, |printed| printed.ends_with("end\n"));
    assert_eq!(printed, expected);
    eprintln!("{early} of {} kills before the last message", kills());
    drop((reading, broker));
}

/// A file that was there before is neither emptied nor cut to the length of another file.
#[test]
fn a_file_of_another_program_is_not_cut() {
    let dir = dir("outbox-foreign");
    let (store, file) = (dir.join("store"), dir.join("mine"));
    let (_broker, port) = broker();
    let place = lasting(text(&store), "1");
    client("sub", &port, &[&place[..], &["-E"]].concat(), "");
    fs::write(&file, "mine\n").unwrap();
    let reader = [&place[..], &["--output", text(&file), "-E"]].concat();
    let is_refused = || {
        let refused = run(MQTT, &arguments("sub", &port, &reader), "");
        let told = refused.stderr.contains("does not belong to the store");
        assert!(told, "{}", refused.stderr);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine\n");
    };
    is_refused();
    // The note of this store is about another file.
    let printed = dir.join("printed");
    client("pub", &port, &["-t", "n", "-q", "1", "-m", "x"], "");
    let one = [&place[..], &["--output", text(&printed), "-C", "1"]].concat();
    client("sub", &port, &one, "");
    assert_eq!(fs::read_to_string(&printed).unwrap(), "x\n");
    is_refused();
}

/// `mqtt store` shows a store as text and JSON and checks it. A second process, another client and QoS 0 are refused.
#[test]
fn the_store_of_a_client_is_shown_and_checked() {
    let dir = dir("outbox-shown");
    let store = dir.join("store");
    let place = [
        "--store",
        text(&store),
        "-i",
        "outbox",
        "-t",
        "n",
        "-l",
        "--patience",
        "0",
    ];
    let outbox = [&place[..], &["-q", "1"]].concat();
    let mut running = Process::start(MQTT, &arguments("pub", NOBODY, &outbox));
    running.write("one\ntwo\n");
    running.wait_stdout("2\n");
    let second = run(MQTT, &arguments("pub", NOBODY, &outbox), "three\n");
    assert_eq!(second.code, Some(1));
    assert!(
        second.stderr.contains("is in use by mqtt"),
        "{}",
        second.stderr
    );
    running.close_input();
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("2 messages wait in the store"),
        "{}",
        ended.stderr
    );
    let shown = run(MQTT, &["store", "show", text(&store)], "");
    assert!(
        shown.stdout.contains("2 messages wait"),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
    let checked = run(MQTT, &["store", "check", "--json", text(&store)], "");
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(
        checked.stdout.contains("\"messages\":2"),
        "{}",
        checked.stdout
    );
}

/// A store belongs to one client, and has no messages at QoS 0.
#[test]
fn a_store_of_another_client_is_refused() {
    let dir = dir("outbox-other");
    let store = dir.join("store");
    let place = ["--store", text(&store), "-i", "outbox", "-t", "n", "-l"];
    let outbox = [&place[..], &["-q", "1"]].concat();
    let at_qos_0 = run(MQTT, &arguments("pub", NOBODY, &place), "");
    assert_eq!(at_qos_0.code, Some(1));
    assert!(
        at_qos_0.stderr.contains("QoS 1 or 2"),
        "{}",
        at_qos_0.stderr
    );
    let (broker, port) = broker();
    client("pub", &port, &outbox, "one\n");
    let shown = run(MQTT, &["store", "show", text(&store)], "");
    assert!(
        shown.stdout.contains("client \"outbox\": 0 messages"),
        "{}",
        shown.stdout
    );
    let mut other = outbox;
    other[3] = "other";
    let refused = run(MQTT, &arguments("pub", &port, &other), "");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("belongs to the client identifier"),
        "{}",
        refused.stderr
    );
    drop(broker);
}

/// The store belongs to its client identifier from the first line on, although no broker has answered.
#[test]
fn a_store_without_a_session_is_refused_to_another_client() {
    let dir = dir("outbox-nobody");
    let store = dir.join("store");
    let place = ["--store", text(&store), "-t", "n", "-q", "1", "-l", "-i"];
    let mut first = Process::start(
        MQTT,
        &arguments("pub", NOBODY, &[&place[..], &["first"]].concat()),
    );
    first.write("one\n");
    first.wait_stdout("1\n");
    first.signal("KILL");
    first.wait();
    let shown = run(MQTT, &["store", "show", text(&store)], "");
    let wanted = "client \"first\": 1 message waits";
    assert!(shown.stdout.contains(wanted), "{}", shown.stdout);
    // A broker does not take it for its own store, or for a damaged one.
    let as_broker = ["broker", "--bind", "127.0.0.1:0", "--store", text(&store)];
    let aside = [&as_broker[..], &["--store-damaged", "move-aside"]].concat();
    let refused = run(MQTT, &aside, "");
    let wanted = "belongs to another program: it was written by another kind of machine";
    assert!(refused.stderr.contains(wanted), "{}", refused.stderr);
    let other = [&place[..], &["other"]].concat();
    let refused = run(MQTT, &arguments("pub", NOBODY, &other), "");
    assert_eq!(refused.code, Some(1));
    let wanted = "belongs to the client identifier \"first\"";
    assert!(refused.stderr.contains(wanted), "{}", refused.stderr);
}

/// As `pub`, and as `sub` after its first connection.
#[test]
fn a_subscriber_with_a_store_waits_for_the_broker() {
    let dir = dir("outbox-early");
    // A client that connects to a port of its own range may meet itself.
    let port = free_port().to_string();
    let store = dir.join("store");
    let place = ["--store", text(&store), "-i", "early", "-t", "n", "-q", "1"];
    let subscriber = Process::start(
        MQTT,
        &arguments("sub", &port, &[&place[..], &["-C", "1"]].concat()),
    );
    subscriber.wait_stderr("trying again");
    let address = format!("127.0.0.1:{port}");
    let broker = Process::start(MQTT, &["broker", "--bind", &address]);
    broker.wait_stderr("listening");
    client(
        "pub",
        &port,
        &["-t", "n", "-q", "1", "-r", "-m", "kept"],
        "",
    );
    subscriber.wait_stdout("kept\n");
    let ended = subscriber.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// A message of an earlier process has no ticket in the next one. It cannot be sent, which is no success.
#[test]
fn a_stored_message_that_the_broker_does_not_support_is_an_error() {
    let dir = dir("outbox-unsupported");
    let store = dir.join("store");
    let place = ["--store", text(&store), "-i", "plant", "-V", "5"];
    let message = ["-t", "n", "-q", "2", "--patience", "0.1", "-m", "x"];
    client("pub", NOBODY, &[&place[..], &message].concat(), "");
    let server = RawServer::start(|mut stream, _| {
        let _ = stream.read(&mut [0; 1000]);
        // The property 0x24 is Maximum QoS.
        let _ = stream.write_all(&[0x20, 5, 0, 0, 2, 0x24, 1]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let port = server.port.to_string();
    let rest = [&place[..], &["-t", "n", "-q", "2", "-l"]].concat();
    let ended = run(MQTT, &arguments("pub", &port, &rest), "");
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let expected = "1 message of the store could not be delivered";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
}
