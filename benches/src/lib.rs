//! Makes the packets that both benches measure.

use mqtt_proto::{
    Ack, Connect, Delivery, Packet, PacketId, Properties, Property, Publish, QoS, Subscribe,
    Subscription, TopicFilter, TopicName, Version, Will,
};
use mqtt_testing::packets::encode;

pub mod server;

/// How many packets a stream has.
pub const COUNT: usize = 1_000;

/// A sample: its name, version and the stream of packets.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: &'static str,
    pub version: Version,
    /// [`COUNT`] packets, one after the other.
    pub stream: Vec<u8>,
    /// The length of each packet.
    pub lengths: Vec<usize>,
}

/// Calls `then` with a PUBLISH whose topic and payload have these lengths.
pub fn with_publish<R>(
    qos: QoS,
    topic: usize,
    payload: usize,
    then: impl FnOnce(&Packet<'_>) -> R,
) -> R {
    let id = PacketId::new(10).expect("not zero");
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
    };
    let topic = "factory/line7/sensor/temperature/celsius"
        .get(..topic)
        .expect("a shorter topic")
        .to_owned();
    let payload = vec![0x42; payload];
    then(&Packet::Publish(Publish {
        delivery,
        ..Publish::new(TopicName::new(&topic).expect("a topic"), &payload)
    }))
}

/// The six properties of the v5 PUBLISH.
pub const PROPERTIES: [Property<'static>; 6] = [
    Property::PayloadFormatIndicator(true),
    Property::MessageExpiryInterval(3_600),
    Property::ContentType("application/json"),
    Property::ResponseTopic(TopicName::from_static("factory/answers")),
    Property::CorrelationData(b"0123456789abcdef"),
    Property::UserProperty("trace", "7b3f"),
];

/// Calls `then` with each measured packet, its name and its version.
pub fn each_packet(mut then: impl FnMut(&'static str, Version, &Packet<'_>)) {
    let v4 = Version::V311;
    with_publish(QoS::AtMostOnce, 20, 64, |packet| {
        then("publish QoS 0, 20 B + 64 B", v4, packet)
    });
    with_publish(QoS::AtMostOnce, 20, 4096, |packet| {
        then("publish QoS 0, 20 B + 4 KiB", v4, packet)
    });
    with_publish(QoS::AtLeastOnce, 40, 256, |packet| {
        then("publish QoS 1, 40 B + 256 B", v4, packet)
    });
    then("puback", v4, &Packet::PubAck(Ack::new(PacketId::FIRST)));
    let will = Will::new(TopicName::from_static("pumps/7/state"), b"gone");
    let connect = Connect {
        will: Some(will),
        user_name: Some("pump-7"),
        password: Some(b"secret"),
        ..Connect::new(v4, "factory-line7-pump7")
    };
    then("connect", v4, &Packet::Connect(connect));
    let filters: Vec<_> = [
        "a/b/c",
        "a/+/c",
        "factory/#",
        "x",
        "line7/pump/+/pressure",
        "$share/g/a",
        "b/c",
        "d/e/f/g",
        "+",
        "h/i/#",
    ]
    .map(|filter| {
        Subscription::new(
            TopicFilter::new(filter).expect("a filter"),
            QoS::AtLeastOnce,
        )
    })
    .into();
    then(
        "subscribe, 10 filters",
        v4,
        &Packet::Subscribe(Subscribe::new(PacketId::FIRST, &filters[..])),
    );
    let publish = Publish {
        properties: Properties::from(&PROPERTIES),
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::from_static("factory/line7/sensor"), &[0x42; 64])
    };
    then(
        "v5 publish, 6 properties",
        Version::V5,
        &Packet::Publish(publish),
    );
}

/// Returns all samples, including a random mix of PUBLISH and PUBACK.
pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut first = Vec::new();
    let mut puback = Vec::new();
    each_packet(|name, version, packet| {
        let bytes = encode(packet, version);
        if first.is_empty() {
            first = bytes.clone();
        }
        if name == "puback" {
            puback = bytes.clone();
        }
        samples.push(Sample {
            name,
            version,
            stream: bytes.repeat(COUNT),
            lengths: vec![bytes.len(); COUNT],
        });
    });
    let mut random = 7_u32;
    let (mut stream, mut lengths) = (Vec::new(), Vec::new());
    for _ in 0..COUNT {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let packet = if random >> 31 == 0 { &first } else { &puback };
        stream.extend_from_slice(packet);
        lengths.push(packet.len());
    }
    samples.push(Sample {
        name: "random mix of publish and puback",
        version: Version::V311,
        stream,
        lengths,
    });
    samples
}
