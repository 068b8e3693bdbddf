//! Holds the peers of connections: addresses and certificates, for hooks, logs and limits.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mqtt_broker::ConnectionId;

/// The peer of a connection. [`Control::peer`](crate::Control::peer) returns it to hooks.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Peer {
    /// The address of the client: that of the socket or, with a trusted proxy, the one that the proxy sends. `None` on a Unix
    /// socket, and for streams that are given to [`Host::connection`](crate::Host::connection).
    pub address: Option<SocketAddr>,
    /// The number of the listener that accepted the connection: [`Listener::number`](crate::Listener::number).
    pub listener: usize,
    /// The user that its certificate names, if the listener takes the user from certificates. It replaces the user name of
    /// CONNECT.
    pub user: Option<Arc<str>>,
    /// A number for its address in the limits for one address; 0 if it is not limited. Behind a proxy it is known with the address.
    pub(crate) source: u64,
    /// Whether the log has the reason why the connection ended, below MQTT.
    pub(crate) is_told: bool,
    /// The information of TLS, WebSocket and a proxy, such as the certificate; `None` without them and before their handshakes
    /// end.
    pub layers: Option<Arc<mqtt_transport::Peer>>,
}

/// Returns a number for an address in the limits for one address: an IPv4 address, or an IPv6 network of 64 bits, which usually
/// belongs to one subscriber.
pub(crate) fn source(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => IPV4 | u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64;
            u64::try_from(network).unwrap_or(0).max(1)
        }
    }
}

/// No IPv6 network has this number.
const IPV4: u64 = 1 << 63;

/// The peers of all open connections. The host sets them, and hooks read them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    places: Arc<Mutex<Places>>,
    /// The lines of the log about connections that failed below MQTT.
    #[cfg(feature = "files")]
    failures: Arc<Mutex<crate::logging::Quota>>,
}

/// The peers by the connection's index.
type Places = Vec<Option<(ConnectionId, Peer)>>;

impl Peers {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the log may have a line about this peer, which failed below MQTT: the lines of one address are limited.
    #[cfg(feature = "files")]
    pub(crate) fn may_log_failure(&self, peer: &Peer) -> bool {
        let address = peer.address.map(|address| address.ip().to_string());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.allows_line(address.as_deref(), tokio::time::Instant::now())
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<Peer> {
        match self.places().get(id.index()) {
            Some(Some((whose, peer))) if *whose == id => Some(peer.clone()),
            _ => None,
        }
    }

    /// Returns the number of the address of a connection.
    pub(crate) fn source(&self, id: ConnectionId) -> u64 {
        match self.places().get(id.index()) {
            Some(Some((whose, peer))) if *whose == id => peer.source,
            _ => 0,
        }
    }

    /// Stores the peer of a connection.
    pub(crate) fn set(&self, id: ConnectionId, peer: Peer) {
        let mut places = self.places();
        if id.index() >= places.len() {
            places.resize_with(id.index() + 1, || None);
        }
        if let Some(place) = places.get_mut(id.index()) {
            *place = Some((id, peer));
        }
    }

    /// Notes whether the log has the reason why the connection ended, or will have it.
    pub(crate) fn set_told(&self, id: ConnectionId, is_told: bool) {
        if let Some(Some((whose, peer))) = self.places().get_mut(id.index())
            && *whose == id
        {
            peer.is_told = is_told;
        }
    }

    /// Forgets the peer of a closed connection, and returns it.
    pub(crate) fn forget(&self, id: ConnectionId) -> Option<Peer> {
        let place = self.places().get_mut(id.index())?.take();
        place.map(|(_, peer)| peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_subscriber_count_together() {
        let source = |text: &str| source(text.parse().unwrap());
        assert_eq!(source("2001:db8:1:2::3"), source("2001:db8:1:2:ffff::4"));
        assert_ne!(source("2001:db8:1:2::3"), source("2001:db8:1:3::3"));
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
        let all = ["192.0.2.7", "192.0.2.8", "::1", "0.0.0.0", "fe80::1"];
        let mut sources: Vec<_> = all.map(source).into();
        sources.sort_unstable();
        sources.dedup();
        assert!(sources.len() == all.len() && !sources.contains(&0));
    }
}
