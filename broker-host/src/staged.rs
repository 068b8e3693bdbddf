//! Runs TLS, WebSocket and the header of a proxy between one transport and its link.

use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};

use mqtt_broker::ConnectionId;
use mqtt_transport::bytes::{Buf, BytesMut};
use mqtt_transport::{Error, Protocol, Stack, taken_now};
use tokio::sync::OwnedSemaphorePermit;

use crate::layers::Layers;
use crate::link::Wire;
use crate::peer::{Peer, Peers, source};

/// How many reads of one turn may yield no bytes for the broker, such as those of a handshake.
const FRUITLESS: usize = 4;

/// The stages of one connection, and their buffered bytes.
#[derive(Debug)]
pub(crate) struct Staged {
    stack: Stack,
    layers: Arc<Layers>,
    peer: Peer,
    /// Plain bytes that were not read yet.
    plain: BytesMut,
    /// The permit of a handshake while it runs.
    permit: Option<OwnedSemaphorePermit>,
    is_open: bool,
    /// Why the connection ended, until that is logged.
    failed: Option<Error>,
    /// Whether further input is ignored.
    is_over: bool,
    /// Whether another thread does the steps of the handshake.
    pub(crate) shakes_elsewhere: bool,
    /// Bytes that were read for the next step of the handshake, if another thread does it.
    pub(crate) unshaken: Option<Vec<u8>>,
    /// Whether the transport has more bytes than were read in this turn.
    pub(crate) has_more: bool,
}

impl Staged {
    /// Makes the stages of a connection from `peer`.
    pub(crate) fn new(
        layers: &Arc<Layers>,
        peer: Peer,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, Error> {
        Ok(Self {
            stack: layers.stack(peer.address)?,
            layers: Arc::clone(layers),
            peer,
            plain: BytesMut::new(),
            permit,
            is_open: false,
            failed: None,
            is_over: false,
            shakes_elsewhere: false,
            unshaken: None,
            has_more: false,
        })
    }

    /// Combines the stages with a transport for one turn.
    pub(crate) fn over<'a, W>(
        &'a mut self,
        wire: &'a mut W,
        id: ConnectionId,
        peers: &'a Peers,
    ) -> Over<'a, W> {
        Over {
            wire,
            staged: self,
            id,
            peers,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Does a step of the handshake.
    pub(crate) fn shake(&mut self, bytes: &[u8]) {
        if let Err(error) = self.input(bytes) {
            self.fail(error);
        }
    }

    /// Returns the peer, which the stages know after their handshakes.
    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Logs once why the connection ended.
    pub(crate) fn log_failure(&mut self, id: ConnectionId, peers: &Peers) {
        if let Some(error) = self.failed.take() {
            let is_told = tell(peers, &self.peer, &error, self.is_open);
            peers.set_told(id, is_told);
        }
    }

    /// Passes read bytes to the stages.
    fn input(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.is_open {
            // Plain bytes are fewer, so they are not moved when the buffer grows.
            self.plain.reserve(bytes.len());
        }
        // Plain bytes before an error are valid.
        let result = self.stack.input(bytes, &mut self.plain);
        if !self.is_open && self.stack.is_open() {
            let told = self.stack.peer();
            // The stages are whole: they end as after a clean connection.
            self.peer.user = self
                .layers
                .user(&told)
                .inspect_err(|_| self.stack.close())?;
            if let Some(address) = told.address {
                self.peer.address = Some(address);
                self.peer.source = source(address.ip());
            } else if let Some(address) = self.peer.address
                && told.path.is_none()
                && !self.layers.has_proxy_header(address.ip())
            {
                // A stream without an HTTP request has no header that names another address.
                self.peer.source = source(address.ip());
            }
            self.peer.layers = Some(Arc::new(told));
            self.is_open = true;
            self.permit = None;
        }
        result
    }

    fn fail(&mut self, error: Error) {
        self.is_over = true;
        self.permit = None;
        self.failed = Some(error);
    }
}

/// A transport with its stages, for one turn.
pub(crate) struct Over<'a, W> {
    wire: &'a mut W,
    staged: &'a mut Staged,
    id: ConnectionId,
    peers: &'a Peers,
}

impl<W: Wire> Over<'_, W> {
    /// Reads once from the transport, and passes the bytes to the stages. Pending also while another thread does a step of the
    /// handshake with them.
    fn fill(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.wire.read(space))?;
        let was_open = self.staged.is_open;
        if !was_open && self.staged.shakes_elsewhere && read > 0 {
            self.staged.unshaken = space.get(..read).map(<[u8]>::to_vec);
            return Poll::Pending;
        }
        let result = match read {
            0 => self.staged.stack.end_of_file(),
            n => self.staged.input(space.get(..n).unwrap_or_default()),
        };
        if let Err(error) = result {
            self.staged.fail(error);
        }
        if self.staged.is_open && !was_open {
            self.peers.set(self.id, self.staged.peer.clone());
        }
        // The stages may have answers of a handshake, alerts or pongs to send.
        if let Poll::Ready(Err(error)) = self.flush() {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(read))
    }

    /// Reads until there are plain bytes behind the first ones. Returns how many there are; 0 at the end.
    fn read_behind(&mut self, before: usize, space: &mut [u8]) -> Poll<io::Result<usize>> {
        for _ in 0..FRUITLESS {
            if self.staged.plain.len() > before {
                return Poll::Ready(Ok(self.staged.plain.len() - before));
            }
            if self.staged.is_over {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if self.staged.stack.is_ended() {
                return Poll::Ready(Ok(0));
            }
            let read = ready!(self.fill(space))?;
            if read == 0 && !self.staged.is_over {
                return Poll::Ready(Ok(0));
            }
        }
        self.staged.has_more = true;
        Poll::Pending
    }
}

