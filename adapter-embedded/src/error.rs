use mqtt_session::{Refused, Violation};

/// Why a connection ended, or could not begin. The session survives all of them. What is not the transport's is a
/// [`SessionError`], which may grow; this enum does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error<E> {
    /// The transport failed, with its own error.
    #[error(transparent)]
    Io(E),
    /// The session, the server or the end of the transport's bytes ended it.
    #[error(transparent)]
    Session(SessionError),
}

/// What was not the transport's own error.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SessionError {
    /// The server broke a rule, stopped answering, or sent bytes that are no packet, as noise on a line looks.
    #[error(transparent)]
    Violation(Violation),
    /// CONNECT cannot be written.
    #[error(transparent)]
    Refused(Refused),
    /// The transport read nothing where something was asked for: the other side closed it.
    #[error("the server closed the connection")]
    EndOfFile,
    /// The transport took nothing of what was to be written, which its contract forbids.
    #[error("the transport takes no more bytes")]
    WriteZero,
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
