//! Names the server in the error of a connection that cannot be opened.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mqtt_agent::{Error as AgentError, Options, Scheme};
use mqtt_session::{Closed, Violation};

/// Why a server cannot be reached. It prints the error of the attempt as well, and the source of that error is its source.
#[derive(Debug)]
struct Unreached {
    server: Option<String>,
    address: Option<SocketAddr>,
    why: io::Error,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.server, self.address) {
            (Some(server), Some(address)) if !server.ends_with(&address.to_string()) => {
                write!(f, "{server} ({}): ", address.ip())?;
            }
            (Some(server), _) => write!(f, "{server}: ")?,
            (None, Some(address)) => write!(f, "{address}: ")?,
            (None, None) => {}
        }
        self.why.fmt(f)
    }
}

impl Error for Unreached {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.why.source()
    }
}

/// Adds the address of the attempt to an error, whose kind stays.
#[must_use]
pub fn at_address(address: SocketAddr, why: io::Error) -> io::Error {
    let unreached = Unreached {
        server: None,
        address: Some(address),
        why,
    };
    unreached.into()
}

/// Adds the name of the server to an error, whose kind stays, unless it has one.
pub(crate) fn at_server(server: impl FnOnce() -> String, error: io::Error) -> io::Error {
    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    let error = match error.downcast::<mqtt_transport::Error>() {
        Ok(of_stage) => return of_stage.at(&server()).into(),
        Err(error) => error,
    };
    let mut unreached = error.downcast().unwrap_or_else(|why| Unreached {
        server: None,
        address: None,
        why,
    });
    unreached.server.get_or_insert_with(server);
    unreached.into()
}

impl From<Unreached> for io::Error {
    fn from(unreached: Unreached) -> Self {
        Self::new(unreached.why.kind(), unreached)
    }
}

/// A server whose answer to CONNECT breaks a rule. The source is the rule.
#[derive(Debug)]
struct InvalidAnswer(Violation);

impl fmt::Display for InvalidAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer to CONNECT is not valid MQTT")
    }
}

impl Error for InvalidAnswer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Returns a question about a server without an answer to CONNECT: one with TLS or WebSocket closes the connection of a client
/// without it.
const fn question(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Mqtt => ": is this a port for plain MQTT?",
        Scheme::Mqtts => ": is this a port for MQTT over TLS without WebSocket?",
        _ => "",
    }
}

/// Returns the error of a server that did not answer CONNECT within the time limit of the options, closed the connection instead, or
/// answered what is not MQTT. Returns `None` for other reasons.
pub(crate) fn unanswered(why: &AgentError, options: &Options) -> Option<io::Error> {
    let error = match why {
        AgentError::EndOfStream => {
            let question = question(options.scheme);
            let text = format!("the server closed the connection before CONNACK{question}");
            io::Error::new(io::ErrorKind::UnexpectedEof, text)
        }
        AgentError::Closed(Closed::Violation(Violation::ConnectTimeout)) => {
            let limit = Duration::from_millis(options.config.connect_timeout_ms.into());
            let text = format!("the server sent no CONNACK within {limit:?}");
            io::Error::new(io::ErrorKind::TimedOut, text)
        }
        AgentError::Closed(Closed::Violation(
            violation @ (Violation::Malformed(_) | Violation::Unexpected(_)),
        )) => io::Error::new(io::ErrorKind::InvalidData, InvalidAnswer(*violation)),
        _ => return None,
    };
    Some(error)
}

/// Adds what the server may be to the error of a connection that the server reset before CONNACK, or cut without the end of TLS.
pub(crate) fn reset(error: io::Error, scheme: Scheme) -> io::Error {
    let question = question(scheme);
    #[cfg(feature = "tls")]
    if scheme == Scheme::Mqtts
        && let Some(of_stage) = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<mqtt_transport::Error>())
        && of_stage.kind() == mqtt_transport::ErrorKind::Truncated
    {
        let text = format!("the server closed the connection before CONNACK{question}");
        return mqtt_transport::Error::new(of_stage.kind(), text).into();
    }
    if scheme != Scheme::Mqtt || error.kind() != io::ErrorKind::ConnectionReset {
        return error;
    }
    io::Error::new(error.kind(), format!("{error}{question}"))
}

/// Returns a host and its port as they stand in a URL.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> io::Error {
        io::Error::from(io::ErrorKind::ConnectionRefused)
    }

    #[test]
    fn an_error_names_the_server_once_and_its_address_if_that_differs() {
        let address = |text: &str| text.parse().unwrap();
        for (server, attempt, text) in [
            ("a:1", None, "a:1: connection refused"),
            ("a:1", Some("[::1]:1"), "a:1 (::1): connection refused"),
            ("[::1]:1", Some("[::1]:1"), "[::1]:1: connection refused"),
            (
                "the proxy [::1]:1",
                Some("[::1]:1"),
                "the proxy [::1]:1: connection refused",
            ),
        ] {
            let error = match attempt {
                Some(attempt) => at_address(address(attempt), refused()),
                None => refused(),
            };
            let error = at_server(|| server.to_owned(), error);
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(error.to_string(), text);
            let again = at_server(|| unreachable!("it has a name"), error);
            assert_eq!(again.to_string(), text);
        }
        let unnamed = at_address(address("192.0.2.1:1"), refused());
        assert_eq!(unnamed.to_string(), "192.0.2.1:1: connection refused");
    }

    #[test]
    fn a_host_stands_before_its_port_as_in_a_url() {
        assert_eq!(host_port("a.example", 1), "a.example:1");
        assert_eq!(host_port("::1", 1), "[::1]:1");
        assert_eq!(host_port("192.0.2.1", 1), "192.0.2.1:1");
    }

    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    #[test]
    fn the_error_of_a_stage_stays_one() {
        use mqtt_transport::{Error, ErrorKind};
        let error = Error::new(ErrorKind::Truncated, "cut");
        let error = at_server(|| "a:1".to_owned(), error.into());
        assert_eq!(error.to_string(), "a:1: cut");
        let error = error.downcast::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Truncated);
    }

    /// Another server closes a connection without WebSocket, and does not end TLS.
    #[cfg(feature = "tls")]
    #[test]
    fn a_cut_before_connack_has_a_likely_cause() {
        use mqtt_transport::{Error, ErrorKind};
        let told = |scheme, kind| reset(Error::new(kind, "cut").into(), scheme).to_string();
        let text = "the server closed the connection before CONNACK: is this a port for MQTT over TLS without WebSocket?";
        assert_eq!(told(Scheme::Mqtts, ErrorKind::Truncated), text);
        assert_eq!(told(Scheme::Mqtts, ErrorKind::HandshakeCut), "cut");
        assert_eq!(told(Scheme::Wss, ErrorKind::Truncated), "cut");
    }
}
