//! Checks that `mqtt pub` and `mqtt sub` deliver and print each message once, for any number and size of waiting messages, with
//! Mosquitto and with `mqtt broker`, in both versions.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqtt_proto::{QoS, TopicName};
use mqtt_session::{Outgoing, ServerEvent};
use mqtt_testing::peers::Mosquitto;
use mqtt_testing::peers::{RawServer, Reaction, ScriptedServer};
use mqtt_testing::process::{Ended, Process, run};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");
const VERSIONS: [&str; 2] = ["3.1.1", "5"];

/// One of the two brokers.
struct Broker {
    port: String,
    _process: Box<dyn std::any::Any>,
}

impl Broker {
    fn both() -> [Self; 2] {
        let mosquitto = Mosquitto::start("");
        let limits = ["--packet-size", "30000000"];
        let own = Process::start(
            MQTT,
            &[&["broker", "--bind", "127.0.0.1:0"][..], &limits].concat(),
        );
        [
            Self {
                port: mosquitto.port.to_string(),
                _process: Box::new(mosquitto),
            },
            Self {
                port: own.wait_stderr_after("address=127.0.0.1:"),
                _process: Box::new(own),
            },
        ]
    }

    fn run(&self, command: &str, arguments: &[&str], input: &str) -> Ended {
        let all = [&[command, "-h", "127.0.0.1", "-p", &self.port], arguments].concat();
        run(MQTT, &all, input)
    }

    fn start(&self, command: &str, arguments: &[&str]) -> Process {
        let all = [&[command, "-h", "127.0.0.1", "-p", &self.port], arguments].concat();
        Process::start(MQTT, &all)
    }

    /// Publishes these lines while the subscriber of a kept session is not connected.
    fn waiting(&self, session: &[&str], lines: &str) {
        is_well(&self.run("sub", &[session, &["-E"]].concat(), ""));
        is_well(&self.run("pub", &["-t", "n", "-q", "2", "-l"], lines));
    }

    /// Checks that no message waits in the session: the first received one is new.
    fn is_empty(&self, session: &[&str]) {
        is_well(&self.run("pub", &["-t", "n", "-q", "2", "-m", "end"], ""));
        let last = self.run("sub", &[session, &["-C", "1"]].concat(), "");
        assert_eq!(last.stdout, "end\n", "{}", last.stderr);
    }
}

