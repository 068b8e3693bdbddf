//! Compares passwords, which takes long on purpose: comparisons wait in a bounded queue and run beside the broker.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mqtt_broker::ConnectionId;
use tokio::time::Instant;

use crate::users::Claim;

/// The waiting comparisons, and the number of running ones.
#[derive(Clone, Debug)]
pub(crate) struct PasswordChecks(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    /// The waiting comparisons; the newest is the last.
    waiting: VecDeque<Check>,
    most: usize,
    running: usize,
    workers: usize,
    comparisons: u64,
}

/// A password to be compared.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) connection: ConnectionId,
    pub(crate) user: String,
    pub(crate) password: Vec<u8>,
    pub(crate) claim: Claim,
}

/// The result of [`Checks::add`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Added {
    /// The queue is full.
    Full,
    /// The comparison waits for a worker.
    Waits,
    /// The comparison waits, and the caller has to start a worker: see [`Checks::work`].
    NeedsWorker,
}

impl PasswordChecks {
    /// Makes a queue for `most` comparisons. One processor is left to the broker, and the others compare.
    pub(crate) fn new(most: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self(Arc::new(Mutex::new(Queue {
            waiting: VecDeque::new(),
            most,
            running: 0,
            workers: processors.saturating_sub(1).max(1),
            comparisons: 0,
        })))
    }

    pub(crate) fn set_most(&self, most: usize) {
        self.queue().most = most;
    }

    pub(crate) fn add(&self, check: Check) -> Added {
        let mut queue = self.queue();
        if queue.waiting.len() >= queue.most {
            return Added::Full;
        }
        queue.waiting.push_back(check);
        if queue.running == queue.workers {
            return Added::Waits;
        }
        queue.running += 1;
        Added::NeedsWorker
    }

    /// Removes the comparison of a connection that has ended.
    pub(crate) fn forget(&self, connection: ConnectionId) {
        let mut queue = self.queue();
        queue.waiting.retain(|check| check.connection != connection);
    }

    /// Compares until no comparison waits. The oldest is first, so that all have their turn. While the queue is more than half full,
    /// the newest is first, because its client is the least likely to have given up.
    pub(crate) fn work(&self, compare: impl Fn(&Check) -> bool, tell: impl Fn(ConnectionId, bool)) {
        while let Some(check) = self.next() {
            let Claim { proof, memory, .. } = &check.claim;
            // Another client of the same user may have proved the password while this one waited.
            let is_right = memory.knows(&check.user, proof, Instant::now()) || {
                self.queue().comparisons += 1;
                let is_right = compare(&check) && check.claim.is_known;
                if is_right {
                    memory.remember(&check.user, *proof, Instant::now());
                }
                is_right
            };
            tell(check.connection, is_right);
        }
    }

