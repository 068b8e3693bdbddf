//! Calls the methods of an agent in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::{laws::agent, version_of};

fuzz_target!(|data: &[u8]| {
    let (version, choices) = version_of(data);
    agent::withstands(choices, version);
});
