//! Checks the law of delivery with arbitrary schedules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::{laws::delivery, version_of};

fuzz_target!(|data: &[u8]| {
    let (version, choices) = version_of(data);
    delivery::delivers(choices, version);
});