    /// Returns the next comparison. If there is none, the calling worker no longer counts as running.
    fn next(&self) -> Option<Check> {
        let mut queue = self.queue();
        let next = if queue.waiting.len() > queue.most / 2 {
            queue.waiting.pop_back()
        } else {
            queue.waiting.pop_front()
        };
        if next.is_none() {
            queue.running -= 1;
        }
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The value is valid at any time, even if a thread panicked while it held the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use mqtt_broker::{Broker, Config, Hooks};
    use mqtt_session::Instant as BrokerInstant;

    use super::*;
    use crate::Users;

    struct Open;

    impl Hooks for Open {
        fn unguessable(&mut self) -> u128 {
            1
        }
    }

    /// Returns names of connections of a broker.
    fn connections(count: usize) -> Vec<ConnectionId> {
        let now = BrokerInstant::from_millis(0);
        let mut broker = Broker::new(Config::default(), Open, now);
        (0..count).map(|_| broker.open(now).unwrap()).collect()
    }

    /// Logs a client in. Returns whether the password is known without a comparison, and otherwise the result of adding one.
    fn logs_in(
        checks: &PasswordChecks,
        users: &Users,
        connection: ConnectionId,
        (user, password): (&str, &str),
    ) -> Option<Added> {
        let claim = users.claim(user, password.as_bytes()).unwrap();
        if claim.memory.knows(user, &claim.proof, Instant::now()) {
            return None;
        }
        Some(checks.add(Check {
            connection,
            user: user.to_owned(),
            password: password.into(),
            claim,
        }))
    }

    fn is_secret(check: &Check) -> bool {
        check.password == b"secret"
    }

    #[test]
    fn honest_clients_come_back_without_a_comparison_while_an_attacker_fills_the_queue() {
        const HONEST: usize = 1_000;
        const QUEUE: usize = 100;
        let (checks, users) = (PasswordChecks::new(QUEUE), Users::numbered(HONEST));
        let connections = connections(HONEST + 1_000);
        let names: Vec<String> = (0..HONEST).map(|n| format!("user-{n}")).collect();
        for (name, connection) in names.iter().zip(&connections) {
            let added = logs_in(&checks, &users, *connection, (name, "secret"));
            assert_eq!(added, Some(Added::NeedsWorker));
            checks.work(is_secret, |_, is_right| assert!(is_right));
        }
        assert_eq!(checks.queue().comparisons, HONEST as u64);
        // The attacker fills the queue; later clients are refused at once.
        for (n, connection) in connections[HONEST..].iter().enumerate() {
            let name = format!("user-{n}");
            let added = logs_in(&checks, &users, *connection, (&name, "guess"));
            assert_eq!(added == Some(Added::Full), n >= QUEUE, "{n}: {added:?}");
        }
        for (name, connection) in names.iter().zip(&connections) {
            assert_eq!(
                logs_in(&checks, &users, *connection, (name, "secret")),
                None
            );
        }
        checks.work(is_secret, |_, is_right| assert!(!is_right));
        assert_eq!(checks.queue().comparisons, (HONEST + QUEUE) as u64);
    }

    #[test]
    fn a_thousand_clients_of_one_user_are_one_comparison() {
        let (checks, users) = (PasswordChecks::new(1_000), Users::numbered(1));
        for connection in connections(1_000) {
            logs_in(&checks, &users, connection, ("user-0", "secret"));
        }
        let told = RefCell::new(0);
        checks.work(is_secret, |_, is_right| {
            assert!(is_right);
            *told.borrow_mut() += 1;
        });
        assert_eq!((checks.queue().comparisons, told.take()), (1, 1_000));
    }

    /// Returns the indexes of five clients in the order of their comparisons, in a queue for `most`. The third is gone.
    fn order(most: usize) -> Vec<usize> {
        let (checks, users) = (PasswordChecks::new(most), Users::numbered(1));
        let connections = connections(5);
        for connection in &connections {
            logs_in(&checks, &users, *connection, ("user-0", "wrong"));
        }
        checks.forget(connections[2]);
        let order = RefCell::new(Vec::new());
        checks.work(is_secret, |connection, _| {
            order
                .borrow_mut()
                .extend(connections.iter().position(|own| *own == connection));
        });
        assert_eq!(checks.queue().comparisons, 4);
        order.take()
    }

    #[test]
    fn the_newest_is_first_in_a_full_queue_and_the_oldest_in_another() {
        assert_eq!(order(10), [0, 1, 3, 4]);
        assert_eq!(order(5), [4, 3, 0, 1]);
    }

    #[test]
    fn an_unknown_user_is_refused_even_with_the_password_of_the_hash() {
        let (checks, users) = (PasswordChecks::new(10), Users::numbered(1));
        let connection = connections(1)[0];
        for _ in 0..2 {
            let added = logs_in(&checks, &users, connection, ("nobody", "secret"));
            assert_eq!(added, Some(Added::NeedsWorker));
            checks.work(is_secret, |_, is_right| assert!(!is_right));
        }
    }
}
