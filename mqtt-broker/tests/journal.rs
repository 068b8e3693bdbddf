//! Checks the broker's journal: refusals without room, packets that wait for records, and that any bytes are restored or refused.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use mqtt_broker::proto::{Packet, Publish, TopicName, Version};
use mqtt_broker::records::broker::{Entry, NEVER, Session};
use mqtt_broker::records::{Fault, Format, Kind, Machine, Record, Records};
use mqtt_broker::{
    Broker, ClientInfo, Config, ConnectionId, Hooks, Instant, Next, Observation, RestoreError,
    StorageFailure,
};
use mqtt_testing::laws::journal;
use mqtt_testing::packets::encode;
use proptest::prelude::*;

#[derive(Default)]
struct Open {
    number: u128,
    /// Clients with a user name may not publish any more.
    denies_users: bool,
    /// The client identifiers that were refused.
    refused: Vec<String>,
}

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.number += 1;
        self.number
    }

    fn may_publish(&mut self, client: &ClientInfo<'_>, _: TopicName<'_>) -> bool {
        !self.denies_users || client.user_name.is_none()
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        if let Observation::Refused { client, .. } = observation {
            self.refused.push(client.client_id.to_owned());
        }
    }
}

const NOW: Instant = Instant::from_millis(0);

fn broker() -> Broker<Open> {
    let mut config = Config::default();
    config.statistics_interval = 0;
    let mut broker = Broker::new(config, Open::default(), NOW);
    broker.start_journal();
    broker.restored(NOW).unwrap();
    store(&mut broker);
    broker
}

fn store(broker: &mut Broker<Open>) {
    let n = broker.journal().len();
    broker.stored(n);
}

fn say(broker: &mut Broker<Open>, id: ConnectionId, bytes: &[u8]) -> Next {
    let received = broker.receive(id, bytes, NOW);
    received.next
}

fn hears(broker: &mut Broker<Open>, id: ConnectionId) -> Vec<u8> {
    let bytes = broker.outgoing(id).to_vec();
    broker.sent(id, bytes.len(), NOW);
    bytes
}

/// CONNECT of a client of 3.1.1 and of one of MQTT 5, both with a lasting session.
const CONNECT_311: &[u8] = b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01a";
const CONNECT_5: &[u8] = b"\x10\x13\0\x04MQTT\x05\0\0\0\x05\x11\xFF\xFF\xFF\xFF\0\x01b";
const SUBSCRIBE_311: &[u8] = b"\x82\x06\0\x01\0\x01t\x01";
const PUBLISH_QOS1: &[u8] = b"\x32\x06\0\x01t\0\x07x";
const PUBLISH_QOS1_5: &[u8] = b"\x32\x07\0\x01t\0\x07\0x";
const PUBLISH_QOS2_5: &[u8] = b"\x34\x07\0\x01t\0\x07\0x";

fn connected(broker: &mut Broker<Open>, connect: &[u8]) -> ConnectionId {
    let id = broker.open(NOW).unwrap();
    say(broker, id, connect);
    assert_eq!(broker.outgoing(id), b"", "CONNACK waits for its record");
    store(broker);
    assert_eq!(hears(broker, id)[0], 0x20);
    id
}

/// 3.1.1 [MQTT-3.8.4-1] and [MQTT-4.3.2-2]: SUBACK and PUBACK must be correct after a crash, so they wait for the records; the
/// message is sent to its receiver at once.
#[test]
fn answers_wait_for_their_records_and_messages_do_not() {
    let mut broker = broker();
    let id = connected(&mut broker, CONNECT_311);
    say(&mut broker, id, SUBSCRIBE_311);
    assert_eq!(broker.outgoing(id), b"");
    store(&mut broker);
    assert_eq!(hears(&mut broker, id), b"\x90\x03\0\x01\x01");
    let publisher = connected(&mut broker, CONNECT_5);
    say(&mut broker, publisher, PUBLISH_QOS1_5);
    assert_eq!(broker.outgoing(publisher), b"");
    assert_eq!(hears(&mut broker, id), b"\x32\x06\0\x01t\0\x01x");
    store(&mut broker);
    assert_eq!(hears(&mut broker, publisher), b"\x40\x02\0\x07");
}

