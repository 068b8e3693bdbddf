//! Compares `mqtt pub`, `sub` and `rr` with mosquitto_pub, _sub and _rr: the same arguments give the same output and exit code.

mod tls;

use std::path::PathBuf;

use mqtt_testing::peers::Mosquitto;
use mqtt_testing::process::{Ended, Process, run};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// The programs to compare.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Mosquitto,
    Ours,
}

const BOTH: [Whose; 2] = [Whose::Mosquitto, Whose::Ours];

/// `command` is pub, sub or rr.
fn program(whose: Whose, command: &str) -> (String, Vec<&str>) {
    match whose {
        Whose::Mosquitto => (format!("mosquitto_{command}"), Vec::new()),
        Whose::Ours => (MQTT.to_owned(), vec![command]),
    }
}

fn run_as(whose: Whose, command: &str, arguments: &[&str], input: &str) -> Ended {
    let (program, first) = program(whose, command);
    run(&program, &[&first, arguments].concat(), input)
}

fn start_as(whose: Whose, command: &str, arguments: &[&str]) -> Process {
    let (program, first) = program(whose, command);
    Process::start(&program, &[&first, arguments].concat())
}

/// Splits at spaces; `_` stands for a space.
fn words(text: &str) -> Vec<String> {
    text.split(' ').map(|word| word.replace('_', " ")).collect()
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Removes the time stamp of JSON, which differs each time.
fn without_time(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some(at) = rest.find("\"tst\":") {
        let (before, after) = rest.split_at(at);
        kept.push_str(before);
        rest = after.split_once(',').map_or("", |(_, rest)| rest);
    }
    kept + rest
}

/// What a publisher is started with, and the number of its messages.
struct Publisher<'a> {
    arguments: &'a [&'a str],
    input: &'a str,
    count: usize,
}

/// Returns what an observer receives from a publisher.
fn published(broker: &Mosquitto, whose: Whose, publisher: &Publisher<'_>) -> (Ended, String) {
    let run = || run_as(whose, "pub", publisher.arguments, publisher.input);
    if publisher.count == 0 {
        return (run(), String::new());
    }
    let port = broker.port.to_string();
    let count = publisher.count.to_string();
    let format = "%t|%q|%r|%p|%C|%P";
    let observer = Process::start(
        MQTT,
        &[
            "sub", "-p", &port, "-V", "5", "-t", "a/#", "-q", "2", "-F", format, "-C", &count,
            "-R", "-d",
        ],
    );
    observer.wait_stderr("receiving SUBACK");
    let ended = run();
    let seen = if ended.code == Some(0) {
        observer.end().stdout
    } else {
        String::new()
    };
    (ended, seen)
}

/// Arguments of publishers, their input, and the number of their messages; `FILE` is a file.
const PUBLISHERS: &[(&str, &str, usize)] = &[
    ("-t a/b -m hello", "", 1),
    ("-t a/b -m hello -q 1", "", 1),
    ("--topic a/b --message hello --qos 2 --retain", "", 1),
    ("-t a/b -n -r", "", 1),
    ("-t a/b -l", "one\ntwo\n\nfour", 4),
    ("-t a/b -s", "all\nof it\n", 1),
    ("-t a/b -f FILE", "", 1),
    ("-t a/b -m x --repeat 3 --repeat-delay 0.01 -q 1", "", 3),
    ("-t a/b -m x -i me -c", "", 1),
    ("-t a/b -m x -I prefix", "", 1),
    ("-t a/b -m x -u user -P password", "", 1),
    ("-t a/b -m x -k 30 --quiet --nodelay", "", 1),
    ("-t a/b -m x -V mqttv31", "", 1),
    ("-t a/b -m x -V mqttv311", "", 1),
    ("-t a/b -m x -V mqttv5 -x 10 -c -i me5", "", 1),
    (
        "-t a/b -m x -V 5 -D publish content-type text -D publish user-property k v",
        "",
        1,
    ),
    (
        "-t a/b -m x -V 5 -D connect receive-maximum 5 --property publish message-expiry-interval 9",
        "",
        1,
    ),
    (
        "-t a/b -m x --will-topic w --will-payload gone --will-qos 1 --will-retain",
        "",
        1,
    ),
    ("-t a/b -m x -A 127.0.0.1", "", 1),
    ("-t a/b -l -M 2 -q 1", "1\n2\n3\n4\n5\n", 5),
    ("-t a/b -m x -t a/c", "", 1),
    ("-t a/b -m -x", "", 1),
    ("-t a/b -m x --insecure", "", 1),
    // The following arguments are refused.
    ("-t a/# -m x", "", 0),
    ("-t a/b", "", 0),
    ("-m x", "", 0),
    ("-t a/b -m x -q 3", "", 0),
    ("-t a/b -m x --nonsense", "", 0),
    ("-t a/b -m x -A 192.0.2.1", "", 0),
    ("-t a/b -m x --unix /nowhere/socket", "", 0),
    ("-t a/b -m x --cafile /nowhere/ca", "", 0),
    ("-t a/b -m x --psk 00", "", 0),
    ("-t a/b -m x -V 9", "", 0),
    ("-t a/b -f /nowhere/file", "", 0),
    ("-t a/b -m x -V 5 -D publish nonsense 1", "", 0),
    ("-t a/b -m x --will-payload x", "", 0),
    ("-t a/b -m x -S", "", 0),
];

