//! A client that crashes: whatever the schedule of publishes, cuts, crashes and moments at which records are stored, a client that is
//! restored from any records, from those that were stored up to all that were written, keeps its promises and finds them kept.

use std::collections::BTreeMap;
use std::time::Duration;

use mqtt_proto::{PacketType, Properties, QoS, Subscription, TopicFilter, Version};
use mqtt_session::records::{Entry, Fault, Format, Kind, Machine, Record, Records};
use mqtt_session::{Client, Config, Durable, Ended, Heap, Refused};
use mqtt_testing::choices::Choices;
use mqtt_testing::machines::{Endpoint, Opening, OwnedEvent, Pair, Role};
use proptest::collection::vec;
use proptest::prelude::*;

/// A message that the client accepted.
struct Accepted {
    payload: String,
    qos: QoS,
    /// How long the log was then.
    log: usize,
    /// Its record was stored.
    told: bool,
}

/// A pair of machines and the disk of the client.
struct World {
    pair: Pair,
    config: Config,
    durable: Durable,
    /// All records that are stored, since the beginning of time.
    log: Vec<u8>,
    up: Vec<Accepted>,
    down: Vec<(String, QoS)>,
    /// What the program behind the server, and the one behind the client, made of what they got.
    served: Vec<(String, QoS)>,
    effects: Vec<(String, QoS)>,
    count: u32,
}

fn client(config: Config) -> Client<'static> {
    let mut client = Client::new(config, Heap);
    client.start_journal();
    client
}

fn restored(config: Config, log: &[u8], as_store: bool) -> Client<'static> {
    let mut client = client(config);
    let records = Records::new(log).map(Result::unwrap);
    if as_store {
        let mut store: BTreeMap<(Kind, &[u8]), Option<&[u8]>> = BTreeMap::new();
        store.extend(records.map(|record| ((record.kind, record.key), record.value)));
        for ((kind, key), value) in store {
            if value.is_some() {
                client.restore(&Record { kind, key, value }).unwrap();
            }
        }
    } else {
        for record in records {
            client.restore(&record).unwrap();
        }
    }
    client.restored();
    client
}

/// How many QoS 2 messages the client took, by its records.
fn taken(log: &[u8]) -> usize {
    let taken =
        |record: &Record<'_>| matches!(Entry::read(record), Ok(Some(Entry::Received(_, Some(_)))));
    Records::new(log)
        .map_while(Result::ok)
        .filter(taken)
        .count()
}

impl World {
    fn new(version: Version, config: Config) -> Self {
        let mut pair = Pair::new(Opening::persistent(version), config);
        let mut first = client(config);
        assert_eq!(first.restored(), None);
        pair.client = Endpoint::Client(Box::new(first));
        let mut world = Self {
            pair,
            config,
            durable: Durable::Always,
            log: Vec::new(),
            up: Vec::new(),
            down: Vec::new(),
            served: Vec::new(),
            effects: Vec::new(),
            count: 0,
        };
        world.pair.connect();
        world.settle();
        world
    }