#[track_caller]
fn is_well(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

fn numbers(count: usize) -> String {
    (0..count).map(|n| format!("{n}\n")).collect()
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Mosquitto sends the 20 messages that were in flight before it answers SUBSCRIBE.
#[test]
fn nine_thousand_waiting_messages_are_printed_once() {
    let lines = numbers(9_000);
    for broker in Broker::both() {
        for (version, qos) in [("3.1.1", "1"), ("5", "1"), ("3.1.1", "2"), ("5", "2")] {
            let id = format!("late-{version}-{qos}");
            let session = ["-V", version, "-i", &id, "-c", "-t", "n", "-q", qos];
            broker.waiting(&session, &lines);
            let printed = broker.run("sub", &[&session[..], &["-C", "9000"]].concat(), "");
            is_well(&printed);
            assert!(printed.stdout == lines, "{version}, QoS {qos}");
            broker.is_empty(&session);
        }
    }
}

/// Printed messages are acknowledged; the others stay in the session.
#[test]
fn an_interrupted_subscriber_continues_its_session() {
    let lines = numbers(3_000);
    for broker in Broker::both() {
        for (version, qos) in [("3.1.1", "1"), ("5", "2")] {
            let id = format!("interrupted-{version}-{qos}");
            let session = ["-V", version, "-i", &id, "-c", "-t", "n", "-q", qos];
            broker.waiting(&session, &lines);
            let first = broker.start("sub", &session);
            first.wait_stdout("\n9\n");
            first.signal("INT");
            let first = first.end();
            is_well(&first);
            let left = 3_000 - first.stdout.lines().count();
            let mut printed = first.stdout;
            if left > 0 {
                let count = left.to_string();
                let second = broker.run("sub", &[&session[..], &["-C", &count]].concat(), "");
                is_well(&second);
                printed += &second.stdout;
            }
            assert!(printed == lines, "{version}, QoS {qos}: {left} left");
            broker.is_empty(&session);
        }
    }
}

#[test]
fn large_messages_are_sent_and_printed() {
    for (number, broker) in Broker::both().into_iter().enumerate() {
        for (len, version, qos) in [
            (300_000, "3.1.1", "0"),
            (300_000, "5", "1"),
            (3_000_000, "3.1.1", "0"),
            (3_000_000, "3.1.1", "1"),
            (3_000_000, "5", "2"),
            (20_000_000, "5", "1"),
        ] {
            let name = format!("large-{number}-{version}-{qos}-{len}");
            let (sent, heard) = (file(&name), file(&format!("{name}-heard")));
            let content: Vec<u8> = (0..len)
                .map(|n: u32| n.to_le_bytes()[n as usize % 3])
                .collect();
            std::fs::write(&sent, &content).unwrap();
            let script = format!(
                "exec {MQTT} sub -h 127.0.0.1 -p {} -V {version} -t n -q {qos} -C 1 -N -d > {}",
                broker.port,
                heard.display()
            );
            let subscriber = Process::start("bash", &["-c", &script]);
            subscriber.wait_stderr("receiving SUBACK");
            let path = sent.to_str().unwrap();
            let arguments = ["-V", version, "-t", "n", "-q", qos, "-f", path];
            is_well(&broker.run("pub", &arguments, ""));
            is_well(&subscriber.end());
            assert!(std::fs::read(&heard).unwrap() == content, "{name}");
            std::fs::remove_file(&sent).unwrap();
            std::fs::remove_file(&heard).unwrap();
        }
    }
}

/// A publisher that ends immediately has sent its messages.
#[test]
fn messages_of_a_hundred_qos_0_publishers_arrive() {
    for (broker, version) in Broker::both().into_iter().zip(VERSIONS) {
        let subscriber = broker.start("sub", &["-V", version, "-t", "n", "-C", "100", "-d"]);
        subscriber.wait_stderr("receiving SUBACK");
        for n in 0..100 {
            let number = n.to_string();
            is_well(&broker.run("pub", &["-V", version, "-t", "n", "-m", &number], ""));
        }
        assert_eq!(subscriber.end().stdout, numbers(100));
    }
}

/// The access files of Mosquitto have no rules for SUBSCRIBE; its plugin for dynamic security has.
#[test]
fn a_subscription_that_mosquitto_refuses_is_an_error() {
    let libraries = std::fs::read_dir("/usr/lib").unwrap();
    let plugin = libraries
        .flatten()
        .map(|folder| folder.path().join("mosquitto_dynamic_security.so"))
        .find(|path| path.exists());
    let plugin = plugin.expect("the plugin comes with Mosquitto");
    let rules = file("dynamic-security.json");
    std::fs::write(
        &rules,
        r#"{"defaultACLAccess": {"publishClientReceive": true, "subscribe": false}}"#,
    )
    .unwrap();
    let mosquitto = Mosquitto::start(&format!(
        "plugin {}\nplugin_opt_config_file {}",
        plugin.display(),
        rules.display()
    ));
    let port = mosquitto.port.to_string();
    for (version, reason) in [("3.1.1", "unspecified error"), ("5", "not authorized")] {
        let words = ["sub", "-h", "127.0.0.1", "-p", &port, "-V", version];
        let ended = run(MQTT, &[&words[..], &["-t", "secret/#"]].concat(), "");
        assert_eq!(
            (ended.code, ended.stderr),
            (
                Some(1),
                format!("mqtt: subscription to \"secret/#\" refused: {reason}\n")
            )
        );
    }
}

/// A broker that ends each connection for the same reason is reported once; a connection that stays is then reported once.
#[test]
fn repeated_connection_losses_are_reported_once() {
    for quiet in [false, true] {
        let subscribes = AtomicUsize::new(0);
        let broker = ScriptedServer::start(move |event, server| {
            if !matches!(event, ServerEvent::Subscribe(_)) {
                return Reaction::Usual;
            }
            if subscribes.fetch_add(1, Ordering::Relaxed) < 5 {
                return Reaction::HangUp;
            }
            let topic = TopicName::from_static("a");
            let message = Outgoing::new(topic, QoS::AtMostOnce, b"hello");
            server.publish(&message).unwrap();
            Reaction::Usual
        });
        let port = broker.port.to_string();
        let mut words = vec!["sub", "-h", "127.0.0.1", "-p", &port, "-t", "a", "-C", "1"];
        words.extend(["--longest-wait", "0.01"]);
        words.extend(quiet.then_some("--quiet"));
        let ended = run(MQTT, &words, "");
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "hello\n"));
        let told = [
            "mqtt: connection lost: the server closed the connection; reconnecting",
            "mqtt: connected again",
        ];
        let told = if quiet { &[][..] } else { &told };
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines, told);
    }
}

/// A wrong password and a missing broker are each reported once, with the reason of the system.
#[test]
fn a_failed_first_connection_is_reported_once() {
    let ended = run(
        MQTT,
        &["pub", "-h", "127.0.0.1", "-p", "1", "-t", "a", "-m", "x"],
        "",
    );
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr.matches("onnection refused").count(), 1);
    assert!(
        ended.stderr.starts_with("mqtt: cannot connect: "),
        "{}",
        ended.stderr
    );
}

/// A server that closes the connection, and one that speaks another protocol.
#[test]
fn a_server_that_does_not_answer_connect_is_named_in_one_line() {
    for (answer, why) in [
        (
            "",
            "the server closed the connection before CONNACK: is this a port for plain MQTT?",
        ),
        (
            "SSH-2.0-server\r\n",
            "the answer to CONNECT is not valid MQTT: PUBREC, byte 0: flags are 0b0011, must be 0b0000 ",
        ),
    ] {
        let server = RawServer::start(move |mut stream, _| {
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(answer.as_bytes());
            // Bytes that are not read would reset the connection at its end.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let port = server.port.to_string();
        for words in [
            &["pub", "-m", "x"][..],
            &["sub"],
            &["rr", "-e", "b", "-m", "x"],
        ] {
            let to = ["-h", "localhost", "-p", &port, "-t", "a"];
            let ended = run(MQTT, &[words, &to].concat(), "");
            let line = format!("mqtt: cannot connect: localhost:{port}: {why}");
            assert!(ended.stderr.starts_with(&line), "{}", ended.stderr);
            assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1));
        }
    }
}

#[test]
fn a_check_of_a_server_without_an_answer_ends_at_its_limit() {
    // Its system accepts the connections.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let ended = run(MQTT, &["check", "127.0.0.1", "-p", &port, "-W", "1"], "");
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stdout.matches("no answer in time").count(), 3);
}
