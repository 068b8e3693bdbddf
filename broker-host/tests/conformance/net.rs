//! Runs a broker for one test, and clients that exchange packets with it over TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mqtt_broker_host::broker::{ClientInfo, Config, ConnectionId, Hooks, Verdict};
use mqtt_broker_host::{Host, control};
use mqtt_proto::{
    Ack, Connect, Decoded, Delivery, List, MAX_PACKET, Packet, PacketId, Properties, Property,
    Publish, QoS, ReasonCode, Subscribe, Subscription, TopicAlias, TopicFilter, TopicName,
    Unsubscribe, Version,
};
use mqtt_testing::packets::encode;
use tokio::sync::oneshot;

/// How long a step may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The hooks of the test broker forbid the user "nobody", topics below "forbidden/", and all authentication methods except
/// "question", which sends "who?" and accepts "me".
#[derive(Debug, Default)]
struct Rules(u128);

impl Hooks for Rules {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }

    fn connect(&mut self, _: ConnectionId, connect: &Connect<'_>) -> Verdict {
        match connect.user_name {
            Some("nobody") => Verdict::Refuse(ReasonCode::BadUserNameOrPassword),
            _ => Verdict::Accept,
        }
    }

    fn authenticate(&mut self, _: ConnectionId, method: &str, data: Option<&[u8]>) -> Verdict {
        match (method, data) {
            ("question", None) => Verdict::Continue(b"who?".to_vec()),
            ("question", Some(b"me")) => Verdict::AcceptWith(b"welcome".to_vec()),
            ("question", _) => Verdict::Refuse(ReasonCode::NotAuthorized),
            _ => Verdict::Refuse(ReasonCode::BadAuthenticationMethod),
        }
    }

    fn may_publish(&mut self, _: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        !topic.as_str().starts_with("forbidden/")
    }

    fn may_subscribe(&mut self, _: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        !filter.as_str().starts_with("forbidden/")
    }
}

/// A broker on a free port. A separate thread hosts it until it is dropped.
pub(crate) struct Broker {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.statistics_interval = 0;
        set(&mut config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("TCP");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("TCP");
                let (_control, commands) = control();
                let host = Host::new(config, Rules::default(), commands);
                host.run([listener], async {
                    let _ = stopped.await;
                })
                .await;
            });
        });
        Self {
            address,
            _stop: stop,
        }
    }
}

/// The content of a received message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) id: u16,
    pub(crate) alias: u16,
    pub(crate) identifiers: Vec<u32>,
    pub(crate) user: Vec<(String, String)>,
}

impl Message {
    pub(crate) fn of(publish: &Publish<'_>) -> Self {
        Self {
            topic: publish.topic.to_string(),
            payload: publish.payload.to_vec(),
            qos: publish.qos(),
            dup: publish.dup,
            retain: publish.retain,
            id: publish.delivery.packet_id().map_or(0, PacketId::get),
            alias: publish.topic_alias.map_or(0, TopicAlias::get),
            identifiers: publish.properties.subscription_identifiers().collect(),
            user: publish
                .properties
                .user_properties()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }
}

pub(crate) fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not zero")
}

pub(crate) fn topic(name: &str) -> TopicName<'_> {
    TopicName::new(name).expect("a topic name")
}

pub(crate) fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).expect("a topic filter")
}

/// Matches the next packet of a client.
macro_rules! comes {
    ($client:expr, $($pattern:tt)+) => {
        $client.next(|packet| assert!(matches!(packet, $($pattern)+), "came {packet:?}"))
    };
}
pub(crate) use comes;

/// A client whose packets the test sends and receives directly.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    version: Version,
    /// The largest packet that it accepts.
    most: usize,
}

