//! Tests that the settings, the sample file and the help of the options agree.

#[cfg(feature = "clap")]
use std::collections::BTreeSet;

#[cfg(feature = "clap")]
use clap::Args as _;

use super::*;

const SAMPLE: &str = include_str!("../../broker.toml");

/// Returns the sample with all keys active.
fn sample() -> String {
    let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with(' ') => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_as_it_is_says_nothing() {
    let settings: Settings = toml::from_str(SAMPLE).unwrap();
    assert_eq!(
        format!("{settings:?}"),
        format!("{:?}", Settings::default())
    );
}

#[cfg(feature = "clap")]
#[test]
fn the_sample_has_every_key() {
    let table: toml::Table = sample().parse().unwrap();
    let keys: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    let command = Settings::augment_args(clap::Command::new("broker"));
    let mut options: BTreeSet<&str> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .collect();
    // The command line has no option for this table.
    options.insert("listener");
    assert_eq!(keys, options);
}

#[test]
fn the_sample_has_the_defaults() {
    let mut settings: Settings = toml::from_str(&sample()).unwrap();
    // The sample has examples for these, because there is no default.
    settings.retained_expiry = None;
    settings.payload_size = None;
    settings.connections_per_address = None;
    settings.sessions_per_address = None;
    settings.sessions_per_user = None;
    assert_eq!(
        format!("{:?}", settings.config()),
        format!("{:?}", Config::default())
    );
}

#[cfg(feature = "clap")]
#[test]
fn the_help_says_the_defaults() {
    let table: toml::Table = sample().parse().unwrap();
    let command = Settings::augment_args(clap::Command::new("broker"));
    for argument in command.get_arguments() {
        let help = argument.get_help().unwrap().to_string();
        let Some((_, default)) = help.rsplit_once("Default ") else {
            continue;
        };
        let value = match &table[argument.get_long().unwrap()] {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(values) => values[0].as_str().unwrap().to_owned(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            value => panic!("{value:?}"),
        };
        assert_eq!(default, value, "{argument:?}");
    }
}

#[test]
fn what_would_serve_nobody_is_refused() {
    let check = |text: &str| {
        Settings::parse(text)
            .unwrap()
            .check()
            .map_err(|error| error.to_string())
    };
    for text in [
        "bind = []",
        "connections = 0",
        "pending-connections = 0",
        "connections-per-address = 0",
        "sessions = 0",
        "sessions-per-address = 0",
        "sessions-per-user = 0",
        "connect-timeout = 0",
        "keep-alive-percent = 0",
        "keep-alive-percent = 99",
        "password-queue = 0",
        "threads = 0",
        "threads = 65",
        "threads = 2\nengine = 'nats://h'\nnode = 'a'",
        "engine-shards = 0",
        "engine-shards = 65",
        "node-address = ''",
        "node-address = 'a b'",
        "handshakes = 0",
        "protocol-versions = []",
        "protocol-versions = [\"5\", \"6\"]",
        "maximum-qos = 3",
        "store-damaged = \"ignore\"",
        "durability = \"sometimes\"",
        "packet-size = 0",
        "packet-size = 127",
        "topic-levels = 0",
        "topic-length = 0",
        "outgoing-bytes = 127",
        "payload-size = 0",
        "subscriptions = 0",
        "subscription-bytes = 0",
        "subscription-bytes-total = 0",
        "tcp-keep-alive = 32768",
        "tcp-keep-alive-interval = 0",
        "tcp-keep-alive-interval = 32768",
        "tcp-keep-alive-probes = 0",
        "tcp-keep-alive-probes = 128",
    ] {
        let why = check(text).unwrap_err();
        assert!(
            why.starts_with(text.split_once(' ').unwrap().0),
            "{text}: {why}"
        );
    }
    check("connections = 1\nsessions = 1\nkeep-alive-percent = 100\npacket-size = 128").unwrap();
}

/// A broker has a store or an engine.
#[test]
fn the_sample_with_every_key_is_accepted() {
    let without = |keys: &[&str]| {
        let keeps = |line: &&str| !keys.iter().any(|key| line.starts_with(key));
        sample()
            .lines()
            .filter(keeps)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(why(&without(&["engine", "node"])), Ok(()));
    let of_engine = without(&["store =", "durability", "store-damaged"]);
    let several = of_engine.replace("engine-shards = 1", "engine-shards = 3");
    assert_eq!(why(&several), Ok(()));
}

#[test]
fn the_keep_alive_of_tcp_is_set() {
    let sample = Settings::parse(&sample()).unwrap();
    let default = TcpKeepAlive::default();
    assert_eq!(sample.tcp_keep_alive(), default);
    assert_eq!(Settings::default().tcp_keep_alive(), default);
    let text = "tcp-keep-alive = 77\ntcp-keep-alive-interval = 5\ntcp-keep-alive-probes = 3";
    let times = Settings::parse(text).unwrap().tcp_keep_alive();
    assert_eq!(
        (times.idle.as_secs(), times.interval.as_secs(), times.probes),
        (77, 5, 3)
    );
}

/// Returns why settings are refused.
fn why(text: &str) -> Result<(), String> {
    let checked = Settings::parse(text).unwrap().check();
    checked.map_err(|error| error.to_string())
}

/// They would have no effect: the broker would keep nothing, or not be one of several.
#[test]
fn a_setting_without_the_one_that_it_needs_is_refused() {
    for (text, missing) in [
        ("node = 'a'", "engine"),
        ("engine-journal = 'a'", "engine"),
        ("engine-replicas = 3", "engine"),
        ("engine-lease = 15", "engine"),
        ("engine-patience = 60", "engine"),
        ("engine-shards = 1", "engine"),
        ("engine-redirect = false", "engine"),
        ("engine-pipe-bytes = 5", "engine"),
        ("node-address = 'a:1'", "engine"),
        ("durability = 'stored'", "store"),
        ("store-damaged = 'refuse'", "store"),
        ("store-limit = 5", "store"),
        ("key = 'k'", "cert"),
        ("client-ca = 'a'", "cert"),
        ("client-certificate = 'optional'", "client-ca"),
        ("crl = 'l'", "client-ca"),
        ("identity-as-username = 'email'", "client-ca"),
    ] {
        let name = text.split_once(' ').unwrap().0;
        let told = why(text).expect_err(text);
        assert!(
            told.starts_with(&format!("{name}: needs {missing}")),
            "{told}"
        );
        // A table has some of them.
        let table = format!("[[listener]]\nbind = 'any://h:1'\n{text}");
        if Settings::parse(&table).is_ok() {
            assert_eq!(why(&table), Err(told));
        }
    }
    assert_eq!(why("durability = 'off'"), Ok(()));
    let engine = "engine = 'nats://h'\nnode = 'a'\n";
    assert_eq!(why(&format!("{engine}store-limit = 5")), Ok(()));
    for text in ["engine-redirect = true", "node-address = 'a:1'"] {
        let name = text.split_once(' ').unwrap().0;
        let told = why(&format!("{engine}{text}")).expect_err(text);
        let needs = format!("{name}: needs engine-shards above 1");
        assert!(told.starts_with(&needs), "{told}");
        assert_eq!(why(&format!("{engine}engine-shards = 2\n{text}")), Ok(()));
    }
}

/// What all listeners have may be for one of them.
#[test]
fn what_a_setting_needs_may_be_that_of_one_listener() {
    let table = "[[listener]]\nbind = 'mqtts://h:1'\ncert = 'c'\n";
    assert_eq!(why(&format!("bind = 'h:2'\nkey = 'k'\n{table}")), Ok(()));
    let other = "[[listener]]\nbind = 'h:2'\nkey = 'k'\n";
    let told = why(&format!("{table}{other}")).unwrap_err();
    assert!(told.starts_with("key: needs cert"), "{told}");
}

#[test]
fn an_engine_needs_a_name_and_no_store() {
    let engine = "engine = \"nats://a\"\n";
    let name = "node: must be given with engine: the other processes report it";
    assert_eq!(why(engine), Err(name.to_owned()));
    let store =
        "engine: cannot be given with store: the journal is on the engine or in the directory";
    let both = format!("{engine}node = \"one\"\nstore = \"there\"");
    assert_eq!(why(&both), Err(store.to_owned()));
    assert_eq!(why(&format!("{engine}node = \"one\"")), Ok(()));
}

/// Each link to another process has a session, which takes no place of a client.
#[test]
fn several_processes_have_a_session_more_for_each_other_one() {
    let sessions = |text: &str| {
        let settings = Settings::parse(text).unwrap();
        settings.config_of_process().sessions
    };
    let engine = "sessions = 7\nnode = 'a'\nengine = 'nats://h'";
    assert_eq!(sessions(engine), 7);
    assert_eq!(sessions(&format!("{engine}\nengine-shards = 3")), 9);
    assert_eq!(sessions("sessions = 7\nengine-shards = 3"), 7);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let wrong = |text: &str| {
        let (line, error) = Settings::parse(text).unwrap_err();
        (line, error.to_string())
    };
    let (line, message) = wrong("log = \"info\"\nwindows = 3");
    assert_eq!(line, Some(2));
    assert!(message.starts_with("unknown field `windows`"), "{message}");
    let (line, message) = wrong("window = \"many\"");
    assert_eq!(line, Some(1));
    assert!(message.starts_with("invalid type"), "{message}");
}
