//! Packets with owned fields, made from options or JSON, or by `mqtt decode --json`.

use clap::{ArgAction, Args, Subcommand};
use mqtt_tokio::proto::{Packet, Properties, ReasonCode, Version};
use serde::{Deserialize, Serialize};

use super::{Data, Named};

/// A packet. The names of its fields are those of the JSON.
#[derive(Clone, Debug, Deserialize, Serialize, Subcommand)]
#[serde(tag = "packet", rename_all = "UPPERCASE")]
pub(crate) enum Draft {
    /// A client requests a connection
    Connect(Box<Connect>),
    /// The broker answers CONNECT
    #[command(name = "connack")]
    ConnAck(ConnAck),
    /// A client or the broker sends a message
    #[command(alias = "pub")]
    Publish(Publish),
    /// The receiver has a message at QoS 1
    #[command(name = "puback")]
    PubAck(Ack),
    /// The receiver has a message at QoS 2
    #[command(name = "pubrec")]
    PubRec(Ack),
    /// The sender of a message at QoS 2 releases its identifier
    #[command(name = "pubrel")]
    PubRel(Ack),
    /// The receiver of a message at QoS 2 releases its identifier
    #[command(name = "pubcomp")]
    PubComp(Ack),
    /// A client requests messages
    #[command(alias = "sub")]
    Subscribe(Subscribe),
    /// The broker answers SUBSCRIBE
    #[command(name = "suback")]
    SubAck(SubAck),
    /// A client ends subscriptions
    #[command(alias = "unsub")]
    Unsubscribe(Unsubscribe),
    /// The broker answers UNSUBSCRIBE
    #[command(name = "unsuback")]
    UnsubAck(UnsubAck),
    /// A client keeps its connection alive
    #[command(name = "pingreq", alias = "ping")]
    PingReq,
    /// The answer to PINGREQ
    #[command(name = "pingresp")]
    PingResp,
    /// The end of a connection
    Disconnect(Reason),
    /// A step of enhanced authentication (5)
    Auth(Reason),
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connect {
    /// Client identifier
    #[arg(short = 'i', long = "id", value_name = "ID", default_value = "")]
    #[serde(default)]
    pub(crate) client_id: String,
    /// Keep-alive in seconds
    #[arg(
        short,
        long = "keepalive",
        value_name = "SECONDS",
        default_value_t = 60
    )]
    #[serde(default = "keep_alive")]
    pub(crate) keep_alive: u16,
    /// Resume the session, if there is one
    #[arg(short = 'c', long = "disable-clean-session", action = ArgAction::SetFalse)]
    #[serde(default = "yes")]
    pub(crate) clean_start: bool,
    /// User name
    #[arg(short = 'u', long = "username", value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_name: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<Data>,
    /// Password in hex
    #[arg(long = "pw-hex", value_name = "HEX", conflicts_with = "password", value_parser = Data::from_hex)]
    #[serde(skip)]
    password_hex: Option<Data>,
    /// Topic of the will
    #[arg(long, value_name = "TOPIC")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) will_topic: Option<String>,
    /// Payload of the will
    #[arg(long, value_name = "TEXT", requires = "will_topic")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) will_payload: Option<Data>,
    /// Payload of the will in hex
    #[arg(long, value_name = "HEX", requires = "will_topic", conflicts_with = "will_payload", value_parser = Data::from_hex)]
    #[serde(skip)]
    will_payload_hex: Option<Data>,
    /// QoS of the will
    #[arg(long, value_name = "QOS", default_value_t = 0, requires = "will_topic", value_parser = clap::value_parser!(u8).range(..=2))]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) will_qos: u8,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) will_retain: bool,
    /// A property of the will (5) as NAME=VALUE. May be repeated
    #[arg(
        long = "will-property",
        value_name = "NAME=VALUE",
        requires = "will_topic"
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) will_properties: Vec<Named>,
    /// Bit 7 of the protocol level: the client is a bridge (3.1 and 3.1.1)
    #[arg(long)]
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) bridge: bool,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnAck {
    /// The broker resumes a session
    #[arg(long)]
    #[serde(default)]
    pub(crate) session_present: bool,
    /// Return code (0 to 5) or reason code (5): a number, 0x and hex, or its name
    #[arg(long, value_name = "CODE", default_value = "0", value_parser = code)]
    #[serde(default)]
    pub(crate) reason: u8,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    /// Topic
    #[arg(short, long)]
    pub(crate) topic: String,
    /// Quality of service
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    #[serde(default)]
    pub(crate) qos: u8,
    /// Packet identifier, for QoS 1 and 2 [default: 1]
    #[arg(long, value_name = "ID")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) packet_id: Option<u16>,
    /// The broker keeps the message
    #[arg(short, long)]
    #[serde(default)]
    pub(crate) retain: bool,
    /// The message may have been sent before
    #[arg(long)]
    #[serde(default)]
    pub(crate) dup: bool,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
    /// The message
    #[arg(
        short = 'm',
        long = "message",
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true
    )]
    #[serde(default)]
    pub(crate) payload: Data,
    /// The message in hex
    #[arg(long, value_name = "HEX", conflicts_with = "payload", value_parser = Data::from_hex)]
    #[serde(skip)]
    hex: Option<Data>,
    /// The content of a file is the message
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["payload", "hex"], value_parser = content)]
    #[serde(skip)]
    file: Option<Data>,
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ack {
    /// Packet identifier
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) packet_id: u16,
    /// Reason code (5): a number, 0x and hex, or its name
    #[arg(long, value_name = "CODE", default_value = "0", value_parser = code)]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) reason: u8,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subscribe {
    /// Packet identifier
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) packet_id: u16,
    /// Topic filter. May be repeated
    #[arg(short, long, required = true)]
    #[serde(skip)]
    topic: Vec<String>,
    /// Quality of service, once for all topic filters or once for each
    #[arg(short, long, default_value = "0", value_parser = clap::value_parser!(u8).range(..=2))]
    #[serde(skip)]
    qos: Vec<u8>,
    /// Do not send back what this client publishes (5)
    #[arg(long)]
    #[serde(skip)]
    no_local: bool,
    /// Keep the retain flag as it was published (5)
    #[arg(long)]
    #[serde(skip)]
    retain_as_published: bool,
    /// Retained messages: 0 send, 1 send if the subscription is new, 2 do not send (5)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    #[serde(skip)]
    retain_handling: u8,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
    #[arg(skip)]
    pub(crate) filters: Vec<Filter>,
}

