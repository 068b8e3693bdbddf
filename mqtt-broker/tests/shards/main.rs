//! Tests brokers that share the clients of one server.

use mqtt_broker::{Outgoing, shard_of};
use mqtt_session::proto::{
    Connect, Packet, PacketId, Properties, Property, QoS, TopicFilter, TopicName, Unsubscribe,
    Version, Will,
};
use mqtt_testing::packets::encode;

mod away;
mod blind;
mod busy;
mod filling;
mod peer;
mod stale;
mod unsure;
mod whole;

use whole::{NOW, Whole};

/// A client in each shard gets the message, and the publisher's shard does not hear it again.
#[test]
fn a_message_reaches_the_subscribers_of_all_shards_once() {
    let mut whole = Whole::new(3);
    let clients = [0, 1, 2].map(|shard| whole.join(shard, &format!("c{shard}")));
    for client in clients {
        whole.subscribe(client, "a/+");
        whole.subscribe(client, "#");
    }
    whole.publish(clients[1], "a/b", "x", false);
    for client in clients {
        assert_eq!(whole.heard(client), ["a/b x"]);
    }
    let counts = whole.statistics();
    assert_eq!((counts.publish_received, counts.publish_sent), (1, 3));
    assert_eq!((counts.sessions, counts.clients_connected), (3, 3));
    assert_eq!(counts.subscriptions, 6);
}

/// What anyone publishes after the SUBACK finds the subscription.
#[test]
fn suback_waits_until_the_other_shards_know_the_subscription() {
    let mut whole = Whole::new(2);
    let subscriber = whole.join(0, "subscriber");
    whole.ask(subscriber, "a");
    assert_eq!(
        whole.heard(subscriber),
        [""; 0],
        "the other shard does not know"
    );
    whole.run();
    assert_eq!(whole.heard(subscriber), ["SubAck"]);
}

#[test]
fn a_subscription_that_ends_ends_in_the_other_shards() {
    let mut whole = Whole::new(2);
    let (one, other) = (whole.join(0, "one"), whole.join(1, "other"));
    whole.subscribe(one, "a");
    whole.publish(other, "a", "x", false);
    assert_eq!(whole.heard(one), ["a x"]);
    whole.shards[0].closed(one.id, NOW);
    whole.run();
    let before = whole.shards[0].statistics(NOW).shard_messages;
    whole.publish(other, "a", "y", false);
    assert_eq!(whole.shards[0].statistics(NOW).shard_messages, before);
    assert_eq!(whole.statistics().subscriptions, 0);
}

#[test]
fn a_retained_message_is_in_all_shards() {
    let mut whole = Whole::new(4);
    let publishers: Vec<_> = (0..4).map(|n| whole.join(n, &format!("p{n}"))).collect();
    for (n, publisher) in publishers.iter().enumerate() {
        for topic in 0..8 {
            whole.publish(*publisher, &format!("r/{topic}"), &n.to_string(), true);
        }
    }
    whole.publish(publishers[0], "r/0", "", true);
    for shard in 0..4 {
        let late = whole.join(shard, &format!("late{shard}"));
        whole.ask(late, "#");
        whole.run();
        let heard = whole.heard(late);
        let expected = (1..8).map(|topic| format!("r/{topic} 3 retained"));
        assert_eq!(heard[1..], expected.collect::<Vec<_>>());
    }
    assert_eq!(whole.statistics().retained, 7);
}

/// One member of all shards gets each message, and a shard with more members gets more of them.
#[test]
fn a_shared_subscription_is_one_for_all_shards() {
    let mut whole = Whole::new(2);
    let publisher = whole.join(0, "publisher");
    let members = [(0, "a"), (1, "b"), (1, "c"), (1, "d")].map(|(shard, name)| {
        let member = whole.join(shard, name);
        whole.subscribe(member, "$share/g/s");
        member
    });
    for n in 0..40 {
        whole.publish(publisher, "s", &n.to_string(), false);
    }
    let counts = members.map(|member| whole.heard(member).len());
    assert_eq!(counts, [10; 4]);
    // The members of the other shard are gone.
    for member in &members[1..] {
        whole.shards[1].closed(member.id, NOW);
    }
    whole.run();
    whole.publish(publisher, "s", "x", false);
    assert_eq!(whole.heard(members[0]), ["s x"]);
}

/// A session that ends with its connection has records because of its will. The shard does not know at its start that another one has
/// a member for the message that was in flight.
#[test]
fn a_message_in_flight_to_a_lost_member_reaches_a_member_of_another_shard_after_a_crash() {
    let mut whole = Whole::with_journals(2);
    let publisher = whole.join(0, "publisher");
    let mut connect = Connect::new(Version::V5, "here");
    connect.will = Some(Will::new(TopicName::from_static("w"), b"gone"));
    let here = whole.join_with(0, &connect);
    whole.subscribe(here, "$share/g/s");
    let there = whole.join(1, "there");
    whole.subscribe(there, "$share/g/s");
    whole.publish_firmly(publisher, "s", "1");
    whole.publish_firmly(publisher, "s", "2");
    assert_eq!(whole.heard(publisher), ["PubAck", "PubAck"]);
    whole.run();
    let mut heard = whole.heard(here);
    assert_eq!(heard.len(), 1, "one for each: {heard:?}");
    whole.crash(0);
    whole.link(0, 1);
    whole.run();
    heard = whole.heard(there);
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(heard, ["s 1", "s 2"]);
}

