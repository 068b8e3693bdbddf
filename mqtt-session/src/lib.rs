#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::panic, clippy::unwrap_used)]
#![warn(clippy::as_conversions, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(
    not(all(
        feature = "aliases",
        feature = "alloc",
        feature = "by-hand",
        feature = "pieces",
        feature = "policies",
        feature = "server",
        feature = "v5"
    )),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        clippy::default_constructed_unit_structs,
        clippy::needless_update,
        reason = "a build without a feature does not use all that its parts share"
    )
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod client;
#[cfg(feature = "server")]
mod server;

mod connection;
mod endpoint;
mod engine;
mod inbound;
mod large;
mod outbound;
mod outgoing;
mod pieces;
mod plain;
mod receive;
mod requests;
mod search;
mod slots;
mod state;

#[cfg(feature = "journal")]
mod deferred;
#[cfg(feature = "journal")]
mod journal;
#[cfg(not(feature = "journal"))]
#[path = "no_journal.rs"]
mod journal;

#[cfg(feature = "journal")]
mod notes;
#[cfg(feature = "journal")]
mod restoring;
#[cfg(all(feature = "alloc", feature = "journal", feature = "server"))]
mod server_journal;

mod aliases;
mod keep_alive;
mod problem;
mod progress;

mod bytes;
mod config;
mod error;
mod event;
mod memory;
mod supervisor;
mod time;
mod tune;
mod work;

pub use client::Client;
#[cfg(feature = "by-hand")]
pub use config::Acknowledge;
pub use config::Config;
#[cfg(feature = "policies")]
pub use config::{Offline, SessionLost};
#[cfg(feature = "journal")]
pub use deferred::Durable;
pub use error::{Closed, Refused, Violation};
#[cfg(feature = "server")]
pub use event::ServerEvent;
pub use event::{Ended, Event, Incoming, Outgoing, Receipt, Step, Token};
#[cfg(feature = "alloc")]
pub use memory::Heap;
pub use memory::{Lent, Memory};
#[cfg(feature = "journal")]
pub use mqtt_journal as records;
pub use mqtt_proto as proto;
#[cfg(feature = "server")]
pub use server::{Server, WillDue};
#[cfg(all(feature = "alloc", feature = "journal", feature = "server"))]
pub use state::flows::Change;
pub use state::received::ReceiveSlot;
pub use state::slot::Slot;
pub use supervisor::{BackOff, NextDial, Supervisor};
pub use time::Instant;
