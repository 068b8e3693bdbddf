//! Addresses of `mqtt broker` that are sockets of systemd, or that say who connects there.

use mqtt_testing::process::{Process, run};

use crate::broker::{MQTT, digits};
use crate::clients::PYTHON;
use crate::commands::{folder, is_well};

/// Starts a program with a socket as systemd passes it: as the first descriptor behind standard error.
const ACTIVATE: &str = "
import os, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
";
const ADDRESS: &str = "address=127.0.0.1:";

fn activated(bind: &str) -> Process {
    let words = ["-c", ACTIVATE, MQTT, "broker", "--bind", bind];
    Process::start(PYTHON, &words)
}

fn publish(port: &str, more: &[&str]) -> Option<i32> {
    let words = ["pub", "-p", port, "-q", "1", "-t", "a", "-m", "x"];
    run(MQTT, &[&words[..], more].concat(), "").code
}

#[test]
fn a_socket_of_systemd_is_used() {
    let broker = activated("systemd:0");
    let port = digits(&broker.wait_stderr_after(ADDRESS));
    assert_eq!(publish(&port, &[]), Some(0));
    let mut without = activated("mqtt://systemd:1");
    without.wait_stderr("cannot bind mqtt://systemd:1");
    without.wait();
    // No process passes any here.
    let ended = run(MQTT, &["broker", "--bind", "systemd:0"], "");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let is_told = ended.stderr.contains("no such socket was passed");
    assert!(is_told, "{}", ended.stderr);
}

#[test]
fn an_address_can_have_its_own_users() {
    let folder = folder("addresses");
    let users = folder.join("users");
    let users = users.to_str().unwrap();
    is_well(&run(MQTT, &["passwd", users, "pump"], "secret\n"));
    let closed = format!("127.0.0.1:0?user-file={users}");
    let words = ["broker", "--bind", &closed, "--bind", "127.0.0.1:0"];
    let broker = Process::start(MQTT, &words);
    let logged = broker.wait_stderr_count(ADDRESS, 2);
    let ports: Vec<_> = logged.split(ADDRESS).skip(1).map(digits).collect();
    let known = ["-u", "pump", "-P", "secret"];
    assert_eq!(publish(&ports[0], &[]), Some(5));
    assert_eq!(publish(&ports[0], &known), Some(0));
    assert_eq!(publish(&ports[1], &[]), Some(0));
    let ended = run(MQTT, &["broker", "--bind", "127.0.0.1:0?users=x"], "");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let is_told = ended.stderr.contains("user-file=FILE");
    assert!(is_told, "{}", ended.stderr);
    let _ = std::fs::remove_dir_all(folder);
}
