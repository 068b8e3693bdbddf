//! Tests the reports of `mqtt broker` to supervisors.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use mqtt_testing::process::{run, signal};

use crate::broker::{Broker, MQTT};
use crate::commands::folder;
use crate::log::Unread;

/// Returns the whole answer to a request.
fn ask(port: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    // In one piece, which `write!` would not send.
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn health_and_metrics_are_served_over_http() {
    let broker = Broker::start(&["--health", "127.0.0.1:0"]);
    let port = broker.process.wait_stderr_after("health=127.0.0.1:");
    let ended = broker.run("pub", &["-t", "a", "-m", "hello", "-r", "-q", "1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let health = ask(&port, "GET /health");
    assert!(
        health.starts_with("HTTP/1.1 200 OK\r\n") && health.ends_with("\r\nok\n"),
        "{health}"
    );
    let metrics = ask(&port, "GET /metrics");
    for line in [
        "content-type: text/plain; version=0.0.4\r\n",
        "# TYPE mqtt_broker_publish_received_total counter\nmqtt_broker_publish_received_total 1\n",
        "# TYPE mqtt_broker_clients_connected gauge\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(ask(&port, "GET /").starts_with("HTTP/1.1 404"));
    assert!(ask(&port, "POST /health").starts_with("HTTP/1.1 405"));
    // Clients that connect and send nothing do not block others.
    let silent: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(format!("127.0.0.1:{port}")))
        .collect();
    assert!(ask(&port, "GET /health").starts_with("HTTP/1.1 200"));
    drop(silent);
    let everywhere = run(
        MQTT,
        &["broker", "--bind", "127.0.0.1:0", "--health", "0.0.0.0:0"],
        "",
    );
    assert_eq!(everywhere.code, Some(1));
    assert!(
        everywhere.stderr.contains("this machine only"),
        "{}",
        everywhere.stderr
    );
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_is_notified_of_start_and_stop() {
    let path = folder("notify").join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let broker = Command::new(MQTT)
        .args(["broker", "--bind", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn();
    let mut broker = Unread(broker.unwrap());
    let hear = || {
        let mut state = [0; 64];
        let n = socket.recv(&mut state).unwrap();
        String::from_utf8_lossy(&state[..n]).into_owned()
    };
    assert_eq!(hear(), "READY=1\nSTATUS=serves");
    signal(broker.0.id(), "TERM");
    assert_eq!(hear(), "STOPPING=1");
    assert!(broker.0.wait().unwrap().success());
}
