//! Runs servers of NATS with JetStream on free ports of 127.0.0.1 for one test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::peers::free_port;
use crate::process::Process;

/// Servers that replicate the streams of one another; they end when this is dropped.
#[derive(Debug)]
pub struct NatsServers {
    servers: Vec<Server>,
    directory: PathBuf,
}

#[derive(Debug)]
struct Server {
    process: Option<Process>,
    port: u16,
    /// The port of its state over HTTP.
    monitor: u16,
    config: PathBuf,
}

impl NatsServers {
    /// Starts so many servers, which flush each message, with `extra` lines of configuration.
    ///
    /// # Panics
    /// There is no server (`scripts/setup.sh` installs it), or it does not start.
    #[must_use]
    pub fn start(count: usize, extra: &str) -> Self {
        // Another test may take a port before a server does.
        for _ in 0..5 {
            let servers = Self::spawn(count, extra);
            if servers.all_listen() {
                return servers;
            }
        }
        panic!("the servers of NATS do not start");
    }

    fn spawn(count: usize, extra: &str) -> Self {
        let name = format!("mqtt-nats-{}-{}", std::process::id(), free_port());
        let directory = std::env::temp_dir().join(name);
        let routes: Vec<_> = (0..count).map(|_| free_port()).collect();
        let url = |port: &u16| format!("nats://127.0.0.1:{port}");
        let all = routes.iter().map(url).collect::<Vec<_>>().join(", ");
        let server = |(n, route): (usize, &u16)| {
            let (port, monitor) = (free_port(), free_port());
            let own = directory.join(format!("n{n}"));
            std::fs::create_dir_all(&own).expect("a directory for its streams");
            let mut text = format!(
                "server_name: n{n}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor}\n{extra}\n\
                 jetstream {{ store_dir: {own:?}, sync_interval: always }}\n"
            );
            if count > 1 {
                text += &format!(
                    "cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{all}] }}\n"
                );
            }
            let config = own.join("nats.conf");
            std::fs::write(&config, text).expect("its configuration");
            Server {
                process: Some(launch(&config)),
                port,
                monitor,
                config,
            }
        };
        let servers = routes.iter().enumerate().map(server).collect();
        Self { servers, directory }
    }

    fn all_listen(&self) -> bool {
        let mut processes = self.servers.iter().flat_map(|server| &server.process);
        processes.all(|process| process.complains("Server is ready"))
    }

    /// Returns the addresses of all servers.
    #[must_use]
    pub fn url(&self) -> String {
        let address = |server: &Server| format!("127.0.0.1:{}", server.port);
        let all: Vec<_> = self.servers.iter().map(address).collect();
        format!("nats://{}", all.join(","))
    }

    /// Returns how many servers were started.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.servers.len()
    }

    /// Returns the process ids of the servers that run.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        let running = self.servers.iter().flat_map(|server| &server.process);
        running.map(Process::id).collect()
    }

    /// Kills a server.
    pub fn kill(&mut self, number: usize) {
        self.servers[number].process = None;
    }

    /// Starts a server again that was killed.
    ///
    /// # Panics
    /// It does not start.
    pub fn restart(&mut self, number: usize) {
        let server = &mut self.servers[number];
        let process = launch(&server.config);
        process.wait_stderr("Server is ready");
        server.process = Some(process);
    }

    /// Returns the number of the server that leads a stream.
    ///
    /// # Panics
    /// There is none for a minute.
    #[must_use]
    pub fn leader(&self, stream: &str) -> usize {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let running = self
                .servers
                .iter()
                .filter(|server| server.process.is_some());
            for server in running {
                let state = server.state("/jsz?streams=true");
                let of_stream = format!("\"name\": \"{stream}\"");
                let leader = state
                    .split_once(&of_stream)
                    .and_then(|(_, rest)| rest.split_once("\"leader\": \"n"))
                    .and_then(|(_, rest)| rest.split_once('"'));
                if let Some((number, _)) = leader {
                    return number.parse().expect("a number");
                }
            }
            std::thread::yield_now();
        }
        panic!("no server leads {stream}");
    }
}

impl Server {
    /// Returns what it answers over HTTP.
    fn state(&self, path: &str) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.monitor)) {
            let request = format!("GET {path} HTTP/1.0\r\n\r\n");
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for NatsServers {
    fn drop(&mut self) {
        self.servers.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn launch(config: &Path) -> Process {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/nats-server");
    let program = if Path::new(installed).exists() {
        installed
    } else {
        "nats-server"
    };
    Process::start(program, &["-c", config.to_str().expect("a path of text")])
}
