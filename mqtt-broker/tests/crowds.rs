//! Checks that many connections or sessions of one address or user neither keep others out nor take anything from them.

use std::time::Duration;

use mqtt_broker::{Broker, Config, ConnectionId, Hooks, Next};
use mqtt_session::Instant;
use mqtt_session::proto::{
    Connect, Delivery, Packet, PacketId, Properties, Property, Publish, QoS, Subscribe,
    Subscription, TopicAlias, TopicFilter, TopicName, Version, Will,
};
use mqtt_testing::packets::{encode, take_packets};

const NOW: Instant = Instant::from_millis(0);
/// The addresses of the clients.
const CROWD: u64 = 1;
const HONEST: u64 = 2;

struct Open;

impl Hooks for Open {
    fn unguessable(&mut self) -> u128 {
        0
    }
}

fn broker(set: impl FnOnce(&mut Config)) -> Broker<Open> {
    let mut config = Config::default();
    config.statistics_interval = 0;
    set(&mut config);
    Broker::new(config, Open, NOW)
}

/// Opens a connection, and closes those that were ended to make room, as a host does.
fn open(broker: &mut Broker<Open>, source: u64) -> Option<ConnectionId> {
    let id = broker.open_from(source, NOW).ok();
    while let Some(ready) = broker.next_ready() {
        if broker.was_closed_for_room(ready) {
            assert!(broker.outgoing(ready).is_empty());
            broker.closed(ready, NOW);
        }
    }
    id
}

