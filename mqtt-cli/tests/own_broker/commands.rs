//! Runs `mqtt broker`, `mqtt passwd` and `mqtt demo` like a user.

use std::path::PathBuf;

use crate::broker::{Broker, MQTT};
use mqtt_testing::process::{Ended, Process, run};

/// Makes a folder for a test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[track_caller]
pub(crate) fn is_well(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

/// Checks that it failed with `code` and printed one line that contains `words`.
#[track_caller]
pub(crate) fn failed(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("mqtt: ") && last.contains(words),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_demo_shows_each_flow_and_the_resume() {
    for version in ["3.1", "3.1.1", "5"] {
        let ended = run(MQTT, &["demo", "-V", version], "");
        is_well(&ended);
        let mut rest = ended.stdout.as_str();
        for words in [
            "publisher  -> PUBLISH QoS 0",
            "subscriber <- PUBLISH QoS 0",
            "publisher  <- PUBACK",
            "subscriber -> PUBACK",
            "subscriber -> PUBREC",
            "subscriber -> PUBCOMP",
            "subscriber -- cut --",
            "subscriber -> CONNECT",
            "subscriber <- PUBLISH QoS 2, DUP",
            "subscriber -> PUBREC",
            "subscriber -> PUBCOMP",
            "4 messages published, 4 received, each once",
        ] {
            let at = rest.find(words);
            let at = at.unwrap_or_else(|| panic!("{words} is missing in {}", ended.stdout));
            rest = &rest[at..];
        }
    }
}

#[test]
fn a_public_address_needs_users_or_allow_anonymous() {
    let ended = run(MQTT, &["broker", "--bind", "0.0.0.0:0"], "");
    failed(&ended, 1, "everyone could connect to 0.0.0.0:0");
    for arguments in [
        &["broker", "--bind", "127.0.0.1:0", "--log", "loud"][..],
        &["broker", "--bind", "nowhere.invalid:1"],
        &["broker", "--config", "/nowhere/broker.toml"],
        &["broker", "--user-file", "/nowhere/users"],
        &["broker", "--acl-file", "/nowhere/acl"],
    ] {
        failed(&run(MQTT, arguments, ""), 1, "");
    }
    let taken = Broker::start(&[]);
    let address = format!("127.0.0.1:{}", taken.port);
    failed(
        &run(MQTT, &["broker", "--bind", &address], ""),
        1,
        &format!("cannot bind {address}"),
    );
}

#[test]
fn passwords_and_rules_are_enforced() {
    let folder = folder("users");
    let (users, acl) = (folder.join("users"), folder.join("acl"));
    let (users, acl) = (users.to_str().unwrap(), acl.to_str().unwrap());
    is_well(&run(MQTT, &["passwd", users, "pump"], "wrong\n"));
    is_well(&run(MQTT, &["passwd", users, "pump"], "secret\n"));
    is_well(&run(MQTT, &["passwd", users, "valve"], "other\n"));
    is_well(&run(MQTT, &["passwd", "-D", users, "valve"], ""));
    let text = std::fs::read_to_string(users).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("pump:$argon2id$"), "{text}");
    failed(&run(MQTT, &["passwd", users, "a:b"], "x\n"), 1, "colon");
    failed(&run(MQTT, &["passwd", users, "c"], "\n"), 1, "empty");
    failed(
        &run(MQTT, &["passwd", "-D", users, "nobody"], ""),
        1,
        "there is no user",
    );

    std::fs::write(acl, "user pump\ntopic write plant/#\ntopic read orders/#\n").unwrap();
    let broker = Broker::start(&["--user-file", users, "--acl-file", acl]);
    // Without a user name, with a wrong password and with an unknown name: the codes of 3.1.1 and 5.
    for (arguments, code) in [
        (&["-V", "3.1.1"][..], 5),
        (&["-V", "5"], 135),
        (&["-V", "3.1.1", "-u", "pump", "-P", "wrong"], 4),
        (&["-V", "5", "-u", "pump", "-P", "wrong"], 134),
        (&["-V", "3.1.1", "-u", "valve", "-P", "other"], 4),
    ] {
        let all = [&["-t", "plant/a", "-m", "x"], arguments].concat();
        let ended = broker.run("pub", &all);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
    }
    let known = ["-u", "pump", "-P", "secret", "-q", "1"];
    let publish = |topic, version| {
        let all = [&known[..], &["-t", topic, "-m", "x", "-V", version]].concat();
        broker.run("pub", &all)
    };
    is_well(&publish("plant/a", "3.1.1"));
    is_well(&publish("plant/a", "5"));
    failed(&publish("orders/a", "5"), 1, "not authorized");
    let request = ["-t", "orders/a", "-e", "orders/b", "-m", "x"];
    let asked = broker.run("rr", &[&known[..], &request].concat());
    failed(&asked, 1, "not authorized");
    // 3.1.1 cannot report it; the message is dropped and acknowledged.
    is_well(&publish("orders/a", "3.1.1"));
    let subscribe = |topic, version| {
        let all = [&known[..], &["-t", topic, "-E", "-V", version]].concat();
        broker.run("sub", &all)
    };
    is_well(&subscribe("orders/#", "3.1.1"));
    is_well(&subscribe("orders/#", "5"));
    // Mosquitto grants these as well, and delivers nothing.
    is_well(&subscribe("plant/#", "5"));
    is_well(&subscribe("plant/#", "3.1.1"));
    broker.process.signal("TERM");
    let log = broker.process.end().stderr;
    assert_eq!(count_unreadable(&log, "plant/#"), 2, "{log}");
    assert_eq!(count_unreadable(&log, "orders/#"), 0, "{log}");
}

/// Returns how many lines tell that a client may read no topic of a filter.
fn count_unreadable(log: &str, filter: &str) -> usize {
    let filter = format!("filter=\"{filter}\"");
    let has_both = |line: &&str| line.contains(&filter) && line.contains("lets it read no topic");
    log.lines().filter(has_both).count()
}

/// The arguments are those of mosquitto_passwd, whose files are supported as well.
#[test]
fn password_files_are_compatible_with_mosquitto() {
    let folder = folder("mosquitto-users");
    let made = folder.join("mosquitto");
    let made = made.to_str().unwrap();
    is_well(&run(MQTT, &["passwd", "-c", "-b", made, "old", "x"], ""));
    is_well(&run(
        MQTT,
        &["passwd", "-c", "-b", made, "pump", "secret"],
        "",
    ));
    let text = std::fs::read_to_string(made).unwrap();
    assert!(text.starts_with("pump:$argon2id$v=19$m=19456,t=2") && text.lines().count() == 1);
    for (hash, kind) in [("sha512", "$6$"), ("sha512-pbkdf2", "$7$")] {
        is_well(&run(
            "mosquitto_passwd",
            &["-H", hash, "-c", "-b", made, "pump", "secret"],
            "",
        ));
        assert!(std::fs::read_to_string(made).unwrap().contains(kind));
        let broker = Broker::start(&["--user-file", made]);
        for (password, code) in [("secret", 0), ("wrong", 4), ("secret", 0)] {
            let ended = broker.run("pub", &["-u", "pump", "-P", password, "-t", "a", "-m", "x"]);
            assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        }
    }
}

/// A mistake in a rules file must not allow anything.
#[test]
fn an_invalid_line_in_a_file_prevents_the_start() {
    let folder = folder("wrong");
    let (users, acl) = (folder.join("users"), folder.join("acl"));
    let (users, acl) = (users.to_str().unwrap(), acl.to_str().unwrap());
    for (text, words) in [
        (
            "topic #\ntopic dney secret/#\n",
            "line 2: unknown access \"dney\"",
        ),
        (
            "user pump\ntopic read\n",
            "line 2: the topic filter is missing",
        ),
        ("topic deny a/b c/d\n", "line 1: superfluous word \"c/d\""),
        (
            "topic read a/#/b\n",
            "line 1: wrong topic filter \"a/#/b\": ",
        ),
    ] {
        std::fs::write(acl, text).unwrap();
        let ended = run(MQTT, &["broker", "--acl-file", acl], "");
        failed(&ended, 1, &format!("{acl}: {words}"));
    }
    for (text, words) in [
        ("# users\npump\n", "line 2: must be name:hash"),
        (
            "pump:$argon2id$v=19$m=19456,t=2,p=1$YWJj\n",
            "line 1: the hash is none of Argon2",
        ),
        (
            ":$argon2id$v=19$m=19456,t=2,p=1$YWJj$YWJj\n",
            "line 1: the user name is empty",
        ),
    ] {
        std::fs::write(users, text).unwrap();
        let ended = run(MQTT, &["broker", "--user-file", users], "");
        failed(&ended, 1, &format!("{users}: {words}"));
    }
}

#[cfg(unix)]
#[test]
fn files_that_every_user_can_read_or_change_cause_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder("open");
    let (users, acl) = (folder.join("users"), folder.join("acl"));
    let (users, acl) = (users.to_str().unwrap(), acl.to_str().unwrap());
    is_well(&run(MQTT, &["passwd", users, "pump"], "secret\n"));
    std::fs::write(acl, "topic #\n").unwrap();
    for (mode, told) in [
        (0o600, None),
        (0o640, None),
        (0o644, Some("every user of this machine can read this file")),
        (
            0o602,
            Some("every user of this machine can change this file"),
        ),
    ] {
        for path in [users, acl] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let broker = Broker::start(&["--user-file", users, "--acl-file", acl]);
        broker.process.signal("TERM");
        let log = broker.process.end().stderr;
        let about: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("every user"))
            .collect();
        assert_eq!(about.len(), if told.is_some() { 2 } else { 0 }, "{log}");
        for (line, path) in about.iter().zip([users, acl]) {
            assert!(line.contains("WARN") && line.contains(path), "{line}");
            assert!(told.is_some_and(|told| line.contains(told)), "{line}");
        }
    }
}

