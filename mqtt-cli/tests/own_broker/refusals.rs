//! Checks the reports of `mqtt` when TLS or WebSocket fails: one line and an exit code.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use mqtt_testing::peers::{Authority, ClosedPort, Subject};
use mqtt_testing::process::run;

use crate::broker::MQTT;
use crate::layers::Secured;

/// Publishes with these arguments. Returns the exit code and the line on standard error.
fn says(words: &[&str]) -> (Option<i32>, String) {
    let ended = run(MQTT, &[&["pub", "-t", "a", "-m", "x"], words].concat(), "");
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert!(lines.len() <= 1, "{lines:?}");
    (ended.code, lines.concat())
}

fn is_told(words: &[&str], code: i32, text: &str) {
    let (ended, line) = says(words);
    assert_eq!(ended, Some(code), "{words:?}: {line}");
    assert!(line.contains(text), "{words:?}: {line}");
}

/// Gives the broker a certificate for this name whose last day is over.
fn has_expired(broker: &Secured, authority: &Authority, name: &str) {
    let expired = authority.issue(&Subject {
        years: (2020, 2021),
        ..Subject::host(name)
    });
    fs::write(broker.file("cert"), &expired.certificate).unwrap();
    fs::write(broker.file("key"), &expired.key).unwrap();
    broker.process.signal("HUP");
    broker.process.wait_stderr("are read again");
}

#[test]
fn a_server_certificate_that_does_not_match_is_refused() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("server", &authority, &[]);
    let port = broker.port("mqtts");
    let ca = broker.file("ca");
    let at = |host| ["-h", host, "-p", port];
    let trusted = [at("127.0.0.1"), ["--cafile", &ca, "-q", "1"]].concat();
    is_told(
        &trusted,
        8,
        "is for another host: expected 127.0.0.1, found localhost",
    );
    let (code, line) = says(&[&trusted[..], &["--insecure"]].concat());
    assert_eq!((code, line.as_str()), (Some(0), ""));

    let other = broker.file("other");
    fs::write(&other, Authority::new("another").pem()).unwrap();
    is_told(
        &[&at("localhost")[..], &["--cafile", &other]].concat(),
        8,
        "unknown CA",
    );
    // With any name, the certificate must be from the CA.
    let insecure = [&at("localhost")[..], &["--cafile", &other, "--insecure"]].concat();
    is_told(&insecure, 8, "unknown CA");

    // The broker's certificate after SIGHUP has expired.
    has_expired(&broker, &authority, "localhost");
    is_told(
        &[&at("localhost")[..], &["--cafile", &ca]].concat(),
        8,
        "expired on 2021-01-01",
    );
}

/// A pinned certificate is accepted under another name, after its last day and without its CA; any other one is not.
#[test]
fn only_a_pinned_certificate_is_accepted() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("pinned", &authority, &[]);
    let (pin, other) = (broker.file("cert"), broker.file("other"));
    let another = authority.issue(&Subject::host("localhost"));
    fs::write(&other, &another.certificate).unwrap();
    for scheme in ["mqtts", "wss"] {
        let to = ["-h", "127.0.0.1", "-p", broker.port(scheme), "-q", "1"];
        let to = match scheme {
            "wss" => [&to[..], &["--ws"]].concat(),
            _ => to.to_vec(),
        };
        let (code, line) = says(&[&to[..], &["--pin", &pin]].concat());
        assert_eq!((code, line.as_str()), (Some(0), ""));
        let wrong = [&to[..], &["--pin", &other]].concat();
        is_told(&wrong, 8, "certificate is none of those that were pinned");
    }
    let (port, url) = (broker.port("mqtts"), broker.url("mqtts"));
    let url = url.split('?').next().unwrap();
    let load = ["-h", "127.0.0.1", "-p", port, "-d", "0.1", "-r", "100"];
    let rr = ["-L", &format!("{url}/a"), "-e", "b", "-m", "x"];
    for (words, code) in [
        (&["check", "127.0.0.1", "-p", port][..], 0),
        (&[&["bench"][..], &load].concat(), 0),
        (&["sub", "-L", &format!("{url}/a"), "-E"], 0),
        // Nobody answers.
        (&[&["rr", "-W", "1"][..], &rr].concat(), 27),
    ] {
        for (file, code) in [(&pin, code), (&other, 8)] {
            let ended = run(MQTT, &[words, &["--pin", file]].concat(), "");
            let told = &ended.stderr;
            assert_eq!(ended.code, Some(code), "{words:?}: {told}");
            assert_eq!(told.contains("pinned"), file == &other, "{words:?}: {told}");
        }
    }

    has_expired(&broker, &authority, "elsewhere.example");
    let to = ["-h", "localhost", "-p", port, "-q", "1", "--pin", &pin];
    assert_eq!(says(&to), (Some(0), String::new()));
}

