//! The settings of a TLS server.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::verify_server_name;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{KeyLogFile, ServerConfig};

use super::client::{protocols, store};
use super::{KeyPair, Source, TlsStage, TlsVersion, provider, wrong};
use crate::error::Error;

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientCertificate {
    /// The server does not ask for one.
    #[default]
    NotAsked,
    /// A client may have one; it must be valid then.
    Optional,
    /// The handshake fails without one.
    Required,
}

/// The settings of a TLS server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsServerOptions {
    /// The certificates of the server. The first one whose names include the name that the client asks for (SNI) is used; if
    /// none does, the first one.
    pub identities: Vec<KeyPair>,
    /// The CAs that sign certificates of clients.
    pub client_ca: Option<Source>,
    /// Whether clients must have a certificate. Default: the server does not ask for one.
    pub client_certificate: ClientCertificate,
    /// Revocation lists. With at least one list, each certificate of a client, and each CA below the root, must be in the
    /// scope of a list. An outdated list is no error.
    pub revocation_lists: Vec<Source>,
    /// The accepted application protocols (ALPN). A client that offers only others is refused, one that offers none is not. With an
    /// empty list, the default, offers are ignored.
    pub alpn: Vec<Vec<u8>>,
    /// The lowest version of TLS. Default 1.2.
    pub minimum_version: TlsVersion,
    /// Whether to write the secrets of each connection to the file of the environment variable `SSLKEYLOGFILE`, for
    /// debugging. Whoever has that file can read all traffic. Default `false`.
    pub key_log: bool,
}

impl TlsServerOptions {
    /// Makes the settings with one certificate, without client certificates.
    #[must_use]
    pub fn new(identity: KeyPair) -> Self {
        Self {
            identities: vec![identity],
            ..Self::default()
        }
    }
}

/// Makes the TLS stages of a server. Its configuration can be replaced for later connections.
#[derive(Debug)]
pub struct TlsServer {
    options: Mutex<Option<TlsServerOptions>>,
    current: Mutex<Arc<ServerConfig>>,
}

impl TlsServer {
    /// Reads the files of the settings.
    ///
    /// # Errors
    /// A file cannot be read or is empty, or a key does not belong to its certificate.
    pub fn new(options: TlsServerOptions) -> Result<Self, Error> {
        let config = build(&options)?;
        Ok(Self {
            options: Mutex::new(Some(options)),
            current: Mutex::new(Arc::new(config)),
        })
    }

    /// Uses a configuration of the caller.
    #[must_use]
    pub fn from_config(config: Arc<ServerConfig>) -> Self {
        Self {
            options: Mutex::new(None),
            current: Mutex::new(config),
        }
    }

    /// Makes a stage for an accepted connection.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn stage(&self) -> Result<TlsStage, Error> {
        TlsStage::server(self.config())
    }

    /// Returns the configuration of the next connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again for later connections. Open connections do not change. Does nothing with a configuration of the
    /// caller.
    ///
    /// # Errors
    /// As for [`Self::new`]; the old configuration stays in use.
    pub fn reload(&self) -> Result<(), Error> {
        let options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(options) = &*options {
            self.swap(build(options)?);
        }
        Ok(())
    }

    /// Replaces the settings for later connections.
    ///
    /// # Errors
    /// As for [`Self::new`]; the old settings stay in use.
    pub fn replace(&self, options: TlsServerOptions) -> Result<(), Error> {
        let config = build(&options)?;
        let mut current = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(options);
        self.swap(config);
        Ok(())
    }

    /// Takes the settings and the configuration of another one, for the connections to come: nothing can fail in it, so that several
    /// servers change together or not at all.
    pub fn take_over(&self, other: Self) {
        let options = other.options.into_inner();
        let config = other.current.into_inner();
        let mut current = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        *current = options.unwrap_or_else(PoisonError::into_inner);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) =
            config.unwrap_or_else(PoisonError::into_inner);
    }

    fn swap(&self, config: ServerConfig) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

fn build(options: &TlsServerOptions) -> Result<ServerConfig, Error> {
    let refused = |error: rustls::Error| wrong(error.to_string());
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(options.minimum_version.versions())
        .map_err(refused)?;
    let builder = match client_verifier(options)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let keys: Result<Vec<_>, _> = options
        .identities
        .iter()
        .map(|pair| pair.load(&provider()).map(Arc::new))
        .collect();
    let keys = keys?;
    if keys.is_empty() {
        return Err(wrong("a TLS server needs a certificate and its key"));
    }
    let mut config = builder.with_cert_resolver(Arc::new(BySni(keys)));
    config.alpn_protocols = protocols(&options.alpn)?;
    // Each configuration has new keys for tickets, so a client whose certificate was revoked cannot resume an old session.
    config.ticketer = Ticketer::new().map_err(refused)?;
    if options.key_log {
        config.key_log = Arc::new(KeyLogFile::new());
    }
    Ok(config)
}

fn client_verifier(
    options: &TlsServerOptions,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    if options.client_certificate == ClientCertificate::NotAsked {
        return Ok(None);
    }
    let ca = options
        .client_ca
        .as_ref()
        .ok_or_else(|| wrong("client certificates need the CA that signs them"))?;
    let roots = Arc::new(store(&ca.certificates()?)?);
    let mut lists = Vec::new();
    for source in &options.revocation_lists {
        lists.extend(source.revocation_lists()?);
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls(lists);
    if options.client_certificate == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map(Some)
        .map_err(|error| wrong(format!("client certificates: {error}")))
}

/// Returns the first certificate with the name that the client asks for, or the first one.
struct BySni(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        asked
            .and_then(|name| self.0.iter().find(|key| has_name(key, &name)))
            .or_else(|| self.0.first())
            .cloned()
    }
}

impl fmt::Debug for BySni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BySni").field(&self.0.len()).finish()
    }
}

fn has_name(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.cert
        .first()
        .and_then(|certificate| ParsedCertificate::try_from(certificate).ok())
        .is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
}
