//! Compares who may connect at which listener with what other processes have.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A hash of who may connect at which listener, and what differed from it.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    hash: u64,
    /// The other hash that the log has, by the shard of its process.
    told: BTreeMap<u8, u64>,
}

/// The logins of another process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Others {
    Same,
    /// They differ, and the log has it.
    Told,
    /// They differ, and this is to be logged.
    New,
}

impl Logins {
    pub(crate) fn new(hash: u64) -> Self {
        let told = BTreeMap::new();
        Self(Mutex::new(State { hash, told }))
    }

    pub(crate) fn hash(&self) -> u64 {
        self.state().hash
    }

    /// Changes the hash of this process. What differs from it is to be logged again.
    pub(crate) fn set(&self, hash: u64) {
        let mut state = self.state();
        if state.hash != hash {
            *state = State {
                hash,
                told: BTreeMap::new(),
            };
        }
    }

    /// Compares the logins of the process of another shard. A difference is new once, until one of both changes.
    pub(crate) fn compare(&self, shard: u8, theirs: u64) -> Others {
        let mut state = self.state();
        if state.hash == theirs {
            state.told.remove(&shard);
            return Others::Same;
        }
        match state.told.insert(shard, theirs) == Some(theirs) {
            true => Others::Told,
            false => Others::New,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The value is valid at any time, even if a thread panicked while it held the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_new_once_until_one_of_both_changes() {
        let logins = Logins::new(1);
        assert_eq!(logins.compare(7, 1), Others::Same);
        assert_eq!(logins.compare(7, 2), Others::New);
        assert_eq!(logins.compare(7, 2), Others::Told);
        assert_eq!(logins.compare(8, 2), Others::New);
        // The other process has read its settings again.
        assert_eq!(logins.compare(7, 3), Others::New);
        assert_eq!(logins.compare(7, 1), Others::Same);
        assert_eq!(logins.compare(7, 3), Others::New);
        // This process has, first without a change.
        logins.set(1);
        assert_eq!(logins.compare(7, 3), Others::Told);
        logins.set(4);
        assert_eq!(logins.hash(), 4);
        assert_eq!(logins.compare(7, 3), Others::New);
        assert_eq!(logins.compare(8, 2), Others::New);
        assert_eq!(logins.compare(8, 2), Others::Told);
    }
}
