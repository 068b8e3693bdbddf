//! Makes certificates for tests. Each test has a separate authority.

use std::fmt;

use mqtt_transport::tls::rustls::RootCertStore;
use mqtt_transport::tls::{KeyPair, Source};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// An authority that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    certificate: rcgen::Certificate,
    pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority").field(&self.pem).finish()
    }
}

/// The fields of a certificate.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The common name.
    pub common_name: String,
    /// Host names and addresses.
    pub names: Vec<String>,
    /// E-mail addresses.
    pub emails: Vec<String>,
    /// The first and the last year of its validity.
    pub years: (i32, i32),
    /// The serial number of the certificate.
    pub serial: u64,
}

impl Subject {
    /// Makes the fields for a host with this name or address.
    #[must_use]
    pub fn host(name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            ..Self::client(name)
        }
    }

    /// Makes the fields for a client with this common name.
    #[must_use]
    pub fn client(common_name: &str) -> Self {
        Self {
            common_name: common_name.to_owned(),
            names: Vec::new(),
            emails: Vec::new(),
            years: (2020, 2100),
            serial: 1,
        }
    }
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Issued {
    /// Returns certificate and key for the settings of a stage.
    #[must_use]
    pub fn pair(&self) -> KeyPair {
        KeyPair::new(pem_source(&self.certificate), pem_source(&self.key))
    }
}

/// Returns a source with this PEM.
#[must_use]
pub fn pem_source(pem: &str) -> Source {
    Source::Bytes(pem.as_bytes().to_vec())
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Panics
    /// The system has no random numbers.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let pem = certificate.pem();
        let issuer = Issuer::new(params, key);
        Self {
            issuer,
            certificate,
            pem,
        }
    }

    /// Returns its own certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns its own certificate as DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// Returns a store of roots with this authority only.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let certificate = self.certificate.der().clone();
        roots.add(certificate).expect("an authority");
        roots
    }

    /// Returns its own certificate for the settings of a stage.
    #[must_use]
    pub fn source(&self) -> Source {
        pem_source(&self.pem)
    }

    /// Returns its own certificate and key, as those who mistake it for a server's use them.
    #[must_use]
    pub fn own(&self) -> Issued {
        Issued {
            certificate: self.pem.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// Signs a certificate.
    ///
    /// # Panics
    /// A name is invalid.
    #[must_use]
    pub fn issue(&self, subject: &Subject) -> Issued {
        let mut params = CertificateParams::new(subject.names.clone()).expect("names of hosts");
        let name = subject.common_name.as_str();
        params.distinguished_name.push(DnType::CommonName, name);
        for email in &subject.emails {
            let email = email.as_str().try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::Rfc822Name(email));
        }
        params.serial_number = Some(SerialNumber::from(subject.serial));
        params.not_before = date_time_ymd(subject.years.0, 1, 1);
        params.not_after = date_time_ymd(subject.years.1, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Signs a revocation list with these serial numbers, for the settings of a stage.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn revoke(&self, serials: &[u64]) -> Source {
        pem_source(&self.revocation_list(serials))
    }

    /// Signs a revocation list with these serial numbers, and returns it as PEM.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn revocation_list(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a revocation list");
        list.pem().expect("PEM")
    }
}
