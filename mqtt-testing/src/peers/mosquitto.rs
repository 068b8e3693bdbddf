//! Runs Mosquitto on a free port of 127.0.0.1 for one test.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::net::TcpListener;

use crate::process::Process;

/// A running broker; it ends when this is dropped.
#[derive(Debug)]
pub struct Mosquitto {
    process: Process,
    /// The port of the broker.
    pub port: u16,
    directory: std::path::PathBuf,
    extra: String,
}

/// Returns a port without a listener, from a range that the system does not assign itself, so that no other test takes it
/// meanwhile.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| {
        let random = RandomState::new().build_hasher().finish() % 20_000;
        10_000 + u16::try_from(random).expect("it is small")
    })
    .take(100)
    .find(is_free)
    .expect("a free port")
}

impl Mosquitto {
    /// Starts a broker with `extra` lines of configuration, in which `DIRECTORY` is its own directory, and waits until it
    /// accepts
    /// connections.
    ///
    /// # Panics
    /// Mosquitto is not installed (`scripts/setup.sh` does that) or does not start.
    #[must_use]
    pub fn start(extra: &str) -> Self {
        // Another test may take the port before Mosquitto does.
        for _ in 0..5 {
            let broker = Self::spawn(free_port(), extra);
            if broker.listens() {
                return broker;
            }
        }
        panic!("Mosquitto does not start");
    }

    /// Starts a broker on the port of an earlier one.
    ///
    /// # Panics
    /// The port is not free any more, and as for [`Self::start`].
    #[must_use]
    pub fn start_on(port: u16) -> Self {
        Self::start_there(port, "")
    }

    /// Starts a broker on this port with lines of configuration.
    ///
    /// # Panics
    /// As for [`Self::start_on`].
    #[must_use]
    pub fn start_there(port: u16, extra: &str) -> Self {
        let broker = Self::spawn(port, extra);
        assert!(broker.listens(), "Mosquitto does not start on port {port}");
        broker
    }

    fn spawn(port: u16, extra: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("mqtt-testing-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for its configuration");
        // When root starts Mosquitto, it changes to another user, who stores its sessions there.
        #[cfg(unix)]
        std::fs::set_permissions(
            &directory,
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .expect("a directory for its sessions");
        let process = Self::launch(port, &directory, extra);
        Self {
            process,
            port,
            directory,
            extra: extra.to_owned(),
        }
    }

    fn launch(port: u16, directory: &std::path::Path, extra: &str) -> Process {
        let extra = extra.replace("DIRECTORY", directory.to_str().expect("a path of text"));
        let path = directory.join("mosquitto.conf");
        let mut config = std::fs::File::create(&path).expect("its configuration");
        let text = format!(
            "listener {port} 127.0.0.1\nmax_queued_messages 0\nlog_dest stderr\nlog_type information\n\
             connection_messages false\nset_tcp_nodelay true\n{extra}\n"
        );
        let anonymous = if extra.contains("allow_anonymous") {
            ""
        } else {
            "allow_anonymous true\n"
        };
        config
            .write_all(format!("{text}{anonymous}").as_bytes())
            .expect("its configuration");
        let program = [
            "/usr/sbin/mosquitto",
            "/usr/local/sbin/mosquitto",
            "/opt/homebrew/sbin/mosquitto",
        ]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .unwrap_or("mosquitto");
        Process::start(program, &["-c", path.to_str().expect("a path of text")])
    }

    /// Starts a broker that accepts only clients with this password.
    ///
    /// # Panics
    /// `mosquitto_passwd`, which comes with Mosquitto, is not installed, and as for [`Self::start`].
    #[must_use]
    pub fn start_with_password(user: &str, password: &str) -> Self {
        let file = std::env::temp_dir().join(format!(
            "mqtt-testing-{}-{}.passwords",
            std::process::id(),
            free_port()
        ));
        let path = file.to_str().expect("a path of text");
        let made = crate::process::run("mosquitto_passwd", &["-b", "-c", path, user, password], "");
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let broker = Self::start(&format!("allow_anonymous false\npassword_file {path}"));
        let _ = std::fs::remove_file(file);
        broker
    }

    /// Stops the broker by a signal, and starts it again on its port.
    ///
    /// # Panics
    /// It does not start again.
    pub fn restart(&mut self) {
        crate::process::signal(self.id(), "TERM");
        self.process.wait();
        for _ in 0..20 {
            self.process = Self::launch(self.port, &self.directory, &self.extra);
            if self.listens() {
                return;
            }
        }
        panic!("Mosquitto does not start again");
    }

    /// Returns whether this broker has the port. Another test may have taken it, and a connection would not show that.
    fn listens(&self) -> bool {
        self.process.complains(" running\n")
    }

    /// Returns its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Stops its process, so that it does not answer, or lets it run again.
    ///
    /// # Panics
    /// The signal cannot be sent.
    pub fn freeze(&self, frozen: bool) {
        crate::process::signal(self.id(), if frozen { "STOP" } else { "CONT" });
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