/// Messages behind an answer that waits for its record fill the buffer of a connection, though no byte may go. The message that has no
/// room there comes after them.
#[test]
fn what_has_no_room_behind_a_waiting_answer_comes_later() {
    let mut broker = broker();
    let reader = connected(&mut broker, CONNECT_311);
    say(&mut broker, reader, b"\x82\x06\0\x01\0\x01t\0");
    store(&mut broker);
    hears(&mut broker, reader);
    let publisher = connected(&mut broker, CONNECT_5);
    say(&mut broker, reader, SUBSCRIBE_311);
    let payload = [b'x'; 100_000];
    let publish = Publish::new(TopicName::from_static("t"), &payload);
    let message = encode(&Packet::Publish(publish), Version::V5);
    for _ in 0..3 {
        say(&mut broker, publisher, &message);
        broker.tick(NOW);
    }
    assert_eq!(broker.outgoing(reader), b"", "SUBACK waits");
    assert_eq!(broker.statistics(NOW).queued, 1);
    store(&mut broker);
    let mut heard = 0;
    while !broker.outgoing(reader).is_empty() {
        heard += hears(&mut broker, reader).len();
        broker.tick(NOW);
    }
    assert!(heard > 3 * payload.len(), "{heard} bytes");
}

/// A message that no lasting session needs is not recorded, and is acknowledged at once.
#[test]
fn a_message_that_nobody_keeps_is_acknowledged_at_once() {
    let mut broker = broker();
    let publisher = connected(&mut broker, CONNECT_5);
    say(&mut broker, publisher, PUBLISH_QOS1_5);
    assert_eq!(broker.journal(), b"");
    assert_eq!(hears(&mut broker, publisher), b"\x40\x03\0\x07\x10");
}

/// A process that may have lost its journal acknowledges no message without a record: the owner may have subscribers for it. The record
/// is the first one again.
#[test]
fn a_message_that_nobody_keeps_waits_while_the_journal_may_be_of_another() {
    let mut broker = broker();
    let publisher = connected(&mut broker, CONNECT_5);
    let [before, until] = [1_999, 2_000].map(Instant::from_millis);
    broker.owns_journal_until(until);
    broker.receive(publisher, PUBLISH_QOS1_5, before);
    assert_eq!(hears(&mut broker, publisher), b"\x40\x03\0\x07\x10");
    broker.receive(publisher, PUBLISH_QOS1_5, until);
    let mut format = Vec::new();
    let entry = Entry::Format(Format::new(Machine::Broker));
    entry.put(&mut |bytes| format.extend_from_slice(bytes));
    assert_eq!(broker.journal(), format);
    // The host has that record now, and the engine may store it before another process takes over: the next messages wait for a later one.
    let two = b"\x32\x07\0\x01t\0\x08\0x\x32\x07\0\x01t\0\x09\0x";
    broker.receive(publisher, two, until);
    assert_eq!(broker.journal(), format.repeat(2));
    assert_eq!(broker.outgoing(publisher), b"");
    broker.stored(format.len());
    assert_eq!(hears(&mut broker, publisher), b"\x40\x03\0\x07\x10");
    broker.stored(format.len());
    let both = b"\x40\x03\0\x08\x10\x40\x03\0\x09\x10";
    assert_eq!(hears(&mut broker, publisher), both);
    broker.owns_journal_until(Instant::from_millis(4_000));
    broker.receive(publisher, PUBLISH_QOS1_5, until);
    assert_eq!(broker.journal(), b"");
    assert_eq!(broker.outgoing(publisher), b"\x40\x03\0\x07\x10");
}

