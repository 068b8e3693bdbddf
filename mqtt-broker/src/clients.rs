//! Lists the connected clients for the tools of an operator.

use mqtt_session::proto::Version;

use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::hooks::Hooks;

/// A connected client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectedClient<'a> {
    /// The connection of the client.
    pub connection: ConnectionId,
    /// The client identifier.
    pub client_id: &'a str,
    /// The user name of the client.
    pub user_name: Option<&'a str>,
    /// The version of MQTT that the client uses.
    pub version: Version,
    /// How many filters it subscribes to.
    pub subscriptions: usize,
}

impl<H: Hooks> Broker<H> {
    /// Returns the connected clients in no particular order.
    pub fn clients(&self) -> impl Iterator<Item = ConnectedClient<'_>> {
        self.sessions.iter().filter_map(|(_, session)| {
            let index = session.connection.filter(|_| session.link.is_none())?;
            let connection = self.connections.get(index)?;
            Some(ConnectedClient {
                connection: connection.id(index),
                client_id: &session.client_id,
                user_name: session.user_name.as_deref(),
                version: session.version,
                subscriptions: session.filters.len(),
            })
        })
    }
}
