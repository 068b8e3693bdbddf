//! Holds the settings of a broker. The settings file and the command line have the same names and units.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mqtt_broker::{Config, MOST_SHARDS};
use mqtt_proto::Version;
use serde::Deserialize;

use crate::error::SettingsError;
use crate::lines::read_text;
use crate::units::{EngineUrl, Seconds, value};
use crate::{Error, TcpKeepAlive};

/// The least `packet-size`: CONNECT with names and a password must fit.
const SMALLEST_PACKET: u32 = 128;

macro_rules! settings {
    (
        general { $($(#[$doc:meta])* $name:ident: $type:ty,)* }
        listeners { $($(#[$own_doc:meta])* $own:ident: $own_type:ty,)* }
        limits { $($(#[$limit_doc:meta])* $limit:ident: $limit_type:ty => $field:ident,)* }
    ) => {
        /// The settings of a broker. `None` stands for the default in the description of the field.
        ///
        /// The fields are the keys of a TOML file, with `-` for `_`, and with the feature `clap` the long options of a command.
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
            $($(#[$own_doc])* #[serde(default, deserialize_with = "value")] pub $own: Option<$own_type>,)*
            /// Listeners with separate settings. A setting that is missing here is that of all listeners.
            #[cfg_attr(feature = "clap", arg(skip))]
            pub listener: Option<Vec<ListenerSettings>>,
            $(
                $(#[$limit_doc])*
                #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER", help_heading = "Limits"))]
                pub $limit: Option<$limit_type>,
            )*
        }

        /// The settings of one listener: a table `[[listener]]` of a settings file. `None` stands for the value in [`Settings`].
        #[derive(Clone, Debug, Default, Deserialize, PartialEq)]
        #[non_exhaustive]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct ListenerSettings {
            /// The addresses of the listener, as in [`Settings::bind`].
            #[serde(default, deserialize_with = "value")]
            pub bind: Option<Vec<String>>,
            $(
                #[doc = concat!("As `", stringify!($own), "` of [`Settings`].")]
                #[serde(default, deserialize_with = "value")]
                pub $own: Option<$own_type>,
            )*
        }

        impl ListenerSettings {
            /// Returns these settings, with those of `others` for unset ones.
            #[must_use]
            pub fn or(self, others: Self) -> Self {
                Self {
                    bind: self.bind.or(others.bind),
                    $($own: self.$own.or(others.$own),)*
                }
            }
        }

        impl Settings {
            /// Returns the settings of all listeners, without their addresses.
            pub(crate) fn common(&self) -> ListenerSettings {
                ListenerSettings {
                    bind: None,
                    $($own: self.$own.clone(),)*
                }
            }

            /// Returns these settings, with those of `others` for unset ones.
            #[must_use]
            pub fn or(self, others: Self) -> Self {
                Self {
                    $($name: self.$name.or(others.$name),)*
                    $($own: self.$own.or(others.$own),)*
                    listener: self.listener.or(others.listener),
                    $($limit: self.$limit.or(others.$limit),)*
                }
            }

            /// Returns the limits as the configuration of the broker.
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
    /// Address to listen on, as [mqtt|mqtts|ws|wss|any]://HOST:PORT, unix://PATH or, for the N-th socket of systemd, systemd:N;
    /// may have ?user-file=FILE&allow-anonymous=YES of its own; may be given several times. Default 127.0.0.1:1883
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS"))]
    #[serde(default, deserialize_with = "value")]
    bind: Vec<String>,
    /// File with the rules for publishing and subscribing; without it, everything is allowed
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    acl_file: PathBuf,
    /// Versions of MQTT that are accepted: 3.1, 3.1.1 or 5; can be given several times. Default: all
    #[cfg_attr(feature = "clap", arg(long, value_name = "VERSION"))]
    #[serde(default, deserialize_with = "value")]
    protocol_versions: Vec<String>,
    /// Number of clients that wait for the comparison of their password; beyond it, the oldest of the address with the most is
    /// refused as "server busy". Default 100
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER"))]
    password_queue: usize,
    /// Seconds for which a correct password is not compared again; 0 turns this off. Default 3600
    #[cfg_attr(feature = "clap", arg(long, value_name = "SECONDS"))]
    password_memory: u32,
    /// Seconds without traffic after which the system asks a TCP client whether it is still there; 0 turns this off. Default 60
    #[cfg_attr(feature = "clap", arg(long, value_name = "SECONDS"))]
    tcp_keep_alive: u16,
    /// Seconds between two of these probes. Default 10
    #[cfg_attr(feature = "clap", arg(long, value_name = "SECONDS"))]
    tcp_keep_alive_interval: u16,
    /// Number of probes without an answer that end a connection. Default 6
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER"))]
    tcp_keep_alive_probes: u8,
    /// Number of threads that serve clients, each with a part of them; from 1 to 64. Default: as many as the store has parts;
    /// without a store one, or one for each core from four cores on
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER"))]
    threads: usize,
    /// Address of this machine for /health and /metrics over HTTP. Default: none
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS"))]
    health: SocketAddr,
    /// Address of this machine for a page with clients, topics and messages. Without a value: 127.0.0.1:8080
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8080"))]
    web: SocketAddr,
    /// Level of the log on standard error: error, warn, info, debug or trace. Default info
    #[cfg_attr(feature = "clap", arg(long, value_name = "LEVEL"))]
    log: String,
    /// Directory of a store for sessions, queues, retained messages and wills. Default: these are in memory only
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR", help_heading = "Store"))]
    store: PathBuf,
    /// Failures that stored state survives: stored (crash and power failure), written (crash) or off (none). Default stored
    #[cfg_attr(feature = "clap", arg(long, value_name = "WORD", help_heading = "Store"))]
    durability: String,
    /// Handling of a damaged store: refuse (do not start) or move-aside (start with an empty one). Default refuse
    #[cfg_attr(feature = "clap", arg(long, value_name = "WORD", help_heading = "Store"))]
    store_damaged: String,
    /// Bytes in the store from which on nothing is accepted that must be stored. Default: limited by the disk only
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER", help_heading = "Store"))]
    store_limit: u64,
    /// Servers of NATS with a replicated journal instead of a store, as nats://HOST:PORT,HOST:PORT. One process serves, or as
    /// many as there are shards, and the others with the same journal wait to take over
    #[cfg_attr(feature = "clap", arg(long, value_name = "URL", help_heading = "Engine"))]
    engine: EngineUrl,
    /// Name of this process, which the others report. Needed with an engine
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", help_heading = "Engine"))]
    node: String,
    /// Name of the journal on the engine: letters, digits, - and _. Default 0
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", help_heading = "Engine"))]
    engine_journal: String,
    /// Number of servers that have the journal, when it is made. Default 3
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER", help_heading = "Engine"))]
    engine_replicas: usize,
    /// Seconds after which another process takes over from one that has ended without notice. Default 15
    #[cfg_attr(feature = "clap", arg(long, value_name = "SECONDS", help_heading = "Engine"))]
    engine_lease: u32,
    /// Seconds without an answer of the engine after which the broker ends. Default 60
    #[cfg_attr(feature = "clap", arg(long, value_name = "SECONDS", help_heading = "Engine"))]
    engine_patience: u32,
    /// Number of processes that serve clients, each with a part of them; from 1 to 64, and always the same number for a
    /// journal. Default 1
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER", help_heading = "Engine"))]
    engine_shards: u8,
    /// Send clients of MQTT 5 to the process that serves them, if it has a node address, instead of passing on what they send:
    /// true or false. Default false
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Engine")
    )]
    engine_redirect: bool,
    /// Limit of bytes of passed clients that are under way to one process from all others, beside 8 KiB for each client; the
    /// same for all processes. Default 268435456
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER", help_heading = "Engine"))]
    engine_pipe_bytes: usize,
    /// Format of the log: text, or json for one JSON object in each line. Default text
    #[cfg_attr(feature = "clap", arg(long, value_name = "FORMAT"))]
    log_format: String,
    /// Limit of TLS and WebSocket handshakes and awaited PROXY headers at the same time; the system keeps other clients
    /// waiting. Default 1000
    #[cfg_attr(feature = "clap", arg(long, value_name = "NUMBER"))]
    handshakes: usize,
    }
    listeners {
    /// File with users and password hashes, made by `mqtt passwd`; all other users are refused
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    user_file: PathBuf,
    /// Allow clients without a user name. Default: yes if there is no user file and only this machine can connect
    #[cfg_attr(feature = "clap", arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true", require_equals = true))]
    allow_anonymous: bool,
    /// File with the certificate and its chain for mqtts:// and wss://; can be given several times, the client's host name selects one
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "TLS and WebSocket"))]
    cert: Vec<PathBuf>,
    /// File with the key of the certificate; with several, in the order of --cert
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "TLS and WebSocket"))]
    key: Vec<PathBuf>,
    /// File with the CAs that sign client certificates; clients are then asked for a certificate
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "TLS and WebSocket"))]
    client_ca: PathBuf,
    /// Whether a client certificate is required or optional. Default required
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHETHER", help_heading = "TLS and WebSocket"))]
    client_certificate: String,
    /// File with a revocation list of a CA of clients; can be given several times
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "TLS and WebSocket"))]
    crl: Vec<PathBuf>,
    /// Part of a client's certificate that is its user name: common-name, subject, dns-name, email or uri; no password is needed then
    #[cfg_attr(feature = "clap", arg(long, value_name = "PART", help_heading = "TLS and WebSocket"))]
    identity_as_username: String,
    /// Application protocol (ALPN) that TLS clients may offer, such as mqtt; one that offers only others is refused. Can be
    /// given several times. Default: offers are ignored
    #[cfg_attr(feature = "clap", arg(long, value_name = "PROTOCOL", help_heading = "TLS and WebSocket"))]
    alpn: Vec<String>,
    /// Lowest version of TLS: 1.2 or 1.3. Default 1.2
    #[cfg_attr(feature = "clap", arg(long, value_name = "VERSION", help_heading = "TLS and WebSocket"))]
    tls_minimum: String,
    /// Path of WebSocket; * accepts any. Default /mqtt
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH", help_heading = "TLS and WebSocket"))]
    websocket_path: String,
    /// Origin of web pages that may connect, such as `https://app.example`, or none for clients without one; can be given
    /// several times. Default: all
    #[cfg_attr(feature = "clap", arg(long, value_name = "ORIGIN", help_heading = "TLS and WebSocket"))]
    origin: Vec<String>,
    /// Address or range of proxies that begin each connection with a PROXY protocol header; can be given several times
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS", help_heading = "TLS and WebSocket"))]
    proxy_from: Vec<String>,
    /// Address or range of proxies whose X-Forwarded-For is the client's address; can be given several times
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS", help_heading = "TLS and WebSocket"))]
    forwarded_from: Vec<String>,
    /// Address of this process for clients that others send to it, as HOST:PORT. Default: none
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS", help_heading = "Engine"))]
    node_address: String,
    }
    limits {
    /// Limit of connections. Default 10000
    connections: usize => connections,
    /// Limit of connections without an accepted CONNECT; beyond it, the oldest one of the address with most of them is closed. Default 1000
    pending_connections: usize => pending_connections,
    /// Limit of connections from one address. Default: none
    connections_per_address: usize => connections_per_address,
    /// Limit of sessions, of connected and other clients. Default 100000
    sessions: usize => sessions,
    /// Limit of sessions of clients from one address. Default: none
    sessions_per_address: usize => sessions_per_address,
    /// Limit of sessions of one user. Default: none
    sessions_per_user: usize => sessions_per_user,
    /// Time for a client to send CONNECT, in seconds. Default 10
    connect_timeout: Seconds => connect_timeout_ms,
    /// Part of the keep-alive without a packet after which a connection ends, in percent. Default 150
    keep_alive_percent: u16 => keep_alive_percent,
    /// Longest keep-alive of MQTT 5 clients, in seconds; 0 is no limit. Default 0
    keep_alive_maximum: u16 => keep_alive_maximum,
    /// Largest packet from a client, in bytes. Default 2097152
    packet_size: u32 => packet_size,
    /// Largest CONNECT with its will, in bytes. Default 16384
    connect_size: u32 => connect_size,
    /// Largest payload from a client, in bytes; a message with a larger one is dropped. Default: limited by the packet size only
    payload_size: usize => payload_size,
    /// Limit of unacknowledged QoS 1 and 2 messages from one client. Default 1024
    receive_maximum: u16 => receive_maximum,
    /// Highest topic alias that a client may use; 0 is none. Default 16
    topic_alias_maximum: u16 => topic_alias_maximum,
    /// Topic aliases that are assigned for one client. Default 16
    topic_aliases: u16 => topic_aliases,
    /// Limit of QoS 1 and 2 messages in flight to one client. Default 128
    window: u16 => window,
    /// Limit of QoS 2 messages in flight to one client. Default 20
    window_qos2: u16 => window_qos2,
    /// Limit of bytes of QoS 1 and 2 messages in flight to one client. Default 1048576
    in_flight_bytes: u32 => in_flight_bytes,
    /// Limit of bytes of all connections: outgoing bytes, messages in flight, topic aliases. Default 536870912
    connection_bytes_total: usize => connection_bytes_total,
    /// Limit of bytes of all connections' input that waits: packets that have not arrived completely or wait for their turn.
    /// Default 268435456
    input_bytes_total: usize => input_bytes_total,
    /// Longest client identifier and user name, in bytes. Default 1024
    client_id_length: usize => client_id_length,
    /// Longest topic name or filter, in bytes. Default 65535
    topic_length: usize => topic_length,
    /// Bytes that may wait for one client's transport before messages are queued. Default 262144
    outgoing_bytes: u32 => outgoing_bytes,
    /// Limit of messages queued for one client. Default 100000
    queued_messages: usize => queued_messages,
    /// Limit of bytes of messages queued for one client. Default 33554432
    queued_bytes: usize => queued_bytes,
    /// Limit of bytes of messages queued for all clients. Default 536870912
    queued_bytes_total: usize => queued_bytes_total,
    /// Time that publishers wait for a connected client that takes nothing, in seconds; 0 is no time. Default 30
    slow_consumer: Seconds => slow_consumer_ms,
    /// Time that publishers wait for a connected client that takes messages too slowly, in seconds; 0 is no limit. Default 0
    publisher_wait: Seconds => publisher_wait_ms,
    /// Queue QoS 0 messages for clients that are not connected: true or false. Default false
    queue_qos0: bool => queue_qos0,
    /// Limit of subscriptions of one client. Default 10000
    subscriptions: usize => subscriptions,
    /// Limit of bytes of the subscriptions of one client. Default 8388608
    subscription_bytes: usize => subscription_bytes,
    /// Limit of bytes of the subscriptions of all clients. Default 536870912
    subscription_bytes_total: usize => subscription_bytes_total,
    /// Limit of bytes of the wills of all clients. Default 67108864
    will_bytes: usize => will_bytes,
    /// Work for one connection before the others have their turn, in steps of a tenth of a microsecond. Default 2048
    turn_steps: u32 => turn_steps,
    /// Limit of levels of a topic name or filter. Default 64
    topic_levels: usize => topic_levels,
    /// Limit of retained messages. Default 100000
    retained_messages: usize => retained_messages,
    /// Limit of bytes of retained messages. Default 268435456
    retained_bytes: usize => retained_bytes,
    /// Seconds after which a retained message is removed. Default: never
    retained_expiry: u32 => retained_expiry,
    /// Longest time that a session outlives its connection, in seconds; with 4294967295 the client decides. Default 2592000
    session_expiry_maximum: u32 => session_expiry_maximum,
    /// Accept clients without a client identifier, and assign one: true or false. Default true
    empty_client_ids: bool => empty_client_ids,
    /// Let a client take the client identifier of another user, with a new session: true or false. Default true
    client_ids_of_others: bool => client_ids_of_others,
    /// Highest quality of service of messages from clients: 0, 1 or 2. Default 2
    maximum_qos: u8 => maximum_qos,
    /// Let clients publish retained messages: true or false. Default true
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
    /// The line of the error, counted from 1, if it is known, and the error.
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
    /// Returns the accepted versions if they are set; an empty list if one of them is unknown.
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

    /// Returns the keep-alive of TCP for the connections of all listeners.
    pub(crate) fn tcp_keep_alive(&self) -> TcpKeepAlive {
        let mut times = TcpKeepAlive::default();
        let seconds = |number: u16| Duration::from_secs(number.into());
        if let Some(idle) = self.tcp_keep_alive {
            times.idle = seconds(idle);
        }
        if let Some(interval) = self.tcp_keep_alive_interval {
            times.interval = seconds(interval);
        }
        if let Some(probes) = self.tcp_keep_alive_probes {
            times.probes = probes.into();
        }
        times
    }

    /// Rejects values with which the broker could not serve any client, and settings without the one that they need.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first of them.
    pub fn check(&self) -> Result<(), Error> {
        let (limits, words) = (self.unusable_limits(), self.words_unknown());
        let lacking = self.lacks_engine().into_iter().chain(self.lacks_store());
        let lacking = lacking.chain(self.lacks_certificate());
        let words = words.into_iter().chain(self.engine_unusable());
        match limits
            .into_iter()
            .chain(self.zero_address_limits())
            .chain(self.zero_limits_of_messages())
            .chain(self.impossible_keep_alive())
            .chain(words)
            .chain(self.impossible_threads())
            .chain(lacking)
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
                !self.is_damaged_word_known(),
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

    /// Checks the settings of the keep-alive of TCP. The limits are those of Linux.
    fn impossible_keep_alive(&self) -> [Checked; 3] {
        let seconds = "must be at most 32767";
        let is_wrong = |number: Option<u16>| number.is_some_and(|number| number > 32_767);
        [
            (is_wrong(self.tcp_keep_alive), "tcp-keep-alive", seconds),
            (
                self.tcp_keep_alive_interval == Some(0) || is_wrong(self.tcp_keep_alive_interval),
                "tcp-keep-alive-interval",
                "must be from 1 to 32767",
            ),
            (
                self.tcp_keep_alive_probes
                    .is_some_and(|n| n == 0 || n > 127),
                "tcp-keep-alive-probes",
                "must be from 1 to 127",
            ),
        ]
    }

    fn impossible_threads(&self) -> [Checked; 3] {
        let several = self.threads.is_some_and(|number| number > 1);
        [
            (
                self.threads
                    .is_some_and(|number| number == 0 || number > usize::from(MOST_SHARDS)),
                "threads",
                "must be from 1 to 64",
            ),
            (
                several && !cfg!(unix),
                "threads",
                "must be 1 on this system: only Unix has several",
            ),
            (
                several && self.engine.is_some(),
                "threads",
                "must be 1 with an engine",
            ),
        ]
    }
}

/// Whether a value is wrong, the name of its setting, and the condition for its value.
type Checked = (bool, &'static str, &'static str);

mod engine;
mod lacking;
mod limits;
#[cfg(test)]
mod tests;
