//! Parses options from a URL.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use percent_encoding::percent_decode_str;

use crate::error::Error;
use crate::options::Options;

/// The transport that the scheme of a URL names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Scheme {
    /// TCP.
    #[default]
    Mqtt,
    /// TLS over TCP.
    Mqtts,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// A Unix socket.
    Unix,
}

impl Scheme {
    /// Returns the port for a URL that has none; 0 for a Unix socket.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
            Self::Ws => 80,
            Self::Wss => 443,
            Self::Unix => 0,
        }
    }

    /// Returns whether the connection uses TLS.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    /// Returns whether the connection uses WebSocket.
    #[must_use]
    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// Returns the scheme of a name, including the names that other clients use.
    fn named(name: &str) -> Option<Self> {
        const NAMES: [(&str, Scheme); 9] = [
            ("mqtt", Scheme::Mqtt),
            ("tcp", Scheme::Mqtt),
            ("mqtts", Scheme::Mqtts),
            ("ssl", Scheme::Mqtts),
            ("tls", Scheme::Mqtts),
            ("ws", Scheme::Ws),
            ("wss", Scheme::Wss),
            ("unix", Scheme::Unix),
            ("mqtt+ssl", Scheme::Mqtts),
        ];
        let found = NAMES.iter().find(|(one, _)| one.eq_ignore_ascii_case(name));
        found.map(|(_, scheme)| *scheme)
    }
}

/// The parts of a URL, before decoding.
struct Parts<'a> {
    user: Option<&'a str>,
    host: &'a str,
    port: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl Options {
    /// Parses `mqtt://`, `mqtts://`, `ws://` or `wss://`, then `[user[:password]@]host[:port]`, for WebSocket `[/path]`, and
    /// `[?client_id=..]`; or `unix:///path`, where `unix://@name` is an abstract socket of Linux. An IPv6 address is in brackets.
    /// Special characters in user, password or path are written as `%40`.
    ///
    /// # Errors
    /// [`Error::Url`] for anything else. Its text does not have the password.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let shown = without_password(url);
        let wrong = |why: &str| Error::Url(format!("{shown}: {why}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            wrong("it does not begin with mqtt://, mqtts://, ws://, wss:// or unix://")
        })?;
        let scheme = Scheme::named(scheme).ok_or_else(|| {
            wrong(if scheme.eq_ignore_ascii_case("mqtt+unix") {
                "write unix:///path for a Unix socket"
            } else {
                "the scheme is none of mqtt, mqtts, ws, wss and unix"
            })
        })?;
        let parts = split(scheme, rest).map_err(&wrong)?;
        let port = match parts.port {
            None => scheme.default_port(),
            Some(port) => port
                .parse()
                .map_err(|_| wrong("the port is not a number up to 65535"))?,
        };
        let decode = |text: &str| {
            unescape(text).ok_or_else(|| wrong("a % is not followed by two hex digits"))
        };
        let text = |text: &str, what: &str| {
            String::from_utf8(decode(text)?).map_err(|_| wrong(&format!("the {what} is not UTF-8")))
        };
        let mut options = Self::new(parts.host, port);
        options.scheme = scheme;
        let others = client_id(parts.query, |id| {
            options.client_id = text(id, "client identifier")?;
            Ok(())
        })?;
        match scheme {
            Scheme::Unix => options.path = text(parts.path, "path")?,
            Scheme::Ws | Scheme::Wss => {
                if !parts.path.is_empty() {
                    options.path = parts.path.to_string();
                }
                if !others.is_empty() {
                    options.path = format!("{}?{others}", options.path);
                }
            }
            _ if parts.path.trim_matches('/').is_empty() => {}
            _ => return Err(wrong("a path belongs to ws:// and wss:// only")),
        }
        if !scheme.is_websocket() && !others.is_empty() {
            return Err(wrong("client_id is all that may follow the ?"));
        }
        if let Some(user) = parts.user {
            let (name, password) = user
                .split_once(':')
                .map_or((user, None), |(name, password)| (name, Some(password)));
            options.user_name = Some(text(name, "user name")?);
            options.password = password.map(decode).transpose()?;
        }
        Ok(options)
    }
}

