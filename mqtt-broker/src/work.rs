//! Counts the steps of work, so that a client cannot take more than its share of a turn. A step is about the time of visiting one
//! node of a tree: a tenth of a microsecond. Tests count some kinds of steps separately.

use mqtt_session::proto::num::to_u64;

/// The steps of the host's calls, and the limit for the current one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    taken: u64,
    until: u64,
}

impl Meter {
    /// Begins a share of this many steps.
    pub(crate) fn begin(&mut self, share: u32) {
        self.until = self.taken.wrapping_add(u64::from(share.max(1)));
    }

    pub(crate) fn spend(&mut self, steps: usize) {
        let steps = to_u64(steps);
        self.taken = self.taken.wrapping_add(steps);
    }

    /// Returns how many steps of the share remain.
    pub(crate) fn left(&self) -> usize {
        usize::try_from(self.until.saturating_sub(self.taken)).unwrap_or(usize::MAX)
    }

    pub(crate) const fn has_share(&self) -> bool {
        self.taken < self.until
    }

    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Limits the next steps to a part of the remaining ones.
    pub(crate) const fn limit_share(&mut self, most: u64) -> u64 {
        let until = self.until;
        let end = self.taken.saturating_add(most);
        if end < until {
            self.until = end;
        }
        until
    }

    /// Ends the limit of [`Self::limit_share`].
    pub(crate) const fn restore_share(&mut self, until: u64) {
        self.until = until;
    }
}

/// Returns the steps of taking a packet of `len` bytes, beside what it leads to: the smallest takes about a microsecond.
pub(crate) const fn packet_steps(len: usize) -> usize {
    8_usize.saturating_add(len / 256)
}

/// Returns the steps of reading `bytes` bytes.
pub(crate) const fn steps_of_bytes(bytes: usize) -> usize {
    bytes / 256
}

/// Returns the steps of the first write to `bytes` bytes of memory: the system provides and clears each of their pages.
pub(crate) const fn steps_of_new_memory(bytes: usize) -> usize {
    bytes / 48
}

/// The kinds of steps that tests count separately.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    /// Queued messages that are visited.
    Queue,
    /// Stored messages that are decoded.
    Decode,
    /// Nodes of the tree of filters that a topic visits.
    Walk,
    /// Shared subscriptions that are visited to find one.
    Group,
    /// Filters of one packet that are looked at.
    Filter,
    /// Subscribers of one filter that are looked at to find one.
    Member,
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::RefCell<Vec<Work>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Counts one step.
#[inline]
pub(crate) fn step(work: Work) {
    #[cfg(test)]
    STEPS.with_borrow_mut(|steps| steps.push(work));
    let _ = work;
}

/// Returns how many steps of one kind `act` takes.
#[cfg(test)]
pub(crate) fn steps<R>(work: Work, act: impl FnOnce() -> R) -> (usize, R) {
    STEPS.take();
    let result = act();
    let steps = STEPS.take();
    (steps.iter().filter(|own| **own == work).count(), result)
}
