//! Tests how a new client comes to the shard that has its session.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use mqtt_broker::{
    Broker, Config, ConnectionId, Elsewhere, Hooks, Observation, PlaceOf, Statistics, shard_of,
};
use mqtt_session::Instant;
use mqtt_session::proto::{Connect, Packet, Version};
use mqtt_testing::packets::encode;

const NOW: Instant = Instant::from_millis(0);
const SHARDS: u8 = 3;

/// Hooks that count what they observe, and tell the statistics of another shard too.
#[derive(Default)]
struct Counting(u128);

impl Hooks for Counting {
    fn unguessable(&mut self) -> u128 {
        self.0
    }

    fn observe(&mut self, _: &Observation<'_>) {
        self.0 += 1;
    }

    fn statistics(&mut self, own: Statistics) -> Statistics {
        Statistics::of_all([&own, &own])
    }
}

fn shard(own: u8, set: impl FnOnce(&mut Config)) -> Broker<Counting> {
    let mut config = Config::default();
    set(&mut config);
    let mut broker = Broker::new(config, Counting::default(), NOW);
    broker.start_links(own, SHARDS);
    broker
}

#[test]
fn the_owner_is_known_when_connect_is_complete() {
    let mut shards = [0, 1, 2].map(|own| shard(own, |_| {}));
    for version in [Version::V31, Version::V311, Version::V5] {
        for n in 0..20 {
            let name = format!("client-{n}");
            let owner = shard_of(&name, SHARDS, 0);
            let connect = Packet::Connect(Connect::new(version, &name));
            let mut bytes = encode(&connect, version);
            for cut in 0..bytes.len() {
                assert!(
                    shards
                        .iter_mut()
                        .all(|own| own.owner_of(&bytes[..cut]).is_none())
                );
            }
            // What follows CONNECT does not matter.
            bytes.extend([0xC0, 0, 0xFF]);
            for (own, shard) in (0..).zip(&mut shards) {
                let expected = (own != owner).then_some(owner);
                assert_eq!(shard.owner_of(&bytes), expected, "{name} at {own}");
            }
        }
    }
}

#[test]
fn other_bytes_have_no_owner() {
    let mut broker = shard(0, |config| config.empty_client_ids = false);
    let named = |name: &str| {
        encode(
            &Packet::Connect(Connect::new(Version::V311, name)),
            Version::V311,
        )
    };
    let mut wrong_protocol = named("client-1");
    wrong_protocol[5] = b'X';
    let mut wrong_flags = named("client-1");
    wrong_flags[9] |= 1;
    for bytes in [
        named(""),
        wrong_protocol,
        wrong_flags,
        vec![0xC0, 0],
        vec![0x10, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xFF; 100],
    ] {
        assert_eq!(broker.owner_of(&bytes), None, "{bytes:?}");
    }
    // A broker that is no shard has all clients.
    let mut single = Broker::new(Config::default(), Counting::default(), NOW);
    assert!((0..20).all(|n| single.owner_of(&named(&format!("client-{n}"))).is_none()));
}

/// 3.1.1 [MQTT-3.1.3-6], 5 [MQTT-3.1.3-6]: such a client is accepted by any shard.
#[test]
fn clients_without_an_identifier_are_of_all_shards_in_turn() {
    for own in 0..SHARDS {
        let mut broker = shard(own, |_| {});
        for n in 0..3 * SHARDS {
            let version = [Version::V311, Version::V5][usize::from(n % 2)];
            let connect = encode(&Packet::Connect(Connect::new(version, "")), version);
            let owner = (own + n) % SHARDS;
            let expected = (owner != own).then_some(owner);
            // A part of it does not take a turn.
            assert_eq!(broker.owner_of(&connect[..connect.len() - 1]), None);
            assert_eq!(broker.owner_of(&connect), expected, "{n} at {own}");
        }
        // 3.1.1 [MQTT-3.1.3-8]: refused where it is.
        let mut lasting = Connect::new(Version::V311, "");
        lasting.clean_start = false;
        let lasting = encode(&Packet::Connect(lasting), Version::V311);
        for _ in 0..SHARDS {
            assert_eq!(broker.owner_of(&lasting), None);
        }
    }
}

