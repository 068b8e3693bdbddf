//! The law of a restart: any bytes as the journal of a broker are restored or refused; the broker never panics, and stays within
//! its limits.

use mqtt_broker::records::{Format, Machine, Records};
use mqtt_broker::{Broker, Config, Hooks, Next};
use mqtt_session::Instant;

/// Hooks that allow everything, with numbers in ascending order as unguessable ones.
#[derive(Debug, Default)]
pub struct AllowAll(u128);

impl Hooks for AllowAll {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

const NOW: Instant = Instant::from_millis(1_000);

fn new_broker() -> (Broker<AllowAll>, Config) {
    let mut config = Config::default();
    config.sessions = 5;
    config.queued_messages = 10;
    config.retained_messages = 5;
    config.statistics_interval = 0;
    let mut broker = Broker::new(config.clone(), AllowAll::default(), NOW);
    broker.start_journal();
    (broker, config)
}

/// Restores bytes as the records after that of the format.
///
/// # Panics
/// When the law is broken.
pub fn restores_or_refuses(journal: &[u8]) {
    let (mut broker, config) = new_broker();
    let format = Format::new(Machine::Broker).value();
    let first = mqtt_broker::records::Record {
        kind: Format::KIND,
        key: &[],
        value: Some(&format),
    };
    broker.restore(&first).expect("a record of the format");
    for record in Records::new(journal).map_while(Result::ok) {
        if broker.restore(&record).is_err() {
            return;
        }
    }
    if broker.restored(NOW).is_err() {
        return;
    }
    for _ in 0..1_000 {
        broker.tick(NOW);
        if broker.deadline().is_none_or(|at| at > NOW) {
            break;
        }
    }
    let statistics = broker.statistics(NOW);
    let narrow = |count: u64| usize::try_from(count).expect("small");
    assert!(narrow(statistics.sessions) <= config.sessions);
    assert!(narrow(statistics.queued) <= config.queued_messages * config.sessions);
    assert!(narrow(statistics.retained) <= config.retained_messages);
    let n = broker.journal().len();
    broker.stored(n);
    // The client can use the restored state.
    let id = broker.open(NOW).expect("there is room");
    broker.receive(id, CONNECT, NOW);
    let n = broker.journal().len();
    broker.stored(n);
    let waiting = broker.outgoing(id).len();
    broker.sent(id, waiting, NOW);
    broker.closed(id, NOW);
}

/// CONNECT of a client of 3.1.1 with the identifier `a`, whose session stays.
const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01a";

/// Returns a format record and records of a session with a subscription, messages at QoS 1 and 2 in flight to it, an incomplete
/// QoS 2 message from it, and a retained message.
/// # Panics
/// If the broker does not take its packets.
#[must_use]
pub fn sample() -> Vec<u8> {
    let (mut broker, _) = new_broker();
    broker.restored(NOW).expect("nothing to restore");
    let start = broker.journal().len();
    let id = broker.open(NOW).expect("there is room");
    for packet in [
        CONNECT,
        b"\x82\x06\0\x01\0\x01t\x02",
        b"\x33\x06\0\x01t\0\x07x",
        b"\x34\x06\0\x01t\0\x08y",
        b"\x34\x06\0\x01t\0\x09z",
        // PUBREC of one of the messages: PUBREL is awaited.
        b"\x50\x02\0\x02",
    ] {
        let received = broker.receive(id, packet, NOW);
        assert_eq!(received.consumed, packet.len());
        assert!(matches!(received.next, Next::Needs(_)), "{received:?}");
    }
    broker.journal().get(start..).unwrap_or_default().to_vec()
}
