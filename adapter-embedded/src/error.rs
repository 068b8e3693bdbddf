use mqtt_proto::ReasonCode;
use mqtt_session::{Refused, Violation};

/// Why a connection ended, or could not begin. The session is kept after each of them. Errors that are not those of the
/// transport are in [`SessionError`], which may grow; this enum does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error<E> {
    /// The transport failed with this error.
    #[error(transparent)]
    Io(E),
    /// The session, the server, or the end of the stream ended the connection.
    #[error(transparent)]
    Session(SessionError),
}

/// Errors other than those of the transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SessionError {
    /// The server broke a rule, did not answer, or sent bytes that are no packet, for example because of noise on the line.
    #[error(transparent)]
    Violation(Violation),
    /// CONNECT cannot be written.
    #[error(transparent)]
    Refused(Refused),
    /// The connection was over before this step, which waits for nothing more: a line without a carrier would be silent for ever.
    #[error(transparent)]
    Over(Over),
    /// A read returned no byte although there was room: the other side closed the transport.
    #[error("the server closed the connection")]
    EndOfFile,
    /// A write took no byte, which the contract of the transport forbids.
    #[error("the transport takes no more bytes")]
    WriteZero,
    /// The session was not stored. What waits for that is not sent.
    #[cfg(feature = "flash")]
    #[error(transparent)]
    Flash(crate::FlashError),
}

/// Why a connection was over before a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Over {
    /// The server refused the connection with this reason, as [`Event::Refused`](mqtt_session::Event::Refused) reported. Those of
    /// 3.1.1 are told as the reason codes of MQTT 5.
    #[error("the server refused the connection: {0}")]
    Refused(ReasonCode),
    /// The server ended the connection with this reason, as [`Event::Disconnected`](mqtt_session::Event::Disconnected) reported.
    #[error("the server ended the connection: {0}")]
    Disconnected(ReasonCode),
    /// This side ended it: [`Client::disconnect`](mqtt_session::Client::disconnect) was called and DISCONNECT is written, or an
    /// earlier step returned an error.
    #[error("the connection was ended before")]
    Closed,
}

#[cfg(feature = "flash")]
impl<E> From<crate::FlashError> for Error<E> {
    fn from(error: crate::FlashError) -> Self {
        Self::Session(SessionError::Flash(error))
    }
}

impl<E> From<Violation> for Error<E> {
    fn from(violation: Violation) -> Self {
        Self::Session(SessionError::Violation(violation))
    }
}

impl<E> From<Refused> for Error<E> {
    fn from(refused: Refused) -> Self {
        Self::Session(SessionError::Refused(refused))
    }
}

impl<E> From<SessionError> for Error<E> {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}