#[test]
fn pub_behaves_as_mosquitto_pub() {
    let socket = folder("drop-in-unix");
    // When root starts Mosquitto, it changes to another user.
    #[cfg(unix)]
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let socket = socket.join("socket");
    let socket = socket.to_str().unwrap();
    let broker = Mosquitto::start(&format!("listener 0 {socket}\nallow_anonymous true"));
    let port = broker.port.to_string();
    let file = folder("drop-in-file").join("message");
    std::fs::write(&file, "from a file\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, input, count) in PUBLISHERS.iter().copied() {
        let words = words(arguments);
        let mut all: Vec<&str> = words
            .iter()
            .map(|word| if word == "FILE" { file } else { word })
            .collect();
        if !arguments.contains("--unix") {
            all.extend(["-h", "127.0.0.1", "-p", &port]);
        }
        let publisher = Publisher {
            arguments: &all,
            input,
            count,
        };
        let [theirs, ours] = BOTH.map(|whose| published(&broker, whose, &publisher));
        let context = format!("{arguments}\n{}\n{}", theirs.0.stderr, ours.0.stderr);
        assert_eq!(theirs.0.code, ours.0.code, "{context}");
        assert_eq!(theirs.0.code == Some(0), count > 0, "{context}");
        assert_eq!(theirs.1, ours.1, "{context}");
        assert_eq!(theirs.1.is_empty(), count == 0, "{context}");
    }
    let through_socket = ["-t", "a/b", "-m", "x", "--unix", socket];
    let url = format!("mqtt://user:word@127.0.0.1:{port}/a/url");
    for arguments in [&through_socket[..], &["-L", &url, "-m", "x"]] {
        let publisher = Publisher {
            arguments,
            input: "",
            count: 1,
        };
        let [theirs, ours] = BOTH.map(|whose| published(&broker, whose, &publisher));
        assert_eq!(
            (theirs.0.code, theirs.1),
            (ours.0.code, ours.1),
            "{}",
            ours.0.stderr
        );
        assert_eq!(ours.0.code, Some(0));
    }
}

/// Arguments of subscribers and their exit codes.
const SUBSCRIBERS: &[(&str, i32)] = &[
    ("-t a/# -C 2", 0),
    ("-t a/# -C 2 -v", 0),
    ("-t a/# -C 2 -N", 0),
    ("-t a/b -t a/c -C 2 -v -q 1", 0),
    ("-t a/# -T a/b -C 1 -v", 0),
    (
        "-t a/# -C 1 -V 5 -F %t|%q|%r|%l|%m|%x|%X|%C|%E|%P|%R|%S|%%|\\n",
        0,
    ),
    ("-t a/b -C 1 -V 5 -F %j", 0),
    ("-t a/b -C 1 -V 5 -F %j --pretty", 0),
    ("-t a/b -C 1 -V 5 -F %J", 0),
    ("-t a/b -C 1 -V 5 -F %J --pretty", 0),
    ("-t a/# -C 2 -F %-10t|%4p|%08p|%.2p|%6x|%5X|%.1t|%3l", 0),
    ("-t a/# -W 1 -R", 27),
    ("-t a/# -W 1", 27),
    ("-t nothing -W 1 -q 2", 27),
    ("-t a/# -E", 0),
    ("-U a/b -t a/c -C 1", 0),
    ("-t a/# -C 2 --retained-only", 0),
    ("-t a/# -C 2 -i me -c", 0),
    ("-t a/# -C 2 -V mqttv31", 0),
    ("-t a/# -C 1 --nodelay --quiet -k 10", 0),
    ("-t a/# -C 2 -D connect session-expiry-interval 0 -V 5", 0),
    ("-t a/# -C 1 -A 127.0.0.1 --insecure", 0),
    // A subscriber receives the empty message that clears a topic.
    ("-t a/# -W 1 -v --remove-retained", 27),
    ("-t a/# -W 1 --remove-retained", 27),
    // The following arguments are refused.
    ("-t a/#/b", 1),
    ("-t a -C 0", 1),
    ("-t a -q 3", 1),
    ("-t a --random-filter 0", 1),
    ("-t a -F %y", 1),
    ("-t a --nonsense", 1),
    ("-t a --cafile /nowhere/ca", 1),
    ("-t a -V 5 -D publish content-type x -D nonsense x y", 1),
];

