//! The law of a restart: any bytes as the journal of a broker are restored or refused; the broker never panics, and what it counts
//! is proportional to these bytes, because limits that are lower than in the earlier process drop nothing.

use mqtt_broker::records::{Format, Machine, Records};
use mqtt_broker::{Broker, Config, Hooks, Next, Statistics};
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

/// [`Config::connection_bytes_total`].
const IN_FLIGHT: u64 = 64 << 10;

fn new_broker() -> Broker<AllowAll> {
    let mut config = Config::default();
    config.sessions = 5;
    config.queued_messages = 10;
    config.retained_messages = 5;
    config.connection_bytes_total = IN_FLIGHT as usize;
    config.statistics_interval = 0;
    let mut broker = Broker::new(config, AllowAll::default(), NOW);
    broker.start_journal();
    broker
}

/// Checks what a broker counts after it has restored records of `bytes` bytes.
fn is_proportional(statistics: &Statistics, bytes: u64) {
    // The shortest records of a session, of a subscription, of a target and of a retained message.
    assert!(statistics.sessions * 21 <= bytes, "{statistics:?}");
    assert!(statistics.subscriptions * 17 <= bytes, "{statistics:?}");
    assert!(statistics.queued * 11 <= bytes, "{statistics:?}");
    assert!(statistics.retained * 20 <= bytes, "{statistics:?}");
    // A message in many queues is stored once, and counts for each.
    assert!(statistics.queued_bytes <= statistics.queued * (bytes + 96));
    assert!(statistics.retained_bytes <= 20 * bytes, "{statistics:?}");
    assert!(
        statistics.subscription_bytes <= 40 * bytes,
        "{statistics:?}"
    );
    // One message in flight to each session has no limit but its own bytes.
    let one_each = statistics.sessions * bytes;
    assert!(statistics.connection_bytes <= 2 * IN_FLIGHT + 20 * bytes + one_each);
}

/// Restores bytes as the records after that of the format.
///
/// # Panics
/// When the law is broken.
pub fn restores_or_refuses(journal: &[u8]) {
    let mut broker = new_broker();
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
    let bytes = u64::try_from(journal.len()).expect("a length");
    is_proportional(&broker.statistics(NOW), bytes);
    for _ in 0..1_000 {
        broker.tick(NOW);
        if broker.deadline().is_none_or(|at| at > NOW) {
            break;
        }
    }
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
    let mut broker = new_broker();
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
