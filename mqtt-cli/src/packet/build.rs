//! Encodes a packet from its fields.

use mqtt_tokio::proto::{
    self, AckKind, ConnAck, Delivery, Disconnect, Encode as _, EncodeError, Packet, PacketId,
    Properties, QoS, ReasonCode, RetainHandling, Subscription, TopicFilter, TopicName, Version,
};

use super::Named;
use super::draft::{Ack, Connect, Draft, Filter, Publish, Reason, Subscribe};
use crate::failure::{Failure, fail};
use crate::properties::TypedList;

impl Draft {
    /// Returns the bytes of the packet.
    pub(crate) fn bytes(&self, version: Version) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Connect(connect) => connect.bytes(version),
            Self::Publish(publish) => publish.bytes(version),
            Self::Subscribe(subscribe) => subscribe.bytes(version),
            Self::PubAck(ack) => ack.bytes(version, AckKind::PubAck),
            Self::PubRec(ack) => ack.bytes(version, AckKind::PubRec),
            Self::PubRel(ack) => ack.bytes(version, AckKind::PubRel),
            Self::PubComp(ack) => ack.bytes(version, AckKind::PubComp),
            Self::ConnAck(connack) => with_properties(&connack.properties, |properties| {
                let packet = ConnAck {
                    session_present: connack.session_present,
                    reason: return_code(connack.reason, version)?,
                    properties,
                };
                finish(version, &Packet::ConnAck(packet))
            }),
            Self::SubAck(suback) => with_properties(&suback.properties, |properties| {
                let codes = codes(&suback.codes)?;
                let packet = proto::SubAck {
                    properties,
                    ..proto::SubAck::new(identifier(suback.packet_id)?, &codes[..])
                };
                finish(version, &Packet::SubAck(packet))
            }),
            Self::Unsubscribe(it) => with_properties(&it.properties, |properties| {
                let filters: Vec<_> = it
                    .filters
                    .iter()
                    .map(|text| filter(text))
                    .collect::<Result<_, _>>()?;
                let packet = proto::Unsubscribe {
                    properties,
                    ..proto::Unsubscribe::new(identifier(it.packet_id)?, &filters[..])
                };
                finish(version, &Packet::Unsubscribe(packet))
            }),
            Self::UnsubAck(unsuback) => with_properties(&unsuback.properties, |properties| {
                let mut codes = codes(&unsuback.codes)?;
                if codes.is_empty() && version.is_v5() {
                    codes.push(ReasonCode::Success);
                }
                let packet = proto::UnsubAck {
                    properties,
                    ..proto::UnsubAck::new(identifier(unsuback.packet_id)?, &codes[..])
                };
                finish(version, &Packet::UnsubAck(packet))
            }),
            Self::PingReq => finish(version, &Packet::PingReq),
            Self::PingResp => finish(version, &Packet::PingResp),
            Self::Disconnect(it) => it.bytes(version, |reason, properties| {
                Packet::Disconnect(Disconnect { reason, properties })
            }),
            Self::Auth(it) => it.bytes(version, |reason, properties| {
                Packet::Auth(proto::Auth { reason, properties })
            }),
        }
    }
}

impl Connect {
    fn bytes(&self, version: Version) -> Result<Vec<u8>, Failure> {
        let will_list = typed(&self.will_properties)?;
        let (will_properties, _) = will_list.parse()?;
        with_properties(&self.properties, |properties| {
            let topic = self.will_topic.as_deref().map(topic_name).transpose()?;
            let payload = self.will_payload.as_ref().map_or(&[][..], |data| &data.0);
            let will = topic.map(|topic| proto::Will {
                qos: QoS::new(self.will_qos).unwrap_or_default(),
                retain: self.will_retain,
                properties: Properties::from(&will_properties[..]),
                ..proto::Will::new(topic, payload)
            });
            let packet = proto::Connect {
                clean_start: self.clean_start,
                keep_alive: self.keep_alive,
                will,
                user_name: self.user_name.as_deref(),
                password: self.password.as_ref().map(|data| &data.0[..]),
                properties,
                bridge: self.bridge,
                ..proto::Connect::new(version, &self.client_id)
            };
            finish(version, &Packet::Connect(packet))
        })
    }
}

