//! Runs a program under test. The test can wait for its output, and the program ends with the test.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The time limit for any wait of a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Printed,
    stderr: Printed,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code of the process; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The standard output of the process.
    pub stdout: String,
    /// The standard error of the process.
    pub stderr: String,
}

/// Checks that a program printed each of these texts, in this order.
///
/// # Panics
/// When one is missing.
#[track_caller]
pub fn shows(ended: &Ended, texts: &[&str]) {
    let mut rest = ended.stdout.as_str();
    for text in texts {
        let Some(at) = rest.find(text) else {
            panic!("{text:?} is missing in:\n{}{}", ended.stdout, ended.stderr);
        };
        rest = &rest[at + text.len()..];
    }
}

/// Returns the arguments for a broker that can have several threads: as many as the variable `MQTT_TEST_THREADS` says, or one. So the
/// tests of programs run once with one thread and once with several, and their brokers do not depend on the number of cores.
fn threads(arguments: &[&str]) -> Vec<String> {
    let has = |option| arguments.contains(&option);
    let is_broker = arguments.first() == Some(&"broker");
    if !is_broker || ["--import", "--engine", "--threads"].into_iter().any(has) {
        return Vec::new();
    }
    let number = std::env::var("MQTT_TEST_THREADS").ok();
    let number = number.filter(|_| !has("--store"));
    vec![
        "--threads".to_owned(),
        number.unwrap_or_else(|| "1".to_owned()),
    ]
}

/// Returns the lines of an output that are complete. What a program has printed so far may end within a line.
pub fn whole_lines(printed: &str) -> impl Iterator<Item = &str> {
    let (whole, _) = printed.rsplit_once('\n').unwrap_or_default();
    whole.lines()
}

/// Splits the arguments of a command line at spaces.
#[must_use]
pub fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The output of a program so far.
#[derive(Clone, Debug, Default)]
struct Printed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    text: Mutex<Text>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    /// Whether the output is closed.
    over: bool,
}

