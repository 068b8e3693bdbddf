//! Runs clients of other projects and the programs of this crate through `mqtt broker` over TLS, WebSocket, both and Unix
//! sockets.

use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use mqtt_adapter_core::transport::tls::rustls::ClientConfig;
use mqtt_adapter_core::transport::tls::rustls::crypto::ring::default_provider;
use mqtt_testing::peers::{Authority, DnsServer, Mosquitto, SrvRecord, Subject, Zone, free_port};
use mqtt_testing::process::{Process, run};
use rumqttc::Transport;

use crate::broker::MQTT;
use crate::clients::{RumqttcTarget, rumqttc_4, rumqttc_5};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python");
const PAHO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/paho_peer.py");
const MQTT_JS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/mqttjs_peer.js");
const MQTT_JS_MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.npm/node_modules/mqtt");
const FORMAT: &str = "%q %t %p";

/// `mqtt broker` with a listener for each scheme.
pub(crate) struct Secured {
    pub(crate) process: Process,
    listeners: Listeners,
}

/// The listeners of a broker, one for each scheme, and the files of its certificates.
pub(crate) struct Listeners {
    pub(crate) folder: PathBuf,
    ports: [String; 4],
}

impl Deref for Secured {
    type Target = Listeners;

    fn deref(&self) -> &Listeners {
        &self.listeners
    }
}

/// Schemes with a port, in the order of the ports.
const SCHEMES: [&str; 4] = ["mqtt", "mqtts", "ws", "wss"];

impl Secured {
    /// Starts a broker with a certificate for `localhost`; `more` may name files of the folder by `DIRECTORY`.
    pub(crate) fn start(name: &str, authority: &Authority, more: &[&str]) -> Self {
        let mut listeners = Listeners::new(name, authority, SCHEMES.map(|_| "0".to_owned()));
        let file = |name: &str| listeners.file(name);
        let mut arguments = vec!["broker".to_owned()];
        let bind = |scheme| format!("--bind={scheme}://127.0.0.1:0");
        arguments.extend(SCHEMES.map(bind));
        arguments.push(format!("--bind=unix://{}", file("socket")));
        arguments.extend(["--cert".into(), file("cert"), "--key".into(), file("key")]);
        let more = more.iter().map(|word| word.replace("DIRECTORY", &file("")));
        arguments.extend(more);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let process = Process::start(MQTT, &arguments);
        process.wait_stderr("protocol=\"unix\"");
        listeners.ports = SCHEMES.map(|scheme| port_of(&process, scheme));
        Self { process, listeners }
    }
}

/// Returns the port of the listener of a broker for a scheme.
fn port_of(broker: &Process, scheme: &str) -> String {
    broker.wait_stderr_after(&format!("protocol={scheme:?} address=127.0.0.1:"))
}

impl Listeners {
    /// Writes a certificate for `localhost`.
    fn new(name: &str, authority: &Authority, ports: [String; 4]) -> Self {
        let issued = authority.issue(&Subject::host("localhost"));
        let name = format!("mqtt-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("ca", authority.pem()),
            ("cert", &issued.certificate),
            ("key", &issued.key),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        Self { folder, ports }
    }

    /// Chooses ports for a broker that cannot choose them itself.
    fn on_free_ports(name: &str, authority: &Authority) -> Self {
        let ports = SCHEMES.map(|_| free_port().to_string());
        Self::new(name, authority, ports)
    }

    /// Returns the lines of Mosquitto's configuration for these listeners.
    fn for_mosquitto(&self) -> String {
        // When root starts Mosquitto, it changes to another user.
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o777)).unwrap();
        let (cert, key) = (self.file("cert"), self.file("key"));
        let mut lines = format!("listener 0 {}\n", self.file("socket"));
        for (scheme, port) in SCHEMES.iter().zip(&self.ports) {
            lines += &format!("listener {port} 127.0.0.1\n");
            if scheme.starts_with("ws") {
                lines += "protocol websockets\n";
            }
            if matches!(*scheme, "mqtts" | "wss") {
                lines += &format!("certfile {cert}\nkeyfile {key}\n");
            }
        }
        lines
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub(crate) fn port(&self, scheme: &str) -> &str {
        let at = SCHEMES.iter().position(|known| *known == scheme);
        &self.ports[at.expect("a scheme with a port")]
    }

