//! The engine: one end of one connection and its session, without memory, lifetime or type parameter. Each call gets the memory as an
//! argument. The engine has three roles: a client, a server, and a server whose peer is a server of the same broker. The roles differ
//! in the packets that they accept, in their time-outs, and in who begins and ends a connection.
//!
//! ```text
//! state/         what the engine stores          memory.rs    the tables and buffers that each call gets
//! connection.rs  begin and end of a connection   keep_alive.rs  time
//! receive.rs     incoming packets: one step, one match by packet type
//! outbound.rs    messages to the peer            requests.rs  SUBSCRIBE and UNSUBSCRIBE      slots.rs  the table of both
//! inbound.rs     messages from the peer          pieces.rs    those larger than the input buffer
//! outgoing.rs    bytes for the transport         large.rs     packets that are sent from where they are kept
//! aliases.rs     topic aliases                   journal.rs   records that outlive the process
//! client.rs, server.rs  typed commands and events of the two roles      endpoint.rs  the methods of both
//! ```
//!
//! Files import in one direction: those in `state/` do not know the engine, this file imports only them, and all others import it.

use crate::config::Config;
#[cfg(feature = "journal")]
use crate::state::journal::Boxed;
use crate::state::large::Large;
use crate::state::link::{Link, Phase};
use crate::state::session::Session;
use crate::tune::{SERVER, V5};

/// The terms of a connection: those that the client asked for in CONNECT, or those that its host decided instead.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// How long the session outlives its connection, in seconds.
    pub(crate) session_expiry: u32,
    /// The keep-alive in seconds.
    pub(crate) keep_alive: u16,
    /// Whether there is a will that the end of the connection makes due.
    pub(crate) will: bool,
}

/// The side of a connection that an engine is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Client,
    #[cfg(feature = "server")]
    Server,
    /// A server whose client is a server as well, a part of the same broker: messages have subscription identifiers in both directions.
    #[cfg(feature = "server")]
    ServerOfServer,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) session: Session,
    pub(crate) link: Link,
    /// The packet that is sent from where it is kept. It ends with the connection, but the session still has its slot.
    pub(crate) large: Large,
    /// Whether the next CONNECT has to start a new session: the peer has, or may have, another session than this side, or this
    /// session is to be forgotten.
    pub(crate) must_start_clean: bool,
    role: Role,
    #[cfg(feature = "server")]
    pub(crate) terms: Terms,
    #[cfg(feature = "journal")]
    pub(crate) journal: Option<Boxed>,
}

impl Engine {
    pub(crate) fn new(config: Config, role: Role) -> Self {
        Self {
            session: Session::new(config.version),
            link: Link::new(config.version, &config),
            config,
            large: Large::NONE,
            must_start_clean: false,
            role,
            #[cfg(feature = "server")]
            terms: Terms::default(),
            #[cfg(feature = "journal")]
            journal: None,
        }
    }

    /// Makes the peer of a server a server as well.
    #[cfg(feature = "server")]
    pub(crate) const fn serve_server(&mut self) {
        self.role = Role::ServerOfServer;
    }

    /// Returns whether the peer is a server as well.
    #[cfg(feature = "server")]
    pub(crate) const fn serves_server(&self) -> bool {
        matches!(self.role, Role::ServerOfServer)
    }

    pub(crate) const fn is_server(&self) -> bool {
        SERVER && !matches!(self.role, Role::Client)
    }

    pub(crate) const fn is_v5(&self) -> bool {
        V5 && self.link.version.is_v5()
    }

    /// Returns whether CONNECT has arrived and the host has not decided on it.
    #[inline]
    pub(crate) const fn is_undecided(&self) -> bool {
        SERVER && self.link.undecided
    }

    pub(crate) const fn is_connected(&self) -> bool {
        matches!(self.link.phase, Phase::Connected)
    }

    /// Returns whether an end has not been reported yet.
    pub(crate) const fn has_ended(&self) -> bool {
        self.session.ended > 0
    }
}
