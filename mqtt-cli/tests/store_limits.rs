//! Tests `mqtt broker --store` at its limit, with a failing disk, and with each durability.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqtt_testing::process::{Process, run};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

fn dir(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn arguments<'a>(dir: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let dir = dir.to_str().expect("UTF-8");
    let mut all = vec!["broker", "--bind", "127.0.0.1:0", "--store", dir];
    all.extend(more);
    all
}

fn broker(dir: &Path, more: &[&str]) -> (Process, String) {
    let broker = Process::start(MQTT, &arguments(dir, more));
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    (broker, port)
}

#[track_caller]
fn client(command: &str, port: &str, arguments: &[&str]) -> String {
    let all = [&[command, "-h", "127.0.0.1", "-p", port], arguments].concat();
    let ended = run(MQTT, &all, "");
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    ended.stdout
}

/// A client that sends and reads packets as bytes.
struct Bare(TcpStream);

impl Bare {
    fn connect(port: &str, connect: &[u8], connack: &[u8]) -> Self {
        let port = port.parse().expect("a number");
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("it is not zero");
        let mut client = Self(stream);
        client.send(connect);
        let answer = client.read().expect("CONNACK");
        assert!(answer.starts_with(connack), "{answer:x?}");
        client
    }

    fn send(&mut self, packet: &[u8]) {
        self.0.write_all(packet).expect("the connection is open");
    }

    /// Returns the next packet; `None` at the end of the connection.
    fn read(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet).ok()?;
        let len = usize::from(packet[1]);
        assert!(len < 0x80, "tests have short packets");
        packet.resize(2 + len, 0);
        self.0.read_exact(&mut packet[2..]).ok()?;
        Some(packet)
    }

    /// Publishes a message of 1,000 bytes, which begins with its identifier, at QoS 1 in MQTT 5. Returns the reason code of
    /// PUBACK.
    fn publish(&mut self, id: u16) -> Option<u8> {
        let mut packet = vec![0x32, 0xEE, 0x07, 0, 1, b'n'];
        packet.extend(id.to_be_bytes());
        packet.push(0);
        packet.extend(format!("{id:05}").bytes());
        packet.resize(1_009, b'.');
        self.send(&packet);
        let answer = self.read()?;
        assert_eq!(answer[0], 0x40, "{answer:x?}");
        Some(answer.get(4).copied().unwrap_or(0))
    }
}

/// MQTT 5, clean start: the session ends with the connection.
const CONNECT_5: &[u8] = b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01p";
/// MQTT 5, a session that never expires.
const CONNECT_5_LASTING: &[u8] = b"\x10\x13\0\x04MQTT\x05\0\0\0\x05\x11\xFF\xFF\xFF\xFF\0\x01d";
/// 3.1.1, clean session.
const CONNECT_311: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01q";

/// 5 [MQTT-4.3.2-4], 3.1.1 [MQTT-4.3.2-2]: a message that is not stored is not acknowledged. MQTT 5 gets 0x97, connections of
/// 3.1.1 end, and QoS 0 messages pass. When a client takes its messages, at QoS 2, there is room again, and no accepted message
/// is missing.
#[test]
fn a_full_store_refuses_messages_until_there_is_room() {
    let dir = dir("store-limit");
    let (broker, port) = broker(&dir, &["--store-limit", "20000"]);
    let away = ["-i", "away", "-c", "-t", "n", "-q", "2"];
    client("sub", &port, &[&away[..], &["-E"]].concat());
    let mut lasting = Bare::connect(&port, CONNECT_5_LASTING, &[0x20]);
    let mut publisher = Bare::connect(&port, CONNECT_5, &[0x20]);
    let mut accepted = Vec::new();
    for id in 1..100 {
        match publisher.publish(id) {
            Some(0) => accepted.push(id),
            other => {
                assert_eq!(other, Some(0x97));
                break;
            }
        }
    }
    assert!(accepted.len() < 50, "{accepted:?}");
    broker.wait_stderr("the store is full");

    let mut old = Bare::connect(&port, CONNECT_311, &[0x20]);
    old.send(b"\x82\x06\0\x01\0\x01q\0");
    assert_eq!(old.read().as_deref(), Some(&b"\x90\x03\0\x01\0"[..]));
    publisher.send(b"\x30\x05\0\x01q\0x");
    assert_eq!(old.read().as_deref(), Some(&b"\x30\x04\0\x01qx"[..]));
    old.send(b"\x32\x06\0\x01n\0\x07x");
    assert_eq!(old.read(), None);
    lasting.send(b"\x82\x07\0\x01\0\0\x01u\x01");
    assert_eq!(
        lasting.read().as_deref(),
        Some(&b"\x90\x04\0\x01\0\x97"[..])
    );
    let mut new = CONNECT_5_LASTING.to_vec();
    *new.last_mut().expect("the client identifier") = b'e';
    Bare::connect(&port, &new, b"\x20\x03\0\x97");

    let count = accepted.len().to_string();
    let heard = client("sub", &port, &[&away[..], &["-C", &count]].concat());
    let numbers: Vec<u16> = heard
        .lines()
        .map(|line| line[..5].parse().unwrap())
        .collect();
    assert_eq!(numbers, accepted);
    broker.wait_stderr("the store has room again");
    assert_eq!(publisher.publish(100), Some(0));
    broker.signal("TERM");
    let ended = broker.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("the store is full").count(), 1);
}

