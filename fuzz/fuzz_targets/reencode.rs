//! Encodes each accepted packet and decodes the result, which must be the same packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::{laws::codec, version_of};

fuzz_target!(|data: &[u8]| {
    let (version, bytes) = version_of(data);
    codec::reencodes(bytes, version);
});
