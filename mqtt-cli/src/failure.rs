//! Holds the errors of the program: one line of text and an exit code.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use mqtt_adapter_core::transport::ErrorKind;
use mqtt_tokio::session::Closed;
use mqtt_tokio::{Error, proto::Version};

use crate::secrets;

/// One line of text for standard error, and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
}

/// The exit code at the end of the time of `-W`.
pub(crate) const TIMED_OUT: u8 = 27;

/// The exit code of a broker from which another process has taken over.
const SUPERSEDED: u8 = 75;

/// The exit code after a panic: that of a panic of the first thread.
pub(crate) const PANICKED: u8 = 101;

/// The exit code for a failure of TLS or WebSocket, which mosquitto's programs use for TLS.
const LAYERS: u8 = 8;

/// Returns the exit code for an error of a transport.
fn of_layers(error: &(dyn std::error::Error + 'static)) -> u8 {
    let inner = error
        .downcast_ref::<io::Error>()
        .and_then(|error| error.get_ref())
        .and_then(|inner| inner.downcast_ref::<mqtt_adapter_core::transport::Error>());
    match inner.map(mqtt_adapter_core::transport::Error::kind) {
        None | Some(ErrorKind::Proxy | ErrorKind::Settings) => 1,
        Some(_) => LAYERS,
    }
}

/// Makes an error with the exit code 1.
pub(crate) fn fail(message: impl fmt::Display) -> Failure {
    Failure {
        code: 1,
        message: message.to_string(),
    }
}

/// Makes the error of a process in which a thread or task has panicked.
pub(crate) fn defect() -> Failure {
    Failure {
        code: PANICKED,
        ..fail("a defect of this program ended it")
    }
}

/// Returns an error and its sources in one line.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

impl Failure {
    /// Makes the error of a connection. If the server refused it, the exit code is that of CONNACK: 1 to 5 of 3.1.1, 128 and
    /// above of 5.
    pub(crate) fn connection(error: &Error, version: Version) -> Self {
        let code = match error {
            Error::Closed(Closed::Refused(reason)) if version.is_v5() => reason.get(),
            Error::Closed(Closed::Refused(reason)) => reason.to_return_code().unwrap_or(1),
            Error::Transport(_, error) => of_layers(&**error),
            _ => 1,
        };
        Self {
            code,
            message: sentence(error),
        }
    }

    /// Makes the error of a connection that could not be opened. The error names the server.
    pub(crate) fn io(error: &io::Error) -> Self {
        Self {
            code: of_layers(error),
            message: error.to_string(),
        }
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self {
            code: TIMED_OUT,
            message: message.into(),
        }
    }

    pub(crate) fn exit(&self) -> ExitCode {
        // The exit code is returned even if the message cannot be written.
        let _ = writeln!(io::stderr(), "mqtt: {self}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&secrets::removed(&self.message))
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        fail(sentence(&error))
    }
}

impl From<mqtt_broker_host::Error> for Failure {
    fn from(error: mqtt_broker_host::Error) -> Self {
        let mut failure = fail(sentence(&error));
        if matches!(&error, mqtt_broker_host::Error::StoreFailed(why) if why.is_superseded()) {
            failure.code = SUPERSEDED;
        }
        failure
    }
}