/// Limits that are lower than before a restart drop nothing and do not count as damage: what is stored stays, what is new is
/// refused. Only messages in flight that take more than twice the limit for them keep the broker from its start.
#[test]
fn a_store_beyond_lower_limits_is_restored_or_refused_but_not_moved_aside() {
    let dir = dir("store-lower-limits");
    let (running, port) = broker(&dir, &[]);
    let mut receiver = Bare::connect(&port, CONNECT_5_LASTING, &[0x20]);
    receiver.send(b"\x82\x07\0\x01\0\0\x01n\x01");
    assert_eq!(
        receiver.read().as_deref(),
        Some(&b"\x90\x04\0\x01\0\x01"[..])
    );
    client("sub", &port, &["-i", "away", "-c", "-t", "n", "-E"]);
    for topic in ["kept/1", "kept/2"] {
        client("pub", &port, &["-t", topic, "-r", "-q", "1", "-m", topic]);
    }
    let mut publisher = Bare::connect(&port, CONNECT_5, &[0x20]);
    // One message in flight to each client has no limit.
    assert_eq!(publisher.publish(1), Some(0));
    assert_eq!(publisher.publish(2), Some(0));
    // Dropping the process kills it; the receiver has not acknowledged the messages.
    drop(running);
    let lower = ["--sessions", "1", "--retained-messages", "1"];
    let lower = [&lower[..], &["--store-damaged", "move-aside"]].concat();
    let tight = [&lower[..], &["--connection-bytes-total", "100"]].concat();
    let refused = run(MQTT, &arguments(&dir, &tight), "");
    assert_eq!(refused.code, Some(1));
    let why = "messages in flight take more than twice the limit for the bytes of all connections (connection-bytes-total)";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    let (_running, port) = broker(&dir, &lower);
    let kept = client("sub", &port, &["-i", "d", "-c", "-t", "kept/+", "-C", "2"]);
    assert_eq!(kept, "kept/1\nkept/2\n");
    let new = run(MQTT, &["sub", "-p", &port, "-i", "new", "-t", "n"], "");
    assert_ne!(new.code, Some(0), "{}", new.stderr);
}

