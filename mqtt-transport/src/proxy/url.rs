//! Parses a proxy from a URL.

use percent_encoding::percent_decode_str;

use super::{ProxyKind, ProxyOptions, wrong};
use crate::error::Error;

impl ProxyOptions {
    /// Parses `socks5://[user:password@]host[:port]`, `socks5h://..` (the same: the proxy always resolves names) or
    /// `http://..`, the form of the environment variable `all_proxy`. The default port is 1080 for SOCKS and 8080 for HTTP.
    ///
    /// # Errors
    /// Any other text. The message does not have the password.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        // Any part of a wrong URL may be a password.
        let fail = |why: &str| wrong(format!("the URL of the proxy: {why}"));
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| fail("it does not begin with a scheme such as socks5://"))?;
        let (kind, default_port) = match scheme {
            "socks5" | "socks5h" | "socks" => (ProxyKind::Socks5, 1080),
            "http" => (ProxyKind::Http, 8080),
            _ => return Err(fail("only socks5:// and http:// are spoken")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6
                    .split_once(']')
                    .ok_or_else(|| fail("a bracket is missing"))?;
                (host, port)
            }
            None => match address.find(':') {
                Some(colon) => address.split_at(colon),
                None => (address, ""),
            },
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port
                .parse()
                .map_err(|_| fail("the port is not a number up to 65535"))?,
            None if port.is_empty() => default_port,
            None => return Err(fail("there is text after the address")),
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(fail("the host is missing"));
        }
        let mut proxy = Self::new(kind, host, port);
        if let Some(user) = user {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            let decode = |text| {
                unescape(text)
                    .ok_or_else(|| fail("user or password has a % without two hex digits"))
            };
            proxy.credentials = Some((decode(user)?, decode(password)?));
        }
        Ok(proxy)
    }
}

/// Decodes text whose bytes are written as `%` and two hex digits. Returns `None` for any other `%`, which the decoder would leave.
fn unescape(text: &str) -> Option<String> {
    let is_escape = |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    let plain = percent_decode_str(text).decode_utf8().ok()?;
    Some(plain.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_proxies() {
        let parse =
            |url| ProxyOptions::from_url(url).map(|p| (p.kind, p.host, p.port, p.credentials));
        assert_eq!(
            parse("socks5h://h").unwrap(),
            (ProxyKind::Socks5, "h".into(), 1080, None)
        );
        assert_eq!(
            parse("http://[::1]:3128/").unwrap(),
            (ProxyKind::Http, "::1".into(), 3128, None)
        );
        let credentials = Some(("a@b".to_owned(), "p:w".to_owned()));
        assert_eq!(
            parse("http://a%40b:p:w@h:1").unwrap(),
            (ProxyKind::Http, "h".into(), 1, credentials)
        );
        for url in [
            "h:1080",
            "https://h",
            "socks4://h",
            "socks5://",
            "socks5://h:x",
            "socks5://[::1",
            "socks5://u:%4@h",
            "socks5://u:%+4@h",
            "socks5://h/path",
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Settings, "{url}");
        }
    }

    #[test]
    fn a_password_is_not_in_the_message() {
        for url in ["socks5://u:secret@h:x", "socks5://u:secret", "u:secret@h"] {
            let error = ProxyOptions::from_url(url).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let proxy = ProxyOptions::from_url("socks5://u:secret@h").unwrap();
        assert!(!format!("{proxy:?}").contains("secret"), "{proxy:?}");
    }
}