/// A topic filter of SUBSCRIBE with its options.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    pub(crate) filter: String,
    #[serde(default)]
    pub(crate) qos: u8,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) no_local: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) retain_as_published: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) retain_handling: u8,
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubAck {
    /// Packet identifier
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) packet_id: u16,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
    /// Code of one topic filter: 0 to 2 or 0x80, or a reason code (5). May be repeated
    #[arg(long = "code", value_name = "CODE", default_value = "0", value_parser = code)]
    pub(crate) codes: Vec<u8>,
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unsubscribe {
    /// Packet identifier
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) packet_id: u16,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
    /// Topic filter. May be repeated
    #[arg(short = 't', long = "topic", value_name = "TOPIC", required = true)]
    pub(crate) filters: Vec<String>,
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnsubAck {
    /// Packet identifier
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) packet_id: u16,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
    /// Reason code of one topic filter (5) [default: 0 in MQTT 5]. May be repeated
    #[arg(long = "code", value_name = "CODE", value_parser = code)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) codes: Vec<u8>,
}

#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Reason code (5): a number, 0x and hex, or its name
    #[arg(long, value_name = "CODE", default_value = "0", value_parser = code)]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) reason: u8,
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<Named>,
}

const fn keep_alive() -> u16 {
    60
}

const fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// Parses a reason code: a number, `0x` and hex digits, or the name with spaces or dashes.
fn code(text: &str) -> Result<u8, String> {
    let number = text
        .strip_prefix("0x")
        .map_or_else(|| text.parse().ok(), |hex| u8::from_str_radix(hex, 16).ok());
    let named = || {
        let name = text.to_ascii_lowercase().replace('-', " ");
        ReasonCode::ALL
            .iter()
            .find(|code| code.to_string() == name)
            .map(|code| code.get())
    };
    number
        .or_else(named)
        .ok_or_else(|| "a code is a number up to 255, 0x and hex digits, or a name".to_owned())
}

