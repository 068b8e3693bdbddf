//! Runs the example in headless Chromium against the broker of this workspace behind a WebSocket server.
#![cfg(not(target_family = "wasm"))]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use mqtt_testing::peers::HostedBroker;
use mqtt_testing::process::{chromium, run, shows};
use mqtt_testing::wires::Proxy;
use mqtt_testing::wires::terminator::{End, through};

const TARGET: &str = "wasm32-unknown-unknown";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page.js");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/page.html");
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.npm/node_modules");

/// Builds the example for the browser. Returns the folder of its two files.
fn built() -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let own = std::env::current_exe().unwrap();
    // The test program is in TARGET_DIRECTORY/PROFILE/deps.
    let folder = own.ancestors().nth(3).unwrap().to_owned();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "--manifest-path", manifest])
        .args(["--target", TARGET, "--example", "web_echo", "--target-dir"])
        .arg(&folder)
        .status();
    assert!(status.unwrap().success(), "the example cannot be built");
    let program = folder.join(TARGET).join("debug/examples/web_echo.wasm");
    let out = std::env::temp_dir().join(format!("mqtt-web-{}", std::process::id()));
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    bindgen.input_path(program).no_modules(true).unwrap();
    bindgen.generate(&out).unwrap();
    out
}

#[test]
fn a_page_publishes_hears_and_reconnects() {
    let Some(chromium) = chromium() else {
        return;
    };
    let folder = built();
    let broker = HostedBroker::start(None);
    let options = mqtt_web::Options::new("127.0.0.1", broker.port);
    let (options, _) = through(options, mqtt_web::Scheme::Ws, End::Clean);
    // The limits allow the handshakes and a few exchanges, so that the proxy cuts connections.
    let proxy = Proxy::start(options.port, 1_500, 6_000, 3);
    let url = |port: u16, rounds: u32| format!("ws://localhost:{port}/mqtt,{rounds}");
    let ended = run(
        "node",
        &[
            SCRIPT,
            MODULES,
            &chromium,
            PAGE,
            folder.to_str().unwrap(),
            &url(options.port, 3),
            &url(proxy.port, 200),
        ],
        "",
    );
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let expected = |heard: u32| {
        ["3.1.1", "5"].map(|version| {
            format!("version {version} heard {heard}, 0 of them wrong\nversion {version} left 0 messages\n")
        })
    };
    let (plain, cut) = (expected(9), expected(200));
    let lines: Vec<_> = plain.iter().chain(&cut).map(String::as_str).collect();
    shows(&ended, &lines);
    assert!(proxy.cuts() > 4, "{} cuts", proxy.cuts());
}
