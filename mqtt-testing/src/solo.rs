//! One machine alone: the test is its peer and speaks bytes.

use mqtt_proto::{
    Ack, AckKind, ConnAck, Delivery, Encode, Packet, PacketId, Properties, Property, Publish, QoS,
    ReasonCode, TopicName, Version,
};
use mqtt_session::{Config, Instant, Refused, Token};

use crate::endpoint::{Endpoint, Happening, Opening, Role};
use crate::pair::step;

/// One machine, connected to the test.
#[derive(Debug)]
pub struct Solo {
    /// The machine.
    pub machine: Endpoint,
    /// Its role.
    pub role: Role,
    /// How its connections begin.
    pub opening: Opening,
    /// The virtual clock.
    pub now: Instant,
    /// What it learned and the test did not take.
    pub log: Vec<Happening>,
    input: Vec<u8>,
}

impl Solo {
    /// A machine that is connected, its session new.
    #[must_use]
    pub fn connected(role: Role, opening: Opening, config: Config) -> Self {
        let mut solo = Self::new(role, opening, config);
        solo.connect(false);
        solo.log.clear();
        solo
    }

    /// A machine without a connection.
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

    /// The version in use.
    #[must_use]
    pub fn version(&self) -> Version {
        self.opening.version
    }

    /// Connects; the peer has the session or not. What is sent behind CONNECT or CONNACK stays to be taken.
    ///
    /// # Panics
    /// When the machine does not begin as it should.
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

    /// The transport is gone.
    pub fn disconnect(&mut self) {
        self.machine.disconnected();
        self.input.clear();
        self.feed(&[]);
    }

    /// Gives it bytes and lets it look at them.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        step(
            &mut self.machine,
            &mut self.input,
            self.now,
            &mut self.log,
            |_, _| {},
        );
    }

    /// Gives it a packet.
    pub fn feed_packet(&mut self, packet: &Packet<'_>) {
        self.feed(&encode(packet, self.version()));
    }

    /// Gives it a PUBLISH.
    pub fn feed_publish(&mut self, qos: QoS, id: u16, dup: bool, payload: &str) {
        self.feed_packet(&Packet::Publish(publish(qos, id, dup, payload)));
    }

    /// Gives it an acknowledgement.
    pub fn feed_ack(&mut self, kind: AckKind, id: u16) {
        self.feed(&ack(kind, id));
    }

    /// Everything it wants to send, taken.
    pub fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !self.machine.outgoing().is_empty() {
            bytes.extend_from_slice(self.machine.outgoing());
            let n = self.machine.outgoing().len();
            self.machine.sent(n);
        }
        bytes
    }

    /// The same, as packet types.
    pub fn sent_types(&mut self) -> Vec<mqtt_proto::PacketType> {
        let version = self.version();
        crate::pair::packet_types(&self.sent(), version)
    }

    /// What it learned, taken.
    pub fn learned(&mut self) -> Vec<Happening> {
        core::mem::take(&mut self.log)
    }

    /// The payloads of the messages it learned of; the rest stays.
    pub fn messages(&mut self) -> Vec<String> {
        let (messages, rest) = self
            .learned()
            .into_iter()
            .partition(|h| matches!(h, Happening::Message { .. }));
        self.log = rest;
        let payload = |happening| match happening {
            Happening::Message { payload, .. } => payload,
            _ => unreachable!("partitioned"),
        };
        Vec::into_iter(messages).map(payload).collect()
    }

    /// Publishes.
    ///
    /// # Errors
    /// As the machine.
    pub fn publish(&mut self, qos: QoS, payload: &str) -> Result<Option<Token>, Refused> {
        self.machine
            .publish(qos, "a/b", payload.as_bytes(), self.now)
    }

    /// Publishes at QoS 1 or 2.
    ///
    /// # Panics
    /// When it is refused.
    pub fn must_publish(&mut self, qos: QoS, payload: &str) -> Token {
        self.publish(qos, payload)
            .expect("accepted")
            .expect("a token")
    }

    /// Time passes.
    pub fn wait(&mut self, millis: u64) {
        self.now = Instant::from_millis(self.now.as_millis() + millis);
        if let Err(closed) = self.machine.tick(self.now) {
            self.log.push(Happening::Closed(closed));
        }
    }
}

/// A PUBLISH to `a/b`.
///
/// # Panics
/// When the identifier is 0 and QoS is not.
#[must_use]
pub fn publish(qos: QoS, id: u16, dup: bool, payload: &str) -> Publish<'_> {
    let id = || PacketId::new(id).expect("not zero");
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(id()),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(id()),
    };
    Publish {
        dup,
        delivery,
        ..Publish::new(TopicName::from_static("a/b"), payload.as_bytes())
    }
}

/// The bytes of an acknowledgement with success.
#[must_use]
pub fn ack(kind: AckKind, id: u16) -> Vec<u8> {
    ack_with(kind, id, ReasonCode::Success)
}

/// The bytes of an acknowledgement of MQTT 5 with a reason.
///
/// # Panics
/// When the identifier is 0.
#[must_use]
pub fn ack_with(kind: AckKind, id: u16, reason: ReasonCode) -> Vec<u8> {
    let ack = Ack::with_reason(PacketId::new(id).expect("not zero"), reason);
    let packet = match kind {
        AckKind::PubAck => Packet::PubAck(ack),
        AckKind::PubRec => Packet::PubRec(ack),
        AckKind::PubRel => Packet::PubRel(ack),
        AckKind::PubComp => Packet::PubComp(ack),
    };
    encode(&packet, Version::V5)
}

/// The bytes of a packet.
///
/// # Panics
/// When it cannot be sent.
#[must_use]
pub fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = vec![
        0;
        packet
            .encoded_len(version)
            .expect("a packet that can be sent")
    ];
    packet
        .encode(version, &mut bytes)
        .expect("as long as it said");
    bytes
}

/// Properties of a list, for literals in tests.
#[must_use]
pub fn properties<'a>(list: &'a [Property<'a>]) -> Properties<'a> {
    list.into()
}
