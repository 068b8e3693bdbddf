//! One client, one server, a virtual clock, and a wire that can be cut at any byte, delayed, and split into any reads.

use mqtt_proto::{Decoded, MAX_PACKET, Packet, PacketType, Version};
use mqtt_session::{Config, Instant};

use crate::endpoint::{Endpoint, Happening, Opening, Role, answer};

/// One direction of the wire and what its reader has not used up.
#[derive(Debug, Default)]
pub struct Way {
    /// Written by the sender, not yet delivered.
    pub flying: Vec<u8>,
    /// Delivered, not yet used up.
    arrived: Vec<u8>,
    /// Every byte that was ever written, for the log.
    log: Vec<u8>,
}

/// Client and server with a wire between them.
#[derive(Debug)]
pub struct Pair {
    /// The client.
    pub client: Endpoint,
    /// The server.
    pub server: Endpoint,
    /// From client to server.
    pub up: Way,
    /// From server to client.
    pub down: Way,
    /// The virtual clock.
    pub now: Instant,
    /// How connections are begun.
    pub opening: Opening,
    /// Whether the server still has its sessions.
    pub server_remembers: bool,
    /// What the client learned.
    pub client_log: Vec<Happening>,
    /// What the server learned.
    pub server_log: Vec<Happening>,
    config: Config,
}

impl Pair {
    /// Two machines that never met.
    #[must_use]
    pub fn new(opening: Opening, config: Config) -> Self {
        Self {
            client: Endpoint::new(Role::Client, config),
            server: Endpoint::new(Role::Server, config),
            up: Way::default(),
            down: Way::default(),
            now: Instant::from_millis(1_000),
            opening,
            server_remembers: true,
            client_log: Vec::new(),
            server_log: Vec::new(),
            config,
        }
    }

    /// The same, connected.
    #[must_use]
    pub fn connected(opening: Opening, config: Config) -> Self {
        let mut pair = Self::new(opening, config);
        pair.connect();
        pair.run();
        pair
    }

    /// The version in use.
    #[must_use]
    pub fn version(&self) -> Version {
        self.opening.version
    }

    /// A new transport; CONNECT waits at the client.
    ///
    /// # Panics
    /// When CONNECT does not fit.
    pub fn connect(&mut self) {
        self.cut();
        self.client
            .client()
            .connect(&self.opening.connect(), self.now)
            .expect("room for CONNECT");
        self.server.server().opened(self.now);
    }

    /// The transport is gone, with whatever was on the wire.
    pub fn cut(&mut self) {
        for (endpoint, way) in [
            (&mut self.client, &mut self.up),
            (&mut self.server, &mut self.down),
        ] {
            endpoint.disconnected();
            *way = Way {
                log: core::mem::take(&mut way.log),
                ..Way::default()
            };
        }
        self.step_client();
        self.step_server();
    }

    /// The server forgets all sessions.
    pub fn server_restarts(&mut self) {
        self.cut();
        self.server = Endpoint::new(Role::Server, self.config);
    }

    /// Takes up to `n` outgoing bytes of a side to the wire.
    pub fn write(&mut self, role: Role, n: usize) {
        let (endpoint, way) = match role {
            Role::Client => (&mut self.client, &mut self.up),
            Role::Server => (&mut self.server, &mut self.down),
        };
        let n = n.min(endpoint.outgoing().len());
        way.flying.extend_from_slice(&endpoint.outgoing()[..n]);
        way.log.extend_from_slice(&endpoint.outgoing()[..n]);
        endpoint.sent(n);
    }

    /// Delivers up to `n` bytes to a side and lets it look at them.
    pub fn read(&mut self, role: Role, n: usize) {
        let way = match role {
            Role::Client => &mut self.down,
            Role::Server => &mut self.up,
        };
        let n = n.min(way.flying.len());
        way.arrived.extend(way.flying.drain(..n));
        match role {
            Role::Client => self.step_client(),
            Role::Server => self.step_server(),
        }
    }

    fn step_client(&mut self) {
        step(
            &mut self.client,
            &mut self.down.arrived,
            self.now,
            &mut self.client_log,
            |_, _| {},
        );
    }

    fn step_server(&mut self) {
        let (opening, remembers, now) = (&self.opening, self.server_remembers, self.now);
        step(
            &mut self.server,
            &mut self.up.arrived,
            now,
            &mut self.server_log,
            |server, happening| {
                answer(server.server(), happening, opening, remembers, now);
            },
        );
    }

    /// Lets everything flow until nothing moves any more.
    ///
    /// # Panics
    /// When it never comes to rest.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            self.write(Role::Client, usize::MAX);
            self.read(Role::Server, usize::MAX);
            self.write(Role::Server, usize::MAX);
            self.read(Role::Client, usize::MAX);
            let quiet = self.up.flying.is_empty() && self.down.flying.is_empty();
            if quiet && self.client.outgoing().is_empty() && self.server.outgoing().is_empty() {
                // What ended when its last byte was written.
                self.step_client();
                self.step_server();
                return;
            }
        }
        panic!("the two never come to rest");
    }

    /// Whether either side closed the connection by a rule.
    #[must_use]
    pub fn broken(&self) -> Option<&Happening> {
        self.client_log
            .iter()
            .chain(&self.server_log)
            .find(|happening| matches!(happening, Happening::Closed(_)))
    }

    /// The packets a side wrote so far, in words.
    #[must_use]
    pub fn wrote(&self, role: Role) -> Vec<PacketType> {
        let log = match role {
            Role::Client => &self.up.log,
            Role::Server => &self.down.log,
        };
        packet_types(log, self.version())
    }
}

/// The types of the whole packets in `bytes`.
#[must_use]
pub fn packet_types(mut bytes: &[u8], version: Version) -> Vec<PacketType> {
    let mut types = Vec::new();
    while let Ok(Decoded::Packet { packet, consumed }) = Packet::decode(bytes, version, MAX_PACKET)
    {
        types.push(packet.packet_type());
        bytes = &bytes[consumed..];
    }
    types
}

/// Lets a machine look at its input until it needs more; each event goes to the log.
pub(crate) fn step(
    endpoint: &mut Endpoint,
    input: &mut Vec<u8>,
    now: Instant,
    log: &mut Vec<Happening>,
    mut answer: impl FnMut(&mut Endpoint, &Happening),
) {
    loop {
        match endpoint.receive(input, now) {
            Ok(mqtt_session::Step::Needs(needed)) => {
                assert!(needed > input.len(), "asks for {needed} of {}", input.len());
                return;
            }
            Ok(mqtt_session::Step::Blocked) => return,
            Ok(mqtt_session::Step::Packet { consumed, event }) => {
                input.drain(..consumed);
                if let Some(happening) = event {
                    answer(endpoint, &happening);
                    log.push(happening);
                }
            }
            Err(closed) => {
                input.clear();
                log.push(Happening::Closed(closed));
                return;
            }
        }
    }
}
