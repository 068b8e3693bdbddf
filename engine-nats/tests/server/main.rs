//! The engine on a real server: take-over, the reserve, fencing, long records, compaction, and a server that is killed.

mod access;
mod owners;
mod pipes;
mod shards;

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use async_nats::jetstream::{self, kv, stream};
use mqtt_engine_nats::store::journal::{Kind, Record};
use mqtt_engine_nats::store::{Changes, Engine, Failure};
use mqtt_engine_nats::{Config, Nats, Notice, OpenError};
use mqtt_testing::peers::NatsServers;
use mqtt_testing::wires::Network;
use tokio::runtime::Runtime;

const TAKES_OVER: Notice = Notice::TakesOver {
    shard: 0,
    shards: 1,
};

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// The configuration of a node on a single server.
fn config(servers: &NatsServers, node: &str) -> Config {
    let mut config = Config::new(vec![servers.url()], node);
    config.replicas = 1;
    config.lease = Duration::from_secs(1);
    config.compact_from = 40_000;
    config
}

/// Opens a journal in a thread, and returns what it tells until then.
fn opening(
    config: Config,
) -> (
    thread::JoinHandle<Result<Nats, OpenError>>,
    Receiver<Notice>,
) {
    let (sender, notices) = channel();
    let open = move || {
        let notice = move |notice| {
            let _ = sender.send(notice);
        };
        runtime().block_on(Nats::open(config, notice))
    };
    (thread::spawn(open), notices)
}

fn open(config: Config) -> Nats {
    opening(config).0.join().unwrap().unwrap()
}

fn put(nats: &mut Nats, key: &[u8], value: &[u8]) -> Result<i64, Failure> {
    let record = Record {
        kind: Kind::new(3),
        key,
        value: Some(value),
    };
    nats.commit(&Changes::of(&[record]), u64::MAX)
}

fn entries(nats: &mut Nats) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    nats.read(&mut |record| {
        entries.push((record.key.to_vec(), record.value.unwrap().to_vec()));
    })
    .unwrap();
    entries
}

/// Waits for the notice that a process is in reserve.
fn waits_in_reserve(notices: &Receiver<Notice>, owner: &str) {
    let owner = owner.to_owned();
    let reserve = Notice::Reserve { owner };
    let found = notices.iter().find(|notice| *notice == reserve);
    assert_eq!(found, Some(reserve));
}

#[test]
fn the_reserve_takes_over_what_is_stored() {
    let servers = NatsServers::start(1, "max_payload: 5000");
    let (thread, notices) = opening(config(&servers, "one"));
    let mut one = thread.join().unwrap().unwrap();
    let told: Vec<_> = notices.try_iter().collect();
    let created = Notice::Created("MQTT-journal-0".to_owned());
    assert_eq!(told, [created, TAKES_OVER]);
    assert_eq!(entries(&mut one), []);
    // Longer than five messages of the server.
    let long: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    assert_eq!(put(&mut one, b"long", &long), Ok(20_005));
    let (thread, notices) = opening(config(&servers, "two"));
    waits_in_reserve(&notices, "one");
    assert_eq!(put(&mut one, b"short", b"1"), Ok(7));
    one.close().unwrap();
    let mut two = thread.join().unwrap().unwrap();
    let expected = [(b"long".to_vec(), long), (b"short".to_vec(), b"1".to_vec())];
    assert_eq!(entries(&mut two), expected);
    let by = Failure::Superseded("two, since sequence 9".to_owned());
    assert_eq!(put(&mut one, b"late", b""), Err(by.clone()));
    assert_eq!(put(&mut one, b"late", b""), Err(by));
    assert_eq!(two.epoch(), 2);
    // Without a farewell, its key ends after the lease.
    drop(two);
    let mut three = open(config(&servers, "three"));
    assert_eq!(entries(&mut three), expected);
}

