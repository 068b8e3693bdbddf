//! Settings of TCP sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Settings of the TCP sockets of a client.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// The addresses of this machine to connect from. A connection takes the first one of the family of the remote address; an address
    /// of another family is not tried. Default none: the system chooses.
    pub local_addresses: Vec<IpAddr>,
    /// The network interface to connect through, such as `eth0`, whatever the routes say. Linux only. Default none.
    pub interface: Option<String>,
    /// After this time without traffic, the system asks the peer whether it is still there, and ends a connection without answers.
    /// Default none: the keep-alive of MQTT does the same. It is of use if `Options::keep_alive` is 0.
    pub keep_alive: Option<Duration>,
}

impl SocketOptions {
    /// Makes a socket with these settings for a connection to `remote`, which is not connected yet.
    ///
    /// # Errors
    /// There is no local address of this family, or the system refuses a setting, such as an address that this machine does not have.
    pub fn open(&self, remote: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(remote),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if let Some(name) = &self.interface {
            bind_interface(&socket, name)?;
        }
        if !self.local_addresses.is_empty() {
            let same_family = |local: &&IpAddr| local.is_ipv4() == remote.is_ipv4();
            let local = self
                .local_addresses
                .iter()
                .find(same_family)
                .ok_or_else(|| {
                    let message =
                        format!("no local address to connect from is of the family of {remote}");
                    io::Error::new(io::ErrorKind::AddrNotAvailable, message)
                })?;
            let bound = socket.bind(&SocketAddr::new(*local, 0).into());
            bound.map_err(|error| explain(&format!("the local address {local}"), &error))?;
        }
        if let Some(idle) = self.keep_alive {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
        }
        Ok(socket)
    }
}

#[cfg(target_os = "linux")]
fn bind_interface(socket: &Socket, name: &str) -> io::Result<()> {
    let bound = socket.bind_device(Some(name.as_bytes()));
    bound.map_err(|error| explain(&format!("the interface {name}"), &error))
}

#[cfg(not(target_os = "linux"))]
fn bind_interface(_: &Socket, _: &str) -> io::Result<()> {
    let message = "an interface can be chosen on Linux only";
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}

fn explain(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1883);

    fn from(addresses: &[&str]) -> SocketOptions {
        SocketOptions {
            local_addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            ..SocketOptions::default()
        }
    }

    #[test]
    fn a_socket_has_a_local_address_of_the_family_of_the_remote_one() {
        let socket = from(&["::1", "127.0.0.1"]).open(REMOTE).unwrap();
        let local = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(local.ip(), REMOTE.ip());
        let refused = from(&["::1"]).open(REMOTE).unwrap_err().to_string();
        let expected = "no local address to connect from is of the family of 127.0.0.1:1883";
        assert_eq!(refused, expected);
        // An address for documentation, which no machine has.
        let refused = from(&["192.0.2.1"]).open(REMOTE).unwrap_err().to_string();
        assert!(
            refused.starts_with("the local address 192.0.2.1: "),
            "{refused}"
        );
    }

    #[test]
    fn a_socket_asks_whether_the_peer_is_there_after_the_time_that_is_set() {
        let mut options = SocketOptions::default();
        assert!(!options.open(REMOTE).unwrap().keepalive().unwrap());
        options.keep_alive = Some(Duration::from_secs(77));
        let socket = options.open(REMOTE).unwrap();
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(77)
        );
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        let options = SocketOptions {
            interface: Some("no-such-one".to_owned()),
            ..SocketOptions::default()
        };
        let refused = options.open(REMOTE).unwrap_err().to_string();
        assert!(
            refused.contains("no-such-one") || refused.contains("Linux"),
            "{refused}"
        );
    }
}
