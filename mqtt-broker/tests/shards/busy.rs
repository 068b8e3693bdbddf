//! Publishers wait for a slow receiver of another shard.

use super::peer::{Peer, WINDOW, dropped, start};

/// The reader acknowledges one message in each round. Meanwhile other clients of the two shards are not slowed.
#[test]
fn a_publisher_goes_as_fast_as_its_reader_in_another_shard() {
    let mut whole = start(2);
    let mut reader = Peer::join(&mut whole, 1, "reader", Some("a"));
    let mut writer = Peer::join(&mut whole, 0, "writer", None);
    let mut fast = Peer::join(&mut whole, 1, "fast", Some("b"));
    let mut other = Peer::join(&mut whole, 0, "other", None);
    let mut rounds = 0;
    while writer.sent < 1_000 {
        writer.publish(&mut whole, "a", 1_000);
        other.publish(&mut whole, "b", (rounds + 1) * 8);
        fast.take_all(&mut whole);
        other.read(&mut whole);
        assert_eq!(other.acknowledged, other.sent, "in round {rounds}");
        reader.read(&mut whole);
        reader.acknowledge(&mut whole, 1);
        writer.read(&mut whole);
        rounds += 1;
        assert!(rounds < 2_000, "{} were sent", writer.sent);
    }
    assert!(rounds > 500, "the writer was not slowed: {rounds}");
    while !writer.unsent.is_empty() {
        reader.take_all(&mut whole);
        writer.send(&mut whole);
    }
    reader.take_all(&mut whole);
    writer.read(&mut whole);
    assert_eq!((writer.acknowledged, dropped(&whole)), (1_000, 0));
    let in_order: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    assert_eq!(reader.got, in_order);
}

/// A reader that takes nothing is given up after 30 seconds by its own shard. Then nobody waits for it.
#[test]
fn a_publisher_does_not_wait_for_ever_for_a_reader_in_another_shard() {
    let mut whole = start(2);
    let _reader = Peer::join(&mut whole, 1, "reader", Some("a"));
    let mut writer = Peer::join(&mut whole, 0, "writer", None);
    writer.publish(&mut whole, "a", 1_000);
    assert_eq!(writer.sent - writer.acknowledged, WINDOW, "it waits");
    whole.pass(31);
    writer.read(&mut whole);
    writer.publish(&mut whole, "a", 1_000);
    assert_eq!(writer.acknowledged, 1_000);
    assert!(dropped(&whole) > 0);
}

/// The link ends while a publisher waits for a reader behind it.
#[test]
fn a_publisher_does_not_wait_for_a_shard_that_is_gone() {
    let mut whole = start(2);
    let mut reader = Peer::join(&mut whole, 1, "reader", Some("a"));
    let mut writer = Peer::join(&mut whole, 0, "writer", None);
    writer.publish(&mut whole, "a", 1_000);
    let before = writer.acknowledged;
    whole.cut(0, 1);
    whole.run();
    writer.read(&mut whole);
    assert!(writer.acknowledged > before);
    whole.link(0, 1);
    whole.run();
    for _ in 0..600 {
        writer.publish(&mut whole, "a", 300);
        reader.read(&mut whole);
        reader.acknowledge(&mut whole, 1);
        writer.read(&mut whole);
    }
    assert_eq!((writer.acknowledged, dropped(&whole)), (300, 0));
}

/// While a reader is slow, more goes over the same link to another one than the link has room for without an acknowledgement.
#[test]
fn a_slow_reader_does_not_stop_the_link() {
    let mut whole = start(2);
    let _slow = Peer::join(&mut whole, 1, "slow", Some("a"));
    let mut writer = Peer::join(&mut whole, 0, "writer", None);
    writer.publish(&mut whole, "a", 1_000);
    assert!(writer.acknowledged < 1_000, "it waits");
    let mut fast = Peer::join(&mut whole, 1, "fast", Some("b"));
    let mut other = Peer::join(&mut whole, 0, "other", None);
    // 18 MB; a link has 16 MiB.
    for n in 1..=250 {
        other.publish_long(&mut whole, "b", n * 8, 9_000);
        fast.take_all(&mut whole);
        other.read(&mut whole);
        assert_eq!(other.acknowledged, other.sent, "in round {n}");
    }
    assert_eq!((fast.got.len(), dropped(&whole)), (2_000, 0));
}