const STAYS: [Property<'static>; 1] = [Property::SessionExpiryInterval(1_000)];

fn staying<'a>(client_id: &'a str, user_name: Option<&'a str>) -> Connect<'a> {
    Connect {
        clean_start: false,
        user_name,
        properties: Properties::from(&STAYS),
        ..Connect::new(Version::V5, client_id)
    }
}

/// Sends a packet, and returns the outgoing packets.
fn say(broker: &mut Broker<Open>, id: ConnectionId, packet: &Packet<'_>) -> Vec<Vec<u8>> {
    broker.receive(id, &encode(packet, Version::V5), NOW);
    while broker.deadline() == Some(NOW) {
        broker.tick(NOW);
    }
    take_packets(broker, id, Version::V5, NOW)
}

/// Connects. Returns the connection, the session present flag and the reason code.
fn join(broker: &mut Broker<Open>, source: u64, connect: &Connect<'_>) -> (ConnectionId, [u8; 2]) {
    let id = open(broker, source).unwrap();
    let connack = say(broker, id, &Packet::Connect(*connect)).remove(0);
    assert_eq!(connack[0], 0x20);
    (id, [connack[2], connack[3]])
}

fn subscribe(broker: &mut Broker<Open>, id: ConnectionId, filter: &str) {
    let filter = TopicFilter::new(filter).unwrap();
    let list = [Subscription::new(filter, QoS::AtLeastOnce)];
    let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
    assert_eq!(say(broker, id, &Packet::Subscribe(subscribe))[0][0], 0x90);
}

/// Makes a session with a subscription, whose client disconnects.
fn leave(broker: &mut Broker<Open>, source: u64, connect: &Connect<'_>, filter: &str) {
    let (id, told) = join(broker, source, connect);
    assert_eq!(told, [0, 0], "{}", connect.client_id);
    subscribe(broker, id, filter);
    broker.closed(id, NOW);
}

#[test]
fn silent_connections_give_way() {
    let mut broker = broker(|config| {
        config.connections = 20;
        config.pending_connections = 8;
    });
    let crowd: Vec<_> = (0..50).map(|_| open(&mut broker, CROWD).unwrap()).collect();
    let is_open = |broker: &Broker<Open>, id: &ConnectionId| !broker.is_closing(*id);
    let stay = crowd.iter().filter(|id| is_open(&broker, id)).count();
    assert_eq!(stay, 8);
    assert!(is_open(&broker, &crowd[42]) && !is_open(&broker, &crowd[41]));
    // This client has not sent its CONNECT while the others connect.
    let honest = open(&mut broker, HONEST).unwrap();
    for _ in 0..50 {
        open(&mut broker, CROWD).unwrap();
    }
    let connect = Packet::Connect(Connect::new(Version::V5, "honest"));
    assert_eq!(say(&mut broker, honest, &connect)[0][..1], [0x20]);
    for _ in 0..50 {
        open(&mut broker, CROWD).unwrap();
    }
    assert!(!broker.is_closing(honest));
}

/// A refused client that keeps its transport open does not count as accepted.
#[test]
fn what_is_accepted_does_not_give_way() {
    let mut broker = broker(|config| config.connections = 3);
    let connect = |client_id| Packet::Connect(Connect::new(Version::V5, client_id));
    let refused = open(&mut broker, CROWD).unwrap();
    say(&mut broker, refused, &Packet::PingReq);
    assert!(broker.is_closing(refused));
    for client_id in ["a", "b", "c"] {
        let id = open(&mut broker, CROWD).unwrap();
        assert_eq!(say(&mut broker, id, &connect(client_id))[0][..1], [0x20]);
    }
    assert_eq!(broker.open_from(HONEST, NOW).unwrap_err().limit, 3);
}

#[test]
fn connections_of_one_address_are_limited() {
    let mut broker = broker(|config| config.connections_per_address = 2);
    let first = open(&mut broker, CROWD).unwrap();
    open(&mut broker, CROWD).unwrap();
    assert_eq!(broker.open_from(CROWD, NOW).unwrap_err().limit, 2);
    open(&mut broker, HONEST).unwrap();
    // An unknown address has no limit.
    for _ in 0..3 {
        open(&mut broker, 0).unwrap();
    }
    broker.closed(first, NOW);
    open(&mut broker, CROWD).unwrap();
}

/// One address makes more sessions with subscriptions than any other: they are ended for new clients of other addresses.
#[test]
fn invented_sessions_keep_nobody_out() {
    let mut broker = broker(|config| config.sessions = 10);
    for n in 0..30 {
        leave(
            &mut broker,
            CROWD,
            &staying(&format!("crowd-{n}"), None),
            "a",
        );
        if n == 8 {
            leave(&mut broker, HONEST, &staying("honest", None), "b");
        }
    }
    let other = staying("other", None);
    leave(&mut broker, HONEST, &other, "b");
    for client_id in ["honest", "other"] {
        let (id, told) = join(&mut broker, HONEST, &staying(client_id, None));
        assert_eq!(told, [1, 0], "{client_id}");
        broker.closed(id, NOW);
    }
    let (_, told) = join(&mut broker, CROWD, &staying("crowd-29", None));
    assert_eq!(told, [1, 0], "the oldest give way first");
    let (_, told) = join(&mut broker, CROWD, &staying("crowd-20", None));
    assert_eq!(told, [0, 0], "it gave way");
}

/// If no address has more sessions than the others, the first ones stay.
#[test]
fn equals_do_not_give_way_to_each_other() {
    let mut broker = broker(|config| config.sessions = 3);
    for source in 1..=3 {
        let client_id = source.to_string();
        leave(&mut broker, source, &staying(&client_id, None), "a");
    }
    let (id, told) = join(&mut broker, 4, &staying("4", None));
    assert_eq!((told, broker.is_closing(id)), ([0, 0x97], true));
}

#[test]
fn sessions_of_one_address_and_user_are_limited() {
    let mut broker = broker(|config| {
        config.sessions_per_address = 3;
        config.sessions_per_user = 2;
    });
    leave(&mut broker, CROWD, &staying("1", Some("alice")), "a");
    leave(&mut broker, 7, &staying("2", Some("alice")), "a");
    let (_, told) = join(&mut broker, 8, &staying("3", Some("alice")));
    assert_eq!(told, [0, 0x97]);
    leave(&mut broker, CROWD, &staying("4", None), "a");
    leave(&mut broker, CROWD, &staying("5", Some("bob")), "a");
    let (_, told) = join(&mut broker, CROWD, &staying("6", None));
    assert_eq!(told, [0, 0x97]);
    // An ended session makes room for both limits.
    let ends = Connect {
        clean_start: true,
        properties: Properties::EMPTY,
        ..staying("1", Some("alice"))
    };
    let (id, told) = join(&mut broker, 9, &ends);
    assert_eq!(told, [0, 0]);
    broker.closed(id, NOW);
    leave(&mut broker, CROWD, &staying("3", Some("alice")), "a");
}

/// Makes the absent sessions of a crowd of 1,000, of two others and of an honest client, and returns a publisher.
fn crowd_and_two(broker: &mut Broker<Open>) -> ConnectionId {
    for n in 0..1_000 {
        let client_id = format!("crowd-{n}");
        leave(broker, CROWD, &staying(&client_id, None), "crowd");
    }
    for client_id in ["greedy-1", "greedy-2"] {
        leave(broker, CROWD, &staying(client_id, None), "greedy");
    }
    leave(broker, HONEST, &staying("honest", None), "honest");
    join(broker, HONEST, &staying("publisher", None)).0
}

/// Publishes at QoS 1. Returns the bytes that all queues have then.
fn publish(broker: &mut Broker<Open>, from: ConnectionId, topic: &str, len: usize) -> u64 {
    let payload = vec![b'x'; len];
    let message = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::new(topic).unwrap(), &payload)
    };
    assert_eq!(say(broker, from, &Packet::Publish(message))[0][0], 0x40);
    broker.statistics(NOW).queued_bytes
}