impl Publish {
    fn bytes(&self, version: Version) -> Result<Vec<u8>, Failure> {
        let list = typed(&self.properties)?;
        let (properties, topic_alias) = list.parse()?;
        let topic = if self.topic.is_empty() && topic_alias.is_some() {
            TopicName::NONE
        } else {
            topic_name(&self.topic)?
        };
        let packet_id = self.packet_id.unwrap_or(1);
        let delivery = match self.qos {
            0 if self.packet_id.is_some() => {
                return Err(fail("a message at QoS 0 has no packet identifier"));
            }
            0 => Delivery::AtMostOnce,
            1 => Delivery::AtLeastOnce(identifier(packet_id)?),
            2 => Delivery::ExactlyOnce(identifier(packet_id)?),
            other => return Err(fail(format!("QoS is 0, 1 or 2, not {other}"))),
        };
        let packet = proto::Publish {
            dup: self.dup,
            retain: self.retain,
            delivery,
            topic_alias,
            properties: Properties::from(&properties[..]),
            ..proto::Publish::new(topic, &self.payload.0)
        };
        finish(version, &Packet::Publish(packet))
    }
}

impl Subscribe {
    fn bytes(&self, version: Version) -> Result<Vec<u8>, Failure> {
        with_properties(&self.properties, |properties| {
            let filters: Vec<_> = self
                .filters
                .iter()
                .map(Filter::entry)
                .collect::<Result<_, _>>()?;
            let packet = proto::Subscribe {
                properties,
                ..proto::Subscribe::new(identifier(self.packet_id)?, &filters[..])
            };
            finish(version, &Packet::Subscribe(packet))
        })
    }
}

impl Filter {
    fn entry(&self) -> Result<Subscription<'_>, Failure> {
        let qos = QoS::new(self.qos)
            .ok_or_else(|| fail(format!("QoS is 0, 1 or 2, not {}", self.qos)))?;
        let retain_handling = match self.retain_handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            other => return Err(fail(format!("retain handling is 0, 1 or 2, not {other}"))),
        };
        Ok(Subscription {
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling,
            ..Subscription::new(filter(&self.filter)?, qos)
        })
    }
}

impl Ack {
    fn bytes(&self, version: Version, kind: AckKind) -> Result<Vec<u8>, Failure> {
        with_properties(&self.properties, |properties| {
            let ack = proto::Ack {
                packet_id: identifier(self.packet_id)?,
                reason: reason_code(self.reason)?,
                properties,
            };
            let packet = match kind {
                AckKind::PubAck => Packet::PubAck(ack),
                AckKind::PubRec => Packet::PubRec(ack),
                AckKind::PubRel => Packet::PubRel(ack),
                AckKind::PubComp => Packet::PubComp(ack),
            };
            finish(version, &packet)
        })
    }
}

impl Reason {
    fn bytes(
        &self,
        version: Version,
        packet: impl for<'a> Fn(ReasonCode, Properties<'a>) -> Packet<'a>,
    ) -> Result<Vec<u8>, Failure> {
        with_properties(&self.properties, |properties| {
            finish(version, &packet(reason_code(self.reason)?, properties))
        })
    }
}

fn typed(properties: &[Named]) -> Result<TypedList, Failure> {
    TypedList::new(properties.iter().map(|named| named.0.clone()))
}

fn with_properties<R>(
    properties: &[Named],
    then: impl FnOnce(Properties<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let list = typed(properties)?;
    let (properties, alias) = list.parse()?;
    if alias.is_some() {
        return Err(fail("only PUBLISH has a topic alias"));
    }
    then(Properties::from(&properties[..]))
}

fn finish(version: Version, packet: &Packet<'_>) -> Result<Vec<u8>, Failure> {
    let said = |error: EncodeError| fail(format!("{}: {error}", packet.packet_type()));
    let mut bytes = vec![0; packet.encoded_len(version).map_err(said)?];
    let len = packet.encode(version, &mut bytes).map_err(said)?;
    bytes.truncate(len);
    Ok(bytes)
}

fn reason_code(number: u8) -> Result<ReasonCode, Failure> {
    ReasonCode::new(number).ok_or_else(|| fail(format!("{number} is not a reason code")))
}

/// Before 5 the numbers of CONNACK are return codes.
fn return_code(number: u8, version: Version) -> Result<ReasonCode, Failure> {
    match ReasonCode::from_return_code(number) {
        Some(reason) if !version.is_v5() => Ok(reason),
        _ => reason_code(number),
    }
}

fn codes(numbers: &[u8]) -> Result<Vec<ReasonCode>, Failure> {
    numbers.iter().map(|number| reason_code(*number)).collect()
}

fn topic_name(text: &str) -> Result<TopicName<'_>, Failure> {
    TopicName::new(text).map_err(|error| fail(format!("topic {text:?}: {error}")))
}

fn filter(text: &str) -> Result<TopicFilter<'_>, Failure> {
    TopicFilter::new(text).map_err(|error| fail(format!("topic filter {text:?}: {error}")))
}

fn identifier(number: u16) -> Result<PacketId, Failure> {
    PacketId::new(number).ok_or_else(|| fail("0 is not a packet identifier"))
}
