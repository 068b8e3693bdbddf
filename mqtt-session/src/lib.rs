#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(
    clippy::alloc_instead_of_core,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_core,
    clippy::unwrap_used
)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod client;
mod server;

mod inbound;
mod large;
mod outbound;
mod packet_id;
mod pieces;
mod request;
mod session;

#[cfg(feature = "aliases")]
mod alias;
#[cfg(not(feature = "aliases"))]
#[path = "no_alias.rs"]
mod alias;
mod bytes;
mod connection;
mod keep_alive;
mod limits;
mod outbox;

mod config;
mod error;
mod event;
mod storage;
mod supervisor;
mod time;

pub use client::Client;
pub use config::{Acknowledge, Config, Offline, SessionLost};
pub use error::{Closed, Refused, Violation};
pub use event::{Ended, Event, Incoming, Outgoing, Receipt, ServerEvent, Step, Token};
pub use inbound::Received;
pub use mqtt_proto as proto;
pub use outbound::Slot;
pub use server::{Server, WillDue};
#[cfg(feature = "alloc")]
pub use storage::{Heap, Rare};
pub use storage::{Lent, Memory, Parts, Storage};
pub use supervisor::{BackOff, Next, Supervisor};
pub use time::Instant;