/// Without room, a client of MQTT 5 gets 0x97, one of 3.1.1 loses its connection, and QoS 0 messages pass; all works again when
/// there is room.
#[test]
fn without_room_what_must_be_stored_is_refused() {
    let mut broker = broker();
    let old = connected(&mut broker, CONNECT_311);
    say(&mut broker, old, b"\x82\x06\0\x01\0\x01t\0");
    store(&mut broker);
    hears(&mut broker, old);
    let new = connected(&mut broker, CONNECT_5);
    broker.storage_failed(StorageFailure::Full);
    say(&mut broker, new, PUBLISH_QOS1_5);
    assert_eq!(hears(&mut broker, new), b"\x40\x03\0\x07\x97");
    // Nobody receives it, so it needs no record; but only its QoS decides.
    say(&mut broker, new, b"\x32\x07\0\x01z\0\x07\0x");
    assert_eq!(hears(&mut broker, new), b"\x40\x03\0\x07\x97");
    say(&mut broker, new, PUBLISH_QOS2_5);
    assert_eq!(hears(&mut broker, new), b"\x50\x03\0\x07\x97");
    say(&mut broker, new, b"\x30\x05\0\x01t\0x");
    assert_eq!(hears(&mut broker, old), b"\x30\x04\0\x01tx");
    let third = broker.open(NOW).unwrap();
    say(
        &mut broker,
        third,
        b"\x10\x13\0\x04MQTT\x05\0\0\0\x05\x11\xFF\xFF\xFF\xFF\0\x01c",
    );
    assert_eq!(hears(&mut broker, third), b"\x20\x03\0\x97\0");
    assert_eq!(broker.hooks().refused, ["c"]);
    // An existing subscription is granted again, a new one is not.
    say(&mut broker, old, SUBSCRIBE_311);
    say(&mut broker, old, b"\x82\x06\0\x02\0\x01u\x01");
    assert_eq!(hears(&mut broker, old), b"");
    store(&mut broker);
    assert_eq!(
        hears(&mut broker, old),
        b"\x90\x03\0\x01\x01\x90\x03\0\x02\x80"
    );
    assert_eq!(say(&mut broker, old, PUBLISH_QOS1), Next::Closing);
    // Ending a session makes room.
    let clean = broker.open(NOW).unwrap();
    say(&mut broker, clean, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a");
    assert_eq!(hears(&mut broker, clean), b"");
    store(&mut broker);
    assert_eq!(hears(&mut broker, clean), b"\x20\x02\0\0");
    say(&mut broker, clean, SUBSCRIBE_311);
    assert_eq!(hears(&mut broker, clean), b"\x90\x03\0\x01\x01");
    broker.storage_recovered();
    say(&mut broker, new, PUBLISH_QOS1_5);
    store(&mut broker);
    assert_eq!(hears(&mut broker, new), b"\x40\x02\0\x07");
}

/// A crash may lose the deletion of a message's flow record, which follows the deletion of the message. A new message with the
/// same number would get that record.
#[test]
fn the_number_of_a_deleted_message_is_not_given_again() {
    let mut before = broker();
    let id = connected(&mut before, CONNECT_311);
    say(&mut before, id, SUBSCRIBE_311);
    let numbers = |journal: &[u8]| -> Vec<u64> {
        let records = Records::new(journal).map(|record| Entry::read(&record.unwrap()).unwrap());
        let number = |entry| match entry {
            Some(Entry::Message(number, Some(_))) => Some(number),
            _ => None,
        };
        records.filter_map(number).collect()
    };
    let mut log = Vec::new();
    for packet in [PUBLISH_QOS1, b"\x40\x02\0\x01"] {
        say(&mut before, id, packet);
        log.extend_from_slice(before.journal());
        store(&mut before);
    }
    assert_eq!(numbers(&log), [1]);
    let mut after = restart(&log);
    let id = connected(&mut after, CONNECT_311);
    say(&mut after, id, SUBSCRIBE_311);
    say(&mut after, id, PUBLISH_QOS1);
    assert_eq!(numbers(after.journal()), [2]);
}

/// Returns the entries of a store that has all these records.
fn entries(log: &[u8]) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    let mut entries = BTreeMap::new();
    for record in Records::new(log).map(Result::unwrap) {
        let key = (record.kind.byte(), record.key.to_vec());
        match record.value {
            Some(value) => entries.insert(key, value.to_vec()),
            None => entries.remove(&key),
        };
    }
    entries
}

