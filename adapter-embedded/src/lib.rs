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

#[cfg(feature = "async")]
pub mod asynch;
#[cfg(feature = "blocking")]
pub mod blocking;
mod buffers;
mod error;
mod halves;
pub mod hex;
mod input;
mod time;

pub use buffers::{Buffers, State};
pub use error::{Error, SessionError};
pub use halves::{Halves, Patient};
pub use mqtt_proto as proto;
pub use mqtt_session as session;
#[cfg(feature = "embassy-time")]
pub use time::EmbassyTime;
#[cfg(feature = "async")]
pub use time::Timer;
pub use time::{Clock, Millis32};
