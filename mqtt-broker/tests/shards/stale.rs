//! Retained messages that were dropped on their way to another shard reach it later.

use mqtt_session::proto::{Delivery, Packet, Publish, TopicName};

use super::peer::{QUEUE, comes_back, dropped, leaves, limit, start};
use super::whole::Whole;

/// Returns what a new client of a shard gets of these topics.
fn retained(whole: &mut Whole, shard: usize, filter: &str) -> Vec<String> {
    let late = whole.join(shard, "late");
    whole.ask(late, filter);
    let mut all = Vec::new();
    loop {
        whole.run();
        let heard = whole.heard(late);
        if heard.is_empty() {
            break;
        }
        all.extend(heard);
    }
    whole.shards[shard].closed(late.id, whole.now);
    whole.run();
    all.retain(|line| line != "SubAck");
    all.sort_unstable();
    all
}

/// Publishes retained messages at QoS 0, whose publisher does not wait, to every second one of more topics than the queue has room for.
/// Each shard is the keeper of some of them.
fn publish_many(whole: &mut Whole, from: usize, payload: &str) {
    let publisher = whole.join(from, "publisher");
    for n in (from..QUEUE * 10).step_by(2) {
        let payload = if n % 10 == 3 { "" } else { payload };
        whole.publish(publisher, &format!("r/{n:03}"), payload, true);
    }
}

fn expected(payload: &str) -> Vec<String> {
    let all = (0..QUEUE * 10).filter(|n| n % 10 != 3);
    all.map(|n| format!("r/{n:03} {payload} retained"))
        .collect()
}

/// Both shards that stay publish for the third one, which gets the newer messages and removes what was removed.
#[test]
fn a_shard_that_was_away_retains_what_the_others_do() {
    let mut whole = start(3);
    let publisher = whole.join(0, "publisher");
    for n in 0..QUEUE * 10 {
        whole.publish(publisher, &format!("r/{n:03}"), "old", true);
    }
    leaves(&mut whole, 2);
    for from in 0..2 {
        publish_many(&mut whole, from, "new");
        publish_many(&mut whole, from, "newer");
    }
    assert!(dropped(&whole) > 0);
    comes_back(&mut whole, 2);
    for shard in 0..3 {
        let all = retained(&mut whole, shard, "r/+");
        let expected = expected("newer");
        let wrong = all.iter().filter(|line| !expected.contains(line));
        let wrong: Vec<_> = wrong.take(5).collect();
        assert_eq!(
            (all.len(), wrong),
            (expected.len(), Vec::new()),
            "in {shard}"
        );
    }
    // Nothing is sent again after that.
    let before = whole.statistics().shard_messages;
    let publisher = whole.join(0, "publisher");
    whole.publish(publisher, "r/000", "last", true);
    assert!(whole.statistics().shard_messages <= before + 4);
    assert_eq!(retained(&mut whole, 2, "r/000"), ["r/000 last retained"]);
}

/// The link stays, and its queue is full because the other shard takes nothing for a while.
#[test]
fn a_shard_that_was_slow_retains_what_the_others_do() {
    let mut whole = Whole::apart(2, None);
    limit(&mut whole);
    whole.link(0, 1);
    whole.run();
    let publisher = whole.join(0, "publisher");
    let text = "x".repeat(1_000);
    for n in 0..QUEUE * 10 {
        let topic = format!("r/{n:03}");
        let publish = Publish {
            retain: true,
            delivery: Delivery::AtMostOnce,
            ..Publish::new(TopicName::new(&topic).unwrap(), text.as_bytes())
        };
        whole.say(publisher, &Packet::Publish(publish));
    }
    assert!(dropped(&whole) > 0);
    whole.run();
    let here = retained(&mut whole, 0, "r/+");
    assert_eq!(here.len(), QUEUE * 10);
    let there = retained(&mut whole, 1, "r/+");
    assert!(there == here, "{} of {}", there.len(), here.len());
}

/// The process ends before the other shard is back. The next one finds the full queue, and sends all that its shard keeps.
#[test]
fn a_process_repairs_what_the_one_before_has_dropped() {
    let mut whole = Whole::with_journals(2);
    limit(&mut whole);
    leaves(&mut whole, 1);
    let publisher = whole.join(0, "publisher");
    let kept: Vec<_> = (0..QUEUE * 10).map(|n| format!("r/{n:03}")).collect();
    for topic in &kept {
        whole.publish(publisher, topic, "x", true);
    }
    whole.crash(0);
    whole.miss(0, 1);
    comes_back(&mut whole, 1);
    let there = retained(&mut whole, 1, "r/+");
    let is_kept = |topic: &&String| mqtt_broker::shard_of(topic, 2, 0) == 0;
    for topic in kept.iter().filter(is_kept) {
        assert!(there.contains(&format!("{topic} x retained")), "{topic}");
    }
}

/// No turn sends everything.
#[test]
fn a_repair_is_done_in_portions() {
    let mut whole = start(2);
    leaves(&mut whole, 1);
    let publisher = whole.join(0, "publisher");
    for n in 0..4_000 {
        whole.publish(publisher, &format!("r/{n}"), "x", true);
    }
    whole.link(0, 1);
    let (mut turns, mut moved) = (0, true);
    while moved {
        moved = false;
        for (from, to) in [(0, 1), (1, 0)] {
            let before = whole.shards[from].steps();
            whole.shards[from].tick(whole.now);
            let taken = whole.shards[from].steps() - before;
            assert!(taken < 2 * whole.shards[from].share(), "{taken} steps");
            turns += u32::from(taken > 500);
            moved |= whole.move_some(from, to, usize::MAX);
        }
    }
    assert!(turns > 10, "{turns}");
    assert_eq!(retained(&mut whole, 1, "#").len(), 4_000);
}
