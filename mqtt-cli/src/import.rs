//! `mqtt broker --import`: translates a configuration file of Mosquitto to the TOML of `mqtt broker`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use listening::Listening;

mod listening;
#[cfg(test)]
mod tests;

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

/// Limits that are those of one listener in Mosquitto, and of the whole broker here.
const OF_ONE_LISTENER: [&str; 3] = ["max_connections", "max_qos", "max_topic_alias"];

/// Keys that say who may connect and what a client may do. A broker without one of them may be more open than Mosquitto was.
const PROTECTING: [&str; 18] = [
    ACL_FILE,
    "allow_anonymous",
    "auth_plugin",
    "bind_interface",
    "capath",
    "clientid_prefixes",
    "crlfile",
    "global_plugin",
    "include_dir",
    "mount_point",
    "password_file",
    "plugin",
    "psk_file",
    "psk_hint",
    "require_certificate",
    "use_identity_as_username",
    "use_subject_as_username",
    "use_username_as_clientid",
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

/// A configuration file of Mosquitto as settings of `mqtt broker`.
#[derive(Debug)]
pub(crate) struct Translation {
    /// The settings. Lines without a counterpart are comments at the end.
    pub(crate) toml: String,
    /// Those of these lines that protect the broker, with their numbers.
    pub(crate) protecting: Vec<(usize, String)>,
}

/// Translates the text of a configuration file.
pub(crate) fn import(text: &str) -> Translation {
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
        } else if listening::may_be_dropped(key) {
            imported.last_listener().lines.push(numbered);
        }
    }
    imported.finish()
}

fn protects((_, line): &(usize, String)) -> bool {
    let key = line.split_whitespace().next();
    key.is_some_and(|key| PROTECTING.contains(&key))
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
                let number = number.saturating_mul(unit).to_string();
                let values = match OF_ONE_LISTENER.contains(&key) {
                    true => &mut self.last_listener().limits,
                    false => &mut self.values,
                };
                values.insert(ours, number);
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

    fn finish(mut self) -> Translation {
        if self.is_persistent {
            // Without a folder Mosquitto takes the present one.
            let folder = self.folder.as_deref().unwrap_or(".");
            self.values.insert("store", quoted(folder));
        }
        if let Some((_, level)) = self.level.and_then(|level| LEVELS.get(level)) {
            self.values.insert("log", quoted(level));
        }
        self.finish_listeners();
        self.unsupported.sort_unstable();
        Translation {
            toml: self.print(),
            protecting: self.unsupported.into_iter().filter(protects).collect(),
        }
    }

    /// Adds the default listener, if Mosquitto opens it, and completes all of them.
    fn finish_listeners(&mut self) {
        let is_default_alone = self.listeners.is_empty();
        let has_address = self.port.is_some() || self.address.is_some();
        if has_address {
            let port = self.port.as_deref().unwrap_or("1883");
            let address = self.address.as_deref().unwrap_or(EVERYWHERE);
            self.default.place = joined(address, port);
        } else if is_default_alone && self.default.is_websocket {
            self.default.place = LOCAL.to_owned();
        } else if !is_default_alone && self.default.has_settings() {
            self.default.place = joined(EVERYWHERE, "1883");
        }
        // Otherwise Mosquitto does not open the default listener, and what is said of it is of no other.
        if is_default_alone || !self.default.place.is_empty() {
            self.listeners.insert(0, std::mem::take(&mut self.default));
        }
        self.refuse_anonymous();
        for listener in &mut self.listeners {
            self.unsupported.append(&mut listener.complete());
        }
        self.take_limits();
        // The broker opens this listener without an address.
        if let Some(default) = self.listeners.pop_if(|it| it.place.is_empty()) {
            self.values.extend(default.values);
        }
    }

    /// Says that clients without a user name are refused where no line says something else and Mosquitto has a listener.
    fn refuse_anonymous(&mut self) {
        let decides = |values: &BTreeMap<_, _>| {
            values.contains_key("allow-anonymous") || values.contains_key("user-file")
        };
        let refused = ("allow-anonymous", "false".to_owned());
        if self.per_listener {
            let undecided = self.listeners.iter_mut().filter(|it| !decides(&it.values));
            let opened = undecided.filter(|it| !it.place.is_empty());
            opened.for_each(|it| it.values.extend([refused.clone()]));
        } else if self.listeners.iter().any(|it| !it.place.is_empty()) && !decides(&self.values) {
            self.values.extend([refused]);
        }
    }

    /// Takes the limits that are of one listener in Mosquitto. Those that differ between listeners have no counterpart; the number of
    /// connections has none beside another listener.
    fn take_limits(&mut self) {
        for key in OF_ONE_LISTENER {
            let Some((_, ours)) = NUMBERS.iter().find(|(theirs, _)| *theirs == key) else {
                continue;
            };
            let mut all = self.listeners.iter().map(|it| it.limits.get(ours));
            let first = all.next().flatten();
            let is_single = self.listeners.len() == 1;
            if is_single || (key != "max_connections" && all.all(|limit| limit == first)) {
                self.values
                    .extend(first.map(|limit| (*ours, limit.clone())));
                continue;
            }
            for listener in &mut self.listeners {
                self.unsupported.extend(listener.lines_of(&[key]));
            }
        }
    }

    fn print(&self) -> String {
        let mut text = String::new();
        let (plain, own): (Vec<_>, Vec<_>) =
            self.listeners.iter().partition(|it| it.values.is_empty());
        if !plain.is_empty() {
            let binds: Vec<String> = plain.into_iter().map(Listening::bind).collect();
            let _ = writeln!(text, "bind = [{}]", binds.join(", "));
        }
        for (key, value) in &self.values {
            let _ = writeln!(text, "{key} = {value}");
        }
        for listener in own {
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