/// Returns how many messages the honest client of [`crowd_and_two`] gets when it comes back.
fn honest_gets(broker: &mut Broker<Open>) -> usize {
    let id = open(broker, HONEST).unwrap();
    let heard = say(broker, id, &Packet::Connect(staying("honest", None)));
    heard.iter().filter(|packet| packet[0] >> 4 == 3).count()
}

/// Clients with short queues lose no message, even if there are many of them, and two with long queues.
#[test]
fn a_crowd_and_two_who_let_much_wait_cost_nobody_a_message() {
    let mut broker = broker(|config| config.queued_bytes_total = 400_000);
    let publisher = crowd_and_two(&mut broker);
    publish(&mut broker, publisher, "crowd", 1);
    let mut held = 0;
    for n in 0..2_000 {
        publish(&mut broker, publisher, "greedy", 1_000);
        if n % 100 == 99 {
            held = publish(&mut broker, publisher, "honest", 1_000);
        }
    }
    assert!(held <= 800_000, "{held}");
    assert_eq!(honest_gets(&mut broker), 20);
}

/// A crowd whose queues exceed the limit by half leaves room for the short queue of a client that is absent meanwhile, although there
/// may be many more sessions.
#[test]
fn a_crowd_with_full_queues_costs_an_absent_client_no_message() {
    let mut broker = broker(|config| config.queued_bytes_total = 12_000_000);
    let publisher = crowd_and_two(&mut broker);
    let mut held = 0;
    for _ in 0..20 {
        for _ in 0..100 {
            publish(&mut broker, publisher, "greedy", 20_000);
        }
        publish(&mut broker, publisher, "crowd", 1_000);
        held = publish(&mut broker, publisher, "honest", 1);
    }
    assert!((18_000_001..=24_000_000).contains(&held), "{held}");
    assert_eq!(honest_gets(&mut broker), 20);
}

/// 5 \[MQTT-3.2.2-21\] allows the broker to limit the expiry of a session.
#[test]
fn sessions_stay_for_a_month_at_most() {
    let mut broker = broker(|_| {});
    let asks = [Property::SessionExpiryInterval(u32::MAX)];
    let connect = Connect {
        properties: Properties::from(&asks),
        ..staying("a", None)
    };
    let id = open(&mut broker, HONEST).unwrap();
    let connack = say(&mut broker, id, &Packet::Connect(connect)).remove(0);
    let month: u32 = 30 * 24 * 3_600;
    let told: Vec<u8> = [&[0x11][..], &month.to_be_bytes()].concat();
    assert!(
        connack.windows(5).any(|bytes| bytes == told),
        "{connack:x?}"
    );
    broker.closed(id, NOW);
    let end = NOW.after(Duration::from_secs(u64::from(month)));
    broker.tick(NOW.after(Duration::from_secs(u64::from(month) - 1)));
    assert_eq!(broker.statistics(end).sessions, 1);
    broker.tick(end);
    assert_eq!(broker.statistics(end).sessions, 0);
}