/// Two readers of a shard are too full. When one of them has read, its publisher goes on, though the other one stays full.
#[test]
fn a_publisher_waits_for_the_readers_of_its_own_topic_only() {
    let mut whole = start(2);
    let _slow = Peer::join(&mut whole, 1, "slow", Some("a"));
    let mut reader = Peer::join(&mut whole, 1, "reader", Some("b"));
    let mut first = Peer::join(&mut whole, 0, "first", None);
    let mut second = Peer::join(&mut whole, 0, "second", None);
    first.publish(&mut whole, "a", 1_000);
    second.publish(&mut whole, "b", 300);
    let before = (first.acknowledged, second.acknowledged);
    assert!(before.0 < 1_000 && before.1 < 300, "both wait: {before:?}");
    while second.acknowledged < 300 {
        reader.take_all(&mut whole);
        second.read(&mut whole);
        second.publish(&mut whole, "b", 300);
        assert!(second.acknowledged > before.1);
    }
    reader.take_all(&mut whole);
    assert_eq!(reader.got.len(), 300);
    first.read(&mut whole);
    assert_eq!(first.acknowledged, before.0);
}

/// Slow readers in both shards, with publishers in the other one, for minutes: neither of them loses anything.
#[test]
fn slow_readers_in_both_directions_lose_nothing() {
    let mut whole = start(2);
    let mut pairs = [(0, "a"), (1, "b")].map(|(shard, topic)| {
        let reader = Peer::join(&mut whole, 1 - shard, &format!("r{topic}"), Some(topic));
        let writer = Peer::join(&mut whole, shard, &format!("w{topic}"), None);
        (reader, writer, topic)
    });
    for _ in 0..200 {
        for (reader, writer, topic) in &mut pairs {
            writer.publish(&mut whole, topic, usize::MAX);
            reader.read(&mut whole);
            reader.acknowledge(&mut whole, 1);
            writer.read(&mut whole);
        }
        whole.pass(1);
    }
    assert_eq!(dropped(&whole), 0);
    for (reader, writer, _) in &pairs {
        assert!(writer.sent < 300, "{} were sent", writer.sent);
        let in_order = (0..reader.got.len()).map(|n| n.to_string());
        assert_eq!(reader.got, in_order.collect::<Vec<_>>());
    }
}

/// Two clients of two shards publish to each other until their windows are used up, and read little.
#[test]
fn clients_of_two_shards_that_publish_to_each_other_do_not_stop() {
    let mut whole = start(2);
    let mut both = [(0, "a", "b"), (1, "b", "a")].map(|(shard, own, other)| {
        let client = Peer::join(&mut whole, shard, own, Some(own));
        (client, other)
    });
    for _ in 0..2_000 {
        for (client, other) in &mut both {
            client.publish(&mut whole, other, 300);
            client.read(&mut whole);
            client.acknowledge(&mut whole, 8);
        }
        whole.pass(1);
    }
    for (client, _) in &both {
        assert_eq!((client.acknowledged, client.got.len()), (300, 300));
    }
    assert_eq!(dropped(&whole), 0);
}

/// Each of many publishers has sent some messages before its shard knows that the reader is too full.
#[test]
fn the_messages_of_many_publishers_have_room() {
    let mut whole = start(2);
    let mut reader = Peer::join(&mut whole, 1, "reader", Some("a"));
    let names: Vec<_> = (0..40).map(|n| format!("w{n}")).collect();
    let mut writers: Vec<_> = names
        .iter()
        .map(|name| Peer::join(&mut whole, 0, name, None))
        .collect();
    for writer in &mut writers {
        writer.publish(&mut whole, "a", 20);
    }
    while writers.iter().any(|writer| writer.acknowledged < 20) {
        reader.read(&mut whole);
        assert!(!reader.owed.is_empty(), "nothing comes");
        reader.acknowledge(&mut whole, 1);
        for writer in &mut writers {
            writer.send(&mut whole);
            writer.publish(&mut whole, "a", 20);
        }
    }
    reader.take_all(&mut whole);
    assert_eq!((reader.got.len(), dropped(&whole)), (800, 0));
}

/// Devices with a topic each have sent some messages, and a reader of all topics is behind. It is not given up.
#[test]
fn a_reader_of_many_topics_is_not_given_up() {
    let mut whole = start(2);
    let mut reader = Peer::join(&mut whole, 1, "reader", Some("a/+"));
    for n in 0..200 {
        let mut device = Peer::join(&mut whole, 0, &format!("d{n}"), None);
        device.publish(&mut whole, &format!("a/{n}"), 1);
    }
    reader.take_all(&mut whole);
    assert_eq!((reader.got.len(), dropped(&whole)), (200, 0));
}