/// One request for messages returns at most 2 MiB, and a block has at most 1 MiB.
#[test]
fn a_journal_of_long_blocks_is_read() {
    let servers = NatsServers::start(1, "");
    let with = |node| {
        let mut config = config(&servers, node);
        config.compact_from = 1 << 30;
        config.patience = Duration::from_secs(10);
        config
    };
    let mut one = open(with("one"));
    let expected: Vec<_> = (0..12).map(|n| (vec![n], vec![n; 1_000_000])).collect();
    for (key, value) in &expected {
        put(&mut one, key, value).unwrap();
    }
    one.close().unwrap();
    assert_eq!(entries(&mut open(with("two"))), expected);
}

#[test]
fn a_commit_waits_for_a_server_that_was_killed() {
    let mut servers = NatsServers::start(1, "");
    let mut nats = open(config(&servers, "one"));
    assert_eq!(put(&mut nats, b"a", b"1"), Ok(3));
    servers.kill(0);
    let (done, committed) = channel();
    let thread = thread::spawn(move || {
        done.send(put(&mut nats, b"b", b"2")).unwrap();
        nats
    });
    assert!(committed.try_recv().is_err());
    servers.restart(0);
    assert_eq!(committed.recv().unwrap(), Ok(3));
    let mut nats = thread.join().unwrap();
    let expected = [(b"a", b"1"), (b"b", b"2")].map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert_eq!(entries(&mut nats), expected);
}

/// Blocks before a snapshot are deleted on the server, and a message that no owner wrote ends the start.
#[test]
fn a_long_journal_becomes_short_and_a_foreign_message_is_damage() {
    let servers = NatsServers::start(1, "");
    let mut nats = open(config(&servers, "one"));
    for n in 0..60_u8 {
        put(&mut nats, &[n % 3], &[n; 1000]).unwrap();
    }
    let expected: Vec<_> = (57..60).map(|n| (vec![n % 3], vec![n; 1000])).collect();
    assert_eq!(entries(&mut nats), expected);
    nats.close().unwrap();
    let url = servers.url();
    let (first, foreign) = runtime().block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        let context = jetstream::new(client);
        let stream = context.get_stream("MQTT-journal-0").await.unwrap();
        let first = stream.cached_info().state.first_sequence;
        let publish = context.publish("mqtt.journal.0", "hello".into());
        (first, publish.await.unwrap().await.unwrap().sequence)
    });
    assert!(first > 30, "the first block is {first}");
    let opened = opening(config(&servers, "two")).0.join().unwrap();
    let why = format!("sequence {foreign} of the stream: it is shorter than a block");
    assert_eq!(opened.unwrap_err(), Failure::Damaged(why).into());
}

/// An owner that stores nothing learns by its key that it is not the owner any more.
#[test]
fn an_idle_owner_learns_that_another_one_has_its_key() {
    let servers = NatsServers::start(1, "");
    let nats = open(config(&servers, "one"));
    let url = servers.url();
    let loss = runtime().block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        let context = jetstream::new(client);
        let store = context.get_key_value("MQTT-owner").await.unwrap();
        store.put("0", "ff two".into()).await.unwrap();
        nats.lost().wait().await
    });
    assert_eq!(loss, Failure::Superseded("two".to_owned()));
}

#[test]
fn settings_of_the_servers_that_lose_messages_are_told() {
    let servers = NatsServers::start(1, "");
    let url = servers.url();
    runtime().block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        let context = jetstream::new(client);
        let stream = stream::Config {
            name: "MQTT-journal-0".to_owned(),
            subjects: vec!["mqtt.journal.0".to_owned()],
            storage: stream::StorageType::Memory,
            max_age: Duration::from_secs(3600),
            ..stream::Config::default()
        };
        context.create_stream(stream).await.unwrap();
        let bucket = kv::Config {
            bucket: "MQTT-owner".to_owned(),
            max_age: Duration::from_secs(2),
            ..kv::Config::default()
        };
        context.create_key_value(bucket).await.unwrap();
    });
    let mut config = config(&servers, "one");
    config.replicas = 3;
    let (thread, notices) = opening(config);
    let nats = thread.join().unwrap().unwrap();
    assert_eq!(nats.lease(), Duration::from_secs(2));
    let told: Vec<_> = notices
        .try_iter()
        .map(|notice| notice.to_string())
        .collect();
    let expected = [
        "the stream MQTT-journal-0 has fewer replicas than the configuration of this process",
        "the stream MQTT-journal-0 is not stored in files",
        "the stream MQTT-journal-0 allows that single messages are deleted",
        "the stream MQTT-journal-0 deletes messages by itself",
        "the keys of the bucket MQTT-owner end after 2s, whatever the configuration of this process says",
        "takes over",
    ];
    assert_eq!(told, expected);
}