/// Nobody listens: each command names the server, or the proxy before it, and never a password.
#[test]
fn a_server_that_cannot_be_reached_is_named() {
    let closed = ClosedPort::new();
    let port = &closed.number().to_string();
    let host = |scheme| format!("{scheme}://joe:hidden@localhost:{port}");
    let at = format!("localhost:{port} (");
    let [plain, tls, ws, wss, proxy] = ["mqtt", "mqtts", "ws", "wss", "socks5h"].map(host);
    let behind = format!("the proxy {at}");
    let url_or_socket = [
        (&["-L", &plain][..], at.as_str()),
        (&["-L", &tls, "--insecure"], &at),
        (&["-L", &ws], &at),
        (&["-L", &wss, "--insecure"], &at),
        (&["--unix", "/nowhere/socket"], "/nowhere/socket: "),
        (&["-L", "mqtt://nowhere.invalid"], "nowhere.invalid:1883: "),
        (&["-L", "mqtt://other.example", "--proxy", &proxy], &behind),
    ];
    let commands: [&[&str]; 3] = [
        &["pub", "-t", "a", "-m", "x"],
        &["sub", "-t", "a"],
        &["rr", "-t", "a", "-e", "b", "-m", "x"],
    ];
    for (words, name) in url_or_socket {
        for command in commands {
            names_the_server(&[command, words].concat(), name);
        }
    }
    names_the_server(&["check", &wss, "--insecure"], &at);
    let bench = ["bench", "-h", "localhost", "-p", port, "-d", "1"];
    names_the_server(&bench, &at);
    names_the_server(&[&bench[..], &["--ws"]].concat(), &at);
    let address = ["pub", "-t", "a", "-m", "x", "-h", "127.0.0.1", "-p", port];
    names_the_server(&address, &format!("connect: 127.0.0.1:{port}: "));
}

fn names_the_server(words: &[&str], name: &str) {
    let ended = run(MQTT, words, "");
    let line = &ended.stderr;
    assert_eq!(ended.code, Some(1), "{words:?}: {line}");
    assert_eq!(line.lines().count(), 1, "{words:?}: {line}");
    assert_eq!(line.matches(name).count(), 1, "{words:?}: {line}");
    assert!(!line.contains("hidden"), "{words:?}: {line}");
}

#[test]
fn unusable_options_are_refused() {
    for (words, text) in [
        (&["--psk", "00"][..], "client certificate"),
        (&["--ciphers", "ALL"], "--ciphers"),
        (&["--cert", "c"], "need TLS"),
        (&["--unix", "s", "--capath", "c"], "without TLS"),
        (&["--unix", "s", "--cert", "c", "--key", "k"], "without TLS"),
        (&["--unix", "s", "--tls-use-os-certs"], "without TLS"),
        (&["--pin", "a", "--cafile", "b"], "give one of them"),
        (&["--pin", "a", "--tls-use-os-certs"], "give one of them"),
        (&["--pin", "no such"], "no such: No such file"),
        (&["--cafile", "no such"], "no such: No such file"),
        (&["-L", "unix:///path"], "give --unix PATH"),
        (
            &["--tls-use-os-certs", "--tls-version", "tlsv1.1"],
            "tlsv1.2 and tlsv1.3 are spoken",
        ),
    ] {
        is_told(words, 1, text);
    }
}

#[test]
fn a_wrong_protocol_for_a_port_is_reported() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("protocol", &authority, &[]);
    let ca = broker.file("ca");
    let to = |scheme| ["-h", "localhost", "-p", broker.port(scheme)];
    let tls = ["--cafile", &ca];
    // The broker reports the protocol of this port to the client by an alert or by HTTP.
    is_told(&to("mqtts"), 1, "the server speaks TLS here");
    is_told(&[&to("mqtt")[..], &tls].concat(), 8, "TLS");
    is_told(
        &[&to("mqtt")[..], &["--ws"]].concat(),
        8,
        "closed the connection",
    );
    is_told(
        &[&to("ws")[..], &["--ws", "--ws-path", "/other"]].concat(),
        8,
        "404",
    );
    is_told(
        &[&to("wss")[..], &tls].concat(),
        1,
        "before CONNACK: is this a port for MQTT over TLS without WebSocket?",
    );
    broker
        .process
        .wait_stderr("speaks plain MQTT where TLS is expected");
    broker
        .process
        .wait_stderr("speaks plain MQTT where WebSocket is expected");
    broker
        .process
        .wait_stderr("speaks TLS where plain MQTT is expected");
    let address = format!("127.0.0.1:{}", broker.port("mqtt"));
    for (bytes, name) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP"),
        (
            b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n",
            "the PROXY protocol",
        ),
    ] {
        let mut client = TcpStream::connect(&address).unwrap();
        client.write_all(bytes).unwrap();
        let told = format!("speaks {name} where plain MQTT is expected");
        broker.process.wait_stderr(&told);
    }
}

