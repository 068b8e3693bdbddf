//! Runs servers of NATS with JetStream on free ports of 127.0.0.1 for one test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::peers::free_port;
use crate::process::Process;
use crate::wires::Network;

/// Servers that replicate the streams of one another; they end when this is dropped.
#[derive(Debug)]
pub struct NatsServers {
    servers: Vec<Server>,
    directory: PathBuf,
    /// The networks between two servers, if they can be cut.
    routes: Vec<Route>,
}

/// The network through which two servers reach each other.
#[derive(Debug)]
struct Route {
    ends: [usize; 2],
    network: Network,
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
    /// Starts `count` servers, which flush each message, with `extra` lines of configuration.
    ///
    /// # Panics
    /// There is no server (`scripts/setup.sh` installs it), or it does not start.
    #[must_use]
    pub fn start(count: usize, extra: &str) -> Self {
        Self::try_start(|| Self::spawn(count, extra, Vec::new(), &free_ports(count)))
    }

    /// Starts `count` servers with networks between them, of which [`Self::cut_off`] can cut some. A client that is connected to
    /// one of them does not learn of the others.
    ///
    /// # Panics
    /// As for [`Self::start`].
    #[must_use]
    pub fn start_apart(count: usize) -> Self {
        Self::try_start(|| {
            let ports = free_ports(count);
            let pairs = (0..count).flat_map(|from| (0..count).map(move |to| [from, to]));
            let routes = pairs.filter(|[from, to]| from != to).map(|ends| Route {
                ends,
                network: Network::to(ports[ends[1]]),
            });
            Self::spawn(count, "", routes.collect(), &ports)
        })
    }

    fn try_start(spawn: impl Fn() -> Self) -> Self {
        // Another test may take a port before a server does.
        for _ in 0..5 {
            let servers = spawn();
            if servers.all_listen() {
                return servers;
            }
        }
        panic!("the servers of NATS do not start");
    }

    /// `ports` are those that the servers reach each other at, directly or through `routes`.
    fn spawn(count: usize, extra: &str, routes: Vec<Route>, ports: &[u16]) -> Self {
        let name = format!("mqtt-nats-{}-{}", std::process::id(), free_port());
        let directory = std::env::temp_dir().join(name);
        let server = |(n, route): (usize, &u16)| {
            let (port, monitor) = (free_port(), free_port());
            let own = directory.join(format!("n{n}"));
            std::fs::create_dir_all(&own).expect("a directory for its streams");
            let mut text = format!(
                "server_name: n{n}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor}\n{extra}\n\
                 jetstream {{ store_dir: {own:?}, sync_interval: always }}\n"
            );
            if count > 1 {
                let (others, more) = others(n, ports, &routes);
                text += &format!(
                    "cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{others}]{more} }}\n"
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
        let servers = ports.iter().enumerate().map(server).collect();
        Self {
            servers,
            directory,
            routes,
        }
    }

    fn all_listen(&self) -> bool {
        let mut processes = self.servers.iter().flat_map(|server| &server.process);
        processes.all(|process| process.complains("Server is ready"))
    }

    /// Returns the addresses of all servers.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(0..self.servers.len())
    }

    /// Returns the addresses of some servers.
    #[must_use]
    pub fn url_of(&self, numbers: impl IntoIterator<Item = usize>) -> String {
        let address = |number: usize| format!("127.0.0.1:{}", self.port(number));
        let all: Vec<_> = numbers.into_iter().map(address).collect();
        format!("nats://{}", all.join(","))
    }

    /// Returns the port of a server for its clients.
    #[must_use]
    pub fn port(&self, number: usize) -> u16 {
        self.servers[number].port
    }

    /// Cuts a server of [`Self::start_apart`] off from the others, or connects it again. Its clients stay connected.
    pub fn cut_off(&self, number: usize, is_cut: bool) {
        let of_server = |route: &&Route| route.ends.contains(&number);
        for route in self.routes.iter().filter(of_server) {
            route.network.cut(is_cut);
        }
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

    /// Asks a server to end, and waits until it has.
    pub fn stop(&mut self, number: usize) {
        if let Some(process) = self.servers[number].process.take() {
            process.signal("TERM");
            let _ = process.end();
        }
    }

    /// Starts a server again that was killed or stopped.
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

    /// Waits until all servers have what the others have, and say so at `/healthz`.
    ///
    /// # Panics
    /// They do not for a minute.
    pub fn wait_healthy(&self) {
        let is_healthy = |server: &Server| server.state("/healthz").contains("\"ok\"");
        let until = Instant::now() + Duration::from_secs(60);
        while !self.servers.iter().all(is_healthy) {
            assert!(Instant::now() < until, "the servers are not healthy");
            std::thread::yield_now();
        }
    }

    /// Waits until all servers have the same messages of a stream, by their numbers, bytes and times.
    ///
    /// # Panics
    /// They do not for a minute.
    pub fn wait_same(&self, stream: &str) {
        let mut copies = Vec::new();
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            copies.clear();
            copies.extend(self.servers.iter().map(|server| server.copy(stream)));
            let first = &copies[0];
            if first.is_some() && copies.iter().all(|copy| copy == first) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("the copies of {stream} differ: {copies:?}");
    }
}

impl Server {
    /// Returns the sequences, number, bytes and times of its copy of a stream, as text.
    fn copy(&self, stream: &str) -> Option<String> {
        let state = self.state("/jsz?streams=true");
        let (_, of_stream) = state.split_once(&format!("\"name\": \"{stream}\""))?;
        let (_, state) = of_stream.split_once("\"state\": {")?;
        let (state, _) = state.split_once("\"consumer_count\"")?;
        Some(state.to_owned())
    }

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

fn free_ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| free_port()).collect()
}

/// Returns the addresses that a server is given of the others, and more settings of its cluster.
fn others(number: usize, ports: &[u16], routes: &[Route]) -> (String, &'static str) {
    let url = |port: u16| format!("nats://127.0.0.1:{port}");
    if routes.is_empty() {
        let all: Vec<_> = ports.iter().copied().map(url).collect();
        return (all.join(", "), "");
    }
    let own = routes.iter().filter(|route| route.ends[0] == number);
    let all: Vec<_> = own.map(|route| url(route.network.port)).collect();
    // Without an address where nobody listens, servers tell each other their own ones, beside the networks.
    let more = ", advertise: \"127.0.0.1:1\", no_advertise: true";
    (all.join(", "), more)
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