/// The store has a message until its last receiver has acknowledged it, and nothing of it afterwards. At QoS 2 the packet identifier of
/// the publisher stays without it.
#[test]
fn a_message_is_stored_until_its_last_receiver_acknowledges_it() {
    for (names, publish) in [
        (&b"r"[..], PUBLISH_QOS1_5),
        (b"rs", PUBLISH_QOS1_5),
        (b"sr", PUBLISH_QOS1_5),
        (b"r", PUBLISH_QOS2_5),
        (b"rs", PUBLISH_QOS2_5),
        (b"sr", PUBLISH_QOS2_5),
    ] {
        let (mut broker, mut log) = (broker(), Vec::new());
        let publisher = connected_with(&mut broker, CONNECT_5, &mut log);
        // They acknowledge in the order of their names here, and get the message in the order of the alphabet.
        let mut subscribers = BTreeMap::new();
        for name in names.iter().copied().collect::<BTreeSet<u8>>() {
            let connect = [&CONNECT_311[..14], &[name]].concat();
            let id = connected_with(&mut broker, &connect, &mut log);
            say(&mut broker, id, SUBSCRIBE_311);
            subscribers.insert(name, id);
        }
        let mut stored = |broker: &mut Broker<Open>| {
            log.extend_from_slice(broker.journal());
            store(broker);
            entries(&log)
        };
        stored(&mut broker);
        say(&mut broker, publisher, publish);
        for name in names {
            let before = stored(&mut broker);
            assert_eq!(before.keys().filter(|(kind, _)| *kind == 21).count(), 1);
            let named = |((kind, _), number): (&(u8, Vec<u8>), &Vec<u8>)| {
                *kind == 19 && number[..] != [0; 8]
            };
            let named = before.iter().any(named);
            assert_eq!(named, publish == PUBLISH_QOS2_5);
            say(&mut broker, subscribers[name], b"\x40\x02\0\x01");
        }
        let after = stored(&mut broker);
        assert!(
            !after.keys().any(|(kind, _)| [21, 22].contains(kind)),
            "{after:x?}"
        );
        let identifiers: Vec<_> = after.iter().filter(|((kind, _), _)| *kind == 19).collect();
        assert_eq!(identifiers.len(), usize::from(publish == PUBLISH_QOS2_5));
        assert!(identifiers.iter().all(|(_, number)| number[..] == [0; 8]));
    }
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: a message that is published after the restart, and before the client of the session is
/// back, waits for that client.
#[test]
fn a_restored_session_gets_messages_before_its_client_is_back() {
    let (mut before, mut log) = (broker(), Vec::new());
    let subscriber = connected_with(&mut before, CONNECT_311, &mut log);
    say(&mut before, subscriber, SUBSCRIBE_311);
    log.extend_from_slice(before.journal());
    let mut after = restart(&log);
    let publisher = connected(&mut after, CONNECT_5);
    say(&mut after, publisher, PUBLISH_QOS1_5);
    store(&mut after);
    assert_eq!(hears(&mut after, publisher), b"\x40\x02\0\x07");
    let subscriber = after.open(NOW).unwrap();
    say(&mut after, subscriber, CONNECT_311);
    store(&mut after);
    let heard = hears(&mut after, subscriber);
    assert_eq!(heard, b"\x20\x02\x01\0\x32\x06\0\x01t\0\x01x");
}

/// 5 [MQTT-4.3.3-13]: after a restart, neither side of a QoS 2 flow that had ended goes on, and its packet identifiers are free.
#[test]
fn ends_of_qos_2_flows_survive_a_restart() {
    let (mut before, mut log) = (broker(), Vec::new());
    let publisher = connected_with(&mut before, CONNECT_5, &mut log);
    let subscriber = connected_with(&mut before, CONNECT_311, &mut log);
    for (id, packet) in [
        (subscriber, &b"\x82\x06\0\x01\0\x01t\x02"[..]),
        (publisher, PUBLISH_QOS2_5),
        (subscriber, b"\x50\x02\0\x01"),
        (publisher, b"\x62\x02\0\x07"),
        (subscriber, b"\x70\x02\0\x01"),
    ] {
        say(&mut before, id, packet);
        log.extend_from_slice(before.journal());
        store(&mut before);
    }
    assert!(
        entries(&log)
            .keys()
            .all(|(kind, _)| [16, 17].contains(kind))
    );
    let mut after = restart(&log);
    for (connect, connack) in [(CONNECT_5, &b"\x20"[..]), (CONNECT_311, b"\x20\x02\x01\0")] {
        let id = after.open(NOW).unwrap();
        say(&mut after, id, connect);
        store(&mut after);
        let heard = hears(&mut after, id);
        assert!(heard.starts_with(connack) && heard.len() <= 2 + usize::from(heard[1]));
    }
}

/// CONNECT in MQTT 5 of the client `d`, whose session stays, with a Receive Maximum of 1.
const CONNECT_ONE: &[u8] = b"\x10\x16\0\x04MQTT\x05\0\0\0\x08\x11\xFF\xFF\xFF\xFF\x21\0\x01\0\x01d";

/// A message of a shared subscription whose member ended waits for another member, who leaves the subscription and gets the message after
/// a restart. Each store of the way has only the last record of each key.
#[test]
fn a_message_that_was_handed_over_survives_two_restarts_without_its_subscription() {
    let (mut before, mut log) = (broker(), Vec::new());
    let ends = connected_with(
        &mut before,
        b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01e",
        &mut log,
    );
    let stays = connected_with(&mut before, CONNECT_ONE, &mut log);
    let publisher = connected_with(&mut before, CONNECT_5, &mut log);
    for (id, packet) in [
        (ends, &b"\x82\x10\0\x01\0\0\x0a$share/g/t\x01"[..]),
        (stays, b"\x82\x14\0\x01\0\0\x0a$share/g/t\x01\0\x01u\x01"),
        (publisher, b"\x32\x07\0\x01u\0\x07\0x"),
        (publisher, b"\x32\x07\0\x01t\0\x08\0y"),
    ] {
        say(&mut before, id, packet);
        keep(&mut before, &mut log);
    }
    assert!(hears(&mut before, ends).ends_with(b"y"));
    before.closed(ends, NOW);
    say(&mut before, stays, b"\xa2\x0f\0\x02\0\0\x0a$share/g/t");
    keep(&mut before, &mut log);
    let mut again = restart_with(&mut log);
    let stays = connected_with(&mut again, CONNECT_ONE, &mut log);
    say(&mut again, stays, b"\x40\x02\0\x01");
    keep(&mut again, &mut log);
    assert!(hears(&mut again, stays).ends_with(b"y"));
    let mut last = restart_with(&mut log);
    let stays = last.open(NOW).unwrap();
    say(&mut last, stays, CONNECT_ONE);
    keep(&mut last, &mut log);
    assert!(hears(&mut last, stays).ends_with(b"y"));
    say(&mut last, stays, b"\x40\x02\0\x02");
    keep(&mut last, &mut log);
    let left = entries(&log);
    assert!(!left.keys().any(|(kind, _)| [21, 22].contains(kind)));
}

/// A client cannot have two sessions.
#[test]
fn records_that_contradict_one_another_are_refused() {
    let mut broker = Broker::new(Config::default(), Open::default(), NOW);
    broker.start_journal();
    let session = Session {
        version: Version::V5,
        expiry: 1,
        away: None,
        client_id: "a",
        user_name: None,
        will: None,
    };
    assert_eq!(NEVER, u64::MAX);
    for entry in [
        Entry::Format(Format::new(Machine::Broker)),
        Entry::Session(1, Some(session)),
        Entry::Session(2, Some(session)),
    ] {
        let mut bytes = vec![0; entry.encoded_len().unwrap()];
        entry.write(&mut bytes).unwrap();
        let record = Records::new(&bytes).next().unwrap().unwrap();
        broker.restore(&record).unwrap();
    }
    assert!(broker.restored(NOW).is_err());
    // The text of the cause is not told twice.
    let error = RestoreError::from(Fault::Value);
    assert_eq!(error.to_string(), Fault::Value.to_string());
    assert!(error.source().is_none());
}

proptest! {
    #[test]
    fn any_records_are_restored_or_refused(
        records in proptest::collection::vec(
            (15_u8..25, proptest::collection::vec(0_u8..3, 0..18), proptest::option::of(proptest::collection::vec(0_u8..50, 0..60))),
            0..20,
        ),
    ) {
        let mut bytes = Vec::new();
        for (kind, key, value) in &records {
            append(&mut bytes, *kind, key, value.as_deref());
        }
        journal::restores_or_refuses(&bytes);
    }

    #[test]
    fn any_change_of_a_journal_is_restored_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = journal::sample();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        journal::restores_or_refuses(&bytes);
    }
}

