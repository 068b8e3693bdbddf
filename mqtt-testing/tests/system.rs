//! The whole system, for a few seeds; `cargo run --release -p mqtt-testing --example system` runs thousands.

use mqtt_testing::simulation::{Plan, run};

#[test]
fn what_mqtt_promises_is_kept() {
    for seed in 0..8 {
        let report = run(seed, Plan::default()).unwrap_or_else(|broken| panic!("{broken}"));
        assert!(report.published > 100, "{report:?}");
        assert!(report.received > 100, "{report:?}");
        assert!(report.kills > 0 && report.repeated > 0, "{report:?}");
        assert!(report.cuts > 0 && report.taken_over > 0, "{report:?}");
    }
}