/// Returns a URL without its user name and password, for messages and logs. Of a text that is no valid URL it leaves out whatever
/// may be a password: all before the last `@`, and all behind a `:` that no port follows.
#[must_use]
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(at) => url
            .split_at_checked(at.saturating_add(3))
            .unwrap_or((url, "")),
        None => ("", url),
    };
    if scheme.eq_ignore_ascii_case("unix://") && rest.starts_with(['/', '@']) {
        return url.to_string();
    }
    if let Some((_, address)) = rest.rsplit_once('@') {
        return format!("{scheme}{address}");
    }
    match rest.split_once(':') {
        Some((host, port)) if !host.starts_with('[') => {
            let port = port.split(['/', '?', '#']).next().unwrap_or_default();
            if port.bytes().all(|digit| digit.is_ascii_digit()) {
                return url.to_string();
            }
            format!("{scheme}{host}:..")
        }
        _ => url.to_string(),
    }
}

/// Removes the client identifier from a query, and returns the rest of the query.
fn client_id(
    query: Option<&str>,
    mut found: impl FnMut(&str) -> Result<(), Error>,
) -> Result<String, Error> {
    let mut others = String::new();
    for pair in query.unwrap_or_default().split('&') {
        match pair.split_once('=') {
            Some((name, id))
                if ["client_id", "clientid"]
                    .iter()
                    .any(|one| name.eq_ignore_ascii_case(one)) =>
            {
                found(id)?;
            }
            _ if pair.is_empty() => {}
            _ => {
                if !others.is_empty() {
                    others.push('&');
                }
                others.push_str(pair);
            }
        }
    }
    Ok(others)
}

fn split(scheme: Scheme, rest: &str) -> Result<Parts<'_>, &'static str> {
    if scheme == Scheme::Unix {
        let (path, query) = cut(rest, '?');
        if path.len() < 2 || !path.starts_with(['/', '@']) {
            return Err("a path follows unix://, or @ and the name of an abstract socket");
        }
        return Ok(Parts {
            user: None,
            host: "localhost",
            port: None,
            path,
            query,
        });
    }
    // In a password, the `/` need not be written as `%2F` if no path can follow.
    let end = |text: &str| text.find(['/', '?', '#']).unwrap_or(text.len());
    let user_ends = if scheme.is_websocket() {
        rest.get(..end(rest))
            .and_then(|authority| authority.rfind('@'))
    } else {
        rest.rfind('@')
    };
    let (user, rest) = match user_ends.and_then(|at| rest.split_at_checked(at)) {
        Some((user, rest)) => (Some(user), rest.strip_prefix('@').unwrap_or(rest)),
        None => (None, rest),
    };
    let (address, rest) = rest.split_at_checked(end(rest)).unwrap_or((rest, ""));
    let (rest, _fragment) = cut(rest, '#');
    let (path, query) = cut(rest, '?');
    let (host, port) = match address.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or("a bracket is missing")?;
            match port.strip_prefix(':') {
                None if !port.is_empty() => return Err("the port is not a number up to 65535"),
                port => (host, port),
            }
        }
        None => cut(address, ':'),
    };
    if host.is_empty() || host.contains(' ') {
        return Err("the host is missing");
    }
    Ok(Parts {
        user,
        host,
        port,
        path,
        query,
    })
}

/// Splits a text at the first occurrence of a character. Neither part contains the character.
fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(before, behind)| (before, Some(behind)))
}

