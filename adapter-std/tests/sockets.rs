//! The settings of TCP sockets.

use std::ops::Deref;

use futures_lite::future::block_on;
use mqtt_std::{DialOptions, Options, asynch};

struct Handle(mqtt_std::Handle);

impl Deref for Handle {
    type Target = asynch::Handle;

    fn deref(&self) -> &asynch::Handle {
        self.0.as_async()
    }
}

fn start(options: Options, dial: DialOptions) -> Handle {
    Handle(mqtt_std::Handle::start_dialling(options, dial))
}

mqtt_testing::sockets!(start, block_on);
