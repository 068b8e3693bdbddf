//! Tests that each adapter runs: the same code for every runtime.

pub mod cancel;
#[cfg(feature = "handles")]
pub mod handles;
pub mod interop;
#[cfg(all(feature = "handles", feature = "transport"))]
pub mod secured;
#[cfg(all(feature = "handles", feature = "transport"))]
pub mod sockets;
#[cfg(all(feature = "handles", feature = "transport"))]
pub mod srv;