impl Client {
    /// Opens only the TCP connection.
    pub(crate) fn open(broker: &Broker, version: Version) -> Self {
        let stream = TcpStream::connect(broker.address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("TCP");
        stream.set_nodelay(true).expect("TCP");
        Self {
            stream,
            input: Vec::new(),
            version,
            most: usize::MAX,
        }
    }

    /// Connects with a clean start.
    pub(crate) fn new(broker: &Broker, version: Version, client_id: &str) -> Self {
        let (client, present) = Self::with(broker, &Connect::new(version, client_id));
        assert!(!present, "a clean start with a session");
        client
    }

    /// Makes a session of `pump` with a subscription to `a` at QoS 1, and returns another client.
    pub(crate) fn beside_a_session(broker: &Broker, version: Version) -> Self {
        let (mut client, _) = Self::staying(broker, version, "pump");
        client.subscribe("a", QoS::AtLeastOnce);
        client.goodbye();
        Self::new(broker, version, "other")
    }

    /// Connects with a session that stays. Returns whether there was one.
    pub(crate) fn staying(broker: &Broker, version: Version, client_id: &str) -> (Self, bool) {
        let stays = [Property::SessionExpiryInterval(u32::MAX)];
        Self::with(
            broker,
            &Connect {
                clean_start: false,
                properties: if version.is_v5() {
                    Properties::from(&stays)
                } else {
                    Properties::EMPTY
                },
                ..Connect::new(version, client_id)
            },
        )
    }

    /// Connects. Returns whether there was a session.
    pub(crate) fn with(broker: &Broker, connect: &Connect<'_>) -> (Self, bool) {
        let mut client = Self::open(broker, connect.version);
        if let Some(most) = connect.properties.maximum_packet_size() {
            client.most = usize::try_from(most).expect("small");
        }
        client.send(&Packet::Connect(*connect));
        let present = client.next(|packet| match packet {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::Success => {
                connack.session_present
            }
            other => panic!("came {other:?}"),
        });
        (client, present)
    }

    /// Connects an MQTT 5 client with these properties of CONNECT.
    pub(crate) fn v5(broker: &Broker, client_id: &str, properties: &[Property<'_>]) -> Self {
        let (client, _) = Self::with(
            broker,
            &Connect {
                properties: Properties::from(properties),
                ..Connect::new(Version::V5, client_id)
            },
        );
        client
    }

    /// Sends bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        // In many tests the broker has already closed the connection.
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn send(&mut self, packet: &Packet<'_>) {
        let bytes = encode(packet, self.version);
        self.bytes(&bytes);
    }

    /// Returns the bytes of the next packet; `None` if the broker closed the connection.
    pub(crate) fn raw(&mut self) -> Option<Vec<u8>> {
        loop {
            let decoded = Packet::decode(&self.input, self.version, MAX_PACKET);
            let decoded = decoded.unwrap_or_else(|error| panic!("{error} in {:x?}", self.input));
            if let Decoded::Packet { consumed, packet } = decoded {
                assert!(consumed <= self.most, "{packet:?} has {consumed} bytes");
                return Some(self.input.drain(..consumed).collect());
            }
            let mut space = [0; 4096];
            match self.stream.read(&mut space) {
                Ok(0) => return None,
                Ok(n) => self.input.extend_from_slice(&space[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Passes the next packet to `look`.
    pub(crate) fn next<R>(&mut self, look: impl FnOnce(&Packet<'_>) -> R) -> R {
        let bytes = self.raw().expect("the broker closed the connection");
        match Packet::decode(&bytes, self.version, MAX_PACKET) {
            Ok(Decoded::Packet { packet, .. }) => look(&packet),
            other => panic!("{other:?}"),
        }
    }

    /// Checks that the broker closes the connection and sends nothing except DISCONNECT in MQTT 5.
    #[track_caller]
    pub(crate) fn closed(mut self) -> Option<ReasonCode> {
        let bytes = self.raw()?;
        let reason = match Packet::decode(&bytes, self.version, MAX_PACKET) {
            Ok(Decoded::Packet {
                packet: Packet::Disconnect(disconnect),
                ..
            }) if self.version.is_v5() => disconnect.reason,
            other => panic!("came {other:?}"),
        };
        assert_eq!(self.raw(), None, "after DISCONNECT");
        Some(reason)
    }

    /// Checks that the broker closes the connection and sends nothing.
    #[track_caller]
    pub(crate) fn closed_silently(mut self) {
        assert_eq!(self.raw(), None);
    }

    /// Checks that nothing was sent to this client: the answer to a ping is the next packet.
    #[track_caller]
    pub(crate) fn nothing(&mut self) {
        self.send(&Packet::PingReq);
        comes!(self, Packet::PingResp);
    }

    /// Subscribes. Returns the reason code of the answer.
    pub(crate) fn subscribe(&mut self, text: &str, qos: QoS) -> ReasonCode {
        self.subscribe_with(&[Subscription::new(filter(text), qos)], &[])[0]
    }

    pub(crate) fn subscribe_with(
        &mut self,
        list: &[Subscription<'_>],
        properties: &[Property<'_>],
    ) -> Vec<ReasonCode> {
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: id(77),
            properties: Properties::from(properties),
            filters: List::from(list),
        }));
        self.next(|packet| match packet {
            Packet::SubAck(suback) if suback.packet_id == id(77) => suback.codes.iter().collect(),
            other => panic!("came {other:?}"),
        })
    }

    pub(crate) fn unsubscribe(&mut self, list: &[&str]) -> Vec<ReasonCode> {
        let list: Vec<_> = list.iter().map(|text| filter(text)).collect();
        self.send(&Packet::Unsubscribe(Unsubscribe::new(id(78), &list[..])));
        self.next(|packet| match packet {
            Packet::UnsubAck(unsuback) if unsuback.packet_id == id(78) => {
                unsuback.codes.iter().collect()
            }
            other => panic!("came {other:?}"),
        })
    }

    /// Sends PUBLISH only; the identifier is 5.
    pub(crate) fn say(&mut self, name: &str, payload: &str, qos: QoS) {
        self.send(&Packet::Publish(publish(name, payload, qos, 5)));
    }

    /// Publishes, and returns when the broker has the message.
    pub(crate) fn publish(&mut self, name: &str, payload: &str, qos: QoS) {
        self.publish_packet(&publish(name, payload, qos, 5));
    }

    pub(crate) fn retain(&mut self, name: &str, payload: &str, qos: QoS) {
        let retained = Publish {
            retain: true,
            ..publish(name, payload, qos, 5)
        };
        self.publish_packet(&retained);
    }

    pub(crate) fn publish_packet(&mut self, message: &Publish<'_>) {
        self.send(&Packet::Publish(*message));
        match message.delivery {
            // The broker handles packets in order: when it answers the ping it has the message.
            Delivery::AtMostOnce => self.nothing(),
            Delivery::AtLeastOnce(own) => {
                comes!(self, Packet::PubAck(ack) if ack.packet_id == own);
            }
            Delivery::ExactlyOnce(own) => {
                comes!(self, Packet::PubRec(ack) if ack.packet_id == own);
                self.send(&Packet::PubRel(Ack::new(own)));
                comes!(self, Packet::PubComp(ack) if ack.packet_id == own);
            }
        }
    }

    /// Takes the next packet, a message, without acknowledging it.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Message {
        self.next(|packet| match packet {
            Packet::Publish(publish) => Message::of(publish),
            other => panic!("came {other:?}"),
        })
    }

    /// Takes the next packet, a message, and completes its acknowledgement.
    #[track_caller]
    pub(crate) fn take(&mut self) -> Message {
        let message = self.message();
        match message.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.send(&Packet::PubAck(Ack::new(id(message.id)))),
            QoS::ExactlyOnce => {
                let own = id(message.id);
                self.send(&Packet::PubRec(Ack::new(own)));
                comes!(self, Packet::PubRel(ack) if ack.packet_id == own);
                self.send(&Packet::PubComp(Ack::new(own)));
            }
        }
        message
    }

    /// Takes `count` messages, and completes the acknowledgement of each.
    pub(crate) fn take_many(&mut self, count: usize) -> Vec<Message> {
        let (mut messages, mut ended) = (Vec::new(), 0);
        while ended < count {
            let bytes = self.raw().expect("the broker closed the connection");
            match Packet::decode(&bytes, self.version, MAX_PACKET) {
                Ok(Decoded::Packet {
                    packet: Packet::Publish(publish),
                    ..
                }) => {
                    let message = Message::of(&publish);
                    let own = Ack::new(id(message.id));
                    if message.qos == QoS::ExactlyOnce {
                        self.send(&Packet::PubRec(own));
                    } else {
                        self.send(&Packet::PubAck(own));
                        ended += 1;
                    }
                    messages.push(message);
                }
                Ok(Decoded::Packet {
                    packet: Packet::PubRel(ack),
                    ..
                }) => {
                    self.send(&Packet::PubComp(Ack::new(ack.packet_id)));
                    ended += 1;
                }
                other => panic!("came {other:?}"),
            }
        }
        messages
    }

    /// Takes the next packet, a message with this payload, and completes its acknowledgement.
    #[track_caller]
    pub(crate) fn hears(&mut self, payload: &str) -> Message {
        let message = self.take();
        assert_eq!(String::from_utf8_lossy(&message.payload), payload);
        message
    }

    /// Sends DISCONNECT and waits until the broker has handled it.
    pub(crate) fn goodbye(mut self) {
        self.send(&Packet::Disconnect(mqtt_proto::Disconnect::default()));
        assert_eq!(self.raw(), None, "after DISCONNECT");
    }

    /// Closes the transport without DISCONNECT.
    pub(crate) fn vanish(self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

pub(crate) fn publish<'a>(name: &'a str, payload: &'a str, qos: QoS, own: u16) -> Publish<'a> {
    Publish {
        delivery: match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id(own)),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id(own)),
        },
        ..Publish::new(topic(name), payload.as_bytes())
    }
}

/// Encodes a packet with another first byte.
pub(crate) fn flagged(packet: &Packet<'_>, version: Version, first: u8) -> Vec<u8> {
    let mut bytes = encode(packet, version);
    bytes[0] = first;
    bytes
}

/// Encodes a packet, and replaces some bytes by as many others.
pub(crate) fn replaced(packet: &Packet<'_>, version: Version, old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = encode(packet, version);
    let at = bytes.windows(old.len()).position(|window| window == old);
    let at = at.expect("it is in there");
    bytes[at..at + old.len()].copy_from_slice(new);
    bytes
}
