//! The settings of a TLS client.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{KeyLogFile, RootCertStore};

use super::verify::{Accepted, Lenient};
use super::{KeyPair, Source, TlsStage, TlsVersion, provider, wrong};
use crate::error::Error;

/// Which certificates of servers are accepted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Roots {
    /// Certificates signed by a CA of the system. `SSL_CERT_FILE` and `SSL_CERT_DIR` name other CAs.
    #[default]
    Platform,
    /// Certificates signed by one of these CAs.
    Ca(Source),
    /// Certificates signed by a CA of this directory: each PEM file in it may have some.
    CaDirectory(PathBuf),
    /// Only these certificates, whatever their names, dates and issuers are.
    Pinned(Source),
    /// Any certificate. An attacker between client and server can read and change everything, including passwords.
    InsecureAcceptAny,
}

/// The settings of a TLS client.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Which certificates of servers are accepted. Default: those of the CAs of the system.
    pub roots: Roots,
    /// The client certificate. Default none.
    pub identity: Option<KeyPair>,
    /// The name in the certificate of the server and in SNI. Default: the host that is dialled.
    pub server_name: Option<String>,
    /// Accepts a certificate for whatever host, as long as its CA and dates are right: whoever has any certificate of that CA can
    /// read and change everything. Default `false`.
    pub insecure_accept_any_name: bool,
    /// The application protocols that the client offers (ALPN), such as [`ALPN_MQTT`](super::ALPN_MQTT). Default none.
    pub alpn: Vec<Vec<u8>>,
    /// The lowest version of TLS. Default 1.2.
    pub minimum_version: TlsVersion,
    /// Whether to write the secrets of each connection to the file of the environment variable `SSLKEYLOGFILE`, for
    /// debugging. Whoever has that file can read all traffic. Default `false`.
    pub key_log: bool,
    /// A configuration of the caller. All other settings but [`Self::server_name`] are ignored then.
    pub config: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("roots", &self.roots)
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .field("minimum_version", &self.minimum_version)
            .field("config", &self.config.is_some())
            .finish_non_exhaustive()
    }
}

/// Makes the TLS stages of a client, all with one configuration, so that a reconnect resumes the TLS session. It reads the
/// files of the settings again for each stage, and makes a new configuration if one has changed.
#[derive(Debug)]
pub struct TlsConnector {
    options: TlsOptions,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    material: Material,
    config: Arc<ClientConfig>,
}

/// The content of the files of the settings.
struct Material {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<Arc<CertifiedKey>>,
    key: Option<rustls::pki_types::PrivateKeyDer<'static>>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

impl Material {
    fn is(&self, other: &Self) -> bool {
        let chain = |material: &Self| material.identity.as_ref().map(|key| key.cert.clone());
        self.roots == other.roots && chain(self) == chain(other) && self.key == other.key
    }
}

impl TlsConnector {
    /// Reads the files of the settings, so that an error is known before the first connection.
    ///
    /// # Errors
    /// A file cannot be read or is empty, the key does not belong to the certificate, or a name is no valid host name.
    pub fn new(options: TlsOptions) -> Result<Self, Error> {
        let connector = Self {
            options,
            loaded: Mutex::new(None),
        };
        if let Some(name) = &connector.options.server_name {
            server_name(name)?;
        }
        connector.config()?;
        Ok(connector)
    }

    /// Makes a stage for a connection to `host`, which is a name or an address.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn stage(&self, host: &str) -> Result<TlsStage, Error> {
        let name = self.options.server_name.as_deref().unwrap_or(host);
        TlsStage::client(self.config()?, server_name(name)?)
    }

    /// Returns the configuration of the next connection.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = &self.options.config {
            return Ok(Arc::clone(config));
        }
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let material = self.material(loaded.as_ref())?;
        match &*loaded {
            Some(loaded) if loaded.material.is(&material) => Ok(Arc::clone(&loaded.config)),
            _ => {
                let config = Arc::new(self.build(&material)?);
                *loaded = Some(Loaded {
                    material,
                    config: Arc::clone(&config),
                });
                Ok(config)
            }
        }
    }

    fn material(&self, before: Option<&Loaded>) -> Result<Material, Error> {
        let roots = match &self.options.roots {
            // The CAs of the system are read once, since that takes some milliseconds.
            Roots::Platform => match before {
                Some(before) => before.material.roots.clone(),
                None => platform()?,
            },
            Roots::Ca(source) | Roots::Pinned(source) => source.certificates()?,
            Roots::CaDirectory(path) => directory(path)?,
            Roots::InsecureAcceptAny => Vec::new(),
        };
        let identity = self.options.identity.as_ref();
        Ok(Material {
            roots,
            key: identity.map(|pair| pair.key.key()).transpose()?,
            identity: identity
                .map(|pair| pair.load(&provider()))
                .transpose()?
                .map(Arc::new),
        })
    }

    fn build(&self, material: &Material) -> Result<ClientConfig, Error> {
        let options = &self.options;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(options.minimum_version.versions())
            .map_err(|error| wrong(error.to_string()))?;
        let accepted = match options.roots {
            Roots::Pinned(_) => Some(Accepted::Pinned(material.roots.clone())),
            Roots::InsecureAcceptAny => Some(Accepted::Any),
            _ => None,
        };
        let lenient = |accepted| {
            let algorithms = provider().signature_verification_algorithms;
            Arc::new(Lenient {
                accepted,
                algorithms,
            })
        };
        let builder = match accepted {
            Some(accepted) => builder
                .dangerous()
                .with_custom_certificate_verifier(lenient(accepted)),
            None => {
                let roots = Arc::new(store(&material.roots)?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|error| wrong(error.to_string()))?;
                match options.insecure_accept_any_name {
                    true => builder
                        .dangerous()
                        .with_custom_certificate_verifier(lenient(Accepted::AnyName(verifier))),
                    false => builder.with_webpki_verifier(verifier),
                }
            }
        };
        let mut config = match &material.identity {
            Some(key) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols(&options.alpn)?;
        if options.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }
}

/// Returns the name that a certificate must have for this host.
fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| wrong(format!("{host:?} is not a valid name for a certificate")))
}

/// Checks the length of the names of application protocols, which one byte encodes.
pub(super) fn protocols(names: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Error> {
    let is_wrong = |name: &Vec<u8>| name.is_empty() || name.len() > usize::from(u8::MAX);
    if names.iter().any(is_wrong) {
        return Err(wrong("an application protocol (ALPN) has 1 to 255 bytes"));
    }
    Ok(names.to_vec())
}

/// Makes a store of CAs.
pub(super) fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    // Certificates of the system that rustls cannot read are left out.
    let (taken, _) = store.add_parsable_certificates(roots.iter().cloned());
    if taken == 0 {
        return Err(wrong("none of the CA certificates can be read"));
    }
    Ok(store)
}

fn platform() -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found
            .errors
            .first()
            .map_or_else(|| "there is none".to_owned(), ToString::to_string);
        return Err(wrong(format!(
            "the system has no CA certificates ({why}): install them, or name a CA file"
        )));
    }
    Ok(found.certs)
}

fn directory(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = rustls_native_certs::load_certs_from_paths(None, Some(path));
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(
            || "there is no CA certificate in it".to_owned(),
            ToString::to_string,
        );
        return Err(wrong(format!("{}: {why}", path.display())));
    }
    Ok(found.certs)
}
