//! `mqtt encode`: a packet in words in, spaced hex out.

use clap::{Args, Subcommand};
use mqtt_tokio::proto::{
    Connect, Delivery, Disconnect, Encode as _, EncodeError, Packet, PacketId, Properties, Publish,
    QoS, ReasonCode, Subscribe, Subscription, TopicFilter, TopicName, Unsubscribe, Version, Will,
};

use crate::args::{qos, version};
use crate::failure::{Failure, fail};
use crate::hex;
use crate::properties::{Typed, TypedList};

/// Prints a packet as spaced hex, ready to be pasted.
#[derive(Args, Debug)]
#[command(disable_version_flag = true)]
pub(crate) struct Encode {
    /// The version to write: 3.1, 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1", value_parser = version, global = true)]
    version: Version,
    /// A property (5) as NAME=VALUE; a user property as user-property=NAME=VALUE. May be repeated
    #[arg(
        short = 'D',
        long = "property",
        value_name = "NAME=VALUE",
        global = true
    )]
    properties: Vec<String>,
    #[command(subcommand)]
    packet: Words,
}

#[derive(Debug, Subcommand)]
enum Words {
    /// A client asks for a connection
    Connect {
        /// Client identifier
        #[arg(short, long, default_value = "")]
        id: String,
        /// Keep-alive in seconds
        #[arg(short, long, default_value_t = 60)]
        keepalive: u16,
        /// Go on with a session that is there
        #[arg(short = 'c', long)]
        disable_clean_session: bool,
        /// User name
        #[arg(short, long)]
        username: Option<String>,
        /// Password
        #[arg(short = 'P', long = "pw", requires = "username")]
        password: Option<String>,
        /// Topic of the will
        #[arg(long)]
        will_topic: Option<String>,
        /// Payload of the will
        #[arg(long, default_value = "", requires = "will_topic")]
        will_payload: String,
        /// QoS of the will
        #[arg(long, default_value = "0", value_parser = qos, requires = "will_topic")]
        will_qos: QoS,
        /// Retain the will
        #[arg(long, requires = "will_topic")]
        will_retain: bool,
    },
    /// A message
    Publish {
        /// Topic
        #[arg(short, long)]
        topic: String,
        /// The message
        #[arg(short, long, default_value = "", allow_hyphen_values = true)]
        message: String,
        /// The message in hex
        #[arg(long, conflicts_with = "message")]
        hex: Option<String>,
        /// Quality of service
        #[arg(short, long, default_value = "0", value_parser = qos)]
        qos: QoS,
        /// Packet identifier, for QoS 1 and 2
        #[arg(long, default_value_t = 1)]
        packet_id: u16,
        /// The broker keeps the message
        #[arg(short, long)]
        retain: bool,
        /// It may have been sent before
        #[arg(long)]
        dup: bool,
    },
    /// A client asks for messages
    Subscribe {
        /// Topic filter. May be repeated
        #[arg(short, long, required = true)]
        topic: Vec<String>,
        /// Quality of service
        #[arg(short, long, default_value = "0", value_parser = qos)]
        qos: QoS,
        /// Packet identifier
        #[arg(long, default_value_t = 1)]
        packet_id: u16,
    },
    /// A client wants no more messages
    Unsubscribe {
        /// Topic filter. May be repeated
        #[arg(short, long, required = true)]
        topic: Vec<String>,
        /// Packet identifier
        #[arg(long, default_value_t = 1)]
        packet_id: u16,
    },
    /// A sign of life
    Pingreq,
    /// The end
    Disconnect {
        /// Reason code (5)
        #[arg(long, default_value_t = 0)]
        reason: u8,
    },
}