/// Clients that neither read nor acknowledge take at most twice what the settings allow, and other clients get their messages.
#[test]
fn what_waits_for_clients_is_bounded_in_all() {
    let total = 1_000_000;
    let mut broker = broker(|config| {
        config.connection_bytes_total = total;
        config.packet_size = 20_000;
        config.slow_consumer_ms = 0;
        config.queued_bytes_total = 2_000_000;
    });
    let mut deaf = Vec::new();
    for n in 0..40 {
        let (id, _) = join(&mut broker, CROWD, &staying(&format!("deaf-{n}"), None));
        subscribe(&mut broker, id, "#");
        deaf.push(id);
    }
    let (honest, _) = join(&mut broker, HONEST, &staying("honest", None));
    subscribe(&mut broker, honest, "#");
    let (publisher, _) = join(&mut broker, HONEST, &staying("publisher", None));
    let payload = [b'x'; 10_000];
    for n in 0..200 {
        let topic = TopicName::from_static("a");
        let message = Packet::Publish(Publish::new(topic, &payload));
        say(&mut broker, publisher, &message);
        let heard = broker.outgoing(honest).len();
        assert!(heard > payload.len(), "message {n}");
        broker.sent(honest, heard, NOW);
    }
    let held = broker.statistics(NOW).connection_bytes;
    assert!(held <= 2 * u64::try_from(total).unwrap(), "{held}");
    for id in deaf {
        broker.closed(id, NOW);
    }
    let held = broker.statistics(NOW).connection_bytes;
    assert!(held < 500_000, "{held}");
}

/// 3.1.1 \[MQTT-3.1.3-5\], 5 \[MQTT-3.1.3-5\]: 23 bytes are accepted with any limit.
#[test]
fn long_names_are_refused() {
    let mut broker = broker(|config| {
        config.client_id_length = 10;
        config.topic_length = 100;
    });
    let long = "x".repeat(24);
    let (_, told) = join(&mut broker, HONEST, &staying(&long, None));
    assert_eq!(told, [0, 0x85]);
    let (_, told) = join(&mut broker, HONEST, &staying("a", Some(&long)));
    assert_eq!(told, [0, 0x86]);
    let (id, told) = join(&mut broker, HONEST, &staying(&long[..23], None));
    assert_eq!(told, [0, 0]);
    let long = "x".repeat(101);
    let mut message = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::new(&long).unwrap(), b"x")
    };
    let puback = say(&mut broker, id, &Packet::Publish(message)).remove(0);
    assert_eq!((puback[0], puback[4]), (0x40, 0x90));
    message.topic_alias = TopicAlias::new(1);
    let disconnect = say(&mut broker, id, &Packet::Publish(message)).remove(0);
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x90));
}

/// Each client uses sixteen aliases of the longest topics. At the limit, clients that exceed their share are disconnected.
#[test]
fn aliases_are_bounded_in_all() {
    let mut broker = broker(|config| config.connection_bytes_total = 1_000_000);
    let topic = "x".repeat(60_000);
    let mut ended = 0;
    for n in 0..40 {
        let (id, _) = join(&mut broker, CROWD, &staying(&n.to_string(), None));
        for alias in 1..=16 {
            let message = Publish {
                topic_alias: TopicAlias::new(alias),
                ..Publish::new(TopicName::new(&topic).unwrap(), b"x")
            };
            say(&mut broker, id, &Packet::Publish(message));
        }
        if broker.is_closing(id) {
            ended += 1;
            broker.closed(id, NOW);
        }
        let held = broker.statistics(NOW).connection_bytes;
        assert!(held < 3_000_000, "{held}");
    }
    assert!(ended > 30, "{ended}");
}

