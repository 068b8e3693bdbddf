//! Checks of a server's certificate that do not ask a CA, or not for a name.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

/// Which certificates are accepted.
#[derive(Debug)]
pub(super) enum Accepted {
    /// Certificates that a CA signed, for any host.
    AnyName(Arc<WebPkiServerVerifier>),
    /// These only.
    Pinned(Vec<CertificateDer<'static>>),
    /// All.
    Any,
}

/// A check that is less strict than that of rustls. The handshake still proves that the server has the key of its certificate.
#[derive(Debug)]
pub(super) struct Lenient {
    pub(super) accepted: Accepted,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.accepted {
            Accepted::AnyName(verifier) => {
                let verified = verifier.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                );
                // The name is compared last, after the CA and the dates.
                verified.or_else(|error| match error {
                    rustls::Error::InvalidCertificate(
                        CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. },
                    ) => Ok(ServerCertVerified::assertion()),
                    other => Err(other),
                })
            }
            Accepted::Pinned(pinned) if !pinned.contains(end_entity) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Accepted::Pinned(_) | Accepted::Any => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
