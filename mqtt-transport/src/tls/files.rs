//! Reads certificates, keys and revocation lists from files in PEM or DER.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, fs, io};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::wrong;
use crate::error::Error;

/// The largest accepted file. The CAs of a system take a quarter of a MiB.
const LIMIT: u64 = 16 << 20;

/// The source of certificates, keys or revocation lists: any number of items in PEM, or one in DER.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// A file. It is read again for each new connection of a client, and when a server reloads.
    File(PathBuf),
    /// The content of such a file.
    Bytes(Vec<u8>),
    /// A function that returns such a content, for example of a key store. It is called when a file would be read.
    Function(SourceFunction),
}

/// The function of [`Source::Function`]. Two are equal if they are clones of each other.
#[derive(Clone)]
pub struct SourceFunction(Arc<dyn Fn() -> io::Result<Vec<u8>> + Send + Sync>);

impl SourceFunction {
    /// Makes a source of a function, which must not wait for long: a client calls it while it connects.
    pub fn new(read: impl Fn() -> io::Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl PartialEq for SourceFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SourceFunction {}

impl fmt::Debug for SourceFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceFunction")
    }
}

/// The bytes may be a key, so they are not shown.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shown())
    }
}

impl<P: Into<PathBuf>> From<P> for Source {
    fn from(path: P) -> Self {
        Self::File(path.into())
    }
}

impl Source {
    /// Returns the name for messages.
    fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Bytes(_) => "the given bytes".to_owned(),
            Self::Function(_) => "the given function".to_owned(),
        }
    }

    fn read(&self) -> Result<Cow<'_, [u8]>, Error> {
        let path = match self {
            Self::File(path) => path,
            Self::Bytes(bytes) => return Ok(Cow::Borrowed(bytes)),
            Self::Function(function) => {
                let bytes = (function.0)().map_err(|error| self.wrong(&error).because(error))?;
                return Ok(Cow::Owned(bytes));
            }
        };
        let failed =
            |error: io::Error| wrong(format!("{}: {error}", path.display())).because(error);
        if fs::metadata(path).map_err(failed)?.len() > LIMIT {
            return Err(self.wrong(format!("larger than {LIMIT} bytes")));
        }
        fs::read(path).map(Cow::Owned).map_err(failed)
    }

    pub(super) fn wrong(&self, why: impl fmt::Display) -> Error {
        wrong(format!("{}: {why}", self.shown()))
    }

    /// Returns all certificates of PEM, or the one of DER.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let bytes = self.read()?;
        if is_der(&bytes) {
            return Ok(vec![CertificateDer::from(bytes.into_owned())]);
        }
        self.items(CertificateDer::pem_slice_iter(&bytes), "certificate")
    }

    /// Returns all revocation lists of PEM, or the one of DER.
    pub(super) fn revocation_lists(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let bytes = self.read()?;
        if is_der(&bytes) {
            return Ok(vec![CertificateRevocationListDer::from(bytes.into_owned())]);
        }
        self.items(
            CertificateRevocationListDer::pem_slice_iter(&bytes),
            "revocation list",
        )
    }

    fn items<T>(
        &self,
        found: impl Iterator<Item = Result<T, pem::Error>>,
        what: &str,
    ) -> Result<Vec<T>, Error> {
        let found: Vec<T> = found
            .collect::<Result<_, _>>()
            .map_err(|error| self.wrong(error))?;
        if found.is_empty() {
            return Err(self.wrong(format!("there is no {what} in it")));
        }
        Ok(found)
    }

    /// Returns the first private key of PEM, or the one of DER.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        let bytes = self.read()?;
        if is_der(&bytes) {
            return PrivateKeyDer::try_from(bytes.into_owned()).map_err(|error| self.wrong(error));
        }
        if bytes
            .windows(ENCRYPTED.len())
            .any(|window| window == ENCRYPTED)
        {
            return Err(self.wrong(
                "the key is encrypted; store it without a password, readable for its owner only",
            ));
        }
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => self.wrong("there is no private key in it"),
            error => self.wrong(error),
        })
    }
}

/// The mark of a PEM key with a password, in its first lines.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// Recognises a SEQUENCE with a length of more than one byte, with which each of these files begins in DER.
fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x81..=0x84, ..])
}
