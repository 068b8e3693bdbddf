//! All servers and brokers are killed at once, or stopped by turns as in an upgrade.

use std::process::Command;

use mqtt_testing::peers::{NatsServers, free_port};
use mqtt_testing::process::Process;

use crate::{LEASE, PAHO, PYTHON, all_arrived, broker, end, goes_on, kept_is_retained, kills};

const SERVERS: usize = 3;

/// Starts a broker for each port.
fn brokers(servers: &NatsServers, ports: &[String], more: &str) -> Vec<Process> {
    let more = format!("{LEASE}{more}");
    let start = |port: &String| broker(servers, &format!("node-{port}"), port, &more);
    ports.iter().map(start).collect()
}

/// Kills all these processes by one call.
fn kill_at_once(ids: impl Iterator<Item = u32>) {
    let ids = ids.map(|id| id.to_string());
    let killed = Command::new("kill").arg("-KILL").args(ids).status();
    assert!(killed.is_ok_and(|status| status.success()), "kill -KILL");
}

/// Kills all servers, and `count` brokers, at once, and starts all of them again with the same files, under load.
fn survives_kills_of_all(count: usize, more: &str) {
    let mut servers = NatsServers::start(SERVERS, "");
    let ports: Vec<_> = (0..count).map(|_| free_port().to_string()).collect();
    let mut running = brokers(&servers, &ports, more);
    let all = ports.join(",");
    let reader = Process::start(PYTHON, &[PAHO, "sub", &all]);
    reader.wait_stdout("subscribed");
    let mut outbox = Process::start(PYTHON, &[PAHO, "pub", &all]);
    for _ in 0..kills() {
        goes_on(&outbox);
        kill_at_once(
            servers
                .ids()
                .into_iter()
                .chain(running.iter().map(Process::id)),
        );
        drop(running);
        for number in 0..SERVERS {
            servers.kill(number);
        }
        for number in 0..SERVERS {
            servers.restart(number);
        }
        running = brokers(&servers, &ports, more);
    }
    goes_on(&outbox);
    let told = end(&mut outbox);
    all_arrived(&told, &reader);
    // One of several without shards serves.
    let serve = ports.iter().zip(&running);
    for (port, _) in serve.filter(|(_, broker)| broker.has_complained("listening")) {
        kept_is_retained(&told, port);
    }
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: paho publishes without a pause at QoS 1 and 2, and paho reads at QoS 2, while the three
/// servers, the owner and the reserve are killed at once. All acknowledged messages at QoS 2 arrive, once and in order.
#[test]
fn acknowledged_messages_survive_the_kill_of_all_servers_and_brokers() {
    survives_kills_of_all(2, "");
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: the same with three processes that have a shard each.
#[test]
fn acknowledged_messages_survive_the_kill_of_all_servers_and_processes_with_shards() {
    survives_kills_of_all(3, " --engine-shards 3");
}

/// 3.1.1 [MQTT-4.1.0-1], 5 [MQTT-4.1.0-1]: the steps of an upgrade in docs/CLUSTER.md, under load: each server is stopped, started and
/// healthy before the next one, then the reserve, then the owner.
#[test]
fn acknowledged_messages_survive_the_steps_of_an_upgrade() {
    let mut servers = NatsServers::start(SERVERS, "");
    let ports = [(); 2].map(|()| free_port().to_string());
    let start = |servers: &NatsServers, port: &str| broker(servers, port, port, "");
    let owner = start(&servers, &ports[0]);
    owner.wait_stderr("listening");
    let reserve = start(&servers, &ports[1]);
    let is_owner = format!("in reserve: {} is the owner", ports[0]);
    reserve.wait_stderr(&is_owner);
    let all = ports.join(",");
    let reader = Process::start(PYTHON, &[PAHO, "sub", &all]);
    reader.wait_stdout("subscribed");
    let mut outbox = Process::start(PYTHON, &[PAHO, "pub", &all]);
    for number in 0..SERVERS {
        goes_on(&outbox);
        servers.stop(number);
        goes_on(&outbox);
        servers.restart(number);
        servers.wait_healthy();
    }
    reserve.signal("TERM");
    assert_eq!(reserve.end().code, Some(0));
    let reserve = start(&servers, &ports[1]);
    reserve.wait_stderr(&is_owner);
    owner.signal("TERM");
    assert_eq!(owner.end().code, Some(0));
    reserve.wait_stderr("listening");
    let owner = start(&servers, &ports[0]);
    owner.wait_stderr(&format!("in reserve: {} is the owner", ports[1]));
    goes_on(&outbox);
    let told = end(&mut outbox);
    all_arrived(&told, &reader);
    kept_is_retained(&told, &ports[1]);
    drop((owner, reserve));
}
