//! MQTT.js in headless Chromium through `mqtt broker` over WebSocket, with and without TLS.

use mqtt_testing::peers::Authority;
use mqtt_testing::process::{chromium, run, shows};
use mqtt_testing::wires::Proxy;

use crate::layers::Secured;

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/browser_peer.js");
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.npm/node_modules");

/// Each QoS, a retained message, the will of a tab that is closed, and messages at QoS 2 through cut connections.
fn browser_speaks(scheme: &str) {
    let Some(chromium) = chromium() else {
        return;
    };
    let authority = Authority::new("an authority");
    let broker = Secured::start(&format!("browser-{scheme}"), &authority, &[]);
    let port = broker.port(scheme);
    // More bytes than the handshakes, and less than all messages.
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
fn a_browser_speaks_over_websocket() {
    browser_speaks("ws");
}

#[test]
fn a_browser_speaks_over_websocket_and_tls() {
    browser_speaks("wss");
}
