//! What can be set, once for the settings file and once for the command line: the same names, the same units.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mqtt_broker::Config;
use mqtt_proto::Version;
use serde::Deserialize;

use crate::Error;
use crate::error::SettingsError;
use crate::lines::read_text;

/// What `packet-size` must be at least: some names and a password fit in CONNECT.
const SMALLEST_PACKET: u32 = 128;

macro_rules! settings {
    (
        general { $($(#[$doc:meta])* $name:ident: $type:ty,)* }
        listeners { $($(#[$own_doc:meta])* $own:ident: $own_type:ty,)* }
        limits { $($(#[$limit_doc:meta])* $limit:ident: $limit_type:ty => $field:ident,)* }
    ) => {
        /// Everything that can be set. `None` is the default that the field tells.
        ///
        /// The same fields are the keys of a TOML file, with `-` for `_`, and with the feature `clap` the long options of a command.
        ///
        /// ```no_run
        /// use mqtt_broker_host::{Settings, signals};
        ///
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> Result<(), mqtt_broker_host::Error> {
        /// let mut settings = Settings::default();
        /// settings.bind = Some(vec!["127.0.0.1:1883".into(), "[::1]:1883".into()]);
        /// settings.acl_file = Some("acl".into());
        /// let broker = settings.listen().await?;
        /// broker.run(signals::interrupted()).await?;
        /// # Ok(()) }
        /// ```
        #[derive(Clone, Debug, Default, Deserialize)]
        #[cfg_attr(feature = "clap", derive(clap::Args))]
        #[non_exhaustive]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct Settings {
            $($(#[$doc])* pub $name: Option<$type>,)*
            $($(#[$own_doc])* pub $own: Option<$own_type>,)*
            /// Listeners with settings of their own. What one does not say is as it is for all.
            #[cfg_attr(feature = "clap", arg(skip))]
            pub listener: Option<Vec<ListenerSettings>>,
            $(
                $(#[$limit_doc])*
                #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER", help_heading = "Limits"))]
                pub $limit: Option<$limit_type>,
            )*
        }

        /// What one listener has of its own: a table `[[listener]]` of a settings file. `None` is what [`Settings`] say.
        #[derive(Clone, Debug, Default, Deserialize, PartialEq)]
        #[non_exhaustive]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct ListenerSettings {
            /// Where clients connect, as [`Settings::bind`].
            pub bind: Option<Vec<String>>,
            $(
                #[doc = concat!("As `", stringify!($own), "` of [`Settings`].")]
                pub $own: Option<$own_type>,
            )*
        }

        impl ListenerSettings {
            /// Returns these settings, and those of `others` where nothing is set here.
            #[must_use]
            pub fn or(self, others: Self) -> Self {
                Self {
                    bind: self.bind.or(others.bind),
                    $($own: self.$own.or(others.$own),)*
                }
            }
        }

        impl Settings {
            /// Returns what is set for all listeners, but where they are.
            pub(crate) fn common(&self) -> ListenerSettings {
                ListenerSettings {
                    bind: None,
                    $($own: self.$own.clone(),)*
                }
            }

            /// Returns these settings, and those of `others` where nothing is set here.
            #[must_use]
            pub fn or(self, others: Self) -> Self {
                Self {
                    $($name: self.$name.or(others.$name),)*
                    $($own: self.$own.or(others.$own),)*
                    listener: self.listener.or(others.listener),
                    $($limit: self.$limit.or(others.$limit),)*
                }
            }

            /// Returns the limits as the core takes them.
            #[must_use]
            pub fn config(&self) -> Config {
                let mut config = Config::default();
                $(if let Some(limit) = self.$limit { config.$field = limit.into(); })*
                if let Some(versions) = self.versions() { config.versions = versions; }
                config
            }
        }
    };
}

settings! {
    general {
    /// Address to listen on, as [mqtt|mqtts|ws|wss|any]://HOST:PORT, unix://PATH or, for the N-th socket of systemd, systemd:N; may have ?user-file=FILE&allow-anonymous=YES of its own; may be given several times. Default 127.0.0.1:1883
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS"))]
    bind: Vec<String>,
    /// File that says who may publish and subscribe to what; without it, everyone may do everything
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    acl_file: PathBuf,
    /// Versions of MQTT that are accepted: 3.1, 3.1.1 or 5; may be given several times. All, unless something is said
    #[cfg_attr(feature = "clap", arg(long, value_name = "VERSION"))]
    protocol_versions: Vec<String>,
    /// Clients that wait for the comparison of their password; others are told that the server is busy. Default 100
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER"))]
    password_queue: usize,
    /// For how many seconds a password that was right is not compared again; 0 is not at all. Default 3600
    #[cfg_attr(feature = "clap", arg(long, value_name = "SECONDS"))]
    password_memory: u32,
    /// Address of this machine at which /health and /metrics are served over HTTP. Default: none
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS"))]
    health: SocketAddr,
    /// Serve a page at this address of this machine that shows clients, topics and messages. Without an address: 127.0.0.1:8080
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8080"))]
    web: SocketAddr,
    /// What is logged to standard error: error, warn, info, debug or trace. Default info
    #[cfg_attr(feature = "clap", arg(long, value_name = "LEVEL"))]
    log: String,
    /// Directory of a store for sessions, queues, retained messages and wills. Default: they are in memory
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR", help_heading = "Store"))]
    store: PathBuf,
    /// What a crash leaves of what clients were told: stored (all), written (all, unless the power fails) or off. Default stored
    #[cfg_attr(feature = "clap", arg(long, value_name = "WORD", help_heading = "Store"))]
    durability: String,
    /// What is done with a damaged store: refuse (to start) or move-aside (and start empty). Default refuse
    #[cfg_attr(feature = "clap", arg(long, value_name = "WORD", help_heading = "Store"))]
    store_damaged: String,
    /// From so many bytes in the store on, nothing more that must be stored is accepted. Default: as much as the disk holds
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER", help_heading = "Store"))]
    store_limit: u64,
    /// How the log looks: text, or json for an object of JSON in each line. Default text
    #[cfg_attr(feature = "clap", arg(long, value_name = "FORMAT"))]
    log_format: String,
    /// Handshakes of TLS and WebSocket at once; the system keeps other clients waiting. Default 1000
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER"))]
    handshakes: usize,
    }
    listeners {
    /// File of users and their passwords, made by `mqtt passwd`; others are refused then
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    user_file: PathBuf,
    /// Clients may connect without a user name. Default: yes if there is no user file and only this machine can connect there
    #[cfg_attr(feature = "clap", arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true", require_equals = true))]
    allow_anonymous: bool,
    /// File with the certificate for mqtts:// and wss:// and those that lead to its CA; several are chosen by the name the client asks for
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "TLS and WebSocket"))]
    cert: Vec<PathBuf>,
    /// File with the key of the certificate; with several, in the order of --cert
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "TLS and WebSocket"))]
    key: Vec<PathBuf>,
    /// File with the CAs that sign certificates of clients, which are asked for one then
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "TLS and WebSocket"))]
    client_ca: PathBuf,
    /// Whether clients must show a certificate: required or optional. Default required
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHETHER", help_heading = "TLS and WebSocket"))]
    client_certificate: String,
    /// File with a revocation list of a CA of clients; may be given several times
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "TLS and WebSocket"))]
    crl: Vec<PathBuf>,
    /// The part of a client's certificate that is its user name: common-name, subject, dns-name, email or uri; no password is asked then
    #[cfg_attr(feature = "clap", arg(long, value_name = "PART", help_heading = "TLS and WebSocket"))]
    identity_as_username: String,
    /// The lowest version of TLS: 1.2 or 1.3. Default 1.2
    #[cfg_attr(feature = "clap", arg(long, value_name = "VERSION", help_heading = "TLS and WebSocket"))]
    tls_minimum: String,
    /// The path of WebSocket; * is any. Default /mqtt
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH", help_heading = "TLS and WebSocket"))]
    websocket_path: String,
    /// Origin of web pages that may connect, such as `https://app.example`; none lets in clients that tell none; may be given several times. All, unless something is said
    #[cfg_attr(feature = "clap", arg(long, value_name = "ORIGIN", help_heading = "TLS and WebSocket"))]
    origin: Vec<String>,
    /// Address or range of proxies that begin each connection with a header of the PROXY protocol; may be given several times
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS", help_heading = "TLS and WebSocket"))]
    proxy_from: Vec<String>,
    /// Address or range of proxies whose X-Forwarded-For tells the client's address; may be given several times
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS", help_heading = "TLS and WebSocket"))]
    forwarded_from: Vec<String>,
    }
    limits {
    /// Connections at once. Default 10000
    connections: usize => connections,
    /// Connections among them that are not accepted yet; if there are more, the oldest of the address with most of them gives way. Default 1000
    pending_connections: usize => pending_connections,
    /// Connections of one address. Default: any number
    connections_per_address: usize => connections_per_address,
    /// Sessions, of clients that are connected or away. Default 100000
    sessions: usize => sessions,
    /// Sessions of clients from one address. Default: any number
    sessions_per_address: usize => sessions_per_address,
    /// Sessions of one user. Default: any number
    sessions_per_user: usize => sessions_per_user,
    /// How long CONNECT may take, in milliseconds. Default 10000
    connect_timeout: u32 => connect_timeout_ms,
    /// After how many keep-alives of silence a connection ends, in percent. Default 150
    keep_alive_percent: u16 => keep_alive_percent,
    /// The longest keep-alive of MQTT 5 clients, in seconds; 0 is any. Default 0
    keep_alive_maximum: u16 => keep_alive_maximum,
    /// The largest packet from a client, in bytes. Default 2097152
    packet_size: u32 => packet_size,
    /// The largest CONNECT, in bytes, with its will. Default 16384
    connect_size: u32 => connect_size,
    /// The largest payload that is taken, in bytes; a larger one is dropped. Default: what fits in a packet
    payload_size: usize => payload_size,
    /// QoS 1 and 2 messages of one client that may be half received. Default 1024
    receive_maximum: u16 => receive_maximum,
    /// The highest topic alias a client may use; 0 is none. Default 16
    topic_alias_maximum: u16 => topic_alias_maximum,
    /// Topic aliases assigned to one client. Default 16
    topic_aliases: u16 => topic_aliases,
    /// QoS 1 and 2 messages under way to one client. Default 128
    window: u16 => window,
    /// QoS 2 messages among them. Default 20
    window_qos2: u16 => window_qos2,
    /// Bytes of QoS 1 and 2 messages under way to one client. Default 16777216
    in_flight_bytes: u32 => in_flight_bytes,
    /// Bytes of all connections: what waits for transports, messages under way, topic aliases. Default 536870912
    connection_bytes_total: usize => connection_bytes_total,
    /// The longest client identifier and user name, in bytes. Default 1024
    client_id_length: usize => client_id_length,
    /// The longest topic name or filter, in bytes. Default 65535
    topic_length: usize => topic_length,
    /// Bytes that may wait for one client's transport before messages are queued. Default 262144
    outgoing_bytes: u32 => outgoing_bytes,
    /// Messages queued for one client. Default 100000
    queued_messages: usize => queued_messages,
    /// Bytes of messages queued for one client. Default 33554432
    queued_bytes: usize => queued_bytes,
    /// Bytes of messages queued in all. Default 536870912
    queued_bytes_total: usize => queued_bytes_total,
    /// How long publishers wait for a connected client that takes nothing, in milliseconds; 0 is not at all. Default 30000
    slow_consumer: u32 => slow_consumer_ms,
    /// Queue QoS 0 messages for clients that are away: true or false. Default false
    queue_qos0: bool => queue_qos0,
    /// Subscriptions of one client. Default 10000
    subscriptions: usize => subscriptions,
    /// Bytes that the subscriptions of one client take. Default 8388608
    subscription_bytes: usize => subscription_bytes,
    /// Bytes of the wills of all clients. Default 67108864
    will_bytes: usize => will_bytes,
    /// Work for one connection before the others have their turn, in steps of a tenth of a microsecond. Default 1024
    turn_steps: u32 => turn_steps,
    /// Levels of a topic name or filter. Default 64
    topic_levels: usize => topic_levels,
    /// Retained messages. Default 100000
    retained_messages: usize => retained_messages,
    /// Bytes of retained messages. Default 268435456
    retained_bytes: usize => retained_bytes,
    /// After how many seconds a retained message is forgotten. Default: never
    retained_expiry: u32 => retained_expiry,
    /// How long sessions outlive their connection at most, in seconds; 4294967295 is as long as the client wants. Default 2592000
    session_expiry_maximum: u32 => session_expiry_maximum,
    /// Clients without a client identifier get one: true or false. Default true
    empty_client_ids: bool => empty_client_ids,
    /// Clients may take the client identifier of another user and get a session of their own: true or false. Default true
    client_ids_of_others: bool => client_ids_of_others,
    /// The highest quality of service of messages from clients: 0, 1 or 2. Default 2
    maximum_qos: u8 => maximum_qos,
    /// Clients may publish retained messages: true or false. Default true
    retain_available: bool => retain_available,
    /// Check again whether who published a retained message may publish to its topic, when it is delivered: true or false. Default true
    check_retained_source: bool => check_retained_source,
    /// Deliver at the QoS of the subscription what was published at a lower one: true or false. Default false
    raise_qos: bool => raise_qos,
    /// How often the $SYS topics are published, in seconds; 0 is never. Default 10
    statistics_interval: u32 => statistics_interval,
    }
}

impl Settings {
    /// Reads a settings file. `broker.toml` beside this crate's README has every key.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Settings`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path)?;
        Self::parse(&text).map_err(|(line, source)| Error::Settings {
            path: path.into(),
            line,
            source,
        })
    }

    /// Reads the text of a settings file.
    ///
    /// # Errors
    /// What is wrong, and in which line, counted from 1, where that is known.
    pub fn parse(text: &str) -> Result<Self, (Option<usize>, SettingsError)> {
        toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', " ");
            let line = error.span().map(|span| {
                let before = text.get(..span.start).unwrap_or_default();
                before.matches('\n').count() + 1
            });
            (line, SettingsError(message))
        })
    }
}

