//! Runs the simulation of the whole system for a few seeds; `cargo run --release -p mqtt-testing --example system` runs
//! thousands.

use mqtt_testing::simulation::{Plan, Report, class, run};

#[test]
fn what_mqtt_promises_is_kept() {
    let mut all = Report::default();
    for seed in 0..8 {
        let report = run(seed, Plan::default()).unwrap_or_else(|broken| panic!("{broken}"));
        assert!(report.published > 100, "{report:?}");
        assert!(report.received > 100, "{report:?}");
        all.add(&report);
    }
    // Runs with short queues have no cuts and kills.
    assert!(all.kills > 0 && all.cuts > 0, "{all:?}");
    assert!(all.repeated > 0 && all.taken_over > 0, "{all:?}");
    assert!(all.crashes > 0 && all.short_queues > 0, "{all:?}");
    // Some connections have WebSocket, a model of TLS or the header of a proxy below MQTT.
    assert!(all.layered > 100 && all.ended > 0, "{all:?}");
}

/// Clients, their programs and the broker lose their memory at any instant, and come back from any prefix of their records that is
/// not shorter than what was reported as stored. `docs/TESTING.md` lists the test of each wait.
#[test]
fn what_was_told_is_true_after_crashes_of_all() {
    let plan = Plan {
        clients: 12,
        operations: 600,
        classes: class::EVERY & !(class::PRESSURE | class::LAYERS | class::LIMITS | class::EXPIRY),
        ..Plan::default()
    };
    let mut all = Report::default();
    for seed in 1..=SEEDS {
        let report = run(seed, plan).unwrap_or_else(|broken| panic!("{broken}"));
        all.add(&report);
    }
    assert!(all.crashes > 100 && all.restored > 100, "{all:?}");
    assert!(all.continued > 100 && all.noted > 100, "{all:?}");
    assert!(all.disks_lost > 10, "{all:?}");
}

/// Two to four shards with links that are cut and delayed serve the clients together. A shard that crashes loses what its journal has
/// not stored; the others go on.
#[test]
fn several_shards_keep_the_promises_of_one_broker() {
    let plan = Plan {
        clients: 12,
        operations: 600,
        classes: class::EVERY & !(class::PRESSURE | class::DISKS),
        shards: 4,
        ..Plan::default()
    };
    let mut all = Report::default();
    for seed in 1..=SHARD_SEEDS {
        let report = run(seed, plan).unwrap_or_else(|broken| panic!("{broken}"));
        all.add(&report);
    }
    assert!(all.between_shards > 1_000, "{all:?}");
    assert!(all.links_cut > 20 && all.crashes > 20, "{all:?}");
    assert!(all.away > 20, "{all:?}");
}

const SHARD_SEEDS: u64 = 30;

/// `docs/TESTING.md` has the seeds that fail without the waits of PUBLISH at QoS 2, PUBREC, PUBREL and PUBCOMP.
const SEEDS: u64 = 60;
