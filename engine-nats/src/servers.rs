//! Reads the addresses of the servers, and their user and password.

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

/// The servers, without user and password: the client of NATS ignores these in an address, and logs them.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) addresses: Vec<ServerAddr>,
    /// The user and the password for all servers.
    pub(crate) login: Option<(String, String)>,
}

impl Servers {
    /// Reads the addresses of a configuration. Returns why one of them is not valid, without its text, which may have a password.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        let mut servers = Self {
            addresses: Vec::new(),
            login: None,
        };
        for text in texts {
            let address: ServerAddr = text
                .trim()
                .parse()
                .map_err(|error: std::io::Error| error.to_string())?;
            let plain = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let user = address.username().map(plain);
            let login = user.map(|user| (user, address.password().map(plain).unwrap_or_default()));
            if let (Some(known), Some(login)) = (&servers.login, &login)
                && known != login
            {
                return Err("the servers must have one user and password".to_owned());
            }
            servers.login = servers.login.or(login);
            let mut url = address.into_inner();
            // This fails only for a URL without a host, which has neither.
            let _ = (url.set_username(""), url.set_password(None));
            let address = ServerAddr::from_url(url).map_err(|error| error.to_string())?;
            servers.addresses.push(address);
        }
        Ok(servers)
    }
}

/// Returns the text of an address without what stands before its `@`.
pub(crate) fn without_login(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let separator = if rest.len() < text.len() { "://" } else { "" };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{separator}..@{host}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Result<Servers, String> {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        Servers::parse(&texts)
    }

    #[test]
    fn user_and_password_are_not_in_the_addresses() {
        let servers = parsed(&["nats://a%40b:p%3Aw@one:1", "two", "tls://a%40b:p%3Aw@three"]);
        let servers = servers.unwrap();
        assert_eq!(servers.login, Some(("a@b".to_owned(), "p:w".to_owned())));
        let addresses = format!("{:?}", servers.addresses);
        assert!(
            !addresses.contains("p%3Aw") && !addresses.contains("a%40b"),
            "{addresses}"
        );
        let hosts = servers.addresses.iter().map(ServerAddr::host);
        assert_eq!(hosts.collect::<Vec<_>>(), ["one", "two", "three"]);
        assert_eq!(parsed(&["one", "two"]).unwrap().login, None);
    }

    #[test]
    fn errors_do_not_repeat_a_password() {
        for texts in [
            &["http://user:secret@host"][..],
            &["nats://user:secret@host:port"],
            &["nats://user:secret"],
            &["nats://user:secret@one", "nats://user:other@two"],
        ] {
            let error = parsed(texts).map(drop).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_text_without_login_names_the_host() {
        assert_eq!(without_login("nats://u:p@q@host:1"), "nats://..@host:1");
        assert_eq!(without_login("u:p@host"), "..@host");
        assert_eq!(without_login("nats://host:1"), "nats://host:1");
    }
}
