//! Parses the text of a configuration file. Accepted settings are checked, and become the limits of a broker.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_broker_host::Settings;

fuzz_target!(|text: &str| {
    match Settings::parse(text) {
        Ok(settings) => {
            let _ = settings.check();
            let _ = settings.config();
            let same = settings.clone().or(Settings::default());
            assert_eq!(format!("{same:?}"), format!("{settings:?}"));
        }
        Err((line, _)) => assert!(line.is_none_or(|line| line <= text.lines().count() + 1)),
    }
});