/// 5 [MQTT-3.1.3-7]: a client that comes again with the identifier that it was assigned is of the same shard.
#[test]
fn an_assigned_identifier_is_of_the_shard_that_assigns_it() {
    for own in 0..SHARDS {
        let mut broker = shard(own, |_| {});
        for _ in 0..10 {
            let id = broker.open(NOW).unwrap();
            let connect = Packet::Connect(Connect::new(Version::V5, ""));
            broker.receive(id, &encode(&connect, Version::V5), NOW);
            let name = broker.clients().last().unwrap().client_id.to_owned();
            assert_eq!(shard_of(&name, SHARDS, 0), own, "{name}");
            broker.closed(id, NOW);
        }
    }
}

#[test]
fn a_connection_that_moves_is_not_observed_and_counts_once() {
    let (mut from, mut to) = (shard(0, |_| {}), shard(1, |_| {}));
    let id = from.open_from(7, NOW).unwrap();
    from.moved(id, NOW);
    assert!(from.is_closing(id));
    assert_eq!(from.hooks().0, 0);
    to.open_from(7, NOW).unwrap();
    let all = Statistics::of_all([&from.statistics(NOW), &to.statistics(NOW)]);
    assert_eq!(all.sockets, 1);
    // Nothing of it is left: the limit of the address is free again.
    let limit = |config: &mut Config| {
        config.connections_per_address = 1;
        config.pending_connections = 1;
    };
    let mut from = shard(0, limit);
    for _ in 0..3 {
        let id = from.open_from(7, NOW).unwrap();
        from.moved(id, NOW);
    }
}

#[test]
fn connections_of_other_shards_count_for_the_limits() {
    let set = |config: &mut Config| {
        config.connections = 3;
        config.connections_per_address = 2;
    };
    let elsewhere = |connections, of_address| Elsewhere {
        connections,
        of_address,
    };
    let mut broker = shard(0, set);
    broker.open_link(1, NOW).unwrap();
    broker.open_link(2, NOW).unwrap();
    assert!(broker.open_beside(7, elsewhere(3, 0), NOW).is_err());
    assert!(broker.open_beside(7, elsewhere(2, 2), NOW).is_err());
    let first = broker.open_beside(7, elsewhere(2, 1), NOW).unwrap();
    // The oldest one without a CONNECT makes room, also for a connection that counts together with others.
    broker.open_beside(8, elsewhere(2, 0), NOW).unwrap();
    assert!(broker.was_closed_for_room(first));
}

/// A proxy sends the address of its client after the connection is open.
#[test]
fn an_address_that_is_known_later_is_limited() {
    let mut broker = shard(0, |config| config.connections_per_address = 1);
    let [first, second, third] = [0; 3].map(|source| broker.open_from(source, NOW).unwrap());
    let none = Elsewhere::default();
    for source in [7, 7] {
        broker.set_source(first, source, none, NOW).unwrap();
    }
    let refused = broker.set_source(second, 7, none, NOW).unwrap_err();
    assert_eq!((refused.limit, broker.is_closing(second)), (1, true));
    broker.closed(second, NOW);
    assert!(broker.open_from(7, NOW).is_err());
    broker.closed(first, NOW);
    let one = Elsewhere {
        connections: 1,
        of_address: 1,
    };
    assert!(broker.set_source(third, 7, one, NOW).is_err());
    broker.closed(third, NOW);
    let fourth = broker.open_from(0, NOW).unwrap();
    broker.set_source(fourth, 7, none, NOW).unwrap();
    let connect = Packet::Connect(Connect::new(Version::V5, "a"));
    broker.receive(fourth, &encode(&connect, Version::V5), NOW);
    assert!(broker.is_accepted(fourth));
}

#[test]
fn shards_divide_what_all_clients_have_together() {
    let mut whole = Config::default();
    (whole.sessions, whole.will_bytes) = (10, 1_001);
    whole.input_bytes_total = 1;
    let part = whole.of_shard(4);
    // Each link has a session.
    assert_eq!((part.sessions, part.will_bytes), (10 + 3, 251));
    assert_eq!(part.input_bytes_total, 2 << 20);
    assert_eq!(part.queued_bytes_total, whole.queued_bytes_total / 4);
    assert_eq!(part.connections, whole.connections);
    assert_eq!(whole.of_shard(1).sessions, 10);
}

