//! Several journals of one broker: each process takes one that is free, and the number of shards stays the same.

use std::collections::BTreeSet;
use std::thread;

use async_nats::jetstream;
use mqtt_engine_nats::store::{Engine, Failure};
use mqtt_engine_nats::{Config, Nats, Notice, OpenError};
use mqtt_testing::peers::NatsServers;

use crate::{config, entries, open, opening, put, runtime};

/// The configuration of a node of a broker with `shards` shards.
pub(crate) fn of_shards(servers: &NatsServers, node: &str, shards: u8) -> Config {
    let mut config = config(servers, node);
    config.shards = shards;
    config
}

fn refused(config: Config) -> OpenError {
    opening(config).0.join().unwrap().unwrap_err()
}

#[test]
fn each_process_takes_a_free_shard_and_the_reserve_the_first_that_becomes_free() {
    let servers = NatsServers::start(1, "");
    // Without one that is closed, no key ends.
    let of = |node: &str| {
        let mut config = of_shards(&servers, node, 3);
        config.lease = std::time::Duration::from_secs(3600);
        config
    };
    let started: Vec<_> = ["a", "b", "c"].map(|node| opening(of(node)).0).into();
    let opened = started.into_iter().map(|one| one.join().unwrap().unwrap());
    let mut nodes: Vec<Nats> = opened.collect();
    let shards: BTreeSet<_> = nodes.iter().map(|nats| nats.shard()).collect();
    assert_eq!(shards, BTreeSet::from([0, 1, 2]));
    let keys: BTreeSet<_> = nodes
        .iter()
        .map(|nats| (nats.shards(), nats.key()))
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let mut owners = vec![""; 3];
    for (nats, node) in nodes.iter_mut().zip(["a", "b", "c"]) {
        owners[usize::from(nats.shard())] = node;
        put(nats, b"from", node.as_bytes()).unwrap();
    }
    let (reserve, notices) = opening(of("d"));
    let owners: Vec<_> = owners.into_iter().map(str::to_owned).collect();
    let told = format!(
        "in reserve: the 3 shards have owners: {}",
        owners.join(", ")
    );
    let waits = Notice::ReserveForAll { owners };
    assert_eq!(waits.to_string(), told);
    assert_eq!(notices.iter().find(|notice| *notice == waits), Some(waits));
    let freed = nodes[1].shard();
    nodes[1].close().unwrap();
    let mut reserve = reserve.join().unwrap().unwrap();
    assert_eq!((reserve.shard(), reserve.epoch()), (freed, 2));
    assert_eq!(reserve.key(), nodes[0].key());
    let of_b = [(b"from".to_vec(), b"b".to_vec())];
    assert_eq!(entries(&mut reserve), of_b);
    let takes = Notice::TakesOver {
        shard: freed,
        shards: 3,
    };
    assert_eq!(notices.try_iter().last(), Some(takes));
    let by = put(&mut nodes[1], b"late", b"").unwrap_err();
    assert!(matches!(by, Failure::Superseded(_)), "{by}");
}

#[test]
fn a_journal_keeps_its_number_of_shards() {
    let servers = NatsServers::start(1, "");
    let three = open(of_shards(&servers, "a", 3));
    let other = |journal: &str, stored, given| OpenError::Shards {
        journal: journal.to_owned(),
        stored,
        given,
    };
    for given in [1, 2, 4] {
        let error = refused(of_shards(&servers, "b", given));
        assert_eq!(error, other("0", 3, given));
    }
    // One of another name is of this broker only if it has the same name.
    let mut named = of_shards(&servers, "b", 1);
    named.shard = "0-1".to_owned();
    let one = open(named.clone());
    assert_ne!(one.key(), three.key());
    named.shards = 2;
    let error = refused(named);
    assert_eq!(error, other("0-1", 1, 2));
    let text = "the journal 0-1 has 1 shard, but the configuration of this process has 2";
    assert_eq!(error.to_string(), text);
    for shards in [0, 65] {
        let why = "a broker has 1 to 64 shards".to_owned();
        let error = refused(of_shards(&servers, "b", shards));
        assert_eq!(error, Failure::Broken(why).into());
    }
}

/// A process of several shards notes their number after the process of one shard looked for it, and before that has its stream.
#[test]
fn of_two_processes_that_start_together_with_other_numbers_not_both_serve() {
    let servers = NatsServers::start(1, "");
    let url = servers.url();
    let notice = move |notice| {
        if matches!(notice, Notice::Created(_)) {
            let url = url.clone();
            // The thread that tells the notice is in a runtime already.
            let noting = thread::spawn(move || runtime().block_on(note_three(url)));
            noting.join().unwrap();
        }
    };
    let opened = runtime().block_on(Nats::open(config(&servers, "a"), notice));
    let error = OpenError::Shards {
        journal: "0".to_owned(),
        stored: 3,
        given: 1,
    };
    assert_eq!(opened.unwrap_err(), error);
    // The other one sees the stream.
    let error = OpenError::Shards {
        journal: "0".to_owned(),
        stored: 1,
        given: 3,
    };
    assert_eq!(refused(of_shards(&servers, "b", 3)), error);
    // Without the note, the one of one shard serves.
    runtime().block_on(delete_note(servers.url()));
    drop(open(config(&servers, "a")));
}

async fn delete_note(url: String) {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let bucket = context.get_key_value("MQTT-shards").await.unwrap();
    bucket.delete("0").await.unwrap();
}

async fn note_three(url: String) {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let bucket = jetstream::kv::Config {
        bucket: "MQTT-shards".to_owned(),
        ..jetstream::kv::Config::default()
    };
    let bucket = context.create_key_value(bucket).await.unwrap();
    let noted = bucket.create("0", "3 00000000000000ab".into()).await;
    noted.unwrap();
}

/// With another key, clients would be in other shards than their sessions.
#[test]
fn journals_without_their_key_are_damaged() {
    let servers = NatsServers::start(1, "");
    drop(open(of_shards(&servers, "a", 2)));
    let url = servers.url();
    let change = |value: Option<&'static str>| {
        let url = url.clone();
        runtime().block_on(async move {
            let client = async_nats::connect(url).await.unwrap();
            let context = jetstream::new(client);
            match value {
                Some(value) => {
                    let bucket = context.get_key_value("MQTT-shards").await.unwrap();
                    bucket.put("0", value.into()).await.unwrap();
                }
                None => drop(context.delete_key_value("MQTT-shards").await.unwrap()),
            }
        });
    };
    change(Some("2 key"));
    let why = "the key 0 of the bucket MQTT-shards is not valid".to_owned();
    let error = refused(of_shards(&servers, "b", 2));
    assert_eq!(error, Failure::Damaged(why).into());
    change(None);
    let why = "the bucket MQTT-shards has no key 0, but there is a stream MQTT-shard-0-0";
    let error = refused(of_shards(&servers, "b", 2));
    assert_eq!(error, Failure::Damaged(why.to_owned()).into());
}
