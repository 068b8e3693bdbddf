//! Holds the cloneable handle, and the driver task behind it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use mqtt_adapter_core::dial::{DialOptions, Dialler, Opened};
use mqtt_adapter_core::driver::{Transport, client, connected};
use mqtt_adapter_core::runtime::connect;
use mqtt_adapter_core::{Error, Options};

use crate::runtime::{Clock, Smol, Stream};

mqtt_adapter_core::declare_handle! {
    /// A client that many tasks share. It reconnects, resumes its session, subscribes again if the server lost the session, and sends
    /// unacknowledged messages again. [`mqtt_adapter_core::Handle`] has its methods.
    ///
    /// After the last handle and stream are dropped, the driver sends pending messages for at most five seconds, and disconnects, if
    /// the executor still runs. A program that ends then awaits [`mqtt_adapter_core::Handle::close`] first.
    pub struct Handle timed by Clock;
}

/// The driver task of a [`Handle`]. The client does nothing until the program spawns it on its executor, such as by
/// `smol::spawn(driver).detach()` or `async_std::task::spawn(driver)`. The task ends after the last handle is dropped.
#[must_use = "nothing happens before it is spawned"]
pub struct Driver(Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Handle {
    /// Connects with these options. The future is ready when the server has accepted the connection. `spawn` gives the driver to
    /// an executor, such as `|driver| smol::spawn(driver).detach()`. From then on the client reconnects by itself.
    ///
    /// # Errors
    /// The first attempt failed; the client stops then. With [`Self::new`] it tries again, and
    /// [`mqtt_adapter_core::Handle::connected`] waits without a time limit.
    pub async fn connect(options: Options, spawn: impl FnOnce(Driver)) -> Result<Self, Error> {
        let (handle, driver) = Self::new(options);
        spawn(driver);
        connected(handle).await
    }

    /// Makes a client with these options. It connects when its driver is spawned, and tries again after a failure.
    pub fn new(options: Options) -> (Self, Driver) {
        Self::dialling(options, DialOptions::default())
    }

    /// Makes a client with settings for TLS, WebSocket or a proxy.
    pub fn dialling(options: Options, dial: DialOptions) -> (Self, Driver) {
        let dialler = Arc::new(Dialler::new(&options, dial));
        Self::driven(options, move || {
            let dialler = Arc::clone(&dialler);
            async move { Opened::new(connect::<Smol>(&dialler).await?, &dialler).await }
        })
    }

    /// Makes a client over any transport, such as a serial port. `dial` opens a new transport for each attempt.
    pub fn with<D, F, T>(options: Options, mut dial: D) -> (Self, Driver)
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::driven(options, move || {
            let dialled = dial();
            async move { dialled.await.map(Stream::from) }
        })
    }

    fn driven<D, F, W>(options: Options, dial: D) -> (Self, Driver)
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<W>> + Send + 'static,
        W: Transport + Send + 'static,
    {
        let (handle, driver) = client::<Clock, _, _, _>(options, dial);
        (Self(handle), Driver(Box::pin(driver)))
    }
}
