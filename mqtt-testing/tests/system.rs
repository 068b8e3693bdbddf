//! Runs the simulation of the whole system for a few seeds; `cargo run --release -p mqtt-testing --example system` runs
//! thousands.

use mqtt_testing::simulation::{Plan, Report, run};

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
