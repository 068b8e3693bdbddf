//! Tests the signals of `mqtt broker`: SIGHUP reads the files again, and an error changes nothing.

use std::fs::write;
use std::path::Path;

use mqtt_testing::process::{Process, run};

use crate::broker::{Broker, MQTT};
use crate::commands::folder;

fn passwd(file: &Path, user: &str, password: &str) {
    let ended = run(
        MQTT,
        &["passwd", file.to_str().unwrap(), user],
        &format!("{password}\n"),
    );
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Publishes as a user. Returns the exit code, which is that of CONNACK or PUBACK for a refusal.
fn publishes(broker: &Broker, user: &str, password: &str, topic: &str) -> Option<i32> {
    let words = [
        "-V", "5", "-q", "1", "-u", user, "-P", password, "-t", topic, "-m", "x",
    ];
    broker.run("pub", &words).code
}

#[test]
fn sighup_reloads_users_rules_and_limits() {
    let folder = folder("reload");
    let file = |name: &str| folder.join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    passwd(&file("users"), "pump", "secret");
    write(file("acl"), "user pump\ntopic write a/#\n").unwrap();
    let config = format!(
        "user-file = {:?}\nacl-file = {:?}\n",
        path("users"),
        path("acl")
    );
    write(file("broker.toml"), &config).unwrap();
    let broker = Broker::start(&["--config", &path("broker.toml")]);
    let said = |words: &str| broker.process.wait_stderr(words);
    assert_eq!(publishes(&broker, "pump", "secret", "a/b"), Some(0));
    assert_eq!(publishes(&broker, "valve", "other", "a/b"), Some(134));

    passwd(&file("users"), "valve", "other");
    write(
        file("acl"),
        "user valve\ntopic a/#\nuser pump\ntopic write b\n",
    )
    .unwrap();
    write(file("broker.toml"), format!("{config}topic-levels = 2\n")).unwrap();
    for signal in ["USR1", "USR2", "HUP"] {
        broker.process.signal(signal);
    }
    said("read again");
    assert_eq!(publishes(&broker, "valve", "other", "a/b"), Some(0));
    assert_ne!(publishes(&broker, "valve", "other", "a/b/c"), Some(0));
    assert_ne!(publishes(&broker, "pump", "secret", "a/b"), Some(0));

    // An invalid file changes nothing, and the valid files beside it are not applied either.
    write(file("users"), "pump:secret\n").unwrap();
    write(file("acl"), "").unwrap();
    broker.process.signal("HUP");
    said("users: line 1: ");
    assert_eq!(publishes(&broker, "valve", "other", "a/b"), Some(0));
    write(file("broker.toml"), "\ntopic-level = 3\n").unwrap();
    broker.process.signal("HUP");
    said("broker.toml: line 2: unknown field");
    assert_eq!(publishes(&broker, "valve", "other", "a/b"), Some(0));
    write(file("broker.toml"), "connections = 0\n").unwrap();
    broker.process.signal("HUP");
    said("connections: must be at least 1");
    assert_eq!(publishes(&broker, "valve", "other", "a/b"), Some(0));
}

#[test]
fn sighup_changes_the_log_level_and_names_fixed_settings() {
    let folder = folder("reload-log");
    let file = folder.join("broker.toml");
    write(&file, "log = \"info\"\nbind = [\"127.0.0.1:0\"]\n").unwrap();
    let process = Process::start(MQTT, &["broker", "--config", file.to_str().unwrap()]);
    let port = process.wait_stderr_after("address=127.0.0.1:");
    write(&file, "log = \"debug\"\nbind = [\"127.0.0.1:1\"]\n").unwrap();
    process.signal("HUP");
    process.wait_stderr("a change of this needs a new start setting=\"bind\"");
    // Subscriptions are logged only at this level.
    let ended = run(MQTT, &["sub", "-p", &port, "-t", "a/#", "-E"], "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    process.wait_stderr("subscribed");
}

/// Each listener keeps who may connect there, wherever its table is in the file.
#[cfg(target_os = "linux")]
#[test]
fn reload_finds_the_settings_of_a_listener_by_its_address() {
    let folder = folder("reload-order");
    let users = folder.join("users");
    passwd(&users, "pump", "secret");
    let closed = format!("[[listener]]\nbind = [\"127.0.0.2:0\"]\nuser-file = {users:?}\n");
    let open = "[[listener]]\nbind = [\"127.0.0.1:0\"]\nallow-anonymous = true\n";
    let file = folder.join("broker.toml");
    write(&file, format!("{closed}{open}")).unwrap();
    let process = Process::start(MQTT, &["broker", "--config", file.to_str().unwrap()]);
    let ports = ["127.0.0.2", "127.0.0.1"].map(|host| {
        let port = process.wait_stderr_after(&format!("address={host}:"));
        (host, port)
    });
    let codes = || {
        ports.each_ref().map(|(host, port)| {
            let words = [
                "pub", "-h", host, "-p", port, "-V", "5", "-t", "a", "-m", "x",
            ];
            run(MQTT, &words, "").code
        })
    };
    assert_eq!(codes(), [Some(135), Some(0)]);
    write(&file, format!("{open}{closed}")).unwrap();
    process.signal("HUP");
    process.wait_stderr("read again");
    assert_eq!(codes(), [Some(135), Some(0)]);
}

/// The system's table of descriptors gets room for a higher limit of connections at once.
#[cfg(target_os = "linux")]
#[test]
fn reload_prepares_for_more_connections() {
    let file = folder("reload-connections").join("broker.toml");
    let limit = |connections: u32| {
        let text = format!("bind = [\"127.0.0.1:0\"]\nconnections = {connections}\n");
        write(&file, text).unwrap();
    };
    limit(10);
    let process = Process::start(MQTT, &["broker", "--config", file.to_str().unwrap()]);
    process.wait_stderr("address=127.0.0.1:");
    let room = || -> u32 {
        let path = format!("/proc/{}/status", process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        line.unwrap().trim().parse().unwrap()
    };
    assert!(room() < 900, "{}", room());
    limit(900);
    process.signal("HUP");
    process.wait_stderr("read again");
    assert!(room() >= 900, "{}", room());
}
