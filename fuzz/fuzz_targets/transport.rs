//! Passes arbitrary bytes to the stages of TLS, WebSocket and proxies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::laws::transport;

fuzz_target!(|data: &[u8]| transport::withstands(data));
