//! The input buffer of a connection: lent, filled at its end, used up at its front.

use core::mem;

use mqtt_session::{Event, Instant, Step, Violation};

use crate::State;

#[derive(Debug)]
pub(crate) struct Input<'c> {
    bytes: &'c mut [u8],
    filled: usize,
    /// Bytes at the front that the last event borrowed.
    consumed: usize,
}

impl<'c> Input<'c> {
    pub(crate) const fn new(bytes: &'c mut [u8]) -> Self {
        Self {
            bytes,
            filled: 0,
            consumed: 0,
        }
    }

    /// What was used up gives way.
    pub(crate) fn advance(&mut self) {
        let used = mem::take(&mut self.consumed).min(self.filled);
        if used > 0 {
            // In pieces that do not overlap, which cannot panic.
            let mut rest = self.bytes.get_mut(..self.filled).unwrap_or_default();
            while let Some((piece, behind)) = mem::take(&mut rest).split_at_mut_checked(used) {
                for (to, from) in piece.iter_mut().zip(&*behind) {
                    *to = *from;
                }
                rest = behind;
            }
            self.filled = self.filled.saturating_sub(used);
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Whether the machine can go on only with more bytes, and there is room for them.
    pub(crate) fn wants_more(&self, client: &State<'_>) -> bool {
        client.needs(self.bytes()).is_some() && (self.filled < self.bytes.len())
    }

    /// Room for what comes.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    /// So much came into the room.
    pub(crate) fn came(&mut self, n: usize) {
        self.filled = self.filled.saturating_add(n).min(self.bytes.len());
    }

    /// One step of the machine on what is there.
    pub(crate) fn step(
        &mut self,
        client: &mut State<'_>,
        now: Instant,
    ) -> Result<Option<Event<'_>>, Violation> {
        let full = self.filled == self.bytes.len();
        let bytes = self.bytes.get(..self.filled).unwrap_or_default();
        let step = client.receive_from(bytes, full, now)?;
        Ok(match step {
            Step::Packet { consumed, event } => {
                self.consumed = consumed;
                event
            }
            // What is outgoing is written first, the next time.
            Step::Needs(_) | Step::Blocked => None,
        })
    }

    /// Time passes: whatever came was looked at.
    pub(crate) fn tick(&mut self, client: &mut State<'_>, now: Instant) -> Result<(), Violation> {
        // The machine learns that all there was is looked at, for its judgement of silence.
        client.looked_at_all(now);
        client.tick(now)
    }
}
