#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::panic, clippy::unwrap_used)]
#![warn(clippy::as_conversions, clippy::expect_used, clippy::indexing_slicing)]

extern crate alloc;

mod agent;
mod connection;
mod delivery;
mod publishing;
mod requests;
mod returning;
mod subscriptions;

mod held;
mod inbox;
#[cfg(feature = "journal")]
mod journal;
#[cfg(feature = "journal")]
mod subscription_records;

mod authentication;
mod error;
mod event;
mod options;
mod publication;
mod url;
mod will;

pub use agent::{Agent, Flow};
pub use authentication::{Authenticator, Credentials, CredentialsSource, MakeAuthenticator};
pub use error::{Error, StoreFault};
pub use event::{AgentEvent, ConnectionEvent, ConnectionInfo, OwnedConnAck};
pub use held::MessageId;
pub use inbox::ReceivedMessage;
#[cfg(feature = "journal")]
pub use journal::RestoreError;
pub use mqtt_proto::{self as proto, Message};
pub use mqtt_session::{self as session, NextDial};
#[cfg(feature = "journal")]
pub use options::StoreOptions;
pub use options::{AcknowledgeWhen, Options, OwnedSubscription, QoS0Overflow, StopOn, Unclaimed};
pub use publication::Publication;
pub use publishing::{Accepted, Outcome, Position, Unsent};
pub use requests::RequestId;
pub use subscriptions::RouteId;
pub use url::{Scheme, without_password};
pub use will::OwnedWill;
