//! The state that a client restores from its records, in an order of records that the random schedules of `journal.rs` do not have.

use mqtt_proto::{Connect, QoS, TopicName, Version};
use mqtt_session::records::{Record, Records};
use mqtt_session::{Client, Config, Heap, Instant, Outgoing, Refused, SessionLost};

/// A message that was accepted before the session began, and has not been sent in it, is sent by the next process, from a log
/// as from a store.
#[test]
fn messages_from_before_the_session_are_restored() {
    let mut config = Config::default();
    config.version = Version::V311;
    (config.session_lost, config.window) = (SessionLost::HandBack, 1);
    let now = Instant::from_millis(1);
    let mut first = Client::new(config, Heap);
    first.start_journal();
    assert_eq!(first.restored(), None);
    for payload in [b"one", b"two"] {
        let message = Outgoing::new(TopicName::from_static("a"), QoS::AtLeastOnce, payload);
        first.publish(&message, now).expect("it is kept");
    }
    let connect = Connect {
        clean_start: false,
        ..Connect::new(config.version, "id")
    };
    first.connect(&connect, now).expect("room for CONNECT");
    first.receive(b"\x20\x02\0\0", now).expect("CONNACK");
    let log: Vec<Record<'_>> = Records::new(first.journal()).map(Result::unwrap).collect();
    let mut store = log.clone();
    store.sort_by_key(|record| (record.kind, record.key));
    store.reverse();
    store.dedup_by_key(|record| (record.kind, record.key));
    store.reverse();
    for records in [log, store] {
        let mut next = Client::new(config, Heap);
        next.start_journal();
        for record in &records {
            next.restore(record).expect("its own record");
        }
        assert_eq!(next.restored(), Some("id"));
        assert_eq!(next.pending(), 2);
    }
}

/// The messages that an earlier process accepted are restored, also if the new limits allow fewer of them and fewer bytes. A new
/// message has room only when the limits have.
#[test]
fn more_messages_than_the_limits_allow_are_restored() {
    let mut config = Config::default();
    config.version = Version::V311;
    let now = Instant::from_millis(1);
    let mut first = Client::new(config, Heap);
    first.start_journal();
    first.restored();
    let payload = [b'x'; 1_000];
    let message = Outgoing::new(TopicName::from_static("a"), QoS::ExactlyOnce, &payload);
    for _ in 0..100 {
        first.publish(&message, now).expect("it is kept");
    }
    (config.window, config.queue, config.requests) = (2, 3, 4);
    config.kept_limit = 5_000;
    let mut next = Client::new(config, Heap);
    next.start_journal();
    for record in Records::new(first.journal()) {
        next.restore(&record.unwrap()).expect("its own record");
    }
    next.restored();
    assert_eq!(next.pending(), 100);
    assert_eq!(next.publish(&message, now), Err(Refused::Full));
    let connect = Connect {
        clean_start: false,
        ..Connect::new(config.version, "id")
    };
    next.connect(&connect, now).expect("room for CONNECT");
    next.receive(b"\x20\x02\0\0", now).expect("CONNACK");
    for id in 1..=100 {
        next.sent(next.outgoing().len());
        for ack in [[0x50, 2, 0, id], [0x70, 2, 0, id]] {
            next.receive(&ack, now).expect("its acknowledgement");
        }
    }
    assert_eq!(next.pending(), 0);
    next.publish(&message, now).expect("it is kept");
}
