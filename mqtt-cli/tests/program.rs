//! Checks that errors of the program are one clear line with a non-zero exit code, without a panic or a hang; and tests `decode`
//! and `encode`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use mqtt_proto::{List, ReasonCode, SubAck};
use mqtt_session::ServerEvent;
use mqtt_testing::packets::vectors;
use mqtt_testing::peers::Mosquitto;
use mqtt_testing::peers::{Reaction, ScriptedServer};
use mqtt_testing::process::{Ended, Process, run, words};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

fn mqtt(arguments: &[&str]) -> Ended {
    run(MQTT, arguments, "")
}

/// A disk that is full behind standard error does not end the program.
#[cfg(target_os = "linux")]
#[test]
fn an_unwritable_standard_error_is_no_panic() {
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut command = std::process::Command::new(MQTT);
    command.args(["encode", "--as", "raw", "--length", "pingreq"]);
    let ended = command.stderr(full.unwrap()).output().unwrap();
    assert_eq!(
        (ended.status.code(), &ended.stdout[..]),
        (Some(0), &b"\xc0\0"[..])
    );
}

/// Checks that it failed with `code` and printed one line that contains `words`.
#[track_caller]
fn failed(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with("mqtt: ") && ended.stderr.contains(words),
        "{}",
        ended.stderr
    );
}

