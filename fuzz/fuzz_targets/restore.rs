//! Restores a broker and an agent from arbitrary records.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::laws::{journal, restarts};

fuzz_target!(|data: &[u8]| {
    journal::restores_or_refuses(data);
    restarts::restores_or_refuses(data);
});
