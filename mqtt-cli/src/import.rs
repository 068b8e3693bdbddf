//! `mqtt broker --import`: translates a configuration file of Mosquitto to the TOML of `mqtt broker`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The address that stands for all addresses.
const EVERYWHERE: &str = "0.0.0.0";
/// Where Mosquitto listens if its file has no listener.
const LOCAL: &str = "127.0.0.1:1883";

/// Mosquitto's keys with a number, and ours.
const NUMBERS: [(&str, &str); 11] = [
    ("max_keepalive", "keep-alive-maximum"),
    ("max_packet_size", "packet-size"),
    ("message_size_limit", "payload-size"),
    ("max_inflight_messages", "window"),
    ("max_inflight_bytes", "in-flight-bytes"),
    ("max_queued_messages", "queued-messages"),
    ("max_queued_bytes", "queued-bytes"),
    ("max_topic_alias", "topic-alias-maximum"),
    ("max_qos", "maximum-qos"),
    ("max_connections", "connections"),
    ("sys_interval", "statistics-interval"),
];

/// The settings with yes or no.
const SWITCHES: [(&str, &str); 5] = [
    ("allow_zero_length_clientid", "empty-client-ids"),
    ("queue_qos0_messages", "queue-qos0"),
    ("retain_available", "retain-available"),
    ("check_retain_source", "check-retained-source"),
    ("upgrade_outgoing_qos", "raise-qos"),
];

/// The file of rules, which is one for all listeners here.
const ACL_FILE: &str = "acl_file";

/// Keys of one listener with a file, and ours, which have lists.
const LISTENER_FILES: [(&str, &str); 3] =
    [("certfile", "cert"), ("keyfile", "key"), ("crlfile", "crl")];

/// Our settings that the broker refuses without another one, each with the keys of Mosquitto for it, and the other one. A setting comes
/// behind the one that it needs.
const NEEDS: [(&str, &[&str], &str); 4] = [
    ("key", &["keyfile"], "cert"),
    ("client-ca", &["cafile", "require_certificate"], "cert"),
    ("crl", &["crlfile"], "client-ca"),
    (
        "identity-as-username",
        &["use_identity_as_username", "use_subject_as_username"],
        "client-ca",
    ),
];

/// Keys whose meaning is how this broker works anyway, with these values only if some are given.
const ALWAYS: [(&str, &[&str]); 4] = [
    ("set_tcp_nodelay", &["true"]),
    ("connection_messages", &["true"]),
    ("log_dest", &["stderr"]),
    ("log_timestamp", &["true"]),
];

/// The kinds of lines of the log, and our levels, each with those before it.
const LEVELS: [(&str, &str); 6] = [
    ("error", "error"),
    ("warning", "warn"),
    ("notice", "info"),
    ("information", "info"),
    ("debug", "debug"),
    ("all", "debug"),
];

/// A listener that was read so far.
#[derive(Debug, Default)]
struct Listening {
    /// Host and port, or the path of a Unix socket.
    place: String,
    is_unix: bool,
    is_websocket: bool,
    /// The file of the CA of clients, and whether they need a certificate.
    client_ca: Option<String>,
    asks_certificate: bool,
    /// The settings of this listener alone: the key of `mqtt broker`, and the value in TOML.
    values: BTreeMap<&'static str, String>,
    /// The lines of settings that need another one, with their numbers.
    lines: Vec<(usize, String)>,
}

/// The settings that were read so far.
#[derive(Debug, Default)]
struct Imported {
    /// The keys of `mqtt broker` and their values in TOML.
    values: BTreeMap<&'static str, String>,
    listeners: Vec<Listening>,
    /// The settings of the default listener, from lines before the first `listener`.
    default: Listening,
    address: Option<String>,
    port: Option<String>,
    /// Whether there is a store, and its folder.
    is_persistent: bool,
    folder: Option<String>,
    /// Whether each listener has its own settings of who may connect.
    per_listener: bool,
    /// The most detailed kind of line of the log, as an index into [`LEVELS`].
    level: Option<usize>,
    /// Lines without a counterpart, with their numbers.
    unsupported: Vec<(usize, String)>,
}