/// Who published a retained message is known after a restart, with its user name: its right is checked again.
#[test]
fn the_publisher_of_a_retained_message_is_known_after_a_restart() {
    let mut broker = broker();
    let mut records = Vec::new();
    // With the user name "u", and without one.
    let with_user = b"\x10\x10\0\x04MQTT\x04\x82\0\0\0\x01c\0\x01u";
    for (connect, topic) in [(&with_user[..], b'x'), (CONNECT_311, b'y')] {
        let id = connected_with(&mut broker, connect, &mut records);
        say(&mut broker, id, &[0x31, 4, 0, 1, topic, b'!']);
        records.extend_from_slice(broker.journal());
        store(&mut broker);
    }
    for denies_users in [false, true] {
        let mut restarted = restart(&records);
        restarted.hooks().denies_users = denies_users;
        let id = connected(&mut restarted, CONNECT_5);
        say(&mut restarted, id, b"\x82\x07\0\x01\0\0\x01#\0");
        store(&mut restarted);
        restarted.tick(NOW);
        let heard = hears(&mut restarted, id);
        let has = |topic: u8| heard.windows(3).any(|bytes| bytes == [0, 1, topic]);
        assert_eq!((has(b'x'), has(b'y')), (!denies_users, true), "{heard:x?}");
    }
}

