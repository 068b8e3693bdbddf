//! The errors of stages.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a stage ended, or could not be made: the kind of the error, and one line of text.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The kind of an [`Error`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer speaks another protocol, such as plain MQTT on a port for TLS.
    WrongProtocol,
    /// The peer closed the connection during the handshake.
    HandshakeCut,
    /// The peer closed the connection without the end of TLS: bytes may be missing.
    Truncated,
    /// The certificate of the peer is not accepted: it expired, is for another name, was revoked, or its issuer is unknown.
    Certificate,
    /// The server requires a client certificate and got none, or refused the one it got.
    ClientCertificate,
    /// Another error of TLS.
    Tls,
    /// HTTP that is no upgrade to WebSocket, or an answer that refuses it.
    Http,
    /// The peer offered or chose no sub-protocol of MQTT.
    SubProtocol,
    /// The peer broke a rule of WebSocket.
    WebSocket,
    /// The peer sent a text frame; MQTT uses binary frames only.
    TextFrame,
    /// Headers, a frame or a message exceed their limit.
    TooLarge,
    /// The proxy refused the connection, or does not follow its protocol.
    Proxy,
    /// The peer demands answers and does not read them.
    Flooded,
    /// A setting that cannot be used, such as a file that cannot be read.
    Settings,
}

impl Error {
    /// Makes an error of a stage. The message is one line of text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            cause: None,
        }
    }

    #[cfg(any(feature = "tls", feature = "websocket"))]
    pub(crate) fn because(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// Returns the error of rustls, tungstenite or the system behind this one, which can be downcast.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause
            .as_deref()
            .map(|cause| -> &(dyn std::error::Error + 'static) { cause })
    }

    /// Puts the name of a server, or another place, in front of the message.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Returns the kind of the error.
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

/// There is no source, since the message has the text of the cause or a plainer sentence for it; see [`Error::cause`].
impl std::error::Error for Error {}

/// Keeps the error as the inner error, which can be downcast.
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
