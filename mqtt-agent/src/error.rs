//! The errors of the agent and the adapters.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use mqtt_proto::{EncodeError, InvalidTopic, ReasonCode, Rule};
use mqtt_session::{Closed, Refused, Violation};

/// Why a connection ended or a call failed. The error can be cloned, because each waiting caller gets it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The transport could not be opened, or failed. The source is the error of the transport.
    Transport(&'static str, Arc<dyn core::error::Error + Send + Sync>),
    /// The server closed the transport without DISCONNECT.
    EndOfStream,
    /// An operation took longer than its time limit. The text names the operation.
    TimedOut(&'static str),
    /// The session or the server ended the connection.
    Closed(Closed),
    /// The session refused a call.
    Refused(Refused),
    /// The server refused each filter of a SUBSCRIBE with these reason codes.
    SubscriptionRefused(Vec<ReasonCode>),
    /// The server refused the message with this reason code (5).
    MessageRefused(ReasonCode),
    /// A message ended without an acknowledgement.
    NotDelivered(crate::Outcome),
    /// The client was closed, or stopped.
    Stopped,
    /// A function of the program panicked in the task or thread that drives the client, which is stopped by that.
    Panicked,
    /// Not a URL of the form `mqtt://[user[:password]@]host[:port]`.
    Url(String),
    /// An option that MQTT cannot send.
    Options(String),
    /// The text names a topic name or topic filter that MQTT does not allow. The source says what is wrong with it.
    Topic(String, InvalidTopic),
    /// The source of the credentials failed. The source of this error is its error.
    Credentials(Arc<dyn core::error::Error + Send + Sync>),
    /// The enhanced authentication failed on this side (5, section 4.12).
    Authentication(String),
    /// The store of the client cannot be used. The error of the store has the text.
    Store(StoreFault, Arc<dyn core::error::Error + Send + Sync>),
}

/// Why a client cannot use its store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreFault {
    /// Another process or client uses it.
    InUse,
    /// The content of the store differs from the stored records.
    Damaged,
    /// The store belongs to another client identifier, or has messages of another version of MQTT.
    OtherClient,
    /// There is no room to open it.
    Full,
    /// A call of the system failed. After a failed write nothing more is stored; the next process continues from the stored records.
    Failed,
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
            Self::Panicked => f.write_str("a function that the client called has panicked"),
            Self::Url(what) => write!(f, "not an MQTT URL: {what}"),
            Self::Options(what) | Self::Topic(what, _) => f.write_str(what),
            Self::Credentials(_) => f.write_str("the credentials cannot be obtained"),
            Self::Authentication(what) => write!(f, "authentication failed: {what}"),
            Self::Store(_, error) => write!(f, "{error}"),
        }
    }
}

/// The source is the inner error without its `Arc`, so that it can be downcast. This error prints the text of an error of the
/// session as its own text, so the source of that inner error is the source of this one.
impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Transport(_, error) | Self::Credentials(error) => Some(&**error),
            Self::Topic(_, error) => Some(error),
            Self::Store(_, error) => error.source(),
            Self::Closed(closed) => closed.source(),
            Self::Refused(refused) => refused.source(),
            _ => None,
        }
    }
}

/// Returns a hint that names the option which raises the limit, if there is one.
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
    /// Returns whether the server refused the user name, password or authentication, or does not authorize this client.
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

    /// Returns whether another client connected under the same client identifier. Only MQTT 5 reports this.
    #[must_use]
    pub const fn is_session_taken_over(&self) -> bool {
        matches!(
            self,
            Self::Closed(Closed::ByPeer(ReasonCode::SessionTakenOver))
        )
    }
}
