//! Options from a URL.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;
use crate::options::Options;

impl Options {
    /// From `mqtt://[user[:password]@]host[:port]`; an address of version 6 stands in brackets, what is special in user
    /// or password as `%40`.
    ///
    /// # Errors
    /// [`Error::Url`] for anything else. `mqtts` is not one of them: bring a TLS stream to the adapter's constructor.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        // What stands before the @ may be secret.
        let shown = url.rsplit_once('@').map_or(url, |(_, address)| address);
        let wrong = |why: &str| Error::Url(format!("{shown}: {why}"));
        let rest = url
            .strip_prefix("mqtt://")
            .ok_or_else(|| wrong("it does not begin with mqtt://"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6
                    .split_once(']')
                    .ok_or_else(|| wrong("a bracket is missing"))?;
                (
                    host,
                    port.strip_prefix(':')
                        .or_else(|| port.is_empty().then_some("1883")),
                )
            }
            None => address
                .split_once(':')
                .map_or((address, Some("1883")), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(wrong("there is no host"));
        }
        let port = port
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| wrong("the port is no number up to 65535"))?;
        let mut options = Self::new(host, port);
        if let Some(user) = user {
            let (name, password) = user
                .split_once(':')
                .map_or((user, None), |(name, password)| (name, Some(password)));
            let decode =
                |text| unescape(text).ok_or_else(|| wrong("a % is not followed by two hex digits"));
            let name = String::from_utf8(decode(name)?)
                .map_err(|_| wrong("the user name is not UTF-8"))?;
            options.user_name = Some(name);
            options.password = password.map(decode).transpose()?;
        }
        Ok(options)
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = (digit(bytes.next())? << 4) | digit(bytes.next())?;
        plain.push(u8::try_from(value).ok()?);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    #[test]
    fn urls_say_where_and_who() {
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
        for wrong in [
            "h",
            "http://h",
            "mqtt://",
            "mqtt://h:x",
            "mqtt://h:70000",
            "mqtt://[::1",
            "mqtt://%4@h",
            "mqtt://[::1]x",
        ] {
            assert!(matches!(parse(wrong), Err(Error::Url(_))), "{wrong}");
        }
        let error = parse("mqtt://pump:secret@h:x").unwrap_err();
        assert!(!alloc::format!("{error}").contains("secret"), "{error}");
    }
}
