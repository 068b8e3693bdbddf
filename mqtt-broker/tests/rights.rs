//! Checks the owner of a session, the messages that a client may receive, and their size.

use mqtt_broker::{Broker, ClientInfo, Config, ConnectionId, Hooks};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Publish, QoS, Subscribe,
    Subscription, TopicFilter, TopicName, Version, Will,
};
use mqtt_testing::packets::{encode, take_packets};

const NOW: Instant = Instant::from_millis(0);

/// Hooks that forbid topics with these prefixes and count how often they are asked about a message.
#[derive(Default)]
struct Rules {
    number: u128,
    denied: Vec<&'static str>,
    /// A user who may not publish.
    silenced: Option<&'static str>,
    asked: usize,
}

impl Hooks for Rules {
    fn unguessable(&mut self) -> u128 {
        self.number += 1;
        self.number
    }

    fn may_publish(&mut self, client: &ClientInfo<'_>, _: TopicName<'_>) -> bool {
        client.user_name.is_none() || client.user_name != self.silenced
    }

    fn may_receive_all(&mut self, _: &ClientInfo<'_>, _: TopicFilter<'_>) -> bool {
        self.denied.is_empty()
    }

    fn may_receive(&mut self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        self.asked += 1;
        let is_denied = |denied| topic.as_str().starts_with(denied);
        client.user_name == Some("boss") || !self.denied.iter().any(is_denied)
    }
}

fn broker(set: impl FnOnce(&mut Config)) -> Broker<Rules> {
    let mut config = Config::default();
    config.statistics_interval = 0;
    set(&mut config);
    Broker::new(config, Rules::default(), NOW)
}

fn say(broker: &mut Broker<Rules>, id: ConnectionId, packet: &Packet<'_>) {
    let bytes = encode(packet, Version::V311);
    broker.receive(id, &bytes, NOW);
}

/// Returns all outgoing packets.
fn hear(broker: &mut Broker<Rules>, id: ConnectionId) -> Vec<Vec<u8>> {
    take_packets(broker, id, Version::V311, NOW)
}

/// Connects a user with a client identifier and no clean start. Returns the connection and the two bytes of CONNACK.
fn connect(
    broker: &mut Broker<Rules>,
    user: Option<&str>,
    client_id: &str,
) -> (ConnectionId, [u8; 2]) {
    let connect = Connect {
        user_name: user,
        clean_start: false,
        ..Connect::new(Version::V311, client_id)
    };
    connect_by(broker, connect)
}

fn connect_by(broker: &mut Broker<Rules>, connect: Connect<'_>) -> (ConnectionId, [u8; 2]) {
    let id = broker.open(NOW).unwrap();
    say(broker, id, &Packet::Connect(connect));
    let connack = broker.outgoing(id)[..4].to_vec();
    assert_eq!(connack[..2], [0x20, 2]);
    broker.sent(id, 4, NOW);
    (id, [connack[2], connack[3]])
}

fn subscribe(broker: &mut Broker<Rules>, id: ConnectionId, filter: &str) -> u8 {
    let list = [Subscription::new(
        TopicFilter::new(filter).unwrap(),
        QoS::AtLeastOnce,
    )];
    let own = PacketId::new(1).unwrap();
    say(
        broker,
        id,
        &Packet::Subscribe(Subscribe::new(own, &list[..])),
    );
    let suback = broker.outgoing(id)[..5].to_vec();
    assert_eq!(suback[0], 0x90);
    broker.sent(id, 5, NOW);
    suback[4]
}

fn publish(broker: &mut Broker<Rules>, id: ConnectionId, topic: &str, retain: bool) {
    let message = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::new(5).unwrap()),
        retain,
        ..Publish::new(TopicName::new(topic).unwrap(), b"x")
    };
    say(broker, id, &Packet::Publish(message));
}

/// Returns the topics of the messages that a connection received.
fn topics(broker: &mut Broker<Rules>, id: ConnectionId) -> Vec<String> {
    let packets = hear(broker, id);
    let topics = packets.iter().filter_map(|bytes| {
        let Ok(Decoded::Packet {
            packet: Packet::Publish(publish),
            ..
        }) = Packet::decode(bytes, Version::V311, MAX_PACKET)
        else {
            return None;
        };
        Some(publish.topic.as_str().to_owned())
    });
    topics.collect()
}

/// Makes a session for Alice, who is not connected and for whom a message is queued.
fn alice_is_away(broker: &mut Broker<Rules>) {
    let (alice, _) = connect(broker, Some("alice"), "home");
    assert_eq!(subscribe(broker, alice, "secret/#"), 1);
    broker.closed(alice, NOW);
    let (other, _) = connect(broker, Some("bob"), "other");
    publish(broker, other, "secret/a", false);
}