/// A failed flush ends the store: the system may have dropped the data that it could not write. The message is not acknowledged,
/// clients of MQTT 5 get "server shutting down", and the program fails; messages that were acknowledged before exist for the next
/// process.
#[test]
fn a_failed_flush_ends_the_broker() {
    let dir = dir("store-flush");
    let fails = ["-D", "-f", "-q", "-o", "/dev/null", "-e"];
    let probe = [&fails[..], &["inject=fdatasync:error=EIO", "true"]].concat();
    let can_fail = std::process::Command::new("strace").args(probe).status();
    if !can_fail.is_ok_and(|status| status.success()) {
        eprintln!("not tested: strace cannot make a flush fail here");
        return;
    }
    let (first, port) = broker(&dir, &[]);
    let kept = ["-t", "kept", "-r", "-q", "1", "-m"];
    client("pub", &port, &[&kept[..], &["before"]].concat());
    first.signal("TERM");
    assert_eq!(first.end().code, Some(0));

    // Opening the store flushes as well. The publisher gets success until flushes fail.
    let fault = "inject=fdatasync:error=EIO:when=20+";
    let traced = [&fails[..], &[fault, MQTT], &arguments(&dir, &[])].concat();
    let second = Process::start("strace", &traced);
    let port = second.wait_stderr_after("address=127.0.0.1:");
    let mut publisher = Bare::connect(&port, CONNECT_5, &[0x20]);
    let mut last = None;
    for id in 1..1_000_u16 {
        let [high, low] = id.to_be_bytes();
        publisher.send(&[0x33, 9, 0, 1, b'k', high, low, 0, b'0', high, low]);
        let answer = publisher.read().expect("the broker says goodbye");
        if answer[0] != 0x40 {
            assert_eq!(answer, b"\xe0\x01\x8b");
            break;
        }
        last = Some([b'0', high, low]);
    }
    let ended = second.end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("a flush failed"), "{}", ended.stderr);

    let (_third, port) = broker(&dir, &[]);
    assert_eq!(client("sub", &port, &["-t", "kept", "-C", "1"]), "before\n");
    let mut reader = Bare::connect(&port, CONNECT_311, &[0x20]);
    reader.send(b"\x82\x06\0\x01\0\x01k\0");
    assert_eq!(reader.read().expect("SUBACK")[0], 0x90);
    let last = last.expect("the first messages are stored");
    let found = reader.read().expect("the retained message");
    // A message that was not acknowledged may also exist.
    assert!(found[5..] >= last[..], "{found:x?} is older than {last:x?}");
}

/// The directory, a file system of 6 MiB of which another file takes 2, can be seen by the broker and as `seen` only.
fn broker_on_a_small_disk(dir: &Path) -> Option<(Process, String, PathBuf)> {
    let may_mount = ["-m", "sh", "-c", "mount -t tmpfs none /mnt"];
    let probe = std::process::Command::new("unshare")
        .args(may_mount)
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("not tested: this user cannot mount a small file system");
        return None;
    }
    std::fs::create_dir_all(dir).expect("a temporary folder");
    let script = "mount -t tmpfs -o size=6m none \"$0\" && head -c 2M /dev/zero >\"$0/other\" && exec \"$@\"";
    let disk = dir.to_str().expect("UTF-8");
    let started = [
        &["-m", "sh", "-c", script, disk, MQTT][..],
        &arguments(dir, &[]),
    ]
    .concat();
    let broker = Process::start("unshare", &started);
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    let seen = PathBuf::from(format!("/proc/{}/root{disk}", broker.id()));
    Some((broker, port, seen))
}

/// Publishes retained messages of 16 KiB at QoS 1, one after the other, each to a topic of two letters.
struct Retainer(Bare, u16);

impl Retainer {
    /// Returns the topic of the next message and the reason code of its PUBACK.
    fn publish(&mut self) -> (String, u8) {
        let number = u8::try_from(self.1).expect("few messages");
        self.1 += 1;
        let topic = [b'a' + number / 26, b'a' + number % 26];
        let mut packet = vec![
            0x33,
            0x87,
            0x80,
            0x01,
            0,
            2,
            topic[0],
            topic[1],
            0,
            number + 1,
            0,
        ];
        packet.resize(4 + 0x4007, b'.');
        self.0.send(&packet);
        let answer = self.0.read().expect("PUBACK");
        let topic = String::from_utf8(topic.to_vec()).expect("letters");
        (topic, answer.get(4).copied().unwrap_or(0))
    }
}