#[test]
fn options_take_precedence_over_the_configuration_file() {
    let file = folder("config").join("broker.toml");
    std::fs::write(&file, "log = \"debug\"\npacket-size = 1000\n").unwrap();
    let file = file.to_str().unwrap();
    let message = "x".repeat(2_000);
    let publish = |broker: &Broker| {
        let arguments = [
            "-V",
            "5",
            "-q",
            "1",
            "-t",
            "a",
            "-m",
            &message,
            "--patience",
            "1",
        ];
        broker.run("pub", &arguments)
    };
    let broker = Broker::start(&["--config", file]);
    failed(&publish(&broker), 1, "1000 are allowed");
    is_well(&broker.run("sub", &["-t", "a", "-E"]));
    broker.process.wait_stderr("subscribed");
    let broker = Broker::start(&["--config", file, "--packet-size", "3000"]);
    is_well(&publish(&broker));
}

#[test]
fn a_stopped_broker_sends_disconnect() {
    for signal in ["INT", "TERM"] {
        let broker = Broker::start(&[]);
        let subscriber = broker.spawn("sub", &["-t", "a", "-V", "5", "-d"]);
        subscriber.wait_stderr("receiving SUBACK");
        let old = broker.spawn("sub", &["-t", "a", "-d"]);
        old.wait_stderr("receiving SUBACK");
        broker.process.signal(signal);
        is_well(&broker.process.end());
        subscriber.wait_stderr("receiving DISCONNECT, reason code server shutting down");
        old.wait_stderr("connection lost");
    }
}