/// Acknowledged messages in flight to clients that have left are bounded: sessions that hold more than their share end.
#[test]
fn messages_in_flight_to_absent_clients_are_bounded_in_all() {
    let total = 1_000_000;
    let mut broker = broker(|config| config.connection_bytes_total = total);
    let (publisher, _) = join(&mut broker, HONEST, &staying("publisher", None));
    let payload = [b'x'; 10_000];
    let publish = |broker: &mut Broker<Open>, topic: &str| {
        let topic = TopicName::new(topic).unwrap();
        let delivery = Delivery::AtLeastOnce(PacketId::FIRST);
        let message = Publish {
            delivery,
            ..Publish::new(topic, &payload)
        };
        say(broker, publisher, &Packet::Publish(message));
    };
    let (honest, _) = join(&mut broker, HONEST, &staying("honest", None));
    subscribe(&mut broker, honest, "honest");
    publish(&mut broker, "honest");
    broker.sent(honest, 20_000, NOW);
    broker.closed(honest, NOW);
    for n in 0..100 {
        let (id, _) = join(&mut broker, CROWD, &staying(&format!("crowd-{n}"), None));
        subscribe(&mut broker, id, "crowd");
        for _ in 0..20 {
            publish(&mut broker, "crowd");
            broker.sent(id, 20_000, NOW);
        }
        broker.closed(id, NOW);
        let held = broker.statistics(NOW).connection_bytes;
        assert!(held <= 2 * total as u64, "{held} bytes after {n} clients");
    }
    let id = open(&mut broker, HONEST).unwrap();
    let heard = say(&mut broker, id, &Packet::Connect(staying("honest", None)));
    let messages = heard.iter().filter(|packet| packet[0] >> 4 == 3).count();
    assert_eq!(messages, 1, "the message of the client that held little");
}

/// Each client queues as much as it may, one after the other.
#[test]
fn queues_of_many_clients_have_at_most_twice_their_limit() {
    let total = 50_000;
    let mut broker = broker(|config| {
        config.queued_bytes_total = total;
        config.sessions = 250;
    });
    let (publisher, _) = join(&mut broker, HONEST, &staying("publisher", None));
    for n in 0..200 {
        let name = format!("crowd-{n}");
        leave(&mut broker, CROWD, &staying(&name, None), &name);
        let topic = TopicName::new(&name).unwrap();
        let message = Publish {
            delivery: Delivery::AtLeastOnce(PacketId::FIRST),
            ..Publish::new(topic, b"x")
        };
        for _ in 0..500 {
            say(&mut broker, publisher, &Packet::Publish(message));
        }
        let held = broker.statistics(NOW).queued_bytes;
        assert!(held <= 2 * total as u64, "{held} bytes after {n} clients");
    }
}

/// Clients that stop in the middle of a packet are ended, the oldest first, and other packets of the same size arrive.
#[test]
fn packets_that_never_arrive_completely_are_bounded_in_all() {
    let total = 1_000_000;
    let mut broker = broker(|config| {
        config.input_bytes_total = total;
        config.packet_size = 200_000;
    });
    let payload = vec![b'x'; 100_000];
    let topic = TopicName::from_static("a");
    let packet = encode(&Packet::Publish(Publish::new(topic, &payload)), Version::V5);
    let (honest, _) = join(&mut broker, HONEST, &staying("honest", None));
    let mut crowd = Vec::new();
    for n in 0..100 {
        let (id, _) = join(&mut broker, CROWD, &staying(&n.to_string(), None));
        crowd.push(id);
        broker.receive(id, &packet[..90_000], NOW);
        let held = broker.statistics(NOW).input_bytes;
        assert!(held <= total as u64, "{held}");
        assert_eq!(broker.receive(honest, &packet[..80_000], NOW).consumed, 0);
        let received = broker.receive(honest, &packet, NOW);
        assert_eq!(
            (received.consumed, broker.is_closing(honest)),
            (packet.len(), false)
        );
    }
    let stay = |id: &&ConnectionId| !broker.is_closing(**id);
    let staying: Vec<_> = crowd.iter().filter(stay).collect();
    assert!((8..=11).contains(&staying.len()), "{staying:?}");
    assert!(staying.ends_with(&crowd.iter().collect::<Vec<_>>()[92..]));
    for id in crowd {
        broker.closed(id, NOW);
    }
    assert_eq!(broker.statistics(NOW).input_bytes, 0);
}

