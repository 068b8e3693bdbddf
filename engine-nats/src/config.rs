//! Holds the configuration of the connection to NATS, and what it reports.

use std::fmt;
use std::time::Duration;

use mqtt_store::Failure;

use crate::servers::without_login;

/// The configuration of [`crate::Nats`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The servers, as `nats://HOST:PORT`, `nats://USER:PASSWORD@HOST:PORT` or `tls://HOST:PORT`. Any of them is enough to find the
    /// others. User and password are those of all servers: one address that has them is enough. Characters such as `@` are written
    /// as `%40` in them.
    pub servers: Vec<String>,
    /// The name of this node, which processes in reserve report.
    pub node: String,
    /// The name of the journal: letters, digits, `-` and `_`. Processes with the same one take over from each other. Default: 0.
    pub shard: String,
    /// How many shards the broker has, 1 to 64, each with a journal of its own. This process takes one that has no owner. It is
    /// the same for all processes and stays the same for ever. Default: 1.
    pub shards: u8,
    /// How clients reach this node, in words that the other processes understand ([`crate::Pipes::address`]). Default: none.
    pub address: Option<String>,
    /// How many pipes for clients may be open at once, in either direction. Default: 65,536.
    pub pipes: usize,
    /// How many bytes the pipes for clients may bring to a process that it has not taken, beside 8 KiB for each of them. It is the same
    /// for all processes. Beyond it these pipes are slower. Default: 256 MiB.
    pub pipe_bytes: usize,
    /// How many servers have the journal, if it does not exist yet. Default: 3.
    pub replicas: usize,
    /// How long the journal has no owner after the owner has ended without notice, at least a tenth of a second. It is longer than
    /// the election of a leader among the servers, or processes take over without need. It is that of the process that first used
    /// the servers. Default: 15 s.
    pub lease: Duration,
    /// How long the owner tries without an answer of the servers until it gives up. Default: 60 s.
    pub patience: Duration,
    /// The stream is not compacted while it has fewer bytes than this. Default: 64 MiB.
    pub compact_from: u64,
}

/// Shows all fields, the servers without user and password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(|s| without_login(s)).collect();
        f.debug_struct("Config")
            .field("servers", &servers)
            .field("node", &self.node)
            .field("shard", &self.shard)
            .field("shards", &self.shards)
            .field("address", &self.address)
            .field("pipes", &self.pipes)
            .field("pipe_bytes", &self.pipe_bytes)
            .field("replicas", &self.replicas)
            .field("lease", &self.lease)
            .field("patience", &self.patience)
            .field("compact_from", &self.compact_from)
            .finish()
    }
}

impl Config {
    /// Returns a configuration for these servers, with all other fields at their defaults.
    #[must_use]
    pub fn new(servers: Vec<String>, node: impl Into<String>) -> Self {
        Self {
            servers,
            node: node.into(),
            shard: "0".to_owned(),
            shards: 1,
            address: None,
            pipes: 1 << 16,
            pipe_bytes: 256 << 20,
            replicas: 3,
            lease: Duration::from_secs(15),
            patience: Duration::from_secs(60),
            compact_from: 64 << 20,
        }
    }

    /// Returns why this cannot be used.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let is_valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        let has_place = (1..=64).contains(&self.shard.len());
        if !has_place || !self.shard.bytes().all(is_valid) {
            return Some("the name of a journal has 1 to 64 letters, digits, - and _");
        }
        if !(1..=64).contains(&self.shards) {
            return Some("a broker has 1 to 64 shards");
        }
        None
    }

    /// Returns the names of the journal of a shard.
    pub(crate) fn journal(&self, shard: u8) -> Journal {
        if self.shards == 1 {
            return self.journal_of_one();
        }
        let name = &self.shard;
        Journal {
            // The prefix differs from that of one shard, because the name may end with a number as well.
            stream: format!("MQTT-shard-{name}-{shard}"),
            name: format!("{name}.{shard}"),
        }
    }

    /// Returns the names of the journal of a broker of one shard.
    pub(crate) fn journal_of_one(&self) -> Journal {
        Journal {
            stream: format!("MQTT-journal-{}", self.shard),
            name: self.shard.clone(),
        }
    }
}

/// The names of the journal of one shard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Journal {
    /// The stream.
    pub(crate) stream: String,
    /// The name in the blocks and in the key of the owner.
    pub(crate) name: String,
}

impl Journal {
    /// Returns the subject of the stream.
    pub(crate) fn subject(&self) -> String {
        format!("mqtt.journal.{}", self.name)
    }
}

/// The name of the bucket with the present owner of each journal.
pub(crate) const BUCKET: &str = "MQTT-owner";

/// An event until this process is the owner.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The servers do not answer as they should, and this process tries again.
    Waits(String),
    /// A setting of the servers does not keep the guarantees.
    Warning(String),
    /// The servers do not permit what this process needs: with their words. Each is told once.
    Forbidden(String),
    /// The stream did not exist, and was made: there is no earlier state.
    Created(String),
    /// Another process owns the journal, and this one is in reserve.
    Reserve {
        /// The name of its node.
        owner: String,
    },
    /// Other processes own the journals of all shards, and this one is in reserve for all.
    ReserveForAll {
        /// The names of their nodes, in the order of the shards.
        owners: Vec<String>,
    },
    /// This process takes over.
    TakesOver {
        /// The shard, counted from 0.
        shard: u8,
        /// How many shards there are.
        shards: u8,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits(why) => write!(f, "waits for the servers: {why}"),
            Self::Warning(warning) => f.write_str(warning),
            Self::Forbidden(what) => {
                write!(
                    f,
                    "the servers do not permit what this process needs: {what}"
                )
            }
            Self::Created(stream) => {
                write!(f, "the stream {stream} is new: there is no earlier state")
            }
            Self::Reserve { owner } => write!(f, "in reserve: {owner} is the owner"),
            Self::ReserveForAll { owners } => {
                let (count, owners) = (owners.len(), owners.join(", "));
                write!(f, "in reserve: the {count} shards have owners: {owners}")
            }
            Self::TakesOver { shards: 1, .. } => f.write_str("takes over"),
            Self::TakesOver { shard, shards } => {
                write!(
                    f,
                    "takes over shard {shard} of 0 to {}",
                    shards.saturating_sub(1)
                )
            }
        }
    }
}

/// Why there is no journal for this process.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenError {
    /// The journal is of a broker with another number of shards.
    Shards {
        /// The name of the journal.
        journal: String,
        /// How many shards it is of.
        stored: u8,
        /// How many the configuration of this process has.
        given: u8,
    },
    /// The journal is damaged, or the configuration cannot be used.
    Failed(Failure),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shards {
                journal,
                stored,
                given,
            } => {
                let s = if *stored == 1 { "" } else { "s" };
                write!(
                    f,
                    "the journal {journal} has {stored} shard{s}, but the configuration of this process has {given}"
                )
            }
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
