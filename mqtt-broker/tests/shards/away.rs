//! Tests shards of which one is away: its process has ended, and another one does not serve it yet.

use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Delivery, Packet, PacketId, Properties, Property, Publish, TopicName, Version, Will,
};

use super::whole::{NOW, Whole};

/// No client waits for a shard that is away. When that shard is back, it knows the subscription before it gets any message.
#[test]
fn suback_does_not_wait_for_a_shard_that_is_away() {
    let mut whole = Whole::new(3);
    let subscriber = whole.join(0, "subscriber");
    whole.ask(subscriber, "a");
    whole.cut(0, 1);
    whole.run();
    assert_eq!(whole.heard(subscriber), [""; 0], "shard 1 may come back");
    whole.miss(0, 1);
    assert_eq!(whole.heard(subscriber), ["SubAck"]);
    // A later one waits for the present shards only.
    whole.ask(subscriber, "b");
    assert_eq!(whole.heard(subscriber), [""; 0]);
    whole.run();
    assert_eq!(whole.heard(subscriber), ["SubAck"]);
    whole.link(0, 1);
    whole.run();
    let publisher = whole.join(1, "publisher");
    for topic in ["a", "b"] {
        whole.publish(publisher, topic, "x", false);
    }
    assert_eq!(whole.heard(subscriber), ["a x", "b x"]);
    whole.ask(subscriber, "c");
    assert_eq!(whole.heard(subscriber), [""; 0], "it is not away any more");
}

/// The only shard that is away does not hold an answer, and an open link is not away.
#[test]
fn a_shard_whose_link_is_open_is_not_away() {
    let mut whole = Whole::new(2);
    let subscriber = whole.join(0, "subscriber");
    whole.ask(subscriber, "a");
    whole.miss(0, 1);
    whole.miss(0, 0);
    whole.miss(0, 2);
    assert_eq!(whole.heard(subscriber), [""; 0]);
    whole.cut(0, 1);
    whole.miss(0, 1);
    assert_eq!(whole.heard(subscriber), ["SubAck"]);
}

/// A shard begins while another one is away that it never heard of. Everything waits for that shard, which takes what its clients want.
#[test]
fn a_shard_begins_without_another_one() {
    let mut whole = Whole::apart(2, Some(vec![Vec::new(); 2]));
    whole.miss(0, 1);
    assert!(whole.shards[0].links_are_ready());
    let publisher = whole.join(0, "publisher");
    for (topic, payload) in [("a", "1"), ("b", "2"), ("s", "3"), ("both", "4")] {
        whole.publish_firmly(publisher, topic, payload);
    }
    whole.publish(publisher, "r", "5", true);
    whole.crash(0);
    whole.miss(0, 1);
    let here = whole.join(0, "here");
    whole.subscribe(here, "$share/g/both");
    let publisher = whole.join(0, "publisher");
    whole.publish_firmly(publisher, "both", "6");
    assert_eq!(whole.heard(here), ["both 6"]);

    whole.miss(1, 0);
    let there = whole.join(1, "there");
    for filter in ["a", "$share/g/s", "$share/g/both", "$share/h/both"] {
        whole.subscribe(there, filter);
    }
    whole.link(0, 1);
    whole.run();
    let mut heard = whole.heard(there);
    heard.sort_unstable();
    // Another member of the group g has the last message. Nobody had the one before.
    assert_eq!(heard, ["a 1", "both 4", "both 6", "s 3"]);
    let late = whole.join(1, "late");
    whole.ask(late, "r");
    whole.run();
    assert_eq!(whole.heard(late), ["SubAck", "r 5 retained"]);
    // From now on each shard gets what its clients want.
    let before = whole.shards[1].statistics(NOW).shard_messages;
    let publisher = whole.join(0, "publisher");
    whole.publish_firmly(publisher, "nobody", "7");
    whole.run();
    assert_eq!(whole.shards[1].statistics(NOW).shard_messages, before);
}

/// The list of filters is longer than what a link holds. A message comes after it, so the other shard knows that the message has had its
/// member, whether it waited for the link or not.
#[test]
fn messages_for_a_shard_that_was_away_come_after_the_list_of_filters() {
    for waits in [false, true] {
        let mut whole = Whole::apart(2, None);
        whole.miss(0, 1);
        let here = whole.join(0, "here");
        for number in 0..4_000 {
            whole.subscribe(here, &format!("!/{number}/{}", "x".repeat(60)));
        }
        whole.subscribe(here, "$share/g/s");
        let there = whole.join(1, "there");
        whole.miss(1, 0);
        whole.subscribe(there, "$share/g/s");
        let publisher = whole.join(0, "publisher");
        if waits {
            whole.publish_firmly(publisher, "s", "1");
        }
        whole.link(0, 1);
        whole.publish(publisher, "s", "2", false);
        whole.run();
        let both = [whole.heard(here), whole.heard(there)].concat();
        let expected = ["s 1", "s 2"];
        assert_eq!(both, expected[usize::from(!waits)..]);
    }
}

