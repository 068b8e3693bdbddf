//! Makes arbitrary valid packets of every type.

use mqtt_proto::{
    Ack, Auth, ConnAck, Connect, Delivery, Disconnect, Packet, PacketId, PacketType, Properties,
    Property, PropertyId, PropertyKind, PropertyValue, Publish, QoS, ReasonCode, RetainHandling,
    SubAck, Subscribe, Subscription, TopicAlias, TopicFilter, TopicName, UnsubAck, Unsubscribe,
    Version, Will,
};

use crate::choices::Choices;

/// The three versions.
pub const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

const TEXTS: &[&str] = &[
    "",
    "a",
    "pump-7",
    "gr\u{fc}n",
    "\u{feff}bom",
    "\u{10FFFF}",
    "twenty bytes of text",
    "{}",
];
const TOPICS: &[&str] = &[
    "a",
    "/",
    "a/b",
    "sensors/kitchen/1234",
    "$SYS/broker/uptime",
    "gr\u{fc}n/\u{1F33F}",
    "a//b",
    " ",
    "factory/hall-3/line-12/pump-7/temperature",
];
const FILTERS: &[&str] = &[
    "#",
    "+",
    "a/#",
    "+/b",
    "$SYS/#",
    "a/+/c",
    "sensors/kitchen/1234",
    "$share/g/a/#",
    "gr\u{fc}n/+",
    "/+/",
];

/// Makes a packet of `packet_type` that `version` can send, and calls `then` with it.
pub fn with_packet<R>(
    packet_type: PacketType,
    version: Version,
    choices: &mut Choices<'_>,
    then: impl FnOnce(&Packet<'_>) -> R,
) -> R {
    let list = properties(choices, Some(packet_type), version == Version::V5);
    let common = Common {
        packet_type,
        version,
        packet_id: packet_id(choices),
        properties: Properties::from(&list[..]),
    };
    match packet_type {
        PacketType::Connect => common.connect(choices, then),
        PacketType::ConnAck => then(&Packet::ConnAck(common.connack(choices))),
        PacketType::Publish => then(&Packet::Publish(common.publish(choices))),
        PacketType::PubAck => then(&Packet::PubAck(common.ack(choices))),
        PacketType::PubRec => then(&Packet::PubRec(common.ack(choices))),
        PacketType::PubRel => then(&Packet::PubRel(common.ack(choices))),
        PacketType::PubComp => then(&Packet::PubComp(common.ack(choices))),
        PacketType::Subscribe => common.subscribe(choices, then),
        PacketType::SubAck => common.suback(choices, then),
        PacketType::Unsubscribe => common.unsubscribe(choices, then),
        PacketType::UnsubAck => common.unsuback(choices, then),
        PacketType::PingReq => then(&Packet::PingReq),
        PacketType::PingResp => then(&Packet::PingResp),
        PacketType::Disconnect => then(&Packet::Disconnect(Disconnect {
            reason: common.reason(choices),
            properties: common.properties,
        })),
        PacketType::Auth => then(&Packet::Auth(Auth {
            reason: common.reason(choices),
            properties: common.properties,
        })),
    }
}

/// Fields that packets of several types have.
struct Common<'a> {
    packet_type: PacketType,
    version: Version,
    packet_id: PacketId,
    properties: Properties<'a>,
}

impl<'a> Common<'a> {
    fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    fn reason(&self, choices: &mut Choices<'_>) -> ReasonCode {
        let allowed: Vec<_> = ReasonCode::ALL
            .iter()
            .copied()
            .filter(|code| code.belongs_in(self.packet_type))
            .collect();
        if self.is_v5() {
            choices.pick(&allowed)
        } else {
            ReasonCode::Success
        }
    }

    fn ack(&self, choices: &mut Choices<'_>) -> Ack<'a> {
        Ack {
            packet_id: self.packet_id,
            reason: self.reason(choices),
            properties: self.properties,
        }
    }

    fn connect<R>(&self, choices: &mut Choices<'_>, then: impl FnOnce(&Packet<'_>) -> R) -> R {
        let v5 = self.is_v5();
        let user_name = choices.flag().then(|| choices.pick(TEXTS));
        let password = (choices.flag() && (v5 || user_name.is_some())).then(|| choices.slice(300));
        let will_list = properties(choices, None, v5);
        let will = choices.flag().then(|| Will {
            topic: topic(choices),
            payload: choices.slice(300),
            qos: qos(choices),
            retain: choices.flag(),
            properties: Properties::from(&will_list[..]),
        });
        then(&Packet::Connect(Connect {
            version: self.version,
            clean_start: choices.flag(),
            keep_alive: choices.u16(),
            client_id: choices.pick(TEXTS),
            will,
            user_name,
            password,
            properties: self.properties,
            bridge: choices.flag() && !v5,
        }))
    }

