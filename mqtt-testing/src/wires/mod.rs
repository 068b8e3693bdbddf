//! Connections between a client and its server in a test: a proxy that cuts, a network in two parts, a serial line with a
//! modem, and direct ones.

#[cfg(feature = "transport")]
mod link;
mod modem;
mod network;
mod proxy;
#[cfg(feature = "transport")]
pub mod terminator;

#[cfg(feature = "transport")]
pub use link::{End, Link, answer_to, outgoing_text};
pub use modem::{LineFault, Modem};
pub use network::Network;
pub use proxy::Proxy;