impl Settings {
    /// Returns the versions that are accepted, if something is said of them; none if one of them is unknown.
    fn versions(&self) -> Option<Vec<Version>> {
        let known = [Version::V31, Version::V311, Version::V5];
        let find = |name: &String| {
            known
                .into_iter()
                .find(|version| version.to_string() == *name)
        };
        let versions: Option<Vec<_>> = self.protocol_versions.as_ref()?.iter().map(find).collect();
        Some(versions.unwrap_or_default())
    }

    /// Refuses values with which the broker would run and serve nobody.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first of them.
    pub fn check(&self) -> Result<(), Error> {
        let (limits, words) = (self.limits_that_serve_nobody(), self.words_unknown());
        match limits
            .into_iter()
            .chain(self.crowds_that_serve_nobody())
            .chain(words)
            .find(|(is_wrong, ..)| *is_wrong)
        {
            Some((_, name, why)) => Err(Error::Setting { name, why }),
            None => Ok(()),
        }
    }

    fn words_unknown(&self) -> [Checked; 5] {
        let mut listeners = self.listener.iter().flatten();
        let no_address = self.bind.as_ref().is_some_and(Vec::is_empty)
            || listeners.any(|listener| listener.bind.as_ref().is_none_or(Vec::is_empty));
        [
            (
                no_address,
                "bind",
                "needs an address, or no client can connect",
            ),
            (
                self.versions().is_some_and(|known| known.is_empty()),
                "protocol-versions",
                "must be some of 3.1, 3.1.1 and 5",
            ),
            (
                !self.knows_damaged(),
                "store-damaged",
                "must be refuse or move-aside",
            ),
            (
                !self.knows_durability(),
                "durability",
                "must be stored, written or off",
            ),
            (
                self.maximum_qos.is_some_and(|qos| qos > 2),
                "maximum-qos",
                "must be 0, 1 or 2",
            ),
        ]
    }

