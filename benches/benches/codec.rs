//! Measures decoding and encoding of streams of a thousand packets; with `--features peers` also with the published crates.

use std::hint::black_box;

use benches::{COUNT, Sample, each_packet, samples};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use mqtt_proto::{AckKind, MAX_PACKET, Packet, Version};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn decode(criterion: &mut Criterion) {
    for sample in samples() {
        let mut group = criterion.benchmark_group(format!("decode/{}", sample.name));
        group.throughput(Throughput::Elements(u64::try_from(COUNT).expect("small")));
        from_slices(&mut group, "ours", &sample, |bytes| {
            black_box(&Packet::decode(bytes, sample.version, MAX_PACKET));
        });
        peers::decode(&mut group, &sample);
        group.finish();
    }
}

/// Reads each packet of a stream from a slice. The result is passed on by reference, so that moving it is not measured.
fn from_slices(group: &mut Group<'_>, name: &str, sample: &Sample, read: impl Fn(&[u8])) {
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let mut at = 0;
            for length in &sample.lengths {
                read(black_box(&sample.stream[at..]));
                at += length;
            }
        });
    });
}

fn encode(criterion: &mut Criterion) {
    each_packet(|name, version, packet| {
        let mut group = criterion.benchmark_group(format!("encode/{name}"));
        group.throughput(Throughput::Elements(u64::try_from(COUNT).expect("small")));
        let bytes = mqtt_testing::packets::encode(packet, version);
        let mut out = vec![0; bytes.len() * COUNT];
        // Each packet is passed on as its own struct, as it is measured for the peers.
        match packet {
            Packet::Publish(packet) => ours(&mut group, packet, version, &mut out),
            Packet::PubAck(ack) => ours(&mut group, &(AckKind::PubAck, ack), version, &mut out),
            Packet::Connect(packet) => ours(&mut group, packet, version, &mut out),
            Packet::Subscribe(packet) => ours(&mut group, packet, version, &mut out),
            _ => unreachable!("no such sample"),
        }
        group.bench_function("copy", |bencher| {
            bencher.iter(|| {
                for chunk in out.chunks_exact_mut(bytes.len()) {
                    chunk.copy_from_slice(black_box(&bytes));
                }
                black_box(&out);
            });
        });
        peers::encode(&mut group, &bytes, version);
        group.finish();
    });
}

fn ours(group: &mut Group<'_>, packet: &impl mqtt_proto::Encode, version: Version, out: &mut [u8]) {
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let mut at = 0;
            for _ in 0..COUNT {
                at += black_box(packet)
                    .encode(version, &mut out[at..])
                    .expect("room");
            }
            assert_eq!(black_box(&out).len(), at);
        });
    });
}

#[cfg(not(feature = "peers"))]
mod peers {
    use super::{Group, Sample, Version};

