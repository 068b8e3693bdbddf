//! The brokers, each as a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running broker.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const BROKERS: [&str; 4] = ["mqtt broker", "Mosquitto", "rumqttd", "relay"];

impl Broker {
    pub(crate) fn start(name: &str) -> Self {
        let own = std::env::current_exe().expect("a path");
        let beside = |name: &str| own.with_file_name(name);
        let address = free_address();
        let mut command = match name {
            "mqtt broker" => {
                let path = std::env::var("MQTT").expect("MQTT names the program mqtt");
                let mut command = Command::new(path);
                let bind = address.to_string();
                command.args([
                    "broker",
                    "--log",
                    "error",
                    "--connections",
                    "20000",
                    "--bind",
                    &bind,
                ]);
                command
            }
            "Mosquitto" => {
                let path = std::env::temp_dir().join(format!("mosquitto-{}.conf", address.port()));
                let text = format!(
                    "listener {} 127.0.0.1\nallow_anonymous true\nlog_type error\nmax_queued_messages 0\n\
                     max_inflight_messages 200\nset_tcp_nodelay true\npersistence false\n",
                    address.port()
                );
                std::fs::write(&path, text).expect("a temporary folder");
                let mut command = Command::new("mosquitto");
                command.arg("-c").arg(path);
                command
            }
            "rumqttd" => {
                let mut command = Command::new(beside("rumqttd_peer"));
                command.arg(address.to_string());
                command
            }
            _ => {
                let mut command = Command::new(&own);
                command.args(["--relay", &address.to_string()]);
                command
            }
        };
        let quiet = || Stdio::null();
        command.stdin(quiet()).stdout(quiet()).stderr(quiet());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }

    /// Processor time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let nanos = tasks.into_iter().flatten().flatten().map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let first = text.split_whitespace().next().unwrap_or_default();
            first.parse::<u64>().unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Bytes of memory that are there.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    }
}

pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
