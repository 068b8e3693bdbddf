#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod dial;
pub mod driver;
pub mod exports;

mod clock;
mod connection;
mod events;
mod handle;
mod hub;
mod messages;
mod publishing;
mod requests;
pub mod runtime;
#[cfg(feature = "sockets")]
mod socket;
#[cfg(feature = "srv")]
pub mod srv;
#[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
mod staged;
#[cfg(feature = "store")]
mod storage;
mod tickets;
mod unreached;
mod waiters;

pub use bytes;
pub use connection::Connection;
pub use dial::DialOptions;
pub use events::ConnectionEvents;
pub use handle::{Close, Handle};
pub use hub::{Driving, Hub, LINGER, Output};
pub use messages::{Messages, Subscribing, Unsubscribing};
#[cfg(feature = "store")]
pub use mqtt_agent::StoreOptions;
pub use mqtt_agent::{
    self as agent, AcknowledgeWhen, Authenticator, ConnectionEvent, ConnectionInfo, Credentials,
    CredentialsSource, Error, Flow, MakeAuthenticator, Message, MessageId, Options, Outcome,
    OwnedConnAck, OwnedSubscription, OwnedWill, Publication, QoS0Overflow, ReceivedMessage, Scheme,
    StopOn, StoreFault, Unclaimed, Unsent, without_password,
};
pub use mqtt_proto as proto;
pub use mqtt_session::{self as session, BackOff, Config, Offline, Outgoing, Refused, SessionLost};
#[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
pub use mqtt_transport as transport;
pub use publishing::{Publishing, Ticket};
pub use requests::Requesting;
#[cfg(feature = "sockets")]
pub use socket::SocketOptions;
#[cfg(feature = "sockets")]
pub use socket2;
#[cfg(feature = "srv")]
pub use srv::SrvOptions;
#[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
pub use staged::Staged;
#[cfg(feature = "store")]
pub use storage::Stored;
