//! Who is at the other end of each connection: what hooks, logs and limits may want to know and MQTT does not say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mqtt_broker::ConnectionId;

/// Who is at the other end of a connection. [`Control::peer`](crate::Control::peer) returns it to hooks.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Peer {
    /// Its address: that of the socket or, behind a proxy that is trusted, the one that the proxy tells. `None` on a Unix
    /// socket, and for streams that are given to [`Host::connection`](crate::Host::connection).
    pub address: Option<SocketAddr>,
    /// The listener that accepted it: [`Listener::number`](crate::Listener::number).
    pub listener: usize,
    /// The user that its certificate names, if the listener takes the user from certificates. It is the user of the client,
    /// whatever CONNECT says.
    pub user: Option<Arc<str>>,
    /// What TLS, WebSocket and a proxy told, such as the certificate; `None` without them and before their handshakes are over.
    pub layers: Option<Arc<mqtt_transport::Peer>>,
}

/// The peers of all open connections, which the host fills and hooks ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(Arc<Mutex<Places>>);

/// By the connection's index.
type Places = Vec<Option<(ConnectionId, Peer)>>;

impl Peers {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<Peer> {
        match self.places().get(id.index()) {
            Some(Some((whose, peer))) if *whose == id => Some(peer.clone()),
            _ => None,
        }
    }

    /// Stores what is known of a connection.
    pub(crate) fn set(&self, id: ConnectionId, peer: Peer) {
        let mut places = self.places();
        if id.index() >= places.len() {
            places.resize_with(id.index() + 1, || None);
        }
        if let Some(place) = places.get_mut(id.index()) {
            *place = Some((id, peer));
        }
    }

    /// Forgets a connection that is closed.
    pub(crate) fn forget(&self, id: ConnectionId) {
        if let Some(place) = self.places().get_mut(id.index()) {
            *place = None;
        }
    }
}
