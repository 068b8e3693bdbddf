//! The CPU time of a whole tokio client for each message, against a server on a thread of its own that acknowledges and
//! discards, or sends: as fast as the transport takes it at QoS 0, [`WINDOW`] messages at once at QoS 1 and 2. With
//! `--features peers`, rumqttc beside ours in the same run.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use cpu_time::ThreadTime;
use mqtt_tokio::proto::{QoS, TopicName};
use mqtt_tokio::{Handle, Options, Outgoing, QoS0Overflow};

const TOPIC: &str = "factory/line7/sensor";
const PAYLOAD: [u8; 64] = [0x42; 64];
const COUNT: usize = 1_000_000;
/// How many messages at QoS 1 and 2 the server sends before it awaits an acknowledgement.
const WINDOW: u16 = 100;

/// A server that takes PUBLISH and acknowledges it, and answers SUBSCRIBE with as many messages as [`count`] says.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nodelay(true).expect("an option of TCP");
            let _ = serve(stream);
        }
    });
    port
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut input = vec![0; 256 << 10];
    let (mut filled, mut answer) = (0, Vec::new());
    let (mut left, mut qos) = (0, 0);
    loop {
        let n = stream.read(&mut input[filled..])?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
        let mut at = 0;
        // No length here takes more than two bytes.
        while let [first, low, rest @ ..] = &input[at..filled] {
            let high = rest.first().copied().unwrap_or_default();
            let (first, low) = (*first, *low);
            let (header, len) = match low {
                0..0x80 => (2, usize::from(low)),
                _ => (3, usize::from(low & 0x7F) | usize::from(high) << 7),
            };
            if at + header + len > filled {
                break;
            }
            let body = &input[at + header..at + header + len];
            match first >> 4 {
                1 => answer.extend([0x20, 2, 0, 0]),
                3 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    match first >> 1 & 3 {
                        1 => answer.extend([0x40, 2, body[2 + topic], body[3 + topic]]),
                        2 => answer.extend([0x50, 2, body[2 + topic], body[3 + topic]]),
                        _ => {}
                    }
                }
                // The message is delivered, and the next one goes out under its identifier.
                4 | 7 if left > 0 => {
                    left -= 1;
                    message(qos, [body[0], body[1]], &mut answer);
                }
                5 => answer.extend([0x62, 2, body[0], body[1]]),
                6 => answer.extend([0x70, 2, body[0], body[1]]),
                8 => {
                    qos = *body.last().expect("the QoS of the filter");
                    answer.extend([0x90, 3, body[0], body[1], qos]);
                    if qos == 0 {
                        stream.write_all(&answer)?;
                        answer.clear();
                        let mut block = Vec::new();
                        (0..1_000).for_each(|_| message(0, [0, 0], &mut block));
                        for _ in 0..COUNT / 1_000 {
                            stream.write_all(&block)?;
                        }
                    } else {
                        left = count(qos) - usize::from(WINDOW);
                        (1..=WINDOW).for_each(|id| message(qos, id.to_be_bytes(), &mut answer));
                    }
                }
                _ => {}
            }
            at += header + len;
        }
        input.copy_within(at..filled, 0);
        filled -= at;
        stream.write_all(&answer)?;
        answer.clear();
    }
}

/// Appends a PUBLISH.
fn message(qos: u8, id: [u8; 2], out: &mut Vec<u8>) {
    let id = if qos == 0 { &[][..] } else { &id };
    let topic = u8::try_from(TOPIC.len()).expect("short");
    let length = 2 + TOPIC.len() + id.len() + PAYLOAD.len();
    out.extend([
        0x30 | qos << 1,
        u8::try_from(length).expect("short"),
        0,
        topic,
    ]);
    out.extend(TOPIC.bytes());
    out.extend(id);
    out.extend(PAYLOAD);
}

/// What a client costs for each message: the least of three runs on a thread of its own, in microseconds of CPU.
fn measure<F: Future<Output = ()>>(
    count: usize,
    work: impl Fn() -> F + Copy + Send + 'static,
) -> f64 {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let start = ThreadTime::now();
        runtime.block_on(work());
        start.elapsed().as_secs_f64() * 1e6 / count as f64
    };
    let least = |least: f64, _| least.min(std::thread::spawn(run).join().expect("no panic"));
    (0..3).fold(f64::INFINITY, least)
}

fn count(qos: u8) -> usize {
    if qos == 0 { COUNT } else { COUNT / 2 }
}

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
    use super::{PAYLOAD, TOPIC, count};
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

/// Ours and, if it is there, the peer's, with their ratio.
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
