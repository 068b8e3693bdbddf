//! Who a certificate says that its owner is.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Who a certificate says that its owner is. It stands for that peer only after the handshake, which proves it.
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
}
