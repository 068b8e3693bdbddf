//! Counts the steps of what costs more the more clients ask for, so that tests can bound them. Outside tests nothing is
//! counted.

/// What is counted.
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
