//! Runs `mqtt broker` for a test.

use mqtt_testing::process::{Ended, Process, run};

pub(crate) const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// Returns the digits at the beginning of a text.
pub(crate) fn digits(text: &str) -> String {
    text.chars().take_while(char::is_ascii_digit).collect()
}

/// A broker on a free port of this machine; it ends when this is dropped.
pub(crate) struct Broker {
    pub(crate) process: Process,
    pub(crate) port: String,
}

impl Broker {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut all = vec!["broker", "--bind", "127.0.0.1:0"];
        all.extend(arguments);
        let process = Process::start(MQTT, &all);
        let before = match arguments.contains(&"json") {
            true => r#""address":"127.0.0.1:"#,
            false => "address=127.0.0.1:",
        };
        let port = process.wait_stderr_after(before);
        let port = digits(&port);
        Self { process, port }
    }

    /// Runs one of the other commands with this broker.
    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Ended {
        let mut all = vec![command, "-p", &self.port];
        all.extend(arguments);
        run(MQTT, &all, "")
    }

    pub(crate) fn spawn(&self, command: &str, arguments: &[&str]) -> Process {
        let mut all = vec![command, "-p", &self.port];
        all.extend(arguments);
        Process::start(MQTT, &all)
    }
}

/// The system's table of descriptors has room for all connections from the start. A test in this process would find a table that has
/// grown for other tests.
#[cfg(target_os = "linux")]
#[test]
fn the_table_of_descriptors_has_room_for_all_connections() {
    let broker = Broker::start(&["--connections", "900"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.process.id())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    let size: u32 = size.unwrap().trim().parse().unwrap();
    assert!(size >= 900, "{size}");
}
