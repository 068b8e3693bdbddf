//! What servers permit, and connections to them over TLS.

use std::process::Command;

use mqtt_engine_nats::store::Engine;
use mqtt_engine_nats::{Config, Notice};
use mqtt_testing::peers::NatsServers;

use crate::pipes::{patient, two};
use crate::{entries, open, opening, put, runtime};

/// docs/CLUSTER.md names these subjects.
#[test]
fn a_user_with_permissions_for_few_subjects_is_enough() {
    let servers = NatsServers::start(
        1,
        r#"authorization {
             users: [ { user: a, password: b, permissions: {
               publish: ["mqtt.>", "_INBOX.>", "$JS.API.>", "$KV.MQTT-owner.>", "$KV.MQTT-shards.>"]
               subscribe: ["mqtt.>", "_INBOX.>"]
             } } ]
           }"#,
    );
    let with_user = |node| {
        let mut config = patient(&servers, node);
        config.servers = vec![servers.url().replace("nats://", "nats://a:b@")];
        config
    };
    let mut two = two(with_user("near"), with_user("far"));
    put(&mut two.near, b"key", b"value").unwrap();
    assert_eq!(entries(&mut two.near).len(), 1);
    runtime().block_on(two.echo());
    two.near.close().unwrap();
    let mut next = open(with_user("next"));
    assert_eq!(entries(&mut next).len(), 1);
}

/// Without the subscriptions of pipes, a process serves without links: the log has to tell why.
#[test]
fn subscriptions_that_are_not_permitted_are_told() {
    let servers = NatsServers::start(
        1,
        r#"authorization {
             users: [ { user: a, password: b, permissions: { publish: [">"], subscribe: ["_INBOX.>"] } } ]
           }"#,
    );
    let mut config = patient(&servers, "near");
    config.servers = vec![servers.url().replace("nats://", "nats://a:b@")];
    let (thread, notices) = opening(config);
    let near = thread.join().unwrap().unwrap();
    let _incoming = near.pipes().unwrap().serve();
    let forbidden = notices.iter().filter_map(|notice| match notice {
        Notice::Forbidden(what) => Some(what),
        _ => None,
    });
    let told: Vec<_> = forbidden.take(2).collect();
    for subject in ["mqtt.pipe.0.", "mqtt.shard.0."] {
        let is_told = told.iter().any(|what| what.contains(subject));
        assert!(is_told, "{told:?}");
    }
}

/// The variable of the process in which [`a_pipe_goes_over_tls`] uses the servers.
const OVER_TLS: &str = "MQTT_TEST_NATS_OVER_TLS";

/// The certificates of the system are those of a file here, which only a new process reads.
#[test]
fn a_pipe_goes_over_tls() {
    if let Ok(url) = std::env::var(OVER_TLS) {
        let with = |node: &str| {
            let mut config = Config::new(vec![url.clone()], node);
            (config.replicas, config.shards) = (1, 2);
            config
        };
        let mut two = two(with("near"), with("far"));
        runtime().block_on(two.echo());
        return;
    }
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let name = format!("mqtt-nats-tls-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}");
    let servers = NatsServers::start(1, &tls);
    let url = servers.url().replace("nats://", "tls://");
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "access::a_pipe_goes_over_tls"]);
    test.env(OVER_TLS, &url).env("SSL_CERT_FILE", &cert);
    let output = test.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    std::fs::remove_dir_all(directory).unwrap();
}
