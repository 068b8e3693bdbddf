//! Writing where memory is scarce: one kind of sink, and one copy of all that is not a packet's own.

use super::{Blocks, Counter, Sink, copy, room};
use crate::error::EncodeError;
use crate::varint::VarInt;

/// Counts while there is nothing to fill, and fills afterwards: where memory is scarce, one kind of sink means one copy of each
/// packet's `write`.
#[derive(Debug, Default)]
pub(crate) struct Frugal<'b> {
    counter: Counter,
    rest: Option<&'b mut [u8]>,
}

impl Sink for Frugal<'_> {
    const CHECKS: bool = true;

    #[inline(never)]
    fn bytes(&mut self, bytes: &[u8]) {
        self.counter.bytes(bytes);
        if let Some(rest) = self.rest.take() {
            self.rest = rest.split_at_mut_checked(bytes.len()).map(|(head, rest)| {
                copy(head, bytes);
                rest
            });
        }
    }

    fn block(&mut self, write: impl FnOnce(&mut Self)) {
        if self.rest.is_some() {
            let len = self.counter.blocks.pop();
            self.varint(len);
        }
        let before = self.counter.len;
        write(self);
        if self.rest.is_none() {
            self.counter.end_block(before);
        }
    }

    fn refuse(&mut self, error: EncodeError) {
        self.counter.refuse(error);
    }
}

/// How a packet writes its body.
type Write<'w> = dyn Fn(&mut Frugal<'_>) + 'w;

#[inline(never)]
pub(crate) fn measure(write: &Write<'_>) -> Result<(VarInt, Blocks), EncodeError> {
    let mut counter = Frugal::default();
    write(&mut counter);
    counter.counter.finish()
}

#[inline(never)]
pub(crate) fn encode(
    first_byte: u8,
    write: &Write<'_>,
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    let (remaining, blocks) = measure(write)?;
    let (rest, len) = room(out, remaining)?;
    let mut filler = Frugal::default();
    filler.counter.blocks = blocks;
    filler.rest = Some(rest);
    filler.u8(first_byte);
    filler.varint(remaining);
    write(&mut filler);
    Ok(len)
}
