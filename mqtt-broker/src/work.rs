//! Counts the steps of work, so that no client gets more than its share of a turn. A step is about as much as looking at one
//! node of a tree: a tenth of a microsecond. Tests count some kinds of steps apart.

/// What the calls of the host take, and what the present one may take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    taken: u64,
    until: u64,
}

impl Meter {
    /// From here on there is a share of so many steps.
    pub(crate) fn begin(&mut self, share: u32) {
        self.until = self.taken.wrapping_add(u64::from(share.max(1)));
    }

    pub(crate) fn spend(&mut self, steps: usize) {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        self.taken = self.taken.wrapping_add(steps);
    }

    /// How much of the share is left.
    pub(crate) fn left(&self) -> usize {
        usize::try_from(self.until.saturating_sub(self.taken)).unwrap_or(usize::MAX)
    }

    pub(crate) const fn has_share(&self) -> bool {
        self.taken < self.until
    }

    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Lets `act` take no more than a part of what is left.
    pub(crate) const fn narrow(&mut self, most: u64) -> u64 {
        let until = self.until;
        let end = self.taken.saturating_add(most);
        if end < until {
            self.until = end;
        }
        until
    }

    /// Ends what [`Self::narrow`] began.
    pub(crate) const fn widen(&mut self, until: u64) {
        self.until = until;
    }
}

/// What tests count apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    /// Queued messages that are looked at.
    Queue,
    /// Kept messages that are decoded.
    Decode,
    /// Nodes of the tree of filters that a topic visits.
    Walk,
    /// Shared subscriptions that are looked at to find one.
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

/// One item was looked at.
#[inline]
pub(crate) fn step(work: Work) {
    #[cfg(test)]
    STEPS.with_borrow_mut(|steps| steps.push(work));
    let _ = work;
}

/// The steps of one kind that `act` takes.
#[cfg(test)]
pub(crate) fn steps<R>(work: Work, act: impl FnOnce() -> R) -> (usize, R) {
    STEPS.take();
    let result = act();
    let steps = STEPS.take();
    (steps.iter().filter(|own| **own == work).count(), result)
}
