//! TLS 1.2 and 1.3 by rustls, for clients and servers.
//!
//! The provider of the cryptography is `ring`, given to each configuration: no default of the process is read or set. Whoever
//! wants another one brings an own configuration ([`TlsOptions::config`], [`TlsServer::from_config`]).

mod client;
mod errors;
mod files;
mod identity;
mod server;
mod stage;
mod verify;

pub use client::{Roots, TlsConnector, TlsOptions};
pub use files::{Source, SourceFunction};
pub use identity::{Identity, IdentityPart};
pub use rustls;
pub use server::{ClientCertificate, TlsServer, TlsServerOptions};
pub use stage::TlsStage;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::error::{Error, ErrorKind};

/// A certificate with those of the CAs below the root, and its private key.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The certificate first, then those that lead to the CA.
    pub chain: Source,
    /// The private key of the first certificate.
    pub key: Source,
}

impl KeyPair {
    /// Makes a pair of two files, or of one that has both.
    #[must_use]
    pub fn new(chain: impl Into<Source>, key: impl Into<Source>) -> Self {
        Self {
            chain: chain.into(),
            key: key.into(),
        }
    }

    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
        let (chain, key) = (self.chain.certificates()?, self.key.key()?);
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => self.key.wrong(format!(
                "it does not belong to the certificate in {:?}",
                self.chain
            )),
            error => self.key.wrong(error),
        })
    }
}

/// The lowest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    V12,
    /// TLS 1.3 only.
    V13,
}

impl TlsVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
        match self {
            Self::V12 => &BOTH,
            Self::V13 => &NEWEST,
        }
    }
}

/// The name under which ALPN knows MQTT.
pub const ALPN_MQTT: &[u8] = b"mqtt";

/// Returns the error for a program that was asked to use a pre-shared key.
#[must_use]
pub fn psk_refused() -> Error {
    Error::new(
        ErrorKind::Settings,
        "TLS with a pre-shared key is not supported; a client certificate does the same: give the client a certificate and \
         a key, and the server the CA that signed it",
    )
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes an error of a setting.
fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Settings, what)
}
