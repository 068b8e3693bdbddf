//! Arbitrary packets of every type, all of them such that they can be sent.

use mqtt_proto::{
    Ack, Auth, ConnAck, Connect, Delivery, Disconnect, Packet, PacketId, PacketType, Properties,
    Property, PropertyId, Publish, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    Subscription, TopicAlias, TopicFilter, TopicName, UnsubAck, Unsubscribe, Version, Will,
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

/// Makes a packet of `packet_type` that `version` can send, and gives it to `then`.
pub fn with_packet<R>(
    packet_type: PacketType,
    version: Version,
    choices: &mut Choices<'_>,
    then: impl FnOnce(&Packet<'_>) -> R,
) -> R {
    let v5 = version == Version::V5;
    let list = properties(choices, Some(packet_type), v5);
    let properties = Properties::from(&list[..]);
    let packet_id = packet_id(choices);
    let reason = |choices: &mut Choices<'_>| {
        let allowed: Vec<_> = ReasonCode::ALL
            .iter()
            .copied()
            .filter(|code| code.belongs_in(packet_type))
            .collect();
        if v5 {
            choices.pick(&allowed)
        } else {
            ReasonCode::Success
        }
    };
    let ack = |choices: &mut Choices<'_>| Ack {
        packet_id,
        reason: reason(choices),
        properties,
    };
    match packet_type {
        PacketType::Connect => {
            let user_name = choices.flag().then(|| choices.pick(TEXTS));
            let password =
                (choices.flag() && (v5 || user_name.is_some())).then(|| choices.slice(300));
            let will_list = self::properties(choices, None, v5);
            let will = choices.flag().then(|| Will {
                topic: topic(choices),
                payload: choices.slice(300),
                qos: qos(choices),
                retain: choices.flag(),
                properties: Properties::from(&will_list[..]),
            });
            then(&Packet::Connect(Connect {
                version,
                clean_start: choices.flag(),
                keep_alive: choices.u16(),
                client_id: choices.pick(TEXTS),
                will,
                user_name,
                password,
                properties,
            }))
        }
        PacketType::ConnAck => {
            let codes: Vec<_> = ReasonCode::ALL
                .iter()
                .copied()
                .filter(|code| {
                    if v5 {
                        code.belongs_in(packet_type)
                    } else {
                        code.to_return_code().is_some()
                    }
                })
                .collect();
            let reason = choices.pick(&codes);
            let session_present = reason == ReasonCode::Success && choices.flag();
            then(&Packet::ConnAck(ConnAck {
                session_present,
                reason,
                properties,
            }))
        }
        PacketType::Publish => {
            let delivery = match qos(choices) {
                QoS::AtMostOnce => Delivery::AtMostOnce,
                QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id),
                QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id),
            };
            let topic_alias = if v5 && choices.flag() {
                TopicAlias::new(choices.u16())
            } else {
                None
            };
            let unnamed = topic_alias.is_some() && choices.flag();
            then(&Packet::Publish(Publish {
                dup: delivery != Delivery::AtMostOnce && choices.flag(),
                retain: choices.flag(),
                delivery,
                topic: if unnamed {
                    TopicName::NONE
                } else {
                    topic(choices)
                },
                topic_alias,
                properties,
                payload: choices.slice(300),
            }))
        }
        PacketType::PubAck => then(&Packet::PubAck(ack(choices))),
        PacketType::PubRec => then(&Packet::PubRec(ack(choices))),
        PacketType::PubRel => then(&Packet::PubRel(ack(choices))),
        PacketType::PubComp => then(&Packet::PubComp(ack(choices))),
        PacketType::Subscribe => {
            let filters: Vec<_> = (0..=choices.below(4))
                .map(|_| subscription(choices, v5))
                .collect();
            then(&Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters: filters[..].into(),
            }))
        }
        PacketType::SubAck => {
            let codes: Vec<_> = (0..=choices.below(4))
                .map(|_| {
                    if v5 {
                        reason(choices)
                    } else {
                        choices.pick(&[
                            ReasonCode::Success,
                            ReasonCode::GrantedQoS1,
                            ReasonCode::GrantedQoS2,
                            ReasonCode::UnspecifiedError,
                        ])
                    }
                })
                .collect();
            then(&Packet::SubAck(SubAck {
                packet_id,
                properties,
                codes: codes[..].into(),
            }))
        }
        PacketType::Unsubscribe => {
            let filters: Vec<_> = (0..=choices.below(4)).map(|_| filter(choices)).collect();
            then(&Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters: filters[..].into(),
            }))
        }
        PacketType::UnsubAck => {
            let count = if v5 { 1 + choices.below(4) } else { 0 };
            let codes: Vec<_> = (0..count).map(|_| reason(choices)).collect();
            then(&Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                codes: codes[..].into(),
            }))
        }
        PacketType::PingReq => then(&Packet::PingReq),
        PacketType::PingResp => then(&Packet::PingResp),
        PacketType::Disconnect => then(&Packet::Disconnect(Disconnect {
            reason: reason(choices),
            properties,
        })),
        PacketType::Auth => then(&Packet::Auth(Auth {
            reason: reason(choices),
            properties,
        })),
    }
}

