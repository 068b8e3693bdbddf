//! Writes the log of `mqtt broker` to standard error in a separate thread. Lines that cannot be written in time are dropped and
//! counted, and do not stop the broker.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use crate::failure::{Failure, PANICKED, defect, fail};

/// The default level.
const DEFAULT_LEVEL: &str = "info";
/// How many lines may wait to be written.
const WAITING: usize = 1_024;
/// How long the program waits at its end for the last lines.
const FINISH_TIME: Duration = Duration::from_millis(500);
/// How long the broker has after a panic to tell its clients.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// The log of this process.
#[derive(Debug)]
pub(crate) struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    lines: Lines,
    panicked: Arc<Panicked>,
}

/// Whether a thread or task has panicked.
#[derive(Debug, Default)]
struct Panicked {
    happened: AtomicBool,
    told: Notify,
}

impl Log {
    /// Starts the log of this process.
    pub(crate) fn start(level_name: Option<&str>, format: Option<&str>) -> Result<Self, Failure> {
        let (filter, handle) = reload::Layer::new(LevelFilter::from(level(level_name)?));
        let lines = Lines::start(io::stderr()).map_err(fail)?;
        let writer = lines.clone();
        let layer = fmt::layer()
            .with_writer(move || writer.clone())
            .with_target(false)
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
        let layer = match format {
            None | Some("text") => layer.boxed(),
            Some("json") => layer.json().flatten_event(true).boxed(),
            Some(other) => {
                return Err(fail(format!("log-format {other:?}: must be text or json")));
            }
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(layer)
            .init();
        let panicked = Arc::default();
        exit_on_panic(lines.clone(), Arc::clone(&panicked));
        Ok(Self {
            level: handle,
            lines,
            panicked,
        })
    }

    /// Waits until a thread or task has panicked.
    pub(crate) async fn panicked(&self) {
        self.panicked.told.notified().await;
    }

    /// Returns the failure of a process in which a thread or task has panicked.
    pub(crate) fn defect(&self) -> Option<Failure> {
        let happened = self.panicked.happened.load(Ordering::Relaxed);
        happened.then(defect)
    }

    /// Changes the level.
    pub(crate) fn set(&self, level: Level) -> Result<(), Failure> {
        self.level.reload(LevelFilter::from(level)).map_err(fail)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.finish();
    }
}

/// Returns the level of this name.
pub(crate) fn level(name: Option<&str>) -> Result<Level, Failure> {
    let name = name.unwrap_or(DEFAULT_LEVEL);
    name.parse().map_err(|_| {
        fail(format!(
            "log {name:?}: must be error, warn, info, debug or trace"
        ))
    })
}

/// Ends the process after a panic, so that a supervisor restarts it, instead of continuing without the task. The broker has
/// [`GOODBYE_TIME`] to end its connections.
fn exit_on_panic(lines: Lines, panicked: Arc<Panicked>) {
    let exit = || std::process::exit(PANICKED.into());
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(why = ?panic.to_string(), "a defect of this program ends it");
        lines.finish();
        panicked.happened.store(true, Ordering::Relaxed);
        panicked.told.notify_one();
        let thread = std::thread::Builder::new().name("end".to_owned());
        let ends = thread.spawn(move || {
            std::thread::sleep(GOODBYE_TIME);
            exit()
        });
        if ends.is_err() {
            exit();
        }
    }));
}

enum Item {
    Line(Vec<u8>),
    /// Answered when all earlier lines are written.
    Finish(SyncSender<()>),
}

/// Accepts lines without waiting.
#[derive(Clone, Debug)]
struct Lines {
    items: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (items, receiver) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver, out, &counted))?;
        Ok(Self { items, lost })
    }

    /// Waits a short time until all lines are written.
    fn finish(&self) {
        let (done, wait) = sync_channel(1);
        if self.items.try_send(Item::Finish(done)).is_ok() {
            let _ = wait.recv_timeout(FINISH_TIME);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.items.try_send(Item::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the lines. A line that cannot be written counts as lost.
fn write_all(items: &Receiver<Item>, mut out: impl Write, lost: &AtomicU64) {
    for item in items {
        match item {
            Item::Line(line) => {
                let missing = lost.swap(0, Ordering::Relaxed);
                let told = match missing {
                    0 => Ok(()),
                    _ => writeln!(out, "{missing} lines of this log were lost"),
                };
                if told.and_then(|()| out.write_all(&line)).is_err() {
                    lost.fetch_add(missing + 1, Ordering::Relaxed);
                }
            }
            Item::Finish(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A writer that passes each write to a channel and waits until it is received.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn unwritten_lines_are_dropped_and_counted() {
        let (sender, taken) = sync_channel(0);
        let mut lines = Lines::start(Slow(sender)).unwrap();
        lines.write_all(b"first").unwrap();
        let total = WAITING + 10;
        for n in 0..total {
            lines.write_all(format!("{n}").as_bytes()).unwrap();
        }
        lines.finish();
        let mut text = Vec::new();
        while !text.ends_with(b" lines of this log were lost\n") {
            text.extend(taken.recv().unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        // The writer may already have the first line, or it waits with the others.
        let number = text.trim_start_matches("first").split_once(' ').unwrap().0;
        let lost: usize = number.parse().unwrap();
        assert!((10..=11).contains(&lost), "{text}");
    }

    /// A writer that fails like a full disk, and signals each attempt.
    struct Full(Sender<()>);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(());
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_does_not_end_the_log() {
        let (sender, attempts) = channel();
        let mut lines = Lines::start(Full(sender)).unwrap();
        for _ in 0..3 {
            lines.write_all(b"line").unwrap();
            attempts.recv().unwrap();
        }
        lines.finish();
        assert_eq!(lines.lost.load(Ordering::Relaxed), 3);
    }

    /// Calls a test of this module in a process of its own, which panics in a way. Returns the exit code, and checks the log.
    fn code_after(name: &str, way: &str) -> Option<i32> {
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&format!("log::tests::{name}"), "--exact", "--nocapture"])
            .env(INNER, way)
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&ended.stderr);
        let mut lines = log.lines();
        let told = lines.any(|line| line.contains("ERROR") && line.contains("the reason\\nin two"));
        assert!(told, "{log}");
        ended.status.code()
    }

    const INNER: &str = "MQTT_TEST_PANIC";

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.build().unwrap()
    }

    /// A task that fails ends the process, which a supervisor then restarts.
    #[test]
    fn a_panic_in_a_task_ends_the_process_with_101() {
        if std::env::var_os(INNER).is_some() {
            let _log = Log::start(None, None).unwrap();
            let failing = tokio::task::LocalSet::new();
            failing.spawn_local(async { panic!("the reason\nin two lines") });
            failing.spawn_local(std::future::pending::<()>());
            runtime().block_on(failing);
        }
        let code = code_after("a_panic_in_a_task_ends_the_process_with_101", "task");
        assert_eq!(code, Some(101));
    }

    /// A thread that fails ends the process with the same code, after the broker was told to end.
    #[test]
    fn a_panic_in_a_thread_is_told_to_the_broker() {
        if std::env::var_os(INNER).is_some() {
            let log = Log::start(None, None).unwrap();
            assert!(log.defect().is_none());
            std::thread::spawn(|| panic!("the reason\nin two lines"));
            runtime().block_on(log.panicked());
            let code = log.defect().map_or(0, |failure| failure.code);
            // The process has a second for it.
            std::process::exit(i32::from(code) + 1);
        }
        let code = code_after("a_panic_in_a_thread_is_told_to_the_broker", "thread");
        assert_eq!(code, Some(102));
    }
}