    fn client(&mut self) -> &mut Client<'static> {
        self.pair.client.client()
    }

    /// What the client wants to write when it has read what the server wrote.
    fn outgoing_after_read(&mut self) -> &[u8] {
        self.pair.write(Role::Server, usize::MAX);
        self.pair.read(Role::Client, usize::MAX);
        self.pair.client.outgoing()
    }

    fn publish(&mut self, role: Role, qos: QoS, padding: usize) {
        let payload = format!("{:06}{}", self.count, ".".repeat(padding));
        self.count += 1;
        let now = self.pair.now;
        let endpoint = match role {
            Role::Client => &mut self.pair.client,
            Role::Server => &mut self.pair.server,
        };
        match endpoint.publish(qos, "a", payload.as_bytes(), now) {
            Ok(_) if role == Role::Client => {
                let log = self.log.len() + self.client().journal().len();
                // It may be lost while the connection is up.
                let may_be_lost = self.durable != Durable::Always
                    && qos == QoS::AtLeastOnce
                    && self.pair.client.is_connected();
                let log = if may_be_lost { usize::MAX } else { log };
                let told = false;
                self.up.push(Accepted {
                    payload,
                    qos,
                    log,
                    told,
                });
            }
            Ok(_) => self.down.push((payload, qos)),
            Err(Refused::Full | Refused::Offline | Refused::WrongPhase) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Stores `count` of the records that were written.
    fn store(&mut self, count: usize) {
        let mut records = Records::new(self.pair.client.client().journal());
        for record in records.by_ref().take(count) {
            record.unwrap();
        }
        let len = records.consumed();
        self.log
            .extend_from_slice(&self.pair.client.client().journal()[..len]);
        self.client().stored(len);
        let stored = self.log.len();
        for message in &mut self.up {
            message.told |= message.log <= stored;
        }
    }

    fn listen(&mut self) {
        assert_eq!(self.pair.broken(), None);
        for event in self.pair.server_log.drain(..) {
            if let OwnedEvent::Message { payload, qos, .. } = event {
                self.served.push((payload, qos));
            }
        }
        for event in self.pair.client_log.drain(..) {
            match event {
                OwnedEvent::Message { payload, qos, .. } => self.effects.push((payload, qos)),
                OwnedEvent::Connected { resumed, .. } => {
                    assert!(resumed || self.count == 0, "the session is lost");
                }
                OwnedEvent::Ended { how, .. } => assert_eq!(how, Ended::Sent),
                _ => {}
            }
        }
        let written = taken(&self.log) + taken(self.pair.client.client().journal());
        assert_eq!(
            self.effects
                .iter()
                .filter(|(_, qos)| *qos == QoS::ExactlyOnce)
                .count(),
            written
        );
    }

    /// The client's process ends. Of the records that were not stored, `bytes` bytes are there all the same.
    fn crash(&mut self, bytes: usize, as_store: bool) {
        self.pair.cut();
        self.listen();
        let journal = self.client().journal();
        let kept = &journal[..bytes.min(journal.len())].to_vec();
        self.log.extend_from_slice(kept);
        let mut records = Records::new(&self.log);
        while records.next().is_some_and(|record| record.is_ok()) {}
        let whole = records.consumed();
        self.log.truncate(whole);
        for message in &mut self.up {
            if message.log > whole {
                // It was never told, and never will be.
                message.log = usize::MAX;
            }
        }
        let mut next = restored(self.config, &self.log, as_store);
        next.set_durable(self.durable);
        self.pair.client = Endpoint::Client(Box::new(next));
        // What the program made of a message at QoS 2 is as durable as the record of the message.
        let mut left = taken(&self.log);
        self.effects.retain(|(_, qos)| {
            let keep = *qos != QoS::ExactlyOnce || left > 0;
            left -= usize::from(*qos == QoS::ExactlyOnce && left > 0);
            keep
        });
    }

    /// All is stored and all flows, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.pair.run();
            self.listen();
            if self.client().journal().is_empty() {
                return;
            }
            self.store(usize::MAX);
        }
        panic!("it never comes to rest");
    }

    fn check(&self) {
        let times = |list: &[(String, QoS)], payload: &String| {
            list.iter().filter(|(other, _)| other == payload).count()
        };
        for message in &self.up {
            let n = times(&self.served, &message.payload);
            let what = format!("{:?} {} came {n} times", message.qos, message.payload);
            match message.qos {
                QoS::ExactlyOnce => assert!(n <= 1 && (n == 1 || !message.told), "{what}"),
                QoS::AtLeastOnce => assert!(n >= 1 || !message.told, "{what}"),
                QoS::AtMostOnce => assert!(n <= 1, "{what}"),
            }
        }
        for (payload, qos) in &self.down {
            let n = times(&self.effects, payload);
            let what = format!("{qos:?} {payload} came down {n} times");
            match qos {
                QoS::ExactlyOnce => assert_eq!(n, 1, "{what}"),
                QoS::AtLeastOnce => assert!(n >= 1, "{what}"),
                QoS::AtMostOnce => assert!(n <= 1, "{what}"),
            }
        }
        for list in [&self.served, &self.effects] {
            let twos = list.iter().filter(|(_, qos)| *qos == QoS::ExactlyOnce);
            assert!(twos.is_sorted(), "QoS 2 out of order");
        }
    }
}

