//! The cloneable handle, and the task that drives it.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use adapter_core::driver::drive;
use adapter_core::{Connected, Hub, Options};
use async_net::TcpStream;
use futures_io::{AsyncRead, AsyncWrite};

use crate::runtime::{Clock, Stream};

/// A client that many tasks share: it reconnects, resumes its session, subscribes again what the server forgot, and sends
/// again what was not acknowledged. Everything it can do is in [`Connected`].
///
/// When the last handle and subscription are gone, it sends what is pending for up to five seconds and disconnects;
/// [`Connected::close`] says when that is done.
#[derive(Clone, Debug)]
pub struct Handle(Connected);

impl Deref for Handle {
    type Target = Connected;

    fn deref(&self) -> &Connected {
        &self.0
    }
}

/// The task behind a [`Handle`]: without it nothing happens. Spawn it on the executor you have, such as `smol::spawn(driver)
/// .detach()` or `async_std::task::spawn(driver)`. It ends with the last handle.
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
    /// A client over TCP that connects when its driver is spawned, and never gives up, also where the first attempt fails.
    pub fn new(options: Options) -> (Self, Driver) {
        let (host, port) = (options.host.clone(), options.port);
        Self::with(options, move || {
            let address = (host.clone(), port);
            async move {
                let transport = TcpStream::connect(address).await?;
                transport.set_nodelay(true)?;
                Ok(transport)
            }
        })
    }

    /// The same over any transport: `dial` opens a fresh one for each attempt. TLS, WebSocket, a Unix socket or a serial
    /// port go in here.
    pub fn with<D, F, T>(options: Options, mut dial: D) -> (Self, Driver)
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let hub = Hub::new(options);
        let handle = Self(Connected::new(&hub));
        let driver = drive::<Clock, _, _, _>(hub, move || {
            let dialled = dial();
            async move { dialled.await.map(Stream::from) }
        });
        (handle, Driver(Box::pin(driver)))
    }
}