#[test]
fn another_user_with_the_same_client_identifier_gets_a_session_of_its_own() {
    let mut broker = broker(|_| {});
    alice_is_away(&mut broker);
    let (mallory, connack) = connect(&mut broker, Some("mallory"), "home");
    assert_eq!(connack, [0, 0], "accepted, without a session");
    assert_eq!(topics(&mut broker, mallory), [""; 0]);
    let (other, _) = connect(&mut broker, Some("bob"), "other");
    publish(&mut broker, other, "secret/b", false);
    assert_eq!(topics(&mut broker, mallory), [""; 0], "nor alice's filters");
    // A client without a user name does not get the session of mallory either.
    let (nobody, connack) = connect(&mut broker, None, "home");
    assert_eq!(connack, [0, 0]);
    assert!(broker.is_closing(mallory) && !broker.is_closing(nobody));
}

#[test]
fn the_same_user_gets_the_session() {
    let mut broker = broker(|_| {});
    alice_is_away(&mut broker);
    let (alice, connack) = connect(&mut broker, Some("alice"), "home");
    assert_eq!(connack, [1, 0]);
    assert_eq!(topics(&mut broker, alice), ["secret/a"]);
}

#[test]
fn a_client_identifier_of_another_user_can_be_refused() {
    let mut broker = broker(|config| config.client_ids_of_others = false);
    alice_is_away(&mut broker);
    let (alice, _) = connect(&mut broker, Some("alice"), "home");
    let (mallory, connack) = connect(&mut broker, Some("mallory"), "home");
    assert_eq!(connack, [0, 5], "not authorized");
    assert!(broker.is_closing(mallory) && !broker.is_closing(alice));
    assert_eq!(topics(&mut broker, alice), ["secret/a"]);
}

fn denies(broker: &mut Broker<Rules>, denied: &[&'static str]) {
    broker.hooks().denied = denied.to_vec();
    broker.rights_changed();
}

#[test]
fn messages_of_denied_topics_are_not_delivered() {
    let mut broker = broker(|_| {});
    denies(&mut broker, &["a/b"]);
    let (publisher, _) = connect(&mut broker, Some("bob"), "publisher");
    publish(&mut broker, publisher, "a/b", true);
    publish(&mut broker, publisher, "a/c", true);
    let (everything, _) = connect(&mut broker, Some("alice"), "everything");
    assert_eq!(subscribe(&mut broker, everything, "#"), 1, "granted");
    assert_eq!(topics(&mut broker, everything), ["a/c"], "retained");
    publish(&mut broker, publisher, "a/b", false);
    publish(&mut broker, publisher, "a/c", false);
    assert_eq!(topics(&mut broker, everything), ["a/c"]);
    broker.closed(everything, NOW);
    publish(&mut broker, publisher, "a/b", false);
    publish(&mut broker, publisher, "a/d", false);
    let (everything, _) = connect(&mut broker, Some("alice"), "everything");
    // The first two are sent again, because they are not acknowledged.
    assert_eq!(
        topics(&mut broker, everything),
        ["a/c", "a/c", "a/d"],
        "queued"
    );
}

#[test]
fn a_right_that_is_revoked_counts_for_what_waits() {
    let mut broker = broker(|_| {});
    alice_is_away(&mut broker);
    let (other, _) = connect(&mut broker, Some("bob"), "publisher");
    publish(&mut broker, other, "secret/b", false);
    denies(&mut broker, &["secret/a"]);
    let (alice, connack) = connect(&mut broker, Some("alice"), "home");
    assert_eq!(connack, [1, 0]);
    assert_eq!(topics(&mut broker, alice), ["secret/b"]);
    denies(&mut broker, &["secret/"]);
    publish(&mut broker, other, "secret/b", false);
    assert_eq!(topics(&mut broker, alice), [""; 0], "of its subscription");
    denies(&mut broker, &[]);
    publish(&mut broker, other, "secret/b", false);
    assert_eq!(topics(&mut broker, alice), ["secret/b"]);
}

#[test]
fn messages_are_asked_about_once_and_only_where_something_is_denied() {
    let mut broker = broker(|_| {});
    let (publisher, _) = connect(&mut broker, Some("bob"), "publisher");
    let (alice, _) = connect(&mut broker, Some("alice"), "home");
    for filter in 0..100 {
        subscribe(&mut broker, alice, &format!("a/{filter}"));
    }
    publish(&mut broker, publisher, "a/1", false);
    assert_eq!(
        (topics(&mut broker, alice).len(), broker.hooks().asked),
        (1, 0)
    );
    denies(&mut broker, &["b"]);
    for _ in 0..10 {
        publish(&mut broker, publisher, "a/1", false);
        publish(&mut broker, publisher, "a/2", false);
    }
    assert_eq!(
        (topics(&mut broker, alice).len(), broker.hooks().asked),
        (20, 2)
    );
}

#[test]
fn a_shared_subscription_passes_over_who_may_not_receive() {
    let mut broker = broker(|_| {});
    denies(&mut broker, &["secret/"]);
    let (publisher, _) = connect(&mut broker, Some("bob"), "publisher");
    let (alice, _) = connect(&mut broker, Some("alice"), "1");
    let (boss, _) = connect(&mut broker, Some("boss"), "2");
    for member in [alice, boss] {
        subscribe(&mut broker, member, "$share/g/#");
    }
    for _ in 0..4 {
        publish(&mut broker, publisher, "secret/a", false);
    }
    assert_eq!(topics(&mut broker, alice), [""; 0]);
    assert_eq!(topics(&mut broker, boss).len(), 4);
}

#[test]
fn a_payload_that_is_too_large_is_dropped_and_its_publisher_stays() {
    let mut broker = broker(|config| config.payload_size = 100);
    let (alice, _) = connect(&mut broker, Some("alice"), "home");
    subscribe(&mut broker, alice, "a");
    publish_bytes(&mut broker, alice, &[0; 101]);
    let answers = hear(&mut broker, alice);
    assert_eq!(answers, [[0x40, 2, 0, 5]], "acknowledged and not delivered");
    publish_bytes(&mut broker, alice, &[0; 100]);
    assert_eq!(topics(&mut broker, alice), ["a"]);
}

/// A will is a message like others: its client is refused.
#[test]
fn a_will_that_is_too_large_is_refused() {
    for (size, code) in [(100, 0), (101, 3)] {
        let mut broker = broker(|config| config.payload_size = 100);
        let payload = vec![0; size];
        let willing = Connect {
            will: Some(Will::new(TopicName::from_static("a"), &payload)),
            ..Connect::new(Version::V311, "home")
        };
        let (_, connack) = connect_by(&mut broker, willing);
        assert_eq!(connack[1], code, "{size} bytes");
    }
}

/// The right to publish counts when the will is published, not only when its client connects.
#[test]
fn a_will_is_not_published_without_the_right() {
    for (silenced, expected) in [(None, &["a"][..]), (Some("alice"), &[])] {
        let mut broker = broker(|_| ());
        let (reader, _) = connect(&mut broker, None, "reader");
        subscribe(&mut broker, reader, "#");
        let willing = Connect {
            user_name: Some("alice"),
            will: Some(Will::new(TopicName::from_static("a"), b"gone")),
            ..Connect::new(Version::V311, "home")
        };
        let (home, _) = connect_by(&mut broker, willing);
        broker.hooks().silenced = silenced;
        broker.closed(home, NOW);
        assert_eq!(topics(&mut broker, reader), expected, "{silenced:?}");
    }
}

fn publish_bytes(broker: &mut Broker<Rules>, id: ConnectionId, payload: &[u8]) {
    let message = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::new(5).unwrap()),
        ..Publish::new(TopicName::new("a").unwrap(), payload)
    };
    say(broker, id, &Packet::Publish(message));
}

