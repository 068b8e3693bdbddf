//! Runs the suites of the handle over TLS, WebSocket, both, and Unix sockets.

mod awaited;

use awaited::Handle;
use futures_lite::future::block_on;
use mqtt_std::{DialOptions, Options, Scheme};

fn start(options: Options, dial: DialOptions) -> Handle {
    Handle(mqtt_std::Handle::start_dialling(options, dial))
}

mqtt_testing::handles_over! { start, block_on;
    tls: Scheme::Mqtts;
    websocket: Scheme::Ws;
    websocket_over_tls: Scheme::Wss;
    unix: Scheme::Unix;
}

/// Tests with brokers that have TLS and WebSocket built in.
mod brokers {
    use super::*;

    mqtt_testing::secured!(start, block_on);
}
