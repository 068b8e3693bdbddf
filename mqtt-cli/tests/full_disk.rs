//! Fills the disk under a store: all accepted messages are delivered nevertheless, because their delivery makes the room that is
//! missing. The disk is a file system in memory; where the user may not mount one, nothing is tested.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::spawn;

use mqtt_testing::process::{Process, run};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// Returns an empty directory for a small disk; `None` if this user cannot mount one.
fn dir(name: &str) -> Option<PathBuf> {
    let may_mount = ["-m", "sh", "-c", "mount -t tmpfs none /mnt"];
    let probe = Command::new("unshare").args(may_mount).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("not tested: this user cannot mount a small file system");
        return None;
    }
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a temporary folder");
    Some(dir)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Starts `mqtt` with a file system of this many MiB at `dir`, which only this process sees. Less than 6 MiB of it are for messages:
/// the log of a broker's store takes 16 MiB, and that of a client's store 2 MiB.
fn on_small_disk(dir: &Path, size: u32, input: &Path, arguments: &[&str]) -> Process {
    let script = format!(
        "mount -t tmpfs -o size={size}m none \"$0\" && input=$1 && shift && exec \"$@\" <\"$input\""
    );
    let started = ["-m", "sh", "-c", &script, text(dir), text(input), MQTT];
    Process::start("unshare", &[&started[..], arguments].concat())
}

/// Writes numbered lines of 16,000 bytes.
fn lines(dir: &Path, count: usize) -> PathBuf {
    let file = dir.with_extension("lines");
    let line = |number| format!("{number:05}{}\n", ".".repeat(15_994));
    let lines: String = (0..count).map(line).collect();
    std::fs::write(&file, lines).expect("a file");
    file
}

/// Returns the numbers at the front of lines.
fn numbers(printed: &str) -> Vec<usize> {
    let number = |line: &str| line[..5].parse().expect("a number");
    printed.lines().map(number).collect()
}

/// Relays to a broker. Until `is_open`, it ends each connection after some packets.
struct Relay {
    port: String,
    is_open: Arc<AtomicBool>,
}

impl Relay {
    fn to(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let is_open = Arc::new(AtomicBool::new(false));
        let (open, broker) = (Arc::clone(&is_open), format!("127.0.0.1:{broker}"));
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(broker) = TcpStream::connect(&broker) else {
                    return;
                };
                let back = (broker.try_clone(), client.try_clone());
                let is_open = Arc::clone(&open);
                spawn(move || copy(&client, &broker, &is_open));
                if let (Ok(broker), Ok(client)) = back {
                    let is_open = Arc::clone(&open);
                    spawn(move || copy(&broker, &client, &is_open));
                }
            }
        });
        let port = port.to_string();
        Self { port, is_open }
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, is_open: &AtomicBool) {
    let (mut copied, mut buffer) = (0, vec![0; 4096]);
    while copied < 36_000 || is_open.load(Ordering::Relaxed) {
        match from.read(&mut buffer) {
            Ok(len @ 1..) if to.write_all(&buffer[..len]).is_ok() => copied += len,
            _ => break,
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// 3.1.1 [MQTT-4.3.3-1], 5 [MQTT-4.3.3-6]: the records of deliveries are stored behind a message for which there is no room.
#[test]
fn an_outbox_that_filled_its_disk_is_delivered() {
    let Some(dir) = dir("full-outbox") else {
        return;
    };
    const LINES: usize = 1_300;
    let input = lines(&dir, LINES);
    let broker = Process::start(MQTT, &["broker", "--bind", "127.0.0.1:0"]);
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    let count = LINES.to_string();
    let to = ["-h", "127.0.0.1", "-p", &port, "-t", "n", "-q", "2"];
    let away = [&["sub", "-i", "away", "-c"], &to[..]].concat();
    let reader = Process::start(MQTT, &[&away[..], &["-C", &count, "-F", "%p"]].concat());
    broker.wait_stderr("client=\"away\"");
    let relay = Relay::to(&port);
    let store = dir.join("store");
    let outbox = ["--store", text(&store), "-i", "outbox", "-t", "n", "-l"];
    let to = ["pub", "-h", "127.0.0.1", "-p", &relay.port, "-q", "2"];
    let sender = on_small_disk(&dir, 8, &input, &[&to[..], &outbox].concat());
    sender.wait_stderr("there is no room in the store");
    relay.is_open.store(true, Ordering::Relaxed);
    let sent = sender.end();
    assert_eq!(sent.code, Some(0), "{}", sent.stderr);
    assert!(sent.stdout.ends_with(&format!("\n{count}\n")));
    let heard = reader.end();
    assert!(numbers(&heard.stdout).into_iter().eq(0..LINES));
}

/// A subscriber is away until the disk is full. It gets all accepted messages at QoS 2, and then the broker accepts more.
#[test]
fn a_broker_on_a_full_disk_delivers_at_qos_2() {
    let Some(dir) = dir("full-broker") else {
        return;
    };
    let input = lines(&dir, 1_300);
    let store = dir.join("store");
    let arguments = ["broker", "--bind", "127.0.0.1:0", "--store", text(&store)];
    let broker = on_small_disk(&dir, 22, &input, &arguments);
    let port = broker.wait_stderr_after("address=127.0.0.1:");
    let to = ["-h", "127.0.0.1", "-p", &port, "-t", "n", "-q", "2"];
    let away = [&["sub", "-i", "away", "-c"], &to[..]].concat();
    let ended = run(MQTT, &[&away[..], &["-E"]].concat(), "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // MQTT 5 tells which messages are refused; the publisher gives up at the first one.
    let script = "exec \"$@\" <\"$0\"";
    let publish = ["-c", script, text(&input), MQTT, "pub", "-V", "5", "-l"];
    let sent = Process::start("sh", &[&publish[..], &to].concat()).end();
    assert_ne!(sent.code, Some(0));
    broker.wait_stderr("the store is full");
    let reader = Process::start(MQTT, &[&away[..], &["-F", "%p"]].concat());
    broker.wait_stderr("the store has room again");
    let last = run(MQTT, &[&["pub", "-m", "99999"], &to[..]].concat(), "");
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    reader.wait_stdout("99999");
    reader.signal("TERM");
    let heard = numbers(&reader.end().stdout);
    let (last, accepted) = heard.split_last().expect("messages");
    assert_eq!(*last, 99_999);
    assert!(accepted.len() > 100, "{}", accepted.len());
    assert!(accepted.iter().copied().eq(0..accepted.len()));
}
