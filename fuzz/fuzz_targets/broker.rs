//! Arbitrary connections, input and commands for a broker.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::laws::broker;

fuzz_target!(|data: &[u8]| broker::withstands(data));