    fn crowds_that_serve_nobody(&self) -> [Checked; 4] {
        let client = "must be at least 1, or no client can connect";
        let session = "must be at least 1, since every client has one";
        [
            (
                self.pending_connections == Some(0),
                "pending-connections",
                client,
            ),
            (
                self.connections_per_address == Some(0),
                "connections-per-address",
                client,
            ),
            (
                self.sessions_per_address == Some(0),
                "sessions-per-address",
                session,
            ),
            (
                self.sessions_per_user == Some(0),
                "sessions-per-user",
                session,
            ),
        ]
    }

    fn limits_that_serve_nobody(&self) -> [Checked; 9] {
        [
            (
                self.connections == Some(0),
                "connections",
                "must be at least 1, or no client can connect",
            ),
            (
                self.sessions == Some(0),
                "sessions",
                "must be at least 1, since every client has one",
            ),
            (
                self.connect_timeout == Some(0),
                "connect-timeout",
                "must be at least 1, or no CONNECT is in time",
            ),
            (
                self.keep_alive_percent.is_some_and(|percent| percent < 100),
                "keep-alive-percent",
                "must be at least 100, or clients that keep to their keep-alive are disconnected",
            ),
            (
                self.packet_size.is_some_and(|size| size < SMALLEST_PACKET),
                "packet-size",
                "must be at least 128, or CONNECT does not fit",
            ),
            (
                self.connect_size.is_some_and(|size| size < SMALLEST_PACKET),
                "connect-size",
                "must be at least 128, or CONNECT does not fit",
            ),
            (
                self.topic_levels == Some(0),
                "topic-levels",
                "must be at least 1, since every topic has one",
            ),
            (
                self.password_queue == Some(0),
                "password-queue",
                "must be at least 1, or no user can connect",
            ),
            (
                self.handshakes == Some(0),
                "handshakes",
                "must be at least 1, or no TLS begins",
            ),
        ]
    }
}

