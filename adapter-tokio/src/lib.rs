#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod handle;
#[cfg(feature = "broker")]
mod host;
mod runtime;
#[cfg(all(feature = "broker", unix))]
mod sockets;

pub use adapter_core::{
    Acknowledge, BackOff, Config, Error, Message, Offline, Options, Outcome, Outgoing, OwnedWill,
    Received, SessionLost, Subscription, Ticket, Unsent,
};
pub use handle::Handle;
#[cfg(feature = "broker")]
pub use host::{Commands, Control, Host, control};
#[cfg(feature = "broker")]
pub use mqtt_broker as broker;
pub use mqtt_proto as proto;
pub use mqtt_session as session;
pub use runtime::{Clock, Stream};

/// A client on one transport, owned by one task.
pub type Connection<T> = adapter_core::driver::Connection<Stream<T>, Clock>;
