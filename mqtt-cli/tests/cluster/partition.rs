//! One of three servers of NATS is cut off from the two others, and its clients stay connected: the side of the two servers serves.

use mqtt_testing::peers::{NatsServers, free_port};
use mqtt_testing::process::{Ended, Process, words};

use crate::shards::{Node, clients, home, is_unavailable, ports, start_at};
use crate::{
    LEASE, MQTT, PAHO, PYTHON, all_arrived, broker_at, client, end, goes_on, kept_is_retained,
};

const JOURNAL: &str = "MQTT-journal-0";

/// Makes the journal, and returns the number of the server that leads it.
fn leader(servers: &NatsServers) -> usize {
    let first = broker_at(&servers.url(), "first", "0", LEASE);
    let port = first.wait_stderr_after("address=127.0.0.1:");
    // It handles signals when it serves.
    assert_eq!(client("pub -t t -m 0", &port).code, Some(0));
    first.signal("TERM");
    assert_eq!(first.end().code, Some(0));
    servers.leader(JOURNAL)
}

/// A server that can be cut off from the others, at which the owner is, and a broker in reserve at the two others.
struct Parts {
    servers: NatsServers,
    alone: usize,
    reserve: Process,
    /// Those of the owner and of the reserve.
    ports: [String; 2],
    reader: Process,
    outbox: Process,
}

impl Parts {
    /// Starts the owner with more arguments, the reserve, and clients of the owner.
    fn start(servers: NatsServers, alone: usize, more: &str) -> (Process, Self) {
        let ports = [(); 2].map(|()| free_port().to_string());
        let of_owner = format!("{LEASE}{more}");
        let owner = broker_at(&servers.url_of([alone]), "owner", &ports[0], &of_owner);
        owner.wait_stderr("listening");
        let others = servers.url_of((0..3).filter(|number| *number != alone));
        // It has the usual patience: on a busy machine its servers may take long to elect a leader.
        let reserve = broker_at(&others, "reserve", &ports[1], LEASE);
        reserve.wait_stderr("in reserve: owner is the owner");
        let all = ports.join(",");
        let reader = Process::start(PYTHON, &[PAHO, "sub", &all]);
        reader.wait_stdout("subscribed");
        let outbox = Process::start(PYTHON, &[PAHO, "pub", &all]);
        goes_on(&outbox);
        let parts = Self {
            servers,
            alone,
            reserve,
            ports,
            reader,
            outbox,
        };
        (owner, parts)
    }

    /// Cuts the server off, and starts a publisher whose message is on its way to the owner then.
    fn part(&self) -> Process {
        self.servers.cut_off(self.alone, true);
        let port = &self.ports[0];
        let to = format!("pub -t parted -r -q 1 -m 0 -d -h 127.0.0.1 -p {port} --patience 1");
        let publisher = Process::start(MQTT, &words(&to));
        publisher.wait_stderr("sending PUBLISH");
        publisher
    }

    /// Checks that nothing was lost or doubled when all servers are connected again. A broker at the server that was alone goes on
    /// when the one that serves is asked to end.
    fn all_is_there(mut self, next: &Process, port: &str) {
        let told = end(&mut self.outbox);
        all_arrived(&told, &self.reader);
        kept_is_retained(&told, &self.ports[1]);
        drop(self.reader);
        self.reserve.signal("TERM");
        assert_eq!(self.reserve.end().code, Some(0));
        next.wait_stderr("listening");
        kept_is_retained(&told, port);
        self.servers.wait_same(JOURNAL);
    }
}

fn is_refused(publisher: Process) {
    let refused = publisher.end();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(!refused.stderr.contains("PUBACK"), "{}", refused.stderr);
}