/// The messages that a connection got, with RETAIN.
fn messages(broker: &mut Broker<Rules>, id: ConnectionId) -> Vec<(String, bool)> {
    let packets = hear(broker, id);
    let messages = packets.iter().filter_map(|bytes| {
        let Ok(Decoded::Packet {
            packet: Packet::Publish(publish),
            ..
        }) = Packet::decode(bytes, Version::V311, MAX_PACKET)
        else {
            return None;
        };
        Some((publish.topic.as_str().to_owned(), publish.retain))
    });
    messages.collect()
}

/// A bridge gets no message back that it published, and RETAIN as it was published, also for the filters of a SUBSCRIBE that are done
/// in a later turn, and when its session goes on. Another client gets what it published, and RETAIN only for retained messages.
#[test]
fn a_bridge_hears_nothing_of_its_own_and_retain_as_it_was_published() {
    for (is_bridge, filters) in [(true, 1), (true, 200), (false, 1)] {
        let mut broker = broker(|_| {});
        let connects = |version| Connect {
            clean_start: false,
            bridge: is_bridge,
            ..Connect::new(version, "bridge")
        };
        let (bridge, _) = connect_by(&mut broker, connects(Version::V311));
        subscribe_many(&mut broker, bridge, filters);
        publish(&mut broker, bridge, "own/live", false);
        publish(&mut broker, bridge, "own/kept", true);
        let (other, _) = connect(&mut broker, None, "other");
        publish(&mut broker, other, "other/live", false);
        publish(&mut broker, other, "other/kept", true);
        let message = |topic: &str, retain| (topic.to_owned(), retain);
        let own = [message("own/live", false), message("own/kept", false)];
        let others = [
            message("other/live", false),
            message("other/kept", is_bridge),
        ];
        let expected = match is_bridge {
            true => others.to_vec(),
            false => [own, others].concat(),
        };
        assert_eq!(messages(&mut broker, bridge), expected);

        // The session goes on with what was asked for.
        broker.closed(bridge, NOW);
        publish(&mut broker, other, "other/kept", true);
        let (again, connack) = connect_by(&mut broker, connects(Version::V31));
        assert_eq!(connack, [0, 0], "3.1 does not tell of the session");
        // Behind what was not acknowledged.
        let last = messages(&mut broker, again).pop();
        assert_eq!(last, Some(message("other/kept", is_bridge)));
        broker.closed(again, NOW);

        // Retained messages that are there already: also not its own.
        let new = Connect {
            clean_start: true,
            ..connects(Version::V31)
        };
        let (late, _) = connect_by(&mut broker, new);
        subscribe_many(&mut broker, late, filters);
        // The retained messages follow in the turn after the last filter.
        broker.tick(NOW);
        let mut expected = vec![message("other/kept", true)];
        expected.extend((!is_bridge).then(|| message("own/kept", true)));
        assert_eq!(messages(&mut broker, late), expected);
    }
}

