//! The state that a client restores from its records, in an order of records that the random schedules of `journal.rs` do not have.

use mqtt_proto::{Connect, QoS, TopicName, Version};
use mqtt_session::records::{Record, Records};
use mqtt_session::{Client, Config, Heap, Instant, Outgoing, SessionLost};

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
