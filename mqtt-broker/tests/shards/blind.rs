//! Members of shared subscriptions that may subscribe and may not read: another member gets the message, and if there is none, no
//! shard has it in the end.

use mqtt_session::proto::{Ack, Delivery, Packet, PacketId, Publish, QoS, TopicName};

use super::whole::{BLIND, Client, Whole};

const FILTER: &str = "$share/x/t";
const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Adds a member without the right to read to each of these shards.
fn add_blind(whole: &mut Whole, shards: &[usize]) {
    for shard in shards {
        let client = whole.join(*shard, &format!("{BLIND}{shard}"));
        whole.subscribe(client, FILTER);
    }
}

/// Publishes, and moves nothing on the links.
fn publish(whole: &mut Whole, client: Client, qos: QoS, payload: &str) {
    let id = PacketId::FIRST;
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
    };
    let publish = Publish {
        delivery,
        ..Publish::new(TopicName::from_static("t"), payload.as_bytes())
    };
    whole.say(client, &Packet::Publish(publish));
    whole.store();
    if qos == QoS::ExactlyOnce {
        whole.say(client, &Packet::PubRel(Ack::new(id)));
        whole.store();
    }
    let expected: &[&str] = match qos {
        QoS::AtMostOnce => &[],
        QoS::AtLeastOnce => &["PubAck"],
        QoS::ExactlyOnce => &["PubRec", "PubComp"],
    };
    assert_eq!(whole.heard(client), expected);
}

fn moved(whole: &Whole) -> u64 {
    let all = whole.shards.iter();
    all.map(|shard| shard.statistics(whole.now).shard_messages)
        .sum()
}

/// Starts all shards again, and asserts that no records have a message for any of them.
fn assert_nothing_is_left(whole: &mut Whole) {
    assert_eq!(whole.statistics().queued, 0);
    let count = whole.shards.len();
    for own in 0..count {
        whole.crash(own);
    }
    let before = moved(whole);
    for own in 0..count {
        for to in 0..own {
            whole.link(own, to);
        }
    }
    whole.run();
    assert_eq!(whole.statistics().queued, 0);
    assert_eq!(moved(whole), before, "a record had a message");
}

/// One or more shards have members without the right, also that of the publisher.
#[test]
fn a_message_that_no_member_may_read_is_dropped_after_each_shard_had_it_once() {
    for blind in [&[1][..], &[0, 1], &[1, 2], &[0, 1, 2, 3], &[1, 2, 3]] {
        for qos in ALL {
            let mut whole = Whole::with_journals(4);
            let publisher = whole.join(0, "publisher");
            add_blind(&mut whole, blind);
            for n in 1..=4 {
                publish(&mut whole, publisher, qos, "x");
                whole.run();
                assert_eq!(whole.statistics().publish_dropped, n, "{qos:?} {blind:?}");
                let most = n * u64::try_from(blind.len()).unwrap();
                assert!(moved(&whole) <= most, "{qos:?} {blind:?}");
            }
            assert_nothing_is_left(&mut whole);
        }
    }
}

/// The members without the right take nothing from the one that has it, whose shard is that of the publisher or another one.
#[test]
fn a_member_that_may_read_gets_what_others_may_not() {
    for reads_in in 0..4 {
        for qos in ALL {
            let mut whole = Whole::with_journals(4);
            let publisher = whole.join(0, "publisher");
            add_blind(&mut whole, &[0, 1, 2, 3]);
            let reader = whole.join(reads_in, "reader");
            whole.subscribe(reader, FILTER);
            for n in 0..8 {
                let payload = n.to_string();
                publish(&mut whole, publisher, qos, &payload);
                whole.run();
                let expected = format!("t {payload}");
                assert_eq!(whole.heard(reader), [expected], "{qos:?} in {reads_in}");
            }
            let counts = whole.statistics();
            assert_eq!((counts.publish_dropped, counts.publish_sent), (0, 8));
            assert!(moved(&whole) <= 8 * 4, "{qos:?} in {reads_in}");
        }
    }
}

/// The records of a message have the shards that had it.
#[test]
fn a_message_does_not_return_to_a_shard_after_a_crash() {
    let mut whole = Whole::with_journals(3);
    let publisher = whole.join(0, "publisher");
    add_blind(&mut whole, &[2, 1]);
    // Shard 1 gets the messages, and has them for shard 2.
    whole.cut(0, 2);
    whole.cut(1, 2);
    for payload in ["1", "2", "3"] {
        publish(&mut whole, publisher, QoS::AtLeastOnce, payload);
    }
    whole.run();
    assert_eq!((whole.statistics().queued, moved(&whole)), (3, 3));
    whole.crash(1);
    whole.link(1, 0);
    whole.run();
    assert_eq!((whole.statistics().queued, moved(&whole)), (3, 0));
    whole.link(1, 2);
    whole.join(1, BLIND);
    whole.run();
    assert_eq!(moved(&whole), 3, "from shard 1 to shard 2");
    assert_eq!(whole.statistics().publish_dropped, 3);
    assert_nothing_is_left(&mut whole);
}

/// Two shards start again. One of them refuses messages of the other one, which does not know the shard of the reader yet.
#[test]
fn a_message_that_a_shard_refuses_finds_a_reader_after_a_crash() {
    let mut whole = Whole::with_journals(4);
    let publisher = whole.join(0, "publisher");
    add_blind(&mut whole, &[1, 2]);
    let reader = whole.join(3, "reader");
    whole.subscribe(reader, FILTER);
    let all = ["1", "2", "3", "4", "5", "6"];
    for payload in all {
        publish(&mut whole, publisher, QoS::AtLeastOnce, payload);
    }
    whole.crash(0);
    whole.crash(1);
    for to in 1..4 {
        whole.link(0, to);
        whole.run();
    }
    let mut heard = whole.heard(reader);
    heard.sort_unstable();
    assert_eq!(heard, all.map(|payload| format!("t {payload}")));
    assert_eq!(whole.statistics().publish_dropped, 0);
}
