//! The suites of the handle over TLS, WebSocket, both, and Unix sockets.

use mqtt_smol::{Handle, Options, Scheme};
use mqtt_testing::wires::terminator::{End, through};

macro_rules! over {
    ($($module:ident: $scheme:expr;)*) => {
        $(mod $module {
            use super::*;

            fn start(options: Options) -> Handle {
                let (options, dial) = through(options, $scheme, End::Clean);
                let (handle, driver) = Handle::dialling(options, dial);
                smol::spawn(driver).detach();
                handle
            }

            mqtt_testing::handles_through!(start, smol::block_on);
        })*
    };
}

over! {
    websocket_over_tls: Scheme::Wss;
    unix: Scheme::Unix;
}
