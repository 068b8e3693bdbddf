//! The suites of the handle over TLS, WebSocket, both, and Unix sockets.

use std::ops::Deref;

use futures_lite::future::block_on;
use mqtt_std::{Options, Scheme, asynch};
use mqtt_testing::wires::terminator::{End, through};

struct Handle(mqtt_std::Handle);

impl Deref for Handle {
    type Target = asynch::Handle;

    fn deref(&self) -> &asynch::Handle {
        self.0.as_async()
    }
}

macro_rules! over {
    ($($module:ident: $scheme:expr;)*) => {
        $(mod $module {
            use super::*;

            fn start(options: Options) -> Handle {
                let (options, dial) = through(options, $scheme, End::Clean);
                Handle(mqtt_std::Handle::start_dialling(options, dial))
            }

            mqtt_testing::handles_through!(start, block_on);
        })*
    };
}

over! {
    tls: Scheme::Mqtts;
    websocket: Scheme::Ws;
    websocket_over_tls: Scheme::Wss;
    unix: Scheme::Unix;
}
