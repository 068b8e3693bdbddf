//! Tests `mqtt broker --store`: all that clients were told holds after `kill -9`, and a store that is in use or damaged is
//! refused with an error that names it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use mqtt_testing::process::{Ended, Process, run};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// How often a broker under load is killed; `scripts/soak.sh` sets a higher number.
fn kills() -> usize {
    std::env::var("MQTT_KILLS").map_or(3, |kills| kills.parse().expect("a number"))
}

fn dir(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn text(dir: &Path) -> &str {
    dir.to_str().expect("UTF-8")
}

fn broker(dir: &str) -> (Process, String) {
    let arguments = ["broker", "--bind", "127.0.0.1:0", "--store", dir];
    let broker = Process::start(MQTT, &arguments);
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    (broker, port)
}

fn client(command: &str, port: &str, arguments: &[&str], input: &str) -> Ended {
    let all = [&[command, "-h", "127.0.0.1", "-p", port], arguments].concat();
    run(MQTT, &all, input)
}

#[track_caller]
fn is_well(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: the session of a client that is not connected, its queue and a retained message exist
/// after each kill, and no QoS 2 message comes twice.
#[test]
fn acknowledged_messages_survive_a_kill() {
    let dir = dir("store-kills");
    let session = ["-i", "away", "-c", "-t", "n", "-q", "2"];
    let (mut running, mut port) = broker(text(&dir));
    is_well(&client("sub", &port, &[&session[..], &["-E"]].concat(), ""));
    let mut next = 0;
    for _ in 0..kills() {
        let lines: String = (next..next + 100).map(|n| format!("{n}\n")).collect();
        next += 100;
        is_well(&client("pub", &port, &["-t", "n", "-q", "2", "-l"], &lines));
        let kept = next.to_string();
        is_well(&client(
            "pub",
            &port,
            &["-t", "kept", "-r", "-q", "1", "-m", &kept],
            "",
        ));
        // Dropping the process kills it.
        drop(running);
        (running, port) = broker(text(&dir));
        let retained = client("sub", &port, &["-t", "kept", "-C", "1"], "");
        assert_eq!(retained.stdout, format!("{kept}\n"), "{}", retained.stderr);
    }
    let count = next.to_string();
    let heard = client("sub", &port, &[&session[..], &["-C", &count]].concat(), "");
    let expected: String = (0..next).map(|n| format!("{n}\n")).collect();
    assert_eq!(heard.stdout, expected, "{}", heard.stderr);
    is_well(&client(
        "pub",
        &port,
        &["-t", "n", "-q", "2", "-m", "end"],
        "",
    ));
    let last = client("sub", &port, &[&session[..], &["-C", "1"]].concat(), "");
    assert_eq!(last.stdout, "end\n", "{}", last.stderr);
    drop(running);
}

/// A store that another process uses is refused with the name of that process.
#[test]
fn a_store_in_use_is_refused() {
    let dir = dir("store-in-use");
    let (running, _) = broker(text(&dir));
    // The broker listens before it opens the store.
    let _ = running.wait_stderr_after("are stored");
    let second = run(
        MQTT,
        &["broker", "--bind", "127.0.0.1:0", "--store", text(&dir)],
        "",
    );
    assert_eq!(second.code, Some(1));
    assert!(
        second.stderr.contains("is in use by mqtt"),
        "{}",
        second.stderr
    );
}

/// A broker does not start with a damaged store: the error names it, unless the store is to be moved aside.
#[test]
fn a_damaged_store_is_refused_or_moved_aside() {
    let dir = dir("store-damaged");
    let (running, port) = broker(text(&dir));
    is_well(&client(
        "pub",
        &port,
        &["-t", "kept", "-r", "-q", "1", "-m", "x"],
        "",
    ));
    drop(running);
    let file = dir.join("journal.redb");
    let mut bytes = std::fs::read(&file).expect("the file of the store");
    bytes.iter_mut().take(512).for_each(|byte| *byte = !*byte);
    std::fs::write(&file, bytes).expect("the file of the store");
    let arguments = ["broker", "--bind", "127.0.0.1:0", "--store", text(&dir)];
    let refused = run(MQTT, &arguments, "");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("is damaged at"),
        "{}",
        refused.stderr
    );
    let aside = [&arguments[..], &["--store-damaged", "move-aside"]].concat();
    let moved = Process::start(MQTT, &aside);
    let port = moved.wait_stderr_after("address=127.0.0.1:");
    is_well(&client(
        "pub",
        &port,
        &["-t", "a", "-q", "1", "-m", "x"],
        "",
    ));
    assert!(dir.join("damaged-1.redb").exists());
}

/// Returns the content of all files in a directory.
fn files(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("the directory of the store");
    let read = |entry: std::io::Result<DirEntry>| {
        let entry = entry.expect("the directory of the store");
        let content = std::fs::read(entry.path()).expect("a file of the store");
        (entry.file_name(), content)
    };
    entries.map(read).collect()
}

/// `mqtt store show` prints the store of a broker as text and JSON, and `check` confirms that another broker can continue from
/// it. Neither changes the files, although the broker was killed.
#[test]
fn a_store_is_shown_and_checked() {
    let dir = dir("store-shown");
    let (running, port) = broker(text(&dir));
    let session = ["-i", "away", "-c", "-t", "n", "-q", "1", "-E"];
    is_well(&client("sub", &port, &session, ""));
    is_well(&client(
        "pub",
        &port,
        &["-t", "n", "-q", "1", "-m", "x"],
        "",
    ));
    is_well(&client(
        "pub",
        &port,
        &["-t", "kept", "-r", "-q", "1", "-m", "x"],
        "",
    ));
    let busy = run(MQTT, &["store", "show", text(&dir)], "");
    assert!(busy.stderr.contains("is in use by mqtt"), "{}", busy.stderr);
    drop(running);
    let before = files(&dir);
    let shown = run(MQTT, &["store", "show", text(&dir)], "");
    assert_eq!(
        shown.stdout,
        "session \"away\": MQTT 3.1.1, away, 1 message waits, expires after 2592000 s\n  subscription \"n\"\n\
         retained \"kept\": QoS 1, a packet of 10 bytes\n"
    );
    let json = run(MQTT, &["store", "show", "--json", text(&dir)], "");
    assert!(json.stdout.contains("\"messages\":1"), "{}", json.stdout);
    let checked = run(MQTT, &["store", "check", text(&dir)], "");
    assert_eq!(
        checked.stdout,
        "the store is whole: 1 session, 1 subscription, 1 message, 1 retained message\n"
    );
    assert!(files(&dir) == before, "reading changed the store");
    let nothing = run(MQTT, &["store", "check", "nowhere"], "");
    assert_eq!(nothing.stderr, "mqtt: nowhere: there is no store\n");
}

/// A write at the end that the crash interrupted is told, by `check` and by the broker that starts.
#[test]
fn an_interrupted_write_is_told() {
    let dir = dir("store-interrupted");
    let (running, port) = broker(text(&dir));
    for topic in ["a", "b"] {
        let kept = ["-t", topic, "-r", "-q", "1", "-m", "x"];
        is_well(&client("pub", &port, &kept, ""));
    }
    drop(running);
    let log = dir.join("journal.log");
    let mut bytes = std::fs::read(&log).expect("the log");
    let is_block = |at: &usize| bytes[*at..].starts_with(b"MQL1");
    let blocks: Vec<usize> = (0..bytes.len()).step_by(4096).filter(is_block).collect();
    let [.., last, end] = blocks[..] else {
        panic!("{blocks:?}");
    };
    // Without the empty block behind it, the last block was not flushed.
    bytes[last + 40] ^= 1;
    bytes[end..end + 4].fill(0);
    std::fs::write(&log, bytes).expect("the log");
    let checked = run(MQTT, &["store", "check", text(&dir)], "");
    let told = "the store is whole: 0 sessions, 0 subscriptions, 0 messages, 1 retained message\n\
                its end was being written when the process ended: ";
    assert!(checked.stdout.starts_with(told), "{}", checked.stdout);
    let (running, _) = broker(text(&dir));
    running.wait_stderr("the end of the store was being written");
}

fn broker_of_threads(dir: &str) -> (Process, String) {
    let arguments = ["broker", "--bind", "127.0.0.1:0", "--store", dir];
    let broker = Process::start(MQTT, &[&arguments[..], &["--threads", "2"]].concat());
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    (broker, port)
}

fn store(arguments: &[&str], dir: &str) -> Ended {
    run(MQTT, &[&["store"], arguments, &[dir]].concat(), "")
}

/// Lets a broker run until no message is on its way from one thread to the other, as after a kill, and returns what its store has.
fn messages_arrive(dir: &Path) -> serde_json::Value {
    for _ in 0..100 {
        let shown = store(&["show", "--json"], text(dir));
        let json: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
        if json["between_threads"] == 0 {
            return json;
        }
        let (_running, port) = broker_of_threads(text(dir));
        let publish = ["-t", "nothing", "-q", "1", "-m", "x"];
        is_well(&client("pub", &port, &publish, ""));
    }
    panic!("a message does not arrive");
}

/// The store of a broker with several threads is shown and checked as one: all sessions, and each retained message once.
#[test]
fn a_store_of_two_threads_is_shown_and_checked_as_one() {
    let dir = dir("store-of-threads");
    let (running, port) = broker_of_threads(text(&dir));
    // A secret of the store decides which thread has a client.
    let sessions = 12;
    for number in 0..sessions {
        let name = format!("away-{number}");
        let session = ["-i", &name, "-c", "-t", "n", "-q", "1", "-E"];
        is_well(&client("sub", &port, &session, ""));
    }
    for arguments in [
        &["-t", "n"][..],
        &["-t", "kept", "-r"],
        &["-t", "kept/too", "-r"],
    ] {
        let all = [arguments, &["-q", "1", "-m", "x"]].concat();
        is_well(&client("pub", &port, &all, ""));
    }
    let store =
        |arguments: &[&str]| run(MQTT, &[&["store"], arguments, &[text(&dir)]].concat(), "");
    let busy = store(&["show"]);
    assert!(busy.stderr.contains("is in use by mqtt"), "{}", busy.stderr);
    drop(running);

    let json = messages_arrive(&dir);
    let shown = store(&["show"]);
    is_well(&shown);
    let lines = |start: &str| {
        shown
            .stdout
            .lines()
            .filter(|line| line.starts_with(start))
            .count()
    };
    assert_eq!(lines("session \"away-"), sessions, "{}", shown.stdout);
    assert_eq!(lines("session "), sessions, "{}", shown.stdout);
    assert_eq!(lines("  subscription \"n\""), sessions, "{}", shown.stdout);
    assert_eq!(json["threads"], 2);
    let checked = store(&["check"]);
    is_well(&checked);
    let begin = format!("the store is whole: {sessions} sessions, {sessions} subscriptions, ");
    assert!(checked.stdout.starts_with(&begin), "{}", checked.stdout);
    let waiting = shown.stdout.matches(" 1 message waits").count();
    assert_eq!(waiting, sessions, "{}", shown.stdout);
    let retained = "retained \"kept\": QoS 1, a packet of 10 bytes\n\
                    retained \"kept/too\": QoS 1, a packet of 14 bytes\n";
    assert!(shown.stdout.ends_with(retained), "{}", shown.stdout);
    let counts = format!("{sessions} messages, 2 retained messages\n");
    assert!(checked.stdout.ends_with(&counts), "{}", checked.stdout);
}

/// Each part of a store is checked, and an error names the part.
#[test]
fn a_damaged_part_of_a_store_is_named() {
    let dir = dir("store-of-threads-damaged");
    drop(broker_of_threads(text(&dir)));
    let store = |command| store(&[command], text(&dir));
    let whole = store("check");
    let nothing =
        "the store is whole: 0 sessions, 0 subscriptions, 0 messages, 0 retained messages\n";
    assert_eq!(whole.stdout, nothing, "{}", whole.stderr);
    let file = dir.join("thread-1").join("journal.redb");
    let mut bytes = std::fs::read(&file).expect("the file of a part");
    bytes.iter_mut().take(512).for_each(|byte| *byte = !*byte);
    std::fs::write(&file, bytes).expect("the file of a part");
    for command in ["show", "check"] {
        let refused = store(command);
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
        let is_named = refused.stderr.contains("thread-1 is damaged at");
        assert!(is_named, "{}", refused.stderr);
    }
    std::fs::remove_file(&file).expect("the file of a part");
    let refused = store("check");
    let is_named = refused.stderr.ends_with("thread-1: there is no store\n");
    assert!(is_named, "{}", refused.stderr);
}
