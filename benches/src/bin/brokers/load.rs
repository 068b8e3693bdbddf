//! Defines the loads and measures them.

use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use mqtt_proto::{Packet, Publish, QoS, TopicName, Version};
use mqtt_testing::packets::encode;

use crate::broker::Broker;
use crate::client::{Client, Peer};

/// A load and the messages that it must deliver.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Whether subscriber n gets the messages of publisher n; otherwise all subscribers get all messages.
    pub(crate) pairs: bool,
    pub(crate) qos: QoS,
    pub(crate) payload: usize,
    /// How many unacknowledged publishes each publisher may have.
    pub(crate) window: usize,
}

pub(crate) const LOADS: [Load; 5] = [
    Load {
        name: "50 to 1, QoS 0",
        publishers: 50,
        subscribers: 1,
        pairs: false,
        qos: QoS::AtMostOnce,
        payload: 64,
        window: 100,
    },
    Load {
        name: "1 to 500, QoS 0",
        publishers: 1,
        subscribers: 500,
        pairs: false,
        qos: QoS::AtMostOnce,
        payload: 64,
        window: 100,
    },
    Load {
        name: "50 pairs, QoS 1",
        publishers: 50,
        subscribers: 50,
        pairs: true,
        qos: QoS::AtLeastOnce,
        payload: 64,
        window: 100,
    },
    Load {
        name: "50 pairs, QoS 2",
        publishers: 50,
        subscribers: 50,
        pairs: true,
        qos: QoS::ExactlyOnce,
        payload: 64,
        window: 20,
    },
    Load {
        name: "1 pair, QoS 0, 4 KiB",
        publishers: 1,
        subscribers: 1,
        pairs: true,
        qos: QoS::AtMostOnce,
        payload: 4_096,
        window: 100,
    },
];

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Messages delivered.
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    /// The processor time of the broker.
    pub(crate) cpu: Duration,
}

impl Outcome {
    pub(crate) fn micros_each(self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }

    pub(crate) fn rate(self) -> f64 {
        self.messages as f64 / self.seconds
    }
}

pub(crate) fn message(topic: &str, qos: QoS, payload: usize) -> Vec<u8> {
    let id = mqtt_proto::PacketId::new(1).expect("not zero");
    let payload = vec![b'.'; payload];
    let publish = Publish {
        delivery: match qos {
            QoS::AtMostOnce => mqtt_proto::Delivery::AtMostOnce,
            QoS::AtLeastOnce => mqtt_proto::Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => mqtt_proto::Delivery::ExactlyOnce(id),
        },
        ..Publish::new(TopicName::new(topic).expect("a topic"), &payload)
    };
    encode(&Packet::Publish(publish), Version::V311)
}

/// How long a load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// Runs a load for `span` and returns what it brought.
pub(crate) fn measure(broker: &Broker, load: Load, span: Duration, peer: Peer) -> Outcome {
    let mut run = Run::new(broker, load, peer);
    let mut events = Events::with_capacity(1_024);
    let mut began: Option<(Instant, u64, Duration)> = None;
    let start = Instant::now();
    loop {
        run.refill();
        run.poll
            .poll(&mut events, Some(Duration::from_millis(100)))
            .expect("epoll");
        for event in &events {
            run.serve(event);
        }
        let (now, received) = (Instant::now(), run.total());
        match began {
            None if now - start >= WARM_UP => began = Some((now, received, broker.cpu())),
            Some((at, before, cpu)) if now - at >= span => {
                return Outcome {
                    messages: received - before,
                    seconds: (now - at).as_secs_f64(),
                    cpu: broker.cpu() - cpu,
                };
            }
            _ => {}
        }
        assert!(
            now - start < span + Duration::from_secs(30),
            "it takes too long"
        );
    }
}

/// One run of a load: its clients, subscribers first, and their counts.
struct Run {
    load: Load,
    /// Publishes are acknowledged.
    acknowledges: bool,
    clients: Vec<Client>,
    /// The PUBLISH of each publisher.
    messages: Vec<Vec<u8>>,
    poll: Poll,
    published: Vec<u64>,
    acknowledged: Vec<u64>,
    received: Vec<u64>,
}

