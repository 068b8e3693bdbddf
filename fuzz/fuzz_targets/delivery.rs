//! The law of delivery on arbitrary schedules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::{schedule, version_of};

fuzz_target!(|data: &[u8]| {
    let (version, choices) = version_of(data);
    schedule::delivers(choices, version);
});
