//! Repeats one task of the codec or the session, so that `scripts/instructions.py` can count its instructions. Without arguments
//! it prints the names of the tasks.

mod broker;

use std::hint::black_box;

use mqtt_proto::{
    Ack, AckKind, ConnAck, Connect, Decoded, Delivery, Encode, MAX_PACKET, Packet, PacketId,
    Properties, Property, Publish, QoS, ReasonCode, TopicName, Version,
};
use mqtt_session::{
    Acknowledge, Client, Config, Heap, Instant, Outgoing, Receipt, Server, ServerEvent, Step,
};

const NOW: Instant = Instant::from_millis(0);
const TOPIC: TopicName<'static> = TopicName::from_static("factory/line7/sensor");
const PAYLOAD: [u8; 64] = [0x42; 64];
const PROPERTIES: [Property<'static>; 3] = [
    Property::MessageExpiryInterval(3_600),
    Property::ContentType("application/json"),
    Property::UserProperty("trace", "7b3f"),
];

fn publish(qos1: bool, properties: &'static [Property<'static>]) -> Publish<'static> {
    Publish {
        delivery: if qos1 {
            Delivery::AtLeastOnce(PacketId::FIRST)
        } else {
            Delivery::AtMostOnce
        },
        properties: Properties::from(properties),
        ..Publish::new(TOPIC, &PAYLOAD)
    }
}

fn encoded(packet: &impl Encode, version: Version) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    let len = packet.encode(version, &mut bytes).expect("room");
    bytes.truncate(len);
    bytes
}

fn decode(packet: &impl Encode, version: Version, count: usize) {
    let bytes = encoded(packet, version);
    for _ in 0..count {
        let decoded = Packet::decode(black_box(&bytes), version, MAX_PACKET);
        assert!(matches!(black_box(&decoded), Ok(Decoded::Packet { .. })));
    }
}

fn encode(packet: &impl Encode, version: Version, count: usize) {
    let mut bytes = [0; 256];
    for _ in 0..count {
        let len = black_box(packet).encode(version, black_box(&mut bytes));
        black_box(len).expect("room");
    }
}

/// Moves outgoing bytes both ways until there are none. The receipts of messages go to `receipts`.
fn pass(client: &mut Client<'static>, server: &mut Server<'static>, receipts: &mut Vec<Receipt>) {
    while !client.outgoing().is_empty() || !server.outgoing().is_empty() {
        let (there, mut at) = (client.outgoing(), 0);
        while let Some(input) = there.get(at..).filter(|input| !input.is_empty()) {
            let step = server.receive(input, NOW).expect("a packet");
            let Step::Packet { consumed, event } = step else {
                panic!("a whole packet")
            };
            at += consumed;
            match event {
                Some(ServerEvent::Connect(_)) => server
                    .accept(&ConnAck::default(), NOW)
                    .expect("it is asked for"),
                Some(ServerEvent::Message(incoming)) => receipts.extend(incoming.receipt),
                _ => {}
            }
        }
        client.sent(at);
        let (back, mut at) = (server.outgoing(), 0);
        while let Some(input) = back.get(at..).filter(|input| !input.is_empty()) {
            let step = client.receive(input, NOW).expect("a packet");
            let Step::Packet { consumed, .. } = step else {
                panic!("a whole packet")
            };
            at += consumed;
        }
        server.sent(at);
    }
}

/// Sends messages from a client to a server in memory, ten at once, with all their acknowledgements.
fn exchange(qos: QoS, version: Version, count: usize) {
    let exchange = Exchange {
        config: Config::default(),
        message: message(qos),
        version,
        at_once: 10,
    };
    exchange.run(count);
}

/// The same with a message that has properties, which the session encodes by another path.
fn exchange_with_properties(qos: QoS, count: usize) {
    let exchange = Exchange {
        config: Config::default(),
        message: Outgoing {
            properties: Properties::from(&PROPERTIES[..]),
            ..message(qos)
        },
        version: Version::V5,
        at_once: 10,
    };
    exchange.run(count);
}

fn message(qos: QoS) -> Outgoing<'static> {
    Outgoing::new(TOPIC, qos, &PAYLOAD)
}