/// A retained message expires on its way to a shard that is away. The older one that it replaced is not the last one there.
#[test]
fn an_expired_retained_message_replaces_an_older_one_in_a_shard_that_was_away() {
    for keeper in 0..8 {
        let mut whole = Whole::new(2);
        let name = format!("r/{keeper}");
        let publisher = whole.join(0, "publisher");
        whole.publish(publisher, &name, "1", true);
        whole.cut(0, 1);
        whole.miss(0, 1);
        whole.miss(1, 0);
        let expiry = [Property::MessageExpiryInterval(1)];
        let publish = Publish {
            retain: true,
            properties: Properties::from(&expiry[..]),
            delivery: Delivery::AtLeastOnce(PacketId::FIRST),
            ..Publish::new(TopicName::new(&name).unwrap(), b"2")
        };
        whole.say(publisher, &Packet::Publish(publish));
        whole.now = Instant::from_millis(2_000);
        whole.link(0, 1);
        whole.run();
        for shard in 0..2 {
            let late = whole.join(shard, "late");
            whole.ask(late, "#");
            whole.run();
            assert_eq!(whole.heard(late), ["SubAck"], "{name} in {shard}");
        }
    }
}

/// More messages are in flight to a shard than the outgoing bytes of its link hold. They are sent again before newer ones, also by the next
/// process.
#[test]
fn messages_in_flight_to_a_shard_come_again_before_newer_ones() {
    for crashes in [false, true] {
        let mut whole = Whole::apart(2, Some(vec![Vec::new(); 2]));
        whole.link(0, 1);
        whole.run();
        let subscriber = whole.join(1, "subscriber");
        whole.subscribe(subscriber, "a");
        let mut publisher = whole.join(0, "publisher");
        let text = "x".repeat(200);
        for number in 0..3_000 {
            whole.publish_firmly(publisher, "a", &format!("{number:04}{text}"));
            whole.lose_bytes(0, 1);
        }
        whole.cut(0, 1);
        whole.miss(0, 1);
        whole.publish_firmly(publisher, "a", &format!("3000{text}"));
        if crashes {
            whole.crash(0);
            publisher = whole.join(0, "publisher");
        }
        whole.link(0, 1);
        whole.run();
        for number in 3_001..3_100 {
            whole.publish_firmly(publisher, "a", &format!("{number:04}{text}"));
        }
        whole.run();
        let heard = whole.heard_all(subscriber);
        let number = |line: &String| line[2..6].parse().unwrap();
        let numbers: Vec<u32> = heard.iter().map(number).collect();
        assert_eq!(numbers, (0..3_100).collect::<Vec<_>>(), "{crashes}");
    }
}

/// Times go on while a shard is away of which nothing was ever heard: a client that is silent for too long, and its will.
#[test]
fn times_go_on_without_a_shard_that_was_never_there() {
    let mut whole = Whole::apart(2, None);
    let late = |ms| Instant::from_millis(ms);
    whole.now = late(1);
    whole.shards[0].tick(late(1));
    whole.miss(0, 1);
    let watcher = whole.join(0, "watcher");
    whole.subscribe(watcher, "w");
    let mut connect = Connect::new(Version::V5, "silent");
    connect.keep_alive = 10;
    let mut will = Will::new(TopicName::from_static("w"), b"gone");
    let delay = [Property::WillDelayInterval(2)];
    will.properties = Properties::from(&delay[..]);
    connect.will = Some(will);
    let expiry = [Property::SessionExpiryInterval(100)];
    connect.properties = Properties::from(&expiry[..]);
    let silent = whole.join_with(0, &connect);
    for (at, heard) in [(16_000, &[][..]), (18_500, &["w gone"][..])] {
        whole.now = late(at);
        while whole.shards[0]
            .deadline()
            .is_some_and(|due| due <= late(at))
        {
            whole.shards[0].tick(late(at));
        }
        assert!(whole.shards[0].is_closing(silent.id), "{at}");
        assert_eq!(whole.heard(watcher), heard, "{at}");
    }
}

/// A shard that knows nothing of the others has no time that is due: it waits for their lists, and does not turn in a circle.
#[test]
fn a_shard_that_waits_for_the_others_has_nothing_to_do() {
    let mut whole = Whole::apart(2, None);
    let mut connect = Connect::new(Version::V5, "silent");
    connect.keep_alive = 10;
    whole.join_with(0, &connect);
    whole.shards[0].tick(Instant::from_millis(20_000));
    assert_eq!(whole.shards[0].deadline(), None);
    whole.link(0, 1);
    whole.run();
    assert!(whole.shards[0].deadline().is_some());
}

/// A shard that got everything tells its list in several messages. Meanwhile a message for a shared subscription goes to one member.
#[test]
fn a_shared_subscription_gets_a_message_once_while_the_list_comes() {
    let mut whole = Whole::apart(2, None);
    whole.miss(0, 1);
    whole.miss(1, 0);
    let there = whole.join(1, "there");
    for number in 0..60 {
        for begin in ["!", "z"] {
            whole.subscribe(there, &format!("{begin}/{number}/{}", "x".repeat(60)));
        }
    }
    whole.subscribe(there, "$share/g/s");
    let publisher = whole.join(0, "publisher");
    whole.link(0, 1);
    let mut published = Vec::new();
    while whole.move_some(1, 0, 1_300) {
        let number = published.len().to_string();
        whole.publish_firmly(publisher, "s", &number);
        published.push(format!("s {number}"));
    }
    assert!(published.len() > 5, "{published:?}");
    whole.run();
    assert_eq!(whole.heard_all(there), published);
}
