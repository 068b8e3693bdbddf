//! Runs MQTT.js in headless Chromium through `mqtt broker` over WebSocket, with and without TLS, and tests the page of `--web`.

use std::io::{Read, Write};
use std::net::TcpStream;

use mqtt_testing::peers::{Authority, free_port};
use mqtt_testing::process::{Process, chromium, run, shows};
use mqtt_testing::wires::Proxy;

use crate::broker::{Broker, MQTT};
use crate::layers::Secured;

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/browser_peer.js");
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.npm/node_modules");

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/browser_page.js");
const STRANGERS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/peers/browser_strangers.js"
);

/// Tests each QoS, a retained message, the will of a closed tab, and messages at QoS 2 through cut connections.
fn browser_speaks(scheme: &str) {
    let Some(chromium) = chromium() else {
        return;
    };
    let authority = Authority::new("an authority");
    let broker = Secured::start(&format!("browser-{scheme}"), &authority, &[]);
    let port = broker.port(scheme);
    // The limits allow the handshakes, but not all messages.
    let proxy = Proxy::start(port.parse().unwrap(), 6_000, 20_000, 7);
    let url = |port: &str| format!("{scheme}://localhost:{port}/mqtt");
    let ended = run(
        "node",
        &[
            PEER,
            MODULES,
            &chromium,
            &url(port),
            &url(&proxy.port.to_string()),
            &broker.file("cert"),
        ],
        "",
    );
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    for version in ["4", "5"] {
        let received = "0 browser/a at 0, 1 browser/a at 1, 2 browser/a at 2, 1r browser/kept kept";
        shows(
            &ended,
            &[
                &format!("version {version} received: {received}\n"),
                &format!("version {version} closed tab: 1 browser/will gone\n"),
                &format!("version {version} connected again: true, each message once: true\n"),
            ],
        );
    }
    assert!(proxy.cuts() > 0, "no connection was cut");
}

#[test]
fn a_browser_connects_over_websocket() {
    browser_speaks("ws");
}

#[test]
fn a_browser_connects_over_websocket_and_tls() {
    browser_speaks("wss");
}

#[test]
fn the_web_page_shows_clients_topics_and_messages() {
    let broker = Broker::start(&["--web", "127.0.0.1:0"]);
    let port = broker.process.wait_stderr_after("web=127.0.0.1:");
    let Some(chromium) = chromium() else {
        return;
    };
    let url = format!("http://127.0.0.1:{port}/");
    let ended = run("node", &[PAGE, MODULES, &chromium, &url], "");
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    shows(
        &ended,
        &[
            "messages: home/hall/door, home/kitchen/temperature; markup of payloads: 0; clients: 1; asks for a login: false\n",
            "subscribed\n",
            "another page connects: false\n",
        ],
    );
}

#[test]
fn the_web_page_withstands_strangers_and_a_restart() {
    let Some(chromium) = chromium() else {
        return;
    };
    let folder = std::env::temp_dir().join(format!("mqtt-strangers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str| folder.join(name).display().to_string();
    let (users, acl) = (file("users"), file("acl"));
    let made = run(MQTT, &["passwd", &users, "page"], "secret\n");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    std::fs::write(&acl, "user page\ntopic readwrite open/#\n").unwrap();
    let web = format!("127.0.0.1:{}", free_port());
    let start = || Broker::start(&["--web", &web, "--user-file", &users, "--acl-file", &acl]);
    let broker = start();
    broker.process.wait_stderr("a page is served");
    let url = format!("http://{web}/");
    let mut page = Process::start("node", &[STRANGERS, MODULES, &chromium, &url]);
    page.wait_stdout("restart\n");
    drop(broker);
    let _broker = start();
    page.write("go on\n");
    let ended = page.end();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let seen = r#"{"hacked":false,"elements":0,"overridden":false,"escaped":true,"bytes":true,"small":true}"#;
    let expected = format!(
        "logged in, and told what is not allowed\n{seen}\nchosen: open/many; width: 360\nrestart\nconnected again\n"
    );
    assert_eq!(ended.stdout, expected);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_web_page_needs_a_loopback_address() {
    let broker = Broker::start(&["--web", "127.0.0.1:0"]);
    let port = broker.process.wait_stderr_after("web=127.0.0.1:");
    let answer = |request: &str, host: &str| {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        // The broker recognises a WebSocket request by its first piece, and `write!` would send several.
        let request = format!("{request} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(answer("GET /", "localhost").contains("<title>mqtt broker</title>"));
    assert!(answer("GET /clients", &format!("[::1]:{port}")).ends_with("\r\n[]"));
    // The host name belongs to a web site that resolves to this machine.
    assert!(answer("GET /clients", "site.example").starts_with("HTTP/1.1 403"));
    assert!(answer("GET /other", "localhost").starts_with("HTTP/1.1 404"));
    assert!(answer("POST /", "localhost").starts_with("HTTP/1.1 405"));
    assert!(answer("GET /mqtt", "localhost").starts_with("HTTP/1.1 400"));
    let arguments = ["broker", "--bind", "127.0.0.1:0", "--web", "0.0.0.0:0"];
    let everywhere = run(MQTT, &arguments, "");
    assert_eq!(everywhere.code, Some(1));
    assert!(everywhere.stderr.contains("this machine only"));
}