    fn connack(&self, choices: &mut Choices<'_>) -> ConnAck<'a> {
        let is_possible = |code: &ReasonCode| {
            if self.is_v5() {
                code.belongs_in(self.packet_type)
            } else {
                code.to_return_code().is_some()
            }
        };
        let codes: Vec<_> = ReasonCode::ALL
            .iter()
            .copied()
            .filter(is_possible)
            .collect();
        let reason = choices.pick(&codes);
        ConnAck {
            session_present: reason == ReasonCode::Success && choices.flag(),
            reason,
            properties: self.properties,
        }
    }

    fn publish<'c: 'a>(&self, choices: &mut Choices<'c>) -> Publish<'a> {
        let delivery = match qos(choices) {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(self.packet_id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(self.packet_id),
        };
        let topic_alias = if self.is_v5() && choices.flag() {
            TopicAlias::new(choices.u16())
        } else {
            None
        };
        let unnamed = topic_alias.is_some() && choices.flag();
        Publish {
            dup: delivery != Delivery::AtMostOnce && choices.flag(),
            retain: choices.flag(),
            delivery,
            topic: if unnamed {
                TopicName::NONE
            } else {
                topic(choices)
            },
            topic_alias,
            properties: self.properties,
            payload: choices.slice(300),
        }
    }

    fn subscribe<R>(&self, choices: &mut Choices<'_>, then: impl FnOnce(&Packet<'_>) -> R) -> R {
        let filters: Vec<_> = (0..=choices.below(4))
            .map(|_| subscription(choices, self.is_v5()))
            .collect();
        then(&Packet::Subscribe(Subscribe {
            packet_id: self.packet_id,
            properties: self.properties,
            filters: filters[..].into(),
        }))
    }

    fn suback<R>(&self, choices: &mut Choices<'_>, then: impl FnOnce(&Packet<'_>) -> R) -> R {
        const CODES_OF_3_1_1: [ReasonCode; 4] = [
            ReasonCode::Success,
            ReasonCode::GrantedQoS1,
            ReasonCode::GrantedQoS2,
            ReasonCode::UnspecifiedError,
        ];
        let code = |choices: &mut Choices<'_>| {
            if self.is_v5() {
                self.reason(choices)
            } else {
                choices.pick(&CODES_OF_3_1_1)
            }
        };
        let codes: Vec<_> = (0..=choices.below(4)).map(|_| code(choices)).collect();
        then(&Packet::SubAck(SubAck {
            packet_id: self.packet_id,
            properties: self.properties,
            codes: codes[..].into(),
        }))
    }

    fn unsubscribe<R>(&self, choices: &mut Choices<'_>, then: impl FnOnce(&Packet<'_>) -> R) -> R {
        let filters: Vec<_> = (0..=choices.below(4)).map(|_| filter(choices)).collect();
        then(&Packet::Unsubscribe(Unsubscribe {
            packet_id: self.packet_id,
            properties: self.properties,
            filters: filters[..].into(),
        }))
    }

    fn unsuback<R>(&self, choices: &mut Choices<'_>, then: impl FnOnce(&Packet<'_>) -> R) -> R {
        let count = if self.is_v5() {
            1 + choices.below(4)
        } else {
            0
        };
        let codes: Vec<_> = (0..count).map(|_| self.reason(choices)).collect();
        then(&Packet::UnsubAck(UnsubAck {
            packet_id: self.packet_id,
            properties: self.properties,
            codes: codes[..].into(),
        }))
    }
}

/// Returns every packet type of `version`.
pub fn types(version: Version) -> impl Iterator<Item = PacketType> {
    let last = if version == Version::V5 { 15 } else { 14 };
    (1..=last).filter_map(PacketType::new)
}

fn packet_id(choices: &mut Choices<'_>) -> PacketId {
    PacketId::new(choices.u16()).unwrap_or(PacketId::FIRST)
}

