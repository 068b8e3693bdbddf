//! What stands between a client and its server in a test: a proxy that cuts connections, a serial line with a modem.

mod modem;
mod proxy;

pub use modem::{Mishap, Modem};
pub use proxy::Proxy;