    /// Returns the arguments that connect a program to it.
    fn words(&self, scheme: &str) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        if scheme == "unix" {
            return words(&["--unix", &self.file("socket")]);
        }
        let mut all: Vec<String> = words(&["-h", "localhost", "-p", self.port(scheme)]);
        if scheme.starts_with("ws") {
            all.push("--ws".into());
        }
        if scheme.ends_with('s') && scheme != "ws" {
            all.extend(["--cafile".into(), self.file("ca")]);
        }
        all
    }

    /// Returns the URL for the scripts of other clients.
    pub(crate) fn url(&self, scheme: &str) -> String {
        match scheme {
            "unix" => format!("unix://{}", self.file("socket")),
            "mqtts" | "wss" => {
                let (port, ca) = (self.port(scheme), self.file("ca"));
                format!("{scheme}://localhost:{port}?{ca}")
            }
            _ => format!("{scheme}://localhost:{}", self.port(scheme)),
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program on the other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Peer {
    Own,
    Mosquitto,
    Paho,
    MqttJs,
}

impl Peer {
    /// Returns the schemes that the program supports.
    fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Own | Self::Paho => &["mqtt", "mqtts", "ws", "wss", "unix"],
            Self::Mosquitto => &["mqtt", "mqtts", "unix"],
            Self::MqttJs => &["mqtt", "mqtts", "ws", "wss"],
        }
    }

    /// Returns its program and arguments; `rest` has the messages, or how many are awaited.
    fn command(
        self,
        broker: &Listeners,
        (scheme, version): (&str, &str),
        (action, qos): (&str, &str),
        rest: &str,
    ) -> (&'static str, Vec<String>) {
        let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        if matches!(self, Self::Paho | Self::MqttJs) {
            let url = broker.url(scheme);
            let words: [&str; 6] = [action, &url, version, qos, "a/b", rest];
            return match self {
                Self::Paho => (PYTHON, own(&[&[PAHO][..], &words].concat())),
                _ => (
                    "node",
                    own(&[&[MQTT_JS, MQTT_JS_MODULE][..], &words].concat()),
                ),
            };
        }
        let mut all = broker.words(scheme);
        all.extend(own(&["-V", version, "-q", qos, "-t", "a/b"]));
        all.extend(own(&match action {
            "pub" => ["-m", rest, "-i", "pub"],
            _ => ["-C", rest, "-F", FORMAT],
        }));
        match (self, action) {
            (Self::Own, _) => {
                all.insert(0, action.to_owned());
                // With -d the program prints SUBACK on standard error.
                all.push("-d".into());
                (MQTT, all)
            }
            (_, "pub") => ("mosquitto_pub", all),
            _ => {
                all.push("-d".into());
                // The output is unbuffered, so that it can be awaited.
                all.splice(0..0, own(&["-o0", "mosquitto_sub"]));
                ("stdbuf", all)
            }
        }
    }

    fn publishes(self, broker: &Listeners, way: (&str, &str), qos: &str) {
        let (program, words) = self.command(broker, way, ("pub", qos), "hello");
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let ended = run(program, &words, "");
        let told = &ended.stderr;
        assert_eq!(ended.code, Some(0), "{self:?} {way:?} {qos}: {told}");
    }

    fn subscribes(self, broker: &Listeners, way: (&str, &str)) -> Process {
        let (program, words) = self.command(broker, way, ("sub", "2"), "3");
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let process = Process::start(program, &words);
        match self {
            Self::Own => process.wait_stderr("receiving SUBACK"),
            Self::Mosquitto => process.wait_stdout("Subscribed"),
            _ => process.wait_stdout("subscribed"),
        }
        process
    }
}

/// The peer receives the messages of `mqtt pub` at each QoS, and `mqtt sub`, with another scheme, receives those of the peer.
fn meets(peer: Peer) {
    let authority = Authority::new("an authority");
    let broker = Secured::start(&format!("{peer:?}"), &authority, &[]);
    meets_through(&broker, peer);
}

/// The same through Mosquitto.
fn meets_through_mosquitto(peer: Peer) {
    let authority = Authority::new("an authority");
    let listeners = Listeners::on_free_ports(&format!("{peer:?}-mosquitto"), &authority);
    let _broker = Mosquitto::start(&listeners.for_mosquitto());
    meets_through(&listeners, peer);
}

