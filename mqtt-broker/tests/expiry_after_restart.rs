//! Checks that times of expiry go on while the broker is away: of messages that wait, of retained messages, and of sessions.

use mqtt_broker::records::broker::Entry;
use mqtt_broker::records::{Format, Machine, Records};
use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Instant};
use mqtt_session::proto::{
    Connect, Delivery, Packet, PacketId, Property, Publish, QoS, Subscribe, Subscription,
    TopicFilter, TopicName, Version,
};
use mqtt_testing::packets::{encode, packets_in};

struct Open(u128);

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

const NOW: Instant = Instant::from_millis(0);
const DAY: u64 = 86_400_000;

/// Returns a broker without records, which begins at a time of day in seconds.
fn broker(second: u64) -> Broker<Open> {
    let mut config = Config::default();
    config.statistics_interval = 0;
    config.wall_clock = DAY + second * 1_000;
    let mut broker = Broker::new(config, Open(0), NOW);
    broker.start_journal();
    broker
}

/// The records of a broker, and the broker.
struct Recorded {
    broker: Broker<Open>,
    log: Vec<u8>,
}

impl Recorded {
    fn new() -> Self {
        let mut broker = broker(0);
        broker.restored(NOW).unwrap();
        let format = Entry::Format(Format::new(Machine::Broker));
        let mut log = vec![0; format.encoded_len().unwrap()];
        format.write(&mut log).unwrap();
        let mut new = Self { broker, log };
        let own = new.broker.journal().len();
        new.broker.stored(own);
        new
    }

    /// Returns a broker that has these records, and begins later by some seconds.
    fn restart(&self, seconds: u64) -> Self {
        let mut broker = broker(seconds);
        for record in Records::new(&self.log) {
            broker.restore(&record.unwrap()).unwrap();
        }
        broker.restored(NOW).unwrap();
        let log = self.log.clone();
        let mut restarted = Self { broker, log };
        restarted.store();
        restarted
    }

    fn store(&mut self) {
        self.log.extend_from_slice(self.broker.journal());
        let n = self.broker.journal().len();
        self.broker.stored(n);
    }

    fn say(&mut self, id: ConnectionId, packet: Packet<'_>) {
        let bytes = encode(&packet, Version::V5);
        let received = self.broker.receive(id, &bytes, NOW);
        assert_eq!(received.consumed, bytes.len());
        self.store();
        self.broker.tick(NOW);
        self.store();
    }

    /// Connects a client whose session stays for `stays` seconds. Returns whether it was there.
    fn connect(&mut self, name: &str, stays: u32) -> (ConnectionId, bool) {
        let id = self.broker.open(NOW).unwrap();
        let properties = [Property::SessionExpiryInterval(stays)];
        let connect = Connect {
            clean_start: false,
            properties: (&properties[..]).into(),
            ..Connect::new(Version::V5, name)
        };
        self.say(id, Packet::Connect(connect));
        let connack = self.broker.outgoing(id)[2];
        (id, connack == 1)
    }

    fn subscribe(&mut self, id: ConnectionId, filter: &'static str) {
        let filters = [Subscription::new(
            TopicFilter::new(filter).unwrap(),
            QoS::AtLeastOnce,
        )];
        let subscribe = Subscribe::new(PacketId::FIRST, &filters[..]);
        self.say(id, Packet::Subscribe(subscribe));
    }

    fn publish(&mut self, id: ConnectionId, topic: &'static str, retain: bool, expires: u32) {
        let properties = [Property::MessageExpiryInterval(expires)];
        let publish = Publish {
            delivery: Delivery::AtLeastOnce(PacketId::FIRST),
            retain,
            properties: (&properties[..]).into(),
            ..Publish::new(TopicName::from_static(topic), b"x")
        };
        self.say(id, Packet::Publish(publish));
    }

    /// Returns the topics of the received messages, and in how many seconds they expire.
    fn hears(&mut self, id: ConnectionId) -> Vec<(String, Option<u32>)> {
        let bytes = self.broker.outgoing(id).to_vec();
        self.broker.sent(id, bytes.len(), NOW);
        let heard = packets_in(&bytes, Version::V5).filter_map(|packet| match packet {
            Packet::Publish(publish) => {
                let expires = publish.properties.message_expiry_interval();
                Some((publish.topic.as_str().to_owned(), expires))
            }
            _ => None,
        });
        heard.collect()
    }
}

/// 5 [MQTT-3.3.2-5] and [MQTT-3.3.2-6]: the broker deletes a message that has expired, and sends the rest of the time of others.
#[test]
fn messages_expire_while_the_broker_is_away() {
    let mut before = Recorded::new();
    let (reader, _) = before.connect("reader", 1_000);
    before.subscribe(reader, "queued/#");
    before.broker.closed(reader, NOW);
    before.store();
    let (publisher, _) = before.connect("publisher", 0);
    for (topic, retain, expires) in [
        ("queued/short", false, 10),
        ("queued/long", false, 60),
        ("retained/short", true, 10),
        ("retained/long", true, 60),
    ] {
        before.publish(publisher, topic, retain, expires);
    }
    for (away, alive) in [(5, &["short", "long"][..]), (20, &["long"]), (61, &[])] {
        let mut after = before.restart(away);
        let (reader, was_there) = after.connect("reader", 1_000);
        assert!(was_there);
        after.subscribe(reader, "retained/#");
        let left = |name: &&str| {
            if **name == *"short" {
                10 - away
            } else {
                60 - away
            }
        };
        let expected: Vec<_> = ["queued", "retained"]
            .iter()
            .flat_map(|kind| {
                alive
                    .iter()
                    .map(move |name| (format!("{kind}/{name}"), name))
            })
            .map(|(topic, name)| (topic, u32::try_from(left(name)).ok()))
            .collect();
        let mut heard = after.hears(reader);
        heard.sort_by_key(|(topic, left)| (topic.starts_with("retained"), *left));
        assert_eq!(heard, expected, "after {away} s");
    }
}

/// 5 [MQTT-3.1.2-23]: a session ends after its time, which goes on while the broker is away. That of a client which was connected begins
/// at the restart.
#[test]
fn sessions_expire_while_the_broker_is_away() {
    let mut before = Recorded::new();
    let (away, _) = before.connect("away", 30);
    before.connect("here", 30);
    before.broker.closed(away, NOW);
    before.store();
    for (seconds, is_there) in [(20, true), (40, false)] {
        let mut after = before.restart(seconds);
        assert_eq!(after.connect("away", 30).1, is_there, "{seconds} s");
        assert!(after.connect("here", 30).1);
        let mut later = before.restart(seconds);
        later.broker.tick(Instant::from_millis(31_000));
        assert!(!later.connect("here", 30).1);
    }
}

/// The clock of a machine is often set after the start, for example from 1970. Times that are recorded afterwards are those of
/// the new clock.
#[test]
fn times_follow_a_clock_that_is_set() {
    let mut before = Recorded::new();
    let (away, _) = before.connect("away", 30);
    before.broker.set_wall_clock(DAY + 5_000_000);
    before.broker.closed(away, NOW);
    before.store();
    for (seconds, is_there) in [(5_020, true), (5_040, false)] {
        let mut after = before.restart(seconds);
        assert_eq!(after.connect("away", 30).1, is_there, "{seconds} s");
    }
}