impl<W: Wire> Wire for Over<'_, W> {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let n = ready!(self.read_behind(0, space))?;
        Poll::Ready(Ok(n.min(space.len())))
    }

    fn bytes<'a>(&'a self, _: &'a [u8], n: usize) -> &'a [u8] {
        self.staged.plain.get(..n).unwrap_or_default()
    }

    fn has_buffer(&self) -> bool {
        true
    }

    fn read_onto(&mut self, rest: &mut BytesMut, space: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.staged.is_open || !self.staged.plain.is_empty() {
            let n = ready!(self.read(space))?;
            rest.extend_from_slice(self.bytes(space, n));
            self.release(n);
            return Poll::Ready(Ok(n));
        }
        // The stages append to it.
        std::mem::swap(&mut self.staged.plain, rest);
        let read = self.read_behind(self.staged.plain.len(), space);
        std::mem::swap(&mut self.staged.plain, rest);
        read
    }

    fn release(&mut self, n: usize) {
        let plain = &mut self.staged.plain;
        plain.advance(n.min(plain.len()));
        if plain.is_empty() {
            // A silent connection keeps no buffer.
            *plain = BytesMut::new();
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Nothing is taken while bytes of the stages wait, because then the stages would have to store these as well.
        ready!(self.flush())?;
        let mut direct = Direct(&mut *self.wire);
        let taken = self.staged.stack.output_to(bytes, &mut direct)?;
        if let Poll::Ready(Err(error)) = self.flush() {
            return Poll::Ready(Err(error));
        }
        match taken {
            0 => Poll::Pending,
            n => Poll::Ready(Ok(n)),
        }
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        loop {
            let outgoing = self.staged.stack.outgoing();
            if outgoing.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.wire.write(outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.staged.stack.sent(n),
            }
        }
    }

    fn shut_down(&mut self) -> Poll<io::Result<()>> {
        if !self.staged.is_over {
            self.staged.is_over = true;
            self.staged.permit = None;
            self.staged.stack.close();
        }
        ready!(self.flush())?;
        self.wire.shut_down()
    }

    fn discard(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        self.wire.read(space)
    }

    fn has_failed(&self) -> bool {
        self.staged.is_over
    }
}

/// A transport as a writer that does not wait.
struct Direct<'a, W>(&'a mut W);

impl<W: Wire> io::Write for Direct<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        taken_now(self.0.write(bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        taken_now(self.0.write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs why a connection ended, or could not begin, unless its address has many such lines. Returns `false` if the reason is only for
/// debugging.
#[cfg(feature = "files")]
pub(crate) fn tell(peers: &Peers, peer: &Peer, why: &Error, was_open: bool) -> bool {
    let address = peer.address.map(tracing::field::display);
    if was_open && why.kind() == mqtt_transport::ErrorKind::Truncated {
        // Many clients close the connection without the closing alert of TLS.
        tracing::debug!(peer = address, %why, "a connection was cut");
        return false;
    }
    if peers.may_log_failure(peer) {
        match was_open {
            true => tracing::info!(peer = address, %why, "a connection failed"),
            false => tracing::info!(peer = address, %why, "a handshake failed"),
        }
    }
    true
}

/// Returns which protocol the first bytes of a connection show, if that is not MQTT.
pub(crate) fn other_protocol(first: &[u8]) -> Option<Protocol> {
    let is_other =
        |found: &Protocol| matches!(found, Protocol::Tls | Protocol::Http | Protocol::Proxy);
    mqtt_transport::detect(first).filter(is_other)
}

/// Logs that a connection was refused because of its protocol.
#[cfg(feature = "files")]
pub(crate) fn log_other_protocol(peers: &Peers, peer: &Peer, found: Protocol) {
    if peers.may_log_failure(peer) {
        let peer = peer.address.map(tracing::field::display);
        let why = format_args!("the client speaks {found} where plain MQTT is expected");
        tracing::info!(peer, %why, "a handshake failed");
    }
}

/// Does nothing in a build without a log.
#[cfg(not(feature = "files"))]
pub(crate) fn log_other_protocol(_: &Peers, _: &Peer, _: Protocol) {}

/// Does nothing in a build without stages.
#[cfg(not(feature = "files"))]
pub(crate) fn tell(_: &Peers, _: &Peer, _: &Error, _: bool) -> bool {
    false
}
