//! A device with TLS 1.3 by `embedded-tls` and `mqtt broker`. `firmware/src/bin/tls.rs` has its task.

use std::fs;

use mqtt_testing::peers::{Authority, Subject};
use mqtt_testing::process::{Ended, Process};

use crate::{Board, MQTT, build, emulate};

const BOARD: Board = Board {
    name: "mps2-an386",
    target: "thumbv7em-none-eabihf",
};
/// The most bytes of stack that the handshake may take.
const STACK: u32 = 40 << 10;

/// A device that trusts `trusted` connects to a broker with a certificate of `authority`.
fn run(authority: &Authority, trusted: &Authority, name: &str) -> Ended {
    let name = format!("mqtt-firmware-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().expect("a path of text").to_owned()
    };
    let issued = authority.issue(&Subject::host("localhost"));
    let cert = write("cert", issued.certificate.as_bytes());
    let key = write("key", issued.key.as_bytes());
    let bind = "--bind=mqtts://127.0.0.1:0";
    let broker = Process::start(MQTT, &["broker", bind, "--cert", &cert, "--key", &key]);
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    let image = build(&BOARD, "5", "tls");
    let (path, len) = (write("ca", trusted.der()), trusted.der().len());
    let arguments = format!(",arg=tls,arg={path},arg={len}");
    let serial = format!("tcp:127.0.0.1:{port}");
    let ended = emulate(&BOARD, &image, &arguments, &["-serial", &serial]).end();
    let _ = fs::remove_dir_all(&folder);
    ended
}

#[test]
fn a_device_publishes_over_tls() {
    let authority = Authority::new("an authority");
    let ended = run(&authority, &authority, "tls");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let stack = ended
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("stack="));
    let stack: u32 = stack.expect("it is told").parse().unwrap();
    println!("{stack} bytes of stack");
    assert!(stack <= STACK, "{stack}");
}

#[test]
fn a_device_refuses_a_certificate_of_another_authority() {
    let (authority, other) = (
        Authority::new("an authority"),
        Authority::new("another one"),
    );
    let ended = run(&authority, &other, "tls-other");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("TLS failed"), "{}", ended.stderr);
}
