//! Measures one message from a client to a server in memory, with all its acknowledgements, at each QoS.

use std::hint::black_box;

use benches::COUNT;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mqtt_proto::{ConnAck, Connect, QoS, TopicName, Version};
use mqtt_session::{Client, Config, Event, Heap, Instant, Outgoing, Server, ServerEvent, Step};

const NOW: Instant = Instant::from_millis(0);

struct Wire {
    client: Client<'static>,
    server: Server<'static>,
}

impl Wire {
    fn connected(version: Version) -> Self {
        let mut client = Client::new(Config::default(), Heap);
        client
            .connect(&Connect::new(version, "c"), NOW)
            .expect("room");
        let mut server = Server::new(Config::default(), Heap);
        server.opened(NOW);
        let mut wire = Self { client, server };
        wire.pass();
        wire
    }

    /// Passes outgoing bytes both ways until there are none. Returns how many messages arrived and how many ended.
    fn pass(&mut self) -> (usize, usize) {
        let (mut arrived, mut ended) = (0, 0);
        let Self { client, server } = self;
        while !client.outgoing().is_empty() {
            let there = client.outgoing();
            let mut at = 0;
            while at < there.len() {
                let Ok(Step::Packet { consumed, event }) = server.receive(&there[at..], NOW) else {
                    panic!("a whole packet");
                };
                at += consumed;
                match event {
                    Some(ServerEvent::Connect(_)) => {
                        server.accept(&ConnAck::default(), NOW).expect("it waits");
                    }
                    Some(ServerEvent::Message(message)) => {
                        black_box(message.publish.payload);
                        arrived += 1;
                    }
                    _ => {}
                }
            }
            client.sent(at);
            let back = server.outgoing();
            let mut at = 0;
            while at < back.len() {
                let Ok(Step::Packet { consumed, event }) = client.receive(&back[at..], NOW) else {
                    panic!("a whole packet");
                };
                at += consumed;
                ended += usize::from(matches!(event, Some(Event::Acknowledged { .. })));
            }
            server.sent(at);
        }
        (arrived, ended)
    }
}

fn exchange(criterion: &mut Criterion) {
    for (name, qos) in [
        ("QoS 0", QoS::AtMostOnce),
        ("QoS 1", QoS::AtLeastOnce),
        ("QoS 2", QoS::ExactlyOnce),
    ] {
        let mut group = criterion.benchmark_group(format!("session/{name}"));
        group.throughput(Throughput::Elements(u64::try_from(COUNT).expect("small")));
        let message = Outgoing::new(
            TopicName::from_static("factory/line7/sensor"),
            qos,
            &[0x42; 64],
        );
        for (name, version) in [("ours", Version::V311), ("ours, v5", Version::V5)] {
            let mut wire = Wire::connected(version);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    for _ in 0..COUNT {
                        wire.client
                            .publish(black_box(&message), NOW)
                            .expect("an open window");
                        assert_eq!(wire.pass(), (1, usize::from(qos > QoS::AtMostOnce)));
                    }
                });
            });
        }
        peers::exchange(&mut group, qos);
        group.finish();
    }
}

#[cfg(not(feature = "peers"))]
mod peers {
    use criterion::BenchmarkGroup;
    use criterion::measurement::WallTime;

    pub fn exchange(_: &mut BenchmarkGroup<'_, WallTime>, _: mqtt_proto::QoS) {}
}

#[cfg(feature = "peers")]
mod peers {
    use std::hint::black_box;

    use benches::COUNT;
    use criterion::BenchmarkGroup;
    use criterion::measurement::WallTime;
    use mqtt_protocol_core::mqtt;
    use mqtt_protocol_core::mqtt::connection::Event;
    use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, Qos, v3_1_1};

    struct Wire {
        client: mqtt::Connection<mqtt::role::Client>,
        server: mqtt::Connection<mqtt::role::Server>,
    }

    /// Appends the bytes to be sent. Returns how many messages arrived and how many identifiers are free again.
    fn carry(events: Vec<Event>, out: &mut Vec<u8>) -> (usize, usize) {
        let (mut arrived, mut ended) = (0, 0);
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => {
                    out.extend_from_slice(&packet.to_continuous_buffer())
                }
                Event::NotifyPacketReceived(Packet::V3_1_1Publish(publish)) => {
                    black_box(publish);
                    arrived += 1;
                }
                Event::NotifyPacketIdReleased(_) => ended += 1,
                Event::NotifyError(error) => panic!("{error:?}"),
                _ => {}
            }
        }
        (arrived, ended)
    }

    impl Wire {
        fn connected() -> Self {
            let mut client = mqtt::Connection::<mqtt::role::Client>::new(mqtt::Version::V3_1_1);
            let mut server = mqtt::Connection::<mqtt::role::Server>::new(mqtt::Version::V3_1_1);
            client.set_auto_pub_response(true);
            server.set_auto_pub_response(true);
            let (mut there, mut back) = (Vec::new(), Vec::new());
            let connect = v3_1_1::Connect::builder()
                .client_id("c")
                .expect("an id")
                .clean_session(true)
                .build()
                .expect("CONNECT");
            carry(client.send(connect.into()), &mut there);
            carry(
                server.recv(&mut mqtt::common::Cursor::new(&there[..])),
                &mut back,
            );
            let connack = v3_1_1::Connack::builder()
                .session_present(false)
                .return_code(mqtt::result_code::ConnectReturnCode::Accepted)
                .build()
                .expect("CONNACK");
            carry(server.send(connack.into()), &mut back);
            carry(
                client.recv(&mut mqtt::common::Cursor::new(&back[..])),
                &mut there,
            );
            Self { client, server }
        }

        fn publish(&mut self, qos: Qos, there: &mut Vec<u8>, back: &mut Vec<u8>) -> (usize, usize) {
            let mut publish = v3_1_1::Publish::builder()
                .topic_name("factory/line7/sensor")
                .expect("a topic")
                .qos(qos)
                .payload(&[0x42; 64][..]);
            if qos != Qos::AtMostOnce {
                publish = publish.packet_id(self.client.acquire_packet_id().expect("a free one"));
            }
            let (mut arrived, mut ended) = (0, 0);
            there.clear();
            carry(
                self.client.send(publish.build().expect("PUBLISH").into()),
                there,
            );
            while !there.is_empty() {
                back.clear();
                let mut cursor = mqtt::common::Cursor::new(&there[..]);
                arrived += carry(self.server.recv(&mut cursor), back).0;
                there.clear();
                if back.is_empty() {
                    break;
                }
                let mut cursor = mqtt::common::Cursor::new(&back[..]);
                ended += carry(self.client.recv(&mut cursor), there).1;
            }
            (arrived, ended)
        }
    }

    pub fn exchange(group: &mut BenchmarkGroup<'_, WallTime>, qos: mqtt_proto::QoS) {
        let mut wire = Wire::connected();
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let qos = Qos::try_from(qos.get()).expect("a QoS");
        group.bench_function("mqtt-protocol-core", |bencher| {
            bencher.iter(|| {
                for _ in 0..COUNT {
                    let done = wire.publish(black_box(qos), &mut there, &mut back);
                    assert_eq!(done, (1, usize::from(qos != Qos::AtMostOnce)));
                }
            });
        });
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(600))
}

criterion_group! { name = session; config = short(); targets = exchange }
criterion_main!(session);
