//! The bare connection: one task owns transport, machine and buffer.

use std::ops::{Deref, DerefMut};

use adapter_core::driver;
use async_net::TcpStream;
use futures_io::{AsyncRead, AsyncWrite};
use mqtt_proto::Connect;
use mqtt_session::{Client, Config, Heap};

use crate::Error;
use crate::runtime::{Clock, Stream};

/// A client on one transport, owned by one task. What it can do while it is connected is in [`driver::Connection`].
#[derive(Debug)]
pub struct Connection<T>(driver::Connection<Stream<T>, Clock>);

impl<T> Deref for Connection<T> {
    type Target = driver::Connection<Stream<T>, Clock>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for Connection<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Connection<TcpStream> {
    /// Connects by TCP and sends CONNECT. The first event is [`mqtt_session::Event::Connected`] or
    /// [`mqtt_session::Event::Refused`].
    ///
    /// # Errors
    /// The transport cannot be opened, or CONNECT cannot be written.
    pub async fn dial(address: &str, connect: &Connect<'_>, config: Config) -> Result<Self, Error> {
        let transport = TcpStream::connect(address).await?;
        transport.set_nodelay(true)?;
        Self::new(transport, Client::new(config, Heap), connect)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Begins a connection on a fresh transport, with a new client or one that has a session.
    ///
    /// # Errors
    /// CONNECT cannot be written.
    pub fn new(transport: T, client: Client<Heap>, connect: &Connect<'_>) -> Result<Self, Error> {
        driver::Connection::new(Stream::new(transport), client, connect).map(Self)
    }

    /// As [`driver::Connection::disconnect`].
    ///
    /// # Errors
    /// The transport fails.
    pub async fn disconnect(self) -> Result<Client<Heap>, Error> {
        self.0.disconnect().await
    }

    /// As [`driver::Connection::into_client`].
    #[must_use]
    pub fn into_client(self) -> Client<Heap> {
        self.0.into_client()
    }
}