fn meets_through(broker: &Listeners, peer: Peer) {
    for version in ["3.1.1", "5"] {
        for scheme in peer.schemes() {
            let way = (
                *scheme,
                if peer == Peer::Mosquitto {
                    mosquitto(version)
                } else {
                    version
                },
            );
            let hearing = peer.subscribes(broker, way);
            let ours = Peer::Own.subscribes(broker, ("wss", version));
            for (n, qos) in ["0", "1", "2"].into_iter().enumerate() {
                match n {
                    1 => Peer::Own.publishes(broker, ("unix", version), qos),
                    _ => peer.publishes(broker, way, qos),
                }
            }
            for process in [hearing, ours] {
                let ended = process.end();
                let heard = ended
                    .stdout
                    .lines()
                    .filter(|line| line.ends_with("a/b hello"));
                let heard: Vec<_> = heard.collect();
                let all = ["0 a/b hello", "1 a/b hello", "2 a/b hello"];
                assert_eq!(heard, all, "{peer:?} {way:?}: {}", ended.stderr);
            }
        }
    }
}

/// Returns the name of a version in mosquitto's programs.
fn mosquitto(version: &str) -> &'static str {
    match version {
        "5" => "mqttv5",
        _ => "mqttv311",
    }
}

#[test]
fn mqtt_connects_by_each_scheme() {
    meets(Peer::Own);
}

#[test]
fn mosquitto_clients_connect_by_each_scheme() {
    meets(Peer::Mosquitto);
}

#[test]
fn paho_connects_by_each_scheme() {
    meets(Peer::Paho);
}

#[test]
fn mqtt_js_connects_by_each_scheme() {
    meets(Peer::MqttJs);
}

/// Where rumqttc connects by a scheme.
fn rumqttc_target(broker: &Listeners, authority: &Authority, scheme: &str) -> RumqttcTarget {
    let tls = || {
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        rumqttc::TlsConfiguration::Rustls(config.into())
    };
    if scheme == "unix" {
        return RumqttcTarget {
            host: broker.file("socket"),
            port: 0,
            transport: Transport::Unix,
        };
    }
    let port = broker.port(scheme);
    let (host, transport) = match scheme {
        "mqtts" => ("localhost".to_owned(), Transport::Tls(tls())),
        "ws" => (format!("ws://localhost:{port}/mqtt"), Transport::Ws),
        "wss" => (
            format!("wss://localhost:{port}/mqtt"),
            Transport::Wss(tls()),
        ),
        _ => ("localhost".to_owned(), Transport::Tcp),
    };
    RumqttcTarget {
        host,
        port: port.parse().unwrap(),
        transport,
    }
}

#[test]
fn rumqttc_connects_by_each_scheme() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("rumqttc", &authority, &[]);
    rumqttc_meets_ours(&broker, &authority);
}

#[test]
fn rumqttc_through_mosquitto_by_each_scheme() {
    let authority = Authority::new("an authority");
    let listeners = Listeners::on_free_ports("rumqttc-mosquitto", &authority);
    let _broker = Mosquitto::start(&listeners.for_mosquitto());
    rumqttc_meets_ours(&listeners, &authority);
}

#[test]
fn our_program_through_mosquitto_by_each_scheme() {
    meets_through_mosquitto(Peer::Own);
}

#[test]
fn paho_through_mosquitto_by_each_scheme() {
    meets_through_mosquitto(Peer::Paho);
}

#[test]
fn mqtt_js_through_mosquitto_by_each_scheme() {
    meets_through_mosquitto(Peer::MqttJs);
}

fn rumqttc_meets_ours(broker: &Listeners, authority: &Authority) {
    for version in ["3.1.1", "5"] {
        for scheme in ["mqtt", "mqtts", "ws", "wss", "unix"] {
            let target = rumqttc_target(broker, authority, scheme);
            let hearing = match version {
                "5" => rumqttc_5::subscribe(&target, "a/b", "2", 3),
                _ => rumqttc_4::subscribe(&target, "a/b", "2", 3),
            };
            let ours = Peer::Own.subscribes(broker, ("wss", version));
            for qos in ["0", "1", "2"] {
                match version {
                    "5" => rumqttc_5::publish(&target, "a/b", qos, &["hello"]),
                    _ => rumqttc_4::publish(&target, "a/b", qos, &["hello"]),
                }
            }
            let all = ["0 a/b hello", "1 a/b hello", "2 a/b hello"];
            assert_eq!(hearing(), all, "{version} {scheme}");
            let ended = ours.end();
            let heard: Vec<_> = ended
                .stdout
                .lines()
                .filter(|line| line.ends_with("a/b hello"))
                .collect();
            assert_eq!(heard, all, "{version} {scheme}: {}", ended.stderr);
        }
    }
}