#[test]
fn a_client_that_is_killed_leaves_its_will_and_keeps_its_session() {
    for version in ["3.1.1", "5"] {
        let broker = Broker::start(&[]);
        let watcher = broker.spawn("sub", &["-t", "wills/#", "-v", "-C", "1", "-d"]);
        watcher.wait_stderr("receiving SUBACK");
        let keep = ["-V", version, "-i", "pump", "-c", "-t", "orders", "-q", "1"];
        let will = ["--will-topic", "wills/pump", "--will-payload", "gone", "-d"];
        let client = broker.spawn("sub", &[&keep[..], &will].concat());
        client.wait_stderr("receiving SUBACK");
        client.signal("KILL");
        let seen = watcher.end();
        assert_eq!(seen.stdout, "wills/pump gone\n");
        is_well(&broker.run("pub", &["-t", "orders", "-m", "stop", "-q", "1"]));
        let back = broker.run("sub", &[&keep[..], &["-C", "1"]].concat());
        assert_eq!(back.stdout, "stop\n", "{}", back.stderr);
    }
}

#[test]
fn check_prints_the_limits_of_the_broker() {
    let broker = Broker::start(&[]);
    let ended = run(MQTT, &["check", "127.0.0.1", "-p", &broker.port], "");
    is_well(&ended);
    for words in [
        "MQTT 5\n",
        "MQTT 3.1.1\n",
        "MQTT 3.1\n",
        "accepted",
        "maximum QoS              2\n",
        "wildcards                yes\n",
    ] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    let ended = run(
        MQTT,
        &["check", "127.0.0.1", "-p", &broker.port, "--json"],
        "",
    );
    let facts: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        facts["versions"]["5"]["shared subscriptions"], true,
        "{facts}"
    );
    assert_eq!(facts["versions"]["3.1"]["accepted"], true, "{facts}");
    failed(
        &run(MQTT, &["check", "127.0.0.1", "-p", "1"], ""),
        1,
        "refused",
    );
    let users = folder("check").join("users");
    let users = users.to_str().unwrap();
    is_well(&run(MQTT, &["passwd", users, "pump"], "secret\n"));
    let broker = Broker::start(&["--user-file", users]);
    let to = ["check", "127.0.0.1", "-p", &broker.port];
    // The code is that of CONNACK in the newest version.
    let ended = run(MQTT, &to, "");
    failed(&ended, 135, "accepts no version");
    assert!(ended.stdout.contains("not authorized"), "{}", ended.stdout);
    is_well(&run(
        MQTT,
        &[&to[..], &["-u", "pump", "-P", "secret"]].concat(),
        "",
    ));
}

