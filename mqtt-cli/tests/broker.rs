//! Tests `mqtt pub` and `mqtt sub` through Mosquitto, also with the clients of mosquitto and paho as peers.

use mqtt_testing::peers::Mosquitto;
use mqtt_testing::process::{Ended, Process, run, words};
use mqtt_testing::wires::Proxy;

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");
const VERSIONS: [&str; 2] = ["3.1.1", "5"];
const QOS: [&str; 3] = ["0", "1", "2"];

/// A broker, and the options that connect a program to it.
struct Bench {
    broker: Mosquitto,
    port: String,
    version: &'static str,
}

impl Bench {
    fn new(version: &'static str) -> Self {
        let broker = Mosquitto::start("");
        let port = broker.port.to_string();
        Self {
            broker,
            port,
            version,
        }
    }

    fn arguments<'a>(&'a self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let to = [
            command,
            "-h",
            "127.0.0.1",
            "-p",
            &self.port,
            "-V",
            self.version,
        ];
        to.into_iter().chain(more.iter().copied()).collect()
    }

    fn start(&self, command: &str, more: &[&str]) -> Process {
        Process::start(MQTT, &self.arguments(command, more))
    }

    /// Starts a subscriber, and waits until its subscription is granted.
    fn subscriber(&self, more: &[&str]) -> Process {
        let subscriber = self.start("sub", &[&["-d"], more].concat());
        subscriber.wait_stderr("receiving SUBACK");
        subscriber
    }

    fn run(&self, command: &str, more: &[&str]) -> Ended {
        run(MQTT, &self.arguments(command, more), "")
    }

    fn publish(&self, more: &[&str]) {
        let ended = self.run("pub", more);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    }

    /// Returns the options of mosquitto's programs.
    fn mosquitto<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let version = if self.version == "5" {
            "mqttv5"
        } else {
            "mqttv311"
        };
        ["-h", "127.0.0.1", "-p", &self.port, "-V", version]
            .into_iter()
            .chain(more.iter().copied())
            .collect()
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// 3.1.1 [MQTT-3.8.4-6], 5 [MQTT-3.8.4-8]: a message is received at the lower of its QoS and that of the subscription.
#[test]
fn the_received_qos_is_the_lower_of_published_and_subscribed() {
    for version in VERSIONS {
        let bench = Bench::new(version);
        for subscribed in QOS {
            let subscriber =
                bench.subscriber(&["-t", "a/b", "-q", subscribed, "-C", "3", "-F", "%q %p"]);
            for published in QOS {
                bench.publish(&["-t", "a/b", "-q", published, "-m", published]);
            }
            let ended = subscriber.end();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            let expected =
                QOS.map(|published| format!("{} {published}", published.min(subscribed)));
            assert_eq!(lines(&ended.stdout), expected);
        }
    }
}

#[test]
fn mosquitto_clients_exchange_messages_with_mqtt() {
    for version in VERSIONS {
        let bench = Bench::new(version);
        for qos in QOS {
            let subscriber =
                bench.subscriber(&["-t", "a/#", "-q", qos, "-C", "2", "-F", "%q %t %p"]);
            for message in ["one", "two"] {
                let words = bench.mosquitto(&["-t", "a/b", "-q", qos, "-m", message]);
                assert_eq!(run("mosquitto_pub", &words, "").code, Some(0));
            }
            assert_eq!(
                lines(&subscriber.end().stdout),
                [format!("{qos} a/b one"), format!("{qos} a/b two")]
            );

            let words =
                bench.mosquitto(&["-t", "a/#", "-q", qos, "-C", "2", "-F", "%q %t %p", "-d"]);
            // The output is unbuffered, so that it can be awaited.
            let words = [&["-o0", "mosquitto_sub"][..], &words].concat();
            let subscriber = Process::start("stdbuf", &words);
            subscriber.wait_stdout("Subscribed");
            for message in ["one", "two"] {
                bench.publish(&["-t", "a/b", "-q", qos, "-m", message]);
            }
            let printed = subscriber.end().stdout;
            let messages: Vec<_> = printed
                .lines()
                .filter(|line| line.contains(" a/b ") && !line.contains("PUBLISH"))
                .collect();
            assert_eq!(
                messages,
                [format!("{qos} a/b one"), format!("{qos} a/b two")]
            );
        }
    }
}

#[test]
fn paho_exchanges_messages_with_mqtt() {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/paho_peer.py");
    for version in VERSIONS {
        let bench = Bench::new(version);
        for qos in QOS {
            let subscriber =
                bench.subscriber(&["-t", "a/+", "-q", qos, "-C", "2", "-F", "%q %t %p"]);
            let published = run(
                python,
                &[
                    script,
                    "pub",
                    &bench.port,
                    version,
                    qos,
                    "a/b",
                    "one",
                    "two",
                ],
                "",
            );
            assert_eq!(published.code, Some(0), "{}", published.stderr);
            assert_eq!(
                lines(&subscriber.end().stdout),
                [format!("{qos} a/b one"), format!("{qos} a/b two")]
            );

            let subscriber = Process::start(
                python,
                &[script, "sub", &bench.port, version, qos, "a/+", "2"],
            );
            subscriber.wait_stdout("subscribed");
            for message in ["one", "two"] {
                bench.publish(&["-t", "a/b", "-q", qos, "-m", message]);
            }
            let expected = [
                "subscribed".to_owned(),
                format!("{qos} a/b one"),
                format!("{qos} a/b two"),
            ];
            assert_eq!(lines(&subscriber.end().stdout), expected);
        }
    }
}

