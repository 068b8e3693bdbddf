//! What a store costs one message, and a start.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use mqtt_proto::QoS;

use crate::broker::Broker;
use crate::client::{Client, Peer};
use crate::load::{message, middle};

/// The time to append 200 bytes to a file and to flush them: the middle one of all, in microseconds.
pub(crate) fn flush(dir: &Path, span: Duration) -> f64 {
    let path = dir.join(format!("flush-{}", std::process::id()));
    let mut file = File::create(&path).expect("a temporary folder");
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < span {
        let began = Instant::now();
        file.write_all(&[b'.'; 200]).expect("room on the disk");
        file.sync_data().expect("a flush");
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let _ = std::fs::remove_file(path);
    middle(&mut times)
}

/// One message after another, each when the last one is delivered and acknowledged: from its publish to its delivery, and to the
/// acknowledgement of its publisher. The middle ones of all, in microseconds.
pub(crate) fn one_at_a_time(broker: &Broker, span: Duration, qos: QoS) -> (f64, f64) {
    let mut subscriber =
        Client::connect(broker.address, "s", Some(("bench/0", qos)), Peer::Lasting);
    let mut publisher = Client::connect(broker.address, "p", None, Peer::Lasting);
    let message = message("bench/0", qos, 64);
    let (mut delivered, mut acknowledged) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while start.elapsed() < span {
        let sent = Instant::now();
        publisher.publish(&message, true);
        publisher.flush();
        let (mut got, mut answered, mut over) = (None, None, false);
        while got.is_none() || answered.is_none() || !over {
            subscriber.read(|first, body, output| match (first >> 4, first >> 1 & 3) {
                (3, level) => {
                    got.get_or_insert_with(|| sent.elapsed());
                    over |= level == 1;
                    let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let kind = if level == 1 { 0x40 } else { 0x50 };
                    output.extend_from_slice(&[kind, 2, body[at], body[at + 1]]);
                }
                (6, _) => {
                    over = true;
                    output.extend_from_slice(&[0x70, 2, body[0], body[1]]);
                }
                _ => {}
            });
            subscriber.flush();
            publisher.read(|first, body, output| match first >> 4 {
                5 => output.extend_from_slice(&[0x62, 2, body[0], body[1]]),
                4 | 7 => answered = Some(sent.elapsed()),
                _ => {}
            });
            publisher.flush();
        }
        delivered.push(got.map_or(0.0, |time| time.as_secs_f64() * 1e6));
        acknowledged.push(answered.map_or(0.0, |time| time.as_secs_f64() * 1e6));
    }
    (middle(&mut delivered), middle(&mut acknowledged))
}

/// The time until a message at QoS 2 is delivered, at 1,000 a second: the middle one of all, in microseconds. The flows of earlier
/// messages go on meanwhile.
pub(crate) fn paced_at_qos2(broker: &Broker, span: Duration) -> f64 {
    let qos = QoS::ExactlyOnce;
    let mut subscriber =
        Client::connect(broker.address, "s", Some(("bench/0", qos)), Peer::Lasting);
    let mut publisher = Client::connect(broker.address, "p", None, Peer::Lasting);
    let message = message("bench/0", qos, 64);
    let mut times = Vec::new();
    let start = Instant::now();
    let mut next = start;
    while start.elapsed() < span {
        while Instant::now() < next {
            receive(&mut subscriber);
            release(&mut publisher);
        }
        next += Duration::from_millis(1);
        let sent = Instant::now();
        publisher.publish(&message, true);
        publisher.flush();
        while !receive(&mut subscriber) {
            release(&mut publisher);
        }
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    middle(&mut times)
}

/// The time until a message at QoS 0 is delivered, at 1,000 a second, to a client that also gets `others` messages at QoS 2 a second:
/// PUBLISH at QoS 2 waits for its record, and what is behind it waits as well. The middle one and the 99th of 100, in microseconds.
pub(crate) fn beside_qos2(broker: &Broker, span: Duration, others: u32) -> (f64, f64) {
    let filter = Some(("bench/#", QoS::ExactlyOnce));
    let mut subscriber = Client::connect(broker.address, "s", filter, Peer::Lasting);
    let mut publisher = Client::connect(broker.address, "p", None, Peer::Lasting);
    let [plain, firm] = [QoS::AtMostOnce, QoS::ExactlyOnce].map(|qos| message("bench/0", qos, 64));
    let (mut sent, mut times) = (VecDeque::new(), Vec::new());
    let start = Instant::now();
    let (mut next, mut next_other) = (start, start);
    while start.elapsed() < span || !sent.is_empty() {
        let now = Instant::now();
        if now >= next_other && others > 0 {
            next_other += Duration::from_secs(1) / others;
            publisher.publish(&firm, true);
        }
        if now >= next && start.elapsed() < span {
            next += Duration::from_millis(1);
            publisher.publish(&plain, false);
            sent.push_back(Instant::now());
        }
        publisher.flush();
        release(&mut publisher);
        receive_each(&mut subscriber, |qos| {
            if qos == 0
                && let Some(sent) = sent.pop_front()
            {
                times.push(sent.elapsed().as_secs_f64() * 1e6);
            }
        });
    }
    let median = middle(&mut times);
    (median, times[times.len() * 99 / 100])
}

/// Reads and answers what came to a subscriber. Returns whether it was a message.
fn receive(subscriber: &mut Client) -> bool {
    let mut got = false;
    receive_each(subscriber, |_| got = true);
    got
}

/// The same, and passes the QoS of each message.
fn receive_each(subscriber: &mut Client, mut message: impl FnMut(u8)) {
    subscriber.read(|first, body, output| match first >> 4 {
        3 => {
            let qos = first >> 1 & 3;
            message(qos);
            if qos == 0 {
                return;
            }
            let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
            output.extend_from_slice(&[0x50, 2, body[at], body[at + 1]]);
        }
        6 => output.extend_from_slice(&[0x70, 2, body[0], body[1]]),
        _ => {}
    });
    subscriber.flush();
}

/// Answers PUBREC at a publisher.
fn release(publisher: &mut Client) {
    publisher.read(|first, body, output| {
        if first >> 4 == 5 {
            output.extend_from_slice(&[0x62, 2, body[0], body[1]]);
        }
    });
    publisher.flush();
}

const SESSIONS: usize = 10_000;
const QUEUED: usize = 10;

/// Makes sessions whose clients are away, and queues `queued` messages for each.
pub(crate) fn queue(broker: &Broker, sessions: usize, queued: usize) {
    for n in 0..sessions {
        let filter = format!("r/{n}");
        let filter = Some((&filter[..], QoS::AtLeastOnce));
        let name = format!("s{n}");
        drop(Client::connect(
            broker.address,
            &name,
            filter,
            Peer::Lasting,
        ));
    }
    let mut publisher = Client::connect(broker.address, "p", None, Peer::Lasting);
    for n in 0..sessions {
        let message = message(&format!("r/{n}"), QoS::AtLeastOnce, 64);
        for _ in 0..queued {
            publisher.publish(&message, true);
        }
        if (n + 1) % 100 == 0 {
            let mut acknowledged = 0;
            while acknowledged < 100 * queued {
                publisher.flush();
                publisher.read(|_, _, _| acknowledged += 1);
            }
        }
    }
}

/// Prints how long a broker that is killed takes until it accepts a client again, with 10,000 sessions that are away and 100,000
/// messages for them, and its memory then.
pub(crate) fn restart() {
    let name = "mqtt broker, stored";
    let broker = Broker::start(name);
    queue(&broker, SESSIONS, QUEUED);
    let before = broker.memory();
    let began = Instant::now();
    let broker = broker.restart(name);
    // It listens before it has restored its state, and answers after it.
    drop(Client::connect(broker.address, "new", None, Peer::Broker));
    let took = began.elapsed();
    println!(
        "{SESSIONS} sessions and {} messages: {:.0} MiB of memory before a kill; a client is accepted again after {:.2} s, {:.0} MiB then",
        SESSIONS * QUEUED,
        before as f64 / f64::from(1 << 20),
        took.as_secs_f64(),
        broker.memory() as f64 / f64::from(1 << 20),
    );
}
