//! A client or server whose peer is the test: the test feeds it bytes and reads its outgoing bytes.

use mqtt_proto::{AckKind, ConnAck, Packet, QoS, Version};
use mqtt_session::{Config, Instant, Refused, Token};

use super::endpoint::{Endpoint, Opening, OwnedEvent, Role};
use super::pair::step;
use crate::packets::{ack, encode, packet_types, publish};

/// A client or a server with its clock and its events.
#[derive(Debug)]
pub struct TestedMachine {
    /// The machine.
    pub machine: Endpoint,
    /// The role of the machine.
    pub role: Role,
    /// The parameters of its connections.
    pub opening: Opening,
    /// The virtual clock.
    pub now: Instant,
    /// Events that the test has not taken.
    pub log: Vec<OwnedEvent>,
    input: Vec<u8>,
}

impl TestedMachine {
    /// Makes a connected machine with a new session.
    #[must_use]
    pub fn connected(role: Role, opening: Opening, config: Config) -> Self {
        let mut tested = Self::new(role, opening, config);
        tested.connect(false);
        tested.log.clear();
        tested
    }

    /// Makes a machine without a connection.
    #[must_use]
    pub fn new(role: Role, opening: Opening, config: Config) -> Self {
        let now = Instant::from_millis(1_000);
        Self {
            machine: Endpoint::new(role, config),
            role,
            opening,
            now,
            log: Vec::new(),
            input: Vec::new(),
        }
    }

    /// Returns the version in use.
    #[must_use]
    pub fn version(&self) -> Version {
        self.opening.version
    }

    /// Connects to a peer that has the session or not. Packets after CONNECT or CONNACK stay outgoing.
    ///
    /// # Panics
    /// The connection does not begin as it should.
    pub fn connect(&mut self, session_present: bool) {
        self.disconnect();
        let opening = self.opening.clone();
        match self.role {
            Role::Client => {
                self.machine
                    .client()
                    .connect(&opening.connect(), self.now)
                    .expect("room for CONNECT");
                assert_eq!(self.sent_types(), [mqtt_proto::PacketType::Connect]);
                self.feed_packet(&Packet::ConnAck(opening.connack(session_present)));
            }
            Role::Server => {
                self.machine.server().opened(self.now);
                self.feed_packet(&Packet::Connect(opening.connect()));
                let connack = ConnAck {
                    ..opening.connack(session_present)
                };
                self.machine
                    .server()
                    .accept(&connack, self.now)
                    .expect("CONNECT awaits a decision");
                let len = encode(&Packet::ConnAck(connack), opening.version).len();
                self.machine.sent(len);
            }
        }
    }

    /// Ends the connection.
    pub fn disconnect(&mut self) {
        self.machine.disconnected();
        self.input.clear();
        self.feed(&[]);
    }

    /// Feeds bytes, which the machine handles.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let events = step(&mut self.machine, &mut self.input, self.now, |_, _| {});
        self.log.extend(events);
    }

    /// Feeds a packet.
    pub fn feed_packet(&mut self, packet: &Packet<'_>) {
        self.feed(&encode(packet, self.version()));
    }

    /// Feeds a PUBLISH.
    pub fn feed_publish(&mut self, qos: QoS, id: u16, dup: bool, payload: &str) {
        self.feed_packet(&Packet::Publish(publish(qos, id, dup, payload)));
    }

    /// Feeds an acknowledgement.
    pub fn feed_ack(&mut self, kind: AckKind, id: u16) {
        self.feed(&ack(kind, id));
    }

    /// Takes all outgoing bytes.
    pub fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !self.machine.outgoing().is_empty() {
            bytes.extend_from_slice(self.machine.outgoing());
            let n = self.machine.outgoing().len();
            self.machine.sent(n);
        }
        bytes
    }

    /// Takes all outgoing bytes, and returns the types of their packets.
    pub fn sent_types(&mut self) -> Vec<mqtt_proto::PacketType> {
        let version = self.version();
        packet_types(&self.sent(), version)
    }

    /// Takes the events.
    pub fn learned(&mut self) -> Vec<OwnedEvent> {
        core::mem::take(&mut self.log)
    }

    /// Takes the messages among the events, and returns their payloads.
    pub fn messages(&mut self) -> Vec<String> {
        let (messages, rest) = self
            .learned()
            .into_iter()
            .partition(|h| matches!(h, OwnedEvent::Message { .. }));
        self.log = rest;
        let payload = |event| match event {
            OwnedEvent::Message { payload, .. } => payload,
            _ => unreachable!("partitioned"),
        };
        Vec::into_iter(messages).map(payload).collect()
    }

    /// Publishes.
    ///
    /// # Errors
    /// As for the machine.
    pub fn publish(&mut self, qos: QoS, payload: &str) -> Result<Option<Token>, Refused> {
        self.machine
            .publish(qos, "a/b", payload.as_bytes(), self.now)
    }

    /// Publishes at QoS 1 or 2.
    ///
    /// # Panics
    /// The message is refused.
    pub fn must_publish(&mut self, qos: QoS, payload: &str) -> Token {
        self.publish(qos, payload)
            .expect("accepted")
            .expect("a token")
    }

    /// Advances the clock, and tells the machine the time.
    pub fn wait(&mut self, millis: u64) {
        self.now = Instant::from_millis(self.now.as_millis() + millis);
        if let Err(closed) = self.machine.tick(self.now) {
            self.log.push(OwnedEvent::Closed(closed));
        }
    }
}
