#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod background;
pub mod block;
mod config;
mod connection;
mod crc;
mod division;
mod lease;
mod nats;
mod owner;
mod pipes;
mod random;
mod replay;
mod servers;
mod sizes;
mod stream;
mod waiting;

pub use config::{Config, Notice, OpenError};
pub use mqtt_store as store;
pub use nats::{Certainty, Lost, Nats};
pub use owner::{Limits, Name, Owner};
pub use pipes::{ABOUT, Incoming, Opened, PipeError, PipeUse, Pipes};
pub use stream::{Answer, Each, Ends, Stream};
