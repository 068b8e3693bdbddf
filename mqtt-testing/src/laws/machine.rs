//! The law of the machines: for any bytes, commands and ticks in any order, they never panic, write only valid packets, stay
//! within their limits, end each token once, and never have a past deadline without work.

use std::collections::HashSet;

use mqtt_proto::num::to_usize;
use mqtt_proto::{
    Ack, Auth, ConnAck, Connect, Decoded, Disconnect, List, MAX_PACKET, Packet, PacketId,
    PacketType, Properties, Property, QoS, ReasonCode, SubAck, Subscription, TopicFilter,
    TopicName, UnsubAck, Version,
};
use mqtt_session::{
    Acknowledge, Config, Instant, Offline, Outgoing, Receipt, SessionLost, Step, Token,
};

use crate::choices::Choices;
use crate::machines::{CLIENT_ID, Endpoint, OwnedEvent, Role};
use crate::packets::encode;
use crate::packets::generated::{types, with_packet};

struct Trial<'a> {
    machine: Endpoint,
    role: Role,
    version: Version,
    config: Config,
    choices: Choices<'a>,
    now: Instant,
    input: Vec<u8>,
    /// Outgoing bytes of this connection that are not yet a complete packet.
    written: Vec<u8>,
    open: HashSet<Token>,
    receipts: Vec<Receipt>,
    /// The topic aliases that were assigned on this connection.
    aliases: HashSet<u16>,
    /// The largest PUBLISH that the peer accepts.
    largest: usize,
    /// The packet identifiers of SUBSCRIBE and UNSUBSCRIBE, with their numbers of filters.
    asked: Vec<(u16, usize)>,
}

/// The size of a client's small input buffer.
const BUFFER: usize = 64;

/// Runs one machine with the decisions in `choices`.
///
/// # Panics
/// When the law is broken.
pub fn withstands(choices: &[u8], role: Role, version: Version) {
    let mut choices = Choices::new(choices);
    let mut config = Config::default();
    config.version = version;
    config.window = 1 + u16::from(choices.byte() % 8);
    config.window_qos2 = 1 + u16::from(choices.byte() % 4);
    config.queue = 1 + u16::from(choices.byte() % 8);
    config.requests = choices.byte() % 4;
    config.offline = choices.pick(&[Offline::Keep, Offline::Reject, Offline::DropOldest]);
    config.session_lost = choices.pick(&[SessionLost::SendAgain, SessionLost::HandBack]);
    config.acknowledge = choices.pick(&[Acknowledge::Automatic, Acknowledge::ByHand]);
    config.packet_limit = choices.pick(&[64, 1 << 20]);
    config.outgoing_limit = choices.pick(&[128, 256 << 10]);
    config.kept_limit = choices.pick(&[256, 16 << 20]);
    config.auto_alias = u16::from(choices.byte() % 4);
    let mut trial = Trial {
        machine: Endpoint::new(role, config),
        role,
        version,
        config,
        choices,
        now: Instant::from_millis(0),
        input: Vec::new(),
        written: Vec::new(),
        open: HashSet::new(),
        receipts: Vec::new(),
        aliases: HashSet::new(),
        largest: usize::MAX,
        asked: Vec::new(),
    };
    trial.connect();
    while !trial.choices.is_empty() {
        trial.operate();
        trial.look();
        trial.check();
    }
}

