//! The blocking handle, where things go wrong: what its promises share with the others is tested through the client inside it.

use std::ops::Deref;

use adapter_std::{Options, asynch};
use futures_lite::future::block_on;

struct Handle(adapter_std::Handle);

impl Deref for Handle {
    type Target = asynch::Handle;

    fn deref(&self) -> &asynch::Handle {
        self.0.as_async()
    }
}

fn start(options: Options) -> Handle {
    Handle(adapter_std::Handle::start(options))
}

mqtt_testing::handles!(start, block_on);
mqtt_testing::services!(start, block_on, 5_000);
