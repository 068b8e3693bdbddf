#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod any;
mod detect;
mod error;
mod queue;
mod stack;

#[cfg(any(feature = "proxy", feature = "websocket"))]
mod head;

#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use any::{AnyServer, AnyServerOptions};
pub use bytes;
pub use detect::{Protocol, detect};
pub use error::{Error, ErrorKind};
pub use queue::OUTGOING_LIMIT;
pub use stack::{Peer, Stack, Stage, taken_now};
