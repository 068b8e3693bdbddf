//! The borrowed input buffer of a connection: it is filled at its end and consumed from its front.

use core::mem;

use mqtt_session::{Client, Event, Instant, Violation};

use crate::Over;

#[derive(Debug)]
pub(crate) struct Input<'c> {
    bytes: &'c mut [u8],
    filled: usize,
    /// Bytes at the front that the last event borrowed.
    consumed: usize,
    /// Why the connection is over, if it is.
    pub(crate) over: Over,
}

impl<'c> Input<'c> {
    pub(crate) const fn new(bytes: &'c mut [u8]) -> Self {
        Self {
            bytes,
            filled: 0,
            consumed: 0,
            over: Over::Closed,
        }
    }

    /// Removes the consumed bytes.
    pub(crate) fn advance(&mut self) {
        let used = mem::take(&mut self.consumed);
        self.filled = self.filled.saturating_sub(used);
        // A loop over single bytes, because the methods of slices can panic or take more code.
        for at in 0..self.filled {
            let byte = self.bytes.get(at.wrapping_add(used)).copied();
            if let (Some(byte), Some(place)) = (byte, self.bytes.get_mut(at)) {
                *place = byte;
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Returns whether the machine needs more bytes, and there is room for them.
    pub(crate) fn wants_more(&self, client: &Client<'_>) -> bool {
        client.needs(self.bytes()).is_some() && (self.filled < self.bytes.len())
    }

    /// Returns the free part of the buffer.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    /// Notes that `n` bytes were read into the free part.
    pub(crate) fn came(&mut self, n: usize) {
        self.filled = self.filled.saturating_add(n).min(self.bytes.len());
    }

    /// Lets the machine take one step on the content of the buffer.
    pub(crate) fn step(
        &mut self,
        client: &mut Client<'_>,
        now: Instant,
    ) -> Result<Option<Event<'_>>, Violation> {
        let full = self.filled == self.bytes.len();
        let bytes = self.bytes.get(..self.filled).unwrap_or_default();
        // Without an event the next call writes what is outgoing first.
        let (event, consumed) = client.receive_from(bytes, full, now)?;
        self.consumed = consumed;
        match &event {
            Some(Event::Refused(connack)) => self.over = Over::Refused(connack.reason),
            // Before MQTT 5 no server sends it.
            Some(Event::Disconnected(packet)) if cfg!(feature = "v5") => {
                self.over = Over::Disconnected(packet.reason);
            }
            _ => {}
        }
        Ok(event)
    }

    /// Tells the machine the time, after it has seen all of the input.
    pub(crate) fn tick(&mut self, client: &mut Client<'_>, now: Instant) -> Result<(), Violation> {
        // The machine learns that it has seen all of the input, so that it can measure silence.
        client.looked_at_all(now);
        client.tick(now)
    }
}
