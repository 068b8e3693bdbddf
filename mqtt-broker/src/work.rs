//! Counts the steps of what costs more the more clients ask for, so that tests can bound them. Outside tests nothing is
//! counted.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// One item was looked at.
#[inline]
pub(crate) fn step() {
    #[cfg(test)]
    STEPS.set(STEPS.get().wrapping_add(1));
}

/// The steps that `work` takes.
#[cfg(test)]
pub(crate) fn steps<R>(work: impl FnOnce() -> R) -> (usize, R) {
    let before = STEPS.get();
    let result = work();
    (STEPS.get().wrapping_sub(before), result)
}
