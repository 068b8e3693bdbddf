//! Collects the head of an HTTP message until its empty line.

use crate::error::{Error, ErrorKind};

/// The head of an HTTP message, up to a limit.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    limit: usize,
}

impl Head {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }

    /// Returns the bytes that have arrived.
    pub(crate) fn so_far(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes bytes from the front of `wire` until the head is whole. Leaves the bytes behind it.
    ///
    /// # Errors
    /// The head is longer than the limit.
    pub(crate) fn take(&mut self, wire: &mut &[u8]) -> Result<Option<Vec<u8>>, Error> {
        // The empty line may have begun in the bytes of an earlier call.
        let before = self.bytes.len();
        let from = before.saturating_sub(END.len() - 1);
        let taken = wire.len().min(self.limit.saturating_sub(before));
        let (now, _) = wire.split_at(taken);
        self.bytes.extend_from_slice(now);
        let recent = self.bytes.get(from..).unwrap_or_default();
        let end = recent.windows(END.len()).position(|bytes| bytes == END);
        if let Some(end) = end.map(|at| from + at + END.len()) {
            *wire = wire.get(end - before..).unwrap_or_default();
            self.bytes.truncate(end);
            return Ok(Some(std::mem::take(&mut self.bytes)));
        }
        *wire = wire.get(taken..).unwrap_or_default();
        if self.bytes.len() >= self.limit {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the HTTP headers are longer than {} bytes", self.limit),
            ));
        }
        Ok(None)
    }
}

const END: &[u8] = b"\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_may_come_in_any_pieces() {
        let whole = b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest";
        for cut in 0..whole.len() {
            let (mut first, mut second) = whole.split_at(cut);
            let mut head = Head::new(100);
            let found = match head.take(&mut first).unwrap() {
                Some(found) => found,
                None => head.take(&mut second).unwrap().unwrap(),
            };
            assert_eq!(found, b"GET / HTTP/1.1\r\nA: b\r\n\r\n", "{cut}");
            assert_eq!([first, second].concat(), b"rest", "{cut}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_refused_at_the_limit() {
        let mut head = Head::new(16);
        let mut wire = &b"GET / HTTP/1.1\r\nX"[..];
        assert_eq!(
            head.take(&mut wire).unwrap_err().kind(),
            ErrorKind::TooLarge
        );
    }
}