/// A lasting session has left the shared subscription of a message that is in flight to it. Its shard crashes, and the session ends
/// before or after the links are open again.
#[test]
fn a_message_in_flight_to_a_session_that_left_reaches_another_shard_after_a_crash() {
    for ends_first in [false, true] {
        let mut whole = Whole::with_journals(2);
        let publisher = whole.join(0, "publisher");
        let expiry = [Property::SessionExpiryInterval(100)];
        let mut connect = Connect::new(Version::V5, "here");
        connect.properties = Properties::from(&expiry[..]);
        let here = whole.join_with(0, &connect);
        whole.subscribe(here, "$share/g/s");
        whole.publish_firmly(publisher, "s", "x");
        assert_eq!(whole.heard(publisher), ["PubAck"]);
        assert_eq!(whole.heard(here), ["s x"]);
        let there = whole.join(1, "there");
        whole.subscribe(there, "$share/g/s");
        let filters = [TopicFilter::new("$share/g/s").unwrap()];
        let leave = Unsubscribe::new(PacketId::FIRST, &filters[..]);
        whole.say(here, &Packet::Unsubscribe(leave));
        whole.run();
        assert_eq!(whole.heard(here), ["UnsubAck"]);
        whole.crash(0);
        if !ends_first {
            whole.link(0, 1);
            whole.run();
        }
        assert!(whole.heard(there).is_empty());
        // The session ends, since its client begins a new one.
        whole.join(0, "here");
        if ends_first {
            whole.link(0, 1);
        }
        whole.run();
        assert_eq!(whole.heard(there), ["s x"], "ends first: {ends_first}");
    }
}

/// The shard that was chosen for a message has no member any more, and the one that has is not known yet.
#[test]
fn a_message_that_a_shard_refuses_waits_for_the_others_after_a_crash() {
    let mut whole = Whole::with_journals(3);
    let (publisher, member) = (whole.join(0, "publisher"), whole.join(1, "member"));
    whole.subscribe(member, "$share/g/s");
    whole.publish_firmly(publisher, "s", "x");
    assert_eq!(whole.heard(publisher), ["PubAck"]);
    whole.crash(0);
    whole.shards[1].closed(member.id, NOW);
    let late = whole.join(2, "late");
    whole.ask(late, "$share/g/s");
    whole.link(0, 1);
    whole.run();
    assert!(whole.heard(late).is_empty());
    whole.link(0, 2);
    whole.run();
    assert_eq!(whole.heard(late), ["s x", "SubAck"]);
}

#[test]
fn the_shard_of_a_client_is_always_the_same_one() {
    let counts = (0..8_000).fold([0_u32; 8], |mut counts, n| {
        let name = format!("client {n}");
        let shard = shard_of(&name, 8, 5);
        assert_eq!(shard, shard_of(&name, 8, 5));
        counts[usize::from(shard)] += 1;
        counts
    });
    assert!(
        counts.iter().all(|count| (800..1_200).contains(count)),
        "{counts:?}"
    );
    assert_eq!(shard_of("any", 1, 5), 0);
}

/// The state of a bridge is a message of a client, with the topics of statistics around it.
#[test]
fn the_state_of_a_bridge_reaches_all_shards_and_statistics_do_not() {
    let mut whole = Whole::new(2);
    let (bridge, watcher) = (whole.join(0, "bridge"), whole.join(1, "watcher"));
    for filter in ["$SYS/broker/connection/+/state", "$SYS/broker/version"] {
        whole.subscribe(watcher, filter);
    }
    whole.publish(bridge, "$SYS/broker/connection/b/state", "1", false);
    assert_eq!(whole.heard(watcher), ["$SYS/broker/connection/b/state 1"]);
    let topic = TopicName::from_static("$SYS/broker/version");
    let message = Outgoing::new(topic, QoS::AtMostOnce, b"x");
    whole.shards[0].publish(&message, NOW);
    whole.run();
    assert!(whole.heard(watcher).is_empty());
}

/// No client can be the link of a shard, and operators do not see links as clients.
#[test]
fn links_are_not_clients() {
    let mut whole = Whole::new(2);
    let id = whole.shards[0].open(NOW).unwrap();
    let mut bytes = encode(
        &Packet::Connect(Connect::new(Version::V5, "_shard/1")),
        Version::V5,
    );
    let at = bytes.iter().position(|byte| *byte == b'_').unwrap();
    bytes[at] = 0;
    whole.shards[0].receive(id, &bytes, NOW);
    assert!(whole.shards[0].is_closing(id), "U+0000 is refused");
    assert_eq!(whole.shards[0].clients().count(), 0);
    assert!(whole.shards[0].open_link(1, NOW).is_none(), "it is open");
    assert!(whole.shards[0].open_link(0, NOW).is_none(), "this one");
    assert!(whole.shards[0].open_link(2, NOW).is_none(), "unknown");
}
