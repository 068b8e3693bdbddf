//! Proxies of clients, SOCKS5 and HTTP CONNECT, and the header of the PROXY protocol, by which a proxy in front of a server
//! reports the address of its client.

mod environment;
mod header;
mod http;
mod socks;
mod stage;
mod url;

pub use stage::ProxyStage;

use std::fmt;

use crate::error::{Error, ErrorKind};

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProxyKind {
    /// SOCKS version 5 (RFC 1928). The proxy resolves names.
    Socks5,
    /// The method CONNECT of HTTP.
    Http,
}

/// The proxy of a client.
///
/// ```
/// use mqtt_transport::proxy::{ProxyKind, ProxyOptions};
/// let proxy = ProxyOptions::from_url("socks5://pump:secret@proxy.example:1081").unwrap();
/// assert_eq!((proxy.kind, proxy.host.as_str(), proxy.port), (ProxyKind::Socks5, "proxy.example", 1081));
/// ```
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// The protocol of the proxy.
    pub kind: ProxyKind,
    /// The host name or address of the proxy.
    pub host: String,
    /// The port of the proxy.
    pub port: u16,
    /// User name and password, if it requires them. They are sent to it unencrypted.
    pub credentials: Option<(String, String)>,
}

/// Shows everything but the password.
impl fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.credentials.as_ref().map(|(user, _)| user);
        f.debug_struct("ProxyOptions")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &user)
            .finish()
    }
}

impl ProxyOptions {
    /// Makes the settings of a proxy without a password.
    #[must_use]
    pub fn new(kind: ProxyKind, host: impl Into<String>, port: u16) -> Self {
        Self {
            kind,
            host: host.into(),
            port,
            credentials: None,
        }
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Settings, what)
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Proxy, what)
}
