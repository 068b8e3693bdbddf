//! Checks how many bytes of messages are under way to one client.

mod watched;

use mqtt_session::proto::{
    AckKind, Connect, Delivery, Packet, PacketId, Properties, Property, Publish, QoS, Subscription,
    TopicFilter, TopicName, Version,
};
use mqtt_testing::packets::{ack, encode};

use watched::{NOW, Watched, subscribe};

const STAYS: [Property<'static>; 2] = [
    Property::SessionExpiryInterval(60),
    Property::ReceiveMaximum(u16::MAX),
];

fn reader() -> Connect<'static> {
    Connect {
        clean_start: false,
        properties: Properties::from(&STAYS),
        ..Connect::new(Version::V5, "reader")
    }
}

fn all() -> [Subscription<'static>; 1] {
    let filter = TopicFilter::from_static("#");
    [Subscription::new(filter, QoS::AtLeastOnce)]
}

fn message(payload: &[u8]) -> Vec<u8> {
    message_at(Delivery::AtLeastOnce(PacketId::FIRST), payload)
}

fn message_at(delivery: Delivery, payload: &[u8]) -> Vec<u8> {
    let publish = Publish {
        delivery,
        ..Publish::new(TopicName::from_static("a"), payload)
    };
    encode(&Packet::Publish(publish), Version::V5)
}

/// Messages beyond the limit wait in the queue, where all receivers share their bytes. A longer message goes alone.
#[test]
fn unacknowledged_messages_take_no_more_than_the_setting() {
    let mut watched = Watched::new(|config| config.in_flight_bytes = 10_000);
    let reader = watched.connect(&reader());
    watched.say(reader, &subscribe(&all()));
    watched.drop_all(reader);
    let from = watched.join("from");
    for payload in ["1", "2", "3", "4"] {
        watched.give(from, &message(payload.repeat(3_000).as_bytes()));
        watched.drop_all(from);
    }
    watched.give(from, &message(&[b'5'; 30_000]));
    let firsts = |heard: Vec<String>| -> Vec<_> {
        let digits = heard.iter().map(|payload| payload[..1].to_owned());
        digits.collect()
    };
    assert_eq!(firsts(watched.hear(reader)), ["1", "2", "3"]);
    for (id, next) in [(1, vec!["4"]), (2, vec![]), (3, vec![]), (4, vec!["5"])] {
        watched.give(reader, &ack(AckKind::PubAck, id));
        assert_eq!(firsts(watched.hear(reader)), next, "after {id}");
    }
}

/// A client comes back to 20,000 messages that it has not acknowledged: they are written as the transport takes them. On 32 bits, where
/// size goes before speed, they are written at once.
#[cfg(target_pointer_width = "64")]
#[test]
fn a_full_window_is_resumed_in_portions() {
    let mut watched = Watched::new(|config| config.window = u16::MAX);
    let first = watched.connect(&reader());
    watched.say(first, &subscribe(&all()));
    let from = watched.join("from");
    for _ in 0..20_000 {
        watched.give(from, &message(b"0123456789"));
        watched.drop_all(from);
        watched.drop_all(first);
    }
    watched.broker.closed(first, NOW);
    let again = watched.broker.open(NOW).unwrap();
    watched.give(again, &encode(&Packet::Connect(reader()), Version::V5));
    let waits = watched.broker.outgoing(again).len();
    assert!((60_000..70_000).contains(&waits), "{waits} bytes at once");
    let bytes = watched.broker.outgoing(again).to_vec();
    assert_eq!(bytes[2], 1, "session present");
    assert_eq!(watched.hear(again).len(), 20_000);
}

/// Its publisher leaves while it waits behind another message that is delivered in portions, and there is no room to keep it.
#[test]
fn a_message_that_is_dropped_before_its_delivery_is_accepted_again() {
    let mut watched = Watched::new(|config| config.queued_bytes_total = 10_000);
    let reader = watched.join("reader");
    watched.subscribe(reader, ["a"].into_iter());
    for n in 0..3_000 {
        let other = watched.join(&format!("other-{n}"));
        watched.subscribe(other, ["a"].into_iter());
    }
    let first = watched.join("first");
    let stays = Connect {
        clean_start: false,
        properties: Properties::from(&STAYS),
        ..Connect::new(Version::V5, "second")
    };
    let second = watched.connect(&stays);
    let delivered = "1".repeat(1_000);
    let bytes = message_at(Delivery::AtMostOnce, delivered.as_bytes());
    watched.broker.receive(first, &bytes, NOW);
    let dropped = "2".repeat(1_000);
    let mut bytes = message_at(Delivery::ExactlyOnce(PacketId::FIRST), dropped.as_bytes());
    watched.broker.receive(second, &bytes, NOW);
    watched.broker.closed(second, NOW);
    assert!(watched.hear(reader) == [delivered]);
    let second = watched.connect(&stays);
    // The flag DUP.
    bytes[0] |= 8;
    watched.give(second, &bytes);
    assert_eq!(watched.broker.outgoing(second)[0], 0x50, "PUBREC");
    assert!(watched.hear(reader) == [dropped]);
}