impl Encode {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let typed = self
            .properties
            .iter()
            .map(|text| property(text))
            .collect::<Result<Vec<_>, _>>()?;
        let typed = TypedList::new(typed)?;
        let (list, alias) = typed.parse()?;
        let properties = Properties::from(&list[..]);
        let version = self.version;
        match &self.packet {
            Words::Connect {
                id,
                keepalive,
                disable_clean_session,
                username,
                password,
                will_topic,
                will_payload,
                will_qos,
                will_retain,
            } => {
                let will = will_topic
                    .as_deref()
                    .map(topic_name)
                    .transpose()?
                    .map(|topic| Will {
                        qos: *will_qos,
                        retain: *will_retain,
                        ..Will::new(topic, will_payload.as_bytes())
                    });
                print(
                    version,
                    &Packet::Connect(Connect {
                        clean_start: !disable_clean_session,
                        keep_alive: *keepalive,
                        will,
                        user_name: username.as_deref(),
                        password: password.as_deref().map(str::as_bytes),
                        properties,
                        ..Connect::new(version, id)
                    }),
                )
            }
            Words::Publish {
                topic,
                message,
                hex,
                qos,
                packet_id,
                retain,
                dup,
            } => {
                let payload = match hex {
                    Some(text) => hex::parse(text)?,
                    None => message.clone().into_bytes(),
                };
                let topic = if topic.is_empty() && alias.is_some() {
                    TopicName::NONE
                } else {
                    topic_name(topic)?
                };
                let delivery = match qos {
                    QoS::AtMostOnce => Delivery::AtMostOnce,
                    QoS::AtLeastOnce => Delivery::AtLeastOnce(identifier(*packet_id)?),
                    QoS::ExactlyOnce => Delivery::ExactlyOnce(identifier(*packet_id)?),
                };
                print(
                    version,
                    &Packet::Publish(Publish {
                        dup: *dup,
                        retain: *retain,
                        delivery,
                        topic_alias: alias,
                        properties,
                        ..Publish::new(topic, &payload)
                    }),
                )
            }
            Words::Subscribe {
                topic,
                qos,
                packet_id,
            } => {
                let filters = topic
                    .iter()
                    .map(|topic| filter(topic).map(|filter| Subscription::new(filter, *qos)));
                let filters = filters.collect::<Result<Vec<_>, _>>()?;
                let packet_id = identifier(*packet_id)?;
                print(
                    version,
                    &Packet::Subscribe(Subscribe {
                        properties,
                        ..Subscribe::new(packet_id, &filters[..])
                    }),
                )
            }
            Words::Unsubscribe { topic, packet_id } => {
                let filters = topic
                    .iter()
                    .map(|topic| filter(topic))
                    .collect::<Result<Vec<_>, _>>()?;
                let packet_id = identifier(*packet_id)?;
                print(
                    version,
                    &Packet::Unsubscribe(Unsubscribe {
                        properties,
                        ..Unsubscribe::new(packet_id, &filters[..])
                    }),
                )
            }
            Words::Pingreq => print(version, &Packet::PingReq),
            Words::Disconnect { reason } => {
                let reason = ReasonCode::new(*reason)
                    .ok_or_else(|| fail(format!("{reason} is no reason code")))?;
                print(
                    version,
                    &Packet::Disconnect(Disconnect { reason, properties }),
                )
            }
        }
    }
}

fn print(version: Version, packet: &Packet<'_>) -> Result<(), Failure> {
    let said = |error: EncodeError| fail(format!("{}: {error}", packet.packet_type()));
    let mut bytes = vec![0; packet.encoded_len(version).map_err(said)?];
    let len = packet.encode(version, &mut bytes).map_err(said)?;
    crate::output(format_args!(
        "{}\n",
        hex::spaced(bytes.get(..len).unwrap_or_default())
    ));
    Ok(())
}

fn property(text: &str) -> Result<Typed, Failure> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| fail(format!("-D {text}: it has the form NAME=VALUE")))?;
    let values: Vec<String> = if name == "user-property" {
        value.splitn(2, '=').map(str::to_owned).collect()
    } else {
        vec![value.to_owned()]
    };
    Typed::new(name, &values)
}

fn topic_name(text: &str) -> Result<TopicName<'_>, Failure> {
    TopicName::new(text).map_err(|error| fail(format!("topic {text:?}: {error}")))
}

fn filter(text: &str) -> Result<TopicFilter<'_>, Failure> {
    TopicFilter::new(text).map_err(|error| fail(format!("topic filter {text:?}: {error}")))
}

fn identifier(number: u16) -> Result<PacketId, Failure> {
    PacketId::new(number).ok_or_else(|| fail("0 is no packet identifier"))
}
