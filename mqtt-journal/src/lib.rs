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

mod client;
mod error;
mod fields;
mod format;
mod record;

pub use client::{Entry, MAX_NOTE, Note, Outgoing, Received, Session};
pub use error::{Damaged, Fault};
pub use format::{Format, Machine, VERSION};
pub use mqtt_proto as proto;
pub use record::{Kind, MAX_RECORD, Record, Records};
