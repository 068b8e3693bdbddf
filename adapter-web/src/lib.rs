#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod handle;
mod socket;
mod timer;

pub use handle::Handle;
#[doc(inline)]
pub use mqtt_adapter_core::exports::{client::*, futures::*};
pub use socket::Socket;
pub use timer::{Clock, sleep};
