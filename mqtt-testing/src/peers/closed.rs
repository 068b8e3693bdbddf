//! A port without a listener.

use std::net::{TcpListener, TcpStream};

/// A port of 127.0.0.1 where nobody listens. It is taken, by the client of a connection, so that nobody else can listen there while this
/// exists.
#[derive(Debug)]
pub struct ClosedPort {
    client: TcpStream,
    _server: TcpListener,
}

impl ClosedPort {
    /// Takes a port.
    ///
    /// # Panics
    /// The system has none.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each has a port of its own")]
    pub fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = server.local_addr().expect("it is bound");
        Self {
            client: TcpStream::connect(address).expect("it listens"),
            _server: server,
        }
    }

    /// Returns its number.
    ///
    /// # Panics
    /// The system does not tell it.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.client.local_addr().expect("it is connected").port()
    }
}