/// Decodes bytes that are written as `%` and two hex digits. Returns `None` for any other `%`, which the decoder would leave as it is.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let is_escape = |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    let are_escapes = text.split('%').skip(1).all(is_escape);
    are_escapes.then(|| percent_decode_str(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    #[test]
    fn urls_name_host_and_user() {
        let parse = |url| Options::from_url(url).map(|o| (o.host, o.port, o.user_name, o.password));
        assert_eq!(parse("mqtt://h").unwrap(), ("h".into(), 1883, None, None));
        assert_eq!(
            parse("mqtt://127.0.0.1:99/").unwrap(),
            ("127.0.0.1".into(), 99, None, None)
        );
        assert_eq!(
            parse("mqtt://[::1]:7").unwrap(),
            ("::1".into(), 7, None, None)
        );
        let user = Some("a@b".to_owned());
        assert_eq!(
            parse("mqtt://a%40b:p:w@h:1").unwrap(),
            ("h".into(), 1, user, Some(b"p:w".to_vec()))
        );
        assert_eq!(
            parse("mqtts://u:p/w@h").unwrap(),
            ("h".into(), 8883, Some("u".into()), Some(b"p/w".to_vec()))
        );
        for wrong in [
            "h",
            "http://h",
            "mqtt+unix:///x",
            "mqtt://",
            "mqtt://h:x",
            "mqtt://h:70000",
            "mqtt://h/path",
            "mqtt://h?x=y",
            "mqtt://[::1",
            "mqtt://%4@h",
            "mqtt://%+4@h",
            "mqtt://[::1]x",
            "ws:///mqtt",
            "unix://",
            "unix://relative",
        ] {
            assert!(matches!(parse(wrong), Err(Error::Url(_))), "{wrong}");
        }
        for secret in [
            "mqtt://pump:secret@h:x",
            "wss://pump:secret@h:x/mqtt",
            "mqtt://u:/secret@h:x",
            "mqtt://u:secret",
            "mqtt://u:secret/path",
            "mqtt://u:p/secret",
            "mqtt://u:a@secret@h:x",
            "u:secret@h",
            "u:secret",
            "http://u:secret@h",
            "unix://u:secret@/a",
        ] {
            let error = parse(secret).unwrap_err();
            assert!(!alloc::format!("{error}").contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_address_without_a_password_is_shown() {
        for (url, shown) in [
            ("mqtt://h", "mqtt://h"),
            ("mqtt://h:1/a", "mqtt://h:1/a"),
            ("mqtt://h:", "mqtt://h:"),
            ("mqtt://[::1]:1", "mqtt://[::1]:1"),
            ("unix://@name", "unix://@name"),
            ("mqtt://u:p@h:1", "mqtt://h:1"),
            ("mqtt://u:p", "mqtt://u:.."),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }

    #[test]
    fn urls_say_through_what() {
        let parse = |url| Options::from_url(url).map(|o| (o.scheme, o.port, o.path, o.client_id));
        for (url, scheme, port, path, id) in [
            ("mqtt://h", Scheme::Mqtt, 1883, "/mqtt", ""),
            ("TCP://h", Scheme::Mqtt, 1883, "/mqtt", ""),
            ("ssl://h", Scheme::Mqtts, 8883, "/mqtt", ""),
            (
                "mqtts://h:1?client_id=a%20b",
                Scheme::Mqtts,
                1,
                "/mqtt",
                "a b",
            ),
            ("ws://h", Scheme::Ws, 80, "/mqtt", ""),
            ("ws://h/", Scheme::Ws, 80, "/", ""),
            (
                "wss://h/a/b?clientId=c&x=y@z#f",
                Scheme::Wss,
                443,
                "/a/b?x=y@z",
                "c",
            ),
            (
                "unix:///run/m%20q.sock",
                Scheme::Unix,
                0,
                "/run/m q.sock",
                "",
            ),
            (
                "unix://@broker?client_id=c",
                Scheme::Unix,
                0,
                "@broker",
                "c",
            ),
        ] {
            let expected = (scheme, port, path.to_owned(), id.to_owned());
            assert_eq!(parse(url).unwrap(), expected, "{url}");
        }
    }
}
