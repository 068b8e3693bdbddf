//! Arbitrary records for a broker that starts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::laws::journal;

fuzz_target!(|data: &[u8]| journal::restores_or_refuses(data));
