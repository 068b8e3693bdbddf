//! What can go wrong with a connection or a handle.

use std::io;

use mqtt_proto::Rule;
use mqtt_session::{Closed, Refused, Violation};

/// Why a connection ended or a call was not done. Cloneable, since every waiter is told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transport failed, or could not be opened.
    #[error("{1}")]
    Io(io::ErrorKind, String),
    /// The session ended the connection, or the server did.
    #[error("{0}{hint}", hint = hint(.0))]
    Closed(Closed),
    /// The application asked what cannot be now.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The handle was closed, or gave up reconnecting.
    #[error("the client is closed")]
    HandleClosed,
    /// Not a URL of the form `mqtt://[user[:password]@]host[:port]`.
    #[error("not an MQTT URL: {0}")]
    Url(String),
    /// An option that cannot be sent.
    #[error("{0}")]
    Options(String),
}

/// A limit that can be raised is named.
fn hint(closed: &Closed) -> &'static str {
    match closed {
        Closed::Violation(Violation::Malformed(error))
            if matches!(error.rule, Rule::TooLarge { .. }) =>
        {
            " (the limit is Options::config.packet_limit)"
        }
        _ => "",
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind(), error.to_string())
    }
}

impl From<Closed> for Error {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Closed(violation.into())
    }
}

impl Error {
    /// The transport said end of file while the connection was open.
    #[must_use]
    pub fn end_of_file() -> Self {
        Self::Io(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection".to_owned(),
        )
    }

    /// Nothing happened in time.
    #[must_use]
    pub fn timed_out(what: &str) -> Self {
        Self::Io(io::ErrorKind::TimedOut, format!("{what} took too long"))
    }
}