/// Sends a hundred messages at once, which the application acknowledges in their order after the last one.
fn exchange_by_hand(qos: QoS, count: usize) {
    let mut config = Config::default();
    config.acknowledge = Acknowledge::ByHand;
    config.window_qos2 = config.window;
    let exchange = Exchange {
        config,
        message: message(qos),
        version: Version::V311,
        at_once: 100,
    };
    exchange.run(count);
}

struct Exchange {
    config: Config,
    message: Outgoing<'static>,
    version: Version,
    /// The number of messages before the next acknowledgement.
    at_once: usize,
}

impl Exchange {
    fn run(&self, count: usize) {
        let mut client = Client::new(self.config, Heap);
        let mut server = Server::new(self.config, Heap);
        let mut receipts = Vec::new();
        let connect = Connect::new(self.version, "c");
        client.connect(&connect, NOW).expect("room");
        server.opened(NOW);
        pass(&mut client, &mut server, &mut receipts);
        for number in 1..=count {
            client
                .publish(black_box(&self.message), NOW)
                .expect("an open window");
            if number % self.at_once == 0 {
                pass(&mut client, &mut server, &mut receipts);
                for receipt in receipts.drain(..) {
                    server
                        .acknowledge(receipt, ReasonCode::Success)
                        .expect("it awaits that");
                }
                pass(&mut client, &mut server, &mut receipts);
            }
        }
    }
}

type Task = (&'static str, fn(usize));

const TASKS: [Task; 18] = [
    ("decode PUBLISH", |n| {
        decode(&publish(false, &[]), Version::V311, n);
    }),
    ("decode PUBLISH of QoS 1", |n| {
        decode(&publish(true, &[]), Version::V311, n);
    }),
    ("decode PUBLISH of 5, three properties", |n| {
        decode(&publish(true, &PROPERTIES), Version::V5, n);
    }),
    ("decode PUBACK", |n| {
        let ack = Ack::new(PacketId::FIRST);
        decode(&(AckKind::PubAck, &ack), Version::V311, n);
    }),
    ("encode PUBLISH", |n| {
        encode(&publish(false, &[]), Version::V311, n);
    }),
    ("encode PUBLISH of 5, three properties", |n| {
        encode(&publish(true, &PROPERTIES), Version::V5, n);
    }),
    ("exchange at QoS 0", |n| {
        exchange(QoS::AtMostOnce, Version::V311, n);
    }),
    ("exchange at QoS 1", |n| {
        exchange(QoS::AtLeastOnce, Version::V311, n);
    }),
    ("exchange at QoS 2", |n| {
        exchange(QoS::ExactlyOnce, Version::V311, n);
    }),
    ("exchange at QoS 1 in 5", |n| {
        exchange(QoS::AtLeastOnce, Version::V5, n);
    }),
    ("exchange at QoS 2 in 5", |n| {
        exchange(QoS::ExactlyOnce, Version::V5, n);
    }),
    ("exchange at QoS 1 in 5, three properties", |n| {
        exchange_with_properties(QoS::AtLeastOnce, n);
    }),
    ("exchange at QoS 1, by hand", |n| {
        exchange_by_hand(QoS::AtLeastOnce, n);
    }),
    ("exchange at QoS 2, by hand", |n| {
        exchange_by_hand(QoS::ExactlyOnce, n);
    }),
    ("broker at QoS 1", |n| {
        broker::deliver(QoS::AtLeastOnce, false, n);
    }),
    ("broker at QoS 2", |n| {
        broker::deliver(QoS::ExactlyOnce, false, n);
    }),
    ("broker at QoS 1, with a journal", |n| {
        broker::deliver(QoS::AtLeastOnce, true, n);
    }),
    ("broker at QoS 2, with a journal", |n| {
        broker::deliver(QoS::ExactlyOnce, true, n);
    }),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        return TASKS.iter().for_each(|(name, _)| println!("{name}"));
    };
    let count = arguments.next().and_then(|count| count.parse().ok());
    let task = TASKS.iter().find(|(task, _)| *task == name);
    match (task, count) {
        (Some((_, task)), Some(count)) => task(count),
        _ => panic!("no such task, or no number"),
    }
}
