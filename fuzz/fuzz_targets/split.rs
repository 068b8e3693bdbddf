//! Checks that any split of a stream into reads yields the same packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::{choices::Choices, laws::codec, version_of};

fuzz_target!(|data: &[u8]| {
    let (version, bytes) = version_of(data);
    codec::split_invariant(bytes, &mut Choices::new(data), version, 4_096);
});
