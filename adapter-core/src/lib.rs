#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod driver;
mod error;
mod futures;
mod hub;
mod options;
mod routes;

pub use bytes;
pub use error::Error;
pub use futures::{
    Close, Connected, Outcome, Publishing, Received, Subscribing, Subscription, Ticket,
    Unsubscribing,
};
pub use hub::{Flow, Hub, Step, Unsent};
pub use mqtt_proto::{self as proto, Message};
pub use mqtt_session::{
    self as session, Acknowledge, BackOff, Config, Offline, Outgoing, SessionLost,
};
pub use options::{Options, OwnedWill};
