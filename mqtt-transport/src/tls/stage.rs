//! A TLS connection as a stage.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::errors::{Side, told};
use super::identity::Identity;
use crate::detect::{Protocol, detect};
use crate::error::{Error, ErrorKind};
use crate::queue::Queue;
use crate::stack::{Peer, Stage};

/// A TLS connection as a stage.
pub struct TlsStage {
    connection: Connection,
    side: Side,
    queue: Queue,
    /// The first bytes of the peer, until they show its protocol.
    first: Vec<u8>,
    is_protocol_known: bool,
    is_ended: bool,
    is_closed: bool,
    failed: Option<Error>,
}

impl TlsStage {
    /// Makes the stage of a client with a configuration of the caller. [`TlsConnector`](super::TlsConnector) makes
    /// configuration and stage.
    ///
    /// # Errors
    /// The configuration has no cipher suite for any version.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let connection = ClientConnection::new(config, name)
            .map_err(|error| told(error, Side::Client))?
            .into();
        let mut stage = Self::new(connection, Side::Client);
        stage.drain();
        Ok(stage)
    }

    /// Makes the stage of a server with a configuration of the caller. [`TlsServer`](super::TlsServer) makes configuration
    /// and stage.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = ServerConnection::new(config)
            .map_err(|error| told(error, Side::Server))?
            .into();
        Ok(Self::new(connection, Side::Server))
    }

    fn new(connection: Connection, side: Side) -> Self {
        Self {
            connection,
            side,
            queue: Queue::default(),
            first: Vec::new(),
            is_protocol_known: false,
            is_ended: false,
            is_closed: false,
            failed: None,
        }
    }

    /// Returns the identity of the peer's certificate. `None` without one, and during the handshake.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let certificates = self.connection.peer_certificates()?;
        (self.is_open()).then(|| certificates.first().map(Identity::of))?
    }

    /// Returns the application protocol that both sides agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Changes the keys for outgoing bytes, and asks the peer to do the same (TLS 1.3). rustls also does so by itself before
    /// a key has
    /// encrypted too much.
    ///
    /// # Errors
    /// The handshake is not over, or the version is 1.2.
    pub fn refresh_keys(&mut self) -> Result<(), Error> {
        let refreshed = self.connection.refresh_traffic_keys();
        self.drain();
        refreshed.map_err(|error| told(error, self.side))
    }

    /// Gives plain bytes to rustls as far as there is room, and returns how many.
    fn encrypt(&mut self, plain: &[u8]) -> usize {
        let room = plain.len().min(self.queue.room());
        if room == 0 || !self.is_open() || self.is_closed || self.failed.is_some() {
            return 0;
        }
        let bytes = plain.get(..room).unwrap_or_default();
        self.connection.writer().write(bytes).unwrap_or(0)
    }

    /// Moves the outgoing bytes of rustls into the queue.
    fn drain(&mut self) {
        while self.connection.wants_write() {
            // Writing to memory does not fail.
            if !matches!(
                self.connection.write_tls(&mut Memory(&mut self.queue.0)),
                Ok(1..)
            ) {
                return;
            }
        }
    }

    /// Holds back the first bytes until they show the protocol, and returns an error if it is not TLS.
    fn look(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        self.first.extend_from_slice(wire);
        let Some(found) = detect(&self.first) else {
            return Ok(());
        };
        self.is_protocol_known = true;
        let first = std::mem::take(&mut self.first);
        // rustls answers another protocol with an alert, which tells the client that this port is for TLS.
        let taken = self.take(&first, plain);
        let peer = self.side.peer();
        let message = match found {
            Protocol::Tls => return taken,
            Protocol::Unknown => format!("{peer} does not speak TLS"),
            found => format!("{peer} speaks {found} where TLS is expected"),
        };
        Err(Error::new(ErrorKind::WrongProtocol, message))
    }

    fn take(&mut self, mut wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        while !wire.is_empty() {
            // 0: bytes after close_notify are ignored.
            match self.connection.read_tls(&mut wire) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    return Err(Error::new(ErrorKind::TooLarge, format!("TLS: {error}")));
                }
            }
            let processed = self.connection.process_new_packets();
            let mut reader = self.connection.reader();
            // Bytes that were decrypted before an error are valid.
            while let Ok(bytes @ [_, ..]) = reader.fill_buf() {
                let n = bytes.len();
                plain.extend_from_slice(bytes);
                reader.consume(n);
            }
            self.drain();
            match processed {
                Ok(state) => self.is_ended = state.peer_has_closed(),
                // The alert of rustls is among the outgoing bytes.
                Err(error) => return Err(told(error, self.side)),
            }
            self.queue.check()?;
        }
        Ok(())
    }
}

impl Stage for TlsStage {
    fn input(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // A wrong record after close_notify would fail a debug assertion of rustls, which has two alerts to send then.
        if self.is_closed {
            return Ok(());
        }
        let result = if self.is_protocol_known {
            self.take(wire, plain)
        } else {
            self.look(wire, plain)
        };
        self.failed = result.as_ref().err().cloned();
        result
    }

    fn output(&mut self, plain: &[u8]) -> usize {
        let n = self.encrypt(plain);
        self.drain();
        n
    }

    fn output_to(&mut self, plain: &[u8], wire: &mut dyn Write) -> io::Result<usize> {
        if !self.queue.as_slice().is_empty() {
            return Ok(self.output(plain));
        }
        let n = self.encrypt(plain);
        let mut result = Ok(n);
        while self.connection.wants_write() {
            match self.connection.write_tls(wire) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    result = Err(error);
                    break;
                }
                Ok(0) | Err(_) => break,
            }
        }
        self.drain();
        result
    }

    fn outgoing(&self) -> &[u8] {
        self.queue.as_slice()
    }

    fn sent(&mut self, n: usize) {
        self.queue.sent(n);
    }

    fn end_of_file(&mut self) -> Result<(), Error> {
        if self.failed.is_some() || self.is_ended || self.is_closed {
            return Ok(());
        }
        let peer = self.side.peer();
        Err(if self.is_open() {
            Error::new(
                ErrorKind::Truncated,
                format!(
                    "{peer} closed the connection without the end of TLS (close_notify): bytes may be missing"
                ),
            )
        } else if self.is_protocol_known {
            Error::new(
                ErrorKind::HandshakeCut,
                format!("{peer} closed the connection during the TLS handshake"),
            )
        } else {
            Error::new(
                ErrorKind::HandshakeCut,
                format!(
                    "{peer} closed the connection before it said anything in TLS: is this a port for TLS?"
                ),
            )
        })
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.connection.send_close_notify();
        self.drain();
    }

    fn is_open(&self) -> bool {
        !self.connection.is_handshaking()
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }

    fn describe(&self, peer: &mut Peer) {
        peer.identity = self.identity();
        peer.tls = self
            .connection
            .protocol_version()
            .map(|version| format!("{version:?}"));
        peer.resumed = self.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    }
}

/// Writing to memory takes all slices at once.
struct Memory<'a>(&'a mut BytesMut);

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.reserve(slices.iter().map(|slice| slice.len()).sum());
        slices.iter().map(|slice| self.write(slice)).sum()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TlsStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStage")
            .field("side", &self.side)
            .field("is_open", &self.is_open())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
