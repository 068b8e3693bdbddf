//! Holds the cloneable handle, and the driver task behind it.

use std::ops::Deref;
use std::time::Duration;

use mqtt_adapter_core::driver::{drive, timeout};
use mqtt_adapter_core::{Error, Hub, Message, Options, Outgoing};
use wasm_bindgen_futures::spawn_local;

use crate::socket::Socket;
use crate::timer::Clock;

/// A client that many tasks share. It reconnects, resumes its session, subscribes again if the server lost the session, and sends
/// unacknowledged messages again. [`mqtt_adapter_core::Handle`] has its methods.
///
/// Closing the page does not wait for pending messages: the server sees a cut connection, and publishes the will.
#[derive(Clone, Debug)]
pub struct Handle(mqtt_adapter_core::Handle);

impl Deref for Handle {
    type Target = mqtt_adapter_core::Handle;

    fn deref(&self) -> &mqtt_adapter_core::Handle {
        &self.0
    }
}

impl Handle {
    /// Connects with these options. The future is ready when the server has accepted the connection. From then on the client
    /// reconnects by itself.
    ///
    /// # Errors
    /// The first attempt failed; the client stops then. With [`Self::start`] it tries again.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let handle = Self::start(options);
        handle.first_attempt().await?;
        Ok(handle)
    }

    /// Starts a client with these options. It tries again after a failure. A browser opens only `ws://` and `wss://`, and a page
    /// that was loaded over HTTPS opens only `wss://`.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (scheme, host, port) = (options.scheme, options.host.clone(), options.port);
        let path = options.path.clone();
        let hub = Hub::new(options);
        let handle = Self(mqtt_adapter_core::Handle::new(&hub));
        spawn_local(drive::<Clock, _, _, _>(hub, move || {
            let (host, path) = (host.clone(), path.clone());
            async move { Socket::open(scheme, &host, port, &path).await }
        }));
        handle
    }

    /// Publishes a request and waits for its response, for at most `limit` (5). See
    /// [`mqtt_adapter_core::Handle::await_response`].
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::MessageRefused`] if the server answers that the topic has no subscriber; and the errors
    /// of publishing and of subscribing to the response topic.
    pub async fn request(&self, request: &Outgoing<'_>, limit: Duration) -> Result<Message, Error> {
        timeout::<Clock, _>(limit, self.await_response(*request))
            .await
            .unwrap_or(Err(Error::TimedOut("the response")))
    }
}
