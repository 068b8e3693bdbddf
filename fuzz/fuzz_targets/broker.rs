//! Arbitrary connections, input and commands for a broker.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::siege;

fuzz_target!(|data: &[u8]| siege::withstands(data));
