//! Decodes arbitrary bytes, and matches arbitrary text as topics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::laws::{codec, views};
use mqtt_testing::version_of;

fuzz_target!(|data: &[u8]| {
    let (version, bytes) = version_of(data);
    codec::decodes_anything(bytes, version);
    views::agree(bytes, version);
    if let Ok(text) = core::str::from_utf8(bytes) {
        codec::matches_as_the_model(text);
    }
});
