//! Tests frames of WebSocket whose end does not come: the limits of MQTT apply to the bytes that have come.

use mqtt_broker_host::transport::Stack;
use mqtt_broker_host::{Control, Settings};
use mqtt_proto::{Connect, Delivery, Packet, PacketId, Publish, TopicName, Version};
use mqtt_testing::packets::encode;
use tokio::io::AsyncWriteExt;

use crate::Running;
use crate::client::{Client, websocket};

/// Returns the header of a binary frame with a payload of `len` bytes and a mask of zero.
fn announced(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x82, 0x80 | 127];
    bytes.extend((len as u64).to_be_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// Returns a message of QoS 1 with a payload of `len` bytes, as a packet of MQTT 5.
fn message(len: usize) -> Vec<u8> {
    let payload = vec![b'x'; len];
    let publish = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::new("t").unwrap(), &payload)
    };
    encode(&Packet::Publish(publish), Version::V5)
}

impl Client {
    /// Sends the first `n` bytes of a packet in a frame that announces the whole packet.
    async fn begin(&mut self, packet: &[u8], n: usize) {
        self.stream
            .write_all(&announced(packet.len()))
            .await
            .unwrap();
        self.stream.write_all(&packet[..n]).await.unwrap();
    }
}

/// Waits until the broker counts input within these bounds.
async fn counts(control: &Control, bounds: std::ops::RangeInclusive<u64>) {
    let mut found = 0;
    for _ in 0..100_000 {
        found = control.statistics().await.unwrap().input_bytes;
        if bounds.contains(&found) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{found} bytes of input are counted");
}

#[tokio::test]
async fn bytes_of_an_unfinished_frame_count_as_input_and_are_limited() {
    let mut settings = Settings::default();
    settings.packet_size = Some(1_000_000);
    settings.input_bytes_total = Some(1_000_000);
    // Each thread has a part of the limit for its clients.
    settings.threads = Some(1);
    let running = Running::start(settings, &["ws://127.0.0.1:0"]).await;
    let control = running.broker.control();
    running
        .beside(|addresses, _| async move {
            let packet = message(900_000);
            let mut clients = Vec::new();
            for (n, part) in [300_000, 400_000, packet.len() - 1].into_iter().enumerate() {
                let mut client = Client::tcp(addresses[0], websocket(Stack::new())).await;
                client.connect(Version::V5, &format!("client-{n}")).await;
                client.begin(&packet, part).await;
                let first = [300_000, 700_000, 700_000][n];
                counts(&control, first..=first + 100_000).await;
                clients.push(client);
            }
            // The last one had the most, so its connection ended.
            let told = clients[2].next().await.unwrap();
            assert_eq!((told[0], told[2]), (0xE0, 0x97), "{told:x?}");
        })
        .await;
}

#[tokio::test]
async fn a_large_packet_is_refused_when_its_length_has_come() {
    let mut settings = Settings::default();
    settings.packet_size = Some(1_000_000);
    let running = Running::start(settings, &["ws://127.0.0.1:0"]).await;
    running
        .beside(|addresses, _| async move {
            let mut client = Client::tcp(addresses[0], websocket(Stack::new())).await;
            client.connect(Version::V5, "client").await;
            client.begin(&message(2_000_000), 10).await;
            let told = client.next().await.unwrap();
            assert_eq!((told[0], told[2]), (0xE0, 0x95), "{told:x?}");
        })
        .await;
}

/// Before CONNECT is accepted, `connect-size` applies.
#[tokio::test]
async fn a_large_connect_is_refused_when_its_length_has_come() {
    let mut settings = Settings::default();
    settings.connect_size = Some(1_000);
    // The refusal does not wait for it.
    settings.connect_timeout = std::time::Duration::from_secs(3_600).try_into().ok();
    let running = Running::start(settings, &["ws://127.0.0.1:0"]).await;
    running
        .beside(|addresses, _| async move {
            let name = "n".repeat(2_000);
            let connect = encode(
                &Packet::Connect(Connect::new(Version::V5, &name)),
                Version::V5,
            );
            let mut client = Client::tcp(addresses[0], websocket(Stack::new())).await;
            client.open().await.unwrap();
            client.begin(&connect, 10).await;
            let told = client.next().await.unwrap();
            assert_eq!((told[0], told[3]), (0x20, 0x95), "{told:x?}");
        })
        .await;
}

/// No limit of frames is below that of packets.
#[tokio::test]
async fn one_frame_carries_as_large_a_packet_as_the_settings_allow() {
    let mut settings = Settings::default();
    settings.packet_size = Some(32 << 20);
    let running = Running::start(settings, &["ws://127.0.0.1:0"]).await;
    running
        .beside(|addresses, _| async move {
            let mut client = Client::tcp(addresses[0], websocket(Stack::new())).await;
            client.connect(Version::V5, "client").await;
            let packet = message(20 << 20);
            client.begin(&packet, packet.len()).await;
            let puback = client.next().await.unwrap();
            assert_eq!(puback[0], 0x40, "{puback:x?}");
        })
        .await;
}
