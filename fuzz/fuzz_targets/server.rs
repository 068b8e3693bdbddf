//! Passes arbitrary input, commands and ticks to a server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_testing::{laws::machine, machines::Role, version_of};

fuzz_target!(|data: &[u8]| {
    let (version, choices) = version_of(data);
    machine::withstands(choices, Role::Server, version);
});
