//! One listener of a configuration file of Mosquitto.

use std::collections::BTreeMap;

use super::{OF_ONE_LISTENER, quoted};

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

/// A listener that was read so far.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Host and port, or the path of a Unix socket.
    pub(super) place: String,
    pub(super) is_unix: bool,
    pub(super) is_websocket: bool,
    /// The file of the CA of clients, and whether they need a certificate.
    pub(super) client_ca: Option<String>,
    pub(super) asks_certificate: bool,
    /// The settings of this listener alone: the key of `mqtt broker`, and the value in TOML.
    pub(super) values: BTreeMap<&'static str, String>,
    /// Its limits, which are of the whole broker here: the key and the value.
    pub(super) limits: BTreeMap<&'static str, String>,
    /// The lines of settings that may have no counterpart in the end, with their numbers.
    pub(super) lines: Vec<(usize, String)>,
}

/// Returns whether a key can lose its counterpart because of other lines.
pub(super) fn may_be_dropped(key: &str) -> bool {
    OF_ONE_LISTENER.contains(&key) || NEEDS.iter().any(|(_, theirs, _)| theirs.contains(&key))
}

impl Listening {
    /// Takes a key of one listener. Returns whether it can be said.
    pub(super) fn take(&mut self, key: &str, value: &str) -> bool {
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

    /// Returns whether a line says how it is, beside whom it lets in without a user name: Mosquitto opens the default listener then.
    pub(super) fn has_settings(&self) -> bool {
        let mut keys = self.values.keys();
        self.is_websocket
            || self.asks_certificate
            || self.client_ca.is_some()
            || !self.limits.is_empty()
            || keys.any(|key| *key != "allow-anonymous")
    }

    /// Returns its address with its scheme, as TOML has it.
    pub(super) fn bind(&self) -> String {
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
    pub(super) fn complete(&mut self) -> Vec<(usize, String)> {
        let mut dropped = Vec::new();
        match self.client_ca.take() {
            Some(ca) if self.asks_certificate => {
                self.values.insert("client-ca", ca);
            }
            None if self.asks_certificate && self.values.contains_key("cert") => {
                // The broker refuses this setting without a CA, so that it does not let in all clients.
                self.values.insert("client-certificate", quoted("required"));
                dropped.extend(self.lines_of(&["require_certificate"]));
            }
            _ => {}
        }
        for (ours, theirs, needed) in NEEDS {
            if !self.values.contains_key(needed) && self.values.remove(ours).is_some() {
                dropped.extend(self.lines_of(theirs));
            }
        }
        if self.is_websocket {
            // Mosquitto accepts each path.
            self.values.insert("websocket-path", quoted("*"));
        }
        dropped
    }

    /// Takes the lines with one of these keys.
    pub(super) fn lines_of(&mut self, keys: &[&str]) -> Vec<(usize, String)> {
        let is_of = |(_, line): &mut (usize, String)| {
            let key = line.split_whitespace().next();
            key.is_some_and(|key| keys.contains(&key))
        };
        self.lines.extract_if(.., is_of).collect()
    }
}
