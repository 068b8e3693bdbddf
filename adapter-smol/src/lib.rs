#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod handle;
mod runtime;

pub use handle::{Driver, Handle};
#[doc(inline)]
pub use mqtt_adapter_core::exports::{client::*, futures::*, system::*};
pub use runtime::{Clock, Stream};

/// A client on one transport, owned by one task.
pub type Connection<T> = mqtt_adapter_core::Connection<Stream<T>, Clock>;