impl Trial<'_> {
    fn operate(&mut self) {
        match self.choices.below(20) {
            0..=2 => {
                let bytes = self.choices.slice(20);
                self.input.extend_from_slice(bytes);
            }
            3..=6 => {
                let types: Vec<_> = types(self.version).collect();
                let packet_type = self.choices.pick(&types);
                let version = self.version;
                let bytes = with_packet(packet_type, version, &mut self.choices, |packet| {
                    encode(packet, version)
                });
                self.input.extend_from_slice(&bytes);
            }
            7..=10 => self.acknowledged(),
            11..=13 => self.publish(),
            14 => self.request(),
            15 => self.answer(),
            16 => {
                let n = self.choices.below(256);
                self.take(n);
            }
            17 => self.time(),
            18 => match self.choices.below(4) {
                0 => self.disconnect(),
                1 => {
                    self.machine.disconnected();
                    self.input.clear();
                    self.written.clear();
                }
                2 => self.authenticate(),
                _ => self.take(usize::MAX),
            },
            _ => self.connect(),
        }
    }

    /// Sends an acknowledgement with a small identifier, which may be one that is awaited.
    fn acknowledged(&mut self) {
        let id = PacketId::new(1 + u16::from(self.choices.byte() % 6)).unwrap_or(PacketId::FIRST);
        let reason = if self.version.is_v5() && self.choices.byte() == 1 {
            ReasonCode::PacketIdentifierNotFound
        } else {
            ReasonCode::Success
        };
        let failed = if reason == ReasonCode::Success {
            reason
        } else {
            ReasonCode::QuotaExceeded
        };
        let packet = match self.choices.below(6) {
            0 => Packet::PubAck(Ack::with_reason(id, failed)),
            1 => Packet::PubRec(Ack::with_reason(id, failed)),
            2 => Packet::PubRel(Ack::with_reason(id, reason)),
            3 => Packet::PubComp(Ack::with_reason(id, reason)),
            4 => Packet::SubAck(SubAck::new(id, &[ReasonCode::Success])),
            _ => Packet::UnsubAck(UnsubAck::new(
                id,
                if self.version.is_v5() {
                    &[ReasonCode::Success][..]
                } else {
                    &[]
                },
            )),
        };
        let bytes = encode(&packet, self.version);
        self.input.extend_from_slice(&bytes);
    }

    fn publish(&mut self) {
        let topic = TopicName::from_static(self.choices.pick(&["a", "b/c", "d"]));
        let qos = self
            .choices
            .pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let payload = self.choices.slice(100);
        let message = Outgoing {
            retain: self.choices.flag(),
            ..Outgoing::new(topic, qos, payload)
        };
        let accepted = match &mut self.machine {
            Endpoint::Client(client) => client.publish(&message, self.now),
            Endpoint::Server(server) => server.publish(&message),
        };
        if let Ok(Some(token)) = accepted {
            assert!(self.open.insert(token), "a token twice");
        }
    }

    fn request(&mut self) {
        let Endpoint::Client(client) = &mut self.machine else {
            return;
        };
        let filter = TopicFilter::new("a/#").unwrap_or_default();
        let accepted = if self.choices.flag() {
            let filters = [Subscription::new(filter, QoS::ExactlyOnce)];
            client.subscribe(&filters, Properties::EMPTY, self.now)
        } else {
            client.unsubscribe(&[filter], Properties::EMPTY, self.now)
        };
        if let Ok(token) = accepted {
            assert!(self.open.insert(token), "a token twice");
        }
    }

    /// Answers like an application: acknowledgements by hand and, on a server, all other answers.
    fn answer(&mut self) {
        if !self.receipts.is_empty() {
            let receipt = self.receipts[self.choices.below(self.receipts.len())];
            let reason = self
                .choices
                .pick(&[ReasonCode::Success, ReasonCode::QuotaExceeded]);
            let _ = self.machine.acknowledge(receipt, reason, self.now);
        }
        let Endpoint::Server(server) = &mut self.machine else {
            return;
        };
        let connack = ConnAck {
            session_present: self.choices.flag(),
            ..ConnAck::default()
        };
        let refused = ConnAck {
            reason: ReasonCode::NotAuthorized,
            ..ConnAck::default()
        };
        let _ = match self.choices.below(5) {
            0 => server.refuse(&refused),
            1..=2 => server.accept(&connack, self.now),
            _ => match self.asked.pop() {
                Some((id, count)) => {
                    let id = PacketId::new(id).unwrap_or(PacketId::FIRST);
                    let codes = vec![ReasonCode::Success; count];
                    if self.choices.flag() {
                        server.subscribed(&SubAck::new(id, List::from(&codes[..])))
                    } else {
                        server.unsubscribed(&UnsubAck::new(id, List::from(&codes[..])))
                    }
                }
                None => Ok(()),
            },
        };
    }

    fn authenticate(&mut self) {
        let properties = [Property::AuthenticationMethod("m")];
        let auth = Auth {
            reason: ReasonCode::ContinueAuthentication,
            properties: (&properties).into(),
        };
        let _ = match &mut self.machine {
            Endpoint::Client(client) => client.authenticate(&auth, self.now),
            Endpoint::Server(server) => server.authenticate(&auth),
        };
    }

    fn disconnect(&mut self) {
        let _ = match &mut self.machine {
            Endpoint::Client(client) => client.disconnect(&Disconnect::default()),
            Endpoint::Server(server) => server.disconnect(&Disconnect::default()),
        };
    }

    fn connect(&mut self) {
        self.input.clear();
        self.written.clear();
        self.receipts.clear();
        self.aliases.clear();
        let largest = 20 + u32::from(self.choices.byte());
        self.largest = usize::MAX;
        let properties = [
            Property::ReceiveMaximum(1 + u16::from(self.choices.byte() % 4)),
            Property::TopicAliasMaximum(u16::from(self.choices.byte() % 4)),
            Property::MaximumPacketSize(largest),
            Property::SessionExpiryInterval(100),
            Property::AuthenticationMethod("m"),
        ];
        let count = if self.version.is_v5() {
            4 + usize::from(self.choices.flag())
        } else {
            0
        };
        let must_start_clean =
            matches!(&self.machine, Endpoint::Client(client) if client.must_start_clean());
        let connect = Connect {
            clean_start: self.choices.flag() || must_start_clean,
            keep_alive: u16::from(self.choices.byte() % 8),
            properties: properties[..count].into(),
            ..Connect::new(self.version, CLIENT_ID)
        };
        match self.role {
            Role::Client => self.connect_client(&connect, &properties, largest),
            Role::Server => self.connect_server(&connect, largest),
        }
    }

    fn connect_client(&mut self, connect: &Connect<'_>, properties: &[Property<'_>], largest: u32) {
        let _ = self.machine.client().connect(connect, self.now);
        if !self.choices.flag() {
            return;
        }
        let announced = if self.version.is_v5() { 3 } else { 0 };
        let connack = ConnAck {
            session_present: self.choices.flag(),
            properties: properties[..announced].into(),
            ..ConnAck::default()
        };
        if announced > 0 {
            self.largest = usize::try_from(largest).expect("small");
        }
        self.input
            .extend(encode(&Packet::ConnAck(connack), self.version));
    }

    fn connect_server(&mut self, connect: &Connect<'_>, largest: u32) {
        self.machine.server().disconnected();
        self.machine.server().opened(self.now);
        if self.version.is_v5() {
            self.largest = usize::try_from(largest).expect("small");
        }
        self.input
            .extend(encode(&Packet::Connect(*connect), self.version));
        self.look();
        if !self.choices.flag() {
            return;
        }
        let present = self.choices.flag()
            && !connect.clean_start
            && self.machine.server().has_session_of(CLIENT_ID);
        let connack = ConnAck {
            session_present: present,
            ..ConnAck::default()
        };
        let _ = self.machine.server().accept(&connack, self.now);
    }

    fn time(&mut self) {
        let deadline = self.machine.deadline();
        let passed = Instant::from_millis(self.now.as_millis() + u64::from(self.choices.u16()));
        self.now = deadline
            .filter(|_| self.choices.flag())
            .unwrap_or(passed)
            .max(self.now);
        let ticked = self.machine.tick(self.now);
        // All input was handled before. With a deadline that stays in the past, a loop would never sleep.
        if ticked.is_ok() && self.input.is_empty() {
            let next = self.machine.deadline();
            assert!(
                next.is_none_or(|next| next > self.now),
                "tick at {:?} leaves the deadline at {next:?}",
                self.now
            );
        }
    }

    /// Takes up to `n` outgoing bytes, which must be packets.
    fn take(&mut self, n: usize) {
        let outgoing = self.machine.outgoing();
        let n = n.min(outgoing.len());
        self.written.extend_from_slice(&outgoing[..n]);
        self.machine.sent(n);
        loop {
            match Packet::decode(&self.written, self.version, MAX_PACKET) {
                Ok(Decoded::Packet { packet, consumed }) => {
                    let fits = match self.role {
                        Role::Client => !matches!(
                            packet.packet_type(),
                            PacketType::ConnAck
                                | PacketType::SubAck
                                | PacketType::UnsubAck
                                | PacketType::PingResp
                        ),
                        Role::Server => !matches!(
                            packet.packet_type(),
                            PacketType::Connect
                                | PacketType::Subscribe
                                | PacketType::Unsubscribe
                                | PacketType::PingReq
                        ),
                    };
                    assert!(fits, "{:?} says {packet:?}", self.role);
                    if let Packet::Publish(publish) = packet {
                        assert!(
                            consumed <= self.largest,
                            "{consumed} bytes are more than the peer takes"
                        );
                        let known = publish.topic_alias.is_none_or(|alias| {
                            let new = self.aliases.insert(alias.get());
                            !publish.topic.is_none() || !new
                        });
                        assert!(known, "an alias that was never assigned");
                    }
                    self.written.drain(..consumed);
                }
                Ok(Decoded::Needs(_)) => return,
                Err(error) => panic!("it says what is no packet: {error}"),
            }
        }
    }

    /// Lets the machine handle its input until it needs more, is blocked, or the connection has ended.
    fn look(&mut self) {
        loop {
            // Half of the clients have a small buffer: a larger packet comes in pieces, or ends the connection.
            let small = self.role == Role::Client && self.config.window % 2 == 1;
            let full = small && self.input.len() >= BUFFER;
            let step = if full {
                self.machine.receive_full(&self.input, self.now)
            } else {
                self.machine.receive(&self.input, self.now)
            };
            match step {
                Ok(Step::Needs(n)) => {
                    assert!(!full, "a full buffer waits for ever");
                    assert!(
                        n > self.input.len(),
                        "it needs {n} bytes and has {}",
                        self.input.len()
                    );
                    return;
                }
                // A server handles no more input before CONNECT is decided.
                Ok(Step::Blocked) if self.machine.outgoing().is_empty() => {
                    assert!(
                        self.role == Role::Server && !self.machine.is_connected(),
                        "blocked by nothing"
                    );
                    return;
                }
                Ok(Step::Blocked) => self.take(usize::MAX),
                Ok(Step::Packet { consumed, event }) => {
                    assert!(consumed > 0 || event.is_some(), "a step that does nothing");
                    self.input.drain(..consumed);
                    if let Some(event) = event {
                        self.learn(event);
                    }
                }
                Err(_) => {
                    self.input.clear();
                    self.take(usize::MAX);
                    self.machine.disconnected();
                    self.written.clear();
                    self.receipts.clear();
                }
            }
        }
    }

    fn learn(&mut self, event: OwnedEvent) {
        match event {
            OwnedEvent::Acknowledged { token, .. }
            | OwnedEvent::Ended { token, .. }
            | OwnedEvent::Subscribed { token, .. }
            | OwnedEvent::Unsubscribed { token } => {
                assert!(self.open.remove(&token), "{token:?} ends twice");
            }
            OwnedEvent::Message { receipt, .. } => self.receipts.extend(receipt),
            OwnedEvent::Subscribe { packet_id, filters } => {
                self.asked.push((packet_id, filters.len()))
            }
            OwnedEvent::Unsubscribe { packet_id, filters } => {
                self.asked.push((packet_id, filters.len()))
            }
            _ => {}
        }
    }

    fn check(&self) {
        let slots = usize::from(self.config.window.max(self.config.queue))
            + usize::from(self.config.requests);
        assert!(
            self.machine.pending() <= slots,
            "{} messages are pending",
            self.machine.pending()
        );
        // Each token without an end is pending, and so is each whose end was not reported yet.
        assert!(
            self.open.len() <= self.machine.pending(),
            "{} tokens are open, {} pending",
            self.open.len(),
            self.machine.pending()
        );
        // On a heap, acknowledgements may exceed the limit for messages by half a MiB.
        let most = to_usize(self.config.outgoing_limit) + (512 << 10);
        assert!(
            self.machine.outgoing().len() <= most,
            "{} bytes are outgoing",
            self.machine.outgoing().len()
        );
    }
}
