#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod handle;
mod runtime;

pub use handle::{Driver, Handle};
#[cfg(feature = "srv")]
pub use mqtt_adapter_core::SrvOptions;
#[cfg(feature = "store")]
pub use mqtt_adapter_core::StoreOptions;
#[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
pub use mqtt_adapter_core::transport;
pub use mqtt_adapter_core::{
    AcknowledgeWhen, Authenticator, BackOff, Close, Config, ConnectionEvent, ConnectionEvents,
    ConnectionInfo, Credentials, CredentialsSource, DialOptions, Error, MakeAuthenticator, Message,
    MessageId, Messages, Offline, Options, Outcome, Outgoing, OwnedConnAck, OwnedSubscription,
    OwnedWill, Publication, Publishing, QoS0Overflow, ReceivedMessage, Refused, Requesting, Scheme,
    SessionLost, StopOn, StoreFault, Subscribing, Ticket, Unclaimed, Unsent, Unsubscribing,
};
pub use mqtt_proto as proto;
pub use mqtt_session as session;
pub use runtime::{Clock, Stream};

/// A client on one transport, owned by one task.
pub type Connection<T> = mqtt_adapter_core::Connection<Stream<T>, Clock>;
