//! Arbitrary records for a broker that starts, and for an agent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::laws::{journal, restarts};

fuzz_target!(|data: &[u8]| {
    journal::restores_or_refuses(data);
    restarts::restores_or_refuses(data);
});