#[test]
fn wrong_arguments_are_reported_with_exit_code_2() {
    for arguments in [
        &["pub"][..],
        &["pub", "-t", "a"],
        &["pub", "-t", "a", "-m", "x", "-n"],
        &["pub", "-t", "a", "-m", "x", "-q", "3"],
        &["pub", "-t", "a", "-m", "x", "-p", "70000"],
        &["pub", "-t", "a", "-m", "x", "-V", "4"],
        &["pub", "-t", "a", "-m", "x", "--repeat-delay", "-1"],
        &["pub", "-t", "a", "-m", "x", "--will-retain"],
        &["sub"],
        &["sub", "-t", "a", "-C", "0"],
        &["sub", "-t", "a", "-i", "x", "-I", "y"],
        &["nonsense"],
        &["encode"],
        &["encode", "publish", "-m", "x"],
        &["decode", "--version", "7", "c000"],
    ] {
        let ended = mqtt(arguments);
        // As in mosquitto's programs, these exit with 1; the other commands exit with 2.
        let code = if matches!(arguments[0], "pub" | "sub") {
            1
        } else {
            2
        };
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("--help"),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
}

#[test]
fn impossible_arguments_are_explained_in_one_line() {
    for (arguments, words) in [
        (&["pub", "-t", "a/#", "-m", "x"][..], "wildcard"),
        (&["pub", "-t", "", "-m", "x"], "empty"),
        (&["sub", "-t", "a/#/b"], "wildcard"),
        (&["pub", "-t", "a", "-m", "x", "-c"], "-i"),
        (&["pub", "-t", "a", "-m", "x", "-P", "secret"], "user name"),
        (&["pub", "-t", "a", "-m", "x", "-x", "5"], "-V 5"),
        (&words("pub -t a -m x -D publish content-type y"), "-V 5"),
        (&words("pub -t a -m x -V 5 -D publish colour y"), "colour"),
        (&words("pub -t a -m x -V 5 -D sing content-type y"), "sing"),
        (
            &words("pub -t a -m x -V 5 -D publish user-property y"),
            "name and a value",
        ),
        (
            &["pub", "-L", "mqtts://h/a", "-m", "x", "--psk", "00"],
            "client certificate",
        ),
        (
            &["sub", "-L", "wss://u:p@h/a", "-S"],
            "mqtt:// and mqtts://",
        ),
        (&words("pub -t a -m x -S -h 192.0.2.1"), "of a domain"),
        (
            &["pub", "-L", "http://h/a", "-m", "x"],
            "the scheme is none of",
        ),
        (&["pub", "-L", "mqtt://h", "-m", "x"], "topic"),
        (&["pub", "-t", "a", "-f", "no such file"], "no such file"),
        (&["sub", "-t", "a", "-F", "%y"], "%y"),
        (
            &words("encode publish -t a -q 1 --packet-id 0"),
            "packet identifier",
        ),
        (
            &["encode", "-D", "content-type=x", "publish", "-t", "a"],
            "MQTT 5",
        ),
        (&["decode", "zz"], "hex"),
        (&["decode", "c"], "hex"),
        (&["decode", "3005"], "cut short"),
    ] {
        failed(&mqtt(arguments), 1, words);
    }
}

#[test]
fn help_and_version_exit_with_0() {
    for arguments in [&["--help"][..], &["--version"]] {
        let ended = mqtt(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.contains("mqtt"));
    }
}

/// Each page that another page names is there, and says how its command is called.
#[test]
fn manual_pages_are_written_for_all_commands() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("manual");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let ended = mqtt(&["man", "--directory", folder.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let pages: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    assert!(pages.len() > 30, "{}", pages.len());
    for page in pages {
        let path = page.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        // Without what roff has for fonts and hyphens.
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .replace("\\fB", "")
            .replace("\\fR", "")
            .replace("\\-", "-");
        let synopsis = text.split_once(".SH SYNOPSIS\n").unwrap().1;
        let calls = name.replace('-', " ");
        assert!(synopsis.starts_with(&calls), "{name}: {synopsis}");
        for line in text.lines().filter(|line| line.ends_with("(1)")) {
            let other = line.trim_end_matches("(1)");
            assert!(
                folder.join(format!("{other}.1")).is_file(),
                "{name}: {other}"
            );
        }
    }
}

#[test]
fn the_help_of_each_command_has_an_example() {
    let help = mqtt(&["--help"]).stdout;
    let list = help.split_once("Commands:").unwrap().1;
    let names: Vec<&str> = list
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() >= 15, "{help}");
    for name in names {
        let ended = mqtt(&[name, "--help"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let text = &ended.stdout;
        assert!(text.contains("Example"), "{name}");
        assert!(text.contains(&format!("mqtt {name}")), "{name}");
    }
}

#[test]
fn a_missing_broker_is_reported_in_one_line() {
    // No server listens on port 1, and no test uses it.
    for command in [&["pub", "-m", "x"][..], &["sub"]] {
        let arguments = [command, &["-t", "a", "-h", "127.0.0.1", "-p", "1"]].concat();
        failed(&mqtt(&arguments), 1, "refused");
    }
}

/// The exit code is the one of CONNACK: 5 in 3.1.1, 135 in 5.
#[test]
fn a_refused_connection_exits_with_the_connack_code() {
    let broker = Mosquitto::start("allow_anonymous false");
    let port = broker.port.to_string();
    for (version, code) in [("3.1.1", 5), ("5", 135)] {
        for command in [&["pub", "-m", "x"][..], &["sub"]] {
            let arguments = [
                command,
                &["-t", "a", "-h", "127.0.0.1", "-p", &port, "-V", version],
            ]
            .concat();
            failed(&mqtt(&arguments), code, "not authorized");
        }
    }
}

#[test]
fn a_refused_subscription_is_reported_in_one_line() {
    let broker = ScriptedServer::start(|event, server| {
        if let ServerEvent::Subscribe(subscribe) = event {
            let codes = [ReasonCode::UnspecifiedError];
            server
                .subscribed(&SubAck::new(subscribe.packet_id, List::from(&codes[..])))
                .unwrap();
            return Reaction::Nothing;
        }
        Reaction::Usual
    });
    let port = broker.port.to_string();
    for version in ["3.1.1", "5"] {
        let arguments = [
            "sub",
            "-t",
            "secret/#",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-V",
            version,
        ];
        failed(&mqtt(&arguments), 1, "secret/#");
    }
}

#[test]
fn a_publisher_ends_when_its_broker_vanishes() {
    // The port stays taken, so that no broker of another test uses it.
    let vanished = AtomicBool::new(false);
    let broker = ScriptedServer::start(move |event, _| {
        if matches!(event, ServerEvent::Message(message) if message.publish.payload == b"two") {
            vanished.store(true, Ordering::Relaxed);
        }
        if vanished.load(Ordering::Relaxed) {
            Reaction::HangUp
        } else {
            Reaction::Usual
        }
    });
    let port = broker.port.to_string();
    let mut publisher = Process::start(
        MQTT,
        &[
            &["pub", "-h", "127.0.0.1", "-p", &port, "-t", "a", "-q", "1"][..],
            &["-l", "--patience", "0.2", "-d"],
        ]
        .concat(),
    );
    publisher.write("one\n");
    publisher.wait_stderr("receiving PUBACK");
    publisher.write("two\n");
    publisher.wait_stderr("did not come back within 0.2 s");
    assert_eq!(publisher.end().code, Some(1));
}

#[test]
fn a_broker_that_never_answers_can_be_interrupted() {
    let broker = ScriptedServer::start(|event, _| {
        if matches!(event, ServerEvent::Connect(_)) {
            Reaction::Freeze
        } else {
            Reaction::Usual
        }
    });
    let port = broker.port.to_string();
    for (command, code) in [(&["pub", "-m", "x"][..], 1), (&["sub"], 0)] {
        let program = Process::start(
            MQTT,
            &[command, &["-t", "a", "-h", "127.0.0.1", "-p", &port, "-d"]].concat(),
        );
        program.wait_stderr("sending CONNECT");
        program.signal("INT");
        assert_eq!(program.end().code, Some(code));
    }
}

#[test]
fn a_time_limit_exits_with_27() {
    let broker = ScriptedServer::start(|_, _| Reaction::Usual);
    let port = broker.port.to_string();
    failed(
        &mqtt(&[
            "sub",
            "-t",
            "a",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-W",
            "0.2",
        ]),
        27,
        "timed out",
    );
}

/// A reader that closes the output, such as `head`, causes no error.
#[test]
fn a_closed_output_is_no_error() {
    let broker = ScriptedServer::start(|event, server| {
        if matches!(event, ServerEvent::Subscribe(_)) {
            let topic = mqtt_proto::TopicName::from_static("a");
            for _ in 0..3 {
                let message = mqtt_session::Outgoing::new(topic, mqtt_proto::QoS::AtMostOnce, b"x");
                server.publish(&message).unwrap();
            }
        }
        Reaction::Usual
    });
    let script = format!("{MQTT} sub -t a -h 127.0.0.1 -p {} | true", broker.port);
    let ended = run("bash", &["-o", "pipefail", "-c", &script], "");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

/// Every vector is decoded with all its bytes, or refused with the place of the wrong byte.
#[test]
fn decode_shows_every_vector() {
    for vector in vectors::all() {
        let hex: String = vector
            .bytes
            .iter()
            .map(|byte| format!("{byte:02X} "))
            .collect();
        let ended = run(MQTT, &["decode", "--json"], &hex);
        let bare_number = vector.expectation.starts_with("variable byte integer");
        let wrong = vector.expectation.starts_with("MALFORMED");
        let code = i32::from(wrong || bare_number);
        assert_eq!(ended.code, Some(code), "{}: {}", vector.name, ended.stderr);
        // A single number may be the beginning of a valid or of an invalid packet.
        if !bare_number {
            assert_eq!(ended.stdout.contains("\"error\""), wrong, "{}", vector.name);
        }
        assert!(
            !ended.stderr.contains("panicked"),
            "{}: {}",
            vector.name,
            ended.stderr
        );
        for line in ended.stdout.lines() {
            let packet: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(fields) = packet["fields"].as_array() else {
                assert!(packet["error"]["rule"].is_string(), "{line}");
                continue;
            };
            let (from, len) = (
                packet["at"].as_u64().unwrap(),
                packet["length"].as_u64().unwrap(),
            );
            let shown: Vec<&str> = fields
                .iter()
                .map(|field| field["bytes"].as_str().unwrap())
                .filter(|bytes| !bytes.is_empty())
                .collect();
            let (from, to) = (
                usize::try_from(from).unwrap(),
                usize::try_from(from + len).unwrap(),
            );
            let expected: Vec<String> = vector.bytes[from..to]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(shown.join(" "), expected.join(" "), "{}", vector.name);
        }
    }
}

#[test]
fn decode_points_at_the_wrong_byte() {
    let ended = mqtt(&["decode", "c000", "82 0a 0001 00 05 61 2f 23 2f 62 00"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.stdout,
        "MQTT 3.1.1: no CONNECT says which; -V chooses\nPINGREQ, 2 bytes, MQTT 3.1.1\n\
         \x20    0  c0                       PINGREQ\n     1  00                       remaining length 0\n\
         SUBSCRIBE, malformed, MQTT 3.1.1\n     2  82 0a 00 01 00 05 61 2f 23 2f 62 00\n\
         \x20                               ^^ byte 10: wildcard in a topic filter is misplaced\n\
         \x20                                  statement MQTT-4.7.1-2 of MQTT 3.1.1, reason code topic filter invalid\n"
    );
    assert_eq!(ended.stderr.lines().count(), 1);
}

#[test]
fn encode_is_the_inverse_of_decode() {
    for (line, hex) in [
        (
            "connect -i abc -k 10 -c",
            "10 0f 00 04 4d 51 54 54 04 00 00 0a 00 03 61 62 63",
        ),
        (
            "publish -t a/b -m hi -q 1 --packet-id 10 -r",
            "33 09 00 03 61 2f 62 00 0a 68 69",
        ),
        ("publish -t a --hex 00FF", "30 05 00 01 61 00 ff"),
        (
            "subscribe -t a -t b/# -q 2",
            "82 0c 00 01 00 01 61 02 00 03 62 2f 23 02",
        ),
        ("unsubscribe -t a --packet-id 7", "a2 05 00 07 00 01 61"),
        ("pingreq", "c0 00"),
        ("disconnect", "e0 00"),
        (
            "disconnect -V 5 --reason 4 -D reason-string=bye",
            "e0 08 04 06 1f 00 03 62 79 65",
        ),
    ] {
        let words = words(line);
        let ended = mqtt(&[&["encode"], &words[..]].concat());
        assert_eq!(
            (ended.code, ended.stdout.trim_end()),
            (Some(0), hex),
            "{}",
            ended.stderr
        );
        let version = if words.contains(&"5") { "5" } else { "3.1.1" };
        assert_eq!(
            run(MQTT, &["decode", "--version", version], &ended.stdout).code,
            Some(0)
        );
    }
    // Hex digits may have spaces.
    let spaced = mqtt(&["encode", "publish", "-t", "a", "--hex", "00 FF"]);
    assert_eq!(spaced.stdout, "30 05 00 01 61 00 ff\n");
}
