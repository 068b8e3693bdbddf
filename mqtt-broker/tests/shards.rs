//! Tests brokers that share the clients of one server.

use mqtt_broker::records::Records;
use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Next, Outgoing, Statistics, shard_of};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Properties, Property, Publish, QoS,
    Subscribe, Subscription, TopicFilter, TopicName, Unsubscribe, Version, Will,
};
use mqtt_testing::packets::encode;

const NOW: Instant = Instant::from_millis(0);

#[derive(Default)]
struct Open(u128);

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

/// Returns a shard, restored from a log if there is one.
fn shard(own: u8, count: u8, log: Option<&[u8]>) -> Broker<Open> {
    let mut config = Config::default();
    config.statistics_interval = 0;
    let mut broker = Broker::new(config, Open::default(), NOW);
    if log.is_some() {
        broker.start_journal();
    }
    broker.start_links(own, count);
    if let Some(log) = log {
        for record in Records::new(log) {
            broker.restore(&record.unwrap()).unwrap();
        }
        broker.restored(NOW).unwrap();
    }
    assert!(!broker.links_are_ready());
    broker
}

/// Shards whose links move all bytes at once.
struct Whole {
    shards: Vec<Broker<Open>>,
    links: Vec<Vec<Option<ConnectionId>>>,
    /// The stored records, if the shards have journals.
    logs: Option<Vec<Vec<u8>>>,
}

/// A client of a shard.
#[derive(Clone, Copy)]
struct Client {
    shard: usize,
    id: ConnectionId,
}

impl Whole {
    fn new(count: u8) -> Self {
        Self::start(count, None)
    }

    fn with_journals(count: u8) -> Self {
        Self::start(count, Some(vec![Vec::new(); usize::from(count)]))
    }

    fn start(count: u8, logs: Option<Vec<Vec<u8>>>) -> Self {
        let shards = (0..count).map(|own| shard(own, count, logs.as_ref().map(|_| &[][..])));
        let shards = shards.collect();
        let count = usize::from(count);
        let mut whole = Self {
            shards,
            links: vec![vec![None; count]; count],
            logs,
        };
        for own in 0..count {
            for to in 0..own {
                whole.link(own, to);
            }
        }
        whole.run();
        assert!(whole.shards.iter().all(Broker::links_are_ready));
        whole
    }

    /// Opens the link between two shards, on both sides.
    fn link(&mut self, one: usize, other: usize) {
        for (own, to) in [(one, other), (other, one)] {
            let id = self.shards[own].open_link(u8::try_from(to).unwrap(), NOW);
            assert!(id.is_some(), "{own} to {to}");
            self.links[own][to] = id;
        }
    }

    /// Stores the records of all shards.
    fn store(&mut self) {
        for (shard, log) in self.shards.iter_mut().zip(self.logs.iter_mut().flatten()) {
            let len = shard.journal().len();
            log.extend_from_slice(shard.journal());
            shard.stored(len);
        }
    }

    /// Crashes a shard after all its records were stored. Its next process has no links.
    fn crash(&mut self, own: usize) {
        self.store();
        let count = u8::try_from(self.shards.len()).unwrap();
        let log = self.logs.as_ref().map(|logs| &logs[own][..]);
        self.shards[own] = shard(u8::try_from(own).unwrap(), count, log);
        for to in 0..self.shards.len() {
            self.links[own][to] = None;
            if let Some(id) = self.links[to][own].take() {
                self.shards[to].closed(id, NOW);
            }
        }
    }

