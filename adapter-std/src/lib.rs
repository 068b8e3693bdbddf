#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod connection;
mod dial;
mod drive;
mod handle;
#[cfg(feature = "store")]
pub use mqtt_adapter_core::StoreOptions;
#[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
mod staged;
mod wait;

pub use mqtt_adapter_core::{
    AcknowledgeWhen, Authenticator, BackOff, Config, ConnectionEvent, ConnectionInfo, Credentials,
    CredentialsSource, DialOptions, Error, MakeAuthenticator, Message, MessageId, Offline, Options,
    Outcome, Outgoing, OwnedConnAck, OwnedSubscription, OwnedWill, Publication, QoS0Overflow,
    ReceivedMessage, Refused, Scheme, SessionLost, StopOn, StoreFault, Unclaimed, Unsent,
};

/// The async types that the blocking types wrap. [`Handle::as_async`] returns the async handle.
pub mod asynch {
    pub use mqtt_adapter_core::{
        Close, ConnectionEvents, Handle, Messages, Publishing, Requesting, Subscribing, Ticket,
        Unsubscribing,
    };
}

pub use connection::{Connection, Timeouts};
pub use drive::Split;
pub use handle::{ConnectionEvents, Handle, Messages, Ticket};
#[cfg(feature = "srv")]
pub use mqtt_adapter_core::SrvOptions;
#[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
pub use mqtt_adapter_core::transport;
pub use mqtt_proto as proto;
pub use mqtt_session as session;
