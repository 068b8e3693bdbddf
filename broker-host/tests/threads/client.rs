//! A client over a socket that acknowledges what it gets.

use std::net::SocketAddr;

use mqtt_proto::{
    Ack, Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Publish, QoS, Subscribe,
    Subscription, TopicFilter, TopicName, Version,
};
use mqtt_testing::packets::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a client heard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// Topic, payload, and whether it was retained.
    Message(String, String, bool),
    /// The type and, for an answer that has one, the reason.
    Packet(u8, u8),
    End,
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) input: Vec<u8>,
    pub(crate) version: Version,
}

impl Client {
    pub(crate) async fn open(address: SocketAddr, connect: &Connect<'_>) -> Self {
        let mut client = Self {
            stream: TcpStream::connect(address).await.unwrap(),
            input: Vec::new(),
            version: connect.version,
        };
        let bytes = encode(&Packet::Connect(*connect), connect.version);
        // The broker may have closed the connection.
        let _ = client.stream.write_all(&bytes).await;
        client
    }

    pub(crate) async fn connect(address: SocketAddr, connect: &Connect<'_>) -> Self {
        let mut client = Self::open(address, connect).await;
        assert_eq!(client.hears().await, Heard::Packet(2, 0), "{connect:?}");
        client
    }

    pub(crate) async fn new(address: SocketAddr, version: Version, name: &str) -> Self {
        Self::connect(address, &Connect::new(version, name)).await
    }

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        let bytes = encode(packet, self.version);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Returns what comes next, and acknowledges it.
    pub(crate) async fn hears(&mut self) -> Heard {
        loop {
            match Packet::decode(&self.input, self.version, MAX_PACKET).unwrap() {
                Decoded::Packet { packet, consumed } => {
                    let heard = match &packet {
                        Packet::Publish(publish) => Some(Heard::Message(
                            publish.topic.to_string(),
                            String::from_utf8_lossy(publish.payload).into_owned(),
                            publish.retain,
                        )),
                        Packet::PubRec(_) | Packet::PubRel(_) => None,
                        _ => Some(told(&self.input[..consumed])),
                    };
                    let answer = match packet {
                        Packet::Publish(publish) => match publish.delivery {
                            Delivery::AtMostOnce => None,
                            Delivery::AtLeastOnce(id) => Some(Packet::PubAck(Ack::new(id))),
                            Delivery::ExactlyOnce(id) => Some(Packet::PubRec(Ack::new(id))),
                        },
                        Packet::PubRec(ack) => Some(Packet::PubRel(Ack::new(ack.packet_id))),
                        Packet::PubRel(ack) => Some(Packet::PubComp(Ack::new(ack.packet_id))),
                        _ => None,
                    };
                    let answer = answer.map(|answer| encode(&answer, self.version));
                    self.input.drain(..consumed);
                    if let Some(answer) = answer {
                        self.stream.write_all(&answer).await.unwrap();
                    }
                    if let Some(heard) = heard {
                        return heard;
                    }
                }
                Decoded::Needs(_) => {
                    if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                        return Heard::End;
                    }
                }
            }
        }
    }

    pub(crate) async fn hears_message(&mut self) -> (String, String, bool) {
        match self.hears().await {
            Heard::Message(topic, payload, retain) => (topic, payload, retain),
            other => panic!("{other:?}"),
        }
    }

    /// Subscribes, and returns the granted QoS or the refusal.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> u8 {
        let list = [Subscription::new(TopicFilter::new(filter).unwrap(), qos)];
        let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
        self.send(&Packet::Subscribe(subscribe)).await;
        match self.hears().await {
            Heard::Packet(9, granted) => granted,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes, and returns the reason of its acknowledgement, if it has one.
    pub(crate) async fn publish(
        &mut self,
        topic: &str,
        payload: &str,
        qos: QoS,
        retain: bool,
    ) -> u8 {
        let id = PacketId::FIRST;
        let publish = Publish {
            retain,
            delivery: match qos {
                QoS::AtMostOnce => Delivery::AtMostOnce,
                QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
                QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
            },
            ..Publish::new(TopicName::new(topic).unwrap(), payload.as_bytes())
        };
        self.send(&Packet::Publish(publish)).await;
        if qos == QoS::AtMostOnce {
            return 0;
        }
        match self.hears().await {
            Heard::Packet(4 | 7, reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// Returns the type and the reason of an answer from its bytes.
fn told(bytes: &[u8]) -> Heard {
    let kind = bytes[0] >> 4;
    let reason = match kind {
        2 => bytes.get(3),
        4 | 7 => bytes.get(4),
        9 => bytes.last(),
        13 => None,
        14 => bytes.get(2),
        other => panic!("{other}: {bytes:x?}"),
    };
    Heard::Packet(kind, reason.copied().unwrap_or(0))
}