    /// Moves what is on the links, until nothing is left.
    fn run(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            self.store();
            for from in 0..self.shards.len() {
                if self.shards[from].deadline() == Some(NOW) {
                    self.shards[from].tick(NOW);
                    moved = true;
                }
                for to in 0..self.shards.len() {
                    moved |= self.move_link(from, to);
                }
            }
        }
    }

    fn move_link(&mut self, from: usize, to: usize) -> bool {
        let (Some(own), Some(other)) = (self.links[from][to], self.links[to][from]) else {
            return false;
        };
        let bytes = self.shards[from].outgoing(own).to_vec();
        if bytes.is_empty() {
            return false;
        }
        let mut rest = &bytes[..];
        for _ in 0..100 {
            let received = self.shards[to].receive(other, rest, NOW);
            rest = &rest[received.consumed..];
            if rest.is_empty() {
                break;
            }
            assert!(matches!(received.next, Next::Yields | Next::Blocked));
            self.shards[to].tick(NOW);
        }
        assert!(rest.is_empty(), "the shard does not take everything");
        self.shards[from].sent(own, bytes.len(), NOW);
        true
    }

    fn say(&mut self, client: Client, packet: &Packet<'_>) {
        let bytes = encode(packet, Version::V5);
        let received = self.shards[client.shard].receive(client.id, &bytes, NOW);
        assert_eq!(received.consumed, bytes.len());
    }

    /// Returns what was sent to a client.
    fn heard(&mut self, client: Client) -> Vec<String> {
        let shard = &mut self.shards[client.shard];
        // A SUBACK that waited is written when the host passes the input again.
        shard.receive(client.id, &[], NOW);
        let bytes = shard.outgoing(client.id).to_vec();
        shard.sent(client.id, bytes.len(), NOW);
        let (mut rest, mut heard) = (&bytes[..], Vec::new());
        while let Ok(Decoded::Packet { packet, consumed }) =
            Packet::decode(rest, Version::V5, MAX_PACKET)
        {
            rest = &rest[consumed..];
            heard.push(match packet {
                Packet::Publish(publish) => {
                    let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                    let retain = if publish.retain { " retained" } else { "" };
                    format!("{} {payload}{retain}", publish.topic)
                }
                other => format!("{:?}", other.packet_type()),
            });
        }
        heard
    }

    fn join(&mut self, shard: usize, name: &str) -> Client {
        self.join_with(shard, &Connect::new(Version::V5, name))
    }

    fn join_with(&mut self, shard: usize, connect: &Connect<'_>) -> Client {
        let id = self.shards[shard].open(NOW).unwrap();
        let client = Client { shard, id };
        self.say(client, &Packet::Connect(*connect));
        self.store();
        assert_eq!(self.heard(client), ["ConnAck"]);
        client
    }

    fn ask(&mut self, client: Client, filter: &str) {
        let filter = TopicFilter::new(filter).unwrap();
        let list = [Subscription::new(filter, QoS::ExactlyOnce)];
        let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
        self.say(client, &Packet::Subscribe(subscribe));
    }

    fn subscribe(&mut self, client: Client, filter: &str) {
        self.ask(client, filter);
        self.run();
        let heard = self.heard(client);
        assert_eq!(heard.first().map(String::as_str), Some("SubAck"));
    }

    fn publish(&mut self, client: Client, topic: &str, payload: &str, retain: bool) {
        let topic = TopicName::new(topic).unwrap();
        let publish = Publish {
            retain,
            delivery: Delivery::AtMostOnce,
            ..Publish::new(topic, payload.as_bytes())
        };
        self.say(client, &Packet::Publish(publish));
        self.run();
    }

    /// Publishes at QoS 1, and moves nothing on the links.
    fn publish_firmly(&mut self, client: Client, topic: &str, payload: &str) {
        let topic = TopicName::new(topic).unwrap();
        let publish = Publish {
            delivery: Delivery::AtLeastOnce(PacketId::FIRST),
            ..Publish::new(topic, payload.as_bytes())
        };
        self.say(client, &Packet::Publish(publish));
        self.store();
    }

    fn statistics(&self) -> Statistics {
        let all: Vec<_> = self.shards.iter().map(|own| own.statistics(NOW)).collect();
        Statistics::of_all(&all)
    }
}

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
