//! Why a stage ended.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a stage ended, or could not be made: what kind of fault it is, and one line for a person.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What kind of fault an [`Error`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer speaks another protocol, such as plain MQTT on a port for TLS.
    WrongProtocol,
    /// The peer closed the connection before the handshake was over.
    HandshakeCut,
    /// The peer closed the connection without the end that TLS asks for: bytes may be missing.
    Truncated,
    /// The certificate of the peer is not accepted: it expired, is for another name, was revoked, or its issuer is unknown.
    Certificate,
    /// The server asks for a client certificate and got none, or refused the one it got.
    ClientCertificate,
    /// Anything else that TLS refuses.
    Tls,
    /// HTTP that is no upgrade to WebSocket, or an answer that refuses it.
    Http,
    /// The peer asked for no sub-protocol that MQTT has, or chose none.
    SubProtocol,
    /// The peer broke a rule of WebSocket.
    WebSocket,
    /// The peer sent a text frame; MQTT allows binary ones only.
    TextFrame,
    /// Headers, a frame or a message are larger than the limit.
    TooLarge,
    /// The proxy refused the connection, or what it said is none of its protocol.
    Proxy,
    /// The peer makes this side answer and does not read the answers.
    Flooded,
    /// A setting that cannot be used, such as a file that cannot be read.
    Settings,
}

impl Error {
    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    #[cfg(any(feature = "tls", feature = "websocket"))]
    pub(crate) fn because(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The error of rustls, tungstenite or the system that it tells of, to be downcast.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| -> &(dyn std::error::Error + 'static) { source })
    }

    /// What kind of fault it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

/// The message tells all of it, so there is no source to be printed behind it; see [`Error::cause`].
impl std::error::Error for Error {}

/// Keeps the error as the inner one, so that it can be downcast.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::HandshakeCut | ErrorKind::Truncated => io::ErrorKind::UnexpectedEof,
            ErrorKind::ClientCertificate => io::ErrorKind::PermissionDenied,
            ErrorKind::Proxy => io::ErrorKind::ConnectionRefused,
            ErrorKind::Settings => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
