//! The CPU time of a whole tokio client for each message, against a server on a thread of its own that acknowledges and
//! discards, or sends: as fast as the transport takes it at QoS 0, a hundred messages at once at QoS 1 and 2. With
//! `--features peers`, rumqttc beside ours in the same run.

use std::time::Duration;

use benches::server::{PAYLOAD, TOPIC, count, measure, server};
use mqtt_tokio::proto::{QoS, TopicName};
use mqtt_tokio::{Handle, Options, Outgoing, QoS0Overflow};

async fn ours_publishes(port: u16, qos: u8, window: u16) {
    let mut options = Options::new("127.0.0.1", port);
    (options.config.window, options.config.window_qos2) = (window, window);
    let handle = Handle::connect(options).await.expect("a server");
    let message = Outgoing::new(
        TopicName::from_static(TOPIC),
        QoS::new(qos).expect("a QoS"),
        &PAYLOAD,
    );
    for _ in 0..count(qos) {
        drop(handle.publish_message(&message).await.expect("accepted"));
    }
    assert!(handle.close(Duration::from_secs(60)).await.is_empty());
}

async fn ours_receives(port: u16, qos: u8) {
    let mut options = Options::new("127.0.0.1", port);
    // Each message is counted.
    options.qos0_overflow = QoS0Overflow::PauseReading;
    let handle = Handle::connect(options).await.expect("a server");
    let level = QoS::new(qos).expect("a QoS");
    let mut messages = handle.subscribe(TOPIC, level).await.expect("granted");
    for _ in 0..count(qos) {
        std::hint::black_box(messages.next().await.expect("a message"));
    }
}

#[cfg(feature = "peers")]
mod peer {
    use benches::server::{PAYLOAD, TOPIC, count};
    use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};

    fn options(port: u16, window: u16) -> MqttOptions {
        let mut options = MqttOptions::new("c", "127.0.0.1", port);
        options.set_inflight(window);
        options
    }

    fn level(qos: u8) -> QoS {
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
    }

    pub async fn publishes(port: u16, qos: u8, window: u16) {
        let (client, mut events) = AsyncClient::new(options(port, window), 100);
        let number = count(qos);
        let qos = level(qos);
        let publish = async {
            for _ in 0..number {
                client
                    .publish(TOPIC, qos, false, PAYLOAD)
                    .await
                    .expect("accepted");
            }
        };
        let poll = async {
            let mut ended = 0;
            while ended < number {
                match events.poll().await.expect("a connection") {
                    Event::Outgoing(Outgoing::Publish(_)) if qos == QoS::AtMostOnce => ended += 1,
                    Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => ended += 1,
                    _ => {}
                }
            }
        };
        tokio::join!(publish, poll);
    }

    pub async fn receives(port: u16, qos: u8) {
        let (client, mut events) = AsyncClient::new(options(port, 128), 100);
        client.subscribe(TOPIC, level(qos)).await.expect("accepted");
        let mut received = 0;
        while received < count(qos) {
            if let Event::Incoming(Packet::Publish(publish)) =
                events.poll().await.expect("a connection")
            {
                std::hint::black_box(publish);
                received += 1;
            }
        }
    }
}

/// Prints the result of this workspace and, if there is one, that of the peer, with their ratio.
fn compare(what: &str, ours: f64, peer: impl FnOnce() -> Option<f64>) {
    if let Some(peer) = peer() {
        println!("| {what} | {ours:.3} | {peer:.3} | {:.1} |", peer / ours);
    } else {
        println!("| {what} | {ours:.3} | - | - |");
    }
}

fn main() {
    let port = server();
    println!("| microseconds of CPU a message | ours | rumqttc | ratio |");
    println!("| --- | --- | --- | --- |");
    for (qos, window) in [(0, 128), (1, 128), (2, 20), (2, 128)] {
        let what = format!("publish QoS {qos}, {window} in flight");
        let ours = measure(count(qos), move || ours_publishes(port, qos, window));
        compare(&what, ours, || {
            #[cfg(feature = "peers")]
            return Some(measure(count(qos), move || {
                peer::publishes(port, qos, window)
            }));
            #[cfg(not(feature = "peers"))]
            None
        });
    }
    for qos in 0..3 {
        let ours = measure(count(qos), move || ours_receives(port, qos));
        compare(&format!("receive QoS {qos}"), ours, || {
            #[cfg(feature = "peers")]
            return Some(measure(count(qos), move || peer::receives(port, qos)));
            #[cfg(not(feature = "peers"))]
            None
        });
    }
}