fn survives(choices: &[u8], version: Version) {
    let mut choices = Choices::new(choices);
    let mut config = Config::default();
    config.version = version;
    config.window = 1 + u16::try_from(choices.below(6)).unwrap();
    config.outgoing_limit = choices.pick(&[200, 256 << 10]);
    let mut world = World::new(version, config);
    world.durable = choices.pick(&[Durable::Always, Durable::WhenOffline(20)]);
    let durable = world.durable;
    world.client().set_durable(durable);
    while !choices.is_empty() {
        let role = choices.pick(&[Role::Client, Role::Server]);
        match choices.below(16) {
            0..=4 => {
                let qos = choices.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce]);
                world.publish(role, qos, choices.pick(&[0, 0, 0, 130, 600]));
            }
            5..=7 => world.pair.write(role, 1 + choices.below(200)),
            8..=10 => world.pair.read(role, 1 + choices.below(200)),
            11 if choices.flag() => world.pair.run(),
            11 => {
                world.pair.now = world.pair.now.after(Duration::from_millis(7));
                let now = world.pair.now;
                world.client().tick(now).unwrap();
            }
            12 | 13 => world.store(choices.below(4)),
            14 => {
                world.pair.cut();
                world.pair.connect();
            }
            _ => {
                world.crash(choices.below(200), choices.flag());
                if choices.flag() {
                    world.pair.connect();
                }
            }
        }
        world.listen();
    }
    world.settle();
    if !world.pair.client.is_connected() || !world.pair.server.is_connected() {
        world.pair.connect();
    }
    world.settle();
    assert_eq!(
        (world.pair.client.pending(), world.pair.server.pending()),
        (0, 0),
        "something stalls"
    );
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_survives_crashes_in_3_1_1(choices in vec(any::<u8>(), 0..400)) {
        survives(&choices, Version::V311);
    }

    #[test]
    fn a_client_survives_crashes_in_5(choices in vec(any::<u8>(), 0..400)) {
        survives(&choices, Version::V5);
    }

    #[test]
    fn any_records_restore_or_are_refused(bytes in vec(any::<u8>(), 0..200), kinds in vec((0_u8..5, vec(0_u8..4, 0..9), vec(0_u8..64, 0..30)), 0..20)) {
        let mut client = client(Config::default());
        let format = Format::new(Machine::Client).value();
        let kind = Format::KIND;
        client.restore(&Record { kind, key: &[], value: Some(&format) }).unwrap();
        for record in Records::new(&bytes).map_while(Result::ok) {
            let _ = client.restore(&record);
        }
        for (kind, key, value) in &kinds {
            let _ = client.restore(&Record { kind: Kind::new(*kind), key, value: Some(value) });
        }
        client.restored();
        prop_assert!(client.pending() <= 1_100);
    }
}

/// A world whose client is connected, and all is stored.
fn world(version: Version) -> World {
    let mut config = Config::default();
    config.version = version;
    World::new(version, config)
}

/// 3.1.1 [MQTT-4.3.3-1], 5 [MQTT-4.4.0-1]: until the message and its identifier are stored, another could take the identifier.
#[test]
fn a_qos_2_publish_waits_for_its_record_and_a_qos_1_publish_does_not() {
    let mut world = world(Version::V311);
    world.publish(Role::Client, QoS::AtLeastOnce, 0);
    assert!(!world.client().outgoing().is_empty());
    let n = world.client().outgoing().len();
    world.client().sent(n);
    world.publish(Role::Client, QoS::ExactlyOnce, 0);
    assert_eq!(world.client().outgoing(), b"");
    world.store(1);
    assert_eq!(world.client().outgoing(), b"", "only the first is stored");
    world.store(1);
    assert_eq!(world.client().outgoing()[0], 0x34);
}

/// 3.1.1 [MQTT-3.1.2-6], 5 [MQTT-3.1.2-4]: the server ends its session when it reads CONNECT, so the end must be known here.
#[test]
fn a_clean_connect_waits_for_its_record_and_is_not_forgotten() {
    let mut world = world(Version::V5);
    world.publish(Role::Server, QoS::ExactlyOnce, 0);
    world.pair.run();
    world.pair.cut();
    world.settle();
    world.pair.opening.clean_start = true;
    world.pair.connect();
    assert_eq!(world.client().outgoing(), b"");
    world.store(usize::MAX);
    assert_eq!(world.client().outgoing()[0], 0x10);
    world.pair.write(Role::Client, usize::MAX);
    let mut next = restored(world.config, &world.log, true);
    assert_eq!(next.restored(), Some("pump-7"));
    assert!(next.must_start_clean());
}

