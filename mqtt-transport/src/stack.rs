//! A stack of stages.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::task::Poll;

use bytes::BytesMut;

use crate::error::Error;
use crate::queue::Queue;

/// Returns what a transport that does not wait took, as a writer for [`Stage::output_to`] returns it.
///
/// # Errors
/// The transport failed, or takes nothing now: [`io::ErrorKind::WouldBlock`].
///
/// ```
/// use std::io::ErrorKind;
/// use std::task::Poll;
///
/// use mqtt_transport::taken_now;
///
/// assert_eq!(taken_now(Poll::Ready(Ok(3))).unwrap(), 3);
/// assert_eq!(taken_now(Poll::Pending).unwrap_err().kind(), ErrorKind::WouldBlock);
/// ```
pub fn taken_now(written: Poll<io::Result<usize>>) -> io::Result<usize> {
    match written {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// One protocol between the bytes of the transport below and the plain bytes above, without I/O.
///
/// After an error, [`outgoing`](Self::outgoing) may still have bytes, such as an alert. They are to be sent before the
/// transport is closed.
pub trait Stage: fmt::Debug + Send {
    /// Takes all bytes from below, and appends their plain bytes to `plain`. There may be none, as during a handshake.
    ///
    /// # Errors
    /// The peer broke the protocol, or its identity is not accepted.
    fn input(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error>;

    /// Takes plain bytes to be sent and returns how many: none before [`is_open`](Self::is_open), or while too many wait
    /// below.
    fn output(&mut self, plain: &[u8]) -> usize;

    /// Takes plain bytes as [`Self::output`] does, and may write outgoing bytes to `wire`, which saves a copy of them. Bytes that
    /// `wire` does not take now, with [`io::ErrorKind::WouldBlock`], are added to [`Self::outgoing`].
    ///
    /// # Errors
    /// `wire` fails.
    fn output_to(&mut self, plain: &[u8], wire: &mut dyn Write) -> io::Result<usize> {
        let _ = wire;
        Ok(self.output(plain))
    }

    /// Returns the bytes to be sent below.
    fn outgoing(&self) -> &[u8];

    /// Notes that the transport below took the first `n` bytes of [`Self::outgoing`].
    fn sent(&mut self, n: usize);

    /// Tells the stage that the stream of the transport below ended.
    ///
    /// # Errors
    /// The protocol of this stage has not ended: bytes may be missing.
    fn end_of_file(&mut self) -> Result<(), Error>;

    /// Sends the end of the plain bytes, if the protocol has one. Later bytes of the peer may be ignored.
    fn close(&mut self);

    /// Returns whether the handshake is over.
    fn is_open(&self) -> bool;

    /// Returns whether the peer has ended its plain bytes.
    fn is_ended(&self) -> bool {
        false
    }

    /// Returns whether the stage only passes bytes from now on, so that the stack may remove it.
    fn is_passed(&self) -> bool {
        false
    }

    /// Adds what the stage knows of the peer.
    fn describe(&self, peer: &mut Peer) {
        let _ = peer;
    }
}

/// The facts about the peer that the stages have found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Peer {
    /// The address of the client, as a proxy in front of this server reports it.
    pub address: Option<SocketAddr>,
    /// The certificate of the peer.
    #[cfg(feature = "tls")]
    pub identity: Option<crate::tls::Identity>,
    /// The version of TLS, such as `TLSv1_3`.
    pub tls: Option<String>,
    /// Whether the TLS session was resumed.
    pub resumed: bool,
    /// The path of the HTTP request.
    pub path: Option<String>,
    /// The sub-protocol of WebSocket.
    pub sub_protocol: Option<&'static str>,
}

/// A stack of stages: bytes of the transport at the lower end, plain bytes at the upper end. Without stages the bytes pass
/// unchanged.
///
/// It is driven like the other machines of this family: bytes that were read go to [`input`](Self::input), and
/// [`outgoing`](Self::outgoing) is written and reported with [`sent`](Self::sent).
#[derive(Debug, Default)]
pub struct Stack {
    /// The lowest stage first.
    stages: Vec<Box<dyn Stage>>,
    /// The outgoing bytes if there is no stage.
    plain: Queue,
    /// The facts about the peer that removed stages have found.
    peer: Peer,
    /// The stage that has ended. Those below it end when they have its outgoing bytes. 0: there is none below it.
    ended: usize,
}

impl Stack {
    /// Makes a stack without stages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a stage on top.
    pub fn push(&mut self, stage: impl Stage + 'static) {
        self.stages.push(Box::new(stage));
        self.pass_down();
    }

    /// Puts a stage on top, and returns the stack.
    #[must_use]
    pub fn with(mut self, stage: impl Stage + 'static) -> Self {
        self.push(stage);
        self
    }

    /// Takes all bytes from the transport, and appends their plain bytes to `plain`, including those before an error.
    ///
    /// # Errors
    /// A stage failed. [`Self::outgoing`] is still to be sent: its last bytes, and the end of the stages below it.
    pub fn input(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        let result = self.pass_up(wire, plain);
        if let Err((lowest, _)) = result {
            self.ended = lowest;
        }
        self.pass_down();
        result.map_err(|(_, error)| error)
    }

    /// Passes received bytes up through the stages. An error has the index of the lowest stage that failed.
    fn pass_up(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), (usize, Error)> {
        let Some((top, below)) = self.stages.split_last_mut() else {
            plain.extend_from_slice(wire);
            return Ok(());
        };
        let top_index = below.len();
        let Some((lowest, between)) = below.split_first_mut() else {
            return top.input(wire, plain).map_err(|error| (0, error));
        };
        // Plain bytes are fewer, so they are not moved when the buffer grows.
        let mut bytes = BytesMut::with_capacity(wire.len());
        // Bytes before an error go up first: if the upper stage fails on them, its error is more precise.
        let mut result = lowest.input(wire, &mut bytes).map_err(|error| (0, error));
        for (index, stage) in (1..).zip(between) {
            let mut above = BytesMut::new();
            result = more_precise(stage.input(&bytes, &mut above), index, result);
            bytes = above;
        }
        more_precise(top.input(&bytes, plain), top_index, result)
    }

    /// Takes plain bytes to be sent and returns how many: none before [`Self::is_open`], or while too many wait to be sent.
    pub fn output(&mut self, plain: &[u8]) -> usize {
        if !self.is_open() {
            return 0;
        }
        let n = match self.stages.last_mut() {
            Some(top) => top.output(plain),
            None => {
                let n = plain.len().min(self.plain.room());
                self.plain
                    .0
                    .extend_from_slice(plain.get(..n).unwrap_or_default());
                n
            }
        };
        self.pass_down();
        n
    }

    /// Takes plain bytes as [`Self::output`] does, and may write outgoing bytes to `wire`, which does not wait. What is left is in
    /// [`Self::outgoing`].
    ///
    /// # Errors
    /// `wire` fails.
    pub fn output_to(&mut self, plain: &[u8], wire: &mut dyn Write) -> io::Result<usize> {
        if !self.is_open() || !self.plain.as_slice().is_empty() {
            return Ok(self.output(plain));
        }
        let n = match self.stages.as_mut_slice() {
            [only] => only.output_to(plain, wire)?,
            [_, .., top] => top.output(plain),
            [] => return Ok(self.output(plain)),
        };
        self.pass_down_to(wire)?;
        Ok(n)
    }

    /// Returns the bytes to be sent.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        match self.stages.first() {
            // Bytes of a removed stage go first.
            Some(lowest) if self.plain.as_slice().is_empty() => lowest.outgoing(),
            _ => self.plain.as_slice(),
        }
    }

    /// Notes that the transport took the first `n` bytes of [`Self::outgoing`].
    pub fn sent(&mut self, n: usize) {
        match self.stages.first_mut() {
            Some(lowest) if self.plain.as_slice().is_empty() => lowest.sent(n),
            _ => self.plain.sent(n),
        }
        self.pass_down();
    }

    /// Tells the stages that the stream of the transport ended.
    ///
    /// # Errors
    /// A protocol has not ended: bytes may be missing, or a handshake is not over.
    pub fn end_of_file(&mut self) -> Result<(), Error> {
        for stage in &mut self.stages {
            stage.end_of_file()?;
        }
        Ok(())
    }

    /// Sends the end of the plain bytes in each protocol that has one, behind the outgoing bytes. TLS ignores later bytes of the peer;
    /// other stages pass them.
    pub fn close(&mut self) {
        if let Some(top) = self.stages.last_mut() {
            top.close();
        }
        self.ended = self.stages.len().saturating_sub(1);
        self.pass_down();
    }

    /// Returns whether all handshakes are over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stages.iter().all(|stage| stage.is_open())
    }

    /// Returns whether the peer has ended its plain bytes.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.stages.iter().any(|stage| stage.is_ended())
    }

    /// Returns whether bytes pass unchanged.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.stages.is_empty()
    }

    /// Returns what the stages know of the peer. It is complete when [`Self::is_open`] is true.
    #[must_use]
    pub fn peer(&self) -> Peer {
        let mut peer = self.peer.clone();
        self.describe(&mut peer);
        peer
    }

    /// Adds what the present stages know of the peer.
    pub(crate) fn describe(&self, peer: &mut Peer) {
        for stage in &self.stages {
            stage.describe(peer);
        }
    }

    /// Gives each stage the outgoing bytes of the one above.
    fn pass_down(&mut self) {
        // A writer that takes nothing does not fail.
        let _ = self.pass_down_to(&mut Full);
    }

    /// Gives each stage the outgoing bytes of the one above, and then its end; the lowest one may write its own to `wire`. Removes the
    /// lowest stages that only pass bytes.
    fn pass_down_to(&mut self, wire: &mut dyn Write) -> io::Result<()> {
        while self.stages.first().is_some_and(|lowest| lowest.is_passed()) {
            let lowest = self.stages.remove(0);
            self.ended = self.ended.saturating_sub(1);
            self.plain.0.extend_from_slice(lowest.outgoing());
            lowest.describe(&mut self.peer);
        }
        for index in (1..self.stages.len()).rev() {
            let (below, above) = self.stages.split_at_mut(index);
            // Bytes of a removed stage go first.
            let is_lowest = below.len() == 1 && self.plain.as_slice().is_empty();
            let (Some(lower), Some(upper)) = (below.last_mut(), above.first_mut()) else {
                break;
            };
            while lower.is_open() && !upper.outgoing().is_empty() {
                let n = match is_lowest {
                    true => lower.output_to(upper.outgoing(), wire)?,
                    false => lower.output(upper.outgoing()),
                };
                if n == 0 {
                    break;
                }
                upper.sent(n);
            }
            // A stage that is still in its handshake never takes the bytes of the one above.
            if index == self.ended && (upper.outgoing().is_empty() || !lower.is_open()) {
                lower.close();
                self.ended = index - 1;
            }
        }
        Ok(())
    }
}

/// Joins the result of a stage with that of the stages below it, whose error is less precise.
fn more_precise(
    result: Result<(), Error>,
    index: usize,
    below: Result<(), (usize, Error)>,
) -> Result<(), (usize, Error)> {
    match (result, below) {
        (Ok(()), below) => below,
        (Err(error), Err((lowest, _))) => Err((lowest, error)),
        (Err(error), Ok(())) => Err((index, error)),
    }
}

/// A writer that takes nothing now.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