/// Whether a value is wrong, the name of its setting, and what it has to be.
type Checked = (bool, &'static str, &'static str);

#[cfg(test)]
mod tests {
    #[cfg(feature = "clap")]
    use std::collections::BTreeSet;

    #[cfg(feature = "clap")]
    use clap::Args as _;

    use super::*;

    const SAMPLE: &str = include_str!("../broker.toml");

    /// The sample with nothing commented out but the comments.
    fn sample() -> String {
        let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with(' ') => key,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_sample_as_it_is_says_nothing() {
        let settings: Settings = toml::from_str(SAMPLE).unwrap();
        assert_eq!(
            format!("{settings:?}"),
            format!("{:?}", Settings::default())
        );
    }

    #[cfg(feature = "clap")]
    #[test]
    fn the_sample_has_every_key() {
        let table: toml::Table = sample().parse().unwrap();
        let keys: BTreeSet<&str> = table.keys().map(String::as_str).collect();
        let command = Settings::augment_args(clap::Command::new("broker"));
        let mut options: BTreeSet<&str> = command
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .collect();
        // A table that a command line cannot have.
        options.insert("listener");
        assert_eq!(keys, options);
    }

    #[test]
    fn the_sample_has_the_defaults() {
        let mut settings: Settings = toml::from_str(&sample()).unwrap();
        // Examples, since the default is none.
        settings.retained_expiry = None;
        settings.payload_size = None;
        settings.connections_per_address = None;
        settings.sessions_per_address = None;
        settings.sessions_per_user = None;
        assert_eq!(
            format!("{:?}", settings.config()),
            format!("{:?}", Config::default())
        );
    }

    #[cfg(feature = "clap")]
    #[test]
    fn the_help_says_the_defaults() {
        let table: toml::Table = sample().parse().unwrap();
        let command = Settings::augment_args(clap::Command::new("broker"));
        for argument in command.get_arguments() {
            let help = argument.get_help().unwrap().to_string();
            let Some((_, default)) = help.rsplit_once("Default ") else {
                continue;
            };
            let value = match &table[argument.get_long().unwrap()] {
                toml::Value::String(text) => text.clone(),
                toml::Value::Array(values) => values[0].as_str().unwrap().to_owned(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(yes) => yes.to_string(),
                value => panic!("{value:?}"),
            };
            assert_eq!(default, value, "{argument:?}");
        }
    }

    #[test]
    fn what_would_serve_nobody_is_refused() {
        let check = |text: &str| {
            Settings::parse(text)
                .unwrap()
                .check()
                .map_err(|error| error.to_string())
        };
        for text in [
            "bind = []",
            "connections = 0",
            "pending-connections = 0",
            "connections-per-address = 0",
            "sessions = 0",
            "sessions-per-address = 0",
            "sessions-per-user = 0",
            "connect-timeout = 0",
            "keep-alive-percent = 0",
            "keep-alive-percent = 99",
            "password-queue = 0",
            "handshakes = 0",
            "protocol-versions = []",
            "protocol-versions = [\"5\", \"6\"]",
            "maximum-qos = 3",
            "store-damaged = \"ignore\"",
            "durability = \"sometimes\"",
            "packet-size = 0",
            "packet-size = 127",
            "topic-levels = 0",
        ] {
            let why = check(text).unwrap_err();
            assert!(
                why.starts_with(text.split_once(' ').unwrap().0),
                "{text}: {why}"
            );
        }
        check("connections = 1\nsessions = 1\nkeep-alive-percent = 100\npacket-size = 128")
            .unwrap();
        check(&sample()).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let wrong = |text: &str| {
            let (line, error) = Settings::parse(text).unwrap_err();
            (line, error.to_string())
        };
        let (line, message) = wrong("log = \"info\"\nwindows = 3");
        assert_eq!(line, Some(2));
        assert!(message.starts_with("unknown field `windows`"), "{message}");
        let (line, message) = wrong("window = \"many\"");
        assert_eq!(line, Some(1));
        assert!(message.starts_with("invalid type"), "{message}");
    }
}
