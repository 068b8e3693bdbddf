//! Parses the text of a user file. An error must name one of its lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_broker_host::users;

fuzz_target!(|text: &str| {
    let lines = text.lines().count();
    match users::check(text) {
        Ok(users) => assert!(users <= lines),
        Err((line, _)) => assert!((1..=lines).contains(&line)),
    }
});
