//! Runs the brokers, each in a separate process.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_testing::peers::NatsServers;

use crate::client::is_home;

/// A running broker.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where it stores.
    dir: PathBuf,
    /// The servers of its journal, which end after it.
    servers: Option<Rc<NatsServers>>,
    /// Other processes whose processor time counts as its own.
    others: Vec<u32>,
    doors: Doors,
}

/// Where the clients of a load connect.
#[derive(Clone)]
pub(crate) enum Doors {
    /// To the broker itself.
    Own,
    /// To the one of these processes that has their sessions. Each pair has both at one process.
    Home(Vec<SocketAddr>),
    /// To these processes by turns.
    Turns(Vec<SocketAddr>),
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) const BROKERS: [&str; 4] = ["mqtt broker", "Mosquitto", "rumqttd", "relay"];

/// The same brokers without and with a store.
pub(crate) const STORES: [&str; 5] = [
    "mqtt broker",
    "mqtt broker, stored",
    "mqtt broker, written",
    "Mosquitto",
    "Mosquitto, saved",
];

/// The same broker in memory, with a store, and with a journal on one and on three servers of NATS.
pub(crate) const ENGINES: [&str; 4] = [
    "mqtt broker",
    "mqtt broker, stored",
    "mqtt broker, 1 server",
    "mqtt broker, 3 servers",
];

impl Broker {
    pub(crate) fn start(name: &str) -> Self {
        let address = free_address();
        let dir = std::env::temp_dir().join(format!("brokers-{}", address.port()));
        std::fs::create_dir_all(&dir).expect("a temporary folder");
        let count = match name {
            "mqtt broker, 1 server" => Some(1),
            "mqtt broker, 3 servers" => Some(3),
            _ => None,
        };
        let servers = count.map(|count| Rc::new(NatsServers::start(count, "")));
        let broker = Self::start_in(name, address, dir, servers);
        broker.listens();
        broker
    }

    /// Kills the broker, and starts it with what it stored.
    pub(crate) fn restart(mut self, name: &str) -> Self {
        let dir = std::mem::take(&mut self.dir);
        let address = self.address;
        drop(self);
        let broker = Self::start_in(name, address, dir, None);
        broker.listens();
        broker
    }

    /// Starts a broker that serves when this one has ended.
    pub(crate) fn reserve(&self) -> Self {
        let servers = self.servers.clone().expect("it has servers");
        Self::start_in("mqtt broker", free_address(), PathBuf::new(), Some(servers))
    }

    /// Asks the broker to end, and waits until it has.
    pub(crate) fn end(mut self) {
        mqtt_testing::process::signal(self.child.id(), "TERM");
        self.child.wait().expect("it ends");
    }

