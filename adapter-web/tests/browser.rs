//! Runs the examples in headless Chromium against the broker of this workspace behind a WebSocket server.
#![cfg(not(target_family = "wasm"))]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use mqtt_testing::peers::HostedBroker;
use mqtt_testing::process::{Ended, chromium, run, shows};
use mqtt_testing::wires::Proxy;
use mqtt_testing::wires::terminator::{End, through};

const TARGET: &str = "wasm32-unknown-unknown";
const OWN: &str = env!("CARGO_MANIFEST_DIR");
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.npm/node_modules");

/// Builds an example for the browser. Returns the folder of its two files.
fn built(name: &str) -> PathBuf {
    let manifest = format!("{OWN}/Cargo.toml");
    let own = std::env::current_exe().unwrap();
    // The test program is in TARGET_DIRECTORY/PROFILE/deps.
    let folder = own.ancestors().nth(3).unwrap().to_owned();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "--manifest-path", &manifest])
        .args(["--target", TARGET, "--example", name, "--target-dir"])
        .arg(&folder)
        .status();
    assert!(status.unwrap().success(), "the example cannot be built");
    let program = folder.join(TARGET).join("debug/examples");
    let out = std::env::temp_dir().join(format!("mqtt-{name}-{}", std::process::id()));
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    bindgen
        .input_path(program.join(name).with_extension("wasm"))
        .no_modules(true)
        .unwrap();
    bindgen.generate(&out).unwrap();
    out
}

/// The path of Chromium, and a folder with the program of a page.
struct Browser {
    chromium: String,
    folder: PathBuf,
}

impl Browser {
    /// Runs a script of this folder with node, and removes the program. The first arguments of the script are the modules, Chromium, a
    /// page of the examples and the folder of its program.
    fn run(self, script: &str, page: &str, more: &[&str]) -> Ended {
        let Self { chromium, folder } = self;
        let script = format!("{OWN}/tests/{script}");
        let page = format!("{OWN}/examples/{page}");
        let words = [&script, MODULES, &chromium, &page, folder.to_str().unwrap()];
        let ended = run("node", &[&words, more].concat(), "");
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        fs::remove_dir_all(&folder).unwrap();
        ended
    }
}

/// A user types wrong and right passwords, strange topics and payloads, 1 MiB, uses the keyboard and a narrow window, and the broker
/// is gone for a while.
#[test]
fn a_page_for_users_withstands_what_they_do() {
    let Some(chromium) = chromium() else {
        return;
    };
    let folder = built("web_client");
    let browser = Browser { chromium, folder };
    let broker = HostedBroker::start(Some("right"));
    let options = mqtt_web::Options::new("127.0.0.1", broker.port);
    let (options, _) = through(options, mqtt_web::Scheme::Ws, End::Clean);
    let port = options.port.to_string();
    let ended = browser.run("client.js", "client.html", &[&port]);
    shows(&ended, &["done\n"]);
}

#[test]
fn a_page_publishes_hears_and_reconnects() {
    let Some(chromium) = chromium() else {
        return;
    };
    let folder = built("web_echo");
    let browser = Browser { chromium, folder };
    let broker = HostedBroker::start(None);
    let options = mqtt_web::Options::new("127.0.0.1", broker.port);
    let (options, _) = through(options, mqtt_web::Scheme::Ws, End::Clean);
    // The limits allow the handshakes and a few exchanges, so that the proxy cuts connections.
    let proxy = Proxy::start(options.port, 1_500, 6_000, 3);
    let url = |port: u16, rounds: u32| format!("ws://localhost:{port}/mqtt,{rounds}");
    let urls = [url(options.port, 3), url(proxy.port, 200)];
    let urls = urls.each_ref().map(String::as_str);
    let ended = browser.run("echo.js", "page.html", &urls);
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
