//! Each error prints its own text, and its source prints another one.

use std::error::Error as _;
use std::fmt;

use mqtt_embedded::session::{Refused, Violation};
use mqtt_embedded::{Error, SessionError};

/// An error of a transport that has a source.
#[derive(Debug)]
struct Framing(std::io::Error);

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a framing error")
    }
}

impl std::error::Error for Framing {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn an_error_of_the_transport_keeps_its_source() {
    let error = Error::Io(Framing(std::io::Error::other("noise on the line")));
    assert_eq!(error.to_string(), "a framing error");
    let source = error.source().map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("noise on the line"));
}

#[test]
fn an_error_of_the_session_prints_its_text_once() {
    for (error, text) in [
        (
            SessionError::Violation(Violation::PingTimeout),
            Violation::PingTimeout.to_string(),
        ),
        (
            SessionError::Refused(Refused::Full),
            Refused::Full.to_string(),
        ),
        (
            SessionError::EndOfFile,
            "the server closed the connection".to_owned(),
        ),
        (
            SessionError::WriteZero,
            "the transport takes no more bytes".to_owned(),
        ),
    ] {
        let error: Error<Framing> = error.into();
        assert_eq!(error.to_string(), text);
        assert!(error.source().is_none());
    }
}
