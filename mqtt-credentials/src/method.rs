//! The hash functions of signatures.

use alloc::vec::Vec;

use hmac::{Hmac, Mac};

/// The hash function of a signature, which is always an HMAC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// HMAC with MD5: 16 bytes.
    Md5,
    /// HMAC with SHA-1: 20 bytes.
    Sha1,
    /// HMAC with SHA-256: 32 bytes.
    #[default]
    Sha256,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 3] = [Self::Md5, Self::Sha1, Self::Sha256];

    /// Returns the name: `md5`, `sha1` or `sha256`. Aliyun writes `hmac` before it.
    ///
    /// ```
    /// assert_eq!(mqtt_credentials::Method::Sha256.name(), "sha256");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    pub(crate) fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => mac::<Hmac<md5::Md5>>(key, text),
            Self::Sha1 => mac::<Hmac<sha1::Sha1>>(key, text),
            Self::Sha256 => mac::<Hmac<sha2::Sha256>>(key, text),
        }
    }
}

fn mac<M: Mac + hmac::digest::KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length; other kinds of MAC do not.
    <M as Mac>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mac| mac.chain_update(text).finalize().into_bytes().to_vec(),
    )
}
