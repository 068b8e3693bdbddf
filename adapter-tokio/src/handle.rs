//! Holds the cloneable handle, and the driver task behind it.

use std::future::Future;
use std::io;
use std::sync::Arc;

use mqtt_adapter_core::dial::{DialOptions, Dialler, Opened};
use mqtt_adapter_core::driver::{Transport, client, connected};
use mqtt_adapter_core::{Error, Options};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::runtime::{Clock, Stream, connect};

mqtt_adapter_core::declare_handle! {
    /// A client that many tasks share. It reconnects, resumes its session, subscribes again if the server lost the session, and sends
    /// unacknowledged messages again. [`mqtt_adapter_core::Handle`] has its methods.
    ///
    /// After the last handle and stream are dropped, the driver sends pending messages for at most five seconds, and disconnects, if
    /// the runtime still runs. A program that ends then awaits [`mqtt_adapter_core::Handle::close`] first.
    pub struct Handle timed by Clock;
}

impl Handle {
    /// Connects with these options. The future is ready when the server has accepted the connection. From then on the client
    /// reconnects by itself.
    ///
    /// # Errors
    /// The first attempt failed; the client stops then. With [`Self::start`] it tries again, and
    /// [`mqtt_adapter_core::Handle::connected`] waits without a time limit.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        connected(Self::start(options)).await
    }

    /// Starts a client with these options. It tries again after a failure. Must be called within a runtime.
    pub fn start(options: Options) -> Self {
        Self::start_dialling(options, DialOptions::default())
    }

    /// Starts a client with settings for TLS, WebSocket or a proxy.
    pub fn start_dialling(options: Options, dial: DialOptions) -> Self {
        let dialler = Arc::new(Dialler::new(&options, dial));
        Self::start_over(options, move || {
            let dialler = Arc::clone(&dialler);
            async move { Opened::new(connect(&dialler).await?, &dialler).await }
        })
    }

    /// Starts a client over any transport, such as a serial port. `dial` opens a new transport for each attempt.
    pub fn start_with<D, F, T>(options: Options, mut dial: D) -> Self
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::start_over(options, move || {
            let dialled = dial();
            async move { dialled.await.map(Stream::from) }
        })
    }

    /// Starts a client over a transport of `mqtt_adapter_core`, such as one that the program opens by [`connect`](crate::connect)
    /// and [`Opened`] to inspect it.
    pub fn start_over<D, F, W>(options: Options, dial: D) -> Self
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<W>> + Send + 'static,
        W: Transport + Send + 'static,
    {
        let (handle, driver) = client::<Clock, _, _, _>(options, dial);
        tokio::spawn(driver);
        Self(handle)
    }
}
