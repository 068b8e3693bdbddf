//! Stages, one upon the other.

use std::fmt;
use std::net::SocketAddr;

use bytes::BytesMut;

use crate::error::Error;
use crate::queue::Queue;

/// One protocol between the bytes of the transport below and the plain bytes above, without I/O.
///
/// After an error the stage may still have something to say, such as an alert: what is [`outgoing`](Self::outgoing) is
/// to be sent before the transport is closed.
pub trait Stage: fmt::Debug + Send {
    /// Takes all bytes that came from below, and appends the plain ones that they make to `plain`. None may come of it, as
    /// during a handshake.
    ///
    /// # Errors
    /// The peer broke the protocol, or is not who it should be.
    fn input(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error>;

    /// Takes plain bytes to be sent; how many. None before the stage [is open](Self::is_open), or while too many wait below.
    fn output(&mut self, plain: &[u8]) -> usize;

    /// What is to be sent below.
    fn outgoing(&self) -> &[u8];

    /// The transport below took so many bytes of [`Self::outgoing`].
    fn sent(&mut self, n: usize);

    /// The transport below ended.
    ///
    /// # Errors
    /// It ended where the protocol of this stage does not: bytes may be missing.
    fn end_of_file(&mut self) -> Result<(), Error>;

    /// Says the end of the plain bytes, where the protocol has a way to. What the peer sends from then on need not be looked at.
    fn close(&mut self);

    /// Whether the handshake is over.
    fn is_open(&self) -> bool;

    /// Whether the peer said that no plain bytes come any more.
    fn is_ended(&self) -> bool {
        false
    }

    /// Whether the stage does nothing any more but to pass bytes, so that the stack may leave it out.
    fn is_passed(&self) -> bool {
        false
    }

    /// Adds what the stage learned of the peer.
    fn describe(&self, peer: &mut Peer) {
        let _ = peer;
    }
}

/// What the stages learned of the peer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Peer {
    /// The address that a proxy in front of this server tells.
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

/// Stages, one upon the other: bytes of the transport go in at one end, plain ones at the other. Without stages
/// the bytes pass unchanged.
///
/// It is used as each machine here: bytes that were read go to [`input`](Self::input), what is
/// [`outgoing`](Self::outgoing) is written and told by [`sent`](Self::sent).
#[derive(Debug, Default)]
pub struct Stack {
    /// The lowest first.
    stages: Vec<Box<dyn Stage>>,
    /// What waits where there is no stage.
    plain: Queue,
    /// What the stages below told before they were left out.
    peer: Peer,
}

impl Stack {
    /// No stages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a stage on top.
    pub fn push(&mut self, stage: impl Stage + 'static) {
        self.stages.push(Box::new(stage));
        self.pass_down();
    }

    /// The same, as a value.
    #[must_use]
    pub fn with(mut self, stage: impl Stage + 'static) -> Self {
        self.push(stage);
        self
    }

    /// Takes all bytes that the transport brought, and appends the plain ones that they make to `plain`. Those that came before
    /// an error are there as well.
    ///
    /// # Errors
    /// Of a stage. What is [outgoing](Self::outgoing) is still to be sent.
    pub fn input(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        let result = self.pass_up(wire, plain);
        self.pass_down();
        result
    }

    fn pass_up(&mut self, wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        let Some((top, below)) = self.stages.split_last_mut() else {
            plain.extend_from_slice(wire);
            return Ok(());
        };
        let Some((lowest, between)) = below.split_first_mut() else {
            return top.input(wire, plain);
        };
        let mut bytes = BytesMut::new();
        // What came before an error goes up first: the error of the upper stage tells more, if it has one.
        let mut result = lowest.input(wire, &mut bytes);
        for stage in between {
            let mut above = BytesMut::new();
            result = stage.input(&bytes, &mut above).and(result);
            bytes = above;
        }
        top.input(&bytes, plain).and(result)
    }

    /// Takes plain bytes to be sent; how many. None before [`Self::is_open`], or while too many wait to be sent.
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

    /// What is to be sent.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        match self.stages.first() {
            // What is left of a stage that was left out goes first.
            Some(lowest) if self.plain.as_slice().is_empty() => lowest.outgoing(),
            _ => self.plain.as_slice(),
        }
    }

    /// The transport took so many bytes of [`Self::outgoing`].
    pub fn sent(&mut self, n: usize) {
        match self.stages.first_mut() {
            Some(lowest) if self.plain.as_slice().is_empty() => lowest.sent(n),
            _ => self.plain.sent(n),
        }
        self.pass_down();
    }

    /// The transport ended.
    ///
    /// # Errors
    /// It ended where a protocol does not: bytes may be missing, or a handshake is not over.
    pub fn end_of_file(&mut self) -> Result<(), Error> {
        for stage in &mut self.stages {
            stage.end_of_file()?;
        }
        Ok(())
    }

    /// Says the end of the plain bytes in each protocol that has a way to. What the peer sends from then on is dropped by TLS, and
    /// passes elsewhere.
    pub fn close(&mut self) {
        for index in (0..self.stages.len()).rev() {
            if let Some(stage) = self.stages.get_mut(index) {
                stage.close();
            }
            self.pass_down();
        }
    }

    /// Whether all handshakes are over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stages.iter().all(|stage| stage.is_open())
    }

    /// Whether the peer said that no plain bytes come any more.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.stages.iter().any(|stage| stage.is_ended())
    }

    /// Whether bytes pass unchanged.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.stages.is_empty()
    }

    /// What the stages learned of the peer. It is complete when the stack [is open](Self::is_open).
    #[must_use]
    pub fn peer(&self) -> Peer {
        let mut peer = self.peer.clone();
        for stage in &self.stages {
            stage.describe(&mut peer);
        }
        peer
    }

    /// Gives each stage what the one above has to send, and leaves out the lowest ones that only pass bytes.
    fn pass_down(&mut self) {
        while self.stages.first().is_some_and(|lowest| lowest.is_passed()) {
            let lowest = self.stages.remove(0);
            self.plain.0.extend_from_slice(lowest.outgoing());
            lowest.describe(&mut self.peer);
        }
        for upper in (1..self.stages.len()).rev() {
            let (below, above) = self.stages.split_at_mut(upper);
            let (Some(lower), Some(upper)) = (below.last_mut(), above.first_mut()) else {
                return;
            };
            while lower.is_open() && !upper.outgoing().is_empty() {
                let n = lower.output(upper.outgoing());
                if n == 0 {
                    break;
                }
                upper.sent(n);
            }
        }
    }
}
