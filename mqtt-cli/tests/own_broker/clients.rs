//! Connects several client libraries and the programs of this crate through `mqtt broker`: each receives from each.

use std::sync::mpsc;
use std::thread;

use crate::broker::{Broker, MQTT};
use mqtt_testing::process::{Process, run, words};

const QOS: [&str; 3] = ["0", "1", "2"];
/// The topic of the publishers.
const TOPIC: &str = "smarthouse/garage/door";
pub(crate) const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python");
const PAHO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/paho_peer.py");
const MQTT_JS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/mqttjs_peer.js");
const MQTT_JS_MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.npm/node_modules/mqtt");
/// The output format of the programs with mosquitto's options.
const FORMAT: &str = "heard %q %t %p";

/// A client library with its version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Peer {
    Mosquitto(&'static str),
    Paho(&'static str),
    MqttJs(&'static str),
    Rumqttc(&'static str),
    Own(&'static str),
    OwnStd,
}

const PEERS: [Peer; 13] = [
    Peer::Mosquitto("mqttv31"),
    Peer::Mosquitto("mqttv311"),
    Peer::Mosquitto("mqttv5"),
    Peer::Paho("3.1.1"),
    Peer::Paho("5"),
    Peer::MqttJs("3.1.1"),
    Peer::MqttJs("5"),
    Peer::Rumqttc("3.1.1"),
    Peer::Rumqttc("5"),
    Peer::Own("3.1"),
    Peer::Own("3.1.1"),
    Peer::Own("5"),
    Peer::OwnStd,
];

/// A granted subscriber; the call waits for its messages and returns them.
type Subscriber = Box<dyn FnOnce() -> Vec<String>>;

/// Returns the messages that a process prints.
fn heard(process: Process, is_message: impl Fn(&str) -> Option<&str>) -> Vec<String> {
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let lines = ended.stdout.lines().filter_map(is_message);
    lines.map(str::to_owned).collect()
}

fn without_greeting(line: &str) -> Option<&str> {
    (line != "subscribed").then_some(line)
}

fn subscribe_own_std(port: &str, topic: &str, qos: &str, count: usize) -> Subscriber {
    let handle = own_std(port);
    let messages = handle.subscribe(topic, own_qos(qos)).unwrap();
    Box::new(move || {
        let _stays = handle;
        let text = |message: mqtt_std::ReceivedMessage| {
            let payload = String::from_utf8_lossy(&message.payload).into_owned();
            format!("{} {} {payload}", message.qos.get(), message.topic())
        };
        messages.take(count).map(text).collect()
    })
}

impl Peer {
    fn subscribe(
        self,
        port: &str,
        topic: &'static str,
        qos: &'static str,
        count: usize,
    ) -> Subscriber {
        let number = count.to_string();
        match self {
            Self::Mosquitto(version) => {
                let line = format!("-h 127.0.0.1 -p {port} -V {version} -t {topic} -q {qos}");
                let id = format!("mosquitto-{version}-{qos}");
                let more = ["-C", &number, "-F", FORMAT, "-d", "-i", &id];
                let words = [&["-o0", "mosquitto_sub"], &words(&line)[..], &more].concat();
                // The output is unbuffered, so that it can be awaited.
                let process = Process::start("stdbuf", &words);
                process.wait_stdout("Subscribed");
                Box::new(|| heard(process, |line| line.strip_prefix("heard ")))
            }
            Self::Paho(version) => {
                let process =
                    Process::start(PYTHON, &[PAHO, "sub", port, version, qos, topic, &number]);
                process.wait_stdout("subscribed");
                Box::new(|| heard(process, without_greeting))
            }
            Self::MqttJs(version) => {
                let words = [
                    MQTT_JS,
                    MQTT_JS_MODULE,
                    "sub",
                    port,
                    version,
                    qos,
                    topic,
                    &number,
                ];
                let process = Process::start("node", &words);
                process.wait_stdout("subscribed");
                Box::new(|| heard(process, without_greeting))
            }
            Self::Own(version) => {
                let words = [
                    "sub", "-p", port, "-V", version, "-t", topic, "-q", qos, "-C", &number, "-F",
                    FORMAT, "-d",
                ];
                let process = Process::start(MQTT, &words);
                process.wait_stderr("receiving SUBACK");
                Box::new(|| heard(process, |line| line.strip_prefix("heard ")))
            }
            Self::Rumqttc("5") => {
                rumqttc_5::subscribe(&RumqttcTarget::tcp(port), topic, qos, count)
            }
            Self::Rumqttc(_) => rumqttc_4::subscribe(&RumqttcTarget::tcp(port), topic, qos, count),
            Self::OwnStd => subscribe_own_std(port, topic, qos, count),
        }
    }

    fn publish(self, port: &str, qos: &'static str, messages: &[&str]) {
        let ended = match self {
            Self::Mosquitto(version) => {
                let line = format!(
                    "-h 127.0.0.1 -p {port} -V {version} -t {TOPIC} -q {qos} -i mosquitto-{version} -m"
                );
                for message in messages {
                    let words = [&words(&line)[..], &[message]].concat();
                    let ended = run("mosquitto_pub", &words, "");
                    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
                }
                return;
            }
            Self::Paho(version) => {
                let words = [&[PAHO, "pub", port, version, qos, TOPIC], messages].concat();
                run(PYTHON, &words, "")
            }
            Self::MqttJs(version) => {
                let words = [MQTT_JS, MQTT_JS_MODULE, "pub", port, version, qos, TOPIC];
                run("node", &[&words[..], messages].concat(), "")
            }
            Self::Own(version) => {
                let words = [
                    "pub", "-p", port, "-V", version, "-t", TOPIC, "-q", qos, "-l",
                ];
                run(MQTT, &words, &messages.join("\n"))
            }
            Self::Rumqttc("5") => {
                return rumqttc_5::publish(&RumqttcTarget::tcp(port), TOPIC, qos, messages);
            }
            Self::Rumqttc(_) => {
                return rumqttc_4::publish(&RumqttcTarget::tcp(port), TOPIC, qos, messages);
            }
            Self::OwnStd => {
                let handle = own_std(port);
                for message in messages {
                    let ticket = handle.publish(TOPIC, own_qos(qos), false, *message);
                    assert!(ticket.unwrap().wait().is_success());
                }
                assert!(handle.close(std::time::Duration::from_secs(10)).is_empty());
                return;
            }
        };
        assert_eq!(
            ended.code,
            Some(0),
            "{self:?}: {}{}",
            ended.stdout,
            ended.stderr
        );
    }
}

fn own_qos(qos: &str) -> mqtt_std::proto::QoS {
    mqtt_std::proto::QoS::new(qos.parse().unwrap()).unwrap()
}

fn own_std(port: &str) -> mqtt_std::Handle {
    let options = mqtt_std::Options::new("127.0.0.1", port.parse().unwrap());
    mqtt_std::Handle::connect(options).unwrap()
}

/// Where rumqttc connects.
pub(crate) struct RumqttcTarget {
    /// A name; the URL of WebSocket, or the path of a Unix socket.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) transport: rumqttc::Transport,
}

impl RumqttcTarget {
    fn tcp(port: &str) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: port.parse().unwrap(),
            transport: rumqttc::Transport::Tcp,
        }
    }
}

/// rumqttc has types of the same names for each version.
macro_rules! rumqttc {
    ($name:ident, $client:path, $qos:path) => {
        pub(crate) mod $name {
            use $client as client;
            use $qos as level;

            use client::{Client, Event, Incoming, MqttOptions};

            use super::*;

            fn options(target: &RumqttcTarget, role: &str) -> MqttOptions {
                let id = concat!(stringify!($name), "-");
                let mut options =
                    MqttOptions::new(format!("{id}{role}"), &target.host, target.port);
                options.set_transport(target.transport.clone());
                options
            }

            pub(crate) fn subscribe(
                target: &RumqttcTarget,
                topic: &'static str,
                qos: &'static str,
                count: usize,
            ) -> Subscriber {
                let qos = level(qos.parse().unwrap()).unwrap();
                let (client, mut connection) = Client::new(options(target, "sub"), 10);
                client.subscribe(topic, qos).unwrap();
                let (subscribed, wait) = mpsc::channel();
                let thread = thread::spawn(move || {
                    let mut lines = Vec::new();
                    for event in connection.iter() {
                        match event.unwrap() {
                            Event::Incoming(Incoming::SubAck(_)) => subscribed.send(()).unwrap(),
                            Event::Incoming(Incoming::Publish(publish)) => {
                                let topic: &[u8] = publish.topic.as_ref();
                                let topic = String::from_utf8_lossy(topic);
                                let payload = String::from_utf8_lossy(&publish.payload);
                                lines.push(format!("{} {topic} {payload}", publish.qos as u8));
                                if lines.len() == count {
                                    client.disconnect().unwrap();
                                }
                            }
                            Event::Outgoing(rumqttc::Outgoing::Disconnect) => break,
                            _ => {}
                        }
                    }
                    lines
                });
                wait.recv().unwrap();
                Box::new(move || thread.join().unwrap())
            }

            pub(crate) fn publish(
                target: &RumqttcTarget,
                topic: &str,
                qos: &'static str,
                messages: &[&str],
            ) {
                let level = level(qos.parse().unwrap()).unwrap();
                let (client, mut connection) = Client::new(options(target, "pub"), 10);
                for message in messages {
                    client
                        .publish(topic, level, false, message.to_string())
                        .unwrap();
                }
                let mut left = messages.len();
                for event in connection.iter() {
                    left -= match (qos, event.unwrap()) {
                        ("0", Event::Outgoing(rumqttc::Outgoing::Publish(_)))
                        | ("1", Event::Incoming(Incoming::PubAck(_)))
                        | ("2", Event::Incoming(Incoming::PubComp(_))) => 1,
                        (_, Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
                        _ => continue,
                    };
                    if left == 0 {
                        client.disconnect().unwrap();
                    }
                }
            }
        }
    };
}

rumqttc!(rumqttc_4, rumqttc, rumqttc::qos);
rumqttc!(rumqttc_5, rumqttc::v5, rumqttc::v5::mqttbytes::qos);

#[test]
fn each_client_library_receives_from_each_other() {
    for qos in QOS {
        let broker = Broker::start(&[]);
        let said: Vec<String> = PEERS
            .iter()
            .flat_map(|peer| [1, 2].map(|n| format!("{peer:?} says {n}")))
            .collect();
        let subscribers = PEERS.map(|peer| {
            (
                peer,
                peer.subscribe(&broker.port, "smarthouse/+/#", qos, said.len()),
            )
        });
        for (peer, messages) in PEERS.iter().zip(said.chunks(2)) {
            let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
            peer.publish(&broker.port, qos, &messages);
        }
        let expected: Vec<String> = said
            .iter()
            .map(|said| format!("{qos} {TOPIC} {said}"))
            .collect();
        for (peer, subscriber) in subscribers {
            assert_eq!(subscriber(), expected, "{peer:?}");
        }
    }
}

/// Two cases that failed with other brokers: a subscriber to everything at QoS 1, and one to the statistics.
#[test]
fn paho_receives_all_topics_and_statistics() {
    for version in ["3.1.1", "5"] {
        let broker = Broker::start(&["--statistics-interval", "1"]);
        let everything = Peer::Paho(version).subscribe(&broker.port, "#", "1", 3);
        let statistics = Peer::Paho(version);
        for (qos, message) in [("0", "closed"), ("1", "open"), ("2", "half")] {
            Peer::Paho(version).publish(&broker.port, qos, &[message]);
        }
        let expected = ["0 closed", "1 open", "1 half"].map(|line| {
            let (qos, message) = line.split_once(' ').unwrap();
            format!("{qos} {TOPIC} {message}")
        });
        assert_eq!(everything(), expected);
        // First the retained messages, then those that change.
        let lines = statistics.subscribe(&broker.port, "$SYS/#", "1", 75)();
        for name in [
            "version",
            "uptime",
            "clients/connected",
            "messages/received",
            "subscriptions/count",
        ] {
            let topic = format!(" $SYS/broker/{name} ");
            assert!(
                lines.iter().any(|line| line.contains(&topic)),
                "{name}: {lines:#?}"
            );
        }
        let received = "0 $SYS/broker/messages/received ";
        let counts = lines.iter().filter_map(|line| line.strip_prefix(received));
        assert!(counts.map(|count| count.parse::<u64>().unwrap()).max() > Some(0));
    }
}