#[test]
fn user_and_password_of_a_server_are_those_of_its_address() {
    let servers = NatsServers::start(1, "authorization { user: broker, password: \"p@ss\" }");
    let mut config = config(&servers, "one");
    config.servers = vec![servers.url().replace("nats://", "nats://broker:p%40ss@")];
    assert!(!format!("{config:?}").contains("p%40ss"), "{config:?}");
    let mut nats = open(config.clone());
    put(&mut nats, b"a", b"1").unwrap();
    drop(nats);
    // With a wrong password this process waits, and tells why without it.
    config.servers = vec![servers.url().replace("nats://", "nats://broker:other@")];
    let notices = opening(config).1;
    let Notice::Waits(why) = notices.recv().unwrap() else {
        panic!("another notice");
    };
    assert!(
        why.to_lowercase().contains("authorization") && !why.contains("other"),
        "{why}"
    );
}

#[test]
fn a_name_that_no_stream_can_have_is_refused() {
    let mut config = Config::new(vec!["nats://127.0.0.1:1".to_owned()], "one");
    config.shard = "a.b".to_owned();
    let opened = runtime().block_on(Nats::open(config, |_| ()));
    let why = "the name of a journal has 1 to 64 letters, digits, - and _";
    assert_eq!(opened.unwrap_err(), Failure::Broken(why.to_owned()).into());
}

/// A process that is asked to end while it takes over: another one does not wait for the end of its key.
#[test]
fn who_gives_up_while_it_takes_over_hands_over() {
    let servers = NatsServers::start(1, "");
    let config = |node| {
        let mut config = config(&servers, node);
        config.lease = Duration::from_secs(3600);
        config
    };
    for _ in 0..5 {
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let notice = move |notice| {
            let _ = sender.send(notice);
        };
        runtime().block_on(async {
            let mut opening = pin!(Nats::open(config("one"), notice));
            let taking_over = async { while told.recv().await != Some(TAKES_OVER) {} };
            tokio::select! {
                biased;
                () = taking_over => {}
                _ = &mut opening => unreachable!("it takes over before"),
            }
        });
    }
    open(config("two")).close().unwrap();
}

/// A process gives up while the servers do not answer, and another one takes over. When the servers answer again, the first process does
/// not begin an epoch over that of the owner.
#[test]
fn who_gives_up_without_an_answer_does_not_end_the_next_owner() {
    let servers = NatsServers::start(1, "");
    let network = Arc::new(Network::to(servers.port(0)));
    let mut one = config(&servers, "one");
    one.servers = vec![format!("nats://127.0.0.1:{}", network.port)];
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let cut = Arc::clone(&network);
    let notice = move |notice| {
        if notice == TAKES_OVER {
            cut.cut(true);
        }
        let _ = sender.send(notice);
    };
    runtime().block_on(async {
        let mut opening = pin!(Nats::open(one, notice));
        let taking_over = async { while told.recv().await != Some(TAKES_OVER) {} };
        tokio::select! {
            () = taking_over => {}
            _ = &mut opening => unreachable!("it has no answer"),
        }
    });
    let mut two = open(config(&servers, "two"));
    network.cut(false);
    // Its last thread frees what tells of it.
    runtime().block_on(async { while told.recv().await.is_some() {} });
    put(&mut two, b"key", b"value").unwrap();
}
