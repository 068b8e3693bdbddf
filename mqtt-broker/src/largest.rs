//! Finds the holders with the most bytes, so that they can be ended when all holders together have too many.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use mqtt_session::Instant;
use mqtt_session::proto::ReasonCode;

use crate::broker::{Broker, Next, usize_of};
use crate::connection::ConnectionId;
use crate::hooks::Hooks;

/// How many bytes of a packet that has not arrived completely are not counted.
const PARTIAL: usize = 4 << 10;
/// How many bytes a host reads at once.
const ONE_READ: usize = 64 << 10;

/// Holders by their bytes.
#[derive(Debug, Default)]
pub(crate) struct Largest {
    /// The holders: those with more binary digits of bytes first, and the older one of two with equally many.
    order: BTreeSet<(Reverse<u32>, u64, u32)>,
    bytes: usize,
    serial: u64,
}

/// The part of one holder.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    bytes: usize,
    /// A number that is larger than that of holders which have had bytes for longer.
    since: u64,
}

impl Largest {
    /// Sets how many bytes a holder has; 0 removes it.
    pub(crate) fn set(&mut self, holder: u32, part: &mut Part, bytes: usize) {
        if part.bytes == bytes {
            return;
        }
        if part.bytes > 0 {
            self.order.remove(&(rank(part.bytes), part.since, holder));
        } else {
            self.serial = self.serial.wrapping_add(1);
            part.since = self.serial;
        }
        self.bytes = self.bytes.saturating_sub(part.bytes).saturating_add(bytes);
        part.bytes = bytes;
        if bytes > 0 {
            self.order.insert((rank(bytes), part.since, holder));
        }
    }

    /// Returns the bytes of all holders.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the holder to be ended first.
    pub(crate) fn first(&self) -> Option<u32> {
        self.order.first().map(|(_, _, holder)| *holder)
    }
}

impl Part {
    pub(crate) const fn bytes(self) -> usize {
        self.bytes
    }
}

const fn rank(bytes: usize) -> Reverse<u32> {
    Reverse(usize::BITS.saturating_sub(bytes.leading_zeros()))
}

impl<H: Hooks> Broker<H> {
    /// Ends sessions without a connection while all machines exceed their limit: those with the most bytes first, if these are
    /// more than the share of a session.
    pub(crate) fn end_largest_parked(&mut self, now: Instant) {
        let total = self.config.connection_bytes_total;
        let share = (total / 2).checked_div(self.sessions.len()).unwrap_or(0);
        while self.heap_bytes > total
            && let Some(key) = self.parked.first()
            && let Some(session) = self.sessions.get(usize_of(key))
            && session.held.bytes() > share
        {
            self.end_session(key, now);
        }
    }

    /// Counts the received bytes of a connection that the broker has not accepted. If all connections have too many, ends those
    /// with the most. Returns what the connection waits for.
    pub(crate) fn count_input(
        &mut self,
        id: ConnectionId,
        bytes: usize,
        next: Next,
        now: Instant,
    ) -> Next {
        // A client that waits for its turn or for others is not ended for what one read has brought.
        let least = match next {
            Next::Needs(_) => PARTIAL,
            _ => ONE_READ,
        };
        let counted = if bytes > least { bytes } else { 0 };
        let connection = self.connections.get_mut(id.index());
        let Some(connection) = connection.filter(|c| c.is(id) && !c.ended) else {
            return Next::Closing;
        };
        self.inputs.set(id.index, &mut connection.input, counted);
        let limit = self.config.input_bytes_total;
        let limit = limit.max(usize_of(self.config.packet_size));
        while self.inputs.bytes() > limit
            && let Some(index) = self.inputs.first()
        {
            self.close(index, ReasonCode::QuotaExceeded, now);
        }
        if self.is_closing(id) {
            Next::Closing
        } else {
            next
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::number;

    #[test]
    fn the_largest_is_first_and_of_equal_ones_the_oldest() {
        let mut largest = Largest::default();
        let mut parts = [Part::default(); 4];
        for (holder, bytes) in [100, 1_000, 1_001, 900].into_iter().enumerate() {
            largest.set(number(holder), &mut parts[holder], bytes);
        }
        assert_eq!((largest.first(), largest.bytes()), (Some(1), 3_001));
        // It stays the oldest while it grows within its binary digits.
        largest.set(1, &mut parts[1], 1_020);
        assert_eq!(largest.first(), Some(1));
        largest.set(1, &mut parts[1], 0);
        assert_eq!(largest.first(), Some(2));
        largest.set(1, &mut parts[1], 600);
        largest.set(0, &mut parts[0], 2_000);
        assert_eq!(largest.first(), Some(0));
        for holder in [0, 2, 3] {
            largest.set(number(holder), &mut parts[holder], 0);
        }
        assert_eq!((largest.first(), largest.bytes()), (Some(1), 600));
    }
}