    fn start_in(
        name: &str,
        address: SocketAddr,
        dir: PathBuf,
        servers: Option<Rc<NatsServers>>,
    ) -> Self {
        let own = std::env::current_exe().expect("a path");
        let (program, store) = name.split_once(", ").unwrap_or((name, ""));
        let mut command = match (program, &servers) {
            ("mqtt broker", Some(servers)) => {
                let mut command = clustered(address, servers);
                if let Some(count) = store.strip_suffix(" shards") {
                    command.args(["--engine-shards", count, "--engine-redirect"]);
                    command.args(["--node-address", &address.to_string()]);
                }
                command
            }
            ("mqtt broker", None) => own_broker(address, &dir, store),
            ("Mosquitto", _) => mosquitto(address, &dir, store == "saved"),
            ("rumqttd", _) => {
                let mut command = Command::new(own.with_file_name("rumqttd_peer"));
                command.arg(address.to_string());
                command
            }
            _ => {
                let mut command = Command::new(&own);
                command.args(["--relay", &address.to_string()]);
                command
            }
        };
        let quiet = || Stdio::null();
        command.stdin(quiet()).stdout(quiet()).stderr(quiet());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            child,
            address,
            dir,
            servers,
            others: Vec::new(),
            doors: Doors::Own,
        }
    }

    /// Starts processes that have a shard each. The processor time of each is that of all and of the servers.
    pub(crate) fn shards(count: usize, servers: usize) -> Vec<Self> {
        let servers = Rc::new(NatsServers::start(servers, ""));
        let name = match count {
            1 => "mqtt broker".to_owned(),
            count => format!("mqtt broker, {count} shards"),
        };
        let start = |_| {
            let servers = Some(Rc::clone(&servers));
            Self::start_in(&name, free_address(), PathBuf::new(), servers)
        };
        let mut processes: Vec<_> = (0..count).map(start).collect();
        let mut all = servers.ids();
        all.extend(processes.iter().map(|broker| broker.child.id()));
        for broker in &mut processes {
            broker.listens();
            let own = broker.child.id();
            broker.others = all.iter().copied().filter(|id| *id != own).collect();
        }
        processes
    }

    /// Lets the clients of loads connect to other processes as well.
    pub(crate) fn opens(&mut self, doors: Doors) {
        self.doors = doors;
    }

    /// Returns where a client of a load connects, and its client identifier. Its name is a letter and a number.
    pub(crate) fn place(&self, name: &str) -> (SocketAddr, String) {
        let at = |all: &[SocketAddr], more: usize| {
            let number = name.trim_start_matches(char::is_alphabetic);
            let number: usize = number.parse().expect("a letter and a number");
            all[(number + more) % all.len()]
        };
        match &self.doors {
            Doors::Own => (self.address, name.to_owned()),
            Doors::Home(all) => {
                let address = at(all, 0);
                let mut ids = (0..).map(|number| format!("{number}-{name}"));
                let id = ids.find(|id| is_home(address, id));
                (address, id.expect("one of them"))
            }
            // Publisher and subscriber of a pair are at different ones.
            Doors::Turns(all) => (at(all, usize::from(name.starts_with('p'))), name.to_owned()),
        }
    }

    /// Waits until it listens.
    pub(crate) fn listens(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < until, "{} is silent", self.address);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the processor time of all its threads so far, and of the processes that count as its own.
    pub(crate) fn cpu(&self) -> Duration {
        self.own_cpu() + self.others.iter().map(|id| cpu_of(*id)).sum::<Duration>()
    }

    /// Returns the processor time of all its threads so far.
    pub(crate) fn own_cpu(&self) -> Duration {
        cpu_of(self.child.id())
    }

    /// Returns its resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Returns the most resident memory that it had, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    }
}

fn cpu_of(id: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task"));
    let nanos = tasks.into_iter().flatten().flatten().map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next().unwrap_or_default();
        first.parse::<u64>().unwrap_or(0)
    });
    Duration::from_nanos(nanos.sum())
}

fn own_broker(address: SocketAddr, dir: &Path, durability: &str) -> Command {
    let mut command = Command::new(std::env::var("MQTT").expect("MQTT names the program mqtt"));
    command.args(["broker", "--log", "error", "--connections", "20000"]);
    command.args(["--bind", &address.to_string()]);
    if !durability.is_empty() {
        command.arg("--store").arg(dir);
        command.args(["--durability", durability]);
    }
    command
}

/// The name of the broker's node is its port.
fn clustered(address: SocketAddr, servers: &NatsServers) -> Command {
    let mut command = own_broker(address, Path::new(""), "");
    let (node, replicas) = (address.port().to_string(), servers.count().to_string());
    command.args(["--engine", &servers.url(), "--node", &node]);
    command.args(["--engine-replicas", &replicas]);
    command
}

/// `saves`: it saves after each change, at most once a second.
fn mosquitto(address: SocketAddr, dir: &Path, saves: bool) -> Command {
    let persistence = if saves {
        format!(
            "persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\nuser root\n",
            dir.display()
        )
    } else {
        "persistence false\n".to_owned()
    };
    let text = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\nlog_type error\nmax_queued_messages 0\n\
         max_inflight_messages 200\nset_tcp_nodelay true\n{persistence}",
        address.port()
    );
    let path = dir.join("mosquitto.conf");
    std::fs::write(&path, text).expect("a temporary folder");
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(path);
    command
}

pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
