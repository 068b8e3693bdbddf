//! Messages that wait until other shards are known.

use mqtt_session::proto::{Connect, Properties, Property, Version};

use super::peer::{QUEUE, limit};
use super::whole::Whole;

/// Shard 2 begins. Shard 0 has messages for it and did not know its filters, and the link to shard 1 opens late. A message for a shared
/// subscription without a member in shard 1 reaches the member in shard 2. Another one had its member in shard 1.
#[test]
fn a_message_for_a_shared_subscription_waits_for_the_last_link() {
    for steps in [2_048, 1] {
        let mut whole = Whole::apart(3, None);
        whole.miss(0, 2);
        whole.miss(1, 2);
        whole.link(0, 1);
        whole.run();
        for shard in &mut whole.shards {
            let mut config = shard.config().clone();
            config.turn_steps = steps;
            shard.configure(config, whole.now);
        }
        let present = whole.join(1, "present");
        whole.subscribe(present, "$share/both/s");
        let publisher = whole.join(0, "publisher");
        whole.publish_firmly(publisher, "s", "1");
        whole.run();
        whole.publish_firmly(publisher, "s", "2");
        whole.run();

        let there = ["s", "$share/alone/s", "$share/both/s"].map(|filter| {
            let client = whole.join(2, filter);
            whole.ask(client, filter);
            client
        });
        whole.link(0, 2);
        whole.run();
        let heard = there.map(|client| whole.heard_all(client).len());
        assert_eq!(heard, [2, 0, 0], "shard 1 may have members");
        whole.link(1, 2);
        whole.run();
        let heard = there.map(|client| whole.heard_all(client));
        assert_eq!(heard, [vec![], vec!["s 1", "s 2"], vec![]]);
        assert_eq!(whole.heard_all(present), ["s 1", "s 2"]);
        assert_eq!(whole.statistics().publish_dropped, 0);
    }
}

/// The third shard does not come, and counts as away. What has no room until then is counted.
#[test]
fn messages_for_shared_subscriptions_wait_within_a_limit() {
    let mut whole = Whole::apart(3, None);
    whole.miss(0, 2);
    whole.miss(0, 1);
    let publisher = whole.join(0, "publisher");
    let count = QUEUE + 10;
    for n in 0..count {
        whole.publish_firmly(publisher, "s", &n.to_string());
    }
    limit(&mut whole);
    let there = whole.join(2, "there");
    whole.ask(there, "$share/g/s");
    whole.link(0, 2);
    whole.run();
    assert_eq!(whole.heard_all(there), [""; 0]);
    assert_eq!(whole.statistics().publish_dropped, 10);
    whole.miss(2, 1);
    whole.run();
    let first: Vec<_> = (0..QUEUE).map(|n| format!("s {n}")).collect();
    assert_eq!(whole.heard_all(there), first);
}

/// The last members of a shared subscription end with messages, while a shard is away of which nothing was ever heard.
#[test]
fn messages_that_wait_for_a_member_in_an_unknown_shard_are_limited() {
    let mut whole = Whole::apart(2, Some(vec![Vec::new(); 2]));
    limit(&mut whole);
    // The publisher does not wait for shard 1.
    let mut config = whole.shards[0].config().clone();
    config.slow_consumer_ms = 0;
    whole.shards[0].configure(config, whole.now);
    whole.miss(0, 1);
    let publisher = whole.join(0, "publisher");
    for round in 0..4 {
        let mut connect = Connect::new(Version::V5, "member");
        let lasts = [Property::SessionExpiryInterval(1_000)];
        connect.properties = Properties::from(&lasts[..]);
        let member = whole.join_with(0, &connect);
        whole.subscribe(member, "$share/g/s");
        for n in 0..QUEUE / 2 {
            whole.publish_firmly(publisher, "s", &n.to_string());
            whole.heard(publisher);
        }
        let before = whole.statistics().publish_dropped;
        whole.shards[0].closed(member.id, whole.now);
        connect.properties = Properties::EMPTY;
        connect.clean_start = true;
        let member = whole.join_with(0, &connect);
        whole.shards[0].closed(member.id, whole.now);
        whole.run();
        let dropped = whole.statistics().publish_dropped - before;
        assert_eq!(dropped > 0, round > 1, "{dropped} in round {round}");
    }
}