#[test]
fn completions_and_manual_pages_contain_each_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(MQTT, &["completions", shell], "");
        is_well(&ended);
        for command in ["decode", "talk", "--will-topic"] {
            assert!(
                ended.stdout.contains(command.trim_start_matches('-')),
                "{shell} {command}"
            );
        }
    }
    let folder = folder("man");
    is_well(&run(
        MQTT,
        &["man", "--directory", folder.to_str().unwrap()],
        "",
    ));
    for (page, words) in [
        ("mqtt", "mqtt"),
        ("mqtt-decode", "pcapng"),
        ("mqtt-sub", "retained"),
    ] {
        let text = std::fs::read_to_string(folder.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(words), "{page}");
    }
    assert!(run(MQTT, &["man"], "").stdout.contains(".SH NAME"));
}

/// Scripts for Mosquitto call the broker with these options.
#[test]
fn options_of_the_mosquitto_broker_are_accepted() {
    let folder = folder("mosquitto_options");
    let config = folder.join("broker.toml");
    std::fs::write(&config, "maximum-qos = 1\n").unwrap();
    let config = config.to_str().unwrap();
    let broker = Process::start(MQTT, &["broker", "-v", "-p", "0", "-c", config]);
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    let refused = run(
        MQTT,
        &["pub", "-p", &port, "-q", "2", "-t", "a", "-m", "b"],
        "",
    );
    assert_ne!(refused.code, Some(0));
    let subscribed = run(MQTT, &["sub", "-p", &port, "-t", "a", "-E"], "");
    is_well(&subscribed);
    broker.wait_stderr("subscribed");
}

#[test]
fn a_configuration_of_mosquitto_is_converted() {
    let folder = folder("mosquitto_import");
    let theirs = folder.join("mosquitto.conf");
    std::fs::write(
        &theirs,
        "listener 0 127.0.0.1\nport 1883\nbridge_cafile x\npassword_file /nowhere/users\n",
    )
    .unwrap();
    let ended = run(MQTT, &["broker", "--import", theirs.to_str().unwrap()], "");
    is_well(&ended);
    let text = &ended.stdout;
    assert!(text.starts_with("bind = [\"0.0.0.0:1883\", "), "{text}");
    assert!(text.ends_with("# line 3: bridge_cafile x\n"), "{text}");
    let ours = folder.join("broker.toml");
    std::fs::write(&ours, &ended.stdout).unwrap();
    let ended = run(MQTT, &["broker", "-c", ours.to_str().unwrap()], "");
    failed(&ended, 1, "/nowhere/users");
    failed(&run(MQTT, &["broker", "--import", "none"], ""), 1, "none: ");
}
