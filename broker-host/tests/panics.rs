//! Checks what clients get if a task of the host panics.

#![cfg(unix)]

use std::net::SocketAddr;

use mqtt_broker_host::broker::{ClientInfo, Config, Hooks};
use mqtt_broker_host::{Host, control, listen};
use mqtt_proto::{
    Connect, Packet, PacketId, Publish, QoS, Subscribe, Subscription, TopicFilter, TopicName,
    Version,
};
use mqtt_testing::packets::encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;

/// How many messages of 1 MiB a client gets that does not read.
const LARGE: usize = 16;

/// Hooks with a defect.
struct Broken;

impl Hooks for Broken {
    fn unguessable(&mut self) -> u128 {
        0
    }

    fn may_publish(&mut self, _: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        assert_ne!(topic.as_str(), "defect", "the defect of this test");
        true
    }
}

/// Connects a client, and takes its CONNACK.
async fn join(address: SocketAddr, version: Version, client_id: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // The client does not take many bytes at once.
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let connect = Packet::Connect(Connect::new(version, client_id));
    stream.write_all(&encode(&connect, version)).await.unwrap();
    let mut connack = [0; 2];
    stream.read_exact(&mut connack).await.unwrap();
    let mut rest = vec![0; connack[1].into()];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!((connack[0], rest[1]), (0x20, 0));
    stream
}

async fn publish(stream: &mut TcpStream, topic: &str, payload: &[u8]) {
    let publish = Publish::new(TopicName::new(topic).unwrap(), payload);
    let bytes = encode(&Packet::Publish(publish), Version::V5);
    stream.write_all(&bytes).await.unwrap();
}

async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// Clients of MQTT 5 get DISCONNECT with 0x83, unless a packet for them is not complete. Others are closed. The panic goes on.
#[tokio::test]
async fn clients_are_told_of_the_end_after_a_panic() {
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (_control, commands) = control();
    let mut config = Config::default();
    config.outgoing_bytes = 32 << 20;
    let host = Host::new(config, Broken, commands);
    let local = LocalSet::new();
    let run = local.spawn_local(async move { host.run([listener], std::future::pending()).await });
    let talks = async {
        let quiet = join(address, Version::V5, "quiet").await;
        let old = join(address, Version::V311, "old").await;
        let mut slow = join(address, Version::V5, "slow").await;
        let filter = TopicFilter::from_static("large");
        let list = [Subscription::new(filter, QoS::AtMostOnce)];
        let subscribe = Packet::Subscribe(Subscribe::new(PacketId::FIRST, &list[..]));
        let subscribe = encode(&subscribe, Version::V5);
        slow.write_all(&subscribe).await.unwrap();
        slow.read_exact(&mut [0; 6]).await.unwrap();
        let mut publisher = join(address, Version::V5, "publisher").await;
        // The system does not take all of it.
        for _ in 0..LARGE {
            publish(&mut publisher, "large", &[b'x'; 1 << 20]).await;
        }
        publish(&mut publisher, "defect", b"").await;
        let mut all = Vec::new();
        for stream in [quiet, old, slow, publisher] {
            all.push(rest(stream).await);
        }
        all
    };
    let all = local.run_until(talks).await;
    assert_eq!(all[0], [0xE0, 1, 0x83]);
    assert_eq!(all[1], [0_u8; 0]);
    let len = all[2].len();
    assert!(len < LARGE << 20, "{len} bytes");
    assert!(!all[2].ends_with(&[0x83]), "its message is not complete");
    // Its connection was being served.
    assert_eq!(all[3], [0_u8; 0]);
    let ended = local.run_until(run).await.unwrap_err();
    let panic = ended.into_panic();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("the defect of this test"), "{text}");
}
