//! The cloneable handle: a task of its own drives its hub.

use std::future::Future;
use std::io;
use std::ops::Deref;

use adapter_core::driver::drive;
use adapter_core::{Connected, Error, Hub, Options};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

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

impl Handle {
    /// Connects by TCP, and ends when the server accepted. Later losses are repaired by themselves.
    ///
    /// # Errors
    /// The first attempt fails.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let handle = Self::start(options);
        handle.connected().await?;
        Ok(handle)
    }

    /// Begins to connect by TCP and never gives up, also where the first attempt fails. Must be called within a runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (host, port) = (options.host.clone(), options.port);
        Self::start_with(options, move || {
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
    pub fn start_with<D, F, T>(options: Options, mut dial: D) -> Self
    where
        D: FnMut() -> F + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let hub = Hub::new(options);
        let handle = Self(Connected::new(&hub));
        tokio::spawn(drive::<Clock, _, _, _>(hub, move || {
            let dialled = dial();
            async move { dialled.await.map(Stream::from) }
        }));
        handle
    }
}