/// Returns the content of a file.
fn content(path: &str) -> Result<Data, String> {
    std::fs::read(path)
        .map(Data)
        .map_err(|error| error.to_string())
}

fn named(properties: &Properties<'_>) -> Vec<Named> {
    properties
        .iter()
        .map(|property| Named::of(&property))
        .collect()
}

impl Draft {
    /// Moves options such as the payload in hex to the fields that they set.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        match self {
            Self::Connect(connect) => {
                connect.password = connect
                    .password
                    .take()
                    .or_else(|| connect.password_hex.take());
                connect.will_payload = connect
                    .will_payload
                    .take()
                    .or_else(|| connect.will_payload_hex.take());
            }
            Self::Publish(publish) => {
                if let Some(data) = publish.hex.take().or_else(|| publish.file.take()) {
                    publish.payload = data;
                }
            }
            Self::Subscribe(subscribe) if !subscribe.topic.is_empty() => {
                let (topics, qos) = (&subscribe.topic, &subscribe.qos);
                if qos.len() != 1 && qos.len() != topics.len() {
                    return Err(format!(
                        "give -q once, or once for each of the {} topic filters",
                        topics.len()
                    ));
                }
                let filters = topics.iter().zip(qos.iter().cycle());
                subscribe.filters = filters
                    .map(|(filter, qos)| Filter {
                        filter: filter.clone(),
                        qos: *qos,
                        no_local: subscribe.no_local,
                        retain_as_published: subscribe.retain_as_published,
                        retain_handling: subscribe.retain_handling,
                    })
                    .collect();
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns its properties; PINGREQ and PINGRESP have none.
    pub(crate) const fn properties_mut(&mut self) -> Option<&mut Vec<Named>> {
        Some(match self {
            Self::Connect(it) => &mut it.properties,
            Self::ConnAck(it) => &mut it.properties,
            Self::Publish(it) => &mut it.properties,
            Self::PubAck(it) | Self::PubRec(it) | Self::PubRel(it) | Self::PubComp(it) => {
                &mut it.properties
            }
            Self::Subscribe(it) => &mut it.properties,
            Self::SubAck(it) => &mut it.properties,
            Self::Unsubscribe(it) => &mut it.properties,
            Self::UnsubAck(it) => &mut it.properties,
            Self::Disconnect(it) | Self::Auth(it) => &mut it.properties,
            Self::PingReq | Self::PingResp => return None,
        })
    }
}

impl Connect {
    /// Makes a CONNECT with a clean start and these three fields.
    pub(crate) fn with(client_id: String, user_name: String, password: String) -> Self {
        Self {
            client_id,
            keep_alive: keep_alive(),
            clean_start: true,
            user_name: Some(user_name),
            password: Some(Data(password.into_bytes())),
            password_hex: None,
            will_topic: None,
            will_payload: None,
            will_payload_hex: None,
            will_qos: 0,
            will_retain: false,
            will_properties: Vec::new(),
            bridge: false,
            properties: Vec::new(),
        }
    }
}

/// Makes a draft of a decoded packet.
impl Draft {
    pub(crate) fn of(packet: &Packet<'_>, version: Version) -> Self {
        match packet {
            Packet::Connect(connect) => Self::Connect(Box::new(Connect::of(connect))),
            Packet::ConnAck(connack) => Self::ConnAck(ConnAck {
                session_present: connack.session_present,
                reason: if version.is_v5() {
                    connack.reason.get()
                } else {
                    connack.reason.to_return_code().unwrap_or_default()
                },
                properties: named(&connack.properties),
            }),
            Packet::Publish(publish) => Self::Publish(Publish::of(publish)),
            Packet::PubAck(ack) => Self::PubAck(Ack::of(ack)),
            Packet::PubRec(ack) => Self::PubRec(Ack::of(ack)),
            Packet::PubRel(ack) => Self::PubRel(Ack::of(ack)),
            Packet::PubComp(ack) => Self::PubComp(Ack::of(ack)),
            Packet::Subscribe(subscribe) => Self::Subscribe(Subscribe::of(subscribe)),
            Packet::SubAck(suback) => Self::SubAck(SubAck {
                packet_id: suback.packet_id.get(),
                properties: named(&suback.properties),
                codes: suback.codes.iter().map(ReasonCode::get).collect(),
            }),
            Packet::Unsubscribe(unsubscribe) => Self::Unsubscribe(Unsubscribe {
                packet_id: unsubscribe.packet_id.get(),
                properties: named(&unsubscribe.properties),
                filters: unsubscribe
                    .filters
                    .iter()
                    .map(|filter| filter.as_str().to_owned())
                    .collect(),
            }),
            Packet::UnsubAck(unsuback) => Self::UnsubAck(UnsubAck {
                packet_id: unsuback.packet_id.get(),
                properties: named(&unsuback.properties),
                codes: unsuback.codes.iter().map(ReasonCode::get).collect(),
            }),
            Packet::PingReq => Self::PingReq,
            Packet::PingResp => Self::PingResp,
            Packet::Disconnect(disconnect) => Self::Disconnect(Reason {
                reason: disconnect.reason.get(),
                properties: named(&disconnect.properties),
            }),
            Packet::Auth(auth) => Self::Auth(Reason {
                reason: auth.reason.get(),
                properties: named(&auth.properties),
            }),
        }
    }
}

impl Connect {
    fn of(connect: &mqtt_tokio::proto::Connect<'_>) -> Self {
        let will = connect.will.as_ref();
        Self {
            client_id: connect.client_id.to_owned(),
            keep_alive: connect.keep_alive,
            clean_start: connect.clean_start,
            user_name: connect.user_name.map(str::to_owned),
            password: connect.password.map(|bytes| Data(bytes.to_vec())),
            password_hex: None,
            will_topic: will.map(|will| will.topic.as_str().to_owned()),
            will_payload: will.map(|will| Data(will.payload.to_vec())),
            will_payload_hex: None,
            will_qos: will.map_or(0, |will| will.qos.get()),
            will_retain: will.is_some_and(|will| will.retain),
            will_properties: will.map_or_else(Vec::new, |will| named(&will.properties)),
            bridge: connect.bridge,
            properties: named(&connect.properties),
        }
    }
}

impl Publish {
    fn of(publish: &mqtt_tokio::proto::Publish<'_>) -> Self {
        let mut properties = named(&publish.properties);
        properties.extend(publish.topic_alias.map(|alias| Named::alias(alias.get())));
        Self {
            topic: publish.topic.as_str().to_owned(),
            qos: publish.qos().get(),
            packet_id: publish.delivery.packet_id().map(|id| id.get()),
            retain: publish.retain,
            dup: publish.dup,
            properties,
            payload: Data(publish.payload.to_vec()),
            hex: None,
            file: None,
        }
    }
}

impl Ack {
    fn of(ack: &mqtt_tokio::proto::Ack<'_>) -> Self {
        Self {
            packet_id: ack.packet_id.get(),
            reason: ack.reason.get(),
            properties: named(&ack.properties),
        }
    }
}

impl Subscribe {
    fn of(subscribe: &mqtt_tokio::proto::Subscribe<'_>) -> Self {
        let filters = subscribe.filters.iter().map(|entry| Filter {
            filter: entry.filter.as_str().to_owned(),
            qos: entry.qos.get(),
            no_local: entry.no_local,
            retain_as_published: entry.retain_as_published,
            retain_handling: entry.retain_handling as u8,
        });
        Self {
            packet_id: subscribe.packet_id.get(),
            topic: Vec::new(),
            qos: Vec::new(),
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            properties: named(&subscribe.properties),
            filters: filters.collect(),
        }
    }
}