#[test]
fn a_client_without_a_valid_certificate_is_refused() {
    let authority = Authority::new("an authority");
    let more = ["--client-ca", "DIRECTORY/clients", "--crl", "DIRECTORY/crl"];
    let name = "client";
    let folder = std::env::temp_dir().join(format!("mqtt-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("clients"), authority.pem()).unwrap();
    fs::write(folder.join("crl"), authority.revocation_list(&[2])).unwrap();
    let broker = Secured::start(name, &authority, &more);
    let (ca, cert, key) = (
        broker.file("ca"),
        broker.file("own"),
        broker.file("own.key"),
    );
    let to = [
        "-h",
        "localhost",
        "-p",
        broker.port("mqtts"),
        "--cafile",
        &ca,
    ];
    let at = format!("cannot connect: localhost:{}", broker.port("mqtts"));
    let why = "requires a client certificate, and none was given";
    is_told(&to, 8, why);
    is_told(&to, 8, &at);
    let in_1_2 = [&to[..], &["--tls-version", "tlsv1.2"]].concat();
    is_told(&in_1_2, 8, &at);
    for (serial, why) in [(1, ""), (2, "it was revoked")] {
        let issued = authority.issue(&Subject {
            serial,
            ..Subject::client("pump")
        });
        fs::write(&cert, &issued.certificate).unwrap();
        fs::write(&key, &issued.key).unwrap();
        let words = [&to[..], &["--cert", &cert, "--key", &key]].concat();
        match why {
            "" => assert_eq!(says(&words), (Some(0), String::new())),
            why => is_told(&words, 8, why),
        }
    }
}

/// By default offers of application protocols are ignored; a listener with a list refuses a client that offers only others.
#[test]
fn application_protocols_are_accepted_by_the_list() {
    let authority = Authority::new("an authority");
    let ignoring = Secured::start("alpn-any", &authority, &[]);
    let choosy = Secured::start("alpn", &authority, &["--alpn", "mqtt", "--alpn=http/1.1"]);
    for scheme in ["mqtts", "wss"] {
        for (broker, offer, is_accepted) in [
            (&ignoring, "", true),
            (&ignoring, "mqtt", true),
            (&ignoring, "other", true),
            (&choosy, "", true),
            (&choosy, "mqtt", true),
            (&choosy, "http/1.1", true),
            (&choosy, "other", false),
        ] {
            let ca = broker.file("ca");
            let mut words = vec!["-h", "localhost", "-p", broker.port(scheme)];
            words.extend(["-q", "1", "--cafile", &ca]);
            if scheme == "wss" {
                words.push("--ws");
            }
            if !offer.is_empty() {
                words.extend(["--tls-alpn", offer]);
            }
            match is_accepted {
                true => assert_eq!(says(&words), (Some(0), String::new()), "{words:?}"),
                false => is_told(&words, 8, "none of the application protocols (ALPN)"),
            }
        }
    }
    let told = "offers none of the application protocols (ALPN) of this side";
    choosy.process.wait_stderr(told);
    let empty = ["broker", "--bind=mqtts://127.0.0.1:0", "--alpn="];
    let (cert, key) = (choosy.file("cert"), choosy.file("key"));
    let files = ["--cert", &cert, "--key", &key];
    let ended = run(MQTT, &[&empty[..], &files].concat(), "");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("1 to 255 bytes"), "{}", ended.stderr);
}

/// Each connection that fails below MQTT has one line with its address and the reason.
#[test]
fn a_failed_connection_has_one_line_in_the_log() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("one-line", &authority, &[]);
    let http = &b"GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n"[..];
    let tls = b"\x16\x03\x01\x00\x05hello";
    let upgrade = b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: \
        dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n\x81\x81\0\0\0\0a";
    let long = [&b"GET /"[..], &[b'a'; 20_000]].concat();
    let mut peers = Vec::new();
    for (scheme, bytes, why) in [
        ("mqtt", http, "speaks HTTP where plain MQTT is expected"),
        ("mqtt", tls, "speaks TLS where plain MQTT is expected"),
        (
            "mqtts",
            b"\x10\x0c\0\x04MQTT",
            "speaks plain MQTT where TLS",
        ),
        ("mqtts", tls, "TLS"),
        (
            "mqtts",
            b"",
            "closed the connection before it said anything",
        ),
        ("ws", http, "is not one for WebSocket"),
        ("ws", &long, "headers are longer than"),
        ("ws", upgrade, "sent a text frame"),
        ("ws", b"", "closed the connection before it asked"),
        ("wss", http, "HTTP where TLS is expected"),
    ] {
        let mut client = TcpStream::connect(format!("127.0.0.1:{}", broker.port(scheme))).unwrap();
        client.write_all(bytes).unwrap();
        // The broker may have closed the connection before all of it came.
        let _ = client.shutdown(Shutdown::Write);
        let peer = format!("peer={}", client.local_addr().unwrap());
        let _ = client.read_to_end(&mut Vec::new());
        broker.process.wait_stderr(&peer);
        peers.push((scheme, peer, why));
    }
    let Secured { process, .. } = broker;
    process.signal("TERM");
    let log = process.end().stderr;
    for (scheme, peer, why) in peers {
        let lines = log.lines().filter(|line| line.contains(&peer));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 1, "{scheme}: {lines:#?}");
        assert!(lines[0].contains(why), "{scheme}: {lines:#?}");
    }
}