/// Every packet type that `version` has.
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

/// Properties that may stand in `packet`, or in a will for `None`.
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

/// Table 2-4 of MQTT 5, written down a second time on purpose.
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
    Some(match id {
        PropertyId::PayloadFormatIndicator => Property::PayloadFormatIndicator(choices.flag()),
        PropertyId::MessageExpiryInterval => Property::MessageExpiryInterval(choices.u32()),
        PropertyId::ContentType => Property::ContentType(choices.pick(TEXTS)),
        PropertyId::ResponseTopic => Property::ResponseTopic(topic(choices)),
        PropertyId::CorrelationData => Property::CorrelationData(choices.slice(300)),
        PropertyId::SubscriptionIdentifier => {
            Property::SubscriptionIdentifier(1 + choices.u32() % 268_435_455)
        }
        PropertyId::SessionExpiryInterval => Property::SessionExpiryInterval(choices.u32()),
        PropertyId::AssignedClientIdentifier => {
            Property::AssignedClientIdentifier(choices.pick(TEXTS))
        }
        PropertyId::ServerKeepAlive => Property::ServerKeepAlive(choices.u16()),
        PropertyId::AuthenticationMethod => Property::AuthenticationMethod(choices.pick(TEXTS)),
        PropertyId::AuthenticationData => Property::AuthenticationData(choices.slice(300)),
        PropertyId::RequestProblemInformation => {
            Property::RequestProblemInformation(choices.flag())
        }
        PropertyId::WillDelayInterval => Property::WillDelayInterval(choices.u32()),
        PropertyId::RequestResponseInformation => {
            Property::RequestResponseInformation(choices.flag())
        }
        PropertyId::ResponseInformation => Property::ResponseInformation(choices.pick(TEXTS)),
        PropertyId::ServerReference => Property::ServerReference(choices.pick(TEXTS)),
        PropertyId::ReasonString => Property::ReasonString(choices.pick(TEXTS)),
        PropertyId::ReceiveMaximum => Property::ReceiveMaximum(choices.u16().max(1)),
        PropertyId::TopicAliasMaximum => Property::TopicAliasMaximum(choices.u16()),
        PropertyId::TopicAlias => return None,
        PropertyId::MaximumQoS => Property::MaximumQoS(choices.flag()),
        PropertyId::RetainAvailable => Property::RetainAvailable(choices.flag()),
        PropertyId::UserProperty => {
            Property::UserProperty(choices.pick(TEXTS), choices.pick(TEXTS))
        }
        PropertyId::MaximumPacketSize => Property::MaximumPacketSize(choices.u32().max(1)),
        PropertyId::WildcardSubscriptionAvailable => {
            Property::WildcardSubscriptionAvailable(choices.flag())
        }
        PropertyId::SubscriptionIdentifierAvailable => {
            Property::SubscriptionIdentifierAvailable(choices.flag())
        }
        PropertyId::SharedSubscriptionAvailable => {
            Property::SharedSubscriptionAvailable(choices.flag())
        }
    })
}
