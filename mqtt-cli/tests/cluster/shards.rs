//! A broker whose shards are in several processes: each client may connect to any of them.

use std::io::{Read, Write};
use std::net::TcpStream;

use mqtt_proto::{Connect, Packet, Version};
use mqtt_testing::packets::encode;
use mqtt_testing::peers::{NatsServers, free_port};
use mqtt_testing::process::{Ended, Process, run, whole_lines, words};

use crate::{MQTT, PAHO, PYTHON, all_arrived, broker, broker_at, client};
use crate::{end, goes_on, kept_is_retained, kills, lose_leader};

/// With a shorter lease the reserve may take the shard of a process that only stalls, and nobody is left for the one that is killed.
const LEASE: &str = "--engine-lease 4";

/// A process with one of three shards.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) port: String,
}

/// Starts a process that takes one of three shards, or waits for one.
fn start(servers: &NatsServers, name: &str, port: &str, more: &str) -> Node {
    start_at(&servers.url(), name, port, more)
}

/// Starts a process of the servers at an address.
pub(crate) fn start_at(url: &str, name: &str, port: &str, more: &str) -> Node {
    let more = format!("--engine-shards 3 {LEASE} {more}");
    Node {
        process: broker_at(url, name, port, &more),
        port: port.to_owned(),
    }
}

/// Starts three processes, which serve.
fn three(servers: &NatsServers, more: &str) -> Vec<Node> {
    let nodes = ["a", "b", "c"].map(|name| start(servers, name, &free_port().to_string(), more));
    for node in &nodes {
        node.process.wait_stderr("listening");
    }
    nodes.into()
}

/// Returns the place of the process that has the session of a client.
pub(crate) fn home(nodes: &[Node], id: &str) -> usize {
    let published = client(&format!("pub -i {id} -t probe -q 1 -m 0"), &nodes[0].port);
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let line = format!("connected client=\"{id}\"");
    let is_home = |node: &Node| node.process.has_complained(&line);
    // It is logged before CONNACK is sent, and read here some time later.
    loop {
        if let Some(home) = nodes.iter().position(is_home) {
            return home;
        }
        std::thread::yield_now();
    }
}

