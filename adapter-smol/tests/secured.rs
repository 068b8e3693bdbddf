//! Runs the suites of the handle over TLS, WebSocket, both, and Unix sockets.

use mqtt_smol::{DialOptions, Handle, Options, Scheme};

fn start(options: Options, dial: DialOptions) -> Handle {
    let (handle, driver) = Handle::dialling(options, dial);
    smol::spawn(driver).detach();
    handle
}

mqtt_testing::handles_over! { start, smol::block_on;
    websocket_over_tls: Scheme::Wss;
    unix: Scheme::Unix;
}

/// Tests with brokers that have TLS and WebSocket built in.
mod brokers {
    use super::*;

    mqtt_testing::secured!(start, smol::block_on);
}
