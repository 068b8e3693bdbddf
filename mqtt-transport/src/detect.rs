//! Recognises the protocol of a connection by its first bytes.

use std::fmt;

/// A protocol that the first bytes of a connection show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// Plain MQTT.
    Mqtt,
    /// TLS.
    Tls,
    /// HTTP, with which WebSocket begins.
    Http,
    /// The PROXY protocol.
    Proxy,
    /// None of these.
    Unknown,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mqtt => "plain MQTT",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Proxy => "the PROXY protocol",
            Self::Unknown => "something unknown",
        })
    }
}

/// How many bytes are needed at most.
const LONGEST: usize = 12;

/// Returns the protocol whose bytes these are, from either side; `None` while they may still become one of several protocols.
///
/// ```
/// use mqtt_transport::{Protocol, detect};
/// assert_eq!(detect(b"\x10\x0c\0\x04MQTT\x04"), Some(Protocol::Mqtt));
/// assert_eq!(detect(b"GET /mqtt HTTP/1.1\r\n"), Some(Protocol::Http));
/// assert_eq!(detect(b"\x16\x03\x01"), Some(Protocol::Tls));
/// assert_eq!(detect(b"GE"), None);
/// ```
#[must_use]
pub fn detect(first: &[u8]) -> Option<Protocol> {
    let beginnings: [(&[u8], Protocol); 12] = [
        // A handshake or an alert of any version of TLS.
        (b"\x16\x03", Protocol::Tls),
        (b"\x15\x03", Protocol::Tls),
        (b"GET ", Protocol::Http),
        (b"POST ", Protocol::Http),
        (b"PUT ", Protocol::Http),
        (b"HEAD ", Protocol::Http),
        (b"OPTIONS ", Protocol::Http),
        (b"CONNECT ", Protocol::Http),
        (b"DELETE ", Protocol::Http),
        (b"HTTP/", Protocol::Http),
        (b"PROXY ", Protocol::Proxy),
        (PROXY_V2, Protocol::Proxy),
    ];
    for (beginning, protocol) in beginnings {
        if first.starts_with(beginning) {
            return Some(protocol);
        }
    }
    match first {
        [] => None,
        // CONNECT or CONNACK, the first packets in either direction.
        [0x10 | 0x20, ..] => Some(Protocol::Mqtt),
        _ if first.len() < LONGEST
            && beginnings
                .iter()
                .any(|(beginning, _)| beginning.starts_with(first)) =>
        {
            None
        }
        _ => Some(Protocol::Unknown),
    }
}

/// The first bytes of a header of version 2 of the PROXY protocol.
pub(crate) const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_show_the_protocol() {
        assert_eq!(detect(b""), None);
        assert_eq!(detect(b"\x16"), None);
        assert_eq!(detect(b"\x16\x03"), Some(Protocol::Tls));
        assert_eq!(detect(b"\x16\x04"), Some(Protocol::Unknown));
        assert_eq!(detect(b"\x10"), Some(Protocol::Mqtt));
        assert_eq!(detect(b"P"), None);
        assert_eq!(detect(b"PR"), None);
        assert_eq!(detect(b"PROXY TCP4"), Some(Protocol::Proxy));
        assert_eq!(detect(b"POST / HTTP/1.1"), Some(Protocol::Http));
        assert_eq!(detect(&PROXY_V2[..11]), None);
        assert_eq!(detect(PROXY_V2), Some(Protocol::Proxy));
        assert_eq!(detect(b"\0\0"), Some(Protocol::Unknown));
    }
}
