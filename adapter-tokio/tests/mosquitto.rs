//! Runs the tokio client against Mosquitto, also through a proxy that cuts the connection at random bytes.

use std::future::Future;

use mqtt_tokio::{Clock, Handle};

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future)
}

mqtt_testing::interop!(Clock, Handle::start, run);
