//! Translates errors of rustls to one line of text.

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

use crate::error::{Error, ErrorKind};

/// The side of the connection that this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    /// Returns the name of the other side.
    pub(super) const fn peer(self) -> &'static str {
        match self {
            Self::Client => "the server",
            Self::Server => "the client",
        }
    }
}

/// Translates an error of rustls.
pub(super) fn told(error: rustls::Error, side: Side) -> Error {
    use rustls::Error as Tls;
    let peer = side.peer();
    let (kind, message) = match &error {
        Tls::InvalidCertificate(reason) => certificate(reason, side),
        Tls::InvalidCertRevocationList(reason) => (
            ErrorKind::Certificate,
            format!("the revocation list cannot be used: {reason:?}"),
        ),
        Tls::NoCertificatesPresented => (
            ErrorKind::ClientCertificate,
            "the client sent no certificate, and this server requires one".to_owned(),
        ),
        Tls::AlertReceived(alert) => alert_received(*alert, side),
        Tls::NoApplicationProtocol => (
            ErrorKind::Tls,
            format!("{peer} offers none of the application protocols (ALPN) of this side"),
        ),
        Tls::PeerIncompatible(reason) => (ErrorKind::Tls, incompatible(reason, peer)),
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => (
            ErrorKind::WrongProtocol,
            format!("{peer} does not speak TLS: is this the right port?"),
        ),
        Tls::DecryptError => (
            ErrorKind::Tls,
            "a record could not be decrypted: bytes were changed or lost on the way".to_owned(),
        ),
        other => (ErrorKind::Tls, format!("TLS: {other}")),
    };
    Error::new(kind, message).because(error)
}

fn certificate(reason: &CertificateError, side: Side) -> (ErrorKind, String) {
    let whose = match side {
        Side::Client => "the server's certificate",
        Side::Server => "the client's certificate",
    };
    let day = |time: &rustls::pki_types::UnixTime| date(time.as_secs());
    let message = match reason {
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let found = listed(presented);
            let expected = expected.to_str();
            format!("{whose} is for another host: expected {expected}, found {found}")
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("{whose} expired on {}", day(not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("{whose} is not valid before {}", day(not_before))
        }
        CertificateError::Expired => format!("{whose} expired"),
        CertificateError::NotValidYet => format!("{whose} is not valid yet"),
        CertificateError::UnknownIssuer => {
            format!("{whose} is signed by an unknown CA: name the CA that signed it")
        }
        CertificateError::Revoked => format!("{whose} was revoked"),
        CertificateError::UnknownRevocationStatus => {
            format!("no revocation list tells about {whose}")
        }
        CertificateError::ApplicationVerificationFailure => {
            format!("{whose} is none of those that were pinned")
        }
        CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
            format!("{whose} may not be used for this: {reason}")
        }
        // The error of webpki is not public here.
        CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => {
            format!("{whose} is that of a CA: use one that a CA has signed")
        }
        other => format!("{whose} is not accepted: {other}"),
    };
    (ErrorKind::Certificate, message)
}

/// Returns the first names of a certificate in one line.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<_> = names
        .iter()
        .take(SHOWN)
        .map(|name| bare(name).escape_debug().to_string())
        .collect();
    match names.len() {
        0 => return "no name".to_owned(),
        n if n > SHOWN => shown.push(format!("{} more", n - SHOWN)),
        _ => {}
    }
    shown.join(", ")
}

/// Returns `a.example` of `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    name.split_once("(\"")
        .and_then(|(_, rest)| rest.strip_suffix("\")"))
        .unwrap_or(name)
}

fn alert_received(alert: AlertDescription, side: Side) -> (ErrorKind, String) {
    use AlertDescription as Alert;
    let peer = side.peer();
    let about_certificate = matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    );
    let reason = reason(alert);
    match (side, alert) {
        (Side::Client, Alert::CertificateRequired) => (
            ErrorKind::ClientCertificate,
            "the server requires a client certificate, and none was given".to_owned(),
        ),
        (Side::Client, _) if about_certificate => (
            ErrorKind::ClientCertificate,
            format!("the server refuses the client certificate, or its absence: {reason}"),
        ),
        (Side::Server, _) if about_certificate => (
            ErrorKind::Certificate,
            format!("the client refuses this server's certificate: {reason}"),
        ),
        (_, Alert::NoApplicationProtocol) => (
            ErrorKind::Tls,
            format!("{peer} speaks none of the application protocols (ALPN) that were offered"),
        ),
        (_, Alert::ProtocolVersion) => (
            ErrorKind::Tls,
            format!("{peer} speaks no version of TLS that this side speaks (1.2 and 1.3)"),
        ),
        _ => (ErrorKind::Tls, format!("{peer} ended TLS: {reason}")),
    }
}

fn reason(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::BadCertificate => "it is bad".to_owned(),
        Alert::UnsupportedCertificate => "its kind is not supported".to_owned(),
        Alert::CertificateRevoked => "it was revoked".to_owned(),
        Alert::CertificateExpired => "it expired".to_owned(),
        Alert::CertificateUnknown => "it is not accepted".to_owned(),
        Alert::UnknownCA => "its CA is unknown".to_owned(),
        Alert::HandshakeFailure => "no common parameters for the handshake".to_owned(),
        Alert::UnrecognisedName => "it does not know the server name".to_owned(),
        other => format!("alert {other:?}"),
    }
}

fn incompatible(reason: &PeerIncompatible, peer: &str) -> String {
    match reason {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
            format!("{peer} speaks no version of TLS that this side speaks")
        }
        other => format!("{peer} and this side have no common TLS: {other:?}"),
    }
}

/// Formats a day, such as `2026-11-28`.
fn date(seconds: u64) -> String {
    // Days are counted from 0000-03-01, so that a leap day is the last day of its year.
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_709_164_800), "2024-02-29");
        assert_eq!(date(1_704_067_199), "2023-12-31");
        assert_eq!(date(4_107_542_400), "2100-03-01");
    }
}
