//! Tests that need a separate process: the test binary starts itself again with one ignored test, and passes the task in an
//! environment variable.

use std::fmt;
use std::io::{Read, Write};
use std::ops::Deref;
use std::time::Duration;

use mqtt_adapter_core::proto::{QoS, Version};
use mqtt_adapter_core::{ConnectionEvent, Handle, Options, QoS0Overflow};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::{connect, kept, number, options};
use crate::peers::{CONNACK_3_1_1, RawServer};
use crate::peers::{Mosquitto, free_port};
use crate::process::Process;

/// The environment variable with the task of the child.
const TASK: &str = "MQTT_TESTING_TASK";

/// Starts this test binary again; `module` is the module of [`crate::handles!`].
fn start_child(module: &str, task: &str) -> Process {
    let inner = module
        .split_once("::")
        .map(|(_, inner)| format!("{inner}::"));
    let test = format!("{}in_a_process_of_its_own", inner.unwrap_or_default());
    let own = std::env::current_exe().expect("a test has a path");
    let own = own.to_str().expect("a path of text");
    // `env` executes the program, so its process id is that of the child.
    let task = format!("{TASK}={task}");
    Process::start(
        "env",
        &[&task, own, "--exact", &test, "--ignored", "--nocapture"],
    )
}

/// Performs the task of a child; does nothing without a task.
pub async fn act<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H) {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    // The test harness has begun a line.
    println!();
    let words: Vec<_> = task.split(' ').collect();
    match words[..] {
        ["take", port, version, qos, count] => {
            let version = if version == "5" {
                Version::V5
            } else {
                Version::V311
            };
            let qos = if qos == "2" {
                QoS::ExactlyOnce
            } else {
                QoS::AtLeastOnce
            };
            let options = kept(port.parse().unwrap(), version, "worker");
            take(start, options, qos, count.parse().unwrap()).await;
        }
        ["publish", port] => publish(start, port.parse().unwrap()).await,
        ["log"] => log(start).await,
        ["keep"] => keep(start).await,
        _ => panic!("no task: {task}"),
    }
}

/// Returns the numbers of the messages that a child took before it was killed, with the last message in hand.
pub(crate) fn take_and_be_killed(
    module: &str,
    options: &Options,
    qos: QoS,
    count: u32,
) -> Vec<u32> {
    let version = if options.version == Version::V5 { 5 } else { 4 };
    let (port, qos) = (options.port, qos.get());
    let child = start_child(module, &format!("take {port} {version} {qos} {count}"));
    child.wait_stdout("waits to be killed");
    child.signal("KILL");
    let ended = child.end();
    assert_eq!(ended.code, None, "it was killed");
    let taken = ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("took "));
    taken.map(|n| number(n.as_bytes())).collect()
}

async fn take<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
    options: Options,
    qos: QoS,
    count: usize,
) {
    let handle = start(options);
    let mut messages = handle.subscribe("work", qos).await.unwrap();
    for _ in 0..count {
        println!("took {}", number(&messages.next().await.unwrap().payload));
    }
    // When this is acknowledged, the server has read all earlier acknowledgements, which are those of all messages except the
    // last one.
    let fence = handle.publish("fence", QoS::ExactlyOnce, false, b"").await;
    assert!(fence.unwrap().await.is_success());
    println!("waits to be killed");
    std::future::pending().await
}

/// A program that awaits its tickets and ends at once, without `close` and without destructors.
pub async fn a_program_that_ends_after_its_tickets_has_sent_at_qos_0<H: Deref<Target = Handle>>(
    start: impl Fn(Options) -> H,
    module: &str,
) {
    let broker = Mosquitto::start("");
    let handle = connect(&start, options(broker.port)).await.unwrap();
    let mut messages = handle.subscribe("a", QoS::AtMostOnce).await.unwrap();
    for _ in 0..5 {
        let child = start_child(module, &format!("publish {}", broker.port));
        for n in 0..200 {
            assert_eq!(number(&messages.next().await.unwrap().payload), n);
        }
        assert_eq!(child.end().code, Some(0));
    }
}

async fn publish<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H, port: u16) {
    let mut options = options(port);
    options.client_id = "child".into();
    let handle = connect(&start, options).await.unwrap();
    super::publish_numbers(&handle, "a", QoS::AtMostOnce, 0..200).await;
    std::process::exit(0);
}