fn ends_with(ended: &Ended, code: i32, why: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(why), "{}", ended.stderr);
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: the server that leads the stream is cut off, with the owner. The other servers elect a
/// leader, and the reserve takes over. When the parts are connected again, the owner is refused, and ends.
#[test]
fn an_owner_that_is_cut_off_with_the_leader_of_its_stream_ends() {
    let servers = NatsServers::start_apart(3);
    let alone = leader(&servers);
    let (owner, parts) = Parts::start(servers, alone, "");
    let publisher = parts.part();
    parts.reserve.wait_stderr("listening");
    parts.servers.cut_off(alone, false);
    ends_with(&owner.end(), 75, "another process owns the store now");
    is_refused(publisher);
    goes_on(&parts.outbox);
    let port = free_port().to_string();
    let next = broker_at(&parts.servers.url_of([alone]), "next", &port, LEASE);
    next.wait_stderr("in reserve: reserve is the owner");
    parts.all_is_there(&next, &port);
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: a server that does not lead the stream is cut off, with the owner and a broker in reserve.
/// The owner gives up, the reserve at its side does not take over, and the one at the other side serves before the parts are
/// connected again.
#[test]
fn an_owner_that_is_cut_off_for_longer_than_its_patience_ends() {
    let servers = NatsServers::start_apart(3);
    let alone = (leader(&servers) + 1) % 3;
    let (owner, parts) = Parts::start(servers, alone, " --engine-patience 4");
    let port = free_port().to_string();
    let lonely = broker_at(&parts.servers.url_of([alone]), "lonely", &port, LEASE);
    lonely.wait_stderr("in reserve: owner is the owner");
    // So that the first block after the cut waits in the network, and reaches the leader when another one is the owner.
    parts.outbox.signal("STOP");
    let idle = client("pub -t idle -r -q 1 -m 0", &parts.ports[0]);
    assert_eq!(idle.code, Some(0), "{}", idle.stderr);
    let publisher = parts.part();
    parts.outbox.signal("CONT");
    ends_with(&owner.end(), 1, "the store does not work any more");
    is_refused(publisher);
    parts.reserve.wait_stderr("listening");
    goes_on(&parts.outbox);
    assert!(!lonely.has_complained("takes over"));
    parts.servers.cut_off(alone, false);
    goes_on(&parts.outbox);
    parts.all_is_there(&lonely, &port);
}

/// Starts three processes with a shard each, each at a server of its own.
fn three(servers: &NatsServers) -> Vec<Node> {
    let nodes = ["a", "b", "c"].into_iter().enumerate().map(|(n, name)| {
        let port = free_port().to_string();
        start_at(&servers.url_of([n]), name, &port, "")
    });
    let nodes: Vec<_> = nodes.collect();
    for node in &nodes {
        node.process.wait_stderr("listening");
    }
    nodes
}

/// Runs a client that tries again while nobody answers for its shard, as when the new owner is slow to renew its key.
fn connects(command: &str, port: &str) -> Ended {
    let mut ended = client(command, port);
    for _ in 0..30 {
        if !is_unavailable(&ended) {
            break;
        }
        ended = client(command, port);
    }
    ended
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: one of three processes that serve is cut off with its server. A process in reserve at the
/// other side takes its shard, and its clients find their sessions there. When the parts are connected again, it is refused, and ends.
#[test]
fn the_shard_of_a_process_that_is_cut_off_is_served_at_the_other_side() {
    let servers = NatsServers::start_apart(3);
    let mut nodes = three(&servers);
    let ids = clients(&nodes, "client");
    let alone = home(&nodes, "paho-sub");
    let other = (alone + 1) % 3;
    let session = format!("sub -V 5 -i {} -c -x 3600 -t to/session -q 2", ids[alone]);
    let publish = |text: &str| format!("pub -i {} -t to/session -q 2 -m {text}", ids[other]);
    for command in [format!("{session} -E"), publish("before")] {
        let ended = client(&command, &nodes[other].port);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let more = free_port().to_string();
    let mut all: Vec<_> = nodes.iter().map(|node| node.port.clone()).collect();
    all.rotate_left(alone);
    let reader = format!("{},{more}", all.join(","));
    let reader = Process::start(PYTHON, &[PAHO, "sub", &reader]);
    reader.wait_stdout("subscribed");
    let outbox = ports(&nodes, "paho-pub", std::slice::from_ref(&more));
    let mut outbox = Process::start(PYTHON, &[PAHO, "pub", &outbox]);
    let reserve = start_at(&servers.url_of([other]), "reserve", &more, "");
    reserve.process.wait_stderr("in reserve: the 3 shards");
    goes_on(&outbox);
    servers.cut_off(alone, true);
    reserve.process.wait_stderr("listening");
    let sent = client(&publish("meanwhile"), &nodes[other].port);
    assert_eq!(sent.code, Some(0), "{}", sent.stderr);
    let found = connects(&format!("{session} -C 2"), &nodes[other].port);
    assert_eq!(found.stdout, "before\nmeanwhile\n", "{}", found.stderr);
    servers.cut_off(alone, false);
    let ended = std::mem::replace(&mut nodes[alone], reserve).process.end();
    ends_with(&ended, 75, "another process owns the store now");
    goes_on(&outbox);
    let told = end(&mut outbox);
    all_arrived(&told, &reader);
    for node in &nodes {
        kept_is_retained(&told, &node.port);
    }
    drop((outbox, reader));
    for shard in 0..3 {
        servers.wait_same(&format!("MQTT-shard-0-{shard}"));
    }
}
