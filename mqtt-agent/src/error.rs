//! What can go wrong.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use mqtt_proto::{EncodeError, InvalidTopic, ReasonCode, Rule};
use mqtt_session::{Closed, Refused, Violation};

/// Why a connection ended or a call was not done. Cloneable, since everyone who waits is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The transport could not be opened, or failed. The error of the transport is the source.
    Transport(&'static str, Arc<dyn core::error::Error + Send + Sync>),
    /// The server closed the transport without a word.
    EndOfStream,
    /// Something took longer than it may.
    TimedOut(&'static str),
    /// The session ended the connection, or the server did.
    Closed(Closed),
    /// The application asked what cannot be now.
    Refused(Refused),
    /// The server refused each filter of a SUBSCRIBE; these are its codes.
    SubscriptionRefused(Vec<ReasonCode>),
    /// The server refused the message with this code (5).
    MessageRefused(ReasonCode),
    /// A message ended without an acknowledgement.
    NotDelivered(crate::Outcome),
    /// The client was closed, or gave up.
    Stopped,
    /// Not a URL of the form `mqtt://[user[:password]@]host[:port]`.
    Url(String),
    /// An option that cannot be sent.
    Options(String),
    /// A topic name or topic filter that MQTT does not allow: which one it is. What is wrong with it is the source.
    Topic(String, InvalidTopic),
    /// The credentials could not be had. The error of their source is the source.
    Credentials(Arc<dyn core::error::Error + Send + Sync>),
    /// The enhanced authentication failed on this side (5, section 4.12).
    Authentication(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(what, _) => f.write_str(what),
            Self::EndOfStream => f.write_str("the server closed the connection"),
            Self::TimedOut(what) => write!(f, "{what} took too long"),
            Self::Closed(closed) => write!(f, "{closed}{}", hint(closed)),
            Self::Refused(refused) => write!(f, "{refused}"),
            Self::SubscriptionRefused(codes) => {
                write!(f, "the server refused the subscription: {}", first(codes))
            }
            Self::MessageRefused(reason) => write!(f, "the server refused the message: {reason}"),
            Self::NotDelivered(outcome) => write!(f, "the message was not acknowledged: {outcome}"),
            Self::Stopped => f.write_str("the client is closed"),
            Self::Url(what) => write!(f, "not an MQTT URL: {what}"),
            Self::Options(what) | Self::Topic(what, _) => f.write_str(what),
            Self::Credentials(_) => f.write_str("no credentials"),
            Self::Authentication(what) => write!(f, "authentication failed: {what}"),
        }
    }
}

/// The source is the error itself, not the `Arc` that shares it, so that it can be downcast. The errors of the session print their
/// text as this error's own, so the source is theirs.
impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Transport(_, error) | Self::Credentials(error) => Some(&**error),
            Self::Topic(_, error) => Some(error),
            Self::Closed(closed) => closed.source(),
            Self::Refused(refused) => refused.source(),
            _ => None,
        }
    }
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

fn first(codes: &[ReasonCode]) -> ReasonCode {
    codes
        .first()
        .copied()
        .unwrap_or(ReasonCode::UnspecifiedError)
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
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

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::Refused(Refused::Encode(error))
    }
}

impl Error {
    /// The server refused the user name, password or authentication, or does not let this client in.
    #[must_use]
    pub const fn is_authentication_failure(&self) -> bool {
        let reason = match self {
            Self::Closed(Closed::Refused(reason) | Closed::ByPeer(reason)) => *reason,
            Self::Authentication(_) => return true,
            _ => return false,
        };
        matches!(
            reason,
            ReasonCode::BadUserNameOrPassword
                | ReasonCode::NotAuthorized
                | ReasonCode::BadAuthenticationMethod
                | ReasonCode::Banned
        )
    }

    /// Another client connected under the same client identifier. Only MQTT 5 tells.
    #[must_use]
    pub const fn is_session_taken_over(&self) -> bool {
        matches!(
            self,
            Self::Closed(Closed::ByPeer(ReasonCode::SessionTakenOver))
        )
    }
}