/// Returns a client identifier for each process, in their order.
pub(crate) fn clients(nodes: &[Node], prefix: &str) -> Vec<String> {
    let mut found = vec![None; nodes.len()];
    for number in 0.. {
        let id = format!("{prefix}-{number}");
        found[home(nodes, &id)].get_or_insert(id);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.into_iter().flatten().collect()
}

/// Returns the ports, first that of a process that has not the session of the client.
pub(crate) fn ports(nodes: &[Node], id: &str, more: &[String]) -> String {
    let wrong = (home(nodes, id) + 1) % nodes.len();
    let mut ports: Vec<_> = nodes.iter().map(|node| node.port.clone()).collect();
    ports.rotate_left(wrong);
    ports.extend_from_slice(more);
    ports.join(",")
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: as with one shard, but paho is connected to processes that relay its bytes. Each of the
/// three processes is killed or frozen, and a process in reserve takes its shard; then a server is killed.
#[test]
fn acknowledged_messages_survive_kills_of_processes_with_shards() {
    let mut servers = NatsServers::start(3, "");
    let mut nodes = three(&servers, "");
    let reserves: Vec<_> = (0..3 * kills()).map(|_| free_port().to_string()).collect();
    let reader = ports(&nodes, "paho-sub", &reserves);
    let reader = Process::start(PYTHON, &[PAHO, "sub", &reader]);
    reader.wait_stdout("subscribed");
    let outbox = ports(&nodes, "paho-pub", &reserves);
    let mut outbox = Process::start(PYTHON, &[PAHO, "pub", &outbox]);
    for (kill, port) in reserves.iter().enumerate() {
        let reserve = start(&servers, &format!("reserve-{kill}"), port, "");
        reserve.process.wait_stderr("in reserve: the 3 shards");
        goes_on(&outbox);
        let ended = nodes.remove(0).process;
        if kill % 3 == 1 {
            ended.signal("STOP");
            reserve.process.wait_stderr("listening");
            ended.signal("CONT");
            assert_eq!(ended.end().code, Some(75));
        } else {
            // Dropping the process kills it.
            drop(ended);
            reserve.process.wait_stderr("listening");
        }
        nodes.push(reserve);
        goes_on(&outbox);
        if kill % 3 == 2 {
            lose_leader(&mut servers, "MQTT-shard-0-0", &outbox);
        }
    }
    let told = end(&mut outbox);
    all_arrived(&told, &reader);
    for node in &nodes {
        kept_is_retained(&told, &node.port);
    }
}

/// Starts a client of the process after its own.
fn at_wrong(nodes: &[Node], at: usize, command: &str) -> Process {
    let port = &nodes[(at + 1) % nodes.len()].port;
    let all = [&words(command)[..], &["-h", "127.0.0.1", "-p", port]].concat();
    Process::start(MQTT, &all)
}

/// 5 [MQTT-4.8.2-4]: each message goes to one member of a shared subscription, whichever process has it. A retained message is
/// that of the whole broker.
#[test]
fn the_processes_are_one_broker() {
    let servers = NatsServers::start(1, "");
    let nodes = three(&servers, "--engine-replicas 1");
    let ids = clients(&nodes, "client");
    let members: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| at_wrong(&nodes, at, &format!("sub -i {id} -t $share/g/s -q 2 -d")))
        .collect();
    for member in &members {
        member.wait_stderr("receiving SUBACK");
    }
    let lines: String = (0..300).map(|n| format!("{n}\n")).collect();
    let to = format!("pub -t s -q 2 -l -h 127.0.0.1 -p {}", nodes[1].port);
    let sent = run(MQTT, &words(&to), &lines);
    assert_eq!(sent.code, Some(0), "{}", sent.stderr);
    let kept = client("pub -t kept -q 1 -r -m here", &nodes[0].port);
    assert_eq!(kept.code, Some(0), "{}", kept.stderr);
    // Mosquitto reads with other identifiers of the same processes.
    let readers = clients(&nodes, "reader");
    for (at, id) in readers.iter().enumerate() {
        let port = &nodes[(at + 1) % 3].port;
        let words = [
            "-h",
            "127.0.0.1",
            "-p",
            port,
            "-i",
            id,
            "-t",
            "kept",
            "-C",
            "1",
        ];
        assert_eq!(run("mosquitto_sub", &words, "").stdout, "here\n");
    }
    let mut all: Vec<u32> = Vec::new();
    while all.len() < 300 {
        all.clear();
        for member in &members {
            let printed = member.printed();
            all.extend(whole_lines(&printed).map(|line| line.parse::<u32>().unwrap()));
        }
    }
    for member in &members {
        assert!(!member.printed().is_empty());
    }
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<_>>());
}

/// A process that is stopped ends the clients that it relays as the owner ends its own: with a reason, and their wills.
#[test]
fn relayed_clients_get_a_reason_when_their_process_is_stopped() {
    let servers = NatsServers::start(1, "");
    let mut nodes = three(&servers, "--engine-replicas 1");
    let ids = clients(&nodes, "client");
    let watcher = at_wrong(&nodes, 2, &format!("sub -i {} -t w -C 1 -d", ids[2]));
    watcher.wait_stderr("receiving SUBACK");
    let with_will = "-t t -d --will-topic w --will-payload gone";
    let relayed = at_wrong(&nodes, 0, &format!("sub -V 5 -i {} {with_will}", ids[0]));
    relayed.wait_stderr("receiving SUBACK");
    let stopped = nodes.remove(1).process;
    stopped.signal("TERM");
    assert_eq!(stopped.end().code, Some(0));
    relayed.wait_stderr("receiving DISCONNECT");
    assert_eq!(watcher.end().stdout, "gone\n");
}

pub(crate) fn is_unavailable(ended: &Ended) -> bool {
    ended.code != Some(0) && ended.stderr.contains("server unavailable")
}

/// Returns the shard that a process has taken.
fn shard(node: &Node) -> String {
    node.process.wait_stderr_after("takes over shard ")
}