#[test]
fn sub_prints_the_same_as_mosquitto_sub() {
    let broker = Mosquitto::start("");
    let port = broker.port.to_string();
    let to = ["-h", "127.0.0.1", "-p", &port];
    let put = |topic: &str, message: &str, more: &[&str]| {
        let arguments = [
            &["-t", topic, "-m", message, "-r", "-q", "1"],
            more,
            &to[..],
        ]
        .concat();
        assert_eq!(
            run_as(Whose::Mosquitto, "pub", &arguments, "").code,
            Some(0)
        );
    };
    for (arguments, code) in SUBSCRIBERS.iter().copied() {
        let words = words(arguments);
        let all: Vec<&str> = words.iter().map(String::as_str).chain(to).collect();
        let [theirs, ours] = BOTH.map(|whose| {
            let properties = "-V 5 -D publish content-type json -D publish user-property k v \
                -D publish user-property k w";
            let properties: Vec<&str> = properties.split(' ').collect();
            put("a/b", r#"{"x":[1,2.50,{"e":{}}],"s":"ü"}"#, &properties);
            put("a/c", "second", &[]);
            run_as(whose, "sub", &all, "")
        });
        let context = format!("{arguments}\n{}\n{}", theirs.stderr, ours.stderr);
        assert_eq!(theirs.code, ours.code, "{context}");
        assert_eq!(theirs.code, Some(code), "{context}");
        assert_eq!(
            without_time(&theirs.stdout),
            without_time(&ours.stdout),
            "{context}"
        );
    }
}

#[test]
fn retained_messages_are_removed_and_retain_handling_is_kept() {
    let broker = Mosquitto::start("");
    let port = broker.port.to_string();
    let ours = |command: &str, arguments: &[&str]| {
        let ended = run_as(
            Whose::Ours,
            command,
            &[&["-p", &port][..], arguments].concat(),
            "",
        );
        (ended.code, ended.stdout)
    };
    let put = || assert_eq!(ours("pub", &["-t", "a/b", "-m", "x", "-r"]).0, Some(0));
    put();
    // The program ends with the first message that is not retained: the empty one that removed the retained message.
    let removed = ours(
        "sub",
        &["-t", "a/#", "--remove-retained", "--retained-only"],
    );
    assert_eq!(removed, (Some(0), "x\n".to_owned()));
    put();
    let handling = |when, version| {
        ours(
            "sub",
            &[
                "-t",
                "a/#",
                "-C",
                "1",
                "-W",
                "1",
                "--retain-handling",
                when,
                "-V",
                version,
            ],
        )
    };
    // mosquitto_sub 2.0.11 prints one message in ten with 100; this program prints all.
    let all = ours("sub", &["-t", "a/#", "-C", "1", "--random-filter", "100"]);
    assert_eq!(all, (Some(0), "x\n".to_owned()));
    assert_eq!(handling("always", "5"), (Some(0), "x\n".to_owned()));
    assert_eq!(handling("new", "5"), (Some(0), "x\n".to_owned()));
    assert_eq!(handling("never", "5"), (Some(27), String::new()));
    assert_eq!(handling("never", "3.1.1").0, Some(1));
    assert_eq!(handling("sometimes", "5").0, Some(1));
}

/// Arguments of requests, and the printed response.
const REQUESTS: &[(&str, &str)] = &[
    ("-m hello", "answer\n"),
    ("-m hello -q 1 -v", "resp answer\n"),
    ("-m hello -N -q 2", "answer"),
    ("-m hello -F %t:%l", "resp:6\n"),
    ("-m hello -V mqttv311 -W 10", "answer\n"),
    (
        "-m hello -D publish user-property k v -i asker -k 20",
        "answer\n",
    ),
];

/// The responder finds the response topic of MQTT 5 in the request, and answers.
#[test]
fn rr_behaves_as_mosquitto_rr() {
    let broker = Mosquitto::start("");
    let port = broker.port.to_string();
    let to = ["-h", "127.0.0.1", "-p", &port];
    for (arguments, expected) in REQUESTS.iter().copied() {
        let words = words(arguments);
        let outputs = BOTH.map(|whose| {
            let responder = start_as(
                Whose::Ours,
                "sub",
                &[&["-t", "req", "-V", "5", "-F", "%p|%R", "-d"], &to[..]].concat(),
            );
            responder.wait_stderr("receiving SUBACK");
            let all: Vec<&str> = ["-t", "req", "-e", "resp"]
                .into_iter()
                .chain(words.iter().map(String::as_str))
                .chain(to)
                .collect();
            let asker = start_as(whose, "rr", &all);
            let response_topic = if arguments.contains("mqttv311") {
                ""
            } else {
                "resp"
            };
            responder.wait_stdout(&format!("hello|{response_topic}\n"));
            let answered = run_as(
                Whose::Ours,
                "pub",
                &[&["-t", "resp", "-m", "answer"], &to[..]].concat(),
                "",
            );
            assert_eq!(answered.code, Some(0));
            let ended = asker.end();
            (ended.code, ended.stdout, ended.stderr)
        });
        for (code, stdout, stderr) in outputs {
            assert_eq!(
                (code, stdout.as_str()),
                (Some(0), expected),
                "{arguments}: {stderr}"
            );
        }
    }
}

#[test]
fn requests_without_a_response_end_as_in_mosquitto_rr() {
    let broker = Mosquitto::start("");
    let port = broker.port.to_string();
    let to = ["-h", "127.0.0.1", "-p", &port];
    for (arguments, code) in [
        ("-t req -e resp -m x -W 1", 27),
        ("-t req -m x", 1),
        ("-t req -e resp", 1),
        ("-t req/# -e resp -m x", 1),
        ("-t req -e resp -m x --nonsense", 1),
    ] {
        let words = words(arguments);
        let all: Vec<&str> = words.iter().map(String::as_str).chain(to).collect();
        for whose in BOTH {
            let ended = run_as(whose, "rr", &all, "");
            assert_eq!(
                (ended.code, ended.stdout.lines().next()),
                (Some(code), None),
                "{whose:?} {arguments}: {}",
                ended.stderr
            );
        }
    }
}

/// Both programs read the same file, and the command line has precedence.
#[test]
fn default_options_are_read_from_the_home_folder() {
    let broker = Mosquitto::start("");
    let port = broker.port.to_string();
    let config = folder("drop-in-config");
    for name in ["mosquitto_pub", "mosquitto_sub"] {
        std::fs::write(
            config.join(name),
            format!("# mine\n-h 127.0.0.1\n-p {port}\n-q 2\n"),
        )
        .unwrap();
    }
    let home = format!("XDG_CONFIG_HOME={}", config.to_str().unwrap());
    for whose in BOTH {
        for (arguments, qos) in [(&["-t", "a"][..], "2"), (&["-t", "a", "-q", "1"], "1")] {
            let (publisher, first) = program(whose, "pub");
            let mut all = vec![home.as_str(), &publisher];
            all.extend(first);
            all.extend(arguments);
            all.extend(["-r", "-m", "x"]);
            assert_eq!(run("env", &all, "").code, Some(0), "{whose:?}");
            let (subscriber, first) = program(whose, "sub");
            let mut all = vec![home.as_str(), &subscriber];
            all.extend(first);
            all.extend(["-t", "a", "-C", "1", "-F", "%q"]);
            assert_eq!(run("env", &all, "").stdout, format!("{qos}\n"), "{whose:?}");
        }
    }
    // The file has an invalid option.
    std::fs::write(config.join("mosquitto_pub"), "--nonsense\n").unwrap();
    assert_eq!(
        run("env", &[&home, MQTT, "pub", "-t", "a", "-m", "x"], "").code,
        Some(1)
    );
}

/// The options in the help of a program.
fn options(help: &str) -> Vec<&str> {
    help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| {
            let name = word.trim_start_matches('-');
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && (1..3).contains(&(word.len() - name.len()))
        })
        .collect()
}

#[test]
fn each_option_in_the_help_of_mosquitto_is_in_the_help() {
    for (command, at_least) in [("pub", 45), ("sub", 50), ("rr", 40)] {
        let theirs = run_as(Whose::Mosquitto, command, &["--help"], "").stdout;
        let theirs = options(&theirs);
        let ours = run_as(Whose::Ours, command, &["--help"], "").stdout;
        let ours = options(&ours);
        assert!(theirs.len() >= at_least, "{theirs:?}");
        let missing: Vec<_> = theirs
            .iter()
            .filter(|option| !ours.contains(option))
            .collect();
        assert!(missing.is_empty(), "mqtt {command} lacks {missing:?}");
    }
}