/// Subscribes to as many filters, the last of which is `#`, in as many turns as it takes.
fn subscribe_many(broker: &mut Broker<Rules>, id: ConnectionId, count: usize) {
    let names: Vec<_> = (1..count).map(|n| format!("x/{n}")).collect();
    let names = names.iter().map(String::as_str).chain(["#"]);
    let filters: Vec<_> = names
        .map(|name| Subscription::new(TopicFilter::new(name).unwrap(), QoS::AtLeastOnce))
        .collect();
    let subscribe = Subscribe::new(PacketId::new(1).unwrap(), &filters[..]);
    say(broker, id, &Packet::Subscribe(subscribe));
    for _ in 0..1_000 {
        if !broker.outgoing(id).is_empty() {
            return;
        }
        broker.receive(id, &[], NOW);
    }
    panic!("no SUBACK")
}

/// A retained message is not delivered any more when its publisher, who may be away, has lost the right to publish it, unless the
/// broker is told not to check that.
#[test]
fn the_right_of_who_published_a_retained_message_is_checked_again() {
    for checks in [true, false] {
        let mut broker = broker(|config| config.check_retained_source = checks);
        for user in ["alice", "bob"] {
            let (id, _) = connect(&mut broker, Some(user), user);
            publish(&mut broker, id, &format!("from/{user}"), true);
            broker.closed(id, NOW);
        }
        assert_eq!(retained(&mut broker), ["from/alice", "from/bob"]);
        broker.hooks().silenced = Some("alice");
        let expected = match checks {
            true => vec!["from/bob"],
            false => vec!["from/alice", "from/bob"],
        };
        assert_eq!(retained(&mut broker), expected);
    }
}

/// The topics of the retained messages that a new client gets.
fn retained(broker: &mut Broker<Rules>) -> Vec<String> {
    let (id, _) = connect_by(broker, Connect::new(Version::V311, "new"));
    subscribe(broker, id, "from/#");
    let topics = topics(broker, id);
    broker.closed(id, NOW);
    topics
}

/// What was published at QoS 0 goes out at QoS 1 to a subscription at QoS 1 if the broker raises it: at once, from a queue, and
/// retained.
#[test]
fn a_delivery_can_be_raised_to_the_qos_of_its_subscription() {
    for raises in [true, false] {
        let mut broker = broker(|config| {
            config.raise_qos = raises;
            config.queue_qos0 = true;
        });
        let (alice, _) = connect(&mut broker, None, "alice");
        subscribe(&mut broker, alice, "#");
        let (other, _) = connect(&mut broker, None, "other");
        let say_at_0 = |broker: &mut Broker<Rules>, topic| {
            let message = Publish {
                retain: true,
                ..Publish::new(TopicName::new(topic).unwrap(), b"x")
            };
            say(broker, other, &Packet::Publish(message));
        };
        say_at_0(&mut broker, "now");
        let first_bytes = |packets: Vec<Vec<u8>>| -> Vec<u8> {
            packets.iter().map(|packet| packet[0] & 0x36).collect()
        };
        let qos = if raises { 0x32 } else { 0x30 };
        assert_eq!(first_bytes(hear(&mut broker, alice)), [qos]);
        broker.closed(alice, NOW);
        say_at_0(&mut broker, "later");
        let (alice, _) = connect(&mut broker, None, "alice");
        let heard = first_bytes(hear(&mut broker, alice));
        assert_eq!(heard.last(), Some(&qos));
        let (late, _) = connect(&mut broker, None, "late");
        subscribe(&mut broker, late, "#");
        assert_eq!(first_bytes(hear(&mut broker, late)), [qos, qos]);
    }
}