/// Five attempts that fail for one reason are logged once. Each new reason and each success is logged.
pub async fn each_reason_is_logged_once<H: Deref<Target = Handle>>(
    _start: impl Fn(Options) -> H,
    module: &str,
) {
    let ended = start_child(module, "log").end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines: Vec<_> = ended
        .stdout
        .lines()
        .filter(|line| line.starts_with("LOG "))
        .map(|line| line.split(" (os error").next().unwrap_or(line))
        .collect();
    let (nobody, lines) = lines.split_first().unwrap();
    assert!(nobody.starts_with("LOG WARN not connected: cannot connect: 127.0.0.1"));
    assert!(nobody.ends_with(": Connection refused"), "{nobody}");
    let first = ["LOG WARN not connected: connection refused: not authorized; trying again"];
    let last = ["LOG INFO connected", "LOG INFO closed"];
    let changes = lines
        .strip_prefix(&first)
        .and_then(|rest| rest.strip_suffix(&last))
        .unwrap_or_else(|| panic!("{lines:#?}"));
    // While one broker ends and the other starts, connections are reset or refused, and each of these is a new reason.
    for (n, line) in changes.iter().enumerate() {
        assert!(line.starts_with("LOG WARN not connected: "), "{line}");
        assert!(!changes[..n].contains(line), "{lines:#?}");
    }
}

async fn log<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H) {
    tracing::subscriber::set_global_default(Log).unwrap();
    let port = free_port();
    let handle = start(options(port));
    let mut events = handle.events();
    let mut five_losses = async || {
        let mut losses = 0;
        while losses < 5 {
            let event = events.next().await.unwrap();
            losses += u32::from(matches!(event, ConnectionEvent::Lost(_)));
        }
    };
    five_losses().await;
    let deaf = Mosquitto::start_there(port, "allow_anonymous false");
    five_losses().await;
    five_losses().await;
    drop(deaf);
    let _broker = Mosquitto::start_on(port);
    handle.connected().await.unwrap();
    let _ = handle.close(Duration::from_secs(60)).await;
}

/// Prints events of level INFO and above.
struct Log;

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 += &format!("{value:?}");
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("mqtt_adapter_core")
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Text(&mut text));
        println!("LOG {} {text}", event.metadata().level());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// How many messages come, and of how many the program keeps one.
const STREAM: (u32, u32) = (100_000, 200);

/// A stored message takes its own bytes, not the buffer of its read. Before, 500 of 100,000 small messages kept all 30 MB.
pub async fn stored_messages_take_little_more_than_their_bytes<H: Deref<Target = Handle>>(
    _start: impl Fn(Options) -> H,
    module: &str,
) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let ended = start_child(module, "keep").end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let grown = ended
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("grown by "));
    let grown: u64 = grown.unwrap().parse().unwrap();
    // The queue may hold 4 MiB.
    assert!(grown < 12 << 20, "{grown} bytes");
}

/// Returns the resident memory of this process in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

async fn keep<H: Deref<Target = Handle>>(start: impl Fn(Options) -> H) {
    let server = RawServer::start(|mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(&CONNACK_3_1_1);
        // A PUBLISH of 306 bytes at QoS 0 to `a`.
        let mut publish = vec![0x30, 0xAF, 2, 0, 1, b'a'];
        publish.resize(306, b'x');
        let hundred = publish.repeat(100);
        for _ in 0..STREAM.0 / 100 {
            let _ = stream.write_all(&hundred);
        }
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let mut options = options(server.port);
    options.qos0_overflow = QoS0Overflow::PauseReading;
    options.subscribe("a", QoS::AtMostOnce).unwrap();
    let handle = start(options);
    let mut messages = handle.other_messages();
    let (mut kept, mut before) = (Vec::new(), 0);
    for n in 0..STREAM.0 {
        let message = messages.next().await.unwrap();
        if n == STREAM.1 {
            before = resident();
        }
        if n % STREAM.1 == 0 {
            kept.push(message.into_message());
        }
    }
    println!("grown by {}", resident().saturating_sub(before));
    assert_eq!(kept.len(), 500);
}