fn connected_with(
    broker: &mut Broker<Open>,
    connect: &[u8],
    records: &mut Vec<u8>,
) -> ConnectionId {
    let id = broker.open(NOW).unwrap();
    say(broker, id, connect);
    records.extend_from_slice(broker.journal());
    store(broker);
    assert_eq!(hears(broker, id)[0], 0x20);
    id
}

/// Stores the records of a broker.
fn keep(broker: &mut Broker<Open>, records: &mut Vec<u8>) {
    records.extend_from_slice(broker.journal());
    store(broker);
}

/// Returns a broker that has taken the last record of each key, and adds its own records.
fn restart_with(records: &mut Vec<u8>) -> Broker<Open> {
    let mut last = Vec::new();
    for ((kind, key), value) in &entries(records) {
        append(&mut last, *kind, key, Some(value));
    }
    let mut broker = restored(&last);
    keep(&mut broker, records);
    broker
}

fn append(records: &mut Vec<u8>, kind: u8, key: &[u8], value: Option<&[u8]>) {
    let record = Record {
        kind: Kind::new(kind),
        key,
        value,
    };
    let start = records.len();
    records.resize(start + record.encoded_len().unwrap(), 0);
    record.write(&mut records[start..]).unwrap();
}

/// Returns a broker that has taken these records.
fn restart(records: &[u8]) -> Broker<Open> {
    let mut broker = restored(records);
    store(&mut broker);
    broker
}

/// Returns the same, whose own records are not stored.
fn restored(records: &[u8]) -> Broker<Open> {
    let mut config = Config::default();
    config.statistics_interval = 0;
    let mut broker = Broker::new(config, Open::default(), NOW);
    broker.start_journal();
    let format = Entry::Format(Format::new(Machine::Broker));
    let mut log = vec![0; format.encoded_len().unwrap()];
    format.write(&mut log).unwrap();
    log.extend_from_slice(records);
    for record in Records::new(&log) {
        broker.restore(&record.unwrap()).unwrap();
    }
    broker.restored(NOW).unwrap();
    broker
}

/// The text of the error of a record is that of its fault, so the fault is not printed a second time as its source.
#[test]
fn the_error_of_a_damaged_record_has_its_text_once() {
    let error = RestoreError::from(Fault::Key);
    assert_eq!(error.to_string(), Fault::Key.to_string());
    assert!(error.source().is_none());
}
