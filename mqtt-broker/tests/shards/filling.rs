//! Publishers wait for a shard that is away when the queue of its link fills.

use mqtt_session::proto::{Ack, Delivery, Packet, PacketId, Publish, TopicName};

use super::peer::{Peer, QUEUE, WINDOW, comes_back, dropped, leaves, start};
use super::whole::Whole;

/// A reader and several publishers of each topic.
struct Traffic {
    topic: &'static str,
    reader: Peer,
    writers: Vec<Peer>,
}

impl Traffic {
    fn begin(whole: &mut Whole, topic: &'static str, to: usize, from: &[usize]) -> Self {
        let reader = Peer::join(whole, to, &format!("reader of {topic}"), Some(topic));
        let join = |(n, shard): (usize, &usize)| {
            Peer::join(whole, *shard, &format!("writer {n} of {topic}"), None)
        };
        let writers = from.iter().enumerate().map(join).collect();
        Self {
            topic,
            reader,
            writers,
        }
    }

    /// Lets each writer publish up to `most` messages, as many as the windows allow, and the reader read all.
    fn goes_on(&mut self, whole: &mut Whole, most: usize) {
        loop {
            let before = self.sum(|own| own.sent + own.acknowledged);
            for writer in &mut self.writers {
                let room = WINDOW - (writer.sent - writer.acknowledged);
                writer.publish(whole, self.topic, most.min(writer.sent + room));
                writer.read(whole);
            }
            self.reader.take_all(whole);
            if self.sum(|own| own.sent + own.acknowledged) == before {
                return;
            }
        }
    }

    fn sum(&self, of: impl Fn(&Peer) -> usize) -> usize {
        self.writers.iter().map(of).sum()
    }
}

/// Shard 2 is away for as long as publishers wait, with publishers in two shards to several topics. Nothing is lost, and messages to
/// clients that are there go on.
#[test]
fn nothing_for_a_shard_that_is_away_is_lost_while_its_publishers_wait() {
    let mut whole = start(3);
    let mut traffic =
        ["a", "b", "c"].map(|topic| Traffic::begin(&mut whole, topic, 2, &[0, 1, 0, 1]));
    let mut present = Traffic::begin(&mut whole, "present", 1, &[0, 1]);
    for round in 1..3 {
        leaves(&mut whole, 2);
        for second in 1..119 {
            for topic in &mut traffic {
                topic.goes_on(&mut whole, 100_000);
            }
            present.goes_on(&mut whole, (round * 200 + second) / 2);
            let behind = present.sum(|own| own.sent - own.acknowledged);
            assert_eq!(behind, 0, "in second {second}");
            whole.pass(1);
        }
        for topic in &traffic {
            let waiting = topic.sum(|own| own.sent - own.acknowledged);
            assert_eq!(waiting, WINDOW * 4, "all of {} wait", topic.topic);
        }
        comes_back(&mut whole, 2);
        for _ in 0..20 {
            for topic in &mut traffic {
                topic.goes_on(&mut whole, round * 1_000);
            }
        }
    }
    assert_eq!(dropped(&whole), 0);
    for topic in &traffic {
        assert_eq!(topic.sum(|own| own.refused), 0);
        assert_eq!(topic.sum(|own| own.acknowledged), 8_000);
        assert_eq!(topic.reader.got.len(), 8_000);
    }
    for shard in 0..2 {
        let of_shards = &whole.shards[shard].hooks().of_shards;
        assert_eq!(of_shards[..], ["publishers wait for 2"; 2]);
    }
}

/// Two shards lose each other, each with publishers for the other one, again and again.
#[test]
fn two_shards_that_are_away_for_each_other_lose_nothing() {
    let mut whole = start(2);
    let mut both = [(0, "a"), (1, "b"), (0, "c"), (1, "d")]
        .map(|(from, topic)| Traffic::begin(&mut whole, topic, 1 - from, &[from; 3]));
    for n in 0..10 {
        leaves(&mut whole, 1);
        for _ in 0..30 {
            for topic in &mut both {
                topic.goes_on(&mut whole, 100_000);
            }
            whole.pass(1);
        }
        comes_back(&mut whole, 1);
        for _ in 0..2 {
            for topic in &mut both {
                topic.goes_on(&mut whole, n * 30);
            }
        }
    }
    for _ in 0..50 {
        for topic in &mut both {
            topic.goes_on(&mut whole, 400);
        }
    }
    assert_eq!(dropped(&whole), 0);
    for topic in &both {
        assert_eq!(topic.sum(|own| own.acknowledged), 1_200);
        assert_eq!(topic.reader.got.len(), 1_200);
    }
}

