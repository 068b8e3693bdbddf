//! Starts the broker that is attacked.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mqtt_proto::Connect;

use crate::client::connect;
use crate::machine;

/// How many users there are with [`Setup::Users`].
pub(crate) const USERS: usize = 5;
/// The password of all users.
pub(crate) const PASSWORD: &str = "secret";

/// The configuration of the broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Setup {
    /// The defaults.
    Plain,
    /// An ACL with 10,000 patterns, and everything allowed.
    Rules,
    /// Users with passwords.
    Users,
    /// A window of 65,535 messages.
    Window,
    /// Limits of 64 MiB for each thing that has one.
    Small,
    /// Room for 2,000 sessions.
    Sessions,
    /// Names of 100,000 levels.
    Levels,
    /// Standard error is a pipe that nobody reads.
    StuckLog,
}

/// The program of the broker.
pub(crate) struct Program {
    pub(crate) path: String,
    pub(crate) is_mosquitto: bool,
    /// Where its files are written.
    pub(crate) folder: PathBuf,
}

/// A running broker. Dropping this kills it.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: SocketAddr,
    setup: Setup,
}

impl Setup {
    /// Returns the options of `mqtt broker`.
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::StuckLog => &[],
            Self::Levels => &["--topic-levels", "100000"],
            Self::Rules => &["--acl-file", "acl"],
            Self::Users => &["--user-file", "users"],
            Self::Window => &["--window", "65535", "--window-qos2", "65535"],
            Self::Small => &[
                "--connection-bytes-total=67108864",
                "--input-bytes-total=67108864",
                "--queued-bytes-total=67108864",
                "--subscription-bytes-total=67108864",
                "--retained-bytes=67108864",
                "--will-bytes=16777216",
                "--connect-size=131072",
            ],
            Self::Sessions => &["--sessions", "2000"],
        }
    }

    /// Returns the lines of mosquitto.conf.
    const fn lines(self) -> &'static str {
        match self {
            Self::Plain | Self::Small | Self::Sessions | Self::Levels | Self::StuckLog => {
                "allow_anonymous true\n"
            }
            Self::Rules => "allow_anonymous true\nacl_file acl\n",
            Self::Users => "allow_anonymous false\npassword_file users\n",
            Self::Window => "allow_anonymous true\nmax_inflight_messages 65535\n",
        }
    }
}

impl Program {
    /// Writes the files of a setup.
    fn prepare(&self, setup: Setup, port: u16) {
        let write = |name: &str, text: &str| {
            std::fs::write(self.folder.join(name), text).expect("a file can be written");
        };
        match setup {
            Setup::Rules => {
                let mut text = "topic readwrite #\n".to_owned();
                for n in 0..10_000 {
                    writeln!(text, "pattern read rule/{n}/%c/#").expect("a string");
                }
                write("acl", &text);
            }
            Setup::Users => write("users", &self.users()),
            _ => {}
        }
        let listener = format!("listener {port} 127.0.0.1\n");
        write("mosquitto.conf", &(listener + setup.lines()));
    }

    /// Returns the text of a file of users who have the same password and the same hash.
    fn users(&self) -> String {
        let (program, arguments): (&str, &[&str]) = match self.is_mosquitto {
            true => ("mosquitto_passwd", &["-c", "-b"]),
            false => (&self.path, &["passwd", "-c", "-b"]),
        };
        let made = Command::new(program)
            .args(arguments)
            .args(["made", "user", PASSWORD])
            .current_dir(&self.folder)
            .status();
        assert!(made.expect("the program starts").success());
        let text = std::fs::read_to_string(self.folder.join("made")).expect("the file of a user");
        let (_, hash) = text.trim().split_once(':').expect("a user and a hash");
        (0..USERS).fold(String::new(), |text, n| {
            text + &format!("user-{n}:{hash}\n")
        })
    }

    pub(crate) fn start(&self, setup: Setup) -> Broker {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        self.prepare(setup, address.port());
        let mut command = Command::new(&self.path);
        match self.is_mosquitto {
            true => command.args(["-c", "mosquitto.conf"]),
            false => command
                .args(["broker", "--threads", "1", "--bind", &address.to_string()])
                .args(setup.options()),
        };
        command.current_dir(&self.folder);
        command.stdout(Stdio::null()).stderr(match setup {
            Setup::StuckLog => Stdio::piped(),
            _ => Stdio::null(),
        });
        let child = machine::on_all_processors(|| command.spawn().expect("the broker starts"));
        let broker = Broker {
            child,
            address,
            setup,
        };
        let by = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < by, "the broker does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        broker
    }
}

impl Broker {
    /// Returns the CONNECT of a client that means well.
    pub(crate) fn honest<'a>(&self, user: &'a str) -> Connect<'a> {
        let has_users = self.setup == Setup::Users;
        Connect {
            user_name: has_users.then_some(user),
            password: has_users.then_some(PASSWORD.as_bytes()),
            ..connect("")
        }
    }

    /// Returns its largest resident memory so far in MB, on systems with `/proc`.
    pub(crate) fn memory(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes / 1_024)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