/// Clients whose packets wait for their turn are read less at once when they have much together, and none of them is ended.
#[test]
fn packets_that_wait_for_their_turn_are_bounded_in_all() {
    const FREE: usize = 4 << 10;
    let total = 1_000_000;
    let mut broker = broker(|config| {
        config.input_bytes_total = total;
        config.packet_size = 200_000;
        config.turn_steps = 1;
        config.sessions = 200;
    });
    let topic = TopicName::from_static("a");
    let packet = encode(&Packet::Publish(Publish::new(topic, b"x")), Version::V5);
    let mut crowd = Vec::new();
    for n in 0..200 {
        let (id, _) = join(&mut broker, CROWD, &staying(&n.to_string(), None));
        let mut input = packet.repeat((64 << 10) / packet.len());
        input.truncate(broker.read_size(id));
        let received = broker.receive(id, &input, NOW);
        assert_eq!(received.next, Next::Yields);
        input.drain(..received.consumed);
        crowd.push((id, input));
        let held: usize = crowd.iter().map(|(_, input)| input.len()).sum();
        assert!(held <= total + crowd.len() * FREE, "{held} bytes");
        let counted = usize::try_from(broker.statistics(NOW).input_bytes).unwrap();
        assert!(counted + crowd.len() * FREE >= held, "{counted} of {held}");
    }
    assert!(crowd.iter().all(|(id, _)| !broker.is_closing(*id)));
    // They get their turns, and then there is room.
    while crowd.iter().any(|(_, input)| input.len() >= packet.len()) {
        for (id, input) in &mut crowd {
            let received = broker.receive(*id, input, NOW);
            input.drain(..received.consumed);
        }
    }
    assert_eq!(broker.statistics(NOW).input_bytes, 0);
    assert_eq!(broker.read_size(crowd[0].0), 64 << 10);
}

/// Clients that subscribe as much as they may leave room for the subscriptions of others.
#[test]
fn subscriptions_are_bounded_in_all() {
    let total = 100_000;
    let mut broker = broker(|config| {
        config.subscription_bytes_total = total;
        config.sessions = 50;
    });
    let mut crowd = Vec::new();
    for n in 0..20 {
        let (id, _) = join(&mut broker, CROWD, &staying(&n.to_string(), None));
        let filters: Vec<String> = (0..200).map(|n| format!("crowd/{n}")).collect();
        let list: Vec<_> = filters
            .iter()
            .map(|filter| Subscription::new(TopicFilter::new(filter).unwrap(), QoS::AtMostOnce))
            .collect();
        let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
        say(&mut broker, id, &Packet::Subscribe(subscribe));
        let held = broker.statistics(NOW).subscription_bytes;
        assert!(held <= 2 * total as u64, "{held} bytes after {n} clients");
        crowd.push(id);
    }
    let (honest, _) = join(&mut broker, HONEST, &staying("honest", None));
    let filter = TopicFilter::from_static("honest");
    let list = [Subscription::new(filter, QoS::AtMostOnce)];
    let subscribe = Subscribe::new(PacketId::FIRST, &list[..]);
    let suback = say(&mut broker, honest, &Packet::Subscribe(subscribe)).remove(0);
    assert_eq!(suback.last(), Some(&0), "its share is free");
    for (n, id) in crowd.into_iter().enumerate() {
        broker.closed(id, NOW);
        let name = n.to_string();
        let connect = Connect {
            clean_start: true,
            properties: Properties::EMPTY,
            ..staying(&name, None)
        };
        let (id, _) = join(&mut broker, CROWD, &connect);
        broker.closed(id, NOW);
    }
    let held = broker.statistics(NOW).subscription_bytes;
    assert!(held < 1_000, "{held} bytes of the honest client");
}

/// Large wills of one address leave room for the small will of another one.
#[test]
fn wills_leave_room_for_smaller_ones() {
    let mut broker = broker(|config| {
        config.will_bytes = 100_000;
        config.sessions = 100;
    });
    let with_will = |broker: &mut Broker<Open>, source, name: &str, payload: &[u8]| {
        let topic = TopicName::from_static("w");
        let connect = Connect {
            will: Some(Will::new(topic, payload)),
            ..staying(name, None)
        };
        join(broker, source, &connect).1[1]
    };
    for size in [10_000, 1_000, 100, 1] {
        let payload = vec![b'x'; size];
        for n in 0..20 {
            let name = format!("{size}-{n}");
            let answer = with_will(&mut broker, CROWD, &name, &payload);
            // There is no room for the last one of the largest.
            assert!(size < 10_000 || n < 19 || answer == 0x97);
        }
    }
    assert_eq!(with_will(&mut broker, HONEST, "honest", b"gone"), 0);
}
