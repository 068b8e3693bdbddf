//! Finds the holders with the most bytes, so that they can be ended when all holders together have too many.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use mqtt_session::Instant;
use mqtt_session::proto::ReasonCode;
use mqtt_session::proto::num::to_usize;

use crate::broker::{Broker, Next};
use crate::connection::ConnectionId;
use crate::hooks::Hooks;
use crate::work::{steps_of_bytes, steps_of_new_memory};

/// How many bytes of a packet that has not arrived completely are not counted.
const PARTIAL: usize = 4 << 10;
/// How many bytes a host may read at once.
const ONE_READ: usize = 64 << 10;

/// Holders by their bytes.
#[derive(Debug)]
pub(crate) struct Largest<K> {
    /// The holders: those with more binary digits of bytes first, and the older one of two with equally many.
    order: BTreeSet<(Reverse<u32>, u64, K)>,
    bytes: usize,
    serial: u64,
}

/// The part of one holder.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    bytes: usize,
    /// A number that is larger than that of holders which have been in the order for longer; 0 if the holder is not in the order.
    since: u64,
}

impl<K> Default for Largest<K> {
    fn default() -> Self {
        Self {
            order: BTreeSet::new(),
            bytes: 0,
            serial: 0,
        }
    }
}

impl<K: Copy + Ord> Largest<K> {
    /// Sets how many bytes a holder has; 0 removes it.
    pub(crate) fn set(&mut self, holder: K, part: &mut Part, bytes: usize) {
        self.place(holder, part, bytes, bytes > 0);
    }

    /// Sets how many bytes a holder has that is not to be ended for them.
    pub(crate) fn set_kept(&mut self, holder: K, part: &mut Part, bytes: usize) {
        self.place(holder, part, bytes, false);
    }

    fn place(&mut self, holder: K, part: &mut Part, bytes: usize, may_end: bool) {
        if part.bytes == bytes && (part.since > 0) == may_end {
            return;
        }
        if part.since > 0 {
            self.order.remove(&(rank(part.bytes), part.since, holder));
        }
        self.bytes = self.bytes.saturating_sub(part.bytes).saturating_add(bytes);
        part.bytes = bytes;
        if !may_end {
            part.since = 0;
            return;
        }
        if part.since == 0 {
            self.serial = self.serial.saturating_add(1);
            part.since = self.serial;
        }
        self.order.insert((rank(bytes), part.since, holder));
    }

    /// Returns the bytes of all holders.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the holder to be ended first.
    pub(crate) fn first(&self) -> Option<K> {
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
            && let Some(session) = self.sessions.get(key)
            && session.held.bytes() > share
        {
            self.end_session(key, now);
        }
    }

    fn input_limit(&self) -> usize {
        let total = self.config.input_bytes_total;
        total.max(to_usize(self.config.packet_size))
    }

    /// Returns how many bytes the host should read at once from a connection. It is a few kilobytes before CONNECT is accepted,
    /// since the host keeps what the client sends behind it, and while the input that waits in all connections is more than half of
    /// its limit.
    #[must_use]
    pub fn read_size(&self, id: ConnectionId) -> usize {
        let is_scarce = self.inputs.bytes() > self.input_limit() / 2;
        match self.is_accepted(id) && !is_scarce {
            true => ONE_READ,
            false => PARTIAL,
        }
    }

    /// Notes that the host has read this many bytes, which is work as well: [`Self::steps`] counts it.
    pub fn has_read(&mut self, bytes: usize) {
        self.meter.spend(steps_of_bytes(bytes));
    }

    /// Notes that the host keeps this many bytes in memory until their packet is complete: [`Self::steps`] counts it.
    pub fn has_kept(&mut self, bytes: usize) {
        self.meter.spend(steps_of_new_memory(bytes));
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
        let counted = if bytes > PARTIAL { bytes } else { 0 };
        let connection = self.connections.get_mut(id.index);
        let Some(connection) = connection.filter(|c| c.is(id) && !c.ended) else {
            return Next::Closing;
        };
        // A client that waits for its turn or for others is not ended for what one read has brought.
        let is_kept = !matches!(next, Next::Needs(_)) && bytes <= ONE_READ;
        match is_kept {
            true => self
                .inputs
                .set_kept(id.index, &mut connection.input, counted),
            false => self.inputs.set(id.index, &mut connection.input, counted),
        }
        let limit = self.input_limit();
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
    use mqtt_session::proto::num::to_u32;

    use super::*;

    #[test]
    fn the_largest_is_first_and_of_equal_ones_the_oldest() {
        let mut largest = Largest::default();
        let mut parts = [Part::default(); 4];
        for (holder, bytes) in [100, 1_000, 1_001, 900].into_iter().enumerate() {
            largest.set(to_u32(holder), &mut parts[holder], bytes);
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
            largest.set(to_u32(holder), &mut parts[holder], 0);
        }
        assert_eq!((largest.first(), largest.bytes()), (Some(1), 600));
        // Its bytes count, but it is not ended for them.
        largest.set_kept(1, &mut parts[1], 600);
        assert_eq!((largest.first(), largest.bytes()), (None, 600));
        largest.set(1, &mut parts[1], 600);
        assert_eq!((largest.first(), largest.bytes()), (Some(1), 600));
        largest.set_kept(1, &mut parts[1], 0);
        assert_eq!((largest.first(), largest.bytes()), (None, 0));
    }
}