impl Text {
    fn read(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Printed {
    fn collect(mut from: impl Read + Send + 'static) -> Self {
        let printed = Self::default();
        let Self(shared) = printed.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let n = from.read(&mut buffer).unwrap_or(0);
                let mut text = shared.text.lock().expect("no test panics with it");
                text.bytes.extend_from_slice(&buffer[..n]);
                text.over = n == 0;
                shared.changed.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        printed
    }

    /// Waits until the text is as wanted, or the output is closed. Returns the text.
    fn wait(&self, wanted: impl Fn(&str) -> bool) -> String {
        let Shared { text, changed } = &*self.0;
        let text = text.lock().expect("no test panics with it");
        let (text, _) = changed
            .wait_timeout_while(text, PATIENCE, |text| !text.over && !wanted(&text.read()))
            .expect("no test panics with it");
        text.read()
    }
}

impl Process {
    /// Starts `program`.
    ///
    /// # Panics
    /// It cannot be started. `scripts/setup.sh` installs the programs that the tests need.
    #[must_use]
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .args(threads(arguments))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup.sh"));
        Self {
            stdin: child.stdin.take(),
            stdout: Printed::collect(child.stdout.take().expect("it is piped")),
            stderr: Printed::collect(child.stderr.take().expect("it is piped")),
            child,
        }
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// Its input is closed.
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        stdin
            .write_all(text.as_bytes())
            .expect("it reads its input");
        stdin.flush().expect("it reads its input");
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has printed `text`.
    ///
    /// # Panics
    /// It ends, or a minute passes, before.
    pub fn wait_stdout(&self, text: &str) {
        let printed = self.stdout.wait(|printed| printed.contains(text));
        assert!(
            printed.contains(text),
            "{text:?} is not printed, but: {printed}"
        );
    }

    /// Waits until it has printed `text` on standard error.
    ///
    /// # Panics
    /// As for [`Self::wait_stdout`].
    pub fn wait_stderr(&self, text: &str) {
        let printed = self.stderr.wait(|printed| printed.contains(text));
        assert!(
            printed.contains(text),
            "{text:?} is not printed, but: {printed}"
        );
    }

    /// Waits until it has printed `text` on standard error, or ended. Returns whether it has printed it.
    #[must_use]
    pub fn complains(&self, text: &str) -> bool {
        let printed = self.stderr.wait(|printed| printed.contains(text));
        printed.contains(text)
    }

    /// Returns whether it has printed `text` on standard error by now.
    #[must_use]
    pub fn has_complained(&self, text: &str) -> bool {
        self.stderr.wait(|_| true).contains(text)
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// A minute passes before.
    pub fn wait(&mut self) {
        let _ = self.status();
    }

    /// Returns its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line on standard error has `text`. Returns the word after it.
    ///
    /// # Panics
    /// As for [`Self::wait_stdout`].
    #[must_use]
    pub fn wait_stderr_after(&self, text: &str) -> String {
        let behind = |printed: &str| {
            let (_, behind) = printed.split_once(text)?;
            let end = behind.find(char::is_whitespace)?;
            behind.get(..end).map(str::to_owned)
        };
        let printed = self.stderr.wait(|printed| behind(printed).is_some());
        behind(&printed).unwrap_or_else(|| panic!("{text:?} is not printed, but: {printed}"))
    }

    /// Waits until it has printed `text` at least `count` times in whole lines on standard error. Returns all that is there.
    ///
    /// # Panics
    /// As for [`Self::wait_stdout`].
    #[must_use]
    pub fn wait_stderr_count(&self, text: &str, count: usize) -> String {
        let is_there = |printed: &str| {
            let lines = printed.rsplit_once('\n').map_or("", |(lines, _)| lines);
            lines.matches(text).count() >= count
        };
        let printed = self.stderr.wait(is_there);
        assert!(
            is_there(&printed),
            "{text:?} is not printed, but: {printed}"
        );
        printed
    }

    /// Returns what it has printed by now.
    #[must_use]
    pub fn printed(&self) -> String {
        self.stdout.wait(|_| true)
    }

    /// Returns whether it has printed `text` by now.
    #[must_use]
    pub fn has_printed(&self, text: &str) -> bool {
        self.printed().contains(text)
    }

    /// Sends it a signal, such as `INT`.
    ///
    /// # Panics
    /// The signal cannot be sent.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It takes more than a minute.
    #[must_use]
    pub fn end(mut self) -> Ended {
        self.close_input();
        let status = self.status();
        Ended {
            code: status.code(),
            stdout: self.stdout.wait(|_| false),
            stderr: self.stderr.wait(|_| false),
        }
    }

    fn status(&mut self) -> ExitStatus {
        // The output is closed when the program ends.
        let _ = self.stdout.wait(|_| false);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("it is a child of ours") {
                return status;
            }
            std::thread::yield_now();
        }
        panic!("it hangs; it said: {}", self.stderr.wait(|_| true));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, with `input` as its standard input.
///
/// # Panics
/// As for [`Process::start`] and [`Process::end`].
#[must_use]
pub fn run(program: &str, arguments: &[&str], input: &str) -> Ended {
    let mut process = Process::start(program, arguments);
    // A program that does not read its input may already have ended.
    if let Some(stdin) = &mut process.stdin {
        let _ = stdin.write_all(input.as_bytes());
    }
    process.end()
}

/// Returns the path of a Chromium that runs without a display. Prints a line on standard error if there is none.
#[must_use]
pub fn chromium() -> Option<String> {
    const NAMES: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = NAMES.iter().find_map(|name| {
        std::env::split_paths(&folders)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    });
    if found.is_none() {
        eprintln!("left out: there is no Chromium; scripts/setup.sh installs it where it can");
    }
    found?.to_str().map(str::to_owned)
}

/// Sends a signal to a process by its id.
///
/// # Panics
/// The signal cannot be sent.
pub fn signal(id: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), id.to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -{name} {id}"
    );
}

/// Returns the path of an example of the package under test, which `cargo test` builds beside its tests.
///
/// # Panics
/// The test runs from another place.
#[must_use]
pub fn example(name: &str) -> String {
    let own = std::env::current_exe().expect("a test has a path");
    let folder = own
        .ancestors()
        .nth(2)
        .expect("it lies in deps")
        .join("examples");
    folder
        .join(name)
        .to_str()
        .expect("a path of text")
        .to_owned()
}

/// Runs the two examples of an adapter: a handle that receives its own messages, and a bare connection that receives them too.
///
/// # Panics
/// One of them fails.
pub fn examples_converse(adapter: &str) {
    let broker = crate::peers::Mosquitto::start("");
    let address = format!("127.0.0.1:{}", broker.port);
    let bare = Process::start(&example(&format!("{adapter}_bare")), &[&address, "10"]);
    bare.wait_stdout("subscribed");
    let url = format!("mqtt://{address}");
    let echo = run(&example(&format!("{adapter}_echo")), &[&url], "");
    let bare = bare.end();
    for ended in [&echo, &bare] {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    shows(
        &echo,
        &["examples/echo: number 9\n", "0 messages remained\n"],
    );
    shows(&bare, &["examples/echo: number 9\n"]);
}
