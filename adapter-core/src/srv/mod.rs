//! Finds the servers of a domain by its SRV records (RFC 2782): `_mqtt._tcp.DOMAIN`, and with TLS `_secure-mqtt._tcp.DOMAIN`.
//!
//! The messages of DNS, the order of the servers and the settings of the system are pure functions; [`SrvQuery::run`] blocks, like the
//! look-up of a name by the system, and an async runtime calls it in a thread for such calls.

mod exchange;
mod message;
mod order;
mod system;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mqtt_agent::Scheme;
use mqtt_proto::num::to_u32;

use crate::driver::{Timer, timeout};
use crate::unreached::{at_server, host_port};

/// How many servers of a domain are tried at most.
const MOST: usize = 16;

/// Settings of the look-up of SRV records.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SrvOptions {
    /// The DNS servers, which must answer for all names. Default none: those of `/etc/resolv.conf`.
    pub dns_servers: Vec<SocketAddr>,
}

/// A server of a domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// The host name of the server.
    pub host: String,
    /// The port of the server.
    pub port: u16,
}

/// A look-up of the SRV records of a domain.
#[derive(Clone, Debug)]
pub struct SrvQuery {
    name: String,
    dns_servers: Vec<SocketAddr>,
    /// The server of a domain without such records.
    domain: Endpoint,
    limit: Duration,
}

impl SrvQuery {
    /// Makes the query for the service of a scheme in a domain. Without records, the domain itself is the server, at its port.
    pub(crate) fn new(
        options: &SrvOptions,
        scheme: Scheme,
        domain: Endpoint,
        limit: Duration,
    ) -> io::Result<Self> {
        let service = match scheme {
            Scheme::Mqtt => "_mqtt._tcp",
            Scheme::Mqtts => "_secure-mqtt._tcp",
            // The services of other schemes have no registered names.
            _ => return Err(unusable("SRV records are for mqtt:// and mqtts:// only")),
        };
        let name = domain.host.trim_end_matches('.');
        if name.is_empty() || name.parse::<IpAddr>().is_ok() {
            return Err(unusable("SRV records are of a domain, not of an address"));
        }
        Ok(Self {
            name: format!("{service}.{name}"),
            dns_servers: options.dns_servers.clone(),
            domain,
            limit,
        })
    }

    /// Returns the end of the time for the look-up and the connection, if both begin now.
    #[must_use]
    pub fn until(&self) -> Instant {
        crate::dial::after(self.limit)
    }

    /// Returns the servers of the domain in the order in which to try them. A domain without such records is its only server, at the port
    /// of the options. Blocks until `until` at most.
    ///
    /// # Errors
    /// No DNS server answers, all of them report an error, or the domain says that it has no such service.
    pub fn run(&self, until: Instant) -> io::Result<Vec<Endpoint>> {
        let explain =
            |error: &io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.name));
        let found = self.ask(until).map_err(|error| explain(&error))?;
        if found.is_empty() {
            return Ok(vec![self.domain.clone()]);
        }
        let servers: Vec<_> = order::order(found, order::random)
            .into_iter()
            .filter(|record| !record.target.is_empty())
            .take(MOST)
            .map(|record| Endpoint {
                host: record.target,
                port: record.port,
            })
            .collect();
        if servers.is_empty() {
            let none = io::Error::new(
                io::ErrorKind::NotFound,
                "the domain does not have this service",
            );
            return Err(explain(&none));
        }
        Ok(servers)
    }

    fn ask(&self, until: Instant) -> io::Result<Vec<message::Record>> {
        let query = message::Query::new(order::random(u32::from(u16::MAX)), &self.name)?;
        if self.dns_servers.is_empty() {
            exchange::ask(&query, &system::settings()?.dns_servers, until)
        } else {
            exchange::ask(&query, &self.dns_servers, until)
        }
    }
}

