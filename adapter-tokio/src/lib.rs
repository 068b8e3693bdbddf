#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod handle;
#[cfg(feature = "broker")]
mod host;
mod runtime;
#[cfg(all(feature = "broker", unix))]
mod sockets;

pub use handle::Handle;
#[cfg(feature = "broker")]
pub use host::{Commands, Control, Host, control};
pub use mqtt_adapter_core::{
    Acknowledge, Authenticator, BackOff, Close, Config, ConnectionEvent, ConnectionEvents,
    ConnectionInfo, Credentials, CredentialsSource, Error, MakeAuthenticator, Message, MessageId,
    Messages, Offline, Options, Outcome, Outgoing, OwnedConnAck, OwnedSubscription, OwnedWill,
    Publication, Publishing, QoS0Overflow, Received, Refused, Requesting, SessionLost, StopOn,
    Subscribing, Ticket, Unclaimed, Unsent, Unsubscribing,
};
#[cfg(feature = "broker")]
pub use mqtt_broker as broker;
pub use mqtt_proto as proto;
pub use mqtt_session as session;
pub use runtime::{Clock, Stream};

/// A client on one transport, owned by one task.
pub type Connection<T> = mqtt_adapter_core::Connection<Stream<T>, Clock>;