#[test]
fn check_and_bench_connect_by_tls_and_websocket() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("check", &authority, &[]);
    for scheme in ["mqtts", "ws", "wss", "unix"] {
        let words = broker.words(scheme);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let (at, more) = match scheme {
            "unix" => (vec!["check"], &words[..]),
            _ => (vec!["check", "localhost"], &words[2..]),
        };
        let ended = run(MQTT, &[&at[..], more].concat(), "");
        assert_eq!(ended.code, Some(0), "{scheme}: {}", ended.stderr);
        assert!(ended.stdout.contains("maximum QoS"), "{}", ended.stdout);
        let load = ["bench", "-d", "0.1", "-r", "100", "-q", "1"];
        let ended = run(MQTT, &[&load[..], &words].concat(), "");
        assert_eq!(ended.code, Some(0), "{scheme}: {}", ended.stderr);
    }
}

/// Only by an option are the keys of a connection written to a file.
#[test]
fn the_keys_of_tls_are_logged_on_request() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("keys", &authority, &[]);
    let file = broker.file("keylog");
    let environment = format!("SSLKEYLOGFILE={file}");
    let mut words = vec![environment.as_str(), MQTT, "pub", "-q", "1"];
    let to = broker.words("mqtts");
    words.extend(to.iter().map(String::as_str));
    words.extend(["-t", "a", "-m", "x"]);
    let ended = run("env", &words, "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!fs::exists(&file).unwrap());
    words.push("--tls-key-log");
    let ended = run("env", &words, "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let keys = fs::read_to_string(&file).unwrap();
    assert!(keys.contains("CLIENT_TRAFFIC_SECRET_0 "), "{keys}");
}

/// One port serves TLS, WebSocket, both and plain MQTT by the first bytes of each connection.
#[test]
fn one_port_detects_each_protocol() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("any", &authority, &["--bind=any://127.0.0.1:0"]);
    let port = port_of(&broker.process, "any");
    for scheme in SCHEMES {
        let mut words = broker.words(scheme);
        let own = words.iter().position(|word| word == broker.port(scheme));
        words[own.unwrap()].clone_from(&port);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let message = ["pub", "-q", "2", "-t", "any", "-m", "hello"];
        let ended = run(MQTT, &[&message[..], &words].concat(), "");
        assert_eq!(ended.code, Some(0), "{scheme}: {}", ended.stderr);
    }
    let mut other = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    other.write_all(b"\0\0 and more").unwrap();
    let told = "the client speaks something unknown, which this port is not for";
    broker.process.wait_stderr(told);
}

/// `-S` finds the broker by the records of its domain, over TLS by those of the service with TLS.
#[test]
fn the_records_of_a_domain_name_the_broker() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("srv", &authority, &[]);
    let record = |service: &str, scheme: &str| SrvRecord {
        name: format!("{service}._tcp.localhost"),
        priority: 0,
        weight: 0,
        port: broker.port(scheme).parse().unwrap(),
        target: "localhost".to_owned(),
    };
    let records = vec![record("_mqtt", "mqtt"), record("_secure-mqtt", "mqtts")];
    let dns = DnsServer::start(Zone::Records(records));
    let by = ["-S", "--dns-server", &dns.address.to_string()].map(str::to_owned);
    let by: Vec<_> = by.iter().map(String::as_str).collect();
    let ca = broker.file("ca");
    for tls in [&[][..], &["--cafile", &ca]] {
        let host = ["-h", "localhost"];
        let publish = ["pub", "-t", "a", "-m", "x", "-q", "1"];
        let ended = run(MQTT, &[&publish[..], &host, &by, tls].concat(), "");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let ended = run(MQTT, &[&["check", "localhost"][..], &by, tls].concat(), "");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}