/// On a full disk, what must be stored is refused or waits, and QoS 0 goes on. When another program makes room, service resumes by
/// itself, and all that was accepted is in the store.
#[test]
fn a_full_disk_delays_acknowledgements_until_there_is_room() {
    let dir = dir("store-disk");
    let Some((running, port, seen)) = broker_on_a_small_disk(&dir) else {
        return;
    };
    let is_full = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&is_full);
    let mut retainer = Retainer(Bare::connect(&port, CONNECT_5, &[0x20]), 0);
    let filling = std::thread::spawn(move || {
        let mut accepted = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let (topic, reason) = retainer.publish();
            if reason != 0x97 {
                accepted.push(topic);
            }
        }
        (retainer, accepted)
    });
    running.wait_stderr("the store is full");
    is_full.store(true, Ordering::Relaxed);
    let other = CONNECT_5.iter().rev().skip(1).rev().copied();
    let other: Vec<u8> = other.chain(*b"r").collect();
    let mut other = Bare::connect(&port, &other, &[0x20]);
    assert_eq!(other.publish(1), Some(0x97));
    let mut old = Bare::connect(&port, CONNECT_311, &[0x20]);
    old.send(b"\x82\x06\0\x01\0\x01q\0");
    assert_eq!(old.read().as_deref(), Some(&b"\x90\x03\0\x01\0"[..]));
    old.send(b"\x30\x04\0\x01qx");
    assert_eq!(old.read().as_deref(), Some(&b"\x30\x04\0\x01qx"[..]));

    std::fs::remove_file(seen.join("other")).expect("the other file");
    running.wait_stderr("the store has room again");
    let (mut retainer, mut accepted) = filling.join().expect("its messages are answered");
    let (topic, reason) = retainer.publish();
    assert_ne!(reason, 0x97);
    accepted.push(topic);
    // As a crash leaves it.
    let copy = dir.with_extension("copy");
    std::fs::create_dir_all(&copy).expect("a temporary folder");
    std::fs::copy(seen.join("journal.redb"), copy.join("journal.redb")).expect("the store");
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("the store is full").count(), 1);

    let (_restored, port) = broker(&copy, &[]);
    let count = accepted.len().to_string();
    let heard = client("sub", &port, &["-t", "+", "-F", "%t", "-C", &count]);
    let mut heard: Vec<_> = heard.lines().collect();
    heard.sort_unstable();
    assert_eq!(heard, accepted);
}

/// `written` survives `kill -9`, `off` keeps nothing.
#[test]
fn each_durability_survives_its_failures() {
    for (durability, keeps) in [("stored", true), ("written", true), ("off", false)] {
        let dir = dir(&format!("store-{durability}"));
        let (running, port) = broker(&dir, &["--durability", durability]);
        let session = ["-i", "away", "-c", "-t", "n", "-q", "1"];
        client("sub", &port, &[&session[..], &["-E"]].concat());
        client("pub", &port, &["-t", "n", "-q", "1", "-m", "x"]);
        // Dropping the process kills it.
        drop(running);
        assert_eq!(dir.join("journal.redb").exists(), keeps, "{durability}");
        if keeps {
            let (_running, port) = broker(&dir, &["--durability", durability]);
            let heard = client("sub", &port, &[&session[..], &["-C", "1"]].concat());
            assert_eq!(heard, "x\n", "{durability}");
        }
    }
}

/// `mqtt store check` refuses a store with which the broker does not start, because its messages in flight exceed the limit of the broker.
#[test]
fn a_check_tells_that_messages_in_flight_exceed_the_limit() {
    let dir = dir("store-in-flight");
    let (running, port) = broker(&dir, &[]);
    let mut slow = Bare::connect(&port, CONNECT_5_LASTING, &[0x20]);
    slow.send(b"\x82\x07\0\x01\0\0\x01n\x01");
    assert_eq!(slow.read().map(|packet| packet[0]), Some(0x90));
    let text = "x".repeat(90);
    for _ in 0..4 {
        client("pub", &port, &["-t", "n", "-q", "1", "-m", &text]);
        assert_eq!(slow.read().map(|packet| packet[0]), Some(0x32));
    }
    drop(running);
    let dir = dir.to_str().expect("UTF-8");
    let check = |more: &[&str]| run(MQTT, &[&["store", "check", dir], more].concat(), "");
    let whole = check(&[]);
    let told = "the store is whole: 1 session, 1 subscription, 4 messages, 0 retained messages\n";
    assert_eq!(whole.stdout, told, "{}", whole.stderr);
    let refused = check(&["--connection-bytes-total", "100"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    let told = "a broker needs a connection-bytes-total above 100: ";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    let few = ["--connection-bytes-total", "100"];
    let started = run(MQTT, &[&arguments(Path::new(dir), &few)[..]].concat(), "");
    assert_eq!(started.code, Some(1), "{}", started.stdout);
    let told = "(connection-bytes-total)";
    assert!(started.stderr.contains(told), "{}", started.stderr);
    assert_eq!(check(&["--connection-bytes-total", "200"]).code, Some(0));
}
