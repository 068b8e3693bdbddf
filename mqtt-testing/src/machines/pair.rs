//! A client and a server with a virtual clock, and a wire between them that can be cut at any byte, delayed, and read in any
//! pieces.

use mqtt_proto::{PacketType, Version};
use mqtt_session::{Config, Instant};

use super::endpoint::{Endpoint, Opening, OwnedEvent, Role, answer};
use crate::packets::packet_types;

/// One direction of the wire, and the input of its reader.
#[derive(Debug, Default)]
pub struct Direction {
    /// Bytes that are written and not delivered.
    pub flying: Vec<u8>,
    /// Bytes that are delivered and not consumed.
    arrived: Vec<u8>,
    /// All bytes that were ever written, for the log.
    log: Vec<u8>,
}

/// A client and a server with a wire between them.
#[derive(Debug)]
pub struct Pair {
    /// The client.
    pub client: Endpoint,
    /// The server.
    pub server: Endpoint,
    /// From client to server.
    pub up: Direction,
    /// From server to client.
    pub down: Direction,
    /// The virtual clock.
    pub now: Instant,
    /// The parameters of connections.
    pub opening: Opening,
    /// The events of the client.
    pub client_log: Vec<OwnedEvent>,
    /// The events of the server.
    pub server_log: Vec<OwnedEvent>,
    config: Config,
}

impl Pair {
    /// Makes two machines without a connection.
    #[must_use]
    pub fn new(opening: Opening, config: Config) -> Self {
        Self {
            client: Endpoint::new(Role::Client, config),
            server: Endpoint::new(Role::Server, config),
            up: Direction::default(),
            down: Direction::default(),
            now: Instant::from_millis(1_000),
            opening,
            client_log: Vec::new(),
            server_log: Vec::new(),
            config,
        }
    }

    /// Makes two machines and connects them.
    #[must_use]
    pub fn connected(opening: Opening, config: Config) -> Self {
        let mut pair = Self::new(opening, config);
        pair.connect();
        pair.run();
        pair
    }

    /// Returns the version in use.
    #[must_use]
    pub fn version(&self) -> Version {
        self.opening.version
    }

    /// Opens a new transport; CONNECT is outgoing at the client.
    ///
    /// # Panics
    /// There is no room for CONNECT.
    pub fn connect(&mut self) {
        self.cut();
        self.client
            .client()
            .connect(&self.opening.connect(), self.now)
            .expect("room for CONNECT");
        self.server.server().opened(self.now);
    }

    /// Cuts the transport. Bytes on the wire are lost.
    pub fn cut(&mut self) {
        for (endpoint, direction) in [
            (&mut self.client, &mut self.up),
            (&mut self.server, &mut self.down),
        ] {
            endpoint.disconnected();
            *direction = Direction {
                log: core::mem::take(&mut direction.log),
                ..Direction::default()
            };
        }
        self.step_client();
        self.step_server();
    }

    /// Makes the server forget all sessions.
    pub fn server_restarts(&mut self) {
        self.cut();
        self.server = Endpoint::new(Role::Server, self.config);
    }

    /// Moves up to `n` outgoing bytes of a side to the wire.
    pub fn write(&mut self, role: Role, n: usize) {
        let (endpoint, direction) = match role {
            Role::Client => (&mut self.client, &mut self.up),
            Role::Server => (&mut self.server, &mut self.down),
        };
        let n = n.min(endpoint.outgoing().len());
        direction
            .flying
            .extend_from_slice(&endpoint.outgoing()[..n]);
        direction.log.extend_from_slice(&endpoint.outgoing()[..n]);
        endpoint.sent(n);
    }

    /// Delivers up to `n` bytes to a side, which handles them.
    pub fn read(&mut self, role: Role, n: usize) {
        let direction = match role {
            Role::Client => &mut self.down,
            Role::Server => &mut self.up,
        };
        let n = n.min(direction.flying.len());
        direction.arrived.extend(direction.flying.drain(..n));
        match role {
            Role::Client => self.step_client(),
            Role::Server => self.step_server(),
        }
    }

    fn step_client(&mut self) {
        let events = step(
            &mut self.client,
            &mut self.down.arrived,
            self.now,
            |_, _| {},
        );
        self.client_log.extend(events);
    }

    fn step_server(&mut self) {
        let (opening, now) = (&self.opening, self.now);
        let input = &mut self.up.arrived;
        let events = step(&mut self.server, input, now, |server, event| {
            answer(server.server(), event, opening, now);
        });
        self.server_log.extend(events);
    }

    /// Lets both sides run until nothing is outgoing.
    ///
    /// # Panics
    /// They never become silent.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            self.write(Role::Client, usize::MAX);
            self.read(Role::Server, usize::MAX);
            self.write(Role::Server, usize::MAX);
            self.read(Role::Client, usize::MAX);
            let quiet = self.up.flying.is_empty() && self.down.flying.is_empty();
            if quiet && self.client.outgoing().is_empty() && self.server.outgoing().is_empty() {
                // Messages that ended when their last byte was written.
                self.step_client();
                self.step_server();
                return;
            }
        }
        panic!("the two never come to rest");
    }

    /// Returns whether a side closed the connection because of a broken rule.
    #[must_use]
    pub fn broken(&self) -> Option<&OwnedEvent> {
        self.client_log
            .iter()
            .chain(&self.server_log)
            .find(|event| matches!(event, OwnedEvent::Closed(_)))
    }

    /// Returns the packets that a side has written, as text.
    #[must_use]
    pub fn wrote(&self, role: Role) -> Vec<PacketType> {
        let log = match role {
            Role::Client => &self.up.log,
            Role::Server => &self.down.log,
        };
        packet_types(log, self.version())
    }
}

/// Lets a machine handle its input until it needs more. Returns its events.
pub(crate) fn step(
    endpoint: &mut Endpoint,
    input: &mut Vec<u8>,
    now: Instant,
    mut answer: impl FnMut(&mut Endpoint, &OwnedEvent),
) -> Vec<OwnedEvent> {
    let mut events = Vec::new();
    loop {
        match endpoint.receive(input, now) {
            Ok(mqtt_session::Step::Needs(needed)) => {
                assert!(needed > input.len(), "asks for {needed} of {}", input.len());
                return events;
            }
            Ok(mqtt_session::Step::Blocked) => return events,
            Ok(mqtt_session::Step::Packet { consumed, event }) => {
                input.drain(..consumed);
                if let Some(event) = event {
                    answer(endpoint, &event);
                    events.push(event);
                }
            }
            Err(closed) => {
                input.clear();
                events.push(OwnedEvent::Closed(closed));
                return events;
            }
        }
    }
}