#[test]
fn retained_messages_are_kept_replaced_and_cleared() {
    for version in VERSIONS {
        let bench = Bench::new(version);
        bench.publish(&["-t", "state", "-m", "old", "-r", "-q", "1"]);
        bench.publish(&["-t", "state", "-m", "new", "-r", "-q", "1"]);
        let kept = bench.run("sub", &["-t", "state", "-C", "1", "-F", "%r %p"]);
        assert_eq!((kept.code, kept.stdout.as_str()), (Some(0), "1 new\n"));
        // -R hides the message. A message that is published now is not retained for a connected subscriber.
        let listener = bench.subscriber(&["-t", "state", "-R", "-C", "1", "-F", "%r %p"]);
        bench.publish(&["-t", "state", "-n", "-r", "-q", "1"]);
        assert_eq!(listener.end().stdout, "0 \n");
        let cleared = bench.subscriber(&["-t", "state", "-C", "1"]);
        bench.publish(&["-t", "state", "-m", "now"]);
        assert_eq!(cleared.end().stdout, "now\n");
    }
}

/// 3.1.1 [MQTT-3.1.2-8], 5 [MQTT-3.1.2-8]
#[test]
fn a_will_is_published_after_a_kill_and_not_after_disconnect() {
    for version in VERSIONS {
        let bench = Bench::new(version);
        let heir = bench.subscriber(&["-t", "will/#", "-C", "2", "-v", "-q", "1"]);
        let will = |name: &'static str| {
            [
                "-t",
                "x",
                "--will-topic",
                name,
                "--will-payload",
                "gone",
                "--will-qos",
                "1",
            ]
        };
        let polite = bench.subscriber(&will("will/polite"));
        polite.signal("INT");
        let ended = polite.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("sending DISCONNECT"),
            "{}",
            ended.stderr
        );
        let killed = bench.subscriber(&will("will/killed"));
        killed.signal("KILL");
        heir.wait_stdout("will/killed gone");
        bench.publish(&["-t", "will/end", "-m", "end", "-q", "1"]);
        assert_eq!(heir.end().stdout, "will/killed gone\nwill/end end\n");
    }
}

#[test]
fn a_kept_session_receives_messages_published_meanwhile() {
    for version in VERSIONS {
        let bench = Bench::new(version);
        let session = ["-t", "offline/#", "-i", "sleeper", "-c", "-q", "2"];
        let asked = bench.run("sub", &[&session[..], &["-E"]].concat());
        assert_eq!(
            (asked.code, asked.stdout.as_str()),
            (Some(0), ""),
            "{}",
            asked.stderr
        );
        for (qos, message) in [("1", "one"), ("2", "two"), ("1", "three")] {
            bench.publish(&["-t", "offline/a", "-q", qos, "-m", message]);
        }
        // Two messages are printed and acknowledged; the third one stays in the session.
        let woken = bench.run("sub", &[&session[..], &["-C", "2", "-F", "%q %p"]].concat());
        assert_eq!(lines(&woken.stdout), ["1 one", "2 two"], "{}", woken.stderr);
        let again = bench.run("sub", &[&session[..], &["-C", "1", "-F", "%q %p"]].concat());
        assert_eq!(lines(&again.stdout), ["1 three"], "{}", again.stderr);
        // -U unsubscribes from the filter.
        let given_up = bench.run(
            "sub",
            &[
                "-U",
                "offline/#",
                "-t",
                "other",
                "-i",
                "sleeper",
                "-c",
                "-E",
            ],
        );
        assert_eq!(given_up.code, Some(0), "{}", given_up.stderr);
        bench.publish(&["-t", "offline/a", "-q", "1", "-m", "lost"]);
        bench.publish(&["-t", "other", "-q", "0", "-m", "nobody"]);
        let last = bench.start(
            "sub",
            &["-t", "other", "-i", "sleeper", "-c", "-C", "1", "-d"],
        );
        last.wait_stderr("receiving SUBACK");
        bench.publish(&["-t", "other", "-m", "found"]);
        assert_eq!(last.end().stdout, "found\n");
    }
}

#[test]
fn wildcards_match_and_filter_out_excludes() {
    let bench = Bench::new("3.1.1");
    let plus = bench.subscriber(&["-t", "+/pump/#", "-T", "+/pump/noise", "-v", "-C", "3"]);
    for topic in [
        "a/pump",
        "a/valve",
        "a/pump/noise",
        "b/pump/x/y",
        "b/c/pump",
        "c/pump/1",
    ] {
        bench.publish(&["-t", topic, "-m", "x"]);
    }
    assert_eq!(
        lines(&plus.end().stdout),
        ["a/pump x", "b/pump/x/y x", "c/pump/1 x"]
    );
}