/// A session that the server began anew, without being asked to: an identifier means a new message in it. What makes the server send
/// waits until this is stored, or a message would be taken for one of the old session.
#[test]
fn what_follows_a_new_session_waits_for_its_record() {
    let mut world = world(Version::V5);
    world.publish(Role::Server, QoS::ExactlyOnce, 0);
    world.pair.run();
    world.store(usize::MAX);
    assert_eq!(taken(&world.log), 1);
    world.pair.server_restarts();
    world.pair.connect();
    world.pair.run();
    let now = world.pair.now;
    let filter = TopicFilter::from_static("a");
    let filters = [Subscription::new(filter, QoS::ExactlyOnce)];
    let client = world.client();
    client.subscribe(&filters, Properties::EMPTY, now).unwrap();
    assert_eq!(client.outgoing(), b"");
    world.store(usize::MAX);
    assert_eq!(world.client().outgoing()[0], 0x82);
    // The message of the old session is not one of this.
    let next = restored(world.config, &world.log, true);
    world.pair.cut();
    world.pair.client_log.clear();
    world.pair.client = Endpoint::Client(Box::new(next));
    world.publish(Role::Server, QoS::ExactlyOnce, 0);
    world.pair.connect();
    world.pair.run();
    let came = |event: &OwnedEvent| matches!(event, OwnedEvent::Message { .. });
    assert!(world.pair.client_log.iter().any(came));
}

/// 3.1.1 [MQTT-4.4.0-1], 5 [MQTT-4.4.0-1]: PUBREL fits every version. If nothing else is restored, the version of the session is that of
/// the settings, and need not be that of CONNECT.
#[test]
fn a_message_whose_pubrec_came_is_released_after_a_restart_in_any_version() {
    for (version, configured) in [(Version::V5, Version::V311), (Version::V311, Version::V5)] {
        let mut world = world(version);
        world.config.version = configured;
        world.publish(Role::Client, QoS::ExactlyOnce, 0);
        world.store(usize::MAX);
        world.pair.write(Role::Client, usize::MAX);
        world.pair.read(Role::Server, usize::MAX);
        let _ = world.outgoing_after_read();
        world.store(usize::MAX);
        world.crash(0, true);
        world.pair.connect();
        world.pair.run();
        let types = world.pair.wrote(Role::Client);
        assert_eq!(types.last(), Some(&PacketType::PubRel));
        world.settle();
        assert_eq!(world.client().pending(), 0);
    }
}

/// 3.1.1 [MQTT-4.4.0-1], 5 [MQTT-4.4.0-1]: in the first order and under the first identifiers.
#[test]
fn what_was_not_acknowledged_goes_out_again_after_a_restart() {
    let mut world = world(Version::V311);
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce] {
        world.publish(Role::Client, qos, 0);
    }
    world.store(usize::MAX);
    let next = restored(world.config, &world.log, true);
    let kept: Vec<_> = next
        .unacknowledged_all()
        .map(|(token, publish)| (token.packet_id().unwrap().get(), publish.payload.to_vec()))
        .collect();
    let payload = |number| format!("{number:06}").into_bytes();
    assert_eq!(kept, [(1, payload(0)), (2, payload(1)), (3, payload(2))]);
    world.pair.cut();
    world.pair.client = Endpoint::Client(Box::new(next));
    world.pair.connect();
    world.settle();
    assert_eq!(world.served.len(), 3);
    assert_eq!(world.client().pending(), 0);
}

#[test]
fn a_full_journal_refuses_until_something_is_stored() {
    let mut world = world(Version::V5);
    let now = world.pair.now;
    world.client().config_mut().outgoing_limit = 1 << 20;
    let mut accepted = 0;
    for len in [15 << 10, 500, 0] {
        let payload = vec![b'7'; len];
        while world
            .pair
            .client
            .publish(QoS::AtLeastOnce, "a", &payload, now)
            .is_ok()
        {
            accepted += 1;
            assert!(accepted < 100);
        }
    }
    // What needs no record goes on, what comes in waits.
    assert!(
        world
            .pair
            .client
            .publish(QoS::AtMostOnce, "a", b"x", now)
            .is_ok()
    );
    world.publish(Role::Server, QoS::AtLeastOnce, 0);
    world.pair.run();
    world.listen();
    assert_eq!(world.effects, []);
    world.store(usize::MAX);
    world.settle();
    assert_eq!(world.effects.len(), 1);
    assert_eq!(world.served.len(), accepted + 1);
}

#[test]
fn after_a_failure_nothing_that_waits_goes_out() {
    let mut world = world(Version::V5);
    world.publish(Role::Client, QoS::ExactlyOnce, 0);
    world.client().storage_failed();
    let now = world.pair.now;
    let refused = world.pair.client.publish(QoS::AtLeastOnce, "a", b"x", now);
    assert_eq!(refused.err(), Some(Refused::Full));
    world.publish(Role::Server, QoS::ExactlyOnce, 0);
    world.pair.run();
    world.listen();
    assert_eq!((world.effects.len(), world.served.len()), (0, 0));
}

