//! The proxy that the environment names.

use std::env;
use std::net::IpAddr;

use super::ProxyOptions;
use crate::error::Error;

impl ProxyOptions {
    /// Returns the proxy of the environment for a host: that of `all_proxy` or `ALL_PROXY`, unless `no_proxy` or `NO_PROXY` has the host.
    /// `no_proxy` has names and addresses, with commas between them; a name also stands for all names below it, and `*` for all hosts.
    ///
    /// # Errors
    /// The text is not the URL of a proxy; see [`Self::from_url`].
    pub fn from_environment(host: &str) -> Result<Option<Self>, Error> {
        let either = |one: &str, other: &str| env::var(one).or_else(|_| env::var(other));
        let all = either("all_proxy", "ALL_PROXY").unwrap_or_default();
        let none = either("no_proxy", "NO_PROXY").unwrap_or_default();
        Self::chosen(&all, &none, host)
    }

    fn chosen(all: &str, none: &str, host: &str) -> Result<Option<Self>, Error> {
        if all.is_empty() || none.split(',').any(|name| covers(name.trim(), host)) {
            return Ok(None);
        }
        Self::from_url(all).map(Some)
    }
}

/// Returns whether an entry of `no_proxy` means this host.
fn covers(entry: &str, host: &str) -> bool {
    if let (Ok(entry), Ok(host)) = (entry.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return entry == host;
    }
    let (entry, host) = (entry.to_ascii_lowercase(), host.to_ascii_lowercase());
    let name = entry.trim_start_matches('.');
    match name {
        "" => false,
        "*" => true,
        name => {
            let below = host.strip_suffix(name);
            below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_no_proxy_are_dialled_directly() {
        let chosen = |none, host| {
            let proxy = ProxyOptions::chosen("socks5://proxy.example", none, host).unwrap();
            proxy.map(|proxy| proxy.host)
        };
        let proxy = Some("proxy.example".to_owned());
        assert_eq!(chosen("", "broker.example"), proxy);
        assert_eq!(
            chosen("other.example, roker.example", "broker.example"),
            proxy
        );
        assert_eq!(chosen("10.0.0.1", "10.0.0.10"), proxy);
        for (none, host) in [
            ("broker.example", "broker.example"),
            ("a, .Example ,b", "broker.example"),
            ("example", "broker.example"),
            ("*", "broker.example"),
            ("::1", "0:0:0:0:0:0:0:1"),
        ] {
            assert_eq!(chosen(none, host), None, "{none}");
        }
        assert_eq!(
            ProxyOptions::chosen("", "", "broker.example").unwrap(),
            None
        );
        assert!(ProxyOptions::chosen("ftp://x", "", "broker.example").is_err());
    }
}
