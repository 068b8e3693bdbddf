#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::panic, clippy::unwrap_used)]
#![warn(clippy::as_conversions, clippy::expect_used, clippy::indexing_slicing)]

#[cfg(feature = "async")]
pub mod asynch;
#[cfg(feature = "blocking")]
pub mod blocking;
mod buffers;
mod error;
#[cfg(feature = "flash")]
mod flash;
mod halves;
pub mod hex;
mod input;
mod time;

pub use buffers::Buffers;
pub use error::{Error, Over, SessionError};
#[cfg(feature = "flash")]
pub use flash::FlashError;
pub use halves::{Halves, Patient};
pub use mqtt_proto as proto;
pub use mqtt_session as session;
#[cfg(feature = "embassy-time")]
pub use time::EmbassyTime;
#[cfg(feature = "async")]
pub use time::Timer;
pub use time::{Clock, Millis32};
