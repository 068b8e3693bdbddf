//! The method CONNECT of HTTP (RFC 9110, section 9.3.6).

use std::net::Ipv6Addr;

use super::{ProxyOptions, refused, wrong};
use crate::error::{Error, ErrorKind};
use crate::head::Head;

/// The answer of an HTTP proxy to a [`request`].
#[derive(Debug)]
pub(super) struct HttpConnect(Head);

/// The longest accepted answer of a proxy, in bytes.
const LIMIT: usize = 8 << 10;

/// Returns the request for a connection to `host`, with the credentials of the proxy.
pub(super) fn request(proxy: &ProxyOptions, host: &str, port: u16) -> Result<String, Error> {
    if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(format!("{host:?} is not a valid host name")));
    }
    let authority = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some((user, password)) = &proxy.credentials {
        if user.contains(':') {
            return Err(wrong("the user name of an HTTP proxy has no colon"));
        }
        let both = base64(format!("{user}:{password}").as_bytes());
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&both);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    Ok(request)
}

impl HttpConnect {
    pub(super) fn new() -> Self {
        Self(Head::new(LIMIT))
    }

    /// Takes the answer of the proxy. Returns whether it has connected.
    pub(super) fn take(&mut self, wire: &mut &[u8]) -> Result<bool, Error> {
        let taken = self.0.take(wire);
        let so_far = self.0.so_far();
        let begins = so_far.len().min(BEGINNING.len());
        if so_far.get(..begins) != BEGINNING.get(..begins) {
            return Err(refused("the proxy does not speak HTTP"));
        }
        let Some(head) = taken
            .map_err(|error| Error::new(ErrorKind::TooLarge, format!("the proxy: {error}")))?
        else {
            return Ok(false);
        };
        // The first line: HTTP/1.1 200 Connection established
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.splitn(3, ' ');
        let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
        let code = words.next().unwrap_or_default();
        match (is_http, code.as_bytes()) {
            (true, [b'2', _, _]) => Ok(true),
            (true, b"407") => Err(refused(
                "the proxy refuses the user name or the password, or requires them: 407",
            )),
            (true, [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9']) => {
                let reason = words.next().unwrap_or_default().escape_debug();
                Err(refused(format!(
                    "the proxy does not connect: {code} {reason}"
                )))
            }
            _ => Err(refused("the proxy does not speak HTTP")),
        }
    }
}

const BEGINNING: &[u8] = b"HTTP/1.";

/// Encodes in base64 (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4_usize {
            let value = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap_or(0);
            let char = DIGITS.get(value).map_or('=', |digit| char::from(*digit));
            text.push(if digit <= three.len() { char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