#[test]
fn payloads_come_from_lines_files_input_and_repetition() {
    let bench = Bench::new("5");
    let listener = bench.subscriber(&["-t", "in", "-q", "1", "-C", "9", "-F", "[%p]"]);
    let lines_in = run(
        MQTT,
        &bench.arguments("pub", &["-t", "in", "-q", "1", "-l"]),
        "one\n\nthree",
    );
    assert_eq!(lines_in.code, Some(0), "{}", lines_in.stderr);
    let all_in = run(
        MQTT,
        &bench.arguments("pub", &["-t", "in", "-q", "1", "-s"]),
        "a\nb\n",
    );
    assert_eq!(all_in.code, Some(0), "{}", all_in.stderr);
    let file = std::env::temp_dir().join(format!("mqtt-cli-{}", bench.port));
    std::fs::write(&file, "from a file").unwrap();
    bench.publish(&["-t", "in", "-q", "1", "-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    bench.publish(&[
        "-t",
        "in",
        "-q",
        "1",
        "-m",
        "-7",
        "--repeat",
        "3",
        "--repeat-delay",
        "0.001",
    ]);
    let url = format!("mqtt://127.0.0.1:{}/in", bench.port);
    let by_url = run(MQTT, &["pub", "-L", &url, "-m", "url", "-q", "1"], "");
    assert_eq!(by_url.code, Some(0), "{}", by_url.stderr);
    let printed = listener.end().stdout;
    assert_eq!(
        printed,
        "[one]\n[]\n[three]\n[a\nb\n]\n[from a file]\n[-7]\n[-7]\n[-7]\n[url]\n"
    );
}

#[test]
fn properties_are_sent_and_printed() {
    let bench = Bench::new("5");
    let format = "%C|%R|%D|%P|%F|%S|%5l|%q\\t%X";
    let listener = bench.subscriber(&[
        "-t",
        "p",
        "-q",
        "1",
        "-C",
        "1",
        "-F",
        format,
        "-D",
        "subscribe",
        "subscription-identifier",
        "7",
    ]);
    bench.publish(&[
        "-t",
        "p",
        "-q",
        "1",
        "-m",
        "hi",
        "-D",
        "publish",
        "content-type",
        "text",
        "-D",
        "publish",
        "response-topic",
        "back",
        "-D",
        "publish",
        "correlation-data",
        "c1",
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
    ]);
    assert_eq!(
        listener.end().stdout,
        "text|back|c1|k:v|1|7|    2|1\t6869\n"
    );
}

/// No message is lost or doubled while the connections of both programs are cut repeatedly.
#[test]
fn two_thousand_qos_2_lines_pass_while_connections_are_cut() {
    for version in VERSIONS {
        let bench = Bench::new(version);
        let (near, far) = (
            // All messages and their acknowledgements have 44 kB, so there are at least seven connections.
            Proxy::start(bench.broker.port, 2_000, 6_000, 1),
            // Mosquitto needs this many bytes for the PUBRELs of a resumed session; see `mqtt_testing::suites::interop`.
            Proxy::start(bench.broker.port, 8_000, 24_000, 2),
        );
        let common = format!("-h 127.0.0.1 -V {version} -c -t n -q 2 --longest-wait 0.02");
        let line = format!("sub {common} -p {} -i s -C 2000 -d", far.port);
        let subscriber = Process::start(MQTT, &words(&line));
        subscriber.wait_stderr("receiving SUBACK");
        let numbers: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
        let line = format!("pub {common} -p {} -i p -l --patience 60", near.port);
        let input = numbers.join("\n") + "\n";
        let published = run(MQTT, &words(&line), &input);
        assert_eq!(published.code, Some(0), "{}", published.stderr);
        let ended = subscriber.end();
        assert_eq!(ended.code, Some(0));
        assert_eq!(lines(&ended.stdout), numbers);
        assert!(
            near.cuts() + far.cuts() > 5,
            "{} and {} cuts",
            near.cuts(),
            far.cuts()
        );
    }
}

#[test]
fn a_subscriber_reconnects_to_a_restarted_broker() {
    let bench = Bench::new("3.1.1");
    let subscriber = bench.subscriber(&["-t", "a", "-C", "1"]);
    let port = bench.broker.port;
    drop(bench.broker);
    subscriber.wait_stderr("connection lost");
    let _again = Mosquitto::start_on(port);
    subscriber.wait_stderr("connected again");
    // The message is retained, so it arrives whether the new broker has granted the subscription before or not.
    let words = [
        "pub",
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-t",
        "a",
        "-m",
        "back",
        "-r",
    ];
    assert_eq!(run(MQTT, &words, "").code, Some(0));
    let ended = subscriber.end();
    assert_eq!(ended.stdout, "back\n");
    for text in ["connection lost", "connected again"] {
        assert_eq!(ended.stderr.matches(text).count(), 1, "{}", ended.stderr);
    }
}