#[test]
fn a_web_server_without_mqtt_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
        format!("HTTP/1.1 101 Switching\r\nLong: {}", "x".repeat(100_000)),
    ];
    let server = thread::spawn(move || {
        for answer in answers {
            let (mut client, _) = listener.accept().unwrap();
            // Bytes that are not read would reset the connection at its end.
            let mut lines = BufReader::new(&client).lines();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let _ = client.write_all(answer.as_bytes());
        }
    });
    let to = ["-h", "127.0.0.1", "-p", &port, "--ws"];
    is_told(&to, 8, "200");
    is_told(&to, 8, "longer than");
    server.join().unwrap();
}

#[test]
fn the_cas_of_the_system_are_trusted_without_an_option() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("system-cas", &authority, &[]);
    let system = format!("SSL_CERT_FILE={}", broker.file("ca"));
    for scheme in ["mqtts", "wss"] {
        let url = format!("{scheme}://localhost:{}/a", broker.port(scheme));
        let publish = [MQTT, "pub", "-q", "1", "-m", "x", "-L", &url];
        let ended = run("env", &[&[&*system][..], &publish].concat(), "");
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let ended = run("env", &publish, "");
        assert_eq!(ended.code, Some(8));
        assert!(ended.stderr.contains("unknown CA"), "{}", ended.stderr);
    }
}

#[test]
fn proxies_of_the_environment_and_interfaces_are_used() {
    let authority = Authority::new("an authority");
    let broker = Secured::start("environment", &authority, &[]);
    let closed = ClosedPort::new();
    let all_proxy = format!("all_proxy=socks5h://127.0.0.1:{}", closed.number());
    let with = |environment: &[&str], words: &[&str]| {
        let to = ["-h", "localhost", "-p", broker.port("mqtt")];
        let publish = [MQTT, "pub", "-q", "1", "-t", "a", "-m", "x"];
        let ended = run("env", &[environment, &publish, &to, words].concat(), "");
        (ended.code, ended.stderr)
    };
    assert_eq!(with(&[], &[]), (Some(0), String::new()));
    let (code, line) = with(&[&all_proxy], &[]);
    assert_eq!(code, Some(1), "{line}");
    assert!(
        line.contains("refused") && line.lines().count() == 1,
        "{line}"
    );
    assert_eq!(with(&[&all_proxy, "no_proxy=localhost"], &[]).0, Some(0));
    let (code, line) = with(&["ALL_PROXY=ftp://u:secret@h"], &[]);
    assert_eq!(code, Some(1));
    assert!(
        line.contains("all_proxy: the URL of the proxy") && !line.contains("secret"),
        "{line}"
    );
    if cfg!(target_os = "linux") {
        let (code, line) = with(&[], &["--interface", "none0"]);
        assert_eq!(code, Some(1));
        assert!(line.contains("the interface none0: "), "{line}");
    }
}

/// The lines of one address are limited, and its connections are refused as before.
#[test]
fn many_failed_connections_do_not_fill_the_log() {
    let authority = Authority::new("an authority");
    let begin = Instant::now();
    let broker = Secured::start("many-lines", &authority, &[]);
    for scheme in ["mqtts", "mqtt"] {
        for _ in 0..50 {
            let mut client =
                TcpStream::connect(format!("127.0.0.1:{}", broker.port(scheme))).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let _ = client.read_to_end(&mut Vec::new());
        }
    }
    // Lines are counted for ten seconds or more at a time, first from the start of the broker.
    let most = 20 * (begin.elapsed().as_secs() / 10 + 1);
    let Secured { process, .. } = broker;
    process.signal("TERM");
    let log = process.end().stderr;
    let lines = log
        .lines()
        .filter(|line| line.contains("a handshake failed"));
    let lines = u64::try_from(lines.count()).unwrap();
    assert!((20..=most.min(99)).contains(&lines), "{log}");
}
