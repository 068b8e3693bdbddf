//! Passes arbitrary connections, input and commands to a broker.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::laws::broker;

fuzz_target!(|data: &[u8]| broker::withstands(data));
