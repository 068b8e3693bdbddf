//! Holds the cloneable handle, and the driver task behind it.

use mqtt_adapter_core::driver::{client, connected};
use mqtt_adapter_core::{Error, Options};
use wasm_bindgen_futures::spawn_local;

use crate::socket::Socket;
use crate::timer::Clock;

mqtt_adapter_core::declare_handle! {
    /// A client that many tasks share. It reconnects, resumes its session, subscribes again if the server lost the session, and sends
    /// unacknowledged messages again. [`mqtt_adapter_core::Handle`] has its methods.
    ///
    /// Closing the page does not wait for pending messages: the server sees a cut connection, and publishes the will.
    pub struct Handle timed by Clock;
}

impl Handle {
    /// Connects with these options. The future is ready when the server has accepted the connection. From then on the client
    /// reconnects by itself.
    ///
    /// # Errors
    /// The first attempt failed; the client stops then. With [`Self::start`] it tries again.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        connected(Self::start(options)).await
    }

    /// Starts a client with these options. It tries again after a failure. A browser opens only `ws://` and `wss://`, and a page
    /// that was loaded over HTTPS opens only `wss://`.
    pub fn start(options: Options) -> Self {
        let (scheme, host, port) = (options.scheme, options.host.clone(), options.port);
        let path = options.path.clone();
        let (handle, driver) = client::<Clock, _, _, _>(options, move || {
            let (host, path) = (host.clone(), path.clone());
            async move { Socket::open(scheme, &host, port, &path).await }
        });
        spawn_local(driver);
        Self(handle)
    }
}
