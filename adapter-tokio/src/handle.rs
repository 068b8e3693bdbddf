//! The cloneable handle: a task of its own drives its hub.

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use mqtt_adapter_core::dial::{DialOptions, Dialler, Opened};
use mqtt_adapter_core::driver::{Transport, drive, timeout};
use mqtt_adapter_core::{Error, Hub, Message, Options, Outgoing};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::runtime::{Clock, Stream, connect};

/// A client that many tasks share: it reconnects, resumes its session, subscribes again what the server forgot, and sends
/// again what was not acknowledged. Everything it can do is in [`mqtt_adapter_core::Handle`].
///
/// When the last handle and stream are gone, it sends what is pending for up to five seconds and disconnects, as long as the
/// runtime goes on: a program that ends then awaits [`mqtt_adapter_core::Handle::close`] first.
#[derive(Clone, Debug)]
pub struct Handle(mqtt_adapter_core::Handle);

impl Deref for Handle {
    type Target = mqtt_adapter_core::Handle;

    fn deref(&self) -> &mqtt_adapter_core::Handle {
        &self.0
    }
}

impl Handle {
    /// Connects as the options say, and ends when the server accepted. Later losses are repaired by themselves.
    ///
    /// # Errors
    /// The first attempt fails; nothing goes on then. [`Self::start`] does not mind, and
    /// [`mqtt_adapter_core::Handle::connected`] waits however long it takes.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let handle = Self::start(options);
        handle.first_attempt().await?;
        Ok(handle)
    }

    /// Begins to connect as the options say and goes on trying. Must be called within a runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        Self::start_dialling(options, DialOptions::default())
    }

    /// The same with settings of TLS, WebSocket or a proxy.
    #[must_use]
    pub fn start_dialling(options: Options, dial: DialOptions) -> Self {
        let dialler = Arc::new(Dialler::new(&options, dial));
        Self::spawn(options, move || {
            let dialler = Arc::clone(&dialler);
            async move { Opened::new(connect(dialler.target()).await?, &dialler).await }
        })
    }

    /// The same over any transport: `dial` opens a fresh one for each attempt. A serial port goes in here, or a stream that is
    /// secured by other means.
    pub fn start_with<D, F, T>(options: Options, mut dial: D) -> Self
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::spawn(options, move || {
            let dialled = dial();
            async move { dialled.await.map(Stream::from) }
        })
    }

    fn spawn<D, F, W>(options: Options, dial: D) -> Self
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<W>> + Send + 'static,
        W: Transport + Send + 'static,
    {
        let hub = Hub::new(options);
        let handle = Self(mqtt_adapter_core::Handle::new(&hub));
        tokio::spawn(drive::<Clock, _, _, _>(hub, dial));
        handle
    }

    /// Publishes a request and awaits its response, for at most `limit` (5). See [`mqtt_adapter_core::Handle::await_response`].
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::MessageRefused`] if nobody listens there and the server says so; and what refuses a
    /// publish or the subscription to the response topic.
    pub async fn request(&self, request: &Outgoing<'_>, limit: Duration) -> Result<Message, Error> {
        timeout::<Clock, _>(limit, self.await_response(*request))
            .await
            .unwrap_or(Err(Error::TimedOut("the response")))
    }
}
