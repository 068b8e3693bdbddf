//! Implements a server that answers the agent, publishes, and records which messages were acknowledged.

use std::collections::VecDeque;

use mqtt_proto::{
    Ack, AckKind, ConnAck, Connect, Decoded, List, MAX_PACKET, Packet, Publish, QoS, ReasonCode,
    SubAck, TopicName, UnsubAck, Version,
};

use crate::packets::{ack, encode, publish};

/// A message of the server. At QoS 0 its identifier is not used.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    qos: QoS,
    id: u16,
    /// The number in its payload.
    number: u32,
    topic: &'static str,
}

/// The state of the server: received bytes, answers to give, and messages without an acknowledgement.
#[derive(Default)]
pub(super) struct Server {
    /// Bytes of this connection that are not yet a complete packet.
    pub(super) heard: Vec<u8>,
    /// Answers that are still to be sent.
    pub(super) answers: VecDeque<Vec<u8>>,
    /// Whether CONNACK was sent.
    pub(super) accepted: bool,
    pub(super) has_session: bool,
    /// Messages that were sent and not acknowledged.
    pub(super) under_way: Vec<Sent>,
    /// Identifiers of QoS 2 messages after PUBREC and before PUBCOMP.
    pub(super) to_release: Vec<u16>,
    pub(super) number: u32,
    /// Whether it sent bytes that no server sends, so that received messages are not checked any more.
    pub(super) dishonest: bool,
}

impl Server {
    /// Reads packets and prepares their answers.
    pub(super) fn read(&mut self, version: Version) {
        loop {
            let heard = core::mem::take(&mut self.heard);
            match Packet::decode(&heard, version, MAX_PACKET) {
                Ok(Decoded::Packet { packet, consumed }) => {
                    self.hear(&packet, version);
                    self.heard = heard[consumed..].to_vec();
                }
                Ok(Decoded::Needs(_)) => {
                    self.heard = heard;
                    return;
                }
                Err(error) => panic!("the agent says what is no packet: {error}"),
            }
        }
    }

    pub(super) fn hear(&mut self, packet: &Packet<'_>, version: Version) {
        match packet {
            Packet::Connect(connect) => self.connect(connect, version),
            Packet::Publish(publish) => {
                let kind = match publish.qos() {
                    QoS::ExactlyOnce => AckKind::PubRec,
                    _ => AckKind::PubAck,
                };
                if let Some(id) = publish.delivery.packet_id() {
                    self.answers.push_back(ack(kind, id.get()));
                }
            }
            Packet::PubRel(known) => {
                let id = known.packet_id.get();
                self.answers.push_back(ack(AckKind::PubComp, id));
            }
            Packet::PubAck(known) => self.acknowledged(QoS::AtLeastOnce, known),
            Packet::PubRec(known) => {
                self.acknowledged(QoS::ExactlyOnce, known);
                let id = known.packet_id.get();
                if !known.reason.is_error() {
                    self.to_release.push(id);
                    self.answers.push_back(ack(AckKind::PubRel, id));
                }
            }
            Packet::PubComp(known) => self.to_release.retain(|id| *id != known.packet_id.get()),
            Packet::Subscribe(subscribe) => {
                let codes: Vec<_> = subscribe
                    .filters
                    .iter()
                    .map(|filter| match (filter.qos, self.number % 7) {
                        (_, 3) => ReasonCode::UnspecifiedError,
                        (QoS::AtMostOnce, _) => ReasonCode::Success,
                        (QoS::AtLeastOnce, _) => ReasonCode::GrantedQoS1,
                        (QoS::ExactlyOnce, _) => ReasonCode::GrantedQoS2,
                    })
                    .collect();
                let suback = SubAck::new(subscribe.packet_id, List::from(&codes[..]));
                self.answer(&Packet::SubAck(suback), version);
            }
            Packet::Unsubscribe(unsubscribe) => {
                let count = if version.is_v5() {
                    unsubscribe.filters.iter().count()
                } else {
                    0
                };
                let codes = vec![ReasonCode::Success; count];
                let unsuback = UnsubAck::new(unsubscribe.packet_id, List::from(&codes[..]));
                self.answer(&Packet::UnsubAck(unsuback), version);
            }
            _ => {}
        }
    }

    pub(super) fn connect(&mut self, connect: &Connect<'_>, version: Version) {
        let session_present = self.has_session && !connect.clean_start;
        self.has_session = if version.is_v5() {
            connect.properties.session_expiry_interval().unwrap_or(0) > 0
        } else {
            !connect.clean_start
        };
        if !session_present {
            self.under_way.clear();
            self.to_release.clear();
        }
        let connack = ConnAck {
            session_present,
            ..ConnAck::default()
        };
        self.answer(&Packet::ConnAck(connack), version);
        // Messages without an acknowledgement are sent again.
        for sent in &self.under_way {
            self.answers.push_back(sent.encode(true, version));
        }
        for id in self.to_release.clone() {
            self.answers.push_back(ack(AckKind::PubRel, id));
        }
    }

    pub(super) fn answer(&mut self, packet: &Packet<'_>, version: Version) {
        self.answers.push_back(encode(packet, version));
    }

    pub(super) fn acknowledged(&mut self, qos: QoS, known: &Ack<'_>) {
        let id = known.packet_id.get();
        self.under_way
            .retain(|sent| (sent.qos, sent.id) != (qos, id));
    }

    pub(super) fn publish(&mut self, qos: QoS, topic: &'static str, version: Version) -> Vec<u8> {
        self.number += 1;
        let used = |id: &u16| {
            self.under_way.iter().any(|known| known.id == *id) || self.to_release.contains(id)
        };
        let sent = Sent {
            qos,
            id: (1..=u16::MAX).find(|id| !used(id)).expect("few"),
            number: self.number,
            topic,
        };
        if qos > QoS::AtMostOnce {
            self.under_way.push(sent);
        }
        sent.encode(false, version)
    }

    pub(super) fn number_of(payload: &[u8]) -> Option<u32> {
        let digits = payload
            .strip_prefix(b"#")?
            .split(|byte| *byte == b' ')
            .next()?;
        core::str::from_utf8(digits).ok()?.parse().ok()
    }
}

impl Sent {
    /// Encodes its PUBLISH; a message that is sent again differs only in DUP.
    fn encode(self, dup: bool, version: Version) -> Vec<u8> {
        let length = usize::try_from(self.number % 9).expect("small") * 20;
        let payload = format!("#{} {}", self.number, "x".repeat(length));
        let publish = Publish {
            topic: TopicName::new(self.topic).expect("valid"),
            ..publish(self.qos, self.id, dup, &payload)
        };
        encode(&Packet::Publish(publish), version)
    }
}
