//! The settings of the system for DNS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The file with the settings, in systems that have it.
pub(super) const FILE: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// The system's own look-ups use no more servers.
const MOST: usize = 3;

#[derive(Debug, Eq, PartialEq)]
pub(super) struct Settings {
    pub(super) dns_servers: Vec<SocketAddr>,
    pub(super) domain: Option<String>,
}

/// Reads the settings. They are read for each look-up, because a network that comes up changes them.
pub(super) fn settings() -> io::Result<Settings> {
    let text = std::fs::read_to_string(FILE);
    let explain = |error: io::Error| {
        let message = format!("{FILE}: {error}; DNS servers can be named in the settings");
        io::Error::new(error.kind(), message)
    };
    Ok(parse(&text.map_err(explain)?))
}

fn parse(text: &str) -> Settings {
    let mut settings = Settings {
        dns_servers: Vec::new(),
        domain: None,
    };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) => {
                if let Ok(address) = address.parse::<IpAddr>()
                    && settings.dns_servers.len() < MOST
                {
                    settings.dns_servers.push((address, PORT).into());
                }
            }
            // The last of these lines counts.
            (Some("search" | "domain"), Some(domain)) => {
                let domain = domain.trim_end_matches('.');
                settings.domain = Some(domain.to_owned()).filter(|domain| !domain.is_empty());
            }
            _ => {}
        }
    }
    if settings.dns_servers.is_empty() {
        settings
            .dns_servers
            .push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domain_are_read() {
        let text = "# comment\nnameserver 192.0.2.1\nnameserver nonsense\n; another\ndomain old.example\n\
            nameserver 2001:db8::1\noptions ndots:2\nsearch plant.example. other.example\n\
            nameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"];
        let settings = parse(text);
        assert_eq!(
            settings.dns_servers,
            expected.map(|one| one.parse().unwrap())
        );
        assert_eq!(settings.domain.as_deref(), Some("plant.example"));
    }

    #[test]
    fn without_a_server_this_machine_is_asked() {
        let settings = parse("search .\n");
        assert_eq!(settings.dns_servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(settings.domain, None);
    }
}
