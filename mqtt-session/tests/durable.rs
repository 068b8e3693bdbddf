//! Records that are put off (`Durable::WhenOffline`): which messages are recorded, and when.

use mqtt_proto::{AckKind, QoS, Version};
use mqtt_session::records::{Entry, Outgoing, Records};
use mqtt_session::{Client, Config, Durable, Heap, Lent, Refused, Slot, Token};
use mqtt_testing::machines::{Endpoint, Opening, Role, TestedMachine};

/// A connected client that records messages at QoS 1 after this time at the latest.
fn connected(mut client: Client<'static>, millis: u32) -> TestedMachine {
    client.start_journal();
    client.restored();
    client.set_durable(Durable::WhenOffline(millis));
    let opening = Opening::persistent(Version::V311);
    let mut solo = TestedMachine::new(Role::Client, opening, Config::default());
    solo.machine = Endpoint::Client(Box::new(client));
    solo.connect(false);
    store(&mut solo);
    solo.sent();
    solo.learned();
    solo
}

fn on_heap(millis: u32) -> TestedMachine {
    connected(Client::new(Config::default(), Heap), millis)
}

/// The messages whose records are not stored, by their identifiers; 0 is an end.
fn recorded(solo: &mut TestedMachine) -> Vec<u16> {
    let journal = solo.machine.client().journal();
    let id = |entry| match entry {
        Some(Entry::Outgoing(_, Some(Outgoing::Message { id, .. }))) => Some(id.unwrap().get()),
        Some(Entry::Outgoing(_, None)) => Some(0),
        _ => None,
    };
    let records = Records::new(journal).map(|record| Entry::read(&record.unwrap()).unwrap());
    records.filter_map(id).collect()
}

fn store(solo: &mut TestedMachine) {
    let len = solo.machine.client().journal().len();
    solo.machine.client().stored(len);
}

fn id(token: Token) -> u16 {
    token.packet_id().unwrap().get()
}

#[test]
fn a_message_that_is_acknowledged_in_time_has_no_record() {
    let mut solo = on_heap(100);
    for _ in 0..20 {
        let token = solo.must_publish(QoS::AtLeastOnce, "x");
        assert!(!solo.sent().is_empty(), "it is sent at once");
        solo.wait(49);
        solo.feed_ack(AckKind::PubAck, id(token));
        solo.wait(30);
        assert!(recorded(&mut solo).is_empty());
    }
}

#[test]
fn a_message_is_recorded_when_its_time_is_over_at_the_latest() {
    for before in 0..60 {
        let mut solo = on_heap(100);
        // Another message decides when ages advance.
        let other = solo.must_publish(QoS::AtLeastOnce, "x");
        solo.wait(before);
        solo.feed_ack(AckKind::PubAck, id(other));
        let token = solo.must_publish(QoS::AtLeastOnce, "y");
        let accepted = solo.now;
        while recorded(&mut solo).is_empty() {
            solo.now = solo.machine.deadline().unwrap();
            solo.wait(0);
        }
        let millis = solo.now.since(accepted).as_millis();
        assert!((50..=100).contains(&millis), "{millis} ms");
        assert_eq!(recorded(&mut solo), [id(token)]);
        store(&mut solo);
        solo.feed_ack(AckKind::PubAck, id(token));
        assert_eq!(recorded(&mut solo), [0], "its end is recorded as well");
    }
}

/// A device that sleeps, or reads without a pause, does not call `tick` in time.
#[test]
fn each_packet_and_the_first_tick_after_a_sleep_tell_the_time() {
    let mut solo = on_heap(100);
    let token = solo.must_publish(QoS::AtLeastOnce, "x");
    solo.sent();
    solo.wait(1_000);
    assert_eq!(recorded(&mut solo), [id(token)]);
    store(&mut solo);
    let token = solo.must_publish(QoS::AtLeastOnce, "y");
    solo.now = solo.now.after(std::time::Duration::from_millis(100));
    solo.feed_publish(QoS::AtMostOnce, 0, false, "z");
    assert_eq!(recorded(&mut solo), [id(token)]);
}

#[test]
fn the_end_of_the_connection_records_all() {
    let mut solo = on_heap(1_000);
    let tokens = [1, 2, 3].map(|_| solo.must_publish(QoS::AtLeastOnce, "x"));
    assert!(recorded(&mut solo).is_empty());
    solo.machine.disconnected();
    assert_eq!(recorded(&mut solo), tokens.map(id));
    store(&mut solo);
    let offline = solo.must_publish(QoS::AtLeastOnce, "x");
    assert_eq!(recorded(&mut solo), [id(offline)]);
}

/// 3.1.1 [MQTT-4.3.3-1], 5 [MQTT-4.4.0-1]: a QoS 2 message has its identifier in a record before it is sent.
#[test]
fn a_message_at_qos_2_is_recorded_at_once_and_after_all_before_it() {
    let mut solo = on_heap(1_000);
    let first = solo.must_publish(QoS::AtLeastOnce, "x");
    solo.sent();
    let second = solo.must_publish(QoS::ExactlyOnce, "y");
    assert_eq!(recorded(&mut solo), [id(first), id(second)]);
    assert_eq!(solo.sent(), b"");
    store(&mut solo);
    assert_eq!(solo.sent()[0], 0x34);
}

/// Lent memory has room for one record. The others follow when it is stored, in their order.
#[test]
fn records_without_room_follow_when_others_are_stored() {
    let lent = Lent {
        outgoing: Box::leak(Box::new([0; 512])),
        kept: Box::leak(Box::new([0; 512])),
        slots: Box::leak(Box::new([Slot::EMPTY; 8])),
        journal: Box::leak(Box::new([0; 330])),
        ..Lent::default()
    };
    let mut solo = connected(Client::new(Config::default(), lent), 100);
    let payload = "p".repeat(60);
    let tokens = [1, 2, 3, 4].map(|_| solo.must_publish(QoS::AtLeastOnce, &payload));
    solo.sent();
    let now = solo.now;
    let two = solo
        .machine
        .publish(QoS::ExactlyOnce, "a", payload.as_bytes(), now);
    assert_eq!(two.unwrap_err(), Refused::Full);
    let mut all = Vec::new();
    let mut rounds = 0;
    while !recorded(&mut solo).is_empty() {
        all.extend(recorded(&mut solo));
        store(&mut solo);
        rounds += 1;
    }
    assert_eq!(all, tokens.map(id));
    assert!(rounds > 1);
    solo.must_publish(QoS::ExactlyOnce, &payload);
}
