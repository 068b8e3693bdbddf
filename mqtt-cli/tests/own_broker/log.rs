//! Checks that the log of `mqtt broker` does not stop the broker, and that clients cannot forge lines.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

use mqtt_testing::peers::free_port;
use mqtt_testing::process::{Process, run, signal, words};

use crate::broker::{Broker, MQTT, digits};
use crate::commands::folder;

/// A broker whose log the test does not read at once; it ends with the test.
pub(crate) struct Unread(pub(crate) Child);

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(bind: &str, log: impl Into<Stdio>) -> Unread {
    let arguments = ["broker", "--bind", bind, "--log", "debug"];
    Unread(
        Command::new(MQTT)
            .args(arguments)
            .stderr(log)
            .spawn()
            .unwrap(),
    )
}

/// Starts a broker. Returns it with its port and the rest of its log.
fn start_piped() -> (Unread, String, BufReader<ChildStderr>) {
    let mut broker = start("127.0.0.1:0", Stdio::piped());
    let mut log = BufReader::with_capacity(256, broker.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("127.0.0.1:") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it has ended");
    }
    let port = digits(line.rsplit_once("127.0.0.1:").unwrap().1);
    (broker, port, log)
}

/// Makes the broker log more lines than its queue and a pipe hold, 20 for each client, and checks that it still works.
fn chatters(port: &str) {
    let filters: Vec<String> = (0..100)
        .map(|n| format!("{}/{n}", "x".repeat(100)))
        .collect();
    let mut words = vec!["sub", "-p", port, "-E"];
    words.extend(filters.iter().flat_map(|filter| ["-t", filter]));
    for _ in 0..100 {
        let ended = run(MQTT, &words, "");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

fn ends(mut broker: Unread) {
    signal(broker.0.id(), "TERM");
    assert!(broker.0.wait().unwrap().success());
}

#[test]
fn an_unread_log_pipe_does_not_stop_the_broker() {
    let (broker, port, log) = start_piped();
    chatters(&port);
    ends(broker);
    drop(log);
}

#[test]
fn a_closed_log_pipe_does_not_stop_the_broker() {
    let (broker, port, log) = start_piped();
    drop(log);
    chatters(&port);
    ends(broker);
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_on_a_full_disk_does_not_stop_the_broker() {
    // A client that connects to a port of its own range may meet itself.
    let address = format!("127.0.0.1:{}", free_port());
    let mut broker = start(&address, File::create("/dev/full").unwrap());
    while TcpStream::connect(&address).is_err() {
        assert!(broker.0.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    chatters(address.rsplit_once(':').unwrap().1);
    ends(broker);
}

#[test]
fn texts_of_clients_are_escaped_in_the_log() {
    let acl = folder("log").join("acl");
    std::fs::write(&acl, "topic read #\n").unwrap();
    for format in ["text", "json"] {
        let broker = Broker::start(&["--acl-file", acl.to_str().unwrap(), "--log-format", format]);
        let topic = "a\nWARN forged\u{1b}[2J";
        let words = [
            "-V",
            "5",
            "-q",
            "1",
            "-t",
            topic,
            "-m",
            "x",
            "-i",
            "evil\u{1b}\n",
        ];
        assert_eq!(broker.run("pub", &words).code, Some(1));
        broker.process.wait_stderr("publish refused");
        broker.process.signal("TERM");
        let log = broker.process.end().stderr;
        assert!(!log.contains('\u{1b}') && !log.contains("\nWARN"), "{log}");
        let marks = match format {
            "text" => r#"topic="a\nWARN forged\u{1b}[2J""#,
            _ => r#""topic":"a\nWARN forged\u001b[2J""#,
        };
        assert!(log.contains(marks), "{log}");
        assert!(
            format == "text" || log.lines().all(|line| line.starts_with('{')),
            "{log}"
        );
    }
}

/// A refused client is logged with name and address, and its texts cannot add a line.
#[test]
fn refusals_and_disconnections_are_logged_with_name_and_address() {
    let users = folder("log-users").join("users");
    let users = users.to_str().unwrap();
    let made = run(MQTT, &["passwd", users, "alice"], "secret\n");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let broker = Broker::start(&["--user-file", users]);
    let refused = broker.run(
        "sub",
        &["-V", "3.1.1", "-t", "a", "-i", "x\n\u{1b}[31mforged"],
    );
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    let words = [
        "-t", "a", "-m", "b", "-i", "pump", "-u", "alice", "-P", "secret",
    ];
    broker.run("pub", &words);
    broker.process.signal("TERM");
    let log = broker.process.end().stderr;
    let lines: Vec<&str> = log.lines().collect();
    let has = |words: &[&str]| {
        let line = lines
            .iter()
            .find(|line| words.iter().all(|word| line.contains(word)));
        assert!(line.is_some(), "{words:?} {lines:?}");
    };
    has(&[
        "WARN",
        "refused",
        "forged",
        "reason=not authorized",
        "peer=127.0.0.1:",
    ]);
    has(&[
        "INFO",
        " connected",
        "\"pump\"",
        "user=\"alice\"",
        "peer=127.0.0.1:",
    ]);
    has(&["INFO", " disconnected", "\"pump\"", "peer=127.0.0.1:"]);
    assert!(
        !lines
            .iter()
            .any(|line| line.contains('\u{1b}') || line.starts_with('\u{1b}'))
    );
}

/// Silent connections take all file descriptors of the broker: clients that send CONNECT still get in, and the log has one line.
#[cfg(target_os = "linux")]
#[test]
fn used_up_file_descriptors_keep_nobody_out_and_are_logged_once() {
    const DESCRIPTORS: usize = 50;
    let script = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"");
    let mut arguments = vec!["-c", &script, MQTT];
    arguments.extend(words("broker --bind 127.0.0.1:0 --connect-timeout 600"));
    let broker = Process::start("sh", &arguments);
    let port = digits(&broker.wait_stderr_after("address=127.0.0.1:"));
    let address = format!("127.0.0.1:{port}");
    let silent: Vec<_> = (0..3 * DESCRIPTORS)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    broker.wait_stderr("connections cannot be accepted");
    for _ in 0..3 {
        let ended = run(MQTT, &["pub", "-p", &port, "-t", "a", "-m", "b"], "");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    drop(silent);
    broker.signal("TERM");
    let log = broker.end().stderr;
    assert_eq!(
        log.matches("connections cannot be accepted").count(),
        1,
        "{log}"
    );
}

/// A limit that a client reaches is logged with its name and address. A full queue is logged once, however much it drops.
#[test]
fn limits_that_clients_reach_are_logged() {
    let limits =
        "--queued-messages 10 --retained-messages 1 --subscriptions 1 --statistics-interval 0";
    let broker = Broker::start(&words(limits));
    broker.run("sub", &words("-i absent -c -q 1 -t a -E"));
    let lines = "x\n".repeat(100);
    let publish = words("pub -V 5 -i many -q 1 -t a -l -p");
    let ended = run(MQTT, &[&publish[..], &[&broker.port]].concat(), &lines);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    broker.run("pub", &words("-i keeper -r -t one -m x"));
    broker.run("pub", &words("-i keeper -r -t two -m x"));
    broker.run("sub", &words("-i curious -t a -t b -E"));
    broker.process.signal("TERM");
    let log = broker.process.end().stderr;
    let warned = |client: &str| {
        let name = format!("client=\"{client}\"");
        let lines = log.lines().filter(move |line| line.contains(&name));
        lines
            .filter(|line| line.contains("WARN"))
            .collect::<Vec<_>>()
    };
    let [full] = warned("absent")[..] else {
        panic!("{log}")
    };
    assert!(
        full.contains("its queue is full") && full.contains("messages=10"),
        "{full}"
    );
    let [kept] = warned("keeper")[..] else {
        panic!("{log}")
    };
    assert!(
        kept.contains("not retained") && kept.contains("topic=\"two\""),
        "{kept}"
    );
    let [refused] = warned("curious")[..] else {
        panic!("{log}")
    };
    assert!(
        refused.contains("subscription refused") && refused.contains("filter=\"b\""),
        "{refused}"
    );
    for line in [kept, refused] {
        assert!(line.contains("peer=127.0.0.1:"), "{line}");
    }
}

/// An operator sees at the start what a crash would lose.
#[test]
fn the_log_tells_whether_the_state_is_stored() {
    let store = folder("told-store");
    let store = store.to_str().unwrap();
    for (options, told) in [
        (&[][..], "are in memory and end with the process"),
        (&["--store", store], "are stored"),
    ] {
        let broker = Broker::start(options);
        broker.process.signal("TERM");
        let log = broker.process.end().stderr;
        let lines = log
            .lines()
            .filter(|line| line.contains("queues and retained messages"));
        let lines: Vec<_> = lines.collect();
        assert!(matches!(lines[..], [line] if line.contains(told)), "{log}");
    }
}
