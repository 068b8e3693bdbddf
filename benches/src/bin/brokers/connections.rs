//! Measures the cost of many connections: the memory of silent ones, and the effect of hostile ones on others.

use std::io::Write;
use std::time::Duration;

use mio::net::TcpStream;
use mqtt_proto::QoS;

use crate::broker::Broker;
use crate::client::{Client, Peer};
use crate::load::{Load, measure};

/// Returns the resident bytes for each of this many silent connections.
pub(crate) fn idle(broker: &Broker, connections: usize) -> f64 {
    let one = Client::connect(broker.address, "first", None, Peer::Broker);
    std::thread::sleep(Duration::from_millis(300));
    let before = broker.memory();
    let all: Vec<TcpStream> = (0..connections)
        .map(|n| Client::connect(broker.address, &format!("idle-{n}"), None, Peer::Broker).stream)
        .collect();
    std::thread::sleep(Duration::from_millis(1_000));
    let bytes = broker.memory().saturating_sub(before);
    drop((one, all));
    bytes as f64 / connections as f64
}

/// The behaviour of a thousand hostile connections.
#[derive(Clone, Copy)]
pub(crate) enum Bad {
    Silent,
    Slow,
    Garbage,
}

/// Returns how much slower a normal pair is with a thousand hostile connections; 1 is no difference. The pair passes messages at
/// QoS 1, as fast as its window allows.
pub(crate) fn hostile(broker: &Broker, bad: Bad, span: Duration) -> f64 {
    let load = Load {
        name: "pair",
        publishers: 1,
        subscribers: 1,
        pairs: true,
        qos: QoS::AtLeastOnce,
        payload: 64,
        window: 100,
    };
    let address = broker.address;
    let alone = measure(broker, load, span, Peer::Broker).rate();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let bother = std::thread::spawn(move || {
        let open = || {
            let stream = std::net::TcpStream::connect(address).expect("the broker listens");
            stream.set_nonblocking(true).expect("TCP");
            stream
        };
        let mut all: Vec<_> = (0..1_000).map(|_| open()).collect();
        // A CONNECT that never ends.
        let slow = [
            0x10, 0xFF, 0x7F, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0x3F, 0xF0,
        ];
        let mut at = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            // The writes are spread over the second.
            for chunk in all.chunks_mut(10) {
                for stream in chunk {
                    match bad {
                        Bad::Silent => {}
                        Bad::Slow => {
                            let _ = stream.write(&[slow.get(at).copied().unwrap_or(b'x')]);
                        }
                        Bad::Garbage => {
                            // The broker closes the connection, and the client connects again.
                            let _ = stream.write(&[0xFF; 64]);
                            *stream = open();
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
                if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
            at += 1;
        }
    });
    std::thread::sleep(Duration::from_millis(500));
    let bothered = measure(broker, load, span, Peer::Broker).rate();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    bother.join().expect("it only writes");
    alone / bothered
}