/// The hooks of the host add the counts of others.
#[test]
fn statistics_topics_tell_what_the_hooks_say() {
    let mut config = Config::default();
    config.statistics_interval = 1;
    let mut broker = Broker::new(config, Counting::default(), NOW);
    let id = broker.open(NOW).unwrap();
    let connect = Packet::Connect(Connect::new(Version::V311, "a"));
    broker.receive(id, &encode(&connect, Version::V311), NOW);
    // SUBSCRIBE to the number of connected clients.
    let topic = b"$SYS/broker/clients/connected";
    let mut subscribe = vec![0x82, 5 + 29, 0, 1, 0, 29];
    subscribe.extend(topic);
    subscribe.push(0);
    broker.receive(id, &subscribe, NOW);
    broker.sent(id, broker.outgoing(id).len(), NOW);
    for _ in 0..100 {
        broker.tick(Instant::from_millis(1_000));
        broker.receive(id, &[], Instant::from_millis(1_000));
    }
    let said = broker.outgoing(id);
    assert!(said.ends_with(b"connected2"), "{said:?}");
}

/// Hooks of shards that count places together.
#[derive(Clone, Default)]
struct Places(Rc<RefCell<HashMap<PlaceOf, usize>>>);

impl Hooks for Places {
    fn unguessable(&mut self) -> u128 {
        0
    }

    fn take_place(&mut self, of: PlaceOf, limit: usize) -> bool {
        let mut all = self.0.borrow_mut();
        let held = all.entry(of).or_default();
        let has_room = *held < limit;
        *held += usize::from(has_room);
        has_room
    }

    fn free_place(&mut self, of: PlaceOf) {
        *self.0.borrow_mut().get_mut(&of).unwrap() -= 1;
    }
}

impl Places {
    fn shard(&self, own: u8, config: &Config) -> Broker<Self> {
        let mut broker = Broker::new(config.clone(), self.clone(), NOW);
        broker.start_links(own, SHARDS);
        broker
    }

    /// Returns how many places are taken of the server, of users and of addresses.
    fn taken(&self) -> (usize, usize, usize) {
        let all = self.0.borrow();
        let sum = |which: fn(&PlaceOf) -> bool| -> usize {
            let some = all.iter().filter(|(of, _)| which(of));
            some.map(|(_, held)| held).sum()
        };
        let sessions = sum(|of| *of == PlaceOf::Server);
        let users = sum(|of| matches!(of, PlaceOf::User(_)));
        (sessions, users, sum(|_| true) - sessions - users)
    }
}

/// Connects a client of a user from an address. Returns whether it is accepted.
fn joins(broker: &mut Broker<Places>, source: u64, user: &str, name: &str) -> (ConnectionId, bool) {
    let id = broker.open_from(source, NOW).unwrap();
    let connect = Connect {
        user_name: Some(user),
        ..Connect::new(Version::V5, name)
    };
    broker.receive(id, &encode(&Packet::Connect(connect), Version::V5), NOW);
    (id, broker.is_accepted(id))
}

#[test]
fn sessions_of_all_shards_count_for_the_limits_of_a_user_and_an_address() {
    let mut config = Config::default();
    (config.sessions_per_user, config.sessions_per_address) = (3, 2);
    let places = Places::default();
    let mut shards = [0, 1, 2].map(|own| places.shard(own, &config));
    let mut accepted = Vec::new();
    for (shard, source, user, name, expected) in [
        (0, 7, "a", "1", true),
        (1, 7, "a", "2", true),
        // Two from address 7.
        (2, 7, "b", "3", false),
        (2, 8, "a", "4", true),
        // Three of user a.
        (1, 9, "a", "5", false),
        (0, 9, "b", "6", true),
        // One that comes again has its places, or others.
        (0, 7, "a", "1", true),
        (2, 9, "a", "4", true),
        (0, 9, "a", "6", false),
        (1, 7, "b", "2", true),
        (0, 9, "a", "6", true),
    ] {
        let (id, is_accepted) = joins(&mut shards[shard], source, user, name);
        assert_eq!(is_accepted, expected, "{name} of {user} from {source}");
        accepted.push((shard, id));
    }
    assert_eq!(places.taken(), (4, 4, 4));
    for (shard, id) in accepted {
        shards[shard].closed(id, NOW);
    }
    assert_eq!(places.taken(), (0, 0, 0));
    // The limit of all sessions leaves no place behind. Each link has a session more.
    config.sessions = 2 + 1;
    let mut shards = [0, 1].map(|own| places.shard(own, &config));
    let (first, _) = joins(&mut shards[0], 7, "a", "1");
    assert!(!joins(&mut shards[1], 8, "b", "2").1);
    assert_eq!(places.taken(), (1, 1, 1));
    shards[0].closed(first, NOW);
    assert!(joins(&mut shards[1], 8, "b", "2").1);
}
