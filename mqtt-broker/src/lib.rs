#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod authenticate;
mod broker;
mod clients;
mod connect;
mod connection;
mod deliver;
mod fanout;
mod frames;
mod journal;
mod keys;
mod largest;
mod leave;
mod level;
mod load;
mod long_wait;
mod portions;
mod rights;
pub(crate) mod shards;
mod share;
mod source;
mod subscribe;
mod turn;

mod message;
mod pressure;
mod publisher;
mod pump;
mod queue;
mod retained;
mod router;
mod routing_limits;
mod session;
mod stall;
mod timers;
mod work;

mod config;
mod holders;
mod hooks;
mod statistics;

pub use broker::{Broker, Handled, Next, TooManyConnections};
pub use clients::ConnectedClient;
pub use config::Config;
pub use connection::ConnectionId;
pub use hooks::{ClientInfo, Ending, Hooks, Memory, Observation, Verdict};
pub use journal::{RestoreError, Restored, StorageFailure};
pub use mqtt_session::{Instant, Outgoing, Refused, Violation, proto, records};
pub use shards::{Elsewhere, MOST_SHARDS, PlaceOf, shard_of};
pub use statistics::Statistics;
