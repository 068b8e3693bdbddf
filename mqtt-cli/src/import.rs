//! `mqtt broker --import`: what a configuration file of Mosquitto says, in the TOML of `mqtt broker`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What stands for all addresses.
const EVERYWHERE: &str = "0.0.0.0";

/// Mosquitto's keys with a number, and ours.
const NUMBERS: [(&str, &str); 10] = [
    ("max_keepalive", "keep-alive-maximum"),
    ("max_packet_size", "packet-size"),
    ("message_size_limit", "payload-size"),
    ("max_inflight_messages", "window"),
    ("max_queued_messages", "queued-messages"),
    ("max_queued_bytes", "queued-bytes"),
    ("max_topic_alias", "topic-alias-maximum"),
    ("max_qos", "maximum-qos"),
    ("max_connections", "connections"),
    ("sys_interval", "statistics-interval"),
];

/// Those with yes or no.
const SWITCHES: [(&str, &str); 6] = [
    ("allow_anonymous", "allow-anonymous"),
    ("allow_zero_length_clientid", "empty-client-ids"),
    ("queue_qos0_messages", "queue-qos0"),
    ("retain_available", "retain-available"),
    ("check_retain_source", "check-retained-source"),
    ("upgrade_outgoing_qos", "raise-qos"),
];

/// Those that name a file.
const FILES: [(&str, &str); 2] = [("password_file", "user-file"), ("acl_file", "acl-file")];

/// Keys whose meaning is how this broker works anyway, with these values only if some are given.
const AS_IT_IS: [(&str, &[&str]); 6] = [
    ("per_listener_settings", &["false"]),
    ("set_tcp_nodelay", &[]),
    ("protocol", &["mqtt"]),
    ("persistence", &["false"]),
    ("log_dest", &["stderr"]),
    ("log_timestamp", &["true"]),
];

/// What was read so far.
#[derive(Debug, Default)]
struct Imported {
    /// Ours, and the value as TOML has it.
    values: BTreeMap<&'static str, String>,
    binds: Vec<String>,
    /// The address of the default listener, if the file has one.
    address: Option<String>,
    port: Option<String>,
    /// Lines that cannot be said, with their numbers.
    unsaid: Vec<(usize, String)>,
}

/// Returns the settings as TOML. What has no counterpart stands at the end, in comments.
pub(crate) fn import(text: &str) -> String {
    let mut imported = Imported::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if !imported.take(key, value.trim()) {
            imported.unsaid.push((at + 1, line.to_owned()));
        }
    }
    imported.print()
}

impl Imported {
    /// Whether the line can be said.
    fn take(&mut self, key: &str, value: &str) -> bool {
        if let Some((_, ours)) = NUMBERS.iter().find(|(theirs, _)| *theirs == key) {
            return self.number(key, ours, 1, value);
        }
        if let Some((_, ours)) = SWITCHES.iter().find(|(theirs, _)| *theirs == key) {
            let is_switch = matches!(value, "true" | "false");
            if is_switch {
                self.values.insert(ours, value.to_owned());
            }
            return is_switch;
        }
        if let Some((_, ours)) = FILES.iter().find(|(theirs, _)| *theirs == key) {
            self.values.insert(ours, quoted(value));
            return !value.is_empty();
        }
        if let Some((_, values)) = AS_IT_IS.iter().find(|(theirs, _)| *theirs == key) {
            return values.is_empty() || values.contains(&value);
        }
        match key {
            "listener" => self.listener(value),
            "port" => set(&mut self.port, value),
            "bind_address" => set(&mut self.address, value),
            "persistent_client_expiration" => self.expiry(value),
            "log_type" if matches!(value, "all" | "debug") => {
                self.values.insert("log", quoted("debug"));
                true
            }
            "log_type" => matches!(value, "error" | "warning" | "notice" | "information"),
            _ => false,
        }
    }

    /// 0 and -1 mean no limit to Mosquitto: then nothing is said, and the default of this broker holds.
    fn number(&mut self, key: &str, ours: &'static str, unit: u64, value: &str) -> bool {
        let zero_counts = matches!(key, "max_topic_alias" | "max_qos" | "sys_interval");
        match value.parse::<u64>() {
            Ok(0) if !zero_counts => false,
            Ok(number) => {
                let number = number.saturating_mul(unit);
                self.values.insert(ours, number.to_string());
                true
            }
            Err(_) => false,
        }
    }

    fn listener(&mut self, value: &str) -> bool {
        let mut words = value.split_whitespace();
        match (words.next().map(str::parse::<u16>), words.next()) {
            (Some(Ok(0)), Some(path)) => self.binds.push(format!("unix://{path}")),
            (Some(Ok(port)), address) => {
                let address = address.unwrap_or(EVERYWHERE);
                self.binds.push(joined(address, &port.to_string()));
            }
            _ => return false,
        }
        true
    }

    /// A number with the letter of its unit.
    fn expiry(&mut self, value: &str) -> bool {
        let mut letters = value.chars();
        let unit = match letters.next_back() {
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            Some('m') => 2_592_000,
            Some('y') => 31_536_000,
            _ => return false,
        };
        self.number(value, "session-expiry-maximum", unit, letters.as_str())
    }

    fn print(mut self) -> String {
        if self.port.is_some() || self.address.is_some() {
            let port = self.port.as_deref().unwrap_or("1883");
            let address = self.address.as_deref().unwrap_or(EVERYWHERE);
            self.binds.insert(0, joined(address, port));
        }
        let mut text = String::new();
        if !self.binds.is_empty() {
            let binds: Vec<String> = self.binds.iter().map(|bind| quoted(bind)).collect();
            let _ = writeln!(text, "bind = [{}]", binds.join(", "));
        }
        for (key, value) in &self.values {
            let _ = writeln!(text, "{key} = {value}");
        }
        if !self.unsaid.is_empty() {
            text.push_str("\n# What cannot be said:\n");
        }
        for (at, line) in &self.unsaid {
            let _ = writeln!(text, "# line {at}: {}", line.escape_debug());
        }
        text
    }
}

fn set(place: &mut Option<String>, value: &str) -> bool {
    *place = Some(value.to_owned());
    !value.is_empty()
}

/// An address of IPv6 stands in brackets.
fn joined(address: &str, port: &str) -> String {
    if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = "
# A comment
listener 1883 127.0.0.1
listener 1884 ::1
listener 0 /run/mqtt.socket
allow_anonymous true
check_retain_source false
upgrade_outgoing_qos true
password_file /etc/mosquitto/the \"passwords\"
acl_file /etc/mosquitto/acl
max_packet_size 100000
max_queued_messages 0
persistent_client_expiration 2d
persistence true
persistence_location /var/lib/mosquitto/
set_tcp_nodelay true
log_type all
";

    const OURS: &str = r#"bind = ["127.0.0.1:1883", "[::1]:1884", "unix:///run/mqtt.socket"]
acl-file = "/etc/mosquitto/acl"
allow-anonymous = true
check-retained-source = false
log = "debug"
packet-size = 100000
raise-qos = true
session-expiry-maximum = 172800
user-file = "/etc/mosquitto/the \"passwords\""

# What cannot be said:
# line 12: max_queued_messages 0
# line 14: persistence true
# line 15: persistence_location /var/lib/mosquitto/
"#;

    #[test]
    fn what_can_be_said_is_said_and_the_rest_is_named() {
        assert_eq!(import(THEIRS), OURS);
        assert_eq!(import("port 1885\n"), "bind = [\"0.0.0.0:1885\"]\n");
        assert_eq!(import("# nothing\n\n"), "");
    }
}