/// Returns the domain of this machine, as `/etc/resolv.conf` says.
///
/// # Errors
/// The file cannot be read, or names no domain.
pub fn local_domain() -> io::Result<String> {
    system::settings()?.domain.ok_or_else(|| {
        let message = format!("{} names no domain of this machine", system::FILE);
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

fn unusable(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn share(until: Instant, left: usize) -> Duration {
    let left = to_u32(left).max(1);
    until.saturating_duration_since(Instant::now()) / left
}

/// Adds the server to an error.
fn failed(endpoint: &Endpoint, error: io::Error) -> io::Error {
    at_server(|| host_port(&endpoint.host, endpoint.port), error)
}

/// Connects to the first of these servers that answers. The next one is tried when one has failed, because their order tells which are the
/// spare ones. Each has an equal part of the time that is left.
///
/// # Errors
/// All servers failed: the error of the last one.
pub async fn connect_in_turn<T, F, W>(
    endpoints: Vec<Endpoint>,
    until: Instant,
    connect: impl Fn(Endpoint) -> F,
) -> io::Result<W>
where
    T: Timer,
    F: Future<Output = io::Result<W>>,
{
    let mut why = io::Error::from(io::ErrorKind::NotFound);
    let count = endpoints.len();
    for (n, endpoint) in endpoints.into_iter().enumerate() {
        let attempt = timeout::<T, _>(share(until, count - n), connect(endpoint.clone()));
        match attempt.await {
            Some(Ok(transport)) => return Ok(transport),
            Some(Err(error)) => why = failed(&endpoint, error),
            None => why = failed(&endpoint, io::ErrorKind::TimedOut.into()),
        }
    }
    Err(why)
}

/// Does the same as [`connect_in_turn`] in this thread. `connect` gets the end of its time.
///
/// # Errors
/// All servers failed: the error of the last one.
pub fn connect_blocking<W>(
    endpoints: &[Endpoint],
    until: Instant,
    connect: impl Fn(&Endpoint, Instant) -> io::Result<W>,
) -> io::Result<W> {
    let mut why = io::Error::from(io::ErrorKind::NotFound);
    for (n, endpoint) in endpoints.iter().enumerate() {
        let by = Instant::now() + share(until, endpoints.len() - n);
        match connect(endpoint, by) {
            Ok(transport) => return Ok(transport),
            Err(error) => why = failed(endpoint, error),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(scheme: Scheme, host: &str) -> io::Result<SrvQuery> {
        let domain = Endpoint {
            host: host.to_owned(),
            port: scheme.default_port(),
        };
        SrvQuery::new(&SrvOptions::default(), scheme, domain, Duration::ZERO)
    }

    #[test]
    fn the_scheme_chooses_the_service() {
        let plain = query(Scheme::Mqtt, "plant.example").unwrap();
        assert_eq!(plain.name, "_mqtt._tcp.plant.example");
        let tls = query(Scheme::Mqtts, "plant.example.").unwrap();
        assert_eq!(tls.name, "_secure-mqtt._tcp.plant.example");
    }

    #[test]
    fn websocket_and_addresses_have_no_records() {
        for (scheme, host, why) in [
            (Scheme::Ws, "plant.example", "mqtt:// and mqtts:// only"),
            (Scheme::Mqtt, "192.0.2.1", "not of an address"),
            (Scheme::Mqtt, "2001:db8::1", "not of an address"),
        ] {
            let error = query(scheme, host).unwrap_err().to_string();
            assert!(error.contains(why), "{host}: {error}");
        }
    }

    #[test]
    fn the_next_server_is_tried_when_one_has_failed() {
        let endpoints = [1, 2, 3].map(|port| Endpoint {
            host: "a".into(),
            port,
        });
        let until = Instant::now() + Duration::from_secs(60);
        let connected = connect_blocking(&endpoints, until, |endpoint, by| {
            assert!(by <= until);
            match endpoint.port {
                2 => Ok("the second"),
                _ => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        });
        assert_eq!(connected.unwrap(), "the second");
        let refused = connect_blocking(&endpoints, until, |_, _| {
            Err::<(), _>(io::ErrorKind::ConnectionRefused.into())
        });
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("a:3: "), "{error}");
    }
}
