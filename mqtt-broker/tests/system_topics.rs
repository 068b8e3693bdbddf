//! Checks who may publish to the topics `$SYS` and below: the broker, and bridges their state.

use mqtt_broker::{Broker, ClientInfo, Config, ConnectionId, Hooks};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Delivery, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe, Subscription,
    TopicFilter, TopicName, Version, Will,
};
use mqtt_testing::packets::{encode, packets_in};

const NOW: Instant = Instant::from_millis(0);
const STATE: &str = "$SYS/broker/connection/bridge/state";
/// Topics to which no client may publish.
const RESERVED: [&str; 6] = [
    "$SYS",
    "$SYS/broker/version",
    "$SYS/own",
    "$SYS/broker/connection/bridge/other",
    "$SYS/broker/connection//state",
    "$SYS/broker/connection/a/b/state",
];

/// Hooks that allow each client to publish to all topics, or to none.
struct Rules {
    allow: bool,
}

impl Hooks for Rules {
    fn unguessable(&mut self) -> u128 {
        0
    }

    fn may_publish(&mut self, _: &ClientInfo<'_>, _: TopicName<'_>) -> bool {
        self.allow
    }
}

/// Returns a broker, and the connection of a client that subscribes to all system topics.
fn watched(allow: bool) -> (Broker<Rules>, ConnectionId) {
    let mut config = Config::default();
    config.statistics_interval = 0;
    let mut broker = Broker::new(config, Rules { allow }, NOW);
    let watcher = join(&mut broker, &Connect::new(Version::V5, "watcher"));
    assert_eq!(connack(&mut broker, watcher), ReasonCode::Success);
    let filter = TopicFilter::from_static("$SYS/#");
    let list = [Subscription::new(filter, QoS::AtMostOnce)];
    let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
    say(&mut broker, watcher, &Packet::Subscribe(subscribe));
    hear(&mut broker, watcher, |_| ());
    (broker, watcher)
}

fn say(broker: &mut Broker<Rules>, id: ConnectionId, packet: &Packet<'_>) {
    broker.receive(id, &encode(packet, Version::V5), NOW);
}

fn join(broker: &mut Broker<Rules>, connect: &Connect<'_>) -> ConnectionId {
    let id = broker.open(NOW).unwrap();
    say(broker, id, &Packet::Connect(*connect));
    id
}

/// Takes all outgoing packets.
fn hear<T>(broker: &mut Broker<Rules>, id: ConnectionId, read: impl Fn(Packet<'_>) -> T) -> Vec<T> {
    let bytes = broker.outgoing(id).to_vec();
    broker.sent(id, bytes.len(), NOW);
    packets_in(&bytes, Version::V5).map(read).collect()
}

fn connack(broker: &mut Broker<Rules>, id: ConnectionId) -> ReasonCode {
    let reasons = hear(broker, id, |packet| match packet {
        Packet::ConnAck(connack) => connack.reason,
        other => panic!("{other:?}"),
    });
    assert_eq!(reasons.len(), 1);
    reasons[0]
}

/// Returns topic and payload of all messages.
fn messages(broker: &mut Broker<Rules>, id: ConnectionId) -> Vec<String> {
    hear(broker, id, |packet| match packet {
        Packet::Publish(publish) => {
            let payload = String::from_utf8_lossy(publish.payload).into_owned();
            format!("{} {payload}", publish.topic)
        }
        other => panic!("{other:?}"),
    })
}

/// Publishes a retained message. Returns the reason code of its PUBACK.
fn publish(broker: &mut Broker<Rules>, id: ConnectionId, topic: &str) -> ReasonCode {
    let message = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        retain: true,
        ..Publish::new(TopicName::new(topic).unwrap(), b"1")
    };
    say(broker, id, &Packet::Publish(message));
    let reasons = hear(broker, id, |packet| packet.as_ack().unwrap().1.reason);
    assert_eq!(reasons.len(), 1);
    reasons[0]
}

fn with_will<'a>(topic: &'a str, client_id: &'a str) -> Connect<'a> {
    let topic = TopicName::new(topic).unwrap();
    Connect {
        will: Some(Will::new(topic, b"0")),
        ..Connect::new(Version::V5, client_id)
    }
}

#[test]
fn clients_do_not_publish_to_system_topics() {
    let (mut broker, watcher) = watched(true);
    let client = join(&mut broker, &Connect::new(Version::V5, "client"));
    assert_eq!(connack(&mut broker, client), ReasonCode::Success);
    for topic in RESERVED {
        let reason = publish(&mut broker, client, topic);
        assert_eq!(reason, ReasonCode::NotAuthorized, "{topic}");
        let refused = join(&mut broker, &with_will(topic, "dying"));
        let reason = connack(&mut broker, refused);
        assert_eq!(reason, ReasonCode::NotAuthorized, "{topic}");
    }
    assert_eq!(messages(&mut broker, watcher), [""; 0]);
    assert_eq!(broker.statistics(NOW).retained, 0);
    // A name that only begins like theirs is like any other.
    let reason = publish(&mut broker, client, "$SYSTEM/a");
    assert_eq!(reason, ReasonCode::NoMatchingSubscribers);
}

/// A bridge of Mosquitto publishes whether it is connected, also by its will.
#[test]
fn a_bridge_publishes_its_state() {
    let (mut broker, watcher) = watched(true);
    let bridge = join(&mut broker, &with_will(STATE, "bridge"));
    assert_eq!(connack(&mut broker, bridge), ReasonCode::Success);
    assert_eq!(publish(&mut broker, bridge, STATE), ReasonCode::Success);
    assert_eq!(broker.statistics(NOW).retained, 1);
    broker.closed(bridge, NOW);
    let heard = messages(&mut broker, watcher);
    assert_eq!(heard, [format!("{STATE} 1"), format!("{STATE} 0")]);
}

/// The rules of the host are for these topics as for others.
#[test]
fn rules_can_forbid_the_state_of_a_bridge() {
    let (mut broker, watcher) = watched(false);
    let refused = join(&mut broker, &with_will(STATE, "bridge"));
    assert_eq!(connack(&mut broker, refused), ReasonCode::NotAuthorized);
    let bridge = join(&mut broker, &Connect::new(Version::V5, "bridge"));
    assert_eq!(connack(&mut broker, bridge), ReasonCode::Success);
    let reason = publish(&mut broker, bridge, STATE);
    assert_eq!(reason, ReasonCode::NotAuthorized);
    assert_eq!(messages(&mut broker, watcher), [""; 0]);
}