/// Returns the settings as TOML. Lines without a counterpart are comments at the end.
pub(crate) fn import(text: &str) -> String {
    let mut imported = Imported::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let numbered = (at + 1, line.to_owned());
        if !imported.take(key, value.trim()) {
            imported.unsupported.push(numbered);
        } else if NEEDS.iter().any(|(_, theirs, _)| theirs.contains(&key)) {
            imported.last_listener().lines.push(numbered);
        }
    }
    imported.print()
}

impl Imported {
    /// Adds a line. Returns whether it has a counterpart.
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
        if key == ACL_FILE {
            // Rules of one listener alone cannot be said.
            let is_said = !value.is_empty() && !self.per_listener;
            if is_said {
                self.values.insert("acl-file", quoted(value));
            }
            return is_said;
        }
        if let Some((_, values)) = ALWAYS.iter().find(|(theirs, _)| *theirs == key) {
            return values.is_empty() || values.contains(&value);
        }
        match key {
            "listener" => self.listener(value),
            "per_listener_settings" => {
                self.per_listener = value == "true";
                matches!(value, "true" | "false")
            }
            "allow_anonymous" if matches!(value, "true" | "false") => {
                self.who_connects("allow-anonymous", value.to_owned())
            }
            "password_file" if !value.is_empty() => self.who_connects("user-file", quoted(value)),
            "port" => set(&mut self.port, value),
            "bind_address" => set(&mut self.address, value),
            "persistence" => {
                self.is_persistent = value == "true";
                matches!(value, "true" | "false")
            }
            "persistence_location" => set(&mut self.folder, value),
            "persistent_client_expiration" => self.expiry(value),
            "log_type" => {
                let level = LEVELS.iter().position(|(theirs, _)| *theirs == value);
                self.level = self.level.max(level);
                level.is_some()
            }
            _ => self.last_listener().take(key, value),
        }
    }

    fn last_listener(&mut self) -> &mut Listening {
        self.listeners.last_mut().unwrap_or(&mut self.default)
    }

    /// Sets who may connect: for all listeners, or for the last one.
    fn who_connects(&mut self, ours: &'static str, value: String) -> bool {
        let values = match self.per_listener {
            true => &mut self.last_listener().values,
            false => &mut self.values,
        };
        values.insert(ours, value);
        true
    }

    /// 0 and -1 mean no limit to Mosquitto: then nothing is said, and the default of this broker holds.
    fn number(&mut self, key: &str, ours: &'static str, unit: u64, value: &str) -> bool {
        let zero_counts = matches!(key, "max_topic_alias" | "max_qos" | "sys_interval");
        match value.parse::<u64>() {
            Ok(0) if !zero_counts => false,
            Ok(3..) if key == "max_qos" => false,
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
        let (place, is_unix) = match (words.next().map(str::parse::<u16>), words.next()) {
            (Some(Ok(0)), Some(path)) => (path.to_owned(), true),
            (Some(Ok(port)), address) => {
                let address = address.unwrap_or(EVERYWHERE);
                (joined(address, &port.to_string()), false)
            }
            _ => return false,
        };
        self.listeners.push(Listening {
            place,
            is_unix,
            ..Listening::default()
        });
        words.next().is_none()
    }

    /// Adds a time with the letter of its unit.
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
        if self.is_persistent {
            // Without a folder Mosquitto takes the present one.
            let folder = self.folder.as_deref().unwrap_or(".");
            self.values.insert("store", quoted(folder));
        }
        if self.port.is_some() || self.address.is_some() {
            let port = self.port.as_deref().unwrap_or("1883");
            let address = self.address.as_deref().unwrap_or(EVERYWHERE);
            self.default.place = joined(address, port);
            self.listeners.insert(0, std::mem::take(&mut self.default));
        } else if self.listeners.is_empty() && self.default.is_websocket {
            self.default.place = LOCAL.to_owned();
            self.listeners.push(std::mem::take(&mut self.default));
        } else if self.listeners.is_empty() {
            self.unsupported.append(&mut self.default.complete());
            self.values.append(&mut self.default.values);
        }
        for listener in &mut self.listeners {
            self.unsupported.append(&mut listener.complete());
        }
        self.unsupported.sort_unstable();
        // Otherwise Mosquitto does not open the default listener either, and what is said of it is of no other.
        if let Some((_, level)) = self.level.and_then(|level| LEVELS.get(level)) {
            self.values.insert("log", quoted(level));
        }
        let mut text = String::new();
        let (plain, own): (Vec<_>, Vec<_>) = std::mem::take(&mut self.listeners)
            .into_iter()
            .partition(|it| it.values.is_empty());
        if !plain.is_empty() {
            let binds: Vec<String> = plain.iter().map(Listening::bind).collect();
            let _ = writeln!(text, "bind = [{}]", binds.join(", "));
        }
        for (key, value) in &self.values {
            let _ = writeln!(text, "{key} = {value}");
        }
        for listener in &own {
            let _ = writeln!(text, "\n[[listener]]\nbind = [{}]", listener.bind());
            for (key, value) in &listener.values {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        if !self.unsupported.is_empty() {
            text.push_str("\n# What cannot be said:\n");
        }
        for (at, line) in &self.unsupported {
            let _ = writeln!(text, "# line {at}: {}", line.escape_debug());
        }
        text
    }
}

impl Listening {
    /// Takes a key of one listener. Returns whether it can be said.
    fn take(&mut self, key: &str, value: &str) -> bool {
        if let Some((_, ours)) = LISTENER_FILES.iter().find(|(theirs, _)| *theirs == key) {
            self.values.insert(ours, format!("[{}]", quoted(value)));
            return !value.is_empty();
        }
        let is_switch = matches!(value, "true" | "false");
        match key {
            "protocol" => {
                self.is_websocket = value == "websockets";
                return matches!(value, "mqtt" | "websockets");
            }
            "cafile" => self.client_ca = Some(quoted(value)),
            "require_certificate" if is_switch => self.asks_certificate = value == "true",
            "use_identity_as_username" | "use_subject_as_username" if is_switch => {
                let part = match key {
                    "use_identity_as_username" => "common-name",
                    _ => "subject",
                };
                if value == "true" {
                    self.values.insert("identity-as-username", quoted(part));
                }
            }
            "tls_version" => match value.strip_prefix("tlsv") {
                Some(version @ ("1.2" | "1.3")) => {
                    self.values.insert("tls-minimum", quoted(version));
                }
                _ => return false,
            },
            _ => return false,
        }
        true
    }

    /// Returns its address with its scheme, as TOML has it.
    fn bind(&self) -> String {
        let scheme = match (
            self.is_unix,
            self.values.contains_key("cert"),
            self.is_websocket,
        ) {
            (true, ..) => "unix://",
            (_, true, false) => "mqtts://",
            (_, true, true) => "wss://",
            (_, false, true) => "ws://",
            (_, false, false) => "",
        };
        quoted(&format!("{scheme}{}", self.place))
    }

    /// Adds the CA if clients need a certificate, and drops what the broker would refuse because another setting is missing. Returns
    /// the lines of it.
    fn complete(&mut self) -> Vec<(usize, String)> {
        if let Some(ca) = self.client_ca.take().filter(|_| self.asks_certificate) {
            self.values.insert("client-ca", ca);
        }
        let mut dropped = Vec::new();
        for (ours, theirs, needed) in NEEDS {
            if !self.values.contains_key(needed) && self.values.remove(ours).is_some() {
                let is_of = |(_, line): &mut (usize, String)| {
                    let key = line.split_whitespace().next();
                    key.is_some_and(|key| theirs.contains(&key))
                };
                dropped.extend(self.lines.extract_if(.., is_of));
            }
        }
        dropped
    }
}

fn set(place: &mut Option<String>, value: &str) -> bool {
    *place = Some(value.to_owned());
    !value.is_empty()
}

/// Joins an address and a port. An IPv6 address is in brackets.
fn joined(address: &str, port: &str) -> String {
    if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Returns a string in TOML.
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
store = "/var/lib/mosquitto/"
user-file = "/etc/mosquitto/the \"passwords\""

# What cannot be said:
# line 12: max_queued_messages 0
"#;

    #[test]
    fn known_keys_are_converted_and_others_are_listed() {
        assert_eq!(import(THEIRS), OURS);
        assert_eq!(import("port 1885\n"), "bind = [\"0.0.0.0:1885\"]\n");
        assert_eq!(import("# nothing\n\n"), "");
    }

    #[test]
    fn values_without_a_counterpart_are_listed() {
        for line in [
            "set_tcp_nodelay false",
            "acl_file",
            "max_qos 3",
            "log_type subscribe",
        ] {
            let listed = format!("\n# What cannot be said:\n# line 1: {line}\n");
            assert_eq!(import(line), listed);
        }
        let ours = "bind = [\"127.0.0.1:1884\"]\n\n\
                    # What cannot be said:\n# line 1: listener 1884 127.0.0.1 more\n";
        assert_eq!(import("listener 1884 127.0.0.1 more"), ours);
        let ours = "bind = [\"ws://127.0.0.1:1883\"]\n";
        assert_eq!(import("protocol websockets"), ours);
        let ours = "log = \"warn\"\n";
        assert_eq!(import("log_type error\nlog_type warning\n"), ours);
        let ours = "log = \"info\"\n";
        assert_eq!(import("log_type error\nlog_type information\n"), ours);
    }

    #[test]
    fn what_needs_a_missing_setting_is_listed() {
        let rest = "crlfile /r\nuse_identity_as_username true\n";
        let no_ca = format!("listener 8883\ncertfile /c\nkeyfile /k\ncafile /a\n{rest}");
        let ours = "\n[[listener]]\nbind = [\"mqtts://0.0.0.0:8883\"]\ncert = [\"/c\"]\nkey = [\"/k\"]\n\n\
                    # What cannot be said:\n# line 5: crlfile /r\n# line 6: use_identity_as_username true\n";
        assert_eq!(import(&no_ca), ours);
        let no_certificate = format!("keyfile /k\nrequire_certificate true\ncafile /a\n{rest}");
        let listed = "\n# What cannot be said:\n# line 1: keyfile /k\n# line 2: require_certificate true\n\
                      # line 3: cafile /a\n# line 4: crlfile /r\n# line 5: use_identity_as_username true\n";
        assert_eq!(import(&no_certificate), listed);
    }

    const THEIR_LISTENERS: &str = "
per_listener_settings true
listener 1883 127.0.0.1
allow_anonymous true
listener 8883
protocol mqtt
cafile /etc/ca.pem
certfile /etc/broker.pem
keyfile /etc/broker.key
require_certificate true
use_identity_as_username true
tls_version tlsv1.3
listener 9001
protocol websockets
password_file /etc/users
listener 9002
protocol websockets
ciphers ALL
";

    const OUR_LISTENERS: &str = r#"bind = ["ws://0.0.0.0:9002"]

[[listener]]
bind = ["127.0.0.1:1883"]
allow-anonymous = true

[[listener]]
bind = ["mqtts://0.0.0.0:8883"]
cert = ["/etc/broker.pem"]
client-ca = "/etc/ca.pem"
identity-as-username = "common-name"
key = ["/etc/broker.key"]
tls-minimum = "1.3"

[[listener]]
bind = ["ws://0.0.0.0:9001"]
user-file = "/etc/users"

# What cannot be said:
# line 18: ciphers ALL
"#;

    /// A listener with TLS does not become one without, and who may connect to one listener may not connect to others.
    #[test]
    fn settings_of_one_listener_stay_separate() {
        let ours = import(THEIR_LISTENERS);
        assert_eq!(ours, OUR_LISTENERS);
        assert!(mqtt_broker_host::Settings::parse(&ours).is_ok());
        let default = "port 8883\ncertfile c\nkeyfile k\ncafile a\n";
        let ours =
            "\n[[listener]]\nbind = [\"mqtts://0.0.0.0:8883\"]\ncert = [\"c\"]\nkey = [\"k\"]\n";
        assert_eq!(import(default), ours);
    }
}
