//! Servers that SRV records name.

mod awaited;

use awaited::Handle;
use futures_lite::future::block_on;
use mqtt_std::{DialOptions, Options};

fn start(options: Options, dial: DialOptions) -> Handle {
    Handle(mqtt_std::Handle::start_dialling(options, dial))
}

mqtt_testing::srv!(start, block_on);
