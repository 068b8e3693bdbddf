//! Finds the shard of a new client, and the limits of one shard.

use mqtt_session::Instant;
use mqtt_session::proto::num::to_usize;
use mqtt_session::proto::{Decoded, MAX_PACKET, Packet, Version};

use super::shard_of;
use crate::Config;
use crate::broker::Broker;
use crate::connect::refusal;
use crate::connection::ConnectionId;
use crate::hooks::Hooks;

/// The connections of other shards, for limits that all shards have together: see [`Broker::open_beside`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Elsewhere {
    /// How many they are.
    pub connections: usize,
    /// How many of them are from the address of the new connection.
    pub of_address: usize,
}

impl<H: Hooks> Broker<H> {
    /// Returns the shard that has the session of a new client, if it is another shard. `input` is what the client has sent, and nothing
    /// of it is taken. A client without an identifier is of any shard: each call with its CONNECT returns the next one in turn, so call
    /// this once for it. `None` while CONNECT is not complete, for bytes that are no CONNECT, for a client that is refused because it has
    /// no identifier, and if this broker is no shard: [`Self::receive`] handles these.
    #[must_use]
    pub fn owner_of(&mut self, input: &[u8]) -> Option<u8> {
        let links = self.links.as_mut()?;
        // CONNECT says which version it has.
        let Ok(Decoded::Packet {
            packet: Packet::Connect(connect),
            ..
        }) = Packet::decode(input, Version::V5, MAX_PACKET)
        else {
            return None;
        };
        let owner = if connect.client_id.is_empty() {
            if refusal(&connect, &self.config).is_some() {
                return None;
            }
            links.next_of_any()
        } else {
            shard_of(connect.client_id, links.count(), self.config.hash_key)
        };
        (owner != links.own).then_some(owner)
    }

    /// Returns an assigned client identifier, with a number behind it if another shard had its session otherwise: a client that comes
    /// again with it must find its session.
    pub(crate) fn name_of_own(&self, name: String) -> String {
        let Some(links) = &self.links else {
            return name;
        };
        let is_own =
            |name: &String| shard_of(name, links.count(), self.config.hash_key) == links.own;
        if is_own(&name) {
            return name;
        }
        let mut numbered = (0..u16::MAX).map(|number| format!("{name}-{number}"));
        numbered.find(is_own).unwrap_or(name)
    }

    /// Forgets a connection that another shard takes over before this one got its CONNECT. The end is not observed, and the connection
    /// counts as opened in the other shard only.
    pub fn moved(&mut self, id: ConnectionId, now: Instant) {
        if self.is_accepted(id) || self.is_closing(id) {
            self.closed(id, now);
            return;
        }
        let Some(connection) = self.connections.get_mut(id.index) else {
            return;
        };
        connection.ended = true;
        self.inputs.set(id.index, &mut connection.input, 0);
        let sockets = &mut self.statistics.sockets;
        *sockets = sockets.saturating_sub(1);
        self.closed(id, now);
    }

    /// Returns the present limits.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }
}

impl Config {
    /// Returns the limits of each shard where there are `shards`. They divide the bytes of all clients. Limits of connections
    /// and sessions stay, since the host counts those of all shards ([`Broker::open_beside`], [`Hooks::take_place`]), and so do
    /// [`Config::pending_connections`], the limits of one client and those of retained messages, which each shard has. Each
    /// link has a session more.
    #[must_use]
    pub fn of_shard(&self, shards: u8) -> Self {
        let shards = usize::from(shards.max(1));
        let part = |limit: usize| limit.div_ceil(shards);
        let links = shards.saturating_sub(1);
        Self {
            sessions: self.sessions.saturating_add(links),
            connection_bytes_total: part(self.connection_bytes_total),
            input_bytes_total: part(self.input_bytes_total).max(to_usize(self.packet_size)),
            queued_bytes_total: part(self.queued_bytes_total),
            subscription_bytes_total: part(self.subscription_bytes_total),
            will_bytes: part(self.will_bytes),
            ..self.clone()
        }
    }
}
