//! The outgoing bytes of a stage.

use bytes::{Buf, BytesMut};

#[cfg(any(feature = "tls", feature = "websocket"))]
use crate::error::{Error, ErrorKind};

/// How many bytes may wait in a stage before it takes no more output. One call may exceed it by one record or frame.
pub const OUTGOING_LIMIT: usize = 64 << 10;

/// How many bytes of answers (alerts, pongs) may wait before the peer counts as one that does not read them.
#[cfg(any(feature = "tls", feature = "websocket"))]
const ANSWERS: usize = 64 << 10;

/// Bytes that wait for the transport below.
#[derive(Debug, Default)]
pub(crate) struct Queue(pub(crate) BytesMut);

impl Queue {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// # Panics
    /// Never: an `n` that is larger than what waits removes all bytes.
    pub(crate) fn sent(&mut self, n: usize) {
        self.0.advance(n.min(self.0.len()));
        if self.0.is_empty() && self.0.capacity() > 2 * OUTGOING_LIMIT {
            self.0 = BytesMut::new();
        }
    }

    /// Returns how many bytes may be added now.
    pub(crate) fn room(&self) -> usize {
        OUTGOING_LIMIT.saturating_sub(self.0.len())
    }

    /// Returns an error if too many answers wait for a peer that does not read.
    #[cfg(any(feature = "tls", feature = "websocket"))]
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.0.len() > 2 * OUTGOING_LIMIT + ANSWERS {
            return Err(Error::new(
                ErrorKind::Flooded,
                "the peer asks for answers and does not read them",
            ));
        }
        Ok(())
    }
}
