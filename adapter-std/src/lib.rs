#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod connection;
mod handle;
mod wait;

pub use adapter_core::{
    Acknowledge, BackOff, Config, Error, Message, Offline, Options, Outcome, Outgoing, OwnedWill,
    Received, SessionLost, Unsent,
};
pub use connection::{Connection, Timeouts};
pub use handle::{Handle, Messages, Split, Ticket};
pub use mqtt_proto as proto;
pub use mqtt_session as session;