/// After four times the time for a client that takes nothing, nobody waits. Who can be told is told what is dropped.
#[test]
fn a_shard_is_given_up_after_some_time() {
    // With one step a turn, messages are delivered in portions.
    for (wait_ms, seconds, turn_steps) in [(0, 120, 2_048), (5_000, 5, 2_048), (5_000, 5, 1)] {
        let mut whole = start(2);
        for shard in &mut whole.shards {
            let mut config = shard.config().clone();
            config.publisher_wait_ms = wait_ms;
            config.turn_steps = turn_steps;
            shard.configure(config, whole.now);
        }
        let mut traffic = Traffic::begin(&mut whole, "a", 1, &[0, 0]);
        leaves(&mut whole, 1);
        traffic.goes_on(&mut whole, 1_000);
        whole.pass(seconds - 1);
        traffic.goes_on(&mut whole, 1_000);
        let waiting = traffic.sum(|own| own.sent - own.acknowledged);
        assert_eq!(waiting, WINDOW * 2);
        whole.pass(2);
        for _ in 0..200 {
            traffic.goes_on(&mut whole, 1_000);
        }
        assert_eq!(traffic.sum(|own| own.acknowledged), 2_000);
        let refused = traffic.sum(|own| own.refused);
        assert_eq!(u64::try_from(refused).unwrap(), dropped(&whole));
        comes_back(&mut whole, 1);
        for _ in 0..200 {
            traffic.goes_on(&mut whole, 2_000);
        }
        assert_eq!(traffic.sum(|own| own.refused), refused);
        assert_eq!(traffic.reader.got.len(), 4_000 - refused);
        let of_shards = &whole.shards[0].hooks().of_shards;
        assert_eq!(of_shards[..], ["publishers wait for 1", "1 is given up"]);
    }
}

/// A shard that was given up is back, and has not taken everything: publishers wait for it again.
#[test]
fn a_shard_that_is_back_is_waited_for() {
    let mut whole = start(2);
    let _reader = Peer::join(&mut whole, 1, "reader", Some("a"));
    let mut writer = Peer::join(&mut whole, 0, "writer", None);
    leaves(&mut whole, 1);
    whole.pass(1);
    writer.publish_long(&mut whole, "a", 1_000, 9_000);
    whole.pass(121);
    writer.read(&mut whole);
    writer.publish_long(&mut whole, "a", 1_000, 9_000);
    assert!(writer.refused > 0);
    let late = whole.join(0, "late");
    // Its queue is longer than the outgoing bytes of the link.
    whole.link(0, 1);
    whole.publish_firmly(late, "a", "x");
    assert_eq!(whole.heard(late), [""; 0]);
    whole.run();
    assert_eq!(whole.heard(late), ["PubAck"]);
}

/// A message at QoS 2 waits as well, and one without acknowledgement does not fill the queue.
#[test]
fn pubrec_waits_for_a_shard_that_is_away() {
    let mut whole = start(2);
    let reader = whole.join(1, "reader");
    whole.subscribe(reader, "a");
    let writer = whole.join(0, "writer");
    leaves(&mut whole, 1);
    for n in 0..1_000 {
        whole.publish(writer, "a", &n.to_string(), false);
    }
    let mut answered = 0;
    for n in 1..u16::try_from(QUEUE).unwrap() {
        let publish = Publish {
            delivery: Delivery::ExactlyOnce(PacketId::new(n).unwrap()),
            ..Publish::new(TopicName::from_static("a"), b"x")
        };
        whole.say(writer, &Packet::Publish(publish));
        if whole.heard(writer).is_empty() {
            break;
        }
        let release = Ack::new(PacketId::new(n).unwrap());
        whole.say(writer, &Packet::PubRel(release));
        whole.heard(writer);
        answered += 1;
    }
    assert_eq!(answered, QUEUE / 2);
    comes_back(&mut whole, 1);
    assert_eq!(whole.heard(writer), ["PubRec"]);
}

/// Shard 1 publishes what shard 0 gives to shard 2, which is away: a link acknowledges in order, so only the publisher waits.
#[test]
fn the_link_over_which_messages_come_does_not_wait() {
    let mut whole = start(3);
    let topics: Vec<_> = (0..200).map(|n| format!("r/{n}")).collect();
    let mut there = Traffic::begin(&mut whole, "a", 0, &[1, 1]);
    let mut retained = Peer::join(&mut whole, 1, "retained", None);
    leaves(&mut whole, 2);
    let mut waits = false;
    for n in 0..20 {
        for topic in &topics {
            if retained.sent - retained.acknowledged < WINDOW {
                retained.publish_retained(&mut whole, topic);
            }
        }
        waits |= retained.sent - retained.acknowledged == WINDOW;
        there.goes_on(&mut whole, (n + 1) * 50);
        assert_eq!(there.sum(|own| own.acknowledged), (n + 1) * 100);
        whole.pass(1);
    }
    assert!(
        waits && retained.acknowledged < 1_000,
        "{}",
        retained.acknowledged
    );
    comes_back(&mut whole, 2);
    retained.send(&mut whole);
    assert_eq!(retained.acknowledged, retained.sent);
    assert_eq!((there.reader.got.len(), dropped(&whole)), (2_000, 0));
}