impl Run {
    fn new(broker: &Broker, load: Load, peer: Peer) -> Self {
        let mut clients = Vec::new();
        for n in 0..load.subscribers {
            let filter = if load.pairs {
                format!("bench/{n}")
            } else {
                "bench/+".to_owned()
            };
            let filter = Some((&filter[..], load.qos));
            let (address, id) = broker.place(&format!("s{n}"));
            clients.push(Client::connect(address, &id, filter, peer));
        }
        let mut messages = Vec::new();
        for n in 0..load.publishers {
            let (address, id) = broker.place(&format!("p{n}"));
            let mut client = Client::connect(address, &id, None, peer);
            client.publishes = Some(n);
            clients.push(client);
            let qos = if peer == Peer::Relay {
                QoS::AtMostOnce
            } else {
                load.qos
            };
            messages.push(message(&format!("bench/{n}"), qos, load.payload));
        }
        let poll = Poll::new().expect("epoll");
        for (n, client) in clients.iter_mut().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut client.stream, Token(n), both)
                .expect("epoll");
        }
        Self {
            load,
            acknowledges: load.qos > QoS::AtMostOnce && peer != Peer::Relay,
            clients,
            messages,
            poll,
            published: vec![0; load.publishers],
            acknowledged: vec![0; load.publishers],
            received: vec![0; load.subscribers],
        }
    }

    /// Messages that the subscribers received.
    fn total(&self) -> u64 {
        self.received.iter().sum()
    }

    /// Returns how many publishes of this publisher are delivered: with pairs for the publisher, otherwise in total.
    fn delivered(&self, n: usize, under_way: u64) -> u64 {
        let delivered = if self.load.pairs {
            self.received[n]
        } else {
            let publishers = u64::try_from(self.load.publishers).expect("few");
            self.published[n].saturating_sub(under_way.div_ceil(publishers))
        };
        if self.acknowledges {
            delivered.min(self.acknowledged[n])
        } else {
            delivered
        }
    }

    /// Each publisher publishes up to its window.
    fn refill(&mut self) {
        let window = u64::try_from(self.load.window).expect("few");
        let copies = if self.load.pairs {
            1
        } else {
            u64::try_from(self.load.subscribers).expect("few")
        };
        let published: u64 = self.published.iter().sum();
        let under_way = published - self.total() / copies;
        for n in 0..self.load.publishers {
            let done = self.delivered(n, under_way);
            let room = window.saturating_sub(self.published[n] - done);
            let client = &mut self.clients[self.load.subscribers + n];
            if room < window / 2 || !client.output.is_empty() {
                continue;
            }
            for _ in 0..room {
                client.publish(&self.messages[n], self.acknowledges);
            }
            self.published[n] += room;
            client.flush();
        }
    }

    fn serve(&mut self, event: &Event) {
        let Token(index) = event.token();
        let client = &mut self.clients[index];
        if event.is_writable() {
            client.flush();
        }
        if !event.is_readable() {
            return;
        }
        let (mut got, mut acks) = (0, 0);
        while client.read(|first, body, output| match first >> 4 {
            3 => match first >> 1 & 3 {
                0 => got += 1,
                qos => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let kind = if qos == 1 { 0x40 } else { 0x50 };
                    output.extend_from_slice(&[kind, 2, body[2 + topic], body[3 + topic]]);
                    got += u64::from(qos == 1);
                }
            },
            5 => output.extend_from_slice(&[0x62, 2, body[0], body[1]]),
            6 => {
                got += 1;
                output.extend_from_slice(&[0x70, 2, body[0], body[1]]);
            }
            4 | 7 => acks += 1,
            _ => {}
        }) {}
        match client.publishes {
            Some(n) => self.acknowledged[n] += acks,
            None => self.received[index] += got,
        }
        client.flush();
    }
}

/// The time from publish to delivery at 1,000 messages a second, QoS 1: the middle one of all, in microseconds.
pub(crate) fn latency(broker: &Broker, span: Duration, peer: Peer) -> f64 {
    let qos = QoS::AtLeastOnce;
    let mut subscriber = Client::connect(broker.address, "s", Some(("bench/0", qos)), peer);
    let mut publisher = Client::connect(broker.address, "p", None, peer);
    let message = message(
        "bench/0",
        if peer == Peer::Relay {
            QoS::AtMostOnce
        } else {
            qos
        },
        64,
    );
    let mut times = Vec::new();
    let start = Instant::now();
    let mut next = start;
    while start.elapsed() < span {
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        next += Duration::from_millis(1);
        let sent = Instant::now();
        publisher.output.extend_from_slice(&message);
        publisher.flush();
        let mut got = false;
        while !got {
            subscriber.read(|first, body, output| {
                got |= first >> 4 == 3;
                if first >> 1 & 3 == 1 {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    output.extend_from_slice(&[0x40, 2, body[2 + topic], body[3 + topic]]);
                }
            });
        }
        times.push(sent.elapsed().as_secs_f64() * 1e6);
        subscriber.flush();
        publisher.read(|_, _, _| {});
    }
    middle(&mut times)
}

pub(crate) fn middle(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