/// While a process is away, its clients are refused, those of others are served, a new process starts, and what is published for the
/// shard arrives later.
#[test]
fn others_serve_while_a_shard_is_away() {
    let servers = NatsServers::start(1, "");
    let more = "--engine-replicas 1";
    let mut nodes = three(&servers, more);
    let ids = clients(&nodes, "client");
    let shards: Vec<_> = nodes.iter().map(shard).collect();
    let session = |id| format!("sub -V 5 -i {id} -c -x 3600 -t to/away -q 2");
    for at in [1, 2] {
        let subscribed = at_wrong(&nodes, at, &format!("{} -E", session(&ids[at]))).end();
        assert_eq!(subscribed.code, Some(0), "{}", subscribed.stderr);
    }
    drop(nodes.pop());
    for version in ["5", "3.1.1"] {
        let publish = format!("pub -V {version} -i {} -t t -m 0", ids[2]);
        let away = client(&publish, &nodes[0].port);
        assert!(is_unavailable(&away), "{away:?}");
    }
    // Another one ends as well, and a new process takes one of the two shards while the other one stays away.
    drop(nodes.pop());
    nodes.push(start(&servers, "d", &free_port().to_string(), more));
    nodes[1].process.wait_stderr("listening");
    let is_taken = shard(&nodes[1]) == shards[1];
    let (here, away) = if is_taken { (1, 2) } else { (2, 1) };
    for (at, id) in [&ids[0], &ids[here]].into_iter().enumerate() {
        let reader = at_wrong(&nodes, at, &format!("sub -i {id} -t here -q 1 -C 1 -d"));
        reader.wait_stderr("receiving SUBACK");
        let publish = format!("pub -i p-{id} -t here -q 1 -m 1");
        // The shard of the publisher may be the one that is away.
        let sent = client(&publish, &nodes[1].port);
        let is_served = sent.code == Some(0);
        assert!(is_served || is_unavailable(&sent), "{sent:?}");
        if is_served {
            assert_eq!(reader.end().stdout, "1\n");
        }
        let sent = at_wrong(
            &nodes,
            at,
            &format!("pub -i {id} -t to/away -q 2 -m from/{at}"),
        );
        assert_eq!(sent.end().code, Some(0));
    }
    nodes.push(start(&servers, "e", &free_port().to_string(), more));
    nodes[2].process.wait_stderr("listening");
    let reader = at_wrong(&nodes, 2, &format!("{} -C 2", session(&ids[away])));
    let mut heard: Vec<_> = reader.end().stdout.lines().map(str::to_owned).collect();
    heard.sort();
    assert_eq!(heard, ["from/0", "from/1"]);
}

/// Connects a client of MQTT 5 whose connection ends, and returns what it gets.
fn connected(node: &Node, id: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{}", node.port)).expect("it listens");
    let connect = Packet::Connect(Connect::new(Version::V5, id));
    let bytes = encode(&connect, Version::V5);
    stream.write_all(&bytes).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    answer
}

/// With `engine-redirect`, a client of MQTT 5 is told where its session is. One of 3.1.1 is served.
#[test]
fn a_client_can_be_sent_to_its_process() {
    let servers = NatsServers::start(1, "");
    let more = "--engine-replicas 1 --engine-redirect --node-address";
    let nodes: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            start(
                &servers,
                name,
                &free_port().to_string(),
                &format!("{more} {name}:1883"),
            )
        })
        .into();
    for node in &nodes {
        node.process.wait_stderr("listening");
    }
    let ids = clients(&nodes, "client");
    for (at, (id, name)) in ids.iter().zip([b'a', b'b', b'c']).enumerate() {
        let server = [name, b':', b'1', b'8', b'8', b'3'];
        let connack = [&[0x20, 12, 0, 0x9C, 9, 0x1C, 0, 6], &server[..]].concat();
        assert_eq!(connected(&nodes[(at + 1) % 3], id), connack, "{id}");
        let version_4 = at_wrong(&nodes, at, &format!("pub -i {id} -t t -q 1 -m 0"));
        assert_eq!(version_4.end().code, Some(0));
        let at_home = client(&format!("pub -V 5 -i {id} -t t -q 1 -m 0"), &nodes[at].port);
        assert_eq!(at_home.code, Some(0), "{}", at_home.stderr);
    }
}

/// A broker of one of several shards refuses to be of another number.
#[test]
fn a_process_with_another_number_of_shards_does_not_start() {
    let servers = NatsServers::start(1, "");
    let more = "--engine-replicas 1 --engine-shards";
    let first = broker(&servers, "one", "0", &format!("{more} 3"));
    first.wait_stderr("this process owns the journal");
    let other = broker(&servers, "two", "0", &format!("{more} 2")).end();
    assert_eq!(other.code, Some(1), "{}", other.stderr);
    let why = "the journal 0 has 3 shards, but the configuration of this process has 2";
    assert!(other.stderr.contains(why), "{}", other.stderr);
}