    pub fn decode(_: &mut Group<'_>, _: &Sample) {}

    pub fn encode(_: &mut Group<'_>, _: &[u8], _: Version) {}
}

#[cfg(feature = "peers")]
mod peers {
    use std::hint::black_box;

    use bytes::BytesMut;
    use criterion::BatchSize;

    use super::{COUNT, Group, Sample, Version, from_slices};

    /// Reads packets out of a `BytesMut`. Making it anew is not measured.
    fn from_bytes_mut<T>(
        group: &mut Group<'_>,
        name: &str,
        stream: &[u8],
        mut read: impl FnMut(&mut BytesMut) -> T,
    ) {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || BytesMut::from(stream),
                |buffer| {
                    for _ in 0..COUNT {
                        black_box(&read(buffer));
                    }
                    assert!(buffer.is_empty());
                },
                BatchSize::LargeInput,
            );
        });
    }

    pub fn decode(group: &mut Group<'_>, sample: &Sample) {
        let stream = &sample.stream;
        if sample.version == Version::V5 {
            from_bytes_mut(group, "rumqttc", stream, |b| {
                rumqttc::v5::mqttbytes::v5::Packet::read(b, None)
            });
            from_bytes_mut(group, "mqttbytes", stream, |b| {
                mqttbytes::v5::read(b, 1 << 20)
            });
            // Reads one packet from the front of its input, like an async reader.
            from_slices(group, "mqtt-proto", sample, |b| {
                black_box(&peer_mqtt_proto::v5::Packet::decode(b));
            });
        } else {
            from_bytes_mut(group, "rumqttc", stream, |b| {
                rumqttc::mqttbytes::v4::Packet::read(b, 1 << 20)
            });
            from_bytes_mut(group, "mqttbytes", stream, |b| {
                mqttbytes::v4::read(b, 1 << 20)
            });
            from_slices(group, "mqttrs", sample, |b| {
                black_box(&mqttrs::decode_slice(b));
            });
            from_slices(group, "mqtt-proto", sample, |b| {
                black_box(&peer_mqtt_proto::v3::Packet::decode(b));
            });
        }
        core::decode(group, sample);
    }

    mod core {
        use std::hint::black_box;

        use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};

        use super::super::{Group, Sample, Version};

        /// Measures its parsers of a packet's body. This function removes the fixed header, in its favour.
        pub(super) fn decode(group: &mut Group<'_>, sample: &Sample) {
            let header = |packet: &[u8]| if packet.len() > 129 { 3 } else { 2 };
            let v5 = sample.version == Version::V5;
            let read = |packet: &[u8]| {
                let body = &packet[header(packet)..];
                match (packet[0] >> 4, v5) {
                    (3, false) => {
                        let payload = mqtt_protocol_core::mqtt::common::Arc::<[u8]>::from(body);
                        black_box(&v3_1_1::Publish::parse(packet[0] & 15, payload));
                    }
                    (3, true) => {
                        let payload = mqtt_protocol_core::mqtt::common::Arc::<[u8]>::from(body);
                        black_box(&v5_0::Publish::parse(packet[0] & 15, payload));
                    }
                    (4, _) => {
                        black_box(&v3_1_1::Puback::parse(body));
                    }
                    (1, _) => {
                        black_box(&v3_1_1::Connect::parse(body));
                    }
                    _ => {
                        black_box(&v3_1_1::Subscribe::parse(body));
                    }
                }
            };
            let lengths = &sample.lengths;
            group.bench_function("mqtt-protocol-core", |bencher| {
                bencher.iter(|| {
                    let mut at = 0;
                    for length in lengths {
                        read(black_box(&sample.stream[at..at + length]));
                        at += length;
                    }
                });
            });
        }
    }

    /// Writes one packet `COUNT` times into a buffer that has room.
    fn into_bytes_mut(
        group: &mut Group<'_>,
        name: &str,
        len: usize,
        mut write: impl FnMut(&mut BytesMut),
    ) {
        let mut buffer = BytesMut::with_capacity(len * COUNT);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                buffer.clear();
                for _ in 0..COUNT {
                    write(&mut buffer);
                }
                assert_eq!(black_box(&buffer).len(), len * COUNT);
            });
        });
    }

    pub fn encode(group: &mut Group<'_>, bytes: &[u8], version: Version) {
        let len = bytes.len();
        if version == Version::V5 {
            let packet = rumqttc::v5::mqttbytes::v5::Packet::read(&mut BytesMut::from(bytes), None)
                .expect("a packet");
            into_bytes_mut(group, "rumqttc", len, |b| {
                black_box(&packet).write(b, None).expect("room");
            });
            let Ok(mqttbytes::v5::Packet::Publish(publish)) =
                mqttbytes::v5::read(&mut BytesMut::from(bytes), 1 << 20)
            else {
                unreachable!("the v5 sample is a PUBLISH")
            };
            into_bytes_mut(group, "mqttbytes", len, |b| {
                black_box(&publish).write(b).expect("room");
            });
            return;
        }
        let packet = rumqttc::mqttbytes::v4::Packet::read(&mut BytesMut::from(bytes), 1 << 20)
            .expect("a packet");
        into_bytes_mut(group, "rumqttc", len, |b| {
            black_box(&packet).write(b, 1 << 20).expect("room");
        });
        use mqttbytes::v4::Packet as P;
        let packet = mqttbytes::v4::read(&mut BytesMut::from(bytes), 1 << 20).expect("a packet");
        into_bytes_mut(group, "mqttbytes", len, |b| {
            match black_box(&packet) {
                P::Publish(packet) => packet.write(b),
                P::PubAck(packet) => packet.write(b),
                P::Connect(packet) => packet.write(b),
                P::Subscribe(packet) => packet.write(b),
                _ => unreachable!("no such sample"),
            }
            .expect("room");
        });
        let packet = mqttrs::decode_slice(bytes)
            .expect("a packet")
            .expect("a whole one");
        let mut out = vec![0; len * COUNT];
        group.bench_function("mqttrs", |bencher| {
            bencher.iter(|| {
                let mut at = 0;
                for _ in 0..COUNT {
                    at += mqttrs::encode_slice(black_box(&packet), &mut out[at..]).expect("room");
                }
                assert_eq!(black_box(&out).len(), at);
            });
        });
        let packet = peer_mqtt_proto::v3::Packet::decode(bytes)
            .expect("a packet")
            .expect("a whole one");
        group.bench_function("mqtt-proto", |bencher| {
            bencher.iter(|| {
                for _ in 0..COUNT {
                    black_box(black_box(&packet).encode().expect("room"));
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

criterion_group! { name = codec; config = short(); targets = decode, encode }
criterion_main!(codec);
