//! The names of a certificate's owner.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::error::{Error, ErrorKind};

/// The names of a certificate's owner. They are the names of the peer only after the handshake, which proves that the peer has
/// the key.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Identity {
    /// The subject, as RFC 4514 writes it: `CN=pump-7,O=Example`.
    pub subject: String,
    /// The first common name of the subject.
    pub common_name: Option<String>,
    /// Names of hosts, of the extension for other names.
    pub dns_names: Vec<String>,
    /// Addresses of e-mail, of the same.
    pub emails: Vec<String>,
    /// URIs, of the same.
    pub uris: Vec<String>,
}

impl Identity {
    /// Reads a certificate. What cannot be read is left out.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok(certificate) = Certificate::from_der(certificate) else {
            return Self::default();
        };
        let certificate = certificate.tbs_certificate();
        let subject = certificate.subject();
        let mut identity = Self {
            subject: subject.to_string(),
            common_name: subject
                .common_name()
                .ok()
                .flatten()
                .map(|name| name.value().into_owned()),
            ..Self::default()
        };
        let names = certificate.get_extension::<SubjectAltName>();
        if let Ok(Some((_, SubjectAltName(names)))) = names {
            for name in names {
                match name {
                    GeneralName::DnsName(name) => identity.dns_names.push(name.to_string()),
                    GeneralName::Rfc822Name(name) => identity.emails.push(name.to_string()),
                    GeneralName::UniformResourceIdentifier(name) => {
                        identity.uris.push(name.to_string());
                    }
                    _ => {}
                }
            }
        }
        identity
    }

    /// Returns one part of it, to be a user name.
    ///
    /// # Errors
    /// The certificate does not have this part, or it is empty.
    pub fn part(&self, part: IdentityPart) -> Result<&str, Error> {
        let found = match part {
            IdentityPart::CommonName => self.common_name.as_deref(),
            IdentityPart::Subject => Some(&*self.subject),
            IdentityPart::DnsName => self.dns_names.first().map(String::as_str),
            IdentityPart::Email => self.emails.first().map(String::as_str),
            IdentityPart::Uri => self.uris.first().map(String::as_str),
        };
        found.filter(|name| !name.is_empty()).ok_or_else(|| {
            Error::new(
                ErrorKind::ClientCertificate,
                format!("the certificate of the client has no {part}, which names its user"),
            )
        })
    }
}

/// A part of a certificate that can name a user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IdentityPart {
    /// The common name of the subject.
    CommonName,
    /// The whole subject.
    Subject,
    /// The first name of a host.
    DnsName,
    /// The first address of e-mail.
    Email,
    /// The first URI.
    Uri,
}

impl IdentityPart {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::CommonName,
        Self::Subject,
        Self::DnsName,
        Self::Email,
        Self::Uri,
    ];
}

/// As settings name it: `common-name`, `subject`, `dns-name`, `email` or `uri`.
impl fmt::Display for IdentityPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommonName => "common-name",
            Self::Subject => "subject",
            Self::DnsName => "dns-name",
            Self::Email => "email",
            Self::Uri => "uri",
        })
    }
}