#[test]
fn records_of_another_machine_are_refused() {
    let mut client = client(Config::default());
    let broker = Format::new(Machine::Broker).value();
    let kind = Format::KIND;
    let record = |value| Record {
        kind,
        key: &[],
        value: Some(value),
    };
    assert_eq!(client.restore(&record(&broker)), Err(Fault::Machine));
    let first = Record {
        kind: Kind::new(2),
        key: &[0; 8],
        value: None,
    };
    assert_eq!(client.restore(&first), Err(Fault::NoFormat));
}

/// 5 [MQTT-4.3.3-10] and [MQTT-4.3.3-12], 3.1.1 [MQTT-4.3.3-2]: PUBREC and PUBCOMP wait, so that the identifier means after a crash what
/// the server thinks it means. PUBACK does not wait.
#[test]
fn the_acknowledgements_of_a_qos_2_message_wait_for_their_records() {
    let mut world = world(Version::V311);
    world.publish(Role::Server, QoS::AtLeastOnce, 0);
    let outgoing = world.outgoing_after_read();
    assert_eq!(outgoing[0], 0x40);
    world.pair.write(Role::Client, usize::MAX);
    world.publish(Role::Server, QoS::ExactlyOnce, 0);
    for packet in [0x50, 0x70] {
        assert_eq!(world.outgoing_after_read(), b"");
        world.store(1);
        assert_eq!(world.client().outgoing()[0], packet);
        world.pair.write(Role::Client, usize::MAX);
        world.pair.read(Role::Server, usize::MAX);
    }
}

/// 3.1.1 [MQTT-4.4.0-1], 5 [MQTT-4.3.3-6]: once PUBREL is out the message is never published again, not after a crash either.
#[test]
fn pubrel_waits_for_its_record() {
    let mut world = world(Version::V5);
    world.publish(Role::Client, QoS::ExactlyOnce, 0);
    world.store(1);
    world.pair.write(Role::Client, usize::MAX);
    world.pair.read(Role::Server, usize::MAX);
    assert_eq!(world.outgoing_after_read(), b"");
    world.store(1);
    assert_eq!(world.client().outgoing()[0], 0x62);
}

/// What PUBREC came for has no packet, which would tell the version.
#[test]
fn messages_behind_a_released_one_are_restored_in_the_version_of_their_packets() {
    let mut world = world(Version::V5);
    world.publish(Role::Client, QoS::ExactlyOnce, 0);
    world.store(1);
    world.pair.write(Role::Client, usize::MAX);
    world.pair.read(Role::Server, usize::MAX);
    world.outgoing_after_read();
    world.publish(Role::Client, QoS::AtLeastOnce, 0);
    world.store(usize::MAX);
    let next = restored(Config::default(), &world.log, true);
    assert_eq!((next.pending(), next.unacknowledged_all().count()), (2, 1));
}

/// A schedule in which a process is restored without some messages and gives their numbers to others. In the records of all processes
/// together these messages end, and their numbers come again, while older messages are not acknowledged: one of them stalled.
const NUMBERS_GIVEN_AGAIN: &[u8] = &[
    22, 56, 0, 21, 0, 0, 0, 0, 0, 0, 165, 0, 0, 21, 0, 0, 5, 0, 0, 21, 0, 0, 133, 0, 0, 5, 0, 0,
    11, 0, 16, 1, 65, 0, 27, 71, 0, 0, 0, 0, 48, 1, 55, 0, 53, 0, 0, 5, 0, 0, 5, 0, 0, 48, 13, 0,
    0, 133, 0, 8, 0, 0, 188, 0, 78, 0, 78, 0, 139, 0, 47, 107, 0, 0, 0, 5, 0, 0, 133, 0, 0, 101, 0,
    126, 16, 39, 15, 0, 69, 0, 0, 91, 0, 43, 0, 0, 255, 75, 0, 5, 0, 0, 21, 0, 0, 21, 0, 0, 37, 0,
    0, 15, 64, 0, 43, 0, 203, 0, 75, 0, 21, 0, 0, 15, 58, 5, 0, 0, 69, 0, 0, 181, 0, 6, 144, 0, 78,
    0, 14, 0, 107, 0, 37, 0, 0, 108, 53, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 85, 0, 0, 112, 0,
    0, 0, 0, 0, 0, 0, 43, 7, 16, 0, 48, 0, 142, 0, 69, 0, 0, 46, 0, 21, 0, 0, 47, 0, 6, 84, 0, 53,
    0, 0, 0, 0, 0, 0, 5, 0, 0, 37, 0, 0, 21, 0, 0, 5, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0,
];

#[test]
fn numbers_that_were_given_again_are_restored() {
    survives(NUMBERS_GIVEN_AGAIN, Version::V311);
}