fn qos(choices: &mut Choices<'_>) -> QoS {
    choices.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn topic(choices: &mut Choices<'_>) -> TopicName<'static> {
    TopicName::new(choices.pick(TOPICS)).expect("the table has topic names")
}

fn filter(choices: &mut Choices<'_>) -> TopicFilter<'static> {
    TopicFilter::new(choices.pick(FILTERS)).expect("the table has topic filters")
}

fn subscription(choices: &mut Choices<'_>, v5: bool) -> Subscription<'static> {
    let plain = Subscription::new(filter(choices), qos(choices));
    if !v5 {
        return plain;
    }
    Subscription {
        no_local: choices.flag() && !plain.filter.is_shared(),
        retain_as_published: choices.flag(),
        retain_handling: choices.pick(&[
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::DoNotSend,
        ]),
        ..plain
    }
}

/// Makes properties that are allowed in `packet`, or in a will for `None`.
fn properties<'a>(
    choices: &mut Choices<'a>,
    packet: Option<PacketType>,
    v5: bool,
) -> Vec<Property<'a>> {
    if !v5 {
        return Vec::new();
    }
    let mut list: Vec<Property<'a>> = Vec::new();
    for _ in 0..choices.below(6) {
        let id = choices.pick(PropertyId::ALL);
        let property = property(id, choices);
        let repeats = match id {
            PropertyId::UserProperty => true,
            PropertyId::SubscriptionIdentifier => packet == Some(PacketType::Publish),
            _ => false,
        };
        let fresh = repeats || !list.iter().any(|other| other.id() == id);
        if let Some(property) = property
            && fresh
            && stands_in(id, packet)
        {
            list.push(property);
        }
    }
    let has = |id: PropertyId| list.iter().any(|property| property.id() == id);
    if has(PropertyId::AuthenticationData) && !has(PropertyId::AuthenticationMethod) {
        list.push(Property::AuthenticationMethod("SCRAM-SHA-1"));
    }
    list
}

/// Repeats table 2-4 of MQTT 5, independently of the codec.
fn stands_in(id: PropertyId, packet: Option<PacketType>) -> bool {
    use PacketType as P;
    let Some(packet) = packet else {
        return matches!(id.get(), 0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x18 | 0x26);
    };
    match id.get() {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 => packet == P::Publish,
        0x0B => matches!(packet, P::Publish | P::Subscribe),
        0x11 => matches!(packet, P::Connect | P::ConnAck | P::Disconnect),
        0x12 | 0x13 | 0x1A | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => packet == P::ConnAck,
        0x15 | 0x16 => matches!(packet, P::Connect | P::ConnAck | P::Auth),
        0x17 | 0x19 => packet == P::Connect,
        0x1C => matches!(packet, P::ConnAck | P::Disconnect),
        0x1F => !matches!(
            packet,
            P::Connect | P::Publish | P::Subscribe | P::Unsubscribe | P::PingReq | P::PingResp
        ),
        0x21 | 0x22 | 0x27 => matches!(packet, P::Connect | P::ConnAck),
        0x26 => !matches!(packet, P::PingReq | P::PingResp),
        _ => false,
    }
}

fn property<'a>(id: PropertyId, choices: &mut Choices<'a>) -> Option<Property<'a>> {
    let value = match id.kind() {
        PropertyKind::Bool => PropertyValue::Flag(choices.flag()),
        PropertyKind::U16 => PropertyValue::Number(choices.u16().into()),
        PropertyKind::U16NonZero => PropertyValue::Number(choices.u16().max(1).into()),
        PropertyKind::U32 => PropertyValue::Number(choices.u32()),
        PropertyKind::U32NonZero => PropertyValue::Number(choices.u32().max(1)),
        PropertyKind::VarInt => PropertyValue::Number(1 + choices.u32() % 268_435_455),
        PropertyKind::Text => PropertyValue::Text(choices.pick(TEXTS)),
        PropertyKind::Topic => PropertyValue::Topic(topic(choices)),
        PropertyKind::Binary => PropertyValue::Binary(choices.slice(300)),
        PropertyKind::Pair => PropertyValue::Pair(choices.pick(TEXTS), choices.pick(TEXTS)),
    };
    Property::new(id, value)
}
