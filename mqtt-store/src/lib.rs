#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod changes;
mod config;
mod directory;
mod engine;
mod error;
mod guarded;
mod log;
mod logged;
mod net;
mod on_redb;
mod read_only;
mod store;
mod tabled;
mod writer;

#[cfg(test)]
mod tests;

pub use changes::Changes;
pub use config::{Config, Durability, UnknownDurability};
pub use engine::{Engine, entry_size};
pub use error::{Failure, OpenError};
pub use mqtt_journal as journal;
pub use store::Store;
pub use writer::{Condition, Progress, Writer};
