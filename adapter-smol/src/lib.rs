#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod handle;
mod runtime;

pub use adapter_core::{
    Acknowledge, BackOff, Config, Error, Message, Offline, Options, Outcome, Outgoing, OwnedWill,
    Received, SessionLost, Subscription, Ticket, Unsent,
};
pub use handle::{Driver, Handle};
pub use mqtt_proto as proto;
pub use mqtt_session as session;
pub use runtime::{Clock, Stream};

/// A client on one transport, owned by one task.
pub type Connection<T> = adapter_core::driver::Connection<Stream<T>, Clock>;
