#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::panic, clippy::unwrap_used)]
#![warn(clippy::as_conversions, clippy::expect_used, clippy::indexing_slicing)]

mod agent;
pub mod broker;
mod client;
mod error;
mod fields;
mod format;
mod record;

pub use agent::{Asked, Owner, Subscribed};
pub use client::{Entry, MAX_NOTE, Note, Outgoing, Received, Session};
pub use error::{Damaged, Fault};
pub use format::{Format, Machine, VERSION};
pub use mqtt_proto as proto;
pub use record::{Kind, MAX_RECORD, Record, Records};
