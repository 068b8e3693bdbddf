#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod connection;
mod dial;
mod drive;
mod handle;
#[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
mod staged;
mod wait;

/// The async types that the blocking types wrap. [`Handle::as_async`] returns the async handle.
pub mod asynch {
    pub use mqtt_adapter_core::Handle;
    #[doc(inline)]
    pub use mqtt_adapter_core::exports::futures::*;
}

pub use connection::{Connection, Timeouts};
pub use drive::Split;
pub use handle::{ConnectionEvents, Handle, Messages, Ticket};
#[doc(inline)]
pub use mqtt_adapter_core::exports::{client::*, system::*};
