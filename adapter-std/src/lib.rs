#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod connection;
mod drive;
mod handle;
mod wait;

pub use mqtt_adapter_core::{
    Acknowledge, Authenticator, BackOff, Config, ConnectionEvent, ConnectionInfo, Credentials,
    CredentialsSource, Error, MakeAuthenticator, Message, MessageId, Offline, Options, Outcome,
    Outgoing, OwnedConnAck, OwnedSubscription, OwnedWill, Publication, QoS0Overflow, Received,
    Refused, SessionLost, StopOn, Unclaimed, Unsent,
};

/// The client as code that awaits sees it: [`Handle::as_async`].
pub mod asynch {
    pub use mqtt_adapter_core::{
        Close, ConnectionEvents, Handle, Messages, Publishing, Requesting, Subscribing, Ticket,
        Unsubscribing,
    };
}

pub use connection::{Connection, Timeouts};
pub use drive::Split;
pub use handle::{ConnectionEvents, Handle, Messages, Ticket};
pub use mqtt_proto as proto;
pub use mqtt_session as session;
